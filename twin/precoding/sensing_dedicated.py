"""A beam for the targets alone: its squint sweeps past all of them, and the user gets what falls its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Problem
from twin.precoding._scene import Allocation
from twin.precoding.cbs import Cbs

__all__ = ["SensingDedicated"]


@dataclass(frozen=True)
class SensingDedicated:
    """papers/000's sensing-dedicated reference: controlled squint along the shortest path through the targets, no rate asked for.

    Our reading of its [13]. It is a weak reference: well above the fully digital minimum, and above ``direct`` with a small weight on rate.
    """

    power: Allocation = "exact"  # over subcarriers: eq21 as printed, exact eq (20)
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    solver: Literal["closed", "cvxpy"] = "closed"

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam."""
        swept = Cbs(
            power=self.power,
            rate_share=0.0,
            user=False,
            reflection=self.reflection,
            convention=self.convention,
            solver=self.solver,
        )
        return swept.design(problem)
