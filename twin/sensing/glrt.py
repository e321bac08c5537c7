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
from hal.lanes import LANES, packed
from hal.network import response
from hal.reception import noise_covariance
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
        half_ns = round(0.5e9 * sent.shape[1] / rate)
        centre_ns = int(t_ns.sum()) // len(t_ns) + half_ns
        # in samples; the dwell's centre lies half a sample after the mean of its samples, to which the fit refers
        start = (t_ns - centre_ns) * 1e-9 * rate + 0.5
        sounding = Sounding(sent=sent, start=start, roll_off=numerology.roll_off)
        data = _whitened(sounding, heard, lobe.whitener)
        fit, noise_w = self._echoes(sounding, data, noise_w, numerology)
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
        data: Float[Array, "row group 2 sample lane"],
        noise_w: float,
        numerology: Numerology,
    ) -> tuple[Fit, float]:
        rows, (frames, size) = len(data), sounding.sent.shape
        rate, samples = numerology.sample_rate_hz, rows * frames * size
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
        first = delay_doppler_map(grid, data)
        nothing = first[:0]
        energy = float(np.vdot(data, data))
        fit = no_echoes(rows, energy)
        joint: Joint | None = None
        for _ in range(self.cycles):
            noise = _noise_w(noise_w, fit, samples)
            field, shown, amplitude = first, nothing, fit.amplitude
            if joint is not None and 0 < len(fit.delay) < rows:
                shown = delay_doppler_map(grid, joint.explained(residual=False)[0])
            elif joint is not None and len(fit.delay):
                field = delay_doppler_map(grid, joint.explained(templates=False)[1])
            power = map_power(field, shown, amplitude, outside)
            room = self.max_targets - len(fit.delay)
            # what the map misjudges a peak by is less than these 0.7 dB
            new = strong_peaks(grid, power, 0.85 * level * noise, room, 10 / (frames * size))
            if not len(new[0]):
                break
            before = len(fit.delay)
            if joint is None:
                joint = Joint(data, sounding, sounding.waves, self.max_targets)
            joint.add(*new)
            fit = joint.fit(noise, whole=False)
            noise = _noise_w(noise_w, fit, samples)
            while len(fit.delay):
                worth = np.sum(np.abs(fit.amplitude) ** 2, axis=1) / (fit.spread * noise)
                worth[(fit.delay < span[0]) | (fit.delay > span[1]) | (np.abs(fit.doppler) > doppler)] = 0.0
                worst = int(np.argmin(worth))
                if worth[worst] > level:
                    break
                rest = np.arange(len(worth)) != worst
                joint.keep(rest)
                fit = joint.fit(noise, whole=False) if rest.any() else no_echoes(rows, energy)
            if len(fit.delay) <= before:
                break
        return fit, _noise_w(noise_w, fit, samples)

    def threshold(self, sounding: Sounding, chains: int, delay: tuple[float, float], doppler: float) -> float:
        """The statistic (in noise powers) that noise alone exceeds somewhere in the rectangle with ``false_alarm_probability``."""
        slope = field_curvature(sounding.sent.shape[1], sounding.roll_off, tuple(sounding.start.tolist()))
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
    noise = noise_covariance(half.network.wired, outputs[None])[0]
    return main_lobe(half.array, outputs, noise, frequency_hz, width)


def _whitened(
    sounding: Sounding, heard: Complex[Array, "frame chain sample"], whitener: Complex[Array, "row chain"]
) -> Float[Array, "row group 2 sample lane"]:
    """Whitened outputs without the leakage, whose waveform is what was sent and stays in the fit."""
    waves = packed(heard)
    out = np.empty((len(whitener), *waves.shape[1:]), np.float32)
    flat = (-1, *waves.shape[1:3], waves.shape[3] * LANES)
    _whiten(sounding.waves.reshape(flat)[0], waves.reshape(flat), whitener.astype(np.complex64), out.reshape(flat))
    return out


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _whiten(known: Any, heard: Any, whitener: Any, out: Any) -> None:  # pragma: no cover - compiled
    # out[row] = whitener heard[chain], less its part along ``known``: all [group 2 sample*lane]
    groups = len(known)
    for r in range(len(out)):
        energy, along = 0.0, 0j
        for g in range(groups):
            u, v, x, y = out[r, g, 0], out[r, g, 1], known[g, 0], known[g, 1]
            u[:] = 0
            v[:] = 0
            for c in range(len(heard)):
                a, b, p, q = whitener[r, c].real, whitener[r, c].imag, heard[c, g, 0], heard[c, g, 1]
                for k in range(u.size):
                    u[k] += a * p[k] - b * q[k]
                    v[k] += a * q[k] + b * p[k]
            part, re, im = np.float32(0), np.float32(0), np.float32(0)
            for k in range(u.size):
                part += x[k] * x[k] + y[k] * y[k]
                re += x[k] * u[k] + y[k] * v[k]
                im += x[k] * v[k] - y[k] * u[k]
            energy += float(part)
            along += complex(re, im)
        a, b = np.float32(along.real / energy), np.float32(along.imag / energy)
        for g in range(groups):
            u, v, x, y = out[r, g, 0], out[r, g, 1], known[g, 0], known[g, 1]
            for k in range(u.size):
                u[k] -= a * x[k] - b * y[k]
                v[k] -= a * y[k] + b * x[k]


def _noise_w(nameplate_w: float, fit: Fit, size: int) -> float:
    free = size - fit.amplitude.shape[1] * (1 + len(fit.delay))  # the leakage took one amplitude a row as well
    return float(max(nameplate_w, fit.left / free))


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
