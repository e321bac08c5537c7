"""Scenes to train on: drawn as said, the same for the same numbers, and worth in torch what the loop's own metrics say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import angles_from
from hal.errors import Misuse
from twin.compare_precoders import row_of
from twin.learning.factored import Factored
from twin.learning.scenes import Lit, Recipe, worth
from twin.precoding.direct import Direct
from twin.train import problem

SMALL = Recipe(columns=4, rows=4, delay_lines=(2, 2), subcarriers=6, targets=(1, 3))
NETWORK = Factored(width=8, rounds=1, harmonics=2, profile=3, power_rounds=2, most_targets=3)


def test_a_batch_is_its_two_numbers():
    one, two = SMALL.draw(1, 7, 32), SMALL.draw(1, 7, 32)
    for name in one.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert not np.array_equal(one.user, SMALL.draw(1, 8, 32).user)
    assert not np.array_equal(one.user, SMALL.draw(2, 7, 32).user)


def test_places_are_as_the_recipe_says():
    recipe = replace(SMALL, msia_rad=(0.1, 0.1 + 1e-12), upright=0.3)
    batch = recipe.draw(0, 0, 400)
    user, place = np.stack(angles_from(batch.user), axis=-1), np.stack(angles_from(batch.target), axis=-1)
    away = (place - user[:, None]) * batch.present[..., None]
    spread = np.sqrt(np.sum(away**2, axis=(1, 2)) / (2 * batch.present.sum(axis=1)))
    np.testing.assert_allclose(spread, 0.1, rtol=1e-9)
    assert (
        0.05 < np.sum(away[..., 1] ** 2) / np.sum(away[..., 0] ** 2) < 0.3
    )  # a lone target's own spread is held, whatever its way
    edge = (recipe.azimuth_rad, recipe.elevation_rad)
    assert np.all(np.abs(place) <= edge + np.array(1e-12))
    counts = np.bincount(batch.present.sum(axis=1).astype(int))
    assert np.all(counts[1:] > 80)
    assert np.all((batch.gain != 0).any(axis=-1) == batch.present.astype(bool))


def test_what_cannot_be_drawn_says_why():
    with pytest.raises(Misuse, match="msia_rad"):
        replace(SMALL, msia_rad=(3.0, 4.0)).draw(0, 0, 2)
    with pytest.raises(Misuse, match="targets"):
        replace(SMALL, targets=(0, 2)).draw(0, 0, 2)


@pytest.mark.parametrize("lines", [(2, 2), None])
def test_worth_is_the_loops_rate_and_bound(lines):
    torch = pytest.importorskip("torch")
    recipe = replace(SMALL, delay_lines=lines)
    batch = recipe.draw(5, 0, 6)
    own = {name: torch.tensor(value) for name, value in NETWORK.start(0).items()}
    for kind, bound in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
        lit = Lit(batch, recipe.aperture, dtype=kind)
        moved = {name: value.to(kind) for name, value in own.items()}
        theta, delay_s, z = NETWORK.settings(moved, recipe.aperture, lit.scenes)
        heard, unit = lit.light(theta, delay_s)
        share = NETWORK.shares(moved, z.double(), heard, unit, lit.metric, lit.bit.double())
        found = lit.worth(heard, unit, share)
        for i in range(6):
            row = row_of(problem(recipe, batch, i))
            line_s = delay_s[i].double().numpy()
            through_s = line_s[row.line] if row.lines else 0.0
            response = row.response(line_s, theta[i].double().numpy() + 2 * np.pi * row.carrier_hz * through_s)
            power_w = share[i].numpy() * row.power_w
            assert float(found.rate[i]) == pytest.approx(row.rate(response, power_w), rel=bound)
            assert float(found.crb[i]) == pytest.approx(row.crb(response, power_w), rel=10 * bound)
            weight = Direct(rate_weight=float(batch.rate_weight[i])).utility(row).weight
            utility = weight * row.rate(response, power_w) - np.log(row.crb(response, power_w))
            assert float(found.utility[i]) == pytest.approx(utility, rel=10 * bound, abs=10 * bound)


def test_the_gradient_through_the_metrics():
    """Numerical against automatic, from a weight through field, delays, lit targets, power and bound."""
    torch = pytest.importorskip("torch")
    recipe = replace(SMALL, delay_bits=0, columns=3, rows=2, delay_lines=(3, 1), subcarriers=4)
    lit = Lit(recipe.draw(2, 0, 2), recipe.aperture, dtype=torch.float64)
    own = {name: torch.tensor(value, dtype=torch.float64) for name, value in NETWORK.start(1).items()}
    for name in ("beam.b", "power.exponent", "power.out.w", "0.b"):

        def of(value, name=name):
            return worth(lit, NETWORK, own | {name: value}).utility

        assert torch.autograd.gradcheck(of, (own[name].clone().requires_grad_(True),), eps=1e-6, atol=1e-5, rtol=1e-4)
