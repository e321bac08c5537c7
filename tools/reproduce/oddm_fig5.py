"""papers/001, figure 5: how the precoder's central azimuth affects accuracy, with a combiner of random phases that steers no beam."""

from pathlib import Path
from typing import Any

import numpy as np

from hal.array import direction_from, steering
from tools.reproduce.figure import curves, figure
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
from twin.physics.combiners import random_phases
from twin.physics.hybrid_precoding import sensing_precoder

CENTRES = (-50.0, -30.0, -20.0, -10.0, 0.0, 5.0, 10.0, 13.0, 15.0, 17.0, 20.0, 25.0, 30.0, 50.0)
QUICK = (-30.0, 5.0, 15.0, 25.0)


def pattern_db(setup: Setup, centre_deg: float) -> float:
    """Power of a beam at ``centre_deg`` towards the target, over that of an aligned one."""
    beam = steering(setup.array, direction_from(np.deg2rad(centre_deg), 0.0), np.float64(TABLE_I.carrier_hz))
    towards = steering(setup.array, setup.direction, np.float64(TABLE_I.carrier_hz))
    return float(20 * np.log10(np.abs(np.vdot(beam, towards)) / len(beam)))


def swept(path: Path, centres, combiners, count: int, wide: float) -> None:
    """A row a budget, combiner, centre and estimator."""
    lines = []
    for budget in ("paper", "radar"):
        setup = Setup(budget=budget)
        for name, combiner in combiners.items():
            for centre in centres if budget == "paper" else (15.0,):
                told(f"{budget}, {name}, {centre:g} deg")
                away = direction_from(np.deg2rad(centre), 0.0)
                f = sensing_precoder(setup.array, away, TABLE_I.carrier_hz, setup.power_w, setup.streams)
                made = trials(setup, combiner, f, lobe_width=wide, count=count, seed=int(centre) + 90)
                for scheme, score in scores(estimators(wide), made).items():
                    lines.append((budget, name, centre, pattern_db(setup, centre), scheme, *scored(score)))
    write(path, ("budget", "combiner", "x", "pattern_db", "scheme", *SCORED), lines)


def make(path: Path, quick: bool) -> None:
    w = random_phases(Setup().array, 4, np.random.default_rng(1))
    swept(path, QUICK if quick else CENTRES, {"random phases": w}, 6 if quick else 12, 100.0)


def verdict(path: Path) -> list[dict]:
    found = rows(path)
    out = []
    for scheme in ("three_step", "joint"):
        own = selected(found, budget="paper", scheme=scheme)
        near = [max(r[f"rmse_{n}"] / r[f"crlb_{n}"] for n in NAMES) for r in own]
        share = float(np.mean(np.array(near) < 2.0))
        out.append(
            claim(
                f"the four accuracies are close to their CRLBs in most cases ({scheme}: worst of four below 2 at 3/4 of the centres)",
                share >= 0.75,
                share_of_centres=share,
                median_worst=float(np.nanmedian(near)),
            )
        )
    own = selected(found, budget="paper", scheme="joint")
    best = min(own, key=lambda r: r["rmse_azimuth_rad"])
    out.append(claim("accuracy is highest where the precoder is aligned", best["x"] == 15.0, best_deg=best["x"]))
    aligned = selected(own, x=15.0)[0]
    levels = {
        "azimuth_mdeg": np.rad2deg(aligned["rmse_azimuth_rad"]) * 1e3,
        "range_mm": aligned["rmse_range_m"] * 1e3,
        "velocity_mmps": aligned["rmse_velocity_mps"] * 1e3,
    }
    out.append(
        claim(
            "millidegrees, millimetres, mm/s when aligned (one-way Friis budget)", max(levels.values()) < 10, **levels
        )
    )
    usable = [r for r in own if r["outliers"] == 0]
    slope, _ = np.polyfit([r["pattern_db"] for r in usable], [20 * np.log10(r["rmse_azimuth_rad"]) for r in usable], 1)
    out.append(
        claim("RMSE is the inverse of the beam pattern (slope -1 within 0.15)", abs(slope + 1) < 0.15, slope=slope)
    )
    honest = selected(found, budget="radar", scheme="joint", x=15.0)[0]
    out.append(
        claim(
            "ours: the levels hold with the radar equation and 1 m2 as well",
            np.rad2deg(honest["crlb_azimuth_rad"]) * 1e3 < 10 and honest["crlb_range_m"] < 0.01,
            azimuth_bound_mdeg=np.rad2deg(honest["crlb_azimuth_rad"]) * 1e3,
            range_bound_mm=honest["crlb_range_m"] * 1e3,
            velocity_bound_mmps=honest["crlb_velocity_mps"] * 1e3,
        )
    )
    return out


def draw(path: Path) -> Any:
    """RMSE of each estimator and the bound, over the centre, for the four parameters."""
    found = selected(rows(path), budget="paper")
    drawing, axes = figure(4)
    for axis, name in zip(axes, NAMES, strict=True):
        mine = [{**r, "of": r["scheme"], "value": r[f"rmse_{name}"]} for r in found]
        mine += [{**r, "of": "bound", "value": r[f"crlb_{name}"]} for r in found if r["scheme"] == "joint"]
        curves(axis, mine, "x", "value", "of", log_y=True, xlabel="central azimuth of the precoder, deg", ylabel=name)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
