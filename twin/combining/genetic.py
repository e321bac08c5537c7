"""The combiner that papers/001 searches for, generation by generation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt, In, Le
from hal.frontend import HalfSpec
from hal.record import Array, Complex, Float
from twin.combining._rows import AHEAD, grid_and_chains, listening
from twin.physics.combiners import genetic
from twin.precoding.delay_phase import Settings

__all__ = ["Genetic"]


@dataclass(frozen=True)
class Genetic:
    """The paper's genetic search (``twin.physics.combiners.genetic``), run once for straight ahead, half a second for 1024 elements; then shifted.

    At the same errors as ``squinted`` when genes keep within a few degrees. Three chains or more of a planar array.
    """

    seed: Annotated[int, Ge(0)] = 0
    population: Annotated[int, Ge(4)] = 200
    elite_rate: Annotated[float, Gt(0), Le(1)] = 0.4  # share that lives on: 10, 40 and 70 % in figure 7
    generations: Annotated[int, Ge(1)] = 50
    spread_rad: Annotated[float, In("deg"), Gt(0), Le(90)] = np.deg2rad(
        4.0
    )  # genes are beams this near to the direction
    mutation: Annotated[float, Ge(0), Le(1)] = 0.0  # chance of a gene drawn anew; the paper names none

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Rows for echoes. Raises Misuse for a line array, fewer than three chains, and an elite of fewer than two."""
        grid_and_chains(half, 3, len(half.network.wired))
        return listening(half, asked, centre, carrier_hz, _found(self, half, carrier_hz))


@lru_cache(maxsize=4)
def _found(search: Genetic, half: HalfSpec, carrier_hz: float) -> Complex[Array, "element chain"]:
    return genetic(
        half.array,
        AHEAD,
        carrier_hz,
        np.random.default_rng(search.seed),
        chains=len(half.network.wired),
        population=search.population,
        elite_rate=search.elite_rate,
        generations=search.generations,
        spread_rad=search.spread_rad,
        mutation=search.mutation,
    ).combiner
