"""A run done again from its seed and the commands that were in force: proved, or told where it differs."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hal import wire
from hal.errors import Misuse
from hal.wire import decode, encode
from twin import admin
from twin.build import Run, parts_of, run
from twin.client import control
from twin.kpi import Kpi
from twin.record import Recorder, rows
from twin.records import Change
from twin.reel import Reel
from twin.scenario import load
from twin.verify import Scripted, told, verify

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
QUICK = {"sensing.fidelity": "bound"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(SMOKE, QUICK, out=tmp_path_factory.mktemp("verify") / "run")


def rewritten(source: Path, target: Path, change, about=None):
    """A copy of a run whose recording went through ``change(row) -> data or None``."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("recording.mcap"))
    reel = Reel(source)
    with Recorder(target / "recording.mcap", about=reel.about if about is None else about) as out:
        kinds = {name: (kind, schema) for name, (kind, schema) in zip(reel.topics, reel.kinds, strict=True)}
        for row in rows(reel.path):
            data = change(row)
            if data is not None:
                made = type(kinds[row.topic][0], (), {})  # the recorder asks only for the name and the schema
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(wire, "schema", lambda kind, topic=row.topic: kinds[topic][1])
                    out.write(row.topic, made(), row.t_ns, data)
    return target


def test_a_run_is_proved_by_running_it_again(done):
    verdict = verify(done.path)
    assert verdict["equal"]
    assert verdict["subframes"] == 20
    assert verdict["records"] == len(Reel(done.path))
    assert (
        verdict["hash"]["recorded"]
        == verdict["hash"]["again"]
        == verdict["hash"]["summary"]
        == done.summary["run"]["hash"]
    )
    assert "proved: 20 subframes run again gave the same" in told(verdict)


def test_a_recording_of_its_own_says_enough_to_be_run_again(done, tmp_path):
    shutil.copy(done.path / "recording.mcap", tmp_path / "alone.mcap")
    verdict = verify(tmp_path / "alone.mcap")
    assert verdict["equal"]
    assert verdict["hash"]["summary"] is None


def test_the_least_change_of_a_record_is_found_and_named(done, tmp_path):
    def nudge(row):
        if row.topic == "bs0.kpi." and row.t_ns == 50_000_000:
            kpi = decode(row.data, Kpi)
            rate = kpi.rate_bps.copy()
            rate[0] = np.nextafter(rate[0], np.inf)
            return encode(Kpi(**{**{n: getattr(kpi, n) for n in kpi.__dataclass_fields__}, "rate_bps": rate}))
        return row.data

    verdict = verify(rewritten(done.path, tmp_path / "run", nudge))
    assert not verdict["equal"]
    assert verdict["first"] == "bs0.kpi. at t = 0.05 s: differs in rate_bps"
    assert verdict["hash"]["recorded"] != verdict["hash"]["again"]
    assert "not proved: after" in told(verdict)
    assert "numpy" in told(verdict)


def test_a_changed_summary_and_a_missing_record_are_found(done, tmp_path):
    shutil.copytree(done.path, tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    summary["run"]["hash"] = "0" * 64
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary))
    assert "summary.json has another hash" in verify(tmp_path / "a")["first"]
    lacking = rewritten(
        done.path, tmp_path / "b", lambda row: None if row.topic == "truth." and row.t_ns == 0 else row.data
    )
    assert "truth. at t = 0 s: the recording has one at t = 0.005 s instead" in verify(lacking)["first"]


def test_an_interrupted_run_is_proved_up_to_its_end(done, tmp_path):
    short = rewritten(done.path, tmp_path / "run", lambda row: row.data if row.t_ns < 40_000_000 else None)
    (short / "summary.json").unlink()
    verdict = verify(short)
    assert verdict["equal"]
    assert verdict["subframes"] == 8


def test_without_a_scenario_it_says_so(done, tmp_path):
    bare = rewritten(done.path, tmp_path / "run", lambda row: row.data, about={"seed": 1})
    (bare / "scenario.yaml").unlink()
    with pytest.raises(Misuse, match=r"neither the recording nor a scenario\.yaml beside it says which scenario"):
        verify(bare)


def test_a_run_steered_from_outside_is_proved_without_its_controller(done, tmp_path):
    """The controller gives one user's blocks to the other in every other subframe, and leaves half-way: nobody could guess that."""
    endpoint, made = f"ipc://{tmp_path}/state", []
    given = QUICK | {"bus.state": endpoint, "clock.mode": "lockstep", "controllers.wait_for": ["mine"]}
    loop = threading.Thread(target=lambda: made.append(run(SMOKE, given, out=tmp_path / "run")))
    loop.start()
    while not (tmp_path / "state.control").exists():
        assert loop.is_alive()
    planner = parts_of(load(SMOKE, QUICK)).planner
    with control(endpoint, "mine", "bs0.plan") as site:
        for moment in site:
            if moment.k >= 12:
                break
            grant = site.grant
            plan = planner.plan(moment.k + 1, moment.belief, moment.user, grant.spec, grant.numerology, moment.plan)
            if moment.k % 2 and plan.user.size:
                served = np.zeros_like(plan.served)
                served[plan.sensing_blocks :, 0] = True
                plan = replace(plan, served=served)
            site.act(plan=plan)
    loop.join(60)
    (outside,) = made
    assert outside.summary["run"]["hash"] != done.summary["run"]["hash"]
    reel = Reel(outside.path)
    assert len(reel.of("bs0.command.")) > 3
    assert len(reel.of("bs0.control.")) > 10
    verdict = verify(outside.path)
    assert verdict["equal"], verdict["first"]
    assert verdict["subframes"] == 20
    assert verdict["hash"]["again"] == outside.summary["run"]["hash"]
    # and it is the acts that do it: without them the same scenario is the run that nobody steered
    unsteered = rewritten(
        outside.path, tmp_path / "unsteered", lambda row: None if row.topic == "bs0.control." else row.data
    )
    assert not verify(unsteered)["equal"]


def test_an_act_that_the_recording_lost_is_named(done):
    class Nothing:
        def perceive(self, echo):
            pass

    class Echo:
        k = 3

    steering = msgspec.defstruct("Steering", [("plan", str), ("beams", str)])(plan="mine", beams="built-in")
    with pytest.raises(Exception, match="subframe 3: mine set the plan, but the recording does not say how"):
        Scripted(Nothing(), {3: steering}, {}).steer(Echo())


def test_what_an_admin_changed_is_done_again_at_the_same_subframe(tmp_path):
    """Another precoder and a fault, at whatever subframe they happened to come."""
    control_socket, given = (
        f"ipc://{tmp_path}/state.control",
        QUICK | {"bus.state": f"ipc://{tmp_path}/state", "duration_s": 50},
    )
    made: list[Run] = []
    loop = threading.Thread(target=lambda: made.append(run(SMOKE, given, out=tmp_path / "run")))
    loop.start()
    while not (tmp_path / "state.control").exists():
        assert loop.is_alive()

    def asked(verb, **payload):
        return admin.ask(control_socket, verb, payload, 30.0)

    def stepped(subframes):
        to = asked("status")["k"] + subframes
        asked("step", subframes=subframes)
        while asked("status")["k"] < to:
            assert loop.is_alive()

    asked("pause")
    while asked("status")["k"] < 0:  # it pauses at the end of a subframe
        assert loop.is_alive()
    asked("set", **{"precoder.kind": "no_ttd"})
    stepped(4)
    asked("inject", kind="dead_element", elements=list(range(30)))
    stepped(4)
    asked("stop")
    loop.join(60)
    reel = Reel(made[0].path)
    changes = [decode(row.data, Change) for row in reel.rows("bs0.change.")]
    assert len(changes) == 2
    assert "kind: no_ttd" in changes[0].scenario
    verdict = verify(made[0].path)
    assert verdict["equal"], verdict["first"]
    assert verdict["hash"]["again"] == made[0].summary["run"]["hash"]
    # without the fault, or without the change at all, it is another run
    unharmed = rewritten(
        made[0].path, tmp_path / "unharmed", lambda row: None if b"dead_element" in row.data else row.data
    )
    assert not verify(unharmed)["equal"]
