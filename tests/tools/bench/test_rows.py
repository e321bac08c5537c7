"""The rows there are: those that are ready at once run once, agree, and notice when they would not; ``python -m tools.bench quick`` runs all."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tools.bench import __main__ as bench
from tools.bench import peers
from tools.bench.engine import paced
from tools.bench.row import Absent, Disagreement, Pace, Row, Side, Timed, measured

ONCE = Pace(turns=1, seconds=0.0)
ROWS = {row.name: row for row in bench.rows()}
LIGHT = ("engine.100", "channel.beams", "precoders.power_relaxed", "state.encode_8", "state.encode_11000")


def test_every_row_says_what_it_compares() -> None:
    names = [row.name for row in bench.rows()]
    assert len(set(names)) == len(names)
    assert set(LIGHT) <= set(names)
    for row in bench.rows():
        assert row.unit, row.name
        assert row.naive, row.name
        assert "|" not in f"{row.unit}{row.naive}{row.note}{row.floor}", row.name  # it goes into a table
    wanted = {"engine", "channel", "oddm", "sensing", "precoders", "csp_net", "dual_scale", "state", "seam", "subframe"}
    assert wanted | {"peer"} == {name.split(".")[0] for name in names}


def test_the_document_has_rows_that_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
    table = page.split("<!-- bench: begin")[1].split("<!-- bench: end -->")[0]
    shown = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert shown
    assert set(shown) <= set(ROWS)


@pytest.mark.parametrize("name", LIGHT)
def test_a_row_runs_once(name: str) -> None:
    for module in ROWS[name].needs:
        pytest.importorskip(module)
    found = measured(ROWS[name], ONCE)
    assert found["turns"] == 1
    assert 0 <= found["apart"] <= found["within"]
    assert found["ratio"]["median"] > 0
    assert (found["above_floor"] is None) is (ROWS[name].floor == "")


def spoilt(value: Any) -> Any:
    """The result with an error of a hundredth."""
    if isinstance(value, bytes):
        from hal import wire
        from twin.records import Truth

        truth = wire.decode(value, Truth)
        return wire.encode(replace(truth, position_m=1.01 * truth.position_m))
    return 1.01 * np.asarray(value)


@pytest.mark.parametrize("name", [name for name in LIGHT if name != "precoders.power_relaxed"])
def test_a_row_notices_a_wrong_result(name: str) -> None:
    for module in ROWS[name].needs:
        pytest.importorskip(module)
    ready = ROWS[name].ready

    def wrong() -> Any:
        work = ready()
        return replace(work, ours=Side(lambda: spoilt(work.ours.run()), work.ours.items))

    with pytest.raises(Disagreement):
        measured(replace(ROWS[name], ready=wrong), ONCE)


def test_pacing_counts_the_same_subframes() -> None:
    work = paced(subframes=2)
    ours, theirs = work.ours.run(), work.naive.run()
    assert isinstance(ours, Timed)
    assert ours.result == theirs.result == 2
    assert ours.seconds >= 0


# --------------------------------------------------------------------------------------------------------------- peers


def test_a_peer_that_is_not_installed_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PEERS_PYTHON", sys.executable)
    script = SimpleNamespace(DISTRIBUTION="no-such-tool", __name__="x.no_such_tool")
    with pytest.raises(Absent, match=r"not installed: no-such-tool \(pip install it, or say --peers-python\)"):
        peers.Child(script, "no_such_tool")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(peers.FOLDER / "child.py", tmp_path)
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setenv("BENCH_PEERS_PYTHON", sys.executable)
    return tmp_path


def test_a_peer_takes_a_turn_when_asked_whatever_it_prints(folder: Path) -> None:
    (folder / "tool.py").write_text(
        "DISTRIBUTION = 'numpy'\ndef ready():\n    print('hello')\n    turns = iter(range(9))\n"
        "    return lambda: (print('noise') or 0.25, {'turn': next(turns)})\n"
    )
    child = peers.Child(SimpleNamespace(DISTRIBUTION="numpy", __name__="tool"), "numpy")
    try:
        assert child.version == f"numpy {np.__version__}"
        assert [child.turn() for _ in range(3)] == [(0.25, {"turn": n}) for n in range(3)]
    finally:
        child.close()


def test_a_peer_that_does_not_come_up_is_skipped_not_awaited(folder: Path) -> None:
    (folder / "tool.py").write_text("DISTRIBUTION = 'numpy'\ndef ready():\n    import os; os._exit(134)\n")
    script = SimpleNamespace(DISTRIBUTION="numpy", __name__="tool")
    with pytest.raises(Absent, match=r"numpy is installed, but .*tool\.py did not come up"):
        peers.Child(script, "numpy")


@pytest.mark.parametrize("name", ["peer.mosaik", "peer.sionna", "peer.hermespy"])
def test_peers_in_their_own_interpreter_agree(name: str) -> None:
    module = {"peer.mosaik": "mosaik", "peer.sionna": "sionna", "peer.hermespy": "hermespy"}[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; python -m tools.bench --only {name} says more")
    row: Row = ROWS[name]
    assert measured(row, ONCE)["turns"] == 1


def test_scripts_of_peers_need_nothing_of_the_twin() -> None:
    for path in peers.FOLDER.glob("*.py"):
        if path.name != "__init__.py":
            words = path.read_text().split()
            assert not {"twin", "hal", "tools"} & {
                words[i + 1].split(".")[0] for i, w in enumerate(words[:-1]) if w in ("import", "from")
            }
