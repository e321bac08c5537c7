"""Echoes of data blocks: the realised error against the bound from the front end's own samples, who is listened to, and what the loop makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.errors import Misuse
from tools.reproduce.squint_data_echoes import APART, Stand
from twin.admission import admit_plan
from twin.build import run
from twin.control import one_stream
from twin.data_echoes import DataEchoes
from twin.overheard import overhear
from twin.precoding.delay_phase import steer
from twin.records import Plan
from twin.scenario import ScenarioError, frontend_spec, load, numerology
from twin.summary import table
from twin.tracking.ekf import Ekf, measure

SMOKE = "scenarios/smoke.yaml"
ON = {"sensing.data_echoes.blocks": 4, "communication.subcarriers": 32, "duration_s": 0.15}


def stand(rcs_m2=10.0, away=0.0, looks=None, **more):
    """A wide data beam, so that everybody is lit, and receive beams at the targets (or beside them)."""
    made = Stand({"power_dbm": 30.0, "targets": [one | {"rcs_m2": rcs_m2} for one in APART]} | more)
    targets = np.flatnonzero(~made.truth.is_user)
    at = steer(made.spec.transmit, made.direction[made.truth.is_user][None], made.spec.carrier_hz)
    columns = np.arange(256) // 16
    bowed = replace(at, phase_rad=at.phase_rad + 0.04 * (columns - 7.5) ** 2)
    subcarriers = len(made.numerology.subcarrier_hz)
    made.load(
        bowed, np.full(subcarriers, 1.0 / subcarriers), made.direction[targets[looks or slice(None)]] + [0, away, 0]
    )
    return made, targets


@pytest.fixture(scope="module")
def trials():
    made, targets = stand()
    return [made.trial(n) for n in range(60)], targets


def test_the_error_is_the_actual_combiner_s_bound(trials):
    """From the front end's samples, squint and steps of the settings included; 95 % interval by trial around 1."""
    played, targets = trials
    error, bound = (np.array([one[name] for one in played])[:, targets] for name in ("data_error", "data_bound"))
    assert np.isfinite(bound).all()
    assert np.isfinite(error).mean() > 0.98
    for j in range(4):
        square = np.nanmean((error[..., j] / bound[..., j]) ** 2, axis=1)
        half = 1.96 * square.std() / np.sqrt(len(square))
        assert abs(square.mean() - 1) < max(1.5 * half, 0.2), (j, square.mean(), half)
    assert np.nanmax(np.abs(error / bound)) < 5


def test_the_covariance_that_updates_is_the_bound_s(trials):
    played, targets = trials
    for one in played[:10]:
        told = one["refined"]
        own = np.isin(told.track, targets)
        sigma = np.sqrt(np.diagonal(told.covariance[own], axis1=1, axis2=2))
        np.testing.assert_allclose(sigma[:, 2:], one["data_bound"][told.track[own], 2:], rtol=0.35)
        assert told.misfit < 1.3


def test_tracks_are_drawn_to_the_truth_and_nobody_is_born(trials):
    played, targets = trials
    made, _ = stand()
    before, after = (
        np.array(
            [np.linalg.norm(one[when].state[targets, :3] - made.truth.position_m[targets], axis=1) for one in played]
        )
        for when in ("before", "after")
    )
    assert np.sqrt(np.mean(after**2)) < 0.6 * np.sqrt(np.mean(before**2))
    for one in played:
        assert len(one["after"].track) == len(one["before"].track)
        assert one["data_taken"] >= 3


def test_what_does_not_reflect_updates_nothing():
    made, targets = stand(rcs_m2=0.0)
    for n in range(8):
        one = made.trial(n)
        assert np.isnan(one["data_error"][targets]).all()
        assert np.isnan(one["data_bound"][targets]).all()
        moved = Ekf().predict(one["before"], one["after"].t_ns)
        np.testing.assert_array_equal(one["after"].state[targets], moved.state[targets])


def test_a_beam_that_points_away_raises_bound_and_error(trials):
    made, targets = stand(away=0.3)
    played = [made.trial(n) for n in range(20)]

    def mean_square(some, name):
        return np.nanmean(np.array([one[name][targets, :2] for one in some]) ** 2)

    assert mean_square(played, "data_bound") > 4 * mean_square(trials[0], "data_bound")
    assert mean_square(played, "data_error") > 4 * mean_square(trials[0], "data_error")


def test_a_range_that_may_be_another_is_left_alone():
    """Between 0.6 m repetitions a track that is a quarter of a metre wrong keeps its range; its direction is taken."""
    made, targets = stand()
    one = made.trial(0, spread_m=0.08)
    assert np.isinf(one["refined"].covariance[:, 2, 2]).all()
    assert np.isfinite(one["refined"].covariance[:, :2, :2]).all()
    assert np.isnan(one["data_error"][targets, 2]).all()
    assert one["data_taken"] >= 3


def test_an_estimate_outside_the_gate_is_not_taken():
    made, targets = stand()
    plain = made.tracks

    def sure_and_wrong(rng, t_ns, spread_m):
        tracks = plain(rng, t_ns, 1e-4)
        state = tracks.state.copy()
        state[targets, 1] += 1.0
        return replace(tracks, state=state)

    made.tracks = sure_and_wrong
    one = made.trial(0)
    assert not one["refined"].taken[np.isin(one["refined"].track, targets)].any()


# ------------------------------------------------------------------------------------------------------- who is listened to


def listened(echoes, plan=None, tracks=None):
    made, _ = stand()
    tracks = made.tracks(np.random.default_rng(0), 0, 0.05) if tracks is None else tracks
    frame = numerology(load(SMOKE))
    base = made_plan(frame) if plan is None else plan
    return echoes.listening(base, tracks, made.reports["transmit"], made.spec, frame, 5_000_000), tracks, made


def made_plan(frame, **more):
    none = np.zeros(0, np.int64)
    fields = {
        "k": 3,
        "sensing_blocks": 4,
        "sensing_ns": 280_000,
        "dwell_transmit_slot": none,
        "dwell_receive_slot": none,
        "dwell_target": none,
        "update_block": np.array([6, 20]),
        "pilot_receive_slot": np.zeros((2, 1), np.int64),
        "slot": np.where(np.arange(frame.blocks) < 4, -1, 0),
        "served": np.zeros((frame.blocks, 1), bool),
        "user": np.zeros(1, np.int64),
    }
    return Plan(**(fields | more))


def test_the_latest_blocks_without_pilots_are_listened_to_through_slots_of_their_own():
    plan, _, made = listened(DataEchoes(blocks=3, directions=2))
    heard = np.flatnonzero(plan.echo_slot >= 0)
    assert len(heard) == 3
    assert not np.isin(heard, plan.update_block).any()
    assert heard.min() > 6
    assert heard.tolist() == [32, 33, 34]
    assert len(np.unique(plan.echo_track[heard])) <= 2
    last = made.spec.receive.memory_slots - 1
    assert set(plan.echo_slot[heard]) <= {last - 2, last - 3}  # k is odd: the second set
    assert (plan.echo_track[plan.echo_slot < 0] == -1).all()


def test_it_is_for_who_is_least_known_and_lit_at_all():
    made, targets = stand()
    tracks = made.tracks(np.random.default_rng(0), 0, 0.05)
    for who in targets.tolist():
        covariance = tracks.covariance.copy()
        covariance[who, :3, :3] *= 30
        plan, _, _ = listened(DataEchoes(blocks=1), tracks=replace(tracks, covariance=covariance))
        assert plan.echo_track.max() == who
        tentative = replace(tracks, covariance=covariance, confirmed=np.arange(4) != who)
        plan, _, _ = listened(DataEchoes(blocks=1), tracks=tentative)
        assert plan.echo_track.max() != who
        weak = replace(tracks, covariance=covariance, strength_db=tracks.strength_db - 60.0 * (np.arange(4) == who))
        plan, _, _ = listened(DataEchoes(blocks=1), tracks=weak)
        assert plan.echo_track.max() != who


def test_plans_that_name_their_own_and_plans_of_several_streams_stay_as_they_are():
    frame = numerology(load(SMOKE))
    for more in ({"baseband": "rzf"}, {"echo_slot": np.full(frame.blocks, -1)}):
        base = made_plan(frame, **more)
        assert listened(DataEchoes(blocks=3), plan=base)[0] is base
    base = made_plan(frame)
    assert listened(DataEchoes(), plan=base)[0] is base
    nobody = replace(stand()[0].tracks(np.random.default_rng(0), 0, 0.05), confirmed=np.zeros(4, bool))
    assert listened(DataEchoes(blocks=3), plan=base, tracks=nobody)[0] is base


def test_rows_point_where_tracks_are_then():
    echoes = DataEchoes(blocks=4, directions=2)
    plan, tracks, made = listened(echoes)
    rows = echoes.requests(plan, tracks, made.spec, 8_000_000)
    assert not len(rows.transmit_slot)
    assert sorted(rows.receive_slot) == sorted(set(plan.echo_slot[plan.echo_slot >= 0]))
    moved = replace(tracks, state=tracks.state + np.hstack([8e-3 * tracks.state[:, 3:], np.zeros((4, 3))]))
    expected = measure(made.spec, moved.state)[0]
    for slot, centre in zip(rows.receive_slot, rows.receive_centre, strict=True):
        who = plan.echo_track[plan.echo_slot == slot][0]
        np.testing.assert_allclose(centre[1:], expected[who, :2], atol=1e-9)
    gone = replace(plan, echo_track=np.where(plan.echo_slot >= 0, 99, -1))
    assert not len(echoes.requests(gone, tracks, made.spec, 0).receive_slot)


def test_the_planner_has_the_machine_less_what_listening_takes():
    spec = frontend_spec(load(SMOKE), "bs0")
    assert DataEchoes().less(spec) is spec
    left = DataEchoes(blocks=2, directions=3).less(spec)
    assert left is DataEchoes(blocks=5, directions=3).less(spec)  # planners know machines by their identity
    assert left.receive.memory_slots == spec.receive.memory_slots - 6
    assert left.command_latency_ns == spec.command_latency_ns + 3 * 256 * spec.bus_ns_per_element
    with pytest.raises(Misuse, match="data_echoes takes 64 of them"):
        DataEchoes(blocks=1, directions=32).less(spec)


def test_a_foreign_plan_cannot_listen_through_slots_that_are_not_there():
    frame, spec = numerology(load(SMOKE)), frontend_spec(load(SMOKE), "bs0")
    dwell = np.zeros(1, np.int64)
    looks = {"dwell_transmit_slot": dwell, "dwell_receive_slot": dwell, "dwell_target": dwell - 1}
    plan = made_plan(frame, **looks)
    admit_plan(replace(plan, echo_slot=np.full(frame.blocks, -1)), 3, spec, frame, np.zeros(1, np.int64))
    with pytest.raises(Misuse, match=r"plan\.echo_slot: holds 64"):
        admit_plan(replace(plan, echo_slot=np.full(frame.blocks, 64)), 3, spec, frame, np.zeros(1, np.int64))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sensing.data_echoes.integration_us", 200, "must be at most a block, 140 us"),
        ("planning.service", "spatial", "several streams at once are not listened to"),
        ("sensing.data_echoes.directions", 32, "must be more than the 64"),
    ],
)
def test_a_scenario_that_cannot_listen_says_why(field, value, says):
    with pytest.raises(ScenarioError, match=says):
        load(SMOKE, ON | {field: value})


# ------------------------------------------------------------------------------------------------------------------ the loop


@pytest.fixture(scope="module")
def heard():
    return run(SMOKE, ON, write=False)


def test_off_is_as_if_it_were_not_there():
    one = run(SMOKE, {"duration_s": 0.05}, write=False)
    other = run(SMOKE, {"duration_s": 0.05, "sensing.data_echoes": {"blocks": 0, "directions": 4}}, write=False)
    assert one.summary["run"]["hash"] == other.summary["run"]["hash"]
    assert "data_echoes" not in str(one.summary["movers"])
    assert "data-block" not in table(one.summary)
    assert one.kpi.data_error.dtype == object  # of no subframe anything was said


def test_block_by_block_is_the_same_run(heard):
    split = run(SMOKE, ON, write=False, split=True)
    assert split.summary["run"]["hash"] == heard.summary["run"]["hash"]


def test_errors_stand_beside_their_bounds(heard):
    error, bound = heard.kpi.data_error, heard.kpi.data_bound
    both = np.isfinite(error) & np.isfinite(bound)
    assert both[..., 0].sum() > 15
    ratio = np.abs(error[both] / bound[both])
    assert 0.3 < np.median(ratio) < 1.2  # 0.67 of a normal
    told = [m["data_echoes"] for m in heard.summary["movers"].values() if "data_echoes" in m]
    assert told
    assert sum(one["estimates"] for one in told) == both[..., 0].sum()
    assert "data-block echoes: error" in table(heard.summary)
    assert heard.kpi.data_taken.sum() > 0.7 * heard.kpi.data_looks.sum()


def test_beams_drawn_from_the_bound_go_with_it():
    kpi = run(SMOKE, ON | {"sensing.fidelity": "bound"}, write=False).kpi
    assert kpi.data_taken.sum() > 5


def test_a_block_before_its_beams_are_in_force_is_not_heard():
    made, _ = stand(looks=[0])
    drive = made._drive(np.array([1_000_000, 2_000_000]))
    emission = made.frontend.emit(drive)
    plan = made_plan(made.numerology, echo_slot=np.array([0, 0]), slot=np.array([0, 0]))
    world = made.frontend, made.world, made.scenario.channel, made.draws, made.numerology
    found = overhear(*world, plan, emission, np.arange(2), 1_500_000, 10_000)
    assert [one.listen.t_ns.tolist() for one in found] == [[2_000_000]]
    assert not overhear(*world, replace(plan, echo_slot=None), emission, np.arange(2), 0, 10_000)


def test_one_chain_sends_with_unit_weight():
    """The stand drives one transmit chain as the loop does."""
    assert one_stream(stand()[0].spec).tolist() == [[1.0]]
