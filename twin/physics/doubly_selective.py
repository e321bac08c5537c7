"""A doubly selective channel on whole frames: many off-grid paths at once, between streams and chains, by FFT and its adjoint.

Delays in samples and Doppler shifts in cycles a sample, as in ``delay_doppler``, whose pulses these are. A frame is a row of ``period``
cyclic stretches of ``size`` samples, each with its own prefix: one for delay-Doppler waveforms, one a symbol for OFDM.
Antennas never appear: a path meets them as one amplitude for each stream and one for each chain (papers/001 eq (28)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hal.array import cis
from hal.check import finite, shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float
from twin.physics.delay_doppler import folded_spectrum

__all__ = ["Passage", "adjoint", "hybrid", "passage", "through"]


@dataclass(frozen=True)
class Passage:
    """Paths as they act on frames: a cyclic filter each, then a turning phase. Leading axes of both may be a batch.

    ``y[t, q] = sum_p turn[p, t, q] IDFT_q(filter[p] DFT(s[t]))``.
    """

    filter: Complex[Array, "*batch path sample"]  # path amplitude, delay and pulse, in FFT order
    turn: Complex[Array, "*batch path period sample"]  # Doppler at the output sample


def passage(
    delay: Float[Array, " path"],
    doppler: Float[Array, " path"],
    amplitude: Complex[Array, " path"],
    roll_off: float,
    size: int,
    periods: int = 1,
    prefix: float = np.inf,
    order: str = "exact",
    doppler_limit: float = 0.1,
) -> Passage:
    """Paths of amplitude ``a``, delay ``l`` and Doppler ``nu`` on frames of ``periods`` stretches of ``size`` samples, ``prefix`` before each.

    ``H = sum_p a_p exp(-j 2 pi nu_p l_p) D^nu_p G_p``: the Doppler's phase at the output sample (papers/001 eq (11), reading "DG").
    ``order`` says with what pulse: "exact", what the pulses' lines become (``folded_spectrum``), the limit of an oversampled filter; "DG", the paper's eq (7),
    blind to what Doppler does to the pulse; both at the same cost. (The OTFS-like order is ``delay_doppler.echo_operator``'s "GD", for comparison only.)
    At Table I of papers/001 (l = 10.25, nu = 5.56 / 1024, roll-off 0.1) they miss the pulses cut to 10 samples by -42 and -36 dB ("GD": -14), the endless
    ones by -86 and -37.

    Raises Misuse for a delay beyond ``prefix``, a Doppler shift beyond ``doppler_limit`` (1 / (2 delay bins) is the delay-Doppler grid's), what is not
    finite, or another order.
    """
    delay, doppler = (np.asarray(x, dtype=np.float64).reshape(-1) for x in (delay, doppler))
    amplitude = np.asarray(finite("amplitude", amplitude)).reshape(-1)
    shaped("doppler", doppler, delay.shape)
    shaped("amplitude", amplitude, delay.shape)
    for name, value, low, high, reason in (
        ("delay", delay, 0.0, prefix, "samples, the cyclic prefix; lengthen it or leave the path out"),
        ("doppler", doppler, -doppler_limit, doppler_limit, "cycles a sample, the grid's edges; widen its spacing"),
    ):
        bad = np.flatnonzero(~((value >= low) & (value <= high)))
        if bad.size:
            raise Misuse(f"{name}[{bad[0]}] = {value[bad[0]]:.6g}: must lie in {low:.6g} .. {high:.6g} {reason}")
    if order not in ("exact", "DG"):
        raise Misuse(f"order = {order!r}: must be 'exact' or 'DG'")
    shift = None if order == "exact" else 0.0
    filters = np.empty((len(delay), size), dtype=np.complex128)
    for p, (late, turns) in enumerate(zip(delay, doppler, strict=True)):
        filters[p] = folded_spectrum(size, late, turns, roll_off, shift)[0]
    filters *= (amplitude * cis(-2 * np.pi * doppler * delay))[:, None]
    step = size + prefix if periods > 1 else 0.0
    t = step * np.arange(periods)[:, None] + np.arange(size)
    return Passage(filter=filters, turn=cis(2 * np.pi * doppler[:, None, None] * t))


def through(channel: Passage, samples: Complex[Array, "*batch sample"]) -> Complex[Array, "*batch sample"]:
    """``H s`` of frames end to end; result in the precision of ``samples``. Raises Misuse for no frames, another length, or samples that are not finite."""
    from scipy.fft import fft, ifft

    samples, shape = _frames(channel, samples)
    lines = fft(samples, axis=-1)
    out = np.zeros(np.broadcast_shapes(samples.shape, _batch(channel) + samples.shape[-2:]), dtype=samples.dtype)
    for p in range(channel.filter.shape[-2]):
        filters, turn = _of(channel, p, samples.dtype)
        out += ifft(lines * filters, axis=-1, overwrite_x=True) * turn
    return out.reshape(*out.shape[:-2], shape)


def adjoint(channel: Passage, samples: Complex[Array, "*batch sample"]) -> Complex[Array, "*batch sample"]:
    """``H^H y``: what a matched receiver makes of frames. Raises as ``through``."""
    from scipy.fft import fft, ifft

    samples, shape = _frames(channel, samples)
    lines = np.zeros(np.broadcast_shapes(samples.shape, _batch(channel) + samples.shape[-2:]), dtype=samples.dtype)
    for p in range(channel.filter.shape[-2]):
        filters, turn = _of(channel, p, samples.dtype)
        lines += fft(samples * turn.conj(), axis=-1, overwrite_x=True) * filters.conj()
    out: Array = ifft(lines, axis=-1, overwrite_x=True)
    return out.reshape(*out.shape[:-2], shape)


def hybrid(
    channel: Passage,
    samples: Complex[Array, "*batch stream sample"],
    departure: Complex[Array, "path stream"],
    arrival: Complex[Array, "path chain"],
) -> Complex[Array, "*batch chain sample"]:
    """Streams to chains through antennas that are never formed: ``Y = sum_p (W^H a_r,p) (H_p S^T F^T a_t,p)^T`` (papers/001 eqs (16)-(30)).

    ``departure`` is ``F^T a_t`` of each path (``hal.medium.beam_gains`` times the digital weights), ``arrival`` its ``W^H a_r``. One inverse
    FFT a path, one FFT a stream. The same relation from delay-Doppler grids to grids: ``zak.through_grid``, in half the time. Raises as ``through``.
    """
    from scipy.fft import fft, ifft

    samples = np.asarray(samples)
    paths, (_, count) = channel.filter.shape[-2], (samples.shape[-2], samples.shape[-1])
    shaped("departure", departure, (paths, samples.shape[-2]))
    shaped("arrival", arrival, (paths, None))
    frames, _ = _frames(channel, samples)
    lines = np.einsum("ps,...sk->...pk", departure.astype(samples.dtype), fft(frames, axis=-1).reshape(samples.shape))
    lines = lines.reshape(*lines.shape[:-1], *channel.turn.shape[-2:]) * channel.filter[..., None, :].astype(
        samples.dtype
    )
    wave = ifft(lines, axis=-1, overwrite_x=True) * channel.turn.astype(samples.dtype)
    return np.einsum("pc,...pq->...cq", arrival.astype(samples.dtype), wave.reshape(*wave.shape[:-2], count))  # type: ignore[no-any-return]


def _frames(channel: Passage, samples: Any) -> tuple[Array, int]:
    samples = np.asarray(samples)
    if not np.iscomplexobj(samples):
        samples = samples.astype(np.complex128)
    periods, size = channel.turn.shape[-2:]
    if not samples.size:
        raise Misuse(f"samples: has shape {samples.shape}, no frames; must hold at least one")
    shaped("samples", samples, (*samples.shape[:-1], periods * size))
    if not np.isfinite(samples.sum()):
        finite("samples", samples)
    return samples.reshape(*samples.shape[:-1], periods, size), periods * size


def _batch(channel: Passage) -> tuple[int, ...]:
    return np.broadcast_shapes(channel.filter.shape[:-2], channel.turn.shape[:-3])


def _of(channel: Passage, p: int, dtype: Any) -> tuple[Array, Array]:
    return channel.filter[..., p, None, :].astype(dtype), channel.turn[..., p, :, :].astype(dtype)
