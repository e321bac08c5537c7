"""Figures of the waves themselves: a beam over frequency, as commanded and as realised, and a dwell over delay and Doppler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from hal.array import angles_from, direction_from, element_amplitude, steering
from hal.frontend import Beam, FrontendSpec
from hal.network import response
from hal.record import Array, Float
from twin.control import one_stream
from twin.drawing import BLACK, COLOURS, GREY, GRID, STROKES, Sheet, canvas, styled
from twin.history import History
from twin.records import Numerology

__all__ = ["beam", "dwell", "gain_db", "without_lines"]

WINDOW_DEG = 20.0  # to both sides of the beam's direction
FLOOR_DB = -30.0  # below full gain


def gain_db(
    spec: FrontendSpec, setting: Beam, direction: Float[Array, "angle 3"], frequency_hz: Float[Array, " subcarrier"]
) -> Float[Array, "angle subcarrier"]:
    """Power gain of the first row of ``setting`` over one element, in dB: ``|e(u) a(u, f)^T response(f) w|^2``, ``w`` the one stream's weights.

    An array of N elements reaches 10 log10 N. ``direction`` in the array's frame.
    """
    half = spec.transmit
    feed = response(half.network, setting.delay_s[:1], setting.phase_rad[:1], setting.amplitude[:1], frequency_hz)[
        0
    ] @ one_stream(spec)
    waves = steering(half.array, direction[:, None, :], frequency_hz)  # [angle, subcarrier, element]
    field = np.einsum("amn,mn->am", waves, feed[..., 0]) * element_amplitude(half.array, direction)[:, None]
    return np.asarray(10 * np.log10(np.maximum(field.real**2 + field.imag**2, 1e-9)))


def without_lines(spec: FrontendSpec, setting: Beam) -> Beam:
    """The same beam at the carrier from phase shifters alone: each delay line's phase at the carrier goes into its elements' phases."""
    network = spec.transmit.network
    lines = setting.delay_s[:, :, np.maximum(network.line, 0)]
    return replace(
        setting,
        phase_rad=setting.phase_rad - 2 * np.pi * spec.carrier_hz * lines,
        delay_s=np.zeros_like(setting.delay_s),
    )


class Shown(NamedTuple):
    """A beam as one figure has it."""

    name: str
    setting: Beam
    stroke: dict[str, Any]


@styled
def beam(out: History, spec: FrontendSpec | None, frame: Numerology | None) -> Sheet:
    """Gain over azimuth and frequency of one user's transmit row: commanded, realised, and as phases alone would have it."""
    head = ("beam", "A transmit beam over frequency")
    if out.beam is None:
        why = out.lacks("beam.transmit.", "plan.", "belief.") or "No report on a user's row was recorded."
        often = (
            "Beam reports are kept every record.beams_ms (100 ms by default): a longer run, or beams_ms = 0, has more."
        )
        return Sheet(*head, "", missing=f"{why} {often}")
    if spec is None or frame is None:
        return Sheet(*head, "", missing="The scenario is not understood, so the array and its wiring are not known.")
    seen, lines = out.beam, spec.transmit.network.lines > 0
    shown = [Shown("commanded", seen.setpoint, {"color": BLACK, "linestyle": STROKES[2]})]
    if seen.readback is not None:
        shown.append(Shown("realised (read back)", seen.readback, {"color": COLOURS[0], "linestyle": STROKES[0]}))
    in_force = shown[-1]
    if lines:
        shown.append(
            Shown(
                "if phases did it alone",
                without_lines(spec, in_force.setting),
                {"color": COLOURS[5], "linestyle": STROKES[1]},
            )
        )
    full = 10 * np.log10(len(spec.transmit.array.position_m)) + spec.transmit.array.element_gain_dbi
    azimuth, elevation = (float(np.rad2deg(a)) for a in angles_from(seen.direction))
    angle = np.linspace(max(azimuth - WINDOW_DEG, -90.0), min(azimuth + WINDOW_DEG, 90.0), 241)
    direction = direction_from(np.deg2rad(angle), np.deg2rad(elevation))
    drawing, _ = canvas(6.4)
    drawing.clear()
    drawing.get_layout_engine().set(h_pad=0.09)
    above, below = drawing.add_gridspec(2, 1)
    images(
        drawing,
        above,
        [(s.name, gain_db(spec, s.setting, direction, frame.subcarrier_hz)) for s in shown],
        angle,
        azimuth,
        full,
        frame,
    )
    row = below.subgridspec(1, 3 if lines else 2)
    cuts = [in_force, *shown[-1:]] if lines else [in_force]
    for i, s in enumerate(cuts):
        cut(
            drawing.add_subplot(row[0, i]),
            s.name,
            gain_db(spec, s.setting, direction, frame.subcarrier_hz),
            angle,
            azimuth,
            full,
            frame,
        )
    towards = {s.name: gain_db(spec, s.setting, seen.direction[None], frame.subcarrier_hz)[0] for s in shown}
    axes = drawing.add_subplot(row[0, -1])
    for s in shown:
        axes.plot(frame.subcarrier_hz * 1e-9, towards[s.name], linewidth=1.4, label=s.name, **s.stroke)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=5)
    lowest = min(float(np.min(gain)) for gain in towards.values())
    axes.set(
        xlabel="frequency, GHz",
        ylabel="gain, dB",
        title="towards the user",
        ylim=(min(lowest - 2.5, full - 6), full + 1),
    )
    axes.grid(**GRID)
    axes.legend(loc="lower center", fontsize=7.5)
    varies = {name: float(np.ptp(gain)) for name, gain in towards.items()}
    squint = "This array has no delay lines, so what squint there is stays."
    if lines:
        squint = (
            f"Over the band the gain towards the user varies by {varies[in_force.name]:.1f} dB; without the delay lines it would vary by "
            f"{varies[shown[-1].name]:.1f} dB."
        )
    unsaid = (
        ""
        if seen.readback is not None
        else " This machine cannot read its settings back, so only the command is shown."
    )
    return Sheet(
        *head,
        f"The row that serves {out.name(seen.user)} at t = {seen.t_ns * 1e-9:.3f} s: of all recorded rows, those of users bound to a track first, the "
        f"one that points farthest to the side. Believed azimuth {azimuth:.1f}°, and elevation {elevation:.1f}°, at which the azimuth is cut (both from "
        "boresight). Above: power gain over one element, by azimuth and frequency; the white line is the believed direction. Below: the same at the "
        f"lowest, middle and highest subcarrier, and towards the user over the band; full gain is {full:.1f} dB. {squint}{unsaid} Look for: a ridge that "
        "leans (squint), and differences between commanded and realised (steps of phase and delay, clipped, stuck or dead settings).",
        drawing,
    )


def images(
    drawing: Any, place: Any, gains: list[tuple[str, Array]], angle: Any, azimuth: float, full: float, frame: Numerology
) -> None:
    """Gain over azimuth and frequency, side by side in the same colours."""
    ghz, half = frame.subcarrier_hz * 1e-9, frame.subcarrier_spacing_hz * 0.5e-9
    axes = place.subgridspec(1, len(gains)).subplots(sharey=True, squeeze=False)[0]
    extent = (angle[0], angle[-1], ghz[0] - half, ghz[-1] + half)
    options = {"aspect": "auto", "origin": "lower", "cmap": "cividis", "vmin": full + FLOOR_DB, "vmax": full}
    for one, (name, gain) in zip(axes, gains, strict=True):
        image = one.imshow(gain.T, extent=extent, **options)
        one.axvline(azimuth, color="white", linestyle=STROKES[1], linewidth=0.9)
        one.set(title=name, xlabel="azimuth, degrees")
    axes[0].set_ylabel("frequency, GHz")
    axes[0].ticklabel_format(axis="y", useOffset=False)
    drawing.colorbar(image, ax=list(axes), label="gain, dB", pad=0.01)


def cut(axes: Any, name: str, gain: Array, angle: Any, azimuth: float, full: float, frame: Numerology) -> None:
    """Gain over azimuth at three subcarriers."""
    ghz = frame.subcarrier_hz * 1e-9
    for j, m in enumerate(dict.fromkeys((0, (len(ghz) - 1) // 2, len(ghz) - 1))):
        stroke = {"color": COLOURS[(0, 2, 5)[j]], "linestyle": STROKES[j], "linewidth": 1.2}
        axes.plot(angle, gain[:, m], **stroke, label=f"{ghz[m]:.2f} GHz")
    axes.axvline(azimuth, color=GREY, linewidth=0.6, zorder=0)
    axes.set(ylim=(full + FLOOR_DB, full + 2), xlabel="azimuth, degrees", ylabel="gain, dB", title=name)
    axes.grid(**GRID)
    axes.legend(loc="lower center", fontsize=7.5, handlelength=1.8)


@styled
def dwell(out: History, arrays: Mapping[str, Any] | None, source: str, missing: str) -> Sheet:
    """Power over range and speed in one dwell, with what was detected and what was there."""
    head = ("dwell", "One dwell in delay and Doppler")
    if arrays is None:
        return Sheet(*head, "", missing=missing)
    power, range_m, velocity = (np.asarray(arrays[name]) for name in ("power_db", "range_m", "velocity_mps"))
    truth, detected = (np.asarray(arrays.get(name, np.zeros((0, 4)))).reshape(-1, 4) for name in ("truth", "detected"))
    dr, dv = (axis[1] - axis[0] if len(axis) > 1 else 1.0 for axis in (range_m, velocity))
    extent = (range_m[0] - dr / 2, range_m[-1] + dr / 2, velocity[0] - dv / 2, velocity[-1] + dv / 2)
    drawing, grid = canvas(4.4)
    axes = grid[0, 0]
    options = {"aspect": "auto", "origin": "lower", "cmap": "cividis", "interpolation": "nearest"}
    image = axes.imshow(power, extent=extent, vmin=0.0, vmax=float(max(np.max(power), 20.0)), **options)
    drawing.colorbar(image, ax=axes, label="power over noise, dB", pad=0.01)
    ring = {"marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.3}
    inside = (truth[:, 2] < extent[1]) & (np.abs(truth[:, 3]) < extent[3])
    # what is drawn upon may be bright or dark: a dark ring within a light one is seen on both
    axes.plot(*truth[inside, 2:].T, linestyle="none", **ring, markeredgecolor="white", label="a mover")
    axes.plot(*truth[inside, 2:].T, linestyle="none", **{**ring, "markersize": 10}, markeredgecolor=BLACK)
    axes.plot(*detected[:, 2:].T, "x", markersize=7, color="#ff3b1f", markeredgewidth=1.8, label="a detection")
    entity = np.asarray(arrays["entity"]).reshape(-1) if "entity" in arrays else np.zeros(0)
    for name, spot in zip(entity[inside] if len(entity) == len(truth) else [], truth[inside, 2:], strict=False):
        note = axes.annotate(out.name(int(name)), spot, (8, 7), textcoords="offset points", color="white", fontsize=7.5)
        note.set_path_effects(outlined())
    drawing.legend(loc="outside upper right", ncols=2, facecolor="#8a8a8a", frameon=True, edgecolor="none")
    axes.set(xlabel="range, m", ylabel="closing speed, m/s", xlim=extent[:2], ylim=extent[2:])
    at = f" at t = {float(np.asarray(arrays['t_ns'])) * 1e-9:.4f} s" if "t_ns" in arrays else ""
    return Sheet(
        *head,
        f"Matched-filter power of one dwell{at}, summed over the receive chains, in dB over the average of noise alone (from {source}). The "
        "leakage from transmitter to receiver, at range and speed zero, has been subtracted. A dwell looks one way, so a ring without a peak is a "
        "mover outside its beam. A strong echo's side lobes, in range from the pulse and in speed from the dwell's length, rise above the noise; "
        "so does the floor about it, from random symbols. Look for: peaks within rings, crosses on peaks, and crosses on nothing.",
        drawing,
    )


def outlined() -> list[Any]:
    """A dark rim for light text."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.8, foreground=BLACK)]
