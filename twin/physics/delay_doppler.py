"""Echoes of known cyclic frames in delay and Doppler: pulses, the operator H(l, k), its derivatives, and how high noise alone peaks.

Delays are in samples (``l = delay_s * sample_rate_hz``) and Doppler shifts in cycles a sample (``doppler_hz / sample_rate_hz``), so that no
function here needs a rate. A frame is one cyclic period of ``sample`` samples; Doppler positive when the range shrinks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.check import shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float

__all__ = [
    "echo_operator",
    "field_curvature",
    "folded_spectrum",
    "peak_probability",
    "peak_threshold",
    "raised_cosine",
    "raised_cosine_slope",
    "root_spectrum",
    "templates",
]


def raised_cosine(t: Float[Array, "*batch"], roll_off: float) -> Float[Array, "*batch"]:
    """Raised cosine ``g(t) = sinc(t) cos(pi b t) / (1 - (2 b t)^2)`` at ``t`` in samples; its removable poles are filled in.

    It is the autocorrelation of the endless unit-energy square-root raised cosine (papers/001 eq (12), closed form).
    """
    t = np.asarray(t, dtype=np.float64)
    return np.sinc(t) * _window(roll_off * t)[0]


def raised_cosine_slope(t: Float[Array, "*batch"], roll_off: float) -> Float[Array, "*batch"]:
    """``dg/dt`` of ``raised_cosine``, a sample; needed for the Fisher information of a delay."""
    t = np.asarray(t, dtype=np.float64)
    near = np.abs(t) < 1e-3
    far = np.where(near, 1.0, t)
    slope = np.where(near, -(np.pi**2) / 3 * t + np.pi**4 / 30 * t**3, (np.cos(np.pi * far) - np.sinc(far)) / far)
    window, window_slope = _window(roll_off * t)
    return slope * window + np.sinc(t) * roll_off * window_slope


def _window(x: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """``cos(pi x) / (1 - 4 x^2) = pi/4 (sinc(x + 1/2) + sinc(x - 1/2))``, free of poles, and its derivative."""

    def sinc_slope(y: Array) -> Array:
        near = np.abs(y) < 1e-3
        far = np.where(near, 1.0, y)
        slope: Array = np.where(
            near, -(np.pi**2) / 3 * y + np.pi**4 / 30 * y**3, (np.cos(np.pi * far) - np.sinc(far)) / far
        )
        return slope

    value = np.pi / 4 * (np.sinc(x + 0.5) + np.sinc(x - 0.5))
    return value, np.pi / 4 * (sinc_slope(x + 0.5) + sinc_slope(x - 0.5))


def root_spectrum(frequency: Float[Array, "*batch"], roll_off: float) -> Float[Array, "*batch"]:
    """Spectrum ``A(f)`` of the square-root raised cosine, 1 in its flat part, at ``frequency`` in cycles a sample.

    ``sum_i A(f - i)^2 = 1`` (Nyquist). An endless pulse: one cut to 10 samples each side differs by about -36 dB at roll-off 0.1.
    """
    over = np.abs(frequency) - (1 - roll_off) / 2
    if roll_off == 0:
        return np.where(over < 0, 1.0, np.where(over > 0, 0.0, np.sqrt(0.5)))
    return np.cos(np.clip(over * (np.pi / (2 * roll_off)), 0.0, np.pi / 2))


def folded_spectrum(
    size: int, delay: float, doppler: float, roll_off: float, shift: float | None = None
) -> tuple[Complex[Array, " size"], Complex[Array, " size"]]:
    """Spectrum of one period of a delay after pulse, Doppler and matched filter, and its derivative with respect to the delay.

    ``G(f) = sum_i A(f + i) A(f + i + shift) exp(-j 2 pi (f + i) delay)``, ``f = k / size`` in FFT order. ``shift`` (default ``doppler``) is by how
    much the Doppler shift has moved the signal against the matched filter: exact for frames that are cyclic as far as delay and
    pulse reach; 0 gives the approximation ``A^2`` of papers/001 eq (7). Not a phase ramp in the roll-off band: ``sum |G|^2`` depends on the
    fraction of ``delay``. Raises Misuse for a roll-off outside 0 .. 1.
    """
    if not 0 <= roll_off <= 1:
        raise Misuse(f"roll_off = {roll_off!r}: must be 0 .. 1")
    if roll_off == 0:
        f = np.fft.fftfreq(size)
        ramp = cis(-2 * np.pi * f * delay)
        return ramp, -2j * np.pi * f * ramp
    return _fold(size, float(delay), float(doppler if shift is None else shift), float(roll_off))  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _fold(size: int, delay: float, shift: float, roll_off: float) -> Any:  # pragma: no cover - compiled
    value = np.zeros(size, dtype=np.complex128)
    slope = np.zeros(size, dtype=np.complex128)
    flat, edge = (1 - roll_off) / 2, (1 + roll_off) / 2
    steep = np.pi / (2 * roll_off)
    reach = int(np.ceil(edge * size))
    turn = complex(np.cos(2 * np.pi * delay / size), -np.sin(2 * np.pi * delay / size))
    start = 2 * np.pi * delay * reach / size
    phasor = complex(np.cos(start), np.sin(start))
    for k in range(-reach, reach + 1):
        f = k / size
        a, b = abs(f), abs(f + shift)
        if a < edge and b < edge:
            gain = 1.0
            if a > flat:
                gain *= np.cos(steep * (a - flat))
            if b > flat:
                gain *= np.cos(steep * (b - flat))
            term = gain * phasor
            bin = k % size
            value[bin] += term
            slope[bin] += complex(2 * np.pi * f * term.imag, -2 * np.pi * f * term.real)
        phasor *= turn
    return value, slope


def echo_operator(
    samples: Complex[Array, "*batch sample"], delay: float, doppler: float, roll_off: float, order: str = "DG"
) -> Complex[Array, "*batch sample"]:
    """``H(l, k) s`` for frames of samples: a delay of ``delay`` samples and a Doppler shift of ``doppler`` cycles a sample, by FFT.

    ``order`` "DG" (papers/001 eqs (11), (42) as read in docs): ``exp(-j 2 pi nu l) D^nu G(l) s``, the Doppler's phase at the output sample.
    "GD": ``G(l) D^nu s``, the generalisation of OTFS; equal to DG where ``doppler * sample`` is an integer, else it turns
    the wrapped samples' phase by a whole frame and misses the physical echo by -14 dB. "exact": DG with ``A(f) A(f + nu)`` for the
    pulse, the physical echo of a cyclic frame. Raises Misuse for another order.
    """
    samples = np.asarray(samples)
    size = samples.shape[-1]
    ramp = cis(2 * np.pi * doppler * np.arange(size))
    if order == "GD":
        return np.fft.ifft(np.fft.fft(samples * ramp) * folded_spectrum(size, delay, 0.0, roll_off)[0])
    if order not in ("DG", "exact"):
        raise Misuse(f"order = {order!r}: must be 'DG', 'GD' or 'exact'")
    filtered = folded_spectrum(size, delay, doppler, roll_off, shift=0.0 if order == "DG" else None)[0]
    delayed = np.fft.ifft(np.fft.fft(samples) * filtered)
    out: Array = np.exp(-2j * np.pi * doppler * delay) * ramp * delayed
    return out


def templates(
    spectrum: Complex[Array, "frame sample"],
    start: Float[Array, " frame"],
    delay: float,
    doppler: float,
    roll_off: float,
) -> Complex[Array, "3 frame sample"]:
    """The echo of known frames at one delay and Doppler, and its derivatives with respect to both: ``(T, dT/dl, dT/dnu)``.

    ``spectrum`` is the FFT of each frame as sent, ``start`` the time of each frame's first sample in samples from the instant to which delay and
    phase refer: ``T[f, q] = exp(j 2 pi nu (start_f + q)) IFFT_q(spectrum_f G)``, exact pulse (``folded_spectrum``). The delay is constant during
    the frames. Result in the precision of ``spectrum``. The Doppler's pull on the pulse (1e-4 of ``dT/dnu``) is left out of the derivative.
    """
    from scipy.fft import ifft

    frames, size = spectrum.shape
    shaped("start", start, (frames,))
    shape = np.array(folded_spectrum(size, delay, doppler, roll_off), dtype=spectrum.dtype)
    out = np.empty((3, frames, size), dtype=spectrum.dtype)
    pair = ifft(spectrum * shape[:, None], axis=-1, overwrite_x=True)
    real = np.float32 if spectrum.dtype == np.complex64 else np.float64
    first = cis(2 * np.pi * doppler * np.asarray(start, dtype=np.float64)).astype(spectrum.dtype)
    ramp = cis(2 * np.pi * doppler * np.arange(size)).astype(spectrum.dtype)
    time = (2 * np.pi * (np.asarray(start)[:, None] + np.arange(size))).astype(real)
    _turn(pair.view(real), first.view(real), ramp.view(real), time, out.view(real))
    return out


@njit(cache=True, error_model="numpy")
def _turn(pair: Any, first: Any, ramp: Any, time: Any, out: Any) -> None:  # pragma: no cover - compiled
    # complex numbers as interleaved reals, which vectorise where complex ones do not
    frames, size = time.shape
    for f in range(frames):
        c, s = first[2 * f], first[2 * f + 1]
        for q in range(size):
            re = c * ramp[2 * q] - s * ramp[2 * q + 1]
            im = c * ramp[2 * q + 1] + s * ramp[2 * q]
            tr = pair[0, f, 2 * q] * re - pair[0, f, 2 * q + 1] * im
            ti = pair[0, f, 2 * q] * im + pair[0, f, 2 * q + 1] * re
            out[0, f, 2 * q], out[0, f, 2 * q + 1] = tr, ti
            out[1, f, 2 * q] = pair[1, f, 2 * q] * re - pair[1, f, 2 * q + 1] * im
            out[1, f, 2 * q + 1] = pair[1, f, 2 * q] * im + pair[1, f, 2 * q + 1] * re
            out[2, f, 2 * q], out[2, f, 2 * q + 1] = -time[f, q] * ti, time[f, q] * tr


@lru_cache(maxsize=64)
def field_curvature(size: int, roll_off: float, start: tuple[float, ...]) -> tuple[float, float]:
    """How fast the matched filter's noise decorrelates: rms slope of the unit-variance noise field a sample of delay, and a unit of Doppler.

    ``sqrt(||P dT||^2 / ||T||^2)`` with P the projection off T, for white frames of ``size`` samples starting at ``start`` (samples), averaged over the
    fraction of the delay.
    """
    slopes = []
    for fraction in np.arange(8) / 8:
        value, slope = folded_spectrum(size, fraction, 0.0, roll_off)
        energy = np.sum(np.abs(value) ** 2)
        slopes.append(np.sqrt(np.sum(np.abs(slope) ** 2) / energy - np.abs(np.sum(value.conj() * slope) / energy) ** 2))
    t = np.asarray(start)[:, None] + np.arange(size)
    return float(np.mean(slopes)), float(2 * np.pi * np.std(t))


def peak_probability(level: float, chains: int, sides: tuple[float, float]) -> float:
    """Probability that noise alone peaks above ``level`` anywhere in a rectangle of delay and Doppler.

    ``1 - exp(-E)``, E the expected Euler characteristic of the set above the level: peaks above it are rare and independent. The field
    is ``sum_c |z_c|^2`` of ``chains`` independent CN(0, 1) outputs of a matched filter; ``sides`` are the rectangle's sides in
    units of the field's rms slope (``field_curvature`` times span). A continuous field, so no grid and no straddling enter. Good to some per
    cent for probabilities below 0.2. Source: Worsley, "Local maxima and the expected Euler characteristic of excursion sets of chi2,
    F and t fields", Adv. Appl. Prob. 26, 1994 (chi-square field in two dimensions, edges included).
    """
    from scipy.special import gammaincc, gammaln

    n, t = 2 * chains, 2 * level
    if not t > 0:
        return 1.0
    common = np.exp(-t / 2 - (n - 2) / 2 * np.log(2) - gammaln(n / 2))
    line = t ** ((n - 1) / 2) * common / np.sqrt(2 * np.pi)
    plane = t ** ((n - 2) / 2) * common / (2 * np.pi) * (t - (n - 1))
    return float(-np.expm1(-(gammaincc(chains, level) + (sides[0] + sides[1]) * line + sides[0] * sides[1] * plane)))


@lru_cache(maxsize=64)
def peak_threshold(probability: float, chains: int, sides: tuple[float, float]) -> float:
    """The ``level`` at which ``peak_probability`` is ``probability``.

    Raises Misuse for a probability outside 0 .. 0.5, where the expected Euler characteristic is no probability.
    """
    if not 0 < probability <= 0.5:
        raise Misuse(f"probability = {probability!r}: must lie in (0, 0.5]")
    from scipy.optimize import brentq

    low = float(2 * chains)  # from here on, beyond the bulk of a single cell, the probability falls with the level
    if peak_probability(low, chains, sides) < probability:
        low = 0.1 * chains  # next to no area: the gamma distribution of one cell
    return float(brentq(lambda level: peak_probability(level, chains, sides) - probability, low, 1e4))
