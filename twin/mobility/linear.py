"""Linear: a mover at constant velocity, and many of them as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt
from hal.record import Array, Float, Int
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

    @staticmethod
    def together(laws: Sequence[Linear]) -> Lines:
        """The same movers as one law, whose cost hardly depends on how many there are."""
        stay_s = np.array([(law.appear_s, law.leave_s) for law in laws])
        return Lines(
            position_m=np.array([law.position_m for law in laws], float),
            velocity_mps=np.array([law.velocity_mps for law in laws], float),
            appear_ns=np.array([round(law.appear_s * 1e9) for law in laws], np.int64),
            stay_ns=stay_s * 1e9,
        )


@dataclass(frozen=True)
class Lines:
    """Many movers at constant velocity, a row each: to the bit what each would do alone."""

    position_m: Float[Array, "mover 3"]
    velocity_mps: Float[Array, "mover 3"]
    appear_ns: Int[Array, " mover"]
    stay_ns: Float[Array, "mover 2"]  # first there, and gone again

    def movers(self) -> tuple[str, ...]:
        """One unnamed mover a row."""
        return ("",) * len(self.position_m)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> None:
        """No state."""

    def at(self, state: None, t_ns: int) -> tuple[None, Motion]:
        """Where they have come to at ``t_ns``; before one appears, where it will."""
        gone_s = np.maximum(0, t_ns - self.appear_ns) * 1e-9
        present = (self.stay_ns[:, 0] <= t_ns) & (t_ns < self.stay_ns[:, 1])
        position_m = self.position_m + gone_s[:, None] * self.velocity_mps
        return None, Motion(position_m=position_m, velocity_mps=self.velocity_mps, present=present)
