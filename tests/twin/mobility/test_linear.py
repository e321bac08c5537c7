from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility.linear import Linear
from twin.physics.draws import Draws


def test_counts_from_its_appearance() -> None:
    law = Linear(position_m=(1.0, 2.0, 3.0), velocity_mps=(10.0, -5.0, 0.5), appear_s=2.0)
    state = law.start(np.array([1]), Draws(0))
    for t_ns, want in ((0, [1.0, 2.0, 3.0]), (2_000_000_000, [1.0, 2.0, 3.0]), (2_400_000_000, [5.0, 0.0, 3.2])):
        _, motion = law.at(state, t_ns)
        np.testing.assert_allclose(motion.position_m[0], want, rtol=0, atol=1e-12)


def test_an_hour_later_it_is_where_it_should_be() -> None:
    law = Linear(position_m=(0.0, 0.0, 0.0), velocity_mps=(1.0, 0.0, 0.0))
    _, motion = law.at(None, 3_600_000_000_001)
    assert abs(motion.position_m[0, 0] - 3600.000000001) < 1e-12


def test_refuses_a_speed_that_is_not_a_number() -> None:
    with pytest.raises(Misuse, match="velocity_mps"):
        Linear(velocity_mps=(0.0, np.nan, 0.0))
