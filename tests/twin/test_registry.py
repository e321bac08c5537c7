"""Families on disk and by entry point: what is found, what is refused, and whether the refusal names the culprit."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from dataclasses import is_dataclass

import pytest

from hal.errors import Misuse
from twin import registry

GOOD = '''
from dataclasses import dataclass
__all__ = ["{name}", "other"]
class other: ...
@dataclass(frozen=True)
class {name}:
    """{doc}

    More.
    """
    gain: float = 1.0
'''


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A package of its own with three kinds and a private module, and no entry points."""
    name = f"family_{tmp_path.name.replace('-', '_')}"
    home = tmp_path / name
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "near_field.py").write_text(GOOD.format(name="NearField", doc="Spherical waves."))
    (home / "far_field.py").write_text(GOOD.format(name="FarField", doc="Plane waves."))
    (home / "_tables.py").write_text("raise RuntimeError('private modules are not kinds')")
    monkeypatch.syspath_prepend(tmp_path)
    points: list[importlib.metadata.EntryPoint] = []
    monkeypatch.setattr(registry, "_declared", registry._declared.__wrapped__)  # what is installed changes here
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: tuple(p for p in points if p.group == group))
    yield name, home, points
    for loaded in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[loaded]


def point(package: str, name: str, value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name=name, value=value, group=f"isac_twin.{package.rpartition('.')[2]}")


def test_modules_are_kinds_and_the_first_public_name_is_the_component(family):
    package, _, _ = family
    assert registry.names(package) == ("far_field", "near_field")
    found = registry.kinds(package)
    assert {kind: cls.__name__ for kind, cls in found.items()} == {"far_field": "FarField", "near_field": "NearField"}
    assert registry.kind_of(package, found["near_field"]()) == "near_field"
    assert registry.make(package, "near_field").gain == 1.0
    assert registry.describe(package) == (("far_field", "Plane waves."), ("near_field", "Spherical waves."))


def test_a_sorted_all_still_finds_the_class_that_spells_the_module(family):
    package, home, _ = family
    source = (
        GOOD.format(name="PhaseOnly", doc="Phases.").replace('["PhaseOnly", "other"]', '["Beams", "PhaseOnly"]')
        + "class Beams: ..."
    )
    (home / "phase_only.py").write_text(source)
    assert registry.resolve(package, "phase_only").__name__ == "PhaseOnly"


def test_names_import_nothing_and_resolve_imports_only_what_is_asked_for(family):
    package, home, _ = family
    (home / "exploding.py").write_text("raise RuntimeError('boom')")
    assert "exploding" in registry.names(package)
    registry.resolve(package, "far_field")
    assert f"{package}.near_field" not in sys.modules
    assert f"{package}.exploding" not in sys.modules


def test_adding_a_file_is_enough(family):
    package, home, _ = family
    (home / "ray_tube.py").write_text(GOOD.format(name="RayTube", doc="Tubes."))
    assert registry.resolve(package, "ray_tube").__name__ == "RayTube"


@pytest.mark.parametrize(
    ("kind", "first"), [("near_feild", "near_field"), ("farfield", "far_field"), ("FAR", "far_field")]
)
def test_an_unknown_kind_lists_the_known_ones_nearest_first(family, kind, first):
    package, _, _ = family
    with pytest.raises(Misuse, match=f"'{kind}' is not one of .*nearest first: {first}, .*pkg.mod:Class"):
        registry.resolve(package, kind)


def test_pkg_mod_class(family, tmp_path):
    package, _, _ = family
    (tmp_path / f"{package}_outside.py").write_text(GOOD.format(name="Mine", doc="Mine."))
    cls = registry.resolve(package, f"{package}_outside:Mine")
    assert cls.__name__ == "Mine"
    assert registry.kind_of(package, cls()) == f"{package}_outside:Mine"
    with pytest.raises(Misuse, match="has no 'Mien'; its classes: Mine"):
        registry.resolve(package, f"{package}_outside:Mien")
    with pytest.raises(Misuse, match=r"'nowhere:X' .*cannot be loaded: ModuleNotFoundError.*nowhere"):
        registry.resolve(package, "nowhere:X")
    with pytest.raises(Misuse, match="a component is a frozen dataclass"):
        registry.resolve(package, f"{package}_outside:other")


def test_entry_points_are_kinds(family, tmp_path):
    package, _, points = family
    (tmp_path / f"{package}_plug.py").write_text(GOOD.format(name="Plug", doc="From elsewhere."))
    points.append(point(package, "plug", f"{package}_plug:Plug"))
    points.append(point("another", "hidden", f"{package}_plug:Plug"))
    assert registry.names(package) == ("far_field", "near_field", "plug")
    plug = registry.resolve(package, "plug")
    assert plug.__name__ == "Plug"
    assert registry.kind_of(package, plug()) == "plug"
    assert ("plug", "From elsewhere.") in registry.describe(package)


def test_a_broken_plug_in_is_named_and_hides_no_other(family, tmp_path):
    package, _, points = family
    (tmp_path / f"{package}_bad.py").write_text("import no_such_thing")
    points.append(point(package, "bad", f"{package}_bad:Bad"))
    with pytest.raises(Misuse, match=r"kind 'bad' .*cannot be loaded: ModuleNotFoundError: .*no_such_thing"):
        registry.kinds(package)
    assert registry.resolve(package, "far_field").__name__ == "FarField"
    lines = dict(registry.describe(package))
    assert lines["far_field"] == "Plane waves."
    assert lines["bad"].startswith("broken: kind 'bad'")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1 +", "SyntaxError"),
        ("", "no __all__"),
        ("__all__ = ['Gone']", "has no 'Gone'"),
        ("__all__ = ['f']\ndef f(): ...", "a component is a frozen dataclass"),
        ("raise KeyError('k')", "KeyError"),
    ],
)
def test_a_broken_module_says_what_is_wrong_with_it(family, source, said):
    package, home, _ = family
    (home / "broken.py").write_text(textwrap.dedent(source))
    with pytest.raises(Misuse, match=said) as caught:
        registry.resolve(package, "broken")
    assert "'broken'" in str(caught.value)


def test_one_name_from_two_places_is_refused_not_guessed(family):
    package, _, points = family
    points.append(point(package, "far_field", "elsewhere:FarField"))
    with pytest.raises(Misuse, match=r"'far_field' is a module .* and an entry point \(elsewhere:FarField\)"):
        registry.resolve(package, "far_field")
    points[:] = [point(package, "twice", "one:A"), point(package, "twice", "two:A")]
    with pytest.raises(Misuse, match="offered by one:A, two:A"):
        registry.resolve(package, "twice")


def test_nearest_is_a_total_order():
    assert registry.nearest("abc", ["xyz", "abd", "zyx"]) == ["abd", "xyz", "zyx"]


@pytest.mark.parametrize(
    "package",
    [
        "twin.mobility",
        "twin.channel",
        "twin.waveforms",
        "twin.sensing",
        "twin.tracking",
        "twin.estimation",
        "twin.planning",
        "twin.precoding",
        "twin.combining",
        "hal.devices",
    ],
)
def test_every_shipped_family_is_whole(package):
    found = registry.kinds(package)
    assert found, f"{package} has no components"
    for kind, cls in found.items():
        assert is_dataclass(cls)
        assert cls.__dataclass_params__.frozen, f"{package}.{kind} must be frozen"
        assert registry.kind_of(package, cls) == kind
    for kind, line in registry.describe(package):
        assert line, f"{package}.{kind} needs a docstring"
        assert not line.startswith("broken")
