from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Upa, rotation_from
from hal.errors import Misuse
from hal.frontend import Beam, BeamReport, FrontendSpec, HalfSpec
from hal.network import Network
from twin.precoding.delay_phase import steer
from twin.records import Detections, EchoObservation, Numerology, Plan
from twin.tracking.ekf import Ekf, drift, echo_gain_db, illumination_db, measure

CARRIER = 100e9
SUBFRAME = 5_000_000
SIGMA = np.array([3e-3, 3e-3, 0.1, 0.3])  # what the flagship's detections are worth


def frontend(yaw=0.4, tilt=0.2, apart=0.0):
    def half(shift, **network):
        origin = np.array([1.0, -2.0, 10.0]) + np.array([0.0, shift, 0.0])
        array = Upa(16, 16).build(CARRIER, origin, rotation_from(yaw, tilt))
        return HalfSpec(array=array, network=Network(**network).build(16, 16), memory_slots=8)

    return FrontendSpec(
        name="test",
        carrier_hz=CARRIER,
        transmit=half(apart, chains=1),
        receive=half(0.0, chains=1),
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=0,
        bus_ns_per_element=0,
        settling_ns=0,
        select_ns=0,
        simulated=True,
    )


def world(spec, uy, uz, range_m):
    """A world point from receive-array coordinates."""
    u = np.array([np.sqrt(1 - uy**2 - uz**2), uy, uz])
    return spec.receive.array.origin_m + range_m * spec.receive.array.rotation @ u


def beams(spec, directions):
    """Both halves' memory: slot i points at directions[i]."""
    made = []
    for half in (spec.transmit, spec.receive):
        u = np.array([[np.sqrt(1 - y * y - z * z), y, z] for y, z in directions])
        rows = steer(half, u[:, None, :], CARRIER)
        beam = Beam(
            half="-", slot=np.arange(len(u)), delay_s=rows.delay_s, phase_rad=rows.phase_rad, amplitude=rows.amplitude
        )
        made.append(
            BeamReport(setpoint=beam, readback=beam, accepted_ns=0, effective_ns=0, clipped=0, uncertainty_ns=0)
        )
    return made


def observed(spec, k, slots=(0, 0), directions=((0.0, 0.0),)):
    transmit, receive = beams(spec, directions)
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
        user_noise_w=1e-12,
    )
    none = np.zeros(0, dtype=np.int64)
    plan = Plan(
        k=k,
        sensing_blocks=4,
        sensing_ns=560_000,
        dwell_transmit_slot=np.array(slots),
        dwell_receive_slot=np.array(slots),
        dwell_target=np.full(len(slots), -1),
        update_block=none,
        pilot_receive_slot=np.zeros((0, 0), dtype=np.int64),
        slot=np.full(35, -1),
        served=np.zeros((35, 0), dtype=bool),
        user=none,
    )
    return EchoObservation(
        k=k,
        t_ns=k * SUBFRAME,
        spec=spec,
        numerology=numerology,
        plan=plan,
        user=none,
        drive=None,
        listen=None,
        echo=None,
        detections=None,
        transmit_beam=transmit,
        receive_beam=receive,
    )


def found(k, values, dwell=None, sigma=SIGMA, snr_db=20.0):
    values = np.asarray(values, dtype=float).reshape(-1, 4)
    dwell = np.zeros(len(values), dtype=np.int64) if dwell is None else np.asarray(dwell)
    return Detections(
        t_ns=k * SUBFRAME + 140_000 + 280_000 * dwell,
        dwell=dwell,
        value=values,
        covariance=np.broadcast_to(np.diag(sigma**2), (len(values), 4, 4)),
        snr_db=np.broadcast_to(np.asarray(snr_db, dtype=float), (len(values),)),
    )


def reference(spec, state):
    """uy, uz, range and closing speed by the definitions, the speed as a difference quotient of the range."""

    def place(p):
        v = p - spec.receive.array.origin_m
        u = spec.receive.array.rotation.T @ (v / np.linalg.norm(v))
        return u[1], u[2], (np.linalg.norm(v) + np.linalg.norm(p - spec.transmit.array.origin_m)) / 2

    h = 1e-4
    speed = -(place(state[:3] + h * state[3:])[2] - place(state[:3] - h * state[3:])[2]) / (2 * h)
    return np.array([*place(state[:3]), speed])


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-0.7, 0.7),
    st.floats(-0.6, 0.3),
    st.floats(8, 150),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.sampled_from([0.0, 0.5]),
)
def test_measurement_and_its_slope_follow_the_definitions(uy, uz, range_m, velocity, apart):
    spec = frontend(apart=apart)
    state = np.concatenate([world(spec, uy, uz, range_m), velocity])
    expected, slope, ux = measure(spec, state[None])
    np.testing.assert_allclose(expected[0], reference(spec, state), atol=1e-6)
    assert ux[0] == pytest.approx(np.sqrt(1 - uy**2 - uz**2))
    for i in range(6):
        step = np.zeros(6)
        step[i] = 1e-3
        quotient = (measure(spec, (state + step)[None])[0] - measure(spec, (state - step)[None])[0])[0] / 2e-3
        np.testing.assert_allclose(slope[0, :, i], quotient, atol=2e-6)


def test_closing_speed_is_positive_when_the_range_shrinks():
    spec = frontend(yaw=0.0, tilt=0.0)
    coming = np.concatenate([world(spec, 0, 0, 50.0), [-10.0, 0, 0]])
    assert measure(spec, coming[None])[0][0, 3] == pytest.approx(10.0)


def test_predict_agrees_with_stone_soup_and_composes():
    pytest.importorskip("stonesoup")
    from datetime import datetime, timedelta

    from stonesoup.models.transition.linear import CombinedLinearGaussianTransitionModel, ConstantVelocity
    from stonesoup.predictor.kalman import KalmanPredictor
    from stonesoup.types.state import GaussianState

    ekf, rng = Ekf(), np.random.default_rng(0)
    spec = frontend()
    tracks = ekf.update(
        ekf.start(), found(0, [[0.1, -0.1, 60.0, 5.0], [0.0, 0.05, 90.0, -5.0]]), observed(spec, 0, (0,))
    )
    root = rng.normal(size=(2, 6, 6))
    tracks = replace(tracks, state=rng.normal(size=(2, 6)), covariance=root @ np.swapaxes(root, 1, 2))
    later = ekf.predict(tracks, tracks.t_ns + 370_000_000)
    q = 2 * 0.5 * np.array([3.0, 3.0, 0.3]) ** 2
    model = CombinedLinearGaussianTransitionModel([ConstantVelocity(x) for x in q])
    order = [0, 3, 1, 4, 2, 5]  # theirs is x vx y vy z vz
    begin = datetime(2024, 1, 1)
    for i in range(2):
        prior = GaussianState(tracks.state[i][order], tracks.covariance[i][np.ix_(order, order)], timestamp=begin)
        theirs = KalmanPredictor(model).predict(prior, timestamp=begin + timedelta(seconds=0.37))
        np.testing.assert_allclose(later.state[i][order], np.ravel(theirs.state_vector), rtol=1e-9)
        np.testing.assert_allclose(later.covariance[i][np.ix_(order, order)], theirs.covar, rtol=1e-9)
    twice = ekf.predict(ekf.predict(tracks, tracks.t_ns + 130_000_000), later.t_ns)
    np.testing.assert_allclose(twice.state, later.state, rtol=1e-12)
    np.testing.assert_allclose(twice.covariance, later.covariance, rtol=1e-9)
    with pytest.raises(Misuse, match="backwards"):
        ekf.predict(later, tracks.t_ns)


def test_update_agrees_with_stone_soups_extended_kalman_updater():
    pytest.importorskip("stonesoup")
    from stonesoup.base import Property
    from stonesoup.models.measurement.nonlinear import NonLinearGaussianMeasurement
    from stonesoup.types.array import StateVector
    from stonesoup.types.detection import Detection
    from stonesoup.types.hypothesis import SingleHypothesis
    from stonesoup.types.prediction import GaussianStatePrediction
    from stonesoup.updater.kalman import ExtendedKalmanUpdater

    spec = frontend()

    class Cosines(NonLinearGaussianMeasurement):
        ndim_state: int = Property(default=6)

        @property
        def ndim_meas(self):
            return 4

        def function(self, state, noise=False, **kwargs):
            return StateVector(reference(spec, np.asarray(state.state_vector, dtype=float).ravel()))

        def jacobian(self, state, **kwargs):
            x = np.asarray(state.state_vector, dtype=float).ravel()
            return np.column_stack([(reference(spec, x + d) - reference(spec, x - d)) / 2e-3 for d in 1e-3 * np.eye(6)])

    ekf = Ekf(angle_floor=0.0, range_floor_m=0.0, velocity_floor_mps=0.0)
    tracks = ekf.update(ekf.start(), found(0, [[0.02, -0.03, 70.0, 6.0]]), observed(spec, 0, (0,)))
    before = ekf.predict(tracks, SUBFRAME + 140_000)
    value = measure(spec, before.state)[0][0] + np.array([2e-3, -3e-3, 0.12, 0.2])
    after = ekf.update(tracks, found(1, [value]), observed(spec, 1, (0,)))
    model = Cosines(mapping=range(6), noise_covar=np.diag(SIGMA**2))
    prediction = GaussianStatePrediction(before.state[0], before.covariance[0])
    theirs = ExtendedKalmanUpdater(model).update(
        SingleHypothesis(prediction, Detection(StateVector(value), measurement_model=model))
    )
    np.testing.assert_allclose(after.state[0], np.ravel(theirs.state_vector), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.covariance[0], theirs.covar, rtol=1e-4, atol=1e-6)


def test_on_boresight_it_is_the_scalar_filter_in_range_and_speed():
    # along the axis the four measurements decouple: range and speed see x and vx only
    spec, ekf = frontend(yaw=0.0, tilt=0.0), Ekf(angle_floor=0.0, range_floor_m=0.0, velocity_floor_mps=0.0)
    rng = np.random.default_rng(4)
    r, s = SIGMA[2] ** 2, SIGMA[3] ** 2
    q = 2 * 0.5 * 3.0**2
    tracks = ekf.start()
    for k in range(12):
        range_m, speed = 80 - 10 * k * 5e-3 + rng.normal(0, 0.1), 10 + rng.normal(0, 0.3)
        tracks = ekf.update(tracks, found(k, [[0, 0, range_m, speed]]), observed(spec, k, (0,)))
        if k == 0:
            g = 144 / (144 + s)
            m, p = np.array([range_m, -g * speed]), np.diag([r, 144 * s / (144 + s)])
            continue
        f = np.array([[1, 5e-3], [0, 1]])
        m, p = f @ m, f @ p @ f.T + q * np.array([[5e-3**3 / 3, 5e-3**2 / 2], [5e-3**2 / 2, 5e-3]])
        for h, z, v in ((np.array([1.0, 0]), range_m, r), (np.array([0, -1.0]), speed, s)):
            gain = p @ h / (h @ p @ h + v)
            m, p = m + gain * (z - h @ m), p - np.outer(gain, h @ p)
        np.testing.assert_allclose(tracks.state[0][[0, 3]] - [1.0, 0], m, atol=1e-6)
        np.testing.assert_allclose(tracks.covariance[0][np.ix_([0, 3], [0, 3])], p, rtol=1e-6, atol=1e-12)


def roam(ekf, spec, rng, state, step_s):
    """Truth under the filter's own motion, drawn by a Cholesky factor."""
    q = 2 * ekf.acceleration_hold_s * np.array([ekf.acceleration_mps2] * 2 + [ekf.vertical_acceleration_mps2]) ** 2
    factor = np.linalg.cholesky(np.array([[step_s**3 / 3, step_s**2 / 2], [step_s**2 / 2, step_s]]))
    kick = np.sqrt(q) * (factor @ rng.normal(size=(2, 3)))
    return np.concatenate([state[:3] + step_s * state[3:] + kick[0], state[3:] + kick[1]])


@pytest.mark.parametrize("range_m", [30.0, 100.0])
def test_errors_are_what_the_covariance_says(range_m):
    # normalised estimation error squared over independent runs: chi2 with 6 runs degrees of freedom
    from scipy.stats import chi2

    spec, ekf, runs = (
        frontend(),
        Ekf(angle_floor=0.0, range_floor_m=0.0, velocity_floor_mps=0.0, gate_probability=1 - 1e-12),
        60,
    )
    rng, looks = np.random.default_rng(7), 15
    squared = np.zeros((runs, looks))
    for run in range(runs):
        velocity = rng.normal(size=3) * [ekf.birth_speed_mps, ekf.birth_speed_mps, ekf.birth_vertical_speed_mps]
        state = np.concatenate([world(spec, *rng.uniform(-0.02, 0.02, 2), range_m), velocity])
        tracks = ekf.start()
        for look in range(looks):
            k = 4 * look  # looked at every 20 ms
            if look:
                state = roam(ekf, spec, rng, state, 0.02)
            value = reference(spec, state) + SIGMA * rng.normal(size=4)
            tracks = ekf.update(tracks, found(k, [value]), observed(spec, k, (0,)))
            assert list(tracks.track) == [0]
            error = tracks.state[0] - state
            squared[run, look] = error @ np.linalg.solve(tracks.covariance[0], error)
    low, high = chi2.ppf([0.001, 0.999], 6 * runs) / runs
    mean = squared.mean(axis=0)
    assert np.all((mean > low) & (mean < high)), (low, high, mean)


def test_crossing_movers_keep_their_names():
    spec, ekf, rng = frontend(yaw=0.0, tilt=0.0), Ekf(), np.random.default_rng(3)
    states = [np.array([61.0, -4.0, 9.0, 0.0, 12.0, 0.0]), np.array([61.5, 4.0, 9.0, 0.0, -12.0, 0.0])]
    tracks, swapped = ekf.start(), 0
    for k in range(0, 160, 2):
        at = [np.concatenate([s[:3] + s[3:] * k * 5e-3, s[3:]]) for s in states]
        truth = np.array([reference(spec, s) for s in at])
        values = truth + SIGMA * rng.normal(size=(2, 4))
        seen = observed(spec, k, (0,))
        ux = np.sqrt(1 - (truth[:, :2] ** 2).sum(axis=1))
        snr_db = (
            echo_gain_db(seen, 0, np.column_stack([ux, truth[:, :2]])) - 5.0
        )  # two alike, heard as the beam hears them
        order = slice(None) if k % 4 else slice(None, None, -1)
        tracks = ekf.update(tracks, found(k, values[order], snr_db=snr_db[order]), seen)
        if k == 20:
            names = [int(np.argmin(np.linalg.norm(tracks.state[:, :3] - s[:3], axis=1))) for s in at]
            names = tracks.track[names]
        if k > 100 or k == 20:
            for name, s in zip(names, at, strict=True):
                row = np.flatnonzero(tracks.track == name)
                swapped += len(row) != 1 or np.linalg.norm(tracks.state[row[0], :3] - s[:3]) > 1.5
    assert swapped == 0
    assert tracks.confirmed.sum() == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1.0), st.integers(1, 400))
def test_covariances_stay_symmetric_and_positive(seed, small, skip):
    rng, spec, ekf = np.random.default_rng(seed), frontend(), Ekf(lost_s=1e3, position_limit_m=1e4, angle_floor=0.0)
    tracks = ekf.start()
    sigma = SIGMA * np.array([small, 1, small, 1])
    for i in range(6):
        values = np.column_stack([rng.uniform(-1.1, 1.1, (4, 2)), rng.uniform(0.0, 150, 4), rng.uniform(-40, 40, 4)])
        if len(tracks.track):  # half of them near tracks, so that updates happen
            values[:2] = measure(spec, tracks.state)[0][rng.integers(0, len(tracks.track), 2)] + sigma * rng.normal(
                size=(2, 4)
            )
        tracks = ekf.update(tracks, found(i * skip, values, sigma=sigma), observed(spec, i * skip, (0,)))
        assert np.all(np.isfinite(tracks.state))
        np.testing.assert_array_equal(tracks.covariance, np.swapaxes(tracks.covariance, 1, 2))
        floor = np.linalg.eigvalsh(tracks.covariance)
        assert np.all(floor[:, 0] > -1e-12 * floor[:, -1])
        assert len(np.unique(tracks.track)) == len(tracks.track)


def born(spec, ekf, subframes=3, value=(0.0, 0.0, 60.0, 5.0)):
    tracks = ekf.start()
    for k in range(subframes):
        ahead = ekf.predict(tracks, k * SUBFRAME + 140_000)
        tracks = ekf.update(ahead, found(k, measure(spec, ahead.state)[0] if k else [value]), observed(spec, k, (0,)))
    return tracks


def test_confirmation_takes_m_hits_within_n_lit_dwells():
    spec = frontend()
    for pattern, confirmed in (("111", 1), ("11.1", 1), ("1..11", 1), ("1.1.1", 1), ("1...11", 0), ("11...1", 0)):
        ekf = Ekf(confirm_hits=3, confirm_window=5, miss_limit=9)
        tracks = ekf.start()
        for k, look in enumerate(pattern):
            ahead = ekf.predict(tracks, k * SUBFRAME + 140_000)
            values = [(0, 0, 60, 5)] if k == 0 else measure(spec, ahead.state)[0][:1]
            tracks = ekf.update(ahead, found(k, values if look == "1" else []), observed(spec, k, (0,)))
        assert tracks.confirmed.sum() == confirmed, pattern


def test_only_dwells_that_light_a_track_count_as_misses():
    spec, ekf = frontend(), Ekf(miss_limit=3)
    tracks = born(spec, ekf)
    assert tracks.confirmed.all()
    away = tracks
    for k in range(3, 20):
        away = ekf.update(away, found(k, []), observed(spec, k, (0, 0), directions=[(0.3, 0.1)]))
    assert list(away.track) == [0]
    assert away.misses[0] == 0
    at = tracks
    for k in range(3, 5):
        at = ekf.update(at, found(k, []), observed(spec, k, (0,)))
    assert at.misses[0] == 2
    assert len(ekf.update(at, found(5, []), observed(spec, 5, (0,))).track) == 0


def test_without_detections_every_track_dies_and_no_name_comes_back():
    spec, ekf = frontend(), Ekf()
    tracks = born(spec, ekf)
    for k in range(3, 300):
        tracks = ekf.update(tracks, found(k, []), observed(spec, k, (0,), directions=[(0.5, 0.3)]))
    assert len(tracks.track) == 0
    assert tracks.t_ns == 299 * SUBFRAME + 140_000
    again = ekf.update(tracks, found(300, [(0, 0, 60, 5)]), observed(spec, 300, (0,)))
    assert list(again.track) == [1]


def test_a_track_dies_when_its_position_is_no_longer_known():
    spec, ekf = frontend(), Ekf(lost_s=1e3, position_limit_m=5.0)
    tracks = born(spec, ekf)
    for k in range(3, 400, 20):
        tracks = ekf.update(tracks, found(k, []), observed(spec, k, (0,), directions=[(0.5, 0.3)]))
    assert len(tracks.track) == 0


def test_a_side_lobe_ghost_bears_no_track():
    spec, ekf = frontend(), Ekf()
    tracks = born(spec, ekf)
    ahead = measure(spec, ekf.predict(tracks, 3 * SUBFRAME + 140_000).state)[0][0]
    elsewhere = observed(spec, 3, (0,), directions=[(0.35, 0.0)])
    origin = np.array([[np.sqrt(1 - ahead[0] ** 2 - ahead[1] ** 2), ahead[0], ahead[1]]])
    brought = (
        tracks.strength_db[0] + echo_gain_db(elsewhere, 0, origin)[0]
    )  # by the track's echo, through these side lobes

    def names(value, snr_db=brought, seen=elsewhere):
        return list(ekf.update(tracks, found(3, [value], snr_db=snr_db), seen).track)

    assert names([0.35, 0.01, ahead[2], ahead[3]]) == [0]
    assert names([0.35, 0.01, ahead[2], ahead[3]], brought + 10) == [0, 1]  # stronger than the side lobe could make it
    assert names([0.35, 0.01, ahead[2], ahead[3] - 6]) == [0, 1]
    assert names([0.35, 0.01, ahead[2] + 3, ahead[3]]) == [0, 1]
    # a neighbour in the same main lobe is no ghost
    assert names([0.04, 0.0, ahead[2], ahead[3]], seen=observed(spec, 3, (0,))) == [0, 1]


def test_a_ghost_born_before_its_origin_is_buried():
    spec, ekf = frontend(), Ekf()
    elsewhere = observed(spec, 0, (0,), directions=[(0.35, 0.0)])
    there = np.array([[1.0, 0.0, 0.0]])
    straight = echo_gain_db(observed(spec, 0, (0,)), 0, there)[0]
    faint = 40.0 - straight + echo_gain_db(elsewhere, 0, there)[0]
    tracks = ekf.start()
    for k in range(12):  # two dwells on the image, then by turns on the origin and the image
        aside = k < 2 or k % 2
        value = [0.35, 0.01, 60.0, 0.0] if aside else [0.0, 0.0, 60.0, 0.0]
        seen = observed(spec, k, (0,), directions=[(0.35, 0.0)] if aside else [(0.0, 0.0)])
        tracks = ekf.update(tracks, found(k, [value], snr_db=faint if aside else 40.0), seen)
    assert len(tracks.track) == 1
    assert measure(spec, tracks.state)[0][0, 0] == pytest.approx(0.0, abs=0.01)


def test_dwells_of_one_subframe_are_taken_in_order_of_time():
    spec, ekf = frontend(), Ekf()
    tracks = born(spec, ekf)
    values = measure(spec, ekf.predict(tracks, 3 * SUBFRAME).state)[0]
    both = found(3, values + np.array([[0, 0, 0.1, 0.0], [0, 0, -0.1, 0]]), dwell=[1, 0])
    once = ekf.update(tracks, both, observed(spec, 3, (0, 0)))
    # by hand: one dwell, then the other
    first = ekf.update(tracks, found(3, both.value[1:]), observed(spec, 3, (0,)))
    second = replace(found(3, both.value[:1]), t_ns=both.t_ns[:1])
    then = ekf.update(first, second, observed(spec, 3, (0,)))
    np.testing.assert_allclose(once.state, then.state, rtol=1e-12)
    assert once.hits[0] == tracks.hits[0] + 2
    assert once.t_ns == 3 * SUBFRAME + 420_000


def test_a_detection_goes_to_the_likelier_track_not_the_nearest():
    # a sharp track two sigma away against a vague one at half a sigma
    spec, ekf = frontend(), Ekf(angle_floor=0.0, range_floor_m=0.0, velocity_floor_mps=0.0)
    tracks = ekf.update(ekf.start(), found(0, [(0, 0, 60, 5), (0, 0, 66, 5)]), observed(spec, 0, (0,)))
    covariance = tracks.covariance.copy()
    covariance[0], covariance[1] = np.eye(6) * 1e-4, np.diag([16.0, 16, 16, 1, 1, 1])
    tracks = replace(tracks, covariance=covariance, t_ns=SUBFRAME + 140_000)
    value = measure(spec, tracks.state)[0][0] + [0, 0, 0.15, 0]
    after = ekf.update(tracks, found(1, [value]), observed(spec, 1, (0,)))
    assert list(after.hits) == [2, 1]


def test_illumination_is_the_product_of_both_patterns_and_uses_the_readback():
    spec = frontend(yaw=0.0, tilt=0.0)
    transmit, receive = beams(spec, [(0.1, -0.2)])
    uy, uz = np.array([0.1, 0.13, 0.3]), np.array([-0.2, -0.22, -0.2])
    direction = np.column_stack([np.sqrt(1 - uy**2 - uz**2), uy, uz])

    def pattern(x):  # 16 half-wave elements
        x = np.pi * np.where(x == 0, 1e-9, x)
        return np.sin(8 * x) / (16 * np.sin(x / 2))

    expected = 40 * np.log10(np.abs(pattern(uy - 0.1) * pattern(uz + 0.2)))
    np.testing.assert_allclose(illumination_db(spec, transmit, receive, 0, 0, direction), expected, atol=1e-6)
    bare = replace(transmit, readback=None)
    np.testing.assert_allclose(illumination_db(spec, bare, receive, 0, 0, direction), expected, atol=1e-6)
    turned = replace(transmit, setpoint=beams(spec, [(0.5, 0.0)])[0].setpoint)
    np.testing.assert_allclose(illumination_db(spec, turned, receive, 0, 0, direction), expected, atol=1e-6)
    assert np.all(np.isneginf(illumination_db(spec, transmit, receive, 5, 0, direction)))


def test_position_of_a_birth_is_on_the_ellipsoid_of_separate_halves():
    spec, ekf = frontend(apart=2.0), Ekf()
    state = np.concatenate([world(spec, 0.05, -0.05, 40.0), np.zeros(3)])
    tracks = ekf.update(ekf.start(), found(0, [reference(spec, state)]), observed(spec, 0, (0,)))
    np.testing.assert_allclose(tracks.state[0, :3], state[:3], atol=1e-6)


def test_drift_runs_both_ways():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 6, 6))
    state, covariance = rng.normal(size=(3, 6)), root @ np.swapaxes(root, 1, 2)
    there = drift(state, covariance, 0.3)
    np.testing.assert_allclose(drift(*there, -0.3)[1], covariance, atol=1e-12)


def test_misuse_is_named():
    spec, ekf = frontend(), Ekf()
    with pytest.raises(Misuse, match=r"detections\.dwell"):
        ekf.update(ekf.start(), found(0, [(0, 0, 60, 5)], dwell=[3]), observed(spec, 0, (0,)))
    with pytest.raises(Misuse, match=r"detections\.value"):
        ekf.update(ekf.start(), found(0, [(0, np.nan, 60, 5)]), observed(spec, 0, (0,)))
