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
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import beta

from hal.array import LIGHT_MPS, direction_from, steering
from tools.bench.row import Row, Side, Work
from tools.reproduce.oddm import NAMES, TABLE_I, Setup, Trial, band, errors, estimators, sigmas, told, trials
from twin.physics.combiners import closed_form, genetic, random_phases, squinted, unambiguous
from twin.physics.directions import find_directions, main_lobe
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
            step = step_of(trial)[0]
            step()
            rows.append(
                {"what": "tracking step", "joint_ms": timed(lambda step=step: [step() for _ in range(50)], 20) / 50}
            )
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    over = over_digital(setup)
    found = genetic(array, u, f, np.random.default_rng(0)).combiner
    slow_ms = timed(lambda: genetic(array, u, f, np.random.default_rng(0)), 1)
    fast_ms = timed(lambda: [closed_form(array, u, f) for _ in range(50)], 10) / 50
    rows.append(
        {
            "what": "combiner",
            "genetic_ms": slow_ms,
            "closed_form_ms": fast_ms,
            "ratio": slow_ms / fast_ms,
            "genetic_over_digital": over(found),
            "closed_form_over_digital": over(closed_form(array, u, f)),
            "squinted_over_digital": over(squinted(array, u, f)),
        }
    )
    return rows


def step_of(trial: Trial) -> tuple[Callable[[], Any], np.ndarray]:
    """One tracking step of a trial from its truth, and truth in the step's own units: cosines, samples, cycles a sample."""
    dwell = trial.dwell
    spectrum = np.fft.fft(dwell.sent).astype(np.complex64)
    at = trial.value[0] * own_units()
    return lambda: update(dwell.data, spectrum, dwell.start, 0.1, dwell.aperture, at, dwell.noise_w), at


def own_units() -> np.ndarray:
    """Samples a metre and cycles a sample per metre a second, after two cosines."""
    rate = TABLE_I.sample_rate_hz
    return np.array([1, 1, 2 * rate / LIGHT_MPS, 2 * TABLE_I.carrier_hz / (LIGHT_MPS * rate)])


def over_digital(setup: Setup) -> Callable[[np.ndarray | None], float]:
    """How far the angle bound of a combiner is above the fully digital one's, rank-one precoder."""
    slopes = angle_slopes(setup.array, setup.direction, TABLE_I.carrier_hz)
    light = precoder_gram(slopes, np.conj(slopes[:, :1]) / np.sqrt(len(slopes)))

    def root(w: np.ndarray | None) -> float:
        return float(np.sqrt(np.trace(angle_bound(combiner_gram(slopes, w), light, 1.0, 1.0, 1))))

    return lambda w: root(w) / root(None)


def one_estimate(precoder: str, track: bool = False) -> Work:
    setup = Setup()
    trial: Trial = next(iter(trials(setup, precoder=precoders(setup)[precoder], count=1)))
    dwell, steps, joint = trial.dwell, estimators()["three_step"], Joint(max_targets=1, **SPAN)
    sigma = np.sqrt(np.diag(trial.covariance[0])) * own_units()

    def four(found: Any) -> np.ndarray:
        if hasattr(found, "value"):
            return np.asarray(found.value)
        one = found[1] if isinstance(found, tuple) else found
        return np.array([*one.cosine[0], one.delay[0], one.doppler[0]])

    return Work(
        naive=Side(lambda: steps.estimate(dwell)),
        ours=Side(step_of(trial)[0] if track else lambda: joint.estimate(dwell)),
        apart=lambda ours, naive: float(np.max(np.abs(four(ours) - four(naive)) / sigma)),
        within=1.0,
    )


def one_direction(coarsest_rad: float = np.deg2rad(2.0)) -> Work:
    """Four chains' amplitudes of one echo; the plain way walks 180 x 90 directions ahead, a steering vector of 1024 elements each.

    Where the chains together hear a tenth of what they hear at best, their amplitudes are like any other direction's, and the walk does not look.
    """
    setup, rng = Setup(), np.random.default_rng(2)
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    w = squinted(array, u, f)
    lobe = main_lobe(array, w.conj(), w.conj().T @ w, f)
    truth = u + np.array([0, 0.4, -0.3]) / array.columns
    z = lobe.projection @ steering(array, truth, f)
    z = z + 1e-3 * np.linalg.norm(z) * (rng.standard_normal(len(z)) + 1j * rng.standard_normal(len(z)))
    variance = np.array([2e-6 * np.sum(np.abs(z) ** 2)])
    azimuths, elevations = (
        np.arange(-np.pi / 2 + step / 2, np.pi / 2, step) for step in (coarsest_rad / 2, coarsest_rad)
    )
    least = 0.1 * np.sum(np.abs(lobe.projection @ steering(array, u, f)) ** 2)
    rest = np.linalg.svd(z[:, None])[0][:, 1:].conj().T

    def walk() -> np.ndarray:
        best, at = -np.inf, (0.0, 0.0)
        for azimuth in azimuths:
            for elevation in elevations:
                b = lobe.projection @ steering(array, direction_from(azimuth, elevation), f)
                power = np.vdot(b, b).real
                value = power / max(np.sum(np.abs(rest @ b) ** 2), 1e-12) if power > least else 0.0
                if value > best:
                    best, at = value, (azimuth, elevation)
        return np.asarray(direction_from(*at)[1:])

    def eigen() -> None:
        np.linalg.eigh(z[:, None] * z.conj())

    return Work(
        naive=Side(walk),
        ours=Side(lambda: find_directions(lobe, z[None], variance)[0][0]),
        apart=lambda ours, naive: float(np.max(np.abs(ours - naive)) / coarsest_rad),
        within=1.0,
        floor=Side(eigen),
    )


def one_combiner() -> Work:
    setup = Setup()
    array, u, f = setup.array, setup.direction, TABLE_I.carrier_hz
    over = over_digital(setup)
    return Work(
        naive=Side(lambda: genetic(array, u, f, np.random.default_rng(0)).combiner),
        ours=Side(lambda: closed_form(array, u, f)),
        apart=lambda ours, naive: max(over(ours) / over(naive) - 1, 0.0),
        within=1e-6,
    )


_ECHO = "an echo of Table I: 64 x 16 samples, 4 + 4 chains of 1024 elements"
ROWS = (
    Row(
        "sensing.acquire",
        f"{_ECHO}; direction, delay and Doppler from nothing, rank-one precoder",
        "papers/001's three steps, NumPy",
        partial(one_estimate, "rank one"),
        target=200,
        same="estimates, in deviations of the bound",
        note="one target known to be there, on both sides",
    ),
    Row(
        "sensing.acquire_four_beams",
        f"{_ECHO}; as above, four-beam precoder",
        "papers/001's three steps, NumPy",
        partial(one_estimate, "four beams"),
        target=25,
        same="estimates, in deviations of the bound",
    ),
    Row(
        "sensing.track",
        f"{_ECHO}; from a prediction",
        "the three steps anew",
        partial(one_estimate, "rank one", True),
        target=6000,
        same="estimates, in deviations of the bound",
        note="ours is one Gauss-Newton step; the goal is 254 ms over 40 us",
    ),
    Row(
        "sensing.direction",
        "direction of one echo from 4 chains of 1024 elements",
        "MUSIC, 180 x 90 directions one by one",
        one_direction,
        target=2500,
        floor="an eigendecomposition of 4 x 4",
        same="directions, in steps of 2 degrees",
        note="ours looks within the lobe the chains hear, laid out before, and climbs between its grid points",
    ),
    Row(
        "sensing.combiner",
        "the receive combiner of 4 chains, 1024 elements",
        "the paper's genetic search",
        one_combiner,
        target=1000,
        same="angle bound, ours above the search's",
    ),
)


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
