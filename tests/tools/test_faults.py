"""One try of faults that stand for their kind; ``python -m tools.faults`` has them all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools import faults
from twin.build import run
from twin.record import Row


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return faults.left_in_peace(tmp_path_factory.mktemp("peace") / "run")


@pytest.mark.parametrize(
    "name",
    [
        "kill_twin",
        "full_disk",
        "port_taken",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("kill_controller", "kill_device", "stepping_clock", "stop_twin", "cut_device")
        ),
    ],
)
def test_a_fault_is_survived(name: str, reference: list[Row]) -> None:
    survived, told = faults.once(name, 7, reference)
    assert survived, told


def test_a_process_that_lives_on_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def orphaned(scene: faults.Scene) -> str:
        scene.start("sh", "-c", "sleep 100 >&- 2>&- & echo done").wait()
        return "fine"

    monkeypatch.setitem(faults.FAULTS, "kill_twin", orphaned)
    survived, told = faults.once("kill_twin", 1, [])
    assert not survived
    assert "live on" in told


def test_wrong_records_are_noticed(tmp_path: Path, reference: list[Row]) -> None:
    other = {"sensing.fidelity": "bound", "duration_s": 0.05, "seed": 2}
    run(faults.SMOKE, other, out=tmp_path / "run", keep=False)
    scene = faults.Scene(tmp_path, random.Random(1), reference)
    with pytest.raises(faults.LostError, match="records are wrong"):
        scene.recorded()


def test_the_page_has_a_place_for_the_table() -> None:
    page = faults.PAGE.read_text(encoding="utf-8")
    assert page.count(faults.BEGIN) == 1
    assert page.index(faults.END) > page.index(faults.BEGIN)
    for fault in faults.FAULTS.values():
        assert str(fault.__doc__).rstrip(".") in page
