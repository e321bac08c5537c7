"""From channel knowledge to rate with several users at once: beams, signal to interference and noise, and what a subframe then carries."""

from __future__ import annotations

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int

__all__ = ["ergodic_rate", "mrt", "rzf", "simulated_sinr", "sinr", "subframe_rate", "users_sinr"]

Numbers = float | Float[Array, "..."]


def sinr(
    correlation: Complex[Array, "user element element"],
    gain: Float[Array, " user"],
    estimate_covariance: Complex[Array, "user element element"],
    power_w: Float[Array, " user"],
    noise_w: float,
    rho: Float[Array, "user block"],
    own_term: bool = True,
    weight: Float[Array, "user user"] | None = None,
) -> Float[Array, "user block"]:
    """SINR of each user in each block after an update, with maximum ratio beams.

    ``gamma_kn = p_k rho_kn^2 tr C_k / (sum_i w_ki p_i beta_k tr(R_k C_i) / tr C_i + sigma^2)``

    Args:
        correlation: R, trace 1.
        gain: beta.
        estimate_covariance: C_h, of ``mmse_covariance``.
        power_w: of each user's stream, on average.
        noise_w: at a user.
        rho: ageing, of ``twin.physics.aging.ageing``.
        own_term: whether the sum holds i = k. With it the user knows its channel's mean only and its own beam's fluctuation is noise: papers/004,
            eq 22, which never exceeds ``1 / tr(R_k^2)``. Without it the fluctuation costs nothing.
        weight: w, of the other users' streams; ones by default. Zeros off the diagonal: users served by turns.

    Holds in the paper's own model, where the pilots see the sensed channel; with pilots through the true one it is off by 1.5 % while the
    angle's standard deviation is below half a degree (8 elements, 1 degree of spread).

    Source: papers/004, eq 22 (Proposition 1), with R the true correlation matrix in its denominator.
    """
    trace = np.trace(estimate_covariance, axis1=-2, axis2=-1).real
    cross = np.einsum("kab,iba->ki", correlation, estimate_covariance).real
    w = np.ones_like(cross) if weight is None else np.array(weight, float)
    w = w * (1 - np.eye(len(w))) + (np.eye(len(w)) if own_term else 0.0)
    denominator = gain * np.sum(w * cross * (power_w / trace), axis=1) + noise_w
    return np.asarray((power_w * trace / denominator)[:, None] * np.asarray(rho) ** 2)


def mrt(
    estimate: Complex[Array, "*batch user element"], trace: Float[Array, " user"] | None = None
) -> Complex[Array, "*batch user element"]:
    """Maximum ratio beams ``f_k = h~_k / sqrt(tr C_k)`` (papers/004, eq 21): unit power on average; ``trace`` None: unit norm each time."""
    if trace is None:
        return np.asarray(estimate / np.linalg.norm(estimate, axis=-1, keepdims=True))
    return np.asarray(estimate / np.sqrt(trace)[:, None])


def rzf(
    direction: Complex[Array, "*batch user element"],
    known: Complex[Array, "*batch user element"],
    unknown: Complex[Array, "*lead user element element"],
    power_w: Float[Array, " user"],
    noise_w: float,
) -> Complex[Array, "*batch user element"]:
    """Regularised zero forcing that knows what it does not know; beams of unit norm.

    ``f_k ~ (sum_i p_i (h_i h_i^H + E_i) + sigma^2 I)^-1 g_k``

    Args:
        direction: g, what each beam shall reach: the estimate h~, or the steering vector of a user without pilots.
        known: h, the part of each channel that is known; zeros for a user without pilots.
        unknown: E, covariance of the rest: the estimate's error, or all of ``beta R`` for a user without pilots. Leading axes broadcast.
        power_w: of each stream.
        noise_w: at a user.

    With E = 0 it is the usual regularised zero forcing. Users with and without pilots mix freely.
    """
    covariance = np.einsum("k,...ka,...kb->...ab", power_w, known, np.conj(known)) + np.einsum(
        "k,...kab->...ab", power_w, unknown
    )
    covariance = covariance + noise_w * np.eye(direction.shape[-1])
    beam = np.swapaxes(np.linalg.solve(covariance, np.swapaxes(direction, -1, -2)), -1, -2)
    return np.asarray(beam / np.linalg.norm(beam, axis=-1, keepdims=True))


def users_sinr(
    channel: Complex[Array, "*batch user element"],
    beam: Complex[Array, "*batch user element"],
    power_w: Float[Array, " user"],
    noise_w: float,
) -> Float[Array, "*batch user"]:
    """SINR at each user for drawn channels when it knows its effective channel: ``p_k |h_k^H f_k|^2 / (sum_{i != k} p_i |h_k^H f_i|^2 + sigma^2)``."""
    heard = np.abs(np.conj(channel) @ np.swapaxes(beam, -1, -2)) ** 2 * power_w
    own = np.diagonal(heard, axis1=-2, axis2=-1)
    return np.asarray(own / (np.sum(heard, axis=-1) - own + noise_w))


def ergodic_rate(
    channel: Complex[Array, "draw *batch user element"],
    beam: Complex[Array, "draw *batch user element"],
    power_w: Float[Array, " user"],
    noise_w: float,
) -> Float[Array, "*batch user"]:
    """Mean of ``log2(1 + SINR)`` over draws, bit/s/Hz: what a user with a demodulation pilot (and perfect knowledge from it) can have."""
    return np.asarray(np.mean(np.log2(1 + users_sinr(channel, beam, power_w, noise_w)), axis=0))


def simulated_sinr(
    channel: Complex[Array, "draw user element"],
    beam: Complex[Array, "draw user element"],
    power_w: Float[Array, " user"],
    noise_w: float,
    own_term: bool = True,
) -> Float[Array, " user"]:
    """SINR by papers/004, eq 20, over draws: the mean of the effective channel is signal, all else is noise (its fluctuation too, if ``own_term``)."""
    heard = np.einsum("dke,die->dki", np.conj(channel), beam)
    mean = np.abs(np.einsum("dkk->k", heard) / len(heard)) ** 2
    power = np.mean(np.abs(heard) ** 2, axis=0) * power_w
    own = np.diagonal(power)
    return np.asarray(
        power_w * mean / (power.sum(axis=1) - own + noise_w + ((own - power_w * mean) if own_term else 0.0))
    )


def subframe_rate(
    bits: Float[Array, " block"],
    split: Int[Array, " update"],
    sensing_s: float,
    block_s: float,
    pilot_s: float,
    demodulation_s: float = 0.0,
) -> float:
    """Bits per hertz that a subframe carries: papers/004, eq 24, term by term.

    ``(T_b - T_d) sum_m sum_{n <= N_m} bits_n - (M T_m + mod(T_l, T_b)) (1 - T_d / T_b) bits_1``

    Args:
        bits: bit/s/Hz of all users in the n-th block after an update.
        split: N_m, blocks of each update.
        sensing_s: T_l.
        block_s: T_b.
        pilot_s: T_m, charged to the first block of every update.
        demodulation_s: T_d, the users' own demodulation pilot in each block; the paper has none.

    The part of T_l beyond whole blocks is charged to the first data block, as printed: it must leave room for pilots there.

    Raises:
        Misuse: pilots longer than a block, an update without a block, or a first block that holds less than no data.
    """
    if not 0 <= pilot_s <= block_s:
        raise Misuse(
            f"pilot_s = {pilot_s!r}: must lie in [0, block_s = {block_s!r}]; pilots longer than a block leave no data in it"
        )
    if not (len(split) and np.all(np.asarray(split) >= 1)):
        raise Misuse(f"split = {split!r}: every update needs at least one block")
    rest = sensing_s - np.floor(sensing_s / block_s * (1 + 1e-12)) * block_s
    if not rest <= block_s - pilot_s + 1e-9 * block_s:
        raise Misuse(
            f"sensing_s = {sensing_s!r}: its last block has no room for pilots; end it {pilot_s!r} s before a block's end or at it"
        )
    total = np.concatenate([[0.0], np.cumsum(bits)])
    share = 1 - demodulation_s / block_s
    return float(share * (block_s * total[np.asarray(split)].sum() - (len(split) * pilot_s + max(rest, 0.0)) * bits[0]))
