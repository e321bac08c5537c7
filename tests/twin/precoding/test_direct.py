"""Joint optimisation: its gradient, its climb, its grid, and its warm steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hal.errors import Misuse
from twin.compare_precoders import SCHEMES, Setup, draw, row_of, scored
from twin.precoding._joint import Utility
from twin.precoding._scene import delay_grid, scene
from twin.precoding.direct import Direct

SMALL = Setup(columns=8, rows=8, delay_lines=(4, 4), subcarriers=8)


@pytest.fixture(params=["known consistent", "unknown consistent", "known printed", "no lines"])
def utility(request):
    setup = replace(SMALL, columns=6, delay_lines=(3, 4))
    problem = draw(4, setup)
    if request.param == "no lines":
        from hal.network import Network

        problem = replace(problem, half=replace(problem.half, network=Network(phase_bits=0).build(6, 8)))
        return Utility(row_of(problem), 0.3)
    reflection, convention = request.param.split()
    return Utility(scene(problem, 0, reflection, convention), 0.3)


@pytest.fixture
def point(utility):
    rng = np.random.default_rng(1)
    elements, lines, subcarriers = utility.sizes
    return rng.uniform(0, 6, elements), rng.uniform(0, 90e-12, lines), rng.normal(size=subcarriers)


def test_the_compiled_utility_is_rate_and_bound_of_the_public_functions(utility, point):
    theta, delay_s, z = point
    row = utility.scene
    share = np.exp(z) / np.exp(z).sum() * row.power_w
    phase = theta + (2 * np.pi * row.carrier_hz * delay_s[row.line] if row.lines else 0)
    response = row.response(delay_s, phase)
    expected = 0.3 * row.rate(response, share) - np.log(row.crb(response, share))
    assert utility(*point)[0] == pytest.approx(expected, rel=1e-11)
    assert utility.parts(theta, delay_s, share) == pytest.approx(
        (expected, row.rate(response, share), row.crb(response, share)), rel=1e-10
    )


def test_the_gradient(utility, point):
    scale = (1.0, 1e-11, 1.0)
    gradient = utility(*point)[1]
    rng = np.random.default_rng(2)
    for which in range(3):
        if not point[which].size:
            continue
        for _ in range(3):
            way = rng.normal(size=point[which].shape) * scale[which]
            step = 1e-5
            values = []
            for s in (step, -step, 2 * step, -2 * step):
                moved = list(point)
                moved[which] = point[which] + s * way
                values.append(utility(*moved)[0])
            slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)
            assert gradient[which] @ way == pytest.approx(slope, rel=1e-7, abs=1e-9)


def test_polishing_a_line_is_trying_every_level(utility, point):
    theta, _, z = point
    row = utility.scene
    if not row.lines:
        return
    level_s = delay_grid(row.network)
    power = np.exp(z) / np.exp(z).sum() * row.power_w
    delay_s = level_s[np.random.default_rng(3).integers(16, size=row.lines)]
    expected = delay_s.copy()
    for q in range(row.lines):
        tried = []
        for level in level_s:
            expected[q] = level
            tried.append(utility.parts(theta, expected, power)[0])
        expected[q] = level_s[int(np.argmax(tried))]
    found, changed = utility.polish(theta, delay_s, power, level_s)
    np.testing.assert_array_equal(found, expected)
    assert changed == np.count_nonzero(expected != delay_s)


def test_it_is_on_the_grid_and_beats_what_it_starts_from():
    for seed in range(3):
        problem = draw(seed, SMALL)
        made = Direct(rate_weight=2.0)
        row = row_of(problem)
        bit = made.utility(row).weight

        def worth(design, problem=problem, bit=bit):
            score = scored(problem, design)
            assert score.clipped == 0
            return bit * score.rate - np.log(score.crb)

        design = made.design(problem)
        steps = design.delay_s / (100e-12 / 16)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
        assert worth(design) > max(
            worth(precoder.design(problem)) for precoder in SCHEMES.values() if not isinstance(precoder, Direct)
        )


def test_more_weight_on_rate_buys_rate_with_bound():
    problem = draw(1, SMALL)
    scores = [scored(problem, Direct(rate_weight=w).design(problem)) for w in (0.0, 2.0, 20.0)]
    assert scores[0].rate < scores[1].rate < scores[2].rate
    assert scores[0].crb < scores[1].crb < scores[2].crb


def test_a_warm_step_is_bounded_and_climbs(monkeypatch):
    problem = draw(2, SMALL)
    first = Direct(rate_weight=2.0).design(problem)
    moved = draw(2, replace(SMALL, snr_db=13.0))
    calls = []
    plain, parts = Utility.__call__, Utility.parts
    monkeypatch.setattr(Utility, "__call__", lambda self, *a: calls.append(1) or plain(self, *a))
    monkeypatch.setattr(Utility, "parts", lambda self, *a: calls.append(1) or parts(self, *a))
    warm, design, worth = Direct(rate_weight=2.0, budget_steps=8), first, []
    for i in range(4):
        calls.clear()
        design = warm.design(replace(moved, previous=design))
        assert len(calls) <= 8
        assert design.steps == i + 1
        score = scored(moved, design)
        worth.append(score.rate * warm.utility(row_of(moved)).weight - np.log(score.crb))
    assert all(b >= a * (1 - 1e-12) for a, b in pairwise(worth))  # to the last place


def test_two_targets_in_one_direction_count_as_the_stronger():
    problem = draw(0, SMALL)
    direction, gain = problem.target_direction.copy(), problem.target_gain.copy()
    direction[0, 1], gain[0, 1] = direction[0, 0], 0.5 * gain[0, 0]
    doubled = replace(problem, target_direction=direction, target_gain=gain)
    without = replace(problem, target_direction=direction[:, [0, 2]], target_gain=gain[:, [0, 2]])
    one, two = (Direct(iterations=30).design(p) for p in (doubled, without))
    np.testing.assert_array_equal(one.phase_rad, two.phase_rad)


def test_what_cannot_be_designed_says_why():
    problem = draw(0, SMALL)
    for change, what in (
        ({"power_w": 0.0}, "power_w"),
        ({"noise_w": float("nan")}, "noise_w"),
        ({"echo_noise_w": -1.0}, "echo_noise_w"),
    ):
        with pytest.raises(Misuse, match=what):
            Direct().design(replace(problem, **change))


@pytest.mark.parametrize("name", ["user_direction", "target_direction"])
def test_directions_that_are_none(name):
    problem = draw(0, SMALL)
    for wrong in (0.5, float("nan")):
        with pytest.raises(Misuse, match=r"must be a unit vector|must be finite"):
            Direct().design(replace(problem, **{name: getattr(problem, name) * wrong}))


def test_a_problem_without_targets_is_a_steered_beam():
    problem = draw(0, SMALL)
    bare = replace(problem, target_direction=problem.target_direction[:, :0], target_gain=problem.target_gain[:, :0])
    np.testing.assert_array_equal(Direct().design(bare).phase_rad, SCHEMES["comm"].design(bare).phase_rad)
