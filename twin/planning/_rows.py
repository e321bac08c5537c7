"""Directions that a planner asks for, and the rows of beam memory it asks them of."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.array import half_power_beamwidth, to_array_frame, to_world_frame
from hal.errors import Misuse
from hal.frontend import FrontendSpec, HalfSpec
from hal.record import Array, Float, Int
from twin.planning import Requests

__all__ = ["join", "places", "raster", "squinted", "to_transmit", "unit"]


@lru_cache(maxsize=16)
def raster(
    spec: FrontendSpec, azimuth_rad: float, lowest_rad: float, highest_rad: float, spacing: float
) -> Float[Array, "cell 3"]:
    """Directions (receive array's frame) of a lattice in (uy, uz) whose cells cover a sector of the world.

    The sector is azimuth within ``azimuth_rad`` of boresight's own and elevation ``lowest_rad .. highest_rad`` above the horizon. The lattice's
    step is ``spacing`` times the narrower half's beamwidth at the carrier in each cosine, so every direction of the sector in front of the array
    is within half a step of a cell in both. Cells whose centre is outside the unit disc are pulled to its edge. Row by row, from the top.
    Raises Misuse for a sector that is empty or behind the array.
    """
    widths = [half_power_beamwidth(half.array, spec.carrier_hz) for half in (spec.transmit, spec.receive)]
    step = spacing * np.minimum(*np.array(widths))
    boresight = spec.receive.array.rotation[:, 0]
    fine = float(step.min()) / 6
    azimuth = np.linspace(-azimuth_rad, azimuth_rad, int(np.ceil(2 * azimuth_rad / fine)) + 1) + np.arctan2(
        boresight[1], boresight[0]
    )
    elevation = np.linspace(lowest_rad, highest_rad, int(np.ceil(abs(highest_rad - lowest_rad) / fine)) + 1)[:, None]
    level = np.cos(elevation)
    world = np.stack(np.broadcast_arrays(level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)), axis=-1)
    ahead = to_array_frame(spec.receive.array, world.reshape(-1, 3))
    ahead = ahead[ahead[:, 0] > 0]
    if not (len(ahead) and highest_rad >= lowest_rad):
        raise Misuse(
            f"lowest_rad = {lowest_rad:.3f}, highest_rad = {highest_rad:.3f}: the sector must have highest >= lowest and lie in front of the array"
        )
    cells = np.unique(np.rint(ahead[:, 1:] / step).astype(np.int64), axis=0)
    cells = cells[np.lexsort((cells[:, 0], -cells[:, 1]))]
    return unit(cells * step)


def squinted(
    half: HalfSpec, carrier_hz: float, direction: Float[Array, "row 3"], squint: float
) -> Float[Array, "row chain 3"]:
    """Directions of a row's chains about its own: on an ellipse of ``squint`` beamwidths an axis (corners of a square for four chains).

    One chain points straight; a line array spreads its chains evenly along itself.
    """
    return unit(direction[:, None, 1:] + _beside(half, carrier_hz, squint))


@lru_cache(maxsize=16)
def _beside(half: HalfSpec, carrier_hz: float, squint: float) -> Float[Array, "chain 2"]:
    chains = len(half.network.wired)
    width = np.array(half_power_beamwidth(half.array, carrier_hz))
    if chains == 1:
        return np.zeros((1, 2))
    if half.array.rows == 1 or half.array.columns == 1:
        along = np.outer(np.linspace(-1, 1, chains), [half.array.rows == 1, half.array.rows > 1])
        return np.asarray(along * np.where(width < 2, width, 0) * squint)
    turn = np.pi / 4 + 2 * np.pi * np.arange(chains) / chains
    return np.asarray(np.sqrt(2) * np.column_stack([np.cos(turn), np.sin(turn)]) * width * squint)


def places(wanted: Int[Array, " one"], held: Int[Array, " row"]) -> Int[Array, " one"]:
    """Row of each wanted number among those held, the first one; -1 where it is not there, and for what is not a number of anybody (< 0)."""
    row = {number: place for place, number in reversed(list(enumerate(held.tolist()))) if number >= 0}
    return np.array([row.get(number, -1) for number in wanted.tolist()], dtype=np.int64)


def join(*requests: Requests) -> Requests:
    """Several requests as one, in order."""
    names = (
        "transmit_slot",
        "transmit_direction",
        "transmit_user",
        "transmit_track",
        "receive_slot",
        "receive_direction",
        "receive_centre",
    )
    return Requests(**{name: np.concatenate([getattr(one, name) for one in requests]) for name in names})


def unit(cosines: Float[Array, "... 2"]) -> Float[Array, "... 3"]:
    long = np.maximum(np.sqrt(np.sum(cosines**2, axis=-1, keepdims=True)) / 0.999, 1.0)
    cosines = cosines / long
    return np.asarray(np.concatenate([np.sqrt(1 - np.sum(cosines**2, axis=-1, keepdims=True)), cosines], axis=-1))


def to_transmit(spec: FrontendSpec, direction: Float[Array, "row 3"]) -> Float[Array, "row 3"]:
    return np.asarray(to_array_frame(spec.transmit.array, to_world_frame(spec.receive.array, direction)))
