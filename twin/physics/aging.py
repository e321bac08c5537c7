"""How a small-scale channel forgets itself: three laws of correlation over lag, and draws that keep them at every lag."""

from __future__ import annotations

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Complex, Float
from twin.physics.correlation import jakes

__all__ = ["LAWS", "aged_gains", "ageing", "geometric", "one_ring_doppler", "rho_of_speed", "speed_of_rho"]

Numbers = float | Float[Array, "..."]
LAWS = ("geometric", "jakes", "one_ring")


def geometric(rho_1: Numbers, lag_blocks: Numbers) -> Float[Array, ...]:
    """Correlation ``rho_1 ** lag`` of a first-order autoregressive gain; broadcasts.

    Args:
        rho_1: correlation from one block to the next, in [0, 1].
        lag_blocks: lag in blocks, >= 0.

    Not the law of a channel with a band-limited Doppler spectrum: it agrees with ``jakes`` at one lag only
    (``rho_of_speed`` takes the first), and from 8 blocks on the two have nothing in common.

    Raises:
        Misuse: a correlation outside [0, 1].

    Source: papers/004, section IV (``rho_n = rho_1^n``, rho_1 = 0.98).
    """
    rho = np.asarray(rho_1, float)
    if not np.all((rho >= 0) & (rho <= 1)):
        raise Misuse(f"rho_1 = {rho_1!r}: must lie in [0, 1]; it is a correlation of neighbouring blocks")
    return np.asarray(rho ** np.asarray(lag_blocks, float))


def one_ring_doppler(doppler_hz: Numbers, lag_s: Numbers, heading_rad: Numbers = np.pi / 2) -> Float[Array, ...]:
    """Correlation when the array sees the ring of scatterers about the user as a *uniform* spectrum of angle; broadcasts.

    ``rho(tau) = int |cos b| / 4 exp(j 2 pi f_d tau cos(b - heading)) db`` over the ring: a scatterer at ring angle ``b`` from the
    line of sight is seen ``spread sin(b)`` off it, so equal power in equal angles weighs the ring by ``|cos b|``. Real. Across the
    line of sight (``heading = pi/2``) it is ``sin(x)/x``, ``x = 2 pi f_d tau``; equal power all round the ring would be ``jakes``.

    Args:
        doppler_hz: largest Doppler shift ``v f / c`` of the user against a scatterer.
        lag_s: lag in seconds.
        heading_rad: direction of motion, from the line of sight.

    The line of sight's own Doppler is no part of it (a receiver removes it); small spreads, so that space and time separate as in
    papers/004, eq 3.
    """
    x, heading = np.broadcast_arrays(
        2 * np.pi * np.asarray(doppler_hz, float) * np.asarray(lag_s, float), np.asarray(heading_rad, float)
    )
    nodes = 64 + int(np.ceil(2 * np.max(np.abs(x), initial=0.0)))
    # |cos b| has corners at +-pi/2: Gauss-Legendre on the half circle in front, the half behind is its mirror image
    node, weight = np.polynomial.legendre.leggauss(nodes)
    b = np.pi / 2 * node
    front = np.cos(x[..., None] * np.cos(b - heading[..., None]))
    return np.asarray(np.sum(front * np.cos(b) * weight, axis=-1) * (np.pi / 4))


def rho_of_speed(speed_mps: Numbers, carrier_hz: float, block_s: float) -> Float[Array, ...]:
    """First-lag correlation of a user at this speed, ``J0(2 pi v f T_b / c)``, floored at 0: what ``geometric`` takes for it.

    This is the ``a`` of an autoregression that follows each user's own measured speed.
    """
    from hal.array import LIGHT_MPS

    return np.asarray(np.maximum(jakes(np.asarray(speed_mps, float) * carrier_hz / LIGHT_MPS, block_s), 0.0))


def speed_of_rho(rho_1: float, carrier_hz: float, block_s: float) -> float:
    """Smallest speed whose first-lag correlation is ``rho_1``: inverse of ``rho_of_speed`` (rho_1 in (0, 1])."""
    from scipy.optimize import brentq
    from scipy.special import j0

    from hal.array import LIGHT_MPS

    if not 0 < rho_1 <= 1:
        raise Misuse(f"rho_1 = {rho_1!r}: must lie in (0, 1]")
    x = float(brentq(lambda x: j0(x) - rho_1, 0.0, 2.4048)) if rho_1 < 1 else 0.0
    return x / (2 * np.pi * block_s) * LIGHT_MPS / carrier_hz


def ageing(
    law: str,
    blocks: int,
    block_s: float,
    doppler_hz: Float[Array, " user"],
    *,
    rho_1: Float[Array, " user"] | None = None,
    heading_rad: Numbers = np.pi / 2,
    offset: int = 0,
) -> Float[Array, "user block"]:
    """Correlation of the channel in each block after an update with the channel at the update, a row a user.

    Args:
        law: "geometric" (first lag from the Doppler, or ``rho_1`` as given), "jakes", or "one_ring" (``one_ring_doppler``).
        blocks: how many.
        block_s: T_b.
        doppler_hz: largest Doppler shift of each user: the speed enters here.
        rho_1: of "geometric" only.
        heading_rad: of "one_ring" only.
        offset: lag of the block that holds the update: 0 (causal reading of papers/004, eq 5) or 1 (``rho_n = rho_1^n`` literally).

    Raises:
        Misuse: the law is unknown, or a count or duration is out of range.
    """
    if law not in LAWS:
        raise Misuse(f"law = {law!r}: must be one of {', '.join(LAWS)}")
    if not blocks >= 1:
        raise Misuse(f"blocks = {blocks!r}: must be at least 1")
    if not block_s > 0:
        raise Misuse(f"block_s = {block_s!r}: must be > 0")
    lag, doppler = offset + np.arange(blocks), np.asarray(doppler_hz, float)[:, None]
    if law == "geometric":
        first = np.maximum(jakes(doppler, block_s), 0.0) if rho_1 is None else np.asarray(rho_1, float)[:, None]
        return np.asarray(geometric(first, lag))
    if law == "jakes":
        return jakes(doppler, lag * block_s)
    return one_ring_doppler(doppler, lag * block_s, np.asarray(heading_rad, float)[..., None])


def aged_gains(white: Complex[Array, "block ..."], correlation: Float[Array, " block"]) -> Complex[Array, "block ..."]:
    """Gains with ``E[g_m conj(g_n)] = correlation[|m - n|]`` at *every* lag, out of white CN(0, 1) numbers.

    By the symmetric square root of the Toeplitz matrix of ``correlation``; a recursion would keep only the lags it was fitted to.
    Eigenvalues below zero by rounding count as zero. Along ``shape`` the gains are independent.

    Raises:
        Misuse: the sequence is no correlation (its Toeplitz matrix has a negative eigenvalue), or is shorter than the blocks.
    """
    from scipy.linalg import toeplitz

    blocks = len(white)
    if not len(correlation) >= blocks:
        raise Misuse(f"correlation: has {len(correlation)} lags, must have one for each of {blocks} blocks")
    value, vector = np.linalg.eigh(toeplitz(np.asarray(correlation, float)[:blocks]))
    if not value[0] >= -1e-9 * value[-1]:
        raise Misuse(
            f"correlation: its Toeplitz matrix has the eigenvalue {value[0]:.3g}; no process has this correlation"
        )
    root = (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T
    return np.asarray(np.tensordot(root, white, axes=1))
