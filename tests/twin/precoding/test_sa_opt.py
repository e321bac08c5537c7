"""SA-Opt and its alternation without delay lines: printed steps against loops, better ones against the printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import steering
from hal.errors import Misuse
from twin.compare_precoders import ETA, Setup, draw, row_of, scored
from twin.physics.beamspace import array_gain_objective
from twin.precoding._phases import Alternation
from twin.precoding.no_ttd import NoTtd
from twin.precoding.sa_opt import SaOpt
from twin.precoding.sensing_dedicated import SensingDedicated

SMALL = Setup(columns=6, rows=6, delay_lines=(3, 3), subcarriers=6)


def test_the_printed_phases_are_equation_19():
    row = row_of(draw(1, SMALL))
    rng = np.random.default_rng(0)
    delay_s = rng.uniform(0, 90e-12, 9)
    found = Alternation("eq19", ETA, False, "equal", rounds=1).run(row, delay_s).phase_rad
    n, m_count = 36, 6
    p = row.power_w / m_count / n  # the paper's powers sum to P / N_t
    total = np.zeros(n, complex)
    for m, f in enumerate(row.frequency_hz):
        delays = np.diag(np.exp(2j * np.pi * f * delay_s[row.line]))  # F_TD
        h = row.user_gain[m] * n**0.5 * steering(row.array, row.user_direction, f) / n**0.5  # beta a, a of unit norm
        g = np.zeros((n, n), complex)
        for k, u in enumerate(row.target_direction):
            a = steering(row.array, u, f) / n**0.5
            g += row.target_gain[k, m] * n * np.outer(a, a.conj())  # alpha a_r a_t^H
        total += p**0.5 * (delays.conj().T @ h)
        for r in range(n):
            total += ETA / n * p**0.5 * ((g @ delays)[r].conj())
    np.testing.assert_allclose(np.exp(1j * found), np.exp(-1j * np.angle(total)), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_power_steps_climb_equation_18_and_amplitude_steps_serve_every_target(seed):
    row = row_of(draw(seed, SMALL))
    delay_s = np.zeros(9)

    def value(solution):
        response = row.response(delay_s, solution.phase_rad)
        user = np.sum(row.user_row * response, axis=-1)
        heard = steering(row.receive, row.target_direction[:, None], row.frequency_hz[None])
        lit = np.sum(row.target_rows * response, axis=-1) * row.target_gain
        return array_gain_objective(user, np.einsum("km,kmn->mn", lit, heard), solution.power_w, ETA)

    power, amp, printed = (
        Alternation(u, ETA, False, "equal", rounds=1).run(row, delay_s) for u in ("power", "amp", "eq19")
    )
    assert value(power) >= max(value(amp), value(printed)) * (1 - 1e-9)
    longer = Alternation("power", ETA, False, "equal", rounds=3).run(row, delay_s)
    assert value(longer) >= value(power) * (1 - 1e-9)


def test_amplitude_steps_lower_the_bound_on_average():
    ratio = []
    for seed in range(6):
        problem = draw(seed)
        amp, power = (
            scored(problem, NoTtd(update=u, eta=ETA, balanced=False).design(problem)).crb for u in ("amp", "power")
        )
        ratio.append(power / amp)
    assert np.exp(np.mean(np.log(ratio))) > 1.5


def test_the_search_raises_correlation_and_the_warm_step_goes_round():
    problem = draw(2, SMALL)
    made = SaOpt(passes=3)
    found, random = made.design(problem), SaOpt(passes=1, dictionary=12)
    assert scored(problem, found).divergence < scored(problem, NoTtd().design(problem)).divergence
    assert random.design(problem).steps == 9
    warm = SaOpt(budget_steps=4, start="steered")
    one = warm.design(replace(problem, previous=found))
    two = warm.design(replace(problem, previous=one))
    assert (one.steps, two.steps) == (found.steps + 4, found.steps + 8)
    grid = one.delay_s / (100e-12 / 16)
    np.testing.assert_allclose(grid, np.rint(grid), atol=1e-9)


def test_the_printed_convention_is_a_switch_that_changes_the_design():
    problem = draw(0, SMALL)
    ours, printed = (SaOpt(convention=c).design(problem) for c in ("consistent", "printed"))
    assert np.any(ours.delay_s != printed.delay_s)
    assert scored(problem, printed, convention="printed").crb < scored(problem, ours, convention="printed").crb


def test_sensing_dedicated_asks_for_no_rate():
    problem = draw(5)
    sensing = scored(problem, SensingDedicated().design(problem))
    assert sensing.crb < scored(problem, SensingDedicated(power="eq21").design(problem)).crb


@pytest.mark.parametrize(
    ("precoder", "what"),
    [(SaOpt(update="best"), "update"), (SaOpt(power="all"), "power"), (SaOpt(start="hot"), "start")],
)
def test_a_word_that_is_none_of_the_choices(precoder, what):
    with pytest.raises(Misuse, match=what):
        precoder.design(draw(0, SMALL))
