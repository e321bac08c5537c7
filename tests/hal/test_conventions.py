"""Every statement of ``docs/conventions.md`` that ``hal`` can break, in the order of that page."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import (
    LIGHT_MPS,
    AntennaArray,
    Ula,
    Upa,
    angles_from,
    direction_from,
    direction_to,
    rotation_from,
    steering,
)
from hal.chain import thermal_noise_w
from hal.medium import Paths, beam_gains, narrowband, wideband
from hal.network import Network, NetworkSpec, quantise, response

CARRIER_HZ = 100e9
BANDWIDTH_HZ = 8e9
SUBCARRIER_HZ = CARRIER_HZ + BANDWIDTH_HZ / 32 * (np.arange(32) - 31 / 2)


def flagship(origin_m=(0.0, 0.0, 10.0), yaw_rad=0.0, downtilt_rad=0.0) -> AntennaArray:
    return Upa(16, 16).build(CARRIER_HZ, np.array(origin_m), rotation_from(yaw_rad, downtilt_rad))


def ttd() -> NetworkSpec:
    return Network(delay_lines=(8, 8), delay_bits=4, delay_range_s=100e-12, phase_bits=6).build(16, 16)


def steered(array: AntennaArray, spec: NetworkSpec, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantised settings that point one beam a row at ``direction[row 3]``: a delay a sub-array, phases for the rest."""
    centre = np.array([array.position_m[spec.line == line].mean(axis=0) for line in range(spec.lines)])
    delay_s = direction @ centre.T / LIGHT_MPS
    delay_s = delay_s - delay_s.min(axis=1, keepdims=True)
    delay_s, _, _, _ = quantise(
        spec, delay_s[:, None], np.zeros((len(direction), 1, 256)), np.ones((len(direction), 1, 256))
    )[:4]
    a = steering(array, direction, CARRIER_HZ)
    phase = -np.angle(a) + 2 * np.pi * CARRIER_HZ * delay_s[:, 0, spec.line]
    delay_s, phase, amplitude, clipped = quantise(spec, delay_s, phase[:, None], np.ones((len(direction), 1, 256)))
    assert clipped == 0
    return delay_s, phase, amplitude


def path_towards(direction: np.ndarray, gain: complex = 1.0, delay_s: float = 0.0, doppler_hz: float = 0.0) -> Paths:
    """One path per direction, there and back: departs and arrives along ``direction[path 3]``."""
    direction = np.atleast_2d(direction)
    n = len(direction)
    return Paths(
        carrier_hz=CARRIER_HZ,
        t_ns=np.array([0]),
        source=np.full(n, -1),
        sink=np.arange(n),
        gain=np.full((1, n), gain, dtype=complex),
        delay_s=np.full(n, delay_s),
        doppler_hz=np.full(n, doppler_hz),
        departure_m=60 * direction,
        arrival_m=60 * direction,
    )


# ---------------------------------------------------------------- axes, angles, directions


def test_axes_boresight_is_x_left_is_y_up_is_z():
    array = flagship()
    assert not array.position_m[:, 0].any()
    np.testing.assert_allclose(array.position_m.mean(axis=0), 0, atol=1e-18)  # positions about the phase centre
    # facing east: a point to the north is to the left, a point higher up is up
    direction, _ = direction_to(array, array.origin_m + np.array([[10, 0, 0], [10, 1, 0], [10, 0, 1]]))
    np.testing.assert_allclose(direction[0], [1, 0, 0], atol=1e-15)
    assert direction[1, 1] > 0
    assert direction[2, 2] > 0


def test_rotation_has_the_arrays_axes_as_columns():
    array = flagship(yaw_rad=0.7, downtilt_rad=0.2)
    for axis in range(3):
        direction, _ = direction_to(array, array.origin_m + 5 * array.rotation[:, axis])
        np.testing.assert_allclose(direction, np.eye(3)[axis], atol=1e-14)


def test_yaw_turns_from_east_to_north_and_downtilt_tips_down():
    assert flagship(yaw_rad=0.1).rotation[1, 0] > 0  # boresight gains a northward part
    assert flagship(downtilt_rad=0.1).rotation[2, 0] < 0  # and a downward part


def test_a_direction_points_from_the_array_to_the_far_point():
    direction, range_m = direction_to(flagship(), np.array([30.0, 0.0, 10.0]))
    np.testing.assert_allclose(direction, [1, 0, 0], atol=1e-15)
    assert range_m == 30


@given(st.floats(-3, 3), st.floats(-1.5, 1.5))
@settings(deadline=None)
def test_azimuth_and_elevation(az, el):
    ux, uy, uz = direction_from(az, el)
    assert uy == pytest.approx(np.cos(el) * np.sin(az), abs=1e-14)
    assert uz == pytest.approx(np.sin(el), abs=1e-14)
    assert angles_from(np.array([ux, uy, uz])) == (pytest.approx(np.arctan2(uy, ux)), pytest.approx(np.arcsin(uz)))


# ---------------------------------------------------------------- the three papers' steering vectors, as printed


def same_up_to_reference_and_norm(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal after moving the phase reference to element 0 and dividing by sqrt(elements)."""
    np.testing.assert_allclose(ours / ours[0] / np.sqrt(len(ours)), theirs / theirs[0] * abs(theirs[0]), atol=1e-11)


@given(st.floats(0.05, 3.09), st.floats(-1.57, 1.57), st.sampled_from(list(SUBCARRIER_HZ)))
@settings(deadline=None)
def test_papers_000(theta, phi, f):
    # eqs (4)-(5), a_t = a^h (x) a^v, n from 1 there: theta from z, phi azimuth
    a_h = np.exp(1j * np.pi * f / CARRIER_HZ * np.sin(phi) * np.sin(theta) * np.arange(16)) / np.sqrt(16)
    a_v = np.exp(1j * np.pi * f / CARRIER_HZ * np.cos(theta) * np.arange(16)) / np.sqrt(16)
    ours = steering(flagship(), direction_from(phi, np.pi / 2 - theta), f)
    same_up_to_reference_and_norm(ours, np.kron(a_h, a_v))


@given(st.floats(-1.57, 1.57), st.floats(0.05, 3.09))
@settings(deadline=None)
def test_papers_001(theta, phi):
    # eq (23) in the reading a = a_y (x) a_z, y-z plane; theta azimuth, phi from z
    a_y = np.exp(1j * np.pi * np.arange(16) * np.sin(theta) * np.sin(phi))
    a_z = np.exp(1j * np.pi * np.arange(16) * np.cos(phi))
    ours = steering(flagship(), direction_from(theta, np.pi / 2 - phi), CARRIER_HZ)
    same_up_to_reference_and_norm(ours, np.kron(a_y, a_z) / 16)


@given(st.floats(-1.57, 1.57))
@settings(deadline=None)
def test_papers_004(theta):
    # eq (7a): 1, e^{-j pi sin theta}, ...
    theirs = np.exp(-1j * np.pi * np.arange(64) * np.sin(theta)) / np.sqrt(64)
    line = Ula(64).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    ours = steering(line, direction_from(-theta, 0.0), CARRIER_HZ)
    same_up_to_reference_and_norm(ours, theirs)
    assert direction_from(-theta, 0.0)[1] == pytest.approx(-np.sin(theta))


def test_papers_000_precoder_is_our_response_conjugated():
    # x = F_TD f_PS s with F_TD = diag e^{+j 2 pi f T} (eq 1) and y = h^H x, h = a_t (eqs 3, 6)
    array, spec = flagship(), ttd()
    rng = np.random.default_rng(0)
    delay, phase = rng.uniform(0, 90e-12, (1, 64)), rng.uniform(0, 6, (1, 256))
    f, direction = SUBCARRIER_HZ[3], direction_from(0.4, -0.2)
    ours = response(spec, delay, phase, np.ones((1, 256)), np.array([f]))[0, :, 0]
    theirs = np.exp(2j * np.pi * f * delay[0, spec.line]) * np.exp(-1j * phase[0]) / 16  # same delays, phases negated
    np.testing.assert_allclose(np.conj(ours), theirs, atol=1e-11)
    a = steering(array, direction, f)
    assert abs(np.conj(a) @ theirs) == pytest.approx(abs(a @ ours), rel=1e-10)


def test_planar_elements_are_columns_along_y_then_rows_along_z():
    array = Upa(3, 4).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    for column in range(3):
        for row in range(4):
            position = array.position_m[column * 4 + row]
            np.testing.assert_allclose(position[1:], np.array([column - 1, row - 1.5]) * array.spacing_m, atol=1e-18)


# ---------------------------------------------------------------- signs and who conjugates


def test_a_delay_turns_the_phase_back():
    paths = path_towards(np.array([1.0, 0, 0]), delay_s=0.1e-9)
    one = np.ones((1, 1, 32, 1))
    at = np.zeros(1, int)
    h = wideband(paths, one, SUBCARRIER_HZ, at, at, at)[0, :, 0]
    step = np.angle(h[1:] * np.conj(h[:-1]))
    np.testing.assert_allclose(step, -2 * np.pi * BANDWIDTH_HZ / 32 * 0.1e-9, atol=1e-12)
    # a delay line does the same as a longer path
    w = response(
        Network(delay_lines=(1, 1), delay_bits=0).build(1, 1),
        np.full((1, 1), 0.1e-9),
        np.zeros((1, 1)),
        np.ones((1, 1)),
        SUBCARRIER_HZ,
    )[:, 0, 0]
    np.testing.assert_allclose(w * np.exp(2j * np.pi * CARRIER_HZ * 0.1e-9), h, atol=1e-12)
    # and frames come later, not earlier
    impulse = np.zeros((1, 1, 16))
    impulse[0, 0, 2] = 1
    later = narrowband(
        path_towards(np.array([1.0, 0, 0]), delay_s=3e-6),
        impulse,
        1e6,
        0.2,
        np.ones((1, 1, 1)),
        np.ones((1, 1, 1)),
        at,
        np.zeros(1),
    )
    assert np.argmax(np.abs(later[0, 0])) == 5


def test_steering_is_what_a_plane_wave_leaves_on_the_elements():
    # a wave from +y reaches the elements on the +y side first: their phase leads
    array = Ula(8).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    a = steering(array, direction_from(0.3, 0.0), CARRIER_HZ)
    assert np.all(np.angle(a[1:] * np.conj(a[:-1])) > 0)
    np.testing.assert_allclose(np.abs(a), 1, atol=1e-15)


def test_the_matched_setting_is_the_conjugate_and_no_conjugate_is_left_in_the_machine():
    array, spec = flagship(), Network(phase_bits=0).build(16, 16)
    direction = direction_from(0.5, -0.3)
    for sign, gain in ((-1, 256.0), (+1, None)):
        phase = sign * np.angle(steering(array, direction, CARRIER_HZ))
        w = response(spec, np.zeros((1, 0)), phase[None], np.ones((1, 256)), np.array([CARRIER_HZ]))[None]
        got = abs(beam_gains(path_towards(direction), array, w, CARRIER_HZ)[0, 0, 0, 0]) ** 2
        assert got == pytest.approx(gain) if gain is not None else got < 10


def test_the_beam_that_maximises_a_users_gain_also_maximises_its_echo():
    """Transmit beam memory scanned over a grid of beams, quantised TTD network and all; the same settings also listen."""
    array, spec = flagship(), ttd()
    rng = np.random.default_rng(5)
    beam = direction_from(*(x.ravel() for x in np.meshgrid(np.linspace(-0.8, 0.8, 17), np.linspace(-0.5, 0.5, 11))))
    w = response(spec, *steered(array, spec, beam), SUBCARRIER_HZ)
    user = direction_from(rng.uniform(-0.75, 0.75, 6), rng.uniform(-0.45, 0.45, 6))
    paths = path_towards(user)
    out = beam_gains(paths, array, w, SUBCARRIER_HZ, "departure")
    back = beam_gains(paths, array, w, SUBCARRIER_HZ, "arrival")
    for u in range(6):
        rows = np.arange(len(beam))
        h = wideband(paths, out, SUBCARRIER_HZ, rows, 0 * rows, np.full(len(beam), u))
        down = np.sum(np.abs(h) ** 2, axis=(1, 2))  # the user's received power
        echo = np.sum(np.abs(out[:, u] * back[:, u]) ** 2, axis=(1, 2))  # there and back through the same settings
        best = np.argmax(down)
        assert np.argmax(echo) == best
        # the mirror image, where a stray conjugate would look, is dark
        mirrored = np.argmin(np.sum((beam - user[u] * [1, -1, -1]) ** 2, axis=1))
        assert mirrored != best
        assert down[mirrored] < down[best] / 100
        # and the best beam of the scan is the one that points nearest
        assert np.sum((beam[best] - user[u])[1:] ** 2) < 0.1**2


def test_a_random_setting_hears_from_where_it_speaks():
    array, spec = flagship(), ttd()
    rng = np.random.default_rng(6)
    settings_ = quantise(
        spec, rng.uniform(0, 90e-12, (1, 1, 64)), rng.uniform(0, 7, (1, 1, 256)), np.ones((1, 1, 256))
    )[:3]
    w = response(spec, *settings_, SUBCARRIER_HZ)
    paths = path_towards(direction_from(rng.uniform(-1, 1, 20), rng.uniform(-1, 1, 20)))
    np.testing.assert_array_equal(
        beam_gains(paths, array, w, SUBCARRIER_HZ, "departure"), beam_gains(paths, array, w, SUBCARRIER_HZ, "arrival")
    )
    # written out without a conjugate: a far point receives a^T x, x = response s
    a = steering(array, paths.departure_m[3] / 60, SUBCARRIER_HZ)
    np.testing.assert_allclose(
        beam_gains(paths, array, w, SUBCARRIER_HZ)[0, 3, :, 0], np.einsum("fn,fn->f", a, w[0, :, :, 0]), atol=1e-11
    )


def test_delay_lines_keep_the_beam_where_phases_alone_let_it_squint():
    array, direction = flagship(), direction_from(0.9, 0.0)[None]
    paths = path_towards(direction)
    with_lines = response(ttd(), *steered(array, ttd(), direction), SUBCARRIER_HZ)
    bare = Network(phase_bits=6).build(16, 16)
    phase = -np.angle(steering(array, direction, CARRIER_HZ))[:, None]
    without = response(bare, *quantise(bare, np.zeros((1, 1, 0)), phase, np.ones((1, 1, 256)))[:3], SUBCARRIER_HZ)
    edge = [abs(beam_gains(paths, array, w, SUBCARRIER_HZ)[0, 0, 0, 0]) ** 2 / 256 for w in (with_lines, without)]
    x = np.pi / 2 * (SUBCARRIER_HZ[0] / CARRIER_HZ - 1) * np.sin(0.9)
    assert edge[1] == pytest.approx((np.sin(16 * x) / (16 * np.sin(x))) ** 2, rel=0.02)
    assert edge[0] > edge[1] + 0.1
    assert edge[0] > 0.95


@given(st.integers(0, 2**32), st.sampled_from(["full", "partial"]))
@settings(deadline=None, max_examples=20)
def test_splitters_and_combiners_conserve_power_and_noise(seed, connection):
    spec = Network(chains=4, connection=connection, delay_lines=(8, 8)).build(16, 16)
    rng = np.random.default_rng(seed)
    w = response(
        spec,
        *quantise(spec, rng.uniform(0, 90e-12, (4, spec.lines)), rng.uniform(0, 7, (4, 256)), np.ones((4, 256)))[:3],
        SUBCARRIER_HZ[:2],
    )
    # radiated power of one chain's signal of unit power, and noise at a chain's output for unit noise an element
    np.testing.assert_allclose(np.sum(np.abs(w) ** 2, axis=1), 1.0, rtol=1e-12)
    lossy = Network(chains=4, connection=connection, loss_db=3.0).build(16, 16)
    w = response(lossy, np.zeros((4, 0)), np.zeros((4, 256)), np.ones((4, 256)), SUBCARRIER_HZ[:1])
    np.testing.assert_allclose(np.sum(np.abs(w) ** 2, axis=1), 10**-0.3, rtol=1e-12)


def test_total_radiated_power_is_one_over_the_sphere():
    # far field of isotropic elements half a wavelength apart on a line is orthogonal: mean over all directions is |w|^2
    line, spec = Ula(8).build(CARRIER_HZ, np.zeros(3), np.eye(3)), Network(phase_bits=0).build(8, 1)
    phase = np.random.default_rng(1).uniform(0, 6, (1, 8))
    w = response(spec, np.zeros((1, 0)), phase, np.ones((1, 8)), np.array([CARRIER_HZ]))
    node, weight = np.polynomial.legendre.leggauss(64)  # uy is uniform over the sphere
    paths = path_towards(np.stack([np.sqrt(1 - node**2), node, 0 * node], axis=1))
    power = np.abs(beam_gains(paths, line, w[None], CARRIER_HZ)[0, :, 0, 0]) ** 2
    assert np.sum(weight / 2 * power) == pytest.approx(1.0, rel=1e-9)


def test_noise_power_is_k_290_f_b():
    assert thermal_noise_w(64e6, 10.0) == pytest.approx(1.380649e-23 * 290 * 10 * 64e6, rel=1e-12)


# ---------------------------------------------------------------- delay, Doppler, gain


def test_doppler_is_positive_when_the_range_shrinks():
    """A range that shrinks at 20 m/s, followed by its own carrier phase exp(-j 2 pi f_c r(t) / c), against Paths.doppler_hz."""
    speed, rate = 20.0, 64e6
    doppler_hz = speed * CARRIER_HZ / LIGHT_MPS  # one way
    t = np.arange(64) / rate + 3e-6
    at_start = np.exp(-2j * np.pi * CARRIER_HZ * 60.0 / LIGHT_MPS)  # the gain carries the carrier phase at t_ns
    want = np.exp(-2j * np.pi * CARRIER_HZ * (60.0 - speed * t) / LIGHT_MPS)
    paths = path_towards(np.array([1.0, 0, 0]), gain=at_start, doppler_hz=doppler_hz)
    one = np.ones((1, 1, 1))
    got = narrowband(paths, np.ones((1, 1, 64)), rate, 0.1, one, one, np.zeros(1, int), np.array([3e-6]))[0, 0]
    np.testing.assert_allclose(got, want, atol=1e-5)
    at = np.zeros(1, int)
    h = wideband(paths, np.ones((1, 1, 1, 1)), np.array([CARRIER_HZ]), at, at, at, offset_s=np.array([3e-6]))[0, 0, 0]
    assert h == pytest.approx(want[0], abs=1e-9)


def test_gain_squared_is_a_ratio_of_powers_between_unit_gain_antennas():
    paths = path_towards(np.array([1.0, 0, 0]), gain=0.5j)
    single = Upa(1, 1).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    g = beam_gains(paths, single, np.ones((1, 1, 1, 1), complex), CARRIER_HZ)
    at = np.zeros(1, int)
    assert abs(wideband(paths, g, np.array([CARRIER_HZ]), at, at, at)[0, 0, 0]) ** 2 == pytest.approx(0.25)


# ---------------------------------------------------------------- the subcarrier grid


def test_subcarriers_are_centred_on_the_carrier_as_in_papers_000():
    m = np.arange(1, 33)  # from 1 there
    np.testing.assert_array_equal(SUBCARRIER_HZ, CARRIER_HZ + BANDWIDTH_HZ / 32 * (m - 33 / 2))
    assert np.mean(SUBCARRIER_HZ) == CARRIER_HZ
    assert SUBCARRIER_HZ[-1] - SUBCARRIER_HZ[0] == BANDWIDTH_HZ * 31 / 32
