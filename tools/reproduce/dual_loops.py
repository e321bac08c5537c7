"""papers/004, section III-C: the loops of the two-dimensional search, and whether it finds the optimum."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import claim, main, read, written
from tools.reproduce.figure import figure
from twin.drawing import GRID, look
from twin.planning.dual_scale import loops, paper_drop, shortest_sensing_s, solve


def make(path: Path, quick: bool) -> None:
    def lines() -> Iterator[tuple[Any, ...]]:
        for seed in range(20 if quick else 220):
            rng = np.random.default_rng(seed)
            blocks, std = int(rng.integers(8, 36)), rng.uniform(0.1, 0.707)
            case = paper_drop(
                seed,
                blocks=blocks,
                crb_max_rad2=np.deg2rad(std) ** 2,
                echo_snr=10 ** rng.uniform(0.6, 1.6) * (0.5 / std) ** 2,
                pilot_snr=10 ** rng.uniform(-1, 3),
                own_term=bool(rng.integers(2)),
            )[1]
            first = int(shortest_sensing_s(case) / case.block_s * (1 + 1e-12))
            pairs = sum(1 for h in range(first, blocks) for m in range(1, blocks - h + 1))
            found, brute = solve(case), solve(case, "brute", step_s=case.block_s / 14)
            yield seed, blocks, first, loops(blocks, first), pairs, found.evaluations, found.rate, brute.rate

    written(path, ("seed", "blocks", "first", "loops", "pairs", "evaluations", "rate", "brute"), lines())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)
    gap = np.array([r["rate"] / r["brute"] - 1 for r in found])
    same = all(r["loops"] == r["pairs"] for r in found)
    return [
        claim("the search visits sum_h (N - h) pairs (M, floor T_l)", same, pairs_at_n_35=loops(35, 0)),
        claim("it finds the optimum (brute force, to 1e-9)", bool(gap.min() > -1e-9), worst=gap.min(), most_above_grid=gap.max(), instances=len(gap)),
        claim("every pair takes a convex solve of its own", bool(np.median([r["evaluations"] for r in found]) > 0.5 * np.median([r["pairs"] for r in found])),
              sensing_times_tried=float(np.median([r["evaluations"] for r in found])), pairs=float(np.median([r["pairs"] for r in found]))),
    ]  # fmt: skip


def draw(path: Path) -> Any:
    found, (drawing, (axis,)) = read(path), figure()
    for i, (what, label) in enumerate((("pairs", "pairs (M, floor T_l)"), ("evaluations", "sensing times tried"))):
        axis.plot(
            [r["blocks"] for r in found],
            [r[what] for r in found],
            label=label,
            **{**look(i), "linestyle": "", "markersize": 3},
        )
    axis.set(xlabel="blocks in a subframe, N", ylabel="a solve's", yscale="log")
    axis.grid(**GRID)
    axis.legend()
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
