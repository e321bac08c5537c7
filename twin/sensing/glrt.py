"""Generalised likelihood ratio: finds echoes in delay and Doppler over all receive chains, fits them jointly, then finds their directions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS
from hal.check import Ge, Gt, Lt, shaped
from hal.errors import Misuse
from hal.frontend import BeamReport, HalfSpec
from hal.network import response
from hal.reception import noise_root
from hal.record import Array, Complex, Float
from twin.physics.delay_doppler import field_curvature, peak_threshold
from twin.physics.directions import Lobe, find_directions, main_lobe
from twin.physics.echoes import Fit, Joint, Sounding, delay_doppler_map, map_power, no_echoes, search_grid, strong_peaks
from twin.records import Detections, EchoObservation, Numerology, Tracks

__all__ = ["Glrt"]


@dataclass(frozen=True)
class Glrt:
    """Detector and four-parameter maximum-likelihood estimator for cyclic frames, known to the receiver, through one transmit stream.

    A dwell's frames are coherent: ``y[f, c, q] = sum_k a_k b_c(u_k) T_k[f, q] + leak_c s[f, q] + noise``, with ``T`` the exact echo of frame f
    (``delay_doppler.templates``), ``b(u) = response^T a_r(u)`` of the settings the machine read back, and noise coloured by
    ``response^H response``, which is whitened. Steps:

    1. The leakage from transmitter to receiver (delay and Doppler zero, any amplitude a chain) is fitted and subtracted; an echo nearer
       than half a cell goes with it.
    2. ``sum_c |T^H y_c|^2 / ||T||^2`` over delay and Doppler: peaks are candidates. All candidates are fitted jointly (Gauss-Newton, free amplitude
       in each chain) and kept if their fitted statistic passes the threshold at which noise alone peaks anywhere in the dwell's search
       rectangle with ``false_alarm_probability``. They are subtracted and the residual searched again, ``cycles`` times at
       most: strong echoes first, close ones jointly.
    3. Direction: ``max |b(u)^H z|^2 / ||b(u)||^2`` over the receive beams' main lobe, z the fitted chain amplitudes. With one transmit stream
       directions and delay-Doppler are uncoupled, so this is the joint maximum of papers/001 eq (35), reached in two parts.

    The noise power is the greater of the nameplate's and that of the residual. Covariances are inverse Fisher information at the estimate,
    amplitudes unknown; a direction that fits the chains worse than noise allows has its covariance scaled by the misfit.

    Left out: range migration (a dwell is one delay, which is the range at its centre: unbiased, but a mover at 20 m/s and more than 70 dB
    leaves a ghost beside itself on hardware; the simulated air holds the delay for a dwell), clutter, several transmit streams, echoes
    from beyond the prefix. A mover in a side lobe of the receive beams can look exactly like one in the main lobe (product-form
    beams): estimates at the lobe's edge and misfits are rejected here, the rest is for the tracker to gate.
    """

    false_alarm_probability: Annotated[float, Gt(0), Lt(0.5)] = 1e-3  # a dwell, from noise alone
    max_targets: Annotated[int, Ge(1)] = 8  # a dwell
    min_range_m: Annotated[float, Ge(0)] = 5.0  # echoes nearer are not searched for
    max_range_m: Annotated[float, Gt(0)] = 150.0  # cut to what the cyclic prefix covers
    max_speed_mps: Annotated[float, Gt(0)] = 24.0  # closing or opening
    lobe_width: Annotated[float, Gt(0)] = 1.0  # half-width of the searched lobe, in the array's null distances
    cycles: Annotated[int, Ge(1)] = 4  # searches of the residual
    misfit_probability: Annotated[float, Gt(0), Lt(1)] = 1e-4  # of turning away an echo that does fit one direction
    misfit_db: float = -25.0  # part of an echo's power that may fail to fit: beams are not quite what they said

    def detect(self, observation: EchoObservation, tracks: Tracks) -> Detections:
        """Detections of all dwells, dwell by dwell, strongest first. ``tracks`` are not used.

        A dwell through a slot that was never loaded, or is dark, gives none. Raises Misuse for events that are not whole dwells, more than one
        stream, or speeds the frame period cannot tell apart.
        """
        echo, drive, numerology = observation.echo, observation.drive, observation.numerology
        if echo is None or drive is None or drive.samples is None:
            return _none() if observation.detections is None else observation.detections
        frames, size = numerology.frames_per_dwell, numerology.delay_bins * numerology.doppler_bins
        events = len(echo.t_ns)
        if events % frames:
            raise Misuse(f"echo: has {events} events, must be whole dwells of {frames} frames")
        shaped("drive.samples", drive.samples, (events, 1, size))
        shaped("echo.samples", echo.samples, (events, None, size))
        fastest = LIGHT_MPS / (4 * numerology.carrier_hz * numerology.frame_ns * 1e-9)
        if frames > 1 and not self.max_speed_mps < fastest:
            raise Misuse(
                f"max_speed_mps = {self.max_speed_mps:g}: frames {numerology.frame_ns} ns apart tell speeds apart only below "
                f"{fastest:.4g} m/s; lower it or shorten the frame"
            )
        found = []
        for dwell in range(events // frames):
            own = slice(dwell * frames, (dwell + 1) * frames)
            slot, frequency_hz = int(echo.slot[own][0]), float(drive.frequency_hz[0])
            lobe = _lobe(observation.spec.receive, observation.receive_beam, slot, frequency_hz, self.lobe_width)
            if lobe is None:
                continue
            waves = drive.samples[own, 0], echo.samples[own]
            found.append(self._dwell(dwell, echo.t_ns[own], *waves, echo.noise_w, lobe, numerology))
        return _joined(found) if found else _none()

    def _dwell(
        self,
        dwell: int,
        t_ns: Array,
        sent: Complex[Array, "frame sample"],
        heard: Complex[Array, "frame chain sample"],
        noise_w: float,
        lobe: Lobe,
        numerology: Numerology,
    ) -> Detections:
        rate = numerology.sample_rate_hz
        data, known = _prepare(sent, heard, lobe.whitener)
        half_ns = round(0.5e9 * sent.shape[1] / rate)
        centre_ns = int(t_ns.sum()) // len(t_ns) + half_ns
        # in samples; the dwell's centre lies half a sample after the mean of its samples, to which the fit refers
        start = (t_ns - centre_ns) * 1e-9 * rate + 0.5
        fit, noise_w = self._echoes(_sounding(sent, start, numerology.roll_off), data, known, noise_w, numerology)
        echoes = len(fit.delay)
        if not echoes:
            return _none()
        variance = noise_w * fit.spread
        cosine, angle_covariance, misfit, fitted = find_directions(lobe, fit.amplitude, variance)
        information = fit.information / noise_w
        covariance = np.zeros((echoes, 4, 4))
        covariance[:, :2, :2] = angle_covariance
        scale = np.array([LIGHT_MPS / (2 * rate), rate * LIGHT_MPS / (2 * numerology.carrier_hz)])
        both = np.linalg.inv(information + 1e-12 * np.diag(np.diag(information)))
        pair = np.arange(echoes)[:, None] + np.array([0, echoes])
        covariance[:, 2:, 2:] = both[pair[:, :, None], pair[:, None, :]] * np.outer(scale, scale)
        value = np.column_stack([cosine, fit.delay * scale[0], fit.doppler * scale[1]])
        power = np.sum(np.abs(fit.amplitude) ** 2, axis=1)
        allowed = self._misfit_limit(len(lobe.whitener)) + 2 * 10 ** (self.misfit_db / 10) * power / variance
        inside = np.all(np.abs(cosine - lobe.centre) < 0.98 * lobe.width, axis=1)
        kept = np.flatnonzero((misfit <= allowed) & inside)
        kept = kept[np.argsort(-fitted[kept], kind="stable")]
        return Detections(
            t_ns=np.full(len(kept), centre_ns),
            dwell=np.full(len(kept), dwell),
            value=value[kept],
            covariance=covariance[kept],
            snr_db=10 * np.log10(fitted[kept]),
        )

    def _echoes(
        self,
        sounding: Sounding,
        data: Complex[Array, "row frame sample"],
        known: Complex[Array, "known column"],
        noise_w: float,
        numerology: Numerology,
    ) -> tuple[Fit, float]:
        rows, frames, size = data.shape
        rate = numerology.sample_rate_hz
        reach = min(self.max_range_m, 0.5 * LIGHT_MPS * numerology.prefix_ns * 1e-9)
        span = (2 * self.min_range_m / LIGHT_MPS * rate, 2 * reach / LIGHT_MPS * rate)
        if not span[0] < span[1]:
            raise Misuse(
                f"min_range_m = {self.min_range_m:g}: must be below {reach:g} m, max_range_m or what the prefix covers"
            )
        doppler = 2 * self.max_speed_mps * numerology.carrier_hz / LIGHT_MPS / rate
        level = self.threshold(sounding, rows, span, doppler)
        grid = search_grid(sounding, span, doppler)
        outside = (grid.delay < span[0]) | (grid.delay > span[1])
        flat = data.reshape(rows, -1)
        first = delay_doppler_map(grid, data)
        nothing = first[:0]
        fit = no_echoes(flat)
        joint: Joint | None = None
        for _ in range(self.cycles):
            noise = _noise_w(noise_w, fit, data.size)
            field, shown, amplitude = first, nothing, fit.amplitude
            if joint is not None and 0 < len(fit.delay) < rows:
                shown = delay_doppler_map(grid, joint.explained(residual=False)[0].reshape(-1, frames, size))
            elif joint is not None and len(fit.delay):
                field = delay_doppler_map(grid, joint.explained(templates=False)[1].reshape(data.shape))
            power = map_power(field, shown, amplitude, outside)
            room = self.max_targets - len(fit.delay)
            # what the map misjudges a peak by is less than these 0.7 dB
            new = strong_peaks(grid, power, 0.85 * level * noise, room, 10 / (frames * size))
            if not len(new[0]):
                break
            before = len(fit.delay)
            if joint is None:
                joint = Joint(flat, sounding, known, self.max_targets)
            joint.add(*new)
            fit = joint.fit(noise, whole=False)
            noise = _noise_w(noise_w, fit, data.size)
            while len(fit.delay):
                worth = np.sum(np.abs(fit.amplitude) ** 2, axis=1) / (fit.spread * noise)
                worth[(fit.delay < span[0]) | (fit.delay > span[1]) | (np.abs(fit.doppler) > doppler)] = 0.0
                worst = int(np.argmin(worth))
                if worth[worst] > level:
                    break
                rest = np.arange(len(worth)) != worst
                joint.keep(rest)
                fit = joint.fit(noise, whole=False) if rest.any() else no_echoes(flat)
            if len(fit.delay) <= before:
                break
        return fit, _noise_w(noise_w, fit, data.size)

    def threshold(self, sounding: Sounding, chains: int, delay: tuple[float, float], doppler: float) -> float:
        """The statistic (in noise powers) that noise alone exceeds somewhere in the rectangle with ``false_alarm_probability``."""
        slope = field_curvature(sounding.spectrum.shape[1], sounding.roll_off, tuple(sounding.start.tolist()))
        return peak_threshold(
            self.false_alarm_probability, chains, (slope[0] * (delay[1] - delay[0]), slope[1] * 2 * doppler)
        )

    def _misfit_limit(self, chains: int) -> float:
        return _chi_square(1 - self.misfit_probability, max(2 * chains - 4, 0))


def _lobe(half: HalfSpec, report: BeamReport, slot: int, frequency_hz: float, width: float) -> Lobe | None:
    beam = report.setpoint if report.readback is None else report.readback
    row = np.flatnonzero(beam.slot == slot)
    if not row.size or not np.any(beam.amplitude[row[-1]]):
        return None
    own = beam.delay_s[row[-1]], beam.phase_rad[row[-1]], beam.amplitude[row[-1]]
    return _lobe_of(half, tuple(a.astype(np.float64).tobytes() for a in own), frequency_hz, width)


@lru_cache(maxsize=64)
def _lobe_of(half: HalfSpec, settings: tuple[bytes, ...], frequency_hz: float, width: float) -> Lobe:
    delay_s, phase_rad, amplitude = (np.frombuffer(s).reshape(len(half.network.wired), -1) for s in settings)
    outputs = response(half.network, delay_s, phase_rad, amplitude, np.array([frequency_hz]))[0]
    root = noise_root(half.network.wired, outputs[None])[0]
    return main_lobe(half.array, outputs, root @ root.conj().T, frequency_hz, width)


def _prepare(
    sent: Complex[Array, "frame sample"],
    heard: Complex[Array, "frame chain sample"],
    whitener: Complex[Array, "row chain"],
) -> tuple[Complex[Array, "row frame sample"], Complex[Array, "known column"]]:
    """Whitened outputs without the leakage, and the waveform of the leakage, which stays in the fit."""
    known = np.ascontiguousarray(sent, dtype=np.complex64)
    heard = np.ascontiguousarray(heard, dtype=np.complex64)
    rows = np.empty((len(whitener), *sent.shape), np.complex64)
    _whiten(known.view(np.float32), heard.view(np.float32), whitener.astype(np.complex64), rows.view(np.float32))
    return rows, known.reshape(1, -1)


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _whiten(known: Any, heard: Any, whitener: Any, out: Any) -> None:  # pragma: no cover - compiled
    # complex numbers as interleaved reals: out[row frame 2*sample] = whitener heard[frame chain 2*sample], less its part along ``known``
    rows, chains, frames, wide = len(out), heard.shape[1], len(known), known.shape[1]
    zero = np.float32(0)
    energy, along = 0.0, np.zeros(rows, np.complex128)
    for f in range(frames):
        one = known[f]
        part = zero
        for k in range(wide):
            part += one[k] * one[k]
        energy += float(part)
        for r in range(rows):
            line = out[r, f]
            line[:] = zero
            for c in range(chains):
                a, b, from_ = whitener[r, c].real, whitener[r, c].imag, heard[f, c]
                for q in range(wide // 2):
                    line[2 * q] += a * from_[2 * q] - b * from_[2 * q + 1]
                    line[2 * q + 1] += a * from_[2 * q + 1] + b * from_[2 * q]
            re, im = zero, zero
            for q in range(wide // 2):
                re += one[2 * q] * line[2 * q] + one[2 * q + 1] * line[2 * q + 1]
                im += one[2 * q] * line[2 * q + 1] - one[2 * q + 1] * line[2 * q]
            along[r] += complex(re, im)
    for r in range(rows):
        a, b = np.float32(along[r].real / energy), np.float32(along[r].imag / energy)
        for f in range(frames):
            one, line = known[f], out[r, f]
            for q in range(wide // 2):
                line[2 * q] -= a * one[2 * q] - b * one[2 * q + 1]
                line[2 * q + 1] -= a * one[2 * q + 1] + b * one[2 * q]


def _noise_w(nameplate_w: float, fit: Fit, size: int) -> float:
    free = size - fit.amplitude.shape[1] * (1 + len(fit.delay))  # the leakage took one amplitude a row as well
    return float(max(nameplate_w, fit.left / free))


def _sounding(sent: Complex[Array, "frame sample"], start: Float[Array, " frame"], roll_off: float) -> Sounding:
    from scipy.fft import fft

    return Sounding(spectrum=fft(sent.astype(np.complex64), axis=-1), start=start, roll_off=roll_off)


@lru_cache(maxsize=16)
def _chi_square(probability: float, freedom: int) -> float:
    from scipy.special import gammaincinv

    return float(2 * gammaincinv(freedom / 2, probability)) if freedom else 0.0


def _none() -> Detections:
    empty = np.empty(0)
    return Detections(
        t_ns=np.empty(0, np.int64),
        dwell=np.empty(0, np.int64),
        value=empty.reshape(0, 4),
        covariance=empty.reshape(0, 4, 4),
        snr_db=empty,
    )


def _joined(parts: list[Detections]) -> Detections:
    return Detections(
        **{
            name: np.concatenate([getattr(p, name) for p in parts])
            for name in ("t_ns", "dwell", "value", "covariance", "snr_db")
        }
    )
