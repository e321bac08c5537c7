"""The session: answers reach their question, and whatever goes wrong ends in words and in bounded time."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.session import PROTOCOL, Client, Keys, Patience, Server
from hal.wire import VERSION

BRISK = Patience(warn_s=0.05, give_up_s=0.3)
LOCAL = "tcp://127.0.0.1:*"


def echo(kind: str, payload: bytes) -> bytes:
    return kind.encode() + payload


@contextmanager
def running(handler: Callable[[str, bytes], bytes] = echo, endpoint: str = LOCAL, **more: Any) -> Iterator[Server]:
    server, done = Server(endpoint, **more), threading.Event()
    thread = threading.Thread(target=server.run, args=(handler, done.is_set))
    thread.start()
    try:
        yield server
    finally:
        done.set()
        thread.join()
        server.close()


@contextmanager
def asking(server: Server | str, **more: Any) -> Iterator[Client]:
    client = Client(server if isinstance(server, str) else server.endpoint, **({"patience": BRISK} | more))
    try:
        yield client
    finally:
        client.close()
        client.close()


@contextmanager
def raw(endpoint: str, kind: int = zmq.DEALER, bind: bool = False) -> Iterator[Any]:
    """A bare socket, to speak nonsense with."""
    context = zmq.Context()
    bare = context.socket(kind)
    bare.linger = 0
    bare.rcvtimeo = 2000
    if bind:
        bare.bind(endpoint)
    else:
        bare.connect(endpoint)
    try:
        yield bare
    finally:
        bare.close(0)
        context.term()


def header(kind: str, seq: int, version: tuple[int, int] = VERSION, protocol: str = PROTOCOL) -> bytes:
    return bytes(msgpack.packb([protocol, list(version), kind, seq, 0, 0]))


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_answers_reach_their_questions(transport: str, tmp_path: Path) -> None:
    endpoint = LOCAL if transport == "tcp" else f"ipc://{tmp_path}/s"
    with running(endpoint=endpoint, name="site") as server, asking(server) as first, asking(server) as second:
        for k in range(20):
            assert first.ask("a", b"%d" % k) == b"a%d" % k
            assert second.ask("b", b"%d" % k) == b"b%d" % k
        assert first.peer == "site"
        assert (first.counts["asked"], first.counts["answered"]) == (21, 21)  # hello is a question too


@pytest.mark.parametrize("kind", [Misuse, RemoteFault, LateArrival])
def test_the_three_kinds_of_error_keep_their_kind(kind: type[Exception]) -> None:
    def refuse(_kind: str, _payload: bytes) -> bytes:
        raise kind("beam.phase_rad[0] = nan: must be finite")

    with running(refuse) as server, asking(server) as client:
        for _ in range(2):  # and the session goes on
            with pytest.raises(kind, match=r"beam\.phase_rad\[0\] = nan: must be finite"):
                client.ask("x")


def test_a_crash_in_the_handler_is_a_remote_fault_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    def crash(kind: str, payload: bytes) -> bytes:
        return b"%d" % (1 // int(payload))

    with running(crash) as server, asking(server) as client:
        with pytest.raises(RemoteFault, match="x failed: ZeroDivisionError"):
            client.ask("x", b"0")
        assert client.ask("x", b"1") == b"1"
        assert server.counts["failed"] == 1


def test_nobody_there_is_late_within_the_limit() -> None:
    begun = time.monotonic()
    with pytest.raises(
        LateArrival, match=r"'hello' seq 1 after 0\.3.* s; it has not answered before; nobody listens there"
    ):
        Client("tcp://127.0.0.1:1", BRISK)
    assert time.monotonic() - begun < 20 * BRISK.give_up_s  # bounded; how tightly is for a benchmark


def test_a_silent_server_is_warned_of_then_given_up_and_its_late_answer_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = threading.Event()

    def slow(kind: str, payload: bytes) -> bytes:
        if kind == "slow":
            gate.wait(10)
        return payload

    with running(slow) as server, asking(server) as client, caplog.at_level(logging.WARNING, "hal.session"):
        assert client.ask("quick", b"1") == b"1"
        with pytest.raises(
            LateArrival, match=r"no answer to 'slow' seq 3 .* its last answer was to seq 2; the limit is"
        ):
            client.ask("slow", b"2")
        assert "no answer to 'slow' seq 3" in caplog.text
        gate.set()
        assert client.ask("quick", b"3") == b"3"  # not b"2"
        assert (client.counts["late"], client.counts["warned"]) == (1, 1)


def test_a_closed_connection_is_told_before_the_limit() -> None:
    class Gone(BaseException):
        pass

    def leave(kind: str, payload: bytes) -> bytes:
        raise Gone

    server = Server(LOCAL)

    def work() -> None:
        try:
            server.run(leave, lambda: False)
        except Gone:
            server.close()

    thread = threading.Thread(target=work)
    thread.start()
    with asking(server, patience=Patience(0.05, 3600)) as client:
        with pytest.raises(RemoteFault, match="the connection was closed before 'x' seq 2 was answered"):
            client.ask("x")
        thread.join()


@pytest.mark.parametrize("noticed", [True, False])
def test_a_server_started_anew_is_noticed_once_and_does_nothing_before(noticed: bool) -> None:
    """Whether or not a question fell into the gap: a command meant for the old server must not reach the new one."""
    asked: list[bytes] = []

    def note(kind: str, payload: bytes) -> bytes:
        asked.append(payload)
        return kind.encode() + payload

    with running() as first:
        endpoint = first.endpoint
        client = Client(endpoint, Patience(0.05, 5))
    try:
        if noticed:
            with pytest.raises((RemoteFault, LateArrival)), asking_briefly(client):
                client.ask("x")
        with running(note, endpoint):
            anew = "was started anew since the last question; what it held before is lost"
            gone = "the connection was closed since the last question"  # told first, where the new one is not there yet
            with pytest.raises(RemoteFault, match=anew if noticed else f"{anew}|{gone}") as told:
                client.ask("x", b"meant for the old one")
            if gone in str(told.value):
                with pytest.raises(RemoteFault, match=anew):
                    client.ask("x", b"meant for the old one")
            assert client.ask("x", b"1") == b"x1"
            assert asked == [b"1"]
    finally:
        client.close()


@contextmanager
def asking_briefly(client: Client) -> Iterator[None]:
    kept, client.patience = client.patience, BRISK
    try:
        yield
    finally:
        client.patience = kept


@pytest.mark.parametrize(
    ("version", "protocol", "says"),
    [
        (
            (VERSION[0] + 1, 0),
            PROTOCOL,
            r"refused: the client speaks version 2\.0 of isac-twin; this side speaks 1\.\d+",
        ),
        (VERSION, "other", "refused: the client speaks 'other'; this side speaks 'isac-twin'"),
    ],
)
def test_another_version_is_refused_in_words(version: tuple[int, int], protocol: str, says: str) -> None:
    seen: list[str] = []

    def note(kind: str, payload: bytes) -> bytes:
        seen.append(kind)
        return b""

    with running(note) as server, raw(server.endpoint) as bare:
        bare.send_multipart([header("x", 1, version, protocol), b""])
        head, text = bare.recv_multipart()
        assert msgpack.unpackb(head)[2:4] == ["fault", 1]
        assert re.search(says, text.decode())
    assert (seen, server.counts["refused"]) == ([], 1)


def test_another_minor_version_is_served() -> None:
    with running() as server, raw(server.endpoint) as bare:
        bare.send_multipart([msgpack.packb([PROTOCOL, [VERSION[0], 99], "x", 1, 0, 0, 0, "added later"]), b"y"])
        head, payload = bare.recv_multipart()
        assert (msgpack.unpackb(head)[2], payload) == ("answer", b"xy")


def test_a_server_of_another_version_is_refused_by_the_client() -> None:
    with raw("tcp://127.0.0.1:*", zmq.ROUTER, bind=True) as bare:
        endpoint = bare.last_endpoint.decode()

        def old() -> None:
            peer, _, _ = bare.recv_multipart()
            bare.send_multipart([peer, header("answer", 1, (VERSION[0] + 1, 3)), b""])

        thread = threading.Thread(target=old)
        thread.start()
        with pytest.raises(
            RemoteFault, match=r"speaks version 2\.3 of isac-twin; this side speaks 1\.\d+: update the older"
        ):
            Client(endpoint, BRISK)
        thread.join()


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b""],
        [b"\xc1", b""],
        [b"x"] * 7,
        [msgpack.packb(["isac-twin", "1.0", "x", 1]), b""],
        [header("x", 1)],
    ],
)
def test_garbage_is_counted_and_answered(frames: list[bytes]) -> None:
    with running() as server, raw(server.endpoint) as bare, asking(server) as client:
        bare.send_multipart(frames)
        head, text = bare.recv_multipart()
        assert msgpack.unpackb(head)[2:4] == ["fault", -1]
        assert text == b"this is not a header and a payload"
        assert server.counts["garbage"] == 1
        assert client.ask("x", b"1") == b"x1"


def test_bytes_that_are_not_even_zeromq_do_no_harm() -> None:
    with running() as server, asking(server) as client:
        host, port = server.endpoint.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port))) as bare:
            bare.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)
            assert client.ask("x", b"1") == b"x1"


def test_a_question_asked_twice_is_answered_once() -> None:
    asked: list[bytes] = []

    def note(kind: str, payload: bytes) -> bytes:
        asked.append(payload)
        return payload

    with running(note) as server, raw(server.endpoint) as bare:
        for seq, payload in [(1, b"a"), (1, b"a"), (2, b"b"), (3, b"c")]:
            bare.send_multipart([header("x", seq), payload])
        assert [bare.recv_multipart()[1] for _ in range(3)] == [b"a", b"b", b"c"]
    assert (asked, server.counts["duplicate"]) == ([b"a", b"b", b"c"], 1)


@pytest.mark.parametrize("seq", [1, 0, -1, -(2**63)])
def test_a_number_that_goes_back_is_refused_in_words_and_not_left_without_an_answer(seq: int) -> None:
    """Whoever has once said a number too high would otherwise wait for every answer until it gives up."""
    with running() as server, raw(server.endpoint) as bare:
        bare.send_multipart([header("x", 2**62), b""])
        assert bare.recv_multipart()[1] == b"x"
        bare.send_multipart([header("x", seq), b""])
        head, said = bare.recv_multipart()
        assert msgpack.unpackb(head)[2:4] == ["fault", seq]
        assert b"numbered upwards" in said


def test_answers_that_were_not_asked_for_are_counted_and_ignored() -> None:
    with raw("tcp://127.0.0.1:*", zmq.ROUTER, bind=True) as bare:

        def work() -> None:
            peer, _, _ = bare.recv_multipart()
            bare.send_multipart([peer, header("answer", 1), msgpack.packb("odd")])
            bare.recv_multipart()
            for seq, head in [(1, None), (77, None), (0, b"\xc1"), (2, None), (2, None)]:
                bare.send_multipart([peer, header("answer", seq) if head is None else head, b"%d" % seq])
            bare.recv_multipart()
            bare.send_multipart([peer, header("answer", 3), b"3"])

        thread = threading.Thread(target=work)
        thread.start()
        with asking(bare.last_endpoint.decode()) as client:
            assert client.ask("x") == b"2"
            assert client.ask("x") == b"3"
            counts = client.counts
            assert (counts["duplicate"], counts["late"], counts["garbage"]) == (2, 1, 1)
        thread.join()


def test_the_offset_of_the_peer_s_clock_is_found_within_its_uncertainty() -> None:
    ahead_ns = 123_456_789_000
    with running(clock=lambda: time.monotonic_ns() + ahead_ns) as server, asking(server) as client:
        for _ in range(20):
            told = client.ping()
        assert told.samples == 21
        assert abs(told.offset_ns - ahead_ns) <= told.uncertainty_ns < 1e9


@pytest.mark.parametrize("drift", [200e-6, -0.05])
def test_the_drift_of_the_peer_s_clock_is_found_within_its_uncertainty(drift: float) -> None:
    """Both clocks are the test's own: a round trip of 100 us, the peer's clock fast by ``drift``."""
    began, there = time.monotonic_ns(), [0]

    def ours() -> int:
        there[0] += 25_000
        return began + there[0]

    def theirs() -> int:
        there[0] += 25_000
        return began + 10**9 + round(there[0] * (1 + drift))

    with running(clock=theirs) as server, asking(server, clock=ours, patience=Patience(60.0, 100.0)) as client:
        told = client.ping()
        for _ in range(400):
            there[0] += 1_000_000
            told = client.ping()
        assert told.drift == pytest.approx(drift, abs=told.drift_uncertainty)
        assert told.drift_uncertainty < 1e-3
        since_ns = began + there[0] - told.at_ns
        now = told.offset_ns + told.drift * since_ns
        assert now == pytest.approx(
            10**9 + drift * there[0], abs=told.uncertainty_ns + told.drift_uncertainty * since_ns
        )


def test_curve_lets_in_only_the_listed_key() -> None:
    server_public, server_secret = zmq.curve_keypair()
    mine, stranger = zmq.curve_keypair(), zmq.curve_keypair()
    guard = Keys(server_public, server_secret, allowed=frozenset({mine[0]}))
    with running(keys=guard) as server:
        with asking(server, keys=Keys(*mine, server=server_public)) as client:
            assert client.ask("x", b"1") == b"x1"
        with pytest.raises(RemoteFault, match="it refused our key"):
            Client(server.endpoint, BRISK, Keys(*stranger, server=server_public))
        with pytest.raises((RemoteFault, LateArrival)):
            Client(server.endpoint, BRISK)
        with pytest.raises(Misuse, match=r"keys\.server = None"):
            Client(server.endpoint, BRISK, Keys(*mine))


@pytest.mark.parametrize("endpoint", ["tcp://*:*", "tcp://0.0.0.0:*"])
def test_a_bind_that_others_can_reach_needs_keys_or_a_word(endpoint: str) -> None:
    public, secret = zmq.curve_keypair()
    for keys in (None, Keys(public, secret)):
        with pytest.raises(Misuse, match="others than this computer can reach it"):
            Server(endpoint, keys)
    Server(endpoint, insecure=True).close()


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "ipc://"])
def test_a_wrong_endpoint_is_misuse(endpoint: str) -> None:
    with pytest.raises(Misuse, match=r"endpoint = .*write it as tcp://"):
        Client(endpoint, BRISK)


def test_patience_is_positive_and_a_closed_session_says_so() -> None:
    with pytest.raises(Misuse, match=r"patience\.give_up_s = nan"):
        Patience(give_up_s=float("nan"))
    with running() as server, asking(server) as client:
        client.close()
        with pytest.raises(Misuse, match="this session is closed"):
            client.ask("x")
