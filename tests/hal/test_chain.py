"""Chain impairments against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.chain import (
    convert,
    image_rejection_db,
    iq_imbalance,
    rapp,
    rotate,
    saleh,
    thermal_noise_w,
    wiener_phase,
)
from hal.errors import Misuse


def test_thermal_noise_is_minus_174_dbm_per_hertz():
    assert 10 * np.log10(thermal_noise_w(1.0) * 1e3) == pytest.approx(-173.975, abs=0.01)
    assert 10 * np.log10(thermal_noise_w(64e6, 10.0) / thermal_noise_w(1.0)) == pytest.approx(10 + 78.0618, abs=1e-4)
    for bad in ((0.0, 0.0, 290.0), (1e6, float("nan"), 290.0), (1e6, 0.0, -1.0), (float("nan"), 0.0, 290.0)):
        with pytest.raises(Misuse):
            thermal_noise_w(*bad)


@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_a_uniform_signal_has_four_to_the_bits_over_its_quantisation_noise(bits):
    grid = (np.arange(100 * 2**bits) + 0.5) / (50 * 2**bits) - 1  # 100 points a step
    out, clipped = convert(grid + 1j * grid[::-1], bits, 1.0)
    ratio = np.mean(grid**2) / np.mean((out.real - grid) ** 2)
    assert ratio == pytest.approx(4.0**bits, rel=2e-4)
    assert not clipped.any()


@pytest.mark.parametrize(("bits", "within_db"), [(8, 0.2), (12, 0.05)])
def test_full_scale_sine_has_the_textbook_quantisation_noise(bits, within_db):
    # a frequency that shares no period with the step pattern
    wave = np.exp(2j * np.pi * np.sqrt(2) * np.arange(200_000))
    out, _ = convert(wave, bits, 1.0)
    sqnr_db = 10 * np.log10(np.mean(np.abs(wave) ** 2) / np.mean(np.abs(out - wave) ** 2))
    assert sqnr_db == pytest.approx(6.0206 * bits + 1.7609, abs=within_db)


@settings(deadline=None)  # the first call may compile
@given(st.integers(1, 12), st.floats(0.1, 10), st.integers(0, 2**32))
def test_converter_has_two_to_the_bits_levels_and_half_a_step_of_error(bits, full_scale, seed):
    rng = np.random.default_rng(seed)
    x = full_scale * (rng.uniform(-1, 1, 400) + 1j * rng.uniform(-1, 1, 400))
    out, clipped = convert(x, bits, full_scale)
    step = 2 * full_scale / 2**bits
    assert not clipped.any()
    assert np.max(np.abs((out - x).real)) <= step / 2 * (1 + 1e-9)
    assert np.max(np.abs((out - x).imag)) <= step / 2 * (1 + 1e-9)
    assert len(np.unique(np.round(out.real / step * 2))) <= 2**bits
    np.testing.assert_allclose(convert(out, bits, full_scale)[0], out, rtol=1e-12)


def test_converter_clips_and_says_where():
    out, clipped = convert(np.array([3 + 0.1j, 0.2 - 5j, 0.1 + 0.1j]), 8, 1.0)
    np.testing.assert_array_equal(clipped, [True, True, False])
    top = 1 - 1 / 256
    assert (out[0].real, out[1].imag) == (top, -top)
    np.testing.assert_array_equal(convert(np.array([3 - 2j]), 0, 1.0)[0], [1 - 1j])
    np.testing.assert_array_equal(convert(np.array([3e9 - 2j]), 0, np.inf)[0], [3e9 - 2j])
    assert convert(np.zeros(1, np.complex64), 8, 1.0)[0].dtype == np.complex64
    for bits, full_scale in ((8, np.inf), (8, 0.0), (-1, 1.0), (8, np.nan)):
        with pytest.raises(Misuse):
            convert(np.zeros(1, complex), bits, full_scale)


@settings(deadline=None)  # the first call may compile
@given(st.floats(-3, 3), st.floats(-0.5, 0.5))
def test_iq_imbalance_is_gain_and_skew_of_the_q_branch(gain_db, phase):
    x = np.random.default_rng(0).normal(size=50) + 1j * np.random.default_rng(1).normal(size=50)
    y = iq_imbalance(x, gain_db, phase)
    g = 10 ** (gain_db / 20)
    np.testing.assert_allclose(y.real, x.real, atol=1e-12)
    np.testing.assert_allclose(y.imag, g * (x.imag * np.cos(phase) - x.real * np.sin(phase)), atol=1e-12)
    tone = iq_imbalance(np.exp(2j * np.pi * 5 * np.arange(64) / 64), gain_db, phase)
    line = np.abs(np.fft.fft(tone) / 64) ** 2
    if line[-5] > 1e-14:
        assert 10 * np.log10(line[5] / line[-5]) == pytest.approx(image_rejection_db(gain_db, phase), abs=1e-6)


def test_no_imbalance_rejects_the_image_wholly():
    assert image_rejection_db(0.0, 0.0) == np.inf
    # textbook: 1 dB and 5 degrees leave about 22.9 dB
    assert image_rejection_db(1.0, np.deg2rad(5)) == pytest.approx(22.9, abs=0.1)


@settings(deadline=None)  # the first call may compile
@given(st.floats(0.5, 10), st.floats(0.1, 5), st.floats(0.5, 4))
def test_rapp_follows_its_curve_and_keeps_the_phase(smoothness, saturation, gain):
    r = np.linspace(0, 20, 50)
    x = r * np.exp(0.7j)
    y = rapp(x, saturation, smoothness, gain)
    want = gain * r / (1 + (gain * r / saturation) ** (2 * smoothness)) ** (1 / (2 * smoothness))
    np.testing.assert_allclose(y, want * np.exp(0.7j), rtol=1e-9, atol=1e-15)
    # driven to saturation it falls 3 dB / smoothness below it
    at = rapp(np.array([saturation / gain]), saturation, smoothness, gain)[0]
    assert abs(at) == pytest.approx(saturation * 2 ** (-1 / (2 * smoothness)))


def test_rapp_at_its_ends():
    x = np.array([0.0, 1e-6, 1e200], dtype=complex)
    np.testing.assert_allclose(rapp(x, 2.0, 3.0, 5.0), [0, 5e-6, 2.0], rtol=1e-12)
    np.testing.assert_allclose(rapp(x[:2], np.inf, 3.0, 5.0), 5 * x[:2])
    for saturation, smoothness in ((0.0, 2.0), (1.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(Misuse):
            rapp(x, saturation, smoothness)


def test_saleh_peaks_and_turns_where_its_formulas_say():
    r = np.linspace(0, 3, 30001)
    y = saleh(r.astype(complex))
    assert r[np.argmax(np.abs(y))] == pytest.approx(1 / np.sqrt(1.1517), abs=1e-3)
    assert np.abs(y).max() == pytest.approx(2.1587 / (2 * np.sqrt(1.1517)), rel=1e-6)
    assert np.angle(saleh(np.array([1.0 + 0j])))[0] == pytest.approx(4.0033 / (1 + 9.1040))
    np.testing.assert_allclose(saleh(np.exp(1j) * r), np.exp(1j) * y, rtol=1e-12)


def test_wiener_phase_spreads_with_the_square_root_of_time_and_carries_on():
    draws = np.random.default_rng(11).standard_normal((4000, 64))
    phase = wiener_phase(draws, 10e3, 64e6)
    for lag in (1, 8, 63):
        got = np.var(phase[:, lag] - phase[:, 0])
        assert got == pytest.approx(2 * np.pi * 10e3 * lag / 64e6, rel=4 * np.sqrt(2 / 4000))
    halves = wiener_phase(draws[:, :20], 10e3, 64e6)
    rest = wiener_phase(draws[:, 20:], 10e3, 64e6, halves[:, -1])
    np.testing.assert_allclose(np.concatenate([halves, rest], axis=1), phase, atol=1e-14)
    assert not wiener_phase(draws, 0.0, 64e6).any()
    with pytest.raises(Misuse, match="linewidth"):
        wiener_phase(draws, float("nan"), 64e6)


def test_wiener_phase_gives_the_lorentzian_line_its_width():
    # E exp(j (phi_k - phi_0)) = exp(-pi linewidth k / rate): the autocorrelation whose transform is the Lorentzian
    phase = wiener_phase(np.random.default_rng(5).standard_normal((6000, 200)), 2e5, 64e6)
    turned = rotate(np.ones_like(phase), phase)
    got = np.mean(turned[:, -1] * np.conj(turned[:, 0]))
    assert abs(got - np.exp(-np.pi * 2e5 * 199 / 64e6)) < 0.03
