"""ODDM against its dense matrix, and the known symbols against their words."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.waveforms.oddm import Oddm, qpsk


def numerology(delay: int, doppler: int) -> SimpleNamespace:
    return SimpleNamespace(delay_bins=delay, doppler_bins=doppler)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


sizes = st.tuples(st.integers(1, 24), st.integers(1, 20))


@settings(deadline=None, max_examples=40)
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_is_the_dense_matrix_and_unitary(size: tuple[int, int], seed: int) -> None:
    m, n = size
    grid = noise(np.random.default_rng(seed), 2, 3, m, n)
    frame = Oddm().modulate(grid, numerology(m, n))
    # (F_N^H kron I_M) vec(X), columns stacked: papers/001 eq (1)
    fourier = np.exp(2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n)
    dense = np.kron(fourier, np.eye(m))
    stacked = grid.transpose(0, 1, 3, 2).reshape(2, 3, -1)
    np.testing.assert_allclose(frame, stacked @ dense.T, atol=1e-12)
    np.testing.assert_allclose(np.sum(np.abs(frame) ** 2), np.sum(np.abs(grid) ** 2), rtol=1e-12)
    np.testing.assert_allclose(Oddm().demodulate(frame, numerology(m, n)), grid, atol=1e-12)


def test_one_symbol_is_a_pulse_train_on_its_delay_and_a_tone_across_it() -> None:
    grid = np.zeros((4, 8), complex)
    grid[3, 2] = 1
    frame = Oddm().modulate(grid, numerology(4, 8)).reshape(8, 4)
    np.testing.assert_allclose(frame[:, :3], 0, atol=1e-15)
    np.testing.assert_allclose(frame[:, 3], np.exp(2j * np.pi * 2 * np.arange(8) / 8) / np.sqrt(8), atol=1e-15)


def test_keeps_single_precision() -> None:
    grid = noise(np.random.default_rng(0), 64, 16).astype(np.complex64)
    assert Oddm().modulate(grid, numerology(64, 16)).dtype == np.complex64


def test_a_grid_or_frame_of_another_size_is_refused() -> None:
    with pytest.raises(Misuse, match="grid"):
        Oddm().modulate(np.zeros((8, 4)), numerology(4, 8))
    with pytest.raises(Misuse, match="samples"):
        Oddm().demodulate(np.zeros(31), numerology(4, 8))


def test_qpsk_reads_two_bits_a_symbol_lowest_first() -> None:
    words = np.array([0b11_10_01_00, 0xFFFFFFFF], dtype=np.uint32)
    quarter = np.exp(0.25j * np.pi * (2 * np.arange(4) + 1))
    np.testing.assert_allclose(qpsk(words, 20)[:4], quarter, atol=1e-15)
    np.testing.assert_allclose(qpsk(words, 20)[4:16], quarter[0], atol=1e-15)
    np.testing.assert_allclose(qpsk(words, 20)[16:], quarter[3], atol=1e-15)


def test_qpsk_symbols_are_white() -> None:
    words = np.random.default_rng(3).integers(0, 2**32, (64, 64), dtype=np.uint32)
    symbol = qpsk(words, 1024)
    assert symbol.shape == (64, 1024)
    np.testing.assert_allclose(np.abs(symbol), 1, atol=1e-15)
    # 65536 symbols: means of unit variance scatter by 1/256
    for moment in (np.mean(symbol), np.mean(symbol**2), np.mean(symbol[:, 1:] * symbol[:, :-1].conj())):
        assert abs(moment) < 5 / 256


def test_qpsk_refuses_other_words() -> None:
    with pytest.raises(Misuse, match="uint32"):
        qpsk(np.zeros(2, np.int64), 4)
    with pytest.raises(Misuse, match="sixteen"):
        qpsk(np.zeros(2, np.uint32), 33)
