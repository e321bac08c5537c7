"""What time does to elements: the errors an array is delivered with, and how they drift (pure; chance is an argument)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt, In
from hal.record import Array, Float
from hal.walk import Noise, walk

__all__ = ["Ageing", "errors", "wandered"]

DB = np.log(10) / 20  # one decibel of amplitude, in nepers


@dataclass(frozen=True)
class Ageing:
    """Phase and gain errors of every element of every chain, all off by default.

    ``error(t) = delivered + warm_up (1 - exp(-t / thermal)) + walk W(t)``, each a normal of its own for every (chain, element), of the stated
    rms; phases in rad, gains in dB of amplitude. The three laws: what was made wrong, what changes as the machine warms up from its start
    at t = 0, and a random walk whose rms grows with the root of time. Held for ``update_ns`` at a time. A gain error cannot lift an element
    above full drive twice: it multiplies whatever amplitude is set.
    """

    phase_error_rad: Annotated[float, In("deg"), Ge(0)] = 0.0  # rms as delivered: what calibration is for
    gain_error_db: Annotated[float, Ge(0)] = 0.0
    warm_up_rad: Annotated[float, In("deg"), Ge(0)] = 0.0  # rms once warm
    warm_up_db: Annotated[float, Ge(0)] = 0.0
    thermal_s: Annotated[float, Gt(0)] = 60.0  # time constant of warming up
    walk_rad: Annotated[float, In("deg"), Ge(0)] = 0.0  # rms after one second; ten times that after a hundred
    walk_db: Annotated[float, Ge(0)] = 0.0
    update_ns: Annotated[int, In("ms"), Gt(0)] = 10_000_000  # errors are constant so long

    @property
    def errs(self) -> bool:
        """Whether there is any error at all."""
        return self.drifts or self.phase_error_rad > 0 or self.gain_error_db > 0

    @property
    def drifts(self) -> bool:
        """Whether errors change with time."""
        return max(self.warm_up_rad, self.warm_up_db, self.walk_rad, self.walk_db) > 0


def errors(
    ageing: Ageing, noise: Noise, half: str, t_ns: int, shape: tuple[int, int]
) -> tuple[Float[Array, "chain element"], Float[Array, "chain element"]]:
    """Phase error (rad) and amplitude ratio of every element of every chain of a half at ``t_ns``."""
    at = np.zeros(1, np.int64)
    phase_rad, gain_db = np.zeros(shape), np.zeros(shape)
    if ageing.phase_error_rad or ageing.gain_error_db:
        drawn = np.sqrt(2.0) * noise(f"delivered.{half}", at, shape)[0]
        phase_rad, gain_db = (
            phase_rad + ageing.phase_error_rad * drawn.real,
            gain_db + ageing.gain_error_db * drawn.imag,
        )
    if ageing.warm_up_rad or ageing.warm_up_db:
        drawn = np.sqrt(2.0) * noise(f"warm_up.{half}", at, shape)[0]
        drawn = drawn * -np.expm1(-max(t_ns, 0) * 1e-9 / ageing.thermal_s)
        phase_rad, gain_db = phase_rad + ageing.warm_up_rad * drawn.real, gain_db + ageing.warm_up_db * drawn.imag
    if ageing.walk_rad or ageing.walk_db:
        drawn = np.sqrt(2.0) * walk(noise, f"ageing.{half}", at + t_ns, shape)[0]
        phase_rad, gain_db = phase_rad + ageing.walk_rad * drawn.real, gain_db + ageing.walk_db * drawn.imag
    return phase_rad, np.exp(DB * gain_db)


def wandered(
    noise: Noise, half: str, since_ns: int, t_ns: int, shape: tuple[int, int]
) -> Float[Array, "chain element"]:
    """Random walks of variance ``t - since`` (s), 0 at ``since_ns``: the unit law of the fault ``drift``."""
    both = walk(noise, f"drift.{half}", np.array([since_ns, max(t_ns, since_ns)]), shape).real
    return np.asarray(np.sqrt(2.0) * (both[1] - both[0]))
