"""Waveform: bits or symbols on a delay-Doppler or time-frequency grid to samples and back. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.record import Array, Complex
from twin.records import Numerology

__all__ = ["Waveform"]


class Waveform(Protocol):
    """A modulation: a frozen dataclass of its parameters; unitary, so that unit-power symbols give unit-power samples."""

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols on the grid -> one frame of samples at ``numerology.sample_rate_hz``, without prefix."""

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``."""
