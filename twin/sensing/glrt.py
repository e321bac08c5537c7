"""Generalised likelihood ratio: finds echoes in delay and Doppler over all receive chains, fits them jointly, then finds their directions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np

from hal.array import LIGHT_MPS, AntennaArray, steering, steering_gradient
from hal.check import Ge, Gt, Lt, shaped
from hal.errors import Misuse
from hal.frontend import BeamReport, HalfSpec
from hal.network import response
from hal.reception import noise_root
from hal.record import Array, Complex, Float, record
from twin.physics.delay_doppler import field_curvature, peak_threshold
from twin.physics.echoes import Fit, Sounding, delay_doppler_map, fit_echoes, no_echoes, search_grid, strong_peaks
from twin.records import Detections, EchoObservation, Numerology, Tracks

__all__ = ["Glrt", "Lobe", "find_directions", "main_lobe"]


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

    Left out: range migration (a dwell is one delay, which is the range at its centre), clutter, several transmit streams, echoes from
    beyond the prefix. A mover in a side lobe of the receive beams can look exactly like one in the main lobe (product-form beams): estimates at the
    lobe's edge and misfits are rejected here, the rest is for the tracker to gate.
    """

    false_alarm_probability: Annotated[float, Gt(0), Lt(0.5)] = 1e-3  # a dwell, from noise alone
    max_targets: Annotated[int, Ge(1)] = 8  # a dwell
    min_range_m: Annotated[float, Ge(0)] = 5.0  # echoes nearer are not searched for
    max_range_m: Annotated[float, Gt(0)] = 150.0  # cut to what the cyclic prefix covers
    max_speed_mps: Annotated[float, Gt(0)] = 24.0  # closing or opening
    lobe_width: Annotated[float, Gt(0)] = 1.0  # half-width of the searched direction cosines, in null distances of the receive array
    cycles: Annotated[int, Ge(1)] = 4  # searches of the residual
    misfit_probability: Annotated[float, Gt(0), Lt(1)] = 1e-4  # of rejecting a true echo because its chains do not fit one direction
    misfit_db: float = -25.0  # part of an echo's power that may fail to fit, for beams that are not quite what they said

    def detect(self, observation: EchoObservation, tracks: Tracks) -> Detections:
        """Detections of all dwells, dwell by dwell, strongest first. ``tracks`` are not used.

        Raises Misuse for events that are not whole dwells, more than one stream, an unknown slot, or speeds the frame period cannot tell apart.
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
            lobe = _lobe(observation.spec.receive, observation.receive_beam, int(echo.slot[own][0]), float(drive.frequency_hz[0]), self.lobe_width)
            found.append(self._dwell(dwell, echo.t_ns[own], drive.samples[own, 0], echo.samples[own], echo.noise_w, lobe, numerology))
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
        start = (t_ns - centre_ns) * 1e-9 * rate + 0.5  # samples to the centre, which lies half a sample after the middle one
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
        self, sounding: Sounding, data: Complex[Array, "row frame sample"], known: Complex[Array, "known column"], noise_w: float, numerology: Numerology
    ) -> tuple[Fit, float]:
        rows, frames, size = data.shape
        rate = numerology.sample_rate_hz
        reach = min(self.max_range_m, 0.5 * LIGHT_MPS * numerology.prefix_ns * 1e-9)
        span = (2 * self.min_range_m / LIGHT_MPS * rate, 2 * reach / LIGHT_MPS * rate)
        if not span[0] < span[1]:
            raise Misuse(f"min_range_m = {self.min_range_m:g}: must be below {reach:g} m, max_range_m or what the prefix covers")
        doppler = 2 * self.max_speed_mps * numerology.carrier_hz / LIGHT_MPS / rate
        level = self.threshold(sounding, rows, span, doppler)
        grid = search_grid(sounding, span, doppler)
        outside = (grid.delay < span[0]) | (grid.delay > span[1])
        flat = data.reshape(rows, -1)
        first = delay_doppler_map(grid, data)
        fit = no_echoes(flat)
        for _ in range(self.cycles):
            noise = _noise_w(noise_w, fit)
            if not len(fit.delay):
                field = first
            elif len(fit.delay) < rows:
                field = first - np.einsum("er,ebc->rbc", fit.amplitude.astype(np.complex64), delay_doppler_map(grid, fit.template.reshape(-1, frames, size)))
            else:
                field = delay_doppler_map(grid, fit.residual.reshape(data.shape))
            power = np.einsum("rbc,rbc->bc", field.real, field.real) + np.einsum("rbc,rbc->bc", field.imag, field.imag)
            power[:, outside] = 0.0
            room = self.max_targets - len(fit.delay)
            new = strong_peaks(grid, power, 0.75 * level * noise, room, 10 / (frames * size))
            if not len(new[0]):
                break
            before = len(fit.delay)
            fit = fit_echoes(flat, sounding, np.append(fit.delay, new[0]), np.append(fit.doppler, new[1]), known, noise)
            noise = _noise_w(noise_w, fit)
            while len(fit.delay):
                worth = np.sum(np.abs(fit.amplitude) ** 2, axis=1) / (fit.spread * noise)
                worth[(fit.delay < span[0]) | (fit.delay > span[1]) | (np.abs(fit.doppler) > doppler)] = 0.0
                worst = int(np.argmin(worth))
                if worth[worst] > level:
                    break
                rest = np.arange(len(worth)) != worst
                fit = fit_echoes(flat, sounding, fit.delay[rest], fit.doppler[rest], known, noise) if rest.any() else no_echoes(flat)
            if len(fit.delay) <= before:
                break
        return fit, _noise_w(noise_w, fit)

    def threshold(self, sounding: Sounding, chains: int, delay: tuple[float, float], doppler: float) -> float:
        """The statistic (in noise powers) that noise alone exceeds somewhere in the rectangle with ``false_alarm_probability``."""
        slope = field_curvature(sounding.spectrum.shape[1], sounding.roll_off, tuple(sounding.start.tolist()))
        return peak_threshold(self.false_alarm_probability, chains, (slope[0] * (delay[1] - delay[0]), slope[1] * 2 * doppler))

    def _misfit_limit(self, chains: int) -> float:
        return _chi_square(1 - self.misfit_probability, max(2 * chains - 4, 0))


@record
class Lobe:
    """The receive beams of one slot: how chain outputs are whitened, and where their main lobe is."""

    array: AntennaArray
    frequency_hz: float
    projection: Complex[Array, "row element"]  # whitened outputs of a plane wave: projection @ a(u)
    slopes: Complex[Array, "two row element"] | None  # and of its derivatives, slopes @ a(u); None: elements off the y-z plane
    whitener: Complex[Array, "row chain"]
    centre: Float[Array, "2"]  # uy, uz
    width: Float[Array, "2"]  # half-widths of the searched rectangle
    cosine: Float[Array, "point 2"]  # grid points within it
    manifold: Complex[Array, "row point"]  # whitened, unit norm
    prior: Float[Array, "2"]  # 1 / variance of a uniform direction, on axes these chains cannot resolve; else 0


def main_lobe(
    array: AntennaArray, outputs: Complex[Array, "element chain"], noise: Complex[Array, "chain chain"], frequency_hz: float, width: float = 1.0
) -> Lobe:
    """Where receive beams look together and how to whiten them.

    ``outputs`` are ``hal.network.response`` of one slot, ``noise`` the covariance of the chains' noise in units of one chain's.

    The centre is the power-weighted mean direction of the beams' own main lobes, the half-width ``width`` times the array's null distance
    ``c / (f D)``, D the aperture of a uniform line with the same spread. Combinations of chains 60 dB below the strongest are dropped.
    """
    grid, manifold = _dictionary(array, frequency_hz)
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    power = np.abs(manifold @ outputs.astype(np.complex64)) ** 2
    centre = grid[np.argmax(power.sum(axis=1))]
    for _ in range(2):
        near = np.all(np.abs(grid - centre) <= 1.2 * null, axis=1)
        centre = (power[near].sum(axis=1) @ grid[near]) / power[near].sum()
    root, turn = np.linalg.eigh(noise)
    strong = root > 1e-6 * root[-1]
    whitener = (turn[:, strong] / np.sqrt(root[strong])).conj().T
    reach = width * null
    near = np.all(np.abs(grid - centre) <= reach, axis=1)
    if not near.any():
        near[np.argmin(np.sum((grid - centre) ** 2, axis=1))] = True
    projection = whitener @ outputs.T
    seen = projection @ manifold[near].T
    blind = np.full(2, np.count_nonzero(strong) < 3) | (aperture == 0)
    planar = not np.any(array.position_m[:, 0])
    lever = np.stack(steering_gradient(array, np.array([1.0, 0.0, 0.0]), np.float64(frequency_hz)))
    return Lobe(
        array=array,
        frequency_hz=frequency_hz,
        projection=projection,
        slopes=projection * lever[:, None] if planar else None,  # broadside, where a = 1 and its derivatives are the levers
        whitener=whitener,
        centre=centre,
        width=reach,
        cosine=grid[near],
        manifold=seen / np.linalg.norm(seen, axis=0),
        prior=np.where(blind, 3 / reach**2, 0.0),
    )


def find_directions(
    lobe: Lobe, amplitude: Complex[Array, "echo row"], variance: Float[Array, " echo"], steps: int = 8
) -> tuple[Float[Array, "echo 2"], Float[Array, "echo 2 2"], Float[Array, " echo"], Float[Array, " echo"]]:
    """Directions that best explain each echo's whitened chain amplitudes: ``(cosine, covariance, misfit, fitted)``.

    ``max_u |b(u)^H z|^2 / ||b(u)||^2`` by Gauss-Newton from two separate grid points of the lobe; ``variance`` is that of one entry of z.
    ``misfit`` is twice the rest over the variance, chi-square with ``2 rows - 4`` degrees of freedom for a single true echo, and scales the
    covariance where it exceeds them; ``fitted`` is the explained power over the variance, the echo's integrated signal to noise ratio.
    """
    score = np.abs(lobe.manifold.conj().T @ amplitude.T) ** 2  # [point echo]
    score -= 0.5 * variance * np.sum(lobe.prior * (lobe.cosine - lobe.centre) ** 2, axis=1)[:, None]
    best = np.argmax(score, axis=0)
    far = np.any(np.abs(lobe.cosine[:, None] - lobe.cosine[best]) > 0.6 * lobe.width, axis=2)
    second = np.argmax(np.where(far, score, -np.inf), axis=0)
    echoes = len(amplitude)
    # a second start only where the grid leaves a doubt: its own score, taken off the grid, could still win
    doubt = np.flatnonzero(score[second, np.arange(echoes)] > 0.5 * score[best, np.arange(echoes)])
    owner = np.concatenate([np.arange(echoes), doubt])
    cosine = lobe.cosine[np.concatenate([best, second[doubt]])]
    z, v = amplitude[owner], variance[owner]
    low, high = np.maximum(lobe.centre - lobe.width, -0.999), np.minimum(lobe.centre + lobe.width, 0.999)
    for _ in range(steps):
        b, slopes = _manifold(lobe, cosine)
        norm = np.sum(np.abs(b) ** 2, axis=1)
        gain = np.sum(b.conj() * z, axis=1) / norm
        left = z - gain[:, None] * b
        bent = gain[:, None, None] * (slopes - b[:, None] * (np.sum(b.conj()[:, None] * slopes, axis=2) / norm[:, None])[..., None])
        normal = 2 / v[:, None, None] * np.real(np.einsum("eir,ejr->eij", bent.conj(), bent)) + np.diag(lobe.prior)
        normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-30 * np.eye(2)
        slope = 2 / v[:, None] * np.real(np.sum(bent.conj() * left[:, None], axis=2)) - lobe.prior * (cosine - lobe.centre)
        move = np.linalg.solve(normal, slope[..., None])[..., 0]
        cosine = np.clip(cosine + np.clip(move, -0.3 * lobe.width, 0.3 * lobe.width), low, high)
        cosine /= np.maximum(1.0, np.sqrt(np.sum(cosine**2, axis=1)) / 0.999)[:, None]
        if np.max(np.sum(move * slope, axis=1)) < 1e-2:  # a step of 0.1 standard deviations is the last
            break
    misfit = 2 * np.sum(np.abs(left) ** 2, axis=1) / v
    own = np.arange(echoes)
    better = echoes + np.flatnonzero(misfit[echoes:] < misfit[doubt])
    own[owner[better]] = better
    freedom = max(2 * z.shape[1] - 4, 1)
    covariance = np.linalg.inv(normal[own]) * np.maximum(1.0, misfit[own] / freedom)[:, None, None]
    return cosine[own], covariance, misfit[own], np.abs(gain[own]) ** 2 * norm[own] / variance


def _manifold(lobe: Lobe, cosine: Float[Array, "echo 2"]) -> tuple[Complex[Array, "echo row"], Complex[Array, "echo 2 row"]]:
    direction = _direction(cosine)
    a = steering(lobe.array, direction, lobe.frequency_hz)
    if lobe.slopes is not None:
        return a @ lobe.projection.T, np.stack([a @ lobe.slopes[0].T, a @ lobe.slopes[1].T], axis=1)
    slopes = np.stack(steering_gradient(lobe.array, direction, lobe.frequency_hz), axis=1)
    return a @ lobe.projection.T, slopes @ lobe.projection.T


def _direction(cosine: Float[Array, "*batch 2"]) -> Float[Array, "*batch 3"]:
    ahead = np.sqrt(np.maximum(1 - np.sum(cosine**2, axis=-1, keepdims=True), 0.0))
    return np.concatenate([ahead, cosine], axis=-1)


@lru_cache(maxsize=4)
def _dictionary(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array]:
    """Direction cosines of the front half space, a third of a null apart, and their steering vectors."""
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    axes = [np.linspace(-1, 1, 2 * int(np.ceil(3 / n)) + 1) if n < 1 else np.zeros(1) for n in null]
    cosine = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cosine = cosine[np.sum(cosine**2, axis=1) < 0.998]
    return cosine, steering(array, _direction(cosine), frequency_hz).astype(np.complex64)


def _lobe(half: HalfSpec, report: BeamReport, slot: int, frequency_hz: float, width: float) -> Lobe:
    beam = report.setpoint if report.readback is None else report.readback
    row = np.flatnonzero(beam.slot == slot)
    if not row.size:
        raise Misuse(f"echo.slot = {slot}: the receive beam report has slots {beam.slot.tolist()} only")
    own = (beam.delay_s[row[-1]], beam.phase_rad[row[-1]], beam.amplitude[row[-1]])
    return _cached_lobe(half, *(a.tobytes() for a in own), own[0].shape, own[1].shape, frequency_hz, width)


@lru_cache(maxsize=64)
def _cached_lobe(
    half: HalfSpec, delay: bytes, phase: bytes, amplitude: bytes, lines: tuple[int, ...], wires: tuple[int, ...], frequency_hz: float, width: float
) -> Lobe:
    settings = (np.frombuffer(delay).reshape(lines), np.frombuffer(phase).reshape(wires), np.frombuffer(amplitude).reshape(wires))
    outputs = response(half.network, *settings, np.array([frequency_hz]))[0]
    root = noise_root(half.network.wired, outputs[None])[0]
    return main_lobe(half.array, outputs, root @ root.conj().T, frequency_hz, width)


def _prepare(
    sent: Complex[Array, "frame sample"], heard: Complex[Array, "frame chain sample"], whitener: Complex[Array, "row chain"]
) -> tuple[Complex[Array, "row frame sample"], Complex[Array, "known column"]]:
    """Whitened outputs without the leakage, and the waveform of the leakage, which stays in the fit."""
    known = sent.reshape(1, -1).astype(np.complex64)
    rows = (whitener.astype(np.complex64) @ heard.astype(np.complex64)).swapaxes(0, 1).reshape(len(whitener), -1)
    rows -= (rows @ known[0].conj() / np.vdot(known, known).real)[:, None] * known
    return rows.reshape(-1, *sent.shape), known


def _noise_w(nameplate_w: float, fit: Fit) -> float:
    free = fit.residual.size - len(fit.residual) * (1 + len(fit.delay))  # the leakage took one amplitude a row as well
    return max(nameplate_w, float(np.vdot(fit.residual, fit.residual).real) / free)


def _sounding(sent: Complex[Array, "frame sample"], start: Float[Array, " frame"], roll_off: float) -> Sounding:
    from scipy.fft import fft

    return Sounding(spectrum=fft(sent, axis=-1).astype(np.complex64), start=start, roll_off=roll_off)


@lru_cache(maxsize=16)
def _chi_square(probability: float, freedom: int) -> float:
    from scipy.special import gammaincinv

    return float(2 * gammaincinv(freedom / 2, probability)) if freedom else 0.0


def _none() -> Detections:
    empty = np.empty(0)
    return Detections(
        t_ns=np.empty(0, np.int64), dwell=np.empty(0, np.int64), value=empty.reshape(0, 4), covariance=empty.reshape(0, 4, 4), snr_db=empty
    )


def _joined(parts: list[Detections]) -> Detections:
    return Detections(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in ("t_ns", "dwell", "value", "covariance", "snr_db")})
