"""What the waveforms share: checked grids and frames, the transforms along either axis, and both pulses."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.check import finite, shaped
from hal.errors import Misuse
from hal.record import Array, Complex
from twin.physics.pulses import pulse_train
from twin.records import Numerology

__all__ = ["along_delay", "along_doppler", "framed", "gridded", "rectangular", "root_cosine", "stacked", "unstacked"]


def gridded(grid: Any, numerology: Numerology) -> Complex[Array, "*batch delay doppler"]:
    """``grid`` as an array, or Misuse: its two last axes must be the numerology's, and it must hold at least one frame of finite symbols."""
    grid = np.asarray(grid)
    shaped("grid", grid, (*grid.shape[:-2], numerology.delay_bins, numerology.doppler_bins))
    return _sound("grid", grid)


def framed(samples: Any, numerology: Numerology) -> Complex[Array, "*batch sample"]:
    """``samples`` as an array, or Misuse, as ``gridded``."""
    samples = np.asarray(samples)
    shaped("samples", samples, (*samples.shape[:-1], numerology.delay_bins * numerology.doppler_bins))
    return _sound("samples", samples)


def _sound(name: str, value: Array) -> Array:
    if not value.size:
        raise Misuse(f"{name}: has shape {value.shape}, no frames; must hold at least one")
    if not np.isfinite(value.sum()):
        finite(name, value)
    return value


def stacked(columns: Complex[Array, "*batch delay symbol"]) -> Complex[Array, "*batch sample"]:
    """Columns one after another: time runs along the first axis first."""
    frame: Array = np.swapaxes(columns, -1, -2).reshape(*columns.shape[:-2], columns.shape[-2] * columns.shape[-1])
    return frame


def unstacked(
    samples: Complex[Array, "*batch sample"], numerology: Numerology
) -> Complex[Array, "*batch delay symbol"]:
    """The inverse of ``stacked``."""
    size = (numerology.doppler_bins, numerology.delay_bins)
    return np.swapaxes(samples.reshape(*samples.shape[:-1], *size), -1, -2)


def along_doppler(columns: Complex[Array, "*batch row column"], forward: bool) -> Complex[Array, "*batch row column"]:
    """Unitary DFT (or its inverse) along the last axis."""
    from scipy.fft import fft, ifft

    return (fft if forward else ifft)(columns, axis=-1, norm="ortho")  # type: ignore[no-any-return]


def along_delay(columns: Complex[Array, "*batch row column"], forward: bool) -> Complex[Array, "*batch row column"]:
    """Unitary DFT (or its inverse) along the last axis but one."""
    from scipy.fft import fft, ifft

    return (fft if forward else ifft)(columns, axis=-2, norm="ortho")  # type: ignore[no-any-return]


def rectangular(samples: Any, numerology: Numerology, oversampling: int) -> Complex[Array, "*batch fine"]:
    """Symbols of M samples as the sums of M subcarriers that they are, from -M/2 to M/2 - 1, in rectangular windows."""
    from scipy.fft import fft, fftshift, ifft

    if not oversampling >= 1:
        raise Misuse(f"oversampling = {oversampling!r}: must be at least 1")
    samples, size = framed(samples, numerology), numerology.delay_bins
    lines = fftshift(fft(samples.reshape(*samples.shape[:-1], -1, size), axis=-1), axes=-1)
    fine = ifft(lines, n=size * oversampling, axis=-1, norm="backward") * oversampling
    turn = np.exp(-2j * np.pi * (size // 2) * np.arange(size * oversampling) / (size * oversampling))
    return (fine * turn).reshape(*samples.shape[:-1], -1)  # type: ignore[no-any-return]


def root_cosine(samples: Any, numerology: Numerology, oversampling: int) -> Complex[Array, "*batch fine"]:
    """Samples on square-root raised cosines of the numerology's roll-off and span, within its prefix and suffix."""
    return pulse_train(framed(samples, numerology), numerology.roll_off, numerology.pulse_span, oversampling)
