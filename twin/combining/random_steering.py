"""A combiner of beams that look anywhere: random directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.check import Ge
from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.combining._rows import listening
from twin.physics.combiners import random_steering
from twin.precoding.delay_phase import Settings

__all__ = ["RandomSteering"]


@dataclass(frozen=True)
class RandomSteering:
    """Beams at random angles of the half space ahead, the same in every row: papers/001 section V-C's "random", which cannot approach its bound."""

    seed: Annotated[int, Ge(0)] = 0

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Rows for echoes, wherever they look."""
        columns = random_steering(half.array, carrier_hz, len(half.network.wired), np.random.default_rng(self.seed))
        return listening(half, asked, centre, carrier_hz, columns, shift=False)
