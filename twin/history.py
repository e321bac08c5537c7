"""A run directory retold in bounded memory: what its figures need, from a recording of any length, read once from end to end."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from hal.errors import Misuse, RemoteFault
from hal.frontend import Beam
from hal.record import Array, Float, Int
from twin.kpi import Kpi
from twin.record import read
from twin.story import Event, Story
from twin.summary import Summary

__all__ = ["BeamSeen", "Course", "History", "Sighting", "folder_of", "named", "settings", "told"]

COURSE_BINS = 1200  # of a time course: more than a figure has pixels across
SIGHTINGS = 600  # of the map
PLAN_TAIL = 80  # last subframes whose plan is shown block by block
KINDS = ("truth.", "plan.", "belief.", "kpi.", "beam.transmit.", "echo.")  # topics, without the site's name
OPTIONAL = {
    entry.name: None for entry in fields(Kpi) if entry.default is None
}  # what is None stays off the wire, and out of recordings


class Course:
    """Means of some columns over equal stretches of subframes, never more than ``limit`` of them: when there are too many, neighbours merge."""

    def __init__(self, columns: int, limit: int = COURSE_BINS) -> None:
        self.limit = limit + limit % 2
        self.width = 1  # subframes a bin
        self._sum, self._count = np.zeros((self.limit, columns)), np.zeros((self.limit, columns))
        self._used = 0

    def add(self, k: int, value: Float[Array, " column"], count: Any = 1) -> None:
        """Count ``value`` (a sum of ``count`` of them) into subframe ``k``; NaN counts for nothing."""
        while k // self.width >= self.limit:
            half = self.limit // 2
            for of in (self._sum, self._count):
                of[:half], of[half:] = of[0::2] + of[1::2], 0.0
            self.width, self._used = 2 * self.width, (self._used + 1) // 2
        here = np.isfinite(value)
        self._sum[k // self.width] += np.where(here, value, 0.0)
        self._count[k // self.width] += np.where(here, count, 0)
        self._used = max(self._used, k // self.width + 1)

    @property
    def mean(self) -> Float[Array, "bin column"]:
        """The mean in each bin; NaN where nothing was counted."""
        count = self._count[: self._used]
        return self._sum[: self._used] / np.where(count > 0, count, np.nan)

    @property
    def count(self) -> Float[Array, "bin column"]:
        """How many values each mean is of."""
        return self._count[: self._used]

    @property
    def k(self) -> Float[Array, " bin"]:
        """The middle of each bin, in subframes from the run's start."""
        return (np.arange(self._used) + 0.5) * self.width

    def coarser(self, bins: int) -> Course:
        """The same in at most so many bins: fewer points, each a mean of more."""
        out = Course(self._sum.shape[1], bins)
        for i in range(self._used):
            out.add(i * self.width, self._sum[i], self._count[i])
        return out


class Sighting(NamedTuple):
    """Truth and tracks at one instant."""

    t_ns: int
    position_m: Float[Array, "mover 3"]  # NaN: not there
    track: Int[Array, " track"]  # confirmed ones
    spot_m: Float[Array, "track 3"]
    covariance_m2: Float[Array, "track 3 3"]
    mover: Int[Array, " track"]  # column of the mover it follows; -1: none near


class BeamSeen(NamedTuple):
    """One user's row of the transmit memory, commanded and taken."""

    t_ns: int
    user: int
    setpoint: Beam
    readback: Beam | None
    direction: Float[Array, " 3"]  # array frame, as believed
    rank: tuple[bool, float]  # bound to a confirmed track; |uy|


OPTIONAL = {
    entry.name: None for entry in fields(Kpi) if entry.default is None
}  # what is None stays off the wire, and out of recordings


@dataclass
class History:
    """What a run was, thinned. Axes: ``user`` and ``mover`` in the order of the key figures; empty where nothing was recorded."""

    folder: Path
    about: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)  # by topic, without the site's name
    site: str = ""
    subframes: int = 0  # scored
    last_k: int = -1
    user: list[int] = field(default_factory=list)
    mover: list[int] = field(default_factory=list)
    rate: Course | None = None  # users' Gbit/s, then as believed
    # angle^2, range^2, speed^2 of errors and of bounds: over movers together, then of each mover
    miss: Course | None = None
    sightings: list[Sighting] = field(default_factory=list)
    stride: int = 1  # subframes between sightings
    plans: deque[tuple[int, Any]] = field(default_factory=lambda: deque(maxlen=PLAN_TAIL))
    share: Course | None = None  # of each subframe's blocks: users, sensing, silent
    beam: BeamSeen | None = None
    echo: tuple[Any, Any, Any, Any] | None = None  # the last recorded; and the plan, belief and truth of its subframe
    story: Story = field(default_factory=Story)

    def name(self, entity: int) -> str:
        """What the scenario calls this mover."""
        names = json.loads(self.about.get("movers", "{}"))
        return str(names.get(str(entity), entity))

    @property
    def order(self) -> list[int]:
        """Everybody, users first: the order of colours and markers in all figures."""
        return [*self.user, *(entity for entity in self.mover if entity not in self.user)]

    @property
    def events(self) -> list[Event]:
        """What happened, in order of time."""
        return self.story.events

    def lacks(self, *topics: str) -> str:
        """A sentence naming the topics that a figure needs and the recording does not have; empty if it has them all."""
        gone = [topic for topic in topics if not self.messages.get(topic)]
        return f"The recording holds nothing on the topic{'s' * (len(gone) > 1)} {', '.join(gone)}." if gone else ""


def folder_of(run_dir: str | Path) -> Path:
    """The run directory itself; Misuse if it is none."""
    folder = Path(run_dir)
    if not folder.is_dir():
        raise Misuse(f"{folder}: is not a directory; give a run directory, as twin run made it")
    if not (folder / "scenario.yaml").is_file():
        raise Misuse(
            f"{folder}: is not a run directory, it has no scenario.yaml; give one that twin run made, e.g. runs/smoke-001"
        )
    return folder


def settings(folder: Path) -> dict[str, Any]:
    """The scenario as run, as plain values; Misuse if the file cannot be read."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    file = folder / "scenario.yaml"
    try:
        found = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise Misuse(
            f"{file}: is not readable YAML ({str(error).splitlines()[0]}); run the scenario again, or restore the file"
        ) from None
    if not isinstance(found, dict):
        raise Misuse(f"{file}: is empty or not a scenario; run the scenario again, or restore the file")
    return found


def told(folder: Path) -> tuple[dict[str, Any], str]:
    """``summary.json`` and what is wrong with it: empty and a sentence if it is missing or cut off."""
    file = folder / "summary.json"
    if not file.is_file():
        return {}, "summary.json is missing: the run was killed, or is still going on."
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}, "summary.json is cut off or damaged."
    return (found, "") if isinstance(found, dict) else ({}, "summary.json is damaged.")


def named(recording: Path) -> dict[str, str]:
    """The recording's metadata ``about``, from its beginning only; empty if it has none."""
    from mcap.exceptions import McapError
    from mcap.records import Chunk, Message, Metadata
    from mcap.stream_reader import StreamReader

    with recording.open("rb") as file:
        try:
            for item in StreamReader(file, emit_chunks=True).records:
                if isinstance(item, Metadata) and item.name == "about":
                    return dict(item.metadata)
                if isinstance(item, Message | Chunk):
                    break
        except (McapError, ValueError):
            pass
    return {}


def history(run_dir: str | Path) -> History:
    """Read a run directory; what is missing or damaged becomes a notice. Misuse if it is not a run directory."""
    folder = folder_of(run_dir)
    out = History(folder)
    out.summary, wrong = told(folder)
    if wrong:
        out.notices.append(f"{wrong} Headline numbers are computed from the recording, up to its last whole subframe.")
    elif out.summary.get("run", {}).get("interrupted"):
        out.notices.append("The run was interrupted: everything below covers only what ran.")
    out.notices += [f"Warning: {text}." for text in out.summary.get("warnings", [])]
    recording = next(
        (folder / n for n in ("recording.mcap", "recording.recovered.mcap") if (folder / n).is_file()), None
    )
    if recording is None:
        out.notices.append("recording.mcap is missing: all figures that need it are left out.")
        return out
    out.about = named(recording)
    tally = None if out.summary else _Tally(out)
    try:
        with _cuts(out.notices):
            for kind, t_ns, record in _records(recording, out):
                _take(out, kind, t_ns, record)
                if tally is not None:
                    tally.take(kind, record)
    except RemoteFault as fault:
        out.notices.append(f"The recording cannot be read any further: {fault}")
    out.story.end()
    if tally is not None:
        out.summary = tally.told()
    return out


@contextmanager
def _cuts(notices: list[str]) -> Iterator[None]:
    """Whatever the reader logs about a cut file becomes a notice."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = ": ".join(
                Path(str(a)).name if isinstance(a, Path) else str(a) for a in (record.args or ()) if a is not None
            )
            notices.append(f"The recording is not complete: {text}. Figures end where it ends.")

    listener, log = Listener(logging.WARNING), logging.getLogger("twin.record")
    log.addHandler(listener)
    try:
        yield
    finally:
        log.removeHandler(listener)


def _records(recording: Path, out: History) -> Iterator[tuple[str, int, Any]]:
    # as plain documents, not as today's records: a report must not fail because a field was added since
    for topic, t_ns, document in read(recording):
        kind = next((kind for kind in KINDS if topic.endswith(kind)), "")
        site = topic.removesuffix(kind).removesuffix(".") if kind else ""
        if not kind or (out.site and site and site != out.site):
            continue
        out.site = out.site or site
        out.messages[kind] = out.messages.get(kind, 0) + 1
        yield kind, t_ns, opened(document)


def opened(document: Any) -> Any:
    """A document whose fields are read as a record's are."""
    return SimpleNamespace(**{k: opened(v) for k, v in document.items()}) if isinstance(document, dict) else document


def _take(out: History, kind: str, t_ns: int, record: Any) -> None:
    now = out.story.now
    if kind == "truth." or t_ns != now.t_ns:
        now.turn(t_ns)
    if kind in ("truth.", "plan.", "belief.", "kpi."):
        setattr(now, kind.removesuffix("."), record)
    if kind == "kpi.":
        _scored(out, record)
        out.story.tell(out.name)
    elif kind == "beam.transmit.":
        _beam(out, t_ns, record)
    elif kind == "echo." and now.plan is not None:
        out.echo = now.plan, now.belief, now.truth, record


def _scored(out: History, kpi: Any) -> None:
    """Everything of a subframe that is counted once its key figures are there."""
    now = out.story.now
    if out.rate is None or out.miss is None or out.share is None:
        out.user, out.mover = kpi.user.tolist(), kpi.entity.tolist()
        out.rate = Course(2 * len(out.user))
        out.miss = Course(6 * (1 + len(out.mover)))
        out.share = Course(len(out.user) + 2)
    out.subframes += 1
    out.last_k = max(out.last_k, kpi.k)
    out.rate.add(kpi.k, np.concatenate([kpi.rate_bps, kpi.predicted_bps]) * 1e-9)
    both = np.hstack([squares(kpi.error), squares(np.where(np.isfinite(kpi.error), kpi.bound, np.nan))])  # [mover, 6]
    seen = np.isfinite(both).all(axis=1)
    both = np.where(seen[:, None], both, np.nan)
    whole = np.where(seen.any(), np.nansum(both, axis=0), np.nan)
    counts = np.concatenate([np.full(6, seen.sum()), np.ones(both.size)])
    out.miss.add(kpi.k, np.concatenate([whole, both.ravel()]), counts)
    plan = now.plan
    if plan is not None:
        out.plans.append((kpi.k, plan))
        used = who_has(plan, out.user)
        amount = np.bincount(used + 2, minlength=len(out.user) + 2) / len(used)
        out.share.add(kpi.k, np.concatenate([amount[2:], amount[1::-1]]))
    if now.truth is not None and now.belief is not None and kpi.k % out.stride == 0:
        out.sightings.append(_sighting(out, now.truth, now.belief, kpi))
        if len(out.sightings) > SIGHTINGS:
            out.sightings, out.stride = out.sightings[::2], 2 * out.stride


def squares(value: Float[Array, "mover 4"]) -> Float[Array, "mover 3"]:
    """Of (uy, uz, range, velocity): both cosines together, range, velocity, squared."""
    squared = value**2
    return np.column_stack([squared[:, 0] + squared[:, 1], squared[:, 2], squared[:, 3]])


def who_has(plan: Any, user: list[int]) -> Int[Array, " block"]:
    """What each block of a plan is for: the column of its user, -1 for sensing, -2 for silence."""
    out = np.full(len(plan.slot), -2)
    for column, name in enumerate(user):
        for mine in np.flatnonzero(plan.user == name):
            out[plan.served[:, mine] & (plan.slot >= 0)] = column
    out[: plan.sensing_blocks] = -1
    return out


def _sighting(out: History, truth: Any, belief: Any, kpi: Any) -> Sighting:
    position = np.full((len(out.mover), 3), np.nan)
    column = {name: i for i, name in enumerate(out.mover)}
    position[[column[e] for e in truth.entity.tolist()]] = truth.position_m
    tracks, sure = belief.tracks, belief.tracks.confirmed
    followed = {int(t): i for i, t in enumerate(kpi.tracked) if t >= 0}
    return Sighting(
        t_ns=truth.t_ns,
        position_m=position,
        track=tracks.track[sure],
        spot_m=tracks.state[sure, :3],
        covariance_m2=tracks.covariance[sure, :3, :3],
        mover=np.array([followed.get(int(t), -1) for t in tracks.track[sure]], dtype=np.int64),
    )


def _beam(out: History, t_ns: int, report: Any) -> None:
    """Keep the row that points farthest to the side, where squint is largest; rows of users bound to a track come before others."""
    now = out.story.now
    out.story.fault(t_ns, report.fault)
    if now.plan is None or now.belief is None:
        return
    channel, plan, bound = now.belief.channel, now.plan, now.belief.tracks.user[now.belief.tracks.confirmed].tolist()
    for i, user in enumerate(plan.user.tolist()):
        row = np.flatnonzero(np.isin(report.setpoint.slot, plan.slot[plan.served[:, i] & (plan.slot >= 0)]))
        known = np.flatnonzero(channel.user == user)
        if not row.size or not known.size:
            continue
        direction = channel.direction[known[0]]
        rank = (user in bound, abs(float(direction[1])))
        if out.beam is None or rank > out.beam.rank:
            slot = int(report.setpoint.slot[row[0]])
            taken = None if report.readback is None else _row(report.readback, slot)
            out.beam = BeamSeen(t_ns, user, _row(report.setpoint, slot), taken, direction, rank)


def _row(beam: Any, slot: int) -> Beam:
    row = np.flatnonzero(beam.slot == slot)
    return Beam(
        half=beam.half,
        slot=beam.slot[row],
        delay_s=beam.delay_s[row],
        phase_rad=beam.phase_rad[row],
        amplitude=beam.amplitude[row],
    )


class _Tally:
    """The summary that a run could not write itself."""

    def __init__(self, out: History) -> None:
        self.out, self.present = out, np.zeros(0, np.int64)
        self.summary: Summary | None = None

    def take(self, kind: str, record: Any) -> None:
        if kind == "truth.":
            self.present = record.entity
        elif kind == "kpi.":
            if self.summary is None:
                names = [tuple(self.out.name(e) for e in ids) for ids in (record.user.tolist(), record.entity.tolist())]
                self.summary = Summary(*names)
            whole = SimpleNamespace(**(OPTIONAL | vars(record)))
            self.summary.add(whole, np.isin(record.entity, self.present))  # type: ignore[arg-type]

    def told(self) -> dict[str, Any]:
        return {} if self.summary is None else self.summary.told()
