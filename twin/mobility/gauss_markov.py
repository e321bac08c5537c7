"""Gauss-Markov: a mover whose velocity wanders about a mean and remembers itself for a while."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt, In
from hal.errors import Misuse
from hal.record import Array, Float, Int, record
from twin.mobility import Motion
from twin.mobility.static import alone, check_point, check_stay
from twin.physics.draws import Draws

__all__ = ["GaussMarkov"]

STREAM = "mobility.gauss_markov"


@record
class Wander:
    """The walk between two steps, in the space without walls."""

    entity: Int[Array, " mover"]
    draws: Draws
    step: int  # steps since it appeared
    position_m: Float[Array, " 3"]  # at the step
    velocity_mps: Float[Array, " 3"]  # at the step
    next_mps: Float[Array, " 3"]  # velocity at the step that follows


@dataclass(frozen=True)
class GaussMarkov:
    """Velocity is a first-order Gauss-Markov process sampled every ``step_ns`` and linear in time in between.

    ``v[n+1] = mean + a (v[n] - mean) + sigma sqrt(1 - a^2) w[n+1]``, ``v[0] = mean + sigma w[0]``, ``a = exp(-step / memory_s)``:
    at the steps the velocity is stationary with standard deviation ``sigma`` an axis and correlation
    ``exp(-|lag| / memory_s)`` (between them the deviation is a little smaller: halfway ``sigma sqrt((1 + a) / 2)``).
    Position is the exact integral, so velocity is its derivative everywhere. ``w[n]`` is keyed by the mover and the
    time of step ``n``: the trajectory does not depend on when, or how often, it is asked for.

    Walls reflect: the walk is made in free space and folded back, as in a mirror; the mean velocity is mirrored with it.

    Raises:
        Misuse: a number is not finite, the position is outside the walls, or it would leave before it appears.

    Source: Liang and Haas, "Predictive distance-based mobility management for PCS networks", INFOCOM 1999, eq 1 (the recursion).
    """

    position_m: tuple[float, float, float] = (50.0, 0.0, 1.5)  # world frame, where it appears
    velocity_mps: tuple[float, float, float] = (0.0, 0.0, 0.0)  # mean
    sigma_mps: tuple[float, float, float] = (1.0, 1.0, 0.0)  # standard deviation about the mean, an axis
    memory_s: Annotated[float, Gt(0)] = 2.0  # time after which the velocity's correlation has fallen to 1/e
    step_ns: Annotated[int, In("ms"), Gt(0)] = 100_000_000  # between two draws
    low_m: tuple[float, float, float] = (-inf, -inf, -inf)  # walls
    high_m: tuple[float, float, float] = (inf, inf, inf)  # walls
    appear_s: Annotated[float, Ge(0)] = 0.0  # seconds of the run at which it is first there
    leave_s: Annotated[float, Gt(0)] = inf  # seconds of the run from which on it is gone

    def __post_init__(self) -> None:
        check_point("position_m", self.position_m)
        check_point("velocity_mps", self.velocity_mps)
        check_point("sigma_mps", self.sigma_mps)
        check_stay(self.appear_s, self.leave_s)
        if not all(s >= 0 for s in self.sigma_mps):
            raise Misuse(f"sigma_mps = {self.sigma_mps!r}: must be >= 0 on every axis")
        if not self.memory_s > 0:
            raise Misuse(f"memory_s = {self.memory_s!r}: must be > 0; a tiny one draws every step afresh")
        if not (self.step_ns > 0 and int(self.step_ns) == self.step_ns):
            raise Misuse(f"step_ns = {self.step_ns!r}: must be a whole number of nanoseconds > 0")
        for axis, low, here, high in zip("xyz", self.low_m, self.position_m, self.high_m, strict=True):
            if not (low <= here <= high and low < high):
                raise Misuse(
                    f"position_m: {axis} = {here!r}: must lie between the walls, low_m {low!r} and high_m {high!r}"
                )

    def movers(self) -> tuple[str, ...]:
        """One, unnamed."""
        return ("",)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> Wander:
        """At ``position_m`` with a velocity drawn from the stationary law."""
        w = self._draw(entity, draws, 0, 2)
        first_mps = np.array(self.velocity_mps) + np.array(self.sigma_mps) * w[0]
        return Wander(
            entity=entity,
            draws=draws,
            step=0,
            position_m=np.array(self.position_m, float),
            velocity_mps=first_mps,
            next_mps=self._next(first_mps, w[1]),
        )

    def at(self, state: Wander, t_ns: int) -> tuple[Wander, Motion]:
        """Step on to ``t_ns``; before it appears it waits."""
        since_ns = max(0, t_ns - round(self.appear_s * 1e9))
        step, step_s = since_ns // self.step_ns, self.step_ns * 1e-9
        position, velocity, following = state.position_m, state.velocity_mps, state.next_mps
        if step < state.step:
            raise Misuse(f"t_ns = {t_ns}: is before the step this mover has come to; start again for an earlier time")
        if step > state.step:
            for w in self._draw(state.entity, state.draws, state.step + 2, step - state.step):
                position = position + 0.5 * step_s * (velocity + following)
                velocity, following = following, self._next(following, w)
            state = Wander(
                entity=state.entity,
                draws=state.draws,
                step=step,
                position_m=position,
                velocity_mps=velocity,
                next_mps=following,
            )
        part = (since_ns - step * self.step_ns) / self.step_ns
        now_mps = velocity + part * (following - velocity)
        position_m, sign = self._fold(position + part * step_s * (velocity + 0.5 * part * (following - velocity)))
        return state, alone(position_m, sign * now_mps, t_ns, self.appear_s, self.leave_s)

    def _draw(self, entity: Int[Array, " mover"], draws: Draws, first: int, count: int) -> Float[Array, "step 3"]:
        at_ns = round(self.appear_s * 1e9) + self.step_ns * np.arange(first, first + count, dtype=np.int64)
        w: Float[Array, "step 3"] = draws.normal(STREAM, int(entity[0]), at_ns, 3)
        return w

    def _next(self, velocity_mps: Float[Array, " 3"], w: Float[Array, " 3"]) -> Float[Array, " 3"]:
        keep = exp(-self.step_ns * 1e-9 / self.memory_s)
        mean = np.array(self.velocity_mps)
        following: Float[Array, " 3"] = (
            mean + keep * (velocity_mps - mean) + sqrt(1 - keep * keep) * np.array(self.sigma_mps) * w
        )
        return following

    def _fold(self, free_m: Float[Array, " 3"]) -> tuple[Float[Array, " 3"], Float[Array, " 3"]]:
        """Mirror a position into the walls; the sign says which velocity components are mirrored."""
        position_m, sign = free_m.copy(), np.ones(3)
        for axis, (low, high) in enumerate(zip(self.low_m, self.high_m, strict=True)):
            if low == -inf and high == inf:
                continue
            from_m, width_m = (high - free_m[axis], inf) if low == -inf else (free_m[axis] - low, high - low)
            if width_m < inf:
                from_m %= 2 * width_m
                over = from_m > width_m
                position_m[axis] = low + (2 * width_m - from_m if over else from_m)
            else:
                over = from_m < 0
                position_m[axis] = high - abs(from_m) if low == -inf else low + abs(from_m)
            sign[axis] = -1.0 if over else 1.0
        return position_m, sign
