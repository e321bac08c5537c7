"""Controlled beam squint: each subcarrier points at its own place on a path past the user and the targets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Literal

import numpy as np

from hal.array import LIGHT_MPS, angles_from, cis, direction_from
from hal.check import Ge, Le
from hal.errors import Misuse
from hal.record import Array, Float
from twin.physics.fisher import Convention, Reflection
from twin.precoding import Design, Problem
from twin.precoding._scene import Allocation, Scene, Solution, by_row, scene

__all__ = ["Cbs", "fit", "path"]

_MOST = 7  # places on a path: 5040 orders are tried


@dataclass(frozen=True)
class Cbs:
    """papers/000's CBS-ISAC (section 5): path planning, a delay-phase fit, quantised delays, phases fitted again, then power.

    Both directions of the path are tried and the lower bound kept. The design ignores what it is worth: user and targets get the beam for a part
    of the band each, so the user's worst subcarriers have little gain once the spread exceeds a beamwidth.
    """

    power: Allocation = "exact"  # over subcarriers: eq21 as printed, exact eq (20), equal, waterfill
    rate_share: Annotated[float, Ge(0), Le(1)] = 0.5  # of the largest Gamma the beam can give every subcarrier
    fit: Literal["corrected", "printed"] = (
        "corrected"  # eq (24) with its units mended and phases wrapped, or as it stands
    )
    # steps of the phases' fit once there is a warm start, along the last design's way of the path alone; power solved to 0.1 %; 0: as at first
    budget_steps: Annotated[int, Ge(0)] = 0
    user: bool = True  # the path visits the user; False: targets alone
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    solver: Literal["closed", "cvxpy"] = "closed"

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; rows without a user or a target with gain get a steered beam."""
        return by_row(problem, self._solved, lambda p, i: scene(p, i, self.reflection, self.convention))

    def _solved(self, row: Scene, before: Solution | None) -> Solution:
        targets = row.target_direction
        if len(targets) >= _MOST:  # a path past the strongest
            strongest = np.sort(np.argsort(-np.mean(np.abs(row.target_gain) ** 2, axis=1), kind="stable")[: _MOST - 1])
            targets = targets[strongest]
        places = np.concatenate([row.user_direction[None], targets]) if self.user else targets
        way = path(places, len(row.frequency_hz))
        if before is not None and self.budget_steps:
            fits = [fit(row, pointed, self.fit, self.budget_steps) for pointed in (way, way[::-1])]
            delay_s, phase_rad = min(fits, key=lambda one: float(np.sum((one[0] - before.delay_s) ** 2)))
            response = row.response(delay_s, phase_rad)
            power_w = row.allocate(response, self.power, self.rate_share, self.solver, before.power_w)
            return Solution(delay_s=delay_s, phase_rad=phase_rad, power_w=power_w, steps=before.steps + 1)
        found: list[tuple[float, Solution]] = []
        for pointed in (way, way[::-1]):
            delay_s, phase_rad = fit(row, pointed, self.fit)
            response = row.response(delay_s, phase_rad)
            power_w = row.allocate(response, self.power, self.rate_share, self.solver)
            found.append((row.crb(response, power_w), Solution(delay_s=delay_s, phase_rad=phase_rad, power_w=power_w)))
        return min(found, key=lambda pair: pair[0])[1]


def path(direction: Float[Array, "place 3"], count: int) -> Float[Array, "count 3"]:
    """``count`` directions at equal steps along the shortest open path through all places, in azimuth and elevation.

    Every order is tried: at most seven places. A single place is where all point.
    """
    if not 1 <= len(direction) <= _MOST:
        raise Misuse(f"direction: has {len(direction)} places, must have 1 .. {_MOST}")
    place = np.column_stack(angles_from(direction))
    if len(place) == 1:
        return np.repeat(direction, count, axis=0)
    gap = np.linalg.norm(place[:, None] - place, axis=-1)
    orders = np.array([p for p in permutations(range(len(place))) if p[0] < p[-1]])
    long = gap[orders[:, :-1], orders[:, 1:]].sum(axis=1)
    order = orders[np.argmin(long)]
    along = np.concatenate([[0.0], np.cumsum(gap[order[:-1], order[1:]])])
    at = np.linspace(0.0, along[-1], count)
    return direction_from(np.interp(at, along, place[order, 0]), np.interp(at, along, place[order, 1]))


def fit(
    row: Scene, pointed: Float[Array, "subcarrier 3"], form: str = "corrected", steps: int = 30
) -> tuple[Float[Array, " line"], Float[Array, " element"]]:
    """Delays (on the hardware's steps) and phases whose beam points subcarrier m at ``pointed[m]``: papers/000 eqs (23)-(24).

    ``corrected``: phases counted from the array's centre and free to wrap, a free common phase a subcarrier, delays about the middle of their range: each
    line's delay is the least-squares slope over frequency of the phase its sub-array should have; after quantising, phases and common phases are fitted
    again in turn, which never loses gain. ``printed``: eq (24) as it stands, boxes, units and signs included, solved to convergence.
    """
    if form == "printed":
        return _printed(row, pointed)
    if form != "corrected":
        raise Misuse(f"fit = {form!r}: must be 'corrected' or 'printed' (eq 24 as it stands)")
    path_m = pointed[:, 1:] @ row.array.position_m[:, 1:].T  # [m n]
    wanted = -2 * np.pi / LIGHT_MPS * row.frequency_hz[:, None] * path_m
    delay_s = np.zeros(row.lines)
    if row.lines:
        turn = 2 * np.pi * (row.frequency_hz - row.carrier_hz)
        slope = -(turn @ wanted) / max(float(turn @ turn), 1e-300)  # [n], s
        delay_s = np.bincount(row.line, slope, row.lines) / np.bincount(row.line, minlength=row.lines)
        delay_s = _on_grid(row, delay_s - (delay_s.max() + delay_s.min()) / 2, True)
    target = cis(wanted) * np.conj(row.ramp(delay_s))  # phases should equal this but for a common phase a subcarrier
    phase = cis(np.angle(target[len(target) // 2]))
    for _ in range(steps):
        common = np.conj(target) @ phase
        phase_next = np.exp(1j * np.angle((common / np.abs(common).clip(1e-300)) @ target))
        if np.max(np.abs(phase_next - phase)) < 1e-9:
            break
        phase = phase_next
    return delay_s, np.angle(phase)


def _on_grid(row: Scene, delay_s: Float[Array, " line"], about_middle: bool) -> Float[Array, " line"]:
    network = row.network
    step_s = network.delay_range_s / 2**network.delay_bits if network.delay_bits else 0.0
    longest_s = network.delay_range_s - step_s
    kept = np.clip(delay_s + (longest_s / 2 if about_middle else 0.0), 0.0, longest_s)
    return np.asarray(np.rint(kept / step_s) * step_s if step_s else kept)


def _printed(row: Scene, pointed: Float[Array, "subcarrier 3"]) -> tuple[Array, Array]:
    """Minimise sum |phi_n - 2 f_m T_q + (f_m / f_c)(u_y n_h + u_z n_v)|^2 in boxes: convex; each variable exactly, in turn, until still."""
    column, up = np.divmod(np.arange(len(row.line)), row.array.rows)
    steer = (row.frequency_hz / row.carrier_hz)[:, None] * (pointed[:, 1:2] * column + pointed[:, 2:3] * up)  # [m n]
    double_f = 2 * row.frequency_hz
    delay_s, phi = np.zeros(row.lines), np.zeros(len(row.line))
    for _ in range(200):
        spread = delay_s[row.line] if row.lines else np.zeros(len(row.line))
        phi_next = np.clip((double_f[:, None] * spread - steer).mean(axis=0), 0.0, 2 * np.pi)
        if row.lines:
            wanted = (double_f @ (phi_next + steer)) / (double_f @ double_f)
            mean = np.bincount(row.line, wanted, row.lines) / np.bincount(row.line, minlength=row.lines)
            delay_s = np.clip(mean, 0.0, row.network.delay_range_s)
        if np.max(np.abs(phi_next - phi)) < 1e-12:
            break
        phi = phi_next
    return _on_grid(row, delay_s, False), np.asarray(np.mod(np.pi * phi_next, 2 * np.pi))  # its phases are minus ours
