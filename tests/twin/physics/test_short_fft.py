"""The compiled inverse FFT against NumPy's, at every length it takes and beside the library's batch."""

from __future__ import annotations

import numpy as np
import pytest

from hal.errors import Misuse
from twin.physics.short_fft import delayed, inverse_of


def complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("size", [4, 8, 512])
def test_it_is_the_inverse_fft(size):
    rng = np.random.default_rng(size)
    lines, by = complex_normal(rng, size).astype(np.complex64), complex_normal(rng, size)
    out = np.empty(size, np.complex64)
    inverse_of(size)(lines, by, out)
    expected = np.fft.ifft(lines * by)
    assert np.linalg.norm(out - expected) < 3e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((1, 1, 512), np.complex64), ((2, 3, 512), np.complex64), ((1, 1, 60), np.complex64), ((1, 2, 8), np.complex128)],
)
def test_few_or_many_frames_are_the_same(shape, kind):
    """Few and of a power of two go the compiled way, the others the library's: no caller may notice."""
    rng = np.random.default_rng(1)
    spectrum, value, slope = (
        complex_normal(rng, *shape).astype(kind),
        complex_normal(rng, shape[2]),
        complex_normal(rng, shape[2]),
    )
    got = delayed(spectrum, value, slope)
    assert got.dtype == kind
    expected = np.stack([np.fft.ifft(spectrum * value), np.fft.ifft(spectrum * slope)], axis=1)
    np.testing.assert_allclose(got, expected, atol=(1e-6 if kind == np.complex64 else 1e-13))


@pytest.mark.parametrize("size", [2, 12, 1000])
def test_other_lengths_are_refused(size):
    with pytest.raises(Misuse, match=f"size = {size}: must be a power of two, at least 4"):
        inverse_of(size)
