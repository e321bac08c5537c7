"""Controllers outside: they steer what they hold, and nothing they do or fail to do stops the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.session import Client, Patience
from twin.agent import Agent
from twin.build import Run, parts_of, run
from twin.client import control
from twin.control import Chain
from twin.outside import Act, Claim, Grant, Moment
from twin.record import read
from twin.records import BeamsCommand
from twin.scenario import load
from twin.serve_control import steer

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
ALL = ("bs0.plan", "bs0.beams", "bs0.baseband")
QUICK = {"sensing.fidelity": "bound"}


@pytest.fixture(scope="module")
def plain() -> Run:
    return run(SMOKE, QUICK, write=False)


class Played:
    """A run in a thread of its own, and what became of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.control = endpoint + ".control"
        self.run: Run | None = None
        self.error: BaseException | None = None

    @property
    def done(self) -> Run:
        self.thread.join(60)
        assert not self.thread.is_alive(), "the loop hangs"
        if self.error is not None:
            raise self.error
        assert self.run is not None
        return self.run


@contextmanager
def playing(tmp_path: Path, *names: str, **values: Any) -> Iterator[Played]:
    """A lock-step run that waits for ``names``; whatever the test does, it is over at the end."""
    played = Played(f"ipc://{tmp_path}/state")
    given = {"bus.state": played.endpoint, "clock.mode": "lockstep", "controllers.wait_for": list(names)}
    given |= QUICK | {"controllers.give_up_s": 20.0} | {key.replace("__", "."): value for key, value in values.items()}

    def play() -> None:
        try:
            played.run = run(SMOKE, given, out=tmp_path / "run")
        except BaseException as error:
            played.error = error

    played.thread = threading.Thread(target=play)
    played.thread.start()
    try:
        yield played
    finally:
        played.thread.join(60)
        assert not played.thread.is_alive(), "the loop hangs"


def claimed(played: Played, name: str, *knobs: str, **options: Any) -> Agent:
    """The claim, as soon as there is a twin; the first seconds may go into compiling."""
    until = time.monotonic() + 60
    while True:
        try:
            return control(played.endpoint, name, *knobs, patience=Patience(10.0, 30.0), **options)
        except RemoteFault:
            assert time.monotonic() < until
            assert played.thread.is_alive(), played.error


def copy(agent: Agent) -> Chain:
    return Chain(parts_of(load(SMOKE, QUICK)), agent.grant.spec, agent.grant.numerology)


def events(played: Played) -> list[tuple[str, str]]:
    return [(d["what"], d["why"]) for _, _, d in read(played.done.path / "recording.mcap", "bs0.event.")]


def steered(played: Played) -> list[dict[str, Any]]:
    return [d for _, _, d in read(played.done.path / "recording.mcap", "bs0.control.")]


def hash_of(done: Run) -> str:
    return str(done.summary["run"]["hash"])


def test_a_copy_of_the_chain_outside_reaches_the_same_hash(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "copy") as played, claimed(played, "copy", *ALL) as agent:
        steer(agent, copy(agent))
    assert hash_of(played.done) == hash_of(plain)
    last = steered(played)[-1]
    assert (last["plan"], last["beams"], last["baseband"]) == ("copy", "copy", "copy")
    assert last["answered"] == agent.counts["moments"] == agent.counts["acts"]
    assert last["missed"] == last["refused"] == last["dropped"] == 0


def test_three_controllers_in_order_reach_it_too(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "p", "b", "w") as played:

        def part(name: str, knob: str, order: int) -> None:
            with claimed(played, name, knob, order=order) as agent:
                steer(agent, copy(agent))

        # the one who plans is asked first: who points the beams is shown the plan
        parts = [("w", ALL[2], 0), ("b", ALL[1], 2), ("p", ALL[0], 1)]
        threads = [threading.Thread(target=part, args=each) for each in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert hash_of(played.done) == hash_of(plain)
    last = steered(played)[-1]
    assert (last["plan"], last["beams"], last["baseband"]) == ("p", "b", "w")


def test_a_bus_that_nobody_steers_by_changes_nothing(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path) as played:
        pass
    assert hash_of(played.done) == hash_of(plain)
    assert not steered(played)


def away(beams: BeamsCommand) -> BeamsCommand:
    """The same rows, mirrored: what pointed left points right."""
    return replace(
        beams, transmit_phase_rad=-beams.transmit_phase_rad, transmit_delay_s=beams.transmit_delay_s[..., ::-1]
    )


def test_beams_that_point_away_cost_realised_rate(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "bad") as played, claimed(played, "bad", "bs0.beams") as agent:
        chain = copy(agent)
        chain.first()
        for moment in agent:
            assert moment.decided.plan is not None  # the built-in chain's, settled before
            assert moment.belief is not None
            chain.belief = moment.belief
            agent.act(beams=away(chain.point(moment, moment.decided.plan)))
    late = plain.kpi.k >= 10
    assert np.nanmean(played.done.kpi.rate_bps[late]) < 0.5 * np.nanmean(plain.kpi.rate_bps[late])


def test_serving_one_user_takes_from_the_other(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "one") as played, claimed(played, "one", "bs0.plan", observe=("proposal",)) as agent:
        for moment in agent:
            assert moment.proposal is not None
            plan = moment.proposal.plan
            assert plan is not None
            assert plan.user_slot is not None
            served = np.zeros_like(plan.served)
            served[:, 0] = plan.served.any(axis=1)
            agent.act(plan=replace(plan, served=served, slot=np.where(served[:, 0], plan.user_slot[0], -1)))
    rate, late = played.done.kpi.rate_bps, plain.kpi.k >= 10
    assert np.nanmax(rate[late, 1]) == 0
    assert np.nanmean(rate[late, 0]) > 1.5 * np.nanmean(plain.kpi.rate_bps[late, 0])


def test_who_takes_what_is_proposed_changes_nothing(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "yes") as played, claimed(played, "yes", *ALL, observe=("proposal",)) as agent:
        for moment in agent:
            offer = moment.proposal
            assert offer is not None
            agent.act(plan=offer.plan, beams=offer.beams, baseband=offer.baseband)
    assert hash_of(played.done) == hash_of(plain)


def test_applied_says_what_the_machine_took_and_from_when(tmp_path: Path) -> None:
    told = []
    with playing(tmp_path, "c") as played, claimed(played, "c", "bs0.beams") as agent:
        chain = copy(agent)
        chain.first()
        for moment in agent:
            if agent.applied is not None:
                told.append((moment.k, sent, agent.applied))
            assert moment.decided.plan is not None
            assert moment.belief is not None
            chain.belief = moment.belief
            sent = chain.point(moment, moment.decided.plan)
            agent.act(beams=sent)
    assert len(told) == 19
    step = 2 * np.pi / 2**agent.grant.spec.transmit.network.phase_bits
    for k, sent, applied in told:
        assert applied.k == k - 1
        assert applied.by == {"plan": "built-in", "beams": "c", "baseband": "built-in"}
        assert applied.plan_ns == k * agent.grant.numerology.subframe_ns
        loaded = applied.transmit
        assert (loaded is None) == (not len(sent.transmit_slot))
        if loaded is None:
            continue
        assert loaded.readback is not None
        assert loaded.effective_ns > loaded.accepted_ns >= applied.t_ns
        np.testing.assert_array_equal(loaded.readback.slot, sent.transmit_slot)
        apart = np.abs(np.angle(np.exp(1j * (loaded.readback.phase_rad - sent.transmit_phase_rad))))
        assert 0 < apart.max() <= step / 2 + 1e-9  # quantised, and by no more than that
    assert sum(applied.transmit is not None for _, _, applied in told) > 10


WRONG = [
    (Claim(name="", knobs=("bs0.baseband",)), "must be 1 .. 64 printable characters"),
    (Claim(name="built-in", knobs=("bs0.baseband",)), "taken by the twin itself"),
    (Claim(name="x", knobs=("bs0.power",)), "there are bs0.plan, bs0.beams, bs0.baseband"),
    (Claim(name="x", knobs=()), "subscribe to the state endpoint"),
    (Claim(name="x", knobs=("bs0.baseband",), observe=("truth",)), "nobody but the role oracle"),
    (Claim(name="x", knobs=("bs0.baseband",), observe=("soul",)), "none of belief, proposal, echo, pilots, truth"),
    (Claim(name="x", knobs=("bs0.baseband",), role="king"), "must be controller or oracle"),
    (Claim(name="first", knobs=("bs0.baseband",)), "is here already"),
    (Claim(name="second", knobs=("bs0.plan", "bs0.beams")), r"bs0\.beams is held by 'first'; a knob has one owner"),
]


def test_a_claim_that_cannot_be_granted_says_why_and_changes_nothing(tmp_path: Path) -> None:
    with playing(tmp_path, "first", "last") as played, claimed(played, "first", "bs0.beams") as first:
        for claim, said in WRONG:
            with pytest.raises(Misuse, match=said):
                Agent(played.control, claim)
        first.close()
        with claimed(played, "last", "bs0.beams"):  # free again
            pass


def test_a_free_run_takes_no_controller(tmp_path: Path) -> None:
    with playing(tmp_path, clock__mode="free") as played:
        with pytest.raises((Misuse, RemoteFault)) as refused:
            claimed(played, "x", "bs0.plan")
    assert "run it with lockstep or paced" in str(refused.value) or not played.thread.is_alive()


def test_the_truth_is_for_oracles(tmp_path: Path) -> None:
    with (
        playing(tmp_path, "seer") as played,
        claimed(played, "seer", "bs0.plan", observe=("truth",), role="oracle") as agent,
    ):
        for moment in agent:
            assert moment.belief is None
            assert agent.truth is not None
            assert agent.truth.t_ns == moment.t_ns
            assert len(agent.truth.entity) == 3


def test_echo_and_pilots_come_by_request(tmp_path: Path) -> None:
    seen = set()
    with (
        playing(tmp_path, "ear", sensing__fidelity="echo") as played,
        claimed(played, "ear", "bs0.beams", "bs0.baseband", observe=("echo", "pilots")) as agent,
    ):
        for moment in agent:
            assert (moment.echo is not None) == (moment.point == "steer")
            assert (moment.pilots is not None) == (moment.point == "precode")
            if moment.echo is not None:
                assert moment.echo.echo is not None
                assert moment.echo.echo.samples.any()
            seen.add(moment.point)
    assert seen == {"steer", "precode"}


# ----------------------------------------------------------------------------------------------------- rogues


class Rogue:
    """A session that holds knobs and is not bound to behave."""

    def __init__(self, played: Played, *knobs: str) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                self.session = Client(played.control, Patience(10.0, 30.0), name="rogue")
                break
            except RemoteFault:
                assert time.monotonic() < until
        claim = Claim(name="rogue", knobs=knobs or ("bs0.plan",))
        self.grant: Grant = wire.decode(self.session.ask("claim", wire.encode(claim)), Grant)

    def moment(self) -> Moment | None:
        while True:
            heard = self.session.hear(30.0)
            assert heard is not None
            if heard[0] == "dropped":
                return None
            if heard[0] == "observe":
                return wire.decode(heard[2], Moment)

    def say(self, act: Act) -> None:
        self.session.tell("act", wire.encode(act))


def misbehaving(tmp_path: Path, rogue: Callable[[Rogue], None], *knobs: str, **values: Any) -> Played:
    with playing(tmp_path, "rogue", **values) as played:
        one = Rogue(played, *knobs)
        with suppress(RemoteFault):
            rogue(one)
        one.session.close()
    assert played.done.summary["run"]["subframes"] == 20
    return played


def test_one_who_dies_loses_its_knobs_at_once(plain: Run, tmp_path: Path) -> None:
    def dies(rogue: Rogue) -> None:
        for _ in range(3):
            moment = rogue.moment()
            assert moment is not None
            rogue.say(Act(moment=moment.moment))
        rogue.moment()  # and no word more

    began = time.monotonic()
    played = misbehaving(tmp_path, dies)
    assert time.monotonic() - began < 15  # give_up_s is 20: it was not waited for
    assert ("dropped", "has left") in events(played)
    assert [d["plan"] for d in steered(played)][:5] == ["held"] * 3 + ["built-in"] * 2
    assert steered(played)[-1]["controllers"] == 0
    assert np.nanmin(played.done.kpi.rate_bps[-1]) > 0  # the built-in chain went on


def test_one_who_hangs_is_named_and_then_dropped(tmp_path: Path) -> None:
    played = misbehaving(tmp_path, played_out, controllers__warn_s=0.05, controllers__give_up_s=0.2)
    said = events(played)
    assert any(what == "waiting" and why.startswith("no answer to moment 0 after 0.0") for what, why in said)
    assert any(what == "dropped" and "the limit is 0.2 s" in why for what, why in said)


def played_out(rogue: Rogue) -> None:
    """Hear everything, say nothing."""
    while rogue.moment() is not None:
        pass


def test_in_a_debugger_nobody_is_late(tmp_path: Path) -> None:
    def slow(rogue: Rogue) -> None:
        moment = rogue.moment()
        assert moment is not None
        heard = [rogue.session.hear(0.2) for _ in range(3)]  # far beyond give_up_s: only beats come
        assert {each[0] for each in heard if each is not None} <= {"beat"}
        rogue.say(Act(moment=moment.moment))
        while (moment := rogue.moment()) is not None:
            rogue.say(Act(moment=moment.moment))

    played = misbehaving(tmp_path, slow, controllers__give_up_s=0.1, controllers__debug=True)
    assert steered(played)[-1]["answered"] == 20
    assert steered(played)[-1]["dropped"] == 0


def test_answers_that_come_twice_count_once(tmp_path: Path) -> None:
    def twice(rogue: Rogue) -> None:
        while (moment := rogue.moment()) is not None:
            rogue.say(Act(moment=moment.moment))
            rogue.say(Act(moment=moment.moment))

    last = steered(misbehaving(tmp_path, twice))[-1]
    assert last["answered"] == 20
    assert last["duplicate"] >= 19
    assert last["dropped"] == 0


def test_answers_that_come_late_are_counted_and_ignored(tmp_path: Path) -> None:
    def behind(rogue: Rogue) -> None:
        before = -1
        while (moment := rogue.moment()) is not None:
            rogue.say(Act(moment=before))  # to the one before
            before = moment.moment
            rogue.say(Act(moment=moment.moment))

    last = steered(misbehaving(tmp_path, behind))[-1]
    assert last["answered"] == 20
    assert last["late"] + last["duplicate"] >= 19


@pytest.mark.parametrize("policy", ["built_in", "hold"])
def test_garbage_is_refused_and_the_policy_decides(plain: Run, policy: str, tmp_path: Path) -> None:
    def garbage(rogue: Rogue) -> None:
        for kind in (b"\xc1", b"", b"\x93\x01", bytes(1000)):
            if rogue.moment() is None:
                return
            rogue.session.tell("act", kind)
        played_out(rogue)

    played = misbehaving(tmp_path, garbage, controllers__on_miss=policy, controllers__give_up_s=0.2)
    assert steered(played)[-1]["refused"] == 4
    assert steered(played)[0]["plan"] == {"built_in": "built-in", "hold": "held"}[policy]
    if policy == "built_in":
        assert hash_of(played.done) == hash_of(plain)


def test_a_flood_costs_the_flooder_its_knobs(tmp_path: Path) -> None:
    def flood(rogue: Rogue) -> None:
        moment = rogue.moment()
        while moment is not None:
            for _ in range(300):
                rogue.say(Act(moment=moment.moment))
            moment = rogue.moment()

    played = misbehaving(tmp_path, flood)
    assert any(what == "dropped" and "nobody asked for" in why for what, why in events(played))


def test_a_knob_that_is_not_theirs_is_not_touched(plain: Run, tmp_path: Path) -> None:
    def grabs(rogue: Rogue) -> None:
        chain = Chain(parts_of(load(SMOKE, QUICK)), rogue.grant.spec, rogue.grant.numerology)
        chain.first()
        while (moment := rogue.moment()) is not None:
            chain.belief = moment.belief
            plan = chain.plan(moment)
            rogue.say(Act(moment=moment.moment, plan=plan, beams=away(chain.point(moment, plan))))

    played = misbehaving(tmp_path, grabs)
    assert ("refused", "act.beams: is the built-in chain's, not yours") in events(played)
    assert hash_of(played.done) == hash_of(plain)


def test_paced_a_miss_is_data(tmp_path: Path) -> None:
    def hears(rogue: Rogue) -> None:
        played_out(rogue)

    played = misbehaving(
        tmp_path, hears, clock__mode="paced", clock__factor=0.5, controllers__misses=5, controllers__deadline_ms=2
    )
    rows = steered(played)
    assert rows[-1]["missed"] == 5
    assert rows[-1]["dropped"] == 1
    assert max(row["wait_ns"] for row in rows) < 50_000_000
    assert any(what == "dropped" and "missed 5 deadlines in a row" in why for what, why in events(played))


def test_who_does_not_come_is_not_waited_for_for_ever(plain: Run, tmp_path: Path) -> None:
    with playing(tmp_path, "nobody", controllers__join_s=0.1) as played:
        pass
    assert hash_of(played.done) == hash_of(plain)
    assert events(played)[0] == ("missed", "did not come within 0.1 s; the built-in chain steers")
