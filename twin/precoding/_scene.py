"""One row of a precoding problem, prepared: what a beam is worth to its user and its targets, and the way back to a design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hal.array import AntennaArray, cis, element_amplitude, steering
from hal.check import positive
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.network import NetworkSpec
from hal.record import Array, Bool, Complex, Float, Int
from twin.physics.allocation import crb_power, jensen_power, largest_snr, least_powers, unit_bounds
from twin.physics.fisher import (
    Convention,
    Reflection,
    angle_weight,
    crb,
    echo_gram,
    illumination,
    information,
    total_information,
)
from twin.physics.rate import rate_bps
from twin.precoding import Design, Problem
from twin.precoding.delay_phase import steer, waterfill

__all__ = ["Allocation", "Scene", "Solution", "by_row", "delay_grid", "scene"]

_SAME = 1e-3  # difference of direction cosines below which two targets are one
Allocation = Literal["eq21", "exact", "equal", "waterfill"]


@dataclass(frozen=True)
class Scene:
    """A user and the targets to be lit with it, by one beam of effective response ``exp(j (phase - 2 pi f T)) / sqrt(N)``."""

    array: AntennaArray
    receive: AntennaArray
    network: NetworkSpec
    line: Int[Array, " element"]  # of all chains' lines; -1 without delay lines
    lines: int
    frequency_hz: Float[Array, " subcarrier"]
    user_direction: Float[Array, " 3"]
    user_gain: Complex[Array, " subcarrier"]
    target_direction: Float[Array, "target 3"]
    target_gain: Complex[Array, "target subcarrier"]
    power_w: float
    noise_w: float
    echo_noise_w: float
    reflection: Reflection = "known"
    convention: Convention = "consistent"
    bound: Literal["angles", "cosines"] = "angles"

    @property
    def carrier_hz(self) -> float:
        """The mean of the subcarriers."""
        return float(self.frequency_hz.mean())

    @cached_property
    def user_row(self) -> Complex[Array, "subcarrier element"]:
        """The user's channel row ``g a``."""
        a = steering(self.array, self.user_direction[None, :], self.frequency_hz)
        return np.asarray(self.user_gain[:, None] * a)

    @cached_property
    def target_rows(self) -> Complex[Array, "target subcarrier element"]:
        """Steering vectors towards the targets (conjugate in the printed convention), without their gain."""
        a = steering(self.array, self.target_direction[:, None, :], self.frequency_hz[None, :])
        return np.asarray(a.conj() if self.convention == "printed" else a)

    @cached_property
    def gram(self) -> Complex[Array, "subcarrier target 3 target 3"]:
        """The receiver's part of the information (``fisher.echo_gram``), every receive element heard."""
        return np.asarray(
            echo_gram(
                self.receive,
                self.target_direction,
                self.target_gain,
                self.frequency_hz,
                self.echo_noise_w,
                self.reflection,
                convention=self.convention,
            )
        )

    @cached_property
    def weight(self) -> Float[Array, "parameter parameter"]:
        """What turns information on cosines into the bound asked for."""
        return angle_weight(self.target_direction) if self.bound == "angles" else np.eye(2 * len(self.target_direction))

    def ramp(self, delay_s: Float[Array, "... line"]) -> Complex[Array, "... subcarrier element"]:
        """``exp(-j 2 pi f T)`` of every element."""
        if not self.lines:
            return np.ones((*delay_s.shape[:-1], len(self.frequency_hz), len(self.line)), dtype=np.complex128)
        turn = cis((-2 * np.pi * self.frequency_hz)[:, None] * delay_s[..., None, :])
        return np.asarray(np.take(turn, self.line, axis=-1))

    def response(
        self, delay_s: Float[Array, "... line"], phase_rad: Float[Array, "... element"]
    ) -> Complex[Array, "... subcarrier element"]:
        """What drives the elements, all chains together, unit norm."""
        return np.asarray(self.ramp(delay_s) * (cis(np.asarray(phase_rad)) / len(self.line) ** 0.5)[..., None, :])

    def snr_per_w(self, response: Complex[Array, "... subcarrier element"]) -> Float[Array, "... subcarrier"]:
        """The user's ratio of signal to noise for one watt on each subcarrier."""
        return np.asarray(np.abs(np.sum(self.user_row * response, axis=-1)) ** 2 / self.noise_w)

    def unit_information(
        self, response: Complex[Array, "... subcarrier element"]
    ) -> Float[Array, "... subcarrier parameter parameter"]:
        """Fisher information of the targets' cosines at one watt on each subcarrier."""
        lit = illumination(self.array, self.target_direction, self.frequency_hz, response, self.convention)
        return np.asarray(information(self.gram, lit))

    def rate(self, response: Complex[Array, "subcarrier element"], power_w: Float[Array, " subcarrier"]) -> float:
        """Bits a symbol, summed over subcarriers: papers/000 eq (7)."""
        heard = np.sum(self.user_row * response, axis=-1)
        return float(rate_bps(heard, power_w, self.noise_w, 1.0))

    def crb(self, response: Complex[Array, "subcarrier element"], power_w: Float[Array, " subcarrier"]) -> float:
        """The bound of eq (11); infinite where the information is singular."""
        return float(crb(total_information(self.unit_information(response), power_w), self.weight, singular="inf"))

    def allocate(
        self,
        response: Complex[Array, "subcarrier element"],
        allocation: Allocation,
        rate_share: float,
        solver: Literal["closed", "cvxpy"] = "closed",
        near_w: Float[Array, " subcarrier"] | None = None,
    ) -> Float[Array, " subcarrier"]:
        """Power over subcarriers: ``exact`` is (20) and ``eq21`` is (21), both with ``Gamma = rate_share Gamma_max`` of this beam.

        With ``near_w``, a last design's powers, (20) starts there and is solved to 0.1 %.
        """
        snr_per_w = self.snr_per_w(response)
        if allocation == "equal":
            return np.full(len(snr_per_w), self.power_w / len(snr_per_w))
        if allocation == "waterfill":
            return np.asarray(waterfill(snr_per_w[None, :], self.power_w)[0])
        if not 0 <= rate_share <= 1:
            raise Misuse(f"rate_share = {rate_share!r}: must be 0 .. 1, the share of the largest attainable Gamma")
        least_w = least_powers(snr_per_w, self.power_w, rate_share * largest_snr(snr_per_w, self.power_w))
        unit = self.unit_information(response)
        if allocation == "eq21":
            return jensen_power(unit_bounds(unit, self.weight), least_w, self.power_w, solver)
        if allocation == "exact":
            tolerance = 1e-9 if near_w is None else 1e-3
            return crb_power(unit, least_w, self.power_w, self.weight, solver, tolerance, near_w)
        raise Misuse(f"power = {allocation!r}: must be 'exact' (eq 20), 'eq21', 'equal' or 'waterfill'")

    def steered(self) -> tuple[Float[Array, " line"], Float[Array, " element"]]:
        """Delays and phases of a beam at the user alone, squint taken out (``delay_phase``)."""
        return self.plain

    @cached_property
    def plain(self) -> tuple[Float[Array, " line"], Float[Array, " element"]]:
        """What ``steered`` gives; ``by_row`` knows it already."""
        half = HalfSpec(array=self.array, network=self.network, memory_slots=1)
        chains = len(self.network.wired)
        settings = steer(half, np.broadcast_to(self.user_direction, (1, chains, 3)), self.carrier_hz)
        owner = np.argmax(self.network.wired, axis=0)
        phase = settings.phase_rad[0, owner, np.arange(len(owner))]
        return settings.delay_s[0, : self._driven].ravel(), phase

    @property
    def _driven(self) -> int:
        shared = bool((self.network.wired.sum(axis=0) > 1).any())
        return 1 if shared else len(self.network.wired)


@dataclass(frozen=True)
class Solution:
    """What a scheme found for one row."""

    delay_s: Float[Array, " line"]
    phase_rad: Float[Array, " element"]
    power_w: Float[Array, " subcarrier"]
    steps: int = 0


def scene(
    problem: Problem,
    row: int,
    reflection: Reflection = "known",
    convention: Convention = "consistent",
    bound: Literal["angles", "cosines"] = "angles",
) -> Scene | None:
    """Row ``row`` of a problem, or None where it has no user gain or no target with one: nothing to weigh against anything.

    Targets behind the elements' pattern, or so close to the array's plane that an angle has no meaning, are left out; of two within 1e-3 in direction
    cosines, which no echo tells apart, the weaker is.
    """
    half, lit = problem.half, problem.target_gain[row]
    transmit, receive = half.array, problem.receive or half.array
    if not transmit.columns > 0:
        raise Misuse(
            "array.columns = 0: this precoder needs a planar grid (Upa or Ula); delay_phase serves free-form arrays"
        )
    direction = problem.target_direction[row]
    for name, place in (("user_direction", problem.user_direction[row][None]), ("target_direction", direction)):
        off = np.abs(np.sum(place * place, axis=-1) - 1.0)
        if not np.all(off < 1e-6):
            at = int(np.argmax(~(off < 1e-6)))
            raise Misuse(
                f"{name}[{row}] = {place[at]}: must be a unit vector; of an azimuth and an elevation, hal.array.direction_from makes one"
            )
    pattern = element_amplitude(transmit, direction) * element_amplitude(receive, direction)
    gain = lit * pattern[:, None]
    ahead = (direction[:, 0] > 0.02) & (np.hypot(direction[:, 0], direction[:, 1]) > 0.02)
    seen = _apart(np.flatnonzero(np.any(gain != 0, axis=1) & ahead), direction, np.sum(np.abs(gain) ** 2, axis=1))
    if not seen.size or not np.any(problem.user_gain[row] != 0):
        return None
    network = half.network
    shared = bool((network.wired.sum(axis=0) > 1).any())
    owner = np.zeros(len(network.line), dtype=np.int64) if shared else np.argmax(network.wired, axis=0)
    line = np.where(network.line >= 0, owner * network.lines + network.line, -1)
    positive("power_w", problem.power_w)
    return Scene(
        array=transmit,
        receive=receive,
        network=network,
        line=line,
        lines=network.lines * (1 if shared else len(network.wired)),
        frequency_hz=np.asarray(problem.frequency_hz),
        user_direction=np.asarray(problem.user_direction[row]),
        user_gain=np.asarray(problem.user_gain[row]),
        target_direction=np.asarray(direction[seen]),
        target_gain=np.asarray(gain[seen]),
        power_w=problem.power_w,
        noise_w=positive("noise_w", problem.noise_w, "it is the thermal noise of one subcarrier at the user"),
        echo_noise_w=problem.noise_w
        if problem.echo_noise_w is None
        else positive("echo_noise_w", problem.echo_noise_w),
        reflection=reflection,
        convention=convention,
        bound=bound,
    )


def _apart(
    seen: Int[Array, " target"], direction: Float[Array, "all 3"], strength: Float[Array, " all"]
) -> Int[Array, " kept"]:
    kept: list[int] = []
    for target in seen[np.argsort(-strength[seen], kind="stable")].tolist():
        if all(np.abs(direction[target, 1:] - direction[other, 1:]).max() > _SAME for other in kept):
            kept.append(target)
    return np.array(sorted(kept), dtype=np.int64)


def delay_grid(network: NetworkSpec) -> Float[Array, " level"]:
    """The delays a line can have; sixteen over the range where it is continuous."""
    bits = network.delay_bits or 4
    return np.asarray(np.arange(2**bits) * (network.delay_range_s / 2**bits))


def by_row(
    problem: Problem,
    solve: Callable[[Scene, Solution | None], Solution],
    make: Callable[[Problem, int], Scene | None],
) -> Design:
    """``solve`` on every row with something to weigh; the others get a beam at their own direction, equal power (``delay_phase``).

    ``solve`` sees the row as designed before, if it was. Where chains share elements the first one carries the design and the rest point at the user.
    """
    half, network = problem.half, problem.half.network
    rows, chains = len(problem.user_direction), len(network.wired)
    positive("power_w", problem.power_w)
    plain = steer(
        half,
        np.broadcast_to(problem.user_direction[:, None, :], (rows, chains, 3)),
        float(np.mean(problem.frequency_hz)),
    )
    delay_s, phase_rad = plain.delay_s.copy(), plain.phase_rad.copy()
    subcarriers = problem.user_gain.shape[1]
    power_w = np.full((rows, subcarriers), problem.power_w / subcarriers)
    steps = 0
    shared = bool((network.wired.sum(axis=0) > 1).any())
    owner = np.zeros(len(network.line), dtype=np.int64) if shared else np.argmax(network.wired, axis=0)
    at = np.arange(len(owner))
    for row in range(rows):
        made = make(problem, row)
        if made is None:
            continue
        vars(made)["plain"] = plain.delay_s[row].reshape(-1)[: made.lines], plain.phase_rad[row, owner, at]
        found = solve(made, _before(problem.previous, row, owner, made.lines))
        delay_s[row].reshape(-1)[: made.lines] = found.delay_s
        phase_rad[row, owner, at] = np.mod(found.phase_rad, 2 * np.pi)
        power_w[row] = found.power_w
        steps = max(steps, found.steps)
    return Design(delay_s=delay_s, phase_rad=phase_rad, amplitude=plain.amplitude, power_w=power_w, steps=steps)


def _before(previous: Design | None, row: int, owner: Int[Array, " element"], lines: int) -> Solution | None:
    if previous is None or not np.any(previous.power_w[row] > 0):
        return None
    known: Bool[Array, " element"] = np.any(previous.amplitude[row] > 0, axis=0)
    if not known.all():
        return None
    return Solution(
        delay_s=np.array(previous.delay_s[row].reshape(-1)[:lines]),
        phase_rad=np.array(previous.phase_rad[row, owner, np.arange(len(owner))]),
        power_w=np.array(previous.power_w[row]),
        steps=previous.steps,
    )
