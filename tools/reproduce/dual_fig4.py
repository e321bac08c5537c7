"""papers/004, figure 4: rate versus the number of updates M at two requirements."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.dual import PRINTED, READINGS, claim, drop, main, read, written
from tools.reproduce.figure import curves, figure
from twin.planning.dual_scale import shortest_sensing_s, solve


def make(path: Path, quick: bool) -> None:
    def lines() -> Iterator[tuple[Any, ...]]:
        for reading in READINGS:
            for gamma in (0.05, 0.5):
                for seed in range(3 if quick else 12):
                    case = drop(seed, gamma, reading)
                    sensing_s = solve(case).sensing_s
                    sensing_s = max(sensing_s, shortest_sensing_s(case))
                    data = case.blocks - int(np.floor(sensing_s / case.block_s * (1 + 1e-12)))
                    for m in range(1, data + 1):
                        yield reading, gamma, seed, m, solve(case, "fixed", updates=m, sensing_s=sensing_s).rate

    written(path, ("reading", "gamma", "seed", "updates", "rate"), lines())


def verdict(path: Path) -> list[dict[str, Any]]:
    found = read(path)
    peak: dict[str, float] = {}
    inside, ratio, higher = {}, {}, {}
    for reading in READINGS:
        mean = {}
        for gamma in (0.05, 0.5):
            mine = [r for r in found if r["reading"] == reading and r["gamma"] == gamma]
            full = len({r["seed"] for r in mine})
            by_m: dict[float, list[float]] = {}
            for r in mine:
                by_m.setdefault(r["updates"], []).append(r["rate"])
            mean[gamma] = np.array([np.mean(by_m[m]) for m in sorted(by_m) if len(by_m[m]) == full])
        one = mean[0.5]
        peak[reading] = float(np.argmax(one) + 1)
        inside[reading] = bool(all(0 < np.argmax(v) < len(v) - 1 for v in mean.values()))
        ratio[reading] = float(one[6] / one.max())
        shared = min(len(v) for v in mean.values())
        higher[reading] = bool(np.all(mean[0.5][:shared] > mean[0.05][:shared]))
    at_seven = {reading: abs(m - 7) <= 0.5 for reading, m in peak.items()}
    flat = {reading: r >= 0.985 for reading, r in ratio.items()}
    return [
        claim("the rate rises with M and then falls", inside[PRINTED], inside),
        claim(
            "M = 7 is the best number of updates at Gamma = 0.5",
            at_seven[PRINTED],
            at_seven,
            printed_best=peak[PRINTED],
            lowest_best=min(peak.values()),
        ),
        claim("M = 7 is within 1.5 % of the best", flat[PRINTED], flat, printed_ratio=ratio[PRINTED]),
        claim("a stricter requirement lowers the rate at every M", higher[PRINTED], higher),
    ]


def draw(path: Path) -> Any:
    found = [{**r, "Γ": f"Γ = {r['gamma']:g}"} for r in read(path)]
    drawing, axes = figure(len(READINGS))
    for axis, reading in zip(axes, READINGS, strict=True):
        mine = [r for r in found if r["reading"] == reading]
        curves(axis, mine, "updates", "rate", "Γ", title=reading, xlabel="updates M", ylabel="rate, bit/Hz a subframe")
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
