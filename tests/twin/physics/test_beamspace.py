"""Beamspace by zero-padded FFT, against the dictionary written out."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, direction_from, steering
from hal.errors import Misuse
from twin.physics.beamspace import (
    array_gain_objective,
    beamspace,
    correlation,
    delay_ramp,
    distribution,
    divergence,
    echo_beamspace,
)

FC = 100e9
F = FC + 1e9 * (np.arange(4) - 1.5)
ARRAY = Upa(4, 3).build(FC, np.zeros(3), np.eye(3))


def dictionary(grid):
    """Columns of D, one a bin, written out."""
    w_y, w_z = 2 * np.pi * np.arange(grid[0]) / grid[0], 2 * np.pi * np.arange(grid[1]) / grid[1]
    column, row = np.divmod(np.arange(12), 3)
    phase = w_y[:, None, None] * column + w_z[None, :, None] * row
    return np.exp(1j * phase).reshape(-1, 12).T / 12**0.5


@pytest.mark.parametrize("grid", [(4, 3), (8, 8), (5, 16)])
@pytest.mark.parametrize("convention", ["consistent", "printed"])
def test_the_dictionary_written_out(grid, convention):
    rng = np.random.default_rng(1)
    direction = direction_from([0.2, -0.4], [0.1, 0.3])
    gain = rng.normal(size=(2, 4)) + 1j * rng.normal(size=(2, 4))
    line = np.arange(12) // 6
    delay = rng.uniform(0, 50e-12, 2)
    ramp = delay_ramp(line, delay, F)
    d = dictionary(grid)
    np.testing.assert_allclose(beamspace(ARRAY, ramp, grid).reshape(4, -1), ramp @ d.conj(), atol=1e-12)
    echo = echo_beamspace(ARRAY, ARRAY, direction, gain, F, ramp, grid, convention)
    for m, f in enumerate(F):
        a = steering(ARRAY, direction, f)
        # F is what delays do to what is sent, exp(+j 2 pi f T) in the paper's signs: the conjugate of the ramp
        matrix = sum(
            gain[k, m] * np.outer(a[k], (a[k] if convention == "printed" else a[k].conj()) * ramp[m].conj())
            for k in range(2)
        )
        np.testing.assert_allclose(echo[m].ravel(), np.diag(d.conj().T @ matrix @ d), atol=1e-12)


def test_distributions_and_their_divergence():
    rng = np.random.default_rng(2)
    p, q = (distribution(rng.normal(size=(3, 4, 5)) + 0j) for _ in range(2))
    np.testing.assert_allclose(p.sum(), 1.0)
    np.testing.assert_allclose(divergence(p, q), np.sum(p * np.log(p / q)))
    assert divergence(p, q) > 0 == divergence(p, p)
    np.testing.assert_allclose(correlation(p, q), 1 / divergence(p, q))
    assert divergence(p, q, 1e-9) == pytest.approx(divergence(p, q), rel=1e-6)
    assert divergence(p, q, 1.0) < 0.5 * divergence(p, q)
    with pytest.raises(Misuse, match="same distribution"):
        correlation(p, p)
    with pytest.raises(Misuse, match="zero everywhere"):
        distribution(np.zeros((1, 2, 2)))
    with pytest.raises(Misuse, match="grid"):
        beamspace(ARRAY, np.ones(12), (3, 3))


def test_the_objective_is_a_sum_of_powers():
    user, echo = np.array([1 + 1j, 2.0]), np.array([[1.0, 1j], [2.0, 0.0]])
    assert array_gain_objective(user, echo, np.array([1.0, 3.0]), 0.5) == pytest.approx(
        1 * (2 + 0.5 * 1) + 3 * (4 + 0.5 * 2)
    )


def test_torch_runs_the_same_code_with_gradients():
    torch = pytest.importorskip("torch")
    direction, gain = direction_from([0.2, -0.4], [0.1, 0.3]), np.ones((2, 4), complex)
    line = np.arange(12) // 6
    user = direction_from(0.1, 0.2)

    def away(delay, asarray):
        f = asarray(F)
        ramp = delay_ramp(line, delay, f)
        own = distribution(beamspace(ARRAY, steering(ARRAY, asarray(user)[None], f) * ramp, (8, 8)))
        return divergence(
            own, distribution(echo_beamspace(ARRAY, ARRAY, asarray(direction), asarray(gain), f, ramp, (8, 8)))
        )

    delay = np.array([10e-12, 31e-12])
    t = torch.asarray(delay).requires_grad_()
    value = away(t, torch.asarray)
    np.testing.assert_allclose(value.item(), away(delay, np.asarray), rtol=1e-10)
    value.backward()
    step = np.array([1e-16, 0.0])
    slope = (away(delay + step, np.asarray) - away(delay - step, np.asarray)) / 2e-16
    np.testing.assert_allclose(float(t.grad[0]), slope, rtol=1e-4)
