"""Rows: what it costs to say what is going on, beside dictionaries of lists in MessagePack."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import msgpack
import numpy as np
import zmq

from hal import wire
from tools.bench.lockstep import belief, kpi, listener, made_plan
from tools.bench.row import Row, Side, Work, apart
from twin.bus import ZmqBus
from twin.records import Truth


def street(entities: int) -> Truth:
    rng = np.random.default_rng(0)
    return Truth(
        t_ns=5_000_000,
        entity=np.arange(entities),
        is_user=np.arange(entities) < 2 * entities // 3,
        position_m=rng.uniform(-100, 100, (entities, 3)),
        velocity_mps=rng.uniform(-15, 15, (entities, 3)),
        rcs_m2=np.ones(entities),
    )


def plain(value: Any) -> Any:
    """A record as dictionaries and lists, the way one writes it at first."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return np.stack([value.real, value.imag], axis=-1).tolist() if value.dtype.kind == "c" else value.tolist()
    return value


def encoded(entities: int) -> Work:
    """The truth: an entity a dictionary, against columns."""
    truth = street(entities)
    columns = [getattr(truth, field.name) for field in fields(truth) if field.name != "t_ns"]

    def naive() -> bytes:
        movers = [
            {
                "id": int(truth.entity[i]),
                "user": bool(truth.is_user[i]),
                "p": [float(x) for x in truth.position_m[i]],
                "v": [float(x) for x in truth.velocity_mps[i]],
                "rcs": float(truth.rcs_m2[i]),
            }
            for i in range(len(truth.entity))
        ]
        return bytes(msgpack.packb({"t": truth.t_ns, "movers": movers}))

    def difference(ours: bytes, other: bytes) -> float:
        theirs = np.array([mover["p"] + mover["v"] for mover in msgpack.unpackb(other)["movers"]])
        mine = wire.decode(ours, Truth)
        return apart(np.hstack([mine.position_m, mine.velocity_mps]), theirs)

    return Work(
        naive=Side(naive),
        ours=Side(lambda: wire.encode(truth)),
        apart=difference,
        within=0.0,
        floor=Side(lambda: b"".join([column.tobytes() for column in columns])),
    )


def published() -> Work:
    """Truth, plan, belief and key figures of 100 users and 50 targets to one listener, encoding included; CPU time of both threads of the sender."""
    said = {"truth.": street(150), "bs0.plan.": made_plan(), "bs0.belief.": belief(), "bs0.kpi.": kpi()}
    process = multiprocessing.get_context("spawn").Process
    bus = ZmqBus("bench", "tcp://127.0.0.1:0")
    context = zmq.Context()
    other = context.socket(zmq.XPUB)
    port = other.bind_to_random_port("tcp://127.0.0.1")
    readers = [process(target=listener, args=(at, [b""]), daemon=True) for at in (bus.state, f"tcp://127.0.0.1:{port}")]
    for reader in readers:
        reader.start()
    until = time.monotonic() + 60
    while not bus.wanted("truth."):
        bus.service()
        if time.monotonic() > until:
            raise TimeoutError("no listener joined within a minute")
        time.sleep(0.001)
    other.recv()

    def naive() -> int:
        size = 0
        for topic, record in said.items():
            data = msgpack.packb(plain(record))
            other.send_multipart([topic.encode(), data])
            size += 1
        return size

    def ours() -> int:
        before = bus.counts["published"]
        for topic, record in said.items():
            bus.publish(topic, record, 5_000_000)
        bus.service()
        return bus.counts["published"] - before

    def close() -> None:
        for reader in readers:
            reader.terminate()
            reader.join()
        bus.close()
        context.destroy(linger=0)

    return Work(naive=Side(naive), ours=Side(ours), apart=lambda a, b: abs(a - b), within=0, close=close)


ROWS = (
    *(
        Row(
            f"state.encode_{count}",
            f"the truth about {count} entities as bytes",
            "MessagePack, a dictionary an entity",
            partial(encoded, count),
            target=target,
            floor="a copy of the columns",
            same="positions and velocities read back",
        )
        for count, target in ((8, 7.0), (150, 25.0), (11_000, 200.0))
    ),
    Row(
        "state.publish",
        "a subframe's truth, plan, belief and key figures, 100 users and 50 targets, to one listener",
        "MessagePack of dictionaries and lists on a plain PUB socket",
        published,
        target=3,
        same="documents sent",
        note="CPU time of the sending process; ours counts, keeps the last of each for who joins later, and beats",
    ),
)
