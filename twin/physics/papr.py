"""Peak-to-average power of frames: how often it exceeds a level, and what independent Gaussian samples would give."""

from __future__ import annotations

import numpy as np

from hal.check import finite
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = ["exceedance", "gaussian_exceedance", "papr", "papr_at"]


def papr(signal: Complex[Array, "*batch fine"]) -> Float[Array, "*batch"]:
    """Largest over mean power of each signal (ratio). Raises Misuse for an empty, silent or not finite one."""
    signal = np.asarray(finite("signal", signal))
    if not signal.size:
        raise Misuse(f"signal: has shape {signal.shape}, no frames; must hold at least one")
    power = signal.real**2 + signal.imag**2
    mean = power.mean(axis=-1)
    if not np.all(mean > 0):
        raise Misuse("signal: has no power; its peak over its mean is undefined")
    return np.asarray(power.max(axis=-1) / mean)


def exceedance(ratio: Float[Array, " frame"], level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Complementary distribution: the share of frames whose ``ratio`` exceeds each ``level``."""
    ordered = np.sort(np.asarray(ratio).reshape(-1))
    return np.asarray(1.0 - np.searchsorted(ordered, level, side="right") / len(ordered))


def papr_at(ratio: Float[Array, " frame"], probability: float) -> float:
    """The level that a share ``probability`` of frames exceed. Raises Misuse where fewer than ten frames would."""
    ratio = np.asarray(ratio).reshape(-1)
    if not ratio.size * probability >= 10:
        raise Misuse(
            f"ratio: {ratio.size} frames do not tell a probability of {probability:g}; take {10 / probability:.0f}"
        )
    return float(np.quantile(ratio, 1 - probability))


def gaussian_exceedance(level: Float[Array, "*batch"], samples: int) -> Float[Array, "*batch"]:
    """``1 - (1 - exp(-level))^samples``: the largest of independent complex Gaussian samples of unit mean power.

    OFDM sampled at the Nyquist rate comes close for many subcarriers (van Nee and Prasad, "OFDM for Wireless Multimedia Communications", 2000,
    section 6.1); between those samples its peaks are higher.
    """
    return np.asarray(-np.expm1(samples * np.log1p(-np.exp(-np.asarray(level, dtype=np.float64)))))
