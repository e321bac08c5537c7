"""A sweep file: which scenario, which values of which keys, which seeds; and the cases it amounts to, in a fixed order."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hal.errors import Misuse
from twin.document import Document, Place, ScenarioError, read, shown
from twin.registry import nearest
from twin.scenario import dump, load, whole
from twin.summary import Summary

__all__ = ["Case", "Sweep", "Until", "read_sweep"]

KEYS = ("title", "scenario", "set", "over", "draw", "until", "keep")
MOST_CASES = 10_000_000  # a mistyped step, not a sweep
DISTRIBUTIONS: dict[
    str, Callable[[np.random.Generator, float, float], float]
] = {  # of `draw: {of: …}`: what the two numbers are, and a draw
    "uniform": lambda rng, a, b: rng.uniform(a, b),
    "log_uniform": lambda rng, a, b: float(np.exp(rng.uniform(np.log(a), np.log(b)))),
    "normal": lambda rng, a, b: rng.normal(a, b),
    "integers": lambda rng, a, b: int(rng.integers(int(a), int(b), endpoint=True)),
}


@dataclass(frozen=True)
class Until:
    """When seeds are enough: the 95 % interval of a key figure's mean is this narrow, at every point by itself."""

    figure: str
    share: float | None  # half width over the mean's magnitude
    width: float | None  # half width in the figure's own unit

    def reached(self, mean: float, half: float) -> bool:
        """Whether a mean known to ± ``half`` is known well enough."""
        limit = self.width if self.share is None else self.share * abs(mean)
        return limit is not None and half <= limit


@dataclass(frozen=True)
class Case:
    """One run of a sweep."""

    index: int  # its row in the table
    point: int  # cases of a point differ in nothing but the seed
    seed: int
    values: Mapping[str, Any]  # parameter as the sweep file names it -> value, or label of an alternative
    sets: Mapping[str, Any]  # what is replaced in the scenario: path -> value


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says, checked: every value was tried on the scenario before anything runs."""

    file: Path
    title: str
    scenario: Path
    sets: Mapping[str, Any]
    axes: Mapping[str, tuple[tuple[Any, Mapping[str, Any]], ...]]  # parameter -> (value or label, what it sets)
    draws: tuple[Mapping[str, Any], ...] = (MappingProxyType({}),)  # joint random values, path -> value
    seeds: tuple[int, ...] = (0,)
    until: Until | None = None
    keep: bool = False  # the runs' directories
    digest: str = field(default="", compare=False)  # of the scenario and the files it names

    @property
    def points(self) -> int:
        """Combinations of parameters, seeds apart."""
        return int(np.prod([len(values) for values in self.axes.values()], dtype=object)) * len(self.draws)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what varies, in the order of the file; seeds apart."""
        return (*self.axes, *self.draws[0])

    def cases(self) -> Iterator[Case]:
        """All cases in the order of the table: the last parameter of the file changes faster than the first, seeds fastest."""
        point = index = 0
        for chosen in itertools.product(*self.axes.values()):
            values = {name: value for name, (value, _) in zip(self.axes, chosen, strict=True)}
            sets = dict(self.sets)
            for _, replaced in chosen:
                sets |= replaced
            for drawn in self.draws:
                for seed in self.seeds:
                    yield Case(index, point, seed, values | dict(drawn), sets | dict(drawn))
                    index += 1
                point += 1

    def key(self, case: Case, code: str) -> str:
        """What a case's result follows from: equal keys, equal rows."""
        text = json.dumps([self.digest, code, sorted(case.sets.items()), case.seed], default=str)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def read_sweep(file: str | Path, sets: Mapping[str, Any] = MappingProxyType({})) -> Sweep:
    """The sweep in a file, with some of its keys replaced first (``{"draw.count": 5}``).

    Raises:
        ScenarioError: all that is wrong with it, each with file, line and column: unknown keys, empty lists, values the scenario refuses.
    """
    document = read(file, sets)
    given = document.value
    for key in given:
        if key not in KEYS:
            rule = f"unknown key; did you mean {nearest(key, list(KEYS))[0]!r}? known: {', '.join(KEYS)}"
            document.complain((key,), rule, key=True)
    if not isinstance(given.get("scenario"), str):
        document.complain(("scenario",), "must name a scenario file, beside this one or by a whole path")
        document.verdict()
    base = Path(file).parent / given["scenario"]
    fixed = _mapping(document, "set")
    over = _mapping(document, "over")
    seeds = _seeds(document, over)
    axes = {name: _axis(document, name, value) for name, value in over.items() if name != "seed"}
    draws = _draws(document)
    for name in axes.keys() & draws[0].keys():
        document.complain(("draw", "of", name), "is varied in over: already")
    until = _until(document)
    keep = given.get("keep", False)
    if not isinstance(keep, bool):
        document.complain(("keep",), "must be true or false", shown(keep))
    document.verdict()
    try:
        scenario = load(base, fixed)
    except ScenarioError as wrong:
        for problem in wrong.problems:
            place: Place = ("scenario",)
            if problem.source.startswith("--set "):
                place = ("set", next((path for path in fixed if whole(path) in problem.source), ""))
            document.complain(
                place, f"{problem.path}: {problem.rule}" if place[0] == "set" else str(problem), problem.got or None
            )
        document.verdict()
    sweep = Sweep(
        file=Path(file),
        title=str(given.get("title", Path(file).stem)),
        scenario=base,
        sets=fixed,
        axes=axes,
        draws=draws,
        seeds=seeds or (scenario.seed,),
        until=until,
        keep=keep,
        digest=_digest(dump(replace(scenario, seed=0))),
    )
    if not sweep.points * len(sweep.seeds) <= MOST_CASES:
        document.complain(("over",), f"amounts to {sweep.points * len(sweep.seeds)} runs; at most {MOST_CASES}")
        document.verdict()
    _try_each(document, sweep)
    document.verdict()
    return sweep


def _mapping(document: Document, key: str) -> dict[str, Any]:
    value = document.value.get(key) or {}
    if not isinstance(value, dict):
        document.complain((key,), "must be a mapping of paths, as --set names them", shown(value))
        return {}
    return value


def _axis(document: Document, name: str, value: Any) -> tuple[tuple[Any, Mapping[str, Any]], ...]:
    """One line of ``over``: a list, a range, or named alternatives that set several values each."""
    place = ("over", name)
    if isinstance(value, dict) and not value.keys() & {"start", "stop"}:
        for label, sets in value.items():
            if not isinstance(sets, dict):
                document.complain((*place, label), "an alternative sets values: {path: value, …}", shown(sets))
        if not value:
            document.complain(place, "is empty: there is nothing to run")
        return tuple((label, sets) for label, sets in value.items() if isinstance(sets, dict))
    return tuple((entry, {name: entry}) for entry in _values(document, place, value))


def _values(document: Document, place: Place, value: Any) -> tuple[Any, ...]:
    """A list, ``{start, stop, step}``, ``{start, stop, count, scale: linear | log}``, or ``"0..99"``."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*", value)):
        low, high = map(int, found.groups())
        values: tuple[Any, ...] = tuple(range(low, min(high, low + MOST_CASES) + 1))
    elif isinstance(value, dict):
        return _range(document, place, value)
    elif isinstance(value, list):
        values = tuple(value)
    else:
        document.complain(
            place, "must be a list, {start, stop, step}, {start, stop, count, scale: log}, or 0..99", shown(value)
        )
        return ()
    if not values:
        document.complain(place, "is empty: there is nothing to run")
    if len({json.dumps(entry, default=str) for entry in values}) < len(values):
        document.complain(place, "holds a value twice", shown(list(values)))
    return values


def _range(document: Document, place: Place, value: dict[str, Any]) -> tuple[Any, ...]:
    numbers = {key: value[key] for key in ("start", "stop", "step", "count") if key in value}
    rule = ""
    if value.keys() - {*numbers, "scale"} or not {"start", "stop"} <= numbers.keys():
        rule = "a range is {start, stop, step} or {start, stop, count, scale: linear | log}"
    elif any(isinstance(n, bool) or not isinstance(n, int | float) or not np.isfinite(n) for n in numbers.values()):
        rule = "start, stop, step and count must be finite numbers"
    elif ("step" in numbers) == ("count" in numbers):
        rule = "a range has either step or count"
    elif "step" in numbers and not (numbers["stop"] - numbers["start"]) * numbers["step"] >= 0 < abs(numbers["step"]):
        rule = "step must lead from start to stop"
    elif "count" in numbers and not (isinstance(numbers["count"], int) and 1 <= numbers["count"] <= MOST_CASES):
        rule = f"count must be a whole number from 1 to {MOST_CASES}"
    elif value.get("scale", "linear") not in ("linear", "log"):
        rule = "scale must be linear or log"
    elif value.get("scale") == "log" and not (numbers["start"] > 0 and numbers["stop"] > 0 and "count" in numbers):
        rule = "a logarithmic range has a count, and starts and stops above 0"
    if rule:
        document.complain(place, rule, json.dumps(value, default=str))
        return ()
    start, stop = numbers["start"], numbers["stop"]
    if "step" in numbers:
        steps = int(np.floor((stop - start) / numbers["step"] + 1e-9))
        if not steps < MOST_CASES:
            document.complain(place, f"has {steps + 1} values; at most {MOST_CASES}")
            return ()
        # twelve digits: 0.1 + 2 x 0.1 is 0.3 to whoever wrote the file
        return tuple(_tidy(start + n * numbers["step"]) for n in range(steps + 1))
    space = np.geomspace if value.get("scale") == "log" else np.linspace
    return tuple(_tidy(v) for v in space(start, stop, numbers["count"]).tolist())


def _tidy(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.12g}")


def _seeds(document: Document, over: Mapping[str, Any]) -> tuple[int, ...]:
    if "seed" not in over:
        return ()
    seeds = _values(document, ("over", "seed"), over["seed"])
    if any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds):
        document.complain(("over", "seed"), "seeds are whole numbers from 0", shown(list(seeds)))
    return seeds


def _draws(document: Document) -> tuple[Mapping[str, Any], ...]:
    """``draw: {count, seed, of: {path: {uniform: [a, b]}}}``; a path's draws depend on no other path."""
    draw = _mapping(document, "draw")
    if not draw:
        return ({},)
    of, count, seed = draw.get("of"), draw.get("count"), draw.get("seed", 0)
    for key in draw.keys() - {"count", "seed", "of"}:
        document.complain(("draw", key), "unknown key; known: count, seed, of", key=True)
    for key, number, least in (("count", count, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= MOST_CASES:
            document.complain(("draw", key), f"must be a whole number from {least}", shown(number))
            return ({},)
    if not isinstance(of, dict) or not of:
        document.complain(("draw", "of"), "must say what is drawn: {path: {uniform: [low, high]}}", shown(of))
        return ({},)
    columns: dict[str, list[Any]] = {}
    for path, law in of.items():
        rng = np.random.default_rng([int(seed or 0), zlib.crc32(path.encode())])
        drawn = _law(document, ("draw", "of", path), law, rng, int(count or 1))
        if drawn is not None:
            columns[path] = drawn
    return tuple({path: values[n] for path, values in columns.items()} for n in range(int(count or 1)))


def _law(document: Document, place: Place, law: Any, rng: np.random.Generator, count: int) -> list[Any] | None:
    known = (*DISTRIBUTIONS, "choice")
    if not isinstance(law, dict) or len(law) != 1 or next(iter(law)) not in known:
        document.complain(
            place, f"must be one of {', '.join(known)} with its values, e.g. {{uniform: [0, 1]}}", shown(law)
        )
        return None
    ((name, values),) = law.items()
    if name == "choice":
        if not isinstance(values, list) or not values:
            document.complain(place, "choice needs a list of values", shown(values))
            return None
        return [values[int(rng.integers(len(values)))] for _ in range(count)]
    sound = isinstance(values, list) and len(values) == 2
    if not sound or any(isinstance(v, bool) or not isinstance(v, int | float) or not np.isfinite(v) for v in values):
        document.complain(place, f"{name} needs two numbers", shown(values))
        return None
    a, b = values
    if (name == "normal" and not b > 0) or (name != "normal" and not b > a) or (name == "log_uniform" and not a > 0):
        rule = (
            "sigma must be above 0"
            if name == "normal"
            else "low must lie below high" + (", above 0" if name == "log_uniform" else "")
        )
        document.complain(place, rule, shown(values))
        return None
    return [_tidy(DISTRIBUTIONS[name](rng, a, b)) for _ in range(count)]


def _until(document: Document) -> Until | None:
    text = document.value.get("until")
    if text is None:
        return None
    found = re.fullmatch(r"\s*ci\(\s*([\w./ -]+?)\s*\)\s*<=?\s*([\d.eE+-]+)\s*(%?)\s*", str(text))
    if found is None:
        document.complain(
            ("until",), "is written `ci(rate_gbps) < 1 %`, or without % in the figure's own unit", shown(text)
        )
        return None
    name, number, percent = found.groups()
    known = list(_plain_figures())
    matching = [figure for figure in known if figure == name or figure.startswith(f"{name}_")]
    if not matching and not name.startswith(("users.", "movers.")):
        document.complain(
            ("until",), f"there is no key figure {name!r}; nearest: {', '.join(nearest(name, known)[:4])}"
        )
        return None
    try:
        limit = float(number)
    except ValueError:
        limit = -1.0
    if not limit > 0:
        document.complain(("until",), "the limit must be above 0", shown(text))
        return None
    figure = matching[0] if matching else name
    return Until(figure, limit / 100, None) if percent else Until(figure, None, limit)


def _plain_figures() -> dict[str, float | None]:
    from twin.sweep.play import figures

    return figures(Summary((), ()).told())


def _digest(text: str) -> str:
    """Of a scenario as run and of the files it names, so that a changed trace is another scenario."""
    made = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(set(re.findall(r"/[^\s\"',\]}]+", text))):
        if Path(name).is_file():
            made.update(Path(name).read_bytes())
    return made.hexdigest()


def _try_each(document: Document, sweep: Sweep) -> None:
    """Load the scenario with each value by itself, so that a wrong one is known before anything runs."""
    for name, alternatives in sweep.axes.items():
        for place, sets in _spots(document, name, alternatives):
            _try(document, sweep, place, sets)
    for path in sweep.draws[0]:
        values = [drawn[path] for drawn in sweep.draws]
        extreme = {min(values), max(values)} if all(isinstance(v, int | float) for v in values) else values[:1]
        for value in extreme:
            _try(document, sweep, ("draw", "of", path), {path: value})


def _spots(
    document: Document, name: str, alternatives: tuple[tuple[Any, Mapping[str, Any]], ...]
) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    for n, (label, sets) in enumerate(alternatives):
        entry: str | int = n if isinstance(document.value["over"][name], list) else str(label)
        spot: Place = ("over", name, entry)
        yield (spot if spot in document.spots else spot[:2]), sets


def _try(document: Document, sweep: Sweep, place: Place, sets: Mapping[str, Any]) -> None:
    try:
        load(sweep.scenario, {**sweep.sets, **sets})
    except ScenarioError as wrong:
        for problem in wrong.problems:
            said = f"{problem.path}: {problem.rule}" if problem.path else problem.rule
            document.complain(place, said, problem.got or None, spot=document.spots.get(place, (None, None))[1])
    except Misuse as wrong:
        document.complain(place, str(wrong))
