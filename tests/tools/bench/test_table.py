"""The table as people, documents and programs see it; and what has become worse."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from hal.errors import Misuse
from tools.bench import __main__ as bench
from tools.bench.facts import facts
from tools.bench.row import Row, Side, Timed, Work
from tools.bench.table import changes, duration, figure, markdown, text, written


def row(name: str, ours_s: float = 0.1, result: int = 0, **more: object) -> Row:
    def ready() -> Work:
        return Work(
            Side(lambda: Timed(1.0, 0), items=0.5),
            Side(lambda: Timed(ours_s, result)),
            lambda a, b: float(a != b),
            0.0,
            floor=Side(lambda: Timed(0.05, 0)),
        )

    return Row(name, "an item", "the other way", ready, floor="something", **more)  # type: ignore[arg-type]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    made = [row("one.a", target=15.0, note="a difference"), row("one.b", target=30.0), row("two", needs=("no_such",))]
    monkeypatch.setattr(bench, "rows", lambda: made)
    return made


def report(rows: list[Row]) -> dict:
    return bench.report(rows, "quick", 0.0, "")


def test_figures_are_short_and_units_fit() -> None:
    assert [figure(v) for v in (0.5641, 5.64, 56.41, 564.1, 5641.0, 56410.0)] == [
        "0.56",
        "5.6",
        "56.4",
        "564",
        "5 640",
        "56 400",
    ]
    assert [duration(v) for v in (0.57, 940.0, 3400.0, 3.4e6, 4.5e10)] == [
        "0.57 us",
        "940 us",
        "3.4 ms",
        "3.4 s",
        "12.5 h",
    ]


def test_text_says_ratio_target_floor_and_why_a_row_is_missing(three: list[Row]) -> None:
    said = text(report(three))
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith(("one.", "two"))}
    assert "2 s x" in lines["one.a"]
    assert "100 ms" in lines["one.a"]
    assert "15 met" in lines["one.a"]
    assert lines["one.a"].rstrip().endswith(" 2")  # above the floor
    assert "30 NOT MET" in lines["one.b"]
    assert lines["two"].split() == ["two", "skipped"]
    assert "two: an item; against the other way. SKIPPED: not installed: no_such" in said
    assert "floor: something, 50 ms. a difference" in said


def test_markdown_is_a_table_of_as_many_rows(three: list[Row], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin, by a command -->\nold\n<!-- bench: end -->\nafter\n")
    written(page, markdown(report(three)))
    said = page.read_text()
    assert said.startswith("before\n<!-- bench: begin, by a command -->\n\n")
    assert said.endswith("\n<!-- bench: end -->\nafter\n")
    assert "old" not in said
    cells = [line.count("|") for line in said.splitlines() if line.startswith("|")]
    assert len(cells) == 2 + 3
    assert set(cells) == {8}
    again = said
    written(page, markdown(report(three)))
    assert page.read_text().count("\n") == again.count("\n")
    page.write_text("no markers")
    with pytest.raises(Misuse, match="needs a line that starts with"):
        written(page, "x")


def test_the_json_has_what_a_later_comparison_needs(
    three: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "now.json"
    assert bench.main(["quick", "--only", "one", "--only", "two", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert [r["status"] for r in found["rows"]] == ["measured", "measured", "skipped"]
    assert set(found["rows"][0]["ratio"]) == {"q1", "median", "q3"}
    assert found["facts"]["cores"] >= 1
    assert {"python", "packages", "revision", "processor", "load"} <= set(found["facts"])
    assert bench.main(["quick", "--only", "one", "--compare", str(path), "--strict"]) == 0
    assert "one.a" in capsys.readouterr().out


def test_facts_do_not_name_the_machine() -> None:
    import platform

    said = json.dumps(facts())
    assert platform.node() not in said
    assert str(Path.home()) not in said


def test_worse_is_beyond_spread_and_beyond_a_tenth(three: list[Row]) -> None:
    before = report(three)
    now = copy.deepcopy(before)

    def spread(q1: float, median: float, q3: float) -> dict[str, float]:
        return {"q1": q1, "median": median, "q3": q3}

    a, b = now["rows"][:2]
    before["rows"][0]["ratio"], before["rows"][1]["ratio"] = spread(19, 20, 21), spread(19, 20, 21)
    for ours, worse in (
        (spread(15, 16, 17), True),
        (spread(18, 18.5, 18.9), False),
        (spread(12, 16, 20), False),
        (spread(40, 41, 42), False),
    ):
        a["ratio"] = ours
        assert next(c for c in changes(now, before) if c["name"] == "one.a")["worse"] is worse
    b["status"] = "disagrees"
    found = next(c for c in changes(now, before) if c["name"] == "one.b")
    assert found["worse"]
    assert found["now"] is None
    b["status"] = "skipped"  # a peer that is gone is no regression
    assert not next(c for c in changes(now, before) if c["name"] == "one.b")["worse"]
    assert "two" not in {c["name"] for c in changes(now, before)}


def test_strict_fails_where_a_ratio_fell(
    three: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "then.json"
    bench.main(["quick", "--only", "one", "--json", str(path)])
    monkeypatch.setattr(bench, "rows", lambda: [row("one.a", ours_s=0.2), row("one.b")])
    assert bench.main(["quick", "--only", "one", "--compare", str(path)]) == 0
    assert bench.main(["quick", "--only", "one", "--compare", str(path), "--strict"]) == 1
    said = capsys.readouterr().out
    assert "WORSE" in next(line for line in said.splitlines()[::-1] if "one.a" in line)


def test_a_row_that_disagrees_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "rows", lambda: [row("one", result=7), row("other")])
    assert bench.main(["quick", "--only", "one", "--only", "other"]) == 1
    said = capsys.readouterr().out
    assert "one: an item; against the other way. DISAGREES: one: the same result: apart by 1, must be within 0" in said
    assert any(line.startswith("other") and "20" in line for line in said.splitlines())


def test_a_row_that_breaks_costs_no_other_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Work:
        raise KeyError("gone")

    monkeypatch.setattr(bench, "rows", lambda: [Row("one", "an item", "the other way", broken), row("other")])
    assert bench.main(["quick", "--only", "one", "--only", "other"]) == 1
    said = capsys.readouterr().out
    assert "one: an item; against the other way. FAILED: KeyError: 'gone'" in said
    assert any(line.startswith("other") and "20" in line for line in said.splitlines())


def test_a_name_that_is_nobodys_is_refused(three: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["quick", "--only", "thre"])
    assert "no such row; there are stages, one.a, one.b, two" in capsys.readouterr().err


def test_quick_leaves_out_what_is_slow_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "rows", lambda: [row("fast"), row("slow", only="full")])
    assert [r.name for r in bench.chosen(None, "quick")] == ["fast"]
    assert [r.name for r in bench.chosen(None, "full")] == ["fast", "slow"]
    assert [r.name for r in bench.chosen(["slow"], "quick")] == ["slow"]
