"""How late subframes end: ``python -m tools.bench.pacing [quick|full]`` plays the twin's clock and ``simpy.rt`` by turns and prints the lags of both.

A subframe of 5 ms is a millisecond of work and a wait for its end; its lag is the wall clock's at its end less its deadline, read the same way for
both. Rounds are interleaved, so that what else the machine does hits both alike. ``--minutes M`` paces the twin's clock alone for so long and
prints how its least lag moves with time: drift. ``--plot FILE`` draws the histogram of lags.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import simpy.rt

from twin.engine import Engine, Pacing

PERIOD_NS, WORK_NS = 5_000_000, 1_000_000
OURS, THEIRS = "twin", "simpy.rt"


def worked(ns: int = WORK_NS) -> None:
    """Keep the core busy for so long."""
    until = time.perf_counter_ns() + ns
    while time.perf_counter_ns() < until:
        pass


def began(start: Callable[[], object]) -> int:
    """When a clock was started, to half of what that took."""
    before = time.perf_counter_ns()
    start()
    return (before + time.perf_counter_ns()) // 2


def ours(subframes: int, lags: list[int]) -> None:
    """So many subframes at the twin's pace, their lags in ns appended."""
    engine = Engine(Pacing(mode="paced", overrun="hold"))
    epoch = began(engine.start)
    for k in range(1, subframes + 1):
        worked()
        engine.pace(k * PERIOD_NS)
        lags.append(time.perf_counter_ns() - epoch - k * PERIOD_NS)


def theirs(subframes: int, lags: list[int]) -> None:
    """The same by SimPy's own real-time environment, which is told not to raise when it is late."""
    world = simpy.rt.RealtimeEnvironment(factor=1e-9, strict=False)

    def site() -> Any:
        epoch = began(world.sync)
        for k in range(1, subframes + 1):
            worked()
            yield world.timeout(PERIOD_NS)
            lags.append(time.perf_counter_ns() - epoch - k * PERIOD_NS)

    world.process(site())
    world.run()


def shares(lags: list[int]) -> dict[str, float]:
    """Percentiles of lags in microseconds, and how many were later than a millisecond."""
    found = {f"p{q}_us": float(np.percentile(lags, q)) / 1e3 for q in (50, 90, 99)}
    return {**found, "max_us": max(lags) / 1e3, "late_share": float(np.mean(np.array(lags) > 1_000_000))}


def drift(minutes: float) -> dict[str, float]:
    """The twin's clock alone: least and median lag of each tenth of the time; a clock that drifts moves the least, a busy machine only the median."""
    subframes = round(minutes * 60e9 / PERIOD_NS)
    lags: list[int] = []
    ours(subframes, lags)
    tenths = [np.array(part) / 1e3 for part in np.array_split(np.array(lags), 10)]
    least = [float(part.min()) for part in tenths]
    slope = float(np.polyfit(np.arange(10) * minutes / 10, least, 1)[0]) * 60
    found = {"minutes": minutes, "first_least_us": least[0], "last_least_us": least[-1], "least_us_an_hour": slope}
    return {
        **found,
        "first_p50_us": float(np.median(tenths[0])),
        "last_p50_us": float(np.median(tenths[-1])),
        **shares(lags),
    }


def plot(lags: dict[str, list[int]], file: Path) -> None:
    """Histograms of both on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    edges = np.logspace(-1, 4.5, 111)
    for (name, of), colour in zip(lags.items(), ("#0072b2", "#d55e00"), strict=True):
        us = np.maximum(np.array(of) / 1e3, edges[0])
        middle = float(np.median(us))
        axis.hist(
            us,
            edges,
            color=colour,
            alpha=0.6,
            label=f"{name}: half within {middle:.3g} us, p99 {np.percentile(us, 99):.0f} us",
        )
        axis.axvline(middle, color=colour, lw=1)
    axis.set(xscale="log", xlabel="lag at a subframe's end (us)", ylabel="subframes", xlim=(edges[0], edges[-1]))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right")
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def main() -> int:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.pacing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="20 s, or two minutes (default)"
    )
    parser.add_argument("--minutes", type=float, help="pace for so long instead, and print the drift")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the histogram of lags")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args()
    if given.minutes:
        found = drift(given.minutes)
        print(json.dumps(found) if given.json else "  ".join(f"{name} {value:.4g}" for name, value in found.items()))
        return 0
    rounds, subframes = (8, 250) if given.pace == "quick" else (40, 300)
    players: dict[str, Callable[[int, list[int]], None]] = {OURS: ours, THEIRS: theirs}
    lags: dict[str, list[int]] = {name: [] for name in players}
    for k in range(rounds):
        for name in (OURS, THEIRS) if k % 2 else (THEIRS, OURS):
            players[name](subframes, lags[name])
        print(f"round {k + 1} of {rounds}", file=sys.stderr)
    found_by: dict[str, Any] = {name: shares(of) for name, of in lags.items()}
    found_by["ratio_p50"] = found_by[THEIRS]["p50_us"] / found_by[OURS]["p50_us"]
    if given.plot:
        plot(lags, given.plot)
    if given.json:
        print(json.dumps(found_by))
        return 0
    print(
        f"{rounds * subframes} subframes of {PERIOD_NS * 1e-6:g} ms each, {WORK_NS * 1e-6:g} ms of work; lag at their ends"
    )
    for name in players:
        of = found_by[name]
        print(
            f"{name:9} p50 {of['p50_us']:8.1f} us  p90 {of['p90_us']:8.1f}  p99 {of['p99_us']:8.1f}  max {of['max_us']:8.1f}  above 1 ms {of['late_share']:.1%}"
        )
    print(f"p50 of simpy.rt is {found_by['ratio_p50']:.1f} times the twin's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
