"""Wide-band events behind flawed chains: each closed form against samples of the machine's own converters, mixers and oscillators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CARRIER_HZ, machine, matched, nameplate, noise

from hal.chain import convert, image_rejection_db, iq_imbalance, wiener_phase
from hal.distortion import bussgang, converted, leakage, leaked, sent_block
from hal.frontend import Drive
from hal.impairments import Impairments, amplifier, mask_power
from hal.wire import encode

M, SPACING_HZ = 64, 1e6
OFF = Impairments()


def block(digital, power_w=None):
    power_w = np.full((1, M), 1e-3 / M) if power_w is None else power_w
    return Drive(
        t_ns=np.array([10_000_000]),
        slot=np.zeros(1, int),
        frequency_hz=CARRIER_HZ + SPACING_HZ * (np.arange(M) - (M - 1) / 2),
        power_w=power_w,
        digital=np.asarray(digital, complex)[None],
    )


def symbols(rng, draws, streams=1):
    """Normal symbols on every subcarrier: what any constellation on very many subcarriers is in time."""
    return (rng.normal(size=(draws, streams, M)) + 1j * rng.normal(size=(draws, streams, M))) * np.sqrt(0.5)


def played(drive, flaw, draws=4000, seed=0):
    """Symbol by symbol through an inverse transform, ``flaw(samples [draw chain sample])`` and back: gain a chain, and the rest's covariance."""
    rng = np.random.default_rng(seed)
    s = symbols(rng, draws, drive.digital.shape[2])
    port = np.einsum("cs,dsm->dcm", drive.digital[0], s) * np.sqrt(drive.power_w[0])
    # the middle of the band lies between two subcarriers, as the carrier does
    half = np.exp(-1j * np.pi * (M - 1) / M * np.arange(M))
    back = np.fft.fft(flaw(np.fft.ifft(port, axis=-1) * M * half) * np.conj(half), axis=-1) / M
    gain = (back * port.conj()).sum(axis=(0, 2)) / (np.abs(port) ** 2).sum(axis=(0, 2))
    rest = back - gain[:, None] * port
    return gain, np.einsum("dcm,dkm->mck", rest, rest.conj()) / draws


def told(drive, flaws, saturation_w=np.inf):
    out, root = sent_block(drive, flaws, saturation_w, noise)
    assert root is not None
    return out, np.einsum("mcs,mks->mck", root[0], root[0].conj())


@pytest.mark.parametrize(("bits", "back_off_db"), [(0, 3.0), (3, 9.0), (6, 12.0), (1, 0.0), (8, 6.0)])
def test_a_converter_s_gain_and_distortion_are_bussgang_s(bits, back_off_db):
    full_scale_w = 1e-3 * 10 ** (back_off_db / 10)
    drive = block(np.ones((1, 1)))
    gain, rest = played(drive, lambda x: convert(x, bits, np.sqrt(full_scale_w))[0])
    out, covariance = told(drive, replace(OFF, dac_bits=bits, dac_full_scale_w=full_scale_w))
    assert out.digital[0, 0, 0] == pytest.approx(gain[0].real, rel=0.005)
    assert covariance[:, 0, 0].real.mean() == pytest.approx(rest[:, 0, 0].real.mean(), rel=0.06)
    assert np.ptp(covariance[:, 0, 0].real) == 0


@given(st.floats(-6, 18))
def test_fine_steps_are_uniform_noise_on_top_of_clipping(back_off_db):
    """The last number of bits whose steps are summed, and the first whose steps are not, differ by what a bit is worth."""
    full_scale = 10 ** (back_off_db / 20)
    gain, clip, steps = bussgang(np.array([1.0]), 12, full_scale)
    bare, alone, none = bussgang(np.array([1.0]), 0, full_scale)
    assert (none, alone) == (0, clip)
    assert gain == pytest.approx(bare, rel=1e-3)
    assert clip + 4 * bussgang(np.array([1.0]), 13, full_scale)[2] == pytest.approx(clip + steps, rel=5e-3)


def test_a_full_scale_backed_off_converter_has_six_db_a_bit():
    sndr = [10 * np.log10(1 / sum(bussgang(np.array([1.0]), bits, 4.0)[1:])[0]) for bits in (5, 6, 7, 8)]
    assert np.diff(sndr) == pytest.approx(6.02, abs=0.1)


def test_clipping_beams_with_the_stream_and_steps_do_not():
    """Four chains, one stream in phase: the distortion of a shared clip adds up in amplitude where the stream does."""
    drive = block(np.full((4, 1), 0.5))
    along = np.full(4, 0.5)
    _, clipped = played(drive, lambda x: convert(x, 0, np.sqrt(2.5e-4))[0])
    _, ours = told(drive, replace(OFF, dac_full_scale_w=2.5e-4))
    for covariance in (clipped, ours):
        beamed = np.einsum("c,mck,k->m", along, covariance, along).real.mean()
        assert beamed == pytest.approx(np.trace(ours, axis1=1, axis2=2).real.mean(), rel=0.06)
    apart = block(0.5 * np.exp(2j * np.pi * np.array([0.03, 0.13, 0.47, 0.84]))[:, None])
    _, stepped = played(apart, lambda x: convert(x, 5, np.sqrt(4e-3))[0])
    _, ours = told(apart, replace(OFF, dac_bits=5, dac_full_scale_w=4e-3))
    assert np.trace(stepped, axis1=1, axis2=2).mean().real == pytest.approx(
        np.trace(ours, axis1=1, axis2=2).mean().real, rel=0.06
    )
    assert np.abs(stepped.mean(axis=0) - np.diag(np.diag(stepped.mean(axis=0)))).max() < 0.05 * stepped.real.max()


def test_an_image_falls_on_the_mirror_with_the_ratio_of_its_formula():
    power = np.zeros((1, M))
    power[0, 5] = 1e-3
    drive = block(np.exp(1j * np.array([[0.3], [1.7]])) / np.sqrt(2), power)
    _, rest = played(drive, lambda x: iq_imbalance(x, 0.7, 0.06))
    out, ours = told(drive, replace(OFF, transmit_iq_gain_db=0.7, transmit_iq_phase_rad=0.06))
    assert np.flatnonzero(np.abs(ours).max(axis=(1, 2))).tolist() == [M - 1 - 5]
    ours_there, there = (c[M - 1 - 5] / np.trace(c[M - 1 - 5]) for c in (ours, rest))
    assert np.abs(ours_there - there).max() < 1e-9  # how the chains stand to each other
    assert np.trace(ours[M - 1 - 5]).real == pytest.approx(np.trace(rest[M - 1 - 5]).real, rel=0.06)
    rejection = np.abs(out.digital[0, 0, 0]) ** 2 * 1e-3 / ours[M - 1 - 5, 0, 0].real
    assert 10 * np.log10(rejection) == pytest.approx(image_rejection_db(0.7, 0.06), abs=1e-6)


@pytest.mark.parametrize("linewidth_hz", [1e3, 3e4, 1e6])
def test_a_free_running_oscillator_leaks_as_its_samples_do(linewidth_hz):
    fine, draws = 16, 3000
    rng = np.random.default_rng(3)
    phase = wiener_phase(rng.normal(size=(draws, fine * M)), linewidth_hz, fine * M * SPACING_HZ)
    line = np.fft.fft(np.exp(1j * phase), axis=-1) / (fine * M)  # of a symbol's length
    found = np.mean(np.abs(line) ** 2, axis=0)
    ours = leakage(replace(OFF, linewidth_hz=linewidth_hz), np.arange(9) * SPACING_HZ, 1 / SPACING_HZ)
    assert 1 - ours[0] == pytest.approx(1 - found[0], rel=0.1)
    assert ours[1:] == pytest.approx(found[1:9], rel=0.12)


@settings(max_examples=30)
@given(st.floats(1.0, 1e6), st.floats(1e-8, 1e-5))
def test_what_leaks_out_is_what_the_line_loses(linewidth_hz, length_s):
    """All multiples of 1/T together are the whole; for short T a line loses pi linewidth T / 3."""
    flaws = replace(OFF, linewidth_hz=linewidth_hz)
    offset = np.arange(-4_000, 4_001) / length_s
    power = leakage(flaws, offset, length_s)
    assert power.sum() == pytest.approx(1.0, rel=1e-3)
    x = np.pi * linewidth_hz * length_s
    if 1e-6 < x < 1e-2:
        assert 1 - leakage(flaws, np.zeros(1), length_s)[0] == pytest.approx(x / 3, rel=0.01)


def test_a_locked_oscillator_s_leaks_are_its_mask_s_phase_variance():
    mask = ((1e5, -95.0), (3e7, -105.0))
    flaws = replace(OFF, phase_noise_dbc=mask)
    power = leakage(flaws, np.arange(-400, 401) * SPACING_HZ, 1 / SPACING_HZ)
    assert np.delete(power, 400).sum() == pytest.approx(1 - power[400], rel=0.02)
    # slower than a symbol turns it as a whole, faster leaks
    assert 1 - power[400] == pytest.approx(float(mask_power(mask, 0.44 * SPACING_HZ, 1e9)), rel=0.1)


def test_the_leak_of_all_subcarriers_is_a_floor_on_what_is_sent():
    drive = block(np.full((2, 1), 2**-0.5))
    flaws = replace(OFF, linewidth_hz=1e4)
    for oscillator, shared in (("site", 1.0), ("chain", 0.0)):
        out, ours = told(drive, replace(flaws, oscillator=oscillator))
        kept = (np.abs(out.digital[0, :, 0]) ** 2).sum()
        leak = np.trace(ours[M // 2]).real / drive.power_w[0, 0]
        assert kept + leak == pytest.approx(1.0, abs=3e-4)  # in mid-band little falls beside it
        assert abs(ours[M // 2, 0, 1]) / ours[M // 2, 0, 0].real == pytest.approx(shared)


def test_pilots_lose_the_same_share_and_gain_it_back_as_interference():
    t_ns = 10_000_000 + 1_000 * np.arange(4000)
    f = CARRIER_HZ + SPACING_HZ * np.arange(M)
    ones = np.ones((len(t_ns), 1, M), complex)
    flaws = replace(OFF, linewidth_hz=2e4)
    out = leaked(ones, flaws, noise, t_ns, f, 1 / SPACING_HZ)
    kept = leakage(flaws, np.zeros(1), 1 / SPACING_HZ)[0]
    assert out.mean() == pytest.approx(np.sqrt(kept), rel=0.01)
    assert np.var(out[:, 0, M // 2]) == pytest.approx(1 - kept, rel=0.1)
    alone = np.zeros_like(ones)
    alone[..., 7] = 1
    power = np.mean(np.abs(leaked(alone, flaws, noise, t_ns, f, 1 / SPACING_HZ)) ** 2, axis=(0, 1))
    assert power[8:12] == pytest.approx(leakage(flaws, np.arange(1, 5) * SPACING_HZ, 1 / SPACING_HZ), rel=0.1)


def test_pilots_behind_converters_are_what_samples_behind_them_are():
    rng = np.random.default_rng(1)
    sent = symbols(rng, 3000) * np.sqrt(1e-9 / M)
    time = np.fft.ifft(sent, axis=-1) * M
    found, clips = convert(time, 5, np.sqrt(2e-9))
    back = np.fft.fft(found, axis=-1) / M
    normals = (rng.normal(size=sent.shape) + 1j * rng.normal(size=sent.shape)) * np.sqrt(0.5)
    ours, overload = converted(sent, normals, 5, np.sqrt(2e-9), 0.0, M)
    for got in (back, ours):
        gain = np.vdot(sent, got) / np.vdot(sent, sent)
        assert abs(gain) == pytest.approx(float(bussgang(np.array([1e-9]), 5, np.sqrt(2e-9))[0][0]), rel=0.01)
    left = [np.mean(np.abs(got - np.vdot(sent, got) / np.vdot(sent, sent) * sent) ** 2) for got in (back, ours)]
    assert left[1] == pytest.approx(left[0], rel=0.06)
    assert bool(overload.all()) == bool(clips.mean() > 1e-3)
    # twice as long, the same band: the pilot's line gathers, the converter's noise is spread over twice as many lines
    longer, _ = converted(sent, normals, 5, np.sqrt(2e-9), 0.0, 2 * M)
    assert np.mean(np.abs(longer - ours) ** 2) > 0


def test_flaws_that_are_off_leave_the_emission_bit_for_bit():
    spec = nameplate()
    drive = replace(block(np.full((len(spec.transmit.network.wired), 1), 1.0)), power_w=np.full((1, M), 1e-4 / M))
    plain, off = (machine(spec, noise, **more) for more in ({}, {"impairments": Impairments(oscillator="chain")}))
    for front in (plain, off):
        front.set_beam(matched(spec, "transmit"), 0)
    assert encode(plain.emit(drive)) == encode(off.emit(drive))
    assert plain.emit(drive).distortion is None


@pytest.mark.parametrize("curve", [Impairments(), Impairments(smoothness=0.8), Impairments(amplifier="saleh")])
@pytest.mark.parametrize("back_off_db", [0.0, 4.0, 9.0])
def test_an_amplifier_s_gain_and_regrowth_are_those_of_its_samples(curve, back_off_db):
    """Four times oversampled, so that what grows beside the band stays there."""
    saturation_w, drive, wide = 1e-3 * 10 ** (back_off_db / 10), block([[1.0]]), 4 * M
    out, noise_w = told(drive, curve, saturation_w)
    rng = np.random.default_rng(3)
    port = np.zeros((4000, 1, wide), complex)
    port[..., :M] = symbols(rng, 4000) * np.sqrt(drive.power_w[0])
    back = np.fft.fft(amplifier(curve, saturation_w)(np.fft.ifft(port) * wide)) / wide
    gain = (back * port.conj()).sum() / (np.abs(port) ** 2).sum()
    assert out.digital[0, 0, 0] == pytest.approx(gain, rel=5e-3)
    rest = np.mean(np.abs(back - gain * port)[:, 0, :M] ** 2, axis=0)
    in_band = noise_w[:, 0, 0].real
    assert in_band.sum() == pytest.approx(rest.sum(), rel=0.06)
    middle, edge = slice(M // 2 - 4, M // 2 + 4), np.r_[:4, M - 4 : M]
    assert in_band[middle].sum() / in_band[edge].sum() == pytest.approx(rest[middle].sum() / rest[edge].sum(), rel=0.15)


def test_more_back_off_less_regrowth():
    floor = [told(block([[1.0]]), OFF, 1e-3 * 10 ** (db / 10))[1].sum() for db in (0, 3, 6, 9, 12)]
    fall_db = -10 * np.diff(np.log10(np.real(floor)))
    assert np.all(fall_db > [2, 4, 7, 9])  # the more linear, the faster
