"""Coming and going: connections leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import psutil
import zmq

from hal import wire
from twin.bus import ZmqBus
from twin.outside import Claim, Grant, Outside
from twin.scenario import frontend_spec, load, numerology
from twin.seats import Seats

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


def opened(tmp_path: Path) -> tuple[ZmqBus, Seats]:
    scenario = load(SMOKE)
    spec, frame = frontend_spec(scenario, "bs0"), numerology(scenario)
    bus = ZmqBus("r", f"ipc://{tmp_path}/state")

    def grant(claim: Claim) -> Grant:
        return Grant(
            name=claim.name,
            knobs=claim.knobs,
            run="r",
            k=0,
            clock="lockstep",
            deadline_ns=1,
            on_miss="hold",
            spec=spec,
            numerology=frame,
            users={},
        )

    return bus, Seats("bs0", bus, Outside(), "lockstep", grant)


def test_many_come_and_go_and_memory_and_descriptors_stay(tmp_path: Path) -> None:
    bus, seats = opened(tmp_path)
    claim = wire.encode(Claim(name="guest", knobs=("bs0.plan",)))
    me, sizes, files = psutil.Process(), [], []
    context = zmq.Context()
    with bus:
        for k in range(120):
            # each claims, half say bye, half vanish
            dealer = context.socket(zmq.DEALER)
            dealer.linger = 0
            dealer.connect(bus.control)
            dealer.send_multipart([header("claim", 1), claim])
            while not dealer.poll(0):
                bus.wait(100)
            head, answer = dealer.recv_multipart()
            assert b"answer" in head, answer
            if k % 2:
                dealer.send_multipart([header("bye", 2), b"\x80"])
                while not dealer.poll(0):
                    bus.wait(100)
            dealer.close()
            while seats.seats:  # who vanished is found out when it is spoken to
                bus.wait(1)
                for seat in list(seats.seats):
                    seats._told(seat, "beat", b"")
            if k in (40, 119):
                sizes.append(me.memory_info().rss)
                files.append(me.num_fds())
        assert len(bus._server._peers) <= 256
    context.term()
    assert sizes[1] - sizes[0] < 4e6
    assert files[1] <= files[0] + 8
    assert seats.counts["dropped"] == 60


def header(kind: str, seq: int) -> bytes:
    return msgspec.msgpack.encode(["isac-twin", [1, 0], kind, seq])
