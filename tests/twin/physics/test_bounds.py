from functools import lru_cache

import numpy as np
import pytest
from scipy import constants

from hal.errors import Misuse
from twin.physics.bounds import angle_covariance, delay_information, direction_information, echo_bound

F = 100e9
C = constants.c
SETUP = dict(carrier_hz=F, sample_rate_hz=64e6, roll_off=0.25, samples=64, frame_t_ns=np.arange(16) * 1600)


def bound(b, slope, amplitude, noise_w, noise_covariance=None, **setup):
    w = np.eye(b.shape[-1]) if noise_covariance is None else noise_covariance
    noise = np.asarray(noise_w)[..., None, None] * w
    return echo_bound(amplitude=amplitude, b=b, b_gradient=slope, noise_covariance=noise, **(SETUP | setup))


def planar(columns, rows):
    y, z = np.meshgrid(np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2, indexing="ij")
    return np.stack([y.ravel(), z.ravel()], axis=1) / 2  # in wavelengths


def outputs(position, response, uy, uz):
    """b and its derivatives: combiner outputs of a plane wave."""
    a = np.exp(2j * np.pi * position @ [uy, uz])
    return response.T @ a, np.stack([response.T @ (2j * np.pi * p * a) for p in position.T])


def four_beams(position, uy, uz, step):
    shifts = [(step, step), (step, -step), (-step, step), (-step, -step)]
    beams = [np.exp(-2j * np.pi * position @ [uy + a, uz + b]) for a, b in shifts]
    return np.stack(beams, axis=1) / np.sqrt(len(position))


def root_raised_cosine(t, b):
    """The textbook pulse of unit energy, one symbol a unit of time."""
    t = np.asarray(t, float)
    out = np.empty_like(t)
    zero, pole = np.isclose(t, 0), np.isclose(abs(4 * b * t), 1)
    rest = ~(zero | pole)
    x = t[rest]
    out[rest] = (np.sin(np.pi * x * (1 - b)) + 4 * b * x * np.cos(np.pi * x * (1 + b))) / (
        np.pi * x * (1 - (4 * b * x) ** 2)
    )
    out[zero] = 1 - b + 4 * b / np.pi
    out[pole] = b / np.sqrt(2) * ((1 + 2 / np.pi) * np.sin(np.pi / 4 / b) + (1 - 2 / np.pi) * np.cos(np.pi / 4 / b))
    return out


def received(symbols, delay, doppler, b, times, over=8, span=24):
    """Cyclic frames: SRRC pulses on a fine grid, delayed exactly, filtered by the SRRC again, sampled at the symbol rate.

    ``delay`` in samples, ``doppler`` in turns a sample, ``times`` of every sample in samples. Doppler acts on the samples, as
    across one pulse it is negligible.
    """
    pulse = pulses(delay % symbols.shape[1], symbols.shape[1], b, over, span)
    frames = sum(p * np.roll(symbols, k, axis=1) for k, p in enumerate(pulse))
    return frames * np.exp(2j * np.pi * doppler * times)


@lru_cache
def pulses(delay, size, b, over, span):
    fine = np.arange(-span * over, span * over + 1) / over
    matched = root_raised_cosine(fine, b)
    lag = (np.arange(size) - delay + size / 2) % size - size / 2
    return [(root_raised_cosine(fine - x, b) * matched).sum() / over for x in lag]


def brute_information(position, response, symbols, uy, uz, range_m, velocity, amplitude, noise_w, setup):
    """Fisher information by central differences of all samples, six real parameters, Schur complement of the amplitude."""
    samples = symbols.shape[1]
    rate = setup["sample_rate_hz"]
    frame = setup["frame_t_ns"][:, None] * 1e-9 * rate
    times = frame + np.arange(samples)

    def model(p):
        b, _ = outputs(position, response, p[0], p[1])
        delay, doppler = 2 * p[2] / C * rate, 2 * p[3] * F / C / rate
        y = received(symbols, delay, doppler, setup["roll_off"], times)
        return (p[4] + 1j * p[5]) * b[:, None] * y.reshape(1, -1)

    at = np.array([uy, uz, range_m, velocity, np.real(amplitude), np.imag(amplitude)])
    step = np.array([1e-5, 1e-5, 1e-4, 1e-2, 1e-3, 1e-3])
    slopes = [(model(at + h) - model(at - h)) / (2 * h.sum()) for h in np.diag(step)]
    weight = np.linalg.inv(response.T @ response.conj())
    info = np.array([[2 / noise_w * np.einsum("ct,cd,dt", i.conj(), weight, j).real for j in slopes] for i in slopes])
    return info[:4, :4] - info[:4, 4:] @ np.linalg.solve(info[4:, 4:], info[4:, :4])


def qpsk(rng, frames, samples):
    return np.exp(1j * np.pi / 4 * (2 * rng.integers(0, 4, (frames, samples)) + 1))


def zadoff_chu(rng, frames, samples):
    """White to the last digit within a frame, so that no average over data is left."""
    root = rng.choice([r for r in range(1, samples) if np.gcd(r, samples) == 1], frames)
    n = np.arange(samples)
    return np.exp(-1j * np.pi / samples * root[:, None] * n * (n + samples % 2))


@pytest.mark.parametrize("range_m", [37.0, 41.35, 43.33])
@pytest.mark.parametrize(
    ("symbols", "draws", "within"), [(qpsk, 60, 1.2e-2), (zadoff_chu, 3, 1e-3)], ids=["qpsk", "zadoff-chu"]
)
def test_against_the_differentiated_samples_of_a_small_model(symbols, draws, within, range_m):
    # QPSK: the range's information scatters by 2.8 % from frame to frame of 16 x 64 symbols, its mean over 60 by 0.36 %
    samples, frame_t_ns = 64, np.cumsum(1500 + 100 * (np.arange(16) % 3))
    setup = SETUP | dict(samples=samples, frame_t_ns=frame_t_ns)
    position, uy, uz = planar(4, 3), 0.21, -0.13
    rng = np.random.default_rng(2)
    # beams that overlap and point elsewhere: correlated noise, unequal outputs
    response = four_beams(position, 0.12, -0.1, 0.15) * np.exp(1j * rng.uniform(0, 0.4, (12, 4)))
    amplitude, noise_w, at = 0.3 - 0.7j, 2.5, (uy, uz, range_m, 14.0)
    brute = sum(
        brute_information(position, response, symbols(rng, 16, samples), *at, amplitude, noise_w, setup)
        for _ in range(draws)
    )
    w = response.T @ response.conj()
    covariance = bound(*outputs(position, response, uy, uz), amplitude, noise_w, w, delay_s=2 * range_m / C, **setup)
    size = np.sqrt(np.outer(np.diag(brute), np.diag(brute))) / draws
    np.testing.assert_allclose(np.linalg.inv(covariance) / size, brute / draws / size, atol=within)
    # the same, averaged over the fraction of a sample, is near but not it
    average = bound(*outputs(position, response, uy, uz), amplitude, noise_w, w, **setup)
    assert 0.002 < abs(average[2, 2] / covariance[2, 2] - 1) < 0.3


def circulant_sums(b, delay, size=64):
    """g and g' at all integers, by the inverse transform of a finely sampled spectrum: no closed form in sight."""
    f = (np.arange(100_000) + 0.5) / 100_000 * 2 - 1
    edge = np.clip((abs(f) - (1 - b) / 2) / b, 0, 1) if b else (abs(f) > 0.5).astype(float)
    spectrum = np.cos(np.pi / 2 * edge) ** 2
    k = np.arange(-size, size + 1) - delay
    phase = np.exp(2j * np.pi * np.outer(k, f[spectrum > 0]))
    spectrum, f = spectrum[spectrum > 0], f[spectrum > 0]
    g = (phase @ spectrum).real * 2 / 100_000
    slope = (phase @ (2j * np.pi * f * spectrum)).real * 2 / 100_000
    return g, slope


@pytest.mark.parametrize("b", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 7.85])
def test_delay_information_is_the_sum_over_samples(b, delay):
    g, slope = circulant_sums(b, delay % 1, size=24)
    d, e = delay_information(b, delay)
    assert e == pytest.approx((g**2).sum(), rel=1e-5)
    assert d == pytest.approx((slope**2).sum() - (g * slope).sum() ** 2 / (g**2).sum(), rel=2e-4)


def test_delay_information_known_values():
    d, e = delay_information(0.0)
    assert (d, e) == (pytest.approx(np.pi**2 / 3), 1.0)
    # theory of papers/001's sampled receiver: B_rms about 0.27 of the sample rate at its roll-off
    assert np.sqrt(delay_information(0.25)[0]) / (2 * np.pi) == pytest.approx(0.27, abs=0.01)
    fractions = (np.arange(64) + 0.5) / 64
    for b in (0.1, 0.5, 1.0):
        d, e = delay_information(b, fractions)
        mean_d, mean_e = delay_information(b)
        assert e.mean() == pytest.approx(mean_e, rel=1e-12)
        assert 0 < mean_d - d.mean() < np.pi**2 * b**2 / 23
        # the whole band would tell more than its folded samples
        assert np.all(d < 4 * np.pi**2 * (1 / 12 + b**2 * (1 / 4 - 2 / np.pi**2)))
        np.testing.assert_allclose(delay_information(b, fractions + 12)[0], d, rtol=1e-12)


def test_closed_forms_of_an_aligned_digital_array():
    # sigma_theta, sigma_r and sigma_v of a 16 x 16 array with integrated SNR rho: theory of papers/001
    position = planar(16, 16)
    b, slope = outputs(position, np.eye(256), 0.0, 0.0)
    amplitude, noise_w = 1e-3, 1e-4
    rho = amplitude**2 * 256 * 64 * 16 / noise_w
    c = bound(b, slope, amplitude, noise_w, roll_off=0.0)
    assert c[0, 0] == pytest.approx(6 / (np.pi**2 * (16**2 - 1) * rho), rel=1e-12)
    assert c[1, 1] == pytest.approx(c[0, 0], rel=1e-12)
    sigma_r = C / 64e6 / 2 / (2 * np.pi * np.sqrt(1 / 12) * np.sqrt(2 * rho))
    assert np.sqrt(c[2, 2]) == pytest.approx(sigma_r, rel=1e-12)
    # a dwell of T = 16 frames: lambda / 2 T sqrt(12) / (2 pi sqrt(2 rho)), to the rounding of n^2 - 1
    sigma_v = C / F / 2 / (16 * 1.6e-6) * np.sqrt(12) / (2 * np.pi * np.sqrt(2 * rho))
    assert np.sqrt(c[3, 3]) == pytest.approx(sigma_v, rel=3e-3)
    np.testing.assert_allclose(c[0, 1], 0, atol=1e-12 * c[0, 0])
    assert np.all(c[2:, :2] == 0)
    assert c[2, 3] == 0
    # off boresight in angles
    az, el = 0.6, 0.3
    u = np.array([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)])
    angles = angle_covariance(c[:2, :2], u)
    assert np.sqrt(angles[1, 1]) == pytest.approx(np.sqrt(c[1, 1]) / np.cos(el))


def test_angles_by_differences():
    u = np.array([[0.8, 0.5, 0.0], [0.7, -0.4, 0.0]])
    u[:, 2] = np.sqrt(1 - u[:, 0] ** 2 - u[:, 1] ** 2) * [1, -1]
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 2, 2)) * 1e-3
    got = angle_covariance(root @ root.swapaxes(-1, -2), u)

    def angles(uy, uz):
        return np.array([np.arctan2(uy, np.sqrt(1 - uy**2 - uz**2)), np.arcsin(uz)])

    for i in range(2):
        h = 1e-6
        jacobian = np.stack(
            [
                (angles(u[i, 1] + h, u[i, 2]) - angles(u[i, 1] - h, u[i, 2])) / (2 * h),
                (angles(u[i, 1], u[i, 2] + h) - angles(u[i, 1], u[i, 2] - h)) / (2 * h),
            ],
            axis=1,
        )
        np.testing.assert_allclose(got[i], jacobian @ root[i] @ root[i].T @ jacobian.T, rtol=1e-6)


def test_no_combiner_beats_the_digital_array_and_four_close_beams_reach_it():
    position, uy, uz = planar(8, 8), 0.1, 0.05
    digital, _ = direction_information(*outputs(position, np.eye(64), uy, uz), np.eye(64))
    rng = np.random.default_rng(1)
    for response in [np.exp(2j * np.pi * rng.random((64, 4))) / 8, four_beams(position, uy, uz, 0.05)]:
        info, _ = direction_information(*outputs(position, response, uy, uz), response.T @ response.conj())
        assert np.linalg.eigvalsh(digital - info)[0] > -1e-9
    # ratios of standard deviations at a tenth and a quarter of 2/n from an independent study: 1.0001 and 1.005
    for step, ratio in ((0.1 * 2 / 8, 1.0001), (0.25 * 2 / 8, 1.005)):
        beams = four_beams(position, uy, uz, step)
        info, _ = direction_information(*outputs(position, beams, uy, uz), beams.T @ beams.conj())
        got = np.sqrt(np.linalg.inv(info)[0, 0] / np.linalg.inv(digital)[0, 0])
        assert got == pytest.approx(ratio, abs=5e-4)


def test_whitening_makes_any_basis_of_the_same_beams_equal():
    position, uy, uz = planar(6, 6), 0.1, 0.05
    beams = four_beams(position, 0.12, 0.0, 0.1)
    mix = np.random.default_rng(3).normal(size=(4, 4))
    for response in (beams, beams @ mix, np.linalg.qr(beams)[0]):
        b, slope = outputs(position, response, uy, uz)
        c = bound(b, slope, 0.1, 1.0, noise_covariance=response.T @ response.conj())
        if response is beams:
            expected = c
        np.testing.assert_allclose(c, expected, rtol=1e-9, atol=1e-12)
    b, slope = outputs(position, response, uy, uz)
    np.testing.assert_allclose(bound(b, slope, 0.1, 1.0), expected, rtol=1e-9, atol=1e-12)
    # left out where it matters, the bound is another
    b, slope = outputs(position, beams, uy, uz)
    assert not np.allclose(bound(b, slope, 0.1, 1.0), expected, rtol=0.05)


def test_chains_on_one_beam_count_once_and_idle_chains_not_at_all():
    position, uy, uz = planar(6, 6), 0.1, 0.05
    beams = four_beams(position, 0.12, 0.0, 0.1)
    more = np.concatenate([beams, beams[:, :2], np.zeros((36, 1))], axis=1)
    once, twice = (
        bound(*outputs(position, response, uy, uz), 0.1, 1.0, response.T @ response.conj())
        for response in (beams, more)
    )
    np.testing.assert_allclose(twice, once, rtol=1e-9, atol=1e-12)
    same = np.repeat(beams[:, :1], 4, axis=1)
    alone = bound(*outputs(position, same, uy, uz), 0.1, 1.0, same.T @ same.conj())
    assert np.isinf(alone[0, 0])
    assert np.isfinite(alone[2, 2])


def test_what_is_not_seen_is_infinite():
    position = planar(8, 1)
    everything = np.eye(8)
    b, slope = outputs(position, everything, 0.2, 0.0)
    c = bound(b, slope, 1.0, 1.0)
    assert np.isfinite(c[0, 0])
    assert np.isinf(c[1, 1])  # a line along y knows nothing of uz
    one = np.ones((8, 1)) / np.sqrt(8)
    c = bound(*outputs(position, one, 0.2, 0.0), 1.0, 1.0)
    assert np.isinf(c[0, 0])
    assert np.isfinite(c[2, 2])
    dark = bound(b, slope, 0.0, 1.0)
    np.testing.assert_array_equal(dark, np.diag([np.inf] * 4))
    off = bound(0 * b, 0 * slope, 1.0, 1.0)
    np.testing.assert_array_equal(off, np.diag([np.inf] * 4))
    # in the null of every beam the slope alone tells nothing to first order, and nothing is promised
    null = bound(0 * b, slope, 1.0, 1.0)
    np.testing.assert_array_equal(null, np.diag([np.inf] * 4))
    # a diagonal line of elements sees only uy + uz: neither alone
    slanted = np.stack([np.arange(8), np.arange(8)], axis=1) / 2.0
    c = bound(*outputs(slanted, everything, 0.2, 0.1), 1.0, 1.0)
    assert np.isinf(c[0, 0])
    assert np.isinf(c[1, 1])
    instant = bound(b, slope, 1.0, 1.0, samples=1, frame_t_ns=np.array([5]))
    assert np.isinf(instant[3, 3])


def test_batches_equal_one_at_a_time():
    position = planar(4, 4)
    beams = four_beams(position, 0.0, 0.0, 0.1)
    rng = np.random.default_rng(5)
    u = rng.uniform(-0.3, 0.3, (3, 2, 2))
    pairs = [[outputs(position, beams, *u[i, j]) for j in range(2)] for i in range(3)]
    b = np.array([[p[0] for p in row] for row in pairs])
    slope = np.array([[p[1] for p in row] for row in pairs])
    amplitude, noise, delay = rng.normal(size=(3, 2)), np.array([1.0, 3.0]), rng.uniform(0, 1e-6, (3, 1))
    amplitude[1, 1] = 0.0
    w = beams.T @ beams.conj()
    got = bound(b, slope, amplitude, noise, delay_s=delay, noise_covariance=w)
    assert got.shape == (3, 2, 4, 4)
    for i, j in np.ndindex(3, 2):
        alone = bound(b[i, j], slope[i, j], amplitude[i, j], noise[j], delay_s=delay[i, 0], noise_covariance=w, **SETUP)
        np.testing.assert_allclose(got[i, j], alone, rtol=1e-12)
    each = bound(b, slope, amplitude, noise, delay_s=delay, noise_covariance=np.tile(w, (3, 2, 1, 1)), **SETUP)
    np.testing.assert_allclose(each, got, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(samples=0), "samples = 0"),
        (dict(frame_t_ns=np.array([], int)), "frames = 0"),
        (dict(sample_rate_hz=np.nan), "sample_rate_hz = nan"),
        (dict(carrier_hz=0.0), "carrier_hz"),
        (dict(roll_off=1.5), "roll_off = 1.5"),
    ],
)
def test_misuse_is_named(change, says):
    b, slope = outputs(planar(2, 2), np.eye(4), 0.0, 0.0)
    with pytest.raises(Misuse, match=says):
        bound(b, slope, 1.0, 1.0, **change)


def test_misuse_of_directions_and_noise_is_named():
    with pytest.raises(Misuse, match="ux > 0"):
        angle_covariance(np.eye(2), np.array([0.0, 1.0, 0.0]))
    with pytest.raises(Misuse, match="noise_covariance"):
        bound(*outputs(planar(2, 2), np.eye(4), 0.0, 0.0), 1.0, 0.0)
    with pytest.raises(Misuse, match="finite"):
        angle_covariance(np.diag([np.inf, 1.0]), np.array([1.0, 0.0, 0.0]))
