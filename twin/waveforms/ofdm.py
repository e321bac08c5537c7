"""OFDM: symbols on a time-frequency grid, one subcarrier and one stretch of time each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import along_delay, framed, gridded, rectangular, stacked, unstacked

__all__ = ["Ofdm"]


@dataclass(frozen=True)
class Ofdm:
    """Orthogonal frequency division multiplexing: ``s[n M + q] = M^-1/2 sum_m X[m, n] exp(j 2 pi m q / M)``.

    Rows of the grid are M subcarriers in FFT order (upper half: negative frequencies), columns N symbols with a cyclic prefix each. No
    subcarrier is left empty, and no window tapers the symbols.
    """

    symbol_prefix: ClassVar[bool] = True
    shaped: ClassVar[bool] = False
    spread: ClassVar[tuple[int, ...]] = ()

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols ``grid[... subcarrier symbol]`` -> samples; raises as ``Waveform.modulate``."""
        return stacked(along_delay(gridded(grid, numerology), forward=False))

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``."""
        return along_delay(unstacked(framed(samples, numerology), numerology), forward=True)

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """The subcarriers' sum in each symbol's window."""
        return rectangular(samples, numerology, oversampling)
