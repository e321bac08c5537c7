from __future__ import annotations

from math import exp, sqrt

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility.gauss_markov import GaussMarkov
from twin.physics.draws import Draws

STEP_NS = 100_000_000


def walk(law: GaussMarkov, steps: int, entity: int = 1, part: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    state = law.start(np.array([entity]), Draws(9))
    p, v = np.empty((steps, 3)), np.empty((steps, 3))
    for n in range(steps):
        state, motion = law.at(state, n * STEP_NS + round(part * STEP_NS))
        p[n], v[n] = motion.position_m[0], motion.velocity_mps[0]
    return p, v


def test_mean_deviation_and_memory_are_as_stated() -> None:
    law = GaussMarkov(velocity_mps=(5.0, -2.0, 0.0), sigma_mps=(2.0, 1.0, 0.0), memory_s=0.5, step_ns=STEP_NS)
    steps = 20_000
    _, v = walk(law, steps)
    a = exp(-0.2)
    # Independent samples in a sum with correlation a^|lag|: n (1 - a) / (1 + a).
    independent = steps * (1 - a) / (1 + a)
    for axis, (mean, sigma) in enumerate(((5.0, 2.0), (-2.0, 1.0))):
        off = v[:, axis] - mean
        assert abs(off.mean()) < 4 * sigma / sqrt(independent)
        assert abs(off.std() / sigma - 1) < 4 / sqrt(2 * independent)
        for lag in (1, 3, 8):
            assert abs(np.mean(off[lag:] * off[:-lag]) / sigma**2 - a**lag) < 5 / sqrt(independent)
    assert np.all(v[:, 2] == 0.0)
    _, between = walk(law, steps, part=0.5)
    assert abs(between[:, 0].std() / (2.0 * sqrt((1 + a) / 2)) - 1) < 4 / sqrt(2 * independent)


def test_the_step_leaves_the_statistics() -> None:
    # memory_s is a time, not a factor a step: a finer step has the same correlation at the same lag.
    fine = GaussMarkov(sigma_mps=(1.0, 1.0, 1.0), memory_s=0.5, step_ns=STEP_NS // 4)
    _, v = walk(fine, 10_000)
    lagged = np.mean(v[1:] * v[:-1])
    assert abs(lagged - exp(-0.2)) < 0.05


def test_the_first_velocity_is_stationary() -> None:
    law = GaussMarkov(sigma_mps=(2.0, 2.0, 2.0))
    first = np.array([walk(law, 1, entity=e)[1][0] for e in range(2_000)])
    assert abs(first.std() / 2.0 - 1) < 4 / sqrt(2 * first.size)


def test_walls_mirror_the_free_walk() -> None:
    free = GaussMarkov(position_m=(1.0, 0.0, 0.0), velocity_mps=(7.0, 3.0, 0.0), sigma_mps=(3.0, 3.0, 0.0))
    walled = GaussMarkov(
        position_m=(1.0, 0.0, 0.0),
        velocity_mps=(7.0, 3.0, 0.0),
        sigma_mps=(3.0, 3.0, 0.0),
        low_m=(0.0, -np.inf, -1.0),
        high_m=(5.0, 4.0, np.inf),
    )
    p, v = walk(free, 300)
    q, w = walk(walled, 300)
    assert q[:, 0].min() >= 0.0
    assert q[:, 0].max() <= 5.0
    assert q[:, 1].max() <= 4.0
    assert p[:, 0].max() > 100.0
    # Independent folding: arcsine of the sine is a triangle wave.
    triangle = 2.5 + 5.0 / np.pi * np.arcsin(np.sin(np.pi / 5.0 * (p[:, 0] - 2.5)))
    np.testing.assert_allclose(q[:, 0], triangle, atol=1e-7)
    np.testing.assert_allclose(q[:, 1], 4.0 - np.abs(4.0 - p[:, 1]), atol=1e-12)
    np.testing.assert_array_equal(np.abs(w), np.abs(v))
    assert np.sum(w[:, 0] * v[:, 0] < 0) > 50


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sigma_mps": (1.0, -1.0, 0.0)}, "sigma_mps"),
        ({"sigma_mps": (1.0, np.nan, 0.0)}, "sigma_mps"),
        ({"memory_s": 0.0}, "memory_s = 0.0"),
        ({"memory_s": np.nan}, "memory_s = nan"),
        ({"step_ns": 0}, "step_ns = 0"),
        ({"low_m": (60.0, 0.0, 0.0)}, "position_m: x = 50.0"),
        ({"high_m": (np.nan, 0.0, 9.0)}, "position_m: x = 50.0"),
    ],
)
def test_refuses(fields: dict[str, object], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        GaussMarkov(**fields)  # type: ignore[arg-type]


def test_refuses_to_go_back() -> None:
    law = GaussMarkov()
    state, _ = law.at(law.start(np.array([1]), Draws(0)), 10 * STEP_NS)
    with pytest.raises(Misuse, match="is before the step"):
        law.at(state, 3 * STEP_NS)
