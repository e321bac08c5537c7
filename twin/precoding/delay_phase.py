"""Closed-form beams: delay lines follow the wave's slope over the sub-arrays, phase shifters take the rest at the carrier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, steering
from hal.check import finite, positive, shaped
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.network import response
from hal.record import Array, Float, record
from twin.precoding import Design, Problem

__all__ = ["DelayPhase", "Settings", "steer", "waterfill"]


@record
class Settings:
    """Settings of rows of one half's beam memory, as ``Design`` and ``BeamsCommand`` hold them."""

    delay_s: Float[Array, "row chain line"]
    phase_rad: Float[Array, "row chain element"]
    amplitude: Float[Array, "row chain element"]


@dataclass(frozen=True)
class DelayPhase:
    """Every row points at its user and at nothing else: a steered beam that minds squint (``steer``).

    Targets are not lit on purpose; they are where the beam happens to be. Without delay lines this is the classical phase-only beam.
    """

    power: Literal["equal", "waterfill"] = "equal"  # over subcarriers: all the same, or by the user's believed gain

    def design(self, problem: Problem) -> Design:
        """Settings for every row of the problem; the carrier is the mean of ``frequency_hz``.

        ``waterfill`` weighs subcarrier m by ``|user_gain|^2 |response(f_m)^T a(u, f_m)|^2 / noise_w`` of chain 0's beam before
        quantisation; a row whose user has no gain (a search beam) gets equal power.
        Raises Misuse for a ``power_w`` or, when water is filled, a ``noise_w`` that is not positive.
        """
        positive("power_w", problem.power_w)
        chains = len(problem.half.network.wired)
        rows, subcarriers = problem.user_gain.shape
        carrier_hz = float(np.mean(problem.frequency_hz))
        direction = np.broadcast_to(problem.user_direction[:, None, :], (rows, chains, 3))
        settings = steer(problem.half, direction, carrier_hz)
        power_w = np.full((rows, subcarriers), problem.power_w / subcarriers)
        if self.power == "waterfill":
            noise_w = positive("noise_w", problem.noise_w, "it is the thermal noise of one subcarrier at the user")
            known = np.any(problem.user_gain != 0, axis=1)
            snr_per_w = np.abs(problem.user_gain) ** 2 * _beam_gain(problem, settings) / noise_w
            power_w[known] = waterfill(snr_per_w[known], problem.power_w)
        elif self.power != "equal":
            raise Misuse(f"power = {self.power!r}: must be 'equal' or 'waterfill'")
        return Design(
            delay_s=settings.delay_s, phase_rad=settings.phase_rad, amplitude=settings.amplitude, power_w=power_w
        )


def steer(half: HalfSpec, direction: Float[Array, "row chain 3"], carrier_hz: float) -> Settings:
    """Settings that point chain c of row r at ``direction[r, c]`` (unit vectors, array frame); for either half.

    Line l, whose elements' mean position is ``p_l``, takes ``tau_l = p_l . u / c + offset``: the wave's own slope. The offset puts the
    chain's delays in the middle of the range; what does not fit is clipped, and delays are rounded to the line's steps here, so that
    ``phase_n = 2 pi f_c (tau_line(n) - p_n . u / c)`` absorbs every residual at the carrier. There the match is exact up to the phase step
    (mean power loss ``1 - sinc^2(2^-bits)``); away from it what is left is the slope within a sub-array (``squint``), and half a delay step.
    Delays in s, phases in [0, 2 pi), amplitudes 1 on wired elements and 0 elsewhere. A per-chain offset is a common delay of
    that chain, of no consequence to its gain. Left out: the element pattern.
    papers/000 eq (24) without its targets, in its corrected form: phases about the array's centre, offset at half range.
    """
    network, position_m = half.network, half.array.position_m
    chains, elements = network.wired.shape
    shaped("direction", direction, (None, chains, 3))
    finite("direction", direction)
    positive("carrier_hz", carrier_hz)
    rows, step_s = len(direction), network.delay_range_s / 2**network.delay_bits if network.delay_bits else 0.0
    delay_s, phase_rad = np.empty((rows, chains, network.lines)), np.empty((rows, chains, elements))
    where = np.array(direction, dtype=np.float64, order="C"), position_m, _line_centres(half), network.line
    _steer(*where, float(carrier_hz), step_s, network.delay_range_s - step_s, delay_s, phase_rad)
    amplitude = np.broadcast_to(network.wired.astype(np.float64), phase_rad.shape).copy()
    return Settings(delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude)


@njit(cache=True)
def _steer(
    direction: Any,
    position_m: Any,
    centre_m: Any,
    line: Any,
    carrier_hz: float,
    step_s: float,
    longest_s: float,
    delay_s: Any,
    phase_rad: Any,
) -> None:  # pragma: no cover - compiled
    rows, chains, lines = delay_s.shape
    for r in range(rows):
        for c in range(chains):
            u, delay = direction[r, c], delay_s[r, c]
            for k in range(lines):
                p = centre_m[c, k]
                delay[k] = (u[0] * p[0] + u[1] * p[1] + u[2] * p[2]) / LIGHT_MPS
            if lines:
                early_s = (delay.max() + delay.min()) / 2 - longest_s / 2
                for k in range(lines):
                    within_s = min(max(delay[k] - early_s, 0.0), longest_s)
                    delay[k] = np.rint(within_s / step_s) * step_s if step_s else within_s
            for n in range(len(position_m)):
                p = position_m[n]
                path_s = (u[0] * p[0] + u[1] * p[1] + u[2] * p[2]) / LIGHT_MPS
                turns = carrier_hz * ((delay[line[n]] if lines else 0.0) - path_s)
                phase_rad[r, c, n] = 2 * np.pi * (turns - np.floor(turns))  # whole turns would cost precision


def waterfill(snr_per_w: Float[Array, "row subcarrier"], power_w: float) -> Float[Array, "row subcarrier"]:
    """The power that maximises ``sum_m log2(1 + snr_per_w[m] p[m])`` subject to ``sum p = power_w``, ``p >= 0``, row by row.

    ``p_m = max(0, level - 1 / snr_per_w[m])``, the level found exactly by sorting. Subcarriers of zero gain get nothing; a row of nothing
    but zeros gets equal power. Result in W, each row summing to ``power_w``.
    """
    rows, subcarriers = snr_per_w.shape
    cost_w = np.divide(1.0, snr_per_w, out=np.full((rows, subcarriers), np.inf), where=snr_per_w > 0)
    order = np.sort(cost_w, axis=1)
    count = np.arange(1, subcarriers + 1)
    filled = np.where(np.isfinite(order), order, 0.0)
    level = (power_w + np.cumsum(filled, axis=1)) / count  # if exactly ``count`` subcarriers were on
    on = np.maximum(np.sum(np.isfinite(order) & (level > order), axis=1), 1)
    best = level[np.arange(rows), on - 1]
    power = np.maximum(best[:, None] - cost_w, 0.0)  # a cost of inf takes nothing
    power[~np.any(snr_per_w > 0, axis=1)] = 1.0
    return np.asarray(power * (power_w / power.sum(axis=1, keepdims=True)))


@lru_cache(maxsize=16)
def _line_centres(half: HalfSpec) -> Float[Array, "chain line 3"]:
    network = half.network
    hangs = network.wired[:, None, :] & (network.line == np.arange(network.lines)[:, None])  # [chain line element]
    count = np.maximum(hangs.sum(axis=-1), 1)
    return np.asarray(np.einsum("cln,ni->cli", hangs.astype(np.float64), half.array.position_m) / count[..., None])


def _beam_gain(problem: Problem, settings: Settings) -> Float[Array, "row subcarrier"]:
    """``|response^T a|^2`` of chain 0 towards each row's user."""
    network, frequency_hz = problem.half.network, problem.frequency_hz
    inside = response(network, settings.delay_s, settings.phase_rad, settings.amplitude, frequency_hz)[..., 0]
    a = steering(problem.half.array, problem.user_direction[:, None, :], frequency_hz[None, :])
    return np.asarray(np.abs(np.einsum("rmn,rmn->rm", inside, a)) ** 2)
