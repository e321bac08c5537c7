"""Linear: a mover at constant velocity."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt
from hal.record import Array, Int
from twin.mobility import Motion
from twin.mobility.static import alone, check_point, check_stay
from twin.physics.draws import Draws

__all__ = ["Linear"]


@dataclass(frozen=True)
class Linear:
    """``p(t) = p_0 + v (t - appear_s)``.

    Raises:
        Misuse: a number is not finite, or it would leave before it appears.
    """

    position_m: tuple[float, float, float] = (50.0, -50.0, 1.5)  # world frame, where it appears
    velocity_mps: tuple[float, float, float] = (0.0, 10.0, 0.0)  # world frame
    appear_s: Annotated[float, Ge(0)] = 0.0  # seconds of the run at which it is first there
    leave_s: Annotated[float, Gt(0)] = inf  # seconds of the run from which on it is gone

    def __post_init__(self) -> None:
        check_point("position_m", self.position_m)
        check_point("velocity_mps", self.velocity_mps)
        check_stay(self.appear_s, self.leave_s)

    def movers(self) -> tuple[str, ...]:
        """One, unnamed."""
        return ("",)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> None:
        """No state."""

    def at(self, state: None, t_ns: int) -> tuple[None, Motion]:
        """Where it has come to at ``t_ns``; before it appears, where it will."""
        gone_s = max(0.0, (t_ns - round(self.appear_s * 1e9)) * 1e-9)
        position_m = np.array(self.position_m) + gone_s * np.array(self.velocity_mps)
        return None, alone(position_m, self.velocity_mps, t_ns, self.appear_s, self.leave_s)
