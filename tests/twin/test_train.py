"""``twin train``: a file's mistakes by line, weights that a precoder takes, the same again for the same command, another array from the first."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict

import numpy as np
import pytest

from hal.errors import Misuse
from twin.compare_precoders import Setup, draw, scored
from twin.learning.cards import load, shipped
from twin.precoding.csp_net import CspNet
from twin.train import arguments, job, problem, references, run

pytest.importorskip("torch")

FILE = """
network: { kind: factored, width: 8, rounds: 1, harmonics: 2, profile: 3, power_rounds: 2 }
recipe: { columns: 4, rows: 4, delay_lines: [2, 2], subcarriers: 8, targets: [1, 3] }
training: { steps: 3, batch: 4, look: 2, validation: 8 }
"""


def given(*words):
    parser = ArgumentParser()
    arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return path


def test_a_file_of_ones_own_makes_weights_a_precoder_takes(file, tmp_path, capsys):
    assert run(given(file, "--out", tmp_path / "a", "--json")) == 0
    card = json.loads(capsys.readouterr().out)
    assert run(given(file, "--out", tmp_path / "b")) == 0
    path = tmp_path / "a" / "mine.safetensors"
    assert card == json.loads(path.with_suffix(".json").read_text())
    assert (
        card["sha256"] == json.loads((tmp_path / "b" / "mine.json").read_text())["sha256"]
    )  # the same command, the same bytes
    setup = Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=8)
    design = CspNet(weights=str(path)).design(draw(0, setup))
    assert np.isfinite(scored(draw(0, setup), design).crb)
    more = given(
        file,
        "--set",
        f"start={path}",
        "--set",
        "recipe.columns=6",
        "--set",
        "recipe.delay_lines=[3, 2]",
        "--out",
        tmp_path / "c",
    )
    assert run(more) == 0
    tuned, _ = load(str(tmp_path / "c" / "mine.safetensors"))
    assert tuned.array.startswith("6 x 4 elements, 3 x 2")
    assert tuned.training["start"] == str(path)
    with pytest.raises(Misuse, match="start"):
        run(given(file, "--set", f"start={path}", "--set", "network.width=9", "--out", tmp_path / "d"))


def test_mistakes_are_told_by_line_all_at_once(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("network: { kind: factored, widht: 8 }\ntraining: { steps: 0 }\n")
    with pytest.raises(Misuse) as said:
        job(str(path), {})
    text = str(said.value)
    assert "bad.yaml:1:" in text
    assert "width" in text
    assert "bad.yaml:2:" in text
    with pytest.raises(Misuse, match="paper"):
        job("papre", {})
    with pytest.raises(Misuse, match="--device nowhere"):
        run(given("paper", "--device", "nowhere"))


def test_every_shipped_weight_is_of_its_recipe():
    for name in shipped():
        card, _ = load(name)
        work = job(name, {})
        assert json.loads(json.dumps(asdict(work.recipe))) == dict(card.recipe)
        assert card.training["steps"] == work.training.steps
        assert card.training["seed"] == work.training.seed


def test_references_are_what_no_beam_passes():
    work = job("published_small", {"recipe.columns": "4", "recipe.rows": "4", "recipe.delay_lines": "[2, 2]"})
    batch = work.recipe.draw(1, 0, 3)
    found = references(work.recipe, batch)
    for i in range(3):
        asked = problem(work.recipe, batch, i)
        score = scored(asked, CspNet(rate_weight=1.0).design(asked))
        assert score.rate < found.rate[i]
        assert score.crb > found.crb[i] * 0.99


def test_the_published_network_learns_on_its_loss(tmp_path):
    small = {
        "network.channels": "2",
        "network.hidden": "8",
        "network.pool": "2",
        "recipe.columns": "4",
        "recipe.rows": "4",
    }
    small |= {
        "recipe.delay_lines": "[2, 2]",
        "recipe.subcarriers": "4",
        "training.scenes": "32",
        "training.validation": "8",
    }
    words = [
        w
        for key, value in (small | {"training.steps": "8", "training.look": "4"}).items()
        for w in ("--set", f"{key}={value}")
    ]
    assert run(given("published_small", *words, "--out", tmp_path / "p")) == 0
    path = tmp_path / "p" / "published_small.safetensors"
    assert load(str(path))[0].scores["gain"] > 0
    made = [
        CspNet(weights=str(path)).design(draw(0, Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=4)))
        for _ in range(2)
    ]
    np.testing.assert_array_equal(made[0].phase_rad, made[1].phase_rad)
