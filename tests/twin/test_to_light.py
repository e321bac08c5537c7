"""What a data row is asked to light beside its user: confirmed tracks, as strong as their echoes were; and last subframe's design to go on from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import LIGHT_MPS
from twin.build import run
from twin.control import MOST_TARGETS, Chain, to_light
from twin.precoding.direct import Direct
from twin.scenario import frontend_spec, load, numerology
from twin.tracking.ekf import Ekf


@pytest.fixture(scope="module")
def scenario():
    return load("scenarios/smoke.yaml", {"duration_s": 0.1})


@pytest.fixture
def tracks():
    state = np.zeros((6, 6))
    state[:, :3] = [[40, y, 1.5] for y in (0, 5, -5, 10, -10, 20)]
    ids = np.arange(6)
    confirmed = np.array([True] * 5 + [False])
    return replace(
        Ekf().start(),
        track=ids,
        state=state,
        covariance=np.zeros((6, 6, 6)) + np.eye(6),
        user=np.array([7, -1, -1, -1, -1, -1]),
        confirmed=confirmed,
        hits=ids,
        misses=ids,
        seen_ns=ids,
        strength_db=None,
    )


def test_confirmed_tracks_but_the_rows_own_user_nearest_first(scenario, tracks):
    spec, frame = frontend_spec(scenario, next(iter(scenario.sites))), numerology(scenario)
    ahead = np.array([[1.0, 0, 0]] * 3)
    direction, gain = to_light(tracks, ahead, np.array([7, 8, 7]), 2, spec, frame)
    assert direction.shape == (3, MOST_TARGETS, 3)
    assert np.count_nonzero(gain, axis=1).tolist() == [4, 4, 0]  # the third row carries no data
    np.testing.assert_allclose(np.abs(direction[0, :, 1]), np.abs(direction[0, :, 1])[[0, 0, 2, 2]])
    assert abs(direction[1, 0, 1]) < 1e-9  # user 7's own track may be lit for user 8, and is the nearest
    assert np.abs(direction[0, :, 1]).min() > 0.1
    # a square metre by the radar equation, lambda sqrt(1 m2) / ((4 pi)^1.5 r^2)
    place = tracks.state[1, :3] - spec.transmit.array.origin_m
    expected = LIGHT_MPS / spec.carrier_hz / ((4 * np.pi) ** 1.5 * (place @ place))
    np.testing.assert_allclose(gain[0, :2], expected, rtol=1e-9)


def test_the_amplitude_is_the_one_that_gave_the_echo(scenario):
    """Played: a mover's believed two-way amplitude is the radar equation's of its true cross section, to a few dB."""
    found = []
    plain = Chain._designed

    def spy(self, wanted, data_rows):
        tracks = self.belief.tracks
        if data_rows and tracks.confirmed.any():
            lit = to_light(
                tracks, wanted.transmit_direction, wanted.transmit_user, data_rows, self.spec, self.numerology
            )
            found.append((lit[0][0][lit[1][0] > 0], lit[1][0][lit[1][0] > 0]))
        return plain(self, wanted, data_rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "_designed", spy)
        run(replace(scenario, targets=scenario.targets), keep=False, write=False)
    assert found
    direction, gain = found[-1]
    van = np.array([40, 20, 1.5]) - [0, 0, 10]
    best = np.argmax(direction @ (van / np.linalg.norm(van)))
    expected = LIGHT_MPS / 100e9 * np.sqrt(20.0) / ((4 * np.pi) ** 1.5 * (van @ van))
    assert direction[best] @ (van / np.linalg.norm(van)) > 0.99
    assert 20 * abs(np.log10(gain[best] / expected)) < 4.0


def test_a_row_goes_on_from_its_own_last_design(scenario):
    seen = []

    class Spy(Direct):
        def design(self, problem):
            seen.append(problem)
            return super().design(problem)

    (name,) = scenario.sites
    site = scenario.sites[name]
    control = replace(site.control, precoding=Spy(budget_steps=4))
    run(replace(scenario, sites={name: replace(site, control=control)}), keep=False, write=False)
    assert seen[0].previous is None
    known = [p for p in seen if p.previous is not None]
    assert known
    for problem in known:
        np.testing.assert_array_equal(problem.previous.delay_s.shape[0], len(problem.user_direction))
        assert problem.receive is not None
        assert problem.echo_noise_w > 0
