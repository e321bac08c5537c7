"""The world: every mover of a run behind one clock, each with a number that nobody else's coming or going changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Float, Int, record
from twin.mobility import Mobility, Motion
from twin.physics.draws import Draws
from twin.records import Truth

__all__ = ["Mover", "World", "entity_of"]


@record
class Mover:
    """One entry of a scenario's movers: a law of motion, and what moves so (all movers of a trace are alike)."""

    name: str
    is_user: bool  # False: a reflector only
    rcs_m2: float  # radar cross-section
    mobility: Mobility


class World:
    """Truth at ascending instants.

    A mover is named by its entry, or ``entry/inner`` where a law moves several. Its entity number is 31 bits of a hash of that
    name: no random stream keyed by it moves when another mover is added, removed or listed elsewhere.

    Raises:
        Misuse: no movers, an empty name or one that is there twice, a radar cross-section that is not finite and >= 0, or two
            names with one number.
    """

    def __init__(self, movers: Sequence[Mover], draws: Draws) -> None:
        self._names: dict[int, str] = {}
        self._laws: list[tuple[Mobility, Any]] = []
        if not movers:
            raise Misuse("movers: is empty; a world needs at least one")
        numbers, is_user, rcs_m2 = [], [], []
        groups: dict[Any, list[int]] = {}  # entries whose laws move as one
        for i, mover in enumerate(movers):
            if not mover.name:
                raise Misuse(f"movers[{i}].name is empty; name every mover")
            if not 0 <= mover.rcs_m2 < np.inf:
                raise Misuse(f"movers[{i}] {mover.name!r}: rcs_m2 = {mover.rcs_m2!r}: must be finite and >= 0")
            numbers.append([self._enter(mover.name, inner) for inner in mover.mobility.movers()])
            groups.setdefault(type(mover.mobility) if hasattr(mover.mobility, "together") else i, []).append(i)
        entity: list[int] = []
        for entries in groups.values():
            laws = [movers[i].mobility for i in entries]
            law: Any = laws[0] if len(laws) == 1 else type(laws[0]).together(laws)  # type: ignore[attr-defined]
            own = [number for i in entries for number in numbers[i]]
            self._laws.append((law, law.start(np.array(own, np.int64), draws)))
            entity += own
            is_user += [movers[i].is_user for i in entries for _ in numbers[i]]
            rcs_m2 += [float(movers[i].rcs_m2) for i in entries for _ in numbers[i]]
        self._order = np.argsort(np.array(entity, np.int64))
        self._entity = np.array(entity, np.int64)[self._order]
        self._is_user = np.array(is_user, bool)[self._order]
        self._rcs_m2: Float[Array, " entity"] = np.array(rcs_m2)[self._order]
        self._t_ns: int | None = None

    @property
    def names(self) -> Mapping[int, str]:
        """Entity number -> name, of all movers of the run, present or not, in order of declaration."""
        return MappingProxyType(self._names)

    @property
    def users(self) -> Int[Array, " user"]:
        """Entity numbers of all users of the run, present or not, ascending."""
        return np.asarray(self._entity[self._is_user])

    def at(self, t_ns: int) -> Truth:
        """Return who is present at ``t_ns`` (integer nanoseconds, never earlier than at the call before), entities ascending.

        Raises:
            Misuse: time runs backwards.
        """
        if self._t_ns is not None and not t_ns >= self._t_ns:
            raise Misuse(
                f"t_ns = {t_ns}: must be >= {self._t_ns}, the time last asked for; make a new world to go back"
            )
        self._t_ns = t_ns
        motions: list[Motion] = []
        for i, (law, state) in enumerate(self._laws):
            state, motion = law.at(state, t_ns)
            self._laws[i] = (law, state)
            motions.append(motion)
        present, position_m, velocity_mps = (
            getattr(motions[0], name)
            if len(motions) == 1
            else np.concatenate([getattr(motion, name) for motion in motions])
            for name in ("present", "position_m", "velocity_mps")
        )
        here = present[self._order]
        row, entity, is_user, rcs_m2 = self._order, self._entity, self._is_user, self._rcs_m2
        if not here.all():
            row, entity, is_user, rcs_m2 = row[here], entity[here], is_user[here], rcs_m2[here]
        return Truth(
            t_ns=t_ns,
            entity=entity,
            is_user=is_user,
            position_m=position_m.take(row, axis=0),
            velocity_mps=velocity_mps.take(row, axis=0),
            rcs_m2=rcs_m2,
        )

    def _enter(self, name: str, inner: str) -> int:
        full = f"{name}/{inner}" if inner else name
        number = entity_of(full)
        if number in self._names:
            other = self._names[number]
            if other == full:
                raise Misuse(f"movers: the name {full!r} is there twice; rename one")
            raise Misuse(f"movers: the names {full!r} and {other!r} share the number {number}; rename one")
        self._names[number] = full
        return number


def entity_of(name: str) -> int:
    """Return the entity number of a mover's full name: 31 bits of BLAKE2b, so never negative (``SITE`` is -1)."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little") & 0x7FFFFFFF
