"""Figures of the waves themselves: a beam over frequency, as commanded and as realised, and a dwell over delay and Doppler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hal.array import angles_from, direction_from, element_amplitude, steering
from hal.frontend import Beam, FrontendSpec
from hal.network import response
from hal.record import Array, Float
from twin.control import one_stream
from twin.drawing import BLACK, COLOURS, GRID, STROKES, Sheet, canvas, styled
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


@styled
def beam(out: History, spec: FrontendSpec | None, frame: Numerology | None) -> Sheet:
    """Gain over azimuth and frequency of one user's transmit row: commanded, realised, and as phases alone would have it."""
    head = ("beam", "A transmit beam over frequency")
    if out.beam is None:
        why = out.lacks("beam.transmit.", "plan.", "belief.") or "No report on a user's row was recorded."
        return Sheet(
            *head,
            "",
            missing=f"{why} Beam reports are kept every record.beams_ms (100 ms by default): a longer run, or beams_ms: 0, has them.",
        )
    if spec is None or frame is None:
        return Sheet(
            *head, "", missing="The scenario could not be read as it stands, so the array and its wiring are not known."
        )
    seen, frequency = out.beam, frame.subcarrier_hz
    at = seen.direction if seen.direction is not None else np.array([1.0, 0.0, 0.0])
    azimuth, elevation = (float(np.rad2deg(a)) for a in angles_from(at))
    angle = np.linspace(max(azimuth - WINDOW_DEG, -90.0), min(azimuth + WINDOW_DEG, 90.0), 241)
    direction = direction_from(np.deg2rad(angle), np.deg2rad(elevation))
    has_lines = spec.transmit.network.lines > 0
    taken = seen.setpoint if seen.readback is None else seen.readback
    shown = [("commanded", seen.setpoint)]
    if seen.readback is not None:
        shown.append(("realised (read back)", seen.readback))
    if has_lines:
        shown.append(("phases alone would give", without_lines(spec, taken)))
    full = 10 * np.log10(len(spec.transmit.array.position_m)) + spec.transmit.array.element_gain_dbi
    gains = [gain_db(spec, setting, direction, frequency) for _, setting in shown]
    towards = [gain_db(spec, setting, at[None], frequency)[0] for _, setting in shown]
    drawing = _draw(shown, gains, towards, angle, azimuth, full, frequency, spec.carrier_hz)
    off = [float(np.max(g) - np.min(g)) for g in towards]
    squint = (
        f" Over the band the gain towards the user changes by {off[-1]:.1f} dB with phases alone, and by {off[-2]:.1f} dB as realised."
        if has_lines
        else ""
    )
    lacking = "" if has_lines else " This array has no delay lines, so what squint there is stays."
    unsaid = (
        "" if seen.readback is not None else " This machine cannot read its settings back: only the command is shown."
    )
    return Sheet(
        *head,
        f"The row that serves {out.name(seen.user)} at t = {seen.t_ns * 1e-9:.3f} s, the user believed farthest from boresight (azimuth {azimuth:.1f}°, "
        f"elevation {elevation:.1f}°, where the cut is taken). Above: gain over azimuth and frequency; the dashed line is the believed direction. Below: cuts at "
        f"the lowest, middle and highest subcarrier, and the gain towards the user over the band; full gain is {full:.1f} dB.{squint}{lacking}{unsaid} Look for: a "
        "bright ridge that leans (squint), and differences between commanded and realised (steps of phase and delay, clipped or stuck settings).",
        drawing,
    )


def _draw(
    shown: list[Any],
    gains: list[Any],
    towards: list[Any],
    angle: Any,
    azimuth: float,
    full: float,
    frequency: Any,
    carrier_hz: float,
) -> Any:
    drawing, _ = canvas(6.2)
    drawing.clear()
    columns = max(len(shown), 2)
    grid = drawing.add_gridspec(2, columns * 2)
    ghz = frequency * 1e-9
    step = (ghz[-1] - ghz[0]) / max(len(ghz) - 1, 1) or 1.0
    tops = [drawing.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(len(shown))]
    image = None
    for axes, (name, _), gain in zip(tops, shown, gains, strict=True):
        image = axes.imshow(
            gain.T,
            aspect="auto",
            origin="lower",
            cmap="cividis",
            vmin=full + FLOOR_DB,
            vmax=full,
            extent=(angle[0], angle[-1], ghz[0] - step / 2, ghz[-1] + step / 2),
        )
        axes.axvline(azimuth, color="white", linestyle=STROKES[1], linewidth=0.9)
        axes.set(title=name, xlabel="azimuth, degrees")
    tops[0].set_ylabel("frequency, GHz")
    drawing.colorbar(image, ax=tops, label="gain, dB", shrink=0.95, pad=0.01)
    below = grid[1, :].subgridspec(1, len(shown) if len(shown) > 1 else 2)
    chosen = [0, len(ghz) // 2, len(ghz) - 1]
    cuts = ([(shown[-2][0], gains[-2])] if len(shown) > 2 else [(shown[0][0], gains[0])]) + (
        [(shown[-1][0], gains[-1])] if len(shown) > 2 else []
    )
    for i, (name, gain) in enumerate(cuts):
        axes = drawing.add_subplot(below[0, i])
        for j, m in enumerate(dict.fromkeys(chosen)):
            axes.plot(
                angle,
                gain[:, m],
                color=COLOURS[(0, 2, 5)[j]],
                linestyle=STROKES[j],
                linewidth=1.2,
                label=f"{ghz[m]:.2f} GHz",
            )
        axes.axvline(azimuth, color=BLACK, linewidth=0.6)
        axes.set(
            ylim=(full + FLOOR_DB, full + 2),
            xlabel="azimuth, degrees",
            ylabel="gain, dB" if i == 0 else None,
            title=f"cut: {name}",
        )
        axes.grid(**GRID)
        if i == 0:
            axes.legend(fontsize=7.5, loc="upper right", handlelength=1.6)
    axes = drawing.add_subplot(below[0, len(cuts)])
    for j, ((name, _), gain) in enumerate(zip(shown, towards, strict=True)):
        axes.plot(
            ghz,
            gain,
            color=(BLACK, COLOURS[0], COLOURS[5])[j],
            linestyle=(STROKES[2], STROKES[0], STROKES[1])[j],
            linewidth=1.4,
            label=name,
        )
    axes.axhline(full, color="#bbbbbb", linewidth=0.8)
    low = min(float(np.min(g)) for g in towards)
    axes.set(xlabel="frequency, GHz", title="gain towards the user", ylim=(min(low - 1, full - 6), full + 1.5))
    axes.grid(**GRID)
    axes.legend(fontsize=7.5, loc="lower center")
    return drawing


@styled
def dwell(out: History, arrays: Mapping[str, Any] | None, source: str, missing: str) -> Sheet:
    """Power over range and speed in one dwell, with what was detected and what was there."""
    head = ("dwell", "One dwell in delay and Doppler")
    if arrays is None:
        return Sheet(*head, "", missing=missing)
    power, range_m, velocity = (np.asarray(arrays[name]) for name in ("power_db", "range_m", "velocity_mps"))
    marks = {
        name: np.asarray(arrays[name]).reshape(-1, 4) if name in arrays else np.zeros((0, 4))
        for name in ("truth", "detected")
    }
    drawing, grid = canvas(4.4)
    axes = grid[0, 0]
    top = float(max(np.max(power), 20.0))
    dr, dv = (axis[1] - axis[0] if len(axis) > 1 else 1.0 for axis in (range_m, velocity))
    image = axes.imshow(
        power,
        aspect="auto",
        origin="lower",
        cmap="cividis",
        vmin=0.0,
        vmax=top,
        interpolation="nearest",
        extent=(range_m[0] - dr / 2, range_m[-1] + dr / 2, velocity[0] - dv / 2, velocity[-1] + dv / 2),
    )
    drawing.colorbar(image, ax=axes, label="power over noise, dB", pad=0.01)
    inside = marks["truth"][(marks["truth"][:, 2] < range_m[-1]) & (np.abs(marks["truth"][:, 3]) < velocity[-1])]
    if len(inside):
        axes.plot(
            inside[:, 2],
            inside[:, 3],
            linestyle="none",
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor="white",
            label="a mover is here",
        )
    if len(marks["detected"]):
        axes.plot(
            *marks["detected"][:, 2:].T,
            linestyle="none",
            marker="x",
            markersize=7,
            color="#FF9F50",
            markeredgewidth=1.8,
            label="detected",
        )
    if len(inside) or len(marks["detected"]):
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=2,
            fontsize=8,
            facecolor="#555555",
            labelcolor="white",
            edgecolor="none",
        )
    axes.set(
        xlabel="range, m",
        ylabel="closing speed, m/s",
        xlim=(range_m[0] - dr / 2, range_m[-1] + dr / 2),
        ylim=(velocity[0] - dv / 2, velocity[-1] + dv / 2),
    )
    t_s = float(np.asarray(arrays["t_ns"])) * 1e-9 if "t_ns" in arrays else float("nan")
    unmarked = (
        ""
        if len(marks["truth"]) or len(marks["detected"])
        else " Neither truth nor detections are marked: the recording does not place them in this dwell."
    )
    return Sheet(
        *head,
        f"Matched-filter power of one dwell at t = {t_s:.4f} s, summed over the receive chains, in dB over the average of noise alone ({source}). The leakage from "
        "transmitter to receiver, at range and speed zero, has been subtracted. A dwell looks one way: circles without a peak are movers outside its beam. Look "
        f"for: peaks within circles, crosses on peaks, and crosses on nothing.{unmarked}",
        drawing,
    )
