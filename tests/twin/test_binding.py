from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Upa, rotation_from
from hal.errors import Misuse
from twin.binding import bind, start, track_cosines
from twin.records import Tracks

ARRAY = Upa(8, 8).build(100e9, np.array([0.0, 0.0, 10.0]), rotation_from(0.3, 0.2))
SIGMA = 0.004


def placed(cosines, track=None, range_m=50.0, sigma_m=0.1, confirmed=True):
    """Tracks seen from the array at the given direction cosines."""
    cosines = np.asarray(cosines, dtype=float).reshape(-1, 2)
    n = len(cosines)
    u = np.column_stack([np.sqrt(1 - (cosines**2).sum(axis=1)), cosines])
    position = ARRAY.origin_m + np.asarray(range_m) * np.ones((n, 1)) * (u @ ARRAY.rotation.T)
    return Tracks(
        t_ns=0,
        track=np.arange(n) if track is None else np.asarray(track),
        state=np.column_stack([position, np.zeros((n, 3))]),
        covariance=np.broadcast_to(np.diag([sigma_m**2] * 3 + [1.0] * 3), (n, 6, 6)),
        user=np.full(n, -1),
        confirmed=np.full(n, confirmed),
        hits=np.full(n, 9),
        misses=np.zeros(n, dtype=int),
        seen_ns=np.zeros(n, dtype=int),
    )


def said(cosines, user, sigma=SIGMA):
    cosines = np.asarray(cosines, dtype=float).reshape(-1, 2)
    return np.asarray(user), cosines, np.broadcast_to(np.eye(2) * sigma**2, (len(cosines), 2, 2))


def settled(tracks, pilots, calls=4, memory=None, **options):
    memory = start() if memory is None else memory
    for _ in range(calls):
        tracks, memory = bind(tracks, *pilots, ARRAY, memory, **options)
    return tracks, memory


def test_track_cosines_follow_a_difference_quotient():
    tracks = placed([[0.2, -0.1], [-0.5, 0.3]], range_m=np.array([[20.0], [90.0]]))
    root = np.random.default_rng(0).normal(size=(2, 6, 6))
    tracks = replace(tracks, covariance=root @ np.swapaxes(root, 1, 2))
    cosines, covariance, ahead = track_cosines(tracks, ARRAY)
    np.testing.assert_allclose(cosines, [[0.2, -0.1], [-0.5, 0.3]], atol=1e-12)
    assert ahead.all()
    for i in range(2):
        slope = np.zeros((2, 3))
        for axis in range(3):
            step = np.zeros(3)
            step[axis] = 1e-4
            ends = []
            for sign in (1, -1):
                v = ARRAY.rotation.T @ (tracks.state[i, :3] + sign * step - ARRAY.origin_m)
                ends.append(v[1:] / np.linalg.norm(v))
            slope[:, axis] = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose(covariance[i], slope @ tracks.covariance[i, :3, :3] @ slope.T, rtol=1e-6)


def test_users_get_the_track_in_their_direction_after_patience():
    tracks, pilots = placed([[0.1, 0.0], [0.3, 0.0], [-0.2, 0.1]]), said([[0.301, 0.002], [0.099, 0.0]], [7, 9])
    early, memory = settled(tracks, pilots, calls=3)
    assert list(early.user) == [-1, -1, -1]
    bound, memory = settled(tracks, pilots, calls=1, memory=memory)
    assert list(bound.user) == [9, 7, -1]
    assert (memory.swaps, memory.rebindings) == (0, 0)


def test_assignment_is_over_all_users_at_once():
    # nearest first would give user 1 track 1 and leave user 2 with one far off its angle
    tracks = placed([[0.100, 0.0], [0.112, 0.0]])
    pilots = said([[0.108, 0.0], [0.116, 0.0]], [1, 2])
    bound, _ = settled(tracks, pilots, margin=0.0)
    assert list(bound.user) == [1, 2]


def test_a_single_bad_angle_does_not_move_a_binding():
    tracks = placed([[0.1, 0.0], [0.13, 0.0]])
    bound, memory = settled(tracks, said([[0.1, 0.0]], [1]))
    for bad in ([0.13, 0.0], [0.1, 0.0], [0.13, 0.0], [0.5, 0.5], [0.13, 0.0], [0.1, 0.0]):
        bound, memory = bind(tracks, *said([bad], [1]), ARRAY, memory)
        assert list(bound.user) == [1, -1]
    assert memory.swaps == 0


def test_a_lasting_better_answer_is_one_swap():
    tracks = placed([[0.1, 0.0], [0.13, 0.0]])
    bound, memory = settled(tracks, said([[0.1, 0.0]], [1]))
    bound, memory = settled(tracks, said([[0.13, 0.0]], [1]), calls=10, memory=memory)
    assert list(bound.user) == [-1, 1]
    assert (memory.swaps, memory.rebindings) == (1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_make_bindings_flip_flop(seed):
    # tracks 2.5 sigma apart: the nearest one changes all the time, the binding must not
    rng, memory, flips, nearest = np.random.default_rng(seed), start(), 0, []
    tracks = placed([[0.1, 0.0], [0.115, 0.0]])
    pilots = said([[0.1, 0.0], [0.115, 0.0]], [1, 2])
    bound, memory = settled(tracks, pilots, margin=3.0)
    assert list(bound.user) == [1, 2]
    for _ in range(400):
        noisy = pilots[1] + SIGMA * rng.normal(size=(2, 2))
        nearest.append(np.argmin(np.abs(noisy[0, 0] - np.array([0.1, 0.115]))))
        bound, memory = bind(tracks, pilots[0], noisy, pilots[2], ARRAY, memory)
        flips += list(bound.user) != [1, 2]
    assert np.count_nonzero(np.diff(nearest)) > 5  # what a memoryless rule would do
    assert flips == 0
    assert memory.swaps == 0


def test_two_users_may_exchange_tracks_but_never_share_one():
    tracks = placed([[0.1, 0.0], [0.14, 0.0]])
    bound, memory = settled(tracks, said([[0.1, 0.0], [0.14, 0.0]], [1, 2]))
    bound, memory = settled(tracks, said([[0.14, 0.0], [0.1, 0.0]], [1, 2]), calls=4, memory=memory)
    assert list(bound.user) == [2, 1]
    assert memory.swaps == 2


def test_a_dead_track_unbinds_at_once_and_coming_back_is_counted():
    both = placed([[0.1, 0.0], [0.3, 0.0]])
    pilots = said([[0.1, 0.0], [0.3, 0.0]], [1, 2])
    bound, memory = settled(both, pilots)
    bound, memory = bind(placed([[0.3, 0.0]], track=[1]), *pilots, ARRAY, memory)
    assert list(bound.user) == [2]
    assert list(memory.track) == [-1, 1]
    bound, memory = settled(placed([[0.3, 0.0], [0.1, 0.0]], track=[1, 5]), pilots, memory=memory)
    assert list(bound.user) == [2, 1]
    assert (memory.swaps, memory.rebindings) == (0, 1)


def test_a_binding_that_leaves_the_gate_ends_after_patience():
    tracks = placed([[0.1, 0.0]])
    bound, memory = settled(tracks, said([[0.1, 0.0]], [1]))
    away = said([[0.2, 0.0]], [1])
    bound, memory = settled(tracks, away, calls=3, memory=memory)
    assert list(bound.user) == [1]
    bound, memory = settled(tracks, away, calls=1, memory=memory)
    assert list(bound.user) == [-1]
    assert memory.lost[0]
    bound, memory = settled(tracks, said([[0.1, 0.0]], [1]), memory=memory)
    assert (list(bound.user), memory.rebindings, memory.swaps) == ([1], 1, 0)


def test_no_new_binding_to_unconfirmed_ambiguous_or_ill_known_directions():
    assert list(settled(placed([[0.1, 0.0]], confirmed=False), said([[0.1, 0.0]], [1]))[0].user) == [-1]
    one_behind_the_other = placed([[0.1, 0.0], [0.101, 0.0]], range_m=np.array([[40.0], [70.0]]))
    assert list(settled(one_behind_the_other, said([[0.1, 0.0]], [1]))[0].user) == [-1, -1]
    assert list(settled(placed([[0.1, 0.0]]), said([[0.1, 0.0]], [1], sigma=0.05))[0].user) == [-1]


def test_users_come_and_go():
    tracks = placed([[0.1, 0.0], [0.3, 0.0]])
    bound, memory = settled(tracks, said([[0.1, 0.0], [0.3, 0.0]], [1, 2]))
    bound, memory = bind(tracks, *said([[0.3, 0.0]], [2]), ARRAY, memory)
    assert list(bound.user) == [-1, 2]
    bound, memory = settled(tracks, said([[0.1, 0.0], [0.3, 0.0]], [0, 2]), memory=memory)
    assert list(bound.user) == [0, 2]
    assert memory.rebindings == 0
    bound, memory = bind(tracks, *said(np.zeros((0, 2)), np.zeros(0, dtype=int)), ARRAY, memory)
    assert list(bound.user) == [-1, -1]
    bound, memory = bind(placed(np.zeros((0, 2))), *said([[0.1, 0.0]], [1]), ARRAY, memory)
    assert len(bound.user) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5), st.integers(0, 5))
def test_bindings_are_always_one_to_one_and_of_known_users(seed, users, count):
    rng, memory = np.random.default_rng(seed), start()
    swaps = 0
    for _ in range(12):
        ids = np.sort(rng.choice(20, count, replace=False))
        tracks = placed(rng.uniform(-0.02, 0.02, (count, 2)), track=ids)
        user = np.sort(rng.choice(8, users, replace=False))
        bound, memory = bind(
            tracks, *said(rng.uniform(-0.02, 0.02, (users, 2)), user), ARRAY, memory, patience=2, margin=1.0
        )
        named = bound.user[bound.user >= 0]
        assert len(np.unique(named)) == len(named)
        assert set(named) <= set(user)
        for u, t in zip(memory.user, memory.track, strict=True):
            assert t < 0 or bound.user[np.flatnonzero(bound.track == t)[0]] == u
        assert memory.swaps >= swaps
        swaps = memory.swaps


def test_misuse_is_named():
    with pytest.raises(Misuse, match="cosines"):
        bind(placed([[0.1, 0.0]]), np.array([1]), np.zeros((1, 3)), np.zeros((1, 2, 2)), ARRAY, start())
