"""The most that any transmitter of the same array and power could do: the fully digital bound on a rate-CRB utility, with its duality gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hal.check import positive
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = ["DigitalBound", "digital_bound"]


@dataclass(frozen=True)
class DigitalBound:
    """A transmitter's utility, rate and CRB, and by how much the utility of any other may exceed it."""

    utility: float
    gap: float  # nats: no covariance of this power has a utility above ``utility + gap``
    rate: float  # bits a symbol, over all subcarriers
    crb: float


def digital_bound(
    user_row: Complex[Array, "subcarrier element"],
    target_jet: Complex[Array, "subcarrier target 3 element"],
    gram: Complex[Array, "subcarrier target 3 target 3"],
    weight: Float[Array, "parameter parameter"],
    power_w: float,
    noise_w: float,
    rate_weight: float,
    tolerance: float = 2e-3,
    iterations: int = 4000,
) -> DigitalBound:
    """Maximise ``rate_weight sum_m log2(1 + h_m^T R_m h_m^* / noise) - ln tr(W J^-1)`` over all covariances R_m >= 0, ``sum tr R_m = P``.

    Concave in the covariances, which may be restricted to the span of the user's row and the targets' steering vectors and slopes. They are climbed as
    ``X X^H`` by L-BFGS; the gap is ``P max_m lambda_max(G_m) - sum tr(G_m R_m)`` with G the gradient, an upper bound for a concave utility whatever the
    climb did. ``J`` is linear in R, so nothing is relaxed; an analog beam is the special case of equal moduli and rank one.

    Args:
        user_row: ``g a``: the user's field is ``h^T x``.
        target_jet: steering vector towards each target and its two slopes.
        gram: ``fisher.echo_gram``.
        weight: of the bound, as in ``fisher.crb``.
        power_w: P, over all subcarriers.
        noise_w: of one subcarrier at the user.
        rate_weight: nats a bit; 0 bounds the CRB alone.
        tolerance: nats of gap at which it stops.
        iterations: of the climb, at most.

    Raises Misuse if the information is singular for the widest beam of all.

    Source: F. Liu et al., IEEE Trans. Signal Process. 70 (2022) (papers/000's [24]), and its appendix A: the optimal covariance lies in this span.
    """
    from scipy.optimize import minimize

    positive("power_w", power_w)
    positive("noise_w", noise_w)
    count, targets = gram.shape[:2]
    rows = np.concatenate([user_row[:, None, :], target_jet.reshape(count, 3 * targets, -1)], axis=1)
    basis = np.swapaxes(np.linalg.qr(np.swapaxes(rows.conj(), -1, -2))[0], -1, -2)
    sees = np.matmul(rows, np.swapaxes(basis, -1, -2))  # [m 1+3K d]
    user, jet = sees[:, 0, :], sees[:, 1:, :]
    flat = gram.reshape(count, 3 * targets, 3 * targets)
    pick = np.zeros((2 * targets, 3 * targets, 3 * targets))
    for b in range(2 * targets):
        v, t = b // 2, 1 + b % 2
        pick[b, 3 * v + t, 3 * v] = pick[b, 3 * v, 3 * v + t] = 1.0
    # J_ab = Re tr(R Z_ab^T): what a covariance seen through the jet tells of two parameters
    tells = np.einsum("apq,mpr,brs->mabqs", pick, flat, pick, optimize=True)
    tells_flat = tells.reshape(count, (2 * targets) ** 2, -1)
    depth = sees.shape[-1]

    def evaluate(x: Complex[Array, "subcarrier depth rank"]) -> tuple[float, float, float, Array]:
        heard = np.matmul(user[:, None, :], x)[:, 0]
        ratio = np.sum(np.abs(heard) ** 2, axis=-1) / noise_w
        rate = float(np.log2(1 + ratio).sum())
        lit = np.matmul(jet, x)
        seen = np.matmul(lit.conj(), np.swapaxes(lit, -1, -2))  # [m q s]: sum_r conj(lit_q) lit_s
        total = np.einsum("mas,ms->a", tells_flat, seen.reshape(count, -1)).real.reshape(2 * targets, -1)
        total = (total + total.T) / 2
        inverse = np.linalg.inv(total)
        bound = float(np.trace(weight @ inverse))
        if not bound > 0:
            raise Misuse(
                "Fisher information is singular even with every direction lit; two targets may stand in one direction"
            )
        omega = inverse @ weight @ inverse / bound
        pulled = np.einsum("a,mas->ms", omega.ravel(), tells_flat).reshape(count, 3 * targets, 3 * targets)
        pulled = (pulled + np.conj(np.swapaxes(pulled, -1, -2))) / 2
        gradient = np.matmul(np.conj(np.swapaxes(jet, -1, -2)), np.matmul(pulled, jet))
        share = rate_weight / np.log(2) / noise_w / (1 + ratio)
        gradient = gradient + share[:, None, None] * user.conj()[:, :, None] * user[:, None, :]
        return rate_weight * rate - np.log(bound), rate, bound, gradient

    def unpack(v: Float[Array, " real"]) -> tuple[Array, float]:
        y = v.view(np.complex128).reshape(count, depth, depth)
        long = float(np.linalg.norm(y))
        return y * (power_w**0.5 / long), long

    def cost(v: Float[Array, " real"]) -> tuple[float, Array]:
        x, long = unpack(v)
        value, _, _, gradient = evaluate(x)
        climb = 2 * np.matmul(gradient, x)
        along = climb - x * (np.sum((climb.conj() * x).real) / power_w)
        return -value, -np.ascontiguousarray(along * (power_w**0.5 / long)).reshape(-1).view(np.float64)

    def certificate(x: Array) -> tuple[float, float, float, float]:
        value, rate, bound, gradient = evaluate(x)
        top = float(np.linalg.eigvalsh(gradient)[:, -1].max())
        used = float(np.sum(np.conj(x) * np.matmul(gradient, x)).real)
        return value, power_w * top - used, rate, bound

    rng = np.random.Generator(np.random.Philox(key=0))
    start = rng.normal(size=(count, depth, depth, 2)).reshape(-1) * 0.3
    start.view(np.complex128).reshape(count, depth, depth)[:] += np.eye(depth)
    done = 0
    found: Any = certificate(unpack(start)[0])
    while done < iterations:
        step = minimize(
            cost,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 250, "maxcor": 30, "ftol": 1e-14, "gtol": 1e-9},
        )
        start, done = step.x, done + max(step.nit, 1)
        found = certificate(unpack(start)[0])
        if found[1] <= tolerance or step.nit < 250:
            break
    return DigitalBound(utility=found[0], gap=found[1], rate=found[2], crb=found[3])
