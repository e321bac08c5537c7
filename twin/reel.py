"""A recording at any of its moments: an index in memory, the messages read from disk when asked for."""

from __future__ import annotations

import json
import logging
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from mcap.records import Channel, Chunk, Message, Metadata, Schema
from mcap.stream_reader import StreamReader

from hal.errors import Misuse
from hal.record import Array, Int
from twin.record import DAMAGE, Bounded, Cut, Row, parts, records, unpacked

__all__ = ["Reel", "recording_of"]

CHUNKS = 64  # read chunks that are kept
_log = logging.getLogger("twin.record")
TEXTS = ("title", "scenario")  # entries of ``about`` that are texts whatever they look like


def recording_of(run: str | Path) -> Path:
    """The recording that a run directory (or the recording itself) stands for; Misuse if there is none."""
    given = Path(run)
    if given.is_file():
        return given
    found = [given / name for name in ("recording.mcap", "recording.recovered.mcap") if (given / name).is_file()]
    if not found:
        what = "holds no recording.mcap" if given.is_dir() else "is neither a run directory nor a recording"
        raise Misuse(f"{given}: {what}; give one that twin run left, e.g. runs/street-001")
    return found[0]


class Reel:
    """The messages of a recording (all its files) by number, in the order they were written; about 20 bytes of memory each.

    ``t_ns[message]`` and ``topic[message]`` (an index into ``topics``) lie in memory, ``frames`` holds the number of the first message of every
    instant, so ``frames[i]`` to ``frames[i + 1]`` is one subframe. ``about`` is what the run said of itself. A cut recording ends where it was
    cut, and that is logged. Raises Misuse for a recording without a message.
    """

    def __init__(self, run: str | Path) -> None:
        self.path = recording_of(run)
        self.about: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.topics: list[str] = []
        self.kinds: list[tuple[str, dict[str, Any]]] = []  # of each topic: name and schema of its records
        self._chunks: list[tuple[Path, int]] = []
        self._read: OrderedDict[int, list[Message]] = OrderedDict()
        t_ns, topic, chunk, place = array("q"), array("H"), array("L"), array("L")
        for part in parts(self.path):
            self._index(part, t_ns, topic, chunk, place)
        if not t_ns:
            raise Misuse(
                f"{self.path}: holds no messages, so there is nothing to look back at; was the run killed at once?"
            )
        # sorted by construction; a message that is not counts as said when the one before it was
        self.t_ns: Int[Array, " message"] = np.maximum.accumulate(np.array(t_ns, np.int64))
        self.topic: Int[Array, " message"] = np.array(topic, np.int64)
        self._chunk, self._place = np.array(chunk, np.int64), np.array(place, np.int64)
        starts = np.flatnonzero(np.diff(self.t_ns, prepend=self.t_ns[0] - 1))
        self.frames: Int[Array, " frame"] = np.append(starts, len(self.t_ns))

    def __len__(self) -> int:
        return len(self.t_ns)

    @property
    def first_ns(self) -> int:
        """The time of the first message."""
        return int(self.t_ns[0])

    @property
    def last_ns(self) -> int:
        """The time of the last."""
        return int(self.t_ns[-1])

    def message(self, number: int) -> Row:
        """One message, still encoded."""
        at = int(self._chunk[number])
        found = self._read.get(at)
        if found is None:
            found = self._read[at] = self._messages(at)
            if len(self._read) > CHUNKS:
                self._read.popitem(last=False)
        else:
            self._read.move_to_end(at)
        one, topic = found[int(self._place[number])], int(self.topic[number])
        return Row(self.topics[topic], one.log_time, one.publish_time, one.sequence, self.kinds[topic][0], one.data)

    def frame(self, t_ns: int) -> int:
        """The number of the first instant that is not before ``t_ns``; as many as there are if all are."""
        return int(np.searchsorted(self.t_ns[self.frames[:-1]], t_ns))

    def of(self, topic: str) -> Int[Array, " message"]:
        """The numbers of a topic's messages."""
        return np.flatnonzero(self.topic == self.topics.index(topic)) if topic in self.topics else np.zeros(0, np.int64)

    def before(self, frame: int) -> list[int]:
        """The last message of every topic before an instant: what somebody who had listened until then would know."""
        heard = self.topic[: self.frames[frame]][::-1]
        kinds, back = np.unique(heard, return_index=True)
        return sorted((len(heard) - 1 - back).tolist()) if len(kinds) else []

    def rows(self, topic: str) -> Iterator[Row]:
        """Every message of a topic, in order."""
        return (self.message(int(number)) for number in self.of(topic))

    def _index(self, part: Path, t_ns: Any, topic: Any, chunk: Any, place: Any) -> None:
        begins = [0]
        schemas: dict[int, Schema] = {}
        topics: dict[int, int] = {}
        for item in records(part, chunks=True, place=lambda offset: begins.__setitem__(0, offset)):
            if isinstance(item, Metadata) and item.name in ("about", "summary"):
                getattr(self, item.name).update({key: _valued(key, text) for key, text in item.metadata.items()})
            if isinstance(item, Cut):
                _log.warning("%s: %s; read up to there", part, item.why)
            if not isinstance(item, Chunk):
                continue
            try:
                found = unpacked(item)
                schemas |= {one.id: one for one in found if isinstance(one, Schema)}
                for one in found:
                    if isinstance(one, Channel):
                        topics[one.id] = self._topic(one.topic, schemas.get(one.schema_id))
                messages = [one for one in found if isinstance(one, Message)]
                said = [topics[one.channel_id] for one in messages]
                times = array("q", [one.log_time for one in messages])
            except DAMAGE as error:
                _log.warning("%s: it is damaged: %s; read up to there", part, error)
                return
            t_ns.extend(times)
            topic.extend(said)
            chunk.extend([len(self._chunks)] * len(messages))
            place.extend(range(len(messages)))
            self._chunks.append((part, begins[0]))

    def _topic(self, name: str, schema: Schema | None) -> int:
        if name not in self.topics:
            self.topics.append(name)
            self.kinds.append(("", {}) if schema is None else (schema.name, json.loads(schema.data)))
        return self.topics.index(name)

    def _messages(self, at: int) -> list[Message]:
        part, offset = self._chunks[at]
        with part.open("rb") as file:
            file.seek(offset)
            bounded = cast(IO[bytes], Bounded(file, part.stat().st_size))
            reader = StreamReader(bounded, skip_magic=True, emit_chunks=True)
            chunk = next(item for item in reader.records if isinstance(item, Chunk))
        return [one for one in unpacked(chunk) if isinstance(one, Message)]


def _valued(key: str, text: str) -> Any:
    try:
        return text if key in TEXTS else json.loads(text)
    except ValueError:
        return text
