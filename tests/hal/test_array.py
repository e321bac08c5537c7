"""Geometry, patterns and steering against closed forms, numerical derivatives, other namespaces and another package."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import (
    LIGHT_MPS,
    AntennaArray,
    Ula,
    Upa,
    angle_jacobian,
    angles_from,
    cis,
    direction_from,
    direction_to,
    element_amplitude,
    fraunhofer_distance_m,
    half_power_beamwidth,
    near_field,
    rotation_from,
    steering,
    steering_factors,
    steering_gradient,
    to_array_frame,
    to_world_frame,
)
from hal.errors import Misuse
from hal.network import Network, quantise, response

CARRIER_HZ = 100e9
HERE, LEVEL = np.zeros(3), np.eye(3)
ANGLE = st.floats(-1.5, 1.5)


def planar(columns: int = 6, rows: int = 4, **fields: float) -> AntennaArray:
    return Upa(columns, rows, **fields).build(CARRIER_HZ, HERE, LEVEL)


def free_form() -> AntennaArray:
    # off the y-z plane on purpose
    position_m = np.random.default_rng(3).normal(scale=2e-3, size=(9, 3))
    return AntennaArray(
        position_m=position_m,
        columns=0,
        rows=0,
        spacing_m=0.0,
        rotation=LEVEL,
        origin_m=HERE,
        element_gain_dbi=0.0,
        element_exponent=0.0,
    )


def by_hand(array: AntennaArray, direction: np.ndarray, frequency_hz: float) -> np.ndarray:
    return np.array([np.exp(2j * np.pi * frequency_hz * np.dot(p, direction) / 299792458.0) for p in array.position_m])


# ---------------------------------------------------------------- geometry


def test_elements_are_counted_column_by_column_along_y_then_up_z():
    array = planar(3, 2)
    half = 0.5 * LIGHT_MPS / CARRIER_HZ
    y, z = np.array([-1, -1, 0, 0, 1, 1]) * half, np.array([-0.5, 0.5] * 3) * half
    np.testing.assert_allclose(array.position_m, np.stack([0 * y, y, z], axis=1), atol=1e-18)
    assert array.spacing_m == half


def test_a_line_is_a_plane_of_one_row():
    line, plane = Ula(5, 0.7).build(CARRIER_HZ, HERE, LEVEL), Upa(5, 1, 0.7).build(CARRIER_HZ, HERE, LEVEL)
    np.testing.assert_array_equal(line.position_m, plane.position_m)
    assert (line.columns, line.rows, line.spacing_m) == (5, 1, plane.spacing_m)


def test_rotation_turns_east_to_north_and_tips_down():
    assert np.allclose(rotation_from(0.0, 0.0), LEVEL)
    boresight = rotation_from(np.deg2rad(90), np.deg2rad(30)) @ [1, 0, 0]
    np.testing.assert_allclose(boresight, [0, np.cos(np.pi / 6), -0.5], atol=1e-15)
    left = rotation_from(np.deg2rad(90), np.deg2rad(30)) @ [0, 1, 0]
    np.testing.assert_allclose(left, [-1, 0, 0], atol=1e-15)


@settings(deadline=None)  # the first call may compile
@given(st.floats(-4, 4), st.floats(-1.5, 1.5))
def test_rotation_is_proper(yaw, tilt):
    turn = rotation_from(yaw, tilt)
    np.testing.assert_allclose(turn @ turn.T, LEVEL, atol=1e-14)
    assert np.linalg.det(turn) == pytest.approx(1.0)


@settings(deadline=None)  # the first call may compile
@given(ANGLE, ANGLE)
def test_angles_and_directions_are_inverse(azimuth, elevation):
    direction = direction_from(azimuth, elevation)
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(angles_from(direction), (azimuth, elevation), atol=1e-7)


def test_directions_of_world_points():
    array = Upa(4, 4).build(CARRIER_HZ, np.array([10.0, 5.0, 10.0]), rotation_from(np.deg2rad(90), np.deg2rad(20)))
    # 50 m out along boresight, then 3 m to the left of it: left of north is west
    boresight = np.array([0, np.cos(np.deg2rad(20)), -np.sin(np.deg2rad(20))])
    point = array.origin_m + 50 * boresight + np.array([-3.0, 0, 0])
    direction, range_m = direction_to(array, point)
    assert range_m == pytest.approx(np.hypot(50, 3))
    np.testing.assert_allclose(direction, np.array([50, 3, 0]) / np.hypot(50, 3), atol=1e-14)
    batch, _ = direction_to(array, np.stack([point] * 3))
    np.testing.assert_array_equal(batch, np.stack([direction] * 3))
    vector = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    np.testing.assert_allclose(to_world_frame(array, to_array_frame(array, vector)), vector, atol=1e-14)


def test_a_point_without_direction_is_refused():
    with pytest.raises(Misuse, match="phase centre"):
        direction_to(planar(), np.zeros(3))
    with pytest.raises(Misuse, match="finite"):
        direction_to(planar(), np.array([np.nan, 1, 1]))


# ---------------------------------------------------------------- steering


@settings(deadline=None)  # the first call may compile
@given(ANGLE, ANGLE, st.floats(90e9, 110e9), st.booleans())
def test_steering_is_the_plane_wave_at_each_element(azimuth, elevation, frequency_hz, grid):
    array = planar() if grid else free_form()
    direction = direction_from(azimuth, elevation)
    a = steering(array, direction, frequency_hz)
    np.testing.assert_allclose(a, by_hand(array, direction, frequency_hz), atol=1e-12)
    np.testing.assert_allclose(np.abs(a), 1.0, atol=1e-14)


def test_steering_broadcasts_directions_against_frequencies():
    rng = np.random.default_rng(0)
    direction = direction_from(rng.uniform(-1, 1, 5), rng.uniform(-1, 1, 5))
    frequency_hz = np.linspace(96e9, 104e9, 3)
    for array in (planar(), free_form()):
        a = steering(array, direction[:, None, :], frequency_hz)
        assert a.shape == (5, 3, len(array.position_m))
        for i in range(5):
            for m in range(3):
                np.testing.assert_allclose(a[i, m], by_hand(array, direction[i], frequency_hz[m]), atol=1e-12)


def test_steering_factors_multiply_to_steering():
    direction = direction_from(np.array([0.3, -0.8]), np.array([0.2, -0.1]))
    a_y, a_z = steering_factors(planar(), direction, CARRIER_HZ)
    assert a_y.shape == (2, 6)
    assert a_z.shape == (2, 4)
    for i in range(2):
        np.testing.assert_allclose(np.kron(a_y[i], a_z[i]), by_hand(planar(), direction[i], CARRIER_HZ), atol=1e-12)
    with pytest.raises(Misuse, match="planar grid"):
        steering_factors(free_form(), direction, CARRIER_HZ)


@pytest.mark.parametrize("array", [planar(), free_form()], ids=["grid", "free form"])
def test_steering_gradient_is_the_numerical_derivative(array):
    uy, uz, h = 0.31, -0.22, 1e-6

    def at(uy, uz):
        return steering(array, np.array([np.sqrt(1 - uy**2 - uz**2), uy, uz]), CARRIER_HZ)

    by_y, by_z = steering_gradient(array, np.array([np.sqrt(1 - uy**2 - uz**2), uy, uz]), CARRIER_HZ)
    np.testing.assert_allclose(by_y, (at(uy + h, uz) - at(uy - h, uz)) / (2 * h), atol=2e-7)
    np.testing.assert_allclose(by_z, (at(uy, uz + h) - at(uy, uz - h)) / (2 * h), atol=2e-7)


def test_angle_jacobian_is_the_numerical_derivative():
    az, el, h = np.array([0.4, -1.1, 2.5]), np.array([0.3, -0.6, 0.1]), 1e-6
    by_az = (direction_from(az + h, el) - direction_from(az - h, el))[:, 1:] / (2 * h)
    by_el = (direction_from(az, el + h) - direction_from(az, el - h))[:, 1:] / (2 * h)
    np.testing.assert_allclose(angle_jacobian(direction_from(az, el)), np.stack([by_az, by_el], axis=-1), atol=1e-9)


def test_cis_is_exact_to_rounding_everywhere():
    quarters = np.arange(-64, 65) * np.pi / 4
    for phase in (
        quarters,
        np.random.default_rng(0).uniform(-9e5, 9e5, 20000),
        np.array([1e6, 1e9, -3e7]),
        np.zeros(0),
    ):
        np.testing.assert_allclose(cis(phase), np.exp(1j * phase), rtol=0, atol=3e-16)
    assert cis(np.float32([1.0])).dtype == np.complex64
    assert cis(np.zeros((2, 3))[:, ::2]).shape == (2, 2)


def test_numpy_torch_and_strict_namespaces_run_the_same_code():
    torch, strict = pytest.importorskip("torch"), pytest.importorskip("array_api_strict")
    direction = direction_from(np.array([0.3, -0.8]), np.array([0.2, -0.1]))
    frequency_hz = np.array([98e9, 101e9])
    for array in (planar(element_exponent=2.0), free_form()):
        for make in (torch.asarray, strict.asarray):
            u, f = make(direction), make(frequency_hz)
            pairs = [
                (steering(array, u[:, None, :], f), steering(array, direction[:, None, :], frequency_hz)),
                (steering(array, u[0, :], CARRIER_HZ), steering(array, direction[0], CARRIER_HZ)),
                (near_field(array, 0.3 * u, f), near_field(array, 0.3 * direction, frequency_hz)),
                (element_amplitude(array, u), element_amplitude(array, direction)),
                *zip(steering_gradient(array, u, f), steering_gradient(array, direction, frequency_hz), strict=True),
            ]
            for got, want in pairs:
                assert type(got) is type(u)
                np.testing.assert_allclose(np.asarray(got), want, rtol=1e-12, atol=1e-12)
    assert steering(planar(), torch.asarray(direction, dtype=torch.float32), CARRIER_HZ).dtype == torch.complex64


def test_torch_differentiates_through_steering_and_pattern():
    torch = pytest.importorskip("torch")
    direction = torch.tensor([[0.9, 0.3, 0.2], [-0.7, 0.5, 0.1]], dtype=torch.float64, requires_grad=True)
    array = planar(2, 2, element_exponent=1.0)
    assert torch.autograd.gradcheck(lambda u: steering(array, u, CARRIER_HZ), (direction,))
    assert torch.autograd.gradcheck(lambda u: near_field(array, u, CARRIER_HZ), (direction,), atol=1e-3)
    element_amplitude(array, direction).sum().backward()
    assert torch.all(torch.isfinite(direction.grad))


# ---------------------------------------------------------------- elements, near field, widths


def test_element_pattern_is_a_power_of_cosine_and_dark_behind():
    array = planar(element_gain_dbi=6.0, element_exponent=3.0)
    direction = direction_from(np.deg2rad([0.0, 60.0, 120.0]), np.zeros(3))
    np.testing.assert_allclose(element_amplitude(array, direction) ** 2, 10**0.6 * np.array([1, 0.125, 0]), atol=1e-12)
    np.testing.assert_array_equal(element_amplitude(planar(), direction), 1.0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 4.07])
def test_an_element_cannot_radiate_more_than_it_is_fed(exponent):
    limit_dbi = 10 * np.log10(2 * (exponent + 1))
    array = planar(element_gain_dbi=limit_dbi, element_exponent=exponent)
    # Gauss-Legendre over cos(angle): mean of the power pattern over the sphere is 1 at the limit
    node, weight = np.polynomial.legendre.leggauss(200)
    x = (node + 1) / 2
    direction = np.stack([x, np.sqrt(1 - x**2), 0 * x], axis=-1)
    assert np.sum(weight / 2 * element_amplitude(array, direction) ** 2) / 2 == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(Misuse, match=r"element_gain_dbi = .*at most .* set element_exponent >="):
        planar(element_gain_dbi=limit_dbi + 0.1, element_exponent=exponent)
    with pytest.raises(Misuse, match="element_exponent"):
        planar(element_exponent=float("nan"))


def test_near_field_is_the_spherical_wave_and_tends_to_the_plane_wave():
    for array in (planar(16, 16), free_form()):
        point = 0.2 * direction_from(0.5, -0.3)
        r = np.linalg.norm(point)
        r_n = np.linalg.norm(point - array.position_m, axis=-1)
        want = r / r_n * np.exp(-2j * np.pi * CARRIER_HZ / LIGHT_MPS * (r_n - r))
        np.testing.assert_allclose(near_field(array, point, CARRIER_HZ), want, atol=1e-11)
        miss = [
            np.abs(near_field(array, d * point / r, CARRIER_HZ) - steering(array, point / r, CARRIER_HZ)).max()
            for d in (1e2, 1e3, 1e4)
        ]
        np.testing.assert_allclose(miss[1:], np.array(miss[:-1]) / 10, rtol=0.02)  # first order in 1/r
        assert miss[2] < 1e-4


def test_fraunhofer_distance_is_where_the_phase_error_is_an_eighth_of_pi():
    line = Ula(400, 0.5).build(CARRIER_HZ, HERE, LEVEL)  # long: the half cell at each end does not matter
    point = np.array([fraunhofer_distance_m(line, CARRIER_HZ), 0, 0])
    error = np.angle(near_field(line, point, CARRIER_HZ))
    assert np.abs(error).max() == pytest.approx(np.pi / 8, rel=0.01)
    assert fraunhofer_distance_m(planar(32, 32), CARRIER_HZ) == pytest.approx(32**2 * LIGHT_MPS / CARRIER_HZ, rel=1e-12)
    two = AntennaArray(
        **{name: getattr(free_form(), name) for name in AntennaArray.__slots__}
        | {"position_m": np.array([[0, 0.1, 0], [0, 0, 0.0]])}
    )
    assert fraunhofer_distance_m(two, 3e9) == pytest.approx(0.02 * 3e9 / LIGHT_MPS)


def test_half_power_beamwidth_is_where_the_pattern_halves():
    array = Upa(12, 5, 0.4).build(CARRIER_HZ, HERE, LEVEL)
    for axis, width in enumerate(half_power_beamwidth(array, CARRIER_HZ), start=1):
        u = np.zeros(3)
        u[axis] = width / 2
        assert abs(steering(array, u, CARRIER_HZ).mean()) ** 2 == pytest.approx(0.5, rel=1e-9)
        u[axis] = width / 3
        assert abs(steering(array, u, CARRIER_HZ).mean()) ** 2 > 0.5
    wide, single = half_power_beamwidth(Ula(200).build(CARRIER_HZ, HERE, LEVEL), CARRIER_HZ)
    assert wide == pytest.approx(0.886 / 100, rel=1e-3)  # textbook: 0.886 wavelengths over the length
    assert single == 2.0
    with pytest.raises(Misuse, match="planar grid"):
        half_power_beamwidth(free_form(), CARRIER_HZ)


# ---------------------------------------------------------------- laws of beams


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_quantised_phases_lose_the_sinc_squared_of_half_a_step(bits):
    array, spec = planar(64, 64), Network(phase_bits=bits).build(64, 64)
    rng = np.random.default_rng(7)
    direction = direction_from(rng.uniform(-1, 1, 40), rng.uniform(-0.7, 0.7, 40))
    a = steering(array, direction, CARRIER_HZ)
    wanted = -np.angle(a)[:, None, :] + rng.uniform(0, 2 * np.pi, (40, 1, 1))
    _, phase_rad, amplitude, _ = quantise(spec, np.zeros((40, 1, 0)), wanted, np.ones_like(wanted))
    w = response(spec, np.zeros((40, 1, 0)), phase_rad, amplitude, np.array([CARRIER_HZ]))[:, 0, :, 0]
    gain = np.abs(np.sum(a * w, axis=-1)) ** 2 / 4096
    x = np.pi / 2**bits
    assert np.mean(gain) == pytest.approx((np.sin(x) / x) ** 2, rel=2e-3)


@settings(deadline=None)  # the first call may compile
@given(st.floats(-0.95, 0.95), st.floats(0.92, 1.08))
def test_squint_loss_of_phase_only_steering_is_a_dirichlet_kernel(uy, ratio):
    array, spec = Ula(64).build(CARRIER_HZ, HERE, LEVEL), Network(phase_bits=0).build(64, 1)
    direction = np.array([np.sqrt(1 - uy * uy), uy, 0])
    phase = -np.angle(steering(array, direction, CARRIER_HZ))[None]
    f = np.array([ratio * CARRIER_HZ])
    w = response(spec, np.zeros((1, 0)), phase, np.ones((1, 64)), f)[0, :, 0]
    got = np.abs(np.sum(steering(array, direction, f[0]) * w)) ** 2 / 64
    x = np.pi / 2 * (ratio - 1) * uy
    want = 1.0 if abs(x) < 1e-12 else (np.sin(64 * x) / (64 * np.sin(x))) ** 2
    assert got == pytest.approx(want, abs=1e-9)


# ---------------------------------------------------------------- another package, where its models coincide with ours
# phased-array-modeling 1.5: elements in its x-y plane, element order x-major; x is our y, y our z, theta from boresight.


def _uv(theta_deg, phi_deg):
    t, p = np.deg2rad(theta_deg), np.deg2rad(phi_deg)
    return np.array([np.cos(t), np.sin(t) * np.cos(p), np.sin(t) * np.sin(p)])


@pytest.fixture(scope="module")
def pa():
    return pytest.importorskip("phased_array")


def test_phased_array_package_agrees_on_array_factor(pa):
    array = planar(8, 6)
    geometry = pa.create_rectangular_array(8, 6, dx=0.5, dy=0.5, wavelength=LIGHT_MPS / CARRIER_HZ)
    np.testing.assert_allclose(np.stack([geometry.x, geometry.y], 1), array.position_m[:, 1:], atol=1e-15)
    k = 2 * np.pi * CARRIER_HZ / LIGHT_MPS
    weights = pa.steering_vector(k, geometry.x, geometry.y, theta0_deg=25, phi0_deg=-40)
    np.testing.assert_allclose(weights, np.conj(steering(array, _uv(25, -40), CARRIER_HZ)), atol=1e-9)
    theta, phi = np.meshgrid(np.linspace(0, 85, 18), np.linspace(-180, 180, 25), indexing="ij")
    want = pa.array_factor_vectorized(np.deg2rad(theta), np.deg2rad(phi), geometry.x, geometry.y, weights, k)
    got = steering(array, np.moveaxis(_uv(theta, phi), 0, -1), CARRIER_HZ) @ weights
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize("frequency_hz", [96e9, 100e9, 104e9])
def test_phased_array_package_agrees_on_true_time_delay(pa, frequency_hz):
    array = planar(8, 6)
    spec = Network(delay_lines=(8, 6), delay_bits=0).build(8, 6)
    # it multiplies by exp(+j 2 pi f delay), so its delays are ours negated
    delay_s = -pa.steering_delays_ttd(array.position_m[:, 1], array.position_m[:, 2], 25, -40)
    delay_s -= delay_s.min()
    w = response(spec, delay_s[None], np.zeros((1, 48)), np.ones((1, 48)), np.array([frequency_hz]))[0, :, 0]
    want = pa.steering_vector_ttd(array.position_m[:, 1], array.position_m[:, 2], 25, -40, frequency_hz)
    # equal up to one common delay, which makes ours positive
    turned = w * np.sqrt(48) / want
    np.testing.assert_allclose(turned, turned[0], atol=1e-9)
    assert abs(np.sum(w * steering(array, _uv(25, -40), frequency_hz))) ** 2 == pytest.approx(48, rel=1e-9)


def test_phased_array_package_agrees_on_sub_array_delays_with_phases(pa):
    array = planar(8, 6)
    wavelength_m = LIGHT_MPS / CARRIER_HZ
    sub_arrays = pa.create_rectangular_subarrays(8, 6, 2, 3, dx=0.5, dy=0.5, wavelength=wavelength_m)
    want = pa.steering_vector_hybrid(sub_arrays.geometry, sub_arrays, 25, -40, CARRIER_HZ)
    spec = Network(delay_lines=(4, 2), delay_bits=0, phase_bits=0).build(8, 6)
    u = _uv(25, -40)
    centre = np.array([array.position_m[spec.line == line].mean(axis=0) for line in range(8)])
    delay_s = centre @ u / LIGHT_MPS
    phase = -2 * np.pi / wavelength_m * (array.position_m - centre[spec.line]) @ u
    w = response(spec, (delay_s - delay_s.min())[None], phase[None], np.ones((1, 48)), np.array([CARRIER_HZ]))[0, :, 0]
    common = np.exp(2j * np.pi * CARRIER_HZ * -delay_s.min())
    np.testing.assert_allclose(w * np.sqrt(48) * common, want, atol=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_phased_array_package_agrees_on_quantised_phases(pa, bits):
    array = planar(8, 6)
    weights = np.conj(steering(array, _uv(37, 55), CARRIER_HZ))
    spec = Network(phase_bits=bits).build(8, 6)
    _, phase, _, _ = quantise(spec, np.zeros((1, 0)), np.angle(weights)[None], np.ones((1, 48)))
    np.testing.assert_allclose(np.exp(1j * phase[0]), pa.quantize_phase(weights, bits), atol=1e-9)
