"""A sweep from file to table: what is done already is not done again, points that are known well enough get no more seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hal.errors import Misuse
from twin.sweep.cases import Case, Sweep, read_sweep
from twin.sweep.farm import Farm, farm
from twin.sweep.play import Player, code_digest
from twin.sweep.table import Journal, mean_of, write_table

__all__ = ["Swept", "sweep"]

ROUND = 8  # seeds between two looks at how well a point is known: fixed, so that a sweep is the same on any number of workers


@dataclass(frozen=True)
class Swept:
    """A finished or interrupted sweep."""

    folder: Path
    plan: Sweep
    rows: list[dict[str, Any]]  # in the order of the cases
    played: int  # now
    known: int  # from an earlier call
    failed: int
    stopped_early: int  # points that needed fewer seeds than there are
    seconds: float
    interrupted: bool


def sweep(
    file: str | Path,
    set: Mapping[str, Any] = MappingProxyType({}),
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    say: Callable[[int, int, float], None] | None = None,
) -> Swept:
    """Play a sweep file and write ``table.parquet`` into ``out`` (default: ``sweeps/NAME``), where an interrupted one goes on.

    ``workers`` processes of this machine (None: one a core, 0: none, all is played here) or the dask cluster at ``scheduler``.
    ``say(done, total, seconds)`` is told how far it is. Equal sweeps give equal tables, but for the column ``seconds``.
    Raises ScenarioError for a sweep file that is wrong, Misuse for workers that cannot be used, RemoteFault for a scheduler that is not there.
    """
    plan = read_sweep(file, set)
    if workers is not None and not workers >= 0:
        raise Misuse(f"--workers {workers}: must be 0 (this process) or more")
    folder = Path(out) if out is not None else Path("sweeps") / plan.file.stem
    began, interrupted = time.perf_counter(), False
    with farm(workers, scheduler) as hands:
        folder.mkdir(parents=True, exist_ok=True)
        with Journal(folder / "rows.jsonl") as journal:
            conductor = Conductor(plan, journal, folder if plan.keep else None, say)
            try:
                conductor.conduct(hands)
            except KeyboardInterrupt:
                interrupted = True
            rows = conductor.rows()
    if rows:
        write_table(folder / "table.parquet", rows, plan.parameters)
    return Swept(
        folder=folder,
        plan=plan,
        rows=rows,
        played=conductor.played,
        known=conductor.known,
        failed=sum(row["error"] is not None for row in rows),
        stopped_early=conductor.stopped_early,
        seconds=time.perf_counter() - began,
        interrupted=interrupted,
    )


class Conductor:
    """Hands out the cases that are not known yet, round by round of seeds."""

    def __init__(
        self, plan: Sweep, journal: Journal, keep: Path | None, say: Callable[[int, int, float], None] | None
    ) -> None:
        self.plan, self.journal, self.say = plan, journal, say or (lambda done, total, seconds: None)
        self.keep = keep.absolute() / "runs" if keep is not None else None
        code = code_digest()
        self.cases = list(plan.cases())
        self.keys = [plan.key(case, code) for case in self.cases]
        self.known = sum(self._sound(key) for key in self.keys)
        self.played = self.stopped_early = 0
        self.done: set[int] = {c.index for c, key in zip(self.cases, self.keys, strict=True) if self._sound(key)}
        self.wanted: set[int] = set()

    def conduct(self, hands: Farm) -> None:
        """Play until every point has its seeds, or enough of them."""
        began = time.perf_counter()
        open_points = set(range(self.plan.points))
        for first in self._rounds():
            last = len(self.plan.seeds) if first is None else first + ROUND
            due = [
                c
                for c in self.cases
                if c.point in open_points and (first or 0) <= c.index % len(self.plan.seeds) < last
            ]
            self.wanted |= {c.index for c in due}
            total = len(self.cases) if self.plan.until is None else len(self.wanted)
            todo = [c for c in due if c.index not in self.done]
            self.say(len(self.done & self.wanted), total, 0.0)
            for done in hands.spread(Player(self.plan.scenario.absolute(), self.keep), todo):
                self.journal.add([self._whole(case, row or {}, why) for case, row, why in done])
                self.played += len(done)
                self.done |= {case.index for case, _, _ in done}
                self.say(len(self.done & self.wanted), total, (time.perf_counter() - began) / self.played)
            if self.plan.until is not None:
                satisfied = {point for point in open_points if self._known_well(point)}
                if last < len(self.plan.seeds):
                    self.stopped_early += len(satisfied)
                open_points -= satisfied
            if not open_points:
                break

    def rows(self) -> list[dict[str, Any]]:
        """The rows there are of the cases that are wanted, in their order, with the indices of this sweep."""
        found = []
        for case, key in zip(self.cases, self.keys, strict=True):
            if key in self.journal.rows and case.index in self.wanted:
                found.append(self.journal.rows[key] | self._head(case))
        return found

    def _rounds(self) -> Iterator[int | None]:
        if self.plan.until is None:
            yield None
        else:
            yield from range(0, len(self.plan.seeds), ROUND)

    def _known_well(self, point: int) -> bool:
        until = self.plan.until
        if until is None:
            return False
        per = len(self.plan.seeds)
        mine = range(point * per, (point + 1) * per)
        values = [
            self.journal.rows[self.keys[i]].get(until.figure) for i in mine if i in self.wanted and i in self.done
        ]
        mean = mean_of(values)
        return until.reached(mean.value, mean.half)

    def _sound(self, key: str) -> bool:
        """Whether a case has a row that need not be played again: one without an error."""
        return key in self.journal.rows and self.journal.rows[key]["error"] is None

    def _head(self, case: Case) -> dict[str, Any]:
        return {"index": case.index, "point": case.point, "seed": case.seed, **case.values}

    def _whole(self, case: Case, row: Mapping[str, Any], why: str) -> dict[str, Any]:
        return {"key": self.keys[case.index], **self._head(case), **row, "error": why or None}
