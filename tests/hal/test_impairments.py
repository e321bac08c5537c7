"""Each flaw of the chains against its closed form, and all of them together against how events are batched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CARRIER_HZ, RATE_HZ, echo_path, frames, half, heard, machine, matched, nameplate, noise, quiet

from hal.chain import image_rejection_db
from hal.errors import Misuse
from hal.frontend import Drive
from hal.impairments import Impairments, mask_power, received, resampled, sent

TONE = np.exp(2j * np.pi * 37 * np.arange(256) / 256)
MASK = ((1e4, -80.0), (1e6, -100.0))


def opened(chance=quiet, receive=None, transmit=None, **flaws):
    spec = nameplate(transmit=transmit, receive=half(chains=1) if receive is None else receive)
    front = machine(spec, chance, impairments=Impairments(**flaws))
    for which in ("transmit", "receive"):
        front.set_beam(matched(spec, which), 0)
    return front


def line_db(samples, k):
    """Power of line k over the strongest line, in dB."""
    spectrum = np.abs(np.fft.fft(samples)) ** 2
    return 10 * np.log10(spectrum[k % len(spectrum)] / spectrum.max())


@pytest.mark.parametrize("end", ["transmit", "receive"])
def test_an_unbalanced_mixer_has_the_image_of_its_formula(end):
    flaws = {f"{end}_iq_gain_db": 0.5, f"{end}_iq_phase_rad": 0.05}
    got = heard(opened(**flaws), frames([10_000_000], TONE), echo_path(gain=1 / 64)).samples[0, 0]
    assert line_db(got, -37) == pytest.approx(-image_rejection_db(0.5, 0.05), abs=0.01)


def test_a_pilot_has_its_image_on_the_mirrored_subcarrier():
    frequency = CARRIER_HZ + 1e9 * (np.arange(8) - 3.5)
    power = np.zeros((1, 8))
    power[0, 1] = 1e-3
    drive = Drive(
        t_ns=np.array([10_000_000]),
        slot=np.zeros(1, int),
        frequency_hz=frequency,
        power_w=power,
        digital=np.ones((1, 1, 1), complex),
    )
    front = opened(receive_iq_gain_db=1.0, receive_iq_phase_rad=0.1)
    got = np.abs(heard(front, drive, echo_path(source=3), source=3).samples[0, 0]) ** 2
    assert 10 * np.log10(got[1] / got[6]) == pytest.approx(image_rejection_db(1.0, 0.1), abs=0.01)
    assert np.delete(got, [1, 6]) == pytest.approx(0.0)


def test_a_carrier_offset_turns_samples_and_events_by_absolute_time():
    offset = RATE_HZ / 256 * 3  # three lines
    t_ns = np.array([10_000_000, 10_017_501])
    plain = heard(opened(), frames(t_ns, TONE), echo_path()).samples[:, 0]
    moved = heard(opened(carrier_offset_hz=offset), frames(t_ns, TONE), echo_path()).samples[:, 0]
    turned = moved / plain
    q = np.arange(256) / RATE_HZ
    expected = np.exp(-2j * np.pi * offset * (t_ns[:, None] * 1e-9 + q))
    assert np.max(np.abs(turned - expected)) < 1e-4
    assert line_db(moved[0], 34) == pytest.approx(0.0, abs=0.01)


def test_a_slow_clock_samples_later_and_later():
    q, late = np.arange(256), 100e-6
    rng = np.random.default_rng(0)
    line = rng.integers(-120, 120, 12)
    weight = rng.normal(size=12) + 1j * rng.normal(size=12)

    def wave(at):
        return (weight[:, None] * np.exp(2j * np.pi * line[:, None] * at / 256)).sum(axis=0)

    got = resampled(wave(q)[None, None], late)[0, 0]
    assert np.max(np.abs(got - wave(q * (1 + late)))) < 1e-5
    with pytest.raises(Misuse, match=r"at most 0\.5"):
        resampled(np.ones((1, 1, 2**14), complex), 100e-6)


def test_a_switch_loses_the_beginning_of_what_others_send():
    flaws = {"switching_ns": 500}
    got = heard(opened(**flaws), frames([10_000_000], TONE), echo_path(source=3), source=3).samples[0, 0]
    assert np.array_equal(np.abs(got) > 0.5 * np.abs(got).max(), np.arange(256) >= 32)  # 0.5 us at 64 MHz
    own = heard(opened(**flaws), frames([10_000_000], TONE), echo_path()).samples[0, 0]
    assert np.abs(own[:8]).min() > 0.5 * np.abs(own).max()  # full duplex


def test_a_pilot_loses_the_share_of_its_energy():
    drive = Drive(
        t_ns=np.array([10_000_000]),
        slot=np.zeros(1, int),
        frequency_hz=np.array([CARRIER_HZ]),
        power_w=np.ones((1, 1)),
        digital=np.ones((1, 1, 1), complex),
    )
    plain, cut = (
        np.abs(heard(opened(**flaws), drive, echo_path(source=3), source=3).samples[0, 0, 0]) ** 2
        for flaws in ({}, {"switching_ns": 2_500})
    )
    assert cut / plain == pytest.approx(0.75)  # 2.5 us of 10


def test_one_oscillator_for_both_ways_leaves_only_what_changes_during_the_delay():
    linewidth, delay = 1e4, 10
    t_ns = 10_000_000 + np.arange(200) * 20_000
    left = {}
    for oscillator in ("site", "half"):
        front = opened(linewidth_hz=linewidth, oscillator=oscillator)
        got = heard(front, frames(t_ns, np.ones(256)), echo_path(delay)).samples[:, 0]
        ideal = heard(opened(), frames(t_ns[:1], np.ones(256)), echo_path(delay)).samples[0, 0]
        phase = np.angle(got / ideal)[:, 2 * delay :]  # a frame wraps at its start, a prefix does not
        left[oscillator] = float(np.mean(phase**2))
    assert left["site"] == pytest.approx(2 * np.pi * linewidth * delay / RATE_HZ, rel=0.3)
    assert left["half"] > 20 * left["site"]


def test_chains_of_one_oscillator_turn_together_and_of_their_own_apart():
    for oscillator, together in (("half", True), ("chain", False)):
        front = opened(receive=half(chains=2), linewidth_hz=1e4, oscillator=oscillator)
        got = heard(front, frames([10_000_000], np.ones(256)), echo_path()).samples[0]
        assert np.allclose(np.angle(got[0] / got[1]), 0.0, atol=1e-3) == together


def test_mask_power_is_the_integral():
    f = np.geomspace(1e4, 1e6, 200_001)
    level = 10 ** (np.interp(np.log10(f), [4, 6], [-80, -100]) / 10)
    assert mask_power(MASK, 1e3, 1e7) == pytest.approx(2 * np.trapezoid(level, f), rel=1e-6)
    assert mask_power(MASK, 1e5, 1e5) == 0
    assert mask_power(((1e4, -80.0), (1e6, -100.0)), 1e4, 1e5) + mask_power(MASK, 1e5, 1e6) == pytest.approx(
        mask_power(MASK, 0, 1e9)
    )


EVERYTHING = {
    "dac_bits": 8,
    "dac_full_scale_w": 2.0,
    "transmit_iq_gain_db": 0.3,
    "receive_iq_phase_rad": 0.02,
    "linewidth_hz": 300.0,
    "phase_noise_dbc": MASK,
    "carrier_offset_hz": 1234.5,
    "sampling_offset_ppm": 20.0,
    "switching_ns": 300,
}


@settings(max_examples=8, deadline=None)
@given(split=st.integers(1, 5), oscillator=st.sampled_from(["site", "half", "chain"]))
def test_bits_do_not_depend_on_how_events_are_batched(split, oscillator):
    t_ns = 10_000_000 + np.arange(6) * 17_500
    front = opened(noise, receive=half(chains=3), oscillator=oscillator, **EVERYTHING)
    whole = heard(front, frames(t_ns, TONE), echo_path(5)).samples
    parts = [heard(front, frames(t, TONE), echo_path(5)).samples for t in (t_ns[split:], t_ns[:split])]
    assert np.array_equal(whole, np.concatenate(parts[::-1]))


def test_flaws_that_are_off_change_no_bit():
    t_ns = 10_000_000 + np.arange(3) * 17_500
    off = heard(opened(noise), frames(t_ns, TONE), echo_path(5)).samples
    zero = heard(opened(noise, switching_ns=300), frames(t_ns, TONE), echo_path(5)).samples  # no switch for own echoes
    assert np.array_equal(off, zero)
    assert not Impairments().sends
    assert not Impairments().hears
    drive = frames(t_ns, TONE)
    assert sent(drive, Impairments(), np.inf, noise) is drive


def test_precision_is_kept():
    one = received(
        np.ones((1, 1, 8), np.complex64), Impairments(carrier_offset_hz=1.0), noise, np.array([0]), 1e6, 1e-5, True
    )
    assert one.dtype == np.complex64


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("phase_noise_dbc", ((1e5, -80.0), (1e4, -90.0)), "ascending"),
        ("phase_noise_dbc", ((1e5, -80.0),), "two or more"),
        ("dac_bits", 8, "dac_full_scale_w"),
        ("sampling_offset_ppm", float("nan"), "sampling_offset_ppm"),
    ],
)
def test_what_cannot_be_is_refused(field, value, said):
    with pytest.raises(Misuse, match=said):
        Impairments(**{field: value})
