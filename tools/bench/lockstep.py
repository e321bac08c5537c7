"""The seam's own cost: lock-step with nothing to compute beside HELICS, the round trip, publishing, and what stalled listeners cost.

``python -m tools.bench.lockstep [--json]``. Medians; controllers and federates are processes of their own. The two lock-steps alternate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import socket
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import zmq

from hal import wire
from hal.session import Client, Patience
from twin.bus import ZmqBus, flatten
from twin.kpi import Kpi
from twin.outside import Act, Claim, Grant, Moment, Outside
from twin.records import Belief, ChannelEstimate, Command, Detections, Plan, Tracks, Truth
from twin.seats import Seats

USERS, TARGETS, BLOCKS, SUBCARRIERS = 100, 50, 35, 32


def nameplate() -> tuple[Any, Any]:
    """The front end and frame structure of the flagship: what a grant carries."""
    from twin.scenario import frontend_spec, load, numerology

    scenario = load("scenarios/street.yaml")
    return frontend_spec(scenario, "bs0"), numerology(scenario)


def empty_plan(k: int) -> Plan:
    """A plan that plans nothing."""
    none = np.zeros(0, dtype=np.int64)
    return Plan(
        k=k,
        sensing_blocks=1,
        sensing_ns=0,
        dwell_transmit_slot=none,
        dwell_receive_slot=none,
        dwell_target=none,
        update_block=none,
        pilot_receive_slot=np.zeros((0, 0), dtype=np.int64),
        slot=np.full(BLOCKS, -1),
        served=np.zeros((BLOCKS, 0), dtype=bool),
        user=none,
    )


def controller(endpoint: str, name: str, full: bool) -> None:
    """Answers every moment with no change, or, ``full``, with the plan it was shown."""
    session = Client(endpoint, Patience(5.0, 20.0), name=name)
    claim = Claim(name=name, knobs=("bs0.plan",), observe=("belief",) if full else ())
    wire.decode(session.ask("claim", wire.encode(claim)), Grant)
    while True:
        heard = session.hear(60.0)
        if heard is None or heard[0] == "dropped":
            break
        if heard[0] == "observe":
            moment = wire.decode(heard[2], Moment)
            session.tell("act", wire.encode(Act(moment=moment.moment, plan=moment.plan if full else None)))
    session.close()


def seam(steps: int, transport: str = "ipc", full: bool = False) -> list[float]:
    """Wall seconds of each of ``steps`` lock-steps with one controller: observe, act, and nothing computed between."""
    spec, numerology = nameplate()
    plan, seen = (made_plan(), belief()) if full else (empty_plan(0), None)
    nothing = Command()

    def grant(claim: Claim) -> Grant:
        return Grant(
            name=claim.name,
            knobs=claim.knobs,
            run="bench",
            k=0,
            clock="lockstep",
            deadline_ns=0,
            on_miss="hold",
            spec=spec,
            numerology=numerology,
            users={},
        )

    with tempfile.TemporaryDirectory() as folder:
        at = f"ipc://{folder}/state" if transport == "ipc" else "tcp://127.0.0.1:0"
        with ZmqBus("bench", at) as bus:
            seats = Seats("bs0", bus, Outside(wait_for=("c",)), "lockstep", grant)
            process = multiprocessing.get_context("spawn").Process(target=controller, args=(bus.control, "c", full))
            process.start()
            seats.join()
            taken = []
            for k in range(steps + 200):

                def say(seat: Any, moment: int, k: int = k) -> bytes:
                    told = Moment(
                        moment=moment,
                        k=k,
                        t_ns=k * 5_000_000,
                        point="steer",
                        plan=plan,
                        user=plan.user,
                        updates=0,
                        decided=nothing,
                        belief=seen,
                    )
                    return wire.encode(told)

                began = time.perf_counter()
                (group,) = seats.groups("steer")
                seats.ask(group, say, lambda: b"")
                taken.append(time.perf_counter() - began)
                assert group[0].act is not None
            seats.close()
            process.join()
    return taken[200:]


def federate(name: str, core: str, steps: int, out: Any) -> None:
    """One HELICS federate: ask for the next millisecond ``steps`` times, with one value published a step."""
    import helics as h

    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreName(info, name + core)
    h.helicsFederateInfoSetCoreTypeFromString(info, "zmq")
    h.helicsFederateInfoSetCoreInitString(info, f"--federates=1 --broker_address=tcp://127.0.0.1 --brokerport={core}")
    h.helicsFederateInfoSetTimeProperty(info, h.helics_property_time_delta, 0.001)
    made = h.helicsCreateValueFederate(name, info)
    other = {"a": "b", "b": "a"}[name]
    value = h.helicsFederateRegisterGlobalPublication(made, f"{name}/x", h.helics_data_type_double, "")
    heard = h.helicsFederateRegisterSubscription(made, f"{other}/x", "")
    h.helicsFederateEnterExecutingMode(made)
    taken, k = [], 0
    for k in range(1, steps + 1):
        began = time.perf_counter()
        h.helicsPublicationPublishDouble(value, float(k))
        h.helicsFederateRequestTime(made, k * 0.001)
        h.helicsInputGetDouble(heard)
        taken.append(time.perf_counter() - began)
    h.helicsFederateDisconnect(made)
    h.helicsFederateFree(made)
    out.put((name, taken))


def helics_zmq(steps: int, turn: int) -> list[float]:
    """Wall seconds of each step of two HELICS federates in lock-step over its zmq core."""
    import helics as h

    context = multiprocessing.get_context("spawn")
    out: Any = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    broker = h.helicsCreateBroker("zmq", f"broker{turn}", f"--federates=2 --port={port} --loglevel=error")
    processes = [context.Process(target=federate, args=(each, port, steps, out)) for each in "ab"]
    for process in processes:
        process.start()
    took = dict(out.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    h.helicsBrokerWaitForDisconnect(broker, 5000)
    h.helicsBrokerFree(broker)
    h.helicsCloseLibrary()
    return list(took["a"])


def belief() -> Belief:
    """What the control plane would know of a hundred users and fifty targets."""
    n, f = USERS + TARGETS, np.random.default_rng(1).standard_normal
    whole = np.zeros(n, np.int64)
    return Belief(
        t_ns=0,
        detections=Detections(t_ns=whole[:4], dwell=whole[:4], value=f((4, 4)), covariance=f((4, 4, 4)), snr_db=f(4)),
        tracks=Tracks(
            t_ns=0,
            track=np.arange(n),
            state=f((n, 6)),
            covariance=f((n, 6, 6)),
            user=whole,
            confirmed=whole > 0,
            hits=whole,
            misses=whole,
            seen_ns=whole,
        ),
        channel=ChannelEstimate(
            t_ns=0,
            user=np.arange(USERS),
            direction=f((USERS, 3)),
            direction_covariance=f((USERS, 2, 2)),
            gain=f((USERS, SUBCARRIERS)) + 0j,
            gain_variance=f((USERS, SUBCARRIERS)),
            heard=whole[:USERS] > 0,
        ),
        predicted_bps=f(USERS),
        swaps=0,
        rebindings=0,
    )


def made_plan() -> Plan:
    """A plan for a hundred users."""
    dwell = np.zeros(4, np.int64)
    return Plan(
        k=0,
        sensing_blocks=4,
        sensing_ns=0,
        dwell_transmit_slot=dwell,
        dwell_receive_slot=dwell,
        dwell_target=dwell,
        update_block=np.arange(4, 8),
        pilot_receive_slot=np.zeros((4, USERS), np.int64),
        slot=np.zeros(BLOCKS, np.int64),
        served=np.zeros((BLOCKS, USERS), bool),
        user=np.arange(USERS),
    )


def kpi() -> Kpi:
    """Key figures of a hundred users and fifty targets."""
    from dataclasses import MISSING, fields

    sizes = {"user": USERS, "entity": USERS + TARGETS, "block": BLOCKS, "4": 4}
    made: dict[str, Any] = {}
    for field in fields(Kpi):
        if field.default is not MISSING:
            continue
        kind = str(field.type)
        if "[Array" in kind:
            axes = re.split(r"['\"]", kind)[1].split()
            made[field.name] = np.ones([sizes[axis] for axis in axes], np.int64 if kind.startswith("Int") else float)
        else:
            made[field.name] = 1 if kind == "int" else 1.0
    return Kpi(**made)


def listener(state: str, topics: list[bytes]) -> None:
    """A listener in a process of its own: in a thread of the twin's it would share its interpreter lock."""
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.set(zmq.RCVHWM, 0)
        sub.connect(state)
        for topic in topics:
            sub.subscribe(topic)
        while True:
            sub.recv_multipart()


def publishing(rounds: int = 2000) -> dict[str, float]:
    """Wall time a subframe of saying truth, plan, belief and key figures, by who listens; the run hash has encoded them before."""
    n = USERS + TARGETS
    truth = Truth(
        t_ns=0,
        entity=np.arange(n),
        is_user=np.arange(n) < USERS,
        position_m=np.zeros((n, 3)),
        velocity_mps=np.zeros((n, 3)),
        rcs_m2=np.ones(n),
    )
    records = {"truth.": truth, "bs0.plan.": made_plan(), "bs0.belief.": belief(), "bs0.kpi.": kpi()}
    encoded = {topic: wire.encode(record) for topic, record in records.items()}
    told = {}
    for who, topics in (("nobody", []), ("one listener to all", [b""]), ("flat only", [b"flat."])):
        with ZmqBus("bench", "tcp://127.0.0.1:0") as bus:
            reader = multiprocessing.get_context("spawn").Process(
                target=listener, args=(bus.state, topics), daemon=True
            )
            reader.start()
            until = time.monotonic() + 60
            while topics and not bus.wanted("flat.bs0.kpi.") and time.monotonic() < until:
                bus.service()
                time.sleep(0.001)
            taken = []
            for k in range(rounds):
                began = time.perf_counter()
                for topic, record in records.items():
                    bus.publish(topic, record, k, encoded[topic])
                if bus.wanted("flat.bs0.kpi."):
                    bus.flat("bs0.kpi.", flatten(records["bs0.kpi."]), k)
                bus.service()
                taken.append(time.perf_counter() - began)
                time.sleep(0.0005)
            reader.terminate()
            reader.join()
        told[who] = statistics.median(taken) * 1e6
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.lockstep", description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="a turn (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = SimpleNamespace(seam=[], tcp=[], helics=[], full=[])
    for turn in range(given.turns):
        rows.seam += seam(given.steps)
        rows.helics += helics_zmq(given.steps, turn)
        rows.tcp += seam(given.steps, "tcp")
        rows.full += seam(given.steps, full=True)
    said = publishing()
    told = {
        "seam_ipc_steps_per_s": 1 / statistics.mean(rows.seam),
        "seam_tcp_steps_per_s": 1 / statistics.mean(rows.tcp),
        "helics_zmq_steps_per_s": 1 / statistics.mean(rows.helics),
        "ratio_tcp": statistics.mean(rows.helics) / statistics.mean(rows.tcp),
        "round_trip_ipc_p50_us": statistics.median(rows.seam) * 1e6,
        "round_trip_tcp_p50_us": statistics.median(rows.tcp) * 1e6,
        "round_trip_full_p50_us": statistics.median(rows.full) * 1e6,
        "helics_p50_us": statistics.median(rows.helics) * 1e6,
        **{f"publish_p50_us ({who})": value for who, value in said.items()},
    }
    if given.json:
        json.dump(told, sys.stdout, indent=1)
        print()
    else:
        for name, value in told.items():
            print(f"{name:<44} {value:10.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
