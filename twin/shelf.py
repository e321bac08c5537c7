"""``twin list``: the scenarios there are, and the components that a scenario may name."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from hal.check import Family
from hal.errors import Misuse
from twin.fields import arms, columns, peel
from twin.registry import describe, nearest

__all__ = ["Shelved", "arguments", "families", "run", "shelved"]


@dataclass(frozen=True)
class Shelved:
    """One scenario file as a list shows it."""

    file: str
    title: str
    about: str  # one sentence; what is wrong with it, if it does not load
    users: int
    targets: int
    seconds: float
    sound: bool  # it loads


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin list`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "List the scenarios in a folder, and the kinds of every family of components: what a scenario file may write\n"
        "after `kind:`. Families are roles (how movers move, how echoes are detected, who is served when); a kind is one\n"
        "file that plays the role. Packages that add kinds by entry point are listed too."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin list                 scenarios and all kinds\n"
        "  twin list scenarios       only the scenarios in ./scenarios\n"
        "  twin list planning        the kinds of one family\n"
        "  twin schema               every parameter of every kind, for editors"
    )
    parser.add_argument("what", nargs="?", help="`scenarios`, `kinds`, or a family's name; default: all")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("scenarios"),
        metavar="DIR",
        help="where scenarios are looked for (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(given: argparse.Namespace) -> int:
    """``twin list``; returns 0, or 1 where a listed scenario or kind is broken."""
    table = families()
    short = {package.rpartition(".")[2]: package for package in table}
    if given.what not in (None, "scenarios", "kinds", *short):
        known = ["scenarios", "kinds", *short]
        raise Misuse(
            f"{given.what}: there is no such family; known, nearest first: {', '.join(nearest(given.what, known))}"
        )
    found = shelved(given.dir) if given.what in (None, "scenarios") else None
    wanted = (
        {} if given.what == "scenarios" else short if given.what in (None, "kinds") else {given.what: short[given.what]}
    )
    kinds = {name: dict(describe(package)) for name, package in wanted.items()}
    broken = any(not one.sound for one in found or ()) or any(
        line.startswith("broken:") for lines in kinds.values() for line in lines.values()
    )
    if given.json:
        told: dict[str, Any] = {} if found is None else {"scenarios": [vars(one) for one in found]}
        if kinds:
            told["kinds"] = kinds
        json.dump(told, sys.stdout, indent=1)
        print()
        return int(broken)
    _print(found, kinds, {name: table[package] for name, package in wanted.items()}, given.dir)
    return int(broken)


def families() -> dict[str, tuple[str, str]]:
    """Every family that a scenario can name a member of: package -> (where a file writes it, what the role is)."""
    from twin.scenario import Scenario

    found: dict[str, tuple[str, str]] = {}
    for path, package in _walk(Scenario, "", ()):
        role = (importlib.import_module(package).__doc__ or "").partition("\n")[0]
        role = re.sub(r"^\w+: ", "", role).partition(". ")[0].rstrip(".").replace("``", "")
        found.setdefault(package, (path, role))
    return found


def _walk(cls: type, path: str, inside: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """Path and package of every family below a dataclass; a list's entries are ``[]``, a mapping's ``NAME``."""
    if cls in inside:
        return
    for column in columns(cls):
        at = f"{path}.{column.key}" if path else column.key
        family = next((note for note in peel(column.type)[1] if isinstance(note, Family)), None)
        if family is not None:
            yield at, family.package
        elif column.nested:
            for kind, step in _components(column.type, ""):
                yield from _walk(kind, at + step, (*inside, cls))


def _components(kind: Any, step: str) -> Iterator[tuple[type, str]]:
    for arm in arms(kind):
        bare = peel(arm)[0]
        if isinstance(bare, type) and is_dataclass(bare):
            yield bare, step
        origin, inner = get_origin(bare), get_args(bare)
        if origin is dict:
            yield from _components(inner[1], f"{step}.NAME")
        elif origin in (tuple, list):
            yield from _components(inner[0], f"{step}[]")


def shelved(folder: Path) -> list[Shelved]:
    """Every scenario file of a folder; one that does not load says why instead of what it is about."""
    return [_read(file) for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])]


def _read(file: Path) -> Shelved:
    from twin.scenario import ScenarioError, load

    try:
        scenario = load(file)
    except ScenarioError as wrong:
        first, more = wrong.problems[0], len(wrong.problems) - 1
        about = f"{first.path + ': ' if first.path else ''}{first.rule}" + (f" (and {more} more)" if more else "")
        return Shelved(str(file), "", about, 0, 0, 0.0, False)
    about = scenario.description or _comment(file.read_text(encoding="utf-8"))
    return Shelved(
        file=str(file),
        title=scenario.title or file.stem,
        about=_sentence(about),
        users=_count(scenario.users),
        targets=_count(scenario.targets),
        seconds=scenario.duration_ns / 1e9,
        sound=True,
    )


def _count(movers: tuple[Any, ...]) -> int:
    """How many move; one entry of a scenario may be a recording of several."""
    return sum(len(mover.mobility.movers()) for mover in movers)


def _comment(text: str) -> str:
    """The comment a file opens with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def _sentence(text: str) -> str:
    """The first sentence, without a line break."""
    return re.split(r"(?<=[.?!])\s", " ".join(text.split()), maxsplit=1)[0]


def _print(
    found: list[Shelved] | None, kinds: dict[str, dict[str, str]], said: dict[str, tuple[str, str]], folder: Path
) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for one in found or ():
        counts = f"  {many(one.users, 'user')}, {many(one.targets, 'target')}, {one.seconds:g} s" if one.sound else ""
        console.print(Text.assemble((one.file, "bold"), (counts, "dim")), soft_wrap=True)
        about = Text(one.about) if one.sound else Text(f"does not load: {one.about}", "red")
        console.print(Padding(about, (0, 0, 0, 2)))
    if found == []:
        console.print(f"no scenarios in {folder}; `twin new my.yaml` writes one, --dir looks elsewhere")
    for number, (name, lines) in enumerate(kinds.items()):
        if number or found is not None:
            console.print()
        place, role = said[name]
        console.print(Text.assemble((name, "bold"), f": {role}", (f"  {place}", "dim")))
        shown = Table(box=None, pad_edge=False, show_edge=False, show_header=False, padding=(0, 2, 0, 0))
        shown.add_column(no_wrap=True)
        shown.add_column(overflow="fold")
        for kind, line in lines.items():
            style = "red" if line.startswith("broken:") else ""
            shown.add_row(Text(f"  {kind}", style), Text(line.replace("``", ""), style))
        console.print(shown)


def many(count: int, thing: str) -> str:
    """So many of a thing."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
