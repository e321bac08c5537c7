"""Recording: MCAP files that a killed run leaves readable, and the hash that two equal runs share.

A recording holds the same records under the same topics as the bus (MessagePack, with its schema inside); ``log_time``
is simulated time, ``publish_time`` the wall clock. Chunks are small and reach the system at least every ``flush_s`` of
wall time, so a process that is killed loses no more than that; what a power cut takes is up to the file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal, NamedTuple, cast

import msgspec
import numpy as np
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.exceptions import EndOfFile, InvalidMagic, McapError
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC, Writer
from zstandard import ZstdError

from hal import wire
from hal.errors import Misuse, RemoteFault

__all__ = [
    "DAMAGE",
    "Bounded",
    "Cut",
    "Recorder",
    "Row",
    "RunHash",
    "info",
    "parts",
    "read",
    "records",
    "recover",
    "rows",
    "told",
    "unpacked",
]

PROFILE = "isac-twin"
CHUNK_BYTES = 64 * 1024
HEAD_BYTES = 31  # of a message beside its data

LARGEST_CHUNK = wire.LIMIT_BYTES + 2**20  # a message, and what declares it
DAMAGE = (  # what reading a damaged recording raises
    McapError,
    ValueError,
    KeyError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    ZstdError,
)
_log = logging.getLogger("twin.record")


class RunHash:
    """SHA-256 over what a run decided: topic, simulated time and bytes of each record, in order.

    Equal seeds and equal commands give equal hashes, whatever the pace, the listeners, or PYTHONHASHSEED. Leave out
    what the wall clock has a part in (lag, budgets, recording). Each entry is length-prefixed, so no two different
    sequences are the same bytes.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256(PROFILE.encode())
        self.count = 0

    def add(self, topic: str, t_ns: int, record: Any) -> None:
        """Take in one record, or the bytes of ``hal.wire.encode(record)``."""
        name, data = topic.encode(), record if isinstance(record, bytes) else wire.encode(record)
        self._sha.update(struct.pack("<Q", len(name)) + name + struct.pack("<qQ", t_ns, len(data)))
        self._sha.update(data)
        self.count += 1

    def hexdigest(self) -> str:
        """The hash so far, 64 hexadecimal digits."""
        return self._sha.hexdigest()


class _Tail:
    """What the MCAP writer writes into: kept until ``push`` appends it to the file whole, or the file is cut back to before it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.size = 0  # of the file, which is whole up to here
        self.before: deque[int] = deque([0, 0], maxlen=2)  # its sizes before the last two appends
        self._kept = bytearray()

    def write(self, data: bytes) -> int:
        self._kept += data
        return len(data)

    def tell(self) -> int:
        return self.size + len(self._kept)

    def flush(self) -> None:
        """Nothing: ``push`` decides when."""

    def push(self) -> None:
        """Append what is kept; on OSError nothing of it stays in the file."""
        data, self._kept = bytes(self._kept), bytearray()
        self._append(data)

    def end_short(self) -> str:
        """End the file with the 50 bytes that need no summary; if they do not fit, give up the last append, then the one before.

        Returns "ended", "empty" (nothing had fitted) or "cut" (the file takes nothing at all: ``recover`` can mend it).
        """
        builder = RecordBuilder()
        DataEnd(0).write(builder)
        Footer(0, 0, 0).write(builder)
        ending = bytes(builder.end()) + MCAP0_MAGIC  # type: ignore[no-untyped-call]
        for size in (self.size, *reversed(self.before)):
            if size == 0:
                return "empty" if self.size == 0 else "cut"
            try:
                self._cut(size)
                self._append(ending)
                return "ended"
            except OSError:
                continue
        return "cut"

    def _append(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += self.file.write(data[done:]) or 0
        except OSError:
            self._cut(self.size)
            raise
        if done:
            self.before.append(self.size)
            self.size += done

    def _cut(self, size: int) -> None:
        self.size = size
        self.file.seek(size)
        self.file.truncate(size)


class _Spilled:
    """The index of chunks, kept in a nameless file until the recording ends: in memory it would grow for as long as the run goes on."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)

    def append(self, index: ChunkIndex) -> None:
        builder = RecordBuilder()
        index.write(builder)
        self.file.write(builder.end())  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[_Spilled]:
        yield self

    def write(self, stream: RecordBuilder) -> None:
        """All entries at once."""
        self.file.seek(0)
        stream.write(self.file.read())


class _Writer(Writer):
    """MCAP's writer with its index of chunks on disk; of this name, because its parent's private names are this class's own."""

    def __init__(self, output: IO[Any], chunk_size: int, folder: Path) -> None:
        super().__init__(output, chunk_size=chunk_size)
        self.__chunk_indices: Any = _Spilled(folder)
        self.index: _Spilled = self.__chunk_indices


class Recorder:
    """Writes a recording; one thread owns it. An existing file is never written over (Misuse).

    ``limit_bytes`` starts another file, ``<name>.0001.mcap`` and so on, once one has grown to it. ``about`` stands in
    every file. Where the disk is full or fails, the file is ended properly before what did not fit, ``fault`` says so,
    and with ``when_full = "continue"`` the run goes on unrecorded (``unrecorded`` counts); with ``"stop"`` the OSError
    is raised, once, with the same sentence.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        about: Mapping[str, Any] | None = None,
        limit_bytes: int | None = None,
        flush_s: float = 0.25,
        flush_messages: int = 1000,
        chunk_bytes: int = CHUNK_BYTES,
        when_full: Literal["continue", "stop"] = "continue",
        clock: Any = time.monotonic_ns,
        wall: Any = time.time_ns,
        opener: Any = None,
    ) -> None:
        if when_full not in ("continue", "stop"):
            raise Misuse(f"when_full = {when_full!r}: must be continue or stop")
        if limit_bytes is not None and not limit_bytes >= 4 * chunk_bytes:
            raise Misuse(
                f"limit_bytes = {limit_bytes}: must be at least four chunks of {chunk_bytes} bytes, or None for one file"
            )
        self.path = Path(path)
        self.paths: list[Path] = []  # every file of this recording
        self.recorded = 0  # messages handed to a file
        self.unrecorded = 0  # messages that came after a fault
        self.fault = ""
        self._about = dict(about or {})
        self._limit, self._when_full = limit_bytes, when_full
        self._flush_ns, self._flush_messages, self._chunk_bytes = round(flush_s * 1e9), flush_messages, chunk_bytes
        self._clock, self._wall, self._opener = clock, wall, opener
        self._seqs: dict[str, int] = {}
        self._pending = 0
        self._waiting: list[tuple[int, int, bytes, int, int]] = []  # messages the writer has not had yet
        self._waiting_bytes = 0
        self._flushed_ns = clock()
        self._writer: _Writer | None = None
        self._begin()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close({"reason": "finished" if kind is None else f"{kind.__name__}: {error}"})

    def write(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Record ``record`` under ``topic`` at simulated time ``t_ns``; ``encoded`` is ``hal.wire.encode(record)`` if at hand."""
        if self._writer is None:
            self.unrecorded += 1
            return
        data = wire.encode(record) if encoded is None else encoded
        try:
            if self._limit is not None and self._tail.tell() + self._waiting_bytes + len(data) >= self._limit:
                self._end({})
                self._begin()
                if self.fault:
                    self.unrecorded += 1
                    return
            channel = self._channels.get(topic)
            if channel is None:
                channel = self._channel(topic, type(record))
            seq = self._seqs[topic] = self._seqs.get(topic, -1) + 1
            # handed to the writer many at a time: one by one, between subframes, each finds its code out of the processor's caches
            self._waiting.append((channel, t_ns, data, self._wall(), seq & 0xFFFFFFFF))
            self._waiting_bytes += HEAD_BYTES + len(data)
            self.recorded += 1
            self._pending += 1
            full = self._waiting_bytes >= self._chunk_bytes or self._pending >= self._flush_messages
            if full or self._clock() - self._flushed_ns >= self._flush_ns:
                self._flush()
        except OSError as error:
            self._fail(error)

    def service(self) -> None:
        """Hand to the system what has waited for ``flush_s``; call it once a subframe, or after long silences nothing is handed over."""
        if self._pending and self._clock() - self._flushed_ns >= self._flush_ns:
            self.flush()

    def flush(self) -> None:
        """Hand all that was written to the system, as one whole chunk."""
        if self._writer is None:
            return
        try:
            self._flush()
        except OSError as error:
            self._fail(error)

    def close(self, summary: Mapping[str, Any] | None = None) -> None:
        """Write ``summary`` and the index, and close; a second call does nothing."""
        if self._writer is None:
            return
        try:
            self._end({} if summary is None else summary)
        except OSError as error:
            self._fail(error)

    def _begin(self) -> None:
        number = len(self.paths)
        path = self.path if number == 0 else self.path.with_name(f"{self.path.stem}.{number:04d}{self.path.suffix}")
        try:
            file = open(path, "xb", buffering=0) if self._opener is None else self._opener(path)
        except FileExistsError:
            raise Misuse(
                f"{path}: exists; a recording is never written over: choose another name or move it away"
            ) from None
        self.paths.append(path)
        self._tail = _Tail(file)
        self._channels: dict[str, int] = {}
        self._schemas: dict[type, int] = {}
        self._writer = _Writer(
            cast(IO[Any], self._tail), 2 * self._chunk_bytes, path.parent
        )  # we end the chunks: nothing is left waiting in one
        self._writer.start(profile=PROFILE, library=f"isac-twin {'.'.join(map(str, wire.VERSION))}")
        self._metadata("about", {**self._about, "file": number})
        try:
            self._tail.push()
        except OSError as error:
            self._fail(error)

    def _end(self, summary: Mapping[str, Any]) -> None:
        assert self._writer is not None
        self._flush()
        if summary:
            self._metadata("summary", summary)
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._push()
        self._writer.index.file.close()
        self._tail.file.close()
        self._writer = None

    def _hand_over(self) -> None:
        add = self._writer.add_message  # type: ignore[union-attr]
        for message in self._waiting:
            add(*message)
        self._waiting.clear()
        self._waiting_bytes = 0

    def _flush(self) -> None:
        self._hand_over()
        self._writer.flush()  # type: ignore[union-attr]
        self._push()

    def _push(self) -> None:
        self._tail.push()
        self._pending = 0
        self._flushed_ns = self._clock()

    def _channel(self, topic: str, kind: type) -> int:
        assert self._writer is not None
        if kind not in self._schemas:
            text = json.dumps(wire.schema(kind), default=str).encode()
            self._schemas[kind] = self._writer.register_schema(kind.__name__, "jsonschema", text)
        channel = self._channels[topic] = self._writer.register_channel(topic, "msgpack", self._schemas[kind])
        return channel

    def _metadata(self, name: str, entries: Mapping[str, Any]) -> None:
        assert self._writer is not None
        told = {
            key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in entries.items()
        }
        self._writer.add_metadata(name, told)

    def _fail(self, error: OSError) -> None:
        """End the file before what did not fit, and go on or stop."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.index.file.close()
        self._writer = None
        self._waiting.clear()
        self.recorded -= self._pending
        self.unrecorded += self._pending
        path, left = self.paths[-1], self._tail.end_short()
        with contextlib.suppress(OSError):
            self._tail.file.close()
        if left == "empty":
            path.unlink(missing_ok=True)
            self.paths.pop()
        outcome = {
            "ended": "it was ended properly before what did not fit",
            "empty": "nothing fitted, so the file was removed",
            "cut": "it could not even be ended; mend it with twin record recover",
        }[left]
        self.fault = f"recording {path}: {error.strerror or error}; {outcome}. Free space, or record fewer topics"
        _log.error(self.fault)
        if self._when_full == "stop":
            raise OSError(error.errno, self.fault) from error


class Row(NamedTuple):
    """One recorded message, still encoded."""

    topic: str
    t_ns: int
    wall_ns: int
    seq: int
    record: str  # name of the record's type
    data: bytes


def parts(path: str | Path) -> list[Path]:
    """The files of a recording, in order: ``path`` and the numbered ones that a size limit put beside it. Misuse if there is none."""
    first = Path(path)
    if not first.is_file():
        raise Misuse(f"{first}: there is no such recording")
    numbered = (first.with_name(f"{first.stem}.{k:04d}{first.suffix}") for k in itertools.count(1))
    return [first, *itertools.takewhile(Path.is_file, numbered)]


def rows(path: str | Path) -> Iterator[Row]:
    """Every message of a recording in the order it was written; of a cut file every message up to the cut, which is logged."""
    for part in parts(path):
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        for item in records(part):
            if isinstance(item, Schema):
                schemas[item.id] = item
            elif isinstance(item, Channel):
                channels[item.id] = item
            elif isinstance(item, Message):
                channel = channels[item.channel_id]
                schema = schemas.get(channel.schema_id)
                name = "" if schema is None else schema.name
                yield Row(channel.topic, item.log_time, item.publish_time, item.sequence, name, item.data)
            elif isinstance(item, Cut):
                _log.warning("%s: %s; read up to there", part, item.why)


def read(path: str | Path, *topics: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """``(topic, t_ns, document)`` of every message whose topic begins with one of ``topics`` (none: all); arrays are NumPy's, read-only."""
    for row in rows(path):
        if not topics or row.topic.startswith(topics):
            try:
                document = _plain(msgspec.msgpack.decode(row.data))
            except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
                raise RemoteFault(
                    f"{path}: {row.topic!r} at {row.t_ns} ns is not what a record is made of: {error}"
                ) from None
            yield row.topic, row.t_ns, document


def recover(source: str | Path, target: str | Path) -> int:
    """Copy what is whole of a recording (all its files) into a new one with an index, and return the number of messages.

    Every chunk is checked against its checksum; what comes after the first damage is left out. ``target`` must not
    exist.
    """
    kept = 0
    with created(Path(target)) as file:
        writer = Writer(file, chunk_size=CHUNK_BYTES)
        writer.start(profile=PROFILE)
        known: dict[tuple[Any, ...], int] = {}
        for part in parts(source):
            schemas, channels = {0: 0}, {}
            for item in records(part):
                if isinstance(item, Schema):
                    key: tuple[Any, ...] = (item.name, item.encoding, item.data)
                    known.setdefault(key, 0)
                    known[key] = known[key] or writer.register_schema(*key)
                    schemas[item.id] = known[key]
                elif isinstance(item, Channel):
                    key = (item.topic, item.message_encoding, schemas[item.schema_id])
                    known.setdefault(key, 0)
                    known[key] = known[key] or writer.register_channel(*key, metadata=item.metadata)
                    channels[item.id] = known[key]
                elif isinstance(item, Message):
                    writer.add_message(
                        channels[item.channel_id], item.log_time, item.data, item.publish_time, item.sequence
                    )
                    kept += 1
                elif isinstance(item, Metadata):
                    writer.add_metadata(item.name, item.metadata)
        writer.finish()  # type: ignore[no-untyped-call]
    return kept


def info(path: str | Path) -> dict[str, Any]:
    """What a recording holds: ``files bytes complete cut messages first_ns last_ns topics about summary``.

    ``topics`` gives ``record messages bytes first_ns last_ns`` each; ``cut`` says what is wrong where ``complete`` is
    False.
    """
    files = parts(path)
    topics: dict[str, dict[str, Any]] = {}
    for row in rows(path):
        topic = topics.setdefault(
            row.topic, {"record": row.record, "messages": 0, "bytes": 0, "first_ns": row.t_ns, "last_ns": row.t_ns}
        )
        topic["messages"] += 1
        topic["bytes"] += len(row.data)
        topic["first_ns"], topic["last_ns"] = min(topic["first_ns"], row.t_ns), max(topic["last_ns"], row.t_ns)
    told: dict[str, dict[str, Any]] = {"about": {}, "summary": {}}
    cuts = []
    for part in files:
        for item in records(part, chunks=True):
            if isinstance(item, Metadata) and item.name in told:
                told[item.name].update(item.metadata)
            elif isinstance(item, Cut):
                cuts.append(f"{part.name}: {item.why}")
    return {
        "files": [str(part) for part in files],
        "bytes": sum(part.stat().st_size for part in files),
        "complete": not cuts,
        "cut": "; ".join(cuts),
        "messages": sum(topic["messages"] for topic in topics.values()),
        "first_ns": min((topic["first_ns"] for topic in topics.values()), default=0),
        "last_ns": max((topic["last_ns"] for topic in topics.values()), default=0),
        "topics": topics,
        **told,
    }


def told(what: Mapping[str, Any]) -> str:
    """``info`` as text for people."""
    span = (what["last_ns"] - what["first_ns"]) * 1e-9
    lines = [
        f"{what['files'][0]}: {what['messages']} messages over {span:.3f} s, {what['bytes'] / 1e6:.2f} MB in {len(what['files'])} file(s)"
        + (f", {what['bytes'] / 1e6 / span * 60:.0f} MB a simulated minute" if span > 0 else "")
    ]
    if not what["complete"]:
        lines.append(f"not complete ({what['cut']}): mend it with twin record recover")
    width = max(map(len, what["topics"]), default=0)
    for topic, has in what["topics"].items():
        lines.append(f"  {topic:<{width}}  {has['messages']:>8} {has['record']}, {has['bytes'] / 1e6:.2f} MB")
    for name in ("about", "summary"):
        lines += [f"{name}.{key}: {value}" for key, value in what[name].items() if key != "scenario"]
    return "\n".join(lines)


class Bounded:
    """A file that is never asked for more than it has: a damaged length must not fill the memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, length: int) -> bytes:
        """So many bytes, or what there is."""
        return self._file.read(min(length, self._size))


class Cut(NamedTuple):
    """Where a file ends that does not end as it should."""

    why: str


def records(
    path: Path, chunks: bool = False, place: Callable[[int], object] = lambda offset: None
) -> Iterator[McapRecord | Cut]:
    """The records of one file, checked against their checksums; last a ``Cut`` if the file does not end as it should.

    ``place`` is told where in the file each one begins, before it comes.
    """
    with open(path, "rb") as file:
        bounded = cast(IO[bytes], Bounded(file, path.stat().st_size))
        reader = StreamReader(bounded, validate_crcs=True, emit_chunks=True)
        first, end = True, len(MCAP0_MAGIC)
        known: set[tuple[type, int]] = {(Schema, 0)}
        try:
            for outer in reader.records:
                begin, end = end, file.tell()
                place(begin)
                first = False
                if isinstance(
                    outer, Message
                ):  # a wrong bit in an index's own code: we write messages in chunks, under checksums
                    yield Cut("it is damaged: a message outside every chunk")
                    return
                for item in [outer] if chunks or not isinstance(outer, Chunk) else unpacked(outer):
                    if isinstance(item, (Schema, Channel)):
                        known.add((type(item), item.id))
                    needs = {
                        Channel: (Schema, getattr(item, "schema_id", 0)),
                        Message: (Channel, getattr(item, "channel_id", 0)),
                    }
                    if not chunks and needs.get(type(item), (Schema, 0)) not in known:
                        yield Cut(
                            f"it is damaged: what declares {needs[type(item)][0].__name__.lower()} {needs[type(item)][1]} is lost"
                        )
                        return
                    yield item
        except InvalidMagic:
            if first:
                raise RemoteFault(f"{path}: is not an MCAP recording") from None
            yield Cut("its last bytes are not those of a recording")
        except EndOfFile:
            yield Cut("it ends in the middle: its writer was killed")
        except DAMAGE as error:
            yield Cut(f"it is damaged: {error}")


def unpacked(chunk: Chunk) -> list[McapRecord]:
    """What a chunk holds, checked against its size and checksum; one of ``DAMAGE`` where it is not what it says."""
    size = chunk.uncompressed_size
    told = zstandard.frame_content_size(chunk.data) if chunk.compression == "zstd" else size
    if not size <= LARGEST_CHUNK or told not in (size, -1):  # a lying size would be believed by what unpacks it
        raise ValueError(f"a chunk of {max(size, told)} bytes, said to be {size}; the limit is {LARGEST_CHUNK}")
    return breakup_chunk(chunk, validate_crc=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[2], bytes) and isinstance(value[0], str) and isinstance(value[1], list):
        return np.frombuffer(value[2], np.dtype("?" if value[0] == "b1" else f"<{value[0]}")).reshape(value[1])
    return [_plain(entry) for entry in value]


@contextlib.contextmanager
def created(path: Path) -> Iterator[BinaryIO]:
    """A new file, removed again if what fills it fails."""
    try:
        file = open(path, "xb")
    except FileExistsError:
        raise Misuse(f"{path}: exists, and nothing is written over: choose another name or move it away") from None
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
