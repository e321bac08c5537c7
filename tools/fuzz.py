"""Throw mutated bytes and frames at a twin's control socket and mutated answers at its loop: ``python -m tools.fuzz [--frames 1000000]``.

Bytes start as whole connections (greeting, introduction, questions) and are mutated anywhere; beside them one that behaves must be answered every
time. Frames start as every question the protocol knows and are then cut, doubled, flipped, spliced, and filled with numbers that hurt. Whatever
comes, the twin must answer or ignore it, hold on to nothing, and change nothing: no knob, no claim, no pause. Answers start as the built-in
chain's own and have values replaced by ones no machine can take; whatever is admitted, the loop must play it.
"""

from __future__ import annotations

import argparse
import random
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.session import Client, Patience, Server
from twin.build import Twin, run
from twin.outside import Act, Claim, Moment
from twin.scenario import load

__all__ = ["answers", "callers", "frames"]

SMOKE = Path(__file__).parents[1] / "scenarios" / "smoke.yaml"
BAD_NUMBERS = (0, -1, 1, 255, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1)
BAD_REALS = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, 1e30)
pack = msgspec.msgpack.encode


def corpus() -> list[tuple[bytes, bytes]]:
    """A header and payload of every question; those that could change something ask for what does not exist."""
    told: dict[str, Any] = {
        "hello": "fuzz",
        "ping": None,
        "snapshot": {"topics": [""], "join": "x"},
        "losses": {"lost": {"bs0.kpi.": 1}},
        "claim": {"name": "fuzz", "knobs": ["bs0.nothing"], "observe": ["belief"], "order": 0, "role": "controller"},
        "act": {"moment": 0, "plan": {"k": 1, "slot": ["i8", [2], bytes(16)]}},
        "bye": {},
        "set": {"seed": 1, "tracker.miss_limit": 4},
        "inject": {"kind": "nothing", "elements": [1, 2], "half": "transmit"},
        "pace": {"factor": -1.0},
        "status": {},
    }
    return [
        (pack(["isac-twin", [1, 0], kind, seq + 1, 0, 0, 0]), pack(payload))
        for seq, (kind, payload) in enumerate(told.items())
    ]


def mutated(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One to four changes: flip, cut, double, insert, splice with another, overwrite by a MessagePack head that lies."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        what = chance.randrange(7)
        if what == 0 and made:
            made[at % len(made)] ^= 1 << chance.randrange(8)
        elif what == 1:
            del made[at:]
        elif what == 2:
            made[at:at] = made[at : at + chance.randrange(64)]
        elif what == 3:
            made[at:at] = chance.randbytes(chance.randrange(1, 16))
        elif what == 4:
            other = chance.choice(others)
            made[at:] = other[chance.randrange(len(other) + 1) :]
        elif what == 5:
            heads = (
                b"\xdd\xff\xff\xff\xff",
                b"\xdf\xff\xff\xff\xff",
                b"\xc6\xff\xff\xff\xff",
                b"\xdb\xff\xff\xff\xff",
                b"\xc1",
                b"\x91" * 3000,
            )
            made[at : at + 1] = chance.choice(heads)
        else:
            made[at:at] = pack(chance.choice(BAD_NUMBERS))
    return bytes(made)


def frames(count: int, seed: int = 1) -> dict[str, int]:
    """``count`` mutated frames against a lock-step twin between two subframes; AssertionError if anything changed."""
    chance = random.Random(seed)
    known = corpus()
    heads, payloads = [head for head, _ in known], [payload for _, payload in known]
    with tempfile.TemporaryDirectory() as folder:
        scenario = load(SMOKE, {"bus.state": f"ipc://{folder}/state", "clock.mode": "lockstep"})
        with Twin(scenario) as twin:
            helm, bus = twin.helm, twin.bus
            assert helm is not None
            server = bus._server  # noqa: SLF001

            def state() -> tuple[Any, ...]:
                desk = helm.desk
                held = [(seat.claim.name, seat.knobs) for seat in helm.seats.seats]
                return held, twin.chain.parts, twin.scenario, desk._paused, desk._steps, desk.stopped, len(desk._todo)  # noqa: SLF001

            before = state()
            for k in range(count):
                head, payload = chance.choice(known)
                which = chance.randrange(3)
                if which != 1:
                    head = mutated(head, chance, heads)
                if which != 0:
                    payload = mutated(payload, chance, payloads)
                parts = [head, payload]
                if chance.random() < 0.02:
                    parts = parts * chance.randrange(3) + [payload][: chance.randrange(2)]
                peer = chance.randbytes(5)  # a new one each time: or its seq would be one it has used
                server._serve([peer, *parts], bus._answer)  # noqa: SLF001
                if k % 1000 == 0:
                    assert state() == before, k
            assert state() == before
            assert len(server._peers) <= 256  # noqa: SLF001
            return dict(server.counts)


def callers(count: int, seed: int = 1, asks: int = 20) -> dict[str, int]:
    """``count`` mutated connections to a server, sixteen at once; AssertionError if a caller that behaves waits in vain or one of them is kept."""
    chance = random.Random(seed)
    known = corpus()
    body = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    start = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32) + bytes([4, len(body)]) + body
    ping = b"\x04\x0a\x04PING\x00\x0aabc"
    server = Server("tcp://127.0.0.1:0", limit_bytes=1 << 20)
    done, served = threading.Event(), Counter[str]()

    def answer(kind: str, payload: bytes) -> bytes:
        served["messages"] += 1
        return payload

    thread = threading.Thread(target=server.run, args=(answer, done.is_set))
    thread.start()
    address = ("127.0.0.1", int(server.endpoint.rpartition(":")[2]))
    friend = Client(server.endpoint, Patience(5.0, 10.0), name="friend")
    there: deque[socket.socket] = deque()
    try:
        for k in range(count):
            stream = start + b"".join(
                chance.choice((framed(*question), ping)) for question in chance.choices(known, k=3)
            )
            if chance.random() < 0.5:
                stream = start + mutated(stream[len(start) :], chance, [stream])
            elif chance.random() < 0.8:
                stream = mutated(stream, chance, [stream])
            caller = socket.create_connection(address)
            caller.setblocking(False)
            with suppress(OSError):
                cut = chance.randrange(len(stream) + 1)
                caller.send(stream[:cut])
                caller.send(stream[cut:])
            there.append(caller)
            if len(there) > 16:
                there.popleft().close()
            if k % asks == 0:
                word = chance.randbytes(chance.randrange(300))
                assert friend.ask("echo", word) == word, k
        while there:
            there.popleft().close()
        until = time.monotonic() + 30
        while len(server._door._peers) > 1 and time.monotonic() < until:  # type: ignore[union-attr]  # noqa: SLF001
            time.sleep(0.01)
        assert len(server._door._peers) == 1, "a connection that is over is kept"  # type: ignore[union-attr]  # noqa: SLF001
    finally:
        friend.close()
        done.set()
        thread.join()
        server.close()
    return {"connections": count, **served, **server.counts}


def framed(*frames: bytes) -> bytes:
    """A message as it travels."""
    return b"".join(
        (bytes([more | 2]) + len(frame).to_bytes(8, "big") if len(frame) > 255 else bytes([more, len(frame)])) + frame
        for frame, more in zip(frames, [1] * (len(frames) - 1) + [0], strict=True)
    )


def worse(value: Any, chance: random.Random, share: float) -> Any:
    """A record with some of its values replaced by ones that hurt: wrong numbers, shapes, orders, types."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: worse(getattr(value, f.name), chance, share) for f in fields(value)})
    if not chance.random() < share or value is None:
        return value
    if isinstance(value, np.ndarray):
        what = chance.randrange(6)
        if what == 0:
            return value[: chance.randrange(len(value) + 1)] if value.ndim else value
        if what == 1:
            return np.concatenate([value, value]) if len(value) else value
        if what == 2:
            return value[::-1].copy()
        made = value.copy()
        if made.size and made.dtype.kind in "fc":
            made.flat[chance.randrange(made.size)] = chance.choice(BAD_REALS)
        elif made.size and made.dtype.kind == "i":
            made.flat[chance.randrange(made.size)] = chance.choice((-2, -1, 0, 1, 3, 63, 64, 2**40, -(2**40)))
        elif made.size:
            made.flat[chance.randrange(made.size)] ^= True
        return made
    return chance.choice((-1, 0, 1, 2, 7, 10**6, 2**62)) if isinstance(value, int) else value


def answers(count: int, seed: int = 1) -> dict[str, int]:
    """A run whose only controller gives ``count`` mutated answers; the counts of the twin, which must reach the end."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        state = f"ipc://{folder}/state"
        done: list[Any] = []
        given = {
            "bus.state": state,
            "clock.mode": "lockstep",
            "controllers.wait_for": ["fuzz"],
            "sensing.fidelity": "bound",
            "duration_s": count / 2 * 0.005,
            "seed": seed,
        }
        thread = threading.Thread(target=lambda: done.append(run(SMOKE, given, write=False, keep=False)))
        thread.start()
        session = None
        while session is None:
            try:
                session = Client(f"{state}.control", Patience(10.0, 60.0), name="fuzz")
            except RemoteFault:
                time.sleep(0.05)
                assert thread.is_alive()
        claim = Claim(name="fuzz", knobs=("bs0.plan", "bs0.beams", "bs0.baseband"), observe=("proposal",))
        session.ask("claim", wire.encode(claim))
        while True:
            heard = session.hear(60.0)
            assert heard is not None, "the loop hangs"
            if heard[0] == "dropped":
                break
            if heard[0] != "observe":
                continue
            moment = wire.decode(heard[2], Moment)
            offer = moment.proposal
            assert offer is not None
            act = Act(moment=moment.moment, plan=offer.plan, beams=offer.beams, baseband=offer.baseband)
            share = chance.choice((0.0, 0.02, 0.1, 0.4))
            try:
                data = wire.encode(replace(worse(act, chance, share), moment=moment.moment))
            except (Misuse, ValueError):
                data = wire.encode(act)
            if chance.random() < 0.1:
                data = mutated(data, chance, [data])
            session.tell("act", data)
        session.close()
        thread.join(60)
        assert done, "the loop did not reach its end"
        return dict(done[0].summary["controllers"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--callers", type=int, default=20_000, help="mutated connections")
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.perf_counter()
    print(f"{given.frames} frames, nothing changed:", frames(given.frames, given.seed))
    print(f"{given.callers} connections, each neighbour was answered:", callers(given.callers, given.seed))
    print(f"{given.answers} answers, the loop went on:", answers(given.answers, given.seed))
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
