"""Compiled parts of ``hybrid_echo``: patterns, waves and their inner products, and the small matrices of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["inner", "normal", "patterns", "presence", "rest", "step", "tangents", "turn", "unleaked"]


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def patterns(feed: Any, lever_y: Any, lever_z: Any, cosine: Any) -> Any:  # pragma: no cover - compiled
    # feed @ a(u) and its two slopes, by the two factors of a planar grid's steering vector
    rows, columns, tall = feed.shape
    out = np.zeros((len(cosine), 3, rows), np.complex128)
    along, up = np.empty(columns, np.complex128), np.empty(tall, np.complex128)
    for n in range(len(cosine)):
        for i in range(columns):
            x = lever_y[i] * cosine[n, 0]
            along[i] = complex(np.cos(x), np.sin(x))
        for i in range(tall):
            x = lever_z[i] * cosine[n, 1]
            up[i] = complex(np.cos(x), np.sin(x))
        for r in range(rows):
            for c in range(columns):
                fr, fi, sr, si = 0.0, 0.0, 0.0, 0.0
                for i in range(tall):
                    f, u = feed[r, c, i], up[i]
                    tr = f.real * u.real - f.imag * u.imag
                    ti = f.real * u.imag + f.imag * u.real
                    fr += tr
                    fi += ti
                    sr += lever_z[i] * tr
                    si += lever_z[i] * ti
                flat = along[c] * complex(fr, fi)
                out[n, 0, r] += flat
                out[n, 1, r] += lever_y[c] * flat
                out[n, 2, r] += along[c] * complex(sr, si)
            out[n, 1, r] *= 1j
            out[n, 2, r] *= 1j
    return out


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def turn(pair: Any, start: Any, doppler: float, wave: Any, at: int) -> None:  # pragma: no cover - compiled
    # each stream's delayed frames and their slopes, turned by the Doppler shift, and the slope in that: to ``wave``, three rows a stream
    streams, _, frames, size = pair.shape
    ramp_re, ramp_im = np.empty(size, wave.dtype), np.empty(size, wave.dtype)
    for f in range(frames):
        for q in range(0, size, 32):
            angle = 2 * np.pi * ((doppler * (start[f] + q)) % 1.0)
            coarse = complex(np.cos(angle), np.sin(angle))
            if f == 0 and q == 0:
                fine = np.empty(32, np.complex128)
                for p in range(32):
                    fine[p] = complex(np.cos(2 * np.pi * doppler * p), np.sin(2 * np.pi * doppler * p))
            for p in range(min(32, size - q)):
                ramp_re[q + p] = coarse.real * fine[p].real - coarse.imag * fine[p].imag
                ramp_im[q + p] = coarse.real * fine[p].imag + coarse.imag * fine[p].real
        begin, step = wave.dtype.type(2 * np.pi * start[f]), wave.dtype.type(2 * np.pi)
        for i in range(streams):
            for q in range(size):
                c, s = ramp_re[q], ramp_im[q]
                v, d = pair[i, 0, f, q], pair[i, 1, f, q]
                re, im = v.real * c - v.imag * s, v.real * s + v.imag * c
                t = begin + step * wave.dtype.type(q)
                wave[at + 3 * i, f, 0, q], wave[at + 3 * i, f, 1, q] = re, im
                wave[at + 3 * i + 1, f, 0, q] = d.real * c - d.imag * s
                wave[at + 3 * i + 1, f, 1, q] = d.real * s + d.imag * c
                wave[at + 3 * i + 2, f, 0, q], wave[at + 3 * i + 2, f, 1, q] = -t * im, t * re


@njit(cache=True, error_model="numpy")
def step(
    metric: Any, slope: Any, damping: float, cosine: Any, delay: Any, doppler: Any, cap: Any, low: Any, high: Any
) -> Any:  # pragma: no cover - compiled
    # where a damped step leads, capped and within the lobe, and what it promises to explain
    bent = metric.copy()
    for p in range(len(slope)):
        bent[p, p] += metric[p, p] * (damping + 1e-9) + 1e-300
    move = np.linalg.solve(bent, slope)
    promise = 0.0
    to, lag, turn = cosine.copy(), delay.copy(), doppler.copy()
    for k in range(len(delay)):
        for a in range(4):
            promise += move[4 * k + a] * slope[4 * k + a]
        for a in range(2):
            step = min(max(move[4 * k + a], -cap[a]), cap[a])
            to[k, a] = min(max(cosine[k, a] + step, low[a]), high[a])
        lag[k] += min(max(move[4 * k + 2], -cap[2]), cap[2])
        turn[k] += min(max(move[4 * k + 3], -cap[3]), cap[3])
    return to, lag, turn, promise


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def rest(wave: Any, weight: Any, rows: int) -> Any:  # pragma: no cover - compiled
    frames, size = wave.shape[1], wave.shape[3]
    out = np.empty((rows, frames, size), np.complex64)
    re, im = np.empty(size, wave.dtype), np.empty(size, wave.dtype)
    for r in range(rows):
        for f in range(frames):
            re[:] = wave[r, f, 0]
            im[:] = wave[r, f, 1]
            for w in range(len(weight)):
                a, b = weight[w, r].real, weight[w, r].imag
                if a != 0 or b != 0:
                    for q in range(size):
                        x, y = wave[rows + w, f, 0, q], wave[rows + w, f, 1, q]
                        re[q] -= a * x - b * y
                        im[q] -= a * y + b * x
            for q in range(size):
                out[r, f, q] = complex(re[q], im[q])
    return out


@njit(cache=True, error_model="numpy")
def unleaked(gram: Any, rows: int, streams: int) -> Any:  # pragma: no cover - compiled
    onto = gram[rows : rows + streams, :rows].copy()
    answer = np.linalg.solve(gram[rows : rows + streams, rows : rows + streams].copy(), onto)
    return np.sum(np.diag(gram[:rows, :rows]).real) - np.sum((onto.conj() * answer).real)


@njit(cache=True, error_model="numpy")
def presence(gram: Any, rows: int, streams: int, targets: int) -> Any:  # pragma: no cover - compiled
    out = np.empty(targets)
    for k in range(targets):
        known = np.empty(streams * targets, np.int64)
        count = 0
        for s in range(streams):
            known[count] = rows + s
            count += 1
        for m in range(targets):
            for s in range(streams if m != k else 0):
                known[count] = rows + streams + 3 * (streams * m + s)
                count += 1
        own = rows + streams + 3 * (streams * k + np.arange(streams))
        base = np.empty((count, count), np.complex128)
        onto = np.empty((streams, count), np.complex128)
        heard = np.empty((count, rows), np.complex128)
        level = np.empty((streams, streams), np.complex128)
        seen = np.empty((streams, rows), np.complex128)
        for i in range(count):
            for j in range(count):
                base[i, j] = gram[known[i], known[j]]
            for r in range(rows):
                heard[i, r] = gram[known[i], r]
            for s in range(streams):
                onto[s, i] = gram[own[s], known[i]]
        for s in range(streams):
            for t in range(streams):
                level[s, t] = gram[own[s], own[t]]
            for r in range(rows):
                seen[s, r] = gram[own[s], r]
        through = onto @ np.linalg.inv(base)
        level -= through @ onto.conj().T
        seen -= through @ heard
        answer = np.linalg.solve(level, seen)
        out[k] = np.sum((seen.conj() * answer).real)
    return out


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def inner(wave: Any, begin: int, end: int, used: int, gram: Any) -> None:  # pragma: no cover - compiled
    # conj(wave[begin:end]) . wave[:used], and its transpose
    frames, size = wave.shape[1], wave.shape[3]
    for i in range(begin, end):
        for r in range(used):
            if begin <= r < i:
                continue
            total = 0j
            for f in range(frames):
                a, d = wave[i, f], wave[r, f]
                re, im = wave.dtype.type(0), wave.dtype.type(0)
                for q in range(size):
                    re += a[0, q] * d[0, q] + a[1, q] * d[1, q]
                    im += a[0, q] * d[1, q] - a[1, q] * d[0, q]
                total += complex(re, im)
            gram[i, r] = total
            gram[r, i] = total.conjugate()


@njit(cache=True, error_model="numpy")
def tangents(gram: Any, b: Any, c: Any, rows: int) -> Any:  # pragma: no cover - compiled
    # Gram matrix of the tangents uy, uz, l, nu (of unit amplitude) and level of each target, and their inner products with the data, both off the known
    # waves. A tangent is a sum of products (row pattern) x (wave): uy of b_y x c T and b x c_y T, and so on.
    targets, streams = b.shape[0], c.shape[2]
    first = rows + streams
    inverse = np.linalg.inv(gram[rows:first, rows:first].copy())
    waves = 5 * targets
    heard = np.zeros((waves, rows), np.complex128)
    onto = np.zeros((waves, streams), np.complex128)
    between = np.zeros((waves, waves), np.complex128)
    which = np.array([0, 0, 0, 1, 2])  # T, T, T, its slope in delay, its slope in Doppler
    weight = np.array([0, 1, 2, 0, 0])  # by c, c_y, c_z, c, c
    for k in range(targets):
        for w in range(5):
            for i in range(streams):
                g = c[k, weight[w], i].conjugate()
                at = first + 3 * (streams * k + i) + which[w]
                for r in range(rows):
                    heard[5 * k + w, r] += g * gram[at, r]
                for s in range(streams):
                    onto[5 * k + w, s] += g * gram[at, rows + s]
                for m in range(targets):
                    for v in range(5):
                        for j in range(streams):
                            to = first + 3 * (streams * m + j) + which[v]
                            between[5 * k + w, 5 * m + v] += g * gram[at, to] * c[m, weight[v], j]
    for p in range(waves):
        for s in range(streams):
            share = 0j
            for t in range(streams):
                share += onto[p, t] * inverse[t, s]
            for r in range(rows):
                heard[p, r] -= share * gram[rows + s, r]
            for q in range(waves):
                between[p, q] -= share * onto[q, s].conjugate()
    part = np.zeros((targets, 3, targets, 3), np.complex128)
    for k in range(targets):
        for x in range(3):
            for m in range(targets):
                for y in range(3):
                    for r in range(rows):
                        part[k, x, m, y] += b[k, x, r].conjugate() * b[m, y, r]
    row = np.array([[1, 0], [2, 0], [0, -1], [0, -1], [0, -1]])
    own = np.array([[0, 1], [0, 2], [3, -1], [4, -1], [0, -1]])
    normal = np.zeros((waves, waves), np.complex128)
    data = np.zeros(waves, np.complex128)
    for k in range(targets):
        for p in range(5):
            for s in range(2):
                if row[p, s] < 0:
                    continue
                for r in range(rows):
                    data[5 * k + p] += b[k, row[p, s], r].conjugate() * heard[5 * k + own[p, s], r]
                for m in range(targets):
                    for q in range(5):
                        for t in range(2):
                            if row[q, t] >= 0:
                                normal[5 * k + p, 5 * m + q] += (
                                    part[k, row[p, s], m, row[q, t]] * between[5 * k + own[p, s], 5 * m + own[q, t]]
                                )
    return normal, data


@njit(cache=True, error_model="numpy")
def normal(gram: Any, b: Any, c: Any, prior: Any, off: Any) -> Any:  # pragma: no cover - compiled
    # explained energy, amplitudes, Gauss-Newton metric and slope of all (uy, uz, l, nu), and each target's own energy
    targets, rows = b.shape[0], b.shape[2]
    normal, data = tangents(gram, b, c, rows)
    level = np.empty((targets, targets), np.complex128)
    heard = np.empty(targets, np.complex128)
    for k in range(targets):
        heard[k] = data[5 * k + 4]
        for m in range(targets):
            level[k, m] = normal[5 * k + 4, 5 * m + 4]
    inverse = np.linalg.inv(level)
    amplitude = inverse @ heard
    said = 0.0
    for k in range(targets):
        said += (heard[k].conjugate() * amplitude[k]).real
    size = 4 * targets
    onto = np.empty((size, targets), np.complex128)
    for p in range(size):
        for m in range(targets):
            onto[p, m] = normal[5 * (p // 4) + p % 4, 5 * m + 4]
    through = onto @ inverse
    metric = np.empty((size, size))
    slope = np.empty(size)
    for p in range(size):
        k, a = p // 4, p % 4
        left = data[5 * k + a]
        for m in range(targets):
            left -= onto[p, m] * amplitude[m]
        slope[p] = (amplitude[k].conjugate() * left).real
        for q in range(size):
            n, o = q // 4, q % 4
            value = normal[5 * k + a, 5 * n + o]
            for m in range(targets):
                value -= through[p, m] * onto[q, m].conjugate()
            metric[p, q] = (amplitude[k].conjugate() * value * amplitude[n]).real
        if a < 2:
            metric[p, p] += prior[a]
            slope[p] -= prior[a] * off[k, a]
    power = np.empty(targets)
    for k in range(targets):
        power[k] = (amplitude[k].real ** 2 + amplitude[k].imag ** 2) * level[k, k].real
    return said, amplitude, metric, slope, power
