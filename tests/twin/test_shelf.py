"""Listing: every scenario and every kind, and what is broken among them."""

import argparse
import json
import shutil
from pathlib import Path

import pytest

from hal.errors import Misuse
from twin import shelf
from twin.registry import names

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def given(*words):
    parser = argparse.ArgumentParser(prog="twin list")
    shelf.arguments(parser)
    return parser.parse_args([*words, "--dir", str(SCENARIOS)] if "--dir" not in words else [*words])


def test_families_are_the_ones_a_scenario_can_name():
    """Every package of roles with a place in the file; written out, so that a field without its Family shows."""
    assert {package: place for package, (place, _) in shelf.families().items()} == {
        "hal.devices": "sites.NAME.device",
        "twin.tracking": "sites.NAME.control.tracking",
        "twin.estimation": "sites.NAME.control.estimation",
        "twin.planning": "sites.NAME.control.planning",
        "twin.precoding": "sites.NAME.control.precoding",
        "twin.combining": "sites.NAME.control.combining",
        "twin.waveforms": "communication.link.waveform",
        "twin.sensing": "sensing.detector",
        "twin.channel": "channel",
        "twin.mobility": "users[].mobility",
    }


def test_every_scenario_and_kind_is_listed(capsys):
    assert shelf.run(given("--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name for one in told["scenarios"]] == sorted(p.name for p in SCENARIOS.glob("*.yaml"))
    street = next(one for one in told["scenarios"] if one["title"] == "street")
    assert (street["users"], street["targets"], street["seconds"]) == (5, 3, 3)  # the recording's five, not one
    assert street["about"].endswith("mast.")
    smoke = next(one for one in told["scenarios"] if one["title"] == "smoke")
    assert smoke["about"].startswith("The least that goes through every stage")  # no description: its first comment
    assert set(told["kinds"]["mobility"]) == set(names("twin.mobility"))
    assert all(line for lines in told["kinds"].values() for line in lines.values())


def test_the_list_reads(capsys):
    assert shelf.run(given()) == 0
    shown = capsys.readouterr().out
    assert "street.yaml  5 users, 3 targets, 3 s" in shown
    assert "mobility: how movers move" in shown
    assert "users[].mobility" in shown
    assert "``" not in shown


def test_one_family_alone(capsys):
    assert shelf.run(given("mobility")) == 0
    shown = capsys.readouterr().out
    assert "waypoints" in shown
    assert "glrt" not in shown
    assert "street" not in shown


def test_a_family_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(Misuse, match="plannning: there is no such family; known, nearest first: planning"):
        shelf.run(given("plannning"))


def test_a_broken_scenario_is_listed_with_what_is_wrong(tmp_path, capsys):
    shutil.copy(SCENARIOS / "smoke.yaml", tmp_path / "good.yaml")
    users = "users: [{name: a, mobility: {kind: static, position_m: [9, 0, 1]}}]"
    (tmp_path / "bad.yaml").write_text(f"title: bad\ncarrier_gzh: 100\nseed: -1\nsites: {{bs0: {{}}}}\n{users}\n")
    assert shelf.run(given("scenarios", "--dir", str(tmp_path))) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "does not load: carrier_gzh: unknown key" in shown
    assert "(and 1 more)" in shown
    assert "good.yaml 2 users, 1 target, 0.1 s" in shown


def test_an_empty_folder_says_what_to_do(tmp_path, capsys):
    assert shelf.run(given("scenarios", "--dir", str(tmp_path))) == 0
    assert "twin new my.yaml" in " ".join(capsys.readouterr().out.split())
