"""Listening: joining without a gap, counting what was missed, and a twin that goes and comes back."""

import queue
import threading

import msgspec
import numpy as np
import pytest
import zmq

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.record import Array, Complex, Int, record
from hal.session import Keys, Patience
from twin.bus import ZmqBus, control_beside
from twin.client import Message, Silence, Subscriber, connect, plain


@record
class Count:
    number: int
    gain: Complex[Array, "a b"]
    index: Int[Array, " c"]


def count(number, size=3):
    return Count(number=number, gain=np.full((2, size), 1 + 1j * number), index=np.arange(number % 5))


class Twin(threading.Thread):
    """A bus on a thread of its own, serviced all the time; ``do`` runs a function on that thread."""

    def __init__(self, run="r1", state="tcp://127.0.0.1:0", busy=None, **options):
        super().__init__(daemon=True)
        self.tasks = queue.Queue()
        self.busy, self.failed = busy, []
        options.setdefault("heartbeat_s", 0.02)
        self.bus = ZmqBus(run, state, **options)
        self.state, self.control = self.bus.state, self.bus.control
        self.start()

    def run(self):
        try:
            while True:
                try:
                    task, answer = self.tasks.get(timeout=0.0005)
                    if task is None:
                        return
                    answer.put(task(self.bus))
                except queue.Empty:
                    pass
                if self.busy is not None:
                    self.busy(self.bus)
                self.bus.service()
        except BaseException as error:
            self.failed.append(error)
            raise

    def do(self, task):
        answer = queue.Queue()
        self.tasks.put((task, answer))
        return answer.get(timeout=10)

    def publish(self, *numbers, topic="bs0.count.", size=3):
        self.do(lambda bus: [bus.publish(topic, count(k, size), 1000 * k) for k in numbers])

    def stop(self, reason="finished", say=True):
        self.tasks.put((None, None))
        self.join(10)
        if say:
            self.bus.close(reason)
        else:  # killed: no stop
            self.bus._release(linger_ms=0)
        assert self.failed == []


@pytest.fixture
def twins():
    made = []

    def make(*given, **options):
        made.append(Twin(*given, **options))
        return made[-1]

    yield make
    for twin in made:
        if twin.is_alive():
            twin.stop()


def listen(twin, *topics, **options):
    told = []
    options.setdefault("patience", Patience(0.5, 5.0))
    subscriber = connect(twin.state, *topics, notice=told.append, **options)
    subscriber.told = told
    return subscriber


def gather(subscriber, enough, kinds=("event",)):
    """Messages of ``kinds`` until ``enough(messages)``."""
    got = []
    for _ in range(20_000):
        message = subscriber.receive(0.05)
        if message is not None and message.kind in kinds:
            got.append(message)
        if enough(got):
            return got
    raise AssertionError(f"never enough: {len(got)}, {subscriber.condition}, {subscriber.told}")


def numbers(messages):
    return [message.data["number"] for message in messages]


def test_a_late_joiner_understands_everything_and_has_the_last_of_each_stream(twins):
    twin = twins(about={"seed": 3})
    twin.publish(*range(7))
    twin.publish(100, topic="bs0.other.")
    with listen(twin) as sub:
        got = gather(sub, lambda got: len(got) == 5, kinds=("start", "descriptor", "event"))
        assert [(m.topic, m.kind) for m in got] == [
            ("run.", "start"),
            ("bs0.count.", "descriptor"),
            ("bs0.count.", "event"),
            ("bs0.other.", "descriptor"),
            ("bs0.other.", "event"),
        ]
        assert got[0].data["about"] == {"seed": 3}
        assert got[1].data["record"] == "Count"
        assert (got[2].data["number"], got[2].seq, got[2].t_ns) == (6, 7, 6000)
        np.testing.assert_array_equal(got[2].data["gain"], count(6).gain)
        assert got[2].data["gain"].dtype == np.complex128
        twin.publish(7)
        assert numbers(gather(sub, lambda got: got)) == [7]
        assert sub.joined
        assert sub.condition == "live"
        assert not sub.lost


def test_only_what_was_asked_for_comes(twins):
    twin = twins()
    twin.publish(1)
    twin.publish(2, topic="bs0.other.")
    with listen(twin, "bs0.other.") as sub:
        got = gather(sub, lambda got: got)
        twin.publish(3)
        twin.publish(4, topic="bs0.other.")
        got += gather(sub, lambda got: got)
        assert numbers(got) == [2, 4]
        gather(sub, lambda got: len(got) > 2, kinds=("heartbeat",))
        assert not sub.lost  # streams that were not asked for are not missed


def test_joining_a_running_stream_has_no_gap_and_no_repeat(twins):
    """Publishes as fast as it can while listeners come; snapshot-then-subscribe, or no hand-shake, fails this."""
    number = [0]

    def busy(bus):
        for _ in range(5):
            bus.publish("bs0.count.", count(number[0]), number[0])
            number[0] += 1

    twin = twins(busy=busy)
    for _ in range(15):
        with listen(twin, "bs0.") as sub:
            got = gather(sub, lambda got: len(got) >= 60)
            assert np.all(np.diff(numbers(got)) == 1)
            assert np.all(np.diff([m.seq for m in got]) == 1)
            assert sub.joined
            assert not sub.lost
            assert sub.told == []


def test_every_document_is_either_received_or_counted_and_the_twin_is_told(twins):
    twin = twins(queue=5)
    with listen(twin, "bs0.", queue=5) as sub:
        gather(sub, lambda beats: beats, kinds=("heartbeat",))
        total = 2_000
        twin.publish(*range(total), size=1_000)
        seen, idle = set(), 0
        while idle < 5:
            message = sub.receive(0.05)
            if message is not None and message.topic == "bs0.count.":
                seen.add(message.seq)
            idle = idle + 1 if message is not None and message.kind == "heartbeat" else 0
        assert sub.lost["bs0.count."] > 0
        assert len(seen) + sub.lost["bs0.count."] == total + 1  # the descriptor is one of them
        assert twin.do(lambda bus: bus.lost["bs0.count."]) == sub.lost["bs0.count."]


def test_the_end_of_the_run_ends_the_iteration(twins):
    twin = twins()
    twin.publish(1, 2)
    with listen(twin) as sub:
        kinds = []
        for message in sub:
            kinds.append(message.kind)
            if message.kind == "event":
                twin.stop("finished")
        assert kinds[-1] == "stop"
        assert sub.condition == "stopped"
        assert any("stopped: finished" in text for text in sub.told)
    assert message.data["summary"]["bus"]["published"] == 2


def test_a_twin_that_falls_silent_is_late_then_gone_then_an_error(twins):
    now = [0]
    twin = twins("r7")
    twin.publish(1)
    sub = listen(twin, clock=lambda: now[0], silence=Silence(3, 10, 60))
    gather(sub, lambda got: got)
    twin.stop(say=False)
    while sub.receive(0) is not None:  # what is still under way
        pass
    assert sub.condition == "live"
    now[0] += 4 * 10**9
    assert sub.receive(0) is None
    assert sub.condition == "late"
    now[0] += 7 * 10**9
    assert sub.receive(0) is None
    assert sub.condition == "gone"
    told = len(sub.told)
    assert sub.receive(0) is None
    assert len(sub.told) == told  # said once
    assert "r7" in sub.told[-1]
    assert "11.0 s" in sub.told[-1]
    now[0] += 60 * 10**9
    with pytest.raises(
        LateArrival, match=r"has said nothing for 71\.0 s \(run r7\); the limit is 60 s: is the twin running"
    ):
        sub.receive(0)
    sub.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_new_run_on_the_same_endpoint_is_joined(twins, gone):
    now = [0]
    first = twins("r1")
    first.publish(*range(5))
    with listen(first, "bs0.", follow=True, clock=lambda: now[0], patience=Patience(0.5, 2.0)) as sub:
        gather(sub, lambda got: got)
        first.stop(say=False)
        while sub.receive(0.01) is not None:
            pass
        if gone:
            now[0] += 11 * 10**9
            assert sub.receive(0) is None
            assert sub.condition == "gone"
        second = twins("r2", first.state)
        second.publish(50, 51)
        got = gather(sub, lambda got: any(m.kind == "event" and m.run == "r2" for m in got), ("descriptor", "event"))
        assert [(m.kind, m.run, m.data.get("number")) for m in got] == [("descriptor", "r2", None), ("event", "r2", 51)]
        assert sub.run == "r2"
        assert sub.condition == "live"
        assert not sub.lost  # another run's numbers are not compared with this one's
        second.publish(52)
        assert numbers(gather(sub, lambda got: got)) == [52]
        assert any("run r1 is over, this is run r2" in text for text in sub.told)


def test_the_same_run_after_a_break_counts_what_was_missed(twins):
    now = [0]
    twin = twins("r1")
    twin.publish(*range(5))
    with listen(twin, "bs0.", clock=lambda: now[0]) as sub:
        gather(sub, lambda got: got)
        sub._socket.disconnect(twin.state)  # the cable is pulled
        while sub.receive(0.01) is not None:
            pass
        twin.publish(*range(5, 25))
        now[0] += 11 * 10**9
        assert sub.receive(0) is None
        assert sub.condition == "gone"
        twin.publish(25)
        got = gather(sub, lambda got: got)
        twin.publish(26)
        got += gather(sub, lambda got: got)
        assert numbers(got) == [25, 26]
        assert sub.lost["bs0.count."] == 20


def test_without_a_control_socket_listening_still_works(twins):
    twin = twins()
    with listen(twin, "bs0.", control="tcp://127.0.0.1:1", patience=Patience(0.05, 0.1)) as sub:
        gather(sub, lambda beats: len(beats) > 1, kinds=("heartbeat",))
        twin.publish(1, 2, 3)
        assert numbers(gather(sub, lambda got: len(got) == 3)) == [1, 2, 3]
        assert not sub.joined
        assert any("no snapshot" in text for text in sub.told)


@pytest.fixture
def station():
    """A publisher that is no twin."""
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.bind("tcp://127.0.0.1:*")
    socket.linger = 0
    yield socket, socket.last_endpoint.decode().rstrip("\0")
    socket.close()
    context.term()


def stray(station, told):
    socket, endpoint = station
    sub = Subscriber(endpoint, control="tcp://127.0.0.1:1", patience=Patience(0.01, 0.02), notice=told.append)
    assert sub.receive(0) is None
    for _ in ("", "run."):
        assert socket.poll(5000)
        socket.recv()
    return socket, sub


def document(**changes):
    whole = {
        "document": "event",
        "protocol": "isac-twin",
        "version": [1, 0],
        "run": "r",
        "stream": "a.",
        "seq": 0,
        "t_ns": 0,
        "data": {},
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_another_major_version_is_refused_in_words_and_another_minor_is_read(station):
    socket, sub = stray(station, [])
    socket.send_multipart([b"a.", msgspec.msgpack.encode(document(version=[1, 9], news="unknown field"))])
    message = sub.receive(5)
    assert message == Message("a.", "event", "r", 0, 0, {})
    socket.send_multipart([b"a.", msgspec.msgpack.encode(document(version=[2, 0], seq=1))])
    with pytest.raises(
        RemoteFault, match=r"speaks version 2\.0 of isac-twin; this listener speaks 1\.\d+ .*update the older"
    ):
        sub.receive(5)
    sub.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b"a."],
        [b"a.", b"\xc1"],
        [b"a.", b"\x93\x01\x02\x03"],
        [b"\xff\xfe.", msgspec.msgpack.encode(document())],
        [b"b.", msgspec.msgpack.encode(document())],
        [b"a.", msgspec.msgpack.encode(document(seq="0"))],
        [b"a.", msgspec.msgpack.encode(document(run=None))],
        [b"a.", msgspec.msgpack.encode(document(data=None))],
        [b"a.", msgspec.msgpack.encode(document(data={"x": ["O", [1], b"12345678"]}))],
        [b"a.", msgspec.msgpack.encode(document(data={"x": ["f8", [2], b"12345678"]}))],
        [b"a.", msgspec.msgpack.encode(document()), b"123.5"],
    ],
)
def test_garbage_is_counted_and_not_fatal(station, frames):
    socket, sub = stray(station, [])
    socket.send_multipart(frames)
    socket.send_multipart([b"a.", msgspec.msgpack.encode(document(seq=5))])
    message = sub.receive(5)
    while message is None:
        message = sub.receive(5)
    assert message.seq == 5
    assert sub.garbage == 1
    sub.close()


def test_flat_messages_come_only_when_asked_for(twins):
    twin = twins()
    with listen(twin, "flat.bs0.") as flat, listen(twin) as everything:
        for sub in (flat, everything):
            gather(sub, lambda got: got, kinds=("start",))
        twin.do(lambda bus: bus.service())
        twin.do(lambda bus: bus.flat("bs0.kpi.", {"rate": 2.5}, 4_000))
        (message,) = gather(flat, lambda got: got, kinds=("flat",))
        assert message.t_ns == 4_000
        assert message.data["rate"] == 2.5
        gather(everything, lambda beats: len(beats) > 2, kinds=("heartbeat",))
        assert everything.garbage == 0


def test_curve_keys_open_both_sockets(twins):
    server, mine = zmq.curve_keypair(), zmq.curve_keypair()
    twin = twins(keys=Keys(*server, allowed=frozenset({mine[0]})))
    twin.publish(9)
    with listen(twin, keys=Keys(*mine, server=server[0])) as sub:
        assert numbers(gather(sub, lambda got: got)) == [9]
        assert sub.joined


def test_plain_turns_triples_into_arrays_wherever_they_are():
    raw = np.arange(6, dtype="<f4")
    got = plain(
        {"a": ["f4", [2, 3], raw.tobytes()], "b": [{"c": ["b1", [2], b"\x00\x01"]}, [1, 2, 3]], "d": ["f4", [1], "x"]}
    )
    np.testing.assert_array_equal(got["a"], raw.reshape(2, 3))
    assert got["b"][0]["c"].tolist() == [False, True]
    assert got["b"][1] == [1, 2, 3]
    assert got["d"] == ["f4", [1], "x"]
    assert not got["a"].flags.writeable
    with pytest.raises(RemoteFault, match="dtype 'O'"):
        plain(["O", [1], b"\0" * 8])
    with pytest.raises(RemoteFault, match=r"shape \[3\]"):
        plain(["f8", [3], b"\0" * 8])


def test_the_client_and_the_bus_agree_on_where_control_is():
    for state in ("tcp://127.0.0.1:5570", "ipc:///tmp/x"):
        sub = Subscriber(state)
        assert sub.control == control_beside(state)
        sub.close()
        sub.close()


def test_misuse_is_said():
    with pytest.raises(Misuse, match="names no transport"):
        connect("localhost")
    with pytest.raises(Misuse, match="ascending"):
        Silence(5, 3)
    with pytest.raises(Misuse, match="ascending"):
        Silence(float("nan"))
    sub = connect("tcp://127.0.0.1:1")
    sub.close()
    with pytest.raises(Misuse, match="closed"):
        sub.receive(0)
