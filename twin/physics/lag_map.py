"""Delay-Doppler map of several known streams in several rows at once, folded: products at every lag, summed over short blocks, then one Fourier sum.

For a single frame, where Doppler turns within the frame, this takes the place of a bank of replicas (``echoes.delay_doppler_map``). Delays in samples,
Doppler in cycles a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int
from twin.physics.delay_doppler import raised_cosine

__all__ = ["LagMap", "lag_map", "layout", "map_at", "map_power", "summits"]

_TURN = 0.25  # cycles that the fastest echo may turn within a block: 0.9 dB


@dataclass(frozen=True)
class LagMap:
    """Where the map is evaluated: half-sample lags and half-cell Doppler bins."""

    first: int  # lag of the first whole-lag column, two before the first of the map
    lags: int  # whole-lag columns
    block: int  # samples summed before the Fourier sum
    doppler: Float[Array, " bin"]
    turn: Complex[Array, "block bin"]  # of all frames' blocks

    @property
    def delay(self) -> Float[Array, " column"]:
        """Lag of each column of the map, in samples."""
        return self.first + 2 + 0.5 * np.arange(2 * (self.lags - 4))


def layout(start: Float[Array, " frame"], size: int, delay: tuple[float, float], doppler: float) -> LagMap:
    """The map over ``delay[0] .. delay[1]`` samples and ``-doppler .. doppler`` cycles a sample, for frames of ``size`` that begin at ``start``.

    Raises Misuse for a span that is empty or longer than a frame.
    """
    if not 0 <= delay[0] < delay[1] < size:
        raise Misuse(f"delay = {delay}: must ascend within 0 .. {size} samples, one frame")
    if not 0 < doppler < 0.5:
        raise Misuse(f"doppler = {doppler:g} cycles a sample: must lie in (0, 0.5)")
    return _layout(tuple(np.asarray(start, float).tolist()), size, delay, float(doppler))


@lru_cache(maxsize=16)
def _layout(start: tuple[float, ...], size: int, delay: tuple[float, float], doppler: float) -> LagMap:
    fits = [n for n in range(1, size + 1) if size % n == 0 and n * doppler <= _TURN]
    block = max(fits)
    middle = (np.array(start)[:, None] + np.arange(size // block) * block + (block - 1) / 2).reshape(-1)
    step = 0.5 / (np.ptp(start) + size)
    bins = int(np.ceil(doppler / step))
    axis = step * np.arange(-bins, bins + 1)
    first = int(np.floor(delay[0]))
    return LagMap(
        first=first - 2,
        lags=int(np.ceil(delay[1])) - first + 5,
        block=block,
        doppler=axis,
        turn=np.ascontiguousarray(cis(-2 * np.pi * np.outer(middle, axis)).astype(np.complex64)),
    )


def lag_map(
    grid: LagMap,
    data: Complex[Array, "row frame sample"],
    sent: Complex[Array, "stream frame sample"],
) -> Complex[Array, "row stream lag bin"]:
    """Inner products of every row with every stream's echo at whole lags and the grid's Doppler shifts, streams scaled to unit energy.

    White noise keeps its power. Between whole lags ``map_power`` and ``map_at`` interpolate.
    """
    rows, streams = len(data), len(sent)
    parts = _folded(_combed(data, grid.block), _combed(sent, grid.block), grid.first, grid.lags)
    energy = np.sum(sent.real**2 + sent.imag**2, axis=(1, 2))
    scale = 1 / np.sqrt(np.where(energy > 0, energy, 1.0))
    whole = (parts.reshape(-1, len(grid.turn)) @ grid.turn).reshape(rows, streams, grid.lags, -1)
    return np.asarray(whole * scale.astype(np.float32)[:, None, None])


def map_power(whole: Complex[Array, "row stream lag bin"], roll_off: float) -> Float[Array, "column bin"]:
    """Power summed over rows and streams at half-sample lags, those between whole ones interpolated from four: they keep 0.9 of a peak."""
    return np.asarray(_power(whole.reshape(-1, *whole.shape[2:]), _taps(roll_off)))


def map_at(
    whole: Complex[Array, "row stream lag bin"], column: int, bin: int, roll_off: float
) -> Complex[Array, "row stream"]:
    """The map at one of its points, complex."""
    lag = column // 2 + 2
    if column % 2 == 0:
        return np.asarray(whole[:, :, lag, bin])
    return np.asarray(whole[:, :, lag - 1 : lag + 3, bin] @ _taps(roll_off))


@lru_cache(maxsize=4)
def _taps(roll_off: float) -> Float[Array, " 4"]:
    return raised_cosine(np.array([1.5, 0.5, -0.5, -1.5]), roll_off).astype(np.float32)


def summits(power: Float[Array, "column bin"], floor: float, limit: int) -> Int[Array, "peak 2"]:
    """The highest points above ``floor``, two cells apart in delay or Doppler, highest first."""
    left = np.array(power)
    found: list[tuple[int, int]] = []
    while len(found) < limit:
        column, bin = divmod(int(np.argmax(left)), left.shape[1])
        if not left[column, bin] > floor:
            break
        found.append((column, bin))
        left[max(column - 3, 0) : column + 4, max(bin - 3, 0) : bin + 4] = -1.0
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _combed(samples: Complex[Array, "row frame sample"], block: int) -> Float[Array, "row frame 2 within block"]:
    # samples of one place within their blocks side by side, so that sums over blocks run in vector lanes
    rows, frames, size = samples.shape
    turned = samples.reshape(rows, frames, size // block, block).swapaxes(2, 3)
    out = np.empty((rows, frames, 2, block, size // block), dtype=np.float32)
    out[:, :, 0], out[:, :, 1] = turned.real, turned.imag
    return out


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})
def _folded(data: Any, sent: Any, first: int, lags: int) -> Any:  # pragma: no cover - compiled
    # sums over blocks of data[q] conj(sent[q - lag]), frames cyclic
    rows, frames, block, blocks, streams = data.shape[0], data.shape[1], data.shape[3], data.shape[4], sent.shape[0]
    out = np.empty((rows, streams, lags, frames * blocks), dtype=np.complex64)
    sr, si = np.empty((block, blocks), dtype=np.float32), np.empty((block, blocks), dtype=np.float32)
    re, im = np.empty(blocks, dtype=np.float32), np.empty(blocks, dtype=np.float32)
    twice = np.empty((2, block, 2 * blocks), dtype=np.float32)
    for i in range(streams):
        for f in range(frames):
            twice[:, :, :blocks] = sent[i, f]
            twice[:, :, blocks:] = sent[i, f]
            for n in range(lags):
                to = (-first - n) % block
                shift = ((-first - n) // block) % blocks
                rest, next = block - to, shift + 1
                sr[:rest], si[:rest] = twice[0, to:, shift : shift + blocks], twice[1, to:, shift : shift + blocks]
                sr[rest:], si[rest:] = twice[0, :to, next : next + blocks], twice[1, :to, next : next + blocks]
                for r in range(rows):
                    yr, yi = data[r, f, 0], data[r, f, 1]
                    re[:] = 0
                    im[:] = 0
                    for j in range(block):
                        for b in range(blocks):
                            re[b] += yr[j, b] * sr[j, b] + yi[j, b] * si[j, b]
                            im[b] += yi[j, b] * sr[j, b] - yr[j, b] * si[j, b]
                    for b in range(blocks):
                        out[r, i, n, f * blocks + b] = complex(re[b], im[b])
    return out


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _power(whole: Any, tap: Any) -> Any:  # pragma: no cover - compiled
    pairs, lags, bins = whole.shape
    out = np.zeros((2 * (lags - 4), bins), dtype=np.float32)
    for p in range(pairs):
        for n in range(2, lags - 2):
            for k in range(bins):
                z = whole[p, n, k]
                out[2 * n - 4, k] += z.real * z.real + z.imag * z.imag
                near, far = z + whole[p, n + 1, k], whole[p, n - 1, k] + whole[p, n + 2, k]
                re = tap[1] * near.real + tap[0] * far.real
                im = tap[1] * near.imag + tap[0] * far.imag
                out[2 * n - 3, k] += re * re + im * im
    return out
