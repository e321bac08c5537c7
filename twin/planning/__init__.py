"""Planning: sensing time, updates, dwells, and who is served when, for the next subframe. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.frontend import FrontendSpec
from hal.record import Array, Float, Int, record
from twin.records import Belief, Numerology, Plan

__all__ = ["Planner", "Requests"]


@record
class Requests:
    """Rows of beam memory that somebody must fill, and where they are to point; directions in each half's own array frame."""

    transmit_slot: Int[Array, " row"]
    transmit_direction: Float[Array, "row 3"]
    transmit_user: Int[Array, " row"]  # whose data the row carries, or -1
    transmit_track: Int[Array, " row"]  # what the row looks at, or -1
    receive_slot: Int[Array, " rrow"]
    receive_direction: Float[Array, "rrow chain 3"]
    receive_centre: Float[Array, "rrow 3"]  # about which a row listens for echoes; NaN: it hears pilots


class Planner(Protocol):
    """A planner: a frozen dataclass of its parameters. What it must remember is in the plans it makes."""

    def plan(
        self,
        k: int,
        belief: Belief,
        user: Int[Array, " user"],
        spec: FrontendSpec,
        numerology: Numerology,
        previous: Plan | None,
    ) -> Plan:
        """The plan of subframe ``k``, from belief."""

    def raster_requests(self, spec: FrontendSpec) -> Requests:
        """Rows that never change, to be loaded once before the first subframe."""

    def data_requests(self, plan: Plan, belief: Belief, spec: FrontendSpec, t_ns: int | None = None) -> Requests:
        """Rows for the users a plan serves, pointed where they are believed to be at ``t_ns``."""

    def dwell_requests(self, plan: Plan, belief: Belief, spec: FrontendSpec, t_ns: int | None = None) -> Requests:
        """Rows for a plan's dwells, pointed where what they look at is believed to be at ``t_ns``."""
