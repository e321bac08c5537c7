"""Delay-Doppler grids through a doubly selective channel without leaving the Zak domain: modulate, travel and demodulate in one.

The N-point inverse FFT of the modulator and the first stage of the frame's long FFT cancel, and so do their counterparts at the receiver:
what is left are M-point FFTs over delay with the Doppler bins as vector lanes, and N x N Doppler mixing. A frame stays in the first cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.check import finite, shaped
from hal.errors import Misuse
from hal.lanes import fft_order, fft_stages
from hal.record import Array, Complex, Float
from twin.physics.doubly_selective import Passage

__all__ = ["GridPassage", "grid_passage", "through_grid"]


@dataclass(frozen=True)
class GridPassage:
    """Paths between streams and chains as they act on ODDM grids of M delay and N Doppler bins; made once for many frames.

    Rows of 2 N numbers hold the real parts of N Doppler bins, then the imaginary ones.
    """

    departure: Complex[Array, "path stream"]
    arrival: Complex[Array, "path chain"]
    twist: Float[Array, "delay pair"]  # exp(-j 2 pi m k / MN)
    filter: Float[Array, "path delay pair"]  # lines k + N r of the paths' filters, r in the order the FFT leaves them
    turn: Float[Array, "path delay pair"]  # the twist undone, and the Doppler's turn along the delay
    mixing: Float[Array, "path pair pair_out"]
    root: Complex[Array, " delay"]  # exp(-j 2 pi m / M)


def grid_passage(
    channel: Passage,
    departure: Complex[Array, "path stream"],
    arrival: Complex[Array, "path chain"],
    delay_bins: int,
    doppler_bins: int,
    dtype: Any = np.complex64,
) -> GridPassage:
    """``channel`` (one period, no batch) between streams and chains, laid out for grids; ``dtype`` (complex64, complex128) is what it works in.

    Raises Misuse for a passage of another size, and for delay bins that are no power of two: ``doubly_selective.hybrid`` takes any number.
    """
    M, N = delay_bins, doppler_bins
    if M < 2 or M & (M - 1):
        raise Misuse(f"delay_bins = {M}: must be a power of two; use doubly_selective.hybrid")
    shaped("channel.turn", channel.turn, (None, 1, M * N))
    shaped("departure", departure, (len(channel.filter), None))
    shaped("arrival", arrival, (len(channel.filter), None))
    turn = channel.turn[:, 0].reshape(-1, N, M)
    slow = turn[
        :, :, 0
    ]  # of each path at the start of each slow-time row; the rest of its turn is the same in all of them
    order, fourier, twist, root = _tables(M, N)
    mixing = (fourier * slow[:, None, :]) @ fourier.conj() / (M * N)
    real = np.empty(0, dtype=dtype).real.dtype
    return GridPassage(
        departure=np.asarray(departure).astype(dtype),
        arrival=np.asarray(arrival).astype(dtype),
        twist=_pairs(twist).astype(real),
        filter=_pairs(channel.filter.reshape(-1, M, N)[:, order]).astype(real),
        turn=_pairs((turn[:, 0] / slow[:, :1])[:, :, None] * twist.conj()).astype(real),
        mixing=np.concatenate([_pairs(mixing), _pairs(1j * mixing)], axis=-2).astype(real),
        root=root.astype(dtype),
    )


def _pairs(value: Complex[Array, "*batch lane"]) -> Float[Array, "*batch pair"]:
    return np.concatenate([value.real, value.imag], axis=-1)


@lru_cache(maxsize=16)
def _tables(M: int, N: int) -> tuple[Array, Array, Array, Array]:
    k, m = np.arange(N), np.arange(M)
    fourier, twist = cis(2 * np.pi * np.outer(k, k) / N), cis(-2 * np.pi * np.outer(m, k) / (M * N))
    return fft_order(M), fourier, twist, cis(-2 * np.pi * m / M)


def through_grid(
    channel: GridPassage, grid: Complex[Array, "frame stream delay doppler"]
) -> Complex[Array, "frame chain delay doppler"]:
    """What the receiver's chains hold on their grids when ``grid`` was sent by ODDM (or OTFS): ``demodulate(hybrid(modulate(grid)))``.

    No noise; exact to the rounding of the passage's precision. The first call for a grid's size compiles. Raises Misuse for no frames, another
    shape, or symbols that are not finite.
    """
    size, width = channel.twist.shape
    grid = np.ascontiguousarray(grid, dtype=channel.root.dtype)
    if not grid.size:
        raise Misuse(f"grid: has shape {grid.shape}, no frames; must hold at least one")
    shaped("grid", grid, (None, channel.departure.shape[1], size, width // 2))
    real = channel.twist.dtype
    if not np.isfinite(np.add.reduce(grid.reshape(-1).view(real))):
        finite("grid", grid)
    out = np.empty((len(grid), channel.arrival.shape[1], size, width // 2), dtype=grid.dtype)
    if not len(channel.arrival):
        return np.zeros_like(out)
    _travel(size, width // 2)(
        grid.view(real).reshape(*grid.shape[:2], -1),
        channel.departure,
        channel.arrival,
        channel.twist.reshape(-1),
        channel.filter.reshape(len(channel.filter), -1),
        channel.turn.reshape(len(channel.filter), -1),
        channel.mixing,
        channel.root,
        out.view(real).reshape(*out.shape[:2], -1),
    )
    return out


# Kernels are compiled for one grid size: with every distance between rows known, the compiler turns the lanes into vectors.


@lru_cache(maxsize=16)
def _travel(size: int, lanes: int) -> Callable[..., None]:
    width = 2 * lanes
    count = size * width
    forward, backward = fft_stages(size, lanes, True), fft_stages(size, lanes, False)

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def turned(wave: Any, by: Any) -> None:  # pragma: no cover - compiled
        for m in range(size):
            row, turn = wave[m * width : (m + 1) * width], by[m * width : (m + 1) * width]
            for j in range(lanes):
                x, y = row[j], row[j + lanes]
                row[j] = x * turn[j] - y * turn[j + lanes]
                row[j + lanes] = x * turn[j + lanes] + y * turn[j]

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def combined(source: Any, weight: Any, out: Any) -> None:  # pragma: no cover - compiled
        # two at a time: half the passes over the sum
        for i in range(0, len(source) - 1, 2):
            a, b, c, d = weight[i].real, weight[i].imag, weight[i + 1].real, weight[i + 1].imag
            for m in range(size):
                one, two = source[i, m * width : (m + 1) * width], source[i + 1, m * width : (m + 1) * width]
                to = out[m * width : (m + 1) * width]
                if i == 0:
                    for j in range(lanes):
                        to[j] = a * one[j] - b * one[j + lanes] + c * two[j] - d * two[j + lanes]
                        to[j + lanes] = a * one[j + lanes] + b * one[j] + c * two[j + lanes] + d * two[j]
                else:
                    for j in range(lanes):
                        to[j] += a * one[j] - b * one[j + lanes] + c * two[j] - d * two[j + lanes]
                        to[j + lanes] += a * one[j + lanes] + b * one[j] + c * two[j + lanes] + d * two[j]
        if len(source) % 2:
            if len(source) == 1:
                out[:] = 0
            a, b = weight[-1].real, weight[-1].imag
            for m in range(size):
                one, to = source[-1, m * width : (m + 1) * width], out[m * width : (m + 1) * width]
                for j in range(lanes):
                    to[j] += a * one[j] - b * one[j + lanes]
                    to[j + lanes] += a * one[j + lanes] + b * one[j]

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def apart(grid: Any, wave: Any) -> None:  # pragma: no cover - compiled
        for m in range(size):
            row, to = grid[m * width : (m + 1) * width], wave[m * width : (m + 1) * width]
            for j in range(lanes):
                to[j], to[j + lanes] = row[2 * j], row[2 * j + 1]

    @njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
    def together(wave: Any, grid: Any) -> None:  # pragma: no cover - compiled
        for m in range(size):
            row, to = wave[m * width : (m + 1) * width], grid[m * width : (m + 1) * width]
            for j in range(lanes):
                to[2 * j], to[2 * j + 1] = row[j], row[j + lanes]

    @njit(error_model="numpy")
    def travel(
        grid: Any, departure: Any, arrival: Any, twist: Any, filters: Any, turn: Any, mixing: Any, root: Any, out: Any
    ) -> None:  # pragma: no cover - compiled
        frames, streams = grid.shape[:2]
        paths, chains = arrival.shape
        sent, mixed = np.empty((streams, count), dtype=grid.dtype), np.empty((paths, count), dtype=grid.dtype)
        wave = np.empty(count, dtype=grid.dtype)
        for f in range(frames):
            for s in range(streams):
                apart(grid[f, s], sent[s])
            for p in range(paths):
                combined(sent, departure[p], wave)
                turned(wave, twist)
                forward(wave, root)
                turned(wave, filters[p])
                backward(wave, root)
                turned(wave, turn[p])
                np.dot(wave.reshape(size, width), mixing[p], mixed[p].reshape(size, width))
            for r in range(chains):
                combined(mixed, arrival[:, r], wave)
                together(wave, out[f, r])

    return travel
