"""The admin's desk over the wire, and its command line."""

from __future__ import annotations

import json
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.errors import Misuse, RemoteFault
from twin import admin
from twin.build import Run, run
from twin.record import read

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


class Ridden:
    """A paused run in a thread, and the admin's hand on it."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/state"
        self.out = folder / "run"
        self.run: Run | None = None
        self.thread = threading.Thread(target=self._play)
        self.thread.start()

    def _play(self) -> None:
        given = {"bus.state": self.endpoint, "sensing.fidelity": "bound", "duration_s": 50}
        self.run = run(SMOKE, given, out=self.out)

    def ask(self, verb: str, **payload: Any) -> dict[str, Any]:
        until = time.monotonic() + 60
        while True:
            try:
                return admin.ask(self.endpoint + ".control", verb, payload, 30.0)
            except RemoteFault:  # nobody listens there yet
                assert time.monotonic() < until

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 30
        while not condition(status := self.ask("status")):
            assert time.monotonic() < end, status
        return status


@pytest.fixture(scope="module")
def ridden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ridden]:
    one = Ridden(tmp_path_factory.mktemp("ridden"))
    one.ask("pause")
    yield one
    if one.thread.is_alive():
        one.ask("stop")
    one.thread.join(60)
    assert not one.thread.is_alive()


def test_paused_it_stands_and_steps_by_the_step(ridden: Ridden) -> None:
    k = ridden.until(lambda s: s["paused"])["k"]
    before = {ridden.ask("status")["t_ns"] for _ in range(5)}
    assert len(before) == 1
    ridden.ask("step", subframes=3)
    ridden.until(lambda s: s["k"] == k + 3 and s["paused"])
    assert {ridden.ask("status")["k"] for _ in range(5)} == {k + 3}


def test_what_cannot_be_is_refused_and_changes_nothing(ridden: Ridden) -> None:
    k = ridden.ask("status")["k"]
    for verb, payload, said in [
        ("step", {"subframes": 0}, "must be an integer, 1 .."),
        ("step", {"subframes": "many"}, "must be an integer"),
        ("pace", {"factor": -1}, "clock.factor"),
        ("pace", {"factor": "fast"}, "must be a number"),
        ("set", {"seed": 4}, "seed: is not live"),
        ("set", {"sites.bs0.power_dbm": 4}, "is not live"),
        ("set", {"tracker.kind": "ekf"}, "another kind is another run"),
        ("set", {"tracker.miss_limit": 0}, "tracking.miss_limit"),
        ("inject", {"kind": "gremlin"}, "kind"),
        ("inject", {"kind": "dead_element", "elements": [64]}, "the transmit half has 64 elements"),
        ("inject", {"kind": "dead_element", "at_ms": 0}, "not before the present"),
        ("selfdestruct", {}, "known here are"),
    ]:
        with pytest.raises(Misuse, match=said.replace("..", r"\.\.")):
            ridden.ask(verb, **payload)
    status = ridden.ask("status")
    assert (status["k"], status["waiting"]) == (k, [])


def test_a_fault_costs_rate_and_a_mended_machine_has_it_back(ridden: Ridden) -> None:
    k = ridden.ask("status")["k"]
    ridden.ask("step", subframes=30)
    ridden.until(lambda s: s["k"] == k + 30)
    ridden.ask("inject", kind="dead_element", half="transmit", elements=list(range(0, 64, 2)))
    ridden.ask("step", subframes=5)
    ridden.until(lambda s: s["k"] == k + 35)
    ridden.ask("mend")
    ridden.ask("step", subframes=5)
    ridden.until(lambda s: s["k"] == k + 40)
    ridden.ask("set", **{"tracker.miss_limit": "9", "record.beams_ms": "5"})
    ridden.ask("step", subframes=4)
    ridden.until(lambda s: s["k"] == k + 44)
    ridden.marks = k  # type: ignore[attr-defined]


def test_pace_holds_from_then_on(ridden: Ridden) -> None:
    status = ridden.ask("pace", factor=2.0)
    assert status["waiting"] in ([], ["paced 2"])
    status = ridden.until(lambda s: s["mode"] == "paced")
    ridden.ask("resume")
    k = ridden.until(lambda s: s["k"] > status["k"] + 2)["k"]
    began = time.monotonic()
    moved = ridden.until(lambda s: s["k"] >= k + 40)["k"] - k
    assert time.monotonic() - began >= (moved - 2) * 0.0025 * 0.9  # no faster than asked
    ridden.ask("pace", factor=0)
    ridden.until(lambda s: s["mode"] == "free")


def test_the_command_line_says_how_things_stand(ridden: Ridden, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    admin.arguments(parser)
    assert admin.run(parser.parse_args([ridden.endpoint, "pause"])) == 0
    assert "subframe " in capsys.readouterr().out
    ridden.until(lambda s: s["paused"])
    assert admin.run(parser.parse_args([ridden.endpoint, "status", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["paused"] is True
    assert admin.run(parser.parse_args([ridden.endpoint, "snapshot"])) == 0
    assert "bs0.kpi." in capsys.readouterr().out
    for words in (["set", "tracker"], ["pace"], ["pause", "now"]):
        with pytest.raises(Misuse):
            admin.run(parser.parse_args([ridden.endpoint, *words]))


def test_stopped_it_leaves_a_whole_run_that_tells_what_was_done(ridden: Ridden) -> None:
    admin.ask(ridden.endpoint + ".control", "stop", {}, 30.0)
    ridden.thread.join(60)
    assert ridden.run is not None
    assert ridden.run.interrupted
    said = [d["what"] for _, _, d in read(ridden.out / "recording.mcap", "bs0.event.")]
    assert said[0] == "paused"
    assert [what for what in said if what in ("injected", "mended", "set", "paced")] == [
        "injected", "mended", "set", "paced", "paced"
    ]  # fmt: skip
    snr_db, k = ridden.run.kpi.snr_db, ridden.marks  # type: ignore[attr-defined]
    whole, broken, mended = (np.nanmean(snr_db[k + i : k + i + 4]) for i in (26, 32, 37))
    assert whole - broken == pytest.approx(6.02, abs=1.0)  # half the elements: docs/faults.md
    assert mended == pytest.approx(whole, abs=0.7)
