"""Listening to a running twin (``connect``), and steering it (``control``).

Documents come as plain dicts with NumPy arrays, losses are counted, and a twin that falls silent is named. Listening needs none of the
twin's own classes: it reads the documents as any MessagePack library would (docs/protocol.md).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import zmq

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.session import PROTOCOL, Client, Keys, Patience
from hal.wire import VERSION

if TYPE_CHECKING:
    from twin.agent import Agent

__all__ = ["Message", "Silence", "Subscriber", "connect", "control", "plain"]

RUN, JOIN, FLAT = "run.", "join.", "flat."
ARRAY = {f"{kind}{size}" for kind, sizes in {"i": "1248", "u": "1248", "f": "248"}.items() for size in sizes}
ARRAY |= {"b1", "c8", "c16"}
ASKS = 200  # answers "not joined yet" that are put up with: each comes a subframe after the last

_log = logging.getLogger("twin.client")


@dataclass(frozen=True)
class Message:
    """One document: ``data`` is an event's record, or the other keys of a start, descriptor, heartbeat or stop."""

    topic: str
    kind: str  # start, descriptor, event, heartbeat, stop, flat
    run: str
    seq: int
    t_ns: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Silence:
    """How long a twin may say nothing (it beats once a second): ``late_s`` warns, ``gone_s`` connects anew, ``give_up_s`` is an error."""

    late_s: float = 3.0
    gone_s: float = 10.0
    give_up_s: float = float("inf")

    def __post_init__(self) -> None:
        if not 0 < self.late_s <= self.gone_s <= self.give_up_s:
            raise Misuse(
                f"silence: late_s = {self.late_s}, gone_s = {self.gone_s}, give_up_s = {self.give_up_s}: must be > 0 and ascending"
            )


def plain(value: Any) -> Any:
    """A decoded MessagePack value with every ``[dtype, shape, bytes]`` in it turned into a read-only NumPy array."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[2], bytes) and isinstance(value[0], str) and isinstance(value[1], list):
        letter, shape, data = value
        if letter not in ARRAY:
            raise RemoteFault(f"an array of dtype {letter!r}: must be one of {', '.join(sorted(ARRAY))}")
        try:
            return np.frombuffer(data, np.dtype("?" if letter == "b1" else f"<{letter}")).reshape(shape)
        except (TypeError, ValueError) as error:
            raise RemoteFault(f"an array of dtype {letter} and shape {shape}: {error}") from None
    return [plain(entry) for entry in value]


def connect(endpoint: str, *topics: str, **options: Any) -> Subscriber:
    """Listen to the twin whose state endpoint this is; ``topics`` are prefixes (``"bs0.kpi."``), none means all.

    ``options`` are those of ``Subscriber``. Use it as ``with connect("tcp://127.0.0.1:5570") as twin: for message in
    twin: ...``.
    """
    return Subscriber(endpoint, topics or ("",), **options)


def control(endpoint: str, name: str, *knobs: str, control: str | None = None, **options: Any) -> Agent:
    """Claim knobs (``"bs0.plan"``) of the twin whose state endpoint this is, under a name of one's own.

    ``options`` are those of ``twin.outside.Claim`` (``observe``, ``order``, ``role``, ``debug``) and of ``twin.agent.Agent``. Use it as
    ``with control("tcp://127.0.0.1:5570", "mine", "bs0.plan") as site: for moment in site: site.act(plan=...)``.
    """
    from twin.agent import Agent  # listeners need nothing of it
    from twin.outside import Claim

    asked = {key: options.pop(key) for key in ("observe", "order", "role", "debug") if key in options}
    claim = Claim(name=name, knobs=knobs, **asked)
    return Agent(_beside(endpoint) if control is None else control, claim, **options)


class Subscriber:
    """A listener; one thread owns it. Iterating ends with the run (``follow=True``: goes on with the next one).

    The last document of every stream comes first, then every document after it: subscriptions are in force before the
    snapshot is taken, and what is older than the snapshot is left out. If the twin answers no questions, listening
    starts where it starts, and ``joined`` stays False.

    ``lost`` counts missed documents by stream; they are reported to the twin. ``condition`` is ``joining``, ``live``,
    ``late``, ``gone`` or ``stopped``; each change is told to ``notice``. Raises RemoteFault for another major version,
    LateArrival after ``silence.give_up_s``.
    """

    def __init__(
        self,
        endpoint: str,
        topics: tuple[str, ...] = ("",),
        *,
        control: str | None = None,
        keys: Keys | None = None,
        silence: Silence | None = None,
        patience: Patience | None = None,
        follow: bool = False,
        queue: int = 10_000,
        notice: Callable[[str], None] = _log.warning,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if "://" not in endpoint:
            raise Misuse(
                f"endpoint = {endpoint!r}: names no transport; write it as tcp://127.0.0.1:5570 or ipc:///tmp/name"
            )
        self.endpoint, self.topics = endpoint, topics
        self.control = _beside(endpoint) if control is None else control
        self.run = ""  # name of the run that is heard
        self.condition = "joining"
        self.joined = False
        self.lost: Counter[str] = Counter()
        self.garbage = 0  # messages that are no document
        self._keys, self._follow, self._queue, self._notice, self._clock = keys, follow, queue, notice, clock
        self._silence = Silence() if silence is None else silence
        self._patience = Patience(warn_s=1.0, give_up_s=2.0) if patience is None else patience
        self._owed: Counter[str] = Counter()  # losses the twin has not been told of
        self._seen: dict[str, int] = {}
        self._waiting: deque[Message] = deque()  # of the snapshot
        self._heard_ns = self._anew_ns = clock()
        self._session: Client | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        try:
            self._open()
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        while self._follow or self.condition != "stopped" or self._waiting:
            message = self.receive(1.0)
            if message is not None:
                yield message

    def receive(self, timeout_s: float) -> Message | None:
        """The next document, or None if none comes in ``timeout_s``. The first call joins, and may take as long as the twin's answer does."""
        if self._socket is None:
            raise Misuse(f"{self.endpoint}: this subscriber is closed; connect again")
        if self.condition == "joining":
            self._join()
        deadline_ns = self._clock() + round(timeout_s * 1e9)
        while True:
            if self._waiting:
                return self._waiting.popleft()
            left_ms = max(0, -(-(deadline_ns - self._clock()) // 1_000_000))
            if not self._socket.poll(left_ms):
                self._mind_silence()
                return None
            message = self._accept(self._socket.recv_multipart())
            if message is not None:
                return message
            if self._clock() >= deadline_ns:
                return None

    def close(self) -> None:
        """Report what was missed and let go; a second call does nothing."""
        if self._socket is None:
            return
        self._report()
        self._hang_up()
        self._socket.close()
        self._socket = None
        self._context.term()

    def _open(self) -> None:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        socket.linger = 0
        socket.set(zmq.RCVHWM, self._queue)
        socket.set(zmq.HEARTBEAT_IVL, 1000)  # a connection that is cut without a word is opened again
        socket.set(zmq.HEARTBEAT_TIMEOUT, 5000)
        if self._keys is not None:
            if self._keys.server is None:
                raise Misuse("keys.server = None: a listener needs the public key of the twin it means to listen to")
            socket.curve_publickey, socket.curve_secretkey = self._keys.public, self._keys.secret
            socket.curve_serverkey = self._keys.server
        try:
            socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise Misuse(
                f"endpoint = {self.endpoint!r}: {error}; write it as tcp://127.0.0.1:5570 or ipc:///tmp/name"
            ) from None
        for topic in (*self.topics, RUN):
            socket.subscribe(topic)
        self._socket = socket

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _join(self) -> None:
        """Ask for a snapshot taken after our subscriptions came into force; without an answer, listen from here on."""
        assert self._socket is not None
        name = uuid.uuid4().hex
        self._socket.subscribe(f"{JOIN}{name}.")
        self.condition, self.joined = "live", False
        question = msgspec.msgpack.encode({"topics": list(self.topics), "join": name})
        try:
            if self._session is None:
                self._session = Client(self.control, self._patience, self._keys, name="subscriber")
            for _ in range(ASKS):
                answer = msgspec.msgpack.decode(self._session.ask("snapshot", question))
                if answer["joined"]:
                    self._begin(answer["run"], answer["seqs"], answer["documents"])
                    return
            raise RemoteFault(
                f"{self.control} does not see our subscriptions: is it the control endpoint of another twin?"
            )
        except (LateArrival, RemoteFault, Misuse) as error:
            self._notice(f"no snapshot: {error}")
        except (KeyError, TypeError, ValueError, msgspec.DecodeError) as error:
            self._notice(f"no snapshot: {self.control} gave no sensible answer: {type(error).__name__}: {error}")
        finally:
            self._socket.unsubscribe(f"{JOIN}{name}.")
        self._hang_up()

    def _begin(self, run: str, seqs: dict[str, int], documents: list[tuple[str, bytes]]) -> None:
        """Take the snapshot as the state of every stream; what this run said between our last document and it is lost."""
        messages = [self._read(topic, data) for topic, data in documents]
        if run != self.run:
            self.run, self._seen = run, {}
        for topic, seq in seqs.items():
            if topic in self._seen:
                new = sum(m.topic == topic and m.seq > self._seen[topic] for m in messages)
                self._count(topic, seq - new)
        self._waiting.extend(m for m in messages if m.seq > self._seen.get(m.topic, -1))
        self._seen = dict(seqs)
        self.joined = True

    def _accept(self, frames: list[bytes]) -> Message | None:
        """The next document after ``frames`` came in, or None: they were older than the snapshot, or no document."""
        try:
            head, body = frames
            topic = head.decode()
            if topic.startswith(FLAT):
                return self._flat(topic, body)
            message = self._read(topic, body)
        except (KeyError, TypeError, ValueError, msgspec.DecodeError):
            self.garbage += 1
            return None
        self._heard_ns = self._clock()
        again = self.condition == "gone"
        if self.condition in ("late", "gone"):
            self._turn("live", f"{self.endpoint} speaks again")
        if message.run != self.run or again:
            if message.run != self.run and self.run:
                self._notice(f"{self.endpoint}: run {self.run} is over, this is run {message.run}")
                self._hang_up()
            self._join()
            if message.run != self.run:
                self.run, self._seen = message.run, {}
        if message.seq <= self._seen.get(message.topic, -1):
            return self._waiting.popleft() if self._waiting else None
        self._count(message.topic, message.seq - 1)
        self._seen[message.topic] = message.seq
        if message.kind == "heartbeat":
            for topic, seq in message.data.get("streams", {}).items():
                if topic != RUN and topic.startswith(self.topics):
                    self._count(topic, seq)
                    self._seen[topic] = max(seq, self._seen.get(topic, -1))
            self._report()
        if message.kind == "stop":
            self._report()
            self._turn("stopped", f"{self.endpoint}: run {message.run} stopped: {message.data.get('reason', '')}")
        self._waiting.append(message)
        return self._waiting.popleft()

    def _flat(self, topic: str, body: bytes) -> Message | None:
        """A flat message, for who asked for them by name."""
        if not any(wanted.startswith(FLAT) for wanted in self.topics):
            return None
        values = msgspec.msgpack.decode(body)
        return Message(topic, "flat", self.run, -1, round(values["t"] * 1e9), values)

    def _count(self, topic: str, last: int) -> None:
        """Count as lost what lies between the last document seen of ``topic`` and ``last``; before the first one nothing is lost."""
        if topic not in self._seen:
            if not self.joined:
                return
            self._seen[topic] = -1
        missed = last - self._seen[topic]
        if missed > 0:
            self.lost[topic] += missed
            self._owed[topic] += missed

    def _read(self, topic: str, data: bytes) -> Message:
        document = msgspec.msgpack.decode(data)
        protocol, version = document.pop("protocol"), document.pop("version")
        if protocol != PROTOCOL or version[0] != VERSION[0]:
            raise RemoteFault(
                f"{self.endpoint} speaks version {'.'.join(map(str, version))} of {protocol}; this listener speaks "
                f"{'.'.join(map(str, VERSION))} of {PROTOCOL}: update the older of the two"
            )
        kind, run, stream = document.pop("document"), document.pop("run"), document.pop("stream")
        seq, t_ns = document.pop("seq"), document.pop("t_ns")
        if stream != topic or not (type(seq) is int and type(t_ns) is int and isinstance(run, str)):
            raise ValueError(topic)
        if kind != "event":
            return Message(topic, kind, run, seq, t_ns, document)
        try:
            return Message(topic, kind, run, seq, t_ns, plain(document["data"]))
        except RemoteFault as error:
            raise ValueError(str(error)) from None

    def _report(self) -> None:
        """Tell the twin what was missed; what it does not take is told the next time."""
        if self._session is None or not self._owed:
            return
        try:
            self._session.ask("losses", msgspec.msgpack.encode({"lost": dict(self._owed)}))
            self._owed.clear()
        except (LateArrival, RemoteFault, Misuse) as error:
            self._notice(f"losses not reported: {error}")

    def _mind_silence(self) -> None:
        if self.condition == "stopped":
            return
        now_ns = self._clock()
        silent_s = (now_ns - self._heard_ns) * 1e-9
        what = f"{self.endpoint} has said nothing for {silent_s:.1f} s (run {self.run or 'unknown'})"
        if silent_s >= self._silence.give_up_s:
            limit = f"the limit is {self._silence.give_up_s:g} s"
            raise LateArrival(f"{what}; {limit}: is the twin running, and is this its state endpoint?")
        if silent_s >= self._silence.gone_s:
            if self.condition != "gone" or (now_ns - self._anew_ns) * 1e-9 >= self._silence.gone_s:
                self._anew_ns = now_ns
                self._turn("gone", f"{what}; connecting anew")
                self._hang_up()
                if self._socket is not None:
                    self._socket.close()
                self._open()
        elif silent_s >= self._silence.late_s and self.condition == "live":
            self._turn("late", what)

    def _turn(self, condition: str, why: str) -> None:
        if condition != self.condition:
            self.condition = condition
            self._notice(why)


def _beside(state: str) -> str:
    """The control endpoint that goes with a state endpoint, as the bus places it."""
    transport, _, address = state.partition("://")
    host, _, port = address.rpartition(":")
    return f"tcp://{host}:{int(port) + 1}" if transport == "tcp" and port.isdigit() else f"{state}.control"
