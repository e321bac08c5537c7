"""What every law of motion keeps, whatever its kind."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import twin.mobility
from twin.mobility import Mobility, Motion
from twin.mobility.crowd import Crowd
from twin.mobility.gauss_markov import GaussMarkov
from twin.mobility.linear import Linear
from twin.mobility.static import Static
from twin.mobility.trace import Trace
from twin.mobility.waypoints import Waypoints
from twin.physics.draws import Draws

STREET = Path(__file__).parents[2] / "scenarios" / "traces" / "street.fcd.xml.gz"
SQUARE = ((0.0, 0.0, 1.0), (10.0, 0.0, 1.0), (10.0, 10.0, 4.0), (0.0, 10.0, 1.0))
LAWS: dict[str, list[Mobility]] = {
    "static": [Static(position_m=(30.0, -4.0, 1.5)), Static(appear_s=0.5, leave_s=1.5)],
    "linear": [Linear(velocity_mps=(-3.0, 14.0, 0.5)), Linear(appear_s=0.25, leave_s=2.0)],
    "waypoints": [
        Waypoints(points_m=SQUARE, speed_mps=9.0, loop=True),
        Waypoints(points_m=SQUARE, times_s=(0.0, 0.7, 1.0, 2.5), appear_s=0.3),
    ],
    "gauss_markov": [
        GaussMarkov(sigma_mps=(3.0, 2.0, 0.5), memory_s=0.7),
        GaussMarkov(velocity_mps=(9.0, -4.0, 0.0), low_m=(48.0, -1.0, 0.0), high_m=(52.0, np.inf, 2.0), appear_s=0.35),
    ],
    "crowd": [
        Crowd(count=7, fastest_mps=9.0),
        Crowd(count=3, low_m=(40.0, -2.0), high_m=(44.0, 2.0), slowest_mps=6.0, fastest_mps=8.0),
    ],
    "trace": [
        Trace(path=STREET),
        Trace(path=STREET, names=("east.32", "north.31"), start_s=8.03, origin_m=(3.0, -2.0)),
    ],
}
CASES = [pytest.param(law, id=f"{kind}-{i}") for kind, laws in LAWS.items() for i, law in enumerate(laws)]
MS = 1_000_000


def run(law: Mobility, times_ns: list[int], first_entity: int = 11, seed: int = 5) -> list[Motion]:
    state = law.start(np.arange(first_entity, first_entity + len(law.movers())), Draws(seed))
    out = []
    for t_ns in times_ns:
        state, motion = law.at(state, t_ns)
        out.append(motion)
    return out


def bits(motions: list[Motion]) -> list[bytes]:
    return [m.position_m.tobytes() + m.velocity_mps.tobytes() + m.present.tobytes() for m in motions]


def test_every_kind_is_here() -> None:
    kinds = {module.name for module in pkgutil.iter_modules(twin.mobility.__path__)}
    assert kinds == set(LAWS)
    for kind, laws in LAWS.items():
        module = import_module(f"twin.mobility.{kind}")
        component = getattr(module, module.__all__[0])
        assert all(type(law) is component for law in laws)
        assert {"movers", "start", "at"} <= set(dir(component))
        assert get_type_hints(component)
        with pytest.raises(AttributeError):
            laws[0].appear_s = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("law", CASES)
def test_shapes(law: Mobility) -> None:
    (motion,) = run(law, [0])
    count = len(law.movers())
    assert len(set(law.movers())) == count
    assert motion.position_m.shape == motion.velocity_mps.shape == (count, 3)
    assert motion.position_m.dtype == motion.velocity_mps.dtype == np.float64
    assert motion.present.shape == (count,)
    assert motion.present.dtype == np.bool_
    assert not motion.position_m.flags.writeable


@pytest.mark.parametrize("law", CASES)
def test_velocity_is_the_derivative_of_position(law: Mobility) -> None:
    times = list(range(0, 3_000 * MS, MS))
    motions = run(law, times)
    p = np.array([m.position_m for m in motions])
    v = np.array([m.velocity_mps for m in motions])
    there = np.array([m.present for m in motions])
    assert np.all(np.isfinite(p))
    assert np.all(np.isfinite(v))
    inside = (there[2:] & there[1:-1] & there[:-2])[..., None]
    slope = (p[2:] - p[:-2]) / 2e-3
    # A corner or a wall makes velocity jump within a step. Elsewhere the central difference over 2 h is off by a quarter of h times
    # the jump of the acceleration, which is below 80 m/s2 in all these laws.
    jump = np.abs(v[2:] - v[:-2]) > 0.1
    off = np.abs(slope - v[1:-1])
    assert np.max(off, where=inside & ~jump, initial=0.0) < 0.02
    assert np.sum(jump & inside) < 0.01 * np.sum(inside)
    # And a corner is no leap in place: the way is the integral of the velocity.
    leap = np.abs(p[1:] - p[:-1] - 0.5e-3 * (v[1:] + v[:-1]))
    assert np.max(leap, where=(there[1:] & there[:-1])[..., None], initial=0.0) < 0.02


@pytest.mark.parametrize("law", CASES)
def test_how_often_it_is_asked_changes_nothing(law: Mobility) -> None:
    rare = [0, 1_000 * MS, 1_001 * MS, 2_500 * MS]
    often = sorted({*range(0, 2_501 * MS, 7 * MS), *rare})
    at_rare = dict(zip(often, bits(run(law, often)), strict=True))
    assert [at_rare[t] for t in rare] == bits(run(law, rare))


@pytest.mark.parametrize("law", CASES)
def test_the_same_start_gives_the_same_motion(law: Mobility) -> None:
    times = [0, 333 * MS, 2_000 * MS]
    assert bits(run(law, times)) == bits(run(law, times))


@pytest.mark.parametrize("law", CASES)
def test_state_goes_in_and_is_left_alone(law: Mobility) -> None:
    state = law.start(np.arange(len(law.movers())), Draws(1))
    _, first = law.at(state, 2_000 * MS)
    later, again = law.at(state, 2_000 * MS)
    _, same = law.at(later, 2_000 * MS)
    assert bits([first]) == bits([again]) == bits([same])


@pytest.mark.parametrize("kind", ["static", "linear", "waypoints", "gauss_markov"])
def test_a_mover_is_there_from_its_first_instant_to_before_its_last(kind: str) -> None:
    component = type(LAWS[kind][0])
    fields = {"speed_mps": 1.0} if kind == "waypoints" else {}
    law = component(appear_s=0.5, leave_s=1.25, **fields)  # type: ignore[call-arg]
    times = [0, 500 * MS - 1, 500 * MS, 1_250 * MS - 1, 1_250 * MS]
    assert [bool(m.present[0]) for m in run(law, times)] == [False, False, True, True, False]


def test_chance_is_keyed_by_the_mover() -> None:
    law = LAWS["gauss_markov"][0]
    times = [0, 500 * MS]
    assert bits(run(law, times, first_entity=3)) != bits(run(law, times, first_entity=4))
    assert bits(run(law, times, seed=3)) != bits(run(law, times, seed=4))
