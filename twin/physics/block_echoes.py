"""What echoes of known wide-band blocks tell of targets: patterns over the band, Fisher information, and the maximum-likelihood fit around predictions.

One block is one event: ``y[c, m] = sum_k alpha_k s_m(u_k) b_cm(u_k) exp(-j 4 pi (f_m - f_c) (r_k - v_k t) / c) + leak + n`` with
``s = sqrt(p) a_t^T r`` what the sending beam brings, ``b`` the outputs of the receive combiner, and a reflection ``alpha_k`` that is one unknown complex
number a target and block: papers/000 eq (9) through the actual combiner, the reflection's phase and size not known but the same over the band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, AntennaArray, cis, steering, steering_gradient
from hal.planar import Nodes, nodes_of, patterns_at
from hal.record import Array, Bool, Complex, Float, record
from twin.physics._block_kernels import scan, terms

__all__ = ["Block", "Feed", "Fit", "Geometry", "bounds", "feed", "fit", "patterns", "relate", "signatures", "whitened"]

_SAME = 1e-10  # of the largest eigenvalue of unit columns' Gram matrix, below which a combination of them says nothing
_ALIGNED = 1e-12  # part of a slope's power, off everything with an amplitude of its own, below which it tells nothing
_MISFIT = 5.0  # standard deviations of the residual's power beyond which it scales the covariance


@record
class Feed:
    """What drives an array, or is driven by it, over the band; made by ``feed``."""

    array: AntennaArray
    frequency_hz: Float[Array, " subcarrier"]
    response: Complex[Array, "frequency element chain"]  # one frequency where it is the same at all
    real: Float[Array, "1 frequency entry"]
    imag: Float[Array, "1 frequency entry"]
    nodes: Nodes | None  # of a planar grid


@record
class Block:
    """One event: what was sent, through what it was heard, and the samples."""

    sent: Feed  # of the sending half, streams added up: one chain
    root_w: Float[Array, " subcarrier"]  # square root of the power on each subcarrier
    heard: Feed  # whitened receive response: its patterns are the samples of a plane wave
    leak: Complex[Array, "shape sample"]  # what else may be in the samples, with unknown amplitudes
    samples: Complex[Array, " sample"]  # whitened, subcarrier by subcarrier: [subcarrier row] in one line
    noise_w: float  # of one whitened sample
    after_s: float  # from the reference instant to the block
    ahead: Float[
        Array, "target 3"
    ]  # uy, uz and range (m) less those at the reference instant, ``-velocity after`` left out


@record
class Geometry:
    """Both halves' arrays, how directions in one are directions in the other, and the band."""

    transmit: AntennaArray
    receive: AntennaArray
    turn: Float[Array, "3 3"]  # receive frame to transmit frame
    together: bool  # the halves have one frame and one phase centre
    frequency_hz: Float[Array, " subcarrier"]
    carrier_hz: float


@record
class Fit:
    """Estimates at the reference instant, and what there was of each target."""

    place: Float[Array, "target 4"]  # uy, uz, range (m), closing speed (m/s)
    covariance: Float[Array, "target 4 4"]  # inverse Fisher information, all targets together, times the misfit
    snr: Float[Array, " target"]  # integrated: fitted power over the variance of its estimate, misfit included
    found: Bool[Array, " target"]  # the others were left out of the fit
    misfit: float  # power left over what noise has; 1 expected


def relate(transmit: AntennaArray, receive: AntennaArray, frequency_hz: Array, carrier_hz: float) -> Geometry:
    """The geometry of two halves, and the band (Hz)."""
    same = np.array_equal(transmit.rotation, receive.rotation) and np.array_equal(transmit.origin_m, receive.origin_m)
    return Geometry(
        transmit=transmit,
        receive=receive,
        turn=transmit.rotation.T @ receive.rotation,
        together=same,
        frequency_hz=np.asarray(frequency_hz, dtype=np.float64),
        carrier_hz=carrier_hz,
    )


def feed(array: AntennaArray, response: Complex[Array, "frequency element chain"], frequency_hz: Array) -> Feed:
    """A response over a band (Hz), ready for ``patterns``; it may have one frequency for all."""
    frequency_hz = np.asarray(frequency_hz, dtype=np.float64)
    flat = bool(np.all(response == response[:1]))
    held = np.ascontiguousarray(response[:1] if flat else response)
    wide = held.reshape(1, len(held), -1)
    return Feed(
        array=array,
        frequency_hz=frequency_hz,
        response=held,
        real=np.ascontiguousarray(wide.real),
        imag=np.ascontiguousarray(wide.imag),
        nodes=nodes_of(array, frequency_hz, flat) if array.columns else None,
    )


def patterns(given: Feed, cosine: Float[Array, "target 2"]) -> Complex[Array, "target 3 subcarrier chain"]:
    """``a(u, f)^T response`` and its slopes along uy and uz, without the elements' own pattern."""
    at, f = given.nodes, given.frequency_hz
    if at is None:
        u = np.column_stack([np.sqrt(np.maximum(1 - np.sum(cosine**2, axis=1), 0.0)), cosine])[:, None]
        waves = np.stack([steering(given.array, u, f), *steering_gradient(given.array, u, f)], axis=1)
        return np.asarray(waves[:, :, :, None, :] @ given.response)[:, :, :, 0]
    out = np.zeros((3, len(cosine), len(f), given.response.shape[2]), dtype=np.complex128)
    patterns_at(
        given.real,
        given.imag,
        at.wave,
        at.spread,
        at.column_m,
        at.row_m,
        at.columns,
        at.rows,
        np.zeros(len(cosine), dtype=np.int64),
        np.ascontiguousarray(cosine, dtype=np.float64),
        out,
    )
    return np.swapaxes(out, 0, 1)


def whitened(
    response: Complex[Array, "subcarrier element chain"], root: Complex[Array, "subcarrier chain chain"]
) -> tuple[Complex[Array, "subcarrier element row"], Complex[Array, "subcarrier row chain"]]:
    """A receive response behind the whitener of its chains' noise, and the whitener; ``root`` from ``hal.reception.noise_root``.

    Combinations of chains 60 dB below the strongest carry nothing but rounding and are left out.
    """
    value, vector = np.linalg.eigh(root @ np.conj(np.swapaxes(root, 1, 2)))
    strong = value > 1e-6 * value[:, -1:]
    most = int(strong.sum(axis=1).max())
    scale = np.where(strong, 1 / np.sqrt(np.where(strong, value, 1.0)), 0.0)
    white = (np.swapaxes(vector.conj(), 1, 2) * scale[:, :, None])[:, -most:]
    return response @ np.swapaxes(white, 1, 2), white


def signatures(
    block: Block, place: Float[Array, "target 4"], geometry: Geometry, delayed: bool = True
) -> tuple[Complex[Array, "target sample"], Complex[Array, "target 4 sample"]]:
    """Samples of each target at unit reflection, and their slopes along uy, uz, range and speed; ``delayed`` False leaves the delay's ramp out."""
    (sent, got), at = _lit(block, place, geometry)
    sent, f = sent * block.root_w, geometry.frequency_hz
    turn = -4j * np.pi * (f - geometry.carrier_hz) / LIGHT_MPS
    if delayed:
        sent = sent * cis(turn.imag * at[:, None])[:, None]
    whole = sent[:, 0, :, None] * got[:, 0]
    slope = np.stack(
        [
            sent[:, 1, :, None] * got[:, 0] + sent[:, 0, :, None] * got[:, 1],
            sent[:, 2, :, None] * got[:, 0] + sent[:, 0, :, None] * got[:, 2],
            turn[:, None] * whole,
            -block.after_s * turn[:, None] * whole,
        ],
        axis=1,
    )
    return whole.reshape(len(at), -1), slope.reshape(len(at), 4, -1)


def _lit(block: Block, place: Float[Array, "target 4"], geometry: Geometry) -> tuple[tuple[Array, Array], Array]:
    """Patterns with their slopes along the receive array's cosines, sent ``[target 3 subcarrier]`` and heard ``[.. row]``; and ranges (m)."""
    at = _at(block, place)
    out, lean = _away(at, geometry)
    sent = patterns(block.sent, out)[..., 0]
    if lean is not None:
        sent[:, 1:] = np.swapaxes(lean, 1, 2) @ sent[:, 1:]
    return (sent, patterns(block.heard, at[:, :2])), at[:, 2]


def _at(block: Block, place: Float[Array, "target 4"]) -> Float[Array, "target 3"]:
    """uy, uz and range when the block was heard."""
    at = place[:, :3] + block.ahead
    at[:, 2] -= place[:, 3] * block.after_s
    return at


def bounds(
    blocks: Sequence[Block],
    place: Float[Array, "target 4"],
    reflection: Complex[Array, "block target"],
    geometry: Geometry,
) -> tuple[Float[Array, "target 4 4"], Float[Array, " target"]]:
    """Cramer-Rao bound of each target's (uy, uz, range m, closing speed m/s) over all blocks, everybody's reflections unknown; and the integrated SNR it has.

    ``J = sum_b 2 / noise Re D^H P D``: D the slopes times the reflections, P the projection off all signatures and leaks. A parameter that nothing is known of
    has infinite variance. The SNR is that of a target's own amplitude beside the others' (ratio).
    """
    total = np.zeros((4 * len(place),) * 2)
    snr, straight = np.zeros(len(place)), np.zeros(4 * len(place))
    if not len(place):
        return np.zeros((0, 4, 4)), snr
    for block, alpha in zip(blocks, reflection, strict=True):
        whole, slope = signatures(block, place, geometry)
        spread, bent = _apart(whole, slope, block.leak)
        straight += _power(slope, alpha, block.noise_w)
        bent = (alpha[:, None, None] * bent).reshape(len(total), -1)
        total += 2 / block.noise_w * np.real(bent.conj() @ bent.T)
        snr += np.abs(alpha) ** 2 / (block.noise_w * spread)
    return _inverse(total, straight), snr


def fit(
    blocks: Sequence[Block],
    place: Float[Array, "target 4"],
    span_m: Float[Array, " target"],
    geometry: Geometry,
    detect: float,
    steps: int = 8,
) -> Fit:
    """Maximum likelihood around predicted places, all targets jointly, amplitudes of every block their own.

    Ranges are looked for within ``span_m`` of the prediction on a grid, strongest target first; then Gauss-Newton over all (variable projection). Targets
    whose SNR stays under ``detect`` (ratio) are left out and the rest is fitted again. Where more power is left than noise has, by five of its standard
    deviations, covariance and SNR are those of noise that strong.
    """
    place = np.array(place, dtype=np.float64)
    fitted = np.arange(len(place))
    if len(fitted):
        place[:, 2] = _ranged(blocks, place, span_m, geometry)
    covariance = np.full((len(place), 4, 4), np.inf)
    snr, misfit, first = np.zeros(len(place)), 1.0, True  # a look at who is there, then all the way
    while len(fitted):
        some = [_of(block, fitted) for block in blocks]
        at, inverse, part, misfit = _climbed(some, place[fitted], geometry, 1 if first else steps)
        weak = part < detect / 10 if first else part < detect * misfit
        if weak.any():
            fitted = fitted[~weak]
        elif first:
            first = False
        else:
            place[fitted], snr[fitted] = at, part / misfit
            covariance[fitted] = inverse * misfit
            break
    found = np.isin(np.arange(len(place)), fitted)
    return Fit(place=place, covariance=covariance, snr=snr, found=found, misfit=misfit)


def _climbed(
    blocks: Sequence[Block], place: Float[Array, "target 4"], geometry: Geometry, steps: int
) -> tuple[Array, Array, Array, float]:
    """Gauss-Newton: places, covariances there, SNRs and the misfit."""
    f = geometry.frequency_hz
    cell_m = LIGHT_MPS / (2 * max(np.ptp(f), 1.0))
    long_s = max(abs(block.after_s) for block in blocks)
    reach = 0.2 * np.array([*_widths(geometry), cell_m, cell_m / max(long_s, 1e-9)])
    count, wave = 4 * len(place), -4 * np.pi / LIGHT_MPS * (f - geometry.carrier_hz)
    for step in range(steps):
        sums = np.zeros((count, count)), np.zeros(count), np.zeros(count), np.zeros(len(place))
        total, pull, straight, snr = sums
        left_w, noise_w = 0.0, 0.0
        for block in blocks:
            out, at = _lit(block, place, geometry)
            left_w += terms(
                *out, block.root_w, wave, at, block.after_s, block.leak, block.samples, block.noise_w, *sums
            )
            noise_w += block.noise_w * (len(block.samples) - len(place) - len(block.leak))
        free = noise_w / blocks[0].noise_w - count / 2
        misfit = left_w / max(noise_w - blocks[0].noise_w * count / 2, 1e-300)
        dark, scale = _scaled(total, straight)
        scaled = np.where(dark[:, None] | dark, 0.0, total / np.outer(scale, scale)) + np.diag(dark + 1e-9)
        move = np.linalg.solve(scaled, np.where(dark, 0.0, pull / scale)) / scale
        if step == steps - 1 or move @ pull < 1e-2:  # a step of 0.1 standard deviations is the last
            break
        place = place + np.clip(move.reshape(-1, 4), -reach, reach)
        place[:, :2] = np.clip(place[:, :2], -0.999, 0.999)
    misfit = misfit if misfit > 1 + _MISFIT / np.sqrt(max(free, 1.0)) else 1.0
    return place, _inverse(total, straight), snr, misfit


def _ranged(
    blocks: Sequence[Block], place: Float[Array, "target 4"], span_m: Float[Array, " target"], geometry: Geometry
) -> Float[Array, " target"]:
    """Ranges near the predicted ones: in the order of what each explains alone, beside those found before; then each once more beside all others."""
    f = geometry.frequency_hz
    step_m = LIGHT_MPS / (2 * max(np.ptp(f), 1.0)) / 5
    offset_m = [step_m * np.arange(-int(span / step_m), int(span / step_m) + 1) for span in span_m]
    wave = -4 * np.pi / LIGHT_MPS * (f - geometry.carrier_hz)
    there = [signatures(block, place, geometry)[0] for block in blocks]
    now = [whole.copy() for whole in there]
    found = place[:, 2].copy()

    def scanned(k: int, beside: list[int]) -> tuple[float, int]:
        power = np.zeros(len(offset_m[k]))
        for block, whole, held in zip(blocks, there, now, strict=True):
            scan(
                whole[k],
                wave,
                offset_m[k],
                np.concatenate([block.leak, held[beside]]),
                block.samples,
                block.noise_w,
                power,
            )
        best = int(np.argmax(power))
        return float(power[best]), best

    order: list[int] = []
    alone = [scanned(k, [])[0] for k in range(len(place))]
    for turn in range(2 if len(place) > 1 else 1):
        for k in np.argsort(alone)[::-1].tolist():
            _, at = scanned(k, [other for other in order if other != k])
            found[k] = place[k, 2] + offset_m[k][at]
            for whole, held in zip(there, now, strict=True):
                held[k] = (whole[k].reshape(len(f), -1) * cis(wave * offset_m[k][at])[:, None]).reshape(-1)
            order += [] if turn else [k]
    return found


def _apart(
    whole: Complex[Array, "target sample"],
    slope: Complex[Array, "target 4 sample"],
    leak: Complex[Array, "shape sample"],
) -> tuple[Float[Array, " target"], Complex[Array, "target 4 sample"]]:
    """Variance of each target's amplitude for unit noise, and the slopes off everything that has an amplitude of its own."""
    columns = np.concatenate([whole, leak])
    size = np.maximum(np.sqrt(np.sum(columns.real**2 + columns.imag**2, axis=1)), 1e-150)
    columns = columns / size[:, None]
    mirrored = columns.conj()
    value, vector = np.linalg.eigh(mirrored @ columns.T)
    kept = value > _SAME * max(value[-1], 1e-300)
    back = (vector[:, kept] / value[kept]) @ vector[:, kept].conj().T
    spread = np.maximum(np.real(np.diagonal(back))[: len(whole)] / size[: len(whole)] ** 2, 1e-300)
    flat = slope.reshape(-1, columns.shape[1])
    return spread, (flat - (flat @ mirrored.T) @ back.T @ columns).reshape(slope.shape)


def _power(slope: Complex[Array, "target 4 sample"], alpha: Complex[Array, " target"], noise_w: float) -> Array:
    """Information of each parameter if nothing else were unknown."""
    return np.asarray(2 / noise_w * (np.abs(alpha) ** 2)[:, None] * np.sum(np.abs(slope) ** 2, axis=2)).reshape(-1)


def _scaled(total: Float[Array, "parameter parameter"], straight: Float[Array, " parameter"]) -> tuple[Array, Array]:
    """Parameters that nothing is known of, since what they change an amplitude changes as well; and the scale of the others."""
    own = np.diagonal(total)
    dark = ~(own > _ALIGNED * straight)
    return dark, np.sqrt(np.where(dark, 1.0, own))


def _inverse(
    total: Float[Array, "parameter parameter"], straight: Float[Array, " parameter"]
) -> Float[Array, "target 4 4"]:
    """Each target's own block of the inverse; infinite on axes that nothing is known of."""
    dark, scale = _scaled(total, straight)
    scaled = np.where(dark[:, None] | dark, np.eye(len(scale)), total / np.outer(scale, scale))
    value, vector = np.linalg.eigh(scaled)
    value = np.maximum(value, 1e-13)  # what cannot be told apart is known a million times worse than alone
    whole = (vector / value) @ vector.T / np.outer(scale, scale)
    whole[dark, dark] = np.inf
    targets = np.arange(len(scale) // 4)
    return np.asarray(whole.reshape(len(targets), 4, -1, 4)[targets, :, targets])


def _away(
    at: Float[Array, "target 3"], geometry: Geometry
) -> tuple[Float[Array, "target 2"], Float[Array, "target 2 2"] | None]:
    """Cosines at the transmit array, and their slopes along those at the receive array (to first order in the arrays' distance over range)."""
    if geometry.together:
        return at[:, :2], None
    turn = geometry.turn
    ux = np.sqrt(np.maximum(1 - np.sum(at[:, :2] ** 2, axis=1), 1e-6))
    u = np.column_stack([ux, at[:, :2]])
    between = geometry.receive.rotation.T @ (geometry.transmit.origin_m - geometry.receive.origin_m)
    point = u * np.maximum(at[:, 2:], 1e-3) - between
    sent = point / np.linalg.norm(point, axis=1, keepdims=True) @ turn.T
    lean = turn[1:, 1:] - turn[1:, :1] * (at[:, None, :2] / ux[:, None, None])
    return sent[:, 1:], lean


def _widths(geometry: Geometry) -> Float[Array, " axis"]:
    spread_m = np.sqrt(12 * np.var(geometry.receive.position_m[:, 1:], axis=0))
    return np.asarray(np.minimum(LIGHT_MPS / (geometry.carrier_hz * np.maximum(spread_m, 1e-9)), 1.0))


def _of(block: Block, some: Any) -> Block:
    """The block, with some of the targets."""
    return replace(block, ahead=block.ahead[some])
