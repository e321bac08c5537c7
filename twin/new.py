"""``twin new``: a scenario file to start from, its comments taken from the fields' own documentation."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hal.errors import Misuse
from twin.document import written
from twin.registry import nearest

__all__ = ["arguments", "complete", "copied", "minimal", "run"]

DEFAULT = object()  # stands for a key's own default
WIDTH = 150  # a comment that would pass it goes above its key

# What a first reader wants to turn, in the order of a scenario's story; the rest has its default.
SKELETON: dict[str, Any] = {
    "title": "",
    "seed": 1,
    "duration_s": 1,
    "carrier_ghz": DEFAULT,
    "subframe": {"period_ms": DEFAULT, "blocks": DEFAULT, "block_us": DEFAULT},
    "communication": {"bandwidth_ghz": DEFAULT, "subcarriers": DEFAULT},
    "sensing": {"fidelity": DEFAULT, "frames_per_dwell": DEFAULT, "dwells": DEFAULT},
    "sites": {
        "bs0": {
            "position_m": [0, 0, 10],
            "downtilt_deg": 8,
            "power_dbm": DEFAULT,
            "transmit": {"array": {"kind": "upa", "columns": 16, "rows": 16}},
            "receive": {"array": {"kind": "upa", "columns": 16, "rows": 16}},
            "control": {"tracking": "ekf", "estimation": "mmse", "planning": "fixed", "precoding": "delay_phase"},
        }
    },
    "users": [
        {
            "name": "car",
            "mobility": {"kind": "linear", "position_m": [30, -8, 1.5], "velocity_mps": [0, 10, 0]},
        },
        {
            "name": "bus",
            "mobility": {"kind": "linear", "position_m": [70, 12, 2.5], "velocity_mps": [-12, 0, 0]},
        },
    ],
    "targets": [
        {"name": "van", "rcs_m2": 20, "mobility": {"kind": "static", "position_m": [45, 18, 1.5]}},
    ],
}
# The top of a scenario has no comments in its class: its keys say themselves to a programmer, less so to a reader.
TOP = {
    "seed": "all chance follows from it: same file, same run",
    "duration_s": "simulated",
    "carrier_ghz": "centre of the data band",
    "users": "movers with a radio; they reflect as well",
    "targets": "movers without a radio: only echoes tell of them",
    "faults": "what breaks, and when",
    "channel": "from where everyone is to the paths between",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin new`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Write a scenario file to start from. It is commented, runs as it is, and never overwrites another file."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin new my.yaml                       the keys one turns first; the rest has its default\n"
        "  twin new my.yaml --full                every key there is, with its default\n"
        "  twin new my.yaml --from street         a copy of scenarios/street.yaml, comments and all\n"
        "  twin new - --full | less               look, and write nothing\n"
        "Then:  twin check my.yaml  says what it means,  twin run my.yaml  plays it."
    )
    parser.add_argument("file", help="the file to write, e.g. my.yaml; - is standard output")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--from",
        dest="source",
        metavar="NAME",
        help="copy a scenario: a name from `twin list scenarios`, such as street or smoke, or a file",
    )
    kind.add_argument("--full", action="store_true", help="write every key, with its default")


def run(given: argparse.Namespace) -> int:
    """``twin new``; returns 0."""
    target = None if given.file == "-" else Path(given.file)
    name = "scenario" if target is None else target.stem
    if target is not None and target.suffix not in (".yaml", ".yml"):
        raise Misuse(f"{target}: a scenario's name ends in .yaml, so that editors and `twin list` know it")
    if target is not None and target.exists():
        raise Misuse(f"{target}: exists already, and nothing is overwritten; choose another name or remove it")
    if given.source is not None:
        text = copied(_found(given.source), Path() if target is None else target.parent)
    else:
        text = complete(name, given.file) if given.full else minimal(name, given.file)
    if target is None:
        sys.stdout.write(text)
        return 0
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileNotFoundError:
        raise Misuse(f"{target}: there is no folder {target.parent}; make it first") from None
    print(f"wrote {target}; next:  twin check {target}   then:  twin run {target}")
    return 0


def minimal(title: str, file: str = "FILE") -> str:
    """A short scenario: what one turns first, each key with what it means."""
    said = (
        f"# A scenario of isac-twin. Play it:  twin run {file}     What it means:  twin check {file}\n"
        "# Units are in the keys. What is not written has its default; `twin new - --full` shows every key, `twin list` what may follow `kind:`.\n"
    )
    return said + _annotated({**SKELETON, "title": title})


def complete(title: str, file: str = "FILE") -> str:
    """The same scenario with every key written out."""
    from twin.assembly import plain
    from twin.scenario import loads

    said = f"# Every key of a scenario, with its default. Play it:  twin run {file}     What it means:  twin check {file}\n"
    value = plain(loads(_annotated({**SKELETON, "title": title})))
    last = ("sites", "users", "targets", "faults", "bus", "record")
    return said + _annotated({key: value[key] for key in sorted(value, key=lambda key: key in last)})


def copied(source: Path, folder: Path) -> str:
    """The text of a scenario for a file in ``folder``: the files that it names are named from there."""
    from twin.document import parse
    from twin.scenario import load

    load(source)  # what does not run is no start
    text = source.read_text(encoding="utf-8")
    document, lines = parse(text, str(source)), text.split("\n")
    moved: list[tuple[int, int, str, str]] = []
    for place, (_, (_, line, column)) in document.spots.items():
        value: Any = document.value
        for step in place:
            value = value[step]
        target = (source.parent / value).resolve() if isinstance(value, str) else None
        if target is not None and place[-1] not in ("kind", "name", "title") and target.is_file():
            moved.append((line, column, value, os.path.relpath(target, folder.resolve())))
    for line, column, before, after in sorted(moved, reverse=True):
        row = lines[line - 1]
        lines[line - 1] = row[: column - 1] + row[column - 1 :].replace(before, after, 1)
    return "\n".join(lines)


def _found(name: str) -> Path:
    """The scenario that a name or a path means: here, in ./scenarios, or beside the package."""
    places = [Path("scenarios"), Path(__file__).parent.parent / "scenarios"]
    for file in (Path(name), *(place / f"{name}.yaml" for place in places)):
        if file.is_file():
            return file
    known = sorted({file.stem for place in places for file in place.glob("*.yaml")})
    ordered = ", ".join(nearest(name, known)) or "none here"
    raise Misuse(f"--from {name}: no such file and no such scenario; known, nearest first: {ordered}")


def _annotated(value: Mapping[str, Any]) -> str:
    """Plain values as YAML, each key with its comment from the schema; defaults filled in where they are asked for."""
    from twin.scenario import schema

    made = schema()
    lines: list[str] = []
    _mapping(value, made, made["$defs"], "", lines, TOP)
    for key in ("sites", "users"):
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        lines.insert(start, "")
    return "\n".join(lines) + "\n"


def _mapping(
    value: Mapping[str, Any],
    node: Mapping[str, Any],
    definitions: Mapping[str, Any],
    indent: str,
    lines: list[str],
    more: Mapping[str, str],
) -> None:
    properties = node.get("properties", {})
    for key, entry in value.items():
        about = properties.get(key, node.get("additionalProperties") or {})
        inner, kinds = _resolved(about, entry, definitions)
        said = about.get("description") or more.get(key) or _role(inner, key, entry)
        if entry is DEFAULT:
            entry = about["default"]
        others = sorted(kinds - {entry if isinstance(entry, str) else (entry or {}).get("kind")}) if kinds else []
        if others and not (isinstance(entry, dict) and "kind" not in entry):
            said = "; ".join(filter(None, [said, f"or {', '.join(others)}"]))
        nested = (isinstance(entry, dict) and entry) or (
            isinstance(entry, list | tuple) and entry and isinstance(entry[0], dict)
        )
        head = f"{indent}{key}:" if nested else f"{indent}{written({key: entry}).rstrip()}"
        comment = f" # {said}" if said else ""
        if len(head) + len(comment) > WIDTH:
            lines.append(f"{indent}# {said}")
            comment = ""
        lines.append(head + comment)
        if not nested:
            continue
        if isinstance(entry, dict):
            _mapping(entry, inner, definitions, indent + "  ", lines, {})
            continue
        items = about.get("items", {})
        for one in entry:
            start = len(lines)
            _mapping(one, _resolved(items, one, definitions)[0], definitions, indent + "    ", lines, {})
            if lines[start].lstrip().startswith("#"):  # a comment above the first key stays above the dash
                start += 1
            lines[start] = f"{indent}  - {lines[start][len(indent) + 4 :]}"


def _resolved(
    node: Mapping[str, Any], value: Any, definitions: Mapping[str, Any]
) -> tuple[Mapping[str, Any], set[str]]:
    """What the schema says of this value: references followed, choices decided by kind; and the kinds there are."""
    if "$ref" in node:
        return definitions[node["$ref"].removeprefix("#/$defs/")], set()
    if "anyOf" not in node:
        return node, set()
    kinds: dict[str, Mapping[str, Any]] = {}
    for arm in node["anyOf"]:
        if "$ref" in arm:
            target = definitions[arm["$ref"].removeprefix("#/$defs/")]
            name = target.get("properties", {}).get("kind", {}).get("const")
            if name is None and not kinds:
                return target, set()
            if name is not None:
                kinds[name] = target
    chosen = value if isinstance(value, str) else value.get("kind") if isinstance(value, dict) else None
    return kinds.get(str(chosen), {}), set(kinds)


def _role(node: Mapping[str, Any], key: str, value: Any) -> str:
    """The first words of what a component or section is."""
    if not isinstance(value, dict | str) or not node.get("description"):
        return ""
    said = re.split(r"[.;](\s|$)", str(node["description"]).replace("``", ""), maxsplit=1)[0]
    return said if said[1:2].isupper() else said[:1].lower() + said[1:]
