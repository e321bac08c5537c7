"""Lobes and directions against Monte Carlo, closed forms and their own promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import AntennaArray, Ula, Upa, steering
from hal.errors import Misuse
from twin.physics.directions import Lobe, find_directions, main_lobe

CARRIER = 100e9
ARRAY = Upa(16, 16, 0.5).build(CARRIER, np.zeros(3), np.eye(3))
POINTING, NULL = np.array([0.1, -0.05]), 2 / 16


def at(array: AntennaArray, cosine: np.ndarray) -> np.ndarray:
    return steering(array, np.array([np.sqrt(1 - cosine @ cosine), *cosine]), np.float64(CARRIER))


def squinted(offset: float, array: AntennaArray = ARRAY) -> np.ndarray:
    """Four unit-norm beams about POINTING, ``offset`` nulls to each side of it on each axis."""
    corners = [POINTING + offset * NULL * np.array([y, z]) for y in (-1, 1) for z in (-1, 1)]
    return np.array([at(array, c).conj() for c in corners]).T / np.sqrt(len(array.position_m))


def lobe_of(outputs: np.ndarray, array: AntennaArray = ARRAY, **how: float) -> Lobe:
    return main_lobe(array, outputs, outputs.T @ outputs.conj(), CARRIER, **how)


@pytest.mark.parametrize("offset", [0.05, 0.25, 0.5])
def test_lobe_is_where_the_beams_point_and_whitens_their_noise(offset: float) -> None:
    outputs = squinted(offset)
    lobe = lobe_of(outputs)
    covariance = outputs.T @ outputs.conj()
    np.testing.assert_allclose(lobe.centre, POINTING, atol=0.1 * NULL)
    # sqrt(12 var) of sixteen elements: an aperture of sqrt(255) / 2 wavelengths
    np.testing.assert_allclose(lobe.width, 2 / np.sqrt(255), rtol=1e-9)
    assert np.all(np.abs(lobe.cosine - lobe.centre) <= lobe.width)
    np.testing.assert_allclose(
        lobe.whitener @ covariance @ lobe.whitener.conj().T, np.eye(len(lobe.whitener)), atol=1e-7
    )


def test_two_chains_of_one_beam_count_once() -> None:
    lobe = lobe_of(squinted(0.25)[:, [0, 0, 1, 2]])
    assert len(lobe.whitener) == 3


@pytest.mark.parametrize("offset", [0.1, 0.25, 0.5])
def test_errors_are_as_large_as_the_covariance_says(offset: float) -> None:
    rng = np.random.default_rng(1)
    lobe, count = lobe_of(squinted(offset)), 600
    truth = POINTING + rng.uniform(-0.5, 0.5, (count, 2)) * NULL
    b = np.array([lobe.projection @ at(ARRAY, t) for t in truth]) / 16
    turn = np.exp(2j * np.pi * rng.random((count, 1)))
    z = b * turn + (rng.standard_normal(b.shape) + 1j * rng.standard_normal(b.shape)) * np.sqrt(0.5 * 1e-4)
    cosine, covariance, misfit, fitted = find_directions(lobe, z, np.full(count, 1e-4))
    unit = (cosine - truth) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(np.sqrt(np.mean(unit**2, axis=0)), 1.0, atol=0.1)
    np.testing.assert_array_less(np.abs(unit.mean(axis=0)), 3.5 / np.sqrt(count))
    assert np.mean(misfit) == pytest.approx(2 * len(lobe.whitener) - 4, abs=0.5)
    np.testing.assert_allclose(fitted, np.sum(np.abs(b) ** 2, axis=1) / 1e-4, rtol=0.15)


def test_full_lobe_alone_finds_what_a_whole_array_would() -> None:
    # four close squinted beams lose nothing (papers/001's optimal combiner): the bound of 256 digital elements at the centre
    lobe = lobe_of(squinted(0.1))
    snr, z = 1e4, (lobe.projection @ at(ARRAY, POINTING))[None]
    variance = np.array([np.sum(np.abs(z) ** 2) / snr])
    covariance = find_directions(lobe, z, variance)[1]
    digital = 1 / (2 * snr * (np.pi**2 * 255 / 12))
    np.testing.assert_allclose(np.diag(covariance[0]), digital, rtol=2e-3)


def test_chains_that_fit_no_direction_say_so() -> None:
    lobe = lobe_of(squinted(0.25))
    rng = np.random.default_rng(11)
    anything = rng.standard_normal((20, 4)) + 1j * rng.standard_normal((20, 4))
    _, wide, misfit, _ = find_directions(lobe, anything, np.full(20, 1e-4))
    assert np.median(misfit) > 100
    true = (lobe.projection @ at(ARRAY, POINTING + 0.3 * NULL))[None]
    cosine, narrow, fit, _ = find_directions(lobe, true / np.linalg.norm(true), np.array([1e-4]))
    assert fit[0] < 1e-3
    np.testing.assert_allclose(cosine[0], POINTING + 0.3 * NULL, atol=1e-5)
    assert np.median(wide[:, 0, 0]) > 5 * narrow[0, 0, 0]


def test_one_chain_or_a_line_say_what_they_do_not_know() -> None:
    lobe = lobe_of(squinted(0.25)[:, :1])
    cosine, covariance, _, _ = find_directions(lobe, np.ones((1, 1), complex), np.array([1e-3]))
    np.testing.assert_allclose(cosine[0], lobe.centre, atol=0.3 * NULL)
    np.testing.assert_allclose(np.diag(covariance[0]), lobe.width**2 / 3, rtol=1e-6)
    line = Ula(16).build(CARRIER, np.zeros(3), np.eye(3))
    outputs = np.array([at(line, np.array([u, 0.0])).conj() for u in (-0.05, 0.0, 0.05)]).T / 4
    lobe = lobe_of(outputs, line)
    z = (lobe.projection @ at(line, np.array([0.02, 0.0])))[None]
    cosine, covariance, _, _ = find_directions(lobe, z, np.array([1e-4]))
    assert cosine[0, 0] == pytest.approx(0.02, abs=1e-6)
    assert covariance[0, 1, 1] == pytest.approx(lobe.width[1] ** 2 / 3, rel=1e-3)
    assert covariance[0, 0, 0] < 1e-6


def test_elements_off_the_plane_take_the_general_gradient() -> None:
    moved = ARRAY.position_m.copy()
    bent = replace(ARRAY, position_m=moved, columns=0, rows=0)
    flat = lobe_of(squinted(0.25, bent), bent)
    moved[:, 0] = 0.2e-3 * np.sin(np.arange(256))
    curved_array = replace(bent, position_m=moved)
    curved = lobe_of(squinted(0.25, curved_array), curved_array)
    assert flat.slopes is not None
    assert curved.slopes is None
    truth = POINTING + 0.2 * NULL
    for lobe, array in ((flat, bent), (curved, curved_array)):
        z = (lobe.projection @ at(array, truth))[None]
        np.testing.assert_allclose(find_directions(lobe, z, np.array([1e-6]))[0][0], truth, atol=1e-6)


def test_a_dark_slot_has_no_lobe() -> None:
    with pytest.raises(Misuse, match="dark"):
        main_lobe(ARRAY, np.zeros((256, 4), complex), np.eye(4), CARRIER)


def test_a_grid_and_the_same_elements_in_no_order_agree() -> None:
    rng = np.random.default_rng(9)
    free = replace(ARRAY, columns=0, rows=0, spacing_m=0.0)
    planar, general = lobe_of(squinted(0.25)), lobe_of(squinted(0.25, free), free)
    np.testing.assert_allclose(planar.centre, general.centre, atol=1e-6)
    np.testing.assert_allclose(planar.manifold.shape, general.manifold.shape)
    truth = POINTING + rng.uniform(-0.6, 0.6, (12, 2)) * NULL
    z = np.array([planar.projection @ at(ARRAY, t) for t in truth]) / 16
    z = z + 0.01 * (rng.standard_normal(z.shape) + 1j * rng.standard_normal(z.shape))
    for i in range(len(z)):  # one by one: the general search ends all its starts together
        ours = find_directions(planar, z[i : i + 1], np.full(1, 2e-4))
        plain = find_directions(replace(planar, array=free), z[i : i + 1], np.full(1, 2e-4))
        deviation = np.sqrt(np.diagonal(plain[1][0]))
        assert np.all(np.abs(ours[0][0] - plain[0][0]) < 0.05 * deviation)
        np.testing.assert_allclose(ours[1], plain[1], rtol=0.02, atol=0.02 * plain[1].max())
        np.testing.assert_allclose(ours[3], plain[3], rtol=1e-3)
