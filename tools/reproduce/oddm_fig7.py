"""papers/001, figure 7: convergence of the genetic search for elite rates of 10, 40 and 70 %."""

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import curves, figure
from tools.reproduce.oddm import TABLE_I, Setup, claim, main, rows, selected, told, write
from twin.physics.combiners import closed_form, genetic
from twin.physics.hybrid_bound import angle_bound, angle_slopes, combiner_gram, precoder_gram

RATES = (0.1, 0.4, 0.7)


def make(path: Path, quick: bool) -> None:
    setup, lines = Setup(), []
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    slopes = angle_slopes(array, u, f)
    light = precoder_gram(slopes, np.conj(slopes[:, :1]) / np.sqrt(len(slopes)))
    least = np.trace(angle_bound(combiner_gram(slopes, closed_form(array, u, f)), light, 1.0, 1.0, 1))
    for population in (40,) if quick else (40, 200):
        for seed in range(5 if quick else 20 if population == 40 else 4):
            for rate in RATES:
                told(f"population {population}, seed {seed}, elite {rate:g}")
                rng = np.random.default_rng(seed)
                found = genetic(
                    array,
                    u,
                    f,
                    rng,
                    population=population,
                    elite_rate=rate,
                    generations=50,
                    spread_rad=np.deg2rad(8.0),
                )
                for i, value in enumerate(np.sqrt(found.fitness / least)):
                    lines.append((population, seed, rate, i, value))
    write(path, ("population", "seed", "rate", "generation", "over_digital"), lines)


def verdict(path: Path) -> list[dict]:
    found = selected(rows(path), population=40.0)
    curve = {}
    for rate in RATES:
        own = selected(found, rate=rate)
        curve[rate] = np.array(
            [np.mean([r["over_digital"] for r in selected(own, generation=float(g))]) for g in range(51)]
        )
    settled = {rate: int(np.argmax(c < c[-1] + 0.05 * (c[0] - c[-1]))) for rate, c in curve.items()}
    end = {rate: c[-1] for rate, c in curve.items()}
    numbers = {f"end_{r:g}": end[r] for r in RATES} | {f"generations_{r:g}": settled[r] for r in RATES}
    return [
        claim(
            "an elite rate of 10 % converges fastest but to a poorer fitness",
            settled[0.1] < settled[0.4] and end[0.1] > 1.02 * max(end[0.4], end[0.7]),
            **numbers,
        ),
        *same_end(rows(path)),
        claim("40 % converges faster than 70 %", settled[0.4] < settled[0.7], at_40=settled[0.4], at_70=settled[0.7]),
        claim(
            "ours: the closed form is below all of them at once",
            min(end.values()) > 1.0,
            best_over_closed_form=min(end.values()),
        ),
    ]


def same_end(found: list[dict]) -> list[dict]:
    """Whether 40 and 70 % end alike, a population a claim: within 5 %, or not to be told apart by the seeds there are."""
    out = []
    for population in sorted({r["population"] for r in found}):
        last = selected(found, population=population, generation=50.0)
        at_40, at_70 = (np.array([r["over_digital"] for r in selected(last, rate=rate)]) for rate in (0.4, 0.7))
        ratio = at_40.mean() / at_70.mean()
        apart = at_40 - ratio * at_70
        half = 1.96 * np.std(apart, ddof=1) / np.sqrt(len(apart)) / at_70.mean() if len(apart) > 1 else 0.0
        out.append(
            claim(
                f"40 % and 70 % reach the same fitness (population {population:g}: within 5 %, or the 95 % interval over seeds)",
                abs(ratio - 1) < max(0.05, half),
                ratio=ratio,
                interval_95=half,
                seeds=len(at_40),
            )
        )
    return out


def draw(path: Path) -> Any:
    """Mean over seeds of the best so far, an elite rate a curve."""
    found = [{**r, "elite rate": f"{r['rate']:.0%}"} for r in rows(path)]
    sizes = sorted({r["population"] for r in found})
    drawing, axes = figure(len(sizes))
    for axis, size in zip(axes, sizes, strict=True):
        labels = {"title": f"population {size:g}", "ylabel": "angle bound over the digital one"}
        curves(axis, selected(found, population=size), "generation", "over_digital", "elite rate", log_y=True, **labels)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
