"""What a field may hold, said once beside the field: unit in files, bounds, and the sentence when it is broken.

A component's field reads ``delay_range_s: Annotated[float, In("ps"), Gt(0)] = 100e-12``: SI inside, picoseconds in a scenario file
(where the key becomes ``delay_range_ps``), and a bound. Bounds are ``annotated_types``' and apply to the value as written in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from hal.errors import Misuse

__all__ = ["UNITS", "Family", "Ge", "Gt", "In", "Le", "Lt", "MinLen", "finite", "positive", "shaped", "unit_of"]

# file unit -> (SI suffix, to SI). Decibels are turned into ratios or watts only where the target's name says so.
UNITS: dict[str, tuple[str, Any]] = {
    "ghz": ("hz", lambda x: x * 1e9),
    "mhz": ("hz", lambda x: x * 1e6),
    "khz": ("hz", lambda x: x * 1e3),
    "hz": ("hz", float),
    "s": ("s", float),
    "ms": ("s", lambda x: x * 1e-3),
    "us": ("s", lambda x: x * 1e-6),
    "ns": ("s", lambda x: x * 1e-9),
    "ps": ("s", lambda x: x * 1e-12),
    "m": ("m", float),
    "mps": ("mps", float),
    "kmh": ("mps", lambda x: x / 3.6),
    "gbps": ("bps", lambda x: x * 1e9),
    "bps": ("bps", float),
    "deg": ("rad", np.deg2rad),
    "rad": ("rad", float),
    "dbm": ("w", lambda x: 10 ** (x / 10) * 1e-3),
    "w": ("w", float),
    "dbsm": ("m2", lambda x: 10 ** (x / 10)),
    "m2": ("m2", float),
    "k": ("k", float),
    "c": ("k", lambda x: x + 273.15),
    "hpa": ("pa", lambda x: x * 100.0),
    "pa": ("pa", float),
}


@dataclass(frozen=True)
class In:
    """The unit a field is written in in a scenario file; its key there ends in this unit instead of the SI one."""

    unit: str


@dataclass(frozen=True)
class Family:
    """The package whose members may fill a field: the scenario's ``kind`` names a module of it."""

    package: str


def unit_of(name: str) -> str | None:
    """The unit a name ends in (``delay_s`` -> ``s``), or None."""
    tail = name.rpartition("_")[2]
    return tail if tail in UNITS else None


def positive(field: str, value: float, fix: str = "") -> float:
    """Return ``value`` if it is a finite number above zero, else raise Misuse with the field, the value and the fix."""
    if not (np.isfinite(value) and value > 0):
        raise Misuse(f"{field} = {value!r}: must be a finite number > 0{'; ' + fix if fix else ''}")
    return value


def finite(field: str, value: Any) -> Any:
    """Return ``value`` if every entry is finite, else raise Misuse that names the first bad entry."""
    bad = ~np.isfinite(value)
    if np.any(bad):
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise Misuse(
            f"{field}{list(where) if where else ''} = {np.asarray(value)[where]!r}: must be finite; {int(bad.sum())} of {bad.size} entries are not"
        )
    return value


def shaped(field: str, value: Any, shape: tuple[int | None, ...]) -> Any:
    """Return ``value`` if its shape is ``shape`` (None: any length), else raise Misuse with both shapes."""
    got = np.shape(value)
    if len(got) != len(shape) or any(want is not None and want != have for want, have in zip(shape, got, strict=True)):
        raise Misuse(f"{field}: has shape {got}, must be {tuple('any' if s is None else s for s in shape)}")
    return value
