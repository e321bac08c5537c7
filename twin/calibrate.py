"""``twin calibrate``: measure a scenario's machine over the air, write what was found, and say what is left after correction."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, direction_from, fraunhofer_distance_m, steering
from hal.calibration import (
    HALVES,
    Calibrated,
    Calibration,
    Errors,
    Probe,
    calibrate,
    residual,
    save,
    simulated_instrument,
)
from hal.errors import Misuse
from hal.frontend import FrontendSpec, HalfSpec
from hal.record import Array, Complex, Float

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", type=Path, help="scenario whose device is calibrated")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("calibration.json"),
        help="file to write, .json or .npz (default: calibration.json)",
    )
    parser.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="replace a value of the scenario first",
    )
    parser.add_argument("--azimuth", type=float, default=0.0, help="of the probe off boresight, deg (default: 0)")
    parser.add_argument("--elevation", type=float, default=0.0, help="of the probe, deg (default: 0)")
    parser.add_argument(
        "--distance", type=float, default=None, help="to the probe, m (default: five times the Fraunhofer distance)"
    )
    parser.add_argument("--power", type=float, default=20.0, help="the probe sends, dBm (default: 20)")
    parser.add_argument("--bandwidth", type=float, default=100.0, help="of one measurement, kHz (default: 100)")
    parser.add_argument("--repeats", type=int, default=1, help="times every code is measured (default: 1)")
    parser.add_argument("--site", default=None, help="site, where there are several")
    parser.add_argument(
        "--plot", type=Path, default=None, help="also draw the beam pattern before and after to this file"
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON")


def run(given: Namespace) -> int:
    """Measure, write, measure again through the corrections, and report both."""
    from twin.build import open_frontend
    from twin.commands import pair
    from twin.physics.draws import Draws
    from twin.scenario import load

    scenario = load(given.file, dict(pair(text) for text in given.sets))
    name = given.site or next(iter(scenario.sites))
    if name not in scenario.sites:
        raise Misuse(f"--site {name}: the scenario has {', '.join(scenario.sites)}")
    if not given.repeats >= 1:
        raise Misuse(f"--repeats {given.repeats}: must be 1 or more")
    site = replace(scenario.sites[name], calibration=None)
    frontend = open_frontend(replace(scenario, sites={name: site}, faults=()))
    try:
        probe = placed(given, frontend.spec)
        draws = Draws(scenario.seed)

        def noise(label: str, t_ns: Any, shape: tuple[int, ...]) -> Any:
            drawn = draws.complex_normal(f"{name}.{label}", np.zeros(len(t_ns), np.int64), t_ns, int(np.prod(shape)))
            return drawn.reshape(len(t_ns), *shape)

        instrument = simulated_instrument(probe, frontend.spec, noise)
        found, then_ns = calibrate(frontend, probe, instrument, 0, given.repeats)
        save(found, given.out)
        after, end_ns = calibrate(Calibrated(frontend, found), probe, instrument, then_ns + 1_000_000, given.repeats)
    finally:
        frontend.close()
    report(given, frontend.spec, found, after, then_ns, end_ns)
    if given.plot is not None:
        draw(given.plot, frontend.spec, found, after)
        print(f"pattern: {given.plot}", file=sys.stderr)
    return 0


def placed(given: Namespace, spec: FrontendSpec) -> Probe:
    """The probe where the command line puts it; Misuse nearer than the far field."""
    limit_m = max(fraunhofer_distance_m(getattr(spec, half).array, spec.carrier_hz) for half in HALVES)
    distance_m = 5 * limit_m if given.distance is None else given.distance
    if not distance_m >= limit_m:
        raise Misuse(
            f"--distance {given.distance}: must be {limit_m:.3g} m or more, where this array's far field begins"
        )
    point = direction_from(np.deg2rad(given.azimuth), np.deg2rad(given.elevation)) * distance_m
    gain = LIGHT_MPS / spec.carrier_hz / (4 * np.pi * distance_m)
    x, y, z = (float(value) for value in point)
    return Probe(
        point_m=(x, y, z), gain=float(gain), power_w=10 ** (given.power / 10) * 1e-3, bandwidth_hz=given.bandwidth * 1e3
    )


def report(
    given: Namespace, spec: FrontendSpec, found: Calibration, after: Calibration, took_ns: int, end_ns: int
) -> None:
    """Both halves before and after, as a table or as JSON."""
    told: dict[str, Any] = {
        "file": str(given.out),
        "name": spec.name,
        "fingerprint": found.fingerprint,
        "took_s": took_ns * 1e-9,
    }
    for half in HALVES:
        told[half] = {when: asdict(residual(getattr(c, half))) for when, c in (("before", found), ("after", after))}
        bits = getattr(spec, half).network.phase_bits
        told[half]["quantisation_rad"] = 2 * np.pi / 2**bits / np.sqrt(12) if bits else 0.0
    if given.json:
        json.dump(told, sys.stdout, indent=1)
        print()
        return
    print(f"{spec.name}: both halves measured over the air in {took_ns * 1e-6:.1f} ms, written to {given.out}")
    print(
        f"{'half':9}{'when':8}{'phase rms':>12}{'gain rms':>11}{'array gain':>13}{'of which noise':>17}{'quantisation':>15}{'dead':>6}"
    )
    for half in HALVES:
        for when in ("before", "after"):
            r = told[half][when]
            print(
                f"{half:9}{when:8}{np.rad2deg(r['phase_rms_rad']):8.2f} deg{r['gain_rms_db']:8.2f} dB{r['array_gain_db']:10.2f} dB"
                f"{np.rad2deg(r['noise_rad']):13.2f} deg{np.rad2deg(told[half]['quantisation_rad']):11.2f} deg{r['dead']:6d}"
            )


def cut(
    half: HalfSpec, errors: Errors, azimuth_rad: Float[Array, " angle"], carrier_hz: float, steered_rad: float
) -> Float[Array, " angle"]:
    """Power over azimuth (dB over one element) of the first chain's beam steered to ``steered_rad``, with these errors in its elements."""
    wanted = direction_from(np.array([steered_rad]), np.array([0.0]))
    wave: Complex[Array, "angle element"] = steering(
        half.array, direction_from(azimuth_rad, 0.0 * azimuth_rad), np.float64(carrier_hz)
    )
    matched = np.conj(steering(half.array, wanted, np.float64(carrier_hz)))[0]
    on = half.network.wired[0]
    field = (wave * (matched * errors.error[0] * on)).sum(axis=-1) / np.sqrt(on.sum())
    return np.asarray(10 * np.log10(np.maximum(np.abs(field) ** 2, 1e-9)))


def draw(path: Path, spec: FrontendSpec, before: Calibration, after: Calibration, steered_rad: float = 0.35) -> None:
    """The cut through both halves' beams: as delivered, as corrected, and as the nameplate would have it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    azimuth = np.deg2rad(np.linspace(-80, 80, 1601))
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 8), sharex=True, layout="constrained")
    for axis, half in zip(axes, HALVES, strict=True):
        here: HalfSpec = getattr(spec, half)
        chains, elements = here.network.wired.shape
        perfect = Errors(error=np.ones((chains, elements), np.complex128), variance=np.zeros((chains, elements)))
        lines = (
            ("before", getattr(before, half), "#c44e52", 1.2),
            ("after", getattr(after, half), "#2a6f97", 1.6),
            ("ideal", perfect, "#8a8a8a", 0.9),
        )
        for label, errors, colour, width in lines:
            left = residual(errors)
            text = (
                label
                if label == "ideal"
                else f"{label}: {np.rad2deg(left.phase_rms_rad):.1f}° rms, array gain {left.array_gain_db:.2f} dB"
            )
            power_db = cut(here, errors, azimuth, spec.carrier_hz, steered_rad)
            axis.plot(
                np.rad2deg(azimuth), power_db, color=colour, lw=width, ls="--" if label == "ideal" else "-", label=text
            )
        top = 10 * np.log10(elements)
        axis.set(
            ylim=(top - 45, top + 8),
            ylabel="gain over one element (dB)",
            title=f"{spec.name} {half}: beam steered to {np.rad2deg(steered_rad):.0f}°",
        )
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", fontsize=9)
    axes[-1].set_xlabel("azimuth off boresight (deg)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
