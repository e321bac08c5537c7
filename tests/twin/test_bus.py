"""The bus as an outsider sees it: pyzmq and plain msgpack only, against the endpoints; nothing of the twin decodes here."""

import os
import subprocess
import sys
import time

import msgpack
import numpy as np
import pytest
import zmq

from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int, record
from hal.session import Keys
from hal.wire import VERSION
from twin.bus import Bus, NullBus, ZmqBus, control_beside, flatten
from twin.records import Truth


@record
class Reading:
    number: int  # counts
    level_db: float  # decibels
    gain: Complex[Array, "user chain"]
    user: Int[Array, " user"]
    name: str = "x"


def reading(number=0, users=2):
    gain = (np.arange(3 * users) + 1j * number).reshape(users, 3)
    return Reading(number=number, level_db=-3.5, gain=gain, user=np.arange(users))


def truth(t_ns=0):
    n = np.arange(3)
    where = np.arange(9.0).reshape(3, 3)
    return Truth(t_ns=t_ns, entity=n, is_user=n > 0, position_m=where, velocity_mps=-where, rcs_m2=n + 0.5)


@pytest.fixture
def bus():
    with ZmqBus("r1", "tcp://127.0.0.1:0", about={"seed": 7, "scenario": "smoke"}, heartbeat_s=1e9) as bus:
        yield bus


@pytest.fixture
def outsider():
    """Opens plain sockets and closes them."""
    context = zmq.Context()
    opened = []

    def connect(kind, endpoint, *topics, **options):
        socket = context.socket(kind)
        socket.linger = 0
        for name, value in options.items():
            socket.set(getattr(zmq, name), value)
        socket.connect(endpoint)
        for topic in topics:
            socket.subscribe(topic)
        opened.append(socket)
        return socket

    yield connect
    for socket in opened:
        socket.close()
    context.term()


def serve_until(bus, condition):
    """Service the bus until ``condition()``; a test that waits for ever fails here."""
    end = time.monotonic() + 10
    poller = zmq.Poller()
    while not condition():
        assert time.monotonic() < end, "never came"
        bus.service()
        poller.poll(1)


def received(bus, sub, count):
    """``count`` messages, decoded."""
    got = []
    while len(got) < count:
        serve_until(bus, lambda: sub.poll(0))
        topic, body = sub.recv_multipart()
        got.append((topic.decode(), msgpack.unpackb(body)))
    return got


def ask(bus, dealer, kind, payload, seq=1):
    dealer.send_multipart([msgpack.packb(["isac-twin", list(VERSION), kind, seq]), msgpack.packb(payload)])
    serve_until(bus, lambda: dealer.poll(0))
    head, body = dealer.recv_multipart()
    protocol, version, kind, answered = msgpack.unpackb(head)[:4]
    assert (protocol, tuple(version), answered) == ("isac-twin", VERSION, seq)
    return kind, body


def test_documents_come_in_order_and_an_outsider_reads_them(bus, outsider):
    sub = outsider(zmq.SUB, bus.state, "bs0.")
    serve_until(bus, lambda: bus.wanted("bs0.kpi."))
    bus.publish("bs0.kpi.", reading(4), 5_000_000)
    bus.publish("bs0.kpi.", reading(5), 10_000_000)
    (t0, descriptor), (t1, first), (_, second) = received(bus, sub, 3)
    assert t0 == t1 == "bs0.kpi."
    assert descriptor["document"] == "descriptor"
    assert descriptor["record"] == "Reading"
    assert descriptor["schema"]["properties"]["gain"]["axes"] == ["user", "chain"]
    for seq, document in enumerate((descriptor, first, second)):
        assert document["protocol"] == "isac-twin"
        assert tuple(document["version"]) == VERSION
        assert document["run"] == "r1"
        assert document["stream"] == "bs0.kpi."
        assert document["seq"] == seq
    assert first["document"] == "event"
    assert first["t_ns"] == 5_000_000
    assert second["data"]["number"] == 5
    letter, shape, raw = second["data"]["gain"]
    assert (letter, shape) == ("c16", [2, 3])
    pairs = np.frombuffer(raw, "<f8").reshape(2, 3, 2)  # interleaved re, im, as the protocol page says
    np.testing.assert_array_equal(pairs[..., 0] + 1j * pairs[..., 1], reading(5).gain)


def test_start_and_stop_frame_the_run(outsider):
    bus = ZmqBus("r2", "tcp://127.0.0.1:0", about={"seed": 7})
    dealer = outsider(zmq.DEALER, bus.control)
    sub = outsider(zmq.SUB, bus.state, "run.")
    serve_until(bus, lambda: bus.wanted("run."))
    _, body = ask(bus, dealer, "snapshot", {"topics": [""]})
    topic, start = msgpack.unpackb(body)["documents"][0]
    assert topic == "run."
    start = msgpack.unpackb(start)
    assert start["document"] == "start"
    assert start["about"] == {"seed": 7}
    assert start["control"] == bus.control
    bus.publish("bs0.truth.", truth(), 42)
    bus.close("finished", {"run_hash": "ab"})
    bus.close("again")
    bus.publish("bs0.truth.", truth(), 43)  # after the end: nothing happens
    (_, beat), (_, stop) = received(bus, sub, 2)
    assert beat["document"] == "heartbeat"
    assert beat["streams"]["bs0.truth."] == 1
    assert (stop["document"], stop["reason"], stop["t_ns"]) == ("stop", "finished", 42)
    assert stop["summary"]["run_hash"] == "ab"
    assert stop["summary"]["bus"]["published"] == 1
    assert stop["seq"] == beat["seq"] + 1
    assert not sub.poll(0)


def test_a_run_that_fails_says_why(outsider):
    heard = []

    def fail():
        with ZmqBus("r", "tcp://127.0.0.1:0") as bus:
            heard.append(outsider(zmq.SUB, bus.state, "run."))
            serve_until(bus, lambda: bus.wanted("run."))
            raise ZeroDivisionError("no power left")

    with pytest.raises(ZeroDivisionError):
        fail()
    sub = heard[0]
    assert sub.poll(5000)
    documents = [msgpack.unpackb(sub.recv_multipart()[1]) for _ in range(2)]
    assert documents[-1]["reason"] == "ZeroDivisionError: no power left"


def test_nothing_is_encoded_for_nobody_and_the_snapshot_still_has_it(bus, outsider, monkeypatch):
    from twin import bus as module

    calls = []
    encode = module.wire.encode
    monkeypatch.setattr(module.wire, "encode", lambda value: calls.append(value) or encode(value))
    for k in range(50):
        bus.publish("bs0.kpi.", reading(k), k)
    assert calls == []
    dealer = outsider(zmq.DEALER, bus.control)
    _, body = ask(bus, dealer, "snapshot", {"topics": ["bs0."]})
    snapshot = msgpack.unpackb(body)
    assert snapshot["seqs"] == {"run.": 0, "bs0.kpi.": 50}
    kinds = [(topic, msgpack.unpackb(document)) for topic, document in snapshot["documents"]]
    assert [(t, d["document"], d["seq"]) for t, d in kinds] == [
        ("run.", "start", 0),
        ("bs0.kpi.", "descriptor", 0),
        ("bs0.kpi.", "event", 50),
    ]
    assert kinds[-1][1]["data"]["number"] == 49
    assert len(calls) == 1


def test_a_snapshot_waits_for_the_subscription_it_names(bus, outsider):
    bus.publish("bs0.kpi.", reading(), 0)
    dealer = outsider(zmq.DEALER, bus.control)
    kind, body = ask(bus, dealer, "snapshot", {"topics": [""], "join": "abc"})
    assert kind == "answer"
    assert msgpack.unpackb(body) | {"seqs": None} == {"run": "r1", "joined": False, "seqs": None, "documents": []}
    outsider(zmq.SUB, bus.state, "bs0.", "join.abc.")
    serve_until(bus, lambda: bus.wanted("join.abc."))
    assert bus.wanted("bs0.")  # sent before it on the same connection, so in force before it
    _, body = ask(bus, dealer, "snapshot", {"topics": [""], "join": "abc"}, seq=2)
    assert msgpack.unpackb(body)["joined"] is True


def test_listeners_are_counted_and_their_leaving_too(bus, outsider):
    first = outsider(zmq.SUB, bus.state, "bs0.kpi.")
    second = outsider(zmq.SUB, bus.state, "bs0.")
    serve_until(bus, lambda: bus.listeners("bs0.kpi.") == 2)
    assert bus.listeners("bs0.truth.") == 1
    assert bus.listeners("bs1.kpi.") == 0
    second.unsubscribe("bs0.")
    serve_until(bus, lambda: bus.listeners("bs0.kpi.") == 1)
    first.close()  # without a word
    serve_until(bus, lambda: not bus.wanted("bs0.kpi."))


def test_a_stalled_listener_costs_the_others_nothing_and_never_blocks(outsider):
    with ZmqBus("r", "tcp://127.0.0.1:0", queue=100, heartbeat_s=1e9) as bus:
        stalled = outsider(zmq.SUB, bus.state, "bs0.", RCVHWM=1, RCVBUF=8192)
        healthy = outsider(zmq.SUB, bus.state, "bs0.", RCVHWM=0)
        serve_until(bus, lambda: bus.listeners("bs0.kpi.") == 2)
        heard = []
        for k in range(2_000):
            bus.publish("bs0.kpi.", reading(k, users=1000), k)  # 56 kB each: 110 MB in all, more than buffers hold
            while len(heard) < k - 20:  # the healthy one keeps up to 20 behind
                assert healthy.poll(5000)
                heard.append(msgpack.unpackb(healthy.recv_multipart()[1])["seq"])
        while healthy.poll(500) and len(heard) < 2_001:
            heard.append(msgpack.unpackb(healthy.recv_multipart()[1])["seq"])
        assert heard == list(range(2_001))
        seqs = []
        while stalled.poll(100):
            seqs.append(msgpack.unpackb(stalled.recv_multipart()[1])["seq"])
        assert 0 < len(seqs) < 1_000  # it lost messages
        assert np.all(np.diff(seqs) > 0)  # and its seq says which
        assert bus.counts["sent"] >= 2_001


def test_losses_that_listeners_report_add_up(bus, outsider):
    bus.publish("bs0.kpi.", reading(), 0)
    dealers = [outsider(zmq.DEALER, bus.control) for _ in range(2)]
    for dealer in dealers:
        assert ask(bus, dealer, "losses", {"lost": {"bs0.kpi.": 3, "no.such.": 5}}) == ("answer", b"")
    assert bus.lost == {"bs0.kpi.": 6}  # a stream that does not exist cannot fill the memory


@pytest.mark.parametrize(
    ("kind", "payload", "answer", "text"),
    [
        ("snapshot", {"topics": "bs0."}, "fault", "Expected `array`, got `str` - at `$.topics`"),
        ("snapshot", [1, 2], "fault", "Expected `object`"),
        ("losses", {"lost": {"a.": "many"}}, "fault", "Expected `int`, got `str`"),
        ("selfdestruct", {}, "misuse", "question 'selfdestruct': known here are losses, snapshot, status"),
    ],
)
def test_nonsense_on_control_is_answered_and_survived(outsider, kind, payload, answer, text):
    with ZmqBus("r", "tcp://127.0.0.1:0", handlers={"status": lambda payload: payload[::-1]}) as bus:
        dealer = outsider(zmq.DEALER, bus.control)
        dealer.send_multipart([b"garbage", b"\xff" * 100])
        serve_until(bus, lambda: dealer.poll(0))
        dealer.recv_multipart()
        said, body = ask(bus, dealer, kind, payload)
        assert said == answer
        assert text in body.decode()
        assert ask(bus, dealer, "status", 5, seq=2) == ("answer", msgpack.packb(5)[::-1])


def test_garbage_sent_into_the_state_socket_is_counted(bus, outsider):
    xsub = outsider(zmq.XSUB, bus.state)
    xsub.send(b"\x07hello")
    xsub.send(b"\x00never.subscribed.")
    xsub.send(b"\x01bs0.")
    serve_until(bus, lambda: bus.wanted("bs0.kpi."))
    assert bus.counts["garbage"] >= 1
    bus.publish("bs0.kpi.", reading(), 0)


def test_a_heartbeat_a_second_of_wall_time(outsider):
    now = [0]
    with ZmqBus("r", "tcp://127.0.0.1:0", clock=lambda: now[0]) as bus:
        sub = outsider(zmq.SUB, bus.state, "run.")
        serve_until(bus, lambda: bus.wanted("run."))
        bus.service()
        assert not sub.poll(20)
        bus.publish("bs0.kpi.", reading(), 77)
        now[0] = 1_000_000_000
        bus.service()
        bus.service()
        ((_, beat),) = received(bus, sub, 1)
        assert beat["document"] == "heartbeat"
        assert beat["streams"] == {"run.": 1, "bs0.kpi.": 1}
        assert (beat["listeners"], beat["lost"], beat["t_ns"]) == (1, 0, 77)
        assert not sub.poll(20)


def test_flat_messages_are_what_generic_monitors_take(bus, outsider):
    sub = outsider(zmq.SUB, bus.state, "flat.")
    bus.flat("bs0.kpi.", {"rate": 1.0}, 0)  # nobody yet
    serve_until(bus, lambda: bus.wanted("flat.bs0.kpi."))
    bus.flat("bs0.kpi.", flatten(reading(3)), 1_500_000_000)
    ((topic, values),) = received(bus, sub, 1)
    assert topic == "flat.bs0.kpi."
    assert values == {"t": 1.5, "number": 3.0, "level_db": -3.5, "user[0]": 0.0, "user[1]": 1.0}
    assert all(type(value) is float for value in values.values())


def test_flatten_leaves_out_what_cannot_be_a_curve():
    @record
    class Mixed:
        long: Float[Array, " k"]
        short: Float[Array, " j"]
        deep: Float[Array, "a b"]
        on: bool
        text: str
        nothing: None = None

    got = flatten(Mixed(long=np.zeros(17), short=np.array([1.5]), deep=np.zeros((1, 1)), on=True, text="t"))
    assert got == {"short[0]": 1.5, "on": 1.0}


@pytest.mark.parametrize("topic", ["bs0.kpi", ".kpi.", "", "run.x.", "join.a.", "flat.b."])
def test_bad_topics_are_refused(bus, topic):
    with pytest.raises(Misuse, match=r"topic = .*'bs0\.kpi\.'"):
        bus.publish(topic, reading(), 0)


def test_a_taken_port_is_named_with_what_to_do(bus):
    with pytest.raises(
        Misuse, match=rf"state endpoint {bus.state} is taken: is another twin running\? .*choose another"
    ):
        ZmqBus("r", bus.state)
    with pytest.raises(Misuse, match=r"control endpoint .* is taken.*tcp://127\.0\.0\.1:0 picks a free port"):
        ZmqBus("r", "tcp://127.0.0.1:0", control=bus.control)


def test_a_taken_path_is_not_taken_away(tmp_path, outsider):
    path = f"ipc://{tmp_path}/state"
    with ZmqBus("r", path) as bus:
        assert bus.control == f"{path}.control"
        with pytest.raises(Misuse, match="is taken: is another twin running"):
            ZmqBus("other", path)
        sub = outsider(zmq.SUB, path, "bs0.")
        serve_until(bus, lambda: bus.wanted("bs0.kpi."))  # still the first one's
        assert sub is not None
    with ZmqBus("r", path):  # what a dead run left behind does not block the next
        pass


def test_port_0_picks_two_ports_side_by_side(bus):
    port = int(bus.state.rpartition(":")[2])
    assert port > 0
    assert bus.control == f"tcp://127.0.0.1:{port + 1}" == control_beside(bus.state)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.0.2.1:5570", "tcp://[::]:0"])
def test_what_others_can_reach_needs_keys_or_a_word(endpoint):
    with pytest.raises(Misuse, match=r"other computers can reach it; give CURVE keys .* insecure"):
        ZmqBus("r", endpoint)
    open_keys = Keys(*zmq.curve_keypair())  # no allow-list: any key would do
    with pytest.raises(Misuse, match="allow-list"):
        ZmqBus("r", endpoint, keys=open_keys)


def test_insecure_is_possible_when_said():
    with ZmqBus("r", "tcp://*:0", insecure=True) as bus:
        assert bus.state.startswith("tcp://0.0.0.0:")


@pytest.mark.parametrize("endpoint", ["5570", "tcp://127.0.0.1:http", "udp://127.0.0.1:5570"])
def test_a_malformed_endpoint_says_how_to_write_one(endpoint):
    with pytest.raises(Misuse, match=r"tcp://127\.0\.0\.1:5570 or ipc:///tmp/name|other computers"):
        ZmqBus("r", endpoint)


def test_a_stranger_hears_nothing_behind_curve(outsider):
    server, friend, stranger = (zmq.curve_keypair() for _ in range(3))
    keys = Keys(*server, allowed=frozenset({friend[0]}))
    with ZmqBus("r", "tcp://127.0.0.1:0", keys=keys, heartbeat_s=0) as bus:

        def listen(pair):
            options = {"CURVE_PUBLICKEY": pair[0], "CURVE_SECRETKEY": pair[1], "CURVE_SERVERKEY": server[0]}
            return outsider(zmq.SUB, bus.state, "run.", **options)

        bad, plain, good = listen(stranger), outsider(zmq.SUB, bus.state, "run."), listen(friend)
        serve_until(bus, lambda: good.poll(0))
        for _ in range(50):
            bus.service()
        assert bus.listeners("run.") == 1
        assert not bad.poll(50)
        assert not plain.poll(0)


def test_both_buses_play_the_role():
    null: Bus = NullBus()
    null.publish("bs0.kpi.", reading(), 0)
    null.flat("bs0.kpi.", {}, 0)
    null.service()
    assert null.wanted("bs0.kpi.") is False
    null.close()
    for name in ("publish", "flat", "wanted", "service", "close"):
        assert callable(getattr(ZmqBus, name))


def test_memory_has_a_limit():
    with pytest.raises(Misuse, match="queue = 0"):
        ZmqBus("r", "tcp://127.0.0.1:0", queue=0)


def test_the_bus_starts_no_thread_but_one_that_looks_in_while_its_owner_is_away():
    code = (
        "import threading; from twin.bus import ZmqBus; b = ZmqBus('r', 'tcp://127.0.0.1:0'); "
        "b.service(); print(*sorted(t.name for t in threading.enumerate())); b.close(); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.split() == ["MainThread", "switchboard", "1"]
