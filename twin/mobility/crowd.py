"""Crowd: many movers in a rectangle, each straight on at a speed of its own, mirrored at the edges."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated

import numpy as np

from hal.check import Ge
from hal.errors import Misuse
from hal.record import Array, Float, Int, record
from twin.mobility import Motion
from twin.physics.draws import Draws

__all__ = ["Crowd"]

STREAM = "mobility.crowd"


@record
class Unfolded:
    """Where all would start, and how fast they would go, were there no edges."""

    start_m: Float[Array, "axis mover"]  # from the low corner
    velocity_mps: Float[Array, "axis mover"]


@dataclass(frozen=True)
class Crowd:
    """``count`` movers named ``0 .. count-1``: places uniform in the rectangle, headings all round, speeds uniform up to ``speed_mps``.

    ``p(t) = fold(p_0 + v t)``, fold the mirror at each edge, so any instant costs the same and none depends on when it was asked for.
    As columns: a thousand cost little more than one. Movers pass through each other.

    Raises:
        Misuse: an empty rectangle, or a number that is not finite.
    """

    count: Annotated[int, Ge(1)] = 100
    low_m: tuple[float, float] = (20.0, -60.0)  # corner of the rectangle: east, north
    high_m: tuple[float, float] = (120.0, 60.0)
    height_m: float = 1.5  # of all, above the ground
    slowest_mps: Annotated[float, Ge(0)] = 0.0
    fastest_mps: Annotated[float, Ge(0)] = 2.0

    def __post_init__(self) -> None:
        if not all(low < high and isfinite(high - low) for low, high in zip(self.low_m, self.high_m, strict=True)):
            raise Misuse(
                f"low_m = {self.low_m!r}, high_m = {self.high_m!r}: must be two finite corners, low below high"
            )
        if not self.count >= 1:
            raise Misuse(f"count = {self.count!r}: must be at least 1")
        if not 0 <= self.slowest_mps <= self.fastest_mps < inf:
            raise Misuse(f"slowest_mps = {self.slowest_mps!r}: must lie in 0 .. fastest_mps, {self.fastest_mps!r}")
        if not isfinite(self.height_m):
            raise Misuse(f"height_m = {self.height_m!r}: must be finite")

    def movers(self) -> tuple[str, ...]:
        """``0``, ``1``, ..."""
        return tuple(map(str, range(self.count)))

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> Unfolded:
        """Drawn by each mover's number, so that more of them move none."""
        east, north, heading, speed = draws.uniform(STREAM, entity, np.zeros_like(entity), 4).T
        speed_mps = self.slowest_mps + (self.fastest_mps - self.slowest_mps) * speed
        wide_m = np.subtract(self.high_m, self.low_m)
        return Unfolded(
            start_m=np.stack([east * wide_m[0], north * wide_m[1]]),
            velocity_mps=speed_mps * np.stack([np.cos(2 * np.pi * heading), np.sin(2 * np.pi * heading)]),
        )

    def at(self, state: Unfolded, t_ns: int) -> tuple[Unfolded, Motion]:
        """Everybody at ``t_ns``."""
        wide_m = np.subtract(self.high_m, self.low_m)[:, None]
        laps = (state.start_m + state.velocity_mps * (t_ns * 1e-9)) / (2 * wide_m)
        laps -= np.floor(laps)
        back = laps > 0.5
        position_m, velocity_mps = (
            np.full((state.start_m.shape[1], 3), self.height_m),
            np.zeros((state.start_m.shape[1], 3)),
        )
        position_m[:, :2] = (np.array(self.low_m)[:, None] + 2 * wide_m * np.where(back, 1 - laps, laps)).T
        velocity_mps[:, :2] = np.where(back, -state.velocity_mps, state.velocity_mps).T
        return state, Motion(position_m=position_m, velocity_mps=velocity_mps, present=np.ones(len(position_m), bool))
