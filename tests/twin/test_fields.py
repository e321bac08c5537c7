"""Fields and their spelling: keys, units to the last bit, bounds, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.check import UNITS, Family, Ge, Gt, In, MinLen
from hal.errors import Misuse
from twin.fields import check, columns, convert, leaf_model, revert, written


@dataclass(frozen=True)
class Plain:
    """One of each."""

    delay_range_s: Annotated[float, In("ps"), Gt(0)] = 100e-12
    settling_ns: Annotated[int, In("us"), Ge(0)] = 1000
    power_w: Annotated[float, In("dbm")] = 1.0
    tilt_rad: Annotated[float, In("deg")] = 0.0
    rcs_m2: Annotated[float, In("m2"), In("dbsm")] = 1.0
    count: Annotated[int, Ge(1)] = 1
    gain_db: float = 0.0
    on: bool = True
    mode: Literal["free", "paced"] = "free"
    name: Annotated[str, MinLen(1)] = "x"
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    points_m: tuple[tuple[float, float], ...] = ()
    lines: tuple[int, int] | None = None
    speed: Annotated[float, Gt(0)] | None = None
    levels_w: tuple[Annotated[float, In("dbm")], ...] = ()
    leave_s: Annotated[float, Gt(0)] = math.inf
    low_m: tuple[float, float] = (-math.inf, 0.0)
    weights: dict[str, float] = field(default_factory=dict)
    path: Path | None = None
    schema: int = 0  # pydantic's own word: a parameter may be called so


def of(key: str):
    return next(column for column in columns(Plain) if key in dict(column.spelled))


def ask(key: str, value):
    return check(Plain, of(key), key, value)


def test_keys_end_in_the_file_unit():
    keys = [key for column in columns(Plain) for key, _ in column.spelled]
    assert keys[:6] == ["delay_range_ps", "settling_us", "power_dbm", "tilt_deg", "rcs_m2", "rcs_dbsm"]
    assert "gain_db" in keys
    assert of("rcs_dbsm").key == "rcs_m2"


@pytest.mark.parametrize(
    ("key", "value", "inside"),
    [
        ("delay_range_ps", 100, 100e-12),
        ("delay_range_ps", 0.1, 0.1e-12),
        ("settling_us", 17.5, 17500),
        ("settling_us", 0.1, 100),
        ("settling_us", 1e3, 1_000_000),
        ("power_dbm", 30, 1.0),
        ("tilt_deg", 180, math.pi),
        ("rcs_m2", 3, 3.0),
        ("rcs_dbsm", 10, 10.0),
        ("count", 1e3, 1000),
        ("gain_db", -3, -3.0),
        ("on", False, False),
        ("mode", "paced", "paced"),
        ("position_m", [1, 2.5, -3], (1.0, 2.5, -3.0)),
        ("points_m", [[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0))),
        ("lines", [8, 8], (8, 8)),
        ("lines", None, None),
        ("speed", None, None),
        ("levels_w", None, "complaint"),
        ("levels_dbm", [30, 0], (1.0, 1e-3)),
        ("leave_s", math.inf, math.inf),
        ("low_m", [-math.inf, 1], (-math.inf, 1.0)),
        ("weights", {"a": 1}, {"a": 1.0}),
        ("path", "x/y.csv", Path("x/y.csv")),
        ("schema", 3, 3),
    ],
)
def test_values_come_in_as_si(key, value, inside):
    if inside == "complaint":
        assert key not in [k for c in columns(Plain) for k, _ in c.spelled]
        return
    found, wrong = ask(key, value)
    assert wrong == []
    assert found == inside
    assert type(found) is type(inside)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("delay_range_ps", "100", "must be a number"),
        ("delay_range_ps", True, "must be a number"),
        ("delay_range_ps", 0, "must be > 0"),
        ("delay_range_ps", math.nan, "must be a finite number"),
        ("delay_range_ps", math.inf, "must be a finite number"),
        ("delay_range_ps", None, "must be a number"),
        ("settling_us", 0.0005, "must be a whole number of ns: 0.5 lies between 0 and 1"),
        ("settling_us", 17.5005, "must be a whole number of ns: 17500.5 lies between 17500 and 17501"),
        ("settling_us", -0.0005, "must be >= 0"),
        ("settling_us", True, "must be a number"),
        ("count", 1.5, "must be a whole number"),
        ("count", True, "must be a whole number"),
        ("count", "1", "must be a whole number"),
        ("count", 0, "must be >= 1"),
        ("gain_db", True, "must be a number"),
        ("on", 1, "must be true or false"),
        ("on", "yes", "must be true or false"),
        ("mode", "fast", "must be free or paced"),
        ("name", "", "must have at least 1 characters"),
        ("name", 3, "must be text"),
        ("position_m", [1, 2], "must have 3 entries"),
        ("position_m", [1, 2, 3, 4], "must have at most 3 entries"),
        ("position_m", "xyz", "must be a list"),
        ("position_m", 3, "must be a list"),
        ("lines", [8], "must have 2 entries"),
        ("lines", [8, 1.5], "must be a whole number"),
        ("speed", 0, "must be > 0"),
        ("leave_s", math.nan, "must be a number or an infinity"),
        ("low_m", [math.nan, 0], "must be a number or an infinity"),
        ("weights", {"a": "b"}, "must be a number"),
        ("weights", [1], "must be a mapping"),
        ("path", 3, "must be the name of a file"),
    ],
)
def test_what_is_refused_and_how_it_is_said(key, value, rule):
    found, wrong = ask(key, value)
    assert found is None
    assert [said for _, said, _ in wrong] == [rule]


def test_every_wrong_entry_of_a_list_is_pointed_at():
    _, wrong = ask("points_m", [[1, "a"], [2, 3], [True, 4]])
    assert [(place, got) for place, _, got in wrong] == [((0, 1), "'a'"), ((2, 0), "true")]


@given(st.integers(-(10**12), 10**12))
def test_microseconds_with_three_decimals_are_exact_nanoseconds(ns):
    text = f"{ns / 1000:.3f}"
    assert convert(float(text), "us", "x_ns", whole=True) == ns
    assert convert(revert(ns, "us", "x_ns"), "us", "x_ns", whole=True) == ns


@pytest.mark.parametrize("unit", [u for u in UNITS if not u.startswith("db")])
@given(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6))
def test_units_there_and_back(unit, value):
    name = f"x_{UNITS[unit][0]}"
    inside = convert(value, unit, name)
    assert inside == pytest.approx(UNITS[unit][1](value), rel=1e-15, abs=1e-300)
    assert convert(revert(inside, unit, name), unit, name) == inside


@pytest.mark.parametrize("unit", ["dbm", "dbsm"])
@given(st.integers(-2000, 800))
def test_decibels_there_and_back(unit, tenths):
    name = f"x_{UNITS[unit][0]}"
    inside = convert(tenths / 10, unit, name)
    assert revert(inside, unit, name) == tenths / 10


def test_powers_of_ten_are_exact_where_floats_are_not():
    # 3 * 1e-12 is 3.0000000000000003e-12 on some inputs; the digits as written are not.
    for value in (3, 7, 17.5, 0.3, 35):
        assert convert(value, "ps", "x_s") == float(f"{value}e-12")


def test_a_value_is_written_in_the_shortest_way_that_reads_back():
    assert written(of("delay_range_ps"), 100e-12) == 100
    assert written(of("power_dbm"), 0.2) == pytest.approx(23.0103, abs=1e-4)
    assert written(of("tilt_deg"), math.radians(33.3)) == 33.3
    assert written(of("settling_us"), 17500) == 17.5
    assert written(of("low_m"), (-math.inf, 0.0)) == (-math.inf, 0.0)
    assert written(of("path"), Path("a/b")) == "a/b"


def bad(annotation, name="x_s"):
    made = dataclass(frozen=True)(type("Bad", (), {"__annotations__": {name: annotation}, "__module__": __name__}))
    return pytest.raises(Misuse, match=f"Bad.{name}"), made


@pytest.mark.parametrize(
    ("annotation", "name", "said"),
    [
        (Annotated[float, In("parsec")], "x_m", "not a unit"),
        (Annotated[float, In("ps")], "x_m", "same quantity"),
        (Annotated[float, In("ps")], "delay", "same quantity"),
        (Annotated[int, In("deg")], "x_rad", "no power of ten"),
    ],
)
def test_a_component_that_mixes_up_units_is_told_so(annotation, name, said):
    raises, made = bad(annotation, name)
    with raises as caught:
        columns(made)
    assert said in str(caught.value)


def test_an_annotation_that_cannot_be_read_names_its_class():
    made = dataclass(frozen=True)(type("Bad", (), {"__annotations__": {"x": "NoSuchName"}, "__module__": __name__}))
    with pytest.raises(Misuse, match="Bad: its annotations cannot be read: NameError"):
        columns(made)


def test_families_and_dataclasses_are_left_to_assembly():
    @dataclass(frozen=True)
    class Holder:
        part: Annotated[object, Family("twin.mobility")]
        inner: Plain = field(default_factory=Plain)
        several: tuple[Plain, ...] = ()

    made = {column.name: column.nested for column in columns(_module_level(Holder))}
    assert made == {"part": True, "inner": True, "several": True}


def _module_level(cls):
    cls.__annotations__ = {
        "part": Annotated[object, Family("twin.mobility")],
        "inner": Plain,
        "several": tuple[Plain, ...],
    }
    return cls


def test_the_model_is_pydantics_and_forbids_what_it_does_not_know():
    model = leaf_model(Plain)
    assert model.model_config["extra"] == "forbid"
    assert leaf_model(Plain) is model
