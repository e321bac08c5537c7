"""The answering end of ZeroMQ connections on plain sockets: a ROUTER (ZMTP 3, mechanism NULL) that its owner reads, with no thread between.

libzmq's ROUTER takes every message through a thread of its own: two wake-ups for each question, of the four that a round trip costs. Here the
owner's ``receive`` waits on the sockets themselves. While the owner is away (it computes, or is in a debugger) a caretaker looks in four times a
second, so that connections are taken, greetings finished, PINGs answered and queues sent all the same.

Any ZeroMQ DEALER or REQ may call. A peer is named by a number of ours; the identity it asks for is not taken. Bounded for every peer: what it may
send unread, what may wait for it, how long it may take to introduce itself, the size of a message; and the number of peers.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import tempfile
import threading
import time
from collections import deque

from hal.errors import Misuse, RemoteFault
from hal.zmtp import Ended, Talk, parsed

__all__ = ["Switchboard"]

PEERS = 1024  # connections at once; another one is closed at once
TURNS = 16  # messages read before others are looked for, however many one peer has sent
UNREAD = 64  # messages of one peer that wait for the owner; then it is not read until some are gone
QUEUE = 1000  # messages that wait for one peer
QUEUE_BYTES = 1 << 28  # likewise; whatever its size, one message may always wait
GREET_S = 2.0  # to introduce itself in
AWAY_S = 0.25  # the owner has not looked for so long: the caretaker does
CALLERS = (b"DEALER", b"REQ", b"ROUTER")


class _Peer(Talk):
    __slots__ = ("mask", "name", "queued", "since", "until")

    def __init__(self, made: socket.socket, limit_bytes: int, name: bytes) -> None:
        super().__init__(made, limit_bytes, b"ROUTER", self._wants)
        self.name = name
        self.mask = select.EPOLLIN
        self.queued = 0  # messages said since nothing waited
        self.since = time.monotonic()
        self.until = self.since + GREET_S  # then it is given up

    def _wants(self, more: bool) -> None:
        self.mask = self.mask | select.EPOLLOUT if more else self.mask & ~select.EPOLLOUT
        if not more:
            self.queued = 0


class Switchboard:
    """Bound to ``endpoint`` (tcp or ipc; a port of 0 or ``*`` picks one); one thread owns it, ``close`` included.

    Raises Misuse for an endpoint that cannot be bound.
    """

    key = ""  # nobody comes with one

    def __init__(self, endpoint: str, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()  # of everything below
        self._peers: dict[bytes, _Peer] = {}
        self._by_file: dict[int, _Peer] = {}
        self._ready: deque[_Peer] = deque()  # that have messages to be read, each once
        self._made = 0
        self._turns = TURNS
        self._sweep_at = 0.0
        self._seen_at = time.monotonic()  # when the owner last looked
        self._path = ""
        self._host, self.endpoint = self._bound(endpoint)
        self._poll = select.epoll()
        self._poll.register(self._host, select.EPOLLIN)
        self._closed = threading.Event()
        self._caretaker = threading.Thread(target=self._care, name="switchboard", daemon=True)
        self._caretaker.start()

    def receive(self, wait_ms: float) -> list[bytes] | None:
        """The next message as [peer, frame, ...], waiting up to ``wait_ms`` (-1: for ever) for one; peers take turns."""
        until = math.inf if wait_ms < 0 else time.monotonic() + wait_ms * 1e-3
        while True:
            now = self._seen_at = time.monotonic()
            self._turns -= 1
            if not self._ready or self._turns < 0:
                self._turns, wait_s = TURNS, 0.0 if self._ready else min(max(until - now, 0.0), AWAY_S / 2)
                # the caretaker sees that the owner is here, so what is found is the owner's alone
                found = self._poll.poll(wait_s)
                with self._lock:
                    self._take(found)
            if self._ready:
                with self._lock:
                    return self._next()
            if time.monotonic() >= until:
                return None

    def send(self, peer: bytes, frames: list[bytes]) -> str:
        """Say something to a peer, never waiting: "" if it is on its way, else "gone", or "full": it does not read."""
        with self._lock:
            found = self._peers.get(peer)
            if found is None:
                return "gone"
            if found.waiting and (found.queued >= QUEUE or found.waiting > QUEUE_BYTES):
                return "full"
            before = found.mask
            try:
                found.say(frames)
            except Ended:
                self._drop(found)
                return "gone"
            if found.waiting:
                found.queued += 1
            if found.mask != before:
                self._poll.modify(found.fileno, found.mask)
            return ""

    def look(self) -> None:
        """Take in what has come, so that who has left is known to be gone."""
        with self._lock:
            self._seen_at = time.monotonic()
            self._take(self._poll.poll(0))

    def close(self) -> None:
        """Hang up on everybody; a second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._caretaker.join()
        for peer in list(self._peers.values()):
            self._drop(peer)
        self._poll.close()
        self._host.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _take(self, found: list[tuple[int, int]]) -> None:
        """Do all that can be done at once for sockets that something has happened to, with the lock held."""
        now = time.monotonic()
        for number, events in found:
            if number == self._host.fileno():
                self._accept()
            elif number in self._by_file:
                self._advance(self._by_file[number], events, now)
        if now >= self._sweep_at:
            self._sweep_at = now + AWAY_S / 2
            for peer in [p for p in self._peers.values() if p.until and now > p.until]:
                self._drop(peer)

    def _advance(self, peer: _Peer, events: int, now: float) -> None:
        before, had = peer.mask, bool(peer.heard)
        try:
            if before & select.EPOLLIN or events & (select.EPOLLHUP | select.EPOLLERR):
                peer.advance()
            else:
                peer.flush()
        except (Ended, RemoteFault):
            self._drop(peer)
        else:
            if peer.said and peer.kind not in CALLERS:
                self._drop(peer)
                return
            peer.until = now + peer.ttl_s if peer.ttl_s else 0.0 if peer.said else peer.until
            if len(peer.heard) >= UNREAD:
                peer.mask &= ~select.EPOLLIN
            if peer.mask != before:
                self._poll.modify(peer.fileno, peer.mask)
        if peer.heard and not had:
            self._ready.append(peer)

    def _next(self) -> list[bytes]:
        peer = self._ready.popleft()
        message = [peer.name, *peer.heard.popleft()]
        if peer.heard:
            self._ready.append(peer)
        if not peer.mask & select.EPOLLIN and len(peer.heard) < UNREAD // 2 and peer.name in self._peers:
            peer.mask |= select.EPOLLIN
            self._poll.modify(peer.fileno, peer.mask)
        return message

    def _accept(self) -> None:
        for _ in range(PEERS):
            try:
                made, _ = self._host.accept()
            except OSError:  # none is waiting any more, or it has left already, or there are no descriptors
                return
            if len(self._peers) >= PEERS:
                made.close()
                continue
            self._made += 1
            peer = _Peer(made, self._limit, b"\0" + self._made.to_bytes(8, "big"))
            try:
                peer.greet()
                peer.flush()
            except (Ended, OSError):
                made.close()
                continue
            self._peers[peer.name] = self._by_file[peer.fileno] = peer
            self._poll.register(peer.fileno, peer.mask)

    def _drop(self, peer: _Peer) -> None:
        """Hang up; what it had said whole is still read."""
        del self._peers[peer.name], self._by_file[peer.fileno]
        self._poll.unregister(peer.fileno)
        peer.socket.close()

    def _care(self) -> None:
        """Look in while the owner is away."""
        while not self._closed.wait(AWAY_S):
            with self._lock:
                if time.monotonic() - self._seen_at > AWAY_S:
                    self._take(self._poll.poll(0))

    def _bound(self, endpoint: str) -> tuple[socket.socket, str]:
        transport, _, address = endpoint.partition("://")
        host, _, port = address.rpartition(":")
        if transport == "ipc" and address == "*":
            address = f"{tempfile.mkdtemp(prefix='isac-twin-')}/socket"
        if transport == "tcp" and port in ("*", "0"):
            family, where = parsed(f"tcp://{host}:1")
            where = (where[0], 0)
        else:
            family, where = parsed(f"{transport}://{address}")
        if family == socket.AF_INET and where[0] == "*":
            where = ("0.0.0.0", where[1])  # type: ignore[assignment]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            elif not address.startswith("@"):
                with contextlib.suppress(FileNotFoundError):  # what a killed one left behind, as libzmq does
                    os.unlink(address)
            made.bind(where)
            made.listen(PEERS)
            made.setblocking(False)
        except OSError as error:
            made.close()
            raise Misuse(
                f"endpoint = {endpoint!r}: {error.strerror or error}; write it as tcp://127.0.0.1:5555 or ipc:///tmp/name"
            ) from None
        if family == socket.AF_INET:
            found, number = made.getsockname()
            return made, f"tcp://{found}:{number}"
        if not address.startswith("@"):
            self._path = address
        return made, f"ipc://{address}"
