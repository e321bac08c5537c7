"""The data fidelity ``waveform``: bits through modulator, the drawn channel, noise and an equaliser, a frame a served block and user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np

from hal.check import Family, Ge, Le
from hal.errors import Misuse
from hal.frontend import Emission
from hal.medium import Paths
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.physics.constellations import BITS, decided, mapped
from twin.physics.doubly_selective import Passage, passage, through
from twin.physics.draws import Draws
from twin.physics.equaliser import mmse, one_tap
from twin.records import Numerology
from twin.registry import make
from twin.waveforms import Waveform

__all__ = ["Carried", "Link"]

FAINT = 0.05  # share of a symbol below which an equaliser's bias is not taken out any further


@record
class Carried:
    """What became of the frames of some served (block, user) pairs."""

    bits: Int[Array, " event"]  # sent
    wrong: Int[Array, " event"]  # of those, decided wrongly; no code protects them
    error: Float[
        Array, " event"
    ]  # mean square error of a unit-power symbol, after the equaliser's bias is taken out: EVM squared


@dataclass(frozen=True)
class Link:
    """The data waveform and its receiver, over the communication band: one sample a 1 / bandwidth, one frame a served block.

    The receiver knows its channel, its noise and the instant of the first path's arrival; bits are not coded. What it loses against the rate
    formula is the equaliser's; what it misses of a real receiver are estimation, synchronisation and quantisation.
    """

    waveform: Annotated[Waveform, Family("twin.waveforms")] = field(
        default_factory=partial(make, "twin.waveforms", "oddm")
    )
    modulation: Literal["qpsk", "16qam", "64qam"] = "qpsk"
    equaliser: Literal["mmse", "one_tap"] = "mmse"  # one_tap: a line at a time, blind to Doppler within a symbol
    delay_bins: Annotated[int, Ge(2)] = 256  # subcarriers, of OFDM
    doppler_bins: Annotated[int, Ge(1)] = 4  # symbols, of OFDM
    prefix_samples: Annotated[int, Ge(0)] = 128  # longer than a user's last path is behind its first
    roll_off: Annotated[float, Ge(0), Le(1)] = 0.1  # of waveforms on square-root raised cosines

    def numerology(self, whole: Numerology) -> Numerology:
        """The frame structure of data frames: this link's grid over the communication band."""
        return replace(
            whole,
            delay_bins=self.delay_bins,
            doppler_bins=self.doppler_bins,
            sample_rate_hz=len(whole.subcarrier_hz) * whole.subcarrier_spacing_hz,
            roll_off=self.roll_off,
        )

    def passage(
        self, delay: Float[Array, " path"], doppler: Float[Array, " path"], amplitude: Complex[Array, " path"]
    ) -> Passage:
        """``doubly_selective.passage`` of this link's frames: delay (samples), Doppler (cycles a sample). Raises Misuse beyond prefix or grid."""
        alone = self.waveform.symbol_prefix
        return passage(
            delay,
            doppler,
            amplitude,
            self.roll_off if self.waveform.shaped else 0.0,
            self.delay_bins if alone else self.delay_bins * self.doppler_bins,
            self.doppler_bins if alone else 1,
            float(self.prefix_samples),
            doppler_limit=0.5 / self.delay_bins,
        )

    def send(self, bits: Bool[Array, "event bit"], numerology: Numerology) -> Complex[Array, "event sample"]:
        """Unit-power samples of one frame for each row of bits, ``frame_bits`` of them."""
        grid = mapped(bits, self.modulation).reshape(-1, self.delay_bins, self.doppler_bins)
        return self.waveform.modulate(grid, numerology)

    @property
    def frame_bits(self) -> int:
        """Bits in one frame."""
        return self.delay_bins * self.doppler_bins * BITS[self.modulation]

    def receive(
        self, channel: Passage, heard: Complex[Array, "event sample"], noise: float, numerology: Numerology
    ) -> Complex[Array, "event delay doppler"]:
        """Symbols as the equaliser sees them, its bias taken out: ``x + error``, the error of zero mean.

        The bias ``mu = diag(E H)`` is measured on a frame of known signs sent through H as the receiver believes it to be, and averaged over the axes
        the waveform spreads symbols over. A symbol of which less than a twentieth arrives stays lost: what is left of it is not blown up further.
        """
        probe = self.send(_signs(self.frame_bits), numerology)
        equalise: Callable[..., Array] = mmse
        believed = channel
        if self.equaliser == "one_tap":
            still = np.broadcast_to(channel.turn.mean(axis=-1, keepdims=True), channel.turn.shape)
            equalise, believed = one_tap, Passage(filter=channel.filter, turn=still)
        both = np.stack([heard, np.broadcast_to(through(believed, probe), heard.shape)])
        seen, answer = self.waveform.demodulate(equalise(channel, both, noise), numerology)
        share = (answer * self.waveform.demodulate(probe, numerology).conj()).real
        sent_power = np.abs(self.waveform.demodulate(probe, numerology)) ** 2
        axes = self.waveform.spread
        if axes:
            share, sent_power = (value.mean(axis=axes, keepdims=True) for value in (share, sent_power))
        unbiased: Array = seen * (sent_power / np.maximum(share, FAINT * sent_power))
        return unbiased

    def carried(
        self,
        numerology: Numerology,
        down: Paths,
        gains: Complex[Array, "row path subcarrier chain"],
        row: Int[Array, " event"],
        block: Int[Array, " event"],
        sink: Int[Array, " event"],
        emission: Emission,
        event: Int[Array, " event"],
        stream: Int[Array, " event"],
        channel: Complex[Array, "event subcarrier chain"],
        draws: Draws,
    ) -> Carried:
        """One frame for each served (block, user) pair, through every path of the user and the beam in force.

        ``gains`` are ``hal.medium.beam_gains`` and ``channel`` is their superposition; ``event`` and ``stream`` say which of the emission's events and
        streams is the pair's own. Between subcarriers beams and power are interpolated. What else arrives, other streams and distortion, is taken to be
        white and Gaussian. Raises Misuse where a user's last path comes more than the prefix after its first, or Doppler leaves the grid.
        """
        own = np.arange(len(event))
        digital, power_w = emission.drive.digital[event], emission.drive.power_w[event]
        weights = digital[own, :, stream]
        others = np.abs((channel[..., None] * digital[:, None]).sum(axis=2)) ** 2 * power_w[..., None]
        disturbance = _rest(others, stream)
        if emission.distortion is not None:
            stray = (channel[:, :, None, :] @ emission.distortion[event])[:, :, 0]
            disturbance = disturbance + (np.abs(stray) ** 2).sum(axis=-1)
        level = numerology.user_noise_w + disturbance.mean(axis=-1)
        frame = self.numerology(numerology)
        bits, wrong, error = np.full(len(row), self.frame_bits), np.zeros(len(row), np.int64), np.zeros(len(row))
        for user in np.unique(sink):
            mine, path = np.flatnonzero(sink == user), np.flatnonzero(down.sink == user)
            late = (down.delay_s[path] - down.delay_s[path].min()) * frame.sample_rate_hz
            if not late.max() <= self.prefix_samples:
                raise Misuse(
                    f"communication.link.prefix_samples = {self.prefix_samples}: user {user}'s last path comes {late.max():.4g} samples after its first; "
                    "lengthen it"
                )
            base = self.passage(late, down.doppler_hz[path] / frame.sample_rate_hz, np.ones(len(path)))
            beam = (gains[row[mine]][:, path] * weights[mine, None, None, :]).sum(axis=-1)
            beam = beam * np.sqrt(power_w[mine] / level[mine, None])[:, None]
            fine = _between(beam, base.filter.shape[-1]) * down.gain[block[mine]][:, path, None]
            crossed = Passage(filter=base.filter * fine, turn=base.turn)
            drawn = draws.words(f"link.{user}.bits", block[mine], int(down.t_ns[0]), -(-self.frame_bits // 32))
            sent = np.unpackbits(drawn.view(np.uint8), axis=-1)[:, : self.frame_bits].astype(np.bool_)
            noise = draws.complex_normal(
                f"link.{user}.noise", block[mine], int(down.t_ns[0]), self.delay_bins * self.doppler_bins
            )
            seen = self.receive(crossed, through(crossed, self.send(sent, frame)) + noise, 1.0, frame)
            seen = seen.reshape(len(mine), -1)
            wrong[mine] = (decided(seen, self.modulation) != sent).sum(axis=-1)
            error[mine] = np.mean(np.abs(seen - mapped(sent, self.modulation)) ** 2, axis=-1)
        return Carried(bits=bits, wrong=wrong, error=error)


def _rest(
    power: Float[Array, "event subcarrier stream"], stream: Int[Array, " event"]
) -> Float[Array, "event subcarrier"]:
    """The sum over all streams but each event's own."""
    others = np.arange(power.shape[-1]) != stream[:, None]
    return np.asarray((power * others[:, None]).sum(axis=-1))


def _signs(count: int) -> Bool[Array, "1 bit"]:
    """Bits of the probe, the same in every frame."""
    words = Draws(0).words("link.probe", 0, 0, -(-count // 32))
    return np.unpackbits(words.view(np.uint8))[None, :count].astype(np.bool_)


def _between(values: Complex[Array, "*batch subcarrier"], size: int) -> Complex[Array, "*batch sample"]:
    """Values on subcarriers, ascending and centred on zero, to the lines of an FFT over the same band: linear between, constant beyond the outer ones."""
    count = values.shape[-1]
    place = np.clip(np.fft.fftfreq(size) * count + (count - 1) / 2, 0, count - 1)
    first = np.minimum(place.astype(np.int64), max(count - 2, 0))
    weight = place - first
    return values[..., first] * (1 - weight) + values[..., np.minimum(first + 1, count - 1)] * weight  # type: ignore[no-any-return]
