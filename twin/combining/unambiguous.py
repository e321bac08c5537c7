"""A combiner for wide search: no direction ahead looks like another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.check import Ge
from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.combining._rows import AHEAD, grid_and_chains, listening
from twin.physics.combiners import unambiguous
from twin.precoding.delay_phase import Settings

__all__ = ["Unambiguous"]


@dataclass(frozen=True)
class Unambiguous:
    """Columns ``a, y a, z a`` and random phases (``twin.physics.combiners.unambiguous``): for detectors that search beyond the main lobe.

    The random chain hears everything ahead at one element's gain. Four chains of a planar array; tapered as ``closed_form`` is.
    """

    seed: Annotated[int, Ge(0)] = 0  # of the random column

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Rows for echoes. Raises Misuse for a line array and for other than four chains."""
        grid_and_chains(half, 4, 4)
        columns = unambiguous(half.array, AHEAD, carrier_hz, np.random.default_rng(self.seed))
        return listening(half, asked, centre, carrier_hz, columns)
