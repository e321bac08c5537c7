"""The asking end of a ZeroMQ connection on a plain socket: ZMTP 3 (RFC 23 and 37), mechanism NULL, socket type DEALER.

libzmq hands every message to a thread of its own, which costs a question two wake-ups there and two back; a client that asks one question
at a time needs no thread. Any ZeroMQ ROUTER answers it. What it leaves out: CURVE (libzmq does that), queues, and heartbeats of its own: the
peer's PINGs are answered when the line is used, and a peer that gave up a silent line is dialled again.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque

from hal.errors import Misuse, RemoteFault

__all__ = ["Line"]

RETRY_S = 0.02
CHUNK = 1 << 17
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_SIZE = struct.Struct(">Q")


def _ready() -> bytes:
    body = b"\x05READY"
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", b"")):
        body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
    return bytes([_COMMAND, len(body)]) + body


class Line:
    """A connection that is dialled until somebody answers; one thread owns it.

    ``connected`` once both sides have introduced themselves; ``news`` is what kept it from there. Raises Misuse for an endpoint that is none,
    RemoteFault where the other side can never be understood.
    """

    def __init__(self, endpoint: str, limit_bytes: int) -> None:
        self.connected = False
        self.news: str | None = None
        self._limit = limit_bytes
        self._family, self._address = _parsed(endpoint)
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._chunk = memoryview(bytearray(CHUNK))
        self._lost = False
        self._retry_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._in = bytearray()
        self._out: deque[memoryview] = deque()
        self._parts: list[bytes] = []
        self._greeted = False
        self._got: deque[list[bytes]] = deque()

    def send(self, frames: list[bytes]) -> bool:
        """Hand a message over; False if there is nobody to hand it to yet."""
        if not self.connected:
            self._dial()
            return False
        data = []
        for k, frame in enumerate(frames):
            more = _MORE if k + 1 < len(frames) else 0
            long = len(frame) > 255
            data.append(bytes([more | _LONG]) + _SIZE.pack(len(frame)) if long else bytes([more, len(frame)]))
            data.append(frame)
        self._write(data)
        return True

    def receive(self, wait_ms: float) -> list[bytes] | None:
        """The next message, waiting up to ``wait_ms`` for something to happen; None if that was something else, or nothing."""
        if not self._got:
            if self._socket is None:
                time.sleep(min(wait_ms * 1e-3, RETRY_S))
                self._dial()
            elif self._poll.poll(wait_ms):
                self._advance()
        return self._got.popleft() if self._got else None

    def look(self) -> bool:
        """Take in what came unasked; return whether the connection was lost since the last look."""
        for _ in range(16):  # a peer may not hold us here
            if self._socket is None or not self._poll.poll(0) or not self._advance():
                break
        lost, self._lost = self._lost, False
        return lost

    def settle(self, wait_s: float) -> bool:
        """Dial and wait up to ``wait_s`` for both sides to have introduced themselves; return whether they have."""
        until = time.monotonic() + wait_s
        while not self.connected and time.monotonic() < until:
            self._dial()
            if self._socket is None:
                time.sleep(max(0.0, min(self._retry_at, until) - time.monotonic()))
            elif self._poll.poll(1e3 * max(until - time.monotonic(), 0)):
                self._advance()
        return self.connected

    def close(self) -> None:
        """Drop the connection at once."""
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None
        self.connected = False

    def _dial(self) -> None:
        if self._socket is not None or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY_S
        self._reset()
        made = socket.socket(self._family, socket.SOCK_STREAM)
        made.setblocking(False)
        if self._family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
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
        self._socket = made
        self._poll.register(made, select.POLLIN)
        self._write([_GREETING])

    def _drop(self, news: str) -> bool:
        self._lost = self._lost or self.connected
        self.news = news
        self.close()
        return False

    def _write(self, data: list[bytes]) -> None:
        if self._socket is None:
            return
        if not self._out and self.connected:
            try:
                done = self._socket.sendmsg(data)
            except BlockingIOError:
                done = 0
            except OSError as error:
                self._drop(_said(error))
                return
            for part in data:
                if done < len(part):
                    self._out.append(memoryview(part)[done:])
                    done = 0
                else:
                    done -= len(part)
        else:
            self._out.extend(memoryview(part) for part in data)
        if self._out:
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)

    def _advance(self) -> bool:
        """Send what waits and read what came, as far as it goes without waiting; return whether something came."""
        assert self._socket is not None
        try:
            while self._out:
                done = self._socket.send(self._out[0])
                self._out[0] = self._out[0][done:]
                if not len(self._out[0]):
                    self._out.popleft()
                    if not self._out:
                        self._poll.modify(self._socket, select.POLLIN)
        except BlockingIOError:
            pass
        except OSError as error:
            return self._drop(_said(error))
        try:
            got = self._socket.recv_into(self._chunk)
        except BlockingIOError:
            return False
        except OSError as error:
            return self._drop(_said(error))
        if not got:
            return self._drop("the connection was closed")
        self._in += self._chunk[:got]
        self._parse()
        return True

    def _parse(self) -> None:
        start, held = 0, self._in
        if not self._greeted:
            if len(held) < 64:
                if (held[0] != 0xFF) or (len(held) > 9 and not held[9] & 1):
                    raise self._never("it does not speak ZMTP as we do")
                return
            if held[0] != 0xFF or not held[9] & 1 or held[10] < 3:
                raise self._never("it does not speak ZMTP as we do")
            if held[12:32].rstrip(b"\0") != b"NULL":
                raise self._never("the handshake failed; does one side use CURVE keys and the other not?")
            self._greeted, start = True, 64
            self._out.append(memoryview(_ready()))
            assert self._socket is not None
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)
        while len(held) - start >= 2:
            flags = held[start]
            if flags & _LONG:
                if len(held) - start < 9:
                    break
                size, body = _SIZE.unpack_from(held, start + 1)[0], start + 9
            else:
                size, body = held[start + 1], start + 2
            if size > self._limit:
                raise self._never(f"it sends a frame of {size} bytes; the limit is {self._limit}")
            if len(held) - body < size:
                break
            with memoryview(held) as view:
                frame = bytes(view[body : body + size])
            start = body + size
            if flags & _COMMAND:
                self._command(frame)
                continue
            self._parts.append(frame)
            if not flags & _MORE:
                self._got.append(self._parts)
                self._parts = []
        del held[:start]

    def _command(self, frame: bytes) -> None:
        name, rest = frame[1 : 1 + frame[0]], frame[1 + frame[0] :]
        if name == b"READY":
            self.connected, self.news = True, None
        elif name == b"PING":  # its time to live, then what it wants back
            body = b"\x04PONG" + rest[2:18]
            self._write([bytes([_COMMAND, len(body)]) + body])
        elif name == b"ERROR":
            raise self._never(f"it refused us: {rest[1:].decode(errors='replace')}")

    def _never(self, why: str) -> RemoteFault:
        self._drop(why)
        self._lost = False
        return RemoteFault(why)


def _said(error: OSError) -> str:
    return {errno.ECONNREFUSED: "nobody listens there", errno.ENOENT: "nobody listens there"}.get(
        error.errno or 0, "the connection was closed"
    )


def _parsed(endpoint: str) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    transport, _, address = endpoint.partition("://")
    if transport == "ipc" and address:
        return socket.AF_UNIX, "\0" + address[1:] if address[0] == "@" else address
    host, _, port = address.rpartition(":")
    if transport == "tcp" and host and port.isdecimal() and 0 < int(port) < 65536:
        return socket.AF_INET, (host, int(port))
    raise Misuse(f"endpoint = {endpoint!r}: is no address; write it as tcp://127.0.0.1:5555 or ipc:///tmp/name")
