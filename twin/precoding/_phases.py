"""Phase shifters for fixed delays, and the alternation of phases and power: papers/000 section 3.3, with two updates that do better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hal.array import steering
from hal.errors import Misuse
from hal.record import Array, Complex, Float
from twin.precoding._scene import Allocation, Scene, Solution

__all__ = ["Alternation", "Update"]

Update = Literal["eq19", "power", "amp"]
_INNER = 40  # fixed-point steps of one phase update
_STILL = 1e-9  # relative gain of a step below which it has converged


@dataclass(frozen=True)
class Alternation:
    """Phases, then power, in turn: Algorithm 1's second loop.

    ``eq19`` is the printed closed form (its random phases and side lobes included), ``power`` climbs the printed objective (18) by power
    iterations, ``amp`` climbs the sum of amplitudes instead of powers, which serves every target rather than the strongest term alone.
    """

    update: Update = "amp"
    eta: float = 1.0
    balanced: bool = True
    power: Allocation = "exact"
    rate_share: float = 0.5
    rounds: int = 6
    solver: Literal["closed", "cvxpy"] = "closed"
    steps: int = _INNER

    def run(self, row: Scene, delay_s: Float[Array, " line"], before: Solution | None = None) -> Solution:
        """Phases and power for these delays; ends early when a round changes nothing. From ``before`` it is one round, power from near its own."""
        vector, received = self.vectors(row, row.ramp(delay_s))
        subcarriers, elements = len(row.frequency_hz), len(row.line)
        power = np.full(subcarriers, row.power_w / subcarriers)
        if before is not None:
            # phases count at the carrier: where a delay has moved since, its elements turn with it
            moved_s = (np.asarray(delay_s) - before.delay_s)[row.line] if row.lines else 0.0
            phasor, power = np.exp(1j * (before.phase_rad + 2 * np.pi * row.carrier_hz * moved_s)), before.power_w
            phasor = self._updated(row, vector, received, phasor, power)
            response = row.ramp(delay_s) * (phasor / elements**0.5)
            power = row.allocate(response, self.power, self.rate_share, self.solver, power)
            return Solution(delay_s=np.asarray(delay_s), phase_rad=np.angle(phasor), power_w=power)
        middle = subcarriers // 2
        phasor = np.conj(np.sum(vector[:, middle] / np.abs(vector[:, middle, :1]).clip(1e-300), axis=0))
        phasor = phasor / np.abs(phasor).clip(1e-300)
        last = -1.0
        for _ in range(self.rounds):
            phasor = self._updated(row, vector, received, phasor, power)
            response = row.ramp(delay_s) * (phasor / elements**0.5)
            power = row.allocate(response, self.power, self.rate_share, self.solver)
            value = row.crb(response, power)
            if abs(value - last) <= 1e-6 * value:
                break
            last = value
        return Solution(delay_s=np.asarray(delay_s), phase_rad=np.angle(phasor), power_w=power)

    def vectors(
        self, row: Scene, ramp: Complex[Array, "subcarrier element"]
    ) -> tuple[Complex[Array, "who subcarrier element"], Complex[Array, "subcarrier target target"] | None]:
        """What the phases face, user first: ``g a``, ``sqrt(eta) g_k a_k``, delays applied; and, for ``power``, what of two targets arrives alike, per
        receive element.
        """
        share = self.eta
        if self.balanced:
            share *= np.mean(np.abs(row.user_gain) ** 2) / max(float(np.mean(np.abs(row.target_gain) ** 2)), 1e-300)
        echo = row.target_gain[:, :, None] * row.target_rows * share**0.5
        whole = np.concatenate([row.user_row[None], echo]) * ramp
        if self.update != "power":  # nobody else asks
            return whole, None
        a = steering(row.receive, row.target_direction[None, :, :], row.frequency_hz[:, None])
        return whole, np.matmul(a.conj(), np.swapaxes(a, -1, -2)) / a.shape[-1]

    def _updated(
        self, row: Scene, vector: Array, received: Array | None, phasor: Array, power: Array
    ) -> Complex[Array, " element"]:
        root = np.sqrt(power)
        if self.update == "eq19":
            heard = steering(row.receive, row.target_direction[:, None, :], row.frequency_hz[None, :]).sum(axis=-1)
            # eta / N_r on amplitudes, as printed: the square root taken into the vectors once is taken again
            eta_root = self.eta**0.5 if not self.balanced else 1.0
            weight = np.concatenate([np.ones((1, len(root))), eta_root * np.conj(heard) / len(row.receive.position_m)])
            # the target's conj(alpha): vectors hold alpha, so turn it back
            turn = np.ones_like(weight)
            turn[1:] = np.exp(-2j * np.angle(row.target_gain))
            total = np.einsum("qm,qmn->n", weight * turn * root, vector)
            return np.asarray(np.exp(-1j * np.angle(total)))
        if self.update not in ("power", "amp"):
            raise Misuse(f"update = {self.update!r}: must be 'eq19' (as printed), 'power' (climbs eq 18) or 'amp'")
        flat = vector.reshape(-1, vector.shape[-1])
        last = -1.0
        for _ in range(self.steps):
            field = (flat @ phasor).reshape(vector.shape[:2])
            if self.update == "amp":
                value = float(np.sum(root * np.abs(field)))
                back = root * field / np.abs(field).clip(1e-300)
            else:
                mixed = field.copy()
                assert received is not None
                mixed[1:] = np.einsum("mkl,lm->km", received, field[1:])
                value = float(np.sum(power * (np.conj(field) * mixed).real))
                back = power * mixed
            pulled = np.conj(np.conj(back.reshape(-1)) @ flat)
            phasor = np.exp(1j * np.angle(pulled))
            if value - last <= _STILL * value:
                break
            last = value
        return np.asarray(phasor)
