"""Plain file values to a tree of components, noting all that is wrong on the way, and the tree back to file values."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from hal.check import Family
from hal.errors import Misuse
from twin.document import Document, Place, shown
from twin.fields import arms, check, columns, peel, written
from twin.registry import kind_of, names, nearest, resolve

__all__ = ["build", "gather", "plain", "word"]


def build(cls: type, value: Any, place: Place, document: Document, usual: Any = None) -> Any:
    """The component that the mapping ``value`` describes; None, and complaints in the document, if it does not.

    What it leaves out is as in ``usual``, if given, or else has the class's own default. Everything wrong at and below
    ``place`` is noted, not only the first.
    """
    before = len(document.problems)
    given = gather(cls, value, place, document, usual is not None)
    if len(document.problems) > before:
        return None
    try:
        return cls(**given) if usual is None else replace(usual, **given)
    except (ValueError, TypeError) as error:  # a component's own rule about its parameters together
        document.complain(place, str(error).replace("\n", "; "))
        return None


def gather(cls: type, value: Any, place: Place, document: Document, optional: bool = False) -> dict[str, Any]:
    """The arguments of ``cls`` that ``value`` gives, converted; a field that is wrong is None, and complained about.

    A required field that is not there is complained about too, unless all are ``optional``.
    """
    if not isinstance(value, dict):
        document.complain(place, "must be a mapping of its parameters", shown(value))
        return {}
    table = columns(cls)
    keys = [key for column in table for key, _ in column.spelled]
    for key in value:
        if key not in keys:
            hint = f"did you mean {nearest(key, keys)[0]!r}? " if keys else ""
            known = f"known: {', '.join(keys)}" if keys else "it takes no parameters"
            document.complain((*place, key), f"unknown key; {hint}{known}", key=True)
    given: dict[str, Any] = {}
    for column in table:
        said = [key for key, _ in column.spelled if key in value]
        if not said:
            if column.required and not optional:
                document.complain((*place, column.key), f"must be given{_or(column.spelled[1:])}")
            continue
        if len(said) > 1:
            document.complain((*place, said[1]), f"is {said[0]} in another unit; write one of them", key=True)
            continue
        at = (*place, said[0])
        if column.nested:
            inside = value[said[0]]
            if column.kind is not None and isinstance(inside, dict):  # of the default's kind unless it says otherwise
                inside = {"kind": column.kind, **inside}
            usual = column.usual() if column.usual is not None and is_dataclass(column.type) else None
            given[column.name] = _nested(column.type, inside, at, document, usual)
            _enough(column.rules, given[column.name], at, document)
            continue
        given[column.name], wrong = check(cls, column, said[0], value[said[0]])
        for inner, rule, got in wrong:
            document.complain((*at, *inner), rule, got)
        if isinstance(given[column.name], Path):  # a file is named from where the scenario is
            given[column.name] = (Path(document.name).parent / given[column.name]).resolve()
    return given


def plain(component: Any) -> dict[str, Any]:
    """The mapping a file would hold: defaults filled in, in file units; ``build`` of it is an equal component."""
    cls: type = type(component)
    said = ((column, getattr(component, column.name)) for column in columns(cls))
    return {c.key: _plain(c.type, value) if c.nested else written(c, value) for c, value in said}


def word(cls: type) -> str:
    """What names a class of a closed choice in a file: ``Upa`` is ``upa``."""
    return cls.__name__.lower()


def _nested(kind: Any, value: Any, place: Place, document: Document, usual: Any = None) -> Any:
    bare, metadata = peel(kind)
    family = next((note for note in metadata if isinstance(note, Family)), None)
    choice = arms(bare)
    if value is None and type(None) in choice:
        return None
    if family is not None:
        return _of_family(family.package, value, place, document)
    some = [arm for arm in choice if arm is not type(None)]
    if len(some) > 1:
        return _of_choice(some, value, place, document)
    bare = peel(some[0])[0]
    if len(choice) > 1:
        return _nested(some[0], value, place, document)
    if isinstance(bare, type) and is_dataclass(bare):
        return build(bare, value, place, document, usual)
    inner = get_args(bare)
    if get_origin(bare) is dict:
        if not isinstance(value, dict):
            document.complain(place, "must be a mapping of names", shown(value))
            return None
        return {key: _nested(inner[1], entry, (*place, key), document) for key, entry in value.items()}
    if not isinstance(value, list):
        document.complain(place, "must be a list", shown(value))
        return None
    entries = [_nested(inner[0], entry, (*place, index), document) for index, entry in enumerate(value)]
    return tuple(entries) if get_origin(bare) is tuple else entries


def _enough(rules: tuple[Any, ...], found: Any, place: Place, document: Document) -> None:
    least = max((rule.min_length for rule in rules if hasattr(rule, "min_length")), default=0)
    if found is not None and least and len(found) < least:
        document.complain(place, f"must have at least {least} entries", str(len(found)))


def _of_family(package: str, value: Any, place: Place, document: Document) -> Any:
    parameters, at = (value, (*place, "kind")) if isinstance(value, dict) else ({"kind": value}, place)
    kind = parameters.get("kind")
    if not isinstance(kind, str):
        where, got = (at, shown(kind)) if "kind" in parameters else (place, "no kind")
        document.complain(where, f"must name a kind: {', '.join(names(package))}", got)
        return None
    try:
        cls = resolve(package, kind)
        columns(cls)  # its annotations are part of the plug-in, and may be broken
    except Misuse as error:
        document.complain(at, str(error))
        return None
    return build(cls, {key: entry for key, entry in parameters.items() if key != "kind"}, place, document)


def _of_choice(classes: list[Any], value: Any, place: Place, document: Document) -> Any:
    table = {word(cls): cls for cls in classes}
    kind = value.get("kind") if isinstance(value, dict) else value
    if not isinstance(kind, str) or kind not in table:
        inside = isinstance(value, dict)
        at = (*place, "kind") if inside and "kind" in value else place
        ordered = nearest(kind, table) if isinstance(kind, str) else list(table)
        got = "no kind" if inside and at == place else shown(kind)
        document.complain(at, f"must name a kind: {' or '.join(ordered)}", got)
        return None
    parameters = value if isinstance(value, dict) else {}
    return build(table[kind], {key: entry for key, entry in parameters.items() if key != "kind"}, place, document)


def _plain(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    bare, metadata = peel(kind)
    family = next((note for note in metadata if isinstance(note, Family)), None)
    if family is not None:
        return {"kind": kind_of(family.package, value), **plain(value)}
    some = [arm for arm in arms(bare) if arm is not type(None)]
    if len(some) > 1:
        return {"kind": word(type(value)), **plain(value)}
    if some[0] is not bare:
        return _plain(some[0], value)
    if is_dataclass(bare):
        return plain(value)
    inner = get_args(bare)
    if get_origin(bare) is dict:
        return {key: _plain(inner[1], entry) for key, entry in value.items()}
    return [_plain(inner[0], entry) for entry in value]


def _or(others: tuple[tuple[str, str | None], ...]) -> str:
    return f", as it or as {' or '.join(key for key, _ in others)}" if others else ""
