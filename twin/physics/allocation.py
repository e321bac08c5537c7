"""Power over subcarriers that lowers a Cramer-Rao bound while the user keeps a signal-to-noise ratio on each: papers/000 eqs (20) and (21)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np
from numba import njit

from hal.check import positive
from hal.errors import Misuse
from hal.record import Array, Float

__all__ = ["crb_power", "jensen_power", "largest_snr", "least_powers", "unit_bounds"]

Solver = Literal["closed", "cvxpy"]
_TIGHT = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}  # of the conic solver
_STEPS = 60  # Newton steps of the interior-point method; it takes 15 to 30


def largest_snr(snr_per_w: Float[Array, " subcarrier"], power_w: float) -> float:
    """The largest Gamma that every subcarrier can have at once: ``P / sum_m 1 / g_m`` (ratio); 0 if one has no gain."""
    if not np.all(snr_per_w > 0):
        return 0.0
    return float(power_w / np.sum(1.0 / snr_per_w))


def least_powers(
    snr_per_w: Float[Array, " subcarrier"], power_w: float, least_snr: float
) -> Float[Array, " subcarrier"]:
    """``p_m >= Gamma / g_m``: papers/000 eq (20a), its missing noise put in (``snr_per_w`` = gain over noise, 1/W).

    Raises Misuse for a Gamma that is not attainable, saying the largest; or a power that is not positive.
    """
    positive("power_w", power_w)
    if not least_snr >= 0:
        raise Misuse(f"least_snr = {least_snr!r}: must be >= 0")
    if least_snr == 0:
        return np.zeros(len(snr_per_w))
    largest = largest_snr(snr_per_w, power_w)
    if not least_snr <= largest * (1 + 1e-12):
        raise Misuse(
            f"least_snr = {least_snr:.6g}: not attainable on every subcarrier with {power_w:.6g} W; the largest is {largest:.6g}"
        )
    return np.minimum(least_snr / snr_per_w, power_w)


def unit_bounds(
    unit: Float[Array, "subcarrier parameter parameter"], weight: Any = None
) -> Float[Array, " subcarrier"]:
    """``tr(W J_m^-1)`` of each subcarrier alone at unit power; infinite where one subcarrier cannot tell all parameters."""
    from twin.physics.fisher import crb

    return np.asarray(crb(unit, weight, singular="inf"))


def jensen_power(
    bound: Float[Array, " subcarrier"],
    least_w: Float[Array, " subcarrier"],
    power_w: float,
    solver: Solver = "closed",
) -> Float[Array, " subcarrier"]:
    """``argmin sum_m q_m / p_m`` subject to ``p >= least``, ``sum p = P``: papers/000 eq (21), its relaxed bound.

    ``q = unit_bounds`` at unit power. Closed form ``p = max(least, sqrt(q) / nu)``, nu exact by sorting. The relaxation pours power into
    subcarriers that tell little (p ~ sqrt(q)) and is several dB above ``crb_power`` on beams that split: kept as the paper's.
    Raises Misuse if a subcarrier's own bound is infinite: eq (21) has no value then.
    """
    _checked(least_w, power_w)
    if not np.all(np.isfinite(bound) & (bound >= 0)):
        at = int(np.argmax(~np.isfinite(bound)))
        raise Misuse(
            f"bound[{at}] = {bound[at]!r}: one subcarrier's Fisher information is singular, so eq (21) is infinite; use power = 'exact'"
        )
    if solver == "cvxpy":
        return _jensen_cvxpy(bound, least_w, power_w)
    if solver != "closed":
        raise Misuse(f"solver = {solver!r}: must be 'closed' or 'cvxpy'")
    root = np.sqrt(bound)
    if not np.any(root > 0):
        return np.asarray(least_w + (power_w - least_w.sum()) / len(least_w))
    ratio = np.divide(least_w, root, out=np.full(len(root), np.inf), where=root > 0)
    order = np.argsort(ratio)
    # with the first n (lowest ratio) above their least power: 1 / nu = (P - sum of the others' least) / sum of their roots
    held = power_w - (least_w.sum() - np.cumsum(least_w[order]))
    level = held / np.cumsum(root[order])
    fits = np.flatnonzero(level >= ratio[order])
    level_in_force = level[fits[-1]] if fits.size else 0.0
    power = np.maximum(least_w, root * level_in_force)
    return np.asarray(power * (power_w / power.sum()))


def crb_power(
    unit: Float[Array, "subcarrier parameter parameter"],
    least_w: Float[Array, " subcarrier"],
    power_w: float,
    weight: Any = None,
    solver: Solver = "closed",
    tolerance: float = 1e-9,
    near_w: Float[Array, " subcarrier"] | None = None,
) -> Float[Array, " subcarrier"]:
    """``argmin tr(W (sum_m p_m J_m)^-1)`` subject to ``p >= least``, ``sum p = P``: papers/000 eq (20) itself, convex in the powers.

    ``unit`` from ``fisher.information``. ``closed`` is a logarithmic-barrier Newton method on the powers above their least; it ends when the duality
    gap is below ``tolerance`` of the bound; ``near_w``, powers believed to be near, saves it some
    steps. ``cvxpy`` states the problem and lets a conic solver do it. Raises Misuse if even equal power leaves the
    information singular.
    """
    from twin.physics.fisher import crb

    _checked(least_w, power_w)
    spare = power_w - float(least_w.sum())
    parameters = unit.shape[1]
    if spare <= 1e-12 * power_w:
        return np.asarray(least_w * (power_w / least_w.sum()))
    mean = unit.mean(axis=0)
    crb(mean)  # names a singular problem
    # parameters whitened by the mean information: Newton sees a well-scaled problem whatever the units
    lower = np.linalg.inv(np.linalg.cholesky(mean))
    white = lower @ unit @ lower.T
    weight = np.eye(parameters) if weight is None else np.asarray(weight)
    white_weight = lower @ weight @ lower.T
    if solver == "cvxpy":
        return _exact_cvxpy(white, least_w, power_w, white_weight)
    if solver != "closed":
        raise Misuse(f"solver = {solver!r}: must be 'closed' or 'cvxpy'")
    compiled: Any = _barrier
    even = np.full(len(unit), 1.0 / len(unit))
    start, first = even, 0.1
    if near_w is not None:
        above = np.maximum(near_w - least_w, 0.0)
        start, first = 0.9 * above / max(float(above.sum()), 1e-300) + 0.1 * even, 0.003
        start = start / start.sum()
    share = compiled(np.ascontiguousarray(white), np.asarray(least_w) / spare, white_weight, tolerance, start, first)
    power = least_w + spare * share
    return np.asarray(power * (power_w / power.sum()))


@njit(cache=True)
def _bound(base, flat, share, weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    inverse = np.linalg.inv(base + (share @ flat).reshape(base.shape))
    return np.sum(weight * inverse.T), inverse


@njit(cache=True)
def _barrier(unit, floor, weight, tolerance, start, first):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Shares x > 0, sum x = 1, that minimise ``tr(W (sum (floor + x) J)^-1)``: the barrier's weight falls with each centred point."""
    count, size = unit.shape[0], unit.shape[1]
    x = start.copy()
    flat = unit.reshape(count, size * size)
    base = (floor @ flat).reshape(size, size)
    left, right = np.empty((count, size * size)), np.empty((count, size * size))
    scaled, sides = np.empty((count, count)), np.empty((count, 2))
    value, inverse = _bound(base, flat, x, weight)
    barrier = first * value / count
    for _ in range(_STEPS * 4):
        middle = inverse @ weight @ inverse
        slope = -(flat @ middle.ravel())
        for m in range(count):
            left[m] = (unit[m] @ inverse).ravel()
            right[m] = (unit[m] @ middle).T.copy().ravel()
        curve = left @ right.T
        # equality-constrained Newton step, scaled by x
        for m in range(count):
            for n in range(count):
                scaled[m, n] = (curve[m, n] + curve[n, m]) * x[m] * x[n]
            scaled[m, m] += barrier
            sides[m, 0], sides[m, 1] = barrier - x[m] * slope[m], x[m]
        solved = np.linalg.solve(scaled, sides)
        dual = -np.sum(x * solved[:, 0]) / np.sum(x * solved[:, 1])
        step = x * (solved[:, 0] + dual * solved[:, 1])
        decrement = -np.sum((slope - barrier / x) * step)
        if decrement <= 1e-3 * barrier:
            # how far a linear model could still fall: the duality gap of a convex problem over the simplex
            gap = np.sum(slope * x) - slope.min()
            if gap <= tolerance * value or barrier * count < 1e-3 * tolerance * value:
                break
            barrier *= 0.05
            continue
        length = min(1.0, 0.95 / max(np.max(-step / x), 1e-300))
        begun = value - barrier * np.log(x).sum()
        trial, found, found_inverse = x, value, inverse
        for _ in range(40):
            trial = x + length * step
            found, found_inverse = _bound(base, flat, trial, weight)
            if found - barrier * np.log(trial).sum() <= begun - 1e-4 * length * decrement + 1e-15 * abs(begun):
                break
            length *= 0.5
        value, inverse = found, found_inverse
        x = trial / trial.sum()
    return x


def _jensen_cvxpy(bound: Array, least_w: Array, power_w: float) -> Array:
    cp: Any = import_module("cvxpy")
    share = cp.Variable(len(bound))
    cost = cp.sum(cp.multiply(bound / bound.mean(), cp.inv_pos(share)))
    problem = cp.Problem(cp.Minimize(cost), [share >= least_w / power_w, cp.sum(share) == 1])
    problem.solve(solver=cp.CLARABEL, **_TIGHT)
    power = np.maximum(np.asarray(share.value * power_w), least_w)
    return np.asarray(power * (power_w / power.sum()))


def _exact_cvxpy(unit: Array, least_w: Array, power_w: float, weight: Array) -> Array:
    cp: Any = import_module("cvxpy")
    share = cp.Variable(len(unit))
    parameters = unit.shape[1]
    flat = unit.reshape(len(unit), -1)
    total = cp.reshape(flat.T @ share, (parameters, parameters), order="C")
    root = np.linalg.cholesky(weight / np.trace(weight))
    cost = cp.sum([cp.matrix_frac(root[:, i], total) for i in range(parameters)])
    problem = cp.Problem(cp.Minimize(cost), [share >= least_w / power_w, cp.sum(share) == 1])
    problem.solve(solver=cp.CLARABEL, **_TIGHT)
    power = np.maximum(np.asarray(share.value * power_w), least_w)
    return np.asarray(power * (power_w / power.sum()))


def _checked(least_w: Array, power_w: float) -> None:
    positive("power_w", power_w, "an allocation needs power to allocate")
    if not (np.all(least_w >= 0) and least_w.sum() <= power_w * (1 + 1e-9)):
        raise Misuse(f"least_w: sums to {least_w.sum():.6g} W and must be >= 0 and fit in power_w = {power_w:.6g}")
