"""papers/000, proposition 1: does a higher C-S correlation bring a better rate-CRB pair? Random delays, phases and power alternated."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import figure
from tools.reproduce.squint import claim, main, rows, told
from twin.compare_precoders import ETA, scored
from twin.compare_precoders import draw as drawn
from twin.drawing import GRID, look
from twin.precoding import Design, Problem
from twin.precoding.no_ttd import NoTtd
from twin.precoding.sa_opt import SaOpt


@dataclass(frozen=True)
class OnePass:
    """SA-Opt stopped after so many lines, from its random start: delays of any correlation between random and searched."""

    lines: int
    seed: int

    def design(self, problem: Problem) -> Design:
        """A random start is a previous design; ``budget_steps`` then bounds the search."""
        start = NoTtd(rounds=1).design(problem)
        rng = np.random.Generator(np.random.Philox(key=self.seed))
        network = problem.half.network
        delay_s = (
            rng.integers(2**network.delay_bits, size=start.delay_s.shape)
            * network.delay_range_s
            / 2**network.delay_bits
        )
        previous = replace(start, delay_s=delay_s)
        return SaOpt(eta=ETA, balanced=False, budget_steps=self.lines).design(replace(problem, previous=previous))


def make(path: Path, quick: bool) -> None:
    draws, settings = (3, 8) if quick else (12, 40)
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("x", "seed", "scheme", "rate", "crb", "divergence", "time_s"))
        for seed in range(draws):
            problem = drawn(seed)
            for i in range(settings):
                score = scored(problem, OnePass(1 + (i * 64) // settings, 1000 + i).design(problem))
                table.writerow((i, seed, "random", score.rate, score.crb, score.divergence, score.time_s))
            told(f"{seed + 1}/{draws} draws")


def verdict(path: Path) -> list[dict]:
    from scipy.stats import spearmanr, t

    found = rows(path)
    seeds = sorted({r["seed"] for r in found})
    rank = {"rate": [], "1/CRB": []}
    for seed in seeds:
        own = [r for r in found if r["seed"] == seed]
        cor = [1 / r["divergence"] for r in own]
        rank["rate"].append(spearmanr(cor, [r["rate"] for r in own]).statistic)
        rank["1/CRB"].append(spearmanr(cor, [1 / r["crb"] for r in own]).statistic)
    out = []
    for name, values in rank.items():
        mean = float(np.mean(values))
        half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
        out.append(
            claim(
                f"{name} increases with the C-S correlation",
                mean - half > 0,
                spearman=mean,
                ci95=half,
                draws=len(seeds),
            )
        )
    return out


def draw(path: Path) -> Any:
    found, (drawing, axes) = rows(path), figure(2)
    for axis, what, label in zip(
        axes, ("rate", "crb"), ("rate over the draw's mean", "bound over the draw's mean"), strict=True
    ):
        for i, seed in enumerate(sorted({r["seed"] for r in found})):
            mine = [r for r in found if r["seed"] == seed]
            y = np.array([r[what] for r in mine])
            axis.plot([r["divergence"] for r in mine], y / y.mean(), **{**look(i), "linestyle": "", "markersize": 3})
        axis.set(xlabel="divergence of beam and C-S map (less is more correlated)", ylabel=label, xscale="log")
        axis.grid(**GRID)
    axes[1].set_yscale("log")
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
