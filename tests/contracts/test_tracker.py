"""What every tracker keeps, whatever its kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import Upa, rotation_from
from hal.frontend import Beam, BeamReport, FrontendSpec, HalfSpec
from hal.network import Network
from hal.wire import decode, encode
from twin.records import Detections, EchoObservation, Numerology, Plan, Tracks
from twin.registry import names, resolve
from twin.tracking import Tracker

CARRIER, SUBFRAME = 100e9, 5_000_000
NONE = np.zeros(0, dtype=np.int64)
SIGMA = np.array([3e-3, 3e-3, 0.1, 0.3])
ROTATION, ORIGIN = rotation_from(0.2, 0.1), np.array([0.0, 0.0, 10.0])


@pytest.fixture(params=names("twin.tracking"))
def tracker(request) -> Tracker:
    return resolve("twin.tracking", request.param)()  # every shipped kind has defaults for all its fields


def observed(k: int) -> EchoObservation:
    """Two dwells along boresight."""
    array = Upa(8, 8).build(CARRIER, ORIGIN, ROTATION)
    half = HalfSpec(array=array, network=Network().build(8, 8), memory_slots=1)
    ahead = Beam(
        half="-",
        slot=np.array([0]),
        delay_s=np.zeros((1, 1, 0)),
        phase_rad=np.zeros((1, 1, 64)),
        amplitude=np.ones((1, 1, 64)),
    )
    report = BeamReport(setpoint=ahead, readback=ahead, accepted_ns=0, effective_ns=0, clipped=0, uncertainty_ns=0)
    spec = FrontendSpec(
        name="contract",
        carrier_hz=CARRIER,
        transmit=half,
        receive=half,
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=0,
        bus_ns_per_element=0,
        settling_ns=0,
        select_ns=0,
        simulated=True,
    )
    numerology = Numerology(
        carrier_hz=CARRIER,
        subframe_ns=SUBFRAME,
        blocks=35,
        block_ns=140_000,
        subcarrier_hz=np.array([CARRIER]),
        subcarrier_spacing_hz=250e6,
        delay_bins=64,
        doppler_bins=16,
        sample_rate_hz=64e6,
        roll_off=0.2,
        pulse_span=8,
        prefix_ns=1000,
        frame_ns=17_500,
        frames_per_dwell=16,
        pilot_ns=10_000,
        pilot_power_w=0.1,
        user_noise_w=1e-11,
    )
    plan = Plan(
        k=k,
        sensing_blocks=4,
        sensing_ns=560_000,
        dwell_transmit_slot=np.array([0, 0]),
        dwell_receive_slot=np.array([0, 0]),
        dwell_target=np.array([-1, -1]),
        update_block=NONE,
        pilot_receive_slot=np.zeros((0, 0), dtype=np.int64),
        slot=np.full(35, -1),
        served=np.zeros((35, 0), dtype=bool),
        user=NONE,
    )
    return EchoObservation(
        k=k,
        t_ns=k * SUBFRAME,
        spec=spec,
        numerology=numerology,
        plan=plan,
        user=NONE,
        drive=None,
        listen=None,
        echo=None,
        detections=None,
        transmit_beam=report,
        receive_beam=report,
    )


def found(k: int, states: np.ndarray, rng: np.random.Generator) -> Detections:
    """Both dwells see every state, in shuffled order, with noise."""
    values, dwells = [], []
    for dwell in (0, 1):
        for state in states[rng.permutation(len(states))]:
            vector = ROTATION.T @ (state[:3] - ORIGIN)
            r = np.linalg.norm(vector)
            speed = -(state[:3] - ORIGIN) @ state[3:] / r
            values.append(np.array([vector[1] / r, vector[2] / r, r, speed]) + SIGMA * rng.normal(size=4))
            dwells.append(dwell)
    dwell = np.array(dwells, dtype=np.int64)
    return Detections(
        t_ns=k * SUBFRAME + 140_000 + 280_000 * dwell,
        dwell=dwell,
        value=np.array(values).reshape(-1, 4),
        covariance=np.tile(np.diag(SIGMA**2), (len(dwell), 1, 1)),
        snr_db=np.full(len(dwell), 20.0),
    )


def movers(t_s: float) -> np.ndarray:
    """Two movers in the beam, crossing the boresight in turn."""
    start = np.array([[50.0, 9.0, 5.0, -8.0, 2.0, 0.0], [80.0, 18.0, 2.0, 3.0, -6.0, 0.0]])
    start[:, :3] += t_s * start[:, 3:]
    return start


def follow(tracker: Tracker, subframes: int, seed: int = 0, tracks: Tracks | None = None) -> Tracks:
    rng = np.random.default_rng(seed)
    tracks = tracker.start() if tracks is None else tracks
    for k in range(subframes):
        tracks = tracker.update(tracks, found(k, movers(k * 5e-3), rng), observed(k))
    return tracks


def consistent(tracks: Tracks) -> None:
    count = len(tracks.track)
    assert tracks.state.shape == (count, 6)
    assert tracks.covariance.shape == (count, 6, 6)
    for column in (tracks.user, tracks.confirmed, tracks.hits, tracks.misses, tracks.seen_ns):
        assert column.shape == (count,)
    assert len(np.unique(tracks.track)) == count
    assert np.all(np.isfinite(tracks.state))
    np.testing.assert_allclose(tracks.covariance, np.swapaxes(tracks.covariance, 1, 2), rtol=1e-9, atol=1e-12)
    if count:
        assert np.linalg.eigvalsh(tracks.covariance).min() > 0
    assert np.all(tracks.seen_ns <= tracks.t_ns)


def test_it_starts_with_nothing_and_makes_nothing_of_nothing(tracker):
    tracks = tracker.start()
    consistent(tracks)
    for k in range(3):
        tracks = tracker.update(tracks, found(k, movers(0)[:0], np.random.default_rng(0)), observed(k))
        consistent(tracks)
        assert len(tracks.track) == 0
        assert k * SUBFRAME <= tracks.t_ns <= k * SUBFRAME + 560_000


def test_movers_in_the_beam_become_confirmed_tracks_where_they_are(tracker):
    tracks = follow(tracker, 30)
    consistent(tracks)
    assert tracks.confirmed.sum() == 2
    truth = movers(tracks.t_ns * 1e-9)
    gap = np.linalg.norm(tracks.state[tracks.confirmed][:, None, :3] - truth[None, :, :3], axis=2)
    assert np.all(gap.min(axis=0) < 0.5)
    closest = tracks.state[tracks.confirmed][gap.argmin(axis=0)]
    assert np.all(np.linalg.norm(closest[:, 3:] - truth[:, 3:], axis=1) < 4)


def test_prediction_moves_time_and_widens_what_is_known(tracker):
    tracks = follow(tracker, 10)
    later = tracker.predict(tracks, tracks.t_ns + 100_000_000)
    consistent(later)
    assert later.t_ns == tracks.t_ns + 100_000_000
    np.testing.assert_array_equal(later.track, tracks.track)
    grown = np.trace(later.covariance, axis1=1, axis2=2) > np.trace(tracks.covariance, axis1=1, axis2=2)
    assert np.all(grown)
    np.testing.assert_allclose(later.state[:, :3], tracks.state[:, :3] + 0.1 * tracks.state[:, 3:], atol=0.05)


def test_what_others_wrote_into_the_tracks_stays(tracker):
    tracks = follow(tracker, 10)
    named = replace(tracks, user=np.arange(len(tracks.track)) + 40)
    after = tracker.update(named, found(10, movers(0.05), np.random.default_rng(9)), observed(10))
    for track, user in zip(named.track, named.user, strict=True):
        row = np.flatnonzero(after.track == track)
        assert len(row) == 0 or after.user[row[0]] == user


def test_the_forsaken_die_and_their_names_with_them(tracker):
    tracks = follow(tracker, 10)
    before, empty = set(tracks.track), found(0, movers(0)[:0], np.random.default_rng(0))
    for k in range(10, 400):
        tracks = tracker.update(tracks, empty, observed(k))
    assert len(tracks.track) == 0
    rng = np.random.default_rng(1)
    tracks = tracker.update(tracks, replace(found(400, movers(0), rng)), observed(400))
    assert not before & set(tracks.track)


def test_the_same_echoes_give_the_same_tracks_and_cross_the_wire(tracker):
    one, two = follow(tracker, 12), follow(tracker, 12)
    assert encode(one) == encode(two)
    carried = decode(encode(one), Tracks)
    rng = [np.random.default_rng(5) for _ in range(2)]
    on = [tracker.update(t, found(12, movers(0.06), r), observed(12)) for t, r in zip((one, carried), rng, strict=True)]
    assert encode(on[0]) == encode(on[1])
