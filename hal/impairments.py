"""What simulated chains do to samples besides adding noise: converters, mixers, oscillators, clocks, switches (pure; chance is an argument)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np

from hal.array import cis
from hal.chain import convert, iq_imbalance, mixer, rapp, saleh
from hal.check import Ge, Gt, In
from hal.errors import Misuse
from hal.frontend import Drive
from hal.reception import compressed, from_ports, ports
from hal.record import Array, Complex, Float, Int
from hal.walk import Noise, along, walk

__all__ = ["Impairments", "amplifier", "heard_share", "mask_power", "oscillator_phase", "received", "resampled", "sent"]

LINES_PER_DECADE = 16  # of a phase-noise mask below a frame's own resolution


@dataclass(frozen=True)
class Impairments:
    """Flaws of the chains, all off by default; a flaw that is off costs nothing.

    In the order a signal meets them. Transmit: DAC, mixer, oscillator, amplifier (``Sim.saturation_w``). Receive: oscillator, mixer, T/R
    switch, sampling clock, ADC (``Sim.converter_bits``). Wide-band events (data blocks, pilots) have no sample axis in time: an oscillator
    turns them as a whole by its phase at the event's instant, and converters, mixers and the oscillator's leakage between subcarriers take
    effect as their gain and their power (``hal.distortion``); the sampling clock is left out.
    """

    dac_bits: Annotated[int, Ge(0)] = 0  # of each of I and Q of a transmit chain; 0: no steps
    dac_full_scale_w: Annotated[float, In("dbm"), Gt(-300)] = float("inf")  # sine that just fills it; inf: never full
    transmit_iq_gain_db: float = 0.0  # Q too strong by this
    transmit_iq_phase_rad: Annotated[float, In("deg")] = 0.0  # off quadrature by this
    receive_iq_gain_db: float = 0.0
    receive_iq_phase_rad: Annotated[float, In("deg")] = 0.0
    amplifier: Literal["rapp", "saleh"] = "rapp"  # curve up to Sim.saturation_w
    smoothness: Annotated[float, Gt(0)] = 2.0  # of Rapp's curve
    saturation_spread_db: tuple[float, ...] = ()  # added to Sim.saturation_w chain by chain; nothing: all alike
    linewidth_hz: Annotated[float, Ge(0)] = 0.0  # 3 dB width of a free-running oscillator: its phase walks
    phase_noise_dbc: tuple[
        tuple[float, float], ...
    ] = ()  # mask of a locked one: (offset in Hz, dBc/Hz), offsets ascending
    oscillator: Literal["site", "half", "chain"] = "site"  # one for everything, one a half, or one a chain
    carrier_offset_hz: float = 0.0  # receive oscillator minus transmit oscillator
    sampling_offset_ppm: float = 0.0  # receive clock slow by this; synchronised anew at each event's start
    switching_ns: Annotated[int, In("us"), Ge(0)] = 0  # a receiver is deaf so long when it begins to hear others

    def __post_init__(self) -> None:
        offset = np.array([point[0] for point in self.phase_noise_dbc])
        if len(offset) == 1 or (len(offset) and not (offset[0] > 0 and np.all(np.diff(offset) > 0))):
            raise Misuse(f"phase_noise_dbc: offsets are {offset.tolist()}; must be two or more, positive, ascending")
        if not self.dac_full_scale_w > 0 or (self.dac_bits and np.isinf(self.dac_full_scale_w)):
            raise Misuse(
                f"dac_full_scale_w = {self.dac_full_scale_w!r}: must be > 0, and finite where dac_bits (= {self.dac_bits}) are not 0"
            )
        if not abs(self.sampling_offset_ppm) <= 200:
            raise Misuse(f"sampling_offset_ppm = {self.sampling_offset_ppm!r}: must be -200 .. 200")

    @property
    def turns(self) -> bool:
        """Whether oscillators are noisy."""
        return self.linewidth_hz > 0 or len(self.phase_noise_dbc) > 0

    @property
    def sends(self) -> bool:
        """Whether anything before the amplifier changes what is sent."""
        return self.turns or np.isfinite(self.dac_full_scale_w) or _unbalanced(self, "transmit")

    @property
    def hears(self) -> bool:
        """Whether anything before the ADC changes what is heard."""
        drifts = self.carrier_offset_hz != 0 or self.sampling_offset_ppm != 0 or self.switching_ns > 0
        return self.turns or drifts or _unbalanced(self, "receive")


def _unbalanced(flaws: Impairments, half: str) -> bool:
    return bool(getattr(flaws, f"{half}_iq_gain_db") != 0 or getattr(flaws, f"{half}_iq_phase_rad") != 0)


def amplifier(flaws: Impairments, saturation_w: float) -> Callable[[Array], Array]:
    """The amplifiers' curve for port signals ``[... chain sample]`` in sqrt(W), small-signal gain 1, at most ``saturation_w`` a chain.

    Saleh's curve is scaled to that gain and limit: ``y = saleh(k x) / (k alpha_a)``, ``k = 1 / (2 sqrt(beta_a saturation_w))``.
    """
    spread = 10 ** (np.array(flaws.saturation_spread_db or (0.0,))[:, None] / 20)
    limit = np.sqrt(saturation_w) * spread
    if flaws.amplifier == "rapp":
        return partial(_rapp, limit, flaws.smoothness)
    return partial(_saleh, 1 / (2 * np.sqrt(1.1517) * limit))


def _rapp(limit: Array, smoothness: float, port: Array) -> Array:
    return rapp(port, limit, smoothness)


def _saleh(scale: Array, port: Array) -> Array:
    return np.asarray(saleh(scale * port) / (scale * 2.1587))


def mask_power(mask: tuple[tuple[float, float], ...], low_hz: Any, high_hz: Any) -> Float[Array, " band"]:
    """Phase variance (rad^2) of the bands ``low_hz .. high_hz``: twice the integral of L(f), straight between points in dB over log f.

    Twice, because L is one sideband (IEEE Std 1139). Nothing outside the mask's offsets. Closed form a segment: ``L = a f^b``.
    """
    f, level = np.array([p[0] for p in mask]), 10 ** (np.array([p[1] for p in mask]) / 10)
    low, high = (np.clip(np.asarray(edge, dtype=np.float64), f[0], f[-1]) for edge in (low_hz, high_hz))
    total = np.zeros(np.broadcast(low, high).shape)
    for i in range(len(f) - 1):
        slope = np.log(level[i + 1] / level[i]) / np.log(f[i + 1] / f[i])
        a, b = np.clip(low, f[i], f[i + 1]) / f[i], np.clip(high, f[i], f[i + 1]) / f[i]
        power = np.log(b / a) if abs(slope + 1) < 1e-9 else (b ** (slope + 1) - a ** (slope + 1)) / (slope + 1)
        total = total + np.where(b > a, level[i] * f[i] * power, 0.0)
    return np.asarray(2 * total)


def oscillator_phase(
    flaws: Impairments,
    noise: Noise,
    half: str,
    chains: int,
    t_ns: Int[Array, " event"],
    count: int,
    step_s: float,
    length_s: float | None = None,
) -> Float[Array, "event oscillator sample"]:
    """Phase (rad) of the oscillators of one half at ``count`` samples ``step_s`` (s) apart from each event's instant on; one row for all chains
    unless each has its own.

    A free-running oscillator walks: ``E (phi(t) - phi(s))^2 = 2 pi linewidth |t - s|``. A locked one has the mask's spectrum: below half the
    event's resolution as lines whose phases run on from event to event, above it drawn for each event on its own grid, where it is cyclic.
    An event of one sample (``length_s`` (s) long) takes only what is slower than itself.
    """
    label = "oscillator" if flaws.oscillator == "site" else f"oscillator.{half}"
    own = chains if flaws.oscillator == "chain" else 1
    out = np.zeros((len(t_ns), own, count))
    if flaws.linewidth_hz > 0:
        scale = np.sqrt(2 * np.pi * flaws.linewidth_hz)
        if count > 1:
            out += scale * along(noise, label, t_ns, own, count, step_s)
        else:
            out += scale * np.sqrt(2.0) * walk(noise, label, t_ns, (own,)).real[..., None]
    if flaws.phase_noise_dbc:
        length_s = count * step_s if length_s is None else length_s
        out += _slow(flaws.phase_noise_dbc, noise, label, own, t_ns, count, step_s, 0.5 / length_s)
        if count > 1:
            out += _fast(flaws.phase_noise_dbc, noise, label, own, t_ns, count, step_s)
    return out


def _slow(
    mask: tuple[tuple[float, float], ...],
    noise: Noise,
    label: str,
    own: int,
    t_ns: Int[Array, " event"],
    count: int,
    step_s: float,
    below_hz: float,
) -> Array:
    decades = np.log10(mask[-1][0] / mask[0][0])
    edge = np.geomspace(mask[0][0], mask[-1][0], int(np.ceil(decades * LINES_PER_DECADE)) + 1)
    spread = np.sqrt(mask_power(mask, edge[:-1], np.minimum(edge[1:], below_hz)))
    centre = np.sqrt(edge[:-1] * edge[1:])
    drawn = noise(f"{label}.lines", np.zeros(1, np.int64), (own, len(centre)))[0]
    out = np.zeros((len(t_ns), own, count))
    q = np.arange(count) * step_s
    for k in np.flatnonzero((edge[:-1] < below_hz) & (spread > 0)):
        turns = np.mod(centre[k] * 1e-9 * t_ns, 1.0)[:, None] + centre[k] * q
        wave = cis(2 * np.pi * turns)[:, None, :] * drawn[:, k, None]
        out += np.sqrt(2.0) * spread[k] * wave.real
    return out


def _fast(
    mask: tuple[tuple[float, float], ...],
    noise: Noise,
    label: str,
    own: int,
    t_ns: Int[Array, " event"],
    count: int,
    step_s: float,
) -> Array:
    from scipy.fft import ifft

    line_hz = 1 / (count * step_s)
    m = np.arange(1, (count - 1) // 2 + 1)
    spread = np.sqrt(2 * mask_power(mask, (m - 0.5) * line_hz, (m + 0.5) * line_hz))
    drawn = noise(f"{label}.mask", t_ns, (own, len(m)))
    out = np.empty((len(t_ns), own, count))
    for e in range(len(t_ns)):  # alone, so that a transform never depends on its neighbours
        for c in range(own):
            spectrum = np.zeros(count, np.complex128)
            spectrum[1 : len(m) + 1] = spread * drawn[e, c]
            out[e, c] = ifft(spectrum).real * count
    return out


def sent(drive: Drive, flaws: Impairments, saturation_w: float, noise: Noise) -> Drive:
    """Frames as they leave the amplifiers, every chain a stream of its own; wide-band events are ``hal.distortion.sent_block``'s."""
    chains, t_ns = drive.digital.shape[1], np.asarray(drive.t_ns)
    if flaws.sends:
        port = ports(drive)
        if np.isfinite(flaws.dac_full_scale_w):
            port, _ = convert(port, flaws.dac_bits, float(np.sqrt(flaws.dac_full_scale_w)))
        port = iq_imbalance(port, flaws.transmit_iq_gain_db, flaws.transmit_iq_phase_rad)
        if flaws.turns:
            step_s = 1 / drive.sample_rate_hz
            port = port * cis(oscillator_phase(flaws, noise, "transmit", chains, t_ns, port.shape[-1], step_s))
        drive = from_ports(drive, port)
    return compressed(drive, saturation_w, amplifier(flaws, saturation_w)) if np.isfinite(saturation_w) else drive


def received(
    samples: Complex[Array, "event chain sample"],
    flaws: Impairments,
    noise: Noise,
    t_ns: Int[Array, " event"],
    sample_rate_hz: float | None,
    length_s: float,
    own: bool,
) -> Complex[Array, "event chain sample"]:
    """The samples as the ADC meets them, in their own precision; ``sample_rate_hz`` None: a sample a subcarrier, ``length_s`` (s) an event.

    ``own``: these are echoes of what this site sends, heard in full duplex, and no switch is thrown. Else a receiver begins deaf, and the
    first samples of a frame are 0; what a pilot loses is ``heard_share``.
    """
    t_ns = np.asarray(t_ns)
    chains, count = samples.shape[1:]
    framed = sample_rate_hz is not None
    step_s = 1 / sample_rate_hz if sample_rate_hz is not None else 0.0
    out = np.asarray(samples, dtype=np.complex128)
    if flaws.turns:
        along_ = count if framed else 1
        out = out * cis(-oscillator_phase(flaws, noise, "receive", chains, t_ns, along_, step_s, length_s))
    if flaws.carrier_offset_hz:
        turns = np.mod(flaws.carrier_offset_hz * 1e-9 * t_ns, 1.0)[:, None]
        out = out * cis(-2 * np.pi * (turns + flaws.carrier_offset_hz * step_s * np.arange(count)))[:, None, :]
    if _unbalanced(flaws, "receive"):
        mu, nu = mixer(flaws.receive_iq_gain_db, flaws.receive_iq_phase_rad)
        image = np.conj(out if framed else out[..., ::-1])  # the image of a subcarrier is its mirror about the carrier
        out = mu * out + nu * image
    if flaws.switching_ns and framed and not own:
        out = out.copy()
        out[..., : int(np.ceil(flaws.switching_ns * 1e-9 / step_s - 1e-6))] = 0.0
    if flaws.sampling_offset_ppm and framed:
        out = resampled(out, flaws.sampling_offset_ppm * 1e-6)
    return out.astype(samples.dtype)


def heard_share(flaws: Impairments, length_s: float) -> float:
    """Share of the energy of a pilot of ``length_s`` (s) that is left when its beginning is lost to the T/R switch."""
    return max(0.0, 1 - flaws.switching_ns * 1e-9 / length_s)


def resampled(samples: Complex[Array, "event chain sample"], offset: float) -> Complex[Array, "event chain sample"]:
    """Cyclic frames sampled by a clock ``offset`` (ratio) slow: sample q taken at ``q (1 + offset)``, the first in time.

    Taylor's series about each sample with derivatives from the spectrum, to order 12: exact to 1e-6 while the last sample is less than
    half a sample late. Raises Misuse beyond.
    """
    from scipy.fft import fft, ifft

    events, chains, count = samples.shape
    late = offset * np.arange(count)
    if not abs(late[-1]) <= 0.5:
        raise Misuse(
            f"sampling_offset_ppm = {offset * 1e6:.6g}: the last of {count} samples would be {late[-1]:.3g} samples off, at most 0.5 is modelled"
        )
    slope = 2j * np.pi * np.fft.fftfreq(count)
    out = np.empty_like(samples)
    for e in range(events):
        for c in range(chains):
            spectrum, factor, total = fft(samples[e, c]), np.ones(count), samples[e, c].copy()
            for n in range(1, 13):
                spectrum, factor = spectrum * slope, factor * late / n
                total += factor * ifft(spectrum)
            out[e, c] = total
    return out
