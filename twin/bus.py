"""The bus: what the twin says to whoever listens, without ever waiting for them.

Two sockets. ``state`` (XPUB) carries documents, two frames each: the topic, which ends in a dot, and one MessagePack
map. ``control`` (a ``hal.session`` server) answers questions: ``snapshot`` for late joiners, ``losses`` from listeners
that count. Both are looked at in ``service``, once a subframe, by the thread that owns the bus.

A stream, named by its topic, says what it carries (``descriptor``) and then sends numbered ``event``s. The stream
``run.`` opens with ``start``, beats (``heartbeat``) and ends with ``stop``. ``seq`` counts every document of a stream
from 0, sent or not, so a listener sees what it missed; a listener that is slow loses messages, and costs neither the
loop nor the others anything.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from operator import attrgetter
from types import TracebackType
from typing import Any, Protocol, cast, get_type_hints

import msgspec
import numpy as np
import zmq
import zmq.auth.thread

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.gate import Gate, Rule
from hal.session import PROTOCOL, Keys, Server, guard, stays_here, watched

__all__ = [
    "Bus",
    "Descriptor",
    "Document",
    "Event",
    "Heartbeat",
    "Losses",
    "NullBus",
    "Snapshot",
    "SnapshotRequest",
    "Start",
    "Stop",
    "ZmqBus",
    "control_beside",
    "flatten",
]

RUN = "run."  # the stream of the run itself
JOIN = "join."  # subscribing below it says: my other subscriptions are in force
FLAT = "flat."  # before the topic of a flat message
NEWS = 1000  # subscription messages looked at in one service
QUESTIONS = 64  # answered in one service: a flood costs the loop this much and no more
TOLD = 16  # refusals taken over in one subframe
PREFIXES = 10_000  # different subscriptions; more are not counted
PAIRS = 32  # tries to find a free port with a free one after it
BYTES_PER_S = 200e6  # that a peer may send on control in the long run
CONTROL_BYTES = 64 * 1024 * 1024  # of one message on control: what is longer cuts its sender's connection
LISTENERS = frozenset(("monitor", "controller", "admin"))
STEERERS = frozenset(("controller", "admin"))
DOORS = {"state": LISTENERS}
RULES = {  # of questions on control, beside the admin's
    "hello": Rule(limit_bytes=1024, per_s=20.0),
    "ping": Rule(limit_bytes=64, per_s=1000.0, burst=1000),
    "snapshot": Rule(LISTENERS, per_s=50.0, burst=500),  # a joiner asks until its subscriptions are in force
    "losses": Rule(LISTENERS, limit_bytes=1 << 20, per_s=20.0),
    "status": Rule(LISTENERS, per_s=50.0),
    "claim": Rule(STEERERS, per_s=20.0),
    "act": Rule(STEERERS, limit_bytes=CONTROL_BYTES // 2),  # as often as it is asked: ``twin.seats`` minds floods
    "bye": Rule(STEERERS, limit_bytes=64, per_s=20.0),
}
OTHER = Rule(frozenset(("admin",)), per_s=200.0, burst=400)


class Document(msgspec.Struct, tag_field="document", kw_only=True, gc=False):
    """What every document begins with; readers ignore keys they do not know."""

    protocol: str = PROTOCOL  # always "isac-twin"
    version: tuple[int, int] = wire.VERSION  # major, minor; another major is another protocol
    run: str  # names this run; a new one starts every stream anew
    stream: str  # the topic
    seq: int  # counts the documents of this stream from 0, without a gap
    t_ns: int  # simulated time


class Start(Document, tag="start"):
    """The first document of the stream ``run.``: what is running."""

    about: dict[str, Any]  # scenario, seed, versions, clock mode: whatever the run was opened with
    control: str  # endpoint of the control socket, as bound


class Descriptor(Document, tag="descriptor"):
    """The first document of every other stream: what its events carry."""

    record: str  # name of the record, as this page lists it
    schema: dict[str, Any]  # its fields: type, dtype and axes of arrays, meaning


class Event(Document, tag="event"):
    """One record."""

    data: msgspec.Raw  # the record as a map of its fields


class Heartbeat(Document, tag="heartbeat"):
    """Said on ``run.`` once a second of wall time while the loop runs."""

    streams: dict[str, int]  # the last seq of every stream: shows a loss at a stream's end
    listeners: int  # subscriptions to ``run.``
    lost: int  # documents that listeners said they missed


class Stop(Document, tag="stop"):
    """The last document: the run has ended."""

    reason: str  # "finished", or what went wrong
    summary: dict[str, Any]  # counters, budget histogram, run hash: whatever the run was closed with


class SnapshotRequest(msgspec.Struct):
    """Payload of the question ``snapshot``."""

    topics: list[str]  # prefixes; [""] for all
    join: str = ""  # a name the asker made up and subscribed to as "join.<name>.", after its other subscriptions


class Snapshot(msgspec.Struct):
    """Its answer: enough to understand the streams from here on."""

    run: str  # names the run
    joined: (
        bool  # the subscription to "join.<name>." is in force, so nothing after ``seqs`` is missed; if not, ask again
    )
    seqs: dict[str, int]  # last seq of every stream asked for
    documents: list[tuple[str, bytes]]  # topic and document: start, then each stream's descriptor and last event


class Losses(msgspec.Struct):
    """Payload of the question ``losses``; the answer is empty."""

    lost: dict[str, int]  # documents missed since this listener last said so, by stream


class Bus(Protocol):
    """Where the loop says what happens. No call waits."""

    def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Say ``record`` on ``topic``, which ends in a dot; ``encoded`` is ``hal.wire.encode(record)`` if at hand."""

    def flat(self, topic: str, values: Mapping[str, float], t_ns: int) -> None:
        """Say plain numbers on ``flat.<topic>``, for monitors that know nothing of the twin."""

    def wanted(self, topic: str) -> bool:
        """Whether anyone listens to ``topic``: a record that is dear to make need not be made for nobody."""

    def service(self) -> None:
        """Look at what came in; call it once a subframe."""

    def close(self, reason: str = "finished", summary: Mapping[str, Any] | None = None) -> None:
        """Say ``stop`` and let go; a second call does nothing."""


class NullBus:
    """The bus of a run that nobody can listen to."""

    def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Do nothing."""

    def flat(self, topic: str, values: Mapping[str, float], t_ns: int) -> None:
        """Do nothing."""

    def wanted(self, topic: str) -> bool:
        """False."""
        return False

    def service(self) -> None:
        """Do nothing."""

    def close(self, reason: str = "finished", summary: Mapping[str, Any] | None = None) -> None:
        """Do nothing."""


@cache
def _columns(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], Any], tuple[str, ...], Callable[[Any], Any]]:
    """Of a record: its plain numbers, its fields that may be rows of numbers, and what fetches each kind all at once."""
    types = get_type_hints(kind, include_extras=True)
    scalars = tuple(field.name for field in fields(kind) if types[field.name] in (int, float, bool))
    rows = tuple(
        field.name
        for field in fields(kind)
        if field.name not in scalars and len(str(getattr(types[field.name], "dim_str", "x")).split()) == 1
    )
    return scalars, _fetching(scalars), rows, _fetching(rows)


def _fetching(names: tuple[str, ...]) -> Callable[[Any], Any]:
    return attrgetter(*names) if len(names) > 1 else lambda record: [getattr(record, name) for name in names]


@cache
def _entries(name: str, length: int) -> tuple[str, ...]:
    return tuple(f"{name}[{k}]" for k in range(length))


def flatten(record: Any, longest: int = 16) -> dict[str, float]:
    """The plain numbers of a record (or of a map of its fields): scalars by name, entries of real 1-D arrays up to ``longest`` as ``name[k]``.

    Longer, complex and deeper arrays, texts and records are left out.
    """
    if isinstance(record, Mapping):
        flat, rest = {}, iter(record.items())
    else:
        scalars, numbers, rows, arrays = _columns(record.__class__)
        flat = dict(zip(scalars, map(float, numbers(record)), strict=True))
        rest = zip(rows, arrays(record), strict=True)
    for name, value in rest:
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            if value.size <= longest and value.ndim == 1 and value.dtype.kind in "fiub":
                flat.update(zip(_entries(name, len(value)), map(float, value.tolist()), strict=True))
        elif isinstance(value, (bool, int, float, np.number, np.bool_)) and not isinstance(value, np.complexfloating):
            flat[name] = float(value)
    return flat


def control_beside(state: str) -> str:
    """The control endpoint that goes with a state endpoint unless another is named: the next port, or ``<path>.control``."""
    transport, _, address = state.partition("://")
    host, _, port = address.rpartition(":")
    return f"tcp://{host}:{int(port) + 1}" if transport == "tcp" and port.isdigit() else f"{state}.control"


class _Stream:
    __slots__ = ("descriptor", "head", "heard", "last", "name", "said", "seq")

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = name.encode()
        self.seq = -1  # of the last document, sent or not
        self.heard = False  # whether anyone listens, as of the last change of subscriptions
        self.descriptor = b""
        self.last: tuple[int, int, Any] | None = None  # seq, t_ns and record of the last event: encoded if asked for
        self.said = b""  # the last event's document, if it was encoded


_ENCODE = msgspec.msgpack.Encoder().encode
_ASKED = msgspec.msgpack.Decoder(SnapshotRequest)
_MISSED = msgspec.msgpack.Decoder(Losses)


class ZmqBus:
    """The bus over ZeroMQ; one thread owns it. ``state`` and ``control`` are the endpoints as bound, wildcard ports resolved.

    A tcp port of 0 or ``*`` picks a free one. Endpoints that other computers can reach need ``keys`` with an
    allow-list, or ``insecure``. ``queue`` documents wait for a listener that does not read, then its newer ones are
    dropped; where ``wait_s`` is not 0 (a replay's: the loop waits for nobody) a document waits that long for room first,
    and after one that waited in vain none waits any more. ``handlers`` answer further questions on ``control``. Raises Misuse for an endpoint that is taken,
    malformed, or open to others without keys.
    """

    def __init__(
        self,
        run: str,
        state: str = "tcp://127.0.0.1:5570",
        control: str | None = None,
        *,
        about: Mapping[str, Any] | None = None,
        keys: Keys | None = None,
        insecure: bool = False,
        queue: int = 1000,
        heartbeat_s: float = 1.0,
        wait_s: float = 0.0,
        handlers: Mapping[str, Callable[[bytes], bytes | None]] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.run = run
        self.counts = {"published": 0, "sent": 0, "bytes": 0, "refused": 0, "garbage": 0, "joined": 0}
        self.lost: Counter[str] = Counter()  # what listeners said they missed, by stream
        self._about = dict(about or {})
        self._handlers = dict(handlers or {})
        self._streams: dict[str, _Stream] = {}
        self._flats: dict[str, _Stream] = {}
        self._subscribed: Counter[bytes] = Counter()
        self._clock, self._beat_ns = clock, round(heartbeat_s * 1e9)
        self._t_ns = 0
        self._closed = False
        self._patient = wait_s > 0
        self._server: Server | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard = None if keys is None else guard(self._context, keys, self._refuse, DOORS)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._monitor = None if keys is None else self._socket.get_monitor_socket()
        if self._patient:
            self._socket.set(zmq.XPUB_NODROP, 1)
            self._socket.set(zmq.SNDTIMEO, round(wait_s * 1e3))
        try:
            self._open(state, control, keys, insecure, queue)
        except BaseException:
            self._release(linger_ms=0)
            raise
        self._beaten_ns = clock()
        self._say(self._stream(RUN), Start(run=run, stream=RUN, seq=0, t_ns=0, about=self._about, control=self.control))

    def _open(self, state: str, control: str | None, keys: Keys | None, insecure: bool, queue: int) -> None:
        if not queue > 0:
            raise Misuse(f"queue = {queue}: must be > 0; ZeroMQ takes 0 for no limit, and memory has one")
        if "://" not in state:
            raise Misuse(_unbound("state", state, "names no transport"))
        guarded = keys is not None and len(keys.allowed) > 0
        if not (guarded or insecure or stays_here(state)):
            raise Misuse(
                f"state endpoint {state}: other computers can reach it; give CURVE keys with an allow-list, bind 127.0.0.1, or say insecure"
            )
        socket = self._socket
        socket.set(zmq.SNDHWM, queue)
        socket.set(zmq.XPUB_VERBOSER, 1)  # every subscription and its end, so that they can be counted
        socket.set(zmq.MAXMSGSIZE, 4096)  # what listeners may send here is a subscription
        if keys is not None:
            socket.curve_server = True
            socket.zap_domain = b"state"
            socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
        _refuse_taken("state", state)
        for _ in range(PAIRS):
            try:
                socket.bind(state)
            except zmq.ZMQError as error:
                raise Misuse(_unbound("state", state, str(error))) from None
            self.state = cast(bytes, socket.last_endpoint).decode().rstrip("\0")
            beside = control_beside(self.state) if control is None else control
            _refuse_taken("control", beside)
            try:
                self._server = Server(
                    beside,
                    keys,
                    insecure,
                    name=f"twin {self.run}",
                    limit_bytes=CONTROL_BYTES,
                    gate=Gate(RULES, OTHER, bytes_per_s=BYTES_PER_S),
                )
            except Misuse as error:
                if control is None and self.state != state:  # our own pick of a port: the next one may be free beside
                    socket.unbind(self.state)
                    continue
                raise Misuse(_unbound("control", beside, str(error))) from None
            self.control = self._server.endpoint
            return
        raise Misuse(f"state endpoint {state}: found no two free ports side by side; name a control endpoint")

    def __enter__(self) -> ZmqBus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("finished" if kind is None else f"{kind.__name__}: {error}")

    def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Say ``record`` on ``topic``. Where nobody listens it is only kept, as the last of its stream."""
        stream = self._streams.get(topic)
        if stream is None:
            kind = type(record)
            stream = self._describe(topic, kind.__name__, wire.schema(kind), t_ns)
        self._follow(stream, record, t_ns, encoded)

    def relay(self, topic: str, name: str, schema: dict[str, Any], data: bytes, t_ns: int) -> None:
        """Say a record again as it was said before: its bytes, and the name and schema it had then."""
        stream = self._streams.get(topic) or self._describe(topic, name, schema, t_ns)
        self._follow(stream, data, t_ns, data)

    def _follow(self, stream: _Stream, record: Any, t_ns: int, encoded: bytes | None) -> None:
        stream.seq += 1
        stream.last = (stream.seq, t_ns, record)
        self._t_ns = t_ns
        self.counts["published"] += 1
        stream.said = self._event(stream, encoded) if stream.heard else b""
        if stream.heard:
            self._send(stream.head, stream.said)

    def flat(self, topic: str, values: Mapping[str, float], t_ns: int) -> None:
        """Say ``values`` on ``flat.<topic>`` as one map, with the simulated time in seconds as ``t``."""
        stream = self._flats.get(topic)
        if stream is None:
            stream = self._flats[topic] = _Stream(FLAT + _dotted(topic))
            stream.heard = self.wanted(stream.name)
        if stream.heard:
            self._send(stream.head, _ENCODE({"t": t_ns * 1e-9, **values}))

    def wanted(self, topic: str) -> bool:
        """Whether anyone listens to ``topic``, as of the last ``service``."""
        return self.listeners(topic) > 0

    def listeners(self, topic: str) -> int:
        """Subscriptions that take in ``topic``, as of the last ``service``."""
        name = topic.encode()
        return sum(count for prefix, count in self._subscribed.items() if name.startswith(prefix))

    def service(self) -> None:
        """Take in subscriptions, answer what was asked, and beat."""
        changed = False
        if self._monitor is not None:
            watched(self._monitor, self._refuse)
        for _ in range(NEWS):
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:  # cheaper than to try
                break
            changed = self._subscription(self._socket.recv(zmq.NOBLOCK)) or changed
        if changed:
            for stream in (*self._streams.values(), *self._flats.values()):
                stream.heard = self.wanted(stream.name)
        self.wait(0)
        now_ns = self._clock()
        if now_ns - self._beaten_ns >= self._beat_ns:
            self._beaten_ns = now_ns
            self._beat()

    def wait(self, timeout_ms: int) -> int:
        """Answer what was asked on control, waiting up to ``timeout_ms`` for the first question; return how many came."""
        return 0 if self._server is None else self._server.poll(self._answer, timeout_ms, QUESTIONS)

    def answer(self, kind: str, handler: Callable[[bytes], bytes | None]) -> None:
        """From here on ``handler`` answers the question ``kind``; None is no answer."""
        self._handlers[kind] = handler

    @property
    def asker(self) -> bytes:
        """Who asked what is being answered."""
        return b"" if self._server is None else self._server.asker

    def refused(self) -> list[tuple[str, str]]:
        """Who was turned away since this was last asked, and why."""
        if self._server is None:
            return []
        refused = self._server.refused
        return [refused.popleft() for _ in range(min(len(refused), TOLD))]

    def _refuse(self, who: str, why: str) -> None:
        if self._server is not None:
            self._server.refuse(who, why)

    def tell(self, peer: bytes, kind: str, seq: int, payload: bytes = b"") -> str:
        """Say something on control to who asked before, never waiting: "" if it is on its way, else "gone" or "full"."""
        return "gone" if self._server is None else self._server.tell(peer, kind, seq, payload)

    def close(self, reason: str = "finished", summary: Mapping[str, Any] | None = None) -> None:
        """Say ``stop``, give it half a second to leave, and let go of both endpoints."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(zmq.ZMQError):
            self._beat()  # the last seq of every stream: whoever missed its end can tell
            stream = self._streams[RUN]
            stream.seq += 1
            told = {**(summary or {}), "bus": {**self.counts, "lost": dict(self.lost)}}
            stop = Stop(run=self.run, stream=RUN, seq=stream.seq, t_ns=self._t_ns, reason=reason, summary=told)
            self._say(stream, stop)
        self._release(linger_ms=500)

    def _release(self, linger_ms: int) -> None:
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)
        if self._server is not None:
            self._server.close()
        if self._guard is not None:
            self._guard.stop()
        self._context.term()

    def _stream(self, topic: str) -> _Stream:
        stream = self._streams[topic] = _Stream(topic)
        stream.seq = 0
        stream.heard = self.wanted(topic)
        return stream

    def _describe(self, topic: str, name: str, schema: dict[str, Any], t_ns: int) -> _Stream:
        if topic.startswith((RUN, JOIN, FLAT)):
            raise Misuse(
                f"topic = {topic!r}: {RUN!r}, {JOIN!r} and {FLAT!r} are the bus's own; begin with the site, as in 'bs0.kpi.'"
            )
        stream = self._stream(_dotted(topic))
        descriptor = Descriptor(run=self.run, stream=topic, seq=0, t_ns=t_ns, record=name, schema=schema)
        stream.descriptor = self._say(stream, descriptor)
        return stream

    def _event(self, stream: _Stream, encoded: bytes | None = None) -> bytes:
        assert stream.last is not None
        seq, t_ns, record = stream.last
        if encoded is None:
            encoded = record if isinstance(record, bytes) else wire.encode(record)
        data = msgspec.Raw(encoded)
        return _ENCODE(Event(run=self.run, stream=stream.name, seq=seq, t_ns=t_ns, data=data))

    def _say(self, stream: _Stream, document: Document) -> bytes:
        said = _ENCODE(document)
        if stream.name == RUN and isinstance(document, Start):
            stream.descriptor = said
        self._send(stream.head, said)
        return said

    def _send(self, head: bytes, said: bytes) -> None:
        if self._socket.closed:
            return
        try:
            self._socket.send(head, zmq.SNDMORE if self._patient else zmq.SNDMORE | zmq.NOBLOCK)
            self._socket.send(said, zmq.NOBLOCK)
        except zmq.Again:  # an XPUB drops by itself; should it ever refuse, that is counted and not waited for
            self.counts["refused"] += 1
            if self._patient:  # somebody does not read at all: from here on that is theirs alone
                self._patient = False
                self._socket.set(zmq.XPUB_NODROP, 0)
            return
        self.counts["sent"] += 1
        self.counts["bytes"] += len(said)

    def _beat(self) -> None:
        stream = self._streams[RUN]
        stream.seq += 1
        seqs = {name: other.seq for name, other in self._streams.items()}
        beat = Heartbeat(
            run=self.run,
            stream=RUN,
            seq=stream.seq,
            t_ns=self._t_ns,
            streams=seqs,
            listeners=self.listeners(RUN),
            lost=sum(self.lost.values()),
        )
        self._say(stream, beat)

    def _subscription(self, news: bytes) -> bool:
        """Count one subscription or its end; False if it is neither."""
        prefix = news[1:]
        if news[:1] == b"\x01":
            if len(self._subscribed) >= PREFIXES and prefix not in self._subscribed:
                self.counts["garbage"] += 1
                return False
            self._subscribed[prefix] += 1
        elif news[:1] == b"\x00" and prefix in self._subscribed:
            self._subscribed[prefix] -= 1
            if not self._subscribed[prefix] > 0:
                del self._subscribed[prefix]
        else:
            self.counts["garbage"] += 1
            return False
        return True

    def _answer(self, kind: str, payload: bytes) -> bytes | None:
        try:
            if kind == "snapshot":
                return _ENCODE(self._snapshot(_ASKED.decode(payload)))
            if kind == "losses":
                for topic, count in _MISSED.decode(payload).lost.items():
                    if topic in self._streams and count > 0:
                        self.lost[topic] += count
                return b""
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteFault(f"{kind}: {error}") from None
        handler = self._handlers.get(kind)
        if handler is None:
            raise Misuse(
                f"question {kind!r}: known here are {', '.join(sorted({'snapshot', 'losses', *self._handlers}))}"
            )
        return handler(payload)

    def _snapshot(self, asked: SnapshotRequest) -> Snapshot:
        joined = asked.join == "" or f"{JOIN}{asked.join}.".encode() in self._subscribed
        documents: list[tuple[str, bytes]] = []
        streams = [s for s in self._streams.values() if s.name == RUN or s.name.startswith(tuple(asked.topics))]
        if joined:
            self.counts["joined"] += 1
            for stream in streams:
                documents.append((stream.name, stream.descriptor))
                if stream.last is not None:
                    stream.said = stream.said or self._event(stream)
                    documents.append((stream.name, stream.said))
        return Snapshot(self.run, joined, {stream.name: stream.seq for stream in streams}, documents)


def _dotted(topic: str) -> str:
    if not topic.endswith(".") or topic.startswith("."):
        raise Misuse(
            f"topic = {topic!r}: must end in a dot and not begin with one, since listeners match by prefix; write 'bs0.kpi.'"
        )
    return topic


def _unbound(which: str, endpoint: str, why: str) -> str:
    if "in use" in why:
        elsewhere = "tcp://127.0.0.1:0 picks a free port" if endpoint.startswith("tcp://") else "another path"
        return f"{which} endpoint {endpoint} is taken: is another twin running? Stop it, or choose another: {elsewhere}"
    return f"{which} endpoint {endpoint}: {why}; write it as tcp://127.0.0.1:5570 or ipc:///tmp/name"


def _refuse_taken(which: str, endpoint: str) -> None:
    """Raise Misuse if an ipc path has a listener; ZeroMQ itself would take the path away from it without a word."""
    transport, _, path = endpoint.partition("://")
    if transport != "ipc" or path in ("", "*"):
        return
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.connect("\0" + path[1:] if path.startswith("@") else path)
        raise Misuse(_unbound(which, endpoint, "in use"))
