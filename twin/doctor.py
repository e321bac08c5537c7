"""``twin doctor``: whether everything is there that a run needs, and whether this computer keeps time."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket as sockets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Finding", "arguments", "examine", "run", "satisfied"]

NAME = "isac-twin"
PORTS = {5570: "state", 5571: "control", 5600: "device"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
USES = {
    "learn": "learned estimators, trackers and precoders",
    "dash": "the dashboard in a browser",
    "sweep": "many runs at a time",
}
NAPS, NAP_S = 100, 1e-3
LATE_MS = 1.0  # a sleep that ends later than this makes paced subframes jitter
ROOM_MB, LEAST_MB = 4000, 200
ORDER = {"ok": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do about it if it is not well."""

    name: str
    status: str  # ok | warn | fail
    found: str
    advice: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin doctor`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Check the installation and this computer: Python and packages against what the project asks for, optional\n"
        "extras, threads, clock and sleep, free ports, caches, disk, encryption, and whether every component loads.\n"
        "`warn` is something to know, `fail` something that keeps runs from working; each says what to do."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin doctor && twin run scenarios/street.yaml\n"
        "  twin doctor --json | jq '.[] | select(.status != \"ok\")'\n"
        "Exit status: 0 if nothing fails, 1 otherwise."
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")


def run(given: argparse.Namespace) -> int:
    """``twin doctor``; returns 0 if nothing failed."""
    found = list(examine())
    worst = max(found, key=lambda one: ORDER[one.status]).status
    if given.json:
        json.dump([vars(one) for one in found], sys.stdout, indent=1)
        print()
        return int(worst == "fail")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for column in ("status", "name", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    for one in found:
        said = Text.assemble(one.found, (f"\n{one.advice}" if one.advice else "", "cyan"))
        table.add_row(Text(one.status, styles[one.status]), one.name, said)
    console.print(table)
    counts = {status: sum(one.status == status for one in found) for status in ORDER}
    verdict = {"ok": "All is well.", "warn": "Runs work; see the warnings.", "fail": "Something is missing."}[worst]
    console.print(f"{verdict} {counts['ok']} ok, {counts['warn']} to know, {counts['fail']} failed")
    return int(worst == "fail")


def examine(home: Path | None = None) -> Iterator[Finding]:
    """Every finding, in the order a person would look; ``home`` is where runs are written (default: here)."""
    home = Path() if home is None else home
    yield from packages()
    yield components()
    yield threads(os.environ, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    yield clock(time.get_clock_info("monotonic").resolution, steps(time.perf_counter_ns))
    yield sleeping(naps(time.perf_counter_ns, time.sleep))
    yield from ports()
    yield cache(os.environ, Path(__file__).parent)
    yield disk(home)
    yield encryption()


def packages(
    requires: Sequence[str] | None = None,
    version: Callable[[str], str] = metadata.version,
    python: tuple[int, ...] = sys.version_info[:3],
    asked: str | None = None,
) -> Iterator[Finding]:
    """Python, what the project requires, and its extras but the tests' own, against the versions that are there."""
    if requires is None:
        try:
            about = metadata.metadata(NAME)
        except metadata.PackageNotFoundError:
            yield Finding(NAME, "fail", "not installed", "pip install -e . in the project's folder")
            return
        requires, asked = metadata.requires(NAME) or [], about["Requires-Python"]
        yield Finding(NAME, "ok", metadata.version(NAME))
    said = ".".join(map(str, python))
    if asked and not satisfied(said, asked):
        yield Finding("Python", "fail", f"{said}; asked for {asked}", "make a virtual environment with a newer Python")
    else:
        yield Finding("Python", "ok", f"{said} ({sys.implementation.name})")
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for line in requires:
        name, spec, extra = required(line)
        groups.setdefault(extra, []).append((name, spec))
    for extra, wanted in groups.items():
        if extra != "test":
            yield group(extra, wanted, version)


def group(extra: str, wanted: Sequence[tuple[str, str]], version: Callable[[str], str]) -> Finding:
    """The packages of one extra, or of none."""
    missing, old, there = [], [], []
    for name, spec in wanted:
        try:
            found = version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        there.append(f"{name} {found}")
        if not satisfied(found, spec):
            old.append(f"{name} {found} is not {spec}")
    what = f"packages for {extra}" if extra else "packages"
    if not missing and not old:
        return Finding(what, "ok", ", ".join(there) if extra else f"all {len(there)} there and recent enough")
    said = "; ".join([*([f"missing: {', '.join(missing)}"] if missing else []), *old])
    if not extra:
        return Finding(what, "fail", said, "pip install -e . in the project's folder, or pip install -U the ones named")
    use = f": only needed for {USES[extra]}" if extra in USES else ""
    return Finding(what, "warn", said, f"pip install 'isac-twin[{extra}]' (or -e '.[{extra}]'){use}")


def required(line: str) -> tuple[str, str, str]:
    """Name, versions and extra of one requirement as the metadata of a package has it."""
    wanted, _, marker = line.partition(";")
    match = re.match(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?([^)]*)\)?", wanted)
    extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", marker)
    assert match is not None
    return match[1], match[2].strip(), "" if extra is None else extra[1]


def satisfied(version: str, spec: str) -> bool:
    """Whether a version is in a range such as ``>=2.6,<2.14``; of the version only its numbers count, so a candidate passes as its release."""

    def numbers(text: str) -> list[int]:
        release = re.match(r"\s*v?(\d+(?:\.\d+)*)", text)
        digits = [int(part) for part in release[1].split(".")] if release else [0]
        return digits + [0] * (6 - len(digits))

    have = numbers(version)
    for part in filter(None, (one.strip() for one in spec.split(","))):
        sign, bound = re.match(r"(>=|<=|==|!=|~=|>|<)?\s*(.*)", part).groups()  # type: ignore[union-attr]
        want = numbers(bound)
        depth = len(bound.replace(".*", "").split("."))
        same = have[:depth] == want[:depth] if bound.endswith(".*") else have == want
        fits = {
            ">=": have >= want,
            "<=": have <= want,
            ">": have > want,
            "<": have < want,
            "!=": not same,
            "~=": have >= want and have[: depth - 1] == want[: depth - 1],
        }.get(sign, same)
        if not fits:
            return False
    return True


def components() -> Finding:
    """Whether every kind of every family loads, those of other packages included."""
    from twin.registry import describe
    from twin.shelf import families

    count, broken = 0, []
    table = families()
    for package in table:
        for kind, line in describe(package):
            count += 1
            if line.startswith("broken:"):
                broken.append(f"{package}.{kind} {line}")
    if broken:
        return Finding("components", "fail", "; ".join(broken), "mend or remove the file or package that is named")
    return Finding("components", "ok", f"{count} kinds in {len(table)} families load")


def threads(environment: Mapping[str, str], cores: int) -> Finding:
    """Whether numerical libraries keep to one thread: the loop is one core's work, and more only add noise."""
    more = [f"{name}={environment[name]}" for name in THREADS if environment.get(name, "1") != "1"]
    if more:
        unset = "unset " + " ".join(one.partition("=")[0] for one in more)
        return Finding(
            "threads", "warn", ", ".join(more), f"{unset}: twin then sets them to 1; more make a subframe jitter"
        )
    if cores < 2:
        advice = "whoever watches shares the core with the loop: watch from another computer, or give it a second one"
        return Finding("threads", "warn", "one a library; this process may use 1 core", advice)
    return Finding("threads", "ok", f"one a library; this process may use {cores} cores")


def steps(count: Callable[[], int], tries: int = 200) -> int:
    """The smallest step that a clock was seen to take, ns."""
    least = 10**9
    for _ in range(tries):
        before = now = count()
        while now == before:
            now = count()
        least = min(least, now - before)
    return least


def clock(resolution_s: float, step_ns: int) -> Finding:
    """Whether the clock is fine enough to pace subframes of milliseconds."""
    said = f"{resolution_s * 1e9:g} ns, smallest step seen {step_ns} ns"
    if step_ns <= 10_000:
        return Finding("clock", "ok", said)
    return Finding(
        "clock", "warn", said, "too coarse to pace subframes of some ms; as fast as possible (no --pace) is not touched"
    )


def naps(count: Callable[[], int], sleep: Callable[[float], None]) -> list[float]:
    """How much too late each of many short sleeps ended, ms, ascending."""
    late = []
    for _ in range(NAPS):
        before = count()
        sleep(NAP_S)
        late.append((count() - before) * 1e-6 - NAP_S * 1e3)
    return sorted(late)


def sleeping(late_ms: Sequence[float]) -> Finding:
    """Whether sleeps end when they should; ``late_ms`` ascending."""
    middle, high = late_ms[len(late_ms) // 2], late_ms[int(0.99 * (len(late_ms) - 1))]
    said = f"ends {middle:.2f} ms late, 99 % within {high:.2f} ms, at worst {late_ms[-1]:.2f} ms"
    if high <= LATE_MS:
        return Finding("sleep", "ok", said)
    advice = "paced runs will jitter by as much: the computer is busy, shared or saving power; raise clock.spin_us in the scenario"
    return Finding("sleep", "warn", said, advice)


def ports(numbers: Mapping[int, str] = PORTS, host: str = "127.0.0.1") -> Iterator[Finding]:
    """Whether the default ports are free."""
    taken = []
    for number, use in numbers.items():
        with sockets.socket() as probe:
            probe.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
                probe.listen(1)  # two may be bound to an address while neither listens
            except OSError as error:
                taken.append(f"{number} ({use}): {error.strerror or error}")
    if not taken:
        said = ", ".join(f"{number} ({use})" for number, use in numbers.items())
        yield Finding("ports", "ok", f"{said} are free")
        return
    advice = "a twin that runs already? `twin watch` shows it; --state tcp://127.0.0.1:0 picks others"
    yield Finding("ports", "warn", "; ".join(taken), advice)


def cache(environment: Mapping[str, str], package: Path) -> Finding:
    """Whether compiled functions can be kept; otherwise every run compiles them anew."""
    chosen = environment.get("NUMBA_CACHE_DIR")
    folders = [Path(chosen)] if chosen else [package / "__pycache__", Path.home() / ".cache" / "numba"]
    for folder in folders:
        if writable(folder):
            return Finding("compiled functions", "ok", f"kept in {folder}" + ("" if chosen else " and its neighbours"))
    advice = "set NUMBA_CACHE_DIR to a folder that can be written; until then every run compiles for some ten seconds"
    return Finding("compiled functions", "warn", f"{folders[0]} cannot be written", advice)


def disk(home: Path) -> Finding:
    """Whether runs can be written here, and for how long."""
    folder = home / "runs"
    if not writable(folder):
        return Finding("disk", "fail", f"{folder.absolute()} cannot be written", "run elsewhere, or say --out DIR")
    while not folder.exists():
        folder = folder.parent
    free_mb = shutil.disk_usage(folder).free / 1e6
    said = f"{free_mb / 1e3:.1f} GB free for {home / 'runs'}"
    if free_mb < LEAST_MB:
        return Finding("disk", "fail", said, "make room, or say --out DIR on another disk")
    if free_mb < ROOM_MB:
        return Finding("disk", "warn", said, "a long run records some GB: make room, or lower record.limit_mb")
    return Finding("disk", "ok", said)


def encryption() -> Finding:
    """Whether ZeroMQ can encrypt: what others can reach must be."""
    import zmq

    if zmq.has("curve"):
        return Finding("encryption", "ok", f"ZeroMQ {zmq.zmq_version()} has CURVE")
    advice = "endpoints that other computers can reach will be refused; pip install pyzmq from a wheel, or libzmq with libsodium"
    return Finding("encryption", "warn", f"ZeroMQ {zmq.zmq_version()} was built without CURVE", advice)


def writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
