"""Journal, table and statistics of a sweep."""

import json

import numpy as np
import pytest

from hal.errors import Misuse
from twin.sweep.table import Journal, half_width, mean_of, paired, read_table, write_table

pytest.importorskip("pyarrow")


def test_a_journal_cut_anywhere_loses_one_line_at_most(tmp_path):
    file = tmp_path / "rows.jsonl"
    with Journal(file) as journal:
        journal.add({"key": str(n), "value": n} for n in range(20))
    data = file.read_bytes()
    for cut in range(0, len(data), 7):
        file.write_bytes(data[:cut])
        with Journal(file) as journal:
            whole = data[:cut].count(b"\n")
            assert len(journal.rows) == whole
            journal.add([{"key": "new", "value": -1}])
        assert [json.loads(line)["value"] for line in file.read_bytes().splitlines()] == [*range(whole), -1]


def test_intervals_cover_what_they_promise():
    rng = np.random.default_rng(1)
    draws = rng.normal(3.0, 2.0, (4000, 6))
    covered = np.mean([abs(d.mean() - 3.0) <= half_width(d) for d in draws])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


def test_common_seeds_make_differences_far_better_known():
    rng = np.random.default_rng(2)
    luck = rng.normal(0, 10, 30)
    a = {s: float(luck[s] + rng.normal(0, 0.1)) for s in range(30)}
    b = {s: float(luck[s] + 1 + rng.normal(0, 0.1)) for s in range(5, 30)}
    difference = paired(a, b)
    assert difference.count == 25
    assert abs(difference.value - 1) < 3 * difference.half < 0.3
    assert mean_of(a.values()).half > 20 * difference.half


def test_what_was_not_measured_is_left_out():
    assert mean_of([None, float("nan"), 2.0, 4.0]).value == 3.0
    assert mean_of([None]).count == 0
    assert np.isnan(mean_of([None]).value)


def test_a_table_keeps_every_value(tmp_path):
    rows = [
        {
            "index": 0,
            "point": 0,
            "seed": 1,
            "v": [0, 5, 0],
            "rate_gbps": 2,
            "hash": "aa",
            "seconds": 0.1,
            "error": None,
            "key": "k",
        },
        {
            "index": 1,
            "point": 0,
            "seed": 2,
            "v": "label",
            "rate_gbps": 2.5,
            "hash": None,
            "seconds": 0.1,
            "error": "no",
            "key": "l",
        },
    ]
    write_table(tmp_path / "table.parquet", rows, ("v",))
    found, parameters = read_table(tmp_path / "table.parquet")
    assert parameters == ("v",)
    assert [(r["v"], r["rate_gbps"], r["error"]) for r in found] == [("[0, 5, 0]", 2.0, None), ("label", 2.5, "no")]


def test_what_is_no_table_is_said(tmp_path):
    with pytest.raises(Misuse, match="no such table"):
        read_table(tmp_path / "table.parquet")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(Misuse, match="not the table of a sweep"):
        read_table(tmp_path / "table.parquet")
