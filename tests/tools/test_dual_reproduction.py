"""Verdicts on papers/004 come from the CSV and nothing else: what it says, they say, and a changed CSV changes them."""

import csv

import pytest

from tools.reproduce import dual_closed_loop, dual_fig4, dual_loops, dual_proposition2, dual_proposition3


def judged(module, path):
    return {claim["claim"]: claim["verdict"] for claim in module.verdict(path)}


def changed(path, column, rule):
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row[column] = rule(row)
    with path.open("w", newline="") as stream:
        out = csv.DictWriter(stream, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dual")


def test_proposition_2(folder):
    path = folder / "prop2.csv"
    dual_proposition2.make(path, quick=True)
    assert [*judged(dual_proposition2, path).values()] == ["holds", "fails", "fails", "holds"]
    changed(path, "equal", lambda row: float(row["best"]) * (0.9 if row["law"] == "geometric" else 1))
    assert [*judged(dual_proposition2, path).values()] == ["fails", "holds", "holds", "holds"]


def test_proposition_3(folder):
    path = folder / "prop3.csv"
    dual_proposition3.make(path, quick=True)
    assert [*judged(dual_proposition3, path).values()] == ["holds", "fails", "fails", "fails"]
    changed(path, "largest_second", lambda row: 1e-3 if row["own_term"] == "1" else -1)
    assert [*judged(dual_proposition3, path).values()][:2] == ["fails", "holds"]


def test_loops(folder):
    path = folder / "loops.csv"
    dual_loops.make(path, quick=True)
    assert [*judged(dual_loops, path).values()] == ["holds", "holds", "fails"]
    changed(path, "rate", lambda row: float(row["rate"]) * (1 - 1e-6))
    assert [*judged(dual_loops, path).values()][1] == "fails"


def test_figure_4(folder):
    path = folder / "fig4.csv"
    dual_fig4.make(path, quick=True)
    assert [*judged(dual_fig4, path).values()] == ["holds", "fails", "holds", "holds"]
    changed(path, "rate", lambda row: 10 - abs(float(row["updates"]) - 7) - (row["gamma"] == "0.05"))
    assert [*judged(dual_fig4, path).values()] == ["holds"] * 4
    changed(path, "rate", lambda row: float(row["updates"]))
    assert next(iter(judged(dual_fig4, path).values())) == "fails"


def test_closed_loop(folder):
    """A made-up CSV: the verdicts are the CSV's, whatever a run would say."""
    path = folder / "loop.csv"

    def write(held, followed_updates, stale):
        with path.open("w", newline="") as stream:
            out = csv.writer(stream)
            out.writerow(dual_closed_loop.COLUMNS)
            for name in ("follows", "held", "held, notices", "constant speed"):
                for step in range(100):
                    t, fast = step / 100, step >= 50 and name != "constant speed"
                    speed = 5 + 28 * min(max(t - 0.4, 0) / 0.1, 1) * (name != "constant speed")
                    updates = followed_updates if fast and name != "held" else 5
                    rate = 4 if fast and name == "held" else 5
                    planned = held if name == "held" else 5.1
                    noticed = int(stale and name == "held, notices" and 42 <= step < 50)
                    out.writerow([name, t, speed, speed, updates, 1, noticed, 1 + noticed, rate, planned, 1.2, 5])

    write(held=5.1, followed_updates=12, stale=True)
    assert set(judged(dual_closed_loop, path).values()) == {"holds"}
    write(held=4.1, followed_updates=5, stale=False)
    assert [*judged(dual_closed_loop, path).values()] == ["fails", "holds", "holds", "fails", "holds", "holds", "fails"]
