import numpy as np
import pytest
from scipy import constants

from twin.physics import propagation as p


def test_free_space_is_the_textbook_decibel_formula():
    # ITU-R P.525: 92.45 + 20 log f(GHz) + 20 log d(km)
    r, f = np.array([15.0, 120.0, 1000.0]), np.array([28e9, 100e9, 300e9])
    textbook_db = 92.45 + 20 * np.log10(f / 1e9) + 20 * np.log10(r / 1e3)
    np.testing.assert_allclose(-20 * np.log10(p.free_space_amplitude(r, f)), textbook_db, atol=5e-3)


def test_radar_is_out_scattered_and_back():
    r, f, rcs = 80.0, 100e9, 3.0
    # power density at the target, re-radiated by its cross-section, caught by an isotropic antenna's aperture
    density = 1 / (4 * np.pi * r**2)
    back = density * rcs / (4 * np.pi * r**2)
    caught = back * (constants.c / f) ** 2 / (4 * np.pi)
    assert p.radar_amplitude(r, f, rcs) ** 2 == pytest.approx(caught, rel=1e-14)
    np.testing.assert_allclose(
        p.radar_amplitude(2 * r, f, np.array([rcs, 4 * rcs])), np.array([1, 2]) * np.sqrt(caught) / 4
    )


def test_gas_composes_over_lengths_and_is_a_field():
    assert p.gas_amplitude(20.0, 1000.0) == pytest.approx(0.1)
    assert p.gas_amplitude(0.5, 300.0) * p.gas_amplitude(0.5, 700.0) == pytest.approx(p.gas_amplitude(0.5, 1000.0))
    assert p.gas_amplitude(7.0, 0.0) == 1.0


def test_doppler_is_the_rate_of_the_carrier_phase():
    v, f, dt, r = 17.0, 100e9, 1e-6, 60.0

    def cycles(t, way):
        return -f * way * (r - v * t) / constants.c

    for way, shift in ((1, p.doppler_hz(v, f)), (2, p.echo_doppler_hz(v, f))):
        assert (cycles(dt, way) - cycles(0, way)) / dt == pytest.approx(shift, rel=1e-6)
        assert shift > 0


def test_thermal_noise_is_minus_174_dbm_a_hertz():
    assert 10 * np.log10(p.thermal_noise_w(1.0, 0.0) * 1e3) == pytest.approx(-173.975, abs=1e-3)
    assert p.thermal_noise_w(64e6, 10.0) == pytest.approx(10 * 64e6 * constants.k * 290)


def test_what_the_flagship_waveform_tells_apart():
    assert p.range_cell_m(64e6) == pytest.approx(2.342, abs=1e-3)
    assert p.unambiguous_range_m(1 / 1e6) == pytest.approx(149.9, abs=0.1)  # 64 delay bins of 1/64 us
    assert p.velocity_cell_mps(280e-6, 100e9) == pytest.approx(5.353, abs=1e-3)
    assert p.unambiguous_velocity_mps(17.5e-6, 100e9) == pytest.approx(42.83, abs=1e-2)
    # a phase of pi from frame to frame at that speed
    v = p.unambiguous_velocity_mps(17.5e-6, 100e9)
    assert p.echo_doppler_hz(v, 100e9) * 17.5e-6 == pytest.approx(0.5)
    assert p.longest_echo_range_m(1e-6) == pytest.approx(149.9, abs=0.1)
    assert p.longest_echo_range_m(1e-6, 0.25e-6) == pytest.approx(112.4, abs=0.1)
    assert p.longest_echo_range_m(0.1e-6, 0.25e-6) < 0


def test_torch_in_torch_out_with_gradients():
    torch = pytest.importorskip("torch")
    r = torch.tensor([20.0, 50.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: p.free_space_amplitude(r, 100e9) * 1e3, (r,))
    assert torch.autograd.gradcheck(lambda r: p.radar_amplitude(r, 100e9, 2.0) * 1e6, (r,))
    assert torch.autograd.gradcheck(lambda r: p.gas_amplitude(5.0, r), (r,))
