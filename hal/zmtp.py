"""A ZeroMQ connection on a plain socket: ZMTP 3 (RFC 23 and 37), mechanism NULL; its bytes (``Talk``), and the asking end, a DEALER (``Line``).

libzmq hands every message to a thread of its own, which costs a question two wake-ups there and two back; a client that asks one question
at a time needs no thread. Any ZeroMQ ROUTER answers it; ours is ``hal.switchboard``. What it leaves out: CURVE (libzmq does that), queues, and
heartbeats of its own: the peer's PINGs are answered when the line is used, and a peer that gave up a silent line is dialled again.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

from hal.errors import Misuse, RemoteFault

__all__ = ["Ended", "Line", "Talk", "parsed"]

RETRY_S = 0.02
PARTS = 64  # frames of a message
_READ = 1 << 16  # bytes, at once
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_SIZE = struct.Struct(">Q")


def _ready(kind: bytes) -> bytes:
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", kind), (b"Identity", b"")):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return bytes([_COMMAND, len(body)]) + body


class Ended(Exception):
    """The connection is over, and why."""


class Talk:
    """One connection's bytes there and back, never waiting: greetings, frames, pings; whoever owns it says when there is something to read.

    ``said`` once both sides have introduced themselves. ``mind(more)`` is told when bytes begin to wait for room, and when none wait any more.
    Every call may raise Ended; RemoteFault where the other side can never be understood.
    """

    __slots__ = (
        "_bytes",
        "_greeted",
        "_in",
        "_kind",
        "_limit",
        "_mind",
        "_out",
        "_parts",
        "fileno",
        "heard",
        "kind",
        "said",
        "socket",
        "ttl_s",
        "waiting",
    )

    def __init__(
        self, made: socket.socket, limit_bytes: int, kind: bytes, mind: Callable[[bool], None] = lambda more: None
    ) -> None:
        made.setblocking(False)
        if made.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket, self.fileno = made, made.fileno()
        self.said = False
        self.kind = b""  # the other side's socket type
        self.ttl_s = 0.0  # silent for so long it wants to be given up; 0: it has not said so
        self.heard: deque[list[bytes]] = deque()  # messages that came
        self.waiting = 0  # bytes to be sent
        self._kind, self._limit, self._mind = kind, limit_bytes, mind
        self._in = bytearray()
        self._out: deque[memoryview] = deque()
        self._parts: list[bytes] = []
        self._bytes = 0  # of ``_parts``
        self._greeted = False

    def greet(self) -> None:
        """Say the first bytes; before anything else."""
        self._write([_GREETING])

    def say(self, frames: list[bytes]) -> None:
        """Hand a message over."""
        data = []
        for k, frame in enumerate(frames):
            more = _MORE if k + 1 < len(frames) else 0
            size = len(frame)
            data.append(bytes([more | _LONG]) + _SIZE.pack(size) if size > 255 else bytes([more, size]))
            data.append(frame)
        self._write(data)

    def advance(self) -> bool:
        """Send what waits and read what came, as far as it goes at once; return whether something came."""
        if self._out:
            self.flush()
        try:
            got = self.socket.recv(_READ)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Ended(_why(error)) from None
        if not got:
            raise Ended("the connection was closed")
        self._in += got
        self._parse()
        return True

    def flush(self) -> None:
        """Send what waits, as far as it goes at once."""
        try:
            while self._out:
                done = self.socket.send(self._out[0])
                self.waiting -= done
                if done == len(self._out[0]):
                    self._out.popleft()
                else:
                    self._out[0] = self._out[0][done:]
        except BlockingIOError:
            return
        except OSError as error:
            raise Ended(_why(error)) from None
        self._mind(False)

    def _write(self, data: list[bytes]) -> None:
        done = 0
        if not self._out and self.said:
            try:
                done = self.socket.sendmsg(data)
            except BlockingIOError:
                pass
            except OSError as error:
                raise Ended(_why(error)) from None
        for part in data:
            if done >= len(part):
                done -= len(part)
            else:
                self._out.append(memoryview(part)[done:])
                self.waiting += len(part) - done
                done = 0
        if self._out:
            self._mind(True)

    def _parse(self) -> None:
        start, held = 0, self._in
        if not self._greeted:
            if len(held) < 64:
                if (held[0] != 0xFF) or (len(held) > 9 and not held[9] & 1):
                    raise RemoteFault("it does not speak ZMTP as we do")
                return
            if held[0] != 0xFF or not held[9] & 1 or held[10] < 3:
                raise RemoteFault("it does not speak ZMTP as we do")
            if held[12:32].rstrip(b"\0") != b"NULL":
                raise RemoteFault("the handshake failed; does one side use CURVE keys and the other not?")
            self._greeted, start = True, 64
            self._write([_ready(self._kind)])
        while len(held) - start >= 2:
            flags = held[start]
            if flags & _LONG:
                if len(held) - start < 9:
                    break
                size, body = _SIZE.unpack_from(held, start + 1)[0], start + 9
            else:
                size, body = held[start + 1], start + 2
            if size + self._bytes > self._limit or len(self._parts) >= PARTS:
                raise RemoteFault(f"it sends a frame of {size} bytes; the limit is {self._limit}, and {PARTS} frames")
            if len(held) - body < size:
                break
            with memoryview(held) as view:
                frame = bytes(view[body : body + size])
            start = body + size
            if flags & _COMMAND:
                self._command(frame)
                continue
            if not self.said:
                raise RemoteFault("it does not introduce itself")
            self._parts.append(frame)
            self._bytes += size
            if not flags & _MORE:
                self.heard.append(self._parts)
                self._parts, self._bytes = [], 0
        del held[:start]

    def _command(self, frame: bytes) -> None:
        name, rest = frame[1 : 1 + frame[0]] if frame else b"", frame[1 + frame[0] :] if frame else b""
        if name == b"READY":
            self.kind, self.said = _metadata(rest).get(b"socket-type", b""), True
            if self._out:
                self._mind(True)
        elif name == b"PING":  # its time to live in tenths of a second, then what it wants back
            self.ttl_s = int.from_bytes(rest[:2], "big") * 0.1
            body = b"\x04PONG" + rest[2:18]
            self._write([bytes([_COMMAND, len(body)]) + body])
        elif name == b"ERROR":
            raise RemoteFault(f"it refused us: {rest[1:].decode(errors='replace')}")


def _metadata(data: bytes) -> dict[bytes, bytes]:
    """The properties of a READY, names in lower case; what is cut short is left out."""
    found = {}
    while data:
        name, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        if len(data) < 4:
            break
        size = int.from_bytes(data[:4], "big")
        found[name.lower()], data = data[4 : 4 + size], data[4 + size :]
    return found


class Line:
    """A connection that is dialled until somebody answers; one thread owns it.

    ``connected`` once both sides have introduced themselves; ``news`` is what kept it from there. Raises Misuse for an endpoint that is none,
    RemoteFault where the other side can never be understood.
    """

    def __init__(self, endpoint: str, limit_bytes: int) -> None:
        self.connected = False
        self.news: str | None = None
        self._limit = limit_bytes
        self._family, self._address = parsed(endpoint)
        self._talk: Talk | None = None
        self._poll = select.poll()
        self._lost = False
        self._retry_at = 0.0
        self._got: deque[list[bytes]] = deque()

    def send(self, frames: list[bytes]) -> bool:
        """Hand a message over; False if there is nobody to hand it to yet."""
        if not self.connected or self._talk is None:
            self._dial()
            return False
        try:
            self._talk.say(frames)
        except Ended as ended:
            self._drop(str(ended))
        return True

    def receive(self, wait_ms: float) -> list[bytes] | None:
        """The next message, waiting up to ``wait_ms`` for something to happen; None if that was something else, or nothing."""
        if not self._got:
            if self._talk is None:
                time.sleep(min(wait_ms * 1e-3, RETRY_S))
                self._dial()
            elif self._poll.poll(wait_ms):
                self._advance()
        return self._got.popleft() if self._got else None

    def look(self) -> bool:
        """Take in what came unasked; return whether the connection was lost since the last look."""
        for _ in range(16):  # a peer may not hold us here
            if self._talk is None or not self._poll.poll(0) or not self._advance():
                break
        lost, self._lost = self._lost, False
        return lost

    def settle(self, wait_s: float) -> bool:
        """Dial and wait up to ``wait_s`` for both sides to have introduced themselves; return whether they have."""
        until = time.monotonic() + wait_s
        while not self.connected and time.monotonic() < until:
            self._dial()
            if self._talk is None:
                time.sleep(max(0.0, min(self._retry_at, until) - time.monotonic()))
            elif self._poll.poll(1e3 * max(until - time.monotonic(), 0)):
                self._advance()
        return self.connected

    def close(self) -> None:
        """Drop the connection at once."""
        if self._talk is not None:
            self._poll.unregister(self._talk.fileno)
            self._talk.socket.close()
            self._talk = None
        self.connected = False

    def _dial(self) -> None:
        if self._talk is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY_S
        made = socket.socket(self._family, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            said = made.connect_ex(self._address)
        except OSError as error:  # a name that cannot be looked up
            made.close()
            self.news = f"its name is not known: {error.strerror or error}"
            return
        if said not in (0, errno.EINPROGRESS):
            made.close()
            self.news = "nobody listens there" if said in (errno.ECONNREFUSED, errno.ENOENT) else os.strerror(said)
            return
        self._talk = Talk(made, self._limit, b"DEALER", self._mind)
        self._got = self._talk.heard
        self._poll.register(made, select.POLLIN)
        self._talk.greet()

    def _mind(self, more: bool) -> None:
        assert self._talk is not None
        self._poll.modify(self._talk.fileno, select.POLLIN | select.POLLOUT if more else select.POLLIN)

    def _drop(self, news: str) -> bool:
        self._lost = self._lost or self.connected
        self.news = news
        self.close()
        return False

    def _advance(self) -> bool:
        assert self._talk is not None
        try:
            came = self._talk.advance()
        except Ended as ended:
            return self._drop(str(ended))
        except RemoteFault as never:
            self._drop(str(never))
            self._lost = False
            raise
        if self._talk.said and not self.connected:
            self.connected, self.news = True, None
        return came


def _why(error: OSError) -> str:
    return {errno.ECONNREFUSED: "nobody listens there", errno.ENOENT: "nobody listens there"}.get(
        error.errno or 0, "the connection was closed"
    )


def parsed(endpoint: str) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    """The address family and address of an endpoint; Misuse where it has none."""
    transport, _, address = endpoint.partition("://")
    if transport == "ipc" and address:
        return socket.AF_UNIX, "\0" + address[1:] if address[0] == "@" else address
    host, _, port = address.rpartition(":")
    if transport == "tcp" and host and port.isdecimal() and 0 < int(port) < 65536:
        return socket.AF_INET, (host, int(port))
    raise Misuse(f"endpoint = {endpoint!r}: is no address; write it as tcp://127.0.0.1:5555 or ipc:///tmp/name")
