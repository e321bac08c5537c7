"""OTFS: symbols on a delay-Doppler grid, sent through OFDM symbols with rectangular windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import along_doppler, framed, gridded, rectangular, stacked, unstacked

__all__ = ["Otfs"]


@dataclass(frozen=True)
class Otfs:
    """Orthogonal time frequency space: an inverse symplectic Fourier transform, then OFDM; with rectangular windows ``s = vec(X F_N^H)``.

    Sample for sample that is ODDM; the windows between samples differ (``emitted``). One cyclic prefix a frame.
    """

    symbol_prefix: ClassVar[bool] = False
    shaped: ClassVar[bool] = False
    spread: ClassVar[tuple[int, ...]] = (-2, -1)

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols ``grid[... delay doppler]`` -> samples; raises as ``Waveform.modulate``."""
        return stacked(along_doppler(gridded(grid, numerology), forward=False))

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``."""
        return along_doppler(unstacked(framed(samples, numerology), numerology), forward=True)

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """The subcarriers' sum in each symbol's window."""
        return rectangular(samples, numerology, oversampling)
