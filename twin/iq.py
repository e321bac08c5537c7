"""Raw samples for tools that know nothing of the twin: complex64 on a socket of their own, two parts, for GNU Radio and any other.

The first part is the stream's name and a dot (``bs0.echo.0.``), the second its samples of one subframe, little-endian, interleaved, event
after event without the gaps between them, in sqrt(W) at the chain's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zmq

from hal.errors import Misuse
from hal.record import Array, Complex
from hal.session import Keys, guard, stays_here
from twin.bus import DOORS
from twin.records import EchoObservation

__all__ = ["Tap"]

QUEUE = 100  # subframes kept for a listener that does not read; then its newer ones are dropped


class Tap:
    """A PUB socket of raw samples; one thread owns it. ``taps`` are ``SITE.echo.CHAIN`` (heard) and ``SITE.sent.STREAM`` (before the precoder).

    ``endpoint`` is what it is bound to, a wildcard port resolved. Raises Misuse for an endpoint that is taken or open to others without
    keys, and for a stream that is none.
    """

    def __init__(
        self, endpoint: str, taps: Sequence[str], site: str, keys: Keys | None = None, insecure: bool = False
    ) -> None:
        if not (keys is not None or insecure or stays_here(endpoint)):
            raise Misuse(
                f"bus.iq = {endpoint}: other computers can reach it; set bus.keys, bind 127.0.0.1, or set bus.insecure"
            )
        self._taps = [(f"{tap}.".encode(), *_stream(tap, site)) for tap in taps]
        self.dropped = 0
        self._context: zmq.Context[Any] = zmq.Context()
        self._guard = None if keys is None else guard(self._context, keys, lambda who, why: None, DOORS)
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, QUEUE)
        self._socket.set(zmq.LINGER, 200)
        self._socket.set(zmq.MAXMSGSIZE, 4096)
        try:
            if keys is not None:
                self._socket.curve_server, self._socket.zap_domain = True, b"state"
                self._socket.curve_publickey, self._socket.curve_secretkey = keys.public, keys.secret
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise Misuse(f"bus.iq = {endpoint}: {error}; write it as tcp://127.0.0.1:5580") from None
        self.endpoint = bytes(self._socket.get(zmq.LAST_ENDPOINT)).decode().rstrip("\0")

    def say(self, echo: EchoObservation) -> None:
        """Say the chosen streams of one subframe; those that the run does not simulate are not said."""
        for topic, what, number in self._taps:
            samples = _samples(echo, what, number)
            if samples is not None:
                self._socket.send_multipart([topic, samples.tobytes()], zmq.NOBLOCK)  # a PUB drops, and never blocks

    def close(self) -> None:
        """Let go."""
        self._socket.close()
        if self._guard is not None:
            self._guard.stop()
        self._context.term()


def _stream(tap: str, site: str) -> tuple[str, int]:
    words = tap.split(".")
    if len(words) != 3 or words[0] != site or words[1] not in ("echo", "sent") or not words[2].isdigit():
        raise Misuse(f"bus.taps: {tap!r} is none; write {site}.echo.CHAIN or {site}.sent.STREAM")
    return words[1], int(words[2])


def _samples(echo: EchoObservation, what: str, number: int) -> Complex[Array, " sample"] | None:
    source = echo.echo if what == "echo" else echo.drive
    samples: Any = None if source is None else source.samples
    if samples is None or number >= samples.shape[1]:
        return None
    return np.asarray(samples[:, number].astype("<c8").ravel())
