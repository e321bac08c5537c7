"""The figure seen from above: true paths, confirmed tracks with their ellipses, the mast and its sector."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.record import Array, Float
from twin.drawing import BLACK, GREY, STROKES, WIDTH_IN, Sheet, every, look, styled
from twin.history import History
from twin.scenario import Scenario

__all__ = ["magnification", "map_of", "principal"]

NAMED = 16  # movers in the legend
ELLIPSES = 8  # a mover
LEFT_IN, RIGHT_IN, BOTTOM_IN = 0.65, 2.35, 0.5  # margins: labels, the legend


@styled
def map_of(out: History, scenario: Scenario | None) -> Sheet:
    """Who was where, and who was believed to be."""
    head = ("map", "Who was where, and who was believed to be")
    lacking = out.lacks("truth.", "belief.", "kpi.")
    if lacking or not out.sightings:
        return Sheet(*head, "", missing=lacking or "No subframe was recorded whole.")
    truth = np.stack([s.position_m[:, :2] for s in out.sightings])  # [sighting, mover, 2]
    mast = np.zeros(2) if scenario is None else np.array(next(iter(scenario.sites.values())).position_m[:2])
    low, high, drawing, axes = street(np.vstack([truth.reshape(-1, 2), mast]))
    if scenario is not None:
        sector(axes, scenario)
    magnified, drawn = magnification(out, float(max(high - low))), 0
    for j, entity in enumerate(out.order):
        column = out.mover.index(entity)
        style, is_user, path = look(j), entity in out.user, truth[:, column]
        thick = 4.0 if is_user else 1.8
        axes.plot(*path.T, color=style["color"], linewidth=thick, alpha=0.4, solid_capstyle="butt", zorder=2)
        last = path[np.isfinite(path[:, 0])][-1:]
        name = f"{out.name(entity)}{'' if is_user else ' (no user)'}" if j < NAMED else None
        mark = {"linestyle": "none", "marker": style["marker"], "color": style["color"], "markersize": 7}
        axes.plot(*last.T, **mark, zorder=4, label=name)
        drawn += track(axes, out, column, magnified)
    if len(out.order) > NAMED:
        axes.plot([], [], " ", label=f"and {len(out.order) - NAMED} more")
    axes.plot([], [], color=BLACK, linewidth=0.9, linestyle=STROKES[1], label="confirmed track")
    false = np.concatenate([s.spot_m[s.mover < 0, :2] for s in out.sightings])
    if len(false):
        axes.plot(
            *false.T, "x", color=GREY, markersize=3.5, markeredgewidth=0.8, zorder=1, label="track with no mover near"
        )
    axes.plot(*mast, marker="*", color=BLACK, markersize=13, linestyle="none", zorder=6, label="mast")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="east, m", ylabel="north, m")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ellipses = "No mover had a confirmed track at the moments drawn."
    if drawn:
        larger = (
            "to scale"
            if magnified == 1
            else f"{magnified:g} times as large as they are, or most would be hidden by the line"
        )
        ellipses = f"Ellipses are two-sigma regions as the tracks believe them, drawn {larger}."
    return Sheet(
        *head,
        "Wide pale lines are true paths (narrow ones of movers that are no users); the marker is where the mover was last. "
        f"Dashed black lines are confirmed tracks, looked at {every(out.stride)}. {ellipses} Look for: dashed lines that leave their "
        "pale line or are missing from it, ellipses that grow, and grey crosses, which are confirmed tracks that follow nobody.",
        drawing,
    )


def street(spots: Float[Array, "spot 2"]) -> tuple[Any, Any, Any, Any]:
    """Lower left and upper right corner of what is to be seen, the drawing and its axes: one scale for both directions, room for the legend."""
    from matplotlib.figure import Figure

    low, high = np.nanmin(spots, axis=0), np.nanmax(spots, axis=0)
    size = 1.1 * np.maximum(high - low, 10.0)
    width_in = WIDTH_IN - LEFT_IN - RIGHT_IN
    height_in = float(np.clip(width_in * size[1] / size[0], 2.6, 6.8))
    size = np.maximum(size, size[::-1] * np.array([width_in / height_in, height_in / width_in]))
    whole_in = height_in + BOTTOM_IN + 0.15
    drawing = Figure(figsize=(WIDTH_IN, whole_in))
    box = (LEFT_IN / WIDTH_IN, BOTTOM_IN / whole_in, width_in / WIDTH_IN, height_in / whole_in)
    return (low + high - size) / 2, (low + high + size) / 2, drawing, drawing.add_axes(box)


def sector(axes: Any, scenario: Scenario) -> None:
    """The wedge that the planner searches, as far as targets are of interest; nothing where the planner has no such field."""
    from matplotlib.patches import Wedge

    site = next(iter(scenario.sites.values()))
    yaw, half = np.rad2deg(site.yaw_rad), np.rad2deg(getattr(site.control.planning, "azimuth_rad", 0.0))
    if half > 0:
        wedge = (site.position_m[:2], scenario.sensing.range_m, yaw - half, yaw + half)
        axes.add_patch(Wedge(*wedge, color="#e0e4e7", zorder=0, label="sector searched"))


def track(axes: Any, out: History, column: int, magnified: float) -> int:
    """One mover's confirmed tracks and some of their ellipses; returns how many were drawn."""
    from matplotlib.patches import Ellipse

    line, drawn, step = np.full((len(out.sightings), 2), np.nan), 0, max(1, len(out.sightings) // ELLIPSES)
    for i, seen in enumerate(out.sightings):
        for row in np.flatnonzero(seen.mover == column):
            line[i] = seen.spot_m[row, :2]
            if i % step == step // 2:
                sigma, turn = principal(seen.covariance_m2[row, :2, :2])
                size = 4 * magnified * sigma  # full axes of two sigma
                axes.add_patch(
                    Ellipse(line[i], *size, angle=turn, fill=False, edgecolor=BLACK, linewidth=0.8, zorder=5)
                )
                drawn += 1
    axes.plot(*line.T, color=BLACK, linewidth=0.9, linestyle=STROKES[1], zorder=3)
    return drawn


def principal(covariance: Float[Array, "2 2"]) -> tuple[Float[Array, " 2"], float]:
    """Standard deviations along the principal axes, the larger first, and the first axis' angle in degrees from +x."""
    value, vector = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(value[::-1], 0.0)), float(np.rad2deg(np.arctan2(vector[1, 1], vector[0, 1])))


def magnification(out: History, span_m: float) -> float:
    """By how much to enlarge ellipses so that the middling one shows: 1, 2, 5, 10, ... up to 100."""
    size = [np.sqrt(np.trace(c[:2, :2])) for s in out.sightings for c in s.covariance_m2[s.mover >= 0]]
    wanted = 0.02 * span_m / max(2 * float(np.median(size)), 1e-9) if size else 1.0
    return float(max(m for m in (1, 2, 5, 10, 20, 50, 100) if m <= max(wanted, 1.0)))
