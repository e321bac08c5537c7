"""Waypoints: a mover along straight legs, at one speed or by a timetable, once or round and round."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Float, Int, record
from twin.mobility import Motion
from twin.mobility.static import alone, check_point, check_stay
from twin.physics.draws import Draws

__all__ = ["Waypoints"]


@record
class Route:
    """The legs with their times: leg ``i`` runs from point ``i`` to ``i + 1`` in ``time_ns[i] .. time_ns[i + 1]``."""

    time_ns: Int[Array, " point"]  # since the mover appeared
    point_m: Float[Array, "point 3"]
    velocity_mps: Float[Array, "leg 3"]


@dataclass(frozen=True)
class Waypoints:
    """Linear interpolation between points: velocity is constant on a leg and jumps at a corner, where it is that of the leg that follows.

    Without ``times_s`` every leg is driven at ``speed_mps``. With ``loop`` the way closes to the first point and starts again;
    without, the mover stands at the last point. Corners are not rounded.

    Raises:
        Misuse: fewer than two points, points that coincide (at one speed), times that do not ascend or do not match the points,
            both or neither of ``speed_mps`` and ``times_s``, a timed loop that does not end where it began.
    """

    points_m: tuple[tuple[float, float, float], ...] = ((50.0, -50.0, 1.5), (50.0, 50.0, 1.5))  # world frame
    speed_mps: Annotated[float, Gt(0)] | None = None  # along every leg; leave out where times_s is given
    times_s: tuple[float, ...] | None = None  # arrival at each point, in seconds since it appeared; the first is 0
    loop: bool = False  # back to the first point and round again
    appear_s: Annotated[float, Ge(0)] = 0.0  # seconds of the run at which it is first there, at the first point
    leave_s: Annotated[float, Gt(0)] = inf  # seconds of the run from which on it is gone

    def __post_init__(self) -> None:
        if len(self.points_m) < 2:
            raise Misuse(f"points_m: has {len(self.points_m)} points, must have two or more; one point is kind: static")
        for i, point in enumerate(self.points_m):
            check_point(f"points_m[{i}]", point)
        check_stay(self.appear_s, self.leave_s)
        if (self.speed_mps is None) == (self.times_s is None):
            raise Misuse(f"speed_mps = {self.speed_mps!r}, times_s = {self.times_s!r}: give one of the two")
        if self.times_s is None:
            self._check_speed()
        else:
            self._check_times(self.times_s)

    def _check_speed(self) -> None:
        assert self.speed_mps is not None
        if not 0 < self.speed_mps < inf:
            raise Misuse(f"speed_mps = {self.speed_mps!r}: must be finite and > 0; a mover that stands is kind: static")
        for i, (a, b) in enumerate(pairwise(self.points_m)):
            if a == b:
                raise Misuse(f"points_m[{i + 1}] = {b!r}: is the point before it; to wait there, give times_s")

    def _check_times(self, times_s: tuple[float, ...]) -> None:
        if len(times_s) != len(self.points_m):
            raise Misuse(f"times_s: has {len(times_s)} times for {len(self.points_m)} points, must have one each")
        if not times_s[0] == 0:
            raise Misuse(f"times_s[0] = {times_s[0]!r}: must be 0, times count from appear_s")
        for i, (a, b) in enumerate(pairwise(times_s)):
            # A nanosecond apart in the clock, not only as floats.
            if not (a < b < inf and round(a * 1e9) < round(b * 1e9)):
                raise Misuse(f"times_s[{i + 1}] = {b!r}: must be finite and later than times_s[{i}] = {a!r}")
        if self.loop and self.points_m[0] != self.points_m[-1]:
            raise Misuse(
                f"points_m[-1] = {self.points_m[-1]!r}: must be the first point, for a loop by times_s; or set speed_mps"
            )

    def movers(self) -> tuple[str, ...]:
        """One, unnamed."""
        return ("",)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> Route:
        """The legs with their times."""
        points = np.array(self.points_m, float)
        if self.times_s is None:
            assert self.speed_mps is not None
            if self.loop and not np.array_equal(points[0], points[-1]):
                points = np.vstack([points, points[:1]])
            way_m = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
            time_ns = np.rint(way_m / self.speed_mps * 1e9).astype(np.int64)
            if not np.all(np.diff(time_ns) > 0):
                i = int(np.argmin(np.diff(time_ns)))
                raise Misuse(
                    f"points_m[{i + 1}]: is less than a nanosecond at {self.speed_mps!r} m/s from the point before it"
                )
        else:
            time_ns = np.rint(np.array(self.times_s) * 1e9).astype(np.int64)
        return Route(
            time_ns=time_ns, point_m=points, velocity_mps=np.diff(points, axis=0) / (np.diff(time_ns) * 1e-9)[:, None]
        )

    def at(self, state: Route, t_ns: int) -> tuple[Route, Motion]:
        """Where it has come to at ``t_ns``."""
        since_ns, end_ns = max(0, t_ns - round(self.appear_s * 1e9)), int(state.time_ns[-1])
        if since_ns >= end_ns and not self.loop:
            return state, alone(state.point_m[-1], (0.0, 0.0, 0.0), t_ns, self.appear_s, self.leave_s)
        since_ns %= end_ns
        leg = int(np.searchsorted(state.time_ns, since_ns, side="right")) - 1
        velocity_mps = state.velocity_mps[leg]
        position_m = state.point_m[leg] + (since_ns - int(state.time_ns[leg])) * 1e-9 * velocity_mps
        return state, alone(position_m, velocity_mps, t_ns, self.appear_s, self.leave_s)
