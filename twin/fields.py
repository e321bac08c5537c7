"""A dataclass field as a scenario file spells it: its key and unit, its check, and its value there and back."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import BaseMetadata, GroupedMetadata
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    create_model,
)

from hal.check import UNITS, Family, In, unit_of
from hal.errors import Misuse
from twin.document import LARGEST_INT, Place, shown
from twin.registry import make, nearest

__all__ = [
    "Column",
    "arms",
    "check",
    "columns",
    "convert",
    "leaf_model",
    "peel",
    "revert",
    "written",
]


@dataclass(frozen=True)
class Column:
    """One field of a component as a file writes it."""

    name: str  # of the field
    spelled: tuple[tuple[str, str | None], ...]  # (key, file unit): the one written first, then others also accepted
    required: bool
    type: Any  # as annotated; of the field-level metadata only a Family is left
    rules: tuple[Any, ...]  # the rest of that metadata, less units
    nested: bool  # holds components, which are built one by one
    usual: Callable[[], Any] | None  # makes the default; of a plain component, what a mapping leaves out is as in it
    kind: str | None  # the family member that the default is: what a mapping without a kind is about
    endless: bool  # an infinity is a value here: its own default holds one ("never leaves")

    @property
    def key(self) -> str:
        """The key this field is written under."""
        return self.spelled[0][0]


@cache
def columns(cls: type) -> tuple[Column, ...]:
    """The fields of a dataclass that a file may set.

    Raises:
        Misuse: an annotation cannot be read, or a unit does not fit the field's name.
    """
    who = f"{cls.__module__}.{cls.__qualname__}"
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise Misuse(f"{who}: its annotations cannot be read: {type(error).__name__}: {error}") from error
    found = []
    for entry in fields(cls):
        if not entry.init:
            continue
        bare, metadata = peel(hints[entry.name])
        notes = [*metadata, *(note for inner in _inside(bare) for note in peel(inner)[1])]
        units = [note.unit for note in notes if isinstance(note, In)]
        for unit in units:
            _scale(f"{who}.{entry.name}", unit, entry.name, int in {peel(kind)[0] for kind in (bare, *_inside(bare))})
        suffix = unit_of(entry.name)
        stem = entry.name[: -len(suffix)] if suffix else ""
        family = next((note for note in metadata if isinstance(note, Family)), None)
        found.append(
            Column(
                name=entry.name,
                spelled=tuple((stem + unit, unit) for unit in units) or ((entry.name, None),),
                required=entry.default is MISSING and entry.default_factory is MISSING,
                type=bare if family is None else Annotated[bare, family],
                rules=tuple(note for note in metadata if not isinstance(note, In | Family)),
                nested=family is not None or any(_component(kind) for kind in (bare, *_inside(bare))),
                usual=None if entry.default_factory is MISSING else entry.default_factory,
                kind=_default_kind(entry.default_factory),
                endless=math.inf in _numbers(entry.default),
            )
        )
    return tuple(found)


@cache
def leaf_model(cls: type) -> type[BaseModel]:
    """The pydantic model of a dataclass under its keys in a file; nested components are left as they are."""
    table: dict[str, Any] = {}
    for column in columns(cls):
        for key, unit in column.spelled:
            kind = Any if column.nested else _strict(column.type, unit, column.endless, column.rules)
            # The attribute gets a prefix because a parameter may be called what BaseModel calls its own.
            table[f"f_{key}"] = (kind, Field(default=None, alias=key))
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
    return create_model(cls.__name__, __config__=config, **table)


def check(cls: type, column: Column, key: str, value: Any) -> tuple[Any, list[tuple[Place, str, str]]]:
    """The value of a plain field in its SI form, and what is wrong with it: (place within it, rule, what was found)."""
    try:
        checked = getattr(leaf_model(cls)(**{key: value}), f"f_{key}")
    except ValidationError as error:
        return None, _problems(error, column, value)
    unit = dict(column.spelled)[key]
    if unit is None:
        return checked, []
    try:
        return _each(checked, lambda number: convert(number, unit, column.name, _is_int(column))), []
    except Misuse as error:
        return None, [((), str(error), shown(value))]


def written(column: Column, value: Any) -> Any:
    """A plain field's value as a file would say it: the inverse of ``check``."""
    unit = column.spelled[0][1]
    if isinstance(value, Path):
        return str(value)
    # float() and int(): a NumPy number may be a default, and is none to YAML
    return _each(value, lambda number: _bare(number) if unit is None else revert(_bare(number), unit, column.name))


def convert(value: float, unit: str, name: str, whole: bool = False) -> Any:
    """A number in file units in the unit that ``name`` ends in.

    Powers of ten move the decimal point of the digits as written, so that 100 ps is ``100e-12`` to the last bit, and
    17.5 us is 17500 ns exactly.

    Raises:
        Misuse: ``whole`` is asked for and the result is not an integer; both its neighbours are named.
    """
    scale = _scale(name, unit, name, whole)
    if not isinstance(scale, Decimal):
        try:
            return float(scale(float(value)))
        except OverflowError:
            raise Misuse("is too large a number for any quantity") from None
    exact = Decimal(repr(value)) * scale
    if not whole:
        return float(exact)
    low = int(exact.to_integral_value(ROUND_FLOOR))
    if exact != low:
        suffix = unit_of(name)
        raise Misuse(f"must be a whole number of {suffix}: {exact.normalize():f} lies between {low} and {low + 1}")
    if not -LARGEST_INT <= low < LARGEST_INT:
        raise Misuse("is too large a number for any quantity")
    return low


def revert(value: float, unit: str, name: str) -> float | int:
    """The shortest number whose ``convert`` is ``value``: what a file would say."""
    scale = _scale(name, unit, name, False)
    if isinstance(scale, Decimal):
        guess = float(Decimal(repr(value)) / scale)
    elif unit.startswith("db"):
        guess = 10 * math.log10(value / scale(0.0))
    else:
        guess = (value - scale(0.0)) / (scale(1.0) - scale(0.0))
    candidates = [float(f"{guess:.{digits}g}") for digits in range(1, 18)]
    up = down = guess
    for _ in range(8):
        up, down = math.nextafter(up, math.inf), math.nextafter(down, -math.inf)
        candidates += [up, down]
    best = next((number for number in candidates if convert(number, unit, name) == value), guess)
    return int(best) if best.is_integer() and abs(best) < 2**53 else best


def peel(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its ``Annotated`` shell, and the metadata of the shell."""
    if get_origin(kind) is not Annotated:
        return kind, ()
    bare, *metadata = get_args(kind)
    return bare, tuple(one for note in metadata for one in ([*note] if isinstance(note, GroupedMetadata) else [note]))


def arms(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    bare = peel(kind)[0]
    return get_args(bare) if get_origin(bare) in (Union, types.UnionType) else (bare,)


def _inside(kind: Any) -> Iterator[Any]:
    bare = peel(kind)[0]
    for inner in () if get_origin(bare) is Literal else get_args(bare):
        if inner is not Ellipsis:
            yield inner
            yield from _inside(inner)


def _component(kind: Any) -> bool:
    bare, metadata = peel(kind)
    return any(isinstance(note, Family) for note in metadata) or (isinstance(bare, type) and is_dataclass(bare))


def _is_int(column: Column) -> bool:
    return int in {peel(kind)[0] for kind in (column.type, *_inside(column.type))}


def _strict(kind: Any, unit: str | None, endless: bool, rules: tuple[Any, ...] = ()) -> Any:
    """``kind`` for pydantic: no coercion, lists for tuples, bounds on the numbers inside and not on their container."""
    bare, metadata = peel(kind)
    rules = (*rules, *(note for note in metadata if not isinstance(note, In)))
    sizes = tuple(note for note in rules if hasattr(note, "min_length") or hasattr(note, "max_length"))
    bounds = tuple(note for note in rules if isinstance(note, BaseMetadata) and note not in sizes)
    origin, inner = get_origin(bare), get_args(bare)
    made: Any = bare
    if origin in (Union, types.UnionType):
        made = Union[tuple(arm if arm is type(None) else _strict(arm, unit, endless, bounds) for arm in inner)]  # noqa: UP007
    elif origin is tuple:
        entries = tuple(arg if arg is Ellipsis else _strict(arg, unit, endless, bounds) for arg in inner)
        made = Annotated[tuple[entries], Strict(False)]  # type: ignore[valid-type]
    elif origin is list:
        made = list[_strict(inner[0], unit, endless, bounds)]  # type: ignore[misc]
    elif origin is dict:
        made = dict[str, _strict(inner[1], unit, endless, bounds)]  # type: ignore[misc]
    elif bare is Path:
        made = Annotated[Path, Strict(False)]
    elif bare is int:  # in another unit it is whole only after conversion
        made = _bounded(int if unit is None else _number(endless), bounds)
        made = Annotated[made, BeforeValidator(_whole)] if unit is None else made
    elif bare is float:
        made = _bounded(_number(endless), bounds)
    else:
        made = _bounded(bare, bounds)
    return _bounded(made, sizes)


def _number(endless: bool) -> Any:
    return Annotated[float, AfterValidator(_not_nan)] if endless else Annotated[float, AllowInfNan(False)]


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("must be a number or an infinity")
    return value


def _default_kind(factory: Any) -> str | None:
    return str(factory.args[1]) if isinstance(factory, partial) and factory.func is make else None


def _numbers(value: Any) -> set[float]:
    """The magnitudes in a default, at any depth."""
    if isinstance(value, tuple | list):
        return {number for entry in value for number in _numbers(entry)}
    return {abs(value)} if isinstance(value, int | float) else set()


def _bounded(kind: Any, rules: tuple[Any, ...]) -> Any:
    return Annotated[(kind, *rules)] if rules else kind


def _whole(value: Any) -> Any:
    # 1e3 is a float to YAML and a whole number to its writer; nothing is lost in taking it.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_INT else value


def _bare(number: float) -> float | int:
    return int(number) if isinstance(number, int) else float(number)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_each(entry, change) for entry in value)
    if isinstance(value, list):
        return [_each(entry, change) for entry in value]
    if isinstance(value, dict):
        return {key: _each(entry, change) for key, entry in value.items()}
    return change(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@cache
def _scale(who: str, unit: str, name: str, whole: bool) -> Decimal | Callable[[float], float]:
    """What turns ``unit`` into the unit ``name`` ends in: a power of ten, or a function."""
    suffix = unit_of(name)
    if unit not in UNITS:
        raise Misuse(f"{who}: In({unit!r}) is not a unit; known, nearest first: {', '.join(nearest(unit, UNITS))}")
    if suffix is None or UNITS[suffix][0] != UNITS[unit][0]:
        raise Misuse(f"{who}: In({unit!r}) needs a name that ends in a unit of the same quantity ({UNITS[unit][0]!r})")
    change, target = UNITS[unit][1], UNITS[suffix][1]
    if change(0.0) == 0 and target(0.0) == 0:
        factor, divisor = (Decimal(repr(float(step(1.0)))).normalize() for step in (change, target))
        if factor.as_tuple().digits == divisor.as_tuple().digits == (1,):
            return factor / divisor
    if whole or suffix != UNITS[suffix][0]:
        raise Misuse(
            f"{who}: In({unit!r}) and {suffix!r} are no power of ten apart; use a float ending in {UNITS[unit][0]!r}"
        )
    return change  # type: ignore[no-any-return]


def _problems(error: ValidationError, column: Column, value: Any) -> list[tuple[Place, str, str]]:
    found = error.errors(include_url=False)
    if len([arm for arm in arms(column.type) if arm is not type(None)]) > 1:
        # Every type of a choice complains; to the reader that is one problem.
        return [((), " or ".join(dict.fromkeys(_rule(entry) for entry in found)), shown(value))]
    problems = []
    lacking = [entry["loc"][-1] for entry in found if entry["type"] == "missing"]
    for entry in found:
        at: Place = ()
        inner = value
        for step in entry["loc"][1:]:
            try:
                inner = inner[step]
            except (IndexError, KeyError, TypeError):  # what is said to be missing is said of its holder
                break
            at = (*at, step)
        rule = (
            f"must have {max(int(step) for step in lacking) + 1} entries"
            if entry["type"] == "missing"
            else _rule(entry)
        )
        problems.append((at, rule, shown(inner)))
    return problems


_BOUNDS = {"greater_than": "gt >", "greater_than_equal": "ge >=", "less_than": "lt <", "less_than_equal": "le <="}
_RULES = {
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "path_type": "must be the name of a file",
}


def _rule(entry: Any) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind].split()
        return f"must be {sign} {context[name]:g}"
    if kind.endswith(("too_short", "too_long")):
        few = kind.endswith("too_short")
        things = "characters" if kind.startswith("string") else "entries"
        return f"must have at {'least' if few else 'most'} {context['min_length' if few else 'max_length']} {things}"
    if kind == "literal_error":
        return "must be " + str(context["expected"]).replace("'", "")
    if kind == "value_error":
        return str(context["error"])
    return str(_RULES.get(kind, entry["msg"][:1].lower() + entry["msg"][1:]))
