"""A recording served like a running twin: when it is due, byte for byte, and wherever its listeners want to be."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.session import Client
from twin.build import run
from twin.bus import ZmqBus
from twin.client import Message, Subscriber
from twin.record import RunHash
from twin.records import Playing
from twin.reel import Reel
from twin.replay import REST_S, Player, moment, serve
from twin.scene import Scene
from twin.verify import DECIDED

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
PERIOD_NS = 5_000_000


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run(
        SMOKE, {"sensing.fidelity": "bound", "record.beams_ms": 20}, out=tmp_path_factory.mktemp("replay") / "run"
    )


@pytest.fixture
def reel(done):
    return Reel(done.path)


class Said:
    """A bus that only notes what is said, and a clock that the test turns."""

    def __init__(self):
        self.now_ns, self.said, self.told = 0, [], []

    def relay(self, topic, name, schema, data, t_ns):
        assert name
        assert schema["properties"]
        self.said.append((topic, t_ns, data))

    def publish(self, topic, record, t_ns):
        assert topic == "replay."
        self.told.append(record)

    def wanted(self, topic):
        return False

    def times(self):
        return [t_ns // PERIOD_NS for topic, t_ns, _ in self.said if topic == "bs0.kpi."]


def player(reel, **options):
    bus = Said()
    made = Player(reel, clock=lambda: bus.now_ns, **options)
    made.bus = bus
    return made, bus


def until_idle(made):
    while made.turn() == 0.0 and not made.over:
        pass


@pytest.mark.parametrize("speed", [1.0, 0.25, 4.0])
def test_subframes_are_said_when_they_are_due(reel, speed):
    made, bus = player(reel, speed=speed)
    for k in range(10):
        bus.now_ns = round(k * PERIOD_NS / speed)
        until_idle(made)
        assert bus.times() == list(range(k + 1))
        bus.now_ns += round(0.9 * PERIOD_NS / speed)  # nothing more before the next is due
        until_idle(made)
        assert bus.times() == list(range(k + 1))
    assert made.turn() <= REST_S  # never away from the control socket for long


def test_as_fast_as_it_goes_waits_for_no_clock_and_ends(reel):
    made, bus = player(reel, speed=0)
    while not made.over:
        assert made.turn() == 0.0
    assert [(topic, t_ns, data) for topic, t_ns, data in bus.said] == [
        (row.topic, row.t_ns, row.data) for row in (reel.message(n) for n in range(len(reel)))
    ]
    assert not bus.told[-1].speed
    assert bus.told[-1].t_ns == 19 * PERIOD_NS


def test_a_stretch_is_played_once_or_for_ever_or_held(reel):
    stretch = {"speed": 0, "begin_ns": 3 * PERIOD_NS, "end_ns": 6 * PERIOD_NS}
    made, bus = player(reel, **stretch)
    until_idle(made)
    assert made.over
    assert bus.times() == [3, 4, 5, 6]
    made, bus = player(reel, loop=True, **stretch)
    for _ in range(12):
        made.turn()
    assert not made.over
    assert bus.times()[:6] == [3, 4, 5, 6, 3, 4]
    made, bus = player(reel, hold=True, **stretch)
    until_idle(made)
    assert not made.over
    assert not made.playing
    assert bus.times() == [3, 4, 5, 6]
    made.play(True)  # to go on at the end is to begin anew
    until_idle(made)
    assert bus.times()[4:] == [3, 4, 5, 6]


def test_to_seek_says_what_was_known_then(reel):
    made, bus = player(reel)
    made.turn()
    bus.said.clear()
    made.seek(13 * PERIOD_NS + 1)
    topics = [topic for topic, *_ in bus.said]
    assert bus.times() == [13]
    assert sorted(topics) == sorted(reel.topics)
    before = {topic: t_ns for topic, t_ns, _ in bus.said}
    kept = [row.t_ns for row in reel.rows("bs0.beam.transmit.")]  # every 20 ms
    assert before["bs0.beam.transmit."] == max(t_ns for t_ns in kept if t_ns <= 13 * PERIOD_NS) != 13 * PERIOD_NS
    made.play(False)
    made.seek(0)
    assert bus.times() == [13, 0]
    bus.now_ns += 10**9
    assert made.turn() > 0
    assert bus.times() == [13, 0]
    made.step(3)
    assert bus.times() == [13, 0, 1, 2, 3]
    assert not made.playing
    made.play(True)
    made.turn()
    assert bus.times()[-1] == 4


def test_another_pace_holds_from_now_on(reel):
    made, bus = player(reel)
    until_idle(made)
    bus.now_ns = 4 * PERIOD_NS
    until_idle(made)
    made.pace(0.5)
    bus.now_ns += 3 * PERIOD_NS
    until_idle(made)
    assert bus.times() == [0, 1, 2, 3, 4, 5, 6]  # the fifth counts from the change on
    with pytest.raises(Misuse, match="must be a finite number >= 0"):
        made.pace(float("nan"))


def test_times_outside_the_recording_are_refused_with_its_span(reel):
    with pytest.raises(
        Misuse, match=r"--from 9 s: lies outside the recording, which has subframes from 0 s to 0\.095 s"
    ):
        Player(reel, begin_ns=9 * 10**9)
    with pytest.raises(Misuse, match=r"--from 0\.05 s lies after --to 0\.02 s"):
        Player(reel, begin_ns=50_000_000, end_ns=20_000_000)
    with pytest.raises(Misuse, match="no subframe begins in this stretch"):
        Player(reel, begin_ns=11_000_000, end_ns=12_000_000)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("1.25s", 1_250_000_000), ("1.25", 1_250_000_000), ("1250ms", 1_250_000_000), ("5us", 5000), ("7ns", 7)],
)
def test_a_moment_is_written_as_people_do(text, ns):
    assert moment(text, "--at") == ns


@pytest.mark.parametrize("text", ["soon", "", "1h", "-1", "nan", "inf", "1e400"])
def test_what_is_no_moment_names_the_option(text):
    with pytest.raises(Misuse, match=r"--at .*(seconds|>= 0)"):
        moment(text, "--at")


class Served:
    """A replay in a thread, on sockets of its own."""

    def __init__(self, reel, tmp_path, **options):
        self.endpoint = f"ipc://{tmp_path}/state"
        self.player = Player(reel, **options)
        self.said = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("twin.replay.signal", SimpleNamespace(signal=lambda *given: None, SIGTERM=15))
            serve(self.player, self.endpoint, announce=self.said.append)

    def end(self):
        self.player.over = True
        self.thread.join(20)
        assert not self.thread.is_alive()


class Document(msgspec.Struct):
    document: str
    seq: int
    t_ns: int
    data: msgspec.Raw = msgspec.Raw(b"")


@pytest.mark.parametrize("speed", [0.0, 2.0])
def test_a_plain_socket_hears_the_very_bytes_whose_hash_the_run_left(done, reel, tmp_path, speed):
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.connect(f"ipc://{tmp_path}/state")
    for topic in ("truth.", "bs0.", "run."):
        socket.subscribe(topic)
    served, made, last = Served(reel, tmp_path, speed=speed), RunHash(), {}
    try:
        while True:
            assert socket.poll(20_000), "nothing comes"
            topic, body = (frame for frame in socket.recv_multipart())
            document = msgspec.msgpack.decode(body, type=Document)
            assert document.seq == last.get(topic, document.seq - 1) + 1  # nothing lost
            last[topic] = document.seq
            if document.document == "event" and topic.decode().endswith(DECIDED):
                made.add(topic.decode(), document.t_ns, bytes(document.data))
            if document.document == "stop":
                break
    finally:
        served.end()
        context.destroy(linger=0)
    assert made.count == 80
    assert made.hexdigest() == done.summary["run"]["hash"]


def test_a_monitor_cannot_tell_it_from_the_twin_but_by_its_clock(reel, tmp_path):
    served, scene = Served(reel, tmp_path, speed=0, hold=True), Scene("here")
    with (
        Subscriber(served.endpoint, ("truth.", "bs0.", "replay.")) as listener,
        closing(Client(f"{served.endpoint}.control")) as ask,
    ):
        heard: list[Message] = []
        while not any(m.kind == "event" and m.topic == "replay." and not m.data["playing"] for m in heard):
            message = listener.receive(10.0)
            assert message is not None
            heard.append(message)
            scene.take(message, 0)
        assert scene.title == "smoke"
        assert scene.kpi["k"] == 19
        assert scene.about["clock"]["mode"] == "replay"
        assert not listener.lost
        assert {m.topic for m in heard} >= set(reel.topics)
        where = wire.decode(ask.ask("seek", msgspec.msgpack.encode({"t_ns": 7 * PERIOD_NS})), Playing)
        assert where.t_ns == 7 * PERIOD_NS
        assert not where.playing
        while scene.kpi["k"] != 7:
            scene.take(listener.receive(10.0), 0)
        assert any("time went back" in note.text for note in scene.notes)
        with pytest.raises(Misuse, match=r"must be 1 \.\. 10000"):
            ask.ask("step", msgspec.msgpack.encode({"subframes": 0}))
        with pytest.raises(RemoteFault, match="t_ns"):
            ask.ask("seek", msgspec.msgpack.encode({"t": 1}))
    served.end()


def test_a_listener_that_never_reads_holds_up_nobody_for_long(reel, tmp_path):
    """A document waits for room once; after one that waited in vain none waits any more."""
    context = zmq.Context()
    deaf = context.socket(zmq.SUB)
    deaf.set(zmq.RCVHWM, 1)
    deaf.set(zmq.RCVBUF, 4096)
    with ZmqBus("r", "tcp://127.0.0.1:0", wait_s=0.05, queue=2) as bus:
        deaf.connect(bus.state)
        deaf.subscribe("")
        while not bus.listeners("a."):
            bus.service()
        for k in range(400):
            bus.relay("a.", "Blob", {"properties": {}}, msgspec.msgpack.encode({"x": bytes(100_000)}), k)
        assert bus.counts["refused"] == 1
    context.destroy(linger=0)
