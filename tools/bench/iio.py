"""Time the IIO face over loopback with unmodified clients: ``python -m tools.bench.iio [quick] [--json] [--scenario FILE]``.

The twin serves from a process of its own. Clients are libiio 0.24 through pylibiio, and pyadi-iio. The last part reads buffers at 1 MS/s beside clients
that misbehave (nonsense, half commands, hanging up in the middle of a buffer) and without them, in turn: what they cost the one who behaves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tools.examples.phaser_sweep import Laboratory

__all__ = ["hostile", "main", "measure", "served"]

SAMPLES = 4096
START = (
    "import argparse\nfrom twin import serve_iio\nparser = argparse.ArgumentParser()\nserve_iio.arguments(parser)\n"
    "raise SystemExit(serve_iio.run(parser.parse_args()))"
)


@contextmanager
def served(scenario: str, *more: str) -> Iterator[tuple[int, int]]:
    """``twin serve iio`` in a process of its own: the port it took, and its process number."""
    command = [sys.executable, "-c", START, scenario, "--endpoint", "tcp://127.0.0.1:0", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{scenario}: the server did not come up; what it said is above")
            yield int(line.split("127.0.0.1:")[1].split(":")[0]), process.pid
        finally:
            process.terminate()


def marks(took_s: list[float], unit: float) -> dict[str, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(took_s, [50, 99]) / unit
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def timed(call: Any, count: int) -> list[float]:
    """Seconds of each of ``count`` calls."""
    took = []
    for k in range(count):
        begun = time.perf_counter()
        call(k)
        took.append(time.perf_counter() - begun)
    return took


def cpu_s(pid: int) -> float:
    """CPU time a process has used."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, pid: int, count: int) -> dict[str, Any]:
    """All figures, of a server at ``port``."""
    laboratory = Laboratory(f"ip:127.0.0.1:{port}", SAMPLES)
    chip = next(iter(laboratory.array.devices.values()))

    def four(k: int) -> None:
        for channel in chip.channels:
            channel.rx_phase, channel.rx_gain = (k * 2.8125) % 360, 127

    iio_chip = laboratory.context.find_device("csb1_chip1")
    phase = iio_chip.find_channel("voltage0", False).attrs["phase"]

    def write(k: int) -> None:
        phase.value = str((k * 2.8125) % 360)

    rate = laboratory.receiver.channels[0].attrs["sampling_frequency"]
    found: dict[str, Any] = {
        "attribute_write_us": marks(timed(write, 10 * count), 1e-6),
        "four_channels_phase_gain_ms": marks(timed(four, count), 1e-3),
        "steer_rx_ms": marks(timed(lambda k: laboratory.array.steer_rx(k % 40 - 20, 0), count), 1e-3),
    }
    rate.value = "64000000"  # as fast as it can
    begun, spent_s = time.perf_counter(), cpu_s(pid)
    timed(lambda _: laboratory.buffer.refill(), count)
    found["buffers_msps"] = round(count * SAMPLES / (time.perf_counter() - begun) * 1e-6, 3)
    found["buffers_per_cpu_msps"] = round(
        count * SAMPLES / (cpu_s(pid) - spent_s) * 1e-6, 3
    )  # what a core of its own would give
    rate.value = "1000000"
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(4):
        timed(lambda _: laboratory.buffer.refill(), 3)
        alone += timed(lambda _: laboratory.buffer.refill(), count // 4)
        with hostile(port):
            beside += timed(lambda _: laboratory.buffer.refill(), count // 4)
    laboratory.close()
    found["paced_msps"] = round(SAMPLES * len(alone) / sum(alone) * 1e-6, 4)
    found["buffer_ms"] = marks(alone, 1e-3)
    found["buffer_beside_hostile_ms"] = marks(beside, 1e-3)
    return found


@contextmanager
def hostile(port: int, clients: int = 4) -> Iterator[None]:
    """Clients that misbehave for as long as the block lasts, 50 times a second each."""
    over = threading.Event()

    def misbehave(seed: int) -> None:
        chance = random.Random(seed)
        while not over.wait(0.02):
            with socket.create_connection(("127.0.0.1", port)) as one:
                kind = chance.randrange(4)
                if kind == 0:
                    one.sendall(chance.randbytes(200) + b"\n")
                elif kind == 1:
                    one.sendall(b"WRITE iio:device0 INPUT voltage0 phase 100\nabc")
                elif kind == 2:
                    one.sendall(b"READ iio:dev")
                else:
                    one.sendall(b"OPEN twin-receiver 65536 0000000f\nREADBUF twin-receiver 524288\n")
                    one.recv(10)

    threads = [threading.Thread(target=misbehave, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def main() -> int:
    """Print the figures; 1 where one that is promised is missed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.iio", description=__doc__)
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: a tenth of the trials"
    )
    parser.add_argument("--scenario", default="scenarios/phaser.yaml")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with served(given.scenario) as (port, pid):
        found = measure(port, pid, 40 if given.pace == "quick" else 400)
    kept = {
        "attribute write p50 <= 200 us": found["attribute_write_us"]["p50"] <= 200,
        "four channels' phase and gain p50 <= 5 ms": found["four_channels_phase_gain_ms"]["p50"] <= 5,
        "buffers of 4096 samples >= 1 MS/s": found["buffers_msps"] >= 1,
    }
    if given.json:
        json.dump({"scenario": given.scenario, **found, "kept": kept}, sys.stdout, indent=1)
        print()
    else:
        for name, value in found.items():
            said = f"p50 {value['p50']:g}, p99 {value['p99']:g}" if isinstance(value, dict) else f"{value:g}"
            print(f"{name:28} {said}")
        for name, yes in kept.items():
            print(f"{'kept' if yes else 'MISSED':6} {name}")
    return int(not all(kept.values()))


if __name__ == "__main__":
    raise SystemExit(main())
