"""DFT-spread OTFS: a DFT along Doppler before OTFS lowers its peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import framed, gridded, rectangular, stacked, unstacked

__all__ = ["DftSOtfs"]


@dataclass(frozen=True)
class DftSOtfs:
    """An N-point DFT along Doppler, then OTFS, whose inverse DFT it cancels: ``s = vec(X)``, DFT-spread OFDM but for its one prefix a frame.

    The axis of the DFT is our reading of papers/001: along delay it lowers no peak.
    """

    symbol_prefix: ClassVar[bool] = False
    shaped: ClassVar[bool] = False
    spread: ClassVar[tuple[int, ...]] = (-2, -1)

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols ``grid[... delay doppler]`` -> samples; raises as ``Waveform.modulate``."""
        return stacked(gridded(grid, numerology))

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``."""
        return unstacked(framed(samples, numerology), numerology)

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """The subcarriers' sum in each symbol's window."""
        return rectangular(samples, numerology, oversampling)
