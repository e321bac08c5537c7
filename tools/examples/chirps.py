"""A waveform of your own: affine frequency division multiplexing (AFDM), every symbol on a chirp of its own across the whole frame.

Use it:  twin run scenarios/smoke.yaml --set sensing.waveform.kind=tools.examples.chirps:Afdm
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hal.record import Array, Complex
from twin.records import Numerology
from twin.waveforms._frames import framed, gridded, root_cosine

__all__ = ["Afdm"]


@dataclass(frozen=True)
class Afdm:
    """``s[n] = L^-1/2 sum_k x[k] exp(j 2 pi (c_1 n^2 + c_2 k^2 + n k / L))`` over the frame's L samples; unitary."""

    c1_turns: float = 1e-4  # of phase a squared sample: how fast the chirps sweep
    c2_turns: float = 0.0

    symbol_prefix: ClassVar[bool] = False
    shaped: ClassVar[bool] = True
    spread: ClassVar[tuple[int, ...]] = (-2, -1)

    def modulate(
        self, grid: Complex[Array, "*batch delay doppler"], numerology: Numerology
    ) -> Complex[Array, "*batch sample"]:
        """Symbols, read row by row, to samples."""
        symbols = gridded(grid, numerology)
        symbols = symbols.reshape(*symbols.shape[:-2], -1)
        chirp_n, chirp_k = self._chirps(symbols.shape[-1])
        return chirp_n * np.fft.ifft(chirp_k * symbols, norm="ortho")

    def demodulate(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology
    ) -> Complex[Array, "*batch delay doppler"]:
        """The inverse of ``modulate``."""
        samples = framed(samples, numerology)
        chirp_n, chirp_k = self._chirps(samples.shape[-1])
        symbols = chirp_k.conj() * np.fft.fft(chirp_n.conj() * samples, norm="ortho")
        return symbols.reshape(*samples.shape[:-1], numerology.delay_bins, numerology.doppler_bins)

    def emitted(
        self, samples: Complex[Array, "*batch sample"], numerology: Numerology, oversampling: int
    ) -> Complex[Array, "*batch fine"]:
        """Samples on square-root raised cosines."""
        return root_cosine(samples, numerology, oversampling)

    def _chirps(self, count: int) -> tuple[Array, Array]:
        n2 = np.arange(count) ** 2
        return np.exp(2j * np.pi * self.c1_turns * n2), np.exp(2j * np.pi * self.c2_turns * n2)
