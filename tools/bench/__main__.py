"""Time a stage of a subframe and its share of the period, on the flagship scenario, after warming up."""

from __future__ import annotations

import argparse
import json
import platform
import sys

from twin.build import run
from twin.engine import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: a tenth of the subframes"
    )
    parser.add_argument("--scenario", default="scenarios/street.yaml")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    seconds = 0.5 if given.pace == "quick" else 5.0
    run(given.scenario, {"duration_s": 0.05}, keep=False, write=False)  # compiles what is not cached yet
    done = run(given.scenario, {"duration_s": seconds}, keep=False, write=False)
    clock = done.summary["clock"]
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
