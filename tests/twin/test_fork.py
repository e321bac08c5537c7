"""What if: another future of the very same past, and nothing that could not have changed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Tree
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest

from hal.errors import Misuse, RemoteFault
from twin import fork as module
from twin.build import run
from twin.document import ScenarioError
from twin.fork import arguments, course, fork
from twin.record import rows
from twin.verify import verify

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
AT_NS = 50_000_000
BEFORE = ("truth.", "bs0.plan.", "bs0.belief.", "bs0.kpi.", "bs0.beam.transmit.", "bs0.beam.receive.")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(SMOKE, {"sensing.fidelity": "bound", "duration_s": 0.15}, out=tmp_path_factory.mktemp("fork") / "run")


@pytest.fixture(scope="module")
def forked(done):
    """Half of the transmit elements die in the fork, and only there."""
    sets = {"faults": "[{kind: dead_element, at_ms: 80, elements: [" + ", ".join(map(str, range(32))) + "]}]"}
    return fork(done.path, AT_NS, sets, done.path.parent / "forked")


@pytest.fixture
def plainly(monkeypatch):
    """Pages take longer than runs, and one test looks at them."""
    monkeypatch.setattr("twin.fork.report", lambda folder: None)
    monkeypatch.setattr("twin.fork.written", lambda found: "")


def kept(folder, until_ns=2**62):
    return [
        (row.topic, row.t_ns, row.data)
        for row in rows(Path(folder) / "recording.mcap")
        if row.topic in BEFORE and row.t_ns < until_ns
    ]


def test_up_to_the_fork_every_record_is_the_original_s(done, forked):
    assert kept(forked["fork"], AT_NS) == kept(done.path, AT_NS)
    assert forked["past"]["hash"] == forked["past"]["recorded"]
    assert forked["past"]["subframes"] == 10
    assert (
        len(kept(done.path, AT_NS)) <= forked["past"]["records"] <= len(kept(done.path, AT_NS)) + 1
    )  # the memory, once


def test_the_futures_part_where_the_change_is_felt_and_not_before(done, forked):
    t_s, original = course(done.path, "rate_bps.", 1.0, np.nansum)
    _, other = course(Path(forked["fork"]), "rate_bps.", 1.0, np.nansum)
    fault = t_s >= 0.08
    assert np.array_equal(original[~fault], other[~fault])
    assert (other[fault] < 0.9 * original[fault]).all()
    figures = forked["futures"]["figures"]
    assert forked["futures"]["first"]["k"] == 16
    assert forked["futures"]["subframes"]["compared"] == 20
    assert figures["rate, Gbit/s: all users"]["b"] < figures["rate, Gbit/s: all users"]["a"]
    # of the future alone: means over the ten subframes before it would be nearer to each other
    both = forked["users"]["near"]["rate_bps"]
    assert both[0] == pytest.approx(np.mean([kpi for kpi in done.kpi.rate_bps[10:, done.user.index("near")]]))
    assert both[1] < both[0]


def test_a_fork_that_changes_nothing_is_the_original_to_the_last_bit(done, tmp_path, plainly):
    found = fork(done.path, AT_NS, {"duration_s": "0.15"}, tmp_path / "same")
    assert found["futures"]["hash"]["equal"] is True
    assert kept(found["fork"]) == kept(done.path)


def test_a_fork_is_a_run_that_can_be_proved_itself(forked):
    verdict = verify(forked["fork"])
    assert verdict["equal"]
    assert verdict["subframes"] == 30


def test_another_precoder_takes_over_with_its_own_defaults(done, tmp_path, plainly):
    found = fork(done.path, AT_NS, {"precoder.kind": "no_ttd"}, tmp_path / "other")
    changed = found["futures"]["scenario"]
    assert changed["sites.bs0.control.precoding.kind"] == ["delay_phase", "no_ttd"]
    assert found["futures"]["first"]["k"] >= 10
    assert found["futures"]["hash"]["equal"] is False
    assert verify(tmp_path / "other")["equal"]


def test_its_page_reads_as_xml_and_has_both_futures(forked):
    text = (Path(forked["fork"]) / "fork.html").read_text(encoding="utf-8")
    page = Tree.fromstring(text.replace("<!DOCTYPE html>", ""))
    words = " ".join(page.itertext())
    assert "Up to 0.05 s the fork is the original" in words
    assert forked["past"]["hash"][:16] in words
    assert "near" in words
    assert "faults" in words
    assert page.find(".//figure//{*}svg") is not None
    assert (Path(forked["fork"]) / "report.html").is_file()
    assert json.loads((Path(forked["fork"]) / "fork.json").read_text())["past"] == forked["past"]


@pytest.mark.parametrize("at_ns", [0, 150_000_000, 9 * 10**9])
def test_a_time_outside_the_run_is_refused_with_its_span(done, at_ns):
    with pytest.raises(Misuse, match=r"lies outside the run; its subframes begin at 0 to 0\.145 s"):
        fork(done.path, at_ns, {"precoder.kind": "no_ttd"})


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ({"precoder.kin": "direct"}, "unknown key; did you mean"),
        ({"precoder.kind": "nope"}, "kind 'nope' is not one of"),
        ({"duration_s": "soon"}, "duration_s"),
    ],
)
def test_what_no_scenario_may_hold_is_said_as_for_any_scenario(done, sets, says):
    with pytest.raises(ScenarioError, match=says):
        fork(done.path, AT_NS, sets)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ({"seed": "3"}, "--set seed=3: cannot change while a run goes on"),
        ({"sites.bs0.power_dbm": "10"}, "cannot change while a run goes on"),
        ({"users.*.mobility.position_m": "[1, 2, 3]"}, "."),
        ({"faults": "[{kind: chain_off, at_ms: 10}]"}, "chain_off at 10 ms lies before the fork at 50 ms"),
        ({"duration_s": "0.05"}, "ends before the fork"),
    ],
)
def test_what_has_a_past_cannot_change(done, sets, says):
    with pytest.raises((Misuse, ScenarioError), match=says):
        fork(done.path, AT_NS, sets)


def test_a_run_that_does_not_come_out_again_is_not_forked(done, tmp_path, monkeypatch):
    from twin.scenario import loads

    # as if the code had changed since: the scenario is read with another seed
    monkeypatch.setattr("twin.verify.loads", lambda text, *rest: loads(text, *rest, {"seed": 2}))
    with pytest.raises(RemoteFault, match="its past does not come out as recorded"):
        fork(done.path, AT_NS, {"precoder.kind": "no_ttd"}, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_forks_of_forks_and_recordings_without_scenario_are_refused(done, forked, tmp_path):
    with pytest.raises(Misuse, match="is a fork itself; fork the run that it came from"):
        fork(forked["fork"], AT_NS, {"precoder.kind": "no_ttd"})


def test_the_command_prints_the_proof_and_where_the_pages_lie(done, tmp_path, capsys, plainly):
    parser = ArgumentParser()
    arguments(parser)
    words = [str(done.path), "--at", "100ms", "--set", "precoder.kind=no_ttd", "--out", str(tmp_path / "out")]
    assert module.run(parser.parse_args(words)) == 0
    said = capsys.readouterr().out
    assert "Up to 0.1 s the fork is the original" in said
    assert "fork.html" in said
