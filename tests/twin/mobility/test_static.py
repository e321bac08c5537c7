from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.mobility.static import Static
from twin.physics.draws import Draws


def test_stays() -> None:
    law = Static(position_m=(20.0, -3.0, 2.0))
    _, motion = law.at(law.start(np.array([1]), Draws(0)), 10**12)
    assert motion.position_m.tolist() == [[20.0, -3.0, 2.0]]
    assert motion.velocity_mps.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"position_m": (0.0, np.nan, 1.0)}, "position_m"),
        ({"position_m": (0.0, 1.0)}, "three finite numbers"),
        ({"appear_s": -1.0}, "appear_s = -1.0"),
        ({"appear_s": np.nan}, "appear_s = nan"),
        ({"appear_s": 2.0, "leave_s": 2.0}, "leave_s = 2.0: must be > appear_s"),
        ({"leave_s": np.nan}, "leave_s = nan"),
    ],
)
def test_refuses(fields: dict[str, object], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        Static(**fields)  # type: ignore[arg-type]
