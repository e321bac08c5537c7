"""One ZeroMQ session of questions and answers: versions, numbered messages, heartbeats, bounded waits, no hangs.

A message is two frames. The header is a MessagePack list ``[protocol, [major, minor], kind, seq, received_ns, sent_ns,
incarnation]``, the second frame is the payload. The asking side is a DEALER and numbers its questions from 1; the answering
side is a ROUTER and answers with the same ``seq`` and with one of the kinds

- ``answer``: what was asked for,
- ``misuse``, ``fault``, ``late``: ``hal.errors``, the payload is the sentence in UTF-8,
- ``anew``: the question was not done, because it was meant for a server that ran here before.

``received_ns`` and ``sent_ns`` are the answering side's clock when the question came and when the answer left (0 in a
question); they give the asking side the offset between the two clocks. ``incarnation`` is a number the answering side draws
when it starts; a question repeats it (0: any will do), so that no command reaches a machine other than the one it was
meant for. Another major version is refused in words. Frames that are not a header are counted and answered by a ``fault``
with seq -1. ``hello`` and ``ping`` are answered by the session itself. Heartbeats are the transport's own (ZMTP's or TCP's)
and are answered while the owner is busy, so a peer that is busy is not taken for one that is dead.

Either side may also say something unasked, a notice: the answering side with a kind of its own choosing and a seq of its own count
(``Server.tell``, ``Client.hear``), the asking side with a question that gets no answer (``Client.tell``).

Both sides speak ZMTP on plain sockets (``hal.zmtp``, ``hal.switchboard``), or through libzmq where there are CURVE keys. On the wire there is no
difference.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import zmq
import zmq.auth.thread
from zmq.utils.monitor import parse_monitor_message

from hal.check import positive
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.gate import EVERYTHING, ROLES, Gate
from hal.record import record
from hal.switchboard import Switchboard
from hal.wire import LIMIT_BYTES, VERSION
from hal.zmtp import Line

__all__ = [
    "PROTOCOL",
    "Client",
    "Handler",
    "Header",
    "Keys",
    "Patience",
    "PeerClock",
    "Server",
    "guard",
    "stays_here",
    "watched",
]

PROTOCOL = "isac-twin"
HEARTBEAT_MS = 500  # a peer silent for four of these is gone
SLICE_MS = 10  # how often a wait looks whether the connection still stands
BRIEF_S = 0.02  # what a line is given to come back in, once it has been waited for in vain
REDIAL_S = 0.2  # how long a line that was lost between questions may take to stand again
TRIPS = 64  # a clock is known from the shortest of so many
PEERS = 256  # a server remembers this many
DOMAINS = ("*", "control", "state")  # of ZAP: the sockets whose doors it minds
REFUSALS = 256  # a server remembers this many until somebody asks
AGAIN_NS = 10_000_000_000  # before the same refusal is logged again
NAME = 64  # bytes of a name that a peer gives itself
NOTICES = 1000  # a client keeps this many unread ones
ANSWERS = frozenset(("answer", "misuse", "fault", "late", "anew"))

Handler = Callable[[str, bytes], bytes | None]  # None: nothing is answered
_log = logging.getLogger("hal.session")


class Header(msgspec.Struct, array_like=True, gc=False):
    """The first frame; a later minor version may add entries at the end."""

    protocol: str
    version: tuple[int, int]
    kind: str
    seq: int
    received_ns: int = 0
    sent_ns: int = 0
    incarnation: int = 0


@dataclass(frozen=True)
class Patience:
    """How long a question may take: after ``warn_s`` the log names the blocker, after ``give_up_s`` it is an error."""

    warn_s: float = 0.1
    give_up_s: float = 1.0

    def __post_init__(self) -> None:
        positive("patience.warn_s", self.warn_s)
        positive("patience.give_up_s", self.give_up_s, "to wait in a debugger, give it an hour")


@dataclass(frozen=True)
class Keys:
    """CURVE keys, each 40 characters of Z85 (``zmq.curve_keypair``)."""

    public: bytes
    secret: bytes
    server: bytes | None = None  # asking side: the public key of the server it means to talk to
    # answering side: the public keys it lets in, each with its role (``hal.gate.ROLES``); a set: each with every role
    allowed: frozenset[bytes] | Mapping[bytes, str] = frozenset()

    def role(self, key: bytes) -> str:
        """What a key that was let in may do."""
        return self.allowed.get(key, "none") if isinstance(self.allowed, Mapping) else EVERYTHING


@record
class PeerClock:
    """The peer's clock as seen from here: ``peer = ours + offset_ns + drift (ours - at_ns)``, at ``at_ns`` wrong by no more than ``uncertainty_ns``."""

    offset_ns: int
    uncertainty_ns: int  # half the shortest round trip
    samples: int
    at_ns: int  # of our clock, when that was so
    drift: float  # what the peer's clock gains on ours, s/s
    drift_uncertainty: float  # it is wrong by no more than this; inf until there are two times to compare


_HEADER: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)
_PACK = msgspec.msgpack.Encoder().encode
_NEWS = {
    int(zmq.EVENT_DISCONNECTED): "the connection was closed",
    int(zmq.EVENT_CONNECT_RETRIED): "nobody listens there",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "it refused our key",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "the handshake failed; does one side use CURVE keys and the other not?",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "it does not speak ZMTP as we do; does only one side use CURVE keys?",
}
_UNSPOKEN = {int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL), int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)}
_REFUSED = {int(zmq.EVENT_HANDSHAKE_FAILED_AUTH), int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)}


def _version_flaw(header: Header) -> str | None:
    if header.protocol != PROTOCOL:
        return f"speaks {header.protocol!r}; this side speaks {PROTOCOL!r}"
    if header.version[0] != VERSION[0]:
        theirs, ours = (".".join(map(str, version)) for version in (header.version, VERSION))
        return f"speaks version {theirs} of {PROTOCOL}; this side speaks {ours}: update the older of the two"
    return None


def _socket(context: zmq.Context[Any], kind: int, limit_bytes: int) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.linger = 0
    socket.set(zmq.MAXMSGSIZE, limit_bytes)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 4 * HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TTL, 4 * HEARTBEAT_MS)
    socket.set(zmq.IPV6, 0)
    return socket


class Client:
    """The asking side; one thread owns it. Opening says hello and learns who answers; close it when done.

    Raises, from every question: LateArrival where no answer came in time, RemoteFault where the other side failed, is
    of another version, closed the connection or was started anew since the last question, Misuse where it found the
    question wrong. After any of them the next question may be asked; an answer that comes too late is counted, dropped.
    """

    def __init__(
        self,
        endpoint: str,
        patience: Patience | None = None,
        keys: Keys | None = None,
        name: str = "client",
        clock: Callable[[], int] = time.monotonic_ns,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self.endpoint = endpoint
        self.patience = Patience() if patience is None else patience
        self.peer = ""  # the server's own name, once it has said it
        self.counts = dict.fromkeys(("asked", "answered", "late", "duplicate", "garbage", "warned"), 0)
        self._name = name
        self._clock = clock
        self._seq = 0
        self._notices: deque[tuple[str, int, bytes]] = deque(maxlen=NOTICES)
        self._answered = 0  # last seq that was answered
        self._greeted = False
        self._gone = False  # nobody was there when last somebody was waited for
        self._answering = 0  # incarnation of the server that answered last
        self.incarnation = 0  # of the server; another number when it is started anew
        self._round_trips: deque[tuple[int, int, int]] = deque(maxlen=TRIPS)  # length, offset, when
        self._earliest: list[tuple[int, int, int]] = []  # the first of them, for the drift since
        self._closed = False
        direct = keys is None and endpoint.startswith(("tcp://", "ipc://"))
        self._line: Line | _Libzmq = Line(endpoint, limit_bytes) if direct else _Libzmq(endpoint, limit_bytes, keys)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"{self.peer or 'the server'} at {self.endpoint}"

    @property
    def peer_clock(self) -> PeerClock:
        """The offset of the peer's clock, from the shortest of the last 64 round trips.

        ``offset = ((received - asked) + (sent - answered)) / 2``, as NTP does (RFC 5905, section 8); exact for a path
        that takes as long there as back, and never wrong by more than half the round trip. The drift is the line from the shortest of
        the first 64 to it.
        """
        trip, offset, at_ns = min(self._round_trips)
        first_trip, first_offset, first_ns = min(self._earliest)
        apart_ns = at_ns - first_ns
        return PeerClock(
            offset_ns=offset,
            uncertainty_ns=(trip + 1) // 2,
            samples=len(self._round_trips),
            at_ns=at_ns,
            drift=(offset - first_offset) / apart_ns if apart_ns > 0 else 0.0,
            drift_uncertainty=(trip + first_trip) / 2 / apart_ns if apart_ns > 0 else math.inf,
        )

    def ask(self, kind: str, payload: bytes = b"") -> bytes:
        """Ask and wait for the answer, no longer than ``patience.give_up_s``."""
        if self._closed:
            raise Misuse(f"{self}: this session is closed; open another")
        if self._look() or (self._greeted and not self._line.connected):
            self._greeted = False
            if not self._line.settle(REDIAL_S):  # what only gave up a silent line is there at once
                raise RemoteFault(
                    f"{self}: the connection was closed since the last question; the next one tries again"
                )
        if not self._greeted:
            self._greet()
        return self._ask(kind, payload)

    def tell(self, kind: str, payload: bytes = b"") -> int:
        """Say something that gets no answer unless it is refused (``hear``); return its seq. RemoteFault if nobody is there."""
        self._seq += 1
        header = Header(PROTOCOL, VERSION, kind, self._seq, incarnation=self.incarnation)
        if not self._line.send([_PACK(header), payload]):
            raise RemoteFault(f"{self}: the connection was closed; what was said is lost")
        return self._seq

    def hear(self, wait_s: float) -> tuple[str, int, bytes] | None:
        """The next notice as (kind, seq, payload), or None if none comes in ``wait_s``; RemoteFault where the connection is lost."""
        until_ns = self._clock() + round(wait_s * 1e9)
        while not self._notices:
            left_ms = (until_ns - self._clock()) / 1e6
            parts = self._line.receive(max(0, math.ceil(left_ms)))
            if parts is not None:
                self._take(parts, 0, 0)
            elif self._look() or not self._line.connected:
                self._greeted = False
                raise RemoteFault(f"{self}: the connection was closed")
            elif left_ms <= 0:
                return None
        return self._notices.popleft()

    def ping(self) -> PeerClock:
        """Ask for nothing but the time."""
        self.ask("ping")
        return self.peer_clock

    def close(self) -> None:
        """Drop the connection at once; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._line.close()

    def _greet(self) -> None:
        before, self.incarnation = self.incarnation, 0
        answer = self._ask("hello", _PACK(self._name))
        try:
            self.peer = msgspec.msgpack.decode(answer, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RemoteFault(f"{self}: answered hello with nonsense: {error}") from None
        self.incarnation, self._greeted = self._answering, True
        if before not in (0, self.incarnation):
            self._round_trips.clear()
            self._earliest.clear()
            raise RemoteFault(f"{self}: was started anew since the last question; what it held before is lost")

    def _ask(self, kind: str, payload: bytes) -> bytes:
        self._seq += 1
        self.counts["asked"] += 1
        frames = [_PACK(Header(PROTOCOL, VERSION, kind, self._seq, incarnation=self.incarnation)), payload]
        asked_ns = self._clock()
        warn_ns: float = asked_ns + self.patience.warn_s * 1e9
        give_up_ns = asked_ns + self.patience.give_up_s * 1e9
        brief_ns = asked_ns + BRIEF_S * 1e9
        sent = False
        while True:
            sent = sent or self._line.send(frames)
            if not (self._gone and not self._line.connected):
                brief_ns = math.inf
            until_ms = (min(warn_ns, give_up_ns, brief_ns) - self._clock()) / 1e6
            try:
                parts = self._line.receive(max(0, math.ceil(until_ms)))
                lost = parts is None and self._line.look() and (sent or kind != "hello")
            except RemoteFault as fault:
                self._greeted = False
                raise RemoteFault(f"{self}: {fault}") from None
            if parts is not None:
                answer = self._take(parts, self._seq, asked_ns)
                if answer is not None:
                    self._gone = False
                    return answer
            elif lost:
                self._greeted = False
                raise RemoteFault(f"{self}: the connection was closed before {kind!r} seq {self._seq} was answered")
            now_ns = self._clock()
            if now_ns >= give_up_ns or (now_ns >= brief_ns and not self._line.connected):
                self._gone = not self._line.connected
                raise LateArrival(
                    self._blocked(kind, now_ns - asked_ns) + f"; the limit is {self.patience.give_up_s:g} s"
                )
            if now_ns >= warn_ns:
                warn_ns = math.inf
                self.counts["warned"] += 1
                _log.warning(self._blocked(kind, now_ns - asked_ns))

    def _blocked(self, kind: str, waited_ns: float) -> str:
        news = "" if self._line.news is None else f"; {self._line.news}"
        if self.counts["garbage"]:
            news += f"; {self.counts['garbage']} messages came that have no header this side can read"
        last = f"its last answer was to seq {self._answered}" if self._answered else "it has not answered before"
        return f"{self}: no answer to {kind!r} seq {self._seq} after {waited_ns * 1e-9:.3g} s; {last}{news}"

    def _take(self, parts: list[bytes], seq: int, asked_ns: int) -> bytes | None:
        """The payload of a message if it answers ``seq``, None if it is to be ignored."""
        now_ns = self._clock()
        try:
            head, payload = parts
            header = _HEADER.decode(head)
        except (ValueError, msgspec.DecodeError):
            self.counts["garbage"] += 1
            return None
        flaw = _version_flaw(header)
        if flaw is not None:
            said = f" ({payload.decode(errors='replace')})" if header.kind == "fault" else ""
            raise RemoteFault(f"{self}: {flaw}{said}")
        if header.kind not in ANSWERS or (seq == 0 and header.kind != "answer"):
            self._notices.append((header.kind, header.seq, payload))
            return None
        if header.seq != seq and header.seq != -1:
            self.counts["duplicate" if header.seq == self._answered else "late"] += 1
            return None
        self._answered = seq
        self.counts["answered"] += 1
        self._answering = header.incarnation
        if header.kind == "answer":
            trip = (now_ns - asked_ns) - (header.sent_ns - header.received_ns)
            offset = ((header.received_ns - asked_ns) + (header.sent_ns - now_ns)) // 2
            found = max(trip, 0), offset, asked_ns
            self._round_trips.append(found)
            if len(self._earliest) < TRIPS:
                self._earliest.append(found)
            return payload
        if header.kind == "anew":
            self._greeted = False
            self._greet()
        text = payload.decode(errors="replace")
        if header.kind == "misuse":
            raise Misuse(text)
        if header.kind == "late":
            raise LateArrival(f"{self}: {text}")
        raise RemoteFault(f"{self}: {text}")

    def _look(self) -> bool:
        try:
            return self._line.look()
        except RemoteFault as fault:
            self._greeted = False
            raise RemoteFault(f"{self}: {fault}") from None


class _Libzmq:
    """The line through libzmq, which knows CURVE; the same verbs as ``hal.zmtp.Line``."""

    def __init__(self, endpoint: str, limit_bytes: int, keys: Keys | None) -> None:
        self.connected = False
        self.news: str | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = _socket(self._context, zmq.DEALER, limit_bytes)
        self._socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        # nothing is kept for a peer that is not there: a stale command is worse than none
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.RECONNECT_IVL, 20)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 500)
        self._monitor = self._socket.get_monitor_socket()
        self._sent = False
        try:
            if keys is not None:
                if keys.server is None:
                    raise Misuse("keys.server = None: a client needs the public key of the server it means to talk to")
                self._socket.curve_publickey, self._socket.curve_secretkey = keys.public, keys.secret
                self._socket.curve_serverkey = keys.server
            _attach(self._socket.connect, endpoint)
        except BaseException:
            self.close()
            raise

    def send(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
            self._sent = True
        except zmq.Again:
            self._sent = False
        return self._sent

    def receive(self, wait_ms: float) -> list[bytes] | None:
        flags = zmq.POLLIN if self._sent else zmq.POLLIN | zmq.POLLOUT
        ready = self._socket.poll(int(min(SLICE_MS, wait_ms)), flags)
        return self._socket.recv_multipart() if ready & zmq.POLLIN else None

    def settle(self, wait_s: float) -> bool:
        return self.connected

    def look(self) -> bool:
        """Read what became of the connection; return whether it was lost, raise where it will never be."""
        lost = False
        while int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event = int(parse_monitor_message(self._monitor.recv_multipart())["event"])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.news, self.connected = None, True
            elif event in _NEWS:
                self.news = _NEWS[event]
            if event == zmq.EVENT_DISCONNECTED:
                lost, self.connected = True, False
            if event in _REFUSED:
                raise RemoteFault(_NEWS[event])
        return lost and not self._socket.poll(0)

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()


class Server:
    """The answering side; one thread owns it. ``endpoint`` is what it is bound to, a wildcard port resolved."""

    def __init__(
        self,
        endpoint: str,
        keys: Keys | None = None,
        insecure: bool = False,
        name: str = "server",
        clock: Callable[[], int] = time.monotonic_ns,
        limit_bytes: int = LIMIT_BYTES,
        gate: Gate | None = None,
    ) -> None:
        guarded = keys is not None and len(keys.allowed) > 0
        if not (guarded or insecure or stays_here(endpoint)):
            raise Misuse(
                f"endpoint = {endpoint!r}: others than this computer can reach it; give CURVE keys with an allow-list, "
                "bind 127.0.0.1, or say insecure"
            )
        self.name = name
        self.counts = dict.fromkeys(("asked", "answered", "duplicate", "garbage", "refused", "failed"), 0)
        self._clock = clock
        self._incarnation = 1 + int.from_bytes(os.urandom(7), "little")  # only ever compared; no result depends on it
        self._peers: OrderedDict[bytes, int] = OrderedDict()
        self.asker = b""  # who asked what is being answered; ``tell`` takes it
        self.role = EVERYTHING  # of the key it asked with
        self.refused: deque[tuple[str, str]] = deque(
            maxlen=REFUSALS
        )  # who was turned away, and why; whoever reads it empties it
        self._said: dict[tuple[str, str], int] = {}  # when each was logged last
        self._names: OrderedDict[bytes, str] = OrderedDict()  # by which peers call themselves
        self._keys, self._gate = keys, gate
        self._door: Switchboard | _Router = (
            Switchboard(endpoint, limit_bytes) if keys is None else _Router(endpoint, limit_bytes, keys, self.refuse)
        )
        self.endpoint = self._door.endpoint

    def run(self, handler: Handler, stop: Callable[[], bool]) -> None:
        """Answer until ``stop()``, which is asked at least every 50 ms."""
        while not stop():
            self.poll(handler, 50)

    def poll(self, handler: Handler, timeout_ms: int, most: int = PEERS) -> int:
        """Answer what has come, at most ``most`` messages, waiting up to ``timeout_ms`` for the first; return how many came.

        ``handler(kind, payload)`` returns the answer, or None for none; an exception it raises becomes one of the error kinds,
        and the server goes on.
        """
        came, door = 0, self._door
        while came < most:  # let the caller see its stop flag even under a flood
            parts = door.receive(0 if came else timeout_ms)
            if parts is None:
                break
            came += 1
            if self._keys is not None:
                self._admit(parts[0], door.key)
            self._serve(parts, handler)
        return came

    def refuse(self, who: str, why: str) -> None:
        """Count that somebody was turned away; remember and log it, the same of the same peer once in ten seconds."""
        self.counts["refused"] += 1
        now = self._clock()
        if now - self._said.get((who, why), -AGAIN_NS) < AGAIN_NS:
            return
        if len(self._said) >= REFUSALS:
            self._said.clear()
        self._said[who, why] = now
        self.refused.append((who, why))
        _log.warning("%s: refused %s: %s", self.name, who, why)

    def tell(self, peer: bytes, kind: str, seq: int, payload: bytes = b"") -> str:
        """Say something unasked to ``peer``, never waiting: "" if it is on its way, else why not ("gone", or "full": it does not read)."""
        header = _PACK(Header(PROTOCOL, VERSION, kind, seq, 0, self._clock(), self._incarnation))
        self._door.look()
        return self._door.send(peer, [header, payload])

    def close(self) -> None:
        """Stop listening at once; a second call does nothing."""
        self._door.close()

    def _admit(self, peer: bytes, key: str) -> None:
        """What a message's key may do, and how its peer is named until it names itself."""
        assert self._keys is not None
        self.role = self._keys.role(key.encode())
        self._names.setdefault(peer, f"key {key[:8]}")
        if len(self._names) > PEERS:
            self._names.popitem(last=False)

    def _serve(self, parts: list[bytes], handler: Handler) -> None:
        received_ns = self._clock()
        peer = parts[0]
        try:
            _, head, payload = parts
            header = _HEADER.decode(head)
        except (ValueError, RecursionError, msgspec.DecodeError):
            self.counts["garbage"] += 1
            return self._answer(peer, "fault", -1, received_ns, b"this is not a header and a payload")
        flaw = _version_flaw(header)
        if flaw is not None:
            self.refuse(self._who(peer), flaw)
            return self._answer(peer, "fault", header.seq, received_ns, f"refused: the client {flaw}".encode())
        if header.incarnation not in (0, self._incarnation):
            self.counts["refused"] += 1
            return self._answer(peer, "anew", header.seq, received_ns, b"was started anew; what it held before is lost")
        last = self._peers.get(peer, 0)
        if header.seq <= last:
            self.counts["duplicate"] += 1
            if 0 < header.seq == last:  # asked twice, and answered once
                return None
            why = f"seq {header.seq} after {last}: questions are numbered upwards from 1; connect anew"
            return self._answer(peer, "fault", header.seq, received_ns, why.encode())
        self._peers[peer] = header.seq
        self._peers.move_to_end(peer)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)
        if header.kind == "hello":
            self._call(peer, payload)
        why = "" if self._gate is None else self._gate.flaw(peer, self.role, header.kind, len(payload))
        if why:
            self.refuse(self._who(peer), why)
            return self._answer(peer, "misuse", header.seq, received_ns, f"refused: {why}".encode(errors="replace"))
        self.counts["asked"] += 1
        self.asker = peer
        kind, answer = self._ask(handler, header.kind, payload)
        return None if answer is None else self._answer(peer, kind, header.seq, received_ns, answer)

    def _call(self, peer: bytes, payload: bytes) -> None:
        """Remember the name a peer gives itself, for the log."""
        try:
            name = msgspec.msgpack.decode(payload[:NAME], type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        known = self._names.get(peer, "")
        key = known if known.startswith("key ") else ""
        self._names[peer] = f"{name!r} {key}".strip()
        if len(self._names) > PEERS:
            self._names.popitem(last=False)

    def _who(self, peer: bytes) -> str:
        return self._names.get(peer, "somebody")

    def _ask(self, handler: Handler, kind: str, payload: bytes) -> tuple[str, bytes | None]:
        if kind == "hello":
            return "answer", _PACK(self.name)
        if kind == "ping":
            return "answer", b""
        try:
            return "answer", handler(kind, payload)
        except Exception as error:
            self.counts["failed"] += 1
            if isinstance(error, Misuse):
                return "misuse", str(error).encode(errors="replace")
            if isinstance(error, LateArrival):
                return "late", str(error).encode(errors="replace")
            if isinstance(error, RemoteFault):
                return "fault", str(error).encode(errors="replace")
            _log.exception("%s: %r failed", self.name, kind)
            return "fault", f"{kind} failed: {type(error).__name__}: {error}".encode(errors="replace")

    def _answer(self, peer: bytes, kind: str, seq: int, received_ns: int, payload: bytes) -> None:
        header = _PACK(Header(PROTOCOL, VERSION, kind, seq, received_ns, self._clock(), self._incarnation))
        why = self._door.send(peer, [header, payload])
        if not why:
            self.counts["answered"] += 1
        else:  # its own loss, nobody else's
            level = logging.WARNING if why == "full" else logging.DEBUG
            _log.log(level, "%s: a peer takes no answers: it is %s", self.name, why)


class _Router:
    """The answering line through libzmq, which knows CURVE; the same verbs as ``hal.switchboard.Switchboard``."""

    def __init__(self, endpoint: str, limit_bytes: int, keys: Keys, refuse: Callable[[str, str], None]) -> None:
        self.key = ""  # that the last message came with
        self._refuse = refuse
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard = guard(self._context, keys, refuse)
        self._socket = _socket(self._context, zmq.ROUTER, limit_bytes)
        self._socket.set(zmq.HANDSHAKE_IVL, 2000)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)  # to speak to who has left is an error, not silence
        self._monitor = self._socket.get_monitor_socket()
        self._closed = False
        self._wait_ms = -1
        try:
            self._socket.curve_server = True
            self._socket.zap_domain = b"control"
            self._socket.curve_publickey, self._socket.curve_secretkey = keys.public, keys.secret
            _attach(self._socket.bind, endpoint)
        except BaseException:
            self.close()
            raise
        self.endpoint = bytes(self._socket.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0")

    def receive(self, wait_ms: int) -> list[bytes] | None:
        watched(self._monitor, self._refuse)
        if not wait_ms and not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            return None  # cheaper than to try
        if wait_ms != self._wait_ms:
            self._socket.rcvtimeo = self._wait_ms = wait_ms
        try:
            frames: list[Any] = self._socket.recv_multipart(copy=False)
        except zmq.Again:
            return None
        self.key = str(frames[-1].get("User-Id"))
        return [frame.bytes for frame in frames]

    def send(self, peer: bytes, frames: list[bytes]) -> str:
        try:
            self._socket.send_multipart([peer, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return "full"
        except zmq.ZMQError:
            return "gone"
        return ""

    def look(self) -> None:
        """Nothing: libzmq has looked."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            self._guard.stop()
            self._context.term()


def _attach(attach: Callable[[str], Any], endpoint: str) -> None:
    try:
        attach(endpoint)
    except zmq.ZMQError as error:
        raise Misuse(f"endpoint = {endpoint!r}: {error}; write it as tcp://127.0.0.1:5555 or ipc:///tmp/name") from None


def stays_here(endpoint: str) -> bool:
    """Whether nobody but this computer can reach an endpoint."""
    transport, _, address = endpoint.partition("://")
    return transport in ("ipc", "inproc") or address.rpartition(":")[0] in ("127.0.0.1", "localhost")


def guard(
    context: zmq.Context[Any],
    keys: Keys,
    refuse: Callable[[str, str], None],
    doors: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> zmq.auth.thread.ThreadAuthenticator:
    """The thread that ZeroMQ asks (ZAP, RFC 27) whether a key may come in; whom it turns away it names to ``refuse``, from that thread.

    ``doors`` are sockets, by their ZAP domain, that only some roles may use.
    """

    class Listed:
        def callback(self, domain: str, key: bytes) -> bool:
            who = f"key {key[:8].decode(errors='replace')}"
            if key not in keys.allowed:
                refuse(who, "is a stranger: its key is not in the allow-list")
                return False
            role = keys.role(key)
            if role != EVERYTHING and role not in doors.get(domain, ROLES):
                refuse(who, f"a {role}'s key does not open {domain}")
                return False
            return True

    made = zmq.auth.thread.ThreadAuthenticator(context)
    made.start()
    for domain in DOMAINS:
        made.configure_curve_callback(domain=domain, credentials_provider=Listed())
    return made


def watched(monitor: zmq.Socket[bytes], refuse: Callable[[str, str], None]) -> None:
    """Read a socket's monitor, and name to ``refuse`` who came without speaking CURVE."""
    while int(monitor.get(zmq.EVENTS)) & zmq.POLLIN:
        event = int(parse_monitor_message(monitor.recv_multipart())["event"])
        if event in _UNSPOKEN:
            refuse("somebody", "does not speak CURVE, or has another key for this side than its own")
