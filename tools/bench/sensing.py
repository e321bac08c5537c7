"""Accuracy and cost of the four-parameter estimators at Table I of papers/001: ``python -m tools.bench.sensing [quick] [--trials N] [--json]``.

Data are laid pulse by pulse (``tools.reproduce.oddm``). Ratios are RMSE over the Cramer-Rao bound of the very frames, with 95 % intervals;
times are process CPU time, medians, interleaved in one process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import beta

from hal.array import LIGHT_MPS
from tools.reproduce.oddm import NAMES, TABLE_I, Setup, Trial, band, errors, estimators, sigmas, told, trials
from twin.physics.combiners import closed_form, genetic, random_phases, squinted, unambiguous
from twin.physics.hybrid_bound import angle_bound, angle_slopes, combiner_gram, precoder_gram
from twin.physics.hybrid_precoding import svd_precoder
from twin.physics.hybrid_track import update
from twin.sensing.joint import Joint

SPAN: dict[str, Any] = {"max_range_m": 290.0, "max_speed_mps": 119.0}
BASE = (15.0, 0.0, 50.0, 300 / 3.6, 1.0)
SCENES = {
    "three targets": [BASE, (16.1, 0.3, 57.0, 40.0, 1.0), (13.8, -0.4, 64.0, -30.0, 0.8)],
    "pair 2.5 m apart": [BASE, (15.0, 0.0, 52.5, 300 / 3.6, 1.0)],
    "pair 8 m/s apart": [BASE, (15.0, 0.0, 50.0, 300 / 3.6 - 8, 1.0)],
    "pair 1.0 m apart": [BASE, (15.0, 0.0, 51.0, 300 / 3.6, 1.0)],
    "pair 3 m/s apart": [BASE, (15.0, 0.0, 50.0, 300 / 3.6 - 3, 1.0)],
    "pair 0.3 deg, 1.5 m, 5 m/s apart": [BASE, (15.3, 0.2, 51.5, 300 / 3.6 - 5, 1.0)],
}


def normalised(estimator: Any, made: Any) -> np.ndarray:
    """Errors in standard deviations of the bound: [trial x target, 4]; infinite where nothing was found."""
    table = [errors(t, estimator.detect_dwell(t.dwell).value) / sigmas(t) for t in made]
    return np.nan_to_num(np.concatenate(table), nan=np.inf)


def line(what: str, table: np.ndarray, limit: float = 6.0) -> dict[str, Any]:
    """Ratios with half widths, outliers and their upper bound."""
    good = np.all(np.abs(table) < limit, axis=1)
    wrong, total = int((~good).sum()), len(table)
    out: dict[str, Any] = {"what": what, "trials": total, "outliers": wrong}
    out["outliers_95"] = float(beta.ppf(0.95, wrong + 1, total - wrong)) if wrong < total else 1.0
    for i, name in enumerate(NAMES):
        out[name], out[f"{name}_ci95"] = band(table[good, i])
    return out


def precoders(setup: Setup) -> dict[str, np.ndarray | None]:
    """Rank one (eq (79)) and the four beams of a communication precoder, one of which hits the target."""
    from tools.reproduce.oddm_fig10 import channel

    return {
        "rank one": None,
        "four beams": svd_precoder(channel(setup, -27.0, np.random.default_rng(0)), setup.power_w, 4)[0],
    }


def accuracy(count: int) -> list[dict[str, Any]]:
    """Lines of the table RMSE over bound."""
    setup, out = Setup(), []
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    single = Joint(max_targets=1, **SPAN)
    cases: list[tuple[str, Setup, Any, Any, float]] = [
        ("squinted, rank one, radar equation 1 m2", setup, None, None, 1.0),
        (
            "squinted, four beams, radar equation 10 m2",
            replace(setup, rcs_m2=10.0),
            None,
            precoders(setup)["four beams"],
            1.0,
        ),
        ("closed form, one-way Friis", replace(setup, budget="paper"), closed_form(array, u, f, 4), None, 1.0),
        (
            "random phases, all ahead, one-way Friis",
            replace(setup, budget="paper"),
            random_phases(array, 4, np.random.default_rng(1)),
            None,
            100.0,
        ),
        (
            "unambiguous, all ahead, one-way Friis",
            replace(setup, budget="paper"),
            unambiguous(array, u, f, np.random.default_rng(1)),
            None,
            100.0,
        ),
    ]
    for name, at, w, precoder, wide in cases:
        told(name)
        many = count if "rank one" in name else max(count // 5, 20)
        made = trials(at, w, precoder, lobe_width=wide, count=many, seed=1)
        out.append(line(name, normalised(replace(single, lobe_width=wide, starts=24 if wide > 1 else 4), made)))
    faint = replace(setup, power_w=setup.power_w * 10**1.8 / setup.integrated_snr)
    told("18 dB")
    out.append(
        line("squinted, rank one, 18 dB integrated", normalised(single, trials(faint, count=count, seed=2)), 8.0)
    )
    for seed, (name, targets) in enumerate(SCENES.items(), 3):  # rows of one seed would share their luck
        told(name)
        made = trials(replace(setup, rcs_m2=10.0), targets=targets, count=max(count // 10, 20), seed=seed)
        out.append(line(name, normalised(Joint(**SPAN), made)))
    return out


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median process time of a call, in ms."""
    spent = []
    for _ in range(rounds):
        begin = time.process_time_ns()
        work()
        spent.append(time.process_time_ns() - begin)
    return float(np.median(spent)) * 1e-6


def costs(quick: bool) -> list[dict[str, Any]]:
    """Times of one estimate side by side, of a tracking step, and of the combiners."""
    setup, rows = Setup(), []
    rounds = 3 if quick else 15
    for name, precoder in precoders(setup).items():
        told(f"time, {name}")
        trial: Trial = next(iter(trials(setup, precoder=precoder, count=1)))
        dwell = trial.dwell
        steps, ours = estimators()["three_step"], Joint(max_targets=1, **SPAN)
        steps.estimate(dwell), ours.estimate(dwell)
        slow, fast = [], []
        for _ in range(rounds):
            slow.append(timed(lambda d=dwell, s=steps: s.estimate(d), 1))
            fast += [timed(lambda d=dwell, s=ours: s.estimate(d), 1) for _ in range(20)]
        rows.append({"what": f"one estimate, {name}", "three_step_ms": np.median(slow), "joint_ms": np.median(fast)})
        rows[-1]["ratio"] = rows[-1]["three_step_ms"] / rows[-1]["joint_ms"]
        if name == "rank one":
            spectrum = np.fft.fft(dwell.sent).astype(np.complex64)
            rate = TABLE_I.sample_rate_hz
            scale = np.array([1, 1, 2 * rate / LIGHT_MPS, 2 * TABLE_I.carrier_hz / (LIGHT_MPS * rate)])
            at = trial.value[0] * scale

            def step(d: Any = dwell, s: Any = spectrum, p: Any = at) -> Any:
                return update(d.data, s, d.start, 0.1, d.aperture, p, d.noise_w)

            step()
            rows.append({"what": "tracking step", "joint_ms": timed(lambda: [step() for _ in range(50)], 20) / 50})
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    slopes = angle_slopes(array, u, f)
    light = precoder_gram(slopes, np.conj(slopes[:, :1]) / np.sqrt(len(slopes)))

    def over(w: np.ndarray | None) -> float:
        return float(np.sqrt(np.trace(angle_bound(combiner_gram(slopes, w), light, 1.0, 1.0, 1))))

    found = genetic(array, u, f, np.random.default_rng(0)).combiner
    slow_ms = timed(lambda: genetic(array, u, f, np.random.default_rng(0)), 1)
    fast_ms = timed(lambda: [closed_form(array, u, f) for _ in range(50)], 10) / 50
    rows.append(
        {
            "what": "combiner",
            "genetic_ms": slow_ms,
            "closed_form_ms": fast_ms,
            "ratio": slow_ms / fast_ms,
            "genetic_over_digital": over(found) / over(None),
            "closed_form_over_digital": over(closed_form(array, u, f)) / over(None),
            "squinted_over_digital": over(squinted(array, u, f)) / over(None),
        }
    )
    return rows


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.sensing", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full")
    parser.add_argument("--trials", type=int, default=None, help="of the main line (default: 2500, quick: 100)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    quick = given.pace == "quick"
    count = given.trials or (100 if quick else 2500)
    cost, table = costs(quick), accuracy(count)
    told("")
    if given.json:
        json.dump({"accuracy": table, "cost": cost}, sys.stdout, indent=1, default=float)
        print()
        return 0
    print(
        "RMSE over Cramer-Rao bound, half a 95 % interval; outliers: beyond six bounds (eight at 18 dB), or nothing found"
    )
    for row in table:
        figures = "  ".join(f"{row[n]:.3f} +-{row[n + '_ci95']:.3f}" for n in NAMES)
        print(f"{row['what']:46s} {figures}  outliers {row['outliers']}/{row['trials']} (< {row['outliers_95']:.4f})")
    for row in cost:
        print("  ".join(f"{v:.4g} {k}" if isinstance(v, float) else str(v) for k, v in row.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
