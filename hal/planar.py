"""Patterns of planar grids over a band, compiled: what rows of beam memory make of directions, at every subcarrier."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, AntennaArray
from hal.record import Array, Float, record

__all__ = ["Nodes", "across", "line", "nodes_of", "pattern", "patterns_at", "planar_gains", "spread_out"]


@record
class Nodes:
    """A planar grid, and the frequencies at which its patterns are evaluated: how those of all subcarriers follow from them.

    Towards a fixed direction a row that is the same at every frequency has a pattern whose phase turns over the band by a radian or two at the
    array's corner: a dozen Chebyshev nodes carry it to eleven digits. A row with delay lines is evaluated at each subcarrier.
    """

    wave: Float[Array, " node"]  # 2 pi f / c
    spread: Float[Array, "subcarrier node"]
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
        spread=np.ascontiguousarray(spread),
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
def across(ar: Any, ai: Any, hr: Any, hi: Any, out_r: Any, out_i: Any) -> None:  # pragma: no cover - compiled
    """Sum over columns of ``a[column] held[column, (row chain)]``; the pair (row, chain) is the vector lane, so no sum is reordered."""
    columns, wide = hr.shape
    out_r[:] = 0.0
    out_i[:] = 0.0
    for c in range(0, columns - columns % 2, 2):
        x, y, v, w = ar[c], ai[c], ar[c + 1], ai[c + 1]
        for k in range(wide):
            out_r[k] += x * hr[c, k] - y * hi[c, k] + v * hr[c + 1, k] - w * hi[c + 1, k]
            out_i[k] += x * hi[c, k] + y * hr[c, k] + v * hi[c + 1, k] + w * hr[c + 1, k]
    if columns % 2:
        x, y = ar[columns - 1], ai[columns - 1]
        for k in range(wide):
            out_r[k] += x * hr[columns - 1, k] - y * hi[columns - 1, k]
            out_i[k] += x * hi[columns - 1, k] + y * hr[columns - 1, k]


@njit(cache=True)
def spread_out(spread: Any, node: Any, scale: float, out: Any) -> None:  # pragma: no cover - compiled
    """``scale`` times a pattern from nodes ``[node chain]`` to subcarriers ``[subcarrier chain]``."""
    for m in range(len(out)):
        for c in range(out.shape[1]):
            re, im = 0.0, 0.0
            for q in range(len(node)):
                re += spread[m, q] * node[q, c].real
                im += spread[m, q] * node[q, c].imag
            out[m, c] = complex(scale * re, scale * im)


@njit(cache=True)
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

    ``response[row frequency element chain]`` has one frequency where it is flat. Empty for a point at the phase centre.
    """
    slots, frequencies, elements, chains = response.shape
    paths, nodes, subcarriers = len(point_m), len(wave), len(spread)
    wide = rows * chains
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
    hr, hi = np.empty((frequencies, columns, wide)), np.empty((frequencies, columns, wide))
    yr, yi, zr, zi = np.empty(columns), np.empty(columns), np.empty(rows), np.empty(rows)
    half_r, half_i = np.empty(wide), np.empty(wide)
    node = np.empty((nodes, chains), np.complex128)
    for slot in range(slots):
        if not np.any(wanted[slot]):
            continue
        for f in range(frequencies):
            for n in range(elements):
                for c in range(chains):
                    hr[f, n // rows, (n % rows) * chains + c] = response[slot, f, n, c].real
                    hi[f, n // rows, (n % rows) * chains + c] = response[slot, f, n, c].imag
        for p in range(paths):
            if not wanted[slot, p]:
                continue
            for q in range(nodes):
                f = q if frequencies > 1 else 0
                line(column_m[0], column_m[1], columns, wave[q], cosine[p, 0], yr, yi)
                line(row_m[0], row_m[1], rows, wave[q], cosine[p, 1], zr, zi)
                across(yr, yi, hr[f], hi[f], half_r, half_i)
                for c in range(chains):
                    re, im = 0.0, 0.0
                    for r in range(rows):
                        k = r * chains + c
                        re += zr[r] * half_r[k] - zi[r] * half_i[k]
                        im += zr[r] * half_i[k] + zi[r] * half_r[k]
                    node[q, c] = complex(re, im)
            if nodes == subcarriers:
                for q in range(nodes):
                    for c in range(chains):
                        out[slot, p, q, c] = amplitude[p] * node[q, c]
            else:
                spread_out(spread, node, amplitude[p], out[slot, p])
    return out


@njit(cache=True)
def pattern(
    hr: Any, hi: Any, wave: Any, column_m: Any, row_m: Any, columns: int, rows: int, uy: float, uz: float, out: Any
) -> None:  # pragma: no cover - compiled
    """One row's pattern at the nodes towards (uy, uz): ``out[kind node chain]``; with three kinds also its slopes along uy and uz.

    The row as ``[frequency (element chain)]``, real and imaginary parts apart.
    """
    nodes, chains = out.shape[1], out.shape[2]
    wide = rows * chains
    yr, yi, zr, zi = np.empty(columns), np.empty(columns), np.empty(rows), np.empty(rows)
    lr, li = np.empty(columns), np.empty(columns)
    half_r, half_i, lean_r, lean_i = np.empty(wide), np.empty(wide), np.empty(wide), np.empty(wide)
    for q in range(nodes):
        f = q if len(hr) > 1 else 0
        own_r, own_i = hr[f].reshape(columns, wide), hi[f].reshape(columns, wide)
        line(column_m[0], column_m[1], columns, wave[q], uy, yr, yi)
        line(row_m[0], row_m[1], rows, wave[q], uz, zr, zi)
        across(yr, yi, own_r, own_i, half_r, half_i)
        if len(out) == 3:
            for c in range(columns):
                lever = wave[q] * (column_m[0] + c * column_m[1])
                lr[c], li[c] = -lever * yi[c], lever * yr[c]
            across(lr, li, own_r, own_i, lean_r, lean_i)
        for c in range(chains):
            b, by, bz = 0j, 0j, 0j
            for r in range(rows):
                a = complex(zr[r], zi[r])
                term = a * complex(half_r[r * chains + c], half_i[r * chains + c])
                b += term
                if len(out) == 3:
                    by += a * complex(lean_r[r * chains + c], lean_i[r * chains + c])
                    bz += 1j * wave[q] * (row_m[0] + r * row_m[1]) * term
            out[0, q, c] = b
            if len(out) == 3:
                out[1, q, c], out[2, q, c] = by, bz


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
    """Patterns ``[kind one subcarrier chain]`` of rows ``ear`` towards ``cosines``; nothing is written where ``ear`` is -1."""
    node = np.empty((len(out), len(wave), out.shape[3]), np.complex128)
    for i in range(len(ear)):
        if ear[i] >= 0:
            pattern(hr[ear[i]], hi[ear[i]], wave, column_m, row_m, columns, rows, cosines[i, 0], cosines[i, 1], node)
            for k in range(len(out)):
                spread_out(spread, node[k], 1.0, out[k, i])
