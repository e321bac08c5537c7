"""One line of the table: two ways to the same result, first checked against each other, then timed by turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Absent", "Disagreement", "Pace", "Row", "Side", "Spread", "Timed", "Work", "apart", "measured"]


class Timed(NamedTuple):
    """What a side returns that times itself: a child's CPU time, or a lateness."""

    seconds: float
    result: Any


@dataclass(frozen=True)
class Side:
    """One way of doing a row's work."""

    run: Callable[[], Any]
    items: float = 1.0  # of the row's unit in one call; below 1 the time is multiplied up, and the table says so


@dataclass(frozen=True)
class Work:
    """A row's data, made ready: both ways, what no way can beat, and how far their results may be apart."""

    naive: Side
    ours: Side
    apart: Callable[[Any, Any], float]  # of (ours, naive)
    within: float
    floor: Side | None = None
    close: Callable[[], None] = lambda: None
    about: str = ""  # the peer's name and version


@dataclass(frozen=True)
class Row:
    """What is compared, in words, and how to make it ready."""

    name: str
    unit: str  # what one item is
    naive: str  # the other way, or the peer
    ready: Callable[[], Work]
    target: float | None = None  # of the ratio
    floor: str = ""  # what bounds ours from below, timed beside it
    note: str = ""  # differences in the work, and what was left out
    same: str = "the same result"  # what ``apart`` measures
    needs: tuple[str, ...] = ()  # modules that may be missing
    only: Literal["", "full"] = ""  # "full": not in quick, since it takes long to get ready


@dataclass(frozen=True)
class Pace:
    """How long a row is timed: turns go on until both are reached."""

    turns: int  # at least
    seconds: float  # all sides together
    most: int = 200  # turns


class Spread(NamedTuple):
    """Quartiles of samples."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        """Those of so many."""
        return cls(*(float(v) for v in np.percentile(samples, (25, 50, 75))))


class Absent(Exception):
    """What a row needs is not here; the message says what, and how to get it."""


class Disagreement(Exception):
    """Two ways that were to give the same do not."""


def apart(ours: Any, naive: Any) -> float:
    """The largest difference, over the largest entry of the naive result."""
    one, other = np.asarray(ours), np.asarray(naive)
    if one.shape != other.shape:
        return float("inf")
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


def measured(row: Row, pace: Pace) -> dict[str, Any]:
    """Agreement, then times of an item in microseconds, ratio and distance from the floor, each with its quartiles.

    Every turn calls the naive way, ours and the floor one after the other; a ratio is of one turn's. Short sides are repeated within a turn until they
    last two milliseconds. Raises Absent for what is not installed, Disagreement where results are farther apart than the row allows.
    """
    if missing := [name for name in row.needs if find_spec(name) is None]:
        raise Absent(f"not installed: {', '.join(missing)}")
    work = row.ready()
    try:
        return {**_described(row, work), **_timed(row, work, pace)}
    finally:
        work.close()


def _described(row: Row, work: Work) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "naive": row.naive,
        "peer": work.about,
        "target": row.target,
        "floor": row.floor,
        "note": row.note,
        "extrapolated": work.naive.items < 1,
    }


def _timed(row: Row, work: Work, pace: Pace) -> dict[str, Any]:
    sides = {"naive": work.naive, "ours": work.ours, **({} if work.floor is None else {"floor": work.floor})}
    first, took = {}, {}
    for name, side in sides.items():
        begun = time.process_time()
        first[name] = side.run()
        took[name] = time.process_time() - begun
    gap = work.apart(*(_result(first[name]) for name in ("ours", "naive")))
    if not gap <= work.within:
        raise Disagreement(
            f"{row.name}: {row.same}: apart by {gap:.3g}, must be within {work.within:.3g}; nothing was timed"
        )
    repeats = {
        name: 1 if isinstance(first[name], Timed) or (name == "naive" and took[name] > 0.1) else _repeats(side)
        for name, side in sides.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in sides}
    begun, turn = time.perf_counter(), 0
    while turn < pace.turns or (time.perf_counter() - begun < pace.seconds and turn < pace.most):
        for name, side in sides.items():
            samples[name].append(_sample(side, repeats[name]) / side.items)
        turn += 1
    ratio = [a / b for a, b in zip(samples["naive"], samples["ours"], strict=True)]
    above = [a / b for a, b in zip(samples["ours"], samples["floor"], strict=True)] if "floor" in samples else None
    return {
        "apart": gap,
        "within": work.within,
        "turns": turn,
        **{f"{name}_us": Spread.of([1e6 * v for v in values])._asdict() for name, values in samples.items()},
        "ratio": Spread.of(ratio)._asdict(),
        "above_floor": None if above is None else Spread.of(above)._asdict(),
        "met": None if row.target is None else bool(np.median(ratio) >= row.target),
    }


def _result(value: Any) -> Any:
    return value.result if isinstance(value, Timed) else value


def _sample(side: Side, repeats: int) -> float:
    """CPU seconds of a call, the mean of so many."""
    own, begun = 0.0, time.process_time()
    for _ in range(repeats):
        value = side.run()
        if isinstance(value, Timed):
            own += value.seconds
    return (own or time.process_time() - begun) / repeats


def _repeats(side: Side) -> int:
    begun = time.process_time()
    side.run()
    once = time.process_time() - begun
    return max(1, min(10_000, int(2e-3 / max(once, 1e-7))))
