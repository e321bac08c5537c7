"""Rules about the wire: what a server must make of other versions, garbage, repetition, strangers and silence."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import zmq

from hal.conformance.bench import Bench, Broken, Finding, Skipped, changed
from hal.errors import LateArrival, RemoteFault
from hal.session import HEARTBEAT_MS, PROTOCOL, Client, Header, Patience
from hal.wire import VERSION

__all__ = ["RULES"]

_HEAD: msgspec.msgpack.Decoder[Header] = msgspec.msgpack.Decoder(Header)


class _Stranger:
    """A bare peer that may say anything."""

    def __init__(self, endpoint: str, context: zmq.Context[Any]) -> None:
        self.seq = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self.socket.set(zmq.HEARTBEAT_TIMEOUT, 2 * HEARTBEAT_MS)
        self.socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(list(frames))

    def question(
        self, kind: str, seq: int | None = None, version: tuple[int, int] = VERSION, incarnation: int = 0
    ) -> bytes:
        self.seq = self.seq + 1 if seq is None else seq
        return msgspec.msgpack.encode(Header(PROTOCOL, version, kind, self.seq, incarnation=incarnation))

    def answer(self, wait_ms: int = 2000) -> tuple[Header, bytes] | None:
        """The next answer, None if none came in time."""
        if not self.socket.poll(wait_ms):
            return None
        parts = self.socket.recv_multipart()
        if len(parts) != 2:
            raise Broken(f"answered with {len(parts)} frames; an answer has two, header and payload")
        try:
            return _HEAD.decode(parts[0]), parts[1]
        except msgspec.DecodeError as error:
            raise Broken(f"answered with a header that is none: {error}") from None

    def ask(self, kind: str, payload: bytes = b"", **more: Any) -> tuple[Header, bytes]:
        """The answer to a question, which must come."""
        self.send(self.question(kind, **more), payload)
        found = self.answer()
        if found is None:
            raise Broken(f"{kind!r} was not answered within 2 s")
        return found


@contextmanager
def _stranger(bench: Bench) -> Iterator[_Stranger]:
    if bench.endpoint is None:
        raise Skipped("this front end is in this process; there is no wire")
    context: zmq.Context[Any] = zmq.Context()
    stranger = _Stranger(bench.endpoint, context)
    try:
        yield stranger
    finally:
        stranger.socket.close(0)
        context.term()


def _fault(header: Header, payload: bytes, kind: str, what: str) -> str:
    text = payload.decode(errors="replace")
    if header.kind != kind or not text.strip():
        raise Broken(f"{what} is answered by {header.kind!r} ({text[:60]!r}); it must be {kind!r} and a sentence")
    return text


def version(bench: Bench) -> Finding:
    """Another major version is refused in words, another minor version is served."""
    with _stranger(bench) as peer:
        text = _fault(*peer.ask("spec", version=(VERSION[0] + 1, 0)), "fault", "a question of another major version")
        header, _ = peer.ask("spec", version=(VERSION[0], VERSION[1] + 7))
        if header.kind != "answer":
            raise Broken(f"a later minor version is answered by {header.kind!r}; it must be served")
        header, _ = peer.ask("hello", msgspec.msgpack.encode("stranger"))
        if header.protocol != PROTOCOL or header.version[0] != VERSION[0] or not header.incarnation:
            raise Broken(f"its headers say {header.protocol!r} {header.version} incarnation {header.incarnation}")
    return Finding(f"another major version is refused: {text!r}")


def garbage(bench: Bench) -> Finding:
    """Nonsense is answered by a fault or dropped, and the next good question is answered."""
    tried: list[tuple[bytes, ...]] = [
        (b"",),
        (b"\xc1", b""),
        (b"x",) * 5,
        (msgspec.msgpack.encode([PROTOCOL, "1.0", "spec", 1]), b""),
        (b"\x93\x01",),
    ]
    with _stranger(bench) as peer:
        for frames in tried:
            peer.send(*frames)
        for payload in (b"", b"\xff" * 64, msgspec.msgpack.encode({"t_ns": 1})):
            header, said = _until(peer, "emit", payload)
            if header.kind not in ("fault", "misuse"):
                raise Broken(
                    f"a drive of {len(payload)} bytes of nonsense is answered by {header.kind!r} {said[:40]!r}"
                )
        transport, _, address = str(bench.endpoint).partition("://")
        if transport == "tcp":
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), 2) as bare:
                bare.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 16)
        if _until(peer, "spec", b"")[0].kind != "answer":
            raise Broken("the nameplate is not told any more after garbage")
    return Finding(
        f"{len(tried) + 3} pieces of nonsense and bytes that are not ZeroMQ; the nameplate is still told",
        {"pieces": len(tried) + 4},
    )


def _until(peer: _Stranger, kind: str, payload: bytes) -> tuple[Header, bytes]:
    """The answer to this question; faults of seq -1 before it belong to garbage."""
    peer.send(peer.question(kind), payload)
    while True:
        found = peer.answer()
        if found is None:
            raise Broken(f"{kind!r} was not answered within 2 s of garbage")
        if found[0].seq == peer.seq:
            return found


def once(bench: Bench) -> Finding:
    """A question asked twice is answered once: a repeated message must not move the machine again."""
    with _stranger(bench) as peer:
        peer.ask("ping", seq=5)
        peer.send(peer.question("ping", seq=5), b"")
        header, _ = peer.ask("ping", seq=6)
        if header.seq != 6:
            raise Broken("a repeated question was done a second time; its number says that it was done")
    return Finding("a question repeated under its number is not done again")


def unknown(bench: Bench) -> Finding:
    """A verb that is not there is misuse, in words."""
    with _stranger(bench) as peer:
        text = _fault(*peer.ask("fly"), "misuse", "an unknown question")
    return Finding(f"an unknown question is misuse: {text!r}")


def stale(bench: Bench) -> Finding:
    """A question meant for a server that ran here before is not done, and answered ``anew``."""
    with _stranger(bench) as peer:
        header, _ = peer.ask("hello", msgspec.msgpack.encode("stranger"))
        own, _ = peer.ask("ping", incarnation=header.incarnation)
        other, _ = peer.ask("ping", incarnation=header.incarnation ^ 1)
    if (own.kind, other.kind) != ("answer", "anew"):
        raise Broken(
            f"a question for this incarnation is answered by {own.kind!r}, for another by {other.kind!r}; must be answer and anew"
        )
    return Finding("a question meant for an earlier server is answered 'anew' and not done")


def clients(bench: Bench) -> Finding:
    """Two clients at once get their own answers, and one that leaves changes nothing: the beam in force stays."""
    bench.load(bench.scattered("transmit", [0], 50))
    before = bench.sent([0], [bench.now_ns])
    with _stranger(bench) as one, _stranger(bench) as two:
        for _ in range(20):
            one.send(one.question("ping"), b"")
            two.send(two.question("spec"), b"")
            answers = [one.answer(), two.answer()]
            if any(a is None for a in answers) or not len(answers[0][1]) < len(answers[1][1]):  # type: ignore[index]
                raise Broken("two clients asking at once do not get their own answers")
    client = Client(str(bench.endpoint), Patience(1.0, 5.0), name="another client")
    client.close()
    client.close()
    bench.now_ns += 1_000_000
    if changed(bench.sent([0], [bench.now_ns]), before).any():
        raise Broken("the beam changed when another client left; the beam in force stays")
    return Finding(
        "20 questions of two clients in turn, and a third that leaves: answers are their own, the beam stays"
    )


def heartbeats(bench: Bench) -> Finding:
    """A silent client stays connected, and the machine's clock is told."""
    with _stranger(bench) as peer:
        peer.ask("ping")
        time.sleep(2.5 * HEARTBEAT_MS * 1e-3)  # longer than the client's own heartbeats take to give a peer up
        header, _ = peer.ask("ping")
    if not 0 < header.received_ns <= header.sent_ns:
        raise Broken(f"its clock says received at {header.received_ns} and sent at {header.sent_ns} ns")
    client = Client(str(bench.endpoint), Patience(1.0, 5.0), name="clock")
    try:
        took = []
        for _ in range(100):
            begun = time.perf_counter_ns()
            clock = client.ping()
            took.append((time.perf_counter_ns() - begun) * 1e-3)
    except (RemoteFault, LateArrival) as error:
        raise Broken(f"100 pings in a row: {error}") from None
    finally:
        client.close()
    p50, p99 = (float(p) for p in np.percentile(took, [50, 99]))
    return Finding(
        f"connected after {2.5 * HEARTBEAT_MS:.0f} ms of silence; ping {p50:.0f} us, clock known to {clock.uncertainty_ns * 1e-3:.0f} us",
        {"ping_p50_us": p50, "ping_p99_us": p99, "clock_uncertainty_ns": clock.uncertainty_ns},
    )


RULES = {
    "version": version,
    "garbage": garbage,
    "once": once,
    "unknown": unknown,
    "stale": stale,
    "clients": clients,
    "heartbeats": heartbeats,
}
