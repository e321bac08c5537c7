"""A device server in pyzmq and msgpack alone: four elements, 6-bit phases, no delay lines. Replace what touches `rows` by your machine.

python device_server.py [tcp://127.0.0.1:5600]    then: twin device check tcp://127.0.0.1:5600 --fresh
"""

import cmath
import math
import os
import random
import struct
import sys
import time

import msgpack
import zmq

# fmt: off
N, SLOTS, STEP, LATENCY_NS, BUS_NS, SETTLING_NS, CARRIER_HZ, NOISE_DB = 4, 8, 2 * math.pi / 64, 20_000, 100, 1_000, 28e9, 7.0
CODE = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "f4": "f", "f8": "d", "c16": "d"}
INCARNATION = 1 + int.from_bytes(os.urandom(6), "little")
rows, busy_ns, last_seq, heard = {}, {"transmit": 0, "receive": 0}, {}, {"samples": 1}


class Misuse(Exception):
    """The asker's own mistake."""


def array(dtype, shape, flat):
    return [dtype, shape, struct.pack(f"<{len(flat)}{CODE[dtype]}", *flat)]


def numbers(triple):
    return [x[0] for x in struct.iter_unpack(f"<{CODE[triple[0]]}", triple[2])]


wave = 299_792_458 / CARRIER_HZ
ARRAY = {"position_m": array("f8", [N, 3], [x for n in range(N) for x in (0, (n - 1.5) * wave / 2, 0)]), "columns": N, "rows": 1, "spacing_m": wave / 2,
         "rotation": array("f8", [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]),
         "origin_m": array("f8", [3], [0, 0, 0]), "element_gain_dbi": 0.0, "element_exponent": 0.0}
NETWORK = {"wired": array("b1", [1, N], [True] * N), "line": array("i8", [N], [-1] * N), "lines": 0, "delay_bits": 0, "delay_range_s": 1e-12,
           "phase_bits": 6, "amplitude_bits": 0, "loss_db": 0.0}
HALF = {"array": ARRAY, "network": NETWORK, "memory_slots": SLOTS}
SPEC = {"name": "example", "carrier_hz": CARRIER_HZ, "transmit": HALF, "receive": HALF, "transmit_power_w": 0.1, "noise_figure_db": NOISE_DB,
        "isolation_db": math.inf,
        "command_latency_ns": LATENCY_NS, "bus_ns_per_element": BUS_NS, "settling_ns": SETTLING_NS, "select_ns": 50, "simulated": False}


def set_beam(asked):
    beam, at_ns = asked
    half, slots = beam["half"], numbers(beam["slot"])
    if half not in busy_ns or len(set(slots)) < len(slots) or not all(0 <= s < SLOTS for s in slots):
        raise Misuse(f"{half!r} slots {slots}: must be of transmit or receive, within 0 .. {SLOTS - 1}, each once")
    if [beam[name][1] for name in ("delay_s", "phase_rad", "amplitude")] != [[len(slots), 1, n] for n in (0, N, N)]:
        raise Misuse(f"settings must have the shapes slot x 1 x 0 (delay_s) and slot x 1 x {N} (phase_rad, amplitude)")
    phase, amplitude = numbers(beam["phase_rad"]), numbers(beam["amplitude"])
    if not all(map(math.isfinite, phase + amplitude)):
        raise Misuse("phase_rad, amplitude: must be finite")
    taken, clipped = [round(p / STEP) % 64 * STEP for p in phase], sum(not 0 <= a <= 1 for a in amplitude)
    amplitude = [min(max(a, 0.0), 1.0) for a in amplitude]
    busy_ns[half] = max(at_ns + LATENCY_NS, busy_ns[half]) + len(slots) * N * BUS_NS
    effective_ns = busy_ns[half] + SETTLING_NS
    for k, slot in enumerate(slots):  # here a real machine loads its registers, and latches them
        settings = [a * cmath.exp(1j * p) / N**0.5 for a, p in zip(amplitude[k * N :][:N], taken[k * N :][:N], strict=True)]
        rows[half, slot] = [*rows.get((half, slot), [])[-15:], (effective_ns, settings)]
    readback = {**beam, "phase_rad": array("f8", [len(slots), 1, N], taken), "amplitude": array("f8", [len(slots), 1, N], amplitude)}
    return {"readback": readback, "accepted_ns": at_ns, "effective_ns": effective_ns, "clipped": clipped, "uncertainty_ns": 0, "fault": ""}


def emit(drive):
    slots, width = numbers(drive["slot"]), len(numbers(drive["frequency_hz"]))
    if not all(0 <= s < SLOTS for s in slots):
        raise Misuse(f"slots {slots}: must be within 0 .. {SLOTS - 1}")
    heard["samples"] = drive["samples"][1][2] if drive.get("samples") else width
    flat = []
    for t_ns, slot in zip(numbers(drive["t_ns"]), slots, strict=True):
        row = ([settings for since, settings in rows.get(("transmit", slot), []) if since <= t_ns] or [[0j] * N])[-1]
        flat += [part for value in row * width for part in (value.real, value.imag)]
    events = len(slots)
    return {"source": array("i8", [events], [-1] * events), "drive": drive, "row": array("i8", [events], list(range(events))),
            "response": array("c16", [events, width, N, 1], flat)}


def receive(asked):
    listen = asked[1]
    noise_w = 1.380649e-23 * 290 * listen["bandwidth_hz"] * 10 ** (NOISE_DB / 10)
    shape = [len(numbers(listen["t_ns"])), 1, heard["samples"]]  # here a real machine reads its converters
    flat = [random.gauss(0, (noise_w / 2) ** 0.5) for _ in range(2 * shape[0] * shape[2])]
    return {"t_ns": listen["t_ns"], "slot": listen["slot"], "samples": array("c16", shape, flat), "noise_w": noise_w, "dropped_w": 0.0, "overload": None}


VERBS = {"hello": lambda _: "example", "ping": lambda _: None, "spec": lambda _: SPEC, "set_beam": set_beam, "emit": emit, "receive": receive}


def answer(peer, head, payload):
    """What a question gets: kind, number, payload; None for a repeated question."""
    try:
        protocol, version, kind, seq, *rest = msgpack.unpackb(head)
        major, incarnation = version[0], rest[2] if len(rest) > 2 else 0
    except Exception:
        return "fault", -1, b"this is not a header"
    if (protocol, major) != ("isac-twin", 1):
        return "fault", seq, f"refused: this side speaks isac-twin 1.0, not {protocol} {version}".encode()
    if incarnation not in (0, INCARNATION):
        return "anew", seq, b"was started anew; what it held before is lost"
    if seq <= last_seq.get(peer, 0):
        return None
    last_seq[peer] = seq
    try:
        done = VERBS[kind](msgpack.unpackb(payload) if payload else None) if kind in VERBS else VERBS[kind]
        return "answer", seq, b"" if done is None else msgpack.packb(done)
    except (Misuse, KeyError) as error:
        return "misuse", seq, f"{kind}: {error} is wrong, or not there".encode()
    except Exception as error:
        return "fault", seq, f"{kind} failed: {type(error).__name__}: {error}".encode()


socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5600")
print(socket.last_endpoint.decode(), flush=True)
while True:
    peer, *frames = socket.recv_multipart()
    received_ns = time.monotonic_ns()
    said = answer(peer, *frames) if len(frames) == 2 else ("fault", -1, b"this is not a header and a payload")
    if said is not None:
        header = msgpack.packb(["isac-twin", [1, 0], said[0], said[1], received_ns, time.monotonic_ns(), INCARNATION])
        socket.send_multipart([peer, header, said[2]])
