"""The tracker's compiled arithmetic beside the same mathematics in NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import rotation_from
from twin.physics.motion import carry, expect
from twin.tracking._kernels import compare, correct, gains_db, images

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(0, 5)


def spread_of(rng, count, size, scale=1.0):
    """Random covariances, none of them near singular."""
    root = rng.normal(size=(count, size, size))
    return scale * (root @ root.swapaxes(1, 2) + 0.1 * np.eye(size))


def tracks_of(rng, count):
    return rng.uniform([5, -40, -5, -20, -20, -2], [100, 40, 5, 20, 20, 2], (count, 6)), spread_of(rng, count, 6)


@settings(max_examples=30, deadline=None)
@given(SEEDS, COUNTS, st.floats(-0.1, 0.1))
def test_carried_is_f_p_f_plus_q(seed, count, step_s):
    rng = np.random.default_rng(seed)
    state, covariance = tracks_of(rng, count)
    density = rng.uniform(0, 5, 3)
    f = np.eye(6) + step_s * np.eye(6, k=3)
    q = np.kron([[step_s**3 / 3, step_s**2 / 2], [step_s**2 / 2, step_s]], np.diag(density))
    wanted = state @ f.T, f @ covariance @ f.T + q
    carry(state, covariance, step_s, density)
    np.testing.assert_allclose(state, wanted[0], **CLOSE)
    np.testing.assert_allclose(covariance, wanted[1], **CLOSE)


@settings(max_examples=30, deadline=None)
@given(SEEDS, COUNTS, st.floats(0, 2))
def test_expected_by_the_definitions(seed, count, apart_m):
    rng = np.random.default_rng(seed)
    state, covariance = tracks_of(rng, count)
    rotation, receive_m, transmit_m = (
        rotation_from(0.4, 0.2),
        np.array([1.0, -2.0, 10.0]),
        np.array([1.0, apart_m, 10.0]),
    )
    expected, slope, ux, spread = expect(state, covariance, rotation, receive_m, transmit_m)
    velocity = state[:, 3:]
    unit, distance = [], []
    for origin_m in (receive_m, transmit_m):
        vector = state[:, :3] - origin_m
        distance.append(np.linalg.norm(vector, axis=1))
        unit.append(vector / distance[-1][:, None])
    turned, away = unit[0] @ rotation, (unit[0] + unit[1]) / 2
    np.testing.assert_allclose(ux, turned[:, 0], **CLOSE)
    told = np.column_stack([turned[:, 1:], np.mean(distance, axis=0), -np.sum(away * velocity, axis=1)])
    np.testing.assert_allclose(expected, told, **CLOSE)
    across = sum(
        (np.eye(3) - u[:, :, None] * u[:, None]) / (2 * r[:, None, None]) for u, r in zip(unit, distance, strict=True)
    )
    off = (np.eye(3) - unit[0][:, :, None] * unit[0][:, None]) / distance[0][:, None, None]
    wanted = np.zeros((count, 4, 6))
    wanted[:, :2, :3] = (off @ rotation)[:, :, 1:].swapaxes(1, 2)
    wanted[:, 2, :3], wanted[:, 3, 3:] = away, -away
    wanted[:, 3, :3] = -(across @ velocity[:, :, None])[:, :, 0]
    np.testing.assert_allclose(slope, wanted, **CLOSE)
    np.testing.assert_allclose(spread, wanted @ covariance @ wanted.swapaxes(1, 2), **CLOSE)


@settings(max_examples=30, deadline=None)
@given(SEEDS, COUNTS, COUNTS)
def test_distances_are_those_of_a_solver(seed, tracks, detections):
    rng = np.random.default_rng(seed)
    value, expected = rng.normal(size=(detections, 4)), rng.normal(size=(tracks, 4))
    noise, spread = spread_of(rng, detections, 4), spread_of(rng, tracks, 4)
    total, gap = spread[:, None] + noise, value - expected[:, None]
    whole, size, late = compare(value, noise, expected, spread)
    solved = np.linalg.solve(total, gap[..., None])[..., 0]
    np.testing.assert_allclose(whole, np.sum(gap * solved, axis=-1), **CLOSE)
    np.testing.assert_allclose(size, np.linalg.slogdet(total)[1], **CLOSE)
    solved = np.linalg.solve(total[..., 2:, 2:], gap[..., 2:, None])[..., 0]
    np.testing.assert_allclose(late, np.sum(gap[..., 2:] * solved, axis=-1), **CLOSE)


@settings(max_examples=30, deadline=None)
@given(SEEDS, COUNTS, st.integers(1, 4))
def test_correction_is_the_kalman_update(seed, count, values):
    rng = np.random.default_rng(seed)
    state, covariance = tracks_of(rng, count + 1)
    track = rng.permutation(count + 1)[:count]
    innovation, slope, noise = (
        rng.normal(size=(count, values)),
        rng.normal(size=(count, values, 6)),
        spread_of(rng, count, values),
    )
    wanted, posterior = state.copy(), covariance.copy()
    cross = slope @ covariance[track]
    gain = np.linalg.solve(cross @ slope.swapaxes(1, 2) + noise, cross).swapaxes(1, 2)
    wanted[track] += (gain @ innovation[..., None])[..., 0]
    posterior[track] -= gain @ cross  # the short form
    correct(state, covariance, track, innovation, slope, noise)
    np.testing.assert_allclose(state, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(covariance, posterior, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(covariance, covariance.swapaxes(1, 2))


@settings(max_examples=30, deadline=None)
@given(SEEDS, COUNTS, st.sampled_from([(1, False), (2, False), (2, True)]), st.integers(1, 4))
def test_gains_of_a_stream_through_both_halves(seed, items, sending, heard_chains):
    chains, together = sending
    rng = np.random.default_rng(seed)
    out, back = (rng.normal(size=(items, n)) + 1j * rng.normal(size=(items, n)) for n in (chains, heard_chains))
    sent, heard = rng.integers(1, 256, chains), rng.integers(1, 256, heard_chains)
    gain_db, pointed_db = gains_db(out, back, sent, heard, together)
    if together:
        power = np.abs(out.sum(axis=1)) ** 2 / chains
        share = power / sent.sum()
    else:
        power, share = (np.abs(out) ** 2).max(axis=1), (np.abs(out) ** 2 / sent).max(axis=1)
    np.testing.assert_allclose(gain_db, 10 * np.log10(power * (np.abs(back) ** 2).sum(axis=1)), **CLOSE)
    np.testing.assert_allclose(pointed_db, 10 * np.log10(share * (np.abs(back) ** 2 / heard).max(axis=1)), **CLOSE)
    dark = gains_db(0 * out, back, sent, heard, together)
    assert np.all(dark[0] == -300)
    assert np.all(np.isneginf(dark[1]))


@settings(max_examples=60, deadline=None)
@given(SEEDS, COUNTS, COUNTS, st.integers(1, 3))
def test_images_pass_every_test_at_once(seed, tracks, detections, chains):
    rng = np.random.default_rng(seed)
    late, above_db = rng.uniform(0, 2, (tracks, detections)), rng.uniform(-12, 12, (tracks, detections))
    value, expected = rng.uniform(-0.2, 0.2, (detections, 4)), rng.uniform(-0.2, 0.2, (tracks, 4))
    back = rng.normal(size=(detections + tracks, chains)) + 1j * rng.normal(size=(detections + tracks, chains))
    origin = rng.random((tracks, detections)) < 0.8
    here, there = back[:detections], back[detections:]
    size = np.sum(np.abs(there) ** 2, axis=1)[:, None] * np.sum(np.abs(here) ** 2, axis=1)
    alike = np.abs(there.conj() @ here.T) ** 2 / size
    apart = np.any(np.abs(value[:, :2] - expected[:, None, :2]) > (0.1, 0.2), axis=2)
    wanted = origin & (late <= 1.5) & (np.abs(above_db) <= 8) & apart & (alike >= 0.5)
    image = images(late, 1.5, above_db, 8.0, value, expected, (0.1, 0.2), back, 0.5, origin)
    np.testing.assert_array_equal(image, wanted.any(axis=0))
