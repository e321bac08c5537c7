"""Which components a family has: one file in its package is one kind, and other packages add theirs by entry point."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from hal.errors import Misuse

__all__ = ["describe", "kind_of", "kinds", "make", "names", "nearest", "resolve"]


def names(package: str) -> tuple[str, ...]:
    """Every kind of a family by name, sorted, without importing any of them.

    A kind is a module of ``package`` whose name does not start with an underscore, or an entry point of another
    distribution in the group ``isac_twin.<last part of package>``.
    """
    return tuple(sorted({*_modules(package), *(point.name for point in _points(package))}))


def resolve(package: str, kind: str) -> type:
    """The component class that ``kind`` names; only that one component is imported.

    ``kind`` is a module of the package, an entry point, or ``pkg.mod:Class`` for code that is not installed as either.
    A module's class is the name in its ``__all__`` that spells the module's (``gauss_markov``: ``GaussMarkov``), or else the first.

    Raises:
        Misuse: the kind is unknown (the known ones are listed, nearest first), named twice, or cannot be imported.
    """
    if ":" in kind:
        module, _, name = kind.partition(":")
        return _component(package, kind, _attribute(kind, package, module, name))
    points = [point for point in _points(package) if point.name == kind]
    if kind in _modules(package):
        if points:
            raise Misuse(
                f"kind {kind!r} is a module of {package} and an entry point ({points[0].value}): rename the entry point"
            )
        loaded = _load(kind, package, f"{package}.{kind}")
        public = getattr(loaded, "__all__", ())
        if not public:
            raise Misuse(
                f"kind {kind!r} of {package}: the module has no __all__; its first name must be the component's class"
            )
        spelled = [name for name in public if name.lower() == kind.replace("_", "").lower()]
        return _component(package, kind, _attribute(kind, package, f"{package}.{kind}", [*spelled, *public][0]))
    if len(points) > 1:
        raise Misuse(
            f"kind {kind!r} of {package} is offered by {', '.join(point.value for point in points)}: keep one installed"
        )
    if points:
        try:
            return _component(package, kind, points[0].load())
        except Misuse:
            raise
        except Exception as error:
            raise Misuse(
                f"kind {kind!r} of {package} (entry point {points[0].value}) cannot be loaded: {_said(error)}"
            ) from error
    known = names(package)
    ordered = ", ".join(nearest(kind, known)) or "none"
    raise Misuse(f"kind {kind!r} is not one of {package}'s: known, nearest first: {ordered}; or write pkg.mod:Class")


def make(package: str, kind: str) -> Any:
    """A component with its default parameters; what a field that is a component has for a default."""
    return resolve(package, kind)()


def kinds(package: str) -> dict[str, type]:
    """Every component of a family, all imported: kind -> class.

    Raises:
        Misuse: one of them cannot be loaded; the error names it.
    """
    return {name: resolve(package, name) for name in names(package)}


def describe(package: str) -> tuple[tuple[str, str], ...]:
    """``(kind, first line of its class's docstring)`` of a whole family, for people to choose from.

    A kind that cannot be loaded is listed with what is wrong with it, so that one broken plug-in hides no other.
    """
    lines = []
    for name in names(package):
        try:
            lines.append((name, (inspect.getdoc(resolve(package, name)) or "").partition("\n")[0]))
        except Misuse as error:
            lines.append((name, f"broken: {error}"))
    return tuple(lines)


def kind_of(package: str, component: object) -> str:
    """The kind a component would be written as in a scenario file: the inverse of ``resolve``."""
    cls = component if isinstance(component, type) else type(component)
    home, _, name = cls.__module__.rpartition(".")
    if home == package and name in _modules(package) and resolve(package, name) is cls:
        return name
    for point in _points(package):
        if point.value.replace(" ", "") == f"{cls.__module__}:{cls.__qualname__}":
            return point.name
    return f"{cls.__module__}:{cls.__qualname__}"


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """``known`` in order of likeness to ``word``, ties in alphabetical order."""
    return sorted(known, key=lambda name: (-difflib.SequenceMatcher(None, word.lower(), name.lower()).ratio(), name))


def _modules(package: str) -> tuple[str, ...]:
    home = importlib.import_module(package)
    return tuple(found.name for found in pkgutil.iter_modules(home.__path__) if not found.name.startswith("_"))


def _points(package: str) -> tuple[metadata.EntryPoint, ...]:
    return _declared(metadata.entry_points, f"isac_twin.{package.rpartition('.')[2]}", tuple(sys.path))


@lru_cache(maxsize=64)  # reading what is installed takes milliseconds, and writing a scenario asks some thirty times
def _declared(read: Any, group: str, path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    return tuple(read(group=group))


def _load(kind: str, package: str, module: str) -> object:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a plug-in may fail in any way on import; its name is what the user needs
        raise Misuse(f"kind {kind!r} of {package} cannot be loaded: {_said(error)}") from error


def _attribute(kind: str, package: str, module: str, name: str) -> object:
    loaded = _load(kind, package, module)
    for part in name.split("."):
        if not hasattr(loaded, part):
            offered = ", ".join(nearest(name, _classes(loaded))) or "none"
            raise Misuse(f"kind {kind!r} of {package}: {module} has no {name!r}; its classes: {offered}")
        loaded = getattr(loaded, part)
    return loaded


def _component(package: str, kind: str, found: object) -> type:
    if not (isinstance(found, type) and is_dataclass(found)):
        raise Misuse(f"kind {kind!r} of {package} is {found!r}: a component is a frozen dataclass of its parameters")
    return found


def _classes(module: object) -> Iterator[str]:
    return (name for name, value in vars(module).items() if isinstance(value, type) and is_dataclass(value))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
