"""A random walk that is a function of time: its law, and that no call disturbs another."""

from __future__ import annotations

import numpy as np
import pytest
from small import noise

from hal.errors import Misuse
from hal.walk import HORIZON_NS, along, walk


def test_increments_have_the_variance_of_their_length_and_are_independent():
    # 400 walks; steps that are no powers of two, near and far
    t_ns = np.array([0, 1, 777, 10_003, 1_234_567, 50_000_021, 3_000_000_019, 86_400_000_000_000 // 10])
    w = walk(noise, "a", t_ns, (400,))
    step = np.diff(w, axis=0) / np.sqrt(np.diff(t_ns) * 1e-9)[:, None]
    assert w[0] == pytest.approx(0.0)
    assert np.mean(np.abs(step) ** 2, axis=1) == pytest.approx(1.0, abs=0.2)
    cross = step @ step.conj().T / 400
    assert np.max(np.abs(cross - np.diag(np.diag(cross)))) < 0.2


def test_an_instant_is_the_same_whoever_asks_with_it():
    t_ns = np.array([5, 70_000, 123_456_789, 9])
    whole = walk(noise, "b", t_ns, (3,))
    alone = np.concatenate([walk(noise, "b", t_ns[i : i + 1], (3,)) for i in range(4)])
    assert np.array_equal(whole, alone)
    assert not np.array_equal(whole, walk(noise, "c", t_ns, (3,)))


def test_before_zero_it_stands_and_beyond_the_horizon_it_ends():
    assert np.array_equal(walk(noise, "d", np.array([-5, 0]), (2,)), np.zeros((2, 2)))
    with pytest.raises(Misuse, match="laid out up to"):
        walk(noise, "d", np.array([HORIZON_NS + 1]), (2,))


def test_frames_join_up_and_have_the_law_in_between():
    step_s, count = 1e-6, 64
    t_ns = np.arange(300) * 64_000
    b = along(noise, "e", t_ns, 1, count, step_s)[:, 0]
    inside = np.diff(b, axis=1)
    assert np.mean(inside**2) == pytest.approx(step_s, rel=0.05)
    seam = b[1:, 0] - b[:-1, -1]  # consecutive frames: one more step of the same walk
    assert np.mean(seam**2) == pytest.approx(step_s, rel=0.3)
    flat = b.ravel()
    assert np.mean((flat[200:] - flat[:-200]) ** 2) == pytest.approx(200 * step_s, rel=0.35)
