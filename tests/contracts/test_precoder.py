"""What every precoder keeps, whatever its kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import Upa, steering
from hal.frontend import HalfSpec
from hal.network import Network, quantise, response
from twin.precoding import Design, Precoder, Problem
from twin.registry import names, resolve

CARRIER = 100e9
FREQUENCY = CARRIER + 1e9 * (np.arange(8) - 3.5)
NETWORKS = {
    "delay_lines": Network(delay_lines=(2, 2)),
    "phases": Network(delay_lines=None),
    "continuous": Network(delay_lines=(2, 2), delay_bits=0, phase_bits=0),
}


def unit(uy, uz):
    return [np.sqrt(1 - uy * uy - uz * uz), uy, uz]


@pytest.fixture(params=names("twin.precoding"))
def precoder(request) -> Precoder:
    return resolve("twin.precoding", request.param)()  # every shipped kind has defaults for all its fields


@pytest.fixture(params=NETWORKS)
def problem(request) -> Problem:
    array = Upa(4, 4).build(CARRIER, np.zeros(3), np.eye(3))
    half = HalfSpec(array=array, network=NETWORKS[request.param].build(4, 4), memory_slots=8)
    gain = 1e-5 * np.exp(-2j * np.pi * (FREQUENCY - CARRIER) * 3e-9)
    return Problem(
        half=half,
        frequency_hz=FREQUENCY,
        user_direction=np.array([unit(0.2, -0.3), unit(-0.4, 0.1), unit(0.0, -0.2)]),
        user_gain=np.stack([gain, 0.3 * gain, 0 * gain]),  # the last row is a search beam
        target_direction=np.array([[unit(0.5, 0.0), unit(0.1, -0.3)]] * 3),
        target_gain=np.zeros((3, 2, 8), dtype=complex),  # nobody to light
        power_w=1.0,
        noise_w=1e-11,
    )


def lit(problem: Problem) -> Problem:
    """The same with targets: two for the first row, one and padding for the second, none for the search."""
    gain = np.zeros((3, 2, 8), dtype=complex)
    gain[0], gain[1, 0] = 1e-7, 3e-8j
    return replace(problem, target_gain=gain)


def user_gain(problem: Problem, design: Design) -> np.ndarray:
    """``|response^T a|^2`` of each row and subcarrier, as the machine would make it."""
    network = problem.half.network
    delay_s, phase_rad, amplitude, clipped = quantise(network, design.delay_s, design.phase_rad, design.amplitude)
    assert clipped == 0
    made = response(network, delay_s, phase_rad, amplitude, problem.frequency_hz)
    a = steering(problem.half.array, problem.user_direction[:, None, :], problem.frequency_hz[None, :])
    return np.abs(np.einsum("rmnc,rmn->rmc", made, a)[..., 0]) ** 2


@pytest.mark.parametrize("targets", [False, True])
def test_a_design_fits_the_machine_and_the_budget(precoder, problem, targets):
    problem = lit(problem) if targets else problem
    design = precoder.design(problem)
    network = problem.half.network
    chains, elements = network.wired.shape
    assert design.delay_s.shape == (3, chains, network.lines)
    assert design.phase_rad.shape == design.amplitude.shape == (3, chains, elements)
    assert design.power_w.shape == (3, 8)
    for value in (design.delay_s, design.phase_rad, design.amplitude, design.power_w):
        assert np.all(np.isfinite(value))
    assert np.all((design.amplitude >= 0) & (design.amplitude <= 1))
    assert np.all(design.power_w >= 0)
    np.testing.assert_allclose(design.power_w.sum(axis=1), problem.power_w, rtol=1e-6)
    user_gain(problem, design)  # nothing out of range


def test_with_nobody_to_light_the_beam_is_the_users(precoder, problem):
    gain = user_gain(problem, precoder.design(problem))
    assert np.all(gain.mean(axis=1) > 0.85 * 16)


def test_the_same_problem_has_the_same_answer(precoder, problem):
    one, two = precoder.design(lit(problem)), precoder.design(lit(problem))
    for name in ("delay_s", "phase_rad", "amplitude", "power_w"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_rows_do_not_depend_on_their_neighbours(precoder, problem):
    whole = precoder.design(problem)
    rows = [2, 0]
    part = replace(
        problem,
        user_direction=problem.user_direction[rows],
        user_gain=problem.user_gain[rows],
        target_direction=problem.target_direction[rows],
        target_gain=problem.target_gain[rows],
    )
    np.testing.assert_allclose(user_gain(part, precoder.design(part)), user_gain(problem, whole)[rows], rtol=0.02)
