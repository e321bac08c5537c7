"""ODDM: symbols on a delay-Doppler grid to one frame of samples and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Complex, Int
from twin.records import Numerology
from twin.waveforms._frames import along_doppler, framed, gridded, root_cosine, stacked, unstacked

__all__ = ["Oddm", "qpsk"]


@dataclass(frozen=True)
class Oddm:
    """Orthogonal delay-Doppler division multiplexing (papers/001 eqs (1), (14)).

    ``s = vec(X F_N^H)``, that is ``s[n M + m] = N^-1/2 sum_k X[m, k] exp(j 2 pi n k / N)`` with M delay and N Doppler bins and delay
    fastest; the samples then ride on square-root raised cosines at ``numerology.sample_rate_hz`` (the machine's business). Unitary:
    a grid of unit-power symbols gives samples of unit mean power. Prefix and suffix are left to the frame structure.
    """

    symbol_prefix: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
    spread: ClassVar[tuple[int, ...]] = (-2, -1)

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols ``grid[... delay doppler]`` -> samples ``[... sample]``; raises as ``Waveform.modulate``."""
        return stacked(along_doppler(gridded(grid, numerology), forward=False))

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """Samples ``[... sample]`` -> grid ``[... delay doppler]``: the inverse of ``modulate``."""
        return along_doppler(unstacked(framed(samples, numerology), numerology), forward=True)

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """The pulse train, within the frame's prefix and suffix."""
        return root_cosine(samples, numerology, oversampling)


def qpsk(words: Int[Array, "*batch word"], count: int) -> Complex[Array, "*batch symbol"]:
    """The first ``count`` unit-power QPSK symbols of unsigned 32-bit words, sixteen a word, lowest bits first.

    Bits b = 0 .. 3 become ``exp(j pi/4 (2 b + 1))``. A transmitter and a receiver that draw the same words know the same symbols.
    Raises Misuse for words that are not uint32 or too few.
    """
    words = np.asarray(words)
    if words.dtype != np.uint32:
        raise Misuse(f"words: have dtype {words.dtype}, must be uint32")
    if not 0 <= count <= 16 * words.shape[-1]:
        raise Misuse(f"count = {count}: must be 0 .. {16 * words.shape[-1]}, sixteen symbols a word; draw more words")
    bits = (words[..., None] >> np.arange(0, 32, 2, dtype=np.uint32)) & np.uint32(3)
    corner = np.sqrt(0.5) * np.array([1 + 1j, -1 + 1j, -1 - 1j, 1 - 1j])
    return corner[bits.reshape(*words.shape[:-1], -1)[..., :count]]  # type: ignore[no-any-return]
