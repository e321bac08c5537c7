"""Eigenvalues of small Hermitian matrices, compiled: a handful of chains, once for every beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.record import Array, Complex, Float

__all__ = ["eigen", "eigens", "roots"]


@njit(cache=True, error_model="numpy")
def eigen(matrix: Any) -> Any:  # pragma: no cover - compiled
    """Eigenvalues, ascending, and eigenvectors (columns) of one Hermitian ``matrix`` by Jacobi's rotations: a dozen rows at most."""
    n = len(matrix)
    a, v = matrix.copy(), np.zeros((n, n), np.complex128)
    total = 0.0
    for i in range(n):
        v[i, i] = 1.0
        for j in range(n):
            total += a[i, j].real ** 2 + a[i, j].imag ** 2
    for _ in range(40):
        off = 0.0
        for i in range(n):
            for j in range(i + 1, n):
                off += a[i, j].real ** 2 + a[i, j].imag ** 2
        if not off > 1e-32 * total:
            break
        for p in range(n):
            for q in range(p + 1, n):
                size = np.sqrt(a[p, q].real ** 2 + a[p, q].imag ** 2)
                if not size > 1e-300:
                    continue
                turn = a[p, q] / size  # makes the pair real: a[p, q] = size * turn
                lean = (a[q, q].real - a[p, p].real) / (2 * size)
                t = (1.0 if lean >= 0 else -1.0) / (abs(lean) + np.sqrt(1 + lean * lean))
                c = 1 / np.sqrt(1 + t * t)
                s = t * c
                for k in range(n):
                    x, y = a[k, p], a[k, q] * turn.conjugate()
                    a[k, p], a[k, q] = c * x - s * y, s * x + c * y
                    x, y = v[k, p], v[k, q] * turn.conjugate()
                    v[k, p], v[k, q] = c * x - s * y, s * x + c * y
                for k in range(n):
                    x, y = a[p, k], a[q, k] * turn
                    a[p, k], a[q, k] = c * x - s * y, s * x + c * y
    values = np.empty(n)
    for i in range(n):
        values[i] = a[i, i].real
    order = np.argsort(values)
    return values[order], v[:, order]


@njit(cache=True, error_model="numpy")
def _roots(matrices: Any, least: float, inverse: bool) -> Any:  # pragma: no cover - compiled
    out = np.zeros_like(matrices)
    n = matrices.shape[1]
    for k in range(len(matrices)):
        values, vectors = eigen(matrices[k])
        for e in range(n):
            root = np.sqrt(max(values[e], least))
            weight = 1 / root if inverse else root
            for i in range(n):
                for j in range(n):
                    out[k, i, j] += weight * vectors[i, e] * vectors[j, e].conjugate()
    return out


@njit(cache=True, error_model="numpy")
def _eigens(matrices: Any) -> Any:  # pragma: no cover - compiled
    values, vectors = np.empty(matrices.shape[:2]), np.empty_like(matrices)
    for k in range(len(matrices)):
        values[k], vectors[k] = eigen(matrices[k])
    return values, vectors


def eigens(
    matrices: Complex[Array, "*batch row row"],
) -> tuple[Float[Array, "*batch row"], Complex[Array, "*batch row row"]]:
    """``eigen`` of every matrix: the same whichever others are asked for with it."""
    flat = np.ascontiguousarray(matrices, dtype=np.complex128).reshape(-1, *matrices.shape[-2:])
    values, vectors = _eigens(flat)
    return values.reshape(matrices.shape[:-1]), vectors.reshape(matrices.shape)


def roots(
    matrices: Complex[Array, "*batch row row"], least: float = 0.0, inverse: bool = False
) -> Complex[Array, "*batch row row"]:
    """Symmetric roots of Hermitian matrices, or their inverses; eigenvalues below ``least`` count as that."""
    flat = np.ascontiguousarray(matrices, dtype=np.complex128).reshape(-1, *matrices.shape[-2:])
    return np.asarray(_roots(flat, least, inverse)).reshape(matrices.shape)
