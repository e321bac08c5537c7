"""A measured element pattern: gain on a grid of directions, and its amplitude in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from hal.errors import Misuse
from hal.record import Array, Float, record

__all__ = ["ElementPattern", "check_pattern", "pattern_amplitude"]


@record
class ElementPattern:
    """Amplitude of one element on a uniform grid over (uy, uz), or over (azimuth, elevation); zero outside of it.

    Over (uy, uz) the element radiates into the front half space only. All elements share the pattern; its phase, polarisation and
    dependence on frequency are left out.
    """

    axes: str  # "cosines" (uy, uz) | "angles" (azimuth, elevation; rad)
    start: Float[Array, " 2"]  # first grid value of each axis
    step: Float[Array, " 2"]
    amplitude: Float[Array, "first second"]  # sqrt of gain over isotropic


def pattern_amplitude(pattern: ElementPattern, direction: Any) -> Any:
    """Amplitude towards ``direction[... 3]`` (unit vectors, array frame), bilinear between grid points: ``[...]``; differentiable in torch."""
    xp = array_namespace(direction)
    ux, uy, uz = (direction[..., i] for i in range(3))
    if pattern.axes == "angles":
        first, second = xp.atan2(uy, ux), xp.asin(xp.clip(uz, -1.0, 1.0))
        seen = ux == ux
    else:
        first, second, seen = uy, uz, ux > 0
    rows, columns = pattern.amplitude.shape
    place, share = [], []
    for value, start, step, count in zip((first, second), pattern.start, pattern.step, (rows, columns), strict=True):
        at = (value - float(start)) / float(step)
        seen = seen & (at > -1e-6) & (at < count - 1 + 1e-6)
        low = xp.astype(xp.clip(xp.floor(at), 0, count - 2), xp.int64)
        place.append(low)
        share.append(at - xp.astype(low, at.dtype))
    table = xp.asarray(np.array(pattern.amplitude).reshape(-1), dtype=direction.dtype, device=device(direction))

    def corner(i: int, j: int) -> Any:
        index = (place[0] + i) * columns + place[1] + j
        return xp.reshape(xp.take(table, xp.reshape(index, (-1,)), axis=0), index.shape)

    (a, b) = share
    found = (1 - a) * ((1 - b) * corner(0, 0) + b * corner(0, 1)) + a * ((1 - b) * corner(1, 0) + b * corner(1, 1))
    return xp.where(seen, found, xp.zeros_like(found))


def check_pattern(pattern: ElementPattern) -> ElementPattern:
    """The pattern, if an element could have it; Misuse where it radiates more than 5 % above what it is fed, or is no grid."""
    if pattern.axes not in ("cosines", "angles") or min(pattern.amplitude.shape) < 2 or not np.all(pattern.step > 0):
        raise Misuse(
            f"pattern: axes = {pattern.axes!r} with {pattern.amplitude.shape} points; must be a grid of 2 x 2 and more"
        )
    if not (np.all(np.isfinite(pattern.amplitude)) and np.all(pattern.amplitude >= 0)):
        raise Misuse("pattern.amplitude: must be finite and >= 0")
    n = 20_000  # directions spread evenly over the sphere (a golden-angle spiral)
    z, turn = 1 - (2 * np.arange(n) + 1) / n, np.pi * (3 - np.sqrt(5)) * np.arange(n)
    level = np.sqrt(1 - z * z)
    mean = float(
        np.mean(pattern_amplitude(pattern, np.stack([level * np.cos(turn), level * np.sin(turn), z], axis=-1)) ** 2)
    )
    if not mean <= 1.05:
        raise Misuse(
            f"pattern: radiates {mean:.3g} times what it is fed; check that the gain is in dBi, and subtract {10 * np.log10(mean):.2f} dB if not"
        )
    return pattern
