"""New scenarios: they load, run, say what each key means, and overwrite nothing."""

import argparse
import re
from pathlib import Path

import pytest

from hal.errors import Misuse
from twin import new
from twin.document import parse
from twin.scenario import load, loads

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def write(*words):
    parser = argparse.ArgumentParser(prog="twin new")
    new.arguments(parser)
    return new.run(parser.parse_args([*map(str, words)]))


@pytest.mark.slow
def test_the_short_one_runs_as_it_is(tmp_path):
    from twin.build import run

    write(tmp_path / "my.yaml")
    done = run(tmp_path / "my.yaml", {"duration_s": 0.02}, write=False)
    assert done.summary["run"]["subframes"] == 4
    assert done.user == tuple(sorted(done.user, key=list(done.user).index))
    assert set(done.user) == {"car", "bus"}
    assert done.summary["rate_gbps"] > 1


def test_the_short_one_and_the_full_one_are_the_same_scenario():
    assert loads(new.minimal("x")) == loads(new.complete("x"))


def test_the_short_one_is_short_and_commented():
    text = new.minimal("my", "my.yaml")
    lines = text.splitlines()
    assert len(lines) < 70
    assert max(map(len, lines)) <= 160
    assert "twin run my.yaml" in lines[0]
    commented = [line for line in lines if "#" in line]
    assert len(commented) > len(lines) / 2
    assert "# phase centre of both halves; east, north, up" in text  # the field's own words
    assert "or crowd, gauss_markov, linear, trace, waypoints" in text  # the kinds there are
    assert loads(text).title == "my"


def test_the_full_one_has_every_key_there_is():
    """Written out again with every default filled in, it does not grow."""
    from twin.assembly import plain

    def keys(value, at=()):
        if isinstance(value, dict):
            for key, entry in value.items():
                yield (*at, key)
                yield from keys(entry, (*at, key))
        if isinstance(value, list | tuple):
            for number, entry in enumerate(value):
                yield from keys(entry, (*at, number))

    text = new.complete("x")
    assert set(keys(parse(text).value)) == set(keys(plain(loads(text))))


def test_comments_are_the_schemas_own():
    from twin.scenario import schema

    said = schema()["$defs"]["twin.scenario.Subframe"]["properties"]["blocks"]["description"]
    assert f"blocks: 35 # {said}" in new.minimal("x")


def test_nothing_is_overwritten(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    with pytest.raises(Misuse, match="exists already, and nothing is overwritten"):
        write(file)
    assert file.read_text() == "precious"


def test_wrong_places_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(Misuse, match=r"ends in \.yaml"):
        write(tmp_path / "my.txt")
    with pytest.raises(Misuse, match="make it first"):
        write(tmp_path / "nowhere" / "my.yaml")
    with pytest.raises(Misuse, match=r"known, nearest first: street"):
        write(tmp_path / "my.yaml", "--from", "stret")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(file.stem for file in SCENARIOS.glob("*.yaml")))
def test_a_copy_is_the_same_scenario_wherever_it_lies(tmp_path, name):
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "copy.yaml"
    write(file, "--from", SCENARIOS / f"{name}.yaml")
    assert load(file) == load(SCENARIOS / f"{name}.yaml")
    before, after = ((SCENARIOS / f"{name}.yaml").read_text().splitlines(), file.read_text().splitlines())
    changed = [line for line, copy in zip(before, after, strict=True) if line != copy]
    assert all(re.search(r"\bpath:", line) for line in changed)  # comments and all else are as they were
    assert len(changed) == (1 if name == "street" else 0)


def test_a_scenario_that_does_not_load_is_not_copied(tmp_path):
    (tmp_path / "bad.yaml").write_text("sites: {bs0: {}}\nseed: -1\n")
    with pytest.raises(Misuse, match="seed"):
        write(tmp_path / "copy.yaml", "--from", tmp_path / "bad.yaml")
    assert not (tmp_path / "copy.yaml").exists()


def test_a_dash_is_standard_output(capsys):
    write("-")
    assert loads(capsys.readouterr().out).title == "scenario"
