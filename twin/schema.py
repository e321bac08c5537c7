"""The JSON Schema of a scenario file, derived from the same dataclasses that check it, so that editors complete and explain."""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin

from hal.check import Family
from twin.assembly import word
from twin.fields import Column, arms, columns, leaf_model, peel, written
from twin.registry import kinds

__all__ = ["json_schema"]


def json_schema(cls: type) -> dict[str, Any]:
    """The schema of a mapping that describes a ``cls``; families are choices told apart by ``kind``.

    It says what one key may hold; rules between keys are said by ``load`` only.
    """
    definitions: dict[str, Any] = {}
    top = _object(cls, definitions, None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "isac-twin scenario",
        **top,
        "$defs": definitions,
    }


def _object(cls: type, definitions: dict[str, Any], kind: str | None) -> dict[str, Any]:
    leaves = leaf_model(cls).model_json_schema(by_alias=True)
    definitions.update(leaves.get("$defs", {}))
    said, defaults = _comments(cls), _defaults(cls)
    properties: dict[str, Any] = {} if kind is None else {"kind": {"const": kind}}
    required: list[str] = [] if kind is None else ["kind"]
    for column in columns(cls):
        for key, _ in column.spelled:
            made = (
                _nested(column.type, definitions, column.kind)
                if column.nested
                else _without_filler(leaves["properties"][key])
            )
            if column.name in said:
                made = {"description": said[column.name], **made}
            if key == column.key and column.name in defaults:
                made = {**made, "default": defaults[column.name]}
            properties[key] = made
        if column.required and len(column.spelled) == 1:
            required.append(column.key)
    doc = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
    made = {"type": "object", "description": doc, "properties": properties, "additionalProperties": False}
    return {**made, "required": required} if required else made


def _nested(kind: Any, definitions: dict[str, Any], usual: str | None = None) -> dict[str, Any]:
    bare, metadata = peel(kind)
    family = next((note for note in metadata if isinstance(note, Family)), None)
    choice = arms(bare)
    if family is not None:
        return _family(family.package, definitions, usual)
    if len(choice) > 1:
        some = [arm for arm in choice if arm is not type(None)]
        made = (
            [_refer(arm, definitions, word(arm)) for arm in some] if len(some) > 1 else [_nested(some[0], definitions)]
        )
        return {"anyOf": made + ([{"type": "null"}] if len(some) < len(choice) else [])}
    if isinstance(bare, type) and is_dataclass(bare):
        return _refer(bare, definitions, None)
    inner = get_args(bare)
    if get_origin(bare) is dict:
        return {"type": "object", "additionalProperties": _nested(inner[1], definitions)}
    return {"type": "array", "items": _nested(inner[0], definitions)}


def _family(package: str, definitions: dict[str, Any], usual: str | None) -> dict[str, Any]:
    members = kinds(package)
    bare = [name for name, cls in members.items() if not any(column.required for column in columns(cls))]
    outside = {"type": "object", "properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
    choice: list[dict[str, Any]] = [_refer(cls, definitions, name) for name, cls in members.items()]
    choice += [_refer(members[usual], definitions, None)] if usual in members else []  # the kind may go without saying
    return {"anyOf": [{"enum": bare}, *choice, {"type": "string", "pattern": ":"}, outside]}


def _refer(cls: type, definitions: dict[str, Any], kind: str | None) -> dict[str, Any]:
    name = f"{cls.__module__}.{cls.__qualname__}{'' if kind is None else '.' + kind}"
    if name not in definitions:
        definitions[name] = {}  # holds the place, should a class contain itself
        definitions[name] = _object(cls, definitions, kind)
    return {"$ref": f"#/$defs/{name}"}


def _without_filler(made: dict[str, Any]) -> dict[str, Any]:
    # pydantic's own title and the default that lets one key be checked alone say nothing to a reader
    return {key: value for key, value in made.items() if key not in ("title", "default")}


def _defaults(cls: type) -> dict[str, Any]:
    """Defaults as a file would write them; what has none, or holds components or infinities, is left out."""
    table: dict[str, Any] = {}
    for entry, column in _paired(cls):
        if entry.default is MISSING or column.nested or column.endless:
            continue
        table[column.name] = _one(column, entry.default)
    return table


def _one(column: Column, value: Any) -> Any:
    said = written(column, value)
    return list(said) if isinstance(said, tuple) else said


def _paired(cls: type) -> list[tuple[Any, Column]]:
    table = {column.name: column for column in columns(cls)}
    return [(entry, table[entry.name]) for entry in fields(cls) if entry.name in table]


@cache
def _comments(cls: type) -> dict[str, str]:
    """What the comment on each field's line says: it is the field's documentation, so editors should show it."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    lines: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:"):
            lines[token.start[0]] = re.sub(r"^#\s*", "", token.string)
    body = ast.parse(source).body[0]
    found = {}
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said = [lines[line] for line in range(node.lineno, (node.end_lineno or node.lineno) + 1) if line in lines]
            if said:
                found[node.target.id] = " ".join(said)
    return found
