"""The incremental search over delays, against the search that transforms everything anew for every candidate."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import steering
from twin.compare_precoders import Setup, draw, row_of
from twin.precoding._scene import delay_grid
from twin.precoding._search import Search, delay_divergence

SMALL = Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=6, msia_rad=0.3)


def dense_divergence(row, delay_s, grid):
    """Eqs (14)-(16) with the dictionary's matrices written out."""
    w = [2 * np.pi * np.arange(g) / g for g in grid]
    column, up = np.divmod(np.arange(len(row.line)), row.array.rows)
    d = (
        np.exp(1j * (w[0][:, None, None] * column + w[1][None, :, None] * up)).reshape(-1, len(column)).T
        / len(column) ** 0.5
    )
    user, echo = np.zeros(d.shape[1]), np.zeros(d.shape[1])
    for m, f in enumerate(row.frequency_hz):
        ramp = np.exp(-2j * np.pi * f * delay_s[row.line])
        user += np.abs(d.conj().T @ (row.user_row[m] * ramp))
        g = np.zeros((len(column), len(column)), complex)
        for k, u in enumerate(row.target_direction):
            a = steering(row.receive, u, f)
            there = a if row.convention == "printed" else a.conj()
            g += row.target_gain[k, m] * np.outer(a, there * ramp.conj())
        echo += np.abs(np.diag(d.conj().T @ g @ d))
    p, q = user / user.sum(), echo / echo.sum()
    return np.sum(p * np.log(p / q))


def naive(row, delay_s, level_s, grid, passes, divergence):
    delay_s = delay_s.copy()
    for _ in range(passes):
        before = delay_s.copy()
        for q in range(row.lines):
            found = []
            for level in level_s:
                delay_s[q] = level
                found.append(divergence(row, delay_s, grid))
            delay_s[q] = level_s[int(np.argmin(found))]
        if np.array_equal(before, delay_s):
            break
    return delay_s


@pytest.mark.parametrize("convention", ["consistent", "printed"])
@pytest.mark.parametrize("seed", range(2))
def test_the_choices_of_the_dense_search(seed, convention):
    row = row_of(draw(seed, SMALL), convention=convention)
    level_s = delay_grid(row.network)
    start = level_s[np.random.default_rng(seed).integers(16, size=4)]
    found, tried = Search(row, (8, 8)).run(start, level_s, 2)
    np.testing.assert_array_equal(found, naive(row, start, level_s, (8, 8), 2, dense_divergence))
    assert 4 <= tried <= 8


@pytest.mark.parametrize("shape", [((6, 4), (3, 2)), ((4, 4), (4, 4)), ((8, 2), (2, 1))])
def test_other_wirings_and_dictionaries_against_transforms(shape):
    (columns, rows), lines = shape
    row = row_of(
        draw(5, Setup(columns=columns, rows=rows, delay_lines=lines, subcarriers=4, msia_rad=0.3, delay_bits=3))
    )
    level_s = delay_grid(row.network)
    start = level_s[np.random.default_rng(1).integers(8, size=row.lines)]
    found, _ = Search(row, (12, 9), precision="double").run(start, level_s, 2)
    np.testing.assert_array_equal(found, naive(row, start, level_s, (12, 9), 2, delay_divergence))
    assert dense_divergence(row, found, (12, 9)) == pytest.approx(delay_divergence(row, found, (12, 9)), rel=1e-10)


def test_a_pass_never_raises_the_divergence_and_ends_when_still():
    row = row_of(draw(3, SMALL))
    level_s = delay_grid(row.network)
    delay_s = np.zeros(4)
    before = delay_divergence(row, delay_s, (16, 16))
    for _ in range(6):
        delay_s, _ = Search(row, (16, 16)).run(delay_s, level_s, 1)
        after = delay_divergence(row, delay_s, (16, 16))
        assert after <= before * (1 + 1e-6)
        before = after
    again, tried = Search(row, (16, 16)).run(delay_s, level_s, 9)
    np.testing.assert_array_equal(again, delay_s)
    assert tried == 4


def test_a_bounded_step_touches_only_its_lines():
    row = row_of(draw(3, Setup(columns=8, rows=8, delay_lines=(4, 4), subcarriers=4)))
    level_s = delay_grid(row.network)
    start = level_s[np.random.default_rng(0).integers(16, size=16)]
    found, tried = Search(row, (16, 16)).run(start, level_s, 1, first=14, count=4)
    assert tried == 4
    np.testing.assert_array_equal(found[2:14], start[2:14])
    assert np.any(found != start)
    guarded, _ = Search(row, (16, 16), guard=1e-4).run(start, level_s, 1)
    free, _ = Search(row, (16, 16)).run(start, level_s, 1)
    assert np.any(guarded != free)
