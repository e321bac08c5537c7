"""A law of motion of your own: around a roundabout for ever, the phase of the round drawn from the run's seed.

Use it:  users: [{name: bus, mobility: {kind: "tools.examples.roundabout:Roundabout", radius_m: 12}}]
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.check import Gt
from hal.record import Array, Float, Int
from twin.mobility import Motion
from twin.physics.draws import Draws

__all__ = ["Roundabout"]


@dataclass(frozen=True)
class Roundabout:
    """``p(t) = centre + r (cos a, sin a, 0)`` with ``a = a_0 + v t / r``."""

    centre_m: tuple[float, float, float] = (40.0, 0.0, 1.5)
    radius_m: Annotated[float, Gt(0)] = 10.0
    speed_mps: float = 5.0  # negative: clockwise

    def movers(self) -> tuple[str, ...]:
        """One, unnamed."""
        return ("",)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> Float[Array, " mover"]:
        """The angle at t = 0, from the mover's own random stream: another mover changes nothing about it."""
        return 2 * np.pi * draws.uniform("roundabout", entity, 0, 1)[:, 0]

    def at(self, state: Float[Array, " mover"], t_ns: int) -> tuple[Float[Array, " mover"], Motion]:
        """Where it is on the circle."""
        angle = state + self.speed_mps / self.radius_m * t_ns * 1e-9
        out = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
        along = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=1)
        position_m = np.array(self.centre_m) + self.radius_m * out
        return state, Motion(position_m=position_m, velocity_mps=self.speed_mps * along, present=np.ones(1, dtype=bool))
