"""Time the dual-scale search beside its naive version, interleaved in one process: ``python -m tools.bench.dual_scale [quick] [--json]``.

Naive: a bounded SciPy solve for every pair (M, floor T_l), dense matrices inside, as the paper's section III-C describes. On the large case only some
pairs are solved and the rest extrapolated from their mean; the line says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from tools.bench.row import Row, Side, Work
from twin.physics.dual_scale import believed_covariance, mmse_covariance
from twin.physics.sinr import sinr, subframe_rate
from twin.planning.dual_scale import Case, even_split, paper_drop, shortest_sensing_s, solve


def drawn(users: int, elements: int) -> Case:
    """The paper's drop at a size; an echo is as strong on any array, so that all need as long to be sensed."""
    return paper_drop(0, users=users, elements=elements, echo_snr=10**0.626 * (8 / elements) ** 2)[1]


def pairs_of(case: Case) -> list[tuple[int, int]]:
    """All (floor T_l, M) that leave room for pilots."""
    shortest, pilot = shortest_sensing_s(case) / case.block_s, case.pilot_s / case.block_s
    first = int(shortest)
    return [
        (h, m)
        for h in range(first, case.blocks)
        if max(shortest, h) <= h + 1 - pilot
        for m in range(1, case.blocks - h + 1)
    ]


def naive(case: Case, pairs: list[tuple[int, int]]) -> float:
    """The best rate over these pairs, one bounded solve each."""
    correlation = case.factor @ np.conj(np.swapaxes(case.factor, 1, 2))
    shortest = shortest_sensing_s(case) / case.block_s

    def value(t: float, split: np.ndarray) -> float:
        believed = believed_covariance(correlation, case.slope, case.gain, case.crb_s_rad2 / (t * case.block_s))
        estimate = mmse_covariance(believed, case.pilot_snr)
        gamma = sinr(correlation, case.gain, estimate, case.power_w, case.noise_w, case.rho, case.own_term)
        return subframe_rate(np.log2(1 + gamma).sum(axis=0), split, t * case.block_s, case.block_s, case.pilot_s)

    best = -np.inf
    for h, m in pairs:
        split = even_split(case.blocks - h, m)
        left, right = max(shortest, float(h)), h + 1 - case.pilot_s / case.block_s
        found = minimize_scalar(lambda t, split=split: -value(t, split), bounds=(left, right), method="bounded")
        best = max(best, -found.fun, value(left, split))
    return best


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row a case: median and spread of ours, the naive one, their ratio, and by how much their optima differ."""
    rows = []
    for users, elements, pairs_run, rounds in ((5, 8, None, 1 if quick else 3), (100, 64, 1 if quick else 6, 1)):
        case = drawn(users, elements)
        solve(case)  # compiles
        pairs = pairs_of(case)
        chosen = pairs if pairs_run is None else [pairs[i * len(pairs) // pairs_run] for i in range(pairs_run)]
        ours, theirs, gap = [], [], 0.0
        for _ in range(rounds):
            theirs.append(timed(lambda case=case, chosen=chosen: naive(case, chosen)))
            ours += [timed(lambda case=case: solve(case)) for _ in range(200 if users < 50 else 10)]
            gap = ours[-1][1].rate / theirs[-1][1] - 1
        naive_s = float(np.median([t for t, _ in theirs])) * len(pairs) / len(chosen)
        ours_s = np.array([t for t, _ in ours])
        rows.append(
            {
                "case": f"K = {users}, L = {elements}, N = {case.blocks}",
                "ours_ms": float(np.median(ours_s) * 1e3),
                "ours_p99_ms": float(np.percentile(ours_s, 99) * 1e3),
                "naive_ms": naive_s * 1e3,
                "ratio": naive_s / float(np.median(ours_s)),
                "pairs": len(pairs),
                "pairs_solved": len(chosen),
                "optimum_gap": gap if len(chosen) == len(pairs) else None,
            }
        )
    return rows


def ready(users: int, elements: int, solved: int | None) -> Work:
    """Every pair's solve, or ``solved`` of them spread over all, beside the search for all."""
    case = drawn(users, elements)
    pairs = pairs_of(case)
    chosen = pairs if solved is None else [pairs[i * len(pairs) // solved] for i in range(solved)]
    small = case if solved is None else drawn(5, 16)

    def gap(ours: Any, theirs: Any) -> float:
        if solved is None:
            return abs(float(ours.rate / theirs - 1))
        return abs(float(solve(small).rate / naive(small, pairs_of(small)) - 1))

    return Work(
        naive=Side(lambda: naive(case, chosen), len(chosen) / len(pairs)),
        ours=Side(lambda: solve(case)),
        apart=gap,
        within=1e-6,
    )


ROWS = (
    Row(
        "dual_scale.paper",
        "the best (M, T_l) for 5 users, 8 elements, 35 blocks",
        "a bounded SciPy solve for every pair (M, floor T_l), dense matrices",
        partial(ready, 5, 8, None),
        target=10_000,
        same="the optimal rate",
    ),
    Row(
        "dual_scale.large",
        "the same for 100 users, 64 elements",
        "a bounded SciPy solve for every pair, one of them timed",
        partial(ready, 100, 64, 1),
        target=1000,
        same="the optimal rate, of 5 users at 16 elements",
        only="full",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.dual_scale", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.pace == "quick")
    if given.json:
        json.dump(
            {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), "rows": rows},
            sys.stdout,
            indent=1,
        )
        print()
        return 0
    for row in rows:
        solved = (
            ""
            if row["pairs_solved"] == row["pairs"]
            else f" (extrapolated from {row['pairs_solved']} of {row['pairs']} pairs)"
        )
        print(
            f"{row['case']}: {row['ours_ms']:.3f} ms (p99 {row['ours_p99_ms']:.3f}), naive {row['naive_ms']:.0f} ms{solved}, ratio {row['ratio']:.0f}"
            + ("" if row["optimum_gap"] is None else f", optima differ by {row['optimum_gap']:.1e}")
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
