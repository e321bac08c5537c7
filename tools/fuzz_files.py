"""Give every reader of files mutated files: ``python -m tools.fuzz_files [--kind scenario|trace|recording|weights] [--cases N] [--seed S]``.

Files that are right are cut, flipped, doubled, spliced with each other and filled with numbers and words that hurt; beside them stand the files
that attackers write: bombs of gzip, aliases and entities, nests, lines without end. Whatever comes, a reader either takes it or says in one of the
project's errors what is wrong with which file or field: no other exception, no hang (``--limit`` seconds a case), no more memory than
``--memory`` MB beside what was there. A case that breaks this is printed, kept (``--keep FOLDER``) and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import logging
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import LateArrival, Misuse, RemoteFault

__all__ = ["KINDS", "Found", "campaign"]

HOME = Path(__file__).parents[1]
NUMBERS = (
    "0",
    "-1",
    "1e999",
    "-1e999",
    "nan",
    ".nan",
    ".inf",
    "-.inf",
    "1e-320",
    "1e308",
    "9" * 40,
    "0x7fffffff",
    "1_0",
    "7.5",
    "-0",
)
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
WORD = re.compile(rb"[A-Za-z_]\w+")
SAID = re.compile(
    r"[\w/\])}'\"]+ ?(=|:|\(|must|is|has|holds|lacks)"
)  # names a file or a field, and says something of it


class HangError(Exception):
    """A case took longer than its limit."""


@dataclass(frozen=True)
class Kind:
    """How one kind of file is fuzzed: files that are right (name, bytes), attackers' files, and what reads one."""

    good: Callable[[], list[tuple[str, bytes]]]
    bad: Callable[[], list[tuple[str, bytes]]]
    read: Callable[[Path], object]
    text: bool  # words and numbers are changed as such


@dataclass(frozen=True)
class Found:
    """What came of a campaign: cases, how many were taken, how often each error was said, and the ones that broke a promise."""

    cases: int
    taken: int
    said: Counter[str]
    broken: list[tuple[str, str]]  # name of the case, what happened
    slowest_s: float
    grown_mb: float


def mutated(data: bytes, chance: random.Random, others: list[bytes], text: bool) -> bytes:
    """One to four changes; those of text change whole words, numbers and lines as well as bytes."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        what = chance.randrange(12 if text else 6)
        if what == 0 and made:
            made[at % len(made)] ^= 1 << chance.randrange(8)
        elif what == 1:
            del made[at : at + chance.choice((1, 2, 8, 64, len(made)))]
        elif what == 2:
            made[at:at] = made[at : at + chance.randrange(1, 64)]
        elif what == 3:
            made[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif what == 4:
            other = chance.choice(others)
            begin = chance.randrange(len(other) + 1)
            made[at : at + chance.randrange(64)] = other[begin : begin + chance.randrange(1, 256)]
        elif what == 5 and len(made) >= 8:
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(made)))
            at = chance.randrange(len(made) - width + 1)
            made[at : at + width] = (value % 256**width).to_bytes(width, "little")
        elif what in (6, 7, 8):
            spots = [found.span() for found in NUMBER.finditer(made)]
            if spots:
                begin, end = chance.choice(spots)
                made[begin:end] = chance.choice(NUMBERS).encode()
        elif what == 9:
            spots = [found.span() for found in WORD.finditer(made)]
            if spots:
                (begin, end), (first, last) = chance.choice(spots), chance.choice(spots)
                made[begin:end] = made[first:last]
        elif what in (10, 11):
            lines = bytes(made).split(b"\n")
            one, other_line = chance.randrange(len(lines)), chance.randrange(len(lines))
            if what == 10:
                lines.insert(one, lines[other_line])
            else:
                lines[one], lines[other_line] = lines[other_line], lines[one]
            made = bytearray(b"\n".join(lines))
    return bytes(made)


# ---------------------------------------------------------------------------------------------------------------- scenarios


def scenarios() -> list[tuple[str, bytes]]:
    """Shipped scenarios without their comments, and a few sections alone: short, since YAML is read slowly."""
    made = []
    for path in (HOME / "scenarios" / f"{name}.yaml" for name in ("phaser", "smoke", "street")):
        text = re.sub(r"\s+#.*|^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = text.replace("path: traces/", f"path: {HOME}/scenarios/traces/")
        made.append((path.name, text.encode()))
    bare = "sites: { bs0: {} }\nusers: [{ name: a, mobility: { kind: static, position_m: [30, 0, 1] } }]\n"
    sections = (
        "faults: [{ kind: dead_element, at_ms: 60, until_ms: 90, elements: [0, 1] }]\n",
        "expect: [{ kind: rate, user: a, at_least_gbps: 1, longer_than_ms: 20 }]\n",
        "clock: { mode: paced, factor: 0.5, overrun: skip }\nbus: { state: 'tcp://127.0.0.1:5555' }\n",
        "sensing: { fidelity: bound, dwells: 1, frames_per_dwell: 4 }\nrecord: { echoes: true, beams_ms: 10 }\n",
        "targets: [{ name: b, rcs_dbsm: 3, mobility: { kind: waypoints, speed_mps: 2, points_m: [[1, 2, 3], [4, 5, 6]], loop: true } }]\n",
    )
    return [*made, *((f"section{k}.yaml", (bare + more).encode()) for k, more in enumerate(sections))]


def hostile_scenarios() -> list[tuple[str, bytes]]:
    doubling = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
    return [
        ("aliases.yaml", (doubling + "sites: *a39\n").encode()),
        ("itself.yaml", b"sites: &a { bs0: *a }\n"),
        ("nest.yaml", b"sites: " + b"[" * 1_000),
        ("nested.yaml", b"sites: " + b"{a: " * 3_000 + b"1" + b"}" * 3_000),
        ("digits.yaml", b"seed: " + b"9" * 200_000 + b"\nsites: { bs0: {} }\n"),
        ("hex.yaml", b"seed: 0x" + b"f" * 200_000 + b"\nsites: { bs0: {} }\n"),
        ("huge.yaml", b"sites: { bs0: { transmit: { array: { kind: upa, columns: 1000000, rows: 1000000 } } } }\n"),
        ("subcarriers.yaml", b"communication: { subcarriers: 100000000000 }\nsites: { bs0: {} }\n"),
        ("blocks.yaml", b"subframe: { blocks: 1000000000000, block_us: 0.001 }\nsites: { bs0: {} }\n"),
        ("dwells.yaml", b"sensing: { delay_bins: 100000000, doppler_bins: 100000000 }\nsites: { bs0: {} }\n"),
        ("nulls.yaml", b"\x00" * 1000),
        ("utf16.yaml", "sites: { bs0: {} }".encode("utf-16")),
        ("line.yaml", b"title: " + b"x" * 300_000 + b"\nsites: { bs0: {} }\n"),
    ]


def read_scenario(path: Path) -> object:
    from twin.facts import facts
    from twin.scenario import dump, load, loads

    made = load(path)
    assert loads(dump(made)) == made, "what was read is not what it says"
    return facts(made)


# ---------------------------------------------------------------------------------------------------------------- traces


def traces() -> list[tuple[str, bytes]]:
    """A few movers for a few seconds, in every format there is."""
    steps = "".join(
        f'<timestep time="{t}.00"><vehicle id="a" x="{3 * t}.5" y="2.0" z="0.1" angle="90.0" speed="3.0"/>'
        f'<person id="b" x="1" y="{t}"/></timestep>'
        for t in range(4)
    )
    xml = f'<?xml version="1.0" encoding="UTF-8"?><fcd-export>{steps}</fcd-export>'.encode()
    head = "timestep_time;vehicle_id;vehicle_x;vehicle_y;vehicle_angle;vehicle_speed\n"
    fcd = (head + "".join(f"{t}.0;a;{t}.5;1.0;90.0;1.0\n{t}.0;b;{-t};2;0;1\n" for t in range(4))).encode()
    own = (
        "time_s,name,x_m,y_m,z_m,vx_mps,vy_mps,vz_mps\n" + "".join(f"{t},a,{t},0,0,1,0,0\n" for t in range(4))
    ).encode()
    least = b"time_s,name,x_m,y_m,z_m\n0,a,0,0,0\n0.5,a,1,0,0\n"
    packed = [(f"{name}.gz", gzip.compress(data, mtime=0)) for name, data in (("a.xml", xml), ("a.csv", own))]
    return [("a.xml", xml), ("a.csv", fcd), ("b.csv", own), ("c.csv", least), *packed]


def hostile_traces() -> list[tuple[str, bytes]]:
    def much(begin: bytes, letter: bytes) -> bytes:  # members of a gzip file follow each other
        return gzip.compress(begin, mtime=0) + gzip.compress(letter * 2**20, 9, mtime=0) * 300

    zeros = much(b"", b"\x00")
    line = much(b"time_s,name,x_m,y_m,z_m\n0,", b"a")
    inside = much(b"<fcd-export><timestep time='0'><vehicle id='", b"a")
    lol = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12))
    return [
        ("bomb.csv.gz", zeros),
        ("line.csv.gz", line),
        ("bomb.xml.gz", zeros),
        ("attribute.xml.gz", inside),
        (
            "entities.xml",
            f'<!DOCTYPE x [<!ENTITY a0 "aaaaaaaaaa">{lol}]><fcd-export id="&a11;">&a11;</fcd-export>'.encode(),
        ),
        ("nest.xml", b"<a>" * 100_000),
        ("outside.xml", b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><fcd-export>&a;</fcd-export>'),
        ("huge.csv", b"time_s,name,x_m,y_m,z_m\n0,a,1e308,-1e308,0\n1e-9,a,-1e308,1e308,0\n8.9e9,a,0,0,0\n"),
        ("many.csv", b"time_s,name,x_m,y_m,z_m\n" + b"".join(b"0,m%d,0,0,0\n" % k for k in range(20_000))),
    ]


def read_trace(path: Path) -> object:
    from twin.mobility.trace import Trace

    trace = Trace(path=path)
    state = trace.start(np.arange(len(trace.movers())), None)  # type: ignore[arg-type]
    for t_ns in (0, 1_500_000_000, 10**10):
        _, motion = trace.at(state, t_ns)
        assert np.isfinite(motion.position_m[motion.present]).all(), "a position is not finite"
        assert np.isfinite(motion.velocity_mps[motion.present]).all(), "a velocity is not finite"
    return motion


# ---------------------------------------------------------------------------------------------------------------- recordings


def recordings() -> list[tuple[str, bytes]]:
    """A short run's recording, one cut before its end, and a tiny one."""
    from twin.build import run
    from twin.record import Recorder
    from twin.records import Clock

    with tempfile.TemporaryDirectory() as folder:
        brief = {"duration_s": 0.005, "sensing.fidelity": "bound"}
        run(HOME / "scenarios" / "smoke.yaml", brief, out=f"{folder}/run", keep=False)
        whole = Path(folder, "run", "recording.mcap").read_bytes()
        with Recorder(f"{folder}/tiny.mcap", about={"seed": 1}) as tiny:
            for k in range(3):
                tiny.write("bs0.clock.", Clock(k=k, t_ns=k, lag_ns=0, budget_ns=1, late=0, stage_ns={"a": k}), k)
                tiny.flush()
        return [
            ("tiny.mcap", Path(folder, "tiny.mcap").read_bytes()),
            ("whole.mcap", whole),
            ("cut.mcap", whole[: len(whole) // 2]),
        ]


def hostile_recordings() -> list[tuple[str, bytes]]:
    import struct
    import zlib

    import zstandard

    magic = b"\x89MCAP0\r\n"

    def chunk(data: bytes, size: int, compression: bytes = b"zstd") -> bytes:
        body = struct.pack("<QQQI", 0, 1, size, 0) + struct.pack("<I", len(compression)) + compression
        body += struct.pack("<Q", len(data)) + data
        return struct.pack("<BQ", 6, len(body)) + body

    packing = zstandard.ZstdCompressor().compressobj(size=500 * 2**20)
    bomb = b"".join(packing.compress(bytes(2**20)) for _ in range(500)) + packing.flush()
    header = struct.pack("<BQ", 1, 8) + struct.pack("<II", 0, 0)
    return [
        ("bomb.mcap", magic + header + chunk(bomb, 500 * 2**20)),
        ("lies.mcap", magic + header + chunk(bomb, 10)),
        ("length.mcap", magic + header + struct.pack("<BQ", 6, 2**63 - 1)),
        ("strange.mcap", magic + header + chunk(zlib.compress(b"a"), 1, b"zlib")),
        ("empty.mcap", b""),
        ("magic.mcap", magic),
    ]


def read_recording(path: Path) -> object:
    from twin.record import info, read, recover, told
    from twin.reel import Reel

    target = path.with_suffix(".mended")
    target.unlink(missing_ok=True)
    kept = recover(path, target)
    said = told(info(path))
    assert sum(1 for _ in read(target)) == kept, "what was mended is not what was kept"
    reel = Reel(path)
    for number in {0, len(reel) // 2, len(reel) - 1}:
        reel.message(number)
    return said


# ---------------------------------------------------------------------------------------------------------------- weights

CARD = b"\x00card\x00"  # between card and weights in one fuzzed file


def weights() -> list[tuple[str, bytes]]:
    """A small network's card and weights in one piece; a third of the cases are read with the hash made right again."""
    from safetensors.numpy import save

    from twin.learning.cards import load
    from twin.learning.factored import Factored

    card, _ = load("street")
    shape = {**card.shape, "width": 4} if "width" in card.shape else dict(card.shape)
    network = Factored(**shape)
    small = {name: np.float32(value) for name, value in network.start(1).items()}
    text = json.dumps({**vars(card), "shape": shape}, default=dict).encode()
    return [("small.safetensors", text + CARD + save(small))]


def hostile_weights() -> list[tuple[str, bytes]]:
    (_, one), *_ = weights()
    text = one.partition(CARD)[0]

    def header(of: dict[str, Any]) -> bytes:
        told = json.dumps(of).encode()
        return len(told).to_bytes(8, "little") + told

    whole = {"dtype": "F32", "shape": [2**40, 2**30], "data_offsets": [0, 2**62]}
    return [
        ("length.safetensors", text + CARD + (2**63).to_bytes(8, "little")),
        ("shape.safetensors", text + CARD + header({"a": whole})),
        ("offsets.safetensors", text + CARD + header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})),
        (
            "kind.safetensors",
            text + CARD + header({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4),
        ),
        ("nest.safetensors", b'{"a":' * 50_000 + CARD + b""),
        ("list.safetensors", b"[1, 2]" + CARD + b""),
    ]


def read_weights(path: Path) -> object:
    from twin.learning.cards import load
    from twin.precoding.csp_net import network_of

    text, _, data = path.read_bytes().partition(CARD)
    if hashlib.blake2b(text + data).digest()[0] % 3:  # the hash is right, and what it is of is looked at
        with contextlib.suppress(ValueError, RecursionError):
            card = json.loads(text)
            if isinstance(card, dict):
                text = json.dumps({**card, "sha256": hashlib.sha256(data).hexdigest()}).encode()
    path.write_bytes(data)
    path.with_suffix(".json").write_bytes(text)
    load.cache_clear()
    card, found = load(str(path))
    return network_of(card, found, str(path)), card.array


KINDS = {
    "scenario": Kind(scenarios, hostile_scenarios, read_scenario, True),
    "trace": Kind(traces, hostile_traces, read_trace, True),
    "recording": Kind(recordings, hostile_recordings, read_recording, False),
    "weights": Kind(weights, hostile_weights, read_weights, True),
}


def cases(kind: Kind, count: int, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Attackers' files first, then mutations of good ones; a gzip'd one is mutated packed or unpacked."""
    yield from kind.bad()[:count]
    good = kind.good()
    others = [data for _, data in good]
    for k in range(count - len(kind.bad())):
        name, data = chance.choice(good)
        if name.endswith(".gz") and chance.random() < 0.5:
            yield f"{k}-{name}", gzip.compress(mutated(gzip.decompress(data), chance, others, kind.text), 1, mtime=0)
        else:
            yield f"{k}-{name}", mutated(data, chance, others, kind.text)


def campaign(
    name: str, count: int, seed: int = 1, limit_s: float = 20.0, keep: Path | None = None, progress: bool = False
) -> Found:
    """``count`` cases of one kind; the same seed gives the same ones. The main thread's, since hangs are ended by a signal; seconds are of CPU time."""
    kind, chance = KINDS[name], random.Random(seed)
    said: Counter[str] = Counter()
    broken: list[tuple[str, str]] = []
    taken = done = 0
    slowest_s = 0.0
    log = logging.getLogger("twin.record")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it says, rightly, what is wrong with every case

    def late(number: int, frame: object) -> None:
        raise HangError(f"not done after {limit_s:g} s")

    before = signal.signal(signal.SIGPROF, late)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for label, data in kind.good():  # what is right is taken, and what reading it needs is loaded
                kind.read(written(folder, label, data))
            began_mb = peak_mb(anew=True)
            for label, data in cases(kind, count, chance):
                path = written(folder, label.partition("-")[2] or label, data)
                began = time.perf_counter()
                signal.setitimer(signal.ITIMER_PROF, limit_s)
                happened = ""
                try:
                    kind.read(path)
                    taken += 1
                except (Misuse, RemoteFault, LateArrival) as error:
                    said[type(error).__name__] += 1
                    if not SAID.search(str(error)):
                        happened = f"says too little: {str(error)[:200]!r}"
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    happened = f"{type(error).__name__}: {str(error)[:200]} ({where(error)})"
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                done += 1
                slowest_s = max(slowest_s, time.perf_counter() - began)
                if happened:
                    broken.append((label, happened))
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{name}-{seed}-{label}").write_bytes(data)
                if progress and done % 200 == 0 and sys.stderr.isatty():
                    print(f"\r{name}: {done} of {count}, {len(broken)} broken", end="", file=sys.stderr, flush=True)
            grown_mb = peak_mb() - began_mb
    finally:
        log.setLevel(level)
        signal.signal(signal.SIGPROF, before)
    return Found(done, taken, said, broken, slowest_s, grown_mb)


def written(folder: str, name: str, data: bytes) -> Path:
    """The file of a case; one name is written over by the next."""
    path = Path(folder) / name
    path.write_bytes(data)
    return path


def peak_mb(anew: bool = False) -> float:
    """Most memory that this process has had, since it was last asked for ``anew`` where the system can tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if anew:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text(encoding="ascii"))[0]) / 1e3


def where(error: BaseException) -> str:
    """The innermost line of the project's own code in a traceback."""
    at, found = error.__traceback__, ""
    while at is not None:
        file = Path(at.tb_frame.f_code.co_filename)
        if file.is_relative_to(HOME):
            found = f"{file.relative_to(HOME)}:{at.tb_lineno}"
        at = at.tb_next
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_files", description=__doc__)
    parser.add_argument(
        "--kind", choices=tuple(KINDS), help="only files of this kind; default: all, each as many cases"
    )
    parser.add_argument("--cases", type=int, default=1000, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=20.0, metavar="S", help="a case that takes longer hangs (default %(default)s)"
    )
    parser.add_argument(
        "--memory", type=float, default=400.0, metavar="MB", help="more than this is too much (default %(default)s)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where files that broke a promise are put")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.cases > 0:
        parser.error(f"--cases {given.cases}: must be > 0")
    # a reader that asks for all the memory there is gets a MemoryError, and the machine stays alive
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 6 * 10**9, resource.RLIM_INFINITY))
    told = {}
    for name in [given.kind] if given.kind else KINDS:
        began = time.perf_counter()
        found = campaign(name, given.cases, given.seed, given.limit, given.keep, progress=not given.json)
        good = not found.broken and found.grown_mb <= given.memory
        told[name] = {**vars(found), "said": dict(found.said), "seconds": time.perf_counter() - began, "good": good}
        if given.json:
            continue
        print(
            f"{name}: {found.cases} cases, {found.taken} taken, {sum(found.said.values())} refused in words, "
            f"{len(found.broken)} broken; slowest {found.slowest_s:.2f} s, memory grown by {found.grown_mb:.0f} MB, "
            f"{told[name]['seconds']:.0f} s"
        )
        kinds = Counter(re.sub(r"[-\d.e+]+", "#", happened) for _, happened in found.broken)
        for happened, times in kinds.most_common(20):
            first = next(label for label, one in found.broken if re.sub(r"[-\d.e+]+", "#", one) == happened)
            print(f"  {times} x {happened}; first: {first}")
    if given.json:
        print(json.dumps(told, indent=1))
    return 0 if all(one["good"] for one in told.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
