"""Controlled beam squint: the path, the fit, and what the printed form loses."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from hal.array import angles_from, direction_from, steering
from hal.errors import Misuse
from twin.compare_precoders import Setup, draw, row_of, scored
from twin.precoding.cbs import Cbs, fit, path


def test_the_path_is_the_shortest_and_evenly_walked():
    rng = np.random.default_rng(0)
    place = rng.uniform(-0.5, 0.5, (5, 2))
    way = np.column_stack(angles_from(path(direction_from(*place.T), 4001)))
    shortest = min(np.linalg.norm(np.diff(place[list(p)], axis=0), axis=1).sum() for p in permutations(range(5)))
    step = np.linalg.norm(np.diff(way, axis=0), axis=1)
    assert step.sum() == pytest.approx(shortest, rel=1e-4)
    assert np.median(step) == pytest.approx(shortest / 4000, rel=1e-9)
    for p in place:
        assert np.linalg.norm(way - p, axis=1).min() < shortest / 4000
    with pytest.raises(Misuse, match="has 8 places"):
        path(np.zeros((8, 3)), 4)


def gain(row, pointed, form):
    response = row.response(*fit(row, pointed, form))
    return np.array(
        [abs(steering(row.array, u, f) @ r) ** 2 for u, f, r in zip(pointed, row.frequency_hz, response, strict=True)]
    ) / len(row.line)


def test_one_direction_is_followed_at_every_frequency():
    row = row_of(draw(0, Setup(delay_bits=0)))
    pointed = np.repeat(row.user_direction[None], 32, axis=0)
    assert gain(row, pointed, "corrected").mean() > 0.995


def test_the_corrected_fit_keeps_its_gain_and_the_printed_one_does_not():
    corrected, printed = [], []
    for seed in range(4):
        row = row_of(draw(seed))
        places = np.concatenate([row.user_direction[None], row.target_direction])
        pointed = path(places, 32)
        corrected.append(gain(row, pointed, "corrected").mean())
        printed.append(gain(row, pointed, "printed").mean())
    assert np.mean(corrected) > 0.5
    assert np.mean(printed) < 0.5 * np.mean(corrected)


def test_more_rate_asked_for_is_more_rate_given():
    problem = draw(3)
    scores = [scored(problem, Cbs(rate_share=share).design(problem)) for share in (0.0, 0.5, 1.0)]
    assert scores[0].crb <= scores[1].crb <= scores[2].crb
    row = row_of(problem)
    design = Cbs(rate_share=0.5).design(problem)
    snr = row.snr_per_w(row.response(design.delay_s[0, 0], design.phase_rad[0, 0]))
    least = 0.5 * row.power_w / np.sum(1 / snr)
    assert (snr * design.power_w[0]).min() == pytest.approx(least, rel=1e-6)
