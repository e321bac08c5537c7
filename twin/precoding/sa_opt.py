"""SA-Opt: delay lines that align the user's and the targets' beamspace patterns, then phases and power in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from hal.check import Ge, Le
from hal.errors import Misuse
from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Problem
from twin.precoding._phases import Alternation, Update
from twin.precoding._scene import Allocation, Scene, Solution, by_row, delay_grid, scene
from twin.precoding._search import Search

__all__ = ["SaOpt"]

_REACH = 2  # levels either way that a warm start tries


@dataclass(frozen=True)
class SaOpt:
    """papers/000's SA-Opt (Algorithm 1): each delay line in turn takes the level of highest C-S correlation, then phases and power alternate.

    ``update = eq19``, ``power = eq21`` are the paper's own steps; the defaults reach lower bounds at no more cost. The delays it finds do not help:
    the same phases and power without delay lines (``no_ttd``) do as well or better, and ``direct`` beats both.
    Left out: who is served next, receive combining, phases' and amplitudes' steps.
    """

    update: Update = "amp"  # phases: eq19 as printed, power climbs eq (18), amp the sum of amplitudes
    power: Allocation = "exact"  # over subcarriers: eq21 as printed, exact eq (20), equal, waterfill
    rate_share: Annotated[float, Ge(0), Le(1)] = 0.5  # of the largest Gamma the beam can give every subcarrier
    eta: Annotated[float, Ge(0)] = 1.0  # the targets' weight against the user's
    balanced: bool = True  # eta counts from equal mean gains of both sides; False: eta of eq (18) as it stands
    dictionary: Annotated[int, Ge(2)] = (
        32  # directions an axis; twice the array's own loses nothing, N_t is the paper's
    )
    guard: Annotated[float, Ge(0)] = 0.0  # added to both distributions; above 1e-9 it changes the choices
    passes: Annotated[int, Ge(1)] = 8  # over all lines, at most
    rounds: Annotated[int, Ge(1)] = 6  # of phases and power, at most
    # lines tried a design once there is a warm start, two levels either way, then as many steps of the phases and one of power, solved to 0.1 %;
    # 0: all, as at first
    budget_steps: Annotated[int, Ge(0)] = 0
    start: Literal["random", "steered"] = "random"  # delays to start from
    seed: int = 0  # of the random start
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    solver: Literal["closed", "cvxpy"] = "closed"
    precision: Literal["single", "double"] = "single"  # of the search

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam."""
        return by_row(problem, self._solved, lambda p, i: scene(p, i, self.reflection, self.convention))

    def _solved(self, row: Scene, before: Solution | None) -> Solution:
        level_s = delay_grid(row.network)
        tried = 0
        if row.lines:
            grid = (max(self.dictionary, row.array.columns), max(self.dictionary, row.array.rows))
            search = Search(row, grid, self.guard, self.precision)
            if before is not None and self.budget_steps:
                first = before.steps % row.lines
                delay_s, tried = search.run(
                    before.delay_s, level_s, 1, first, min(self.budget_steps, row.lines), _REACH
                )
                tried += before.steps
            else:
                delay_s, tried = search.run(self._start(row, level_s), level_s, self.passes)
        else:
            delay_s = np.zeros(0)
        alternation = Alternation(
            self.update, self.eta, self.balanced, self.power, self.rate_share, self.rounds, self.solver
        )
        if before is None or not self.budget_steps:
            return replace(alternation.run(row, delay_s), steps=tried)
        return replace(replace(alternation, steps=self.budget_steps).run(row, delay_s, before), steps=tried)

    def _start(self, row: Scene, level_s: np.ndarray) -> np.ndarray:
        if self.start == "steered":
            return row.steered()[0]
        if self.start != "random":
            raise Misuse(f"start = {self.start!r}: must be 'random', as printed, or 'steered'")
        rng = np.random.Generator(np.random.Philox(key=self.seed))
        return np.asarray(level_s[rng.integers(len(level_s), size=row.lines)])
