"""Pulses and the delay-Doppler operator against time-domain sums, pulses laid one by one, and numerical derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.physics.delay_doppler import (
    echo_operator,
    field_curvature,
    folded_spectrum,
    peak_probability,
    peak_threshold,
    raised_cosine,
    raised_cosine_slope,
    root_spectrum,
    templates,
)

ROLL_OFF = 0.25


def root_pulse(t: np.ndarray, b: float) -> np.ndarray:
    """Square-root raised cosine of unit energy by its textbook formula, poles stepped over."""
    t = np.where(np.abs(t) < 1e-8, 1e-8, t)
    t = np.where(np.abs(np.abs(4 * b * t) - 1) < 1e-7, t * (1 + 1e-6), t)
    return (np.sin(np.pi * t * (1 - b)) + 4 * b * t * np.cos(np.pi * t * (1 + b))) / (
        np.pi * t * (1 - (4 * b * t) ** 2)
    )


def pulse_by_pulse(s: np.ndarray, delay: float, doppler: float, b: float, span: int, over: int = 4) -> np.ndarray:
    """The physical echo of a cyclic frame: pulses at their delayed instants, Doppler at each instant, matched filter by summation."""
    size = len(s)
    t = np.arange(-(span + 2) * over, (size + span + 2) * over) / over
    q = np.arange(-3 * span - 90, size + 2 * span + 20)
    x = root_pulse(t[:, None] - delay - q, b)
    x[np.abs(t[:, None] - delay - q) > span] = 0
    r = (x @ s[q % size]) * np.exp(2j * np.pi * doppler * t)
    lag = np.arange(-span * over, span * over + 1) / over
    y = np.convolve(r, root_pulse(lag, b)[::-1], "same") / over
    start = (span + 2) * over
    return y[start : start + size * over : over]


def symbols(size: int, seed: int = 0) -> np.ndarray:
    return np.exp(0.5j * np.pi * np.random.default_rng(seed).integers(0, 4, size))


def dense(size: int, delay: float, b: float) -> np.ndarray:
    """Circulant of the raised cosine, summed over enough periods."""
    column = raised_cosine(np.arange(size) - delay + size * np.arange(-400, 401)[:, None], b).sum(axis=0)
    return column[(np.arange(size)[:, None] - np.arange(size)) % size]


@pytest.mark.parametrize("b", [0.1, 0.25, 1.0])
def test_raised_cosine_is_nyquist_smooth_and_the_pulse_with_itself(b: float) -> None:
    np.testing.assert_allclose(raised_cosine(np.arange(-5, 6), b), np.eye(11)[5], atol=1e-15)
    pole = 1 / (2 * b)
    np.testing.assert_allclose(raised_cosine(pole, b), raised_cosine(pole + 1e-6, b), atol=1e-5)
    t = np.arange(-400, 400, 0.125)
    for lag in (0.0, 0.3, 1.7, 4.4):
        overlap = np.sum(root_pulse(t, b) * root_pulse(t - lag, b)) * 0.125
        np.testing.assert_allclose(raised_cosine(lag, b), overlap, atol=2e-5)


@pytest.mark.parametrize("b", [0.0, 0.1, 0.5])
def test_raised_cosine_slope_is_its_derivative(b: float) -> None:
    t = np.concatenate([np.linspace(-7, 7, 201), [0.0, 1e-4, 2e-3, 1 / (2 * b) if b else 3.0]])
    h = 1e-5
    numeric = (raised_cosine(t + h, b) - raised_cosine(t - h, b)) / (2 * h)
    np.testing.assert_allclose(raised_cosine_slope(t, b), numeric, atol=1e-8)


@pytest.mark.parametrize("b", [0.0, 0.1, 1.0])
def test_root_spectrum_squared_is_nyquist(b: float) -> None:
    f = np.linspace(-0.5, 0.5, 101)
    np.testing.assert_allclose(sum(root_spectrum(f + i, b) ** 2 for i in (-1, 0, 1)), 1, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(delay=st.floats(0, 20), doppler=st.floats(-0.02, 0.02))
def test_dg_is_the_dense_operator(delay: float, doppler: float) -> None:
    size, s = 96, symbols(96)
    turn = np.exp(2j * np.pi * doppler * np.arange(size))
    expected = np.exp(-2j * np.pi * doppler * delay) * turn * (dense(size, delay, ROLL_OFF) @ s)
    np.testing.assert_allclose(echo_operator(s, delay, doppler, ROLL_OFF), expected, atol=1e-10)


def test_dg_is_the_dense_operator_to_rounding() -> None:
    # through the sampled spectrum, which has no tails to cut off
    size, s, delay, doppler = 96, symbols(96), 7.3, 0.004
    f = np.fft.fftfreq(size)
    lines = sum(root_spectrum(f + i, ROLL_OFF) ** 2 * np.exp(-2j * np.pi * (f + i) * delay) for i in (-1, 0, 1))
    q = np.arange(size)
    circulant = (np.exp(2j * np.pi * np.outer(q, f)) * lines) @ np.exp(-2j * np.pi * np.outer(f, q)) / size
    expected = np.exp(2j * np.pi * doppler * (q - delay)) * (circulant @ s)
    np.testing.assert_allclose(echo_operator(s, delay, doppler, ROLL_OFF), expected, atol=1e-12)


def test_orders_agree_at_whole_doppler_bins_only() -> None:
    s = symbols(128)
    np.testing.assert_allclose(
        echo_operator(s, 9.37, 0.0, ROLL_OFF), echo_operator(s, 9.37, 0.0, ROLL_OFF, "GD"), atol=1e-12
    )
    whole = echo_operator(s, 9.0, 5 / 128, ROLL_OFF)
    np.testing.assert_allclose(whole, echo_operator(s, 9.0, 5 / 128, ROLL_OFF, "GD"), atol=1e-12)
    np.testing.assert_allclose(whole, np.roll(s * np.exp(2j * np.pi * 5 * np.arange(128) / 128), 9), atol=1e-12)
    apart = echo_operator(s, 9.0, 5.5 / 128, ROLL_OFF) - echo_operator(s, 9.0, 5.5 / 128, ROLL_OFF, "GD")
    assert np.linalg.norm(apart) ** 2 > 0.1 * 128
    with pytest.raises(Misuse, match="order"):
        echo_operator(s, 1.0, 0.0, ROLL_OFF, "GDG")


def test_exact_is_pulse_by_pulse_and_the_approximations_are_not() -> None:
    s, delay, doppler = symbols(256), 10.247, 0.35 / 64  # the Doppler of papers/001's Table I: a third of a subcarrier
    physics = pulse_by_pulse(s, delay, doppler, ROLL_OFF, span=40)

    def miss_db(order: str) -> float:
        model = echo_operator(s, delay, doppler, ROLL_OFF, order) * np.exp(2j * np.pi * doppler * delay)
        return float(10 * np.log10(np.sum(np.abs(model - physics) ** 2) / np.sum(np.abs(physics) ** 2)))

    assert miss_db("exact") < -70
    assert -50 < miss_db("DG") < -36
    assert miss_db("GD") > -16


def test_fold_is_a_plain_sum_over_images() -> None:
    f = np.fft.fftfreq(50)
    for delay, shift, b in ((3.3, 0.0, 0.1), (-0.4, 0.01, 0.3), (12.0, -0.02, 1.0), (2.2, 0.0, 0.0)):
        pair = [
            root_spectrum(f + i, b) * root_spectrum(f + i + shift, b) * np.exp(-2j * np.pi * (f + i) * delay)
            for i in (-1, 0, 1)
        ]
        value, slope = folded_spectrum(50, delay, shift, b)
        if b:
            np.testing.assert_allclose(value, sum(pair), atol=1e-12)
            np.testing.assert_allclose(
                slope, sum(-2j * np.pi * (f + i) * p for i, p in zip((-1, 0, 1), pair, strict=True)), atol=1e-11
            )
        else:
            np.testing.assert_allclose(np.abs(value), 1, atol=1e-12)
    with pytest.raises(Misuse, match="roll_off"):
        folded_spectrum(8, 0.0, 0.0, 1.5)


def test_templates_and_their_derivatives() -> None:
    sent = np.stack([symbols(128, f) for f in range(3)])
    start = np.array([-240.0, -60.0, 130.5])
    spectrum = np.fft.fft(sent)
    made = templates(spectrum, start, 6.4, 0.0013, ROLL_OFF)
    expected = (
        echo_operator(sent, 6.4, 0.0013, ROLL_OFF, "exact") * np.exp(2j * np.pi * 0.0013 * (6.4 + start))[:, None]
    )
    np.testing.assert_allclose(made[0], expected, atol=1e-12)
    h = 1e-6
    along = (
        templates(spectrum, start, 6.4 + h, 0.0013, ROLL_OFF)[0]
        - templates(spectrum, start, 6.4 - h, 0.0013, ROLL_OFF)[0]
    ) / (2 * h)
    np.testing.assert_allclose(made[1], along, atol=1e-7)
    across = (
        templates(spectrum, start, 6.4, 0.0013 + h, ROLL_OFF)[0]
        - templates(spectrum, start, 6.4, 0.0013 - h, ROLL_OFF)[0]
    ) / (2 * h)
    assert np.linalg.norm(made[2] - across) < 3e-3 * np.linalg.norm(
        across
    )  # the Doppler's pull on the pulse is left out
    single = templates(spectrum.astype(np.complex64), start, 6.4, 0.0013, ROLL_OFF)
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single[:2], made[:2], atol=3e-6)


def test_noise_peaks_as_often_as_foretold() -> None:
    # an independent field: white noise through a flat band in delay and equal weights in Doppler, finely sampled
    rng = np.random.default_rng(1)
    chains, lags, bins, span, trials = 2, 24, 9, 40, 400
    delay, doppler = np.arange(0, lags, 0.2), np.linspace(-bins / 2 / span, bins / 2 / span, 73)
    f = (np.arange(64) + 0.5) / 64 - 0.5
    left, right = (
        np.exp(2j * np.pi * np.outer(delay, f)) / 8,
        np.exp(2j * np.pi * np.outer(np.arange(span), doppler)) / np.sqrt(span),
    )
    top = np.empty(trials)
    for i in range(trials):
        w = (rng.standard_normal((chains, 64, span)) + 1j * rng.standard_normal((chains, 64, span))) * np.sqrt(0.5)
        top[i] = np.max(np.sum(np.abs(left @ w @ right) ** 2, axis=0))
    sides = (2 * np.pi * np.std(f) * delay[-1], 2 * np.pi * np.std(np.arange(span)) * (doppler[-1] - doppler[0]))
    for probability in (0.2, 0.05):
        level = peak_threshold(probability, chains, sides)
        np.testing.assert_allclose(peak_probability(level, chains, sides), probability, rtol=1e-9)
        rate = np.mean(top > level)
        assert abs(rate - probability) < 3 * np.sqrt(probability * (1 - probability) / trials) + 0.1 * probability


def test_threshold_of_a_single_cell_is_the_gamma_quantile() -> None:
    assert peak_threshold(1e-3, 1, (0.0, 0.0)) == pytest.approx(np.log(1e3), rel=1e-3)  # one chain: exponential
    with pytest.raises(Misuse, match="probability"):
        peak_threshold(0.0, 4, (1.0, 1.0))


def test_curvature_is_that_of_white_frames() -> None:
    start = (-300.0, 0.0, 300.0)
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft(rng.standard_normal((3, 256)) + 1j * rng.standard_normal((3, 256)))
    found = []
    for delay in np.arange(8) / 8 + 3:
        t, dl, dn = templates(spectrum, np.array(start) - 127.5, delay, 0.0, 0.1)
        off = [d - np.vdot(t, d) / np.vdot(t, t) * t for d in (dl, dn)]
        found.append([np.linalg.norm(d) / np.linalg.norm(t) for d in off])
    np.testing.assert_allclose(
        np.mean(found, axis=0), field_curvature(256, 0.1, tuple(s - 127.5 for s in start)), rtol=0.05
    )
