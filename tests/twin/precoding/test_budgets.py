"""Bounded steps of a warm start: as much work as stated, and worth it where the scene has moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import direction_from
from twin.compare_precoders import Setup, draw, row_of, scored
from twin.physics.allocation import crb_power, largest_snr, least_powers
from twin.precoding import _phases
from twin.precoding.cbs import Cbs
from twin.precoding.direct import Direct
from twin.precoding.no_ttd import NoTtd
from twin.precoding.sa_opt import SaOpt

SMALL = Setup(columns=8, rows=8, delay_lines=(4, 4), subcarriers=8)


def moved(problem, azimuth_rad):
    user, target = (
        direction_from(np.arctan2(u[..., 1], u[..., 0]) + azimuth_rad, np.arcsin(u[..., 2]))
        for u in (problem.user_direction, problem.target_direction)
    )
    return replace(problem, user_direction=user, target_direction=target)


def worth(problem, design):
    score = scored(problem, design)
    return Direct(rate_weight=2.0).utility(row_of(problem)).weight * score.rate - np.log(score.crb)


@pytest.mark.parametrize(
    "scheme",
    [Direct(rate_weight=2.0, budget_steps=6), SaOpt(budget_steps=2), NoTtd(budget_steps=2), Cbs(budget_steps=3)],
)
def test_a_few_steps_follow_a_scene_that_moves(scheme):
    """What would keep the last design, or only its phases, falls behind."""
    ahead, behind = [], []
    for seed in range(4):
        problem = draw(seed, SMALL)
        cold = replace(scheme, budget_steps=0)
        first = design = cold.design(problem)
        for i in range(1, 11):  # 0.1 rad in all: a third of a beam
            now = moved(problem, 0.01 * i)
            design = scheme.design(replace(now, previous=design))
            assert design.steps >= i
        fresh = worth(now, cold.design(now))
        ahead.append(worth(now, design) - fresh)
        behind.append(worth(now, first) - fresh)
    assert np.mean(ahead) > np.mean(behind) + 0.3  # nats
    assert np.mean(ahead) > -0.5


def test_an_ascent_spends_no_more_than_it_may_and_never_falls():
    row = row_of(draw(3, SMALL))
    utility = Direct(rate_weight=2.0).utility(row)
    rng = np.random.default_rng(0)
    theta, delay_s, z = rng.uniform(0, 6, 64), rng.uniform(0, 90e-12, 16), rng.normal(size=8)
    before = utility(theta, delay_s, z)[0]
    for most in (1, 2, 5, 20, 60):
        found, shares, used = utility.ascend(theta, delay_s, z, most)
        value = utility(found, delay_s, shares)[0]
        assert 1 <= used <= most
        assert value >= before
        before = value
    assert value > utility(theta, delay_s, z)[0] + 1


def test_phases_take_the_steps_they_are_given(monkeypatch):
    problem = draw(1, SMALL)
    first = NoTtd().design(problem)
    sizes = []
    plain = _phases.np.angle
    monkeypatch.setattr(_phases.np, "angle", lambda x: sizes.append(np.shape(x)) or plain(x))
    NoTtd(budget_steps=3).design(replace(moved(problem, 0.03), previous=first))
    assert sizes.count((64,)) <= 3 + 1  # a step each, and the result


def test_power_from_near_by_is_the_same_power():
    row = row_of(draw(2, SMALL))
    design = Cbs().design(draw(2, SMALL))
    response = row.response(design.delay_s[0, 0], design.phase_rad[0, 0])
    snr, unit = row.snr_per_w(response), row.unit_information(response)
    least = least_powers(snr, row.power_w, 0.5 * largest_snr(snr, row.power_w))
    best = row.crb(response, crb_power(unit, least, row.power_w, row.weight))
    for seed in range(3):
        near = np.random.default_rng(seed).uniform(0, 1, 8)
        for tolerance in (1e-9, 1e-3):
            found = crb_power(unit, least, row.power_w, row.weight, tolerance=tolerance, near_w=near)
            assert found.sum() == pytest.approx(row.power_w)
            assert np.all(found >= least * (1 - 1e-9))
            assert row.crb(response, found) <= best * (1 + 2 * tolerance)
