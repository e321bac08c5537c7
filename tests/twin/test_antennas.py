"""Users with several antennas: their channel against one antenna after another, their rate against the singular values, and the knob in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Upa
from hal.errors import Misuse
from hal.frontend import SITE
from hal.medium import Paths, beam_gains
from twin.antennas import user_channel
from twin.build import run
from twin.physics.hybrid_precoding import spectral_efficiency, svd_precoder
from twin.physics.rate import streams_bits
from twin.scenario import load

CARRIER = 100e9
FREQUENCY = CARRIER + np.array([-1e9, 0.0, 2e9])
PAPER = Path(__file__).parents[2] / "scenarios" / "paper001.yaml"


def test_every_antenna_hears_its_own_phase():
    """Dense: sum over paths of gain, delay, the site's elements and the user's position, straight from the definition of a path."""
    rng = np.random.default_rng(0)
    site = Upa(3, 2).build(CARRIER, np.zeros(3), np.eye(3))
    user = Upa(2, 2).build(CARRIER, np.zeros(3), np.eye(3))
    paths = 5
    sink = np.array([7, 9, 9, 7, 9])
    departure, arrival = rng.normal(size=(2, paths, 3)) * 20
    gain = rng.normal(size=(2, paths)) + 1j * rng.normal(size=(2, paths))
    down = Paths(
        carrier_hz=CARRIER,
        t_ns=np.array([0, 1000]),
        source=np.full(paths, SITE),
        sink=sink,
        gain=gain,
        delay_s=rng.random(paths) * 1e-8,
        doppler_hz=np.zeros(paths),
        departure_m=departure,
        arrival_m=arrival,
    )
    response = rng.normal(size=(1, 3, 6, 2)) + 1j * rng.normal(size=(1, 3, 6, 2))
    gains = beam_gains(down, site, response, FREQUENCY, end="departure")
    got = user_channel(down, user, gains, FREQUENCY, np.zeros(2, int), np.array([0, 1]), 9)
    expected = np.zeros((2, 3, 4, 2), complex)
    wave = 2 * np.pi * FREQUENCY / 299792458.0
    for p in np.flatnonzero(sink == 9):
        to, back = (v / np.linalg.norm(v) for v in (departure[p], arrival[p]))
        for m in range(3):
            lean = np.exp(1j * wave[m] * (user.position_m @ back))
            sent = np.exp(1j * wave[m] * (site.position_m @ to)) @ response[0, m]
            ramp = np.exp(-2j * np.pi * (FREQUENCY[m] - CARRIER) * down.delay_s[p])
            expected[:, m] += gain[:, p, None, None] * ramp * np.outer(lean, sent)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_streams_carry_what_eq_47_says(seed, antennas, streams):
    """Against the SVD: the best precoder's streams decouple, and no combiner of the receiver's does better than none at all."""
    rng = np.random.default_rng(seed)
    channel = rng.normal(size=(antennas, 6)) + 1j * rng.normal(size=(antennas, 6))
    streams = min(streams, antennas)
    precoder, combiner = svd_precoder(channel, 2.0, streams)
    bits, snr = streams_bits(channel @ precoder, np.zeros((antennas, 1)), 0.3)
    assert bits == pytest.approx(spectral_efficiency(channel, precoder, combiner, 0.3), rel=1e-9)
    size = np.linalg.svd(channel, compute_uv=False)[:streams]
    assert snr == pytest.approx(np.sum(size**2) * 2.0 / streams / 0.3)
    stray = rng.normal(size=(antennas, 2)) + 1j * rng.normal(size=(antennas, 2))
    covariance = 0.3 * np.eye(antennas) + stray @ stray.conj().T
    signal = (channel @ precoder) @ (channel @ precoder).conj().T
    expected = np.log2(np.linalg.det(np.eye(antennas) + np.linalg.solve(covariance, signal)).real)
    assert streams_bits(channel @ precoder, stray, 0.3)[0] == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_an_array_is_worth_its_elements():
    """One stream, nearly one path: sixteen antennas bring 12 dB, and nothing that the site senses changes."""
    scenario = load(PAPER, {"duration_s": 0.012})
    (user,) = scenario.users

    def played(array):
        return run(replace(scenario, users=(replace(user, array=array),)), write=False)

    alone, many = played(None), played(Upa(4, 4))
    one, ours = (r.summary["users"]["target"] for r in (alone, many))
    assert ours["snr_db"] - one["snr_db"] == pytest.approx(10 * np.log10(16), abs=0.3)
    assert ours["beam_loss_db"] == pytest.approx(one["beam_loss_db"], abs=0.3)
    assert 0 < ours["efficiency_bps_hz"] < 14
    assert "efficiency_bps_hz" not in one
    np.testing.assert_array_equal(alone.kpi.error, many.kpi.error)
    said = many.kpi.efficiency_bps_hz[:, 0]
    served = many.kpi.served_blocks[:, 0] > 0
    np.testing.assert_array_equal(np.isfinite(said), served)
    weights = many.kpi.served_blocks[served, 0]
    assert ours["efficiency_bps_hz"] == pytest.approx(np.average(said[served], weights=weights))
    waveform = replace(scenario.communication, fidelity="waveform")
    bits = replace(scenario, communication=waveform, users=(replace(user, array=Upa(4, 4)),))
    with pytest.raises(Misuse, match=r"users: 'target' has an array, and communication.fidelity = 'waveform'"):
        run(bits, write=False)
