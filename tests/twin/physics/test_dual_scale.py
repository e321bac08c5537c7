"""The two scales against the matrices they were closed from: CRB, R-hat, MMSE and its trace."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.array import Ula, Upa
from hal.errors import Misuse
from twin.physics.correlation import one_ring_correlation
from twin.physics.dual_scale import (
    angle_slope,
    believed_covariance,
    crb_constant_rad2,
    crb_max_rad2_of_std_deg,
    guard_crb_rad2,
    mmse_covariance,
    mmse_error,
    mmse_filter,
    mmse_trace,
    steering_column,
)

CARRIER = 5.9e9
ARRAY = Ula(8).build(CARRIER, np.zeros(3), np.eye(3))


def matrices_crb(theta: float, transmit: int, receive: int, snr: float, printed: bool) -> float:
    """Equation (9) by its matrices, for one symbol."""

    def a(n):
        return np.exp(-1j * np.pi * np.arange(n) * np.sin(theta)) / np.sqrt(n)

    def da(n):
        return -1j * np.pi * np.arange(n) * np.cos(theta) * a(n)

    A = np.outer(a(receive), a(transmit))
    dA = np.outer(da(receive), a(transmit)) + np.outer(a(receive), da(transmit))
    W = np.outer(a(transmit).conj(), a(transmit))
    second = A if printed else dA
    bracket = np.trace(dA @ W @ dA.conj().T) - abs(np.trace(A @ W @ second.conj().T)) ** 2 / np.trace(
        A @ W @ A.conj().T
    )
    return float(1 / (2 * snr * bracket.real))


@given(st.floats(-1.5, 1.5), st.integers(2, 32), st.integers(2, 32), st.floats(1e-3, 1e3))
def test_crb_is_the_corrected_equation_9(theta, transmit, receive, snr):
    found = float(crb_constant_rad2(snr, receive, theta))
    assert found == pytest.approx(matrices_crb(theta, transmit, receive, snr, printed=False), rel=1e-8)


def test_crb_to_twelve_digits():
    for theta in np.deg2rad([0, 20, 45, -60]):
        assert float(crb_constant_rad2(0.1, 8, theta)) == pytest.approx(
            matrices_crb(theta, 8, 8, 0.1, printed=False), rel=1e-12
        )


def test_equation_9_as_printed_is_no_bound():
    # the printed numerator: ten times too small, negative near end fire
    assert matrices_crb(0.3, 8, 8, 1.0, printed=True) / float(crb_constant_rad2(1.0, 8, 0.3)) == pytest.approx(
        0.097, abs=0.003
    )
    assert matrices_crb(np.deg2rad(88), 8, 8, 1.0, printed=True) < 0 < float(crb_constant_rad2(1.0, 8, np.deg2rad(88)))


@pytest.mark.parametrize("reference", ["element", "centre"])
@pytest.mark.parametrize("build", [Ula(8), Upa(4, 3)])
def test_slope_is_the_derivative(reference, build):
    array = build.build(CARRIER, np.zeros(3), np.eye(3))
    az, el, h = 0.4, -0.2, 1e-6

    def column(azimuth):
        found = steering_column(array.position_m, CARRIER, azimuth, el)
        return found if reference == "centre" else found * np.exp(-1j * np.angle(found[0]))

    numeric = (column(az + h) - column(az - h)) / (2 * h)
    turned = (
        numeric
        * steering_column(array.position_m, CARRIER, az, el)[0]
        / abs(steering_column(array.position_m, CARRIER, az, el)[0])
    )
    slope = angle_slope(array.position_m, CARRIER, az, el, reference)
    np.testing.assert_allclose(slope, numeric if reference == "centre" else turned, rtol=1e-6, atol=1e-7)


def test_reference_of_the_phase_is_most_of_the_slope():
    size = [np.linalg.norm(angle_slope(ARRAY.position_m, CARRIER, 0.0, 0.0, r)) ** 2 for r in ("element", "centre")]
    assert size == pytest.approx([np.pi**2 * 140 / 8, np.pi**2 * 42 / 8], rel=1e-9)


@pytest.fixture
def ring():
    R = one_ring_correlation(ARRAY.position_m, CARRIER, np.array([0.0, 0.5]), np.zeros(2), np.deg2rad(1))
    return R, angle_slope(ARRAY.position_m, CARRIER, np.array([0.0, 0.5]))


def test_guard_begins_at_spread_over_root_three(ring):
    R, slope = ring
    assert np.rad2deg(np.sqrt(guard_crb_rad2(np.deg2rad(1)))) == pytest.approx(0.5774, abs=1e-4)
    for std, inside in ((0.3, True), (0.577, True), (0.6, False), (1.0, False), (3.0, False)):
        raw = believed_covariance(R, slope, np.ones(2), np.full(2, np.deg2rad(std) ** 2), "raw")
        least = np.linalg.eigvalsh(raw)[:, 0].min()
        assert (least > -2e-4) == inside
        clipped = believed_covariance(R, slope, np.ones(2), np.full(2, np.deg2rad(std) ** 2))
        assert np.all(np.linalg.eigvalsh(clipped) > -1e-14)
        trace = mmse_trace(clipped, np.full(2, 100.0))
        assert np.all(np.isfinite(trace) & (trace > 0) & (trace < 1))
        if inside:
            np.testing.assert_allclose(mmse_trace(raw, np.full(2, 100.0)), trace, rtol=1e-4)


def test_raw_has_a_pole_beyond_the_guard(ring):
    R, slope = ring
    # beta gamma_e = 20 dB: pole near 0.97 degrees (frozen from an independent study)
    deg = np.linspace(0.9, 1.05, 301)
    trace = np.array(
        [
            mmse_trace(believed_covariance(R[:1], slope[:1], np.ones(1), np.deg2rad(d) ** 2, "raw"), 100.0)[0]
            for d in deg
        ]
    )
    assert deg[np.argmax(np.abs(trace))] == pytest.approx(0.966, abs=0.01)


def test_trace_is_equation_29(ring):
    R, slope = ring
    for snr in (1.0, 10.0, 1e3):
        believed = believed_covariance(R, slope, np.ones(2), np.full(2, np.deg2rad(0.4) ** 2))
        direct = np.trace(mmse_covariance(believed, snr), axis1=1, axis2=2).real
        np.testing.assert_allclose(mmse_trace(believed, np.full(2, snr)), direct, rtol=1e-12)


def test_what_longer_sensing_buys_is_the_phase_reference(ring):
    # frozen from an independent study at beta gamma_e = 20 dB; a' at theta_k here, averaged over the ring there, hence the tolerance
    R, _ = ring
    for reference, want in (
        ("element", [0.9865, 0.9727, 0.9487, 0.7092]),
        ("centre", [0.9866, 0.9848, 0.9848, 0.9841]),
    ):
        slope = angle_slope(ARRAY.position_m, CARRIER, 0.0, 0.0, reference)
        found = [
            float(mmse_trace(believed_covariance(R[0], slope, np.ones(()), np.deg2rad(s) ** 2), np.array(100.0)))
            for s in (0.05, 0.577, 1, 3)
        ]
        assert found == pytest.approx(want, abs=1.2e-3)


@pytest.mark.parametrize("chains", [None, 3, 8])
def test_mmse_is_the_filter_of_least_error(ring, chains):
    rng = np.random.default_rng(0)
    R = ring[0][1] + 0.05 * np.eye(8) / 8
    W = None if chains is None else rng.standard_normal((8, chains)) + 1j * rng.standard_normal((8, chains))
    w = np.eye(8) if W is None else W
    snr = np.array(5.0)
    G, C, E = mmse_filter(R, snr, W), mmse_covariance(R, snr, W), mmse_error(R, snr, W)

    def error(G):
        left = np.eye(8) - G @ w.conj().T
        return np.trace(left @ R @ left.conj().T + G @ (w.conj().T @ w) @ G.conj().T / snr).real

    assert error(G) == pytest.approx(np.trace(E).real, rel=1e-10)
    np.testing.assert_allclose(C + E, R, atol=1e-12)
    for _ in range(5):
        assert error(G + 1e-3 * rng.standard_normal(G.shape)) > error(G)
    if chains == 8:  # all of the array through another basis: nothing is lost
        np.testing.assert_allclose(C, mmse_covariance(R, snr), atol=1e-10)


def test_bad_input_is_named(ring):
    R, slope = ring
    with pytest.raises(Misuse, match=r"receive_elements = 1.*at least 2"):
        crb_constant_rad2(1.0, 1, 0.0)
    with pytest.raises(Misuse, match="end fire"):
        crb_constant_rad2(1.0, 8, np.pi / 2)
    with pytest.raises(Misuse, match=r"std_deg = -1.*standard deviation in degrees"):
        crb_max_rad2_of_std_deg(-1)
    with pytest.raises(Misuse, match="guard = 'clamp'"):
        believed_covariance(R, slope, np.ones(2), np.zeros(2), "clamp")
    with pytest.raises(Misuse, match="it is a variance"):
        believed_covariance(R, slope, np.ones(2), np.array([0.0, np.nan]))
    with pytest.raises(Misuse, match="reference = 'middle'"):
        angle_slope(ARRAY.position_m, CARRIER, 0.0, 0.0, "middle")
    with pytest.raises(Misuse, match=r"azimuth_spread_rad = -0\.1"):
        guard_crb_rad2(-0.1)
    with pytest.raises(Misuse, match="pilot_snr = 0"):
        mmse_filter(R, 0.0)
