"""A short run of the file fuzzer; ``python -m tools.fuzz_files`` is the long one."""

from __future__ import annotations

import time

import pytest

from hal.errors import Misuse
from tools import fuzz_files
from tools.fuzz_files import KINDS, Kind, campaign


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "count", "least_taken"), [("trace", 1200, 50), ("recording", 80, 15), ("weights", 400, 5)]
)
def test_mutated_files_are_taken_or_refused_in_words(name: str, count: int, least_taken: int) -> None:
    found = campaign(name, count, seed=3)
    assert found.broken == []
    assert found.cases == count == found.taken + sum(found.said.values())
    assert found.taken >= least_taken  # mutations are not so wild that only the first line is ever read
    assert found.grown_mb < 400


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutated_scenarios_are_taken_or_refused_in_words() -> None:
    found = campaign("scenario", 30, seed=3)
    assert found.broken == []
    assert found.said["ScenarioError"] > 15
    assert found.grown_mb < 400


def test_what_breaks_a_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hoard: list[bytes] = []

    def read(path) -> object:  # takes what is right and fails on everything else, each time in another way
        data = path.read_bytes()
        if data == b"a 1\n":
            return data
        which = len(data) % 5
        if which == 0:
            raise KeyError("a")
        if which == 1:
            raise Misuse("")
        if which == 2:
            while True:
                time.sleep(0)
        if which == 3:
            hoard.append(b"x" * 50_000_000)
        raise Misuse(f"{path}:1: must be a word and a number")

    fake = Kind(lambda: [("a.txt", b"a 1\n")], lambda: [(f"{k}.txt", b"x" * k) for k in range(1, 6)], read, True)
    monkeypatch.setitem(KINDS, "scenario", fake)
    found = campaign("scenario", 5, limit_s=0.2)
    assert found.taken == 0
    assert sorted(happened.partition(":")[0] for _, happened in found.broken) == [
        "HangError",
        "KeyError",
        "says too little",
    ]
    assert found.grown_mb > 40


def test_the_same_seed_gives_the_same_cases() -> None:
    import random

    kind = fuzz_files.KINDS["trace"]
    one, two, other = (list(fuzz_files.cases(kind, 60, random.Random(seed))) for seed in (1, 1, 2))
    assert one == two
    assert one[20:] != other[20:]
