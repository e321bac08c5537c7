"""Writes docs/scenario.md, every key a scenario file may hold, from the schema: ``python -m tools.reference``; ``--check`` only compares."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from twin.scenario import schema

__all__ = ["page"]

PAGE = Path(__file__).parents[1] / "docs" / "scenario.md"
INTRODUCTION = """# What a scenario file may hold

Written from the schema by `python -m tools.reference`; `twin schema` prints that schema for editors. Units are in the keys (`power_dbm`,
`delay_range_ps`). What is not written has its default. A part chosen by `kind` may be written as the bare word (`tracking: ekf`) or with its parameters
(`tracking: {kind: ekf, …}`);
`package.module:Class` names a part of your own ([extending.md](extending.md)).

The least that runs:

```yaml
sites: { bs0: {} }
users:
  - { name: a, mobility: static }
```
"""


def page() -> str:
    """The whole document."""
    made = schema()
    definitions = made["$defs"]
    order = [name for name in reached(made, definitions) if definitions[name].get("properties") is not None]
    titles = {name: title(name, definitions) for name in order}
    parts = [INTRODUCTION, "## The file\n", table(made, definitions, titles)]
    for name in order:
        about = definitions[name].get("description", "")
        parts += [
            f"## {titles[name]}\n",
            f"{prose(about)}\n" if about else "",
            table(definitions[name], definitions, titles),
        ]
    return "\n".join(part for part in parts if part) + "\n"


def reached(node: Any, definitions: dict[str, Any], seen: list[str] | None = None) -> list[str]:
    """Definitions in the order in which a reader meets them; of a kind that may go without saying, the one that says it."""
    seen = [] if seen is None else seen
    if isinstance(node, dict):
        name = str(node.get("$ref", "")).removeprefix("#/$defs/")
        if name and name not in seen and not any(other.startswith(f"{name}.") for other in definitions):
            seen.append(name)
            reached(definitions[name], definitions, seen)
        for key, value in node.items():
            if key != "$defs":
                reached(value, definitions, seen)
    elif isinstance(node, list):
        for value in node:
            reached(value, definitions, seen)
    return seen


def title(name: str, definitions: dict[str, Any]) -> str:
    """``precoding: direct`` for a kind of a family, ``Site`` for a plain section."""
    kind = definitions[name]["properties"].get("kind", {}).get("const")
    parts = name.split(".")
    return parts[-1] if kind is None else f"{parts[1]}: {kind}"


def table(node: dict[str, Any], definitions: dict[str, Any], titles: dict[str, str]) -> str:
    """The keys of one mapping."""
    lines = ["| key | what | default | bounds |", "|---|---|---|---|"]
    required = set(node.get("required", ()))
    for key, value in node["properties"].items():
        if key == "kind" and "const" in value:
            continue
        default = "required" if key in required else f"`{shown(value['default'])}`" if "default" in value else ""
        said = "; ".join(s for s in (prose(value.get("description", "")), kinds(value, titles)) if s)
        lines.append(f"| `{key}` | {said} | {default} | {bounds(value)} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else "No parameters.\n"


def kinds(value: Any, titles: dict[str, str]) -> str:
    """What a key may be: links to the sections it can hold, or its choice of words."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            if name in titles and titles[name] not in found:
                found.append(titles[name])
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(value)
    words = value.get("enum") or ([] if found else [w for arm in value.get("anyOf", ()) for w in arm.get("enum", ())])
    links = [f"[{text}](#{anchor(text)})" for text in found]
    return ", ".join(links) or " or ".join(f"`{word}`" for word in words)


def anchor(text: str) -> str:
    """As Markdown readers make it of a heading."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def bounds(value: dict[str, Any]) -> str:
    """Least and most of a number, or of a list's entries."""
    for node in (value, *value.get("anyOf", ())):
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        said = [f"{sign} {node[key]:g}" for key, sign in signs.items() if key in node and abs(node[key]) < 1e15]
        if said:
            return ", ".join(said)
    return ""


def shown(value: Any) -> str:
    """A default as a file would write it."""
    return str(value) if isinstance(value, str) and value else json.dumps(value)


def prose(text: str) -> str:
    """Docstring markup as Markdown, fit for a table's cell."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def main() -> int:
    """Write the page, or say whether it is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; 1 where the page is out of date")
    given = parser.parse_args()
    if given.check:
        same = PAGE.read_text(encoding="utf-8") == page()
        print("as it should be" if same else f"{PAGE.name} is out of date: python -m tools.reference", file=sys.stderr)
        return int(not same)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
