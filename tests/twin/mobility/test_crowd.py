from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility.crowd import Crowd
from twin.mobility.linear import Linear
from twin.physics.draws import Draws
from twin.world import Mover, World


def test_everybody_stays_inside_and_goes_on_at_the_same_speed() -> None:
    law = Crowd(count=50, low_m=(-3.0, 2.0), high_m=(4.0, 5.0), slowest_mps=1.0, fastest_mps=20.0)
    state = law.start(np.arange(50), Draws(1))
    before = None
    for t_ns in range(0, 5_000_000_000, 1_000_000):
        _, motion = law.at(state, t_ns)
        assert np.all((motion.position_m[:, :2] >= (-3, 2)) & (motion.position_m[:, :2] <= (4, 5)))
        if before is not None:
            assert np.all(np.linalg.norm(motion.position_m - before, axis=1) <= 20.0 * 1e-3 + 1e-9)
        before = motion.position_m
    speed = np.linalg.norm(motion.velocity_mps, axis=1)
    assert np.allclose(speed, np.linalg.norm(law.at(state, 0)[1].velocity_mps, axis=1))
    assert 1.0 <= speed.min() < speed.max() <= 20.0


def test_velocity_is_the_derivative_of_place() -> None:
    law = Crowd(count=200, fastest_mps=5.0)
    state = law.start(np.arange(200), Draws(2))
    (_, a), (_, b) = law.at(state, 7_000_000_000), law.at(state, 7_000_001_000)
    turned = np.any(a.velocity_mps != b.velocity_mps, axis=1)
    assert np.allclose((b.position_m - a.position_m)[~turned], a.velocity_mps[~turned] * 1e-6, atol=1e-12)


def test_more_movers_move_none() -> None:
    def places(count: int) -> dict[str, bytes]:
        world = World([Mover(name="c", is_user=True, rcs_m2=1.0, mobility=Crowd(count=count))], Draws(3))
        truth = world.at(12_345_000_000)
        return {world.names[int(e)]: p.tobytes() for e, p in zip(truth.entity, truth.position_m, strict=True)}

    few, many = places(5), places(40)
    assert len(many) == 40
    assert all(many[name] == place for name, place in few.items())


def test_lines_together_are_to_the_bit_what_they_are_alone() -> None:
    rng = np.random.default_rng(4)
    laws = [
        Linear(
            position_m=tuple(rng.normal(size=3) * 50),
            velocity_mps=tuple(rng.normal(size=3) * 10),
            appear_s=float(rng.uniform(0, 1)),
            leave_s=float(rng.uniform(1, 3)) if i % 2 else float("inf"),
        )
        for i in range(20)
    ]
    both = Linear.together(laws)
    for t_ns in (0, 5_000_000, 999_999_999, 2_000_000_001):
        _, motion = both.at(None, t_ns)
        for i, law in enumerate(laws):
            _, alone = law.at(None, t_ns)
            for name in ("position_m", "velocity_mps", "present"):
                assert getattr(motion, name)[i].tobytes() == getattr(alone, name)[0].tobytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("low_m", (200.0, 0.0)),
        ("count", 0),
        ("slowest_mps", 9.0),
        ("fastest_mps", float("nan")),
        ("height_m", float("inf")),
    ],
)
def test_what_makes_no_crowd_is_refused(field: str, value: object) -> None:
    with pytest.raises(Misuse, match=field):
        Crowd(**{field: value})  # type: ignore[arg-type]
