"""The fully digital bound: no analog beam beats it, its gap is honest, and a conic solver agrees."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import steering, steering_gradient
from twin.compare_precoders import SCHEMES, Setup, digital, draw, row_of, scored
from twin.precoding.direct import Direct

SMALL = Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=6, targets=2, msia_rad=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_no_scheme_beats_it(seed):
    problem = draw(seed, SMALL)
    bound, bit = digital(problem, 2.0)
    assert 0 <= bound.gap < 5e-3
    for precoder in (*SCHEMES.values(), Direct(rate_weight=2.0)):
        score = scored(problem, precoder.design(problem))
        assert bit * score.rate - np.log(score.crb) < bound.utility + bound.gap


def test_random_covariances_stay_below_the_certificate():
    """A beam of random weights, of the same power, at any rank-one covariance: the certificate covers all."""
    problem = draw(1, SMALL)
    row = row_of(problem)
    bound, bit = digital(problem, 1.0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        x = rng.normal(size=(6, 16, 2)).view(complex)[..., 0]
        x += 3 * rng.uniform() * row.user_row.conj() + 3 * rng.uniform() * row.target_rows.sum(axis=0).conj()
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        power = rng.dirichlet(np.ones(6)) * row.power_w
        assert bit * row.rate(x, power) - np.log(row.crb(x, power)) < bound.utility + bound.gap


def test_a_conic_solver_agrees():
    cp = pytest.importorskip("cvxpy")
    setup = Setup(columns=3, rows=3, delay_lines=(1, 1), subcarriers=2, targets=1, msia_rad=0.3)
    problem = draw(2, setup)
    row = row_of(problem)
    bound, _ = digital(problem, 0.0)  # the CRB alone: a semidefinite program
    covariances = [cp.Variable((9, 9), hermitian=True) for _ in range(2)]

    def tells(m, a, b):
        """The matrix K whose Re tr(K R) is what a covariance says of parameters a and b."""
        at = (row.target_direction[0], row.frequency_hz[m])
        jet = np.stack([steering(row.array, *at), *steering_gradient(row.array, *at)])
        g = row.gram[m, 0, :, 0, :]
        pairs = ((g[1 + a, 1 + b], 0, 0), (g[1 + a, 0], 1 + b, 0), (g[0, 1 + b], 0, 1 + a), (g[0, 0], 1 + b, 1 + a))
        return sum(c * np.outer(jet[t].conj(), jet[s]) for c, s, t in pairs)

    entry = [
        [sum(cp.real(cp.trace(tells(m, a, b) @ covariances[m])) for m in range(2)) for b in range(2)] for a in range(2)
    ]
    both = (entry[0][1] + entry[1][0]) / 2
    total = cp.bmat([[entry[0][0], both], [both, entry[1][1]]])
    root = np.linalg.cholesky(row.weight)
    cost = cp.sum([cp.matrix_frac(root[:, i], total) for i in range(2)])
    power = cp.sum([cp.real(cp.trace(r)) for r in covariances])
    solved = cp.Problem(cp.Minimize(cost), [*(r >> 0 for r in covariances), power <= row.power_w]).solve(
        solver=cp.CLARABEL
    )
    assert bound.crb == pytest.approx(solved, rel=1e-3)
