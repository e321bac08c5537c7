"""The joint model: its information against finite differences of a dense model, its bound against closed forms, its fit against a dense search."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import LIGHT_MPS, Upa, direction_from, steering
from hal.errors import Misuse
from twin.physics.bounds import echo_bound
from twin.physics.combiners import closed_form, random_phases, squinted
from twin.physics.directions import main_lobe
from twin.physics.hybrid_bound import angle_bound, angle_slopes, combiner_gram, precoder_gram
from twin.physics.hybrid_echo import JointFit, aperture, bound, pattern
from twin.physics.hybrid_precoding import sensing_precoder

CARRIER, RATE, ROLL_OFF, SIZE = 0.3e12, 30.72e6, 0.1, 256
ARRAY = Upa(8, 8).build(CARRIER, np.zeros(3), np.eye(3))
AHEAD = direction_from(0.26, 0.05)
START = np.array([-300.25, 20.5])
DELAY, DOPPLER, NOISE = 10.2471, 0.0054, 2.5


def symbols(streams: int, frames: int = 2) -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.exp(0.5j * np.pi * rng.integers(0, 4, (streams, frames, SIZE)))


def precoder(streams: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    away = direction_from(0.26 + rng.uniform(-0.2, 0.2, streams), 0.05 + rng.uniform(-0.2, 0.2, streams))
    return np.conj(steering(ARRAY, away, np.float64(CARRIER))).T


def seen(w: np.ndarray, f: np.ndarray, width: float = 1.0):
    lobe = main_lobe(ARRAY, w.conj(), w.conj().T @ w, CARRIER, width)
    return aperture(lobe, ARRAY, f.T)


def dense(w: np.ndarray, f: np.ndarray, s: np.ndarray, p: np.ndarray, pull: float) -> np.ndarray:
    """Whitened outputs of papers/001 eq (28) with nothing separated: every element, every sample; ``p`` = uy, uz, l, nu, Re a, Im a."""
    u = np.array([np.sqrt(1 - p[0] ** 2 - p[1] ** 2), p[0], p[1]])
    a = np.exp(2j * np.pi * CARRIER / LIGHT_MPS * (ARRAY.position_m @ u))
    line = np.zeros(SIZE, complex)
    grid = np.fft.fftfreq(SIZE)

    def root(x):
        return np.cos(np.clip((np.abs(x) - (1 - ROLL_OFF) / 2) * np.pi / (2 * ROLL_OFF), 0, np.pi / 2))

    for i in (-1, 0, 1):
        line += root(grid + i) * root(grid + i + pull) * np.exp(-2j * np.pi * (grid + i) * p[2])
    x = np.einsum("ns,sfq->nfq", f, np.fft.ifft(np.fft.fft(s) * line))
    x = x * np.exp(2j * np.pi * p[3] * (START[:, None] + np.arange(SIZE)))
    y = (p[4] + 1j * p[5]) * a[:, None, None] * np.einsum("n,nfq->fq", a, x)
    q, _ = np.linalg.qr(w)
    return np.einsum("nr,nfq->rfq", q.conj(), y).reshape(-1)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("known", [False, True])
def test_information_is_that_of_a_numerical_jacobian(streams, known):
    w, f, s = random_phases(ARRAY, 4, np.random.default_rng(1)), precoder(streams), symbols(streams)
    at = np.array([AHEAD[1], AHEAD[2], DELAY, DOPPLER, 0.3, -0.4])
    if streams == 1 and known:
        pytest.skip("one stream's own pattern is part of its free amplitude")
    step = np.array([1e-5, 1e-5, 1e-4, 1e-7, 1e-3, 1e-3])
    jacobian = []
    for i in range(6):
        e = np.zeros(6)
        e[i] = step[i]
        coarse, fine = (
            (dense(w, f, s, at + h * e, DOPPLER) - dense(w, f, s, at - h * e, DOPPLER)) / (2 * h * step[i])
            for h in (2, 1)
        )
        jacobian.append((4 * fine - coarse) / 3)
    tangent = np.array(jacobian)
    leak = np.einsum("rc,sn->rscn", np.eye(4), s.reshape(streams, -1)).reshape(4 * streams, -1)  # fitted beside
    q, _ = np.linalg.qr(leak.T)
    tangent = tangent - (tangent @ q.conj()) @ q.T
    fisher = 2 / NOISE * np.real(tangent.conj() @ tangent.T)
    expected = np.linalg.inv(fisher[:4, :4]) if known else np.linalg.inv(fisher)[:4, :4]
    amplitude = np.array([0.3 - 0.4j])
    if streams == 1:
        amplitude = amplitude * (f.T @ steering(ARRAY, AHEAD, np.float64(CARRIER)))
    where = np.array([AHEAD[1:]]), np.array([DELAY]), np.array([DOPPLER])
    got = bound(seen(w, f), s, START, ROLL_OFF, *where, amplitude, NOISE, amplitude_known=known)
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(got / np.outer(scale, scale), expected / np.outer(scale, scale), atol=2e-7)


def test_the_angle_bound_is_the_joint_bound_and_the_digital_one_for_the_closed_form():
    f = sensing_precoder(ARRAY, AHEAD, CARRIER, 0.1, 4)
    slopes = angle_slopes(ARRAY, AHEAD, CARRIER)
    light = precoder_gram(slopes, f)
    digital = angle_bound(combiner_gram(slopes, None), light, 0.2, NOISE, 2 * SIZE)
    w = closed_form(ARRAY, AHEAD, CARRIER)
    np.testing.assert_allclose(
        angle_bound(combiner_gram(slopes, w), light, 0.2, NOISE, 2 * SIZE), digital, rtol=1e-10, atol=1e-18
    )
    u, size, v = np.linalg.svd(f, full_matrices=False)
    s = np.einsum("st,tfq->sfq", v[:1], symbols(4))
    amplitude = 0.2 * size[0] * (u[:, 0] @ slopes[:, 0])
    where = np.array([AHEAD[1:]]), np.array([10.0]), np.array([0.0])
    got = bound(seen(w, u[:, :1] * size[0]), s, START, ROLL_OFF, *where, np.array([amplitude]), NOISE)[:2, :2]
    turn = np.array([[AHEAD[0], -AHEAD[2] * np.sin(0.26)], [0, np.cos(0.05)]])
    energy = np.sum(np.abs(s) ** 2) / (2 * SIZE)
    np.testing.assert_allclose(got * energy, turn @ digital @ turn.T, rtol=0.01, atol=1e-3 * np.max(digital))


def test_the_bound_agrees_with_the_white_symbol_bound():
    w = squinted(ARRAY, AHEAD, CARRIER, 0.25)
    rng = np.random.default_rng(0)
    s = np.exp(0.5j * np.pi * rng.integers(0, 4, (1, 8, SIZE)))
    start = 400.0 * np.arange(8) - 1500
    where = np.array([AHEAD[1:]]), np.array([DELAY]), np.array([DOPPLER])
    got = bound(seen(w, np.ones((64, 1))), s, start, ROLL_OFF, *where, np.array([0.5]), NOISE)
    cosine = np.array([AHEAD[1:]])
    b = w.conj().T @ steering(ARRAY, AHEAD, np.float64(CARRIER))
    step = 1e-6
    slope = []
    for i in range(2):
        ends = []
        for sign in (1, -1):
            c = cosine[0] + sign * step * np.eye(2)[i]
            d = np.array([np.sqrt(1 - c @ c), *c])
            ends.append(w.conj().T @ steering(ARRAY, d, np.float64(CARRIER)))
        slope.append((ends[0] - ends[1]) / (2 * step))
    expected = echo_bound(
        amplitude=0.5,
        b=b,
        b_gradient=np.array(slope),
        noise_covariance=NOISE * (w.conj().T @ w),
        carrier_hz=CARRIER,
        sample_rate_hz=RATE,
        roll_off=ROLL_OFF,
        samples=SIZE,
        frame_t_ns=np.rint((start + 1500) / RATE * 1e9).astype(int),
        delay_s=DELAY / RATE,
    )
    scale = np.array([1, 1, LIGHT_MPS / (2 * RATE), RATE * LIGHT_MPS / (2 * CARRIER)])
    np.testing.assert_allclose(np.sqrt(np.diag(got)) * scale, np.sqrt(np.diag(expected)), rtol=0.04)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_fit_without_noise_finds_two_targets_within_a_cell(streams):
    w, f, s = squinted(ARRAY, AHEAD, CARRIER), precoder(streams), symbols(streams)
    met = seen(w, f)
    at = np.array(
        [[AHEAD[1], AHEAD[2], 10.2, 0.0050, 1.0, 0.0], [AHEAD[1] + 0.03, AHEAD[2] - 0.02, 10.7, 0.0056, 0.3, 0.7]]
    )
    q, _ = np.linalg.qr(w)
    turn = met.lobe.whitener @ w.conj().T @ q  # the lobe's whitening and the test's differ by a rotation
    data = sum(dense(w, f, s, p, p[3]).reshape(4, 2, SIZE) for p in at)
    data = np.einsum("ij,jfq->ifq", turn, data)
    work = JointFit(data, s, START, ROLL_OFF, met, 2)
    for k in range(2):
        work.add(at[k, :2] + 0.004 * (1 - 2 * k), at[k, 2] + 0.08 * (2 * k - 1), at[k, 3] + 0.0001)
    found = work.fit(1e-12, steps=40)
    np.testing.assert_allclose(found.cosine, at[:, :2], atol=1e-6)
    np.testing.assert_allclose(found.delay, at[:, 2], atol=1e-5)
    np.testing.assert_allclose(found.doppler, at[:, 3], atol=1e-8)
    assert np.sum(np.abs(work.residual(found)) ** 2) < 1e-8 * np.sum(np.abs(data) ** 2)


def test_patterns_are_the_projected_steering_vectors():
    w, f = random_phases(ARRAY, 4, np.random.default_rng(1)), precoder(3)
    met = seen(w, f)
    b, c = pattern(met, np.array([AHEAD[1:]]))
    a = steering(ARRAY, AHEAD, np.float64(CARRIER))
    np.testing.assert_allclose(b[0, 0], met.lobe.projection @ a, atol=1e-9)
    np.testing.assert_allclose(c[0, 0], f.T @ a, atol=1e-9)


def test_what_cannot_be_told_is_said():
    w, f, s = squinted(ARRAY, AHEAD, CARRIER), precoder(1), symbols(1)
    met = seen(w, f)
    two = np.array([AHEAD[1:], AHEAD[1:]]), np.array([DELAY, DELAY]), np.array([DOPPLER, DOPPLER]), np.ones(2)
    with pytest.raises(Misuse, match=r"singular.* targets are one"):
        bound(met, s, START, ROLL_OFF, *two, NOISE)
    work = JointFit(np.zeros((4, 2, SIZE)), s, START, ROLL_OFF, met, 1)
    work.add(AHEAD[1:], DELAY, DOPPLER)
    with pytest.raises(Misuse, match="room = 1: is full"):
        work.add(AHEAD[1:], DELAY, DOPPLER)
    pair = np.ones((64, 2))
    with pytest.raises(Misuse, match=r"combiner: is singular .* linearly independent"):
        combiner_gram(angle_slopes(ARRAY, AHEAD, CARRIER), pair)
