"""Equation (22) against drawn channels, its ceiling, the beams, and the rate of a subframe against a sum by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.array import Ula
from hal.errors import Misuse
from twin.physics.correlation import one_ring_correlation
from twin.physics.dual_scale import angle_slope, believed_covariance, mmse_covariance
from twin.physics.sinr import ergodic_rate, mrt, rzf, simulated_sinr, sinr, subframe_rate, users_sinr

CARRIER = 5.9e9
POSITION = Ula(8).build(CARRIER, np.zeros(3), np.eye(3)).position_m
DRAWS = 150_000


def scene(rng, users=5, spread_deg=1.0, std_deg=0.3):
    azimuth = rng.uniform(-np.pi / 3, np.pi / 3, users)
    R = one_ring_correlation(POSITION, CARRIER, azimuth, np.zeros(users), np.deg2rad(spread_deg))
    slope = angle_slope(POSITION, CARRIER, azimuth)
    gain = rng.uniform(0.5, 2, users)
    return R, gain, believed_covariance(R, slope, gain, np.full(users, np.deg2rad(std_deg) ** 2))


def circular(rng, *shape):
    return (rng.standard_normal((*shape, 2)) @ np.array([1, 1j])) / np.sqrt(2)


def root(covariance):
    value, vector = np.linalg.eigh(covariance)
    return vector * np.sqrt(np.maximum(value, 0))[..., None, :]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("snr_db", "std_deg"), [(0, 0.1), (10, 0.5), (20, 0.1)])
def test_equation_22_is_what_drawn_channels_give(own, snr_db, std_deg):
    rng = np.random.default_rng([snr_db, int(10 * std_deg)])
    R, gain, believed = scene(rng, std_deg=std_deg)
    C = mmse_covariance(believed, 10 ** (snr_db / 10))
    rho = np.array([[1.0, 0.7]] * 5)
    formula = sinr(R, gain, C, np.ones(5), 0.05, rho, own)
    estimate = (circular(rng, 5, DRAWS, 8) @ np.swapaxes(root(C), 1, 2)).transpose(1, 0, 2)
    rest = (circular(rng, 5, DRAWS, 8) @ np.swapaxes(root(gain[:, None, None] * R - 0.49 * C), 1, 2)).transpose(1, 0, 2)
    beam = mrt(estimate, np.trace(C, axis1=1, axis2=2).real)
    found = simulated_sinr(0.7 * estimate + rest, beam, np.ones(5), 0.05, own)
    # without the own term one product of exponentials is most of the denominator: a user's own Monte-Carlo sigma is 0.7 %, of five users 2.7 % is 4 sigma
    assert np.max(np.abs(found / formula[:, 1] - 1)) < (0.015 if own else 0.03)
    assert abs(np.mean(found / formula[:, 1] - 1)) < 0.015
    # and a formula without ageing, or with the other reading of i = k, would not pass
    assert np.max(np.abs(found / formula[:, 0] - 1)) > 0.2
    assert np.max(np.abs(found / sinr(R, gain, C, np.ones(5), 0.05, rho, not own)[:, 1] - 1)) > 0.05


@pytest.mark.parametrize("std_deg", [0.1, 0.5])
def test_pilots_through_the_true_channel_change_little(std_deg):
    rng = np.random.default_rng(7)
    R, gain, believed = scene(rng, std_deg=std_deg)
    snr = 100.0
    C = mmse_covariance(believed, snr)
    channel = (circular(rng, 5, DRAWS, 8) @ np.swapaxes(root(gain[:, None, None] * R), 1, 2)).transpose(1, 0, 2)
    take = believed @ np.linalg.inv(believed + np.eye(8) / snr)
    estimate = np.einsum("kab,dkb->dka", take, channel + circular(rng, DRAWS, 5, 8) / np.sqrt(snr))
    power = np.mean(np.sum(np.abs(estimate) ** 2, axis=2), axis=0)
    found = simulated_sinr(channel, mrt(estimate, power), np.ones(5), 0.05)
    assert np.max(np.abs(found / sinr(R, gain, C, np.ones(5), 0.05, np.ones((5, 1)))[:, 0] - 1)) < 0.02


@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.1, 30), st.floats(-10, 40), st.floats(1e-6, 10))
def test_with_the_own_term_no_power_lifts_it_over_its_ceiling(seed, users, spread, snr_db, noise):
    R, gain, believed = scene(np.random.default_rng(seed), users, spread, 0.2)
    gamma = sinr(R, gain, mmse_covariance(believed, 10 ** (snr_db / 10)), np.ones(users), noise, np.ones((users, 1)))[
        :, 0
    ]
    ceiling = 1 / np.einsum("kab,kba->k", R, R).real
    assert np.all(gamma <= ceiling * (1 + 1e-9))


def test_without_it_power_does():
    R, gain, believed = scene(np.random.default_rng(1), 1)
    gamma = sinr(R, gain, mmse_covariance(believed, 1e3), np.ones(1), 1e-4, np.ones((1, 1)), own_term=False)
    assert gamma[0, 0] > 1e3


def test_users_by_turns_do_not_hear_each_other():
    R, gain, believed = scene(np.random.default_rng(2))
    C = mmse_covariance(believed, 10.0)
    alone = np.concatenate(
        [sinr(R[k : k + 1], gain[k : k + 1], C[k : k + 1], np.ones(1), 0.1, np.ones((1, 1))) for k in range(5)]
    )
    np.testing.assert_allclose(
        sinr(R, gain, C, np.ones(5), 0.1, np.ones((5, 1)), weight=np.zeros((5, 5))), alone, rtol=1e-12
    )


def test_zero_forcing_beats_maximum_ratio_when_noise_is_small_and_is_it_when_large():
    rng = np.random.default_rng(3)
    h = circular(rng, 200, 4, 8)
    none = np.zeros((4, 8, 8))
    for noise, better in ((1e-4, True), (1e6, False)):
        forced, ratio = rzf(h, h, none, np.ones(4), noise), mrt(h)
        np.testing.assert_allclose(np.linalg.norm(forced, axis=-1), 1, rtol=1e-12)
        gain = ergodic_rate(h, forced, np.ones(4), noise) / ergodic_rate(h, ratio, np.ones(4), noise)
        assert np.all(gain > 2) if better else np.allclose(gain, 1, rtol=1e-3)
    quiet = users_sinr(h, rzf(h, h, none, np.ones(4), 1e-12), np.ones(4), 1e-12)
    assert np.min(quiet) > 1e6  # as good as no interference


def test_rate_of_a_subframe_is_the_sum_by_hand():
    bits = np.array([5.0, 4.0, 3.0, 2.0])
    # T_l = 2.3 blocks, 7 data blocks in updates of 4 and 3, pilots of 0.1 block
    by_hand = (5 + 4 + 3 + 2) + (5 + 4 + 3) - (2 * 0.1 + 0.3) * 5
    assert subframe_rate(bits, np.array([4, 3]), 2.3, 1.0, 0.1) == pytest.approx(by_hand, rel=1e-12)
    assert subframe_rate(bits, np.array([4, 3]), 2.3, 1.0, 0.1, 0.05) == pytest.approx(0.95 * by_hand, rel=1e-12)


def test_bad_input_is_named():
    bits = np.ones(4)
    with pytest.raises(Misuse, match=r"pilot_s = 1\.5.*longer than a block"):
        subframe_rate(bits, np.array([4]), 0.0, 1.0, 1.5)
    with pytest.raises(Misuse, match="no room for pilots"):
        subframe_rate(bits, np.array([3]), 1.95, 1.0, 0.1)
    with pytest.raises(Misuse, match="at least one block"):
        subframe_rate(bits, np.array([4, 0]), 0.0, 1.0, 0.1)
