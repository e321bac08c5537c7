"""Phases and power in turn with every delay line at the same setting: what phase shifters alone can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from hal.check import Ge, Le
from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Problem
from twin.precoding._phases import Alternation, Update
from twin.precoding._scene import Allocation, Scene, Solution, by_row, scene

__all__ = ["NoTtd"]


@dataclass(frozen=True)
class NoTtd:
    """papers/000's "Opt w/o TTD": SA-Opt's alternation of phases and power, all delays zero (rows with nothing to weigh are steered, delays and all)."""

    update: Update = "amp"  # phases: eq19 as printed, power climbs eq (18), amp the sum of amplitudes
    power: Allocation = "exact"  # over subcarriers: eq21 as printed, exact eq (20), equal, waterfill
    rate_share: Annotated[float, Ge(0), Le(1)] = 0.5  # of the largest Gamma the beam can give every subcarrier
    eta: Annotated[float, Ge(0)] = 1.0  # the targets' weight against the user's
    balanced: bool = True  # eta counts from equal mean gains of both sides; False: eta of eq (18) as it stands
    rounds: Annotated[int, Ge(1)] = 6  # of phases and power, at most
    # steps of the phases once there is a warm start, then one of power, solved to 0.1 %; 0: as at first
    budget_steps: Annotated[int, Ge(0)] = 0
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    solver: Literal["closed", "cvxpy"] = "closed"

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam."""
        return by_row(problem, self._solved, lambda p, i: scene(p, i, self.reflection, self.convention))

    def _solved(self, row: Scene, before: Solution | None) -> Solution:
        alternation = Alternation(
            self.update, self.eta, self.balanced, self.power, self.rate_share, self.rounds, self.solver
        )
        if before is None or not self.budget_steps:
            return alternation.run(row, np.zeros(row.lines))
        found = replace(alternation, steps=self.budget_steps).run(row, np.zeros(row.lines), before)
        return replace(found, steps=before.steps + self.budget_steps)
