"""A run from the inside: the notebook's door, the run directory, and nothing left open."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

import twin
from hal.errors import Misuse
from twin.build import run, run_folder
from twin.scenario import load

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "scenarios" / "smoke.yaml"


def test_the_notebooks_door() -> None:
    done = twin.run(SMOKE, {"duration_s": 0.05}, write=False)
    assert done.path is None
    assert done.kpi.rate_bps.shape == (10, 2)
    assert set(done.user) == {"near", "far"}
    assert done.kpi.error.shape == (10, 3, 4)
    assert done.entity[int(np.argmax(done.kpi.entity[0]))] in {"near", "far", "van"}


def test_run_folders_count_up_and_skip_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_folder("a", None).name == "a-001"
    (tmp_path / "runs" / "a-007").mkdir()
    assert run_folder("a", None).name == "a-008"
    assert run_folder("b", None).name == "b-001"
    with pytest.raises(Misuse, match="never overwrites"):
        run_folder("a", tmp_path / "runs" / "a-007")


def test_runs_leave_nothing_open() -> None:
    run(SMOKE, {"duration_s": 0.02}, write=False)
    before = psutil.Process().num_fds()
    for _ in range(3):
        run(SMOKE, {"duration_s": 0.02, "bus.state": "tcp://127.0.0.1:0"}, write=False)
    assert psutil.Process().num_fds() <= before


def test_a_run_works_outside_the_main_thread() -> None:
    got: list[str] = []
    worker = threading.Thread(
        target=lambda: got.append(run(SMOKE, {"duration_s": 0.02}, write=False).summary["run"]["hash"])
    )
    worker.start()
    worker.join()
    assert got == [run(SMOKE, {"duration_s": 0.02}, write=False).summary["run"]["hash"]]


@pytest.mark.parametrize("name", ["street", "smoke", "paper000", "paper001", "paper004"])
def test_every_shipped_scenario_runs(name: str) -> None:
    file = ROOT / "scenarios" / f"{name}.yaml"
    period_s = load(file).subframe.period_ns * 1e-9
    done = run(file, {"duration_s": 4 * period_s}, write=False)
    assert done.summary["run"]["subframes"] == 4


def test_pace_does_not_change_what_is_simulated() -> None:
    free = run(SMOKE, {"duration_s": 0.03}, write=False)
    paced = run(SMOKE, {"duration_s": 0.03, "clock": {"mode": "paced", "factor": 0.5, "overrun": "hold"}}, write=False)
    assert paced.summary["run"]["hash"] == free.summary["run"]["hash"]
    assert paced.summary["clock"]["mode"] == "paced"
