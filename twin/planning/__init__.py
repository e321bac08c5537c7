"""Planning: sensing time, updates, dwells, and who is served when, for the next subframe. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.frontend import FrontendSpec
from hal.record import Array, Int
from twin.records import Belief, Numerology, Plan

__all__ = ["Planner"]


class Planner(Protocol):
    """A planner: a frozen dataclass of its parameters."""

    def plan(self, k: int, belief: Belief, user: Int[Array, " user"], spec: FrontendSpec, numerology: Numerology, previous: Plan | None) -> Plan:
        """The plan of subframe ``k``, from belief."""
