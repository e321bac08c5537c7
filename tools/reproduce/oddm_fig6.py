"""papers/001, figure 6: a randomly steered combiner against the optimised one, and the closed form."""

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import figure
from tools.reproduce.oddm import (
    NAMES,
    SCORED,
    TABLE_I,
    Setup,
    claim,
    estimators,
    main,
    rows,
    scored,
    scores,
    selected,
    told,
    trials,
    write,
)
from twin.drawing import GREY, GRID, look
from twin.physics.combiners import closed_form, genetic, random_steering, squinted, unambiguous


def make(path: Path, quick: bool) -> None:
    setup, lines = Setup(budget="paper"), []
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    draws, count = (3, 6) if quick else (15, 10)
    cases = [(f"random {i}", random_steering(array, f, 4, np.random.default_rng(i)), 100.0) for i in range(draws)]
    cases.append(
        ("genetic", genetic(array, u, f, np.random.default_rng(0), population=60 if quick else 200).combiner, 1.0)
    )
    cases.append(("squinted", squinted(array, u, f), 1.0))
    cases.append(("closed form", closed_form(array, u, f, 4), 1.0))
    cases.append(("unambiguous, all ahead", unambiguous(array, u, f, np.random.default_rng(0)), 100.0))
    for name, w, wide in cases:
        told(name)
        for scheme, score in scores(estimators(wide), trials(setup, w, lobe_width=wide, count=count)).items():
            lines.append((name, scheme, *scored(score)))
    write(path, ("combiner", "scheme", *SCORED), lines)


def verdict(path: Path) -> list[dict]:
    found = rows(path)
    own = [r for r in found if str(r["combiner"]).startswith("random")]
    apart = {
        s: [r["rmse_azimuth_rad"] / r["crlb_azimuth_rad"] for r in selected(own, scheme=s)]
        for s in ("three_step", "joint")
    }
    bound = np.array([r["crlb_azimuth_rad"] for r in selected(own, scheme="joint")])
    best = {name: selected(found, combiner=name, scheme="joint")[0] for name in ("genetic", "squinted", "closed form")}
    fall = np.median(bound) / best["genetic"]["crlb_azimuth_rad"]
    far = np.median([r["crlb_range_m"] for r in selected(own, scheme="joint")]) / best["genetic"]["crlb_range_m"]
    wide = selected(found, combiner="unambiguous, all ahead", scheme="joint")[0]
    ours = {n: max(best[n][f"rmse_{p}"] / best[n][f"crlb_{p}"] for p in NAMES) for n in best}
    return [
        claim(
            "a randomly steered combiner does not approach its CRLB (median azimuth RMSE above 3 bounds)",
            np.median(apart["three_step"]) > 3,
            three_step=np.median(apart["three_step"]),
            joint=np.median(apart["joint"]),
        ),
        claim("the optimised CRLB of angles is up to two orders lower", fall >= 100, times=fall),
        claim("range and velocity improve greatly as well (10 times)", far >= 10, times=far),
        claim(
            "the optimised combiner's estimates are at their CRLB (worst of four below 1.5)",
            ours["genetic"] < 1.5,
            **ours,
        ),
        claim(
            "ours: the closed form is no worse than the genetic search",
            best["closed form"]["crlb_azimuth_rad"] <= 1.01 * best["genetic"]["crlb_azimuth_rad"],
            ratio=best["closed form"]["crlb_azimuth_rad"] / best["genetic"]["crlb_azimuth_rad"],
        ),
        claim(
            "ours: with random phases for the fourth column the whole half space may be searched",
            wide["outliers"] == 0,
            outliers=wide["outliers"],
        ),
    ]


def draw(path: Path) -> Any:
    """RMSE over bound, and the bound itself, a combiner a place."""
    found = rows(path)
    names = list(dict.fromkeys(str(r["combiner"]) for r in found))
    drawing, axes = figure(2, 4.2)
    for i, scheme in enumerate(("three_step", "joint")):
        mine = {str(r["combiner"]): r for r in selected(found, scheme=scheme)}
        value = [mine[n]["rmse_azimuth_rad"] / mine[n]["crlb_azimuth_rad"] for n in names]
        axes[0].plot(value, range(len(names)), label=scheme, **{**look(i), "linestyle": ""})
    bound = {str(r["combiner"]): r["crlb_azimuth_rad"] for r in selected(found, scheme="joint")}
    axes[1].plot([np.rad2deg(bound[n]) * 1e3 for n in names], range(len(names)), **{**look(2), "linestyle": ""})
    axes[0].axvline(1, color=GREY, linewidth=0.8)
    for axis, label in zip(axes, ("azimuth RMSE over its bound", "bound of azimuth, mdeg"), strict=True):
        axis.set_yticks(range(len(names)), names)
        axis.set(xscale="log", xlabel=label)
        axis.grid(**GRID)
    axes[0].legend()
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
