"""Waveform: bits or symbols on a delay-Doppler or time-frequency grid to samples and back. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.record import Array, Complex
from twin.records import Numerology

__all__ = ["Waveform"]


class Waveform(Protocol):
    """A modulation: a frozen dataclass of its parameters; unitary, so that unit-power symbols give unit-power samples.

    A grid has M = ``numerology.delay_bins`` rows and N = ``numerology.doppler_bins`` columns: delay and Doppler bins, or the subcarriers and
    symbols of a time-frequency waveform. Whatever the waveform, a frame is N stretches of M samples, time running along M first.
    """

    symbol_prefix: (
        bool  # True: each stretch of M samples has a prefix of its own and is cyclic; False: the frame as a whole
    )
    shaped: bool  # True: samples ride on square-root raised cosines of the numerology's roll-off; False: on subcarriers in rectangular windows
    spread: tuple[
        int, ...
    ]  # axes of the grid over which the channel's fading averages, -2 delay or subcarrier, -1 Doppler or symbol

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols on the grid -> one frame of samples at ``numerology.sample_rate_hz``, without prefix.

        Raises Misuse for a grid of another size, no frames, or symbols that are not finite.
        """

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``; raises as it does."""

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """The signal that leaves the transmitter during the frame, ``oversampling`` values a sample: for peak power, not for transport."""
