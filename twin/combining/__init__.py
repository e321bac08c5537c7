"""Combining: through what settings the receive half listens for echoes. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.frontend import HalfSpec
from hal.record import Array, Float
from twin.precoding.delay_phase import Settings

__all__ = ["Combiner"]


class Combiner(Protocol):
    """A sensing combiner: a frozen dataclass of its parameters. It is designed once and regenerated for each direction of a sweep."""

    def settings(
        self, half: HalfSpec, asked: Float[Array, "row chain 3"], centre: Float[Array, "row 3"], carrier_hz: float
    ) -> Settings:
        """Settings of every receive row: about ``centre`` where it is finite, a row that listens for echoes; else as ``asked``, chain by chain."""
