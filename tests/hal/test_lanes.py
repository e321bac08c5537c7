"""Waves against NumPy's own transforms, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.lanes import LANES, added, packed, transform, unpacked


def frames(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 19), rows=st.integers(1, 3), size=st.sampled_from([1, 7, 64, 65, 130]))
def test_frames_come_back_as_they_went(count: int, rows: int, size: int) -> None:
    samples = frames(size, count, rows, size)
    waves = packed(samples)
    assert waves.shape == (rows, -(-count // LANES), 2, size, LANES)
    assert np.array_equal(unpacked(waves, count), samples)
    assert np.sum(waves.astype(float) ** 2) == pytest.approx(np.sum(np.abs(samples.astype(complex)) ** 2))


@pytest.mark.parametrize("size", [4, 8, 32, 60, 1024])  # a radix 2 stage, none, and a length that is no power of two
def test_transforms_are_numpy_s(size: int) -> None:
    samples = frames(1, 11, 2, size)
    waves, fourier = packed(samples), transform(size)
    fourier.forward(waves)
    exact = np.fft.fft(samples.astype(complex))[..., fourier.order]
    np.testing.assert_allclose(unpacked(waves, 11), exact, atol=2e-6 * np.abs(exact).max())
    fourier.backward(waves)
    np.testing.assert_allclose(unpacked(waves, 11) / size, samples, atol=1e-5)


def test_a_frame_does_not_depend_in_any_bit_on_its_neighbours() -> None:
    samples, fourier = frames(2, 8, 1, 256), transform(256)
    together = packed(samples)
    fourier.forward(together)
    for lane in range(LANES):
        alone = packed(samples[lane : lane + 1])
        fourier.forward(alone)
        assert unpacked(alone, 1)[0].tobytes() == unpacked(together, 8)[lane].tobytes()


def test_turning_is_a_product_sample_by_sample() -> None:
    samples, by = frames(3, 3, 4, 48), frames(4, 2, 48)
    waves = packed(samples)
    transform(48).turn(waves, by)
    np.testing.assert_allclose(unpacked(waves, 3), samples * by[[0, 1, 0, 1]], rtol=1e-5, atol=1e-6)


def test_added_waves_are_the_weighted_sum_lane_by_lane() -> None:
    samples, weight = frames(5, LANES, 3, 100), frames(6, 3, 2, LANES)
    out = np.ones((2, 2 * 100 * LANES), dtype=np.float32)
    added(packed(samples).reshape(3, -1), np.stack([weight.real, weight.imag], axis=2), out)
    expected = np.einsum("sol,lsq->loq", weight, samples) + (1 + 1j)
    np.testing.assert_allclose(unpacked(out.reshape(2, 1, 2, 100, LANES), LANES), expected, atol=1e-5)
