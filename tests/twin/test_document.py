"""Text to values with places: every way a file can be wrong before anyone asks what it means."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.document import Document, Problem, ScenarioError, parse, read, shown, written


def problems(text: str, overrides=None) -> list[str]:
    document = parse(text, "f.yaml", overrides or {})
    return [str(problem) for _, problem in document.problems]


def failure(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9),
        ("1E-3", 1e-3),
        ("+5", 5),
        ("-1.", -1.0),
        ("1_000", 1000),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ("2001-01-01", "2001-01-01"),
        ("12:30", "12:30"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"a: {text}\n").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_places_are_where_a_person_would_look():
    document = parse("a: 1\nb:\n  c: [10, {d: x}]\n  # comment\n  e:   'z'\n", "f.yaml")
    assert document.spots["b", "e"] == (("f.yaml", 5, 3), ("f.yaml", 5, 8))
    assert document.spots["b", "c", 1, "d"] == (("f.yaml", 3, 12), ("f.yaml", 3, 15))
    document.complain(("b", "c", 0), "must be > 20", 10)
    document.complain(("b", "missing", "deeper"), "must be given")
    document.complain(("b", "e"), "unknown key", key=True)
    with pytest.raises(ScenarioError) as caught:
        document.verdict()
    assert str(caught.value).splitlines() == [
        "f.yaml:3:3: b.missing.deeper: must be given",
        "f.yaml:3:7: b.c.0: must be > 20 (got 10)",
        "f.yaml:5:3: b.e: unknown key",
    ]
    assert isinstance(caught.value, Misuse)
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)


def test_one_complaint_is_noted_once():
    document = parse("a: 1\n")
    for _ in range(2):
        document.complain(("a",), "must be > 2", 1)
    assert len(document.problems) == 1


def test_blame_spreads_to_holders_and_holdings_but_not_to_neighbours():
    document = parse("a: {b: 1, c: 2}\nd: 3\n")
    document.complain(("a", "b"), "wrong")
    assert document.blamed(("a",))
    assert document.blamed(("a", "b", "x"))
    assert not document.blamed(("a", "c"))
    assert not document.blamed(("d",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml:1:1: the file is empty; a scenario is a mapping of keys"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty; a scenario is a mapping of keys"),
        ("- a\n- b\n", "f.yaml:1:1: must be a mapping of keys (got a list)"),
        ("hello\n", "f.yaml:1:1: must be a mapping of keys (got 'hello')"),
        ("a: [1\nb: 2\n", "f.yaml:2:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n b: 2\n", "f.yaml:2:3: not valid YAML: mapping values are not allowed here"),
        ("\ta: 1\n", "f.yaml:1:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: *nope\n", "f.yaml:1:4: not valid YAML: found undefined alias 'nope'"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: not valid YAML: but found another document"),
    ],
)
def test_what_is_no_scenario_at_all(text, said):
    assert failure(text) == said


def test_a_control_character_is_named():
    assert failure("a: \x01\n").startswith("f.yaml: not valid YAML: ")


def test_all_duplicates_tags_and_odd_keys_are_found_at_once():
    text = "a: 1\nb: {c: 1, c: 2}\na: 3\nd: !secret x\n? [1]\n: 2\ne: !!int x\n<<: {f: 1}\ng: !thing {h: 1}\n"
    assert problems(text) == [
        "f.yaml:2:11: b.c: duplicate key; first written on line 2",
        "f.yaml:3:1: a: duplicate key; first written on line 1",
        "f.yaml:4:4: d: tags are not understood (got !secret)",
        "f.yaml:5:3: a key must be a word (got a list)",
        "f.yaml:7:4: e: is not a int (got 'x')",
        "f.yaml:8:1: <<: merge keys are YAML 1.1; write the keys out, or alias the whole value",
        "f.yaml:9:4: g: tags are not understood (got !thing)",
    ]


def test_an_alias_is_the_value_again_and_may_not_hold_itself():
    document = parse("a: &x {b: [1]}\nc: *x\n")
    assert document.value == {"a": {"b": [1]}, "c": {"b": [1]}}
    document.value["c"]["b"].append(2)
    assert document.value["a"] == {"b": [1]}
    assert "an alias that contains itself" in problems("a: &x {b: *x}\n")[0]


def test_missing_files_directories_and_foreign_text(tmp_path):
    def said(path) -> str:
        with pytest.raises(ScenarioError) as caught:
            read(path)
        return str(caught.value)

    (tmp_path / "street.yaml").write_text("a: 1\n")
    assert said(tmp_path / "stret.yaml").endswith(f"stret.yaml: no such file; did you mean {tmp_path / 'street.yaml'}?")
    assert said(tmp_path / "no" / "where.yaml").endswith("no such file")
    assert said(tmp_path).endswith("is a directory; name the scenario file in it")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    assert said(tmp_path / "latin.yaml").endswith("latin.yaml:2:7: must be UTF-8 text (got byte 0xe9)")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(tmp_path / "bom.yaml").value == {"a": 1}


def test_overrides_replace_add_and_index():
    text = "a: {b: 1, l: [{x: 1}, {x: 2}]}\nk: fast\n"
    overrides = {"a.b": "2", "a.l.1.x": "[1, 2]", "new.deep.er": 0.5, "k.gain": 3, "flag": True, "none": ""}
    document = parse(text, "f.yaml", overrides)
    assert not document.problems
    assert document.value == {
        "a": {"b": 2, "l": [{"x": 1}, {"x": [1, 2]}]},
        "k": {"kind": "fast", "gain": 3},
        "new": {"deep": {"er": 0.5}},
        "flag": True,
        "none": None,
    }


def test_what_is_wrong_with_an_override_is_said_of_it_and_not_of_a_line():
    overrides = {"a.b": "[x]", "a.b.c": "1", "l.3": "0", "l.x": "0", "..": "1", "q": "[1"}
    document = parse("a: {b: 1}\nl: [1]\n", "f.yaml", overrides)
    document.complain(("a", "b"), "must be a number", "['x']")
    assert sorted(str(problem) for _, problem in document.problems) == [
        "--set ..=1: an override is path.to.key=value",
        "--set a.b.c=1: a.b.c: a list of 1 is indexed 0 to 0 (got 'c')",
        "--set a.b=[x]: a.b: must be a number (got ['x'])",
        "--set l.3=0: l.3: a list of 1 is indexed 0 to 0 (got '3')",
        "--set l.x=0: l.x: a list of 1 is indexed 0 to 0 (got 'x')",
        "--set q=[1: q: the value is not valid YAML (got '[1')",
    ]
    below = parse("a: 1\n", "f.yaml", {"a.b": "2"})
    assert [str(p) for _, p in below.problems] == ["--set a.b=2: a.b: a is 1, which has no keys"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ({}, "a mapping"),
        ([1, "x"], "[1, 'x']"),
        ([0] * 99, "a list of 99"),
        ("y" * 99, "'" + "y" * 56 + "..."),
    ],
)
def test_values_are_shown_as_in_the_file(value, text):
    assert shown(value) == text


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" "))
)
trees = st.dictionaries(
    st.text("abc_", min_size=1),
    st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text("abcxyz", min_size=1), inner), max_leaves=12
    ),
    min_size=1,
)


@given(trees)
def test_what_is_written_is_read_again(tree):
    document = parse(written(tree))
    assert not document.problems
    assert document.value == tree


def test_a_document_without_lines_still_says_which_file():
    document = Document("f.yaml")
    document.complain((), "is odd")
    assert str(document.problems[0][1]) == "f.yaml: is odd"
