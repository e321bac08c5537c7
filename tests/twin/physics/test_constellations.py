"""Constellations: Gray neighbours, unit power, and the error rate's closed form against the Q function and by counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from hal.errors import Misuse
from twin.physics.constellations import BITS, bit_error_rate, decided, mapped

every = pytest.mark.parametrize("modulation", sorted(BITS))


def points(modulation: str) -> tuple[np.ndarray, np.ndarray]:
    count = BITS[modulation]
    bits = (np.arange(2**count)[:, None] >> np.arange(count)[::-1]) & 1
    return bits.astype(bool), mapped(bits.astype(bool), modulation)[:, 0]


@every
def test_neighbours_differ_in_one_bit_and_power_is_one(modulation: str) -> None:
    bits, symbol = points(modulation)
    assert np.mean(np.abs(symbol) ** 2) == pytest.approx(1)
    assert len(np.unique(symbol.round(9))) == len(symbol)
    apart = np.abs(symbol[:, None] - symbol)
    near = np.isclose(apart, apart[apart > 1e-9].min())
    assert near.sum() >= 2 * len(symbol)
    np.testing.assert_array_equal((bits[:, None] != bits).sum(-1)[near], 1)


@every
def test_decisions_are_the_nearest_points(modulation: str) -> None:
    bits, symbol = points(modulation)
    rng = np.random.default_rng(0)
    heard = (rng.standard_normal(500) + 1j * rng.standard_normal(500)) * 0.9
    nearest = bits[np.abs(heard[:, None] - symbol).argmin(axis=1)]
    np.testing.assert_array_equal(decided(heard, modulation).reshape(500, -1), nearest)
    np.testing.assert_array_equal(decided(mapped(bits.ravel(), modulation), modulation), bits.ravel())


def test_qpsk_is_the_q_function_and_16qam_its_known_sum() -> None:
    snr = np.array([0.5, 2.0, 8.0, 20.0])
    np.testing.assert_allclose(bit_error_rate(snr, "qpsk"), norm.sf(np.sqrt(snr)), rtol=1e-12)
    d = np.sqrt(snr / 5)  # half the distance of neighbours over the noise of one axis
    known = (3 * norm.sf(d) + 2 * norm.sf(3 * d) - norm.sf(5 * d)) / 4
    np.testing.assert_allclose(bit_error_rate(snr, "16qam"), known, rtol=1e-12)


def test_64qam_is_what_each_level_s_neighbours_add_up_to() -> None:
    # by integrating each transmitted level's Gaussian over every decision interval: no closed form
    _, symbol = points("64qam")
    levels = np.unique(symbol.real.round(12))
    labels = decided(levels + 1j * levels[0], "64qam").reshape(8, 6)[:, :3]
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    for snr in (3.0, 30.0, 100.0):
        land = np.diff(norm.cdf(edges, loc=levels[:, None], scale=np.sqrt(0.5 / snr)), axis=1)
        wrong = (labels[:, None] != labels).sum(-1) / 3
        assert bit_error_rate(snr, "64qam") == pytest.approx((land * wrong).sum() / 8, rel=1e-9)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(Misuse, match="modulation = '8psk': must be one of qpsk, 16qam, 64qam"):
        mapped(np.zeros(6, bool), "8psk")
    with pytest.raises(Misuse, match="bits: 5 in a row, must be a multiple of 4"):
        mapped(np.zeros(5, bool), "16qam")
