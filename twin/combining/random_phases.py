"""A combiner that steers no beam: random phases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.check import Ge
from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.combining._rows import listening
from twin.physics.combiners import random_phases
from twin.precoding.delay_phase import Settings

__all__ = ["RandomPhases"]


@dataclass(frozen=True)
class RandomPhases:
    """Independent uniform phases, the same in every row: papers/001 section V-B's comparison. Hears about one element's gain a chain, everywhere."""

    seed: Annotated[int, Ge(0)] = 0

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Rows for echoes, wherever they look."""
        columns = random_phases(half.array, len(half.network.wired), np.random.default_rng(self.seed))
        return listening(half, asked, centre, carrier_hz, columns, shift=False)
