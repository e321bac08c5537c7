"""Jacobi's rotations against LAPACK, and roots against their squares."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hal.hermitian import eigen, eigens, roots


def hermitian(seed: int, size: int, rank: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    part = rng.standard_normal((size, rank)) + 1j * rng.standard_normal((size, rank))
    return part @ part.conj().T


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_eigenvalues_are_lapacks_and_vectors_rebuild_the_matrix(seed: int, size: int, rank: int) -> None:
    matrix = hermitian(seed, size, rank)
    values, vectors = eigen(matrix)
    scale = np.linalg.norm(matrix)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-12 * scale)
    np.testing.assert_allclose((vectors * values) @ vectors.conj().T, matrix, atol=1e-12 * scale)
    np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(size), atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_roots_square_to_the_matrix_also_where_it_is_singular(seed: int) -> None:
    matrices = np.stack([hermitian(seed, 4, rank) for rank in (1, 2, 4)])
    root = roots(matrices)
    np.testing.assert_allclose(root @ root, matrices, atol=1e-10 * np.linalg.norm(matrices))
    inverse = roots(matrices[2:], inverse=True)
    np.testing.assert_allclose(
        inverse @ matrices[2:] @ inverse, np.eye(4)[None], atol=1e-12 * np.linalg.cond(matrices[2])
    )
    np.testing.assert_allclose(np.linalg.eigvalsh(roots(matrices[:1], least=0.25))[0][:3], 0.5, atol=1e-9)


def test_a_matrix_gives_the_same_bits_alone_and_among_others() -> None:
    matrices = np.stack([hermitian(seed, 4, 4) for seed in range(6)])
    values, vectors = eigens(matrices)
    for k, matrix in enumerate(matrices):
        alone = eigen(matrix)
        np.testing.assert_array_equal(alone[0], values[k])
        np.testing.assert_array_equal(alone[1], vectors[k])


def test_zero_and_diagonal() -> None:
    values, vectors = eigen(np.zeros((3, 3), np.complex128))
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(np.abs(vectors), np.eye(3))
    values, _ = eigen(np.diag([3.0, 1.0, 2.0]).astype(np.complex128))
    np.testing.assert_array_equal(values, [1, 2, 3])
