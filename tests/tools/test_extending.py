"""The parts of docs/extending.md that are written by a user: each does what it says, and plays its role in a run."""

from pathlib import Path

import numpy as np
import pytest

from hal.array import steering
from hal.network import response
from tools.examples.chirps import Afdm
from tools.examples.roundabout import Roundabout
from tools.examples.wide_beam import WideBeam
from twin import run
from twin.physics.draws import Draws
from twin.precoding import Problem
from twin.scenario import frontend_spec, load, numerology

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "scenarios" / "smoke.yaml"


@pytest.fixture(scope="module")
def smoke():
    return load(SMOKE)


def test_a_wider_beam_gives_at_the_peak_and_gains_beside_it(smoke):
    half, grid = frontend_spec(smoke, "bs0").transmit, numerology(smoke)
    angle = np.linspace(-0.3, 0.3, 61)
    directions = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    ahead = np.array([[1.0, 0.0, 0.0]])
    problem = Problem(
        half=half,
        frequency_hz=grid.subcarrier_hz,
        user_direction=ahead,
        user_gain=np.ones((1, len(grid.subcarrier_hz)), complex),
        target_direction=np.zeros((1, 0, 3)),
        target_gain=np.zeros((1, 0, len(grid.subcarrier_hz)), complex),
        power_w=1.0,
        noise_w=1e-12,
    )
    gains = []
    for turns in (0.0, 0.5):
        design = WideBeam(turns).design(problem)
        beam = response(half.network, design.delay_s, design.phase_rad, design.amplitude, np.array([grid.carrier_hz]))
        gains.append(np.abs(steering(half.array, directions, grid.carrier_hz) @ beam.ravel()) ** 2)
    pencil, wide = gains
    assert wide[30] < 0.8 * pencil[30]
    assert (wide > 0.5 * wide.max()).sum() > 1.4 * (pencil > 0.5 * pencil.max()).sum()


def test_a_bus_goes_around(smoke):
    law, draws = Roundabout(radius_m=12.0, speed_mps=6.0), Draws(3)
    state, t_ns = law.start(np.array([7]), draws), 0
    for k in range(1, 40):
        before, after = law.at(state, t_ns)[1], law.at(state, k * 250_000_000)[1]
        t_ns = k * 250_000_000
        away = after.position_m[0] - np.array(law.centre_m)
        assert np.hypot(*away[:2]) == pytest.approx(12)
        assert away @ after.velocity_mps[0] == pytest.approx(0, abs=1e-9)
        step = np.linalg.norm(after.position_m - before.position_m)
        assert step == pytest.approx(2 * 12 * np.sin(6.0 * 0.25 / 12 / 2))
    assert law.start(np.array([7]), Draws(3)) == state != law.start(np.array([7]), Draws(4))


def test_chirps_are_unitary_and_take_any_batch(smoke):
    grid = numerology(smoke)
    rng = np.random.default_rng(0)
    symbols = rng.normal(size=(3, 2, grid.delay_bins, grid.doppler_bins, 2)) @ np.array([1, 1j])
    samples = Afdm().modulate(symbols, grid)
    assert np.linalg.norm(samples) == pytest.approx(np.linalg.norm(symbols))
    assert np.allclose(Afdm().demodulate(samples, grid), symbols, atol=1e-12)
    assert np.allclose(Afdm().modulate(symbols[1, 1], grid), samples[1, 1], atol=1e-12)


def test_each_plays_its_role_in_a_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    plain = run(SMOKE, write=False).summary
    wide = run(SMOKE, {"precoder.kind": "tools.examples.wide_beam:WideBeam"}, write=False).summary
    assert 0 < wide["rate_gbps"] < plain["rate_gbps"]
    bus = '[{name: bus, mobility: {kind: "tools.examples.roundabout:Roundabout", centre_m: [40, 0, 1.5]}}]'
    round_about = run(SMOKE, {"users": bus, "targets": "[]"}, write=False)
    assert round_about.user == ("bus",)
    assert round_about.summary["sensing"]["detections"] > 0
    chirped = run(SMOKE, {"sensing.waveform.kind": "tools.examples.chirps:Afdm"}, write=False).summary
    assert chirped["sensing"]["detections"] == pytest.approx(plain["sensing"]["detections"], rel=0.2)
    assert chirped["sensing"]["rmse_over_bound"]["range_m"] < 2
    assert chirped["run"]["hash"] != plain["run"]["hash"]
