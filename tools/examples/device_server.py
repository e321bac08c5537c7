"""A device server in pyzmq, msgpack and NumPy: four elements, 6-bit phases. Replace what touches `rows` by your machine.

python device_server.py [tcp://127.0.0.1:5600]    then: twin device check tcp://127.0.0.1:5600 --fresh
"""

import sys
import time

import msgpack
import numpy as np
import zmq

N, SLOTS, STEP, LATENCY_NS, BUS_NS, SETTLING_NS, NOISE_DB = 4, 8, 2 * np.pi / 64, 20_000, 100, 1_000, 7.0
BORN, CHANCE = time.time_ns() % 2**48, np.random.default_rng()
rows, busy_ns, last_seq, heard = {}, {"transmit": 0, "receive": 0}, {}, {"samples": 1}


def array(value):
    return [value.dtype.str[1:], value.shape, value.tobytes()]


def numbers(told):
    return np.frombuffer(told[2], told[0]).reshape(told[1])


PLACES = np.outer(np.arange(N) - (N - 1) / 2, [0, 299_792_458 / 28e9 / 2, 0])
NETWORK = {"wired": array(np.ones((1, N), bool)), "line": array(np.full(N, -1)), "phase_bits": 6}
HALF = {"array": {"position_m": array(PLACES)}, "network": NETWORK, "memory_slots": SLOTS}
SPEC = {"name": "example", "carrier_hz": 28e9, "transmit": HALF, "receive": HALF, "simulated": False}
SPEC |= {"transmit_power_w": 0.1, "noise_figure_db": NOISE_DB, "command_latency_ns": LATENCY_NS}
SPEC |= {"bus_ns_per_element": BUS_NS, "settling_ns": SETTLING_NS}


def set_beam(beam, at_ns):
    half, slots, phase, size = beam["half"], *(numbers(beam[name]) for name in ("slot", "phase_rad", "amplitude"))
    shapes = [beam[name][1] for name in ("delay_s", "phase_rad", "amplitude")]
    fit = shapes == [[len(slots), 1, n] for n in (0, N, N)] and np.isfinite(phase + size).all()
    if not fit or len({*slots} & {*range(SLOTS)}) < len(slots):
        raise ValueError(f"settings must be finite, slot x 1 x 0 or {N}; slots within 0 .. {SLOTS - 1}, each once")
    busy_ns[half] = max(at_ns + LATENCY_NS, busy_ns[half]) + len(slots) * N * BUS_NS
    effective_ns, phase, taken = busy_ns[half] + SETTLING_NS, np.rint(phase / STEP) % 64 * STEP, size.clip(0, 1)
    for slot, row in zip(slots, taken * np.exp(1j * phase) / N**0.5, strict=True):  # here a machine loads and latches
        rows[half, slot] = [*rows.get((half, slot), [(0, 0 * row)])[-15:], (effective_ns, row)]
    readback, clipped = beam | {"phase_rad": array(phase), "amplitude": array(taken)}, int((size != taken).sum())
    return {"readback": readback, "accepted_ns": at_ns, "effective_ns": effective_ns, "clipped": clipped}


def emit(drive):
    t_ns, slots, width = (numbers(drive[name]) for name in ("t_ns", "slot", "frequency_hz"))
    heard["samples"] = drive["samples"][1][2] if drive.get("samples") else len(width)
    sent = [[row for since, row in rows["transmit", s] if since <= t][-1] for t, s in zip(t_ns, slots, strict=True)]
    return {"response": array(np.array(sent, complex).reshape(-1, 1, N, 1).repeat(len(width), axis=1))}


def receive(_, listen):
    noise_w = 1.380649e-23 * 290 * listen["bandwidth_hz"] * 10 ** (NOISE_DB / 10)
    shape = listen["t_ns"][1][0], 1, heard["samples"], 2
    samples = CHANCE.normal(0, (noise_w / 2) ** 0.5, shape) @ [1, 1j]  # here a machine reads its converters
    return {"samples": array(samples), "noise_w": noise_w}


VERBS = {"hello": lambda name: "example", "ping": lambda: None, "spec": lambda: SPEC}
VERBS |= {"set_beam": set_beam, "emit": emit, "receive": receive}


def answer(peer, head, payload):
    """What a question gets: kind, number and payload; None for a repeated question."""
    protocol, (major, _), verb, seq, _, _, born = msgpack.unpackb(head)[:7]
    if (protocol, major) != ("isac-twin", 1):
        return "fault", seq, b"refused: this side speaks isac-twin 1.0"
    if born not in (0, BORN):
        return "anew", seq, b"was started anew; what it held before is lost"
    if seq <= last_seq.get(peer, 0):
        return None
    last_seq[peer] = seq
    try:
        given = msgpack.unpackb(payload) if payload else []
        return "answer", seq, msgpack.packb(VERBS[verb](*(given if isinstance(given, list) else [given])))
    except (KeyError, TypeError, ValueError) as error:
        return "misuse", seq, f"{verb}: {error!r}".encode()
    except Exception as error:
        return "fault", seq, f"{verb} failed: {error!r}".encode()


socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5600")
print(socket.last_endpoint.decode(), flush=True)
while True:
    peer, *frames = socket.recv_multipart()
    received_ns = time.monotonic_ns()
    try:
        said = answer(peer, *frames)
    except Exception:
        said = "fault", -1, b"this is not a header and a payload"
    if said is not None:
        header = ["isac-twin", [1, 0], said[0], said[1], received_ns, time.monotonic_ns(), BORN]
        socket.send_multipart([peer, msgpack.packb(header), said[2]])
