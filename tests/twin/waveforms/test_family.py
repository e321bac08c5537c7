"""What every waveform promises, and what tells them apart: matrices, peaks, and the equalities the literature states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.physics.constellations import mapped
from twin.physics.papr import gaussian_exceedance, papr, papr_at
from twin.registry import kinds

FAMILY = {name: cls() for name, cls in kinds("twin.waveforms").items()}
every = pytest.mark.parametrize("name", sorted(FAMILY))


def numerology(delay: int = 16, doppler: int = 8, roll_off: float = 0.25, span: int = 10) -> Any:
    return SimpleNamespace(delay_bins=delay, doppler_bins=doppler, roll_off=roll_off, pulse_span=span)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def fourier(size: int) -> np.ndarray:
    return np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size)) / size) / np.sqrt(size)


def test_the_family_is_whole() -> None:
    assert set(FAMILY) >= {"ofdm", "dft_s_ofdm", "otfs", "dft_s_otfs", "oddm", "dft_s_oddm"}


@every
@settings(max_examples=15)
@given(size=st.tuples(st.integers(2, 12), st.integers(1, 9)), seed=st.integers(0, 999))
def test_unitary_linear_and_a_batch_is_its_frames(name: str, size: tuple[int, int], seed: int) -> None:
    waveform, given_ = FAMILY[name], numerology(*size)
    grid = noise(np.random.default_rng(seed), 3, 2, *size)
    frame = waveform.modulate(grid, given_)
    assert frame.shape == (3, 2, size[0] * size[1])
    np.testing.assert_allclose(waveform.demodulate(frame, given_), grid, atol=1e-12)
    np.testing.assert_allclose(np.sum(np.abs(frame) ** 2, -1), np.sum(np.abs(grid) ** 2, (-2, -1)), rtol=1e-12)
    np.testing.assert_array_equal(frame[1, 1], waveform.modulate(grid[1, 1], given_))
    mixed = waveform.modulate(2j * grid[0] - grid[1], given_)
    np.testing.assert_allclose(mixed, 2j * frame[0] - frame[1], atol=1e-12)


@every
def test_is_its_matrices(name: str) -> None:
    m, n = 16, 8
    x = noise(np.random.default_rng(1), m, n)
    inverse_delay, inverse_doppler = fourier(m).conj(), fourier(n).conj()
    # the literature's chains, transform after transform, with nothing cancelled
    ofdm = inverse_delay @ x
    symplectic = fourier(m) @ x @ inverse_doppler
    chains = {
        "ofdm": ofdm,
        "dft_s_ofdm": inverse_delay @ (fourier(m) @ x),
        "otfs": inverse_delay @ symplectic,
        "dft_s_otfs": inverse_delay @ (fourier(m) @ (x @ fourier(n)) @ inverse_doppler),
        "oddm": x @ inverse_doppler,
        "dft_s_oddm": (x @ fourier(n)) @ inverse_doppler,
    }
    np.testing.assert_allclose(FAMILY[name].modulate(x, numerology(m, n)), chains[name].T.ravel(), atol=1e-12)


@every
def test_emitted_goes_through_its_samples_and_keeps_their_energy(name: str) -> None:
    waveform, given_ = FAMILY[name], numerology(64, 4, 0.5, 60)
    frame = waveform.modulate(noise(np.random.default_rng(2), 5, 64, 4), given_)
    fine = waveform.emitted(frame, given_, 4)
    np.testing.assert_allclose(np.sum(np.abs(fine) ** 2, -1) / 4, np.sum(np.abs(frame) ** 2, -1), rtol=1e-4)
    if waveform.shaped:  # only the matched filter brings the samples back
        spectrum = np.fft.fft(fine) * np.fft.fft(waveform.emitted(np.eye(256)[0] + 0j, given_, 4)).conj() / 4
        fine = np.fft.ifft(spectrum)
    np.testing.assert_allclose(fine[:, ::4], frame, atol=2e-4)


@every
def test_keeps_single_precision_and_refuses_what_is_no_frame(name: str) -> None:
    waveform, given_ = FAMILY[name], numerology()
    grid = noise(np.random.default_rng(3), 16, 8).astype(np.complex64)
    assert waveform.modulate(grid, given_).dtype == np.complex64
    with pytest.raises(Misuse, match=r"grid: has shape \(16, 9\), must be \(16, 8\)"):
        waveform.modulate(np.zeros((16, 9)), given_)
    with pytest.raises(Misuse, match=r"samples: has shape \(0, 128\), no frames"):
        waveform.demodulate(np.zeros((0, 128)), given_)
    grid[3, 5] = np.nan
    with pytest.raises(Misuse, match=r"grid\[3, 5\].*must be finite; 1 of 128"):
        waveform.modulate(grid, given_)


def test_otfs_is_oddm_at_the_samples_only() -> None:
    grid, given_ = noise(np.random.default_rng(4), 16, 8), numerology(16, 8)
    otfs, oddm = FAMILY["otfs"], FAMILY["oddm"]
    np.testing.assert_allclose(otfs.modulate(grid, given_), oddm.modulate(grid, given_), atol=1e-12)
    sent = oddm.modulate(grid, given_)
    assert np.abs(otfs.emitted(sent, given_, 8) - oddm.emitted(sent, given_, 8)).max() > 0.3


def test_ofdm_s_peaks_at_nyquist_rate_are_those_of_gaussian_samples() -> None:
    # many subcarriers of 64-QAM come close to Gaussian samples; the closed form counts independent ones
    given_ = numerology(1024, 1)
    rng = np.random.default_rng(5)
    grid = mapped(rng.integers(0, 2, (4000, 6 * 1024)).astype(bool), "64qam").reshape(-1, 1024, 1)
    ratio = papr(FAMILY["ofdm"].modulate(grid.astype(np.complex64), given_))
    for probability in (0.5, 0.1, 0.02):
        share = gaussian_exceedance(papr_at(ratio, probability), 1024)
        assert share == pytest.approx(probability, rel=0.25)


def test_spreading_lowers_peaks_and_roll_off_does_so_for_a_single_carrier() -> None:
    rng = np.random.default_rng(6)
    grid = mapped(rng.integers(0, 2, (300, 2048)).astype(bool), "qpsk").reshape(300, 64, 16).astype(np.complex64)

    def level(name: str, roll_off: float = 0.1) -> float:
        given_ = numerology(64, 16, roll_off)
        frame = FAMILY[name].modulate(grid, given_)
        return 10 * np.log10(papr_at(papr(FAMILY[name].emitted(frame, given_, 4)), 0.1))

    assert level("dft_s_ofdm") < level("ofdm") - 2.5
    assert level("dft_s_oddm") < level("dft_s_ofdm") - 0.5
    assert level("dft_s_oddm", 0.5) < level("dft_s_oddm") - 2
    assert level("oddm", 0.5) > level("oddm") + 0.2


def test_papr_refuses_silence_and_too_few_frames() -> None:
    assert papr(np.array([[1, 1, 1, 3.0]])) == pytest.approx(3.0)
    with pytest.raises(Misuse, match="no power"):
        papr(np.zeros((2, 8)))
    with pytest.raises(Misuse, match="take 1000"):
        papr_at(np.ones(999), 1e-2)
    with pytest.raises(Misuse, match="no frames"):
        papr(np.zeros((0, 8)))
