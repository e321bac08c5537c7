"""Differences of runs: what differs is told, what does not is not, and chance is not taken for either."""

import argparse
import csv
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.build import run as play
from twin.diff import arguments, diff, flattened, plot, run, table
from twin.paired import figures_of, interval, valued

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The same scenario three times: as it is (twice), with another seed, and with a tenth of the power."""
    folder = tmp_path_factory.mktemp("diff")
    for name, changes in (("plain", {}), ("again", {}), ("seed", {"seed": 9}), ("weak", {"sites.bs0.power_dbm": 20})):
        play(SMOKE, {"sensing.fidelity": "bound", "duration_s": 0.4, **changes}, out=folder / name)
    return folder


def column(folder, name):
    with (folder / "kpi.csv").open(encoding="utf-8") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


# --------------------------------------------------------------------------------------------------------- with real runs


def test_equal_runs_are_equal_in_everything(runs):
    found = diff(runs / "plain", runs / "again")
    assert found["scenario"] == {}
    assert found["hash"]["equal"] is True
    assert found["first"] is None
    assert {f["verdict"] for f in found["figures"].values()} == {"equal"}
    assert all(f["difference"] == f["low"] == f["high"] == 0 for f in found["figures"].values())
    assert found["subframes"] == {"a": 80, "b": 80, "compared": 80}
    text = table(found)
    assert "the same run" in text
    assert "the same in all 80 subframes" in text


def test_another_seed_changes_the_hash_but_no_rate(runs):
    found = diff(runs / "plain", runs / "seed")
    assert found["scenario"] == {"seed": [1, 9]}
    assert found["hash"]["equal"] is False
    assert found["first"]["k"] == 0
    rate = found["figures"]["rate, Gbit/s: all users"]
    assert rate["verdict"] == "no difference"
    assert rate["low"] <= 0 <= rate["high"]
    wrong = [name for name, f in found["figures"].items() if f["verdict"] in ("higher", "lower")]
    assert len(wrong) <= 1, wrong  # chance alone: one at most, once in twenty comparisons
    assert "no difference" in table(found)


def test_less_power_is_found_with_its_size(runs):
    found = diff(runs / "plain", runs / "weak")
    assert found["scenario"] == {"sites.bs0.power_dbm": [30, 20]}
    rate = found["figures"]["rate, Gbit/s: all users"]
    both = [
        sum(column(runs / name, f"rate_bps.{user}") for user in ("near", "far")).mean() * 1e-9
        for name in ("plain", "weak")
    ]
    assert [rate["a"], rate["b"]] == pytest.approx(both)
    assert rate["difference"] == pytest.approx(both[1] - both[0])
    assert rate["verdict"] == "lower"
    assert rate["low"] < rate["difference"] < rate["high"] < 0
    snr = found["figures"]["SNR, dB: near"]
    assert snr["verdict"] == "lower"
    assert snr["difference"] == pytest.approx(-10, abs=0.5)  # a tenth of the power
    first = found["first"]
    a, b = (column(runs / name, first["columns"][0]) for name in ("plain", "weak"))
    np.testing.assert_array_equal(a[: first["k"]], b[: first["k"]])
    assert a[first["k"]] != b[first["k"]]
    assert first["t_s"] == pytest.approx(first["k"] * 5e-3)
    assert "sites.bs0.power_dbm" in table(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_swapping_the_runs_turns_the_signs(runs):
    there, back = diff(runs / "plain", runs / "weak")["figures"], diff(runs / "weak", runs / "plain")["figures"]
    opposite = {"lower": "higher", "higher": "lower"}
    assert there.keys() == back.keys()
    for name, f in there.items():
        assert back[name]["difference"] == pytest.approx(-f["difference"])
        assert back[name]["verdict"] == opposite.get(f["verdict"], f["verdict"])


def test_runs_of_different_length_are_compared_as_far_as_both_go(runs, tmp_path):
    short = play(SMOKE, {"sensing.fidelity": "bound", "duration_s": 0.1}, out=tmp_path / "short").path
    found = diff(runs / "plain", short)
    assert found["subframes"] == {"a": 80, "b": 20, "compared": 20}
    assert found["scenario"] == {"duration_s": [0.4, 0.1]}
    assert found["first"] is None  # what has not yet happened cannot differ
    assert any("80 and 20 subframes" in note for note in found["notes"])


def test_other_users_and_other_periods_are_noted(runs, tmp_path):
    text = (runs / "plain" / "scenario.yaml").read_text(encoding="utf-8")
    (tmp_path / "other.yaml").write_text(text.replace("name: far", "name: farther"), encoding="utf-8")
    other = play(tmp_path / "other.yaml", {"duration_s": 0.05}, out=tmp_path / "other").path
    found = diff(runs / "plain", other)
    assert any(note.endswith("has far.") for note in found["notes"])
    assert any(note.endswith("has farther.") for note in found["notes"])
    assert "rate, Gbit/s: near" in found["figures"]
    assert "rate, Gbit/s: far" not in found["figures"]
    assert ["users.far.rcs_m2" in found["scenario"], "users.farther.rcs_m2" in found["scenario"]] == [True, True]
    slow = play(
        SMOKE, {"sensing.fidelity": "bound", "duration_s": 0.05, "subframe.period_ms": 10}, out=tmp_path / "slow"
    ).path
    found = diff(runs / "plain", slow)
    assert found["subframes"]["compared"] == 1  # both have a subframe at t = 0
    assert any("not at the same times" in note for note in found["notes"])


def test_pages_and_pictures_are_drawn(runs, tmp_path):
    found = diff(runs / "plain", runs / "weak")
    page = plot(found, tmp_path / "diff.html").read_text(encoding="utf-8")
    root = ElementTree.fromstring(page.partition("\n")[2])
    cells = [[cell.text for cell in row] for row in root.findall(".//tr")]
    assert ["sites.bs0.power_dbm", "30", "20"] in cells
    assert any(row[0] == "rate, Gbit/s: all users" and row[-1] == "lower" for row in cells)
    assert root.find(".//figure") is not None
    assert not any("http" in value for element in root.iter() for value in element.attrib.values())
    assert plot(found, tmp_path / "diff.png").read_bytes().startswith(b"\x89PNG")
    same = diff(runs / "plain", runs / "again")
    assert "the same in all 80" in plot(same, tmp_path / "same.html").read_text(encoding="utf-8")


def test_the_command_prints_a_table_or_json_and_refuses_other_endings(runs, capsys, tmp_path):
    parser = argparse.ArgumentParser()
    arguments(parser)
    both = [str(runs / "plain"), str(runs / "weak")]
    assert run(parser.parse_args([*both, "--json", "--out", str(tmp_path / "d.html")])) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["hash"]["equal"] is False
    assert "d.html" in said.err
    assert run(parser.parse_args(both)) == 0
    assert "Run hashes differ." in capsys.readouterr().out
    with pytest.raises(Misuse, match=r"must end in \.html, \.png or \.svg"):
        run(parser.parse_args([*both, "--out", "d.pdf"]))


# ---------------------------------------------------------------------------------------------------- what can be missing


def test_a_cut_table_is_compared_up_to_the_cut(runs, tmp_path):
    shutil.copytree(runs / "plain", tmp_path / "cut")
    data = (tmp_path / "cut" / "kpi.csv").read_bytes()
    lines = data.splitlines(keepends=True)
    (tmp_path / "cut" / "kpi.csv").write_bytes(b"".join(lines[:41]) + lines[41][:-3])
    (tmp_path / "cut" / "summary.json").unlink()
    found = diff(tmp_path / "cut", runs / "plain")
    assert found["subframes"]["compared"] == 40
    assert found["first"] is None
    assert found["hash"]["equal"] is None
    assert any("summary.json is missing" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "kpi.csv").unlink(), "has no kpi.csv"),
        (lambda folder: (folder / "kpi.csv").write_text(""), "is empty or not a table of key figures"),
        (lambda folder: (folder / "scenario.yaml").unlink(), "is not a run directory"),
        (lambda folder: shutil.rmtree(folder), "is not a directory"),
    ],
)
def test_what_is_no_run_is_refused_in_a_sentence(runs, tmp_path, spoil, said):
    shutil.copytree(runs / "plain", tmp_path / "bad")
    spoil(tmp_path / "bad")
    with pytest.raises(Misuse, match=said):
        diff(runs / "plain", tmp_path / "bad")


# ------------------------------------------------------------------------------------------------------------ the pieces


def test_flattened_keys_go_by_name_and_tell_null_from_absent():
    value = {
        "a": {"b": [1, 2], "c": None},
        "users": [{"name": "x", "m": 1}, {"name": "y", "m": float("inf")}],
        "faults": [{"kind": "p"}],
    }
    assert flattened(value) == {
        "a.b": [1, 2],
        "a.c": "null",
        "users.x.name": "x",
        "users.x.m": 1,
        "users.y.name": "y",
        "users.y.m": "inf",
        "faults.0.kind": "p",
    }


def test_key_figures_of_a_row_by_hand():
    columns = [
        "k",
        "t_ns",
        "rate_bps.a.1",
        "rate_bps.b",
        "error.uy.b",
        "error.uz.b",
        "error.range_m.b",
        "bound.uy.b",
        "bound.uz.b",
        "bound.range_m.b",
    ]
    figures = figures_of(columns)
    row = np.array([[0, 0, 1e9, np.nan, 3e-3, 4e-3, 0.02, 1e-3, 2e-3, 0.01], [0, 0, 2e9, 3e9, *[np.nan] * 3, 1, 1, 1]])
    found = {figure.name: value for figure, value in zip(figures, valued(figures, row).T, strict=True)}
    np.testing.assert_allclose(found["rate, Gbit/s: all users"], [1.0, 5.0])
    np.testing.assert_allclose(found["rate, Gbit/s: a.1"], [1.0, 2.0])
    np.testing.assert_allclose(found["rate, Gbit/s: b"], [np.nan, 3.0])
    np.testing.assert_allclose(found["angle error, mdeg²: b"], [(180e3 / np.pi * 5e-3) ** 2, np.nan])
    np.testing.assert_allclose(found["range error, mm²: b"], [400.0, np.nan])
    np.testing.assert_allclose(found["angle error² / bound²: all movers"], [(9 + 4) / 2, np.nan])
    np.testing.assert_allclose(found["range error² / bound²: all movers"], [4.0, np.nan])
    assert [figure.name.rpartition(" ")[2] for figure in figures[:3]] == ["users", "movers", "movers"]


def moving(rng, n, memory):
    """A stationary sequence of unit innovations that remembers: x' = memory x + e."""
    e = rng.standard_normal((n, 400))
    x = np.empty_like(e)
    x[0] = e[0] / np.sqrt(1 - memory**2)
    for i in range(1, n):
        x[i] = memory * x[i - 1] + e[i]
    return x


@pytest.mark.parametrize(("n", "memory"), [(100, 0.0), (600, 0.0), (600, 0.8), (1900, 0.9)])
def test_intervals_cover_the_truth_as_often_as_they_say(n, memory):
    sequences = moving(np.random.default_rng(3), n, memory)
    hits = [abs(x.mean()) <= interval(x, np.ones(n), 0.95) for x in sequences.T]
    assert 0.90 < np.mean(hits) < 0.985
    naive = 1.96 * sequences.std(axis=0, ddof=1) / np.sqrt(n)  # what forgets the memory
    if memory > 0.5:
        assert np.mean(abs(sequences.mean(axis=0)) <= naive) < 0.75


def test_an_interval_is_refused_where_nothing_can_be_told():
    assert interval(np.ones(11), np.ones(11), 0.95) is None
    assert interval(np.full(100, np.nan), np.zeros(100), 0.95) is None
    few = np.zeros(100)
    few[:10] = 1
    assert interval(np.where(few > 0, 1.0, np.nan), few, 0.95) is None
    assert interval(np.full(100, 2.0), np.ones(100), 0.95) == 0


@settings(max_examples=40)
@given(st.lists(st.floats(-10, 10), min_size=24, max_size=80), st.floats(0.1, 100), st.floats(-50, 50))
def test_an_interval_scales_with_its_values_and_does_not_move_with_them(values, scale, offset):
    x, ones = np.array(values), np.ones(len(values))
    plain = interval(x, ones, 0.9)
    assert plain is not None
    # a correlation at its very threshold may fall to either side when rounding moves it, so the level's effect is compared instead
    assert interval(x, ones, 0.99) >= plain
    if np.ptp(x) > 1e-3:
        assert interval(scale * x, ones, 0.9) == pytest.approx(scale * plain, rel=1e-6)
