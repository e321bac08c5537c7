"""What cannot be is noticed: every planted violation stops the run, is named, and breaks again when its state is read back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal import wire
from hal.errors import InvariantError, Misuse
from twin import build, invariants, loop, record
from twin.build import run
from twin.invariants import State, check
from twin.kpi import with_served

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


@pytest.fixture(scope="module")
def states() -> list[State]:
    """The states of a short run, as a run would keep them."""
    held: list[State] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invariants, "check", lambda state: held.append(State(**vars(state))) or check(state))
        run(SMOKE, write=False, keep=False)
    return held


def read_back(state: State) -> State:
    return wire.decode(wire.encode(state), State)


def test_every_subframe_is_checked_and_the_figures_stand_in_the_summary(states: list[State]) -> None:
    told = run(SMOKE, write=False, keep=False).summary["invariants"]
    assert told["checked"] == len(states) == 20
    figures = np.array([check(read_back(state)) for state in states])
    expected = [*figures[:, :2].max(axis=0), figures[:, 2].min(), figures[:, 3].max()]
    assert [told[name] for name in invariants.FIGURES] == pytest.approx(expected, rel=1e-12)
    assert told["radiated"] == pytest.approx(1)  # full power is used, and no more
    assert 0.1 < told["gathered"] <= 1
    assert 0 < told["least"] < 1


def snr_times(factor: float) -> Callable[[State], State]:
    return lambda s: replace(s, blocks=replace(s.blocks, snr=s.blocks.snr * factor))


def test_the_matched_filter_bound_is_the_norm_of_the_channel_where_paths_add_up(states: list[State]) -> None:
    # independent of the code under test: one user, one path, by hand
    state = states[-1]
    share = check(state)[1]
    assert check(snr_times(0.999 / share)(state))[1] == pytest.approx(0.999, rel=1e-9)
    with pytest.raises(InvariantError, match=r"matched filter: user \d+ has .* in block \d+, 1.01 times the bound"):
        check(snr_times(1.01 / share)(state))


def emission(state: State, which: int, **changes: Any) -> State:
    sent = list(state.sent)
    sent[which] = replace(sent[which], **changes)
    return replace(state, sent=tuple(sent))


def louder(state: State, event: int, factor: float) -> State:
    power = np.array(state.sent[-1].drive.power_w)
    power[event % len(power)] *= factor
    return emission(state, -1, drive=replace(state.sent[-1].drive, power_w=power))


@given(st.floats(1.001, 1e6), st.integers(0, 100))
def test_more_power_than_the_nameplate_says(states: list[State], factor: float, event: int) -> None:
    with pytest.raises(InvariantError, match=r"power: the event at .* radiates .* W, the nameplate says 1 W"):
        check(louder(states[5], event, factor))


@given(st.floats(0.5, 2.0), st.integers(0, 5), st.integers(0, 5))
def test_a_covariance_that_is_not_positive(states: list[State], by: float, i: int, j: int) -> None:
    state = states[10]
    spread = np.array(state.belief.tracks.covariance)
    vectors = np.linalg.eigh(spread[0])
    spread[0] -= (1 + by) * vectors[0][i] * np.outer(vectors[1][:, i], vectors[1][:, i])  # eigenvalue i turns negative
    with pytest.raises(InvariantError, match=r"covariance: belief\.tracks\.covariance\[0\] is not positive"):
        check(replace(state, belief=replace(state.belief, tracks=replace(state.belief.tracks, covariance=spread))))
    if i != j:
        spread = np.array(state.belief.tracks.covariance)
        spread[0, i, j] += by * np.sqrt(spread[0, i, i] * spread[0, j, j])
        with pytest.raises(InvariantError, match="covariance"):
            check(replace(state, belief=replace(state.belief, tracks=replace(state.belief.tracks, covariance=spread))))


@given(st.integers(1, 8), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_a_covariance_is_judged_as_its_eigenvalues_are(size: int, seed: int, scale: float) -> None:
    chance = np.random.default_rng(seed)
    root = chance.normal(size=(size, chance.integers(1, size + 1)))  # any rank
    units = 10.0 ** chance.uniform(-6, 6, size)
    good = root @ root.T * np.outer(units, units) * scale
    row, pivot = invariants._pivots(np.stack([np.eye(size), good]))
    assert pivot >= -invariants.NEGATIVE
    bad = good / np.sqrt(np.outer(np.diag(good), np.diag(good)))
    bad -= np.eye(size) * (np.linalg.eigvalsh(bad)[0] + 1e-3)
    row, pivot = invariants._pivots(np.stack([np.eye(size), bad]))
    assert (row, pivot >= -invariants.NEGATIVE) == (1, False)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda s: replace(s, before_k=s.k), "time: subframe = 7"),
        (lambda s: replace(s, truth=replace(s.truth, t_ns=s.t_ns - 1)), r"time: truth\.t_ns"),
        (lambda s: replace(s, believed_ns=s.belief.t_ns + 1), r"time: belief\.t_ns"),
        (lambda s: replace(s, reports=(replace(s.reports[0], effective_ns=0),)), "time: effective_ns = 0"),
        (lambda s: replace(s, plan=replace(s.plan, sensing_ns=10**9)), "shares: dwells of"),
        (lambda s: replace(s, blocks=replace(s.blocks, served=s.blocks.served | True)), "shares: 2 users in block 0"),
        (lambda s: emission(s, 0, response=s.sent[0].response * 1.1), "power: response 0 of chain 0 gives out 1.21"),
        (lambda s: emission(s, -1, response=s.sent[-1].response * np.nan), "power: response"),
        (lambda s: replace(s, down=replace(s.down, gain=s.down.gain * 1e7)), "power: a user is reached by"),
        (lambda s: louder(s, 3, np.nan), "power: the event at"),
    ],
)
def test_what_else_cannot_be(states: list[State], broken: Callable[[State], State], says: str) -> None:
    with pytest.raises(InvariantError, match=says):
        check(read_back(broken(states[7])))


def test_an_imperfect_machine_may_err_by_less_than_three_decibels(states: list[State]) -> None:
    uneven = replace(emission(states[7], 0, response=states[7].sent[0].response * 1.2), excess=invariants.IMPERFECT)
    assert check(uneven)


def test_a_violation_stops_the_run_with_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[int] = []

    def planted(blocks: Any, **given: Any) -> Any:
        served = with_served(blocks, **given)
        begun.append(1)
        return served if len(begun) < 9 else replace(served, snr=served.snr * 10.0)

    monkeypatch.setattr(loop, "with_served", planted)
    with pytest.raises(InvariantError, match=r"t = [\d.]+ s: matched filter: .*twin invariants .*\.state") as told:
        run(SMOKE, out=tmp_path / "run", keep=False)
    (file,) = (tmp_path / "run").glob("violation-*.state")
    assert str(file) in str(told.value)
    assert invariants.run(argparse.Namespace(file=file)) == 1  # without what planted it
    assert "matched filter" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["run"]["failure"].startswith("InvariantError: t = ")
    kept = [t for topic, t, _ in record.read(tmp_path / "run" / "recording.mcap") if topic == "bs0.kpi."]
    assert kept == [5_000_000 * k for k in range(summary["run"]["subframes"])]
    assert int(file.stem.partition("-")[2]) == len(kept)  # the subframe that broke is not among them


def test_a_state_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        invariants.run(argparse.Namespace(file=tmp_path / "no.state"))


def test_a_run_without_files_keeps_its_state_in_the_system_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(invariants, "covered", lambda state: (_ for _ in ()).throw(InvariantError("shares: planted")))
    with pytest.raises(InvariantError, match="shares: planted"):
        run(SMOKE, write=False)
    assert len(list(tmp_path.glob("violation-*.state"))) == 1


def test_margins_are_said_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class Listening(build.NullBus):
        def wanted(self, topic: str) -> bool:
            return topic == "bs0.invariants."

        def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
            if topic == "bs0.invariants.":
                said.append((t_ns, record.t_ns, record.radiated))

    with build.Twin(build.load(SMOKE)) as twin:
        twin.bus = Listening()
        twin.play(split=False, progress=False)
    assert [t for t, _, _ in said] == [t for _, t, _ in said] == [5_000_000 * k for k in range(20)]
