"""Patterns by nodes and recurrences against the plain product of steering vectors and responses."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, steering, steering_gradient
from hal.planar import nodes_of, patterns_at, planar_gains

CARRIER_HZ = 100e9
FREQUENCY_HZ = CARRIER_HZ + 0.25e9 * (np.arange(32) - 15.5)
ARRAY = Upa(16, 12).build(CARRIER_HZ, np.zeros(3), np.eye(3))
RNG = np.random.default_rng(1)


def directions(count: int) -> np.ndarray:
    cosine = RNG.uniform(-0.65, 0.65, (count, 2))
    return np.column_stack([np.sqrt(1 - np.sum(cosine**2, axis=1)), cosine])


def rows(count: int, frequencies: int, chains: int) -> np.ndarray:
    shape = (count, frequencies, 16 * 12, chains)
    return np.exp(1j * RNG.uniform(0, 2 * np.pi, shape)) / np.sqrt(shape[2])


def grid(flat: bool) -> tuple:
    at = nodes_of(ARRAY, FREQUENCY_HZ, flat)
    return at.wave, at.spread, at.column_m, at.row_m, at.columns, at.rows


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("chains", [1, 4])
def test_gains_are_the_plain_product(flat: bool, chains: int) -> None:
    held, u = rows(3, 1 if flat else 32, chains), directions(5)
    wanted = np.ones((3, 5), dtype=np.bool_)
    wanted[1, 2] = False
    out = planar_gains(7.0 * u, 1.5, 2.0, *grid(flat), held, wanted)
    a = steering(ARRAY, u[:, None], FREQUENCY_HZ)
    expected = np.einsum("p,pmn,rmnc->rpmc", 1.5 * u[:, 0], a, np.broadcast_to(held, (3, 32, 192, chains)))
    expected[1, 2] = 0
    np.testing.assert_allclose(out, expected, atol=1e-10 * np.abs(expected).max())


def test_flat_rows_need_fewer_frequencies_than_there_are_subcarriers() -> None:
    assert len(nodes_of(ARRAY, FREQUENCY_HZ, True).wave) < 16
    assert len(nodes_of(ARRAY, FREQUENCY_HZ, False).wave) == 32
    assert len(nodes_of(ARRAY, FREQUENCY_HZ[:3], True).wave) == 3  # never more than there are


def test_slopes_are_the_gradient() -> None:
    held, u = rows(2, 1, 4), directions(3)
    ear, out = np.array([1, -1, 0]), np.zeros((3, 3, 32, 4), np.complex128)
    flat = held.reshape(2, 1, -1)
    patterns_at(flat.real.copy(), flat.imag.copy(), *grid(True), ear, np.ascontiguousarray(u[:, 1:]), out)
    for one in (0, 2):
        a = steering(ARRAY, u[one][None], FREQUENCY_HZ)
        plain = np.stack([a, *steering_gradient(ARRAY, u[one][None], FREQUENCY_HZ)]) @ held[ear[one], 0]
        np.testing.assert_allclose(out[:, one], plain, atol=1e-9 * np.abs(plain).max())
    assert not np.any(out[:, 1])


def test_a_point_at_the_phase_centre_gives_nothing() -> None:
    nowhere = np.zeros((1, 3))
    assert planar_gains(nowhere, 1.0, 0.0, *grid(True), rows(1, 1, 1), np.ones((1, 1), np.bool_)).size == 0


@pytest.mark.parametrize(("columns", "rows_"), [(5, 3), (1, 4), (6, 1)])
def test_any_count_of_columns_pairs_up(columns: int, rows_: int) -> None:
    """An odd grid has a column in its middle that is nobody's pair."""
    array = Upa(columns, rows_).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    at, u = nodes_of(array, FREQUENCY_HZ, False), directions(3)
    held = np.exp(1j * RNG.uniform(0, 2 * np.pi, (2, 32, columns * rows_, 2)))
    geometry = at.wave, at.spread, at.column_m, at.row_m, at.columns, at.rows
    out = planar_gains(4.0 * u, 1.0, 0.0, *geometry, held, np.ones((2, 3), dtype=np.bool_))
    expected = np.einsum("pmn,rmnc->rpmc", steering(array, u[:, None], FREQUENCY_HZ), held)
    np.testing.assert_allclose(out, expected, atol=1e-11 * np.abs(expected).max())
