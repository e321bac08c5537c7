"""Static: a mover that stays where it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt
from hal.errors import Misuse
from hal.record import Array, Float, Int
from twin.mobility import Motion
from twin.physics.draws import Draws

__all__ = ["Static", "alone", "check_point", "check_stay"]


@dataclass(frozen=True)
class Static:
    """``p(t) = p_0``, ``v = 0``, from ``appear_s`` to ``leave_s``.

    Raises:
        Misuse: a coordinate is not finite, or it would leave before it appears.
    """

    position_m: tuple[float, float, float] = (50.0, 0.0, 1.5)  # world frame: east, north, up
    appear_s: Annotated[float, Ge(0)] = 0.0  # seconds of the run at which it is first there
    leave_s: Annotated[float, Gt(0)] = inf  # seconds of the run from which on it is gone

    def __post_init__(self) -> None:
        check_point("position_m", self.position_m)
        check_stay(self.appear_s, self.leave_s)

    def movers(self) -> tuple[str, ...]:
        """One, unnamed."""
        return ("",)

    def start(self, entity: Int[Array, " mover"], draws: Draws) -> None:
        """No state."""

    def at(self, state: None, t_ns: int) -> tuple[None, Motion]:
        """The same place at any ``t_ns``."""
        return None, alone(self.position_m, (0.0, 0.0, 0.0), t_ns, self.appear_s, self.leave_s)


def alone(
    position_m: Sequence[float] | Float[Array, " 3"],
    velocity_mps: Sequence[float] | Float[Array, " 3"],
    t_ns: int,
    appear_s: float,
    leave_s: float,
) -> Motion:
    """Return the motion of a single mover that is there in ``appear_s <= t < leave_s``."""
    return Motion(
        position_m=np.array([position_m], float),
        velocity_mps=np.array([velocity_mps], float),
        present=np.array([bool(appear_s * 1e9 <= t_ns < leave_s * 1e9)]),
    )


def check_stay(appear_s: float, leave_s: float) -> None:
    """Raise Misuse unless a mover appears at a time >= 0 and leaves later."""
    if not 0 <= appear_s < inf:
        raise Misuse(f"appear_s = {appear_s!r}: must be finite and >= 0, the run starts at 0")
    if not leave_s > appear_s:
        raise Misuse(f"leave_s = {leave_s!r}: must be > appear_s = {appear_s!r}; leave it out for one that stays")


def check_point(field: str, value: Sequence[float]) -> None:
    """Raise Misuse unless ``value`` is three finite numbers."""
    if len(value) != 3 or not all(np.isfinite(x) for x in value):
        raise Misuse(f"{field} = {value!r}: must be three finite numbers, x (east), y (north) and z (up)")
