"""Bits a link carries: from a channel, a power and a noise to a rate, in NumPy or torch alike."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from hal.record import Array, Complex, Float

__all__ = ["matched_filter_rate_bps", "rate_bps", "snr", "spectral_efficiency", "streams_bits"]

Numbers = Any  # an array of any library, or a float


def snr(channel: Numbers, power_w: Numbers, noise_w: Numbers) -> Numbers:
    """Signal-to-noise ratio of each subcarrier, ``|h|^2 p / sigma^2`` (a ratio, not decibels).

    Args:
        channel: h ``[..., subcarrier]``, the field ratio from the transmitted stream to the receiver, beams included.
        power_w: p ``[..., subcarrier]``, transmitted on each subcarrier.
        noise_w: sigma^2, noise power in one subcarrier; broadcasts.
    """
    return _power(channel) * (power_w / noise_w)


def spectral_efficiency(channel: Numbers, power_w: Numbers, noise_w: Numbers) -> Numbers:
    """Mean over subcarriers of ``log2(1 + |h|^2 p / sigma^2)``, in bit/s/Hz, shape ``[...]``.

    Arguments as ``snr``. Gaussian symbols, perfect channel knowledge at the receiver, no interference, no pilots or prefix.
    """
    return _mean(_bits(snr(channel, power_w, noise_w)))


def rate_bps(channel: Numbers, power_w: Numbers, noise_w: Numbers, spacing_hz: float) -> Numbers:
    """Sum over subcarriers of ``spacing log2(1 + |h|^2 p / sigma^2)``, in bit/s, shape ``[...]``.

    Arguments as ``snr``, and the subcarriers' spacing. What is left out is as in ``spectral_efficiency``.

    Source: Shannon, Bell Syst. Tech. J. 27 (1948), theorem 17, on parallel subcarriers.
    """
    return spacing_hz * _sum(_bits(snr(channel, power_w, noise_w)))


def matched_filter_rate_bps(channel: Numbers, power_w: Numbers, noise_w: Numbers, spacing_hz: float) -> Numbers:
    """The rate no beam of unit norm exceeds: each subcarrier's beam matched to its own channel, ``|h| -> ||h||``.

    Args:
        channel: h ``[..., subcarrier, element]``, from each element to the receiver.
        power_w: p ``[..., subcarrier]``.
        noise_w: sigma^2, noise power in one subcarrier; broadcasts.
        spacing_hz: between subcarriers.

    Bounds every network of phase shifters and delay lines with this power on each subcarrier (Cauchy-Schwarz); spreading the
    power otherwise (water-filling) may beat it. Returns bit/s, shape ``[...]``.
    """
    xp = array_namespace(channel)
    gain = xp.sum(_power(channel), axis=-1)
    return spacing_hz * _sum(_bits(gain * (power_w / noise_w)))


def streams_bits(
    heard: Complex[Array, "*batch antenna stream"], others: Complex[Array, "*batch antenna source"], noise_w: float
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """``log2 det(I + R^-1 G G^H)``, ``R = noise I + S S^H``, bit/s/Hz, and the signal to noise ratio of all streams together, ``tr(G^H R^-1 G)``.

    papers/001 eq (47): what a user that knows its channel decodes of its streams ``G`` (sqrt(W) at its antennas) beside what is not for it, ``S``.
    Combiner ``W = R^-1 G`` loses nothing, so it does not appear. NumPy only.
    """
    if np.any(others):
        noise = noise_w * np.eye(heard.shape[-2]) + others @ np.swapaxes(others, -1, -2).conj()
        gram = np.swapaxes(heard, -1, -2).conj() @ np.linalg.solve(noise, heard)
    else:
        gram = np.swapaxes(heard, -1, -2).conj() @ heard / noise_w
    size = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    return np.log2(1 + size).sum(axis=-1), size.sum(axis=-1)


def _power(channel: Numbers) -> Numbers:
    # not abs(): its gradient has no value at zero
    xp = array_namespace(channel)
    if xp.isdtype(channel.dtype, "complex floating"):
        return xp.real(channel) ** 2 + xp.imag(channel) ** 2
    return channel**2


def _bits(ratio: Numbers) -> Numbers:
    return array_namespace(ratio).log1p(ratio) / log(2.0)


def _sum(bits: Numbers) -> Numbers:
    return array_namespace(bits).sum(bits, axis=-1)


def _mean(bits: Numbers) -> Numbers:
    return array_namespace(bits).mean(bits, axis=-1)
