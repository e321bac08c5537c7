"""A burst that makes a default PUB lose a third: here the loop does not slow down, and every loss is counted at both ends."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import zmq

from hal.record import record
from twin.bus import ZmqBus
from twin.client import Subscriber

BURST = 5000
HWM = 1000  # ZeroMQ's default, on both sides


@record
class Tick:
    """One message of the burst."""

    k: int


@dataclass
class Heard:
    seen: int
    lost: int


def test_a_default_pub_loses_without_a_word() -> None:
    """The reference: what this is measured against."""
    with zmq.Context() as context, context.socket(zmq.PUB) as pub, context.socket(zmq.SUB) as sub:
        pub.linger = sub.linger = 0
        port = pub.bind_to_random_port("tcp://127.0.0.1")
        sub.connect(f"tcp://127.0.0.1:{port}")
        sub.subscribe(b"")
        until = time.monotonic() + 10
        while not sub.poll(1):
            pub.send(b"here?")
            assert time.monotonic() < until
        for k in range(100_000):
            pub.send(b"%d" % k * 200)
        got = 0
        while sub.poll(500):
            sub.recv()
            got += 1
    assert got < 100_000 * 2 / 3


def test_none_goes_unseen_in_a_burst() -> None:
    with ZmqBus("burst", "tcp://127.0.0.1:0", queue=HWM) as bus, ThreadPoolExecutor(1) as pool:
        sub = Subscriber(bus.state, ("bs0.",), queue=HWM)
        joining = pool.submit(sub.receive, 0.0)
        until = time.monotonic() + 10
        while not joining.done():
            bus.service()
            assert time.monotonic() < until
        bus.publish("bs0.tick.", Tick(k=-1), 0)
        first = sub.receive(5.0)
        while first is not None and first.kind != "event":
            first = sub.receive(5.0)

        big = b"\x81\xa1k\xc5\x40\x00" + bytes(16384)  # a map with 16 kB in it: fills the kernel's buffers at once
        for k in range(BURST):  # nobody reads meanwhile
            bus.publish("bs0.tick.", Tick(k=k), k, big)

        def drain() -> Heard:
            seen = 0
            while True:
                message = sub.receive(0.5)
                if message is not None and message.kind == "heartbeat" and bus.lost:
                    return Heard(seen, sum(sub.lost.values()))
                if message is not None and message.kind == "event":
                    seen += 1

        draining = pool.submit(drain)
        until = time.monotonic() + 20
        beat = time.monotonic()
        while not draining.done():
            if time.monotonic() - beat > 0.05:
                beat = time.monotonic()
                bus._beat()  # the heartbeat shows a loss at a stream's end
            bus.service()
            time.sleep(0.001)
            assert time.monotonic() < until
        heard = draining.result()
        assert heard.lost > BURST / 3
        assert heard.seen + heard.lost == BURST
        assert bus.lost["bs0.tick."] == heard.lost  # and the twin knows
        sub.close()
