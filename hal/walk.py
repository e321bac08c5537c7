"""Brownian motion that can be asked at any instant in any order: the same instant always gives the same place."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int

__all__ = ["HORIZON_NS", "Noise", "along", "walk"]

LEVELS = 44
HORIZON_NS = 2**LEVELS  # 4.9 hours: how far a walk is laid out


class Noise(Protocol):
    """Chance, as a simulated machine takes it."""

    def __call__(self, label: str, t_ns: Int[Array, " event"], shape: tuple[int, ...]) -> Complex[Array, "event ..."]:
        """Circular complex normals of unit variance, ``[event, *shape]``; an event's depend on the label and its time only."""


def walk(noise: Noise, label: str, t_ns: Int[Array, " event"], shape: tuple[int, ...]) -> Complex[Array, "event ..."]:
    """A complex Brownian motion ``W`` at the instants ``t_ns``, ``[event, *shape]``: ``E|W(t) - W(s)|^2 = |t - s|`` in seconds, W(0) = 0.

    Paul Levy's construction: a straight line to the horizon, and a tent over every dyadic interval whose height is a normal of its own,
    keyed by the interval's midpoint. So W is a function of label and time, exact in its joint law over any instants (whole ns), without
    a state that calls could disturb. Before 0 it stands at 0. Raises Misuse beyond ``HORIZON_NS``.
    """
    t_ns = np.maximum(np.asarray(t_ns, dtype=np.int64), 0)
    if t_ns.size and not t_ns.max() <= HORIZON_NS:
        raise Misuse(f"t_ns = {int(t_ns.max())}: a walk is laid out up to {HORIZON_NS} ns; start the run nearer to 0")
    level = np.arange(LEVELS)
    long_ns = np.int64(1) << (LEVELS - level)  # of the intervals of each level
    index = np.minimum(t_ns[:, None], HORIZON_NS - 1) // long_ns
    middle_ns = index * long_ns + long_ns // 2
    height = (1.0 - np.abs(2.0 * (t_ns[:, None] - middle_ns) / long_ns)) * np.sqrt(long_ns * 1e-9) / 2
    key_ns, place = np.unique(np.append(middle_ns.ravel(), HORIZON_NS), return_inverse=True)
    normals = noise(f"{label}.walk", key_ns, shape)
    place = place[:-1].reshape(middle_ns.shape)
    more = (1,) * len(shape)
    line = (t_ns / HORIZON_NS * np.sqrt(HORIZON_NS * 1e-9)).reshape(-1, *more)
    out: Array = line * normals[-1]
    for k in range(LEVELS):  # one by one: the order of the sum must not depend on how many instants are asked for
        out = out + height[:, k].reshape(-1, *more) * normals[place[:, k]]
    return out


def along(
    noise: Noise, label: str, t_ns: Int[Array, " event"], processes: int, count: int, step_s: float
) -> Float[Array, "event process sample"]:
    """Real Brownian motions at ``count`` samples ``step_s`` (s) apart from each instant on: ``E (B(t) - B(s))^2 = |t - s|``.

    Both ends of an event lie on ``walk``; between them runs a Brownian bridge drawn for the event. So events that follow each other, with or
    without a pause, have the exact joint law; for events that overlap only each one's own law is exact.
    """
    t_ns = np.asarray(t_ns, dtype=np.int64)
    end_ns = t_ns + round(count * step_s * 1e9)
    both = walk(noise, label, np.concatenate([t_ns, end_ns]), (processes,)).real * np.sqrt(2.0)
    start, end = both[: len(t_ns), :, None], both[len(t_ns) :, :, None]
    steps = np.sqrt(2.0 * step_s) * noise(f"{label}.bridge", t_ns, (processes, count)).real
    free = np.cumsum(steps, axis=-1)
    share = np.arange(count) / count
    out = np.zeros((len(t_ns), processes, count))
    out[..., 1:] = free[..., :-1]
    return np.asarray(out + start + share * (end - start - free[..., -1:]))
