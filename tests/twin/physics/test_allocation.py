"""Power over subcarriers: closed forms against a conic solver, and what no other allocation can beat."""

from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.physics.allocation import crb_power, jensen_power, largest_snr, least_powers, unit_bounds


def problem(seed, m=12, k=2, rank=2):
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(m, 2 * k, rank * k)) * 10 ** rng.uniform(-0.5, 0.5, (m, 1, 1))
    return d @ np.swapaxes(d, -1, -2), rng.uniform(0.1, 3, m)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_closed_forms_are_what_a_conic_solver_finds(seed, share):
    unit, snr = problem(seed)
    weight = np.diag(np.linspace(0.5, 2, 4))
    least = least_powers(snr, 5.0, share * largest_snr(snr, 5.0))
    q = unit_bounds(unit, weight)
    closed, conic = (jensen_power(q, least, 5.0, solver) for solver in ("closed", "cvxpy"))
    assert np.all(closed >= least * (1 - 1e-12))
    assert closed.sum() == pytest.approx(5.0, rel=1e-12)
    assert np.sum(q / closed) <= np.sum(q / conic) * (1 + 1e-6)
    np.testing.assert_allclose(closed, conic, rtol=0, atol=2e-4)

    def bound(p):
        return np.trace(weight @ np.linalg.inv(np.tensordot(p, unit, axes=1)))

    closed, conic = (crb_power(unit, least, 5.0, weight, solver) for solver in ("closed", "cvxpy"))
    assert np.all(closed >= least * (1 - 1e-12))
    assert closed.sum() == pytest.approx(5.0, rel=1e-12)
    assert bound(closed) == pytest.approx(bound(conic), rel=1e-6)


def test_exact_beats_every_other_allocation():
    unit, snr = problem(7)
    least = least_powers(snr, 1.0, 0.4 * largest_snr(snr, 1.0))

    def bound(p):
        return np.trace(np.linalg.inv(np.tensordot(p, unit, axes=1)))

    best = bound(crb_power(unit, least, 1.0))
    rng = np.random.default_rng(0)
    others = [least + (1 - least.sum()) * rng.dirichlet(np.full(12, a)) for a in (0.05, 0.3, 1, 5) for _ in range(200)]
    others.append(jensen_power(unit_bounds(unit), least, 1.0))
    assert best <= min(map(bound, others)) * (1 + 1e-9)


def test_rank_one_subcarriers_defeat_the_relaxed_bound_only():
    unit, _ = problem(3, rank=1)
    q = unit_bounds(unit[:, :4, :4][:, :, :4])
    assert np.all(np.isinf(q))
    with pytest.raises(Misuse, match="use power = 'exact'"):
        jensen_power(q, np.zeros(12), 1.0)
    assert np.isfinite(crb_power(unit, np.zeros(12), 1.0)).all()


def test_bad_input_says_what_is_possible():
    snr = np.array([1.0, 4.0])
    assert largest_snr(snr, 5.0) == pytest.approx(4.0)
    with pytest.raises(Misuse, match="the largest is 4"):
        least_powers(snr, 5.0, 4.1)
    with pytest.raises(Misuse, match="power_w"):
        least_powers(snr, 0.0, 1.0)
    with pytest.raises(Misuse, match="power_w"):
        jensen_power(np.ones(2), np.zeros(2), float("nan"))
    with pytest.raises(Misuse, match="singular"):
        crb_power(np.zeros((2, 2, 2)), np.zeros(2), 1.0)
    assert largest_snr(np.array([1.0, 0.0]), 1.0) == 0.0
