"""The folded map against dense correlations."""

from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.physics.lag_map import lag_map, layout, map_at, map_power, summits

SIZE = 256


def white(shape, seed):
    rng = np.random.default_rng(seed)
    return ((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(0.5)).astype(np.complex64)


@pytest.mark.parametrize("frames", [1, 3])
def test_whole_lags_are_correlations(frames):
    start = 400.0 * np.arange(frames) - 500
    sent, data = white((2, frames, SIZE), 0), white((3, frames, SIZE), 1)
    grid = layout(start, SIZE, (1.2, 20.0), 0.002)
    got = lag_map(grid, data, sent)
    t = start[:, None] + np.arange(SIZE)
    for lag in (0, 5, grid.lags - 1):
        for bin in (0, len(grid.doppler) // 2, len(grid.doppler) - 1):
            wave = np.roll(sent, grid.first + lag, axis=-1) * np.exp(2j * np.pi * grid.doppler[bin] * t)
            dense = np.einsum("ifq,rfq->ri", wave.conj(), data) / np.linalg.norm(sent.reshape(2, -1), axis=1)
            # sums over blocks lose what the phase turns within one: at most 0.9 dB, and a little noise
            assert np.max(np.abs(got[:, :, lag, bin] - dense)) < 0.35 * np.max(np.abs(dense)) + 0.35
    exact = layout(start, SIZE, (1.2, 20.0), 1e-6)
    wave = np.roll(sent, exact.first + 3, axis=-1)
    dense = np.einsum("ifq,rfq->ri", wave.conj(), data) / np.linalg.norm(sent.reshape(2, -1), axis=1)
    np.testing.assert_allclose(lag_map(exact, data, sent)[:, :, 3, len(exact.doppler) // 2], dense, atol=2e-5)


def test_a_peak_between_points_is_seen_where_it_is():
    sent = white((1, 1, SIZE), 2)
    f = np.fft.fftfreq(SIZE)
    t = np.arange(SIZE)
    grid = layout(np.zeros(1), SIZE, (1.0, 40.0), 0.02)
    for delay, doppler in ((10.5, 0.011), (33.0, -0.0195), (7.25, 0.0)):
        wave = np.fft.ifft(np.fft.fft(sent) * np.exp(-2j * np.pi * f * delay)) * np.exp(2j * np.pi * doppler * t)
        field = lag_map(grid, wave.astype(np.complex64), sent)
        power = map_power(field, 0.0)
        (column, bin), *_ = summits(power, 0.0, 3)
        assert abs(grid.delay[column] - delay) <= 0.26
        assert abs(grid.doppler[bin] - doppler) <= 0.26 / SIZE
        assert power[column, bin] > 0.55 * np.sum(np.abs(sent) ** 2)
        assert np.abs(map_at(field, column, bin, 0.0)[0, 0]) ** 2 == pytest.approx(power[column, bin], rel=1e-4)


def test_noise_keeps_its_power():
    grid = layout(np.zeros(1), SIZE, (1.0, 60.0), 0.01)
    power = map_power(lag_map(grid, white((40, 1, SIZE), 3), white((1, 1, SIZE), 4)), 0.1) / 40
    assert np.mean(power[::2]) == pytest.approx(1, abs=0.05)


def test_misuse_says_what_to_do():
    with pytest.raises(Misuse, match=r"must ascend within 0 .. 256"):
        layout(np.zeros(1), SIZE, (5.0, 2.0), 0.01)
    with pytest.raises(Misuse, match="doppler = nan"):
        layout(np.zeros(1), SIZE, (1.0, 2.0), float("nan"))
