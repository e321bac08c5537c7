"""The delay-Doppler map of one dwell: what the matched filter shows of the echoes, before any detector has judged them."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, cis
from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int
from twin.physics.draws import Draws
from twin.records import Detections, EchoObservation, Numerology
from twin.scenario import Scenario, numerology
from twin.waveforms.oddm import qpsk

__all__ = ["dwell_map", "power_map", "recorded_map"]

FINER = 4  # Doppler bins a resolution cell
RANGE_FINER = 2  # columns a sample of delay


def dwell_map(
    echo: EchoObservation,
    dwell: int,
    detections: Detections | None = None,
    truth: Float[Array, "mover 4"] | None = None,
    entity: Int[Array, " mover"] | None = None,
) -> dict[str, Array]:
    """The map of one dwell of an observation, as arrays for ``np.savez``: ``power_db[doppler range]``, ``range_m``, ``velocity_mps`` and marks.

    See ``power_map`` for what is shown. ``detected[n 4]`` and ``truth[mover 4]`` are (uy, uz, range_m, velocity_mps) of the dwell's detections and of
    the movers (``twin.kpi.measured``), empty where not given; ``entity`` names the movers; ``t_ns`` is the first frame's instant.
    Raises Misuse without samples (sensing fidelity ``bound``) and for a dwell that is not there.
    """
    heard, drive, frames = echo.echo, echo.drive, echo.numerology.frames_per_dwell
    if heard is None or drive is None or drive.samples is None:
        raise Misuse("echo: holds no samples; a map needs sensing.fidelity = echo")
    dwells = len(heard.t_ns) // frames
    if not 0 <= dwell < dwells:
        raise Misuse(f"dwell = {dwell}: must be 0 .. {dwells - 1}, the dwells of this subframe")
    own = slice(dwell * frames, (dwell + 1) * frames)
    found = power_map(drive.samples[own, 0], heard.samples[own], heard.t_ns[own], heard.noise_w, echo.numerology)
    detected = np.zeros((0, 4)) if detections is None else detections.value[detections.dwell == dwell]
    return {
        **found,
        "detected": detected,
        "truth": np.zeros((0, 4)) if truth is None else np.asarray(truth),
        "entity": np.zeros(0, np.int64) if entity is None else np.asarray(entity),
        "t_ns": np.array(heard.t_ns[own][0]),
        "dwell": np.array(dwell),
    }


def power_map(
    sent: Complex[Array, "frame sample"],
    heard: Complex[Array, "frame chain sample"],
    t_ns: Int[Array, " frame"],
    noise_w: float,
    frame: Numerology,
) -> dict[str, Array]:
    """Matched-filter power over delay and Doppler, in dB over what noise alone would give on average.

    ``P(l, nu) = sum_c |sum_f sum_q y_fc[q] exp(-j 2 pi nu t_fq) s_f*[q - l]|^2 / (chains noise_w sum |s|^2)``, cyclic in each frame, coherent over all
    frames, so that Doppler within a frame costs nothing; noise alone has mean 1. The leakage from transmitter to receiver (delay and Doppler
    zero) is fitted to each chain and subtracted first. Lags reach as far as the prefix; Doppler as far as the frame period tells it apart (one
    frame: half the Doppler bins). Side lobes are those of random symbols and of the rectangular dwell, so a strong echo hides weak ones near it.
    Left out: the detector's whitening of coupled combiner columns, range migration.
    """
    from scipy.fft import fft, ifft  # whose import takes a tenth of a second, and whose transforms half of NumPy's

    frames, size = sent.shape
    energy = float(np.sum(np.abs(sent) ** 2))
    leak = np.einsum("fq,fcq->c", sent.conj(), heard) / energy
    clean = heard - leak[None, :, None] * sent[:, None, :]
    rate = frame.sample_rate_hz
    length_s = frames * frame.frame_ns * 1e-9 if frames > 1 else size / rate
    cells = (frames if frames > 1 else frame.doppler_bins) // 2 * FINER
    doppler_hz = np.arange(-cells, cells + 1) / (FINER * length_s)
    replica = fft(sent).conj()
    begin_s, within_s = (t_ns - t_ns[0]) * 1e-9, np.arange(size) / rate
    lags = max(min(round(frame.prefix_ns * 1e-9 * rate), size - 1), 1) * RANGE_FINER + 1
    power = np.empty((len(doppler_hz), lags))
    half = size // 2
    for row, nu in enumerate(doppler_hz):
        # a frame's own phase can wait until its samples are transformed
        shifted = fft(clean * cis(-2 * np.pi * nu * within_s), overwrite_x=True)
        spectrum = np.einsum("fcq,fq->cq", shifted, replica * cis(-2 * np.pi * nu * begin_s)[:, None])
        padded = np.zeros((len(spectrum), size * RANGE_FINER), dtype=spectrum.dtype)
        padded[:, :half], padded[:, half - size :] = spectrum[:, :half], spectrum[:, half:]
        lag = ifft(padded)[:, :lags] * RANGE_FINER
        power[row] = (lag.real**2 + lag.imag**2).sum(axis=0)
    power /= heard.shape[1] * noise_w * energy
    return {
        "power_db": 10 * np.log10(np.maximum(power, 1e-6)),
        "range_m": np.arange(lags) / (RANGE_FINER * rate) * (LIGHT_MPS / 2),
        "velocity_mps": doppler_hz * (LIGHT_MPS / (2 * frame.carrier_hz)),
    }


def recorded_map(
    scenario: Scenario, plan: Any, belief: Any, truth: Any, heard: Any, dwell: int = 0
) -> dict[str, Array]:
    """The same from a recording (``record.echoes: true``), as ``dwell_map`` gives it: symbols are drawn again from the scenario's seed.

    ``plan, belief, truth`` and ``heard`` are those of one subframe; movers are placed in range and closing speed only (NaN for their direction).
    Raises Misuse where the samples are not those of whole dwells.
    """
    (name, site), frame = *scenario.sites.items(), numerology(scenario)
    frames, cells = frame.frames_per_dwell, frame.delay_bins * frame.doppler_bins
    whole = len(heard.t_ns) % frames == 0 and heard.samples.shape[-1] == cells
    if not (whole and 0 <= dwell < len(heard.t_ns) // frames):
        raise Misuse(
            f"echo samples {heard.samples.shape}: are not dwells of {frames} frames of {cells} samples, as the scenario has them"
        )
    own = slice(dwell * frames, (dwell + 1) * frames)
    t_ns = heard.t_ns[own]
    words = Draws(scenario.seed).words(
        f"{name}.symbols", np.zeros(1, np.int64), t_ns, (cells + 15) // 16
    )  # of the only stream
    grid = qpsk(words, cells).reshape(frames, frame.delay_bins, frame.doppler_bins)
    sent = scenario.sensing.waveform.modulate(grid.astype(np.complex64), frame)
    marks: dict[str, Array] = {"detected": np.zeros((0, 4)), "truth": np.zeros((0, 4)), "entity": np.zeros(0, np.int64)}
    if belief is not None:
        marks["detected"] = belief.detections.value[belief.detections.dwell == dwell]
    if truth is not None:
        away = truth.position_m - np.array(site.position_m)
        range_m = np.linalg.norm(away, axis=1)
        closing = -(away * truth.velocity_mps).sum(axis=1) / range_m
        marks["truth"] = np.column_stack([np.full((len(range_m), 2), np.nan), range_m, closing])
        marks["entity"] = truth.entity
    found = power_map(sent, heard.samples[own], t_ns, heard.noise_w, frame)
    return {**found, **marks, "t_ns": np.array(t_ns[0]), "dwell": np.array(dwell)}
