"""The answering end on plain sockets against libzmq's DEALER: any message either way, fair turns, bounds, and every way a peer may be odd."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from hal import switchboard
from hal.errors import Misuse
from hal.switchboard import Switchboard
from tools.fuzz import callers

LIMIT = 1 << 24


@contextmanager
def board(endpoint: str = "tcp://127.0.0.1:*", limit: int = LIMIT) -> Iterator[Switchboard]:
    made = Switchboard(endpoint, limit)
    try:
        yield made
    finally:
        made.close()
        made.close()


@contextmanager
def dealer(endpoint: str, kind: int = zmq.DEALER, **options: int) -> Iterator[Any]:
    context = zmq.Context()
    made = context.socket(kind)
    made.linger, made.rcvtimeo = 0, 5000
    for name, value in options.items():
        made.set(getattr(zmq, name), value)
    made.connect(endpoint)
    try:
        yield made
    finally:
        made.close(0)
        context.term()


def bare(endpoint: str) -> socket.socket:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    made = socket.create_connection((host, int(port)))
    made.settimeout(5)
    return made


def until(board: Switchboard, reached: Any, limit_s: float = 10.0) -> list[list[bytes]]:
    """Messages that come until something is so."""
    came, give_up = [], time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < give_up
        message = board.receive(10)
        if message is not None:
            came.append(message)
    return came


def greeting(kind: bytes = b"DEALER", mechanism: bytes = b"NULL") -> bytes:
    body = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    head = b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)
    return head + bytes([4, len(body)]) + body


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_messages_of_any_shape_go_both_ways(transport: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with board("tcp://127.0.0.1:0" if transport == "tcp" else f"ipc://{tmp_path}/b") as here:
        with dealer(here.endpoint) as far:
            for sizes in ([0], [1], [255], [256], [255, 0, 256], [70_000, 3], [5_000_000]):
                message = [rng.bytes(size) for size in sizes]
                far.send_multipart(message)
                came = here.receive(5000)
                assert came is not None
                assert came[1:] == message
                assert here.send(came[0], message) == ""
                while not far.poll(1):
                    assert here.receive(0) is None  # what did not fit at once goes on from here
                assert far.recv_multipart() == message
    assert not (tmp_path / "b").exists()


def test_who_has_left_is_gone_and_what_it_said_is_heard() -> None:
    with board() as here, dealer(here.endpoint) as b:
        b.send(b"b")
        with dealer(here.endpoint, LINGER=-1) as a:
            for k in range(10):
                a.send(b"a%d" % k)
            came = until(here, lambda: len(here._peers) == 2)
            a.linger = -1
            a.close()
        came += until(here, lambda: len(here._peers) == 1)
        while (message := here.receive(0)) is not None:
            came.append(message)
        assert sorted(message[1] for message in came) == [*(b"a%d" % k for k in range(10)), b"b"]
        name = next(message[0] for message in came if message[1] == b"a0")
        assert here.send(name, [b"x"]) == "gone"


def test_a_flooder_does_not_keep_another_waiting() -> None:
    with board() as here, bare(here.endpoint) as flood, bare(here.endpoint) as other:
        flood.sendall(greeting() + b"\x00\x01f" * 10_000)  # many of them come with one read
        assert here.receive(5000) is not None
        other.sendall(greeting() + b"\x00\x01o")
        for _ in range(2 * switchboard.TURNS + 2):
            message = here.receive(1000)
            assert message is not None
            if message[1] == b"o":
                return
    raise AssertionError("the other is not heard")


def test_what_a_peer_does_not_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "QUEUE", 20)
    with board() as here, bare(here.endpoint) as far:
        far.sendall(greeting() + b"\x00\x01x")
        came = here.receive(5000)
        assert came is not None
        said = [here.send(came[0], [bytes(1 << 20)]) for _ in range(60)]
        assert said[0] == ""
        assert said[-1] == "full"
        assert len(said) - said.count("full") < 40
        read = 0
        while read < 20 << 20:  # it reads again, and is told again
            here.receive(0)
            read += len(far.recv(1 << 20))
        assert here.send(came[0], [b"y"]) == ""


def test_what_the_owner_does_not_read_stays_with_its_sender() -> None:
    with board() as here, dealer(here.endpoint, SNDHWM=10, SNDTIMEO=0, SNDBUF=4096) as far:
        far.sndtimeo = 2000
        far.send(bytes(1000))
        assert here.receive(5000) is not None
        far.sndtimeo = 0
        sent, give_up = 0, time.monotonic() + 10
        with suppress(zmq.Again):
            while time.monotonic() < give_up:
                far.send(bytes(100_000))
                sent += 1
                here.look()
        assert time.monotonic() < give_up
        got: list[list[bytes]] = []
        while len(got) < sent:
            message = here.receive(5000)
            assert message is not None
            got.append(message)
        assert all(len(message[1]) == 100_000 for message in got)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + bytes(63),
        greeting(mechanism=b"CURVE"),
        greeting(kind=b"PUB") + b"\x00\x01x",
        greeting()[:64] + b"\x00\x01x",  # a message before it has introduced itself
        greeting() + b"\x02" + (LIMIT + 1).to_bytes(8, "big"),
        greeting() + b"\x01\x01x" * 100,  # frames without an end
        greeting() + b"\x04\x00",
        greeting() + b"\x04\x06\x05ERROR",
    ],
)
def test_a_peer_that_can_never_be_understood_is_hung_up_on(said: bytes) -> None:
    with board() as here, bare(here.endpoint) as far, dealer(here.endpoint) as good:
        far.sendall(said)
        good.send(b"hello")
        came = here.receive(5000)
        assert came is not None
        assert came[1] == b"hello"
        if said != greeting() + b"\x04\x00":  # an empty command means nothing, and is let pass
            until(here, lambda: len(here._peers) == 1)
            while far.recv(4096):
                pass


def test_who_does_not_introduce_itself_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "GREET_S", 0.05)
    with board() as here, bare(here.endpoint) as far:
        far.sendall(greeting()[:20])
        until(here, lambda: len(here._peers) == 1)
        until(here, lambda: not here._peers)


def test_more_peers_than_there_is_room_for_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switchboard, "PEERS", 3)
    with board() as here:
        there = [bare(here.endpoint) for _ in range(5)]
        until(here, lambda: len(here._peers) == 3)
        here.look()
        assert len(here._peers) == 3
        for each in there:
            each.close()
        until(here, lambda: not here._peers)


def test_while_the_owner_is_away_calls_are_taken_and_heartbeats_answered() -> None:
    """A libzmq peer that hears no PONG for its time-out would hang up."""
    with board() as here, dealer(here.endpoint, HEARTBEAT_IVL=100, HEARTBEAT_TIMEOUT=1500) as far:
        news = far.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            assert news.poll(5000)
            news.recv_multipart()
            assert not news.poll(2500)  # longer than its patience
        finally:
            far.disable_monitor()
            news.close(0)
        far.send(b"still here")
        assert here.receive(5000) is not None


def test_who_says_how_long_it_lives_is_given_up_after_that() -> None:
    with board() as here, bare(here.endpoint) as far:
        far.sendall(greeting() + b"\x04\x07\x04PING" + (2).to_bytes(2, "big"))
        until(here, lambda: any(peer.ttl_s for peer in here._peers.values()))
        until(here, lambda: not here._peers)


def test_an_endpoint_that_is_taken_or_none_is_misuse(tmp_path: Path) -> None:
    with board() as here, pytest.raises(Misuse, match="in use"):
        Switchboard(here.endpoint, LIMIT)
    for wrong in (
        "tcp://127.0.0.1:notaport",
        "carrier://pigeon",
        "tcp://nowhere.invalid:5570",
        "ipc:///no/such/folder/s",
    ):
        with pytest.raises(Misuse):
            Switchboard(wrong, LIMIT)


def test_a_path_left_behind_by_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    with board(f"ipc://{path}") as here, dealer(here.endpoint) as far:
        far.send(b"x")
        assert here.receive(5000) is not None


def test_a_thousand_callers_leave_nothing_behind() -> None:
    with board() as here:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            with bare(here.endpoint) as far:
                far.sendall(greeting() + b"\x00\x01x")
                assert here.receive(5000) is not None
        until(here, lambda: not here._peers)
        assert len(os.listdir("/proc/self/fd")) == before
        assert not here._by_file
        assert not here._ready


def test_mutated_connections_harm_nobody() -> None:
    counts = callers(400, seed=2)
    assert counts["connections"] == 400
    assert counts["messages"] > 100
