"""Mobility: how movers move. Every other module of this folder plays the role; the scenario's ``kind`` is the module's name."""

from __future__ import annotations

from typing import Any, Protocol

from hal.record import Array, Bool, Float, record
from twin.physics.draws import Draws

__all__ = ["Mobility", "Motion"]


@record
class Motion:
    """Where the movers of one law are at one instant."""

    position_m: Float[Array, "mover 3"]  # world frame
    velocity_mps: Float[Array, "mover 3"]
    present: Bool[Array, " mover"]  # False before it appears and after it has left


class Mobility(Protocol):
    """A law of motion for one mover, or for all movers of a trace: a frozen dataclass of its parameters.

    Time runs forward: ``at`` is called with ascending ``t_ns``. The state goes in and comes out; nothing is kept.
    """

    def movers(self) -> tuple[str, ...]:
        """Names of the movers within this law (one, unnamed, for a law of a single mover); fixed for the whole run."""

    def start(self, entity: Array, draws: Draws) -> Any:
        """Return the state at t = 0 for movers whose entity numbers are ``entity`` (the keys of their random streams)."""

    def at(self, state: Any, t_ns: int) -> tuple[Any, Motion]:
        """Return the state and the motion at ``t_ns``."""
