"""Trace: movers that drive as recorded, by a traffic simulator or by any program that writes a table."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, inf, isfinite, nan, radians, sin
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple, cast
from xml.parsers import expat

import numpy as np

from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Float, Int, record
from twin.mobility import Motion
from twin.physics.draws import Draws

__all__ = ["Trace"]

PLAIN = ("time_s", "name", "x_m", "y_m", "z_m")
VELOCITY = ("vx_mps", "vy_mps", "vz_mps")
FCD = ("timestep_time", "vehicle_id", "vehicle_x", "vehicle_y", "vehicle_angle", "vehicle_speed")
CHUNK_BYTES = 1 << 16
LINE_BYTES = 1 << 20  # of a line of CSV or a tag of XML: more is no trace
LARGEST = 9e9  # of a number: metres, seconds and degrees are less, and squares of them are numbers still


@record
class Leg:
    """Between which samples every mover is, and the polynomial that carries it: the same until somebody comes to a sample."""

    since_ns: int
    until_ns: float
    first_ns: Int[Array, " mover"]  # its first sample and its last
    last_ns: Int[Array, " mover"]
    t_ns: Int[Array, " mover"]  # the sample before, and the time to the next
    step_ns: Int[Array, " mover"]
    long_s: Float[Array, " mover"]  # likewise; one second where there is no next
    position_m: Float[Array, "mover 3"]
    velocity_mps: Float[Array, "mover 3"]
    bend_m: Float[Array, "mover 3"]
    twist_m: Float[Array, "mover 3"]


@record
class Recorded:
    """The samples of the chosen movers, mover after mover, times ascending within each."""

    start: Int[Array, " mover"]  # first row of each mover
    end: Int[Array, " mover"]  # one past its last row
    key: Int[
        Array, " row"
    ]  # mover * span_ns + time: ascending over the whole table, so that one search serves all movers
    span_ns: int
    t_ns: Int[Array, " row"]  # of the trace
    position_m: Float[Array, "row 3"]
    velocity_mps: Float[Array, "row 3"]
    leg: Leg | None = None  # of the instant last asked for


class Sample(NamedTuple):
    """One line of a trace: time, position, velocity (NaN: not recorded)."""

    time_s: float
    x: float
    y: float
    z: float
    vx: float
    vy: float
    vz: float


@dataclass(frozen=True)
class Trace:
    """Recorded movers, carried between samples by a cubic Hermite polynomial through positions and velocities.

    With ``s = (t - t_i) / h``, ``p = h00 p_i + h10 h v_i + h01 p_{i+1} + h11 h v_{i+1}``; the velocity is its derivative, so the two
    always agree. Where speed is linear in time between samples (SUMO with ``--step-method.ballistic``) this is exact. Velocities
    that the file lacks are those of the parabola through three neighbouring samples.

    Formats, by name and first line: SUMO floating-car data as XML (``*.xml``) or CSV (``;``, header ``timestep_time;vehicle_id;...``), and
    our own CSV (``,``, header ``time_s,name,x_m,y_m,z_m`` and, if known, ``,vx_mps,vy_mps,vz_mps``); each also gzip'd (``*.gz``).
    SUMO's angle is in degrees clockwise from north; its position is the middle of the front bumper, on the ground.
    Coordinates are metres; geographic ones (``--fcd-output.geo``) are not understood. Accelerations jump at samples.

    Raises:
        Misuse: the file is missing, cut off or malformed (``file:line: ...``), or it lacks a mover that is asked for.

    Source: SUMO documentation, "FCDOutput" (attributes, units and the angle's sense).
    """

    path: Path = Path("scenarios/traces/street.fcd.xml.gz")  # the file
    names: tuple[str, ...] = ()  # movers to take, in this order; empty: all
    without: tuple[str, ...] = ()  # movers to leave out
    count: Annotated[int, Gt(0)] | None = None  # only the first so many present from start_s on, as they appear
    origin_m: tuple[float, float] = (0.0, 0.0)  # where the trace's (0, 0) lies in the world
    height_m: float = 1.5  # of the antenna and the reflection above the trace's z (0 where it has none)
    start_s: Annotated[float, Ge(0)] = 0.0  # time of the trace at which the run starts
    end: Literal["vanish", "hold"] = "vanish"  # after a mover's last sample: gone, or standing there for good
    gap_s: Annotated[float, Gt(0)] = 1.5  # samples farther apart than this: the mover was away in between

    def __post_init__(self) -> None:
        if not (len(self.origin_m) == 2 and all(isfinite(x) for x in self.origin_m)):
            raise Misuse(f"origin_m = {self.origin_m!r}: must be two finite numbers, x (east) and y (north)")
        if not (isfinite(self.height_m) and 0 <= self.start_s < inf):
            raise Misuse(f"height_m = {self.height_m!r}, start_s = {self.start_s!r}: must be finite, and start_s >= 0")
        if not self.gap_s > 0:
            raise Misuse(f"gap_s = {self.gap_s!r}: must be > 0, and longer than the trace's step")
        if self.count is not None and not self.count > 0:
            raise Misuse(f"count = {self.count!r}: must be > 0; leave it out to take all")
        both = sorted(set(self.names) & set(self.without))
        if both:
            raise Misuse(f"names, without: {both[0]!r} is in both")
        if len(set(self.names)) < len(self.names):
            raise Misuse(f"names = {self.names!r}: must all differ")

    def movers(self) -> tuple[str, ...]:
        """Names in the file of the movers taken (reads the file)."""
        return tuple(self._read())

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> Recorded:
        """Read the samples into one table."""
        tables = [np.array(rows, float) for rows in self._read().values()]
        ends = np.cumsum([len(table) for table in tables])
        starts = ends - [len(table) for table in tables]
        times = [np.rint(table[:, 0] * 1e9).astype(np.int64) for table in tables]
        span_ns = max(int(t[-1]) for t in times) + 1
        lift = np.array([*self.origin_m, self.height_m])
        return Recorded(
            start=starts,
            end=ends,
            key=np.concatenate([mover * span_ns + t for mover, t in enumerate(times)]),
            span_ns=span_ns,
            t_ns=np.concatenate(times),
            position_m=np.concatenate([table[:, 1:4] for table in tables]) + lift,
            velocity_mps=np.concatenate([self._velocity(t, table) for t, table in zip(times, tables, strict=True)]),
        )

    def at(self, state: Recorded, t_ns: int) -> tuple[Recorded, Motion]:
        """Where all have come to at ``t_ns``."""
        now_ns, leg = t_ns + round(self.start_s * 1e9), state.leg
        if leg is None or not leg.since_ns <= now_ns < leg.until_ns:
            leg = _leg(state, now_ns)
            state = replace(state, leg=leg)
        held_ns = np.minimum(np.maximum(now_ns, leg.first_ns), leg.last_ns)
        h = leg.long_s[:, None]
        s = ((held_ns - leg.t_ns) * 1e-9 / leg.long_s)[:, None]
        position_m = leg.position_m + s * (h * leg.velocity_mps + s * (leg.bend_m + s * leg.twist_m))
        velocity_mps = leg.velocity_mps + s * (2 * leg.bend_m + s * 3 * leg.twist_m) / h
        # Between two stays it has not come back yet: it is away, unless it stands exactly on a sample.
        away = (leg.step_ns > self.gap_s * 1e9) & (held_ns != leg.t_ns) & (held_ns != leg.t_ns + leg.step_ns)
        present = (now_ns >= leg.first_ns) & ~away
        if self.end == "vanish":
            present &= now_ns <= leg.last_ns
        velocity_mps[(now_ns < leg.first_ns) | (now_ns > leg.last_ns)] = 0.0
        return state, Motion(position_m=position_m, velocity_mps=velocity_mps, present=present)

    def _velocity(self, t_ns: Int[Array, " row"], table: Float[Array, "row 7"]) -> Float[Array, "row 3"]:
        """Fill in velocities that were not recorded: the slope of the parabola through a sample and its neighbours."""
        velocity: Float[Array, "row 3"] = table[:, 4:7].copy()
        if not np.isnan(velocity).any():
            return velocity
        stays = np.flatnonzero(np.diff(t_ns) > self.gap_s * 1e9) + 1
        for rows in np.split(np.arange(len(t_ns)), stays):
            slope: Array = np.zeros((len(rows), 3))
            if len(rows) > 1:
                t_s: Array = (t_ns[rows] - t_ns[rows[0]]) * 1e-9
                slope = np.asarray(np.gradient(table[rows, 1:4], t_s, axis=0, edge_order=2 if len(rows) > 2 else 1))
            velocity[rows] = np.where(np.isnan(velocity[rows]), slope, velocity[rows])
        return velocity

    def _read(self) -> dict[str, list[Sample]]:
        """The chosen movers' samples; the file is read once for its names and its samples, and again only if it has changed."""
        try:
            state = self.path.stat()
        except OSError:
            return self._chosen()
        return _remembered(self, state.st_mtime_ns, state.st_size)

    def _chosen(self) -> dict[str, list[Sample]]:
        """Samples of the chosen movers in the order of ``names``, or of appearance; every line of the file is checked."""
        wanted, refused = set(self.names), set(self.without)
        seen: dict[str, list[Sample]] = {}
        for where, name, sample in _samples(self.path):
            if (wanted and name not in wanted) or name in refused:
                continue
            rows = seen.setdefault(name, [])
            if rows and not round(sample.time_s * 1e9) > round(rows[-1].time_s * 1e9):
                raise Misuse(
                    f"{where}: {name!r}: time = {sample.time_s!r}: must be later than this mover's time before, "
                    f"{rows[-1].time_s!r}; sort the trace by time and keep one sample a time"
                )
            rows.append(sample)
        if not seen:
            raise Misuse(
                f"{self.path}: holds no samples{' of ' + ', '.join(self.names) if wanted else ''}; record at least one mover"
            )
        absent = [name for name in self.names if name not in seen]
        if absent:
            raise Misuse(f"names: {absent[0]!r} is not in {self.path}; leave it out, or record it")
        chosen = {name: seen[name] for name in (self.names or seen)}
        there = {name: rows for name, rows in chosen.items() if rows[-1].time_s >= self.start_s}
        if not there:
            latest_s = max(rows[-1].time_s for rows in chosen.values())
            raise Misuse(f"start_s = {self.start_s!r}: must be <= {latest_s!r}, when the last mover leaves {self.path}")
        if self.count is not None:
            order = there if self.names else sorted(there, key=lambda name: max(self.start_s, there[name][0].time_s))
            if len(there) < self.count:
                raise Misuse(
                    f"count = {self.count}: {self.path} has only {len(there)} movers from start_s = {self.start_s} on"
                )
            chosen = {name: there[name] for name in list(order)[: self.count]}
        return chosen


def _leg(state: Recorded, now_ns: int) -> Leg:
    first, last = state.t_ns[state.start], state.t_ns[state.end - 1]
    held_ns = np.clip(now_ns, first, last)
    row = np.searchsorted(state.key, np.arange(len(first)) * state.span_ns + held_ns, side="right") - 1
    # A mover at its last sample is at the end of the segment before it; a mover with one sample has no segment.
    row = np.maximum(np.minimum(row, state.end - 2), state.start)
    after = np.minimum(row + 1, state.end - 1)
    step_ns = state.t_ns[after] - state.t_ns[row]
    long_s = np.where(step_ns > 0, step_ns, 1) * 1e-9
    h, v0, v1 = long_s[:, None], state.velocity_mps[row], state.velocity_mps[after]
    way_m = state.position_m[after] - state.position_m[row]
    return Leg(
        since_ns=now_ns,
        until_ns=float(np.min(np.where(after < state.end - 1, state.t_ns[after], np.inf))),
        first_ns=first,
        last_ns=last,
        t_ns=state.t_ns[row],
        step_ns=step_ns,
        long_s=long_s,
        position_m=state.position_m[row],
        velocity_mps=v0,
        bend_m=3 * way_m - h * (2 * v0 + v1),
        twist_m=h * (v0 + v1) - 2 * way_m,
    )


@lru_cache(maxsize=4)
def _remembered(trace: Trace, changed_ns: int, size: int) -> dict[str, list[Sample]]:
    return trace._chosen()  # noqa: SLF001 - its own module


def _samples(path: Path) -> Iterator[tuple[str, str, Sample]]:
    """Yield (file:line, name, sample), a bounded part of the file in memory at a time."""
    name = path.name.removesuffix(".gz")
    if not name.endswith((".xml", ".csv")):
        raise Misuse(f"path = {str(path)!r}: must end in .xml or .csv, or in one of these and .gz")
    try:
        with cast(BinaryIO, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            yield from (_xml if name.endswith(".xml") else _table)(path, file)
    except FileNotFoundError:
        raise Misuse(
            f"path = {str(path)!r}: no such file; name a trace that exists (make_street.py in tools/traces records one)"
        ) from None
    except (IsADirectoryError, PermissionError) as error:
        raise Misuse(f"path = {str(path)!r}: cannot be read ({error.strerror}); name a readable file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Misuse(f"{path}: is not a whole gzip file ({error}); copy it again") from None


def _number(where: str, name: str, field: str, text: str | None) -> float:
    if text is None or text.strip() == "":
        raise Misuse(f"{where}: {name!r}: {field} is missing; record it with every sample")
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not abs(value) <= LARGEST:
        raise Misuse(f"{where}: {name!r}: {field} = {text!r}: must be a finite number; mend or drop this sample")
    return value


def _time(where: str, text: str | None) -> float:
    value = _number(where, "time", "time", text)
    if not 0 <= value < 9e9:
        raise Misuse(f"{where}: time = {text!r}: must be >= 0 and in seconds; shift the trace to start at 0")
    return value


def _fcd(
    where: str,
    name: str,
    time_s: float,
    x: str | None,
    y: str | None,
    z: str | None,
    angle: str | None,
    speed: str | None,
) -> Sample:
    """One sample of floating-car data; without an angle the velocity is left to the positions."""
    vx = vy = nan
    if angle is not None and speed is not None:
        clockwise, v = radians(_number(where, name, "angle", angle)), _number(where, name, "speed", speed)
        vx, vy = v * sin(clockwise), v * cos(clockwise)
    up = _number(where, name, "z", z) if z is not None else 0.0
    return Sample(time_s, _number(where, name, "x", x), _number(where, name, "y", y), up, vx, vy, nan)


def _xml(path: Path, file: BinaryIO) -> Iterator[tuple[str, str, Sample]]:
    """SUMO's ``<timestep time><vehicle id x y angle speed/></timestep>``; persons and containers count too."""
    parser = expat.ParserCreate()
    found: list[tuple[str, str, Sample]] = []
    now_s: float | None = None

    def opened(tag: str, given: dict[str, str]) -> None:
        nonlocal now_s
        where = f"{path}:{parser.CurrentLineNumber}"
        if tag == "timestep":
            before_s, now_s = now_s, _time(where, given.get("time"))
            if before_s is not None and not now_s > before_s:
                raise Misuse(
                    f"{where}: timestep time = {now_s!r}: must be later than the one before, {before_s!r}; sort the trace by time"
                )
        elif tag in ("vehicle", "person", "container"):
            name = given.get("id")
            if not name or now_s is None:
                raise Misuse(
                    f"{where}: {tag}: must have an id and stand inside a timestep; write floating-car data (--fcd-output)"
                )
            values = (given.get(key) for key in ("x", "y", "z", "angle", "speed"))
            found.append((where, name, _fcd(where, name, now_s, *values)))

    parser.StartElementHandler = opened
    read = 0
    try:
        while chunk := file.read(CHUNK_BYTES):
            parser.Parse(chunk, False)
            read += len(chunk)
            if (
                read - max(parser.CurrentByteIndex, 0) > LINE_BYTES + CHUNK_BYTES
            ):  # or each chunk would be read with all before it
                raise Misuse(
                    f"{path}:{parser.CurrentLineNumber}: has a tag of over {LINE_BYTES} bytes; record the trace again"
                )
            yield from found
            found.clear()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Misuse(
            f"{path}:{error.lineno}: is not whole XML ({expat.ErrorString(error.code)}); record or copy the trace again"
        ) from None
    except LookupError as error:
        raise Misuse(f"{path}:1: {error}; write the trace in UTF-8") from None
    yield from found


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := file.readline(LINE_BYTES):
        number += 1
        if len(line) == LINE_BYTES:
            raise Misuse(f"{path}:{number}: is a line of over {LINE_BYTES} bytes; record or copy the trace again")
        yield line


def _table(path: Path, file: BinaryIO) -> Iterator[tuple[str, str, Sample]]:
    """Both kinds of CSV, told apart by the header."""
    try:
        lines = (line.decode() for line in _lines(path, file))
        head = next(lines, "").strip()
        if not head:
            raise Misuse(f"{path}:1: is empty; the first line must be {','.join(PLAIN)} or {';'.join(FCD)}")
        mark = ";" if ";" in head else ","
        columns = [column.strip() for column in head.split(mark)]
        needed = FCD[:4] if mark == ";" else PLAIN
        lacking = [column for column in needed if column not in columns]
        if lacking:
            raise Misuse(
                f"{path}:1: has no column {lacking[0]!r}; the first line must hold {mark.join(FCD if mark == ';' else PLAIN)}"
            )
        for number, cells in enumerate(csv.reader(lines, delimiter=mark), 2):
            where = f"{path}:{number}"
            if not cells:
                continue
            if len(cells) != len(columns):
                raise Misuse(
                    f"{where}: has {len(cells)} cells, the first line has {len(columns)} columns; is the file cut off?"
                )
            row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
            if mark == ";":
                # SUMO writes a line without a vehicle for a step without vehicles.
                name, time_s = row["vehicle_id"], _time(where, row["timestep_time"])
                if name:
                    values = (row.get(f"vehicle_{key}") for key in ("x", "y", "z", "angle", "speed"))
                    yield where, name, _fcd(where, name, time_s, *values)
                continue
            name, time_s = row["name"], _time(where, row["time_s"])
            if not name:
                raise Misuse(f"{where}: name is empty; name every mover")
            x, y, z = (_number(where, name, column, row[column]) for column in PLAIN[2:])
            vx, vy, vz = (_number(where, name, column, row[column]) if column in row else nan for column in VELOCITY)
            yield where, name, Sample(time_s, x, y, z, vx, vy, vz)
    except UnicodeDecodeError as error:
        raise Misuse(f"{path}: is not text in UTF-8 ({error.reason}); save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise Misuse(f"{path}: is not CSV ({error}); record or copy the trace again") from None
