"""Echoes of known blocks, compiled: a block's part of the normal equations of all targets, and its part of a search over range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["scan", "terms"]

_ALONG = 1e-5  # of a column's size, off those before it, below which it has no amplitude of its own


@njit(cache=True, error_model="numpy")
def _basis(columns: Any, upper: Any) -> Any:  # pragma: no cover - compiled
    """Orthonormal rows that span ``columns`` (Gram-Schmidt, twice), ``columns[i] = sum_j upper[j, i] basis[j]``; zero where one depends on those before."""
    count, size = columns.shape
    basis = np.zeros((count, size), np.complex128)
    row = np.empty(size, np.complex128)
    for i in range(count):
        whole = 0.0
        for q in range(size):
            row[q] = columns[i, q]
            whole += row[q].real ** 2 + row[q].imag ** 2
        for _ in range(2):
            for j in range(i):
                inner = 0j
                for q in range(size):
                    inner += basis[j, q].conjugate() * row[q]
                for q in range(size):
                    row[q] -= inner * basis[j, q]
                upper[j, i] += inner
        left = 0.0
        for q in range(size):
            left += row[q].real ** 2 + row[q].imag ** 2
        if left > _ALONG**2 * whole:
            upper[i, i] = np.sqrt(left)
            for q in range(size):
                basis[i, q] = row[q] / np.sqrt(left)
    return basis


@njit(cache=True, error_model="numpy")
def terms(
    sent: Any,
    got: Any,
    root_w: Any,
    wave: Any,
    range_m: Any,
    after_s: float,
    leak: Any,
    samples: Any,
    noise_w: float,
    total: Any,
    pull: Any,
    straight: Any,
    snr: Any,
) -> float:  # pragma: no cover - compiled
    """One block's part of Gauss-Newton over all targets' places with amplitudes that fit best, added to the sums; the power that is left.

    ``total`` [4 targets, 4 targets], ``pull``, ``straight`` (information if nothing else were unknown), ``snr``: as in ``block_echoes``.
    """
    targets, subcarriers, rows, leaks = len(sent), sent.shape[2], got.shape[3], len(leak)
    size, count = subcarriers * rows, leaks + len(sent)
    columns = np.empty((count, size), np.complex128)
    slope = np.empty((4 * targets, size), np.complex128)
    columns[:leaks] = leak
    for k in range(targets):
        for m in range(subcarriers):
            ramp = root_w[m] * complex(np.cos(wave[m] * range_m[k]), np.sin(wave[m] * range_m[k]))
            s, sy, sz = sent[k, 0, m] * ramp, sent[k, 1, m] * ramp, sent[k, 2, m] * ramp
            for r in range(rows):
                q, g = m * rows + r, got[k, 0, m, r]
                whole = s * g
                columns[leaks + k, q] = whole
                slope[4 * k, q] = sy * g + s * got[k, 1, m, r]
                slope[4 * k + 1, q] = sz * g + s * got[k, 2, m, r]
                slope[4 * k + 2, q] = 1j * wave[m] * whole
                slope[4 * k + 3, q] = -after_s * 1j * wave[m] * whole
    upper = np.zeros((count, count), np.complex128)
    basis = _basis(columns, upper)
    rest, met = samples.copy(), np.zeros(count, np.complex128)
    for i in range(count):
        for q in range(size):
            met[i] += basis[i, q].conjugate() * samples[q]
    for i in range(count):
        for q in range(size):
            rest[q] -= met[i] * basis[i, q]
    back = np.zeros((count, count), np.complex128)  # of ``upper``, its inverse
    for c in range(count):
        if upper[c, c] == 0:
            continue
        back[c, c] = 1 / upper[c, c]
        for i in range(c - 1, -1, -1):
            if upper[i, i] == 0:
                continue
            inner = 0j
            for j in range(i + 1, c + 1):
                inner += upper[i, j] * back[j, c]
            back[i, c] = -inner / upper[i, i]
    for k in range(targets):
        alpha, spread = 0j, 0.0
        for c in range(leaks + k, count):
            alpha += back[leaks + k, c] * met[c]
            spread += back[leaks + k, c].real ** 2 + back[leaks + k, c].imag ** 2
        power = alpha.real**2 + alpha.imag**2
        snr[k] += power / (noise_w * spread) if spread > 0 else 0.0
        for j in range(4 * k, 4 * k + 4):
            own = 0.0
            for q in range(size):
                own += slope[j, q].real ** 2 + slope[j, q].imag ** 2
            straight[j] += 2 / noise_w * power * own
            for i in range(count):
                inner = 0j
                for q in range(size):
                    inner += basis[i, q].conjugate() * slope[j, q]
                for q in range(size):
                    slope[j, q] -= inner * basis[i, q]
            for q in range(size):
                slope[j, q] *= alpha
    for a in range(4 * targets):
        inner = 0.0
        for q in range(size):
            inner += slope[a, q].real * rest[q].real + slope[a, q].imag * rest[q].imag
        pull[a] += 2 / noise_w * inner
        for b in range(a, 4 * targets):
            inner = 0.0
            for q in range(size):
                inner += slope[a, q].real * slope[b, q].real + slope[a, q].imag * slope[b, q].imag
            total[a, b] += 2 / noise_w * inner
            if b > a:
                total[b, a] = total[a, b]
    left = 0.0
    for q in range(size):
        left += rest[q].real ** 2 + rest[q].imag ** 2
    return left


@njit(cache=True, error_model="numpy")
def scan(
    whole: Any, wave: Any, offset_m: Any, beside: Any, samples: Any, noise_w: float, power: Any
) -> None:  # pragma: no cover - compiled
    """Adds what one target explains of a block's samples at each offset of its range, beside columns with amplitudes of their own, over the noise."""
    count, subcarriers = len(beside), len(wave)
    rows = len(whole) // subcarriers
    basis = _basis(beside, np.zeros((count, count), np.complex128))
    rest = samples.copy()
    for i in range(count):
        inner = 0j
        for q in range(len(rest)):
            inner += basis[i, q].conjugate() * samples[q]
        for q in range(len(rest)):
            rest[q] -= inner * basis[i, q]
    met = np.zeros(
        (count + 1, subcarriers), np.complex128
    )  # the rest and the basis against the target, subcarrier by subcarrier
    size = 0.0
    for m in range(subcarriers):
        for q in range(m * rows, (m + 1) * rows):
            size += whole[q].real ** 2 + whole[q].imag ** 2
            met[count, m] += rest[q].conjugate() * whole[q]
            for i in range(count):
                met[i, m] += basis[i, q].conjugate() * whole[q]
    if not size > 0:
        return
    ramp = np.empty(subcarriers, np.complex128)
    for g in range(len(offset_m)):
        for m in range(subcarriers):
            ramp[m] = complex(np.cos(wave[m] * offset_m[g]), np.sin(wave[m] * offset_m[g]))
        free, explained = size, 0.0
        for i in range(count + 1):
            inner = 0j
            for m in range(subcarriers):
                inner += met[i, m] * ramp[m]
            share = inner.real**2 + inner.imag**2
            if i < count:
                free -= share
            else:
                explained = share
        power[g] += explained / (max(free, 1e-6 * size) * noise_w)
