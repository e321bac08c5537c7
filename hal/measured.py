"""Measured properties from files: element patterns, codebooks and coupling matrices, as CSV or NumPy's npz."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from hal.frontend import Beam, HalfSpec
from hal.network import check_coupling
from hal.pattern import ElementPattern, check_pattern
from hal.record import Array, Complex, Float

__all__ = ["load_codebook", "load_coupling", "load_pattern", "save_codebook"]


def load_pattern(path: str | Path) -> ElementPattern:
    """An element's pattern from a file: columns (CSV) or arrays (npz) ``uy, uz`` or ``az_deg, el_deg``, and ``gain_dbi``.

    One entry a direction, on a full grid of even steps in any order; npz may hold the axes and a 2-D ``gain_dbi`` instead. Angles as in
    ``docs/conventions.md``. Raises Misuse for columns that are missing, a grid with holes, and an element that gains power.
    """
    table = _table(Path(path))
    kinds = (("cosines", ("uy", "uz"), 1.0), ("angles", ("az_deg", "el_deg"), np.pi / 180))
    fitting = [kind for kind in kinds if all(name in table for name in (*kind[1], "gain_dbi"))]
    if not fitting:
        raise Misuse(f"{path}: has {', '.join(table)}; must have uy, uz, gain_dbi or az_deg, el_deg, gain_dbi")
    axes, names, scale = fitting[0]
    first, second, gain = (np.asarray(table[name], dtype=np.float64) for name in (*names, "gain_dbi"))
    if gain.ndim == 2:
        first, second = (part.ravel() for part in np.meshgrid(first, second, indexing="ij"))
    if not first.shape == second.shape == gain.ravel().shape:
        raise Misuse(
            f"{path}: {names[0]}, {names[1]} and gain_dbi have {first.size}, {second.size} and {gain.size} entries; must be alike"
        )
    grid, index = zip(
        *(_grid(path, name, value) for name, value in zip(names, (first, second), strict=True)), strict=True
    )
    amplitude = np.full((len(grid[0]), len(grid[1])), np.nan)
    amplitude[index[0], index[1]] = 10 ** (gain.ravel() / 20)
    if first.size != amplitude.size or np.any(np.isnan(amplitude)):
        raise Misuse(
            f"{path}: {first.size} directions do not fill a grid of {len(grid[0])} x {len(grid[1])}; give every one once"
        )
    start = scale * np.array([axis[0] for axis in grid])
    step = scale * np.array([(axis[-1] - axis[0]) / (len(axis) - 1) for axis in grid])
    return check_pattern(ElementPattern(axes=axes, start=start, step=step, amplitude=amplitude))


def _grid(path: str | Path, name: str, value: Float[Array, " entry"]) -> tuple[Array, Array]:
    axis, index = np.unique(np.round(value, 9), return_inverse=True)
    steps = np.diff(axis)
    if not (len(axis) > 1 and np.all(np.isfinite(axis)) and np.all(np.abs(steps - steps[0]) <= 1e-4 * steps[0] + 2e-9)):
        raise Misuse(f"{path}: {name} must take two or more values at even steps; resample it")
    return axis, index


def load_codebook(path: str | Path, half: str, spec: HalfSpec) -> Beam:
    """Rows of beam memory from a file, ready for ``set_beam``.

    CSV: a line an element, ``slot, chain, element, phase_deg`` and, where wanted, ``amplitude`` (1) and ``delay_ps`` (of the element's delay
    line, the same for all elements of a line); elements that are not named are off. npz: the fields of ``Beam`` as they are.
    Raises Misuse for columns that are missing, an element, chain or slot that is not there, and two delays for one line.
    """
    chains, elements = spec.network.wired.shape
    if Path(path).suffix == ".npz":
        table = _table(Path(path))
        missing = {"slot", "delay_s", "phase_rad", "amplitude"} - set(table)
        if missing:
            raise Misuse(f"{path}: lacks {', '.join(sorted(missing))}; an npz codebook has the arrays of Beam")
        return Beam(half=half, **{name: table[name] for name in ("slot", "delay_s", "phase_rad", "amplitude")})
    table = _table(Path(path))
    missing = {"slot", "chain", "element", "phase_deg"} - set(table)
    if missing:
        raise Misuse(
            f"{path}: lacks the column {', '.join(sorted(missing))}; must have slot, chain, element, phase_deg"
        )
    place: dict[str, Any] = {}
    for name, limit in (("slot", spec.memory_slots), ("chain", chains), ("element", elements)):
        place[name] = np.asarray(table[name]).astype(np.int64)
        bad = np.flatnonzero((place[name] != table[name]) | (place[name] < 0) | (place[name] >= limit))
        if bad.size:
            raise Misuse(f"{path}: line {bad[0] + 2}: {name} = {table[name][bad[0]]:g}; must be 0 .. {limit - 1}")
    slot, row = np.unique(place["slot"], return_inverse=True)
    at = (row, place["chain"], place["element"])
    phase_rad, amplitude = np.zeros((len(slot), chains, elements)), np.zeros((len(slot), chains, elements))
    phase_rad[at], amplitude[at] = np.deg2rad(table["phase_deg"]), table.get("amplitude", 1.0)
    delay_s = np.zeros((len(slot), chains, spec.network.lines))
    if "delay_ps" in table and spec.network.lines:
        where = (row, place["chain"], spec.network.line[place["element"]])
        delay_s[where] = table["delay_ps"] * 1e-12
        other = np.flatnonzero(delay_s[where] != table["delay_ps"] * 1e-12)
        if other.size:
            raise Misuse(f"{path}: line {other[0] + 2}: delay_ps differs from another element's on the same delay line")
    return Beam(half=half, slot=slot, delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude)


def save_codebook(path: str | Path, beam: Beam) -> None:
    """Write rows as an npz that ``load_codebook`` reads back bit for bit."""
    np.savez(path, **{name: getattr(beam, name) for name in ("slot", "delay_s", "phase_rad", "amplitude")})


def load_coupling(path: str | Path) -> Complex[Array, "element element"]:
    """A coupling matrix: row n what element n radiates when each element is fed alone. CSV of ``0.99+0.02j``, or npz with ``coupling``.

    Raises Misuse for a matrix that is not square or gains power (``hal.network.check_coupling``).
    """
    if Path(path).suffix == ".npz":
        table = _table(Path(path))
        if "coupling" not in table:
            raise Misuse(f"{path}: has {', '.join(table)}; must have coupling")
        return check_coupling(table["coupling"])
    try:
        lines = [line for line in csv.reader(Path(path).read_text(encoding="utf-8").splitlines()) if line]
        matrix = np.array([[complex(entry.strip().replace(" ", "")) for entry in line] for line in lines])
    except (OSError, ValueError) as error:
        raise Misuse(f"{path}: cannot be read as a matrix of complex numbers: {error}") from None
    return check_coupling(matrix)


def _table(path: Path) -> dict[str, Any]:
    """Named columns of a file, numbers only."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        lines = list(
            csv.DictReader(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        )
        names = [name for name in (lines[0] if lines else {}) if name]
        return {name.strip(): np.array([float(line[name]) for line in lines]) for name in names}
    except (OSError, ValueError, TypeError) as error:
        raise Misuse(f"{path}: cannot be read as a table of numbers: {error}") from None
