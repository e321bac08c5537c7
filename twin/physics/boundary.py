"""The rate-CRB region: which points are on its boundary, and papers/000's dual-functional gain with its clipping stated."""

from __future__ import annotations

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Bool, Float

__all__ = ["best_crb_at", "dual_functional_gain", "pareto"]


def pareto(rate: Float[Array, " point"], crb: Float[Array, " point"]) -> Bool[Array, " point"]:
    """Which points no other point beats: at least its rate and at most its CRB, one of them strictly. Points that are not finite are not."""
    rate, crb = np.asarray(rate, float), np.asarray(crb, float)
    order = np.lexsort((crb, -rate))  # rate descending, ties by CRB ascending
    best, on, last = np.inf, np.zeros(rate.shape, bool), (np.nan, np.nan)
    for i in order:
        if np.isfinite(rate[i]) and (crb[i] < best or (rate[i], crb[i]) == last):
            best, on[i], last = crb[i], np.isfinite(crb[i]), (rate[i], crb[i])
    return on


def best_crb_at(rate: Float[Array, " point"], crb: Float[Array, " point"], least: float) -> float:
    """The lowest CRB among points with at least this rate; NaN where none has it."""
    able = np.asarray(rate) >= least
    return float(np.min(np.asarray(crb)[able])) if np.any(able) else float("nan")


def dual_functional_gain(
    rate: Float[Array, " point"],
    crb: Float[Array, " point"],
    sensing: tuple[float, float],
    communication: tuple[float, float],
    edge: str = "staircase",
) -> float:
    """Area by which a scheme's points widen the time-shared region, over that of the triangle between the dedicated points. papers/000 eq (13).

    ``sensing = (R_sen, CRB_min)``, ``communication = (R_max, CRB_com)``. The region of eq (12) has no end, so it is **clipped to the box of the two
    dedicated points**; points outside (neither dedicated scheme is extreme) are pulled to the box's nearest edge, which bounds the gain to 0 .. 1.
    ``staircase`` counts what the points themselves reach; ``hull`` also lets them share time, though a CRB is not linear under it. Only area
    beyond the segment counts. A poor ``CRB_com`` inflates the gain. Raises Misuse where the dedicated points span no box.
    """
    (r_sen, c_min), (r_max, c_com) = sensing, communication
    if not (r_max > r_sen and c_com > c_min):
        raise Misuse(
            f"dedicated points {sensing}, {communication}: communication must have the higher rate and the higher CRB, else there is no box"
        )
    if edge not in ("staircase", "hull"):
        raise Misuse(f"edge = {edge!r}: must be 'staircase' or 'hull'")
    keep = np.isfinite(rate) & np.isfinite(crb)
    # unit box: x grows with rate, y with CRB; time sharing runs from (0, 0) to (1, 1)
    x = np.clip((np.asarray(rate, float)[keep] - r_sen) / (r_max - r_sen), 0.0, 1.0)
    y = np.clip((np.asarray(crb, float)[keep] - c_min) / (c_com - c_min), 0.0, 1.0)
    x, y = np.append(x, [0.0, 1.0]), np.append(y, [0.0, 1.0])
    if edge == "hull":
        corner = _lower_hull(x, y)
        at = np.linspace(0.0, 1.0, 4097)
        under = np.minimum(np.interp(at, corner[:, 0], corner[:, 1]), at)
        return float(np.clip(2 * np.trapezoid(at - under, at), 0.0, 1.0))
    knot = np.unique(x)
    low = np.array([y[x >= k].min() for k in knot])  # CRB needed for a rate up to ``knot``
    area = 0.0
    for start, end, level in zip(np.concatenate([[0.0], knot[:-1]]), knot, low, strict=True):
        left = max(start, level)  # the segment y = x is above the level from here on
        if end > left:
            area += (end**2 - left**2) / 2 - level * (end - left)
    return float(np.clip(2 * area, 0.0, 1.0))


def _lower_hull(x: Float[Array, " point"], y: Float[Array, " point"]) -> Float[Array, "corner 2"]:
    hull: list[tuple[float, float]] = []
    for point in sorted(zip(x.tolist(), y.tolist(), strict=True)):
        if hull and point[0] == hull[-1][0]:
            continue  # same rate, higher CRB
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (point[1] - hull[-2][1]) <= (point[0] - hull[-2][0]) * (
            hull[-1][1] - hull[-2][1]
        ):
            hull.pop()
        hull.append(point)
    return np.array(hull)
