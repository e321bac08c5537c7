"""The inverse FFT of one frame of a power of two, compiled for its length: for whoever has one or two of them, where a library's call costs as much again."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.errors import Misuse
from hal.lanes import fft_order, fft_stages
from hal.record import Array, Complex

__all__ = ["delayed", "inverse_of"]

FEW = 4  # frames, of all streams, up to which the compiled transform wins over a library's batch


def delayed(
    spectrum: Complex[Array, "stream frame sample"], value: Complex[Array, " sample"], slope: Complex[Array, " sample"]
) -> Complex[Array, "stream 2 frame sample"]:
    """Frames of these spectra through a filter and through its slope (``delay_doppler.folded_spectrum``), in the precision of ``spectrum``."""
    streams, frames, size = spectrum.shape
    if streams * frames > FEW or size < 4 or size & (size - 1) or spectrum.dtype != np.complex64:
        from scipy.fft import ifft

        both = np.array((value, slope), dtype=spectrum.dtype)
        return np.asarray(ifft(spectrum[:, None] * both[:, None], axis=-1, overwrite_x=True))
    inverse, out = inverse_of(size), np.empty((streams, 2, frames, size), dtype=np.complex64)
    for s in range(streams):
        for f in range(frames):
            inverse(spectrum[s, f], value, out[s, 0, f])
            inverse(spectrum[s, f], slope, out[s, 1, f])
    return out


@lru_cache(maxsize=8)
def inverse_of(size: int) -> Callable[..., None]:
    """``inverse(lines, by, out)``: ``out`` the inverse FFT of ``lines * by``, all complex64 ``[sample]`` (``by`` any complex).

    The length is split into a square or nearly: FFTs down the columns with the rows as vector lanes, a twist, a transposition, the same again.
    Raises Misuse for a length that is no power of two, or less than four.
    """
    if size < 4 or size & (size - 1):
        raise Misuse(f"size = {size}: must be a power of two, at least 4")
    tall = 1 << (size.bit_length() // 2)
    wide = size // tall
    first, second = fft_stages(tall, wide, False), fft_stages(wide, tall, False)
    order_tall, order_wide = fft_order(tall), fft_order(wide)
    root_tall, root_wide = (cis(-2 * np.pi * np.arange(n) / n).astype(np.complex64) for n in (tall, wide))
    twist = (cis(2 * np.pi * np.outer(order_wide, np.arange(tall)) / size) / size).astype(np.complex64)

    @njit(fastmath={"contract", "nsz"}, error_model="numpy")
    def compiled(
        lines: Any, by: Any, ot: Any, ow: Any, rt: Any, rw: Any, turn: Any, out: Any
    ) -> None:  # pragma: no cover - compiled
        one, two = np.empty(2 * size, np.float32), np.empty(2 * size, np.float32)
        for i in range(tall):
            row = one[2 * i * wide : 2 * (i + 1) * wide]
            begin = ot[i] * wide
            for b in range(wide):
                x, y = lines[begin + b], by[begin + b]
                re, im = np.float32(y.real), np.float32(y.imag)
                row[b], row[wide + b] = x.real * re - x.imag * im, x.real * im + x.imag * re
        first(one, rt)
        for j in range(wide):
            row, at = two[2 * j * tall : 2 * (j + 1) * tall], ow[j]
            for c in range(tall):
                re, im, t = one[2 * c * wide + at], one[(2 * c + 1) * wide + at], turn[j, c]
                row[c], row[tall + c] = re * t.real - im * t.imag, re * t.imag + im * t.real
        second(two, rw)
        for d in range(wide):
            row = two[2 * d * tall : 2 * (d + 1) * tall]
            for c in range(tall):
                out[d * tall + c] = complex(row[c], row[tall + c])

    def inverse(lines: Any, by: Any, out: Any) -> None:
        compiled(lines, by, order_tall, order_wide, root_tall, root_wide, twist, out)

    return inverse
