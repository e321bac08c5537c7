"""What a sweep costs beside its runs, and what a second core brings: ``python -m tools.bench.sweeps [quick] [--json]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from twin.sweep import sweep
from twin.sweep.farm import Farm, farm

SCENARIO = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


def busy(seconds: float, number: int) -> float:
    """Burn so much CPU time; returns how long that took on the clock."""
    began, until = time.perf_counter(), time.process_time() + seconds
    while time.process_time() < until:
        pass
    return time.perf_counter() - began


def overhead(hands: Farm, seconds: float, count: int) -> float:
    """Wall time beside the work itself, as a share of it, on one worker that is warm."""
    work: Callable[[int], float] = partial(busy, seconds)
    list(hands.spread(work, range(2)))
    began = time.perf_counter()
    done = [took for some in hands.spread(work, range(count)) for _, took, _ in some]
    wall_s, work_s = time.perf_counter() - began, sum(took for took in done if took is not None)
    return wall_s / work_s - 1


def played(workers: int, runs: int, seconds: float) -> float:
    """Wall time of so many runs within a sweep, workers started and warm: from the middle one to the last."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(f"scenario: {SCENARIO}\nset: {{duration_s: {seconds}}}\nover: {{seed: 0..{2 * runs - 1}}}\n")
        at: dict[int, float] = {}

        def note(done: int, total: int, each: float) -> None:
            at[done] = time.perf_counter()

        sweep(file, out=Path(folder) / "out", workers=workers, say=note)
        return at[2 * runs] - at[runs]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.sweeps", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    quick = given.pace == "quick"
    with farm(1) as hands:
        found = {
            "overhead_1s": overhead(hands, 1.0, 4 if quick else 20),
            "overhead_10ms": overhead(hands, 0.01, 200 if quick else 1000),
        }
    runs, seconds = (4, 0.1) if quick else (16, 0.25)
    one, two = played(1, runs, seconds), played(2, runs, seconds)
    found |= {"run_s": one / runs, "speedup_2": one / two}
    if given.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        print(f"overhead {found['overhead_1s']:.1%} at a second a run, {found['overhead_10ms']:.1%} at 10 ms")
        print(f"two workers against one: {found['speedup_2']:.2f} x, on runs of {found['run_s']:.2f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
