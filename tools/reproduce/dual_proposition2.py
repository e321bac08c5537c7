"""papers/004, proposition 2: equal splits of the blocks over the updates against all splits, by dynamic programming."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import claim, main, read, written
from tools.reproduce.figure import curves, figure
from twin.planning.dual_scale import bits, dynamic_split, even_split, paper_drop, shortest_sensing_s


def make(path: Path, quick: bool) -> None:
    def lines() -> Iterator[tuple[Any, ...]]:
        for law in ("geometric", "jakes", "one_ring"):
            for own in (True, False):
                for seed in range(2 if quick else 10):
                    _, case = paper_drop(seed, law=law, own_term=own)
                    phi = bits(case, shortest_sensing_s(case))
                    total = np.concatenate([[0.0], np.cumsum(phi)])
                    for m in (1, 2, 3, 4, 5, 7, 11, 16, 24, 31) if quick else range(1, 32):
                        equal = float(total[even_split(31, m)].sum())
                        best, _ = dynamic_split(phi, 31, m)
                        yield law, int(own), seed, m, equal, best, m * case.pilot_s / case.block_s * float(phi[0])

    written(path, ("law", "own_term", "seed", "updates", "equal", "best", "pilots"), lines())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)

    def gap(law: str) -> np.ndarray:
        return np.array([r["equal"] / r["best"] - 1 for r in found if r["law"] == law])

    at_best = []
    for law in ("jakes", "one_ring"):
        for own in (0.0, 1.0):
            for seed in {r["seed"] for r in found}:
                mine = [r for r in found if (r["law"], r["own_term"], r["seed"]) == (law, own, seed)]
                top = max(mine, key=lambda r: r["best"] - r["pilots"])
                at_best.append(top["equal"] / top["best"] - 1)
    steady = gap("geometric")
    return [
        claim(
            "equal splits are optimal (rho_n = rho_1^n, as simulated)",
            bool(steady.min() > -1e-12),
            worst_loss=0.0 - steady.min(),
            splits=len(steady),
        ),
        claim(
            "equal splits are optimal (Jakes, equation 4)",
            bool(gap("jakes").min() > -1e-12),
            worst_loss=0.0 - gap("jakes").min(),
        ),
        claim(
            "equal splits are optimal (ring seen as a uniform spectrum)",
            bool(gap("one_ring").min() > -1e-12),
            worst_loss=0.0 - gap("one_ring").min(),
        ),
        claim(
            "at the best M they lose nothing under either", bool(min(at_best) > -1e-9), worst_loss=0.0 - min(at_best)
        ),
    ]


def draw(path: Path) -> Any:
    found = [
        {
            **r,
            "loss": 100 * (1 - r["equal"] / r["best"]),
            "law, own": f"{r['law']}, i = k {'on' if r['own_term'] else 'off'}",
        }
        for r in read(path)
    ]
    drawing, (axis,) = figure()
    curves(axis, found, "updates", "loss", "law, own", xlabel="updates M", ylabel="equal split below the best split, %")
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
