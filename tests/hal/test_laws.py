"""Laws of the machine: closed forms that hold of the whole chain from settings to samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import fresnel
from small import CARRIER_HZ, echo_path, frames, half, heard, machine, matched, nameplate, noise, wavelength_m

from hal.array import Ula, Upa, direction_from, fraunhofer_distance_m, near_field, steering
from hal.chain import rapp, saleh
from hal.frontend import HalfSpec
from hal.impairments import Impairments, received, sent
from hal.medium import beam_gains
from hal.memory import Fault
from hal.network import Network, neighbour_coupling, response


def gain(front, spec, direction, t_ns=10_000_000):
    """Power gain of transmit slot 0 towards a direction."""
    drive = frames([t_ns], np.ones(64, complex))
    emission = front.emit(drive)
    return float(
        np.abs(
            beam_gains(echo_path(direction=direction), spec.transmit.array, emission.response, drive.frequency_hz)[
                0, 0, 0, 0
            ]
        )
        ** 2
    )


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_quantised_phases_keep_sin_x_over_x_squared(bits):
    rng = np.random.default_rng(bits)
    spec = nameplate(transmit=half(32, 32, phase_bits=bits))
    front, kept = machine(spec), []
    for k in range(30):
        direction = direction_from(np.array(rng.uniform(-0.9, 0.9)), np.array(rng.uniform(-0.5, 0.5)))
        front.set_beam(matched(spec, "transmit", direction), k * 1_000_000)
        kept.append(gain(front, spec, direction, k * 1_000_000 + 500_000) / 1024)
    x = np.pi / 2**bits
    assert np.mean(kept) == pytest.approx((np.sin(x) / x) ** 2, abs=0.01)


@pytest.mark.parametrize("dead", [1, 16, 32, 60])
def test_a_dead_fraction_p_leaves_one_minus_p_squared_exactly(dead):
    spec = nameplate(transmit=half(phase_bits=0))
    front, direction = machine(spec), direction_from(np.array(0.3), np.array(-0.2))
    front.set_beam(matched(spec, "transmit", direction), 0)
    whole = gain(front, spec, direction, 1_000_000)
    for element in range(dead):
        front.inject(Fault("dead_element", "transmit", element), 2_000_000)
    assert whole == pytest.approx(64, rel=1e-9)
    assert gain(front, spec, direction, 3_000_000) / whole == pytest.approx((1 - dead / 64) ** 2, rel=1e-9)


@pytest.mark.parametrize("curve", ["rapp", "saleh"])
def test_amplifier_curves_chain_by_chain(curve):
    chains, spread = 2, (0.0, -3.0)
    spec = nameplate(transmit=half(8, 8, chains=chains, connection="partial"), power_w=100.0)
    flaws = Impairments(amplifier=curve, saturation_spread_db=spread, smoothness=3.0)
    front = machine(spec, saturation_w=1.0, impairments=flaws)
    level = np.geomspace(0.01, 5, 128)  # sqrt(W) at a port, with the power of 25 W in two chains
    drive = frames([0], level / np.sqrt(12.5) + 0j, power_w=25.0, chains=chains)
    out = front.emit(drive).drive.samples[0] * 5.0
    for chain in range(chains):
        limit = 10 ** (spread[chain] / 20)
        if curve == "rapp":
            expected = level / (1 + (level / limit) ** 6) ** (1 / 6)  # Rapp, smoothness 3
        else:
            k = 1 / (2 * np.sqrt(1.1517) * limit)  # peak of Saleh's curve at the limit, unit small-signal gain
            expected = 2.1587 * k * level / (1 + 1.1517 * (k * level) ** 2) / (2.1587 * k)
            expected = expected * np.exp(1j * 4.0033 * (k * level) ** 2 / (1 + 9.1040 * (k * level) ** 2))
            assert np.abs(expected).max() == pytest.approx(limit, rel=1e-3)
        assert out[chain] == pytest.approx(expected, rel=1e-9)
    assert np.array_equal(rapp(level + 0j, 1.0), rapp(level + 0j, np.array(1.0)))
    assert saleh(np.array([0.1 + 0j]))[0] != 0.1


@pytest.mark.parametrize("linewidth_hz", [10.0, 100.0, 1000.0])
def test_phase_noise_evm_is_a_sixth_of_the_walk_over_a_frame(linewidth_hz):
    # a Wiener phase over T with its mean taken out has mean square 2 pi linewidth T / 6
    count, rate = 512, 64e6
    flaws = Impairments(linewidth_hz=linewidth_hz, oscillator="half")
    t_ns = np.arange(400) * 1_000_000
    got = received(np.ones((400, 1, count), complex), flaws, noise, t_ns, rate, count / rate, True)[:, 0]
    common = got.mean(axis=1, keepdims=True)
    evm2 = np.mean(np.abs(got / (common / np.abs(common)) - 1) ** 2)
    assert evm2 == pytest.approx(2 * np.pi * linewidth_hz * count / rate / 6, rel=0.12)


def test_phase_noise_evm_of_a_mask_is_its_integral():
    mask = ((1e3, -80.0), (1e5, -90.0), (1e7, -120.0))
    flaws = Impairments(phase_noise_dbc=mask, oscillator="half")
    # closed form a segment: L = a f^b
    slope = (-0.5, -1.5)
    low = 1e-8 * 1e3 / (slope[0] + 1) * (100 ** (slope[0] + 1) - 1)
    high = 1e-9 * 1e5 / (slope[1] + 1) * (100 ** (slope[1] + 1) - 1)
    t_ns = np.arange(300) * 1_300_007
    got = received(np.ones((300, 1, 512), complex), flaws, noise, t_ns, 64e6, 8e-6, True)
    assert np.mean(np.angle(got) ** 2) == pytest.approx(2 * (low + high), rel=0.25)


@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_converters_have_six_decibels_a_bit(bits):
    # both ends: a sine through the DAC at the port, and through the ADC behind the combiner
    spec = nameplate(transmit=half(phase_bits=0), receive=half(chains=1, phase_bits=0))
    sine = np.exp(2j * np.pi * 37 * np.arange(1024) / 1024) * np.exp(0.1j)
    drive = frames([10_000_000], sine)
    port = sent(drive, Impairments(dac_bits=bits, dac_full_scale_w=1.0), np.inf, noise).samples[0, 0]
    sqnr_db = 10 * np.log10(np.mean(np.abs(sine) ** 2) / np.mean(np.abs(port - sine) ** 2))
    assert sqnr_db == pytest.approx(6.02 * bits + 1.76, abs=0.6)
    front = machine(spec, converter_bits=bits, converter_full_scale_w=1.0)
    for which in ("transmit", "receive"):
        front.set_beam(matched(spec, which), 0)
    got = heard(front, drive, echo_path(gain=0.9999 / 64)).samples[0, 0]
    sqnr_db = 10 * np.log10(1 / np.mean(np.abs(got - sine * 0.9999) ** 2))
    assert sqnr_db == pytest.approx(6.02 * bits + 1.76, abs=0.6)


def test_near_field_at_the_fraunhofer_distance():
    # on axis a line of length D loses (C(v)^2 + S(v)^2) / v^2, v = D / sqrt(2 wavelength d): v = 1/2 at 2 D^2 / wavelength
    plane = Ula(256).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    sphere = Ula(256, spherical=True).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    far_m = fraunhofer_distance_m(plane, CARRIER_HZ)
    feed = np.full((1, 1, 256, 1), 1 / 16 + 0j)
    for share, v in ((1.0, 0.5), (0.25, 1.0), (1 / 16, 2.0)):
        paths = echo_path()
        at = type(paths)(
            **{n: getattr(paths, n) for n in paths.__slots__} | {"departure_m": np.array([[far_m * share, 0, 0]])}
        )
        near, away = (
            np.abs(beam_gains(at, array, feed, np.array([CARRIER_HZ]))[0, 0, 0, 0]) ** 2 for array in (sphere, plane)
        )
        s, c = fresnel(v)
        assert away == pytest.approx(256, rel=1e-12)
        assert near / away == pytest.approx((c * c + s * s) / v**2, abs=2e-3)
        assert near == pytest.approx(
            np.abs((near_field(sphere, at.departure_m[0], np.float64(CARRIER_HZ)) / 16).sum()) ** 2
        )


def test_coupling_of_identity_is_none_and_lossless_coupling_keeps_power():
    rng = np.random.default_rng(0)
    plain = Network(chains=2).build(4, 4)
    settings = np.zeros((3, 2, 0)), rng.uniform(0, 6, (3, 2, 16)), np.ones((3, 2, 16))
    frequency = np.array([99e9, 101e9])
    fields = {n: getattr(plain, n) for n in plain.__slots__}
    same = type(plain)(**fields | {"coupling": np.eye(16, dtype=complex)})
    assert np.array_equal(response(plain, *settings, frequency), response(same, *settings, frequency))
    matrix = neighbour_coupling(4, 4, -15.0)
    assert np.allclose(matrix, matrix.T, atol=1e-15)
    coupled = response(type(plain)(**fields | {"coupling": matrix}), *settings, frequency)
    assert np.sum(np.abs(coupled) ** 2, axis=-2) == pytest.approx(1.0)
    assert np.abs(matrix[5, 6]) == pytest.approx(10 ** (-15 / 20), rel=0.1)
    assert np.allclose(coupled, np.einsum("nm,...mc->...nc", matrix, response(plain, *settings, frequency)))


def test_coupling_is_felt_on_the_air_and_off_costs_nothing():
    spec = nameplate(transmit=half(phase_bits=0, coupling_db=-10.0))
    front, plain = machine(spec), nameplate(transmit=half(phase_bits=0))
    direction = direction_from(np.array(0.5), np.array(0.0))
    front.set_beam(matched(spec, "transmit", direction), 0)
    got = gain(front, spec, direction)
    wave = steering(plain.transmit.array, direction, np.float64(CARRIER_HZ))
    assert got == pytest.approx(np.abs(wave @ neighbour_coupling(8, 8, -10.0) @ wave.conj() / 8) ** 2, rel=1e-9)
    assert plain.transmit.network.coupling is None
    assert got < 64


def test_small_helpers_are_what_they_say():
    assert wavelength_m() == pytest.approx(2.99792458e-3)
    assert isinstance(half(array=Upa(2, 2)), HalfSpec)
