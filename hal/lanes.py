"""Frames side by side: eight of them are a vector's lanes, so that every step of every frame, its FFT first of all, runs on all eight at once.

A wave is ``[2, sample, 8]`` real numbers: the real parts of eight frames sample by sample, then their imaginary parts. No lane touches another, and
each goes through the same operations whichever lane it is: a frame's result does not depend, in any bit, on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.record import Array, Complex, Float, Int

__all__ = ["LANES", "Transform", "added", "fft_order", "fft_stages", "packed", "transform", "unpacked"]

LANES = 8
TILE = 32 * LANES  # numbers that are dealt with at a time, so that what is used again is still in the first cache


@dataclass(frozen=True)
class Transform:
    """What is done to contiguous float32 waves ``[*batch 2 sample 8]`` of one length, in place."""

    order: Int[Array, " place"]  # which line of a spectrum each place of a wave holds
    forward: Callable[[Array], None]  # FFT
    backward: Callable[[Array], None]  # ``size`` times the inverse FFT
    turn: Callable[
        [Array, Complex[Array, "wave sample"]], None
    ]  # each sample of a wave, in all lanes, by a factor of its own (complex64)


def packed(samples: Complex[Array, "frame row sample"]) -> Float[Array, "row group 2 sample 8"]:
    """Rows of frames (taken to single precision) as waves, eight frames a group; the last group's empty lanes are zero."""
    samples = np.ascontiguousarray(samples, dtype=np.complex64)
    frames, rows, size = samples.shape
    out = np.zeros((rows, -(-frames // LANES), 2, size, LANES), dtype=np.float32)
    _pack(samples.view(np.float32), out)
    return out


def unpacked(waves: Float[Array, "row group 2 sample 8"], frames: int) -> Complex[Array, "frame row sample"]:
    """``packed`` undone."""
    out = np.empty((frames, len(waves), waves.shape[3]), dtype=np.complex64)
    _unpack(waves, out.view(np.float32))
    return out


@njit(cache=True)
def _pack(samples: Any, out: Any) -> None:  # pragma: no cover - compiled
    size = out.shape[3]
    for r in range(samples.shape[1]):
        for f in range(0, samples.shape[0], LANES):
            wave = out[r, f // LANES]
            for begin in range(0, size, 64):  # so that a line of the first cache serves all lanes
                for lane in range(min(LANES, samples.shape[0] - f)):
                    line = samples[f + lane, r]
                    for q in range(begin, min(begin + 64, size)):
                        wave[0, q, lane], wave[1, q, lane] = line[2 * q], line[2 * q + 1]


@njit(cache=True)
def _unpack(waves: Any, out: Any) -> None:  # pragma: no cover - compiled
    size = waves.shape[3]
    for r in range(out.shape[1]):
        for f in range(0, out.shape[0], LANES):
            wave = waves[r, f // LANES]
            for begin in range(0, size, 64):
                for lane in range(min(LANES, out.shape[0] - f)):
                    line = out[f + lane, r]
                    for q in range(begin, min(begin + 64, size)):
                        line[2 * q], line[2 * q + 1] = wave[0, q, lane], wave[1, q, lane]


@lru_cache(maxsize=16)
def transform(size: int) -> Transform:
    """Transforms of ``size`` samples: compiled for powers of two, a library's for other lengths."""
    wide = 2 * size * LANES
    turned = _turned(size)

    def turn(waves: Array, by: Array) -> None:
        turned(waves.reshape(-1, wide), by)

    if size < 2 or size & (size - 1):
        return Transform(
            np.arange(size), lambda waves: _plain(waves, size, False), lambda waves: _plain(waves, size, True), turn
        )
    root = cis(-2 * np.pi * np.arange(size) / size).astype(np.complex64)

    def run(forward: bool, waves: Array) -> None:
        for stage in _stages(size, LANES, forward, True):
            stage(waves.reshape(-1, wide), root)

    return Transform(fft_order(size), partial(run, True), partial(run, False), turn)


def _turned(size: int) -> Any:
    half = size * LANES

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def turned(waves: Any, by: Any) -> None:  # pragma: no cover - compiled
        for w in range(len(waves)):
            line = by[w % len(by)]
            for q in range(size):
                row, re, im = waves[w, q * LANES :], line[q].real, line[q].imag
                for j in range(LANES):
                    x, y = row[j], row[j + half]
                    row[j], row[j + half] = re * x - im * y, re * y + im * x

    return turned


def _plain(waves: Array, size: int, backward: bool) -> None:
    from scipy.fft import fft, ifft

    part = waves.reshape(-1, 2, size, LANES)
    whole = part[:, 0] + 1j * part[:, 1]
    whole = ifft(whole, axis=1, norm="forward") if backward else fft(whole, axis=1)
    part[:, 0], part[:, 1] = whole.real, whole.imag


@njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
def added(source: Any, weight: Any, out: Any) -> None:  # pragma: no cover - compiled
    """``out[to] += sum over from of weight[from, to] source[from]``: waves flat ``[from 2*sample*8]``, weights ``[from to 2 8]``, a number a lane."""
    half = out.shape[1] // 2
    re, im = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for s in range(len(source)):
        for o in range(len(out)):
            for k in range(TILE):
                re[k], im[k] = weight[s, o, 0, k % LANES], weight[s, o, 1, k % LANES]
            for begin in range(0, half, TILE):
                end = min(begin + TILE, half)
                x, y = source[s, begin:end], source[s, half + begin : half + end]
                a, b = out[o, begin:end], out[o, half + begin : half + end]
                for k in range(end - begin):
                    a[k] += re[k] * x[k] - im[k] * y[k]
                    b[k] += re[k] * y[k] + im[k] * x[k]


def fft_order(size: int) -> Int[Array, " size"]:
    """Which line each place of the forward FFT's result holds."""
    if size == 1:
        return np.zeros(1, dtype=np.int64)
    radix = 4 if size % 4 == 0 else 2
    return np.concatenate([radix * fft_order(size // radix) + digit for digit in range(radix)])


# Stages are compiled for one size: with every distance between rows known, the compiler turns the lanes into vectors.


def _stage(size: int, lanes: int, n: int, forward: bool, blocks: bool) -> Callable[..., None]:
    """A stage of blocks of ``n``: radix 4, or 2 where ``n`` is 2; decimation in frequency forward, its adjoint backward."""
    hop, apart = (
        (lanes, size * lanes) if blocks else (2 * lanes, lanes)
    )  # to the next sample; from real to imaginary parts
    quarter, far = n // 4, size // n
    step = max(quarter, 1) * hop
    if n == 2:

        @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
        def two(waves: Any, root: Any) -> None:  # pragma: no cover - compiled
            for w in range(len(waves)):
                for m in range(0, size, 2):
                    row = waves[w, m * hop :]
                    for j in range(lanes):
                        a, b, c, d = row[j], row[j + hop], row[j + apart], row[j + hop + apart]
                        row[j], row[j + hop], row[j + apart], row[j + hop + apart] = a + b, a - b, c + d, c - d

        return two

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def four(waves: Any, root: Any) -> None:  # pragma: no cover - compiled
        for w in range(len(waves) * (size // n)):
            wave, base = waves[w // (size // n)], w % (size // n) * n
            for i in range(quarter):
                c1, d1 = root[i * far].real, root[i * far].imag
                c2, d2 = root[2 * i * far].real, root[2 * i * far].imag
                c3, d3 = root[3 * i * far].real, root[3 * i * far].imag
                row = wave[(base + i) * hop :]
                for j in range(lanes):
                    wr, xr, yr, zr = row[j], row[j + step], row[j + 2 * step], row[j + 3 * step]
                    wi, xi = row[j + apart], row[j + step + apart]
                    yi, zi = row[j + 2 * step + apart], row[j + 3 * step + apart]
                    if forward:
                        sr, si, tr, ti = wr + yr, wi + yi, wr - yr, wi - yi
                        ur, ui, vr, vi = xr + zr, xi + zi, xi - zi, zr - xr
                        row[j], row[j + apart] = sr + ur, si + ui
                        ar, ai, br, bi, er, ei = tr + vr, ti + vi, sr - ur, si - ui, tr - vr, ti - vi
                        row[j + step], row[j + step + apart] = ar * c1 - ai * d1, ar * d1 + ai * c1
                        row[j + 2 * step], row[j + 2 * step + apart] = br * c2 - bi * d2, br * d2 + bi * c2
                        row[j + 3 * step], row[j + 3 * step + apart] = er * c3 - ei * d3, er * d3 + ei * c3
                    else:
                        ar, ai = xr * c1 + xi * d1, xi * c1 - xr * d1
                        br, bi = yr * c2 + yi * d2, yi * c2 - yr * d2
                        er, ei = zr * c3 + zi * d3, zi * c3 - zr * d3
                        sr, si, tr, ti = wr + br, wi + bi, wr - br, wi - bi
                        ur, ui, vr, vi = ar + er, ai + ei, ei - ai, ar - er
                        row[j], row[j + apart] = sr + ur, si + ui
                        row[j + step], row[j + step + apart] = tr + vr, ti + vi
                        row[j + 2 * step], row[j + 2 * step + apart] = sr - ur, si - ui
                        row[j + 3 * step], row[j + 3 * step + apart] = tr - vr, ti - vi

    return four


@lru_cache(maxsize=16)
def _stages(size: int, lanes: int, forward: bool, blocks: bool) -> list[Callable[..., None]]:
    """All stages of ``fft_stages`` for many waves ``[wave 2*sample*lane]``, one after another: each is found in the cache of compiled code."""
    sizes = []
    n = size
    while n > 1:
        sizes.append(n)
        n //= 4 if n >= 4 else 2
    return [_stage(size, lanes, n, forward, blocks) for n in (sizes if forward else sizes[::-1])]


@lru_cache(maxsize=16)
def fft_stages(size: int, lanes: int, forward: bool) -> Callable[..., None]:
    """FFTs of ``lanes`` frames side by side, in place, for compiled code to call: ``run(wave, root)`` with ``root = exp(-j 2 pi m / size)``.

    A wave is flat: of each sample the lanes' real parts, then their imaginary ones. Backward is ``size`` times the inverse.
    """
    stages = _stages(size, lanes, forward, False)
    whole = stages[0]
    for following in stages[1:]:
        whole = _both(whole, following)

    @njit
    def run(wave: Any, root: Any) -> None:  # pragma: no cover - compiled
        whole(wave.reshape(1, wave.size), root)

    return run  # type: ignore[no-any-return]


def _both(first: Any, second: Any) -> Any:
    # what calls other compiled code that it was handed is never found in the cache, so it is not put there
    @njit
    def run(waves: Any, root: Any) -> None:  # pragma: no cover - compiled
        first(waves, root)
        second(waves, root)

    return run
