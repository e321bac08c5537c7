"""papers/001, figure 9: the sweep of the precoder's central azimuth again, with the optimised combiner."""

from pathlib import Path
from typing import Any

import numpy as np

from tools.reproduce.figure import curves, figure
from tools.reproduce.oddm import NAMES, TABLE_I, Setup, claim, main, rows, selected
from tools.reproduce.oddm_fig5 import CENTRES, QUICK, swept
from twin.physics.combiners import genetic, random_phases


def make(path: Path, quick: bool) -> None:
    setup = Setup()
    rng = np.random.default_rng(0)
    best = genetic(
        setup.array,
        setup.direction,
        TABLE_I.carrier_hz,
        rng,
        population=60 if quick else 200,
        spread_rad=np.deg2rad(4.0),
    ).combiner
    count = 6 if quick else 12
    swept(path, QUICK if quick else CENTRES, {"genetic": best}, count, 1.0)
    beside = path.with_suffix(".random.csv")
    swept(
        beside, (15.0, 25.0), {"random phases": random_phases(setup.array, 4, np.random.default_rng(1))}, count, 100.0
    )
    path.write_text(path.read_text() + "".join(beside.read_text().splitlines(keepends=True)[1:]))
    beside.unlink()


def verdict(path: Path) -> list[dict]:
    found = selected(rows(path), budget="paper")
    out = []
    for scheme in ("three_step", "joint"):
        own = selected(found, combiner="genetic", scheme=scheme)
        near = np.array([max(r[f"inlier_{n}"] for n in NAMES) for r in own])
        out.append(
            claim(
                f"accuracy approaches the CRLB but for a few outliers ({scheme}: inliers below 1.6 at nine tenths of the centres)",
                float(np.mean(near < 1.6)) >= 0.9,
                share_of_centres=float(np.mean(near < 1.6)),
                outliers=float(np.mean([r["outliers"] for r in own])),
            )
        )
    own = {r["x"]: r for r in selected(found, combiner="genetic", scheme="joint")}
    plain = {r["x"]: r for r in selected(found, combiner="random phases", scheme="joint")}
    fall = {n: float(np.median([plain[x][f"crlb_{n}"] / own[x][f"crlb_{n}"] for x in plain])) for n in NAMES}
    out.append(
        claim(
            "about one order below the combiner that steers no beam (5 to 40 times)",
            all(5 < v < 40 for v in fall.values()),
            **fall,
        )
    )
    levels = np.array(
        [
            [np.rad2deg(r["crlb_azimuth_rad"]) * 1e3, r["crlb_range_m"] * 1e3, r["crlb_velocity_mps"] * 1e3]
            for r in own.values()
        ]
    )
    share = float(np.mean(np.all(levels < 10, axis=1)))
    out.append(claim("most centres satisfy millidegrees, millimetres, mm/s (all below 10)", share > 0.5, share=share))
    return out


def draw(path: Path) -> Any:
    """RMSE of each estimator and the bound, over the centre, for the four parameters."""
    found = selected(rows(path), budget="paper", combiner="genetic")
    drawing, axes = figure(4)
    for axis, name in zip(axes, NAMES, strict=True):
        mine = [{**r, "of": r["scheme"], "value": r[f"rmse_{name}"]} for r in found]
        mine += [{**r, "of": "bound", "value": r[f"crlb_{name}"]} for r in found if r["scheme"] == "joint"]
        curves(axis, mine, "x", "value", "of", log_y=True, xlabel="central azimuth of the precoder, deg", ylabel=name)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main(__doc__, make, verdict))
