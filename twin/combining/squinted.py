"""Beams a little apart: one a chain, steered beside the direction, phases only."""

from __future__ import annotations

from dataclasses import dataclass

from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.precoding.delay_phase import Settings, steer

__all__ = ["Squinted"]


@dataclass(frozen=True)
class Squinted:
    """Each chain's beam as the planner asks for it, ``planning.squint`` beamwidths beside the direction on either axis.

    Differences of beams close together are the derivatives that the angles take: 1.0001 times the digital bound at a tenth of a null distance,
    1.005 at a quarter (``twin.physics.combiners.squinted``), at no loss of signal. Any number of chains, any array.
    """

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Every row as asked."""
        return steer(half, asked, carrier_hz)
