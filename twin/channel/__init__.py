"""Channel: from the truth to paths. Every other module of this folder plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.array import AntennaArray
from hal.medium import Paths
from hal.record import Array, Int
from twin.physics.draws import Draws
from twin.records import Truth

__all__ = ["Channel"]


class Channel(Protocol):
    """A propagation model: a frozen dataclass of its parameters. Large scale from ``truth``, small scale on the axis of ``t_ns``."""

    def down(self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws) -> Paths:
        """Base station's ``array`` to every user of ``truth``; ``sink`` holds entity numbers, ``source`` is SITE."""

    def up(self, truth: Truth, array: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws) -> Paths:
        """Every user to ``array``; reciprocal to ``down`` when both halves share one phase centre."""

    def echo(self, truth: Truth, transmit: AntennaArray, receive: AntennaArray, t_ns: Int[Array, " block"], carrier_hz: float, draws: Draws) -> Paths:
        """``transmit`` to every entity (users reflect too) and back to ``receive``; ``source`` is SITE, ``sink`` the reflecting entity."""
