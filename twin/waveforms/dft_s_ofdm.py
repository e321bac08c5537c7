"""DFT-spread OFDM: each symbol time carries its symbols one after another, on all subcarriers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import framed, gridded, rectangular, stacked, unstacked

__all__ = ["DftSOfdm"]


@dataclass(frozen=True)
class DftSOfdm:
    """Single-carrier OFDM: an M-point DFT spreads each column over all M subcarriers before OFDM, and cancels its inverse: ``s = vec(X)``.

    Each stretch of M samples has a cyclic prefix. With every subcarrier in use the two transforms are each other's inverse; what is left
    between samples is the subcarriers' sum, a Dirichlet kernel a symbol.
    """

    symbol_prefix: ClassVar[bool] = True
    shaped: ClassVar[bool] = False
    spread: ClassVar[tuple[int, ...]] = (-2,)

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols ``grid[... place symbol]`` -> samples; raises as ``Waveform.modulate``."""
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
