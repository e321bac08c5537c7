"""Time a stage of a subframe and its share of the period, on the flagship scenario, after warming up.

``--against REVISION`` times an earlier state of the repository too, turn by turn with this one on the same machine, and prints both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from twin.build import run
from twin.engine import table

ROUNDS = 3  # by turns, of each revision
CHILD = """
import json, sys
from twin.build import run
given = json.loads(sys.argv[1])
run(given["scenario"], {"duration_s": 0.05}, keep=False, write=False)
print(json.dumps(run(given["scenario"], {"duration_s": given["seconds"]}, keep=False, write=False).summary["clock"]))
"""


def timed(scenario: str, seconds: float) -> dict[str, Any]:
    """The clock's figures of one run in this process, compiled before."""
    run(scenario, {"duration_s": 0.05}, keep=False, write=False)
    return run(scenario, {"duration_s": seconds}, keep=False, write=False).summary["clock"]  # type: ignore[no-any-return]


def compared(revision: str, scenario: str, seconds: float) -> list[dict[str, Any]]:
    """CPU medians (us) of each stage before and after, each the best of ``ROUNDS`` runs that took turns."""
    figures: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        say = json.dumps({"scenario": str(Path(scenario).resolve()), "seconds": seconds / ROUNDS})
        for turn in range(2 * ROUNDS):
            where = (folder, os.getcwd())[turn % 2]
            print(f"run {turn + 1} of {2 * ROUNDS}", file=sys.stderr)
            told = subprocess.run(
                [sys.executable, "-c", CHILD, say],
                cwd=where,
                env={**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            clock = json.loads(told)
            stages = {**clock["stages"], "subframe": clock["subframe"]}
            figures[turn % 2].append({name: stage["cpu_p50_us"] for name, stage in stages.items()})
    names = [name for name in figures[1][0] if name in figures[0][0]]
    best = [{name: float(np.min([one[name] for one in side])) for name in names} for side in figures]
    return [
        {"stage": n, "before_us": best[0][n], "after_us": best[1][n], "ratio": best[0][n] / max(best[1][n], 1e-3)}
        for n in names
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: a tenth of the subframes"
    )
    parser.add_argument("--scenario", default="scenarios/street.yaml")
    parser.add_argument(
        "--against", metavar="REVISION", help="of git; both are timed by turns and printed beside each other"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    seconds = 1.0 if given.pace == "quick" else 10.0
    if given.against is not None:
        rows = compared(given.against, given.scenario, seconds)
        if given.json:
            json.dump(rows, sys.stdout, indent=1)
            print()
            return 0
        print(f"{'stage':<12}{'before us':>12}{'after us':>12}{'ratio':>8}")
        for row in rows:
            print(f"{row['stage']:<12}{row['before_us']:>12.0f}{row['after_us']:>12.0f}{row['ratio']:>8.2f}")
        return 0
    clock = timed(given.scenario, seconds)
    factor = clock["budget_us"] / clock["subframe"]["cpu_p50_us"]
    if given.json:
        about = {"machine": platform.machine(), "python": platform.python_version(), "realtime_factor": factor}
        json.dump({**about, **clock}, sys.stdout, indent=1)
        print()
        return 0
    print(
        f"{given.scenario}: {clock['subframes']} subframes of {clock['budget_us'] / 1e3:g} ms, one process, one thread"
    )
    print(table(clock))
    print(f"real-time factor {factor:.2f} (period over median CPU time of a subframe)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
