"""Delays, phases and power found together, by gradient, for a stated utility of rate and Cramer-Rao bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from hal.check import Ge
from hal.errors import Misuse
from hal.record import Array, Float
from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Problem
from twin.precoding._joint import Utility
from twin.precoding._phases import Alternation
from twin.precoding._scene import Scene, Solution, by_row, delay_grid, scene
from twin.precoding.cbs import fit, path

__all__ = ["Direct"]

_MOST_PLACES = 6


@dataclass(frozen=True)
class Direct:
    """Climbs ``U = rate_weight R / R_comm - ln CRB`` over continuous delays, phases and power at once; delays are then put on their grid.

    L-BFGS with exact gradients from several starts; after quantising, phases and power are climbed again, and each line may still move to any other
    level that raises U, in turn, until none does. ``R_comm`` is what a matched beam would carry, so the weight means the same at any SNR: 0 asks for
    the bound alone, 1 trades one nat (4.3 dB) of bound for the whole rate. A warm start goes on from the last design and spends ``budget_steps``
    evaluations, no more. Left out: phases' and amplitudes' steps (64 phases cost 0.1 %); the result is a local optimum.
    """

    rate_weight: Annotated[float, Ge(0)] = 2.0  # nats of bound that the whole rate is worth
    starts: Annotated[int, Ge(1)] = 3  # of: flat delays, steered delays, controlled squint, then random ones
    iterations: Annotated[int, Ge(1)] = 250  # of a climb, at most
    rounds: Annotated[int, Ge(0)] = 6  # of lines tried in turn and phases climbed again, at most
    budget_steps: Annotated[int, Ge(0)] = (
        0  # evaluations a row once there is a warm start, three of them to choose where from; 0: as at first
    )
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    seed: int = 0  # of random starts beyond the third

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam."""
        return by_row(problem, self._solved, lambda p, i: scene(p, i, self.reflection, self.convention))

    def utility(self, row: Scene) -> Utility:
        """The utility this precoder climbs for a row."""
        matched = np.abs(row.user_gain) ** 2 * len(row.line) / row.noise_w
        whole = float(np.sum(np.log2(1 + matched * row.power_w / len(matched))))
        return Utility(row, self.rate_weight / max(whole, 1e-300))

    def _solved(self, row: Scene, before: Solution | None) -> Solution:
        utility = self.utility(row)
        if before is not None and self.budget_steps:
            return self._warm(row, utility, before)
        level_s = delay_grid(row.network)
        best: tuple[float, Solution] | None = None
        begun = [self._start(row, i) for i in range(self.starts)]
        if before is not None:
            begun.append(before)
        for first in begun:
            theta, delay_s, z, value = _climb(utility, row, first, self.iterations, True)
            if best is None or value > best[0]:
                best = (value, _solution(row, theta, delay_s, z))
        assert best is not None
        found = best[1]
        if row.network.delay_bits and row.lines:
            found = self._on_grid(row, utility, found, level_s)
        return found

    def _on_grid(self, row: Scene, utility: Utility, found: Solution, level_s: Float[Array, " level"]) -> Solution:
        """Delays to the nearest levels (the carrier's phase kept), then phases and power climbed and lines tried in turn."""
        nearest = level_s[np.argmin(np.abs(found.delay_s[:, None] - level_s), axis=1)]
        theta = _theta(row, found)
        theta, delay_s, z, _ = _climb(
            utility, row, _solution(row, theta, nearest, _logs(found.power_w)), self.iterations, False
        )
        for _ in range(self.rounds):
            power = _shares(z) * row.power_w
            delay_s, changed = utility.polish(theta, delay_s, power, level_s)
            if not changed:
                break
            theta, delay_s, z, _ = _climb(utility, row, _solution(row, theta, delay_s, z), self.iterations, False)
        return _solution(row, theta, delay_s, z)

    def _warm(self, row: Scene, utility: Utility, before: Solution) -> Solution:
        """A bounded step from the best of: the last design, the same with equal power, a steered beam; then one line's neighbouring levels."""
        equal = np.full(len(before.power_w), row.power_w / len(before.power_w))
        steered_s, steered_rad = row.steered()
        begun = [
            before,
            Solution(delay_s=before.delay_s, phase_rad=before.phase_rad, power_w=equal),
            Solution(delay_s=steered_s, phase_rad=steered_rad, power_w=equal),
        ]
        worth = [utility.parts(_theta(row, one), one.delay_s, one.power_w)[0] for one in begun]
        first = begun[int(np.argmax(worth))]
        if self.budget_steps <= len(begun):
            return Solution(
                delay_s=first.delay_s, phase_rad=first.phase_rad, power_w=first.power_w, steps=before.steps + 1
            )
        delay_s, steps = first.delay_s, before.steps + 1
        theta, z, _ = utility.ascend(_theta(row, first), delay_s, _logs(first.power_w), self.budget_steps - len(begun))
        if row.network.delay_bits and row.lines:
            power = _shares(z) * row.power_w
            delay_s, _ = utility.polish(theta, delay_s, power, delay_grid(row.network), before.steps % row.lines, 1, 1)
        found = _solution(row, theta, delay_s, z)
        return Solution(delay_s=found.delay_s, phase_rad=found.phase_rad, power_w=found.power_w, steps=steps)

    def _start(self, row: Scene, number: int) -> Solution:
        equal = np.full(len(row.frequency_hz), row.power_w / len(row.frequency_hz))
        middle_s = np.full(
            row.lines, (delay_grid(row.network)[-1] if row.network.delay_bits else row.network.delay_range_s) / 2
        )
        alternation = Alternation(power="equal", rounds=1)
        if number == 0:
            return alternation.run(row, middle_s)
        if number == 1:
            return alternation.run(row, row.steered()[0])
        if number == 2:
            strongest = np.argsort(-np.mean(np.abs(row.target_gain) ** 2, axis=1), kind="stable")[: _MOST_PLACES - 1]
            places = np.concatenate([row.user_direction[None], row.target_direction[np.sort(strongest)]])
            delay_s, phase_rad = fit(row, path(places, len(row.frequency_hz)))
            return Solution(delay_s=delay_s, phase_rad=phase_rad, power_w=equal)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, number]))
        return alternation.run(row, rng.uniform(0, 2 * middle_s.max(initial=0.0), row.lines))


def _climb(
    utility: Utility, row: Scene, start: Solution, iterations: int, delays: bool, evaluations: int | None = None
) -> tuple[Array, Array, Array, float]:
    """L-BFGS from ``start`` over phases, powers and (if asked) delays: (theta, delay_s, z, U). ``evaluations`` is a hard limit."""
    from scipy.optimize import minimize

    elements, lines, subcarriers = utility.sizes
    lines = lines if delays else 0
    # a delay's unit: what turns the band's edge by about a radian
    unit_s = 1.0 / max(2 * np.pi * float(np.std(row.frequency_hz)), 1.0)
    longest_s = row.network.delay_range_s * (1 - 2.0**-row.network.delay_bits if row.network.delay_bits else 1.0)
    held = start.delay_s
    best: list[Any] = [-np.inf, None]
    used = 0

    def split(x: Array) -> tuple[Array, Array, Array]:
        return x[:elements], x[elements : elements + lines] * unit_s if delays else held, x[elements + lines :]

    def cost(x: Array) -> tuple[float, Array]:
        nonlocal used
        if evaluations is not None and used >= evaluations:
            raise StopIteration
        used += 1
        value, (d_theta, d_delay, d_z) = utility(*split(x))
        if value > best[0]:
            best[:] = value, x.copy()
        slope = np.concatenate([d_theta, d_delay * unit_s, d_z]) if delays else np.concatenate([d_theta, d_z])
        return (-value, -slope) if np.isfinite(value) else (1e6, np.zeros_like(slope))

    parts = [_theta(row, start), np.clip(held, 0, longest_s) / unit_s if delays else np.zeros(0), _logs(start.power_w)]
    bounds = [(None, None)] * elements + [(0.0, longest_s / unit_s)] * lines + [(None, None)] * subcarriers
    try:
        minimize(
            cost,
            np.concatenate(parts),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds if lines else None,
            options={"maxiter": iterations, "maxfun": 4 * iterations, "ftol": 1e-9, "gtol": 1e-7, "maxcor": 20},
        )
    except StopIteration:
        pass
    if best[1] is None:
        raise Misuse(
            "target_gain: the Fisher information is singular at every start (targets in one direction, or not lit); merge or drop targets"
        )
    theta, delay_s, z = split(best[1])
    return theta, np.asarray(delay_s), z, float(best[0])


def _theta(row: Scene, found: Solution) -> Float[Array, " element"]:
    """Phases at the carrier, delays included."""
    through_s = found.delay_s[row.line] if row.lines else 0.0
    return np.asarray(found.phase_rad - 2 * np.pi * row.carrier_hz * through_s)


def _solution(row: Scene, theta: Array, delay_s: Array, z: Array) -> Solution:
    through_s = delay_s[row.line] if row.lines else 0.0
    phase_rad = np.mod(theta + 2 * np.pi * np.mod(row.carrier_hz * through_s, 1.0), 2 * np.pi)
    return Solution(delay_s=np.asarray(delay_s), phase_rad=phase_rad, power_w=_shares(z) * row.power_w)


def _shares(z: Array) -> Float[Array, " subcarrier"]:
    share = np.exp(z - z.max())
    return np.asarray(share / share.sum())


def _logs(power_w: Array) -> Float[Array, " subcarrier"]:
    return np.asarray(np.log(np.maximum(power_w, 1e-6 * power_w.mean())))
