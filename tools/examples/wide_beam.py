"""A precoder of your own: a beam widened across its columns, for users that are known less well than a pencil beam is narrow.

Use it:  twin run scenarios/smoke.yaml --set precoder.kind=tools.examples.wide_beam:WideBeam --set precoder.turns=0.3
"""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from hal.check import Ge
from twin.precoding import Design, Problem
from twin.precoding.delay_phase import DelayPhase

__all__ = ["WideBeam"]


@dataclass(frozen=True)
class WideBeam:
    """The steered beam plus a quadratic phase over the columns, ``2 pi turns x^2`` with x from -1 to 1 across the array."""

    turns: Annotated[float, Ge(0)] = 0.5  # phase at the edges; 0: a pencil beam

    def design(self, problem: Problem) -> Design:
        """Settings for every row; the power over subcarriers stays equal."""
        pencil = DelayPhase().design(problem)
        across_m = problem.half.array.position_m[:, 1]  # array frame: y along the columns
        x = across_m / np.abs(across_m).max()
        return replace(pencil, phase_rad=pencil.phase_rad + 2 * np.pi * self.turns * x**2)
