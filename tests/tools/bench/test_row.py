"""A row: agreement before times, turns, parts multiplied up, sides that time themselves. No test here judges a time."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from tools.bench.row import Absent, Disagreement, Pace, Row, Side, Spread, Timed, Work, apart, measured

ONCE = Pace(turns=1, seconds=0.0)


def burn(seconds: float) -> float:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return 1.0


def row(work: Work, **changes: object) -> Row:
    return replace(Row("a.row", "an item", "the other way", lambda: work, same="the sum"), **changes)


def test_ratio_is_of_turns_and_a_part_is_multiplied_up() -> None:
    work = Work(
        naive=Side(lambda: burn(0.02), items=0.1),
        ours=Side(lambda: burn(0.01), items=10),
        apart=apart,
        within=0.0,
        floor=Side(lambda: burn(0.005), items=10),
    )
    found = measured(row(work, target=150.0), Pace(turns=3, seconds=0.0))
    assert found["turns"] == 3
    assert found["extrapolated"]
    # 0.2 s an item against 1 ms: bounds are wide, since only burning itself is in question
    assert 100 < found["ratio"]["median"] < 250
    assert found["ratio"]["q1"] <= found["ratio"]["median"] <= found["ratio"]["q3"]
    assert found["met"] is (found["ratio"]["median"] >= 150)
    assert 1 < found["above_floor"]["median"] < 4


def test_results_that_differ_are_never_timed() -> None:
    closed = []
    calls = {"naive": 0, "ours": 0}

    def side(name: str, value: float) -> Side:
        def run() -> float:
            calls[name] += 1
            return value

        return Side(run)

    work = Work(side("naive", 1.0), side("ours", 1.1), apart, 1e-3, close=lambda: closed.append(True))
    with pytest.raises(Disagreement, match=r"a\.row: the sum: apart by 0\.1, must be within 0\.001"):
        measured(row(work), ONCE)
    assert calls == {"naive": 1, "ours": 1}
    assert closed == [True]


@pytest.mark.parametrize("ours", [np.nan, np.array([1.0, 2.0])])
def test_what_cannot_be_compared_does_not_agree(ours: object) -> None:
    with pytest.raises(Disagreement):
        measured(row(Work(Side(lambda: 1.0), Side(lambda: ours), apart, 1e9)), ONCE)


def test_a_side_may_time_itself() -> None:
    turns = iter(range(100))

    def theirs() -> Timed:
        return Timed(1.0 + next(turns), "done")

    work = Work(Side(theirs), Side(lambda: Timed(0.5, "done")), lambda a, b: float(a != b), 0.0)
    found = measured(row(work), Pace(turns=3, seconds=0.0))
    # the first call was for the result; turns after it took 2, 3 and 4 s
    assert found["naive_us"]["median"] == pytest.approx(3e6)
    assert found["ratio"]["median"] == pytest.approx(6)
    assert next(turns) == 4


def test_turns_end_with_time_and_with_their_number() -> None:
    calls = []
    work = Work(Side(lambda: Timed(1.0, 0)), Side(lambda: calls.append(0) or Timed(1.0, 0)), lambda a, b: 0.0, 0.0)
    assert measured(row(work), Pace(turns=2, seconds=60.0, most=7))["turns"] == 7
    assert len(calls) == 8


def test_what_is_missing_is_said_before_anything_is_made_ready() -> None:
    def never() -> Work:
        raise AssertionError

    with pytest.raises(Absent, match="not installed: no_such_module"):
        measured(Row("a", "b", "c", never, needs=("numpy", "no_such_module")), ONCE)


def test_spread_is_quartiles() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
