"""Movers at constant velocity, and what an array sees of them, compiled: all of them in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["carry", "even", "expect"]


@njit(cache=True, error_model="numpy")
def carry(state: Any, covariance: Any, step_s: float, density: Any) -> None:  # pragma: no cover - compiled
    """States and covariances ``step_s`` later at constant velocity, in place; white accelerations of ``density`` on each axis."""
    for n in range(len(state)):
        x, p = state[n], covariance[n]
        for i in range(3):
            x[i] += step_s * x[i + 3]
            for j in range(6):
                p[i, j] += step_s * p[i + 3, j]
        for i in range(6):
            for j in range(3):
                p[i, j] += step_s * p[i, j + 3]
        even(p)
        for i in range(3):
            p[i, i] += density[i] * step_s**3 / 3
            p[i, i + 3] += density[i] * step_s**2 / 2
            p[i + 3, i] += density[i] * step_s**2 / 2
            p[i + 3, i + 3] += density[i] * step_s


@njit(cache=True, error_model="numpy")
def expect(
    state: Any, covariance: Any, rotation: Any, receive_m: Any, transmit_m: Any
) -> Any:  # pragma: no cover - compiled
    """See ``twin.tracking.ekf.measure``: ``expected[track 4]``, ``slope[track 4 6]``, ``ux[track]``, and the spread ``slope P slope^T`` of the first."""
    count = len(state)
    expected, slope, ux = np.zeros((count, 4)), np.zeros((count, 4, 6)), np.empty(count)
    spread = np.empty((count, 4, 4))
    unit = np.empty((2, 3))
    for n in range(count):
        x, h = state[n], slope[n]
        distance_m = 0.0
        for half in range(2):  # the receive half last: its distance is used again
            origin_m = receive_m if half else transmit_m
            distance_m = 0.0
            for i in range(3):
                unit[half, i] = x[i] - origin_m[i]
                distance_m += unit[half, i] ** 2
            distance_m = max(np.sqrt(distance_m), 1e-3)
            along = 0.0
            for i in range(3):
                unit[half, i] /= distance_m
                along += unit[half, i] * x[i + 3]
            expected[n, 2] += distance_m / 2
            expected[n, 3] -= along / 2
            for i in range(3):
                h[2, i] += unit[half, i] / 2
                h[3, i + 3] -= unit[half, i] / 2
                h[3, i] -= (x[i + 3] - along * unit[half, i]) / (2 * distance_m)
        towards = unit[1] @ np.ascontiguousarray(rotation)  # components along the array's axes
        ux[n] = towards[0]
        for axis in range(2):
            expected[n, axis] = towards[axis + 1]
            for i in range(3):
                h[axis, i] = (rotation[i, axis + 1] - towards[axis + 1] * unit[1, i]) / distance_m
        spread[n] = h @ np.ascontiguousarray(covariance[n]) @ h.T
    return expected, slope, ux, spread


@njit(cache=True)
def even(matrix: Any) -> None:  # pragma: no cover - compiled
    """A matrix as the mean of itself and its transpose, in place."""
    for i in range(len(matrix)):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = (matrix[i, j] + matrix[j, i]) / 2
