"""What flaws of the chains do to wide-band events, which have no samples in time: gains, and the power that is no data (pure).

An event is a sum of many independent subcarriers, so its samples are normal (central limit): a converter or an amplifier is then a gain and a
distortion uncorrelated with the signal (Bussgang's theorem), an oscillator spreads each subcarrier's power by its line's spectrum, a mixer adds the
mirror's image. Checked against sums of samples in ``tests/hal/test_distortion.py``. Left out: the sampling clock's and the carrier offset's
interference between subcarriers, correlation of step noise between chains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hal.array import cis
from hal.chain import mixer
from hal.frontend import Drive
from hal.impairments import Impairments, amplifier, mask_power, oscillator_phase
from hal.record import Array, Bool, Complex, Float, Int
from hal.walk import Noise

__all__ = ["amplified", "block_s", "bussgang", "converted", "leakage", "leaked", "regrown", "sent_block"]

EXACT_BITS = 12  # up to here steps are summed one by one; finer ones are uniform noise, to 5e-3 of it all
OVERLOAD = 1e-3  # share of samples that clip from which a converter says so


def bussgang(
    power_w: Float[Array, " ..."], bits: int, full_scale: float
) -> tuple[Float[Array, " ..."], Float[Array, " ..."], Float[Array, " ..."]]:
    """A pair of converters (``hal.chain.convert``) driven by circular normal samples of mean power ``power_w`` (W).

    ``Q(x) = gain x + d`` with ``E x* d = 0``: the gain, and the power of ``d`` (W) in two parts, what clipping makes and what steps make. By Bussgang,
    ``gain = E Q'(x)``, here the sum of ``step x density`` over the thresholds, and ``E |d|^2 = E Q^2 - gain^2 power``.
    J. Bussgang, MIT RLE report 216, 1952.
    """
    from scipy.special import erf, erfc

    power_w = np.asarray(power_w, dtype=np.float64)
    sigma = np.sqrt(np.maximum(power_w, np.finfo(float).tiny) / 2)
    if np.isinf(full_scale):
        return np.ones_like(sigma), np.zeros_like(sigma), np.zeros_like(sigma)
    u = full_scale / sigma
    density, beyond = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi), erfc(u / np.sqrt(2))  # two-sided share that clips
    gain = erf(u / np.sqrt(2))
    clip = 2 * sigma**2 * np.maximum(beyond * (u**2 + gain) - 2 * u * density, 0.0)
    if not bits:
        return gain, clip, np.zeros_like(clip)
    step = 2 * full_scale / 2**bits
    if bits > EXACT_BITS:
        return gain, clip, np.where(power_w > 0, step**2 / 6, 0.0)
    threshold = (np.arange(1, 2**bits) - 2 ** (bits - 1)) * step
    slope, second = np.empty_like(sigma), np.empty_like(sigma)
    for where, s in np.ndenumerate(sigma):
        slope[where] = step / s * np.exp(-((threshold / s) ** 2) / 2).sum() / np.sqrt(2 * np.pi)
        positive = threshold[2 ** (bits - 1) :]
        # levels are (k + 1/2) step: squares differ by 2 k step^2 from one to the next
        second[where] = step**2 / 4 + (2 * step * positive * erfc(positive / s / np.sqrt(2))).sum()
    both = np.maximum(2 * (second - slope**2 * sigma**2), clip)
    return slope, clip, np.where(power_w > 0, both - clip, 0.0)


@lru_cache(maxsize=64)
def _leakage(flaws: Impairments, offset_hz: tuple[float, ...], length_s: float) -> Array:
    offset = np.array(offset_hz)
    z = np.pi * flaws.linewidth_hz * length_s + 2j * np.pi * offset * length_s
    near = np.abs(z) < 1e-3
    far = np.where(near, 1.0, z)
    out = 2 * np.where(near, 0.5 - z / 6 + z**2 / 24, (far + np.expm1(-far)) / far**2).real
    if not flaws.linewidth_hz:
        out = np.sinc(offset * length_s) ** 2
    if flaws.phase_noise_dbc:
        low, high = flaws.phase_noise_dbc[0][0], flaws.phase_noise_dbc[-1][0]
        fine = np.arange(1, 8 * high * length_s) / (8 * length_s)
        edge = np.unique(np.clip(np.concatenate([np.geomspace(low, high, 200), fine]), low, high))
        power, centre = mask_power(flaws.phase_noise_dbc, edge[:-1], edge[1:]), (edge[1:] + edge[:-1]) / 2
        for k, f in enumerate(offset):
            if abs(f) * length_s < 1e-9:
                out[k] *= max(0.0, 1 - float(power @ (1 - np.sinc(centre * length_s) ** 2)))
            else:
                each = np.sinc((centre - f) * length_s) ** 2 + np.sinc((centre + f) * length_s) ** 2
                out[k] += float(power @ each) / 2
    out.flags.writeable = False
    return np.asarray(out)


def leakage(flaws: Impairments, offset_hz: Float[Array, " offset"], length_s: float) -> Float[Array, " offset"]:
    """Mean power ``E |J|^2`` that a unit line leaves at ``offset_hz`` (Hz) from it, in a correlation over ``length_s`` (s).

    ``J = 1/T integral exp(j phi + j 2 pi offset t) dt``. Free-running: ``2 Re (z - 1 + e^-z) / z^2`` with ``z = pi linewidth T + j 2 pi offset T``
    (a Wiener phase's autocorrelation, exact; over all multiples of 1/T it sums to 1). Locked: ``integral L(f) sinc^2((f - offset) T) df`` over
    both sidebands, for small phases (mask below 0.1 rad^2). At 0 it is what the line keeps, ``1 - pi linewidth T / 3`` for short T.
    """
    return _leakage(flaws, tuple(np.asarray(offset_hz, dtype=np.float64).tolist()), float(length_s))


def sent_block(
    drive: Drive, flaws: Impairments, saturation_w: float, noise: Noise
) -> tuple[Drive, Complex[Array, "event subcarrier chain source"] | None]:
    """Wide-band events as they leave the amplifiers: the drive with its weights' gains, and a root of the power at the ports that is no data.

    Clipping and a common oscillator's leakage leave with the weights of the streams, an image with their conjugates, steps (and the leakage
    of oscillators chain by chain) with no relation between chains. Clipping, by converter or amplifier, is exact for
    chains in phase and an upper bound for others.
    """
    digital = np.asarray(drive.digital, dtype=np.complex128)
    own = (digital.real**2 + digital.imag**2).sum(axis=2)  # [event, chain]
    each, flat = np.eye(digital.shape[1]), np.full((1, drive.power_w.shape[1]), drive.power_w.shape[1] ** -0.5)
    roots: list[Array] = []

    def leaves(power_w: Array, root: Array) -> None:
        """``power_w [event subcarrier]`` leaves with ``root [event chain source]``."""
        roots.append(np.sqrt(power_w)[:, :, None, None] * root[:, None])

    if np.isfinite(flaws.dac_full_scale_w):
        total_w = own * drive.power_w.sum(axis=1)[:, None]
        gain, clip_w, step_w = bussgang(total_w, flaws.dac_bits, float(np.sqrt(flaws.dac_full_scale_w)))
        among = np.where(own > 0, np.sqrt(clip_w / np.where(own > 0, own, 1.0)), 0.0)
        ones = np.broadcast_to(flat**2, drive.power_w.shape)
        leaves(ones, among[:, :, None] * digital)
        leaves(ones, np.sqrt(step_w)[:, :, None] * each)
        digital = gain[:, :, None] * digital
    if flaws.transmit_iq_gain_db or flaws.transmit_iq_phase_rad:
        mu, nu = mixer(flaws.transmit_iq_gain_db, flaws.transmit_iq_phase_rad)
        roots = [np.sqrt(abs(mu) ** 2 + abs(nu) ** 2) * root for root in roots]
        leaves(
            drive.power_w[:, ::-1], nu * np.conj(digital)
        )  # the image of a subcarrier is its mirror about the carrier
        digital = mu * digital
    if flaws.turns:
        length_s = block_s(drive)
        offset = drive.frequency_hz[:, None] - drive.frequency_hz
        spread = leakage(flaws, offset.ravel(), length_s).reshape(offset.shape)
        kept = spread[0, 0]
        leak_w = drive.power_w @ (spread - kept * np.eye(len(spread)))
        alone = np.sqrt((digital.real**2 + digital.imag**2).sum(axis=2))[:, :, None] * each
        leaves(leak_w, alone if flaws.oscillator == "chain" else digital)
        phase = oscillator_phase(flaws, noise, "transmit", len(each), np.asarray(drive.t_ns), 1, 0.0, length_s)
        digital = np.sqrt(kept) * digital * cis(phase)
        roots = [root * cis(phase)[:, None] for root in roots]
    if np.isfinite(saturation_w):
        own = (digital.real**2 + digital.imag**2).sum(axis=2)
        gain, distortion_w = amplified(own * drive.power_w.sum(axis=1)[:, None], amplifier(flaws, saturation_w))
        roots = [root * gain[:, None, :, None] for root in roots]
        among = np.sqrt(distortion_w / np.where(own > 0, own, 1.0))
        leaves(regrown(drive.power_w), among[:, :, None] * digital)
        digital = gain[:, :, None] * digital
    out = replace(drive, digital=digital)
    return out, np.concatenate(roots, axis=3) if roots else None


def amplified(
    power_w: Float[Array, "event chain"], curve: Callable[[Array], Array]
) -> tuple[Complex[Array, "event chain"], Float[Array, "event chain"]]:
    """Amplifiers driven by circular normal signals of mean power ``power_w`` (W): the gain, and the power of what is uncorrelated (W), in band and out.

    ``g(x) = gain x + d``: ``gain = E g x* / power`` and ``E |d|^2 = E |g|^2 - |gain|^2 power``, over ``|x|^2`` exponential (Gauss-Laguerre, 64 nodes).
    ``curve`` takes port signals ``[event chain sample]`` in sqrt(W) and turns with their phase. J. Bussgang, MIT RLE report 216, 1952.
    """
    node, weight = np.polynomial.laguerre.laggauss(64)
    amplitude = np.sqrt(power_w[..., None] * node)
    out = curve(amplitude + 0j)
    safe = np.where(power_w > 0, power_w, 1.0)
    gain = np.where(power_w > 0, (out * amplitude) @ weight / safe, 1.0)
    return gain, np.maximum((out.real**2 + out.imag**2) @ weight - (gain.real**2 + gain.imag**2) * power_w, 0.0)


def regrown(power_w: Float[Array, "event subcarrier"]) -> Float[Array, "event subcarrier"]:
    """Share of an amplifier's distortion that falls on each subcarrier; the rest, about a third, lies beside the band.

    Of third order, ``P * P * P(-)`` of the subcarriers' powers, which smooth curves make most of; fifth order spreads a little wider.
    """
    count = power_w.shape[1]
    out = np.empty_like(power_w)
    for e, one in enumerate(power_w):
        pairs = np.convolve(one, one)
        out[e] = np.convolve(pairs, one[::-1])[count - 1 : 2 * count - 1] / max(one.sum() ** 3, np.finfo(float).tiny)
    return out


def block_s(drive: Drive) -> float:
    """Shortest time a wide-band event can be: one symbol of its subcarriers."""
    f = np.asarray(drive.frequency_hz)
    return 1 / float(np.min(np.diff(f))) if len(f) > 1 else 1e-6


def leaked(
    samples: Complex[Array, "event chain subcarrier"],
    flaws: Impairments,
    noise: Noise,
    t_ns: Int[Array, " event"],
    frequency_hz: Float[Array, " subcarrier"],
    length_s: float,
) -> Complex[Array, "event chain subcarrier"]:
    """Pilots of ``length_s`` (s) behind a noisy receive oscillator: each subcarrier keeps its share, and the others leak into it.

    The leaks are normals of ``leakage``'s power, one an offset, an event and an oscillator; everything heard at an instant meets the same.
    """
    chains, count = samples.shape[1:]
    offset = np.arange(1 - count, count) * (frequency_hz[1] - frequency_hz[0] if count > 1 else 0.0)
    power = leakage(flaws, offset, length_s)
    label = "oscillator" if flaws.oscillator == "site" else "oscillator.receive"
    oscillators = chains if flaws.oscillator == "chain" else 1
    line = np.sqrt(power) * noise(f"{label}.leak", np.asarray(t_ns), (oscillators, len(offset)))
    line[:, :, count - 1] = np.sqrt(power[count - 1])
    m = np.arange(count)
    spread = line[:, :, m[:, None] - m + count - 1]  # [event, oscillator, into, from]
    return np.asarray((spread @ samples[..., None])[..., 0])


def converted(
    samples: Complex[Array, "event chain subcarrier"],
    normals: Complex[Array, "event chain subcarrier"],
    bits: int,
    full_scale: float,
    noise_w: float,
    resolved: float,
) -> tuple[Complex[Array, "event chain subcarrier"], Bool[Array, "event chain"]]:
    """Pilots behind the converters: the gain, step and clipping noise, and whether more than a sample in a thousand clips.

    ``resolved`` is bandwidth times length: how many lines of ``noise_w`` (W) the converters take in, over which their noise is spread evenly. An
    event is converted alone; unit circular ``normals`` are the chance.
    """
    from scipy.special import erfc

    count = samples.shape[2]
    power_w = (samples.real**2 + samples.imag**2).sum(axis=2) + noise_w * max(resolved - count, 0.0)
    gain, clip_w, step_w = bussgang(power_w, bits, full_scale)
    out = gain[:, :, None] * samples + np.sqrt((clip_w + step_w) / max(resolved, count))[:, :, None] * normals
    clips: Any = 2 * erfc(full_scale / np.sqrt(np.maximum(power_w, np.finfo(float).tiny)))
    return out, np.asarray(clips > OVERLOAD)
