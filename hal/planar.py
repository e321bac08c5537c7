"""Patterns of planar grids over a band, compiled: what rows of beam memory make of directions, at every subcarrier."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, AntennaArray, _cis
from hal.record import Array, Float, record

__all__ = ["Nodes", "line", "nodes_of", "paired", "pattern", "patterns_at", "planar_gains", "spread_out"]


@record
class Nodes:
    """A planar grid, and the frequencies at which its patterns are evaluated: how those of all subcarriers follow from them.

    Towards a fixed direction a row that is the same at every frequency has a pattern whose phase turns over the band by a radian or two at the
    array's corner: a dozen Chebyshev nodes carry it to eleven digits. A row with delay lines is evaluated at each subcarrier.
    """

    wave: Float[Array, " node"]  # 2 pi f / c
    spread: Float[Array, "node subcarrier"]
    column_m: Float[Array, " axis"]  # first column and the step to the next; likewise rows
    row_m: Float[Array, " axis"]
    columns: int
    rows: int


def nodes_of(
    array: AntennaArray, frequency_hz: Float[Array, " subcarrier"], flat: bool, accuracy: float = 1e-11
) -> Nodes:
    """The nodes of a planar array's subcarriers (Hz); ``flat``: the rows are the same at every frequency."""
    return _nodes(array, np.ascontiguousarray(frequency_hz, dtype=np.float64).tobytes(), flat, accuracy)


@lru_cache(maxsize=32)
def _nodes(array: AntennaArray, hertz: bytes, flat: bool, accuracy: float) -> Nodes:
    frequency_hz = np.frombuffer(hertz)
    y_m, z_m = array.position_m[:: array.rows, 1], array.position_m[: array.rows, 2]
    middle, half = (frequency_hz.max() + frequency_hz.min()) / 2, np.ptp(frequency_hz) / 2
    turn = 2 * np.pi * half / LIGHT_MPS * np.hypot(np.max(np.abs(y_m)), np.max(np.abs(z_m)))
    count, error = 1, turn
    while error > accuracy:
        count += 1
        error *= turn / 2 / count
    spread, node_hz = np.eye(len(frequency_hz)), frequency_hz
    if flat and count < len(frequency_hz):
        x = np.cos(np.pi * (np.arange(count) + 0.5) / count)
        node_hz = middle + half * x
        k = np.arange(count)
        onto = 2 / count * np.cos(k * np.arccos(x)[:, None])  # Chebyshev coefficients from values at the nodes
        onto[:, 0] /= 2
        spread = np.cos(np.arccos(np.clip((frequency_hz - middle) / half, -1, 1))[:, None] * k) @ onto.T
    return Nodes(
        wave=2 * np.pi * node_hz / LIGHT_MPS,
        spread=np.ascontiguousarray(spread.T),
        column_m=np.array([y_m[0], y_m[1] - y_m[0] if len(y_m) > 1 else 0.0]),
        row_m=np.array([z_m[0], z_m[1] - z_m[0] if len(z_m) > 1 else 0.0]),
        columns=array.columns,
        rows=array.rows,
    )


@njit(cache=True)
def line(
    first: float, step: float, count: int, wave: float, cosine: float, re: Any, im: Any
) -> None:  # pragma: no cover - compiled
    """``exp(j wave cosine (first + n step))``: two turns and a recurrence, which keeps a dozen digits over a few dozen elements."""
    turn, lean = wave * cosine * first, wave * cosine * step
    a, b, c, s = np.cos(turn), np.sin(turn), np.cos(lean), np.sin(lean)
    for n in range(count):
        re[n], im[n] = a, b
        a, b = a * c - b * s, a * s + b * c


@njit(cache=True)
def paired(hr: Any, hi: Any, columns: int) -> Any:  # pragma: no cover - compiled
    """A row ``[frequency (element chain)]`` as ``[frequency pair (row chain part)]``: ``h + g`` and ``j (h - g)`` of columns at equal distance from the middle.

    Their sum meets the cosine of the phase, their difference the sine; a middle column is alone. Real and imaginary parts are vector lanes side by side.
    """
    frequencies, pairs, wide = len(hr), (columns + 1) // 2, hr.shape[1] // columns
    level, lean = np.empty((frequencies, pairs, 2 * wide)), np.empty((frequencies, pairs, 2 * wide))
    for f in range(frequencies):
        for c in range(pairs):
            right = (columns // 2 + c) * wide
            left = (columns - 1) * wide - right
            for k in range(wide):
                x, y, v, w = hr[f, right + k], hi[f, right + k], 0.0, 0.0
                if left < right:
                    v, w = hr[f, left + k], hi[f, left + k]
                level[f, c, 2 * k], level[f, c, 2 * k + 1] = x + v, y + w
                lean[f, c, 2 * k], lean[f, c, 2 * k + 1] = w - y, x - v
    return level, lean


@njit(cache=True, fastmath={"contract"})
def spread_out(spread: Any, node: Any, scale: float, out: Any) -> None:  # pragma: no cover - compiled
    """``scale`` times a pattern from nodes ``[node chain]`` to subcarriers ``[subcarrier chain]``, which are the vector lanes."""
    subcarriers = spread.shape[1]
    re, im = np.empty(subcarriers), np.empty(subcarriers)
    for c in range(out.shape[1]):
        re[:] = 0.0
        im[:] = 0.0
        for q in range(len(node)):
            x, y = node[q, c].real, node[q, c].imag
            for m in range(subcarriers):
                re[m] += spread[q, m] * x
                im[m] += spread[q, m] * y
        for m in range(subcarriers):
            out[m, c] = complex(scale * re[m], scale * im[m])


@njit(cache=True, fastmath={"contract"})
def planar_gains(
    point_m: Any,
    peak: float,
    exponent: float,
    wave: Any,
    spread: Any,
    column_m: Any,
    row_m: Any,
    columns: int,
    rows: int,
    response: Any,
    wanted: Any,
) -> Any:  # pragma: no cover - compiled
    """Element amplitude times ``a(u, f)^T response[row, f]`` towards points (m, array frame): ``[row path subcarrier chain]``.

    ``response[row frequency element chain]`` has one frequency where it is flat. Empty for a point at the phase centre, and where ``_cis`` gives up.
    """
    slots, frequencies, elements, chains = response.shape
    paths, nodes, subcarriers = len(point_m), len(wave), spread.shape[1]
    cosine, amplitude = np.empty((paths, 2)), np.empty(paths)
    for p in range(paths):
        x, y, z = point_m[p, 0], point_m[p, 1], point_m[p, 2]
        size = np.sqrt(x * x + y * y + z * z)
        if not size > 0:
            return np.zeros((0, 0, 0, 0), np.complex128)
        cosine[p, 0], cosine[p, 1] = y / size, z / size
        amplitude[p] = peak
        if exponent != 0:
            amplitude[p] = peak * (x / size) ** (exponent / 2) if x > 0 else 0.0
    out = np.zeros((slots, paths, subcarriers, chains), np.complex128)
    node = np.empty((1, nodes, chains), np.complex128)
    held = response.reshape((slots, frequencies, elements * chains))
    for slot in range(slots):
        if not np.any(wanted[slot]):
            continue
        level, lean = paired(held[slot].real, held[slot].imag, columns)
        for p in range(paths):
            if not wanted[slot, p]:
                continue
            if not pattern(level, lean, wave, column_m, row_m, columns, rows, cosine[p, 0], cosine[p, 1], node):
                return np.zeros((0, 0, 0, 0), np.complex128)
            if nodes == subcarriers:
                for q in range(nodes):
                    for c in range(chains):
                        out[slot, p, q, c] = amplitude[p] * node[0, q, c]
            else:
                spread_out(spread, node[0], amplitude[p], out[slot, p])
    return out


@njit(cache=True, fastmath={"contract"})
def pattern(
    level: Any,
    lean: Any,
    wave: Any,
    column_m: Any,
    row_m: Any,
    columns: int,
    rows: int,
    uy: float,
    uz: float,
    out: Any,
) -> bool:  # pragma: no cover - compiled
    """One row's pattern at the nodes towards (uy, uz): ``out[kind node chain]``; with three kinds also its slopes along uy and uz.

    The row as ``paired`` makes it. False where ``_cis`` gives up.
    """
    nodes, chains, slopes = out.shape[1], out.shape[2], len(out) == 3
    pairs, wide = level.shape[1], level.shape[2]
    middle_m = column_m[0] + (columns - 1) / 2 * column_m[1]
    away_m = (columns // 2 - (columns - 1) / 2 + np.arange(pairs)) * column_m[1]
    phase, turned = np.empty((nodes, pairs + rows)), np.empty((nodes, pairs + rows, 2))
    for q in range(nodes):
        for c in range(pairs):
            phase[q, c] = wave[q] * uy * away_m[c]
        for r in range(rows):
            phase[q, pairs + r] = wave[q] * (uz * (row_m[0] + r * row_m[1]) + uy * middle_m)
    if not _cis(phase.reshape(-1), turned.reshape(-1)):
        return False
    half, tilt = np.empty(wide), np.empty(wide)
    for q in range(nodes):
        f = q if len(level) > 1 else 0
        half[:] = 0.0
        tilt[:] = 0.0
        for c in range(pairs):
            x, y = turned[q, c, 0], turned[q, c, 1]
            if slopes:
                v, w = wave[q] * away_m[c] * x, wave[q] * away_m[c] * y
                for k in range(wide):
                    half[k] += x * level[f, c, k] + y * lean[f, c, k]
                    tilt[k] += v * lean[f, c, k] - w * level[f, c, k]
            else:
                for k in range(wide):
                    half[k] += x * level[f, c, k] + y * lean[f, c, k]
        for c in range(chains):
            b, by, bz = 0j, 0j, 0j
            for r in range(rows):
                x, y, k = turned[q, pairs + r, 0], turned[q, pairs + r, 1], 2 * (r * chains + c)
                re, im = x * half[k] - y * half[k + 1], x * half[k + 1] + y * half[k]
                b += complex(re, im)
                if slopes:
                    lift = wave[q] * (row_m[0] + r * row_m[1])
                    by += complex(x * tilt[k] - y * tilt[k + 1], x * tilt[k + 1] + y * tilt[k])
                    bz += complex(-lift * im, lift * re)
            out[0, q, c] = b
            if slopes:
                out[1, q, c], out[2, q, c] = by + 1j * wave[q] * middle_m * b, bz
    return True


@njit(cache=True)
def patterns_at(
    hr: Any,
    hi: Any,
    wave: Any,
    spread: Any,
    column_m: Any,
    row_m: Any,
    columns: int,
    rows: int,
    ear: Any,
    cosines: Any,
    out: Any,
) -> None:  # pragma: no cover - compiled
    """Patterns ``[kind one subcarrier chain]`` of rows ``ear`` of ``[row frequency (element chain)]``, real and imaginary parts apart, towards ``cosines``.

    Nothing is written where ``ear`` is -1.
    """
    node = np.empty((len(out), len(wave), out.shape[3]), np.complex128)
    level, lean = np.empty((0, 0, 0)), np.empty((0, 0, 0))
    last = -1
    for i in range(len(ear)):
        if ear[i] < 0:
            continue
        if ear[i] != last:
            last = ear[i]
            level, lean = paired(hr[last], hi[last], columns)
        pattern(level, lean, wave, column_m, row_m, columns, rows, cosines[i, 0], cosines[i, 1], node)
        for k in range(len(out)):
            spread_out(spread, node[k], 1.0, out[k, i])
