"""What an RF chain does to a signal on its way: noise, amplifier, phase noise, mixer imbalance, converter (pure; chance is an argument)."""

from __future__ import annotations

import numpy as np

from hal.check import positive
from hal.errors import Misuse
from hal.record import Array, Bool, Complex, Float

__all__ = [
    "BOLTZMANN_J_PER_K",
    "ROOM_K",
    "convert",
    "image_rejection_db",
    "iq_imbalance",
    "mixer",
    "rapp",
    "rotate",
    "saleh",
    "thermal_noise_w",
    "wiener_phase",
]

BOLTZMANN_J_PER_K = 1.380649e-23
ROOM_K = 290.0  # the temperature noise figures refer to


def thermal_noise_w(bandwidth_hz: float, noise_figure_db: float = 0.0, temperature_k: float = ROOM_K) -> float:
    """Noise power ``k T B F`` (W) of one chain in ``bandwidth_hz`` (Hz), noise figure in dB.

    White over the band; noise that the antenna picks up at another temperature than 290 K is left out of ``F``'s meaning.
    """
    power_w = BOLTZMANN_J_PER_K * positive("temperature_k", temperature_k) * positive("bandwidth_hz", bandwidth_hz)
    if not np.isfinite(noise_figure_db):
        raise Misuse(f"noise_figure_db = {noise_figure_db!r}: must be finite")
    return float(power_w * 10 ** (noise_figure_db / 10))


def convert(
    samples: Complex[Array, " ..."], bits: int, full_scale: float
) -> tuple[Complex[Array, " ..."], Bool[Array, " ..."]]:
    """Two converters, one for each of I and Q: uniform mid-rise steps of ``2 full_scale / 2^bits``, and which samples clipped.

    Levels are ``(k + 1/2) step`` within ``-full_scale .. full_scale``, both in the unit of the samples (sqrt(W)); ``bits`` 0 clips only and an
    infinite ``full_scale`` (with bits 0) passes everything. A full-scale sine has a signal-to-quantisation ratio of 6.02 bits + 1.76 dB.
    Jitter, offset and differential non-linearity are left out.
    """
    if not 0 <= bits <= 32:
        raise Misuse(f"bits = {bits!r}: must be 0 (no steps) .. 32")
    if not full_scale > 0 or (bits and not np.isfinite(full_scale)):
        raise Misuse(f"full_scale = {full_scale!r}: must be > 0, and finite unless bits = 0")
    samples = np.asarray(samples)
    clipped = (np.abs(samples.real) > full_scale) | (np.abs(samples.imag) > full_scale)
    out = np.empty(samples.shape, np.result_type(samples.dtype, np.complex64))
    for part, value in ((out.real, samples.real), (out.imag, samples.imag)):
        if bits:
            step = 2 * full_scale / 2**bits
            half = 2 ** (bits - 1)
            part[...] = (np.clip(np.floor(value / step), -half, half - 1) + 0.5) * step
        else:
            part[...] = np.clip(value, -full_scale, full_scale)
    return out, clipped


def iq_imbalance(samples: Complex[Array, " ..."], gain_db: float, phase_rad: float) -> Complex[Array, " ..."]:
    """A direct-conversion mixer's imbalance, ``y = mu x + nu conj(x)``: ``I = Re x``, ``Q = g (Im x cos phase - Re x sin phase)``, over a flat band."""
    mu, nu = mixer(gain_db, phase_rad)
    out: Array = mu * samples + nu * np.conj(samples)
    return out


def mixer(gain_db: float, phase_rad: float) -> tuple[complex, complex]:
    """``mu = (1 + g e^{-j phase})/2`` and ``nu = (1 - g e^{+j phase})/2``: what passes, and its image, where the Q branch is ``g`` (``gain_db``)
    too strong and its oscillator ``phase_rad`` off quadrature.
    """
    g = 10 ** (gain_db / 20)
    return complex(1 + g * np.exp(-1j * phase_rad)) / 2, complex(1 - g * np.exp(1j * phase_rad)) / 2


def image_rejection_db(gain_db: float, phase_rad: float) -> float:
    """Ratio of wanted to image power ``(1 + 2 g cos phase + g^2) / (1 - 2 g cos phase + g^2)`` in dB; infinite without imbalance."""
    g = 10 ** (gain_db / 20)
    image = (1 - g) ** 2 + 4 * g * np.sin(phase_rad / 2) ** 2  # without the cancellation of the form above
    wanted = (1 + g) ** 2 - 4 * g * np.sin(phase_rad / 2) ** 2
    return float(10 * np.log10(wanted / image)) if image > 0 else float("inf")


def rapp(
    samples: Complex[Array, " ..."],
    saturation: float | Float[Array, " ..."],
    smoothness: float = 2.0,
    gain: float = 1.0,
) -> Complex[Array, " ..."]:
    """Solid-state amplifier without phase conversion: ``y = g x / (1 + (g |x| / saturation)^(2 p))^(1 / (2 p))``.

    ``saturation`` is the output amplitude's limit in the samples' unit (inf: linear; an array broadcasts), ``gain`` an amplitude. Memoryless.
    C. Rapp, 2nd European Conf. on Satellite Communications, 1991.
    """
    positive("smoothness", smoothness)
    if not np.all(np.asarray(saturation) > 0):
        raise Misuse(f"saturation = {saturation!r}: must be > 0; an ideal amplifier is saturation = inf")
    drive = gain * np.abs(samples) / saturation
    # the larger of drive and 1 taken out, so that a strong drive does not overflow
    large = np.maximum(drive, 1.0)
    squeeze = large * ((1 / large) ** (2 * smoothness) + (drive / large) ** (2 * smoothness)) ** (1 / (2 * smoothness))
    return gain * samples / squeeze


def saleh(
    samples: Complex[Array, " ..."],
    alpha_a: float = 2.1587,
    beta_a: float = 1.1517,
    alpha_phi: float = 4.0033,
    beta_phi: float = 9.1040,
) -> Complex[Array, " ..."]:
    """Travelling-wave tube: amplitude ``alpha_a r / (1 + beta_a r^2)`` and added phase ``alpha_phi r^2 / (1 + beta_phi r^2)`` (rad), ``r = |x|``.

    ``x`` is normalised to the input amplitude the coefficients were fitted for; output peaks at ``alpha_a / (2 sqrt(beta_a))`` for
    ``r = 1 / sqrt(beta_a)``. Memoryless. Defaults: A. Saleh, IEEE Trans. Commun. 29(11), 1981, eqs (2)-(3), fit to Kaye et al.'s data.
    """
    power = np.abs(samples) ** 2
    return samples * (alpha_a / (1 + beta_a * power)) * np.exp(1j * alpha_phi * power / (1 + beta_phi * power))


def wiener_phase(
    draws: Float[Array, "... sample"],
    linewidth_hz: float,
    sample_rate_hz: float,
    initial_rad: float | Float[Array, " ..."] = 0.0,
) -> Float[Array, "... sample"]:
    """Phase (rad) of a free-running oscillator of 3-dB linewidth ``linewidth_hz`` (both sides): a random walk.

    ``phi[n] = phi[n-1] + sqrt(2 pi linewidth / sample_rate) draws[n]`` from ``initial_rad``, so that ``E|phi[n+k] - phi[n]|^2 =
    2 pi linewidth k / sample_rate``. ``draws`` are independent standard normals, given by the caller; carry the last phase on as
    ``initial_rad``. A locked oscillator's flat part and flicker noise are left out.
    """
    if not linewidth_hz >= 0:
        raise Misuse(f"linewidth_hz = {linewidth_hz!r}: must be >= 0")
    step = np.sqrt(2 * np.pi * linewidth_hz / positive("sample_rate_hz", sample_rate_hz))
    walk: Array = np.asarray(initial_rad)[..., None] + np.cumsum(step * np.asarray(draws), axis=-1)
    return walk


def rotate(samples: Complex[Array, " ..."], phase_rad: Float[Array, " ..."]) -> Complex[Array, " ..."]:
    """The samples turned by ``exp(+j phase)`` (rad), as an oscillator's phase turns them; shapes broadcast."""
    return samples * np.exp(1j * np.asarray(phase_rad))
