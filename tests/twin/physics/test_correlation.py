import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants, integrate, special

from hal.errors import Misuse
from twin.physics.correlation import (
    jakes,
    one_ring_correlation,
    one_ring_factor,
    one_ring_nodes,
    one_ring_rays,
    ray_gain,
)
from twin.physics.draws import Draws

F = 100e9
WAVE = constants.c / F


def planar(columns, rows):
    y, z = np.meshgrid(np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2, indexing="ij")
    return np.stack([0 * y.ravel(), y.ravel(), z.ravel()], axis=1) * WAVE / 2


def line(elements):
    return planar(elements, 1)


def dense(position, azimuth, elevation, density, nodes=6001):
    """Midpoint or trapezoid sums far finer than needed, over densities given as (offsets, weights)."""
    (da, wa), (de, we) = density
    out = 0
    for a, w in zip(da, wa, strict=True):
        for b, v in zip(de, we, strict=True):
            az, el = azimuth + a, elevation + b
            u = np.array([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)])
            s = np.exp(2j * np.pi / WAVE * position @ u)
            out = out + w * v * np.outer(s, s.conj())
    return out / len(position)


def gauss(spread, nodes):
    x, w = np.polynomial.legendre.leggauss(nodes)
    return spread * x, w / 2


def test_uniform_against_adaptive_quadrature():
    position, azimuth, spread = line(8), 0.4, np.deg2rad(5)
    r = one_ring_correlation(position, F, azimuth, 0.0, spread)
    for i, j in [(0, 1), (0, 7), (2, 6)]:
        d = (position[i] - position[j])[1] * 2 * np.pi / WAVE
        real = integrate.quad(lambda a, d=d: np.cos(d * np.sin(azimuth + a)), -spread, spread, epsabs=1e-13)[0]
        imag = integrate.quad(lambda a, d=d: np.sin(d * np.sin(azimuth + a)), -spread, spread, epsabs=1e-13)[0]
        assert r[i, j] == pytest.approx((real + 1j * imag) / (2 * spread) / 8, abs=1e-13)


@pytest.mark.parametrize("elements", [1, 2, 8, 64, 256])
@pytest.mark.parametrize("degrees", [0.1, 1, 5, 20, 60])
def test_uniform_nodes_are_enough_for_any_array_and_spread(elements, degrees):
    spread = np.deg2rad(degrees)
    position = line(elements)
    x, w = gauss(spread, 1200)
    for azimuth in (0.0, 0.9):
        s = np.exp(2j * np.pi / WAVE * np.outer(position[:, 1], np.sin(azimuth + x)))
        fine = (s * w) @ s.conj().T / elements
        np.testing.assert_allclose(one_ring_correlation(position, F, azimuth, 0.0, spread), fine, atol=1e-12)


@pytest.mark.parametrize("elements", [2, 64, 256])
def test_scatterers_all_round_the_array_give_the_bessel_function(elements):
    position = line(elements)
    distance = abs(position[:, None, 1] - position[None, :, 1])
    r = one_ring_correlation(position, F, 0.7, 0.0, np.pi)
    np.testing.assert_allclose(r, special.j0(2 * np.pi / WAVE * distance) / elements, atol=1e-12)


def test_twenty_four_nodes_would_not_do():
    # the trap: enough for a small array, wrong by about half for a large one
    position, spread = line(64), np.deg2rad(20)
    x, w = gauss(spread, 24)
    s = np.exp(2j * np.pi / WAVE * np.outer(position[:, 1], np.sin(x)))
    coarse = (s * w) @ s.conj().T / 64
    r = one_ring_correlation(position, F, 0.0, 0.0, spread)
    assert np.linalg.norm(coarse - r) > 0.1 * np.linalg.norm(r)
    assert one_ring_nodes(2 * np.pi * 31.5 / 2, spread)[0].size > 24


def test_gaussian_against_its_closed_form_when_small_and_fine_sums_when_wide():
    # for a small spread sin(az + a) ~ sin az + a cos az, and E exp(j w a) = exp(-w^2 s^2 / 2)
    position, azimuth, spread = line(16), 0.5, 1e-4
    d = 2 * np.pi / WAVE * (position[:, None, 1] - position[None, :, 1])
    closed = np.exp(1j * d * np.sin(azimuth) - (d * np.cos(azimuth) * spread) ** 2 / 2) / 16
    r = one_ring_correlation(position, F, azimuth, 0.0, spread, spectrum="gaussian")
    np.testing.assert_allclose(r, closed, atol=2e-8)
    for degrees in (2, 15, 40):
        spread = np.deg2rad(degrees)
        x = np.linspace(-9, 9, 20001)
        w = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
        position = line(64)
        s = np.exp(2j * np.pi / WAVE * np.outer(position[:, 1], np.sin(azimuth + spread * x)))
        fine = (s * w) @ s.conj().T / 64
        r = one_ring_correlation(position, F, azimuth, 0.0, spread, spectrum="gaussian")
        np.testing.assert_allclose(r, fine, atol=1e-12)


@pytest.mark.parametrize("degrees", [1, 10, 45, 80])
def test_ring_against_fine_sums(degrees):
    s = np.sin(np.deg2rad(degrees))
    around = 2 * np.pi * np.arange(40000) / 40000
    offset = np.arctan2(s * np.sin(around), 1 + s * np.cos(around))
    assert offset.max() == pytest.approx(np.deg2rad(degrees), rel=1e-6)
    position = line(64)
    a = np.exp(2j * np.pi / WAVE * np.outer(position[:, 1], np.sin(0.3 + offset)))
    r = one_ring_correlation(position, F, 0.3, 0.0, np.deg2rad(degrees), spectrum="ring")
    np.testing.assert_allclose(r, a @ a.conj().T / 64 / 40000, atol=1e-12)


def test_planar_array_with_both_spreads_and_a_batch():
    position = planar(4, 3)
    azimuth, elevation = np.array([[-0.5, 0.0, 0.7]]), np.array([[0.0], [-0.3]])
    r = one_ring_correlation(position, F, azimuth, elevation, 0.2, 0.1)
    assert r.shape == (2, 3, 12, 12)
    expected = dense(position, azimuth[0, 2], elevation[1, 0], (gauss(0.2, 40), gauss(0.1, 40)))
    np.testing.assert_allclose(r[1, 2], expected, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["uniform", "gaussian", "ring"]),
    st.floats(-1.2, 1.2),
    st.floats(-0.8, 0.8),
    st.floats(0, 0.5),
    st.floats(0, 0.2),
)
def test_a_correlation_is_hermitian_semidefinite_with_trace_one(spectrum, azimuth, elevation, da, de):
    position = planar(4, 4)
    factor = one_ring_factor(position, F, azimuth, elevation, da, de, spectrum)
    r = one_ring_correlation(position, F, azimuth, elevation, da, de, spectrum)
    assert np.trace(r) == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(r, r.conj().T, atol=1e-16)
    np.testing.assert_allclose(factor @ factor.conj().T, r, atol=1e-15)
    assert np.linalg.eigvalsh(r)[0] > -1e-14
    _, _, weight = one_ring_nodes(50.0, da, de, spectrum)
    assert weight.sum() == pytest.approx(1, abs=1e-13)
    assert np.all(weight >= 0)


def test_no_spread_is_one_steering_vector_in_our_sign():
    position = planar(3, 2)
    u = np.array([np.cos(0.2) * np.cos(0.4), np.cos(0.2) * np.sin(0.4), np.sin(0.2)])
    a = np.exp(2j * np.pi * F / constants.c * position @ u)
    for spectrum in ("uniform", "gaussian", "ring"):
        r = one_ring_correlation(position, F, 0.4, 0.2, 0.0, 0.0, spectrum)
        np.testing.assert_allclose(r, np.outer(a, a.conj()) / 6, atol=1e-14)


def test_jakes():
    # J0's first zero, and papers/004's one block of 70 us at rho = 0.98 (f_d = 645 Hz)
    assert jakes(1.0, special.jn_zeros(0, 1)[0] / (2 * np.pi)) == pytest.approx(0, abs=1e-12)
    assert jakes(645.0, 70e-6) == pytest.approx(0.98, abs=5e-4)
    assert jakes(np.array([[1.0], [2.0]]), np.array([0.0, 1.0, 2.0])).shape == (2, 3)


def rays_of(users, velocity, offset=(40.0, 15.0, -8.5), spread=0.035, rays=12, seed=3, **more):
    entity = np.arange(users)
    return one_ring_rays(
        Draws(seed), entity, np.tile(offset, (users, 1)), np.tile(velocity, (users, 1)), spread, rays, F, **more
    )


@pytest.mark.parametrize("velocity", [(20.0, 0.0, 0.0), (-6.0, 11.0, 0.0)])
@pytest.mark.parametrize("rays", [1, 3, 12])
def test_gains_age_as_jakes_for_any_number_of_rays(velocity, rays):
    users = 60_000
    made = rays_of(users, velocity, rays=rays)
    lag_ns = np.array([0, 10_000, 30_000, 60_000, 120_000, 200_000])
    g = ray_gain(made.doppler_hz, made.phase_rad, lag_ns).sum(-1)
    measured = (np.conj(g[0]) * g).mean(-1)
    doppler = np.hypot(*velocity[:2]) * F / constants.c
    assert doppler * 2 * np.pi * lag_ns[-1] * 1e-9 > 5  # well past the first zero
    expected = special.j0(2 * np.pi * doppler * lag_ns * 1e-9)
    # a mean of products of variance one: four standard errors
    np.testing.assert_allclose(measured, expected, atol=4 / np.sqrt(users))
    # and stationary: from any other start
    late = ray_gain(made.doppler_hz, made.phase_rad, lag_ns + 3_700_000).sum(-1)
    np.testing.assert_allclose((np.conj(late[0]) * late).mean(-1), expected, atol=4 / np.sqrt(users))


def test_one_user_over_time_already_ages_so():
    # arcs keep each user's own Doppler spectrum close to the ring's; independent directions would miss by 1/sqrt(rays)
    made = rays_of(200, (20.0, 0.0, 0.0), rays=40)
    lag_s = 60e-6
    own = np.exp(2j * np.pi * made.doppler_hz * lag_s).mean(-1)
    error = np.sqrt((abs(own - jakes(20 * F / constants.c, lag_s)) ** 2).mean())
    assert error < 0.25 / np.sqrt(40)


def test_gains_are_circular_and_nearly_gaussian():
    users = 60_000
    made = rays_of(users, (1.0, 0.0, 0.0), rays=12)
    g = ray_gain(made.doppler_hz, made.phase_rad, np.array([0])).sum(-1)[0]
    assert abs((abs(g) ** 2).mean() - 1) < 4 / np.sqrt(users)
    assert abs((g**2).mean()) < 4 / np.sqrt(users)
    # equal powers: E|g|^4 = 2 - 1/rays
    assert (abs(g) ** 4).mean() == pytest.approx(2 - 1 / 12, abs=0.07)


def test_space_and_geometry():
    spread, users = np.deg2rad(8), 40_000
    made = rays_of(users, (0.0, 0.0, 0.0), offset=(50.0, 20.0, 0.0), spread=spread, rays=6)
    azimuth = np.arctan2(made.departure_m[..., 1], made.departure_m[..., 0]) - np.arctan2(20.0, 50.0)
    assert np.all(abs(azimuth) < spread)
    assert abs(azimuth).max() > 0.99 * spread
    length = np.linalg.norm(made.departure_m, axis=-1) + np.linalg.norm(made.arrival_m, axis=-1)
    np.testing.assert_allclose(made.delay_s, length / constants.c, rtol=1e-14)
    np.testing.assert_allclose(made.departure_m - made.arrival_m, np.broadcast_to([50.0, 20.0, 0.0], (users, 6, 3)))
    position = line(8)
    u = made.departure_m / np.linalg.norm(made.departure_m, axis=-1, keepdims=True)
    a = np.exp(2j * np.pi / WAVE * u @ position.T)
    g = ray_gain(made.doppler_hz, made.phase_rad, np.array([0]))[0]
    h = (g[..., None] * a).sum(1)
    measured = h.T @ h.conj() / users / 8
    expected = one_ring_correlation(position, F, np.arctan2(20.0, 50.0), 0.0, spread, spectrum="ring")
    np.testing.assert_allclose(measured, expected, atol=4 / np.sqrt(users) / 8)


def test_phase_runs_on_from_call_to_call_along_a_path():
    a = rays_of(5, (3.0, -14.0, 0.0), offset=(40.0, 15.0, -8.5))
    dt = 5e-3
    b = rays_of(5, (9.0, 2.0, 1.0), offset=(40.0 + 3 * dt, 15.0 - 14 * dt, -8.5))
    before = ray_gain(a.doppler_hz, a.phase_rad, np.array([5_000_000]))
    after = ray_gain(b.doppler_hz, b.phase_rad, np.array([0]))
    np.testing.assert_allclose(before, after, atol=1e-9)
    # sign: the ray whose scatterer lies ahead shortens
    ahead = (a.arrival_m * [3.0, -14.0, 0.0]).sum(-1) > 0
    assert np.array_equal(ahead, a.doppler_hz > 0)


def test_other_users_and_any_split_change_no_bit():
    entity = np.array([4, 9, 2])
    offset, velocity = (
        np.array([[40.0, 15, -8], [60, -3, -8], [20, 20, -8]]),
        np.array([[1.0, 9, 0], [3, 3, 0], [0, -20, 0]]),
    )
    t = np.arange(35) * 140_000

    def gains(index, times):
        made = one_ring_rays(Draws(1), entity[index], offset[index], velocity[index], 0.03, 7, F)
        return ray_gain(made.doppler_hz, made.phase_rad, times)

    whole = gains(np.arange(3), t)
    assert whole.shape == (35, 3, 7)
    for user in range(3):
        alone = np.concatenate([gains(np.array([user]), part) for part in (t[:1], t[1:2], t[2:17], t[17:])])
        assert np.array_equal(alone[:, 0], whole[:, user])
    again = one_ring_rays(Draws(1), entity, offset, velocity, 0.03, 7, F, epoch=1)
    assert not np.any(again.phase_rad == one_ring_rays(Draws(1), entity, offset, velocity, 0.03, 7, F).phase_rad)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: one_ring_nodes(1.0, 5.0), "azimuth_spread_rad = 5.0"),
        (lambda: one_ring_nodes(1.0, np.nan), "azimuth_spread_rad = nan"),
        (lambda: one_ring_nodes(1.0, 1.5, 0.0, "ring"), "must lie in .0, 1.4."),
        (lambda: one_ring_nodes(1.0, 0.1, -0.1), "elevation_spread_rad"),
        (lambda: one_ring_nodes(1.0, 0.1, 0.1, "laplace"), "must be one of uniform, gaussian, ring"),
        (lambda: one_ring_nodes(np.nan, 0.1), "extent_rad"),
        (lambda: rays_of(1, (0.0, 0, 0), spread=2.0), "spread_rad = 2.0"),
        (lambda: rays_of(1, (0.0, 0, 0), rays=0), "rays = 0"),
    ],
)
def test_misuse_is_named(call, says):
    with pytest.raises(Misuse, match=says):
        call()
