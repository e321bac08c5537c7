"""The gathering command: every figure found, judged from its CSV, and written down as judged."""

import json
import sys

import pytest

from tools.reproduce import __main__ as gathering


def test_every_file_makes_judges_and_says_what_it_is():
    found = gathering.names()
    assert {"squint.fig4a", "squint.table3", "dual.fig3", "dual.proposition2"} <= set(found)
    for name in found:
        made = gathering.module(name)
        assert made.__doc__
        assert callable(made.make)
        assert callable(made.verdict)


def test_short_names_and_wrong_ones():
    assert gathering.module("dual.prop2").__name__ == "tools.reproduce.dual_proposition2"
    with pytest.raises(SystemExit, match=r"squint\.fig4e: there is no such figure; nearest: squint\.fig4"):
        gathering.module("squint.fig4e")


def test_one_figure_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gathering, "FOLDER", tmp_path)
    monkeypatch.setattr(gathering, "DOCUMENT", tmp_path / "no.md")
    monkeypatch.setattr(sys, "argv", ["reproduce", "--only", "dual.loops", "--json"])
    assert gathering.main() == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert [c["verdict"] for c in one["claims"]] == ["holds", "holds", "fails"]
    assert not (tmp_path / "no.md").exists()  # the document is of all figures together
    csv = tmp_path / "dual_loops.csv"
    head, *rows = csv.read_text().splitlines()
    csv.write_text("\n".join([head, *(f"{row[: row.rindex(chr(44))]},1e6" for row in rows)]))
    assert gathering.judged("dual.loops", quick=True, keep=True)["claims"] != one["claims"]


def test_the_document_says_what_was_judged():
    claims = [
        {"claim": "a | b", "verdict": "holds", "gain": 0.5},
        {"claim": "c", "verdict": "holds with other reading", "reading": "without own term"},
    ]
    found = [{"name": "dual.fig3", "about": "figure 3", "claims": claims}]
    text = gathering.document(found, "quick")
    assert "| a \\| b | holds | gain 0.5 |  |" in text
    assert "| c | holds with other reading |  | without own term |" in text
    assert "2 claims: 1 holds, 1 holds with other reading, 0 fails" in text
