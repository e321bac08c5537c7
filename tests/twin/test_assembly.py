"""Trees of components: everything wrong at once, each at its line, and the way back."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest

from hal.check import Family, Gt, In, MinLen
from hal.errors import Misuse
from twin.assembly import build, plain, word
from twin.document import ScenarioError, parse, written


@dataclass(frozen=True)
class Disc:
    """A round one."""

    radius_m: Annotated[float, In("m"), Gt(0)] = 1.0


@dataclass(frozen=True)
class Box:
    """A square one."""

    width_m: Annotated[float, Gt(0)] = 1.0
    height_m: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if not self.height_m <= self.width_m:
            raise Misuse(f"height_m = {self.height_m:g}: must be <= width_m = {self.width_m:g}")


@dataclass(frozen=True)
class Part:
    """A part of the tree."""

    shape: Disc | Box = field(default_factory=Disc)
    spare: Disc | None = None
    file: Path | None = None


@dataclass(frozen=True)
class Tree:
    """The top."""

    law: Annotated[Any, Family("assembly_family")]
    parts: dict[str, Part] = field(default_factory=dict)
    laws: tuple[Annotated[Any, Family("assembly_family")], ...] = ()
    crew: Annotated[tuple[Part, ...], MinLen(1)] = (Part(),)
    gain: float = 1.0


@pytest.fixture(autouse=True)
def family(tmp_path, monkeypatch):
    home = tmp_path / "assembly_family"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "slow.py").write_text(
        "from dataclasses import dataclass\nfrom typing import Annotated\nfrom hal.check import Gt, In\n"
        "__all__ = ['Slow']\n@dataclass(frozen=True)\nclass Slow:\n"
        "    '''Slow.'''\n    speed_mps: Annotated[float, In('kmh'), Gt(0)]\n    turns: int = 1\n"
    )
    (home / "still.py").write_text(
        "from dataclasses import dataclass\n__all__ = ['Still']\n@dataclass(frozen=True)\nclass Still:\n    '''Still.'''\n"
    )
    (home / "broken.py").write_text("import no_such_thing_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    yield home
    for name in [name for name in sys.modules if name.startswith("assembly_family")]:
        del sys.modules[name]


def grow(text: str, name: str = "f.yaml") -> Tree:
    document = parse(text, name)
    tree = build(Tree, document.value, (), document)
    document.verdict()
    return tree


def wrong(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        grow(text)
    return str(caught.value).splitlines()


def test_a_tree_and_back():
    tree = grow(
        "law: {kind: slow, speed_kmh: 36}\nparts: {a: {shape: {kind: box, width_m: 2}}, b: {shape: disc, spare: {}}}\n"
        "laws: [still, {kind: slow, speed_kmh: 90, turns: 2}]\ncrew: [{}, {spare: null}]\n"
    )
    assert tree.law.speed_mps == pytest.approx(10)
    assert tree.parts["a"].shape == Box(2.0)
    assert tree.parts["b"] == Part(spare=Disc())
    assert [type(law).__name__ for law in tree.laws] == ["Still", "Slow"]
    assert tree.crew == (Part(), Part())
    text = written(plain(tree))
    assert grow(text, "again.yaml") == tree
    assert "speed_kmh: 36" in text
    assert written(plain(grow(text))) == text


def test_files_are_named_from_where_the_scenario_is():
    tree = grow("law: still\nparts: {a: {file: traces/x.csv}, b: {file: /x.csv}}\n", "somewhere/deep/f.yaml")
    assert tree.parts["a"].file == Path("somewhere/deep/traces/x.csv").resolve()
    assert tree.parts["b"].file == Path("/x.csv")


def test_everything_wrong_is_said_at_once_each_at_its_line():
    assert wrong(
        "law: {kind: slwo}\n"
        "parts:\n"
        "  a:\n"
        "    shape: {kind: bix}\n"
        "    spare: {radius_m: 0, radius: 3}\n"
        "  b: {shape: {kind: box, height_m: 2}}\n"
        "  c: 3\n"
        "laws: [slow, {kind: broken}, {turns: 1}, 3]\n"
        "crew: []\n"
        "gain: fast\n"
        "grian: 2\n"
    ) == [
        "f.yaml:1:13: law.kind: kind 'slwo' is not one of assembly_family's: known, nearest first: slow, still, broken; or write pkg.mod:Class",
        "f.yaml:4:19: parts.a.shape.kind: must name a kind: box or disc (got 'bix')",
        "f.yaml:5:23: parts.a.spare.radius_m: must be > 0 (got 0)",
        "f.yaml:5:26: parts.a.spare.radius: unknown key; did you mean 'radius_m'? known: radius_m",
        "f.yaml:6:14: parts.b.shape: height_m = 2: must be <= width_m = 1",
        "f.yaml:7:6: parts.c: must be a mapping of its parameters (got 3)",
        "f.yaml:8:8: laws.0.speed_kmh: must be given",
        "f.yaml:8:21: laws.1.kind: kind 'broken' of assembly_family cannot be loaded: ModuleNotFoundError: No module named 'no_such_thing_at_all'",
        "f.yaml:8:30: laws.2: must name a kind: broken, slow, still (got no kind)",
        "f.yaml:8:42: laws.3: must name a kind: broken, slow, still (got 3)",
        "f.yaml:9:7: crew: must have at least 1 entries (got 0)",
        "f.yaml:10:7: gain: must be a number (got 'fast')",
        "f.yaml:11:1: grian: unknown key; did you mean 'gain'? known: law, parts, laws, crew, gain",
    ]


def test_an_unknown_key_gets_its_nearest_name():
    assert wrong("law: still\npart: {}\n") == [
        "f.yaml:2:1: part: unknown key; did you mean 'parts'? known: law, parts, laws, crew, gain"
    ]
    assert wrong("law: {kind: still, speed: 3}\n") == ["f.yaml:1:20: law.speed: unknown key; it takes no parameters"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gain: 1\n", "f.yaml:1:1: law: must be given"),
        ("law: null\n", "f.yaml:1:6: law: must name a kind: broken, slow, still (got nothing)"),
        ("law: still\nparts: []\n", "f.yaml:2:8: parts: must be a mapping of names (got [])"),
        ("law: still\ncrew: {}\n", "f.yaml:2:7: crew: must be a list (got a mapping)"),
        (
            "law: still\ncrew: [{shape: null}]\n",
            "f.yaml:2:16: crew.0.shape: must name a kind: disc or box (got nothing)",
        ),
        ("law: still\ncrew: [{spare: 3}]\n", "f.yaml:2:16: crew.0.spare: must be a mapping of its parameters (got 3)"),
    ],
)
def test_the_wrong_sort_of_thing(text, said):
    assert wrong(text) == [said]


def test_a_kind_from_anywhere(tmp_path):
    (tmp_path / "assembly_family_outside.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n    '''Mine.'''\n    x: float = 1.0\n"
    )
    tree = grow("law: {kind: 'assembly_family_outside:Mine', x: 2}\n")
    assert tree.law.x == 2.0
    assert grow(written(plain(tree))) == tree


def test_infinities_come_and_go_where_a_default_holds_one():
    @dataclass(frozen=True)
    class Stay:
        leave_s: float = math.inf
        until_s: float = 1.0

    Stay.__annotations__ = {"leave_s": float, "until_s": float}
    document = parse("{leave_s: .inf, until_s: .inf}", "f.yaml")
    build(Stay, document.value, (), document)
    assert [str(problem) for _, problem in document.problems] == [
        "f.yaml:1:26: until_s: must be a finite number (got inf)"
    ]
    assert plain(Stay()) == {"leave_s": math.inf, "until_s": 1.0}
    assert parse(written(plain(Stay()))).value == {"leave_s": math.inf, "until_s": 1.0}


def test_a_closed_choice_is_named_by_its_class():
    assert word(Disc) == "disc"
