"""Precoders against what they must maximise: dense determinants, exact splits, power."""

from __future__ import annotations

import numpy as np
import pytest

from hal.array import Upa, direction_from, steering
from hal.errors import Misuse
from twin.physics.hybrid_precoding import omp, pe_altmin, sensing_precoder, spectral_efficiency, svd_precoder

CARRIER = 0.3e12
ARRAY = Upa(8, 8).build(CARRIER, np.zeros(3), np.eye(3))


def channel(paths: int = 4) -> np.ndarray:
    rng = np.random.default_rng(2)
    leave = direction_from(rng.uniform(-1, 1, paths), rng.uniform(-0.5, 0.5, paths))
    come = direction_from(rng.uniform(-1, 1, paths), rng.uniform(-0.5, 0.5, paths))
    gain = rng.standard_normal(paths) + 1j * rng.standard_normal(paths)
    f = np.float64(CARRIER)
    return np.einsum("p,pr,pt->rt", gain, steering(ARRAY, come, f), steering(ARRAY, leave, f))


def test_the_sensing_precoder_sends_all_power_at_the_target():
    u = direction_from(0.3, -0.1)
    f = sensing_precoder(ARRAY, u, CARRIER, 0.1, 4)
    assert np.linalg.norm(f) ** 2 == pytest.approx(0.1)
    towards = steering(ARRAY, u, np.float64(CARRIER)) @ f
    assert np.sum(np.abs(towards) ** 2) == pytest.approx(0.1 * 64)  # P N_t, as one stream would


def test_spectral_efficiency_is_eq_47():
    h, rng = channel(), np.random.default_rng(0)
    f, w = (rng.standard_normal((64, 3)) + 1j * rng.standard_normal((64, 3)) for _ in range(2))
    noise = 0.7
    inside = np.linalg.inv(noise * w.conj().T @ w) @ w.conj().T @ h @ f @ f.conj().T @ h.conj().T @ w
    expected = np.log2(np.linalg.det(np.eye(3) + inside).real)
    assert spectral_efficiency(h, f, w, noise) == pytest.approx(expected, rel=1e-10)


def test_svd_beats_random_precoders_and_water_beats_equal_power():
    h, rng = channel(), np.random.default_rng(0)
    f, w = svd_precoder(h, 1.0, 4)
    assert np.linalg.norm(f) ** 2 == pytest.approx(1.0)
    best = spectral_efficiency(h, f, w, 1.0)
    for _ in range(20):
        other = rng.standard_normal((64, 4)) + 1j * rng.standard_normal((64, 4))
        assert spectral_efficiency(h, other / np.linalg.norm(other), w, 1.0) < best
    filled, _ = svd_precoder(h, 1.0, 4, noise_w=4e4)
    assert np.linalg.norm(filled) ** 2 == pytest.approx(1.0)
    assert spectral_efficiency(h, filled, w, 4e4) > spectral_efficiency(h, f, w, 4e4)


def test_splits_are_of_phase_shifters_and_keep_power_and_rate():
    h = channel()
    f, w = svd_precoder(h, 1.0, 4)
    axis = np.linspace(-0.97, 0.97, 33)
    cosine = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    cosine = cosine[np.sum(cosine**2, axis=1) < 0.97]
    ahead = np.column_stack([np.sqrt(1 - np.sum(cosine**2, axis=1)), cosine])
    dictionary = np.conj(steering(ARRAY, ahead, np.float64(CARRIER))).T
    whole = spectral_efficiency(h, f, w, 1.0)
    for split, share in ((pe_altmin(f, 8, np.random.default_rng(0)), 0.97), (omp(f, 8, dictionary), 0.95)):
        np.testing.assert_allclose(np.abs(split.analog), 1 / 8, rtol=1e-9)
        made = split.analog @ split.digital
        assert np.linalg.norm(made) ** 2 == pytest.approx(1.0)
        assert split.misfit == pytest.approx(np.linalg.norm(f - made), rel=1e-9)
        assert spectral_efficiency(h, made, w, 1.0) > share * whole
    u = direction_from(0.2, 0.1)
    exact = np.conj(steering(ARRAY, np.array([u, direction_from(-0.4, 0.0)]), np.float64(CARRIER))).T
    assert omp(exact, 2, np.column_stack([dictionary, exact])).misfit < 1e-9


def test_misuse_says_what_to_do():
    h = channel(2)
    with pytest.raises(Misuse, match=r"streams = 4: must be 1 .. 2, the rank"):
        svd_precoder(h, 1.0, 4)
    f, w = svd_precoder(h, 1.0, 2)
    with pytest.raises(Misuse, match=r"chains = 1: must be 2 .. 64"):
        pe_altmin(f, 1, np.random.default_rng(0))
    with pytest.raises(Misuse, match="dictionary: has 1 columns"):
        omp(f, 2, np.ones((64, 1)))
    with pytest.raises(Misuse, match="combiner: is singular"):
        spectral_efficiency(h, f, np.ones((64, 2)), 1.0)
    with pytest.raises(Misuse, match="power_w"):
        sensing_precoder(ARRAY, direction_from(0.0, 0.0), CARRIER, float("nan"), 1)
    assert w.shape == (64, 2)
