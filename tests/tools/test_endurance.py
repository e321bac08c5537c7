"""A short endurance run, and verdicts that an imitation would not give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.endurance import COLUMNS, growth, verdict


def test_growth_is_of_the_ends_after_warming_up() -> None:
    assert growth([100.0 * k for k in range(10)] + [1000.0] * 90) == 0.0  # all of it while warming up
    assert growth(np.linspace(1.0, 1.0, 50).tolist()) == 0.0
    leaking = (100 + np.arange(1000) / 100).tolist()
    assert growth(leaking) == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize(
    ("column", "change", "good"),
    [
        ("resident_mb", lambda k: 100 + k / 40, False),
        ("descriptors", lambda k: 8 + (k > 300), False),
        ("wall_s", float, True),
    ],
)
def test_a_leak_of_anything_is_no_good(column: str, change, good: bool) -> None:
    table = {name: [8.0] * 400 for name in COLUMNS}
    table[column] = [change(k) for k in range(400)]
    assert verdict(table)["good"] is good


@pytest.mark.slow
def test_two_runs_of_a_moment_are_equal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--light", "--simulated", "3", "--out", out, "--json")
    done = subprocess.run(
        [sys.executable, "-m", "tools.endurance", *words], capture_output=True, text=True, timeout=250
    )
    found = json.loads(done.stdout)
    assert found["equal"], found
    assert len(found["runs"][0]["hash"]) == 16
    assert (out / "endurance.png").stat().st_size > 10_000
    assert len((out / "run1" / "samples.csv").read_text().splitlines()) == 61
