"""Time a ``set_beam`` round trip over loopback beside the bare transport: ``python -m tools.bench.set_beam [quick] [--json]``.

Floor: the same bytes there and back between two processes, a socket on our side and libzmq's ROUTER on the other, as a session has them, and
nobody looks at them. Ours: ``hal.devices.remote`` on a simulated machine of 1024 elements behind ``hal.serve``. In turn, a block of each, so that
what the computer does besides falls on both alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hal.array import Upa
from hal.devices.remote import Remote
from hal.devices.sim import Sim
from hal.frontend import Beam, BeamReport, FrontendSpec, HalfSpec
from hal.network import Network
from hal.serve import VERBS, serve
from hal.session import Server
from hal.wire import decode, encode
from hal.zmtp import Line
from tools.bench.row import Row, Side, Timed, Work

CARRIER_HZ = 100e9
COLUMNS = ROWS_OF_ARRAY = 32


def nameplate() -> FrontendSpec:
    """A machine of 1024 elements and 64 delay lines, one chain."""
    half = HalfSpec(
        array=Upa(COLUMNS, ROWS_OF_ARRAY).build(CARRIER_HZ, np.zeros(3), np.eye(3)),
        network=Network(delay_lines=(8, 8)).build(COLUMNS, ROWS_OF_ARRAY),
        memory_slots=64,
    )
    return FrontendSpec(
        name="bench",
        carrier_hz=CARRIER_HZ,
        transmit=half,
        receive=half,
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=70.0,
        command_latency_ns=20_000,
        bus_ns_per_element=10,
        settling_ns=500,
        select_ns=50,
        simulated=True,
    )


def row() -> Beam:
    """One row of settings at random."""
    rng = np.random.default_rng(0)
    return Beam(
        half="transmit",
        slot=np.zeros(1, np.int64),
        delay_s=rng.uniform(0, 90e-12, (1, 1, 64)),
        phase_rad=rng.uniform(0, 6, (1, 1, COLUMNS * ROWS_OF_ARRAY)),
        amplitude=np.ones((1, 1, COLUMNS * ROWS_OF_ARRAY)),
    )


def host(what: str) -> None:
    """The other side, in a process of its own: the machine, or an echo."""
    if what == "machine":
        machine = Sim().open(nameplate(), lambda label, t_ns, shape: np.zeros((len(t_ns), *shape), complex))
        machine.set_beam(row(), 0)  # compiles
        serve(machine, "tcp://127.0.0.1:0", announce=lambda endpoint: print(endpoint, flush=True))
    else:
        server = Server("tcp://127.0.0.1:0")
        print(server.endpoint, flush=True)
        door = server._door  # noqa: SLF001 - an echo needs no session
        while True:
            message = door.receive(-1)
            assert message is not None
            door.send(message[0], message[1:])


def started(what: str) -> tuple[subprocess.Popen[str], str]:
    """A side, and where it listens."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tools.bench.set_beam", "--host", what], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    return program, program.stdout.readline().strip()


def timed(work: Callable[[int], Any], count: int) -> list[float]:
    """Seconds of each of ``count`` calls."""
    took = []
    for k in range(count):
        begun = time.perf_counter()
        work(k)
        took.append(time.perf_counter() - begun)
    return took


def measure(rounds: int, count: int = 200) -> dict[str, float]:
    """Microseconds: the floor, ours, and where the difference goes."""
    beam, sides = row(), [started("echo"), started("machine")]
    line = Line(sides[0][1], 1 << 28)
    front = Remote(sides[1][1], timeout_s=10.0, warn_s=5.0).open(None)
    payload = encode((beam, 0), VERBS["set_beam"][0])
    now = [0]

    def bare(_: int) -> None:
        line.send([b"header", payload])
        while line.receive(1000.0) is None:
            pass

    def ours(_: int) -> None:
        now[0] += 1_000_000
        front.set_beam(beam, now[0])

    here = Sim().open(nameplate(), lambda label, t_ns, shape: np.zeros((len(t_ns), *shape), complex))
    parts: dict[str, Callable[[int], Any]] = {
        "transport": bare,
        "set_beam": ours,
        "machine": lambda k: here.set_beam(beam, 10**12 + 1_000_000 * k),
        "encode": lambda _: encode((beam, 0), VERBS["set_beam"][0]),
        "decode": lambda _: decode(payload, VERBS["set_beam"][0]),
    }
    took: dict[str, list[float]] = {name: [] for name in parts}
    try:
        line.settle(5.0)
        for work in parts.values():
            timed(work, 50)
        for _ in range(rounds):
            for name, work in parts.items():
                took[name] += timed(work, count)
    finally:
        front.close()
        line.close()
        for program, _ in sides:
            program.kill()
            program.wait()
    found = {f"{name}_p50_us": float(np.median(values) * 1e6) for name, values in took.items()}
    found["set_beam_p99_us"] = float(np.percentile(took["set_beam"], 99) * 1e6)
    found["set_beam_best_us"] = float(np.min(took["set_beam"]) * 1e6)
    found["ratio"] = found["set_beam_p50_us"] / found["transport_p50_us"]
    found["payload_bytes"] = len(payload)
    return found


def ready(count: int = 100) -> Work:
    """A turn is so many round trips, and its figure their median on the wall clock."""
    beam, sides = row(), [started("echo"), started("machine")]
    line = Line(sides[0][1], 1 << 28)
    front = Remote(sides[1][1], timeout_s=10.0, warn_s=5.0).open(None)
    payload, now = encode((beam, 0), VERBS["set_beam"][0]), [0]
    line.settle(5.0)

    def bare() -> Timed:
        def once(_: int) -> None:
            line.send([b"header", payload])
            while line.receive(1000.0) is None:
                pass

        return Timed(float(np.median(timed(once, count))), count)

    def ours() -> Timed:
        heard: list[BeamReport] = []

        def once(_: int) -> None:
            now[0] += 1_000_000
            heard.append(front.set_beam(beam, now[0]))

        took = timed(once, count)
        return Timed(float(np.median(took)), sum(isinstance(one, BeamReport) for one in heard))

    def close() -> None:
        front.close()
        line.close()
        for program, _ in sides:
            program.kill()
            program.wait()
            if program.stdout is not None:
                program.stdout.close()

    return Work(Side(bare), Side(ours), lambda mine, other: abs(mine - other), 0, close=close)


ROWS = (
    Row(
        "seam.set_beam",
        f"a set_beam of {COLUMNS * ROWS_OF_ARRAY} elements to a machine in another process, and its report (wall time)",
        "the bare transport: the same bytes there and back, looked at by nobody",
        ready,
        same="answers",
        note="the ratio is the share of the round trip that is transport; 1 would be no cost at all",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.set_beam", description=__doc__)
    parser.add_argument("pace", nargs="?", choices=("quick", "full"), default="full")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--host", choices=("machine", "echo"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.host is not None:
        host(given.host)
        return 0
    found = measure(3 if given.pace == "quick" else 20)
    if given.json:
        json.dump({"machine": platform.machine(), "python": platform.python_version(), **found}, sys.stdout, indent=1)
        print()
        return 0
    print(
        f"set_beam of {COLUMNS * ROWS_OF_ARRAY} elements over loopback, {found['payload_bytes']:.0f} bytes there and about as many back:\n"
        f"  p50 {found['set_beam_p50_us']:.0f} us (best {found['set_beam_best_us']:.0f}, p99 {found['set_beam_p99_us']:.0f}); "
        f"bare transport p50 {found['transport_p50_us']:.0f} us, ratio {found['ratio']:.2f}\n"
        f"  of it: the machine {found['machine_p50_us']:.0f} us, and twice encode {found['encode_p50_us']:.0f} us and decode {found['decode_p50_us']:.0f} us"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
