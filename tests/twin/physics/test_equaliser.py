"""Equalisers against the dense inverse and the closed form of one tap; a frame's result is its own."""

from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.physics.doubly_selective import Passage, passage, through
from twin.physics.equaliser import mmse, one_tap


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def channel(size: int = 64) -> Passage:
    return passage([0.0, 3.3, 6.8], [0.002, -0.006, 0.004], [0.8, 0.5j, -0.3], 0.2, size)


def test_mmse_is_the_dense_solution() -> None:
    rng, path = np.random.default_rng(0), channel()
    H = through(path, np.eye(64)).T
    y = noise(rng, 3, 64)
    for power in (1.0, 0.01):
        expected = np.linalg.solve(H.conj().T @ H + power * np.eye(64), H.conj().T @ y.T).T
        np.testing.assert_allclose(mmse(path, y, power, tolerance=1e-10), expected, atol=1e-8)


def test_error_is_what_theory_says_of_it() -> None:
    rng, path, power = np.random.default_rng(1), channel(), 0.05
    H = through(path, np.eye(64)).T
    theory = np.trace(np.linalg.inv(np.eye(64) + H.conj().T @ H / power)).real / 64
    sent = np.exp(0.5j * np.pi * rng.integers(0, 4, (400, 64)))
    seen = mmse(path, through(path, sent) + np.sqrt(power) * noise(rng, 400, 64), power)
    assert np.mean(np.abs(seen - sent) ** 2) == pytest.approx(theory, rel=0.03)


def test_a_frame_s_result_does_not_depend_on_its_company() -> None:
    rng, path = np.random.default_rng(2), channel()
    y = noise(rng, 4, 64) * np.array([1e-3, 1, 1e3, 1])[:, None]
    power = np.array([1.0, 1e-3, 0.1, 10.0])
    together = mmse(path, y, power)
    for i in range(4):
        np.testing.assert_array_equal(together[i], mmse(path, y[i : i + 1], power[i : i + 1])[0])


def test_one_tap_is_mmse_without_doppler_only() -> None:
    rng = np.random.default_rng(3)
    still = passage([0.0, 3.3], [0.0, 0.0], [0.8, 0.5j], 0.0, 16, periods=4, prefix=8)
    y = noise(rng, 2, 64)
    np.testing.assert_allclose(one_tap(still, y, 0.1), mmse(still, y, 0.1, tolerance=1e-12), atol=1e-10)
    moving = passage([0.0, 3.3], [0.01, -0.01], [0.8, 0.5j], 0.0, 16, periods=4, prefix=8)
    sent = np.exp(0.5j * np.pi * rng.integers(0, 4, (50, 64)))
    heard = through(moving, sent) + 0.1 * noise(rng, 50, 64)
    blind, aware = (np.mean(np.abs(e(moving, heard, 0.01) - sent) ** 2) for e in (one_tap, mmse))
    assert blind > 2 * aware


def test_refuses_no_noise_and_says_when_it_does_not_end() -> None:
    with pytest.raises(Misuse, match=r"noise = 0.0: must be a finite number > 0"):
        mmse(channel(), np.ones((1, 64), complex), 0.0)
    with pytest.raises(Misuse, match="steps = 2: left a residual"):
        mmse(channel(), noise(np.random.default_rng(4), 1, 64), 1e-9, steps=2)
