"""Play for a long time and see that nothing grows: ``python -m tools.endurance [--light] [--simulated 600] [--out FOLDER]``.

The street's cars leave after 17 s; here the same base station has movers that go round for ever. Every so often the memory in use, open
descriptors, threads, live Python blocks and the size of the recording are noted, and the same run is played a second time in a process of its
own: equal seeds must give equal hashes however long it takes. ``--light`` plays errors from the bound, small arrays and long subframes,
which makes an hour an hour's work at most. ``--leaks`` plays once under ``tracemalloc`` and prints the lines whose memory grew.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hal.errors import Misuse
from twin import loop
from twin.build import Twin
from twin.scenario import load

__all__ = ["growth", "one", "verdict"]

STREET = Path(__file__).parents[1] / "scenarios" / "street.yaml"
CARS: tuple[tuple[float, list[list[float]]], ...] = (  # speed in m/s and way: rounds before the base station
    (9.0, [[35, -18, 1.5], [35, 18, 1.5], [45, 18, 1.5], [45, -18, 1.5]]),
    (10.0, [[52, 25, 1.5], [52, -25, 1.5], [62, -25, 1.5], [62, 25, 1.5]]),
    (12.0, [[30, -8, 1.5], [95, -20, 1.5], [95, -26, 1.5]]),
    (11.0, [[30, 8, 1.5], [95, 26, 1.5], [95, 20, 1.5]]),
    (8.0, [[70, -12, 1.5], [70, 12, 1.5], [80, 12, 1.5], [80, -12, 1.5]]),
)


def rounds(name: str, speed_mps: float, points_m: list[list[float]], rcs_m2: float) -> dict[str, Any]:
    way = {"kind": "waypoints", "speed_mps": speed_mps, "points_m": points_m, "loop": True}
    return {"name": name, "rcs_m2": rcs_m2, "mobility": way}


ENDLESS: dict[str, Any] = {
    "title": "rounds",
    "users": [rounds(f"car{k}", speed, way, 10.0) for k, (speed, way) in enumerate(CARS)],
    "targets": [
        rounds("pedestrian", 1.2, [[42, -20, 1.0], [42, 34, 1.0]], 0.5),
        rounds("cyclist", 5.5, [[51.5, -40, 1.2], [51.5, 40, 1.2]], 1.6),
        rounds("drone", 4.5, [[90, -40, 14], [60, 20, 16]], 0.5),
    ],
}
LIGHT: dict[str, Any] = {
    "users": ENDLESS["users"][:2],
    "targets": ENDLESS["targets"][1:2],
    "subframe": {"period_ms": 50, "blocks": 7, "block_us": 7000},
    "communication.subcarriers": 4,
    "sensing.fidelity": "bound",
    "sensing.dwells": 1,
    "channel.rays": 4,
    "sites.bs0.transmit.array": {"kind": "upa", "columns": 8, "rows": 8},
    "sites.bs0.receive.array": {"kind": "upa", "columns": 8, "rows": 8},
    "sites.bs0.transmit.network.delay_lines": [4, 4],
    "record.limit_mb": 256,
}
COLUMNS = (
    "subframe",
    "simulated_s",
    "wall_s",
    "cpu_s",
    "resident_mb",
    "descriptors",
    "threads",
    "blocks",
    "recorded_mb",
)
WARM = 0.1  # share of the run that warms up, and of what follows that is averaged at either end
SAMPLES = 400


class Sampled(Twin):
    """A twin that notes every so many subframes what it holds of the machine."""

    every = 1
    note: Callable[[list[float]], None] = staticmethod(lambda row: None)

    def watch(self, subframe: loop.Subframe, site: loop.Site) -> None:
        """Watch as ever, then note."""
        super().watch(subframe, site)
        if (subframe.k + 1) % self.every == 0:
            self.note(self.held(subframe))

    def held(self, subframe: loop.Subframe) -> list[float]:
        """One row of ``COLUMNS``."""
        page = os.sysconf("SC_PAGE_SIZE")
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * page
        files = [] if self.recorder is None else self.recorder.paths
        return [
            subframe.k + 1,
            round((subframe.k + 1) * self.air.numerology.subframe_ns * 1e-9, 6),
            round(time.perf_counter() - self.started, 3),
            round(time.process_time(), 3),
            resident / 1e6,
            len(os.listdir("/proc/self/fd")),
            len(os.listdir("/proc/self/task")),
            sys.getallocatedblocks(),
            sum(file.stat().st_size for file in files) / 1e6,
        ]


def one(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Play once in this process; the rows go to ``samples.csv`` as they come, the hash and the summary to the result."""
    sets = {**ENDLESS, **(LIGHT if given.light else {}), "duration_s": given.simulated, "seed": given.seed}
    scenario = load(STREET, {**sets, **dict(text.partition("=")[::2] for text in given.sets)})
    folder.mkdir(parents=True)
    before = None
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        with Sampled(scenario, "endurance", folder if given.record else None) as twin:
            twin.every = max(1, scenario.subframes // SAMPLES)
            warm = round(WARM * scenario.subframes)

            def note(row: list[float]) -> None:
                nonlocal before
                table.writerow(row)
                stream.flush()
                if given.leaks and before is None and row[0] >= warm:
                    before = tracemalloc.take_snapshot()
                if not given.quiet and sys.stderr.isatty():
                    line = f"\r{row[1]:.0f} of {given.simulated:g} s, {row[4]:.1f} MB, {row[5]:.0f} descriptors   "
                    print(line, end="", file=sys.stderr, flush=True)

            twin.note = note  # type: ignore[method-assign]
            if given.leaks:
                tracemalloc.start(12)
            twin.play(split=False, progress=False)
            if before is not None:
                grown = [d for d in tracemalloc.take_snapshot().compare_to(before, "lineno") if d.size_diff > 1024]
                tracemalloc.stop()
                for line in grown[: given.leaks]:
                    print(f"{line.size_diff / 1e3:9.1f} kB in {line.count_diff:6d} blocks  {line.traceback}")
            told = twin.finish(False).summary
    return {"hash": told["run"]["hash"], "subframes": told["run"]["subframes"], "tracks": told["tracks"]}


def rows(folder: Path) -> dict[str, list[float]]:
    """The columns of a folder's samples."""
    with (folder / "samples.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in table] for name in COLUMNS}


def growth(values: list[float]) -> float:
    """Median of the last tenth over that of the first tenth after warming up, less one."""
    warm = values[round(WARM * len(values)) :]
    tenth = max(1, round(WARM * len(warm)))
    return statistics.median(warm[-tenth:]) / statistics.median(warm[:tenth]) - 1


def verdict(table: dict[str, list[float]]) -> dict[str, Any]:
    """What the samples amount to, in plain numbers; ``good`` where memory grew under 1 % and descriptors and threads not at all."""
    warm = {name: values[round(WARM * len(values)) :] for name, values in table.items()}
    found: dict[str, Any] = {
        "simulated_s": table["simulated_s"][-1],
        "wall_s": table["wall_s"][-1],
        "cpu_s": table["cpu_s"][-1],
        "resident_mb": warm["resident_mb"][-1],
        "memory_growth": growth(table["resident_mb"]),
        "blocks_growth": growth(table["blocks"]),
        "descriptors": sorted(set(warm["descriptors"])),
        "threads": sorted(set(warm["threads"])),
        "recorded_mb": table["recorded_mb"][-1],
    }
    flat = len(found["descriptors"]) == 1 and len(found["threads"]) == 1
    return {**found, "good": bool(found["memory_growth"] < 0.01 and flat)}


def drawn(tables: list[dict[str, list[float]]], out: Path) -> None:
    """The curve: memory, live blocks, descriptors and threads, recording, over simulated time, a line a run."""
    from matplotlib import rc_context

    from twin.drawing import COLOURS, GRID, STROKES, STYLE, canvas

    with rc_context(STYLE):
        figure, panels = canvas(7.5, 4, sharex=True)
        shown = (
            ("resident memory, MB", ("resident_mb",)),
            ("live Python blocks, thousands", ("blocks",)),
            ("open descriptors; threads (dashed)", ("descriptors", "threads")),
            ("recording, MB", ("recorded_mb",)),
        )
        for panel, (title, names) in zip(panels[:, 0], shown, strict=True):
            for run, table in enumerate(tables):
                for stroke, name in zip(STROKES, names, strict=False):
                    scale = 1e-3 if name == "blocks" else 1.0
                    height = [value * scale for value in table[name]]
                    label = f"run {run + 1}" if name == names[0] else None
                    wide = 2.4 if run == 0 else 1.0  # equal runs lie on each other: both are to be seen
                    panel.plot(
                        table["simulated_s"], height, COLOURS[run], linestyle=stroke, linewidth=wide, label=label
                    )
            grown = ", ".join(f"{100 * growth(table[names[0]]):+.2f} %" for table in tables)
            panel.set_title(title if names[0] == "recorded_mb" else f"{title}; growth after warming up {grown}")
            panel.set_ylim(0, 1.2 * max(float(max(line.get_ydata())) for line in panel.lines))
            panel.set_xlim(0, max(table["simulated_s"][-1] for table in tables))
            panel.grid(True, **GRID)
            panel.axvspan(0, WARM * tables[0]["simulated_s"][-1], color="#eeeeee", zorder=-1)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0, 0].legend(loc="lower right", ncols=2)
        panels[-1, 0].set_xlabel("simulated time, s (shaded: warming up)")
        figure.savefig(out, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.endurance", description=__doc__)
    parser.add_argument(
        "--simulated", type=float, default=60.0, metavar="S", help="simulated seconds (default %(default)s)"
    )
    parser.add_argument(
        "--light", action="store_true", help="bound instead of echoes, small arrays, subframes of 50 ms"
    )
    parser.add_argument("--once", action="store_true", help="no second run to compare hashes with")
    parser.add_argument("--together", action="store_true", help="both runs at once, on two cores")
    parser.add_argument("--no-record", action="store_false", dest="record", help="without a recording")
    parser.add_argument(
        "--leaks", type=int, default=0, metavar="N", help="play once under tracemalloc; the N lines that grew most"
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="sets", metavar="PATH=VALUE", help="replace a value of the street"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="folder for samples.csv, endurance.png and summary.json; must not exist"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # this is the process of one run
    given = parser.parse_args()
    if not given.simulated > 0:
        parser.error(f"--simulated {given.simulated}: must be > 0")
    if given.alone:
        print(json.dumps(one(given, given.out)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        out: Path = given.out or Path(scratch) / "endurance"
        if out.exists():
            raise Misuse(f"--out {out}: exists already; name a new folder")
        if given.leaks:
            one(given, out)
            return 0
        found = campaign(given, out)
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for k, told in enumerate(found["runs"]):
            print(f"run {k + 1}: " + ", ".join(f"{name} {shown(value)}" for name, value in told.items()))
        print("hashes equal" if found["equal"] else "ONE RUN" if given.once else "HASHES DIFFER")
        if given.out is not None:
            print(f"drawn: {out / 'endurance.png'}")
    return 0 if found["good"] else 1


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def campaign(given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """One run or two, each in a process of its own; their samples, verdicts and the curve go to ``out``."""
    out.mkdir(parents=True)
    words = [sys.executable, "-m", "tools.endurance", *sys.argv[1:], "--alone", "--once"]
    folders = [out / f"run{k + 1}" for k in range(1 if given.once else 2)]
    children = []
    for k, folder in enumerate(folders):
        quiet = [] if k == 0 and not given.quiet else ["--quiet"]
        child = subprocess.Popen([*words, "--out", str(folder), *quiet], stdout=subprocess.PIPE, text=True)
        children.append(child)
        if not given.together:
            child.wait()
    ended = [json.loads(child.communicate()[0] or "{}") for child in children]
    tables = [rows(folder) for folder in folders]
    drawn(tables, out / "endurance.png")
    runs = [{**verdict(table), "hash": end.get("hash", "")[:16]} for table, end in zip(tables, ended, strict=True)]
    equal = len({run["hash"] for run in runs}) == 1 and not given.once and runs[0]["hash"] != ""
    good = all(run["good"] for run in runs) and (equal or given.once)
    found = {"runs": runs, "equal": equal, "good": good, "tracks": ended[0].get("tracks")}
    (out / "summary.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
