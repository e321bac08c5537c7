"""``twin compare plans``: rows that hang together, a table, CSV, JSON, figures, and refusals."""

import argparse
import csv
import json

import numpy as np
import pytest

from hal.errors import Misuse
from twin import compare_plans
from twin.compare_plans import AXES, Row, compare, drawing


def parsed(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    compare_plans.arguments(parser)
    return parser.parse_args(given)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return compare(tuple(AXES), ("bound",), drops=2)


def test_no_plan_beats_the_optimum_of_its_metric(rows):
    for row in rows:
        assert row.gain <= 1e-9 or row.plan == "kalman"
        assert row.rate > 0
    assert {row.axis for row in rows} == set(AXES)
    for value in AXES["accuracy"][1]:
        assert {row.plan for row in rows if (row.axis, row.value) == ("accuracy", value)} == {
            "optimal",
            "ssu",
            "fsu",
            "rba",
            "kalman",
        }


def test_the_trade_offs_point_where_they_should(rows):
    def curve(axis, plan, what):
        return np.array(
            [getattr(r, what) for r in sorted(rows, key=lambda r: r.value) if (r.axis, r.plan) == (axis, plan)]
        )

    assert np.all(np.diff(curve("accuracy", "optimal", "rate")) > 0)
    assert np.all(np.diff(curve("accuracy", "optimal", "sensing_blocks")) < 0)
    assert np.all(np.diff(curve("speed", "optimal", "updates")) > 0)
    held = curve("updates", "held", "rate")
    assert 0 < np.argmax(held) < len(held) - 1
    assert np.all(np.diff(curve("sensing", "held", "rate")) < 0)


def test_drawn_channels_favour_adaptive():
    found = {row.plan: row for row in compare(("spread",), ("ergodic",), drops=1, draws=40) if row.value == 1}
    assert found["adaptive"].gain > 0.3
    assert found["paper"].gain == 0


def test_what_it_writes(tmp_path, capsys):
    assert (
        compare_plans.run(parsed("--axis", "updates", "--metric", "bound", "--drops", "1", "--out", str(tmp_path))) == 0
    )
    printed = capsys.readouterr().out
    assert "updates a subframe" in printed
    assert "optimal" in printed
    with (tmp_path / "plans.csv").open() as stream:
        assert {row["plan"] for row in csv.DictReader(stream)} == {"optimal", "held"}
    assert "<svg" in (tmp_path / "plans_updates.svg").read_text()
    assert compare_plans.run(parsed("--axis", "updates", "--metric", "bound", "--drops", "1", "--json")) == 0
    assert {row["axis"] for row in json.loads(capsys.readouterr().out)} == {"updates"}


def test_a_requirement_out_of_reach_leaves_a_plan_out_and_not_a_nearest_one():
    rows = compare(("accuracy",), ("bound",), drops=1, echo_snr=0.05)
    assert {row.value for row in rows} < set(AXES["accuracy"][1])


def test_figures_have_a_curve_a_plan(rows):
    figure = drawing(rows, "accuracy")
    assert len(figure.axes[0].lines) == 5


def test_bad_input_is_named():
    with pytest.raises(Misuse, match="axis = 'colour'"):
        compare(("colour",))
    with pytest.raises(Misuse, match="--drops 0"):
        compare_plans.run(parsed("--drops", "0"))
