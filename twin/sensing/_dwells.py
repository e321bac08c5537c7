"""Whole dwells out of an observation, as the joint estimators want them: effective streams, samples, and the aperture they met."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from hal.array import LIGHT_MPS
from hal.check import finite, shaped
from hal.errors import Misuse
from hal.frontend import BeamReport, HalfSpec
from hal.network import response
from hal.reception import noise_covariance
from hal.record import Array, Complex, Float, record
from twin.physics.directions import Lobe, main_lobe
from twin.physics.hybrid_echo import Aperture, Estimate, aperture
from twin.records import Detections, EchoObservation, Numerology

__all__ = ["Dwell", "detections", "dwells", "reach"]


@record
class Dwell:
    """One dwell: what was sent in effective streams, what the whitened chains heard, and through what."""

    index: int
    centre_ns: int
    sent: Complex[Array, "stream frame sample"]  # of the precoder's singular vectors: as many as its rank
    data: Complex[Array, "row frame sample"]  # whitened chain outputs
    start: Float[Array, " frame"]  # of each frame's first sample, in samples from the dwell's centre
    noise_w: float
    aperture: Aperture
    numerology: Numerology


def dwells(observation: EchoObservation, lobe_width: float) -> Iterator[Dwell]:
    """Every dwell of ``observation.echo`` whose beams were loaded and are not dark.

    Raises Misuse for events that are not whole dwells, samples that are not finite, and frames of no power.
    """
    echo, drive, numerology = observation.echo, observation.drive, observation.numerology
    assert echo is not None
    assert drive is not None
    assert drive.samples is not None
    frames, size = numerology.frames_per_dwell, numerology.delay_bins * numerology.doppler_bins
    events = len(echo.t_ns)
    if not frames >= 1:
        raise Misuse(f"frames_per_dwell = {frames}: must be at least 1")
    if events % frames:
        raise Misuse(f"echo: has {events} events, must be whole dwells of {frames} frames")
    shaped("drive.samples", drive.samples, (events, None, size))
    shaped("echo.samples", echo.samples, (events, None, size))
    finite("echo.samples", echo.samples)
    finite("drive.samples", drive.samples)
    rate = numerology.sample_rate_hz
    for dwell in range(events // frames):
        own = slice(dwell * frames, (dwell + 1) * frames)
        at = _settings(observation.spec.receive, observation.receive_beam, int(echo.slot[own][0]))
        to = _settings(observation.spec.transmit, observation.transmit_beam, int(drive.slot[own][0]))
        if at is None or to is None:
            continue
        root_w = np.sqrt(drive.power_w[own][:1, 0])
        digital = np.ascontiguousarray(drive.digital[own][0], dtype=np.complex128) * root_w
        halves = observation.spec.receive, observation.spec.transmit
        through = _seen(*halves, at, to, digital.tobytes(), digital.shape[1], float(drive.frequency_hz[0]), lobe_width)
        if through is None:
            continue
        met, mix = through
        t_ns = echo.t_ns[own]
        centre_ns = int(t_ns.sum()) // frames + round(0.5e9 * size / rate)
        sent = (mix @ drive.samples[own]).swapaxes(0, 1).astype(np.complex64)
        if not np.all(np.any(sent, axis=(1, 2))):
            raise Misuse(f"drive.samples: a stream of dwell {dwell} is zero; what was not sent has no echo")
        yield Dwell(
            index=dwell,
            centre_ns=centre_ns,
            sent=np.ascontiguousarray(sent),
            data=(met.lobe.whitener.astype(np.complex64) @ echo.samples[own].astype(np.complex64)).swapaxes(0, 1),
            start=(t_ns - centre_ns) * 1e-9 * rate + 0.5,
            noise_w=echo.noise_w,
            aperture=met,
            numerology=numerology,
        )


def reach(
    numerology: Numerology, min_range_m: float, max_range_m: float, max_speed_mps: float
) -> tuple[tuple[float, float], float]:
    """The rectangle that is searched: delays in samples, as far as the prefix covers, and the greatest Doppler in cycles a sample.

    Raises Misuse for a rectangle that is empty, and for speeds that the frame, or the frames' period, cannot tell apart.
    """
    rate, covered_m = numerology.sample_rate_hz, 0.5 * LIGHT_MPS * numerology.prefix_ns * 1e-9
    span = (2 * min_range_m / LIGHT_MPS * rate, 2 * min(max_range_m, covered_m) / LIGHT_MPS * rate)
    if not span[0] < span[1]:
        raise Misuse(
            f"min_range_m = {min_range_m:g}: must be below {min(max_range_m, covered_m):g} m, max_range_m or what the "
            f"prefix of {numerology.prefix_ns} ns covers"
        )
    doppler = 2 * max_speed_mps * numerology.carrier_hz / LIGHT_MPS / rate
    alone = numerology.frames_per_dwell == 1
    # one frame is a grid of its own: half its Doppler bins each way; several are sampled at their period
    period = numerology.delay_bins if alone else numerology.frame_ns * 1e-9 * rate
    if not doppler <= 0.5 / period:
        fastest = 0.25 * LIGHT_MPS * rate / (period * numerology.carrier_hz)
        raise Misuse(
            f"max_speed_mps = {max_speed_mps:g}: a Doppler grid of {'doppler_bins' if alone else 'frames'} reaches {fastest:.4g} m/s; "
            "lower it or take a wider spacing" + ("" if alone else ", or a shorter frame")
        )
    return span, doppler


def detections(dwell: Dwell, found: Estimate, noise_w: float, covariance: Float[Array, "target 4 4"]) -> Detections:
    """Estimates in SI units, strongest first; ``covariance`` in (uy, uz, samples, cycles a sample)."""
    numerology = dwell.numerology
    rate = numerology.sample_rate_hz
    scale = np.array([1, 1, LIGHT_MPS / (2 * rate), rate * LIGHT_MPS / (2 * numerology.carrier_hz)])
    value = np.column_stack([found.cosine, found.delay, found.doppler]) * scale
    order = np.argsort(-found.power, kind="stable")
    return Detections(
        t_ns=np.full(len(order), dwell.centre_ns),
        dwell=np.full(len(order), dwell.index),
        value=value[order],
        covariance=(covariance * np.outer(scale, scale))[order],
        snr_db=10 * np.log10(found.power[order] / noise_w),
    )


def _settings(half: HalfSpec, report: BeamReport, slot: int) -> tuple[bytes, ...] | None:
    beam = report.setpoint if report.readback is None else report.readback
    row = np.flatnonzero(beam.slot == slot)
    if not row.size or not np.any(beam.amplitude[row[-1]]):
        return None
    own = beam.delay_s[row[-1]], beam.phase_rad[row[-1]], beam.amplitude[row[-1]]
    return tuple(a.astype(np.float64).tobytes() for a in own)


@lru_cache(maxsize=64)
def _seen(
    receive: HalfSpec,
    transmit: HalfSpec,
    at: tuple[bytes, ...],
    to: tuple[bytes, ...],
    digital: bytes,
    streams: int,
    frequency_hz: float,
    width: float,
) -> tuple[Aperture, Array] | None:
    """The aperture, and what turns streams into effective ones; None where nothing leaves."""
    lobe = _lobe(receive, at, frequency_hz, width)
    feed = _outputs(transmit, to, frequency_hz) @ np.frombuffer(digital, np.complex128).reshape(-1, streams)
    left, size, right = np.linalg.svd(feed, full_matrices=False)
    strong = size > 1e-6 * size[0]
    if not size[0] > 0:
        return None
    return aperture(lobe, transmit.array, (left[:, strong] * size[strong]).T), right[strong]


def _outputs(half: HalfSpec, settings: tuple[bytes, ...], frequency_hz: float) -> Complex[Array, "element chain"]:
    delay_s, phase_rad, amplitude = (np.frombuffer(s).reshape(len(half.network.wired), -1) for s in settings)
    return np.asarray(response(half.network, delay_s, phase_rad, amplitude, np.array([frequency_hz]))[0])


@lru_cache(maxsize=64)
def _lobe(half: HalfSpec, settings: tuple[bytes, ...], frequency_hz: float, width: float) -> Lobe:
    outputs = _outputs(half, settings, frequency_hz)
    noise = noise_covariance(half.network.wired, outputs[None])[0]
    return main_lobe(half.array, outputs, noise, frequency_hz, width)
