"""The tracker's small matrices, compiled: every track of a dwell in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from twin.physics.motion import even

__all__ = ["compare", "correct", "gains_db", "images"]


@njit(cache=True, error_model="numpy")
def compare(value: Any, noise: Any, expected: Any, spread: Any) -> Any:  # pragma: no cover - compiled
    """Of every pair (track, detection): ``d^T S^-1 d``, ``ln det S``, and the first of range and speed alone; S the sum of both covariances."""
    shape = len(expected), len(value)
    whole, size, late = np.empty(shape), np.empty(shape), np.empty(shape)
    for t in range(len(expected)):
        for d in range(len(value)):
            total, gap = spread[t] + noise[d], value[d] - expected[t]
            determinant = total[2, 2] * total[3, 3] - total[2, 3] * total[3, 2]
            late[t, d] = (
                gap[2] ** 2 * total[3, 3] - gap[2] * gap[3] * (total[2, 3] + total[3, 2]) + gap[3] ** 2 * total[2, 2]
            ) / determinant
            _factor(total)
            whole[t, d], size[t, d] = 0.0, 0.0
            for i in range(4):
                for k in range(i):
                    gap[i] -= total[i, k] * gap[k]
                gap[i] /= total[i, i]
                whole[t, d] += gap[i] ** 2
                size[t, d] += 2 * np.log(total[i, i])
    return whole, size, late


@njit(cache=True, error_model="numpy")
def correct(
    state: Any, covariance: Any, track: Any, innovation: Any, slope: Any, noise: Any
) -> None:  # pragma: no cover - compiled
    """Kalman update of the tracks ``track`` in place; ``(I - K H) P (I - K H)^T + K R K^T`` stays symmetric and positive whatever the rounding of K."""
    for n in range(len(track)):
        x, p = state[track[n]], np.ascontiguousarray(covariance[track[n]])
        h, r = np.ascontiguousarray(slope[n]), np.ascontiguousarray(noise[n])
        gain = h @ p  # becomes S^-1 H P, the gain's transpose
        total = gain @ h.T + r
        _factor(total)
        for j in range(6):
            for i in range(len(h)):
                for k in range(i):
                    gain[i, j] -= total[i, k] * gain[k, j]
                gain[i, j] /= total[i, i]
            for i in range(len(h) - 1, -1, -1):
                for k in range(i + 1, len(h)):
                    gain[i, j] -= total[k, i] * gain[k, j]
                gain[i, j] /= total[i, i]
        left = np.eye(6) - gain.T @ h
        x += np.ascontiguousarray(innovation[n]) @ gain
        covariance[track[n]] = left @ p @ left.T + gain.T @ r @ gain
        even(covariance[track[n]])


@njit(cache=True, error_model="numpy")
def gains_db(out: Any, back: Any, sent: Any, heard: Any, together: bool) -> Any:  # pragma: no cover - compiled
    """Two-way power gain (dB) of chain outputs ``[item chain]``, all receive chains together (-300 for none), and that of the best over perfect pointing.

    ``sent``, ``heard``: elements of each chain, at most which a chain of unit-norm weights gains. ``together``: one stream leaves by all transmit chains
    in equal shares; else the best stands for all.
    """
    gain_db, pointed_db = np.empty(len(out)), np.empty(len(out))
    for n in range(len(out)):
        power, share, field = 0.0, 0.0, 0j
        for c in range(out.shape[1]):
            size = out[n, c].real ** 2 + out[n, c].imag ** 2
            power, share = max(power, size), max(share, size / sent[c])
            field += out[n, c]
        if together:
            power = (field.real**2 + field.imag**2) / len(sent)
            share = power / sent.sum()
        whole, best = 0.0, 0.0
        for c in range(back.shape[1]):
            size = back[n, c].real ** 2 + back[n, c].imag ** 2
            whole, best = whole + size, max(best, size / heard[c])
        gain_db[n], pointed_db[n] = 10 * np.log10(max(power * whole, 1e-30)), 10 * np.log10(share * best)
    return gain_db, pointed_db


@njit(cache=True, error_model="numpy")
def images(
    late: Any,
    gate: float,
    above_db: Any,
    within_db: float,
    value: Any,
    expected: Any,
    width: Any,
    back: Any,
    likeness: float,
    origin: Any,
) -> Any:  # pragma: no cover - compiled
    """Which detections look like the echo, through this dwell's beams, of a track that ``origin[track detection]`` allows.

    ``late``: distance in range and speed; ``above_db``: of a detection's strength over what the track would bring; ``back``: receive chains'
    outputs towards detections and then tracks. What is nearer than a beamwidth is the mover itself, or its neighbour.
    """
    tracks, detections = late.shape
    image = np.zeros(detections, np.bool_)
    for t in range(tracks):
        for d in range(detections):
            if not (origin[t, d] and late[t, d] <= gate and abs(above_db[t, d]) <= within_db):
                continue
            if not (abs(value[d, 0] - expected[t, 0]) > width[0] or abs(value[d, 1] - expected[t, 1]) > width[1]):
                continue
            both, one, other = 0j, 0.0, 0.0
            for c in range(back.shape[1]):
                a, b = back[d, c], back[detections + t, c]
                both += a.conjugate() * b
                one += a.real**2 + a.imag**2
                other += b.real**2 + b.imag**2
            # 1 for outputs that differ by a factor only
            image[d] |= both.real**2 + both.imag**2 >= likeness * max(one * other, 1e-30)
    return image


@njit(cache=True)
def _factor(matrix: Any) -> None:  # pragma: no cover - compiled
    # Cholesky: the lower triangle becomes L, matrix = L L^T
    for i in range(len(matrix)):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(rest) if i == j else rest / matrix[j, j]
