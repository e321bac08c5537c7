"""Weights and cards on disk: what was written is read, and what is not what it says is refused in words."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from hal.errors import Misuse
from twin.learning.cards import Card, load, save, shipped
from twin.learning.factored import Factored
from twin.learning.scenes import Recipe


@pytest.fixture
def kept(tmp_path):
    card = Card(
        "factored", asdict(Factored(width=4)), asdict(Recipe()), {"steps": 1}, "twin train x", {"utility_db": 1.0}
    )
    made = {"a.w": np.arange(6, dtype=np.float32).reshape(2, 3), "a.b": np.float32([1, 2])}
    path = tmp_path / "x.safetensors"
    return path, save(path, card, made), made


def test_what_was_written_is_read(kept):
    path, card, made = kept
    found, weights = load(str(path))
    assert asdict(found) == json.loads(json.dumps(asdict(card)))
    assert found.parameters == 8
    assert found.array == "16 x 16 elements, 8 x 8 delay lines, 100 GHz, 8 GHz wide"
    for name, value in made.items():
        np.testing.assert_array_equal(weights[name], value)


def test_a_changed_byte_is_noticed(kept):
    path, _, _ = kept
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Misuse, match=r"weights = .*not the file its card describes"):
        load(str(path))


@pytest.mark.parametrize("change", ["no card", "broken card", "foreign card", "cut"])
def test_half_a_pair_is_refused(kept, change):
    path, _, _ = kept
    card = path.with_suffix(".json")
    if change == "no card":
        card.unlink()
    elif change == "broken card":
        card.write_text("{")
    elif change == "foreign card":
        card.write_text(json.dumps({"size": 3}))
    else:
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(Misuse, match="card"):
        load(str(path))


def test_a_name_that_does_not_ship_lists_those_that_do():
    with pytest.raises(Misuse, match=r"weights = 'papre'.*paper"):
        load("papre")


def test_what_ships_is_whole_and_small():
    from pathlib import Path

    import twin.learning

    names = shipped()
    assert {"paper", "street"} <= set(names)
    for name in names:
        card, weights = load(name)
        assert card.command == f"twin train {name}" or card.command.startswith("twin train published_small")
        if card.network == "factored":
            assert {key: value.shape for key, value in weights.items()} == Factored(**card.shape).sizes
    folder = Path(twin.learning.__file__).parent / "weights"
    files = list(folder.iterdir())
    assert {f.suffix for f in files} == {".json", ".safetensors"}  # no pickle, nothing else
    assert sum(f.stat().st_size for f in files) <= 5e6
