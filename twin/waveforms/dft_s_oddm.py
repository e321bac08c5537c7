"""DFT-spread ODDM: a single carrier of square-root raised cosines, in delay-Doppler frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import framed, gridded, root_cosine, stacked, unstacked

__all__ = ["DftSOddm"]


@dataclass(frozen=True)
class DftSOddm:
    """An N-point DFT along Doppler before ODDM cancels its inverse DFT: ``s = vec(X)`` on square-root raised cosines. One prefix a frame.

    The lowest peaks of the family, and the lower the larger the roll-off.
    """

    symbol_prefix: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
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
        """The pulse train, within the frame's prefix and suffix."""
        return root_cosine(samples, numerology, oversampling)
