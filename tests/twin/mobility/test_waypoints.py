from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility.waypoints import Waypoints
from twin.physics.draws import Draws

SQUARE = ((0.0, 0.0, 1.0), (30.0, 0.0, 1.0), (30.0, 40.0, 1.0))


def at(law: Waypoints, t_s: float) -> tuple[list[float], list[float]]:
    _, motion = law.at(law.start(np.array([1]), Draws(0)), round(t_s * 1e9))
    return motion.position_m[0].tolist(), motion.velocity_mps[0].tolist()


def test_one_speed() -> None:
    law = Waypoints(points_m=SQUARE, speed_mps=10.0)
    assert at(law, 1.5) == ([15.0, 0.0, 1.0], [10.0, 0.0, 0.0])
    assert at(law, 3.0) == ([30.0, 0.0, 1.0], [0.0, 10.0, 0.0])  # at the corner: the leg that follows
    assert at(law, 5.0) == ([30.0, 20.0, 1.0], [0.0, 10.0, 0.0])
    assert at(law, 7.0) == at(law, 99.0) == ([30.0, 40.0, 1.0], [0.0, 0.0, 0.0])


def test_loop_closes_and_repeats() -> None:
    law = Waypoints(points_m=SQUARE, speed_mps=10.0, loop=True, appear_s=1.0)
    position, velocity = at(law, 1.0 + 7.0 + 2.5)  # half of the closing leg of 50 m
    np.testing.assert_allclose(position, [15.0, 20.0, 1.0], atol=1e-9)
    np.testing.assert_allclose(velocity, [-6.0, -8.0, 0.0], atol=1e-9)
    assert at(law, 1.0 + 5.0) == at(law, 1.0 + 5.0 + 12.0) == at(law, 1.0 + 5.0 + 120.0)


def test_timetable_with_a_wait() -> None:
    law = Waypoints(points_m=(*SQUARE, SQUARE[-1], SQUARE[0]), times_s=(0.0, 1.0, 3.0, 8.0, 10.0), loop=True)
    assert at(law, 0.5) == ([15.0, 0.0, 1.0], [30.0, 0.0, 0.0])
    assert at(law, 5.0) == ([30.0, 40.0, 1.0], [0.0, 0.0, 0.0])
    assert at(law, 10.5) == at(law, 0.5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"points_m": SQUARE[:1], "speed_mps": 1.0}, "kind: static"),
        ({"points_m": SQUARE}, "give one of the two"),
        ({"points_m": SQUARE, "speed_mps": 1.0, "times_s": (0.0, 1.0, 2.0)}, "give one of the two"),
        ({"points_m": SQUARE, "speed_mps": 0.0}, "speed_mps = 0.0"),
        ({"points_m": SQUARE, "speed_mps": np.nan}, "speed_mps = nan"),
        ({"points_m": (SQUARE[0], SQUARE[0]), "speed_mps": 1.0}, r"points_m\[1\].*give times_s"),
        ({"points_m": (SQUARE[0], (0.0, np.inf, 0.0)), "speed_mps": 1.0}, r"points_m\[1\]"),
        ({"points_m": SQUARE, "times_s": (0.0, 1.0)}, "2 times for 3 points"),
        ({"points_m": SQUARE, "times_s": (1.0, 2.0, 3.0)}, r"times_s\[0\]"),
        ({"points_m": SQUARE, "times_s": (0.0, 2.0, 1.0)}, r"times_s\[2\] = 1.0"),
        ({"points_m": SQUARE, "times_s": (0.0, np.nan, 1.0)}, r"times_s\[1\] = nan"),
        ({"points_m": SQUARE, "times_s": (0.0, 1.0, 2.0), "loop": True}, "must be the first point"),
    ],
)
def test_refuses(fields: dict[str, object], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Waypoints(**fields)  # type: ignore[arg-type]
