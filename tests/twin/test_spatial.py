"""Several users in one block: what a cheap imitation of it would get wrong, on the scenario of papers/004."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.errors import Misuse
from twin.build import Run, run
from twin.channel.rician import Rician
from twin.control import Chain
from twin.physics.dual_scale import mmse_filter
from twin.records import Belief, PilotObservation, Plan
from twin.scenario import load
from twin.spatial import reciprocal, stream_weights

SCENARIO = Path(__file__).parents[2] / "scenarios" / "paper004.yaml"
PLACES = [(60.0, -45.0), (60.0, 20.0)]
CONTROL = "sites.bs0.control"


def played(places: list[tuple[float, float]] = PLACES, **overrides: Any) -> Run:
    """A tenth of a second of papers/004 with users at these places, ten metres a second."""
    users = [
        {
            "name": f"u{i}",
            "mobility": {"kind": "linear", "position_m": [x, y, 1.5], "velocity_mps": [0, 10, 0]},
        }
        for i, (x, y) in enumerate(places)
    ]
    return run(SCENARIO, {"users": users, "duration_s": 0.1, **overrides}, write=False)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """A run, and what its controller saw and believed at the last subframe."""
    kept: dict[str, Any] = {"belief": []}
    original = Chain.precode

    def precode(self: Chain, pilots: PilotObservation) -> Any:
        command = original(self, pilots)
        kept.update(chain=self, pilots=pilots, baseband=command.baseband)
        kept["belief"].append(self.belief)
        return command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "precode", precode)
        kept["run"] = played()
    return kept


def late(run: Run, name: str) -> np.ndarray:
    return np.stack(getattr(run.kpi, name)[-6:]).astype(float)


def test_users_share_blocks_and_are_tracked_without_an_elevation(seen: dict[str, Any]) -> None:
    one = seen["run"]
    plan: Plan = seen["pilots"].plan
    assert plan.served[plan.update_block[0] :].all()  # all at once
    assert not plan.served[: plan.update_block[0]].any()  # no stream before its first pilots
    assert (late(one, "tracked") >= 0).all()
    assert np.isfinite(late(one, "track_sigma_m")).all()
    assert np.all(late(one, "position_error_m") < 2)
    assert np.all(late(one, "users_bound_right") == 2)


def test_realised_and_planned_are_one_metric_and_equation_22_is_not(seen: dict[str, Any]) -> None:
    rate, planned, formula = (late(seen["run"], name).sum() for name in ("rate_bps", "planned_bps", "formula_bps"))
    assert planned == pytest.approx(rate, rel=0.2)
    assert formula < 0.6 * rate
    told = seen["run"].summary["users"]["u0"]
    assert told["planned_error"] < told["formula_error"]


def test_users_in_one_direction_spoil_each_other(seen: dict[str, Any]) -> None:
    """Maximum ratio beams to equal channels: what is signal to one is interference to the other, SINR 0 dB at best."""
    same = played([(60.0, -45.0), (90.0, -67.5)])
    apart = seen["run"]
    assert np.all(late(same, "snr_db") < 4)
    assert np.all(late(apart, "snr_db") > late(same, "snr_db").max() + 3)


def test_a_scaled_truth_moves_what_is_realised_and_nothing_that_is_believed(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = seen["run"]
    down = Rician.down

    def weak(self: Rician, *given: Any) -> Any:
        paths = down(self, *given)
        return replace(paths, gain=paths.gain * 1e-4)

    monkeypatch.setattr(Rician, "down", weak)
    weakened = played()
    assert np.all(late(weakened, "rate_bps") < 0.3 * late(plain, "rate_bps"))
    for name in ("planned_bps", "formula_bps", "predicted_bps", "surprise"):
        assert np.array_equal(late(weakened, name), late(plain, name), equal_nan=True)


def test_weights_radiate_equal_shares_and_no_pilot_changes_an_earlier_one(seen: dict[str, Any]) -> None:
    chain, pilots = seen["chain"], seen["pilots"]
    before, estimator = chain._before_pilots, chain.parts.estimator

    def weights(heard: PilotObservation) -> Any:
        found = estimator.estimate(heard, before.tracks, before.channel)
        return stream_weights(estimator.vectors(heard, before.tracks, before.channel, found), heard, found)

    plain = weights(pilots)
    assert np.linalg.norm(plain, axis=1) == pytest.approx(np.sqrt(0.5), rel=1e-9)
    pilot = pilots.pilot.copy()
    pilot[-1] = pilot[-1][:, ::-1] * 3
    changed = weights(replace(pilots, pilot=pilot))
    assert np.array_equal(changed[:-1], plain[:-1])
    assert not np.allclose(changed[-1], plain[-1])


def test_rzf_turns_a_null_where_mrt_does_not() -> None:
    near = [(60.0, -10.0), (60.0, 4.0)]  # a beamwidth apart
    control = {f"{CONTROL}.planning.baseband": "rzf", f"{CONTROL}.estimation.guard": "wide"}
    assert late(played(near, **control), "rate_bps").sum() > 1.3 * late(played(near), "rate_bps").sum()


def test_the_whole_vector_is_the_linear_mmse_of_equation_15(seen: dict[str, Any]) -> None:
    """Digital array: every chain an element, so W is diagonal phases and the estimate must not depend on them."""
    chain, pilots = seen["chain"], seen["pilots"]
    before, estimator = chain._before_pilots, chain.parts.estimator
    found = estimator.estimate(pilots, before.tracks, before.channel)
    vectors = estimator.vectors(pilots, before.tracks, before.channel, found)
    beam = pilots.receive_beam.setpoint
    column = np.searchsorted(pilots.plan.user, pilots.user)
    snr = pilots.numerology.pilot_power_w / pilots.noise_w
    for m in range(len(pilots.update_ns)):
        for i in range(len(pilots.user)):
            row = np.flatnonzero(beam.slot == pilots.plan.pilot_receive_slot[m, column[i]])[0]
            element = pilots.pilot[m, i, :, 0] * np.exp(-1j * np.diagonal(beam.phase_rad[row]))
            expected = mmse_filter(vectors.prior[i], snr) @ element / np.sqrt(pilots.numerology.pilot_power_w)
            assert np.abs(vectors.estimate[m, i, 0] - expected).max() < 1e-9 * np.abs(expected).max()


def test_pilots_from_elsewhere_surprise(seen: dict[str, Any]) -> None:
    chain, pilots = seen["chain"], seen["pilots"]
    before, estimator = chain._before_pilots, chain.parts.estimator

    def surprise(heard: PilotObservation) -> Any:
        return estimator.estimate(heard, before.tracks, before.channel).surprise

    assert np.all((surprise(pilots) > 0.5) & (surprise(pilots) < 3))
    turned = (
        pilots.pilot * np.exp(1j * np.pi * 0.1 * np.arange(8))[:, None]
    )  # five degrees aside, and nobody told the tracks
    assert np.all(surprise(replace(pilots, pilot=turned)) > 10)


def planner_and_belief(seen: dict[str, Any]) -> tuple[Any, Belief, Any]:
    chain = seen["chain"]
    belief = seen["belief"][-1]
    return chain.parts.planner, belief, (belief.channel.user, chain.spec, chain.numerology)


def test_the_plan_follows_the_speed_and_stays_where_it_stays(seen: dict[str, Any]) -> None:
    planner, belief, (user, spec, numerology) = planner_and_belief(seen)

    def updates(scale: float) -> int:
        state = belief.tracks.state.copy()
        state[:, 3:] *= scale
        tracks = replace(belief.tracks, state=state)
        return int(planner.decide(50, replace(belief, tracks=tracks), user, spec, numerology).updates)

    assert updates(1.0) == updates(1.0)
    assert updates(0.3) < updates(1.0) < updates(3.3)


def test_a_stale_correlation_matrix_is_planned_for_at_once_and_looked_at_first(seen: dict[str, Any]) -> None:
    planner, belief, (user, spec, numerology) = planner_and_belief(seen)
    lazy = replace(planner, replan_subframes=10**6)
    first = lazy.plan(50, belief, user, spec, numerology, seen["pilots"].plan)
    kept = lazy.plan(51, belief, user, spec, numerology, first)
    assert kept.reason == first.reason
    assert np.array_equal(kept.planned_bps, first.planned_bps)
    for one in (0, 1):  # with room for one look beside the search
        surprise = np.where(np.arange(2) == one, 30.0, 1.0)
        shocked = replace(belief, channel=replace(belief.channel, surprise=surprise))
        narrow = replace(lazy, dwell_slots=2, crb_max_rad2=1e-6)
        anew = narrow.plan(52, shocked, user, spec, numerology, kept)
        assert any("planned anew" in line and f"user {user[one]}" in line for line in anew.reason)
        assert anew.dwell_target[0] == belief.tracks.track[belief.tracks.user == user[one]][0]


def test_an_infeasible_requirement_is_said_and_the_fixed_plan_played(seen: dict[str, Any]) -> None:
    planner, belief, (user, spec, numerology) = planner_and_belief(seen)
    plan = replace(planner, crb_max_rad2=1e-14).plan(50, belief, user, spec, numerology, seen["pilots"].plan)
    (why,) = plan.reason
    assert "fixed plan" in why
    assert "smallest attainable" in why
    assert np.isnan(plan.planned_bps).all()
    assert plan.sensing_blocks == planner.sensing_blocks


def test_the_adaptive_policy_says_why_for_every_user(seen: dict[str, Any]) -> None:
    control = {f"{CONTROL}.planning.search": "adaptive", f"{CONTROL}.planning.metric": "ergodic"}
    kept: list[Plan] = []
    original = Chain.plan

    def plan(self: Chain, now: Any) -> Plan:
        kept.append(original(self, now))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "plan", plan)
        one = played(**control, **{f"{CONTROL}.estimation.guard": "wide", f"{CONTROL}.planning.replan_subframes": 4})
    assert kept[-1].baseband == "rzf"
    assert sum("bit/Hz a subframe" in line for line in kept[-1].reason) == 2
    assert one.kpi.reason[-1] == kept[-2].reason  # the last plan is the next subframe's
    assert late(one, "rate_bps").sum() > 1.5 * late(seen["run"], "rate_bps").sum()


def test_streams_need_whole_vectors_and_one_array() -> None:
    with pytest.raises(Misuse, match="kind: ring"):
        played(**{f"{CONTROL}.estimation": "mmse"})
    from twin.scenario import frontend_spec

    spec = frontend_spec(load(SCENARIO), "bs0")
    reciprocal(spec)
    other = replace(spec.receive.array, origin_m=spec.receive.array.origin_m + 1)
    with pytest.raises(Misuse, match="same array"):
        reciprocal(replace(spec, receive=replace(spec.receive, array=other)))
