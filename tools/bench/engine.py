"""Rows: what events and pacing cost, beside plain SimPy: a process and a timeout a user and block, and ``simpy.rt``."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import numpy as np
import simpy

from tools.bench import pacing
from tools.bench.row import Row, Side, Timed, Work, apart
from twin.engine import Engine
from twin.mobility.linear import Linear
from twin.physics.draws import Draws
from twin.world import Mover, World

PERIOD_NS, BLOCKS, STEPS = 5_000_000, 35, 4
BLOCK_NS = PERIOD_NS // BLOCKS
DWELL_NS, PILOTS_NS = 4 * BLOCK_NS, 7 * BLOCK_NS  # a subframe's own events are between


def moving(users: int) -> Work:
    """Straight lines: each user's process steps from block to block; ours asks the world once and passes a subframe's events."""
    rng = np.random.default_rng(0)
    position, velocity = rng.uniform(-50, 50, (users, 3)), rng.uniform(-15, 15, (users, 3))
    world = World(
        [
            Mover(name=f"u{i}", is_user=True, rcs_m2=1.0, mobility=Linear(tuple(position[i]), tuple(velocity[i])))
            for i in range(users)
        ],
        Draws(0),
    )
    order = np.argsort([next(n for n, name in world.names.items() if name == f"u{i}") for i in range(users)])
    plain, own, bare = simpy.Environment(), Engine(), simpy.Environment()
    steps = position.tolist()
    seen: list[np.ndarray] = []

    def user(at: list[float], v: list[float]) -> Generator[Any, Any, None]:
        while True:
            yield plain.timeout(BLOCK_NS)
            for i in range(3):
                at[i] += v[i] * BLOCK_NS * 1e-9

    def site() -> Generator[Any, Any, None]:
        while True:
            start = own.now
            seen[:] = [world.at(start + BLOCK_NS * BLOCKS).position_m]
            for later in (DWELL_NS, PILOTS_NS, BLOCK_NS * BLOCKS):
                yield own.until(start + later)

    def nobody() -> Generator[Any, Any, None]:
        while True:
            yield bare.timeout(1)

    for i in range(users):
        plain.process(user(steps[i], velocity[i].tolist()))
    own.process(site())
    bare.process(nobody())
    span = STEPS * BLOCKS * BLOCK_NS

    def naive() -> np.ndarray:
        first = plain.now == 0
        plain.run(until=plain.now + span + first)  # just after the end, which the last timeouts fall on
        return np.array(steps)[order]

    def ours() -> np.ndarray:
        own.run(until=own.now + span)
        return seen[0]

    return Work(
        naive=Side(naive, STEPS),
        ours=Side(ours, STEPS),
        apart=apart,
        within=1e-9,
        floor=Side(lambda: bare.run(until=bare.now + 3 * STEPS), STEPS),
    )


def paced(subframes: int = 20) -> Work:
    """Median lateness at the ends of subframes of 5 ms, on the wall clock."""

    def late(way: Callable[[int, list[int]], None]) -> Timed:
        lags: list[int] = []
        way(subframes, lags)
        return Timed(max(float(np.median(lags)), 1.0) * 1e-9, len(lags))

    def spun() -> Timed:
        deadline = time.perf_counter_ns() + 1_000_000
        while (now := time.perf_counter_ns()) < deadline:
            pass
        return Timed(max(now - deadline, 1) * 1e-9, 0)

    return Work(
        naive=Side(partial(late, pacing.theirs)),
        ours=Side(partial(late, pacing.ours)),
        apart=lambda a, b: abs(a - b),
        within=0,
        floor=Side(spun),
    )


ROWS = (
    *(
        Row(
            f"engine.{users}",
            f"a subframe of 35 blocks, {users} users on straight lines, no physics",
            "plain SimPy: a process a user, a timeout a block",
            partial(moving, users),
            target=target,
            floor="three bare SimPy events",
            same="where everybody is at the end",
            note="ours: one process, positions once a subframe (the block axis is vectorised)",
        )
        for users, target in ((100, 50.0), (1000, 500.0))
    ),
    Row(
        "engine.pacing",
        "lateness at the end of a paced subframe (wall time)",
        "simpy.rt",
        paced,
        target=8,
        floor="a spinning clock",
        same="subframes played",
        note="a millisecond of work in each; ours sleeps to a little before the end, then spins (python -m tools.bench.pacing has all quantiles)",
    ),
)
