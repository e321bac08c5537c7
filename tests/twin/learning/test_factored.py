"""The factored network: the same in NumPy and torch, blind to order and padding, and its settings are those of the field it writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import steering
from twin.compare_precoders import Setup, draw, row_of
from twin.learning.factored import Factored, Scenes
from twin.learning.scenes import Recipe
from twin.physics.allocation import crb_power

SMALL = Recipe(columns=6, rows=4, delay_lines=(3, 2), subcarriers=8, targets=(1, 3))
NETWORK = Factored(width=12, rounds=2, harmonics=3, profile=4, most_targets=3)


def weights(seed=0, network=NETWORK):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) * (1 / max(shape[0], 1)) ** 0.5 for name, shape in network.sizes.items()}


def scenes(recipe=SMALL, count=5):
    return recipe.draw(3, 0, count).scenes(recipe.aperture)


def permuted(given: Scenes, order) -> Scenes:
    return replace(given, **{name: getattr(given, name)[:, order] for name in ("target", "present", "gain", "metric")})


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    given, own = scenes(), weights()

    def there(value, kind):
        return torch.tensor(np.array(value), dtype=kind)

    for kind, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        moved = Scenes(**{name: there(getattr(given, name), kind) for name in Scenes.__dataclass_fields__})
        # steps of delay lines are a cliff: what lies beside one may fall either way in single precision
        aperture = replace(SMALL, delay_bits=0).aperture
        theirs = NETWORK.settings({name: there(value, kind) for name, value in own.items()}, aperture, moved)
        ours = NETWORK.settings(own, aperture, given)
        np.testing.assert_allclose(np.exp(1j * theirs[0].numpy()), np.exp(1j * ours[0]), atol=10 * bound)
        np.testing.assert_allclose(theirs[1].numpy(), ours[1], atol=100e-12 * 10 * bound)
        np.testing.assert_allclose(theirs[2].numpy(), ours[2], atol=10 * bound)


def test_the_order_of_targets_and_padding_are_nothing():
    given, own = scenes(), weights()
    theta, delay_s, z = NETWORK.settings(own, SMALL.aperture, given)
    turned = NETWORK.settings(own, SMALL.aperture, permuted(given, [2, 0, 1]))
    np.testing.assert_allclose(np.exp(1j * turned[0]), np.exp(1j * theta), atol=1e-9)
    np.testing.assert_array_equal(turned[1], delay_s)
    np.testing.assert_allclose(turned[2], z, atol=1e-9)
    one = int(np.argmin(given.present.sum(axis=1)))
    kept = int(given.present[one].sum())
    assert kept < 3
    bare = Scenes(
        **{
            name: getattr(given, name)[one, :kept]
            if name in ("target", "present", "gain", "metric")
            else getattr(given, name)[one]
            for name in Scenes.__dataclass_fields__
        }
    )
    alone = NETWORK.settings(own, SMALL.aperture, bare)
    np.testing.assert_allclose(np.exp(1j * alone[0]), np.exp(1j * theta[one]), atol=1e-9)
    np.testing.assert_allclose(alone[2], z[one], atol=1e-9)


def test_phases_and_delays_are_those_of_the_wanted_field():
    """The dense field, its angle by definition and its slope by differences of frequency, against the closed form."""
    aperture = replace(SMALL, delay_bits=0, delay_range_s=1e-9).aperture
    rng = np.random.default_rng(1)
    everyone = rng.uniform(-0.5, 0.5, (3, 2))
    level, tilt = rng.normal(size=(2, 3, 2))
    theta, delay_s = Factored._aperture(aperture, everyone, level, tilt)
    direction = np.column_stack([np.sqrt(1 - np.sum(everyone**2, axis=1)), everyone])

    def field(offset_hz):
        a = steering(aperture.array, direction, np.full(3, aperture.carrier_hz + offset_hz)).conj()
        mixed = level @ [1, 1j] + tilt @ [1, 1j] * offset_hz / aperture.spread_hz
        return mixed @ a

    middle, step_hz = field(0.0), 1e4
    np.testing.assert_allclose(np.exp(1j * theta), middle / np.abs(middle), atol=1e-9)
    turned = np.angle(field(step_hz) / field(-step_hz)) / (2 * step_hz)
    power = np.abs(middle) ** 2
    expected = [
        -np.sum(power[aperture.line == q] * turned[aperture.line == q]) / power[aperture.line == q].sum() / (2 * np.pi)
        for q in range(aperture.lines)
    ]
    np.testing.assert_allclose(np.diff(delay_s), np.diff(expected), rtol=1e-4, atol=1e-16)
    assert delay_s.min() + delay_s.max() == pytest.approx(aperture.longest_s)


def test_power_goes_where_the_exact_allocation_puts_it():
    """Enough rounds at the textbook's exponent reach the convex solver's bound; no rate in the balance."""
    row = row_of(draw(3, Setup(columns=6, rows=6, delay_lines=(3, 3), subcarriers=8)))
    rng = np.random.default_rng(0)
    response = row.response(rng.uniform(0, 90e-12, row.lines), rng.uniform(0, 6, 36))
    unit = row.unit_information(response)
    exact = crb_power(unit, np.zeros(8), row.power_w, row.weight)
    network = Factored(power_rounds=3000)
    share = network.shares(
        {"power.exponent": np.full(3000, 0.5)},
        np.zeros(8),
        np.zeros(8),
        unit * row.power_w,
        row.weight,
        np.asarray(0.0),
    )
    assert share.sum() == pytest.approx(1)
    assert row.crb(response, share * row.power_w) == pytest.approx(row.crb(response, exact), rel=2e-3)
    equal = row.crb(response, np.full(8, row.power_w / 8))
    few = Factored(power_rounds=6).shares(
        {"power.exponent": np.full(6, 0.5)}, np.zeros(8), np.zeros(8), unit * row.power_w, row.weight, np.asarray(0.0)
    )
    assert row.crb(response, few * row.power_w) < equal


def test_any_input_gives_settings_the_machine_takes():
    wild = replace(
        SMALL, snr_db=(-60, 90), msia_rad=(0.01, 0.6), rate_weight=(1e-6, 1e6), strength_db=40, sigma_beta=30
    )
    given = wild.draw(0, 0, 400).scenes(wild.aperture)
    theta, delay_s, z = NETWORK.settings(weights(2), wild.aperture, given)
    assert all(np.all(np.isfinite(value)) for value in (theta, delay_s, z))
    level = delay_s / (wild.delay_range_s / 16)
    np.testing.assert_allclose(level, np.rint(level), atol=1e-9)
    assert level.min() >= 0
    assert level.max() <= 15


def test_without_delay_lines_there_are_no_delays():
    bare = replace(SMALL, delay_lines=None)
    theta, delay_s, _ = NETWORK.settings(weights(), bare.aperture, scenes(bare))
    assert delay_s.shape == (5, 0)
    assert theta.shape == (5, 24)
