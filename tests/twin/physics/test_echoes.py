"""Map, peaks and joint fit against plain sums, and against data whose echoes are known."""

from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from hal.lanes import packed, unpacked
from twin.physics.delay_doppler import field_curvature, templates
from twin.physics.echoes import (
    Fit,
    Joint,
    Sounding,
    delay_doppler_map,
    fit_echoes,
    no_echoes,
    search_grid,
    strong_peaks,
)

FRAMES, SIZE, ROLL_OFF = 8, 256, 0.1
START = 280.0 * np.arange(FRAMES) - 280.0 * (FRAMES - 1) / 2 - (SIZE - 1) / 2
CELL = 1 / (280.0 * (FRAMES - 1) + SIZE)


def sounding(seed: int = 0) -> Sounding:
    sent = np.exp(0.5j * np.pi * np.random.default_rng(seed).integers(0, 4, (FRAMES, SIZE)))
    return Sounding(sent=sent.astype(np.complex64), start=START, roll_off=ROLL_OFF)


def echoes(said: Sounding, where: list[tuple[float, float]], amplitude: np.ndarray) -> np.ndarray:
    """Data rows in double precision: ``amplitude[echo row]``."""
    made = [templates(np.fft.fft(said.sent.astype(complex)), START, *w, ROLL_OFF)[0].ravel() for w in where]
    return np.tensordot(amplitude, np.array(made), (0, 0))


def noise(rng: np.random.Generator, rows: int) -> np.ndarray:
    return (rng.standard_normal((rows, FRAMES * SIZE)) + 1j * rng.standard_normal((rows, FRAMES * SIZE))) * np.sqrt(0.5)


def none() -> np.ndarray:
    return np.empty((0, FRAMES * SIZE), np.complex64)


@pytest.mark.parametrize(("fastest", "replicas"), [(0.2 / SIZE, 1), (0.7 / SIZE, 3)])
def test_map_is_the_plain_correlation(fastest: float, replicas: int) -> None:
    said = sounding()
    grid = search_grid(said, (3.2, 20.0), fastest)
    data = noise(np.random.default_rng(2), 2).reshape(2, FRAMES, SIZE).astype(np.complex64)
    field = delay_doppler_map(grid, packed(np.swapaxes(data, 0, 1)))
    assert field.shape == (2, len(grid.doppler), len(grid.delay))
    assert len(grid.replica) == replicas
    sent = said.sent.astype(complex)
    middle = START[:, None] + (SIZE - 1) / 2
    for b in (0, len(grid.doppler) // 3):
        centre = fastest * ((2 * grid.shift[b] + 1) / replicas - 1)
        assert abs(grid.doppler[b] - centre) < 1.01 * fastest / replicas + 0.5 * CELL
        blurred = sent * np.exp(2j * np.pi * centre * (np.arange(SIZE) - (SIZE - 1) / 2))
        for column in (0, 6):
            replica = np.roll(blurred, int(grid.delay[column]), axis=1) * np.exp(2j * np.pi * grid.doppler[b] * middle)
            expected = np.sum(replica.conj() * data, axis=(1, 2)) / np.linalg.norm(replica)
            np.testing.assert_allclose(field[:, b, column], expected, atol=1e-4)


def test_map_keeps_the_power_of_noise() -> None:
    grid = search_grid(sounding(), (0.0, 60.0), 0.5 / 280)
    field = delay_doppler_map(
        grid, packed(np.swapaxes(noise(np.random.default_rng(3), 40).reshape(40, FRAMES, SIZE), 0, 1))
    )
    assert np.mean(np.abs(field) ** 2) == pytest.approx(1, abs=0.03)


def test_a_peak_is_placed_between_map_points() -> None:
    said, rng = sounding(), np.random.default_rng(4)
    grid = search_grid(said, (2.0, 60.0), 0.5 / 280)
    for _ in range(20):
        where = (rng.uniform(5, 55), rng.uniform(-0.4, 0.4) / 280)
        data = echoes(said, [where], np.ones((1, 1))).reshape(1, FRAMES, SIZE)
        power = np.abs(delay_doppler_map(grid, packed(np.swapaxes(data, 0, 1)))[0]) ** 2
        delay, doppler = strong_peaks(grid, power, 0.1 * power.max(), 5, 10 / (FRAMES * SIZE))
        assert len(delay) == 1  # side lobes are no peaks of their own
        assert abs(delay[0] - where[0]) < 0.05
        assert abs(doppler[0] - where[1]) < 0.05 * CELL


def test_fit_finds_close_echoes_exactly_and_leaves_the_known_alone() -> None:
    said, rng = sounding(), np.random.default_rng(5)
    where = [(10.3, 0.0004), (10.9, 0.0004 + 0.8 * CELL), (33.2, -0.0011)]
    amplitude = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    known = said.sent.astype(complex).reshape(1, -1)
    data = echoes(said, where, amplitude) + 30 * np.ones((4, 1)) * known
    first = np.array(where).T + np.array([[0.1, -0.1, 0.2], [0.1 * CELL, 0.1 * CELL, -0.2 * CELL]])
    fit = fit_echoes(data.astype(np.complex64), said, *first, known.astype(np.complex64), 1e-6, steps=20)
    np.testing.assert_allclose(fit.delay, [w[0] for w in where], atol=2e-4)
    np.testing.assert_allclose(fit.doppler, [w[1] for w in where], atol=2e-4 * CELL)
    np.testing.assert_allclose(fit.amplitude, amplitude, atol=2e-3)
    assert np.linalg.norm(fit.residual) < 1e-3 * np.linalg.norm(data)


def test_information_is_that_of_a_numerical_jacobian() -> None:
    said, rng = sounding(), np.random.default_rng(6)
    where = [(10.3, 0.0004), (11.1, 0.0004 + 0.9 * CELL)]
    amplitude = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    data = echoes(said, where, amplitude)
    fit = fit_echoes(data.astype(np.complex64), said, *np.array(where).T, none(), 1.0)

    def mean(p: np.ndarray) -> np.ndarray:
        gain = (p[4:10] + 1j * p[10:]).reshape(2, 3)
        return echoes(said, [(p[0], p[2]), (p[1], p[3])], gain).ravel()

    point = np.concatenate(
        [[w[0] for w in where], [w[1] for w in where], amplitude.real.ravel(), amplitude.imag.ravel()]
    )
    step = np.concatenate([[1e-5] * 2, [1e-5 * CELL] * 2, [1e-5] * 12])
    jacobian = np.array(
        [(mean(point + h) - mean(point - h)) / (2 * s) for h, s in zip(np.diag(step), step, strict=True)]
    ).T
    full = 2 * np.real(jacobian.conj().T @ jacobian)
    bound = np.linalg.inv(full)
    scale = np.sqrt(np.outer(np.diag(bound), np.diag(bound)))[:4, :4]
    np.testing.assert_allclose(np.linalg.inv(fit.information) / scale, bound[:4, :4] / scale, atol=5e-3)
    # amplitudes: on the safe side of the bound's mean over rows, and within a factor of two of it
    spread = (np.diag(bound)[4:10] + np.diag(bound)[10:]).reshape(2, 3).mean(axis=1)
    assert np.all(fit.spread > 0.4 * spread)
    assert np.all(fit.spread < 2 * spread)


def test_errors_are_as_large_as_the_information_says() -> None:
    said, rng = sounding(), np.random.default_rng(7)
    unit = []
    for _ in range(150):
        where = (rng.uniform(5, 40), rng.uniform(-0.0012, 0.0012))
        data = echoes(said, [where], np.full((1, 2), 0.5)) + noise(rng, 2)
        start = np.array(where) + rng.uniform(-0.2, 0.2, 2) * (1, CELL)
        fit = fit_echoes(data.astype(np.complex64), said, *start[:, None], none(), 1.0)
        deviation = np.sqrt(np.diag(np.linalg.inv(fit.information)))
        unit.append((np.array([fit.delay[0], fit.doppler[0]]) - where) / deviation)
    ratio = np.sqrt(np.mean(np.square(unit), axis=0))
    assert np.all(np.abs(ratio - 1) < 3 / np.sqrt(2 * 150) + 0.03)


def dense_step(data: np.ndarray, said: Sounding, known: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, ...]:
    """One Gauss-Newton step of all echoes by stacked waveforms and plain products, without any memory: move, amplitudes before it."""
    echoes, fixed = where.shape[1], len(known)
    made = np.array(
        [templates(np.fft.fft(said.sent.astype(complex)), START, *w, ROLL_OFF).reshape(3, -1) for w in where.T]
    )
    base = np.concatenate([known, made[:, 0]])
    slopes = np.concatenate([made[:, 1], made[:, 2]])
    unit = np.repeat(field_curvature(SIZE, ROLL_OFF, tuple(START.tolist())), echoes)
    slopes = slopes / unit[:, None]
    project = base.T @ np.linalg.pinv(base.T)
    bent = slopes - slopes @ project.T
    own = (np.linalg.pinv(base.T) @ data.T)[fixed:]
    close = (np.abs(where[0][:, None] - where[0]) < 3) & (np.abs(where[1][:, None] - where[1]) < 3 * CELL)
    normal = np.real((bent.conj() @ bent.T) * np.tile(own.conj() @ own.T, (2, 2)) * np.tile(close, (2, 2)))
    slope = np.real(np.sum(np.tile(own, (2, 1)).conj() * (bent.conj() @ (data - data @ project.T).T), axis=1))
    return (np.linalg.solve(normal, slope) / unit).reshape(2, echoes), own


def crowd(seed: int, count: int = 4) -> tuple[Sounding, np.ndarray, np.ndarray, np.ndarray]:
    said, rng = sounding(seed), np.random.default_rng(seed)
    where = np.array([rng.uniform(5, 40, count), rng.uniform(-0.0012, 0.0012, count)])
    where[:, 1] = where[:, 0] + (0.7, 0.9 * CELL)  # two are neighbours
    known = said.sent.astype(complex).reshape(1, -1)
    amplitude = rng.standard_normal((count, 3)) + 1j * rng.standard_normal((count, 3))
    data = echoes(said, list(map(tuple, where.T)), amplitude) + 4 * known + 0.3 * noise(rng, 3)
    return said, where, known.astype(np.complex64), data.astype(np.complex64)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_step_is_that_of_stacked_waveforms(seed: int) -> None:
    said, where, known, data = crowd(seed)
    start = where + np.array([[0.05], [0.05 * CELL]])
    move, _ = dense_step(data, said, known, start)
    fit = fit_echoes(data, said, *start, known, 0.09, steps=1)
    np.testing.assert_allclose(fit.delay - start[0], move[0], atol=2e-4)
    np.testing.assert_allclose(fit.doppler - start[1], move[1], atol=2e-4 * CELL)
    tight = fit_echoes(data, said, *start, known, 0.09, steps=30, tolerance=1e-9)
    move, own = dense_step(data, said, known, np.array([tight.delay, tight.doppler]))
    assert np.abs(move[0]).max() < 2e-3
    assert np.abs(move[1]).max() < 2e-3 * CELL
    np.testing.assert_allclose(tight.amplitude, own, atol=5e-3)


def same(one: Fit, other: Fit, order: list[int]) -> None:
    """Equal but for a small part of their own standard deviations."""
    deviation = np.sqrt(0.09 * np.diag(np.linalg.inv(other.information))).reshape(2, -1)[:, order]
    assert np.all(np.abs(one.delay - other.delay[order]) < 0.1 * deviation[0])
    assert np.all(np.abs(one.doppler - other.doppler[order]) < 0.1 * deviation[1])
    assert np.all(np.abs(one.amplitude - other.amplitude[order]) < 0.2 * np.sqrt(0.09 * other.spread[order])[:, None])
    np.testing.assert_allclose(one.spread, other.spread[order], rtol=0.02)
    assert one.left == pytest.approx(other.left, rel=1e-3)


def test_echoes_that_come_and_go_leave_the_fit_of_those_that_stay() -> None:
    said, where, known, data = crowd(21)
    data_waves, known_waves = (
        packed(np.swapaxes(rows.reshape(len(rows), FRAMES, SIZE), 0, 1)) for rows in (data, known)
    )
    joint = Joint(data_waves, said, known_waves, 5)
    joint.add(*where[:, :2])
    joint.fit(0.09, whole=False)
    joint.add(np.array([20.0]), np.array([0.0]))  # nobody there
    joint.add(*where[:, 2:])
    joint.fit(0.09, whole=False)
    joint.keep(np.array([True, True, False, True, True]))
    same(joint.fit(0.09), fit_echoes(data, said, *where, known, 0.09), [0, 1, 2, 3])
    joint.keep(np.array([False, True, True, True]))
    joint.add(*where[:, :1])  # comes back to the slot it left
    fit = joint.fit(0.09)
    same(fit, fit_echoes(data, said, *where, known, 0.09), [1, 2, 3, 0])
    assert fit.left == pytest.approx(np.linalg.norm(fit.residual) ** 2, rel=1e-3)
    with pytest.raises(Misuse, match="room = 5"):
        joint.add(np.ones(2), np.zeros(2))


def test_waveforms_of_an_echo_are_the_templates() -> None:
    said = sounding()
    joint = Joint(np.zeros((1, 1, 2, SIZE, 8), np.float32), said, said.waves, 1)
    joint.add(np.array([17.3]), np.array([-0.0011]))
    found = np.swapaxes(unpacked(joint.wave[-3:], FRAMES), 0, 1)
    exact = templates(np.fft.fft(said.sent.astype(complex)), START, 17.3, -0.0011, ROLL_OFF)
    scale = np.abs(exact).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found / scale, exact / scale, atol=3e-6)


def test_misuse() -> None:
    said = sounding()
    with pytest.raises(Misuse, match="delay"):
        search_grid(said, (5.0, 4.0), 0.001)
    with pytest.raises(Misuse, match="no_echoes"):
        fit_echoes(none(), said, np.empty(0), np.empty(0), none(), 1.0)
    assert len(no_echoes(2, 1.0).delay) == 0
