"""Gray-labelled square constellations: bits to symbols and back, and the closed-form error rate in white noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Bool, Complex, Float

__all__ = ["BITS", "bit_error_rate", "decided", "mapped"]

BITS = {"qpsk": 2, "16qam": 4, "64qam": 6}  # a symbol of each


def mapped(bits: Bool[Array, "*batch bit"], modulation: str) -> Complex[Array, "*batch symbol"]:
    """Unit-power symbols of bits: the first half of a symbol's bits set its real part, the second half its imaginary part, neighbours differing in one bit.

    Raises Misuse for an unknown modulation or bits that do not fill whole symbols.
    """
    count, levels = _of(modulation), _levels(modulation)
    bits = np.asarray(bits)
    if bits.shape[-1] % count:
        raise Misuse(
            f"bits: {bits.shape[-1]} in a row, must be a multiple of {count}, the bits of a {modulation} symbol"
        )
    half = count // 2
    index = (bits.reshape(*bits.shape[:-1], -1, 2, half) * 2 ** np.arange(half)[::-1]).sum(axis=-1)
    return levels[index[..., 0]] + 1j * levels[index[..., 1]]  # type: ignore[no-any-return]


def decided(symbols: Complex[Array, "*batch symbol"], modulation: str) -> Bool[Array, "*batch bit"]:
    """Bits of the nearest constellation points: the inverse of ``mapped``."""
    count, levels = _of(modulation), _levels(modulation)
    half = count // 2
    step = levels.max() * 2 / (len(levels) - 1)
    place = np.argsort(levels)  # label of each level, from the lowest up
    symbols = np.asarray(symbols)
    parts = np.stack([symbols.real, symbols.imag], axis=-1)
    label = place[np.clip(np.rint((parts + levels.max()) / step), 0, len(levels) - 1).astype(np.int64)]
    bits = (label[..., None] >> np.arange(half)[::-1]) & 1
    return bits.reshape(*symbols.shape[:-1], -1).astype(np.bool_)  # type: ignore[no-any-return]


def bit_error_rate(snr: Float[Array, "*batch"], modulation: str) -> Float[Array, "*batch"]:
    """Bit error rate of ``decided`` at symbol energy over noise power ``snr`` (ratio) in white Gaussian noise: exact, all Gray neighbours counted.

    ``P = 1/log2(L) sum_k P_k``, ``P_k = 2/L sum_i (-1)^floor(i 2^(k-1) / L) (2^(k-1) - floor(i 2^(k-1) / L + 1/2)) Q((2 i + 1) sqrt(3 snr / (L^2 - 1)))``,
    i = 0 .. (1 - 2^-k) L - 1, L levels an axis. Source: Cho and Yoon, "On the general BER expression of one- and two-dimensional amplitude modulations",
    IEEE Trans. Commun. 50, 2002, eqs (14), (16).
    """
    from scipy.special import erfc

    half = _of(modulation) // 2
    levels = 2**half
    reach = np.sqrt(1.5 * np.asarray(snr, dtype=np.float64) / (levels**2 - 1))
    total = np.zeros_like(reach)
    for k in range(1, half + 1):
        for i in range(levels - levels // 2**k):
            turn = i * 2 ** (k - 1) // levels
            weight = (-1) ** turn * (2 ** (k - 1) - np.floor(i * 2 ** (k - 1) / levels + 0.5))
            total = total + weight / levels * erfc((2 * i + 1) * reach)
    return np.asarray(total / half)


def _of(modulation: str) -> int:
    if modulation not in BITS:
        raise Misuse(f"modulation = {modulation!r}: must be one of {', '.join(BITS)}")
    return BITS[modulation]


@lru_cache(maxsize=8)
def _levels(modulation: str) -> Float[Array, " label"]:
    """Amplitude of each label along one axis; labels of neighbouring amplitudes differ in one bit."""
    count = 2 ** (BITS[modulation] // 2)
    index = np.arange(count)
    levels = np.empty(count)
    levels[index ^ (index >> 1)] = (2 * index - count + 1) / np.sqrt(2 * (count**2 - 1) / 3)
    return levels
