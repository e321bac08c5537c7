"""Square-root raised cosine pulses in time, and the echo of a real frame laid pulse by pulse: the reference for every operator."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.array import cis
from hal.check import finite
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = ["pulse_level_echo", "pulse_train", "root_raised_cosine"]


def root_raised_cosine(t: Float[Array, "*batch"], roll_off: float) -> Float[Array, "*batch"]:
    """Unit-energy square-root raised cosine at ``t`` in samples; its removable poles are filled in.

    ``a(t) = (1 - b) sinc((1 - b) t) + b (sinc(b t + 1/4) cos(pi (t + 1/4)) + sinc(b t - 1/4) cos(pi (t - 1/4)))`` with roll-off b in 0 .. 1:
    the inverse Fourier transform of ``delay_doppler.root_spectrum``, free of poles. Endless; ``pulse_train`` cuts it off.
    """
    t = np.asarray(t, dtype=np.float64)
    b = roll_off
    edge = np.sinc(b * t + 0.25) * np.cos(np.pi * (t + 0.25)) + np.sinc(b * t - 0.25) * np.cos(np.pi * (t - 0.25))
    out: Array = (1 - b) * np.sinc((1 - b) * t) + b * edge
    return out


def pulse_train(
    samples: Complex[Array, "*batch sample"], roll_off: float, span: int, oversampling: int
) -> Complex[Array, "*batch fine"]:
    """One period of a cyclic frame on pulses cut to ``span`` samples each side: ``s(t) = sum_q s[q] a(t - q)`` (papers/001 eq (2)).

    ``oversampling`` values a sample, the first at the first sample's instant. With a prefix and suffix of ``span`` samples this is what leaves the
    transmitter during the frame. Raises Misuse for a span that wraps around the frame, or an oversampling below 1.
    """
    from scipy.fft import fft, ifft

    samples = np.asarray(samples)
    size = samples.shape[-1]
    if not 0 < 2 * span < size:
        raise Misuse(f"span = {span}: twice the pulse's span must be within 0 .. {size}, the frame's samples")
    if not oversampling >= 1:
        raise Misuse(f"oversampling = {oversampling!r}: must be at least 1")
    lines = np.tile(fft(samples, axis=-1), oversampling)
    shaped: Array = ifft(lines * _pulse_lines(size, roll_off, span, oversampling).astype(lines.dtype), axis=-1)
    return shaped


@lru_cache(maxsize=16)
def _pulse_lines(size: int, roll_off: float, span: int, oversampling: int) -> Complex[Array, " fine"]:
    pulse = np.zeros(size * oversampling)
    lag = np.arange(-span * oversampling, span * oversampling + 1)
    pulse[lag] = root_raised_cosine(lag / oversampling, roll_off)
    return np.fft.fft(pulse)


def pulse_level_echo(
    samples: Complex[Array, " sample"],
    delay: float,
    doppler: float,
    roll_off: float,
    span: int,
    prefix: int,
    suffix: int,
    oversampling: int = 2,
) -> Complex[Array, " sample"]:
    """Echo of one real frame: every pulse at its delayed instant, Doppler at every instant, matched filter by summation, a sample a period.

    ``r(t) = exp(j 2 pi nu (t - l)) sum_q s[q mod K] a(t - l - q)``, q from ``-prefix`` to ``K - 1 + suffix``, ``y[q] = int r(t) a(t - q) dt``
    (papers/001 eqs (3)-(9) before any approximation); ``delay`` l in samples, ``doppler`` nu in cycles a sample, pulses cut to ``span``
    samples each side. With an endless pulse two values a sample are exact (its band ends at ``(1 + roll_off) / 2``); a cut pulse has side
    bands, and asks for 8. No cyclic frame is assumed: what prefix and suffix do not cover is missing, as in the air.
    Cost is samples x span x oversampling: a reference, not a channel model. Raises Misuse for a delay that prefix and pulse do not cover.
    """
    samples = np.asarray(finite("samples", samples))
    size = len(samples)
    if not 0 <= delay <= prefix:
        raise Misuse(f"delay = {delay!r}: must be 0 .. {prefix}, the samples of the prefix")
    steps = np.arange(-span * oversampling, (size + span) * oversampling)
    t = steps / oversampling - delay
    first = np.ceil(t - span).astype(np.int64)
    heard = np.zeros(len(t), dtype=np.complex128)
    for k in range(2 * span + 1):
        q = first + k
        sent = (q >= -prefix) & (q < size + suffix) & (q <= t + span)
        heard += np.where(sent, samples[q % size] * root_raised_cosine(t - q, roll_off), 0)
    heard *= cis(2 * np.pi * doppler * t)
    pulse = root_raised_cosine(np.arange(-span * oversampling, span * oversampling + 1) / oversampling, roll_off)
    filtered: Array = np.convolve(heard, pulse[::-1], "valid")[: size * oversampling : oversampling] / oversampling
    return filtered
