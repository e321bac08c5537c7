"""What a beam memory keeps: responses of rows that can still be asked for, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small import half

from hal.frontend import Beam
from hal.memory import KEPT_NS, BeamMemory


def beam(spec, slot: int, seed: int) -> Beam:
    rng = np.random.Generator(np.random.Philox(key=seed))
    chains, elements = spec.network.wired.shape
    return Beam(
        half="transmit",
        slot=np.array([slot]),
        delay_s=np.zeros((1, chains, spec.network.lines)),
        phase_rad=rng.uniform(0, 6, (1, chains, elements)),
        amplitude=np.ones((1, chains, elements)),
    )


def test_responses_of_superseded_rows_are_forgotten() -> None:
    spec = half(4, 4)
    memory = BeamMemory("transmit", spec)
    grid_hz = np.array([99e9, 100e9])
    static, _ = memory.check(
        beam(spec, 7, 0)
    )  # set once and asked for once: it must not keep what is newer from being forgotten
    memory.load(static, 0, 0)
    at = np.array([1])
    memory.responses(memory.rows(np.array([7]), at)[1], grid_hz)
    counts = []
    for k in range(400):
        t_ns = 10_000_000 * k
        made, _ = memory.check(beam(spec, k % 3, k))
        memory.load(replace(made), t_ns, t_ns)
        found = memory.responses(memory.rows(np.array([k % 3]), np.array([t_ns]))[1], grid_hz)
        assert np.all(np.abs(found) > 0)
        counts.append(len(memory._cache))
    held = KEPT_NS // 10_000_000 + 3 + 1
    assert max(counts) <= 2 * held  # of 400
    assert memory._cached_bytes == sum(kept.nbytes for kept in memory._cache.values())
    assert len(memory.rows(np.array([7]), np.array([4_000_000_000]))[1]) == 1  # the static row is still there
