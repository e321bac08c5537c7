"""Two runs' tables of key figures, read side by side in constant memory, and what their differences are worth."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Float
from twin.history import Course

__all__ = ["CONFIDENCE", "SAME", "Figure", "Paired", "figures_of", "interval", "rows_of"]

BATCHES, FEWEST = 24, 6  # of a batch-means interval: at first, and when batches turn out to depend on each other
STRETCHES = 1920  # that a run's subframes are condensed to before batches are cut
TOGETHER = 512  # rows turned to numbers at once
CONFIDENCE = 0.95  # of all intervals together
SAME = "no difference"
MEANS = {  # columns of kpi.csv that are compared as they are, with what people read them in
    "rate_bps": ("rate, Gbit/s", 1e-9),
    "predicted_bps": ("believed rate, Gbit/s", 1e-9),
    "snr_db": ("SNR, dB", 1.0),
    "beam_loss_db": ("beam loss, dB", 1.0),
    "outage_blocks": ("outage, blocks a subframe", 1.0),
    "position_error_m": ("track error, m", 1.0),
    "tracks_confirmed": ("confirmed tracks", 1.0),
    "tracks_false": ("false tracks", 1.0),
    "detections": ("detections a subframe", 1.0),
    "false_alarms": ("false alarms a subframe", 1.0),
    "side_lobe_echoes": ("side-lobe echoes a subframe", 1.0),
    "missed": ("lit movers missed a subframe", 1.0),
    "nees": ("consistency of detections (4)", 1.0),
    "track_nees": ("consistency of tracks (3)", 1.0),
    "users_bound": ("users bound", 1.0),
    "users_bound_right": ("users bound to the right track", 1.0),
    "sensing_share": ("share of time spent sensing", 1.0),
    "beams_set": ("beam rows set a subframe", 1.0),
    "beams_clipped": ("settings clipped a subframe", 1.0),
}
SQUARES = {
    "uy": ("angle", np.rad2deg(1e3), "mdeg²"),
    "uz": ("angle", np.rad2deg(1e3), "mdeg²"),
    "range_m": ("range", 1e3, "mm²"),
    "velocity_mps": ("speed", 1e3, "(mm/s)²"),
}


class Figure(NamedTuple):
    """A key figure: which columns it is made of, in which unit, and how."""

    name: str
    columns: list[int]
    factor: float
    join: str  # "sum"; "squares": summed; "ratio": mean square of columns over ``bounds``
    bounds: list[int]


def figures_of(columns: list[str]) -> list[Figure]:
    """The key figures that a table with these columns has: over all users and movers first, then one by one.

    Errors of one mover are squares, whose mean is what an RMS is of. Errors of all movers are squares over their bounds': which mover a dwell
    looked at does then not matter.
    """
    index, found = {name: i for i, name in enumerate(columns)}, {}
    for name, i in index.items():
        kind, _, who = name.partition(".")
        if kind in MEANS:
            label, factor = MEANS[kind]
            found[name] = Figure(f"{label}: {who}" if who else label, [i], factor, "sum", [])
            if kind == "rate_bps":
                found.setdefault(" rates", Figure(f"{label}: all users", [], factor, "sum", []))[1].append(i)
        elif kind == "error":
            key, _, who = who.partition(".")
            label, factor, unit = SQUARES[key]
            found.setdefault(f"{label}.{who}", Figure(f"{label} error, {unit}: {who}", [], factor, "squares", []))[
                1
            ].append(i)
            bound = index.get(f"bound.{key}.{who}")
            if bound is not None:
                whole = found.setdefault(
                    f" {label}", Figure(f"{label} error² / bound²: all movers", [], 1.0, "ratio", [])
                )
                whole[1].append(i)
                whole[4].append(bound)
    return [figure for _, figure in sorted(found.items(), key=lambda entry: not entry[0].startswith(" "))]


def valued(figures: list[Figure], table: Float[Array, "row column"]) -> Float[Array, "row figure"]:
    """The figures of some subframes; NaN where nothing was measured."""
    out = np.full((len(table), len(figures)), np.nan)
    for i, figure in enumerate(figures):
        value = table[:, figure.columns] * figure.factor
        if figure.join != "sum":
            value = value**2
        if figure.join == "ratio":
            value = value / table[:, figure.bounds] ** 2
        here = np.isfinite(value)
        count = here.sum(axis=1)
        total = np.where(here, value, 0.0).sum(axis=1) / (count.clip(1) if figure.join == "ratio" else 1)
        out[:, i] = np.where(count > 0, total, np.nan)
    return out


def rows_of(folder: Path) -> tuple[list[str], Iterator[list[str]]]:
    """Names and rows of a run's kpi.csv; a last row that was cut off is left out. Misuse if there is none to compare."""
    file = folder / "kpi.csv"
    if not file.is_file():
        raise Misuse(f"{folder}: has no kpi.csv, so there is nothing to compare; run the scenario again")
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        head = next(csv.reader(stream), [])
    if not {"k", "t_ns"} <= set(head):
        raise Misuse(f"{file}: is empty or not a table of key figures; run the scenario again")

    def rows() -> Iterator[list[str]]:
        # the file's last line counts only if it was ended: a cut number still reads as a number
        with file.open(newline="", encoding="utf-8", errors="replace") as stream:
            yield from csv.reader(line for line in islice(stream, 1, None) if line.endswith("\n"))

    return head, (row for row in rows() if len(row) == len(head))


class Paired:
    """What both runs have in the same subframes, condensed; those before ``since`` are only looked through for a difference."""

    def __init__(self, a: Path, b: Path, since: int = 0) -> None:
        self.folders, self.since = (a, b), since
        self.rows = [0, 0]
        self.paired = 0
        self.first: dict[str, Any] | None = None  # where the tables first differ
        self.figures: list[Figure] = []
        self.course = Course(0)  # of each figure: a, b and b - a, where both have it
        self.differs: Array = np.zeros(0, bool)
        self.notes: list[str] = []  # on what could not be compared

    def read(self) -> Paired:
        """Go through both tables once."""
        (head_a, rows_a), (head_b, rows_b) = (rows_of(folder) for folder in self.folders)
        self._strangers(head_a, head_b)
        both = [name for name in head_a if name in head_b]
        places = [np.array([head.index(name) for name in both]).tolist() for head in (head_a, head_b)]
        self.figures = figures_of(both)
        self.course, self.differs = Course(3 * len(self.figures), STRETCHES), np.zeros(len(self.figures), bool)
        with closing(self._together(zip_longest(rows_a, rows_b), both, places)) as pairs:  # type: ignore[type-var]
            while chunk := list(islice(pairs, TOGETHER)):
                x, y = (valued(self.figures, np.array([pair[i] for pair in chunk], dtype=np.float64)) for i in (0, 1))
                shared = np.isfinite(x) & np.isfinite(y)
                x, y = np.where(shared, x, np.nan), np.where(shared, y, np.nan)
                self.differs |= (shared & (x != y)).any(axis=0)
                for row in np.hstack([x, y, y - x]):
                    self.course.add(self.paired, row)
                    self.paired += 1
        if self.rows[0] != self.rows[1]:
            self.notes.append(
                f"The runs have {self.rows[0]} and {self.rows[1]} subframes; the first {self.paired} are compared."
            )
        return self

    def _strangers(self, head_a: list[str], head_b: list[str]) -> None:
        known = [
            {name.partition(".")[2] for name in head if name.startswith(("rate_bps.", "tracked."))}
            for head in (head_a, head_b)
        ]
        for folder, own in zip(self.folders, (known[0] - known[1], known[1] - known[0]), strict=True):
            if own:
                self.notes.append(f"Only {folder} has {', '.join(sorted(own))}.")

    def _together(self, rows: Any, names: list[str], places: list[list[int]]) -> Iterator[tuple[list[str], list[str]]]:
        k, t_ns = names.index("k"), names.index("t_ns")
        apart = False
        for one, other in rows:
            self.rows = [self.rows[0] + (one is not None), self.rows[1] + (other is not None)]
            if one is None or other is None or apart:
                continue
            texts = [one[i] for i in places[0]], [other[i] for i in places[1]]
            if texts[0][k] != texts[1][k] or texts[0][t_ns] != texts[1][t_ns]:
                apart = True
                self.notes.append(
                    f"From row {self.rows[0]} on the runs' subframes are not at the same times, so they are not compared."
                )
                continue
            if self.first is None and texts[0] != texts[1]:
                unlike = [name for name, x, y in zip(names, *texts, strict=True) if x != y]
                self.first = {"k": int(texts[0][k]), "t_s": int(texts[0][t_ns]) * 1e-9, "columns": unlike}
            if int(texts[0][k]) >= self.since:
                yield texts

    def judged(self) -> dict[str, dict[str, Any]]:
        """Both means, the difference and its interval, for every figure that both ever had."""
        if not self.paired:
            return {}
        n, mean, count = len(self.figures), self.course.mean, self.course.count
        seen = count.sum(axis=0)
        total = np.where(count > 0, mean * count, 0.0).sum(axis=0)
        level = 1 - (1 - CONFIDENCE) / max(int(self.differs.sum()), 1)
        out: dict[str, dict[str, Any]] = {}
        for i, figure in enumerate(self.figures):
            if not seen[i]:
                continue
            a, b, change = (float(total[i + j * n] / seen[i]) for j in range(3))
            low: float | None = 0.0
            high: float | None = 0.0
            verdict = "equal"
            if self.differs[i]:
                half = interval(mean[:, i + 2 * n], count[:, i + 2 * n], level)
                low, high = (None, None) if half is None else (change - half, change + half)
                verdict = (
                    "too short"
                    if low is None or high is None
                    else "higher"
                    if low > 0
                    else "lower"
                    if high < 0
                    else SAME
                )
            out[figure.name] = {"a": a, "b": b, "difference": change, "low": low, "high": high, "verdict": verdict}
        return out

    def sum_rates(self) -> dict[str, list[float | None]]:
        """The rate of all users over time, of both: ``k`` (subframe), ``a`` and ``b`` (Gbit/s); None where it is not known."""
        at = next(
            (
                i
                for i, figure in enumerate(self.figures)
                if figure.name.startswith("rate") and figure.name.endswith("all users")
            ),
            None,
        )
        if at is None or not self.paired:
            return {}
        thin = self.course.coarser(240)
        columns = {"k": thin.k + self.since, "a": thin.mean[:, at], "b": thin.mean[:, at + len(self.figures)]}
        return {name: [float(v) if np.isfinite(v) else None for v in column] for name, column in columns.items()}


def interval(mean: Float[Array, " stretch"], count: Float[Array, " stretch"], level: float) -> float | None:
    """Half-width of a confidence interval for the mean of a correlated sequence, by batch means; None where it is too short to tell.

    The sequence, given as means of ``count`` values over equal stretches, is cut into batches of equal length; with batch means as
    independent normal values, ``t(level, B - 1) s / sqrt(B)``. If the lag-1 correlation of the batch means shows that they are not independent
    (beyond ``1 / sqrt(B)``), batches are made longer, down to six of them. Holds where drifts are shorter than a batch; what changes
    once in a run (a mover that leaves) is counted as chance of that size or not seen as chance at all. Batches with nothing are left out.
    Source: Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3.
    """
    from scipy.stats import t

    for batches in (BATCHES, BATCHES // 2, FEWEST):
        if len(mean) < 2 * batches:
            continue
        edges = list(pairwise(np.linspace(0, len(mean), batches + 1).astype(int)))
        weight = np.array([count[i:j].sum() for i, j in edges])
        total = np.array([np.nansum(mean[i:j] * count[i:j]) for i, j in edges])
        value = total[weight > 0] / weight[weight > 0]
        if len(value) < FEWEST:
            continue
        off = value - value.mean()
        energy = float(off @ off)
        if batches > FEWEST and energy > 0 and float(off[1:] @ off[:-1]) > energy / np.sqrt(len(value)):
            continue
        return float(t.ppf(0.5 + level / 2, len(value) - 1) * np.sqrt(energy / (len(value) - 1) / len(value)))
    return None
