"""Verdicts on data-block echoes come from the CSV alone: numbers that say otherwise flip them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tools.reproduce.squint_data_echoes import HEAD, WEIGHTS, verdict

NAN = float("nan")


def sheet(path, over=1.0, away=10.0, dark=False, follows=True, gain=0.5, spread=0.02):
    """Errors ``over`` times their bounds; bounds that rise with the weight, and errors that ``follow`` or do not."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(HEAD)

        def play(part, x, bound, over, rate=NAN, designed=NAN, combined=NAN):
            for trial in range(300):
                for what in ("uy", "uz", "range_m"):
                    table.writerow(
                        (part, x, trial, 1, what, over * bound * rng.normal(), bound, rate, designed, combined)
                    )

        play("power", 10.0, 1e-2, 1.0)
        play("power", 30.0, 1e-3, over)
        play("together", 0.0, 1e-3, over)
        play("away", 0.35, 1e-3 * away, 1.0)
        if dark:
            play("dark", 0.0, NAN, NAN)
            table.writerow(("dark", 0.0, 0, 1, "uy", 1e-3, NAN, NAN, NAN, NAN))
        for i, weight in enumerate(WEIGHTS):
            bound = 1e-3 * 1.2**i
            play("weight", weight, bound, 1.0 if follows else 1.6**-i, 10.0 + i, bound**2 / 3, bound**2 / 2)
        for seed in range(8):
            off = 0.3 * np.exp(spread * rng.normal())
            table.writerow(("loop", 0, seed, "all", "position_m", off, 0.9, NAN, NAN, NAN))
            table.writerow(
                ("loop", 1, seed, "all", "position_m", gain * off * np.exp(spread * rng.normal()), 1.0, NAN, NAN, NAN)
            )
    return path


def verdicts(path):
    return [one["verdict"] == "holds" for one in verdict(path)]


def test_a_sheet_that_says_so_holds(tmp_path):
    assert all(verdicts(sheet(tmp_path / "a.csv")))
    assert len(verdicts(tmp_path / "a.csv")) == 8


@pytest.mark.parametrize(
    ("changes", "flipped"),
    [
        ({"over": 1.3}, {0, 1, 2}),
        ({"over": 0.7}, {0, 1, 2}),
        ({"away": 1.0}, {3}),
        ({"dark": True}, {4}),
        ({"follows": False}, {6}),
        ({"gain": 1.1}, {7}),
        ({"gain": 0.95, "spread": 0.5}, {7}),
    ],
)
def test_numbers_that_say_otherwise_flip_it(tmp_path, changes, flipped):
    found = verdicts(sheet(tmp_path / "b.csv", **changes))
    assert {i for i, holds in enumerate(found) if not holds} == flipped
