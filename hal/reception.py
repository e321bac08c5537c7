"""What a front end's chains give for what arrives, and what its amplifiers make of what leaves (pure; chance is an argument).

Every event is computed by a fixed order of operations of its own: loops, compiled without reordering, stand where NumPy would choose
its order by the batch. So a result does not depend, in any bit, on which events are computed together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit

from hal.array import AntennaArray
from hal.chain import rapp
from hal.errors import Misuse
from hal.frontend import SITE, Drive, Emission
from hal.hermitian import roots
from hal.medium import Paths, beam_gains, narrowband, wideband
from hal.record import Array, Bool, Complex, Int

__all__ = ["add_noise", "compressed", "frames", "from_ports", "noise_covariance", "noise_root", "ports", "subcarriers"]


def frames(
    emission: Emission,
    paths: Paths,
    transmit: AntennaArray,
    receive: AntennaArray,
    row: Int[Array, " event"],
    response: Complex[Array, "row 1 element chain"],
    limit_w: float,
    leakage: float,
) -> tuple[Complex[Array, "event chain sample"], float]:
    """Frames of one emission at the receive chains' outputs without noise (sqrt(W)), and a bound on the power left out (W).

    An event hears the paths that leave from its source. ``row`` and ``response`` are the receive half's (the emission brings its own),
    at the emission's one frequency. A path is left out of an event where its mean power a sample stays below ``limit_w`` (W) in every chain;
    the bound is the power they would have if all of them added up in phase, the largest over events and chains.
    ``leakage`` is the amplitude from each transmit chain's port to each receive chain's, undelayed and in phase. Before the paths' first
    instant the first gain holds. Transport: ``medium.narrowband``. Raises Misuse for an emission partly from the site and partly not.
    """
    drive = emission.drive
    assert drive.samples is not None
    t_ns, source = np.asarray(drive.t_ns), np.asarray(emission.source)
    block = np.maximum(np.searchsorted(paths.t_ns, t_ns, side="right") - 1, 0)
    start_s = (t_ns - paths.t_ns[block]) * 1e-9
    root_w = np.sqrt(drive.power_w[:, 0])
    digital = np.ascontiguousarray(drive.digital, dtype=np.complex128)
    here = source == SITE
    if here.any() and not here.all():
        raise Misuse("emission.source: events from the site and from others must come as separate emissions")
    if here.any():
        sent = beam_gains(paths, transmit, emission.response, drive.frequency_hz, "departure")[:, :, 0]
    else:
        rows, _, _, chains = emission.response.shape
        sent = np.broadcast_to(emission.response[:, :1, 0], (rows, len(paths.delay_s), chains))
    got = beam_gains(paths, receive, response, drive.frequency_hz, "arrival")[:, :, 0]
    departure, arrival, left_w = _weights(
        np.ascontiguousarray(sent),
        np.asarray(emission.row),
        digital,
        root_w,
        np.equal.outer(source, paths.source),
        np.ascontiguousarray(got),
        row,
        np.ascontiguousarray(paths.gain, dtype=np.complex128),
        block,
        limit_w,
    )
    out = narrowband(paths, drive.samples, drive.sample_rate_hz, drive.roll_off, departure, arrival, block, start_s)
    if leakage and here.any():
        samples = np.ascontiguousarray(drive.samples, dtype=np.complex64)
        _add_leakage(out.view(np.float32), samples.view(np.float32), digital, leakage * root_w)
    return out, float(np.max(left_w, initial=0.0))


@njit(cache=True)
def _weights(
    sent: Any,
    sent_row: Any,
    digital: Any,
    root_w: Any,
    own: Any,
    got: Any,
    got_row: Any,
    gain: Any,
    block: Any,
    limit_w: float,
) -> Any:  # pragma: no cover - compiled
    # departure amplitude of each stream and arrival amplitude of each chain; zero where the path is not heard
    events, paths = own.shape
    chains_sent, streams = digital.shape[1], digital.shape[2]
    chains = got.shape[2]
    departure = np.zeros((events, paths, streams), dtype=np.complex128)
    arrival = np.zeros((events, paths, chains), dtype=np.complex128)
    left_w = np.zeros(events)
    left = np.empty(chains)
    for e in range(events):
        left[:] = 0.0
        for p in range(paths):
            if not own[e, p]:
                continue
            power = 0.0
            for s in range(streams):
                field = 0j
                for c in range(chains_sent):
                    field += sent[sent_row[e], p, c] * digital[e, c, s]
                field *= root_w[e]
                departure[e, p, s] = field
                power += field.real * field.real + field.imag * field.imag
            g = gain[block[e], p]
            power *= g.real * g.real + g.imag * g.imag
            most = 0.0
            for c in range(chains):
                a = got[got_row[e], p, c]
                arrival[e, p, c] = a
                most = max(most, a.real * a.real + a.imag * a.imag)
            if power * most < limit_w:
                departure[e, p] = 0.0
                for c in range(chains):
                    a = arrival[e, p, c]
                    left[c] += np.sqrt(power * (a.real * a.real + a.imag * a.imag))
        for c in range(chains):
            left_w[e] = max(left_w[e], left[c] * left[c])
    return departure, arrival, left_w


@njit(cache=True)
def _add_leakage(out: Any, samples: Any, digital: Any, weight: Any) -> None:  # pragma: no cover - compiled
    # every transmit chain into every receive chain, in phase; no delay, so pulse and matched filter leave the samples as they are
    events, chains, count = out.shape[0], out.shape[1], out.shape[2] // 2
    line = np.empty(2 * count, dtype=np.float32)
    for e in range(events):
        for s in range(samples.shape[1]):
            port = 0j
            for c in range(digital.shape[1]):
                port += digital[e, c, s]
            wr, wi = port.real * weight[e], port.imag * weight[e]
            for q in range(count):
                line[2 * q] = wr * samples[e, s, 2 * q] - wi * samples[e, s, 2 * q + 1]
                line[2 * q + 1] = wr * samples[e, s, 2 * q + 1] + wi * samples[e, s, 2 * q]
            for c in range(chains):
                for q in range(2 * count):
                    out[e, c, q] += line[q]


def subcarriers(
    emission: Emission,
    paths: Paths,
    receive: AntennaArray,
    row: Int[Array, " event"],
    response: Complex[Array, "row subcarrier element chain"],
) -> Complex[Array, "event chain subcarrier"]:
    """Wide-band events of single antennas at the receive chains' outputs without noise (sqrt(W)), a sample a subcarrier.

    ``y[c, m] = h[m, c] sqrt(power[m]) sent[m] sum_s digital[s]``: streams are unit symbols added up. An event hears the paths that leave
    from its source; Doppler within a block is taken as removed; before the paths' first instant the first gain holds.
    Transport: ``medium.wideband``. Raises Misuse for an emission of more than one antenna.
    """
    drive, source = emission.drive, np.asarray(emission.source)
    if emission.response.shape[2:] != (1, 1):
        raise Misuse(
            f"emission.response: has {emission.response.shape[2]} elements and {emission.response.shape[3]} chains; wide-band events of "
            "others are heard from single antennas only; the site's own are marked source = SITE"
        )
    block = np.maximum(np.searchsorted(paths.t_ns, drive.t_ns, side="right") - 1, 0)
    own = np.equal.outer(source, paths.source)
    wanted = np.equal.outer(np.arange(len(response)), row) @ own
    gains = beam_gains(paths, receive, response, drive.frequency_hz, "arrival", wanted=wanted)
    channel = wideband(paths, gains, drive.frequency_hz, row, block, source, "arrival")
    digital = np.ascontiguousarray(drive.digital[:, 0, :], dtype=np.complex128)
    sent = np.ascontiguousarray(emission.response[:, :, 0, 0], dtype=np.complex128)
    out: Array = _symbols(channel, sent, np.asarray(emission.row), digital, np.sqrt(drive.power_w))
    return out


@njit(cache=True)
def _symbols(channel: Any, sent: Any, sent_row: Any, digital: Any, root_w: Any) -> Any:  # pragma: no cover - compiled
    events, subcarriers_, chains = channel.shape
    out = np.empty((events, chains, subcarriers_), dtype=np.complex128)
    for e in range(events):
        symbol = 0j
        for s in range(digital.shape[1]):
            symbol += digital[e, s]
        for m in range(subcarriers_):
            weight = sent[sent_row[e], m] * symbol * root_w[e, m]
            for c in range(chains):
                out[e, c, m] = channel[e, m, c] * weight
    return out


def noise_root(
    wired: Bool[Array, "chain element"], response: Complex[Array, "*row subcarrier element chain"]
) -> Complex[Array, "*row subcarrier chain chain"]:
    """The symmetric root of ``noise_covariance``, which is continuous and stands singular ones (two chains, one beam)."""
    covariance = noise_covariance(wired, response)
    return covariance if covariance.strides[0] == 0 else roots(covariance)


def noise_covariance(
    wired: Bool[Array, "chain element"], response: Complex[Array, "*row subcarrier element chain"]
) -> Complex[Array, "*row subcarrier chain chain"]:
    """Covariance of the chains' noise in units of one chain's noise power.

    Noise comes in at the elements and is combined with the signal, ``response^T response*``, as in the papers' ``W^H W``; what
    attenuated elements and insertion loss do not bring, a termination of the chain's own does, so the diagonal is 1 and chains that share
    no element are independent.
    """
    *whole, _, chains = response.shape
    if chains == 1 or not np.any(np.sum(wired, axis=0) > 1):
        return np.broadcast_to(np.eye(chains, dtype=np.complex128), (*whole, chains, chains))
    covariance = np.asarray(np.swapaxes(response, -1, -2) @ response.conj())
    each = np.arange(chains)
    covariance[..., each, each] = 1.0
    return covariance


def add_noise(
    samples: Complex[Array, "event chain sample"],
    root: Complex[Array, "row subcarrier chain chain"],
    row: Int[Array, " event"],
    normals: Complex[Array, "event chain sample"],
    noise_w: float,
) -> Complex[Array, "event chain sample"]:
    """``samples + sqrt(noise_w) root normals`` in the samples' precision; a root of one subcarrier serves all samples."""
    out = np.array(samples, order="C")
    normals = np.ascontiguousarray(normals, dtype=np.complex128)
    parts = out.view(out.real.dtype), np.ascontiguousarray(root * np.sqrt(noise_w)), row, normals.view(np.float64)
    _add_noise(*parts)
    return out


@njit(cache=True)
def _add_noise(out: Any, root: Any, row: Any, normals: Any) -> None:  # pragma: no cover - compiled
    # complex numbers as interleaved reals, which vectorise where complex ones do not
    events, chains, count = normals.shape[0], normals.shape[1], normals.shape[2] // 2
    flat = root.shape[1] == 1
    line = np.empty(2 * count)
    for e in range(events):
        for c in range(chains):
            line[:] = 0
            for d in range(chains):
                if flat:
                    wr, wi = root[row[e], 0, c, d].real, root[row[e], 0, c, d].imag
                    for q in range(count):
                        line[2 * q] += wr * normals[e, d, 2 * q] - wi * normals[e, d, 2 * q + 1]
                        line[2 * q + 1] += wr * normals[e, d, 2 * q + 1] + wi * normals[e, d, 2 * q]
                else:
                    for q in range(count):
                        wr, wi = root[row[e], q, c, d].real, root[row[e], q, c, d].imag
                        line[2 * q] += wr * normals[e, d, 2 * q] - wi * normals[e, d, 2 * q + 1]
                        line[2 * q + 1] += wr * normals[e, d, 2 * q + 1] + wi * normals[e, d, 2 * q]
            for q in range(2 * count):
                out[e, c, q] += line[q]


def compressed(drive: Drive, saturation_w: float, curve: Callable[[Array], Array] | None = None) -> Drive:
    """Frames behind each chain's amplifier: Rapp, smoothness 2, limit ``saturation_w`` of a chain, or another ``curve`` of port signals.

    Sample by sample, so what grows back outside the sampled band is folded into it; each chain becomes a stream of its own, no longer of unit mean
    power. Wide-band events are ``distortion.sent_block``'s.
    """
    limit = float(np.sqrt(saturation_w))
    return from_ports(drive, rapp(ports(drive), limit) if curve is None else curve(ports(drive)))


def ports(drive: Drive) -> Complex[Array, "event chain sample"]:
    """Frames as each transmit chain's port carries them (sqrt(W))."""
    assert drive.samples is not None
    digital = np.ascontiguousarray(drive.digital, dtype=np.complex128)
    out: Array = _ports(np.ascontiguousarray(drive.samples, dtype=np.complex128), digital, np.sqrt(drive.power_w[:, 0]))
    return out


def from_ports(drive: Drive, port: Complex[Array, "event chain sample"]) -> Drive:
    """The drive whose ports carry ``port`` (sqrt(W)): every chain a stream of its own, the power as it was."""
    root_w = np.sqrt(drive.power_w[:, 0])
    over = np.where(root_w > 0, 1 / np.where(root_w > 0, root_w, 1.0), 0.0)
    events, chains, _ = port.shape
    alone = np.broadcast_to(np.eye(chains, dtype=np.complex128), (events, chains, chains))
    return replace(drive, digital=alone, samples=port * over[:, None, None])


@njit(cache=True)
def _ports(samples: Any, digital: Any, root_w: Any) -> Any:  # pragma: no cover - compiled
    events, streams, count = samples.shape
    chains = digital.shape[1]
    out = np.zeros((events, chains, count), dtype=np.complex128)
    for e in range(events):
        for c in range(chains):
            for s in range(streams):
                weight = digital[e, c, s] * root_w[e]
                for q in range(count):
                    out[e, c, q] += weight * samples[e, s, q]
    return out
