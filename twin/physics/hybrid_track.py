"""One step from a prediction: what a new frame says of a target that is being followed, in tens of microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.check import positive, shaped
from hal.errors import Misuse
from hal.record import Array, Complex, Float, record
from twin.physics._hybrid_kernels import patterns
from twin.physics.delay_doppler import folded_spectrum
from twin.physics.hybrid_echo import Aperture
from twin.physics.short_fft import delayed

__all__ = ["Update", "update"]


@record
class Update:
    """Where a prediction moved to: (uy, uz, delay, Doppler), in cosines, samples and cycles a sample."""

    value: Float[Array, " 4"]
    covariance: Float[Array, "4 4"]
    snr: float  # integrated, of the echo at the prediction; a few: there was nothing to follow


def update(
    data: Complex[Array, "row frame sample"],
    spectrum: Complex[Array, "1 frame sample"],
    start: Float[Array, " frame"],
    roll_off: float,
    aperture: Aperture,
    predicted: Float[Array, " 4"],
    noise_w: float,
) -> Update:
    """One Gauss-Newton step of ``JointFit`` for one target and one stream, from a prediction within a third of a cell and of a beam.

    A step loses what the curvature over the prediction's error is worth: about (error / cell)^2 of it. Leakage is not fitted: an echo more than a
    few cells away from delay zero does not feel it unless it is stronger by 1 / (samples). Raises Misuse for several streams.

    Args:
        data: whitened chain outputs.
        spectrum: FFT of the frames as sent.
        start: of each frame's first sample, in samples from the instant delay refers to.
        roll_off: of the pulse.
        aperture: of the beams in force.
        predicted: uy, uz, delay in samples, Doppler in cycles a sample.
        noise_w: of one whitened row and sample.
    """
    if len(spectrum) != 1:
        raise Misuse(f"spectrum: is of {len(spectrum)} streams, must be one; several are for JointFit")
    shaped("data", data, (len(aperture.receive), *spectrum.shape[1:]))
    positive("noise_w", noise_w)
    delay, doppler = float(predicted[2]), float(predicted[3])
    pair = delayed(spectrum, *folded_spectrum(spectrum.shape[2], delay, doppler, roll_off))[0]
    b = patterns(aperture.receive, *aperture.receive_lever, np.asarray(predicted[None, :2]))[0]
    value, covariance, snr = _updated(data, pair, start, doppler, b, np.asarray(predicted), noise_w)
    return Update(value=value, covariance=covariance, snr=snr)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _updated(
    data: Any, pair: Any, start: Any, doppler: float, b: Any, predicted: Any, noise_w: float
) -> Any:  # pragma: no cover - compiled
    rows, frames, size = data.shape
    heard = np.zeros((3, rows), np.complex128)
    gram = np.zeros((3, 3), np.complex128)
    wave = np.empty((3, 2, size), np.float32)
    fine = np.empty(32, np.complex64)
    for p in range(32):
        fine[p] = complex(np.cos(2 * np.pi * doppler * p), np.sin(2 * np.pi * doppler * p))
    for f in range(frames):
        for q in range(0, size, 32):
            angle = 2 * np.pi * ((doppler * (start[f] + q)) % 1.0)
            coarse = np.complex64(complex(np.cos(angle), np.sin(angle)))
            begin = np.float32(2 * np.pi * (start[f] + q))
            for p in range(min(32, size - q)):
                c = coarse.real * fine[p].real - coarse.imag * fine[p].imag
                s = coarse.real * fine[p].imag + coarse.imag * fine[p].real
                v, d = pair[0, f, q + p], pair[1, f, q + p]
                re, im = v.real * c - v.imag * s, v.real * s + v.imag * c
                t = begin + np.float32(2 * np.pi) * np.float32(p)
                wave[0, 0, q + p], wave[0, 1, q + p] = re, im
                wave[1, 0, q + p], wave[1, 1, q + p] = d.real * c - d.imag * s, d.real * s + d.imag * c
                wave[2, 0, q + p], wave[2, 1, q + p] = -t * im, t * re
        for r in range(rows):
            s0, s1, s2 = np.float32(0), np.float32(0), np.float32(0)
            t0, t1, t2 = np.float32(0), np.float32(0), np.float32(0)
            for q in range(size):
                x, y = data[r, f, q].real, data[r, f, q].imag
                s0 += wave[0, 0, q] * x + wave[0, 1, q] * y
                t0 += wave[0, 0, q] * y - wave[0, 1, q] * x
                s1 += wave[1, 0, q] * x + wave[1, 1, q] * y
                t1 += wave[1, 0, q] * y - wave[1, 1, q] * x
                s2 += wave[2, 0, q] * x + wave[2, 1, q] * y
                t2 += wave[2, 0, q] * y - wave[2, 1, q] * x
            heard[0, r] += complex(s0, t0)
            heard[1, r] += complex(s1, t1)
            heard[2, r] += complex(s2, t2)
        for i in range(3):
            for j in range(i, 3):
                re, im = np.float32(0), np.float32(0)
                for q in range(size):
                    re += wave[i, 0, q] * wave[j, 0, q] + wave[i, 1, q] * wave[j, 1, q]
                    im += wave[i, 0, q] * wave[j, 1, q] - wave[i, 1, q] * wave[j, 0, q]
                gram[i, j] += complex(re, im)
    power, level = 0.0, 0j
    for r in range(rows):
        power += b[0, r].real ** 2 + b[0, r].imag ** 2
        level += b[0, r].conjugate() * heard[0, r]
    energy = gram[0, 0].real
    amplitude = level / (power * energy)
    metric, slope = np.zeros((4, 4)), np.zeros(4)
    size2 = amplitude.real**2 + amplitude.imag**2
    along = np.zeros(2, np.complex128)
    for a in range(2):
        for r in range(rows):
            along[a] += b[0, r].conjugate() * b[1 + a, r]
    for a in range(2):
        for c in range(2):
            inner = 0j
            for r in range(rows):
                inner += b[1 + a, r].conjugate() * b[1 + c, r]
            metric[a, c] = size2 * energy * (inner - along[a].conjugate() * along[c] / power).real
        left = -along[a].conjugate() / power * level
        for r in range(rows):
            left += b[1 + a, r].conjugate() * heard[0, r]
        slope[a] = (amplitude.conjugate() * left).real
    for a in range(2):
        for c in range(2):
            i, j = min(a, c), max(a, c)
            inner = gram[1 + i, 1 + j] if a <= c else gram[1 + i, 1 + j].conjugate()
            metric[2 + a, 2 + c] = size2 * power * (inner - gram[0, 1 + a].conjugate() * gram[0, 1 + c] / energy).real
        left = -gram[0, 1 + a].conjugate() / energy * level
        for r in range(rows):
            left += b[0, r].conjugate() * heard[1 + a, r]
        slope[2 + a] = (amplitude.conjugate() * left).real
    inverse = np.zeros((4, 4))
    for k in range(0, 4, 2):
        det = metric[k, k] * metric[k + 1, k + 1] - metric[k, k + 1] * metric[k + 1, k]
        inverse[k, k], inverse[k + 1, k + 1] = metric[k + 1, k + 1] / det, metric[k, k] / det
        inverse[k, k + 1] = inverse[k + 1, k] = -metric[k, k + 1] / det
    value = predicted.copy()
    for p in range(4):
        for q in range(4):
            value[p] += inverse[p, q] * slope[q]
    return value, inverse * (0.5 * noise_w), size2 * power * energy / noise_w
