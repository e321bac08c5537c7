"""The plain-socket end of ZeroMQ against libzmq's: any message either way, and every way a peer may be odd."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse, RemoteFault
from hal.zmtp import Line

LIMIT = 1 << 26


@contextmanager
def router(endpoint: str = "tcp://127.0.0.1:*", **options: int) -> Iterator[tuple[Any, str]]:
    context = zmq.Context()
    made = context.socket(zmq.ROUTER)
    made.linger, made.rcvtimeo = 0, 5000
    for name, value in options.items():
        made.set(getattr(zmq, name), value)
    made.bind(endpoint)
    try:
        yield made, made.last_endpoint.decode().rstrip("\0")
    finally:
        made.close(0)
        context.term()


@contextmanager
def lined(endpoint: str, limit: int = LIMIT) -> Iterator[Line]:
    line = Line(endpoint, limit)
    try:
        yield line
    finally:
        line.close()
        line.close()


def heard(line: Line) -> list[bytes]:
    for _ in range(10_000):
        message = line.receive(1000)
        if message is not None:
            return message
    raise AssertionError("no message")


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_messages_of_any_shape_go_both_ways(transport: str, tmp_path: Path) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/r"
    rng = np.random.default_rng(0)
    with router(endpoint) as (far, where), lined(where) as line:
        assert line.settle(5.0)
        for sizes in ([0], [1], [255], [256], [255, 0, 256], [70_000, 3], [5_000_000]):
            message = [rng.bytes(size) for size in sizes]
            assert line.send(message)
            line.receive(0)
            while not far.poll(0):
                line.receive(1)  # what did not fit at once goes on from here
            peer, *came = far.recv_multipart()
            assert came == message
            far.send_multipart([peer, *message])
            assert heard(line) == message


@settings(max_examples=30)
@given(st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=4), min_size=1, max_size=6), st.integers(1, 700))
def test_messages_cut_anywhere_are_put_together(messages: list[list[bytes]], cut: int) -> None:
    """A peer whose bytes come in pieces of any length."""
    stream = greeting() + b"".join(
        bytes([(k + 1 < len(message)) | (2 if len(frame) > 255 else 0)])
        + (len(frame).to_bytes(8, "big") if len(frame) > 255 else bytes([len(frame)]))
        + frame
        for message in messages
        for k, frame in enumerate(message)
    )
    with listening() as (host, where), lined(where) as line:
        line.send([b""])
        far, _ = host.accept()
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with far:
            got: list[list[bytes]] = []
            for start in range(0, len(stream), cut):
                far.sendall(stream[start : start + cut])
                message = line.receive(0)
                if message is not None:
                    got.append(message)
            while len(got) < len(messages):
                got.append(heard(line))
            assert got == messages


def greeting(mechanism: bytes = b"NULL", major: int = 3) -> bytes:
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
    return (
        b"\xff"
        + bytes(8)
        + b"\x7f"
        + bytes([major, 1])
        + mechanism.ljust(20, b"\0")
        + bytes(32)
        + bytes([4, len(ready)])
        + ready
    )


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as host:
        host.settimeout(5)
        yield host, f"tcp://127.0.0.1:{host.getsockname()[1]}"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 64, "does not speak ZMTP"),
        (b"S", "does not speak ZMTP"),
        (greeting(major=2), "does not speak ZMTP"),
        (greeting(b"CURVE"), "CURVE keys"),
        (greeting() + b"\x02" + (1 << 40).to_bytes(8, "big"), "a frame of 1099511627776 bytes"),
        (greeting() + b"\x04\x0a\x05ERROR\x03bad", "it refused us: bad"),
    ],
)
def test_a_peer_that_can_never_be_understood_is_a_fault(said: bytes, why: str) -> None:
    with listening() as (host, where), lined(where) as line:
        line.send([b""])
        far, _ = host.accept()
        with far:
            far.sendall(said)
            with pytest.raises(RemoteFault, match=why):
                heard(line)
        assert not line.connected


def test_heartbeats_of_the_peer_are_answered_and_a_line_given_up_can_be_dialled_again() -> None:
    with router(HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=150) as (far, where), lined(where) as line:
        assert line.settle(5.0)
        for _ in range(20):  # a second, of use every 50 ms
            line.receive(50)
            assert not line.look()
        assert line.connected
        threading.Event().wait(0.5)  # silent for longer than the peer bears
        assert line.look()
        assert not line.connected
        assert line.settle(5.0)
        line.send([b"again"])
        while True:
            line.receive(1)
            if far.poll(0):
                break
        assert far.recv_multipart()[1:] == [b"again"]


def test_nobody_there_is_told_and_dialled_again_until_somebody_is() -> None:
    with listening() as (_, where):
        pass
    with lined(where) as line:
        assert not line.send([b"x"])
        while line.news is None:
            line.receive(5)
        assert line.news == "nobody listens there"
        with router(where) as (far, _):
            assert any(line.settle(0.05) for _ in range(200))
            assert line.send([b"x"])
            line.receive(0)  # its introduction may still wait to be sent, and the message behind it
            assert far.recv_multipart()[1:] == [b"x"]


def test_a_peer_that_leaves_is_lost_once() -> None:
    with router() as (_, where), lined(where) as line:
        assert line.settle(5.0)
        assert not line.look()
    with router() as (_, where):
        line = Line(where, LIMIT)
        assert line.settle(5.0)
    looks = [line.receive(20) is None and line.look() for _ in range(10)]
    assert looks.count(True) == 1
    line.close()


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:x", "tcp://:1", "tcp://127.0.0.1:0", "ipc://", "pgm://x"]
)
def test_what_is_no_endpoint_is_misuse(endpoint: str) -> None:
    with pytest.raises(Misuse, match="write it as tcp://"):
        Line(endpoint, LIMIT)
