"""The channel of whole frames against dense matrices, pulses laid one by one, Kronecker products, and the laws of an adjoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.physics.delay_doppler import echo_operator, raised_cosine, root_spectrum
from twin.physics.doubly_selective import adjoint, hybrid, passage, through
from twin.physics.pulses import pulse_level_echo, pulse_train, root_raised_cosine
from twin.physics.zak import grid_passage, through_grid
from twin.waveforms.oddm import Oddm

TABLE_I = (10.2471, 5.5594 / 1024, 0.1)  # papers/001: delay in samples, Doppler in cycles a sample, roll-off


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def miss_db(got: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.abs(got - truth) ** 2) / np.sum(np.abs(truth) ** 2)))


def dense(size: int, delay: float, doppler: float, b: float) -> np.ndarray:
    """``exp(-j 2 pi nu l) D^nu G(l)`` of papers/001 eqs (11), (12), the raised cosine summed over enough periods."""
    q = np.arange(size)
    column = raised_cosine(q - delay + size * np.arange(-3000, 3001)[:, None], b).sum(axis=0)
    turn = np.exp(2j * np.pi * doppler * (q - delay))
    return turn[:, None] * column[(q[:, None] - q) % size]


@pytest.mark.parametrize(("dtype", "limit"), [(np.complex64, 1e-6), (np.complex128, 1e-12)])
def test_dg_is_the_dense_matrix(dtype: Any, limit: float) -> None:
    size, rng = 128, np.random.default_rng(0)
    delay, doppler, a = np.array([0.0, 7.31, 12.5]), np.array([0.0, 0.0043, -0.0078]), noise(rng, 3)
    whole = sum(x * dense(size, late, turns, 0.5) for x, late, turns in zip(a, delay, doppler, strict=True))
    sent = noise(rng, 4, size)
    got = through(passage(delay, doppler, a, 0.5, size, order="DG"), sent.astype(dtype))
    assert got.dtype == dtype
    assert np.linalg.norm(got - sent @ whole.T) < limit * np.linalg.norm(sent @ whole.T)


def test_default_is_the_physical_echo_and_the_other_orders_miss_it_by_what_is_said() -> None:
    delay, doppler, b = TABLE_I
    sent = np.exp(0.5j * np.pi * np.random.default_rng(1).integers(0, 4, 1024))
    cut = pulse_level_echo(sent, delay, doppler, b, span=10, prefix=31, suffix=20, oversampling=8)
    whole = pulse_level_echo(sent, delay, doppler, b, span=100, prefix=128, suffix=128)
    exact, paper = (through(passage([delay], [doppler], [1], b, 1024, order=o), sent) for o in ("exact", "DG"))
    assert miss_db(exact, cut) < -39
    assert miss_db(exact, whole) < -70
    assert -38 < miss_db(paper, cut) < -34
    assert miss_db(paper, whole) < -35
    assert -16 < miss_db(echo_operator(sent, delay, doppler, b, "GD"), whole) < -13


def test_pulse_is_the_inverse_transform_of_its_spectrum_and_orthonormal() -> None:
    for b in (0.0, 0.1, 0.5, 1.0):
        f = (np.arange(20000) + 0.5) / 10000 - 1
        t = np.array([0.0, 0.25, 1 / (4 * b) if b else 0.4, 1.0, 2.7, 9.3])
        endless = (root_spectrum(f, b) * np.exp(2j * np.pi * np.outer(t, f))).sum(axis=-1).real / 10000
        np.testing.assert_allclose(root_raised_cosine(t, b), endless, atol=1e-4)
    fine = np.arange(-800, 800) / 4
    overlap = [np.sum(root_raised_cosine(fine, 0.5) * root_raised_cosine(fine - q, 0.5)) / 4 for q in range(4)]
    np.testing.assert_allclose(overlap, [1, 0, 0, 0], atol=1e-5)


def test_pulse_train_lays_every_pulse() -> None:
    sent, span = noise(np.random.default_rng(2), 40), 6
    fine = np.arange(160) / 4
    gap = (fine[:, None] - np.arange(40) + 20) % 40 - 20
    laid = np.where(np.abs(gap) <= span, root_raised_cosine(gap, 0.3), 0) @ sent
    np.testing.assert_allclose(pulse_train(sent, 0.3, span, 4), laid, atol=1e-12)
    with pytest.raises(Misuse, match="span = 20"):
        pulse_train(sent, 0.3, 20, 4)


@settings(max_examples=20)
@given(
    delay=st.lists(st.floats(0, 15), min_size=1, max_size=4),
    periods=st.sampled_from([1, 3]),
    seed=st.integers(0, 999),
)
def test_adjoint_is_the_adjoint(delay: list[float], periods: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channel = passage(delay, rng.uniform(-0.02, 0.02, len(delay)), noise(rng, len(delay)), 0.2, 32, periods, 16.0)
    x, y = noise(rng, 2, 5, 32 * periods)
    np.testing.assert_allclose(np.vdot(y, through(channel, x)), np.vdot(adjoint(channel, y), x), rtol=1e-10)


def test_symbols_with_prefixes_of_their_own_are_frames_of_their_own() -> None:
    rng = np.random.default_rng(3)
    sent = noise(rng, 4, 32)
    got = through(passage([5.3], [0.004], [1.0], 0.0, 32, periods=4, prefix=8), sent.ravel()).reshape(4, 32)
    for n in range(4):
        alone = echo_operator(sent[n], 5.3, 0.004, 0.0) * np.exp(2j * np.pi * 0.004 * 40 * n)
        np.testing.assert_allclose(got[n], alone, atol=1e-12)


def arrays(rng: np.random.Generator, paths: int) -> tuple[np.ndarray, ...]:
    a_t, a_r = np.exp(2j * np.pi * rng.random((2, paths, 9)))
    return a_t, a_r, noise(rng, 9, 4), noise(rng, 9, 3)  # elements x streams, elements x chains


def test_hybrid_is_the_kronecker_product() -> None:
    M, N, paths, rng = 8, 4, 3, np.random.default_rng(4)
    numerology: Any = SimpleNamespace(delay_bins=M, doppler_bins=N)
    delay, doppler, a = rng.uniform(0, 5, paths), rng.uniform(-0.05, 0.05, paths), noise(rng, paths)
    a_t, a_r, F, W = arrays(rng, paths)
    grid = noise(rng, 4, M, N)
    # papers/001 eq (28) with every antenna written out: stacked delay-Doppler vectors, delay fastest
    transform = np.kron(np.exp(-2j * np.pi * np.outer(np.arange(N), np.arange(N)) / N) / np.sqrt(N), np.eye(M))
    x = grid.transpose(0, 2, 1).ravel()
    y = np.zeros(3 * M * N, complex)
    for p in range(paths):
        inner = transform @ dense(M * N, delay[p], doppler[p], 0.5) @ transform.conj().T
        y += a[p] * np.kron(W.conj().T @ np.outer(a_r[p], a_t[p]) @ F, inner) @ x
    expected = y.reshape(3, N, M).transpose(0, 2, 1)
    channel = passage(delay, doppler, a, 0.5, M * N, order="DG")
    departure, arrival = a_t @ F, a_r @ W.conj()
    sent = Oddm().modulate(grid, numerology)
    got = Oddm().demodulate(hybrid(channel, sent, departure, arrival), numerology)
    np.testing.assert_allclose(got, expected, atol=1e-9)
    laid = grid_passage(channel, departure, arrival, M, N, np.complex128)
    np.testing.assert_allclose(through_grid(laid, grid[None])[0], got, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 16)])
@pytest.mark.parametrize(("dtype", "limit"), [(np.complex64, 1e-6), (np.complex128, 1e-12)])
def test_zak_is_modulate_travel_demodulate(size: tuple[int, int], dtype: Any, limit: float) -> None:
    M, N = size
    numerology: Any = SimpleNamespace(delay_bins=M, doppler_bins=N)
    for streams, paths, chains in ((4, 3, 4), (1, 1, 1), (2, 2, 3)):
        rng = np.random.default_rng((streams, M))
        channel = passage(rng.uniform(0, M, paths), rng.uniform(-0.1, 0.1, paths) / M, noise(rng, paths), 0.1, M * N)
        departure, arrival = noise(rng, paths, streams), noise(rng, paths, chains)
        grid = noise(rng, 3, streams, M, N)
        expected = Oddm().demodulate(hybrid(channel, Oddm().modulate(grid, numerology), departure, arrival), numerology)
        got = through_grid(grid_passage(channel, departure, arrival, M, N, dtype), grid)
        assert got.dtype == dtype
        assert np.linalg.norm(got - expected) < limit * np.linalg.norm(expected)


def test_bad_input_is_named_with_value_and_limit() -> None:
    with pytest.raises(Misuse, match=r"delay\[1\] = 17: must lie in 0 .. 16 samples, the cyclic prefix"):
        passage([3, 17], [0, 0], [1, 1], 0.1, 64, prefix=16)
    with pytest.raises(Misuse, match=r"delay\[0\] = nan"):
        passage([np.nan], [0], [1], 0.1, 64)
    with pytest.raises(
        Misuse, match=r"doppler\[0\] = -0.01: must lie in -0.0078125 .. 0.0078125 cycles a sample, the grid"
    ):
        passage([3], [-0.01], [1], 0.1, 1024, doppler_limit=0.5 / 64)
    with pytest.raises(Misuse, match=r"amplitude\[0\]"):
        passage([3], [0], [np.inf], 0.1, 64)
    with pytest.raises(Misuse, match="order = 'GD'"):
        passage([3], [0], [1], 0.1, 64, order="GD")
    channel = passage([3.0], [0.0], [1.0], 0.1, 64)
    with pytest.raises(Misuse, match="no frames"):
        through(channel, np.zeros((0, 64)))
    sent = np.ones((2, 64), complex)
    sent[1, 7] = np.nan
    with pytest.raises(Misuse, match=r"samples\[1, 0, 7\]|samples\[1, 7\]"):
        through(channel, sent)
    laid = grid_passage(channel, np.ones((1, 1)), np.ones((1, 1)), 16, 4)
    with pytest.raises(Misuse, match="no frames"):
        through_grid(laid, np.zeros((0, 1, 16, 4)))
    with pytest.raises(Misuse, match=r"grid\[0, 0, 2, 1\]"):
        through_grid(laid, np.where(np.arange(64).reshape(1, 1, 16, 4) == 9, np.nan, 1))
    with pytest.raises(Misuse, match="delay_bins = 12"):
        grid_passage(passage([3.0], [0.0], [1.0], 0.1, 48), np.ones((1, 1)), np.ones((1, 1)), 12, 4)
    with pytest.raises(Misuse, match="delay = 40"):
        pulse_level_echo(np.ones(64), 40, 0, 0.1, 10, 31, 20)
