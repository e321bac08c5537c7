"""YAML text to plain values, with the place each one stands at, so that a problem can say where."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from hal.errors import Misuse
from twin.registry import nearest

__all__ = ["LARGEST_INT", "Document", "Place", "Problem", "ScenarioError", "parse", "read", "shown", "written"]

MOST_VALUES = 100_000  # of a scenario, aliases counted as often as they stand
LARGEST_INT = 2**63  # what every reader of a number can hold

Place = tuple[str | int, ...]  # keys and indices from the top of the file: ("sites", "bs0", "position_m", 2)
Spot = tuple[str, int, int]  # source, line and column from 1; line 0: the source has no lines


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a scenario: where it is written, the rule it breaks, and what was found."""

    source: str  # the file, or the whole ``--set`` argument
    line: int  # from 1; 0: nowhere in particular
    column: int
    path: str  # dotted, as ``--set`` takes it
    rule: str
    got: str = ""

    def __str__(self) -> str:
        spot = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{spot}: {self.path + ': ' if self.path else ''}{self.rule}{f' (got {self.got})' if self.got else ''}"


class ScenarioError(Misuse):
    """Everything wrong with a scenario, at once: ``problems`` in the order of the file, one a line in ``str()``."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass
class Document:
    """A file under inspection: its values, where they stand, and what was found wrong so far."""

    name: str
    value: Any = None
    spots: dict[Place, tuple[Spot, Spot]] = field(default_factory=dict)  # place -> (its key's, its value's)
    problems: list[tuple[Place, Problem]] = field(default_factory=list)

    def complain(
        self, place: Place, rule: str, got: Any = None, *, key: bool = False, spot: Spot | None = None
    ) -> None:
        """Note a problem at ``place``; a place that is not written is put where the nearest one around it is."""
        around = place
        while spot is None:
            if around in self.spots:
                spot = self.spots[around][0 if key and around == place else 1]
            elif not around:
                spot = (self.name, 0, 0)
            around = around[:-1]
        problem = Problem(
            *spot, path=".".join(str(part) for part in place), rule=rule, got="" if got is None else str(got)
        )
        if all(problem != known for _, known in self.problems):
            self.problems.append((place, problem))

    def blamed(self, place: Place) -> bool:
        """Whether anything at, under or around ``place`` is already known to be wrong."""
        return any(place[: len(where)] == where or where[: len(place)] == place for where, _ in self.problems)

    def verdict(self) -> None:
        """Raise ScenarioError if anything is wrong."""
        if self.problems:
            found = [problem for _, problem in self.problems]
            raise ScenarioError(tuple(sorted(found, key=lambda p: (p.source != self.name, p.source, p.line, p.column))))


def read(file: str | Path, overrides: Mapping[str, Any] = MappingProxyType({})) -> Document:
    """The document in ``file``, with ``overrides`` already in it: dotted path -> value, text being read as YAML; ``*`` is the only key of a mapping.

    What is wrong with an override is said of its ``--set path=value``, not of a line.

    Raises:
        ScenarioError: there is no such file, or it is not UTF-8 text holding one YAML mapping.
    """
    path = Path(file)
    document = Document(str(file))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = f"; did you mean {path.with_name(nearest(path.name, beside)[0])}?" if beside else ""
        document.complain((), f"no such file{hint}")
    except IsADirectoryError:
        document.complain((), "is a directory; name the scenario file in it")
    except OSError as error:
        document.complain((), f"cannot be read: {error.strerror or error}")
    document.verdict()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        document.complain(
            (), "must be UTF-8 text", f"byte 0x{data[error.start]:02x}", spot=(document.name, line, column)
        )
        document.verdict()
    return parse(text, str(file), overrides)


def parse(text: str, name: str = "<text>", overrides: Mapping[str, Any] = MappingProxyType({})) -> Document:
    """The document in ``text``; see ``read``."""
    document = Document(name)
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except RecursionError:
        document.complain((), "is nested too deeply", spot=(name, 1, 1))
        document.verdict()
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        spot = (name, mark.line + 1, mark.column + 1) if mark is not None else (name, 0, 0)
        said = error.problem if isinstance(error, MarkedYAMLError) else str(error).partition("\n")[0]
        document.complain((), f"not valid YAML: {said}", spot=spot)
        document.verdict()
    if node is None:
        document.complain((), "the file is empty; a scenario is a mapping of keys", spot=(name, 1, 1))
        document.verdict()
    if not isinstance(node, MappingNode):
        document.complain((), "must be a mapping of keys", _kind(node), spot=_spot(name, node))
        document.verdict()
    document.spots[()] = (_spot(name, node), (name, node.start_mark.line + 1, node.start_mark.column + 1))
    try:
        document.value = _value(node, (), document, name, ())
    except RecursionError:
        document.complain((), "is nested too deeply", spot=(name, 1, 1))
        document.verdict()
    for target, value in overrides.items():
        _apply(document, target, value if isinstance(value, str) else json.dumps(value))
    return document


def shown(value: Any) -> str:
    """A value as a person would recognise it from the file, cut to a line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        text = "[" + ", ".join(shown(entry) for entry in value) + "]"
        return text if len(text) <= 60 else f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def written(value: dict[str, Any]) -> str:
    """Plain values as YAML text, lists of numbers or words on one line; ``parse`` of it holds equal values."""
    out = io.StringIO()
    yaml = YAML()
    yaml.width = 150
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(_flowing(value), out)
    return out.getvalue()


def _flowing(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z][\w./-]*( [\w./-]+)*", value):
        return DoubleQuotedScalarString(value)  # a "?0" written plain in a list is read as a mapping
    if isinstance(value, dict):
        return {key: _flowing(entry) for key, entry in value.items()}
    if not isinstance(value, list | tuple):
        return value
    listed = CommentedSeq(_flowing(entry) for entry in value)
    if not any(isinstance(entry, dict) for entry in value):
        listed.fa.set_flow_style()
    return listed


def _spot(name: str, node: Node) -> Spot:
    # An override is one argument, not a file: it has no lines to point at.
    return (name, 0, 0) if name.startswith("--set ") else (name, node.start_mark.line + 1, node.start_mark.column + 1)


def _kind(node: Node) -> str:
    return (
        "a list"
        if isinstance(node, SequenceNode)
        else "a mapping"
        if isinstance(node, MappingNode)
        else repr(node.value)
    )


def _value(node: Node, place: Place, document: Document, name: str, inside: tuple[Node, ...]) -> Any:
    if node in inside:
        document.complain(place, "an alias that contains itself", spot=_spot(name, node))
        return None
    inside = (*inside, node)
    if len(document.spots) > MOST_VALUES:  # a few lines of aliases of aliases stand for more than any memory holds
        document.complain((), f"stands for more than {MOST_VALUES} values; write fewer aliases", spot=(name, 1, 1))
        document.verdict()
    if isinstance(node, ScalarNode):
        return _scalar(node, place, document, name)
    if not re.fullmatch(r"tag:yaml\.org,2002:(map|seq)", str(node.tag)):
        document.complain(place, "tags are not understood", str(node.tag), spot=_spot(name, node))
        return None
    if isinstance(node, SequenceNode):
        entries = []
        for index, entry in enumerate(node.value):
            document.spots[*place, index] = (_spot(name, entry), _spot(name, entry))
            entries.append(_value(entry, (*place, index), document, name, inside))
        return entries
    mapping: dict[str, Any] = {}
    for key, entry in node.value:
        spot = _spot(name, key)
        if not isinstance(key, ScalarNode):
            document.complain(place, "a key must be a word", _kind(key), spot=spot)
            continue
        where = (*place, key.value)
        if str(key.tag).endswith(":merge"):
            document.complain(where, "merge keys are YAML 1.1; write the keys out, or alias the whole value", spot=spot)
            continue
        if key.value in mapping:
            first = document.spots[where][0][1]
            document.complain(where, f"duplicate key; first written on line {first}", spot=spot)
            continue
        document.spots[where] = (spot, _spot(name, entry))
        mapping[key.value] = _value(entry, where, document, name, inside)
    return mapping


def _scalar(node: ScalarNode, place: Place, document: Document, name: str) -> Any:
    text, tag = str(node.value), str(node.tag)
    plain = text.replace("_", "")
    try:
        if tag.endswith(":null"):
            return None
        if tag.endswith(":bool"):
            return {"true": True, "false": False}[text.lower()]
        if tag.endswith(":int"):
            number = int(plain, 0) if re.match(r"[-+]?0[xXoObB]", plain) else int(plain)
            if not -LARGEST_INT <= number < LARGEST_INT:
                document.complain(place, "a whole number must lie in -2^63 .. 2^63 - 1", spot=_spot(name, node))
                return None
            return number
        if tag.endswith(":float"):
            return float(re.sub(r"(?i)\.(inf|nan)$", r"\1", plain))
    except (ValueError, KeyError):
        document.complain(place, f"is not a {tag.rpartition(':')[2]}", repr(text), spot=_spot(name, node))
        return None
    if tag.startswith("tag:yaml.org,2002:"):
        return text  # text, and what only older YAMLs take for something else, such as dates
    document.complain(place, "tags are not understood", tag, spot=_spot(name, node))
    return None


def _apply(document: Document, target: str, text: str) -> None:
    source: Spot = (f"--set {target}={text}", 0, 0)
    steps = target.strip().split(".")
    if not all(steps):
        document.complain((), "an override is path.to.key=value", spot=source)
        return
    try:
        node = YAML(typ="safe", pure=True).compose(text) if text.strip() else ScalarNode("tag:yaml.org,2002:null", "")
    except YAMLError:
        document.complain(tuple(steps), "the value is not valid YAML", repr(text), spot=source)
        return
    holder, place = document.value, ()  # type: tuple[Any, Place]
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        here: str | int = step
        if isinstance(holder, list):
            if not (step.isdigit() and int(step) < len(holder)):
                rule = f"a list of {len(holder)} is indexed 0 to {len(holder) - 1}" if holder else "the list is empty"
                document.complain((*place, step), rule, repr(step), spot=source)
                return
            here = int(step)
        elif not isinstance(holder, dict):
            document.complain(
                (*place, step), f"{'.'.join(map(str, place))} is {shown(holder)}, which has no keys", spot=source
            )
            return
        elif step == "*":
            if len(holder) != 1:
                document.complain((*place, step), f"* is the only key there is; here are {len(holder)}", spot=source)
                return
            (here,) = holder
        place = (*place, here)
        if last:
            for known in [known for known in document.spots if known[: len(place)] == place]:
                del document.spots[known]
            document.spots[place] = (source, source)
            holder[here] = _value(node, place, document, source[0], ())
            return
        if isinstance(holder, dict) and holder.get(here) is None:
            holder[here] = {}
            document.spots[place] = (source, source)
        elif isinstance(holder[here], str):
            holder[here] = {"kind": holder[here]}  # a bare kind's parameters are set as if it had been written out
            document.spots[*place, "kind"] = document.spots[place]
        holder = holder[here]
