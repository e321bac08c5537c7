"""Estimation: pilots and tracked angles to a channel estimate. Estimation alone turns tracks into channels. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.record import Array, Complex, Int
from twin.records import ChannelEstimate, PilotObservation, Tracks

__all__ = ["Estimator"]


class Estimator(Protocol):
    """A channel estimator: a frozen dataclass of its parameters."""

    def start(self) -> ChannelEstimate:
        """Nothing known of anyone."""

    def estimate(self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate) -> ChannelEstimate:
        """The belief after this subframe's pilots: large scale from the tracks, small scale from the pilots."""

    def channel(self, estimate: ChannelEstimate, pilots: PilotObservation) -> Complex[Array, "user subcarrier element"]:
        """``h[user subcarrier element]`` at the transmit array, as believed."""

    def through(
        self,
        estimate: ChannelEstimate,
        pilots: PilotObservation,
        who: Int[Array, " row"],
        response: Complex[Array, "row subcarrier element chain"],
    ) -> Complex[Array, "row subcarrier chain"]:
        """``h^T response``: what users ``who`` would receive of a row each, h as of ``channel``."""
