"""IIOD's text protocol (libiio 0.24) on a loopback TCP port: whatever a client sends is answered, if only by a negative errno.

A line is a command; ``WRITE`` and ``WRBUF`` are followed by as many bytes as they name. Sources: the behaviour of Debian's libiio 0.24
clients, and the list that ``HELP`` of its ``iiod`` prints.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from hal.errors import Misuse
from twin.iio.context import Attribute, Channel, Context, Device, Stream, refused

__all__ = ["LIMITS", "Limits", "Server"]

VERSION = "0.24.twin000"
LINE = 1024  # bytes of a command; a longer one is no command
CHUNK = 4096  # samples made and sent at a time: whoever hangs up in the middle of a buffer costs no more
DIRECTIONS = {"INPUT": False, "OUTPUT": True}
HELP = "EXIT PRINT VERSION TIMEOUT OPEN CLOSE READ WRITE READBUF WRBUF GETTRIG SETTRIG SET HELP"
_log = logging.getLogger("twin.iio")


@dataclass(frozen=True)
class Limits:
    """What one client may ask for; beyond it the answer is ENOMEM, or the connection is closed."""

    clients: int = 64  # connections at once
    value: int = 4096  # bytes of an attribute
    skipped: int = 1 << 24  # bytes of a value too long that are read and thrown away, so that the next line is found
    samples: int = 1 << 20  # of a buffer
    read: int = 1 << 30  # bytes of one READBUF


LIMITS = Limits()


@dataclass(frozen=True)
class Opened:
    """A buffer one client has open."""

    stream: Stream
    mask: str
    columns: list[int]
    samples: int

    @property
    def width(self) -> int:
        """Bytes of one sample of all chosen scan elements."""
        return 2 * len(self.columns)


class Server(socketserver.ThreadingTCPServer):
    """One thread a client, so that one who stops in the middle of a line holds up nobody else."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: Context, endpoint: str, limits: Limits = LIMITS) -> None:
        host, port = _loopback(endpoint)
        self.context, self.xml, self.limits = context, context.xml().encode(), limits
        self.clients: set[socket.socket] = set()
        try:
            super().__init__((host, port), _Client)
        except OSError as error:
            raise Misuse(f"--endpoint {endpoint}: {error.strerror}; choose another port") from None
        self.endpoint = f"tcp://{host}:{self.server_address[1]}"

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is room for another client."""
        return len(self.clients) < self.limits.clients

    def handle_error(self, request: object, client_address: object) -> None:
        """Log what no answer could be found for; the others are served on."""
        _log.exception("client %s", client_address)

    def server_close(self) -> None:
        """Stop listening and end every conversation."""
        super().server_close()
        for client in list(self.clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def start(self) -> threading.Thread:
        """Serve in a thread of its own, until ``stop``."""
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="iiod", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End ``serve_forever`` and every conversation."""
        self.shutdown()
        self.server_close()


class _Client(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.clients.add(self.request)
        self.opened: dict[str, Opened] = {}
        self.commands: dict[str, Callable[[list[str]], bytes]] = {
            "HELP": lambda _: (HELP + "\n").encode(),
            "VERSION": lambda _: (VERSION + "\n").encode(),
            "PRINT": lambda _: _value(self.server.xml),
            "TIMEOUT": self._timeout,
            "SET": self._set,
            "READ": self._read,
            "WRITE": self._write,
            "OPEN": self._open,
            "CLOSE": self._close,
            "READBUF": self._readbuf,
            "WRBUF": self._wrbuf,
            "GETTRIG": self._trigger,
            "SETTRIG": self._trigger,
        }

    def finish(self) -> None:
        self.server.clients.discard(self.request)
        with contextlib.suppress(OSError):  # whoever left in the middle is not there to be told
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, _Gone):
            while True:
                line = self.rfile.readline(LINE)
                if not line.endswith(b"\n"):  # half a command: its sender left, or never comes to the end of it
                    if len(line) == LINE:
                        self.wfile.write(_code(-errno.EINVAL))
                    return
                words = line.decode("latin-1").split()
                if not words:
                    continue
                if words[0].upper() in ("EXIT", "QUIT"):
                    return
                self.wfile.write(self._answer(words))

    def _answer(self, words: list[str]) -> bytes:
        command = self.commands.get(words[0].upper())
        try:
            if command is None:
                raise refused(errno.EINVAL)
            return command(words[1:])
        except (ConnectionError, _Gone):
            raise
        except OSError as error:
            return _code(-(error.errno or errno.EIO))
        except (ValueError, IndexError, OverflowError):
            return _code(-errno.EINVAL)
        except Exception:
            _log.exception("%s", " ".join(words)[:200])
            return _code(-errno.EIO)

    def _device(self, name: str) -> Device:
        device = self.server.context.device(name)
        if device is None:
            raise refused(errno.ENODEV)
        return device

    def _timeout(self, words: list[str]) -> bytes:
        (wait_ms,) = words
        return _code(0 if int(wait_ms) >= 0 else -errno.EINVAL)

    def _set(self, words: list[str]) -> bytes:
        name, what, count = words
        self._device(name)
        return _code(0 if what.upper() == "BUFFERS_COUNT" and int(count) > 0 else -errno.EINVAL)

    def _trigger(self, words: list[str]) -> bytes:
        self._device(words[0])
        raise refused(errno.ENOENT)  # no triggers here

    def _attributes(self, words: list[str]) -> tuple[dict[str, Attribute], list[str]]:
        """The attributes that the words name the owner of, and the words left."""
        device, rest = self._device(words[0]), words[1:]
        if rest and rest[0].upper() in ("DEBUG", "BUFFER"):
            return {}, rest[1:]
        if rest and rest[0].upper() in DIRECTIONS:
            channel = device.channel(rest[1], DIRECTIONS[rest[0].upper()])
            if channel is None:
                raise refused(errno.ENXIO)
            return dict(channel.attributes), rest[2:]
        return dict(device.attributes), rest

    def _read(self, words: list[str]) -> bytes:
        attributes, rest = self._attributes(words)
        if rest:
            (name,) = rest
            if name not in attributes:
                raise refused(errno.ENOENT)
            return _value(_told(attributes[name]))
        packed = b""  # all of them: each a big-endian length or error, the value padded to four bytes
        for attribute in attributes.values():
            try:
                value = _told(attribute)
                packed += struct.pack(">i", len(value)) + value + bytes(-len(value) % 4)
            except OSError as error:
                packed += struct.pack(">i", -(error.errno or errno.EIO))
        return _value(packed)

    def _write(self, words: list[str]) -> bytes:
        size = self._announced(words)
        value = self._taken(size)
        attributes, rest = self._attributes(words[:-1])
        if not rest:
            raise refused(errno.EINVAL)  # all at once: nobody does, and half done is worse than not
        (name,) = rest
        if name not in attributes:
            raise refused(errno.ENOENT)
        write = attributes[name].write
        if write is None:
            raise refused(errno.EACCES)
        write(value.split(b"\0")[0].decode("latin-1").strip())
        return _code(size)

    def _wrbuf(self, words: list[str]) -> bytes:
        self._device(words[0])
        raise refused(errno.EBADF)  # no output buffers: a client learns it before it sends the samples

    def _announced(self, words: list[str]) -> int:
        size = int(words[-1])
        if not size >= 0:
            raise refused(errno.EINVAL)
        return size

    def _taken(self, size: int) -> bytes:
        """The bytes after a ``WRITE``: read whether or not they are of use, since the next command comes after them."""
        limits = self.server.limits
        if size <= limits.value:
            value = self.rfile.read(size)
            if len(value) < size:
                raise _Gone
            return value
        if size > limits.skipped:
            self.wfile.write(_code(-errno.ENOMEM))
            raise _Gone
        while size:
            part = len(self.rfile.read(min(size, 1 << 16)))
            if not part:
                raise _Gone
            size -= part
        raise refused(errno.ENOMEM)

    def _open(self, words: list[str]) -> bytes:
        name, count, mask, *cyclic = words
        device, samples = self._device(name), int(count)
        scanned = [c for c in device.channels if c.scan is not None]
        length = 8 * -(-len(device.channels) // 32)
        chosen = _columns(device.channels, int(mask, 16))
        if cyclic or not scanned or len(mask) != length or not chosen or not samples > 0 or device.stream is None:
            raise refused(errno.EINVAL)
        if device.id in self.opened:
            raise refused(errno.EBUSY)
        if samples > self.server.limits.samples:
            raise refused(errno.ENOMEM)
        self.opened[device.id] = Opened(device.stream(), f"{int(mask, 16):0{length}x}\n", chosen, samples)
        return _code(0)

    def _close(self, words: list[str]) -> bytes:
        (name,) = words
        if self.opened.pop(self._device(name).id, None) is None:
            raise refused(errno.ENXIO)
        return _code(0)

    def _readbuf(self, words: list[str]) -> bytes:
        name, asked = words
        opened, left = self.opened.get(self._device(name).id), int(asked)
        if opened is None:
            raise refused(errno.EBADF)
        if not 0 < left <= self.server.limits.read or left % opened.width:
            raise refused(errno.EINVAL)
        mask = opened.mask.encode()
        while left:
            samples = min(opened.samples, CHUNK, left // opened.width)
            data = opened.stream.read(samples, opened.columns)
            self.wfile.write(b"%d\n" % len(data) + mask + data)
            mask, left = b"", left - len(data)
        return b""


class _Gone(Exception):
    """The client is no longer there, or no longer to be understood."""


def _code(number: int) -> bytes:
    return b"%d\n" % number


def _value(value: bytes) -> bytes:
    return b"%d\n" % len(value) + value + b"\n"


def _told(attribute: Attribute) -> bytes:
    if attribute.read is None:
        raise refused(errno.EACCES)
    return attribute.read().encode() + b"\0"


def _columns(channels: tuple[Channel, ...], mask: int) -> list[int]:
    """Scan indices of the channels a mask names; none where it names one that is not there."""
    named = [channel for k, channel in enumerate(channels) if mask >> k & 1]
    if not 0 <= mask < 1 << len(channels) or any(channel.scan is None for channel in named):
        return []
    return [channel.scan for channel in named if channel.scan is not None]


def _loopback(endpoint: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST:PORT``, for this computer only: IIOD asks nobody who they are."""
    host, colon, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not colon or not port.isdigit() or not int(port) < 65536:
        raise Misuse(f"--endpoint {endpoint}: is no address; write it as tcp://127.0.0.1:30431 (port 0 picks one)")
    if host not in ("127.0.0.1", "localhost"):
        raise Misuse(
            f"--endpoint {endpoint}: IIOD asks nobody who they are, so only this computer is served; use 127.0.0.1 and a tunnel"
        )
    return host, int(port)
