"""What echoes of known blocks tell: information against derivatives by differences and against papers/000's, and a fit that reaches it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import Ula, Upa, rotation_from, steering
from hal.network import Network, response
from hal.reception import noise_root
from twin.physics.block_echoes import Block, bounds, feed, fit, patterns, relate, signatures, whitened
from twin.physics.fisher import crb, echo_gram, illumination, information, total_information
from twin.planning._rows import unit

C = 299_792_458.0
CARRIER = 100e9
F = CARRIER + 250e6 * (np.arange(16) - 7.5)
NOISE_W = 1e-3


def array(turned: bool = False, columns: int = 8):
    rotation = rotation_from(0.3, 0.1) if turned else rotation_from(0.0, 0.0)
    return Upa(columns, 8).build(CARRIER, np.array([0.0, 0.4, 0.1]) * turned, rotation)


def beams(rng, half, at, chains, spread, lines=None):
    """Settings steered about ``at``, and the response they make."""
    network = Network(chains=chains, delay_lines=lines).build(half.columns, half.rows)
    towards = unit(np.asarray(at) + spread * rng.uniform(-1, 1, (chains, 2)))
    phase = -np.angle(steering(half, towards, np.float64(CARRIER)))
    delay = rng.uniform(0, 50e-12, (chains, network.lines))
    return network, response(network, delay, phase, np.ones_like(phase), F)


def scene(seed=0, targets=2, blocks=3, transmit=None, receive=None, leak=False, after=True):
    """Blocks with noise-free samples, true places and reflections."""
    rng = np.random.default_rng(seed)
    transmit, receive = transmit or array(), receive or array()
    geometry = relate(transmit, receive, F, CARRIER)
    place = np.column_stack(
        [
            rng.uniform(-0.1, 0.1, (targets, 2)),
            30 + 3.1 * np.arange(targets) + rng.uniform(0, 0.2, targets),
            rng.uniform(-5, 5, targets),
        ]
    )
    made = []
    alpha = rng.normal(size=(blocks, targets)) + 1j * rng.normal(size=(blocks, targets))
    for b in range(blocks):
        _, sent = beams(rng, transmit, [0.0, 0.0], 1, 0.1, (2, 2))
        network, heard = beams(rng, receive, place[b % targets, :2], 4, 0.1)
        heard, white = whitened(heard[:1], noise_root(network.wired, heard[:1]))
        root_w = rng.uniform(0.5, 1.5, len(F))
        shapes = np.broadcast_to(white, (len(F), *white.shape[1:]))
        leaks = (np.moveaxis(shapes, 2, 0) * root_w[:, None]).reshape(4, -1) if leak else np.zeros((0, len(F) * 4))
        block = Block(
            sent=feed(transmit, sent.sum(axis=-1)[:, :, None], F),
            root_w=root_w,
            heard=feed(receive, heard, F),
            leak=leaks.astype(complex),
            samples=np.zeros(len(F) * 4, complex),
            noise_w=NOISE_W,
            after_s=1e-3 * (b - 0.7) * after,
            ahead=1e-3 * rng.uniform(-1, 1, (targets, 3)),
        )
        whole, _ = signatures(block, place, geometry)
        clean = alpha[b] @ whole + (leaks.T @ (3 * rng.normal(size=4)) if leak else 0.0)
        made.append(replace(block, samples=clean))
    return made, place, alpha, geometry


@pytest.mark.parametrize("built", [Upa(8, 8), Ula(8)])
def test_patterns_are_the_plane_waves_and_their_slopes_are_differences(built):
    half = built.build(CARRIER, np.zeros(3), np.eye(3))
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(len(F), len(half.position_m), 3)) + 1j
    cosine = rng.uniform(-0.3, 0.3, (4, 2)) * [1.0, half.rows > 1]
    for given in (weights, weights[:1]):
        held = feed(half, given, F)
        found = patterns(held, cosine)
        whole = np.broadcast_to(given, weights.shape)
        for k in range(4):
            for m, f in enumerate(F):
                wave = np.exp(2j * np.pi * f / C * (half.position_m[:, 1:] @ cosine[k]))
                np.testing.assert_allclose(found[k, 0, m], wave @ whole[m], rtol=1e-9, atol=1e-9)
        for axis in range(2):
            step = np.eye(2)[axis] * 1e-6
            slope = (patterns(held, cosine + step) - patterns(held, cosine - step))[:, 0] / 2e-6
            np.testing.assert_allclose(found[:, 1 + axis], slope, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_slopes_are_differences_whatever_frames_the_halves_have(turned):
    """Exactly where both halves share a place; with half a metre between them the transmit side is right to first order over 30 m."""
    blocks, place, _, geometry = scene(transmit=array(turned))
    whole, slope = signatures(blocks[0], place, geometry)
    for axis, step in enumerate((1e-6, 1e-6, 1e-7, 1e-4)):
        move = np.eye(4)[axis] * step
        up, down = (signatures(blocks[0], place + s * move, geometry)[0] for s in (1, -1))
        size = np.abs(slope[:, axis]).max()
        np.testing.assert_allclose(slope[:, axis], (up - down) / (2 * step), atol=(3e-2 if turned else 1e-4) * size)
    assert np.abs(whole).max() > 0


@pytest.mark.parametrize("leak", [False, True])
def test_the_bound_is_that_of_the_whole_problem_by_brute_force(leak):
    """All parameters in one real Jacobian by differences: places, both parts of every reflection, and of every leak."""
    blocks, place, alpha, geometry = scene(leak=leak)
    targets, parts = len(place), []

    def played(flat):
        at = flat[: 4 * targets].reshape(targets, 4)
        rest = flat[4 * targets :].reshape(len(blocks), -1)
        out = []
        for block, own in zip(blocks, rest, strict=True):
            amplitude = own[:targets] + 1j * own[targets : 2 * targets]
            out.append(amplitude @ signatures(block, at, geometry)[0])
            if leak:
                out[-1] = out[-1] + (own[2 * targets : 2 * targets + 4] + 1j * own[2 * targets + 4 :]) @ block.leak
        return np.concatenate(out)

    for b in range(len(blocks)):
        parts += [alpha[b].real, alpha[b].imag] + ([np.zeros(8)] if leak else [])
    flat = np.concatenate([place.ravel(), *parts])
    steps = np.concatenate([np.tile([1e-6, 1e-6, 1e-6, 1e-3], targets), np.full(len(flat) - 4 * targets, 1e-4)])
    jacobian = np.stack(
        [(played(flat + e) - played(flat - e)) / (2 * s) for e, s in zip(np.diag(steps), steps, strict=True)]
    )
    whole = 2 / NOISE_W * np.real(jacobian.conj() @ jacobian.T)
    scale = np.sqrt(np.diagonal(whole))
    dense = np.linalg.inv(whole / np.outer(scale, scale)) / np.outer(scale, scale)
    covariance, snr = bounds(blocks, place, alpha, geometry)
    for k in range(targets):
        own = slice(4 * k, 4 * k + 4)
        np.testing.assert_allclose(covariance[k], dense[own, own], rtol=1e-4, atol=1e-7 * np.abs(dense[own, own]).max())
    assert (snr > 0).all()


def test_one_subcarrier_at_a_time_is_the_bound_of_papers_000_with_reflections_unknown():
    """Each subcarrier a block of its own has a reflection of its own: eq (10) behind this combiner, alpha given up."""
    blocks, place, alpha, geometry = scene(targets=1, blocks=1, after=False)
    (whole,) = blocks
    single = []
    for m, f in enumerate(F):
        heard, sent = whole.heard.response, whole.sent.response
        single.append(
            replace(
                whole,
                sent=feed(whole.sent.array, sent[min(m, len(sent) - 1)][None], np.array([f])),
                heard=feed(whole.heard.array, heard[min(m, len(heard) - 1)][None], np.array([f])),
                root_w=whole.root_w[m : m + 1],
                leak=np.zeros((0, 4), complex),
                samples=np.zeros(4, complex),
                ahead=np.zeros((1, 3)),
            )
        )
    covariance = np.zeros((2, 2))
    total = np.zeros((2, 2))
    for m, block in enumerate(single):
        one = relate(geometry.transmit, geometry.receive, F[m : m + 1], F[m])
        part, _ = bounds([block], place, alpha, one)
        assert np.isinf(part[0, 2, 2])  # one subcarrier tells no range
        total += np.linalg.inv(part[0, :2, :2])
    covariance = np.linalg.inv(total)
    direction = unit(place[:, :2])
    lit = illumination(geometry.transmit, direction, F, whole.sent.response[:, :, 0])
    gain = np.full((1, len(F)), alpha[0, 0])
    # ``whitened`` has unit noise, so its columns are a combiner with orthonormal outputs only by its own whitener: give the plain one
    gram = echo_gram(geometry.receive, direction, gain, F, NOISE_W, "unknown", combiner=whole.heard.response)
    theirs = crb(total_information(information(gram, lit), whole.root_w**2))
    assert np.trace(covariance) == pytest.approx(theirs, rel=1e-6)


def test_more_unknown_never_helps():
    blocks, place, alpha, geometry = scene(targets=2, leak=True)
    alone = [replace(b, ahead=b.ahead[:1]) for b in blocks]
    quiet = [replace(b, leak=b.leak[:0]) for b in blocks]
    whole = bounds(blocks, place, alpha, geometry)[0][0]
    for fewer in (bounds(alone, place[:1], alpha[:, :1], geometry)[0][0], bounds(quiet, place, alpha, geometry)[0][0]):
        assert np.linalg.eigvalsh(whole - fewer).min() > -1e-9 * np.trace(whole)


def test_the_fit_finds_what_made_the_samples_and_leaves_out_who_is_not_there():
    blocks, place, alpha, geometry = scene(targets=3, leak=True)
    silent = np.array([alpha[b] * [1, 1, 0] for b in range(len(blocks))])
    played = []
    rng = np.random.default_rng(5)
    for block, a in zip(blocks, silent, strict=True):
        noise = np.sqrt(NOISE_W / 2) * (rng.normal(size=(2, len(block.samples))) * [[1], [1j]]).sum(axis=0)
        clean = a @ signatures(block, place, geometry)[0] + block.leak.T @ np.full(4, 20.0)
        played.append(replace(block, samples=clean + noise))
    off = place + np.array([2e-3, -2e-3, 0.06, 0.3])
    found = fit(played, off, np.full(3, 0.15), geometry, 50.0)
    assert found.found.tolist() == [True, True, False]
    bound, _ = bounds([replace(b, ahead=b.ahead[:2]) for b in played], place[:2], silent[:, :2], geometry)
    sigma = np.sqrt(np.diagonal(bound, axis1=1, axis2=2))
    assert (np.abs(found.place[:2] - place[:2]) < 4.5 * sigma).all()
    np.testing.assert_allclose(np.sqrt(np.diagonal(found.covariance[:2], axis1=1, axis2=2)), sigma, rtol=0.3)
    assert found.misfit == 1.0
    # somebody nobody asked about: what is left over makes the covariance wider
    stranger = [replace(b, samples=b.samples + 0.3 * np.exp(2j * np.pi * rng.random(len(b.samples)))) for b in played]
    doubtful = fit(stranger, off, np.full(3, 0.15), geometry, 50.0)
    assert doubtful.misfit > 10
    assert np.trace(doubtful.covariance[0]) > 10 * np.trace(found.covariance[0])


def test_nobody_asked_about_is_no_error():
    blocks, _, _, geometry = scene(targets=1)
    none = fit([replace(b, ahead=b.ahead[:0]) for b in blocks], np.zeros((0, 4)), np.zeros(0), geometry, 50.0)
    assert not len(none.place)
