import array_api_strict
import numpy as np
import pytest

from twin.physics.rate import matched_filter_rate_bps, rate_bps, snr, spectral_efficiency


@pytest.fixture
def link():
    rng = np.random.default_rng(0)
    h = (rng.normal(size=(3, 8, 5)) + 1j * rng.normal(size=(3, 8, 5))) * 1e-5
    return h, rng.uniform(0.01, 0.2, (3, 8)), 3e-12


def test_rate_by_hand():
    h = np.array([1.0, 1j, 0.0])
    # SNR 1, 3 and 0: 1 + 2 + 0 bits
    np.testing.assert_allclose(snr(h, np.array([1.0, 3.0, 9.0]), 1.0), [1, 3, 0])
    assert rate_bps(h, np.array([1.0, 3.0, 9.0]), 1.0, 250e6) == pytest.approx(750e6, rel=1e-14)
    assert spectral_efficiency(h, np.array([1.0, 3.0, 9.0]), 1.0) == pytest.approx(1.0, rel=1e-14)


def test_rate_is_one_loop(link):
    h, power, noise = link
    h = h[..., 0]
    expected = [sum(250e6 * np.log2(1 + abs(h[i, m]) ** 2 * power[i, m] / noise) for m in range(8)) for i in range(3)]
    np.testing.assert_allclose(rate_bps(h, power, noise, 250e6), expected, rtol=1e-12)
    np.testing.assert_allclose(spectral_efficiency(h, power, noise) * 8 * 250e6, expected, rtol=1e-12)


def test_a_faint_link_keeps_its_digits():
    # log2(1 + x) would give 0 here
    assert rate_bps(np.array([1e-10 + 0j]), 1.0, 1.0, 1.0) == pytest.approx(1e-20 / np.log(2), rel=1e-12)


def test_matched_filter_bounds_every_beam_and_is_reached(link):
    h, power, noise = link
    bound = matched_filter_rate_bps(h, power, noise, 250e6)
    rng = np.random.default_rng(1)
    for _ in range(50):
        beam = rng.normal(size=h.shape) + 1j * rng.normal(size=h.shape)
        beam /= np.linalg.norm(beam, axis=-1, keepdims=True)
        assert np.all(rate_bps((h * beam).sum(-1), power, noise, 250e6) < bound)
    matched = h.conj() / np.linalg.norm(h, axis=-1, keepdims=True)
    np.testing.assert_allclose(rate_bps((h * matched).sum(-1), power, noise, 250e6), bound, rtol=1e-12)


def test_every_namespace_gives_the_same(link):
    h, power, noise = link
    torch = pytest.importorskip("torch")
    for f, c in ((rate_bps, h[..., 0]), (matched_filter_rate_bps, h)):
        expected = f(c, power, noise, 250e6)
        assert isinstance(expected, np.ndarray)
        strict = f(array_api_strict.asarray(c), array_api_strict.asarray(power), noise, 250e6)
        np.testing.assert_allclose(np.asarray(strict), expected, rtol=1e-14)
        got = f(torch.asarray(c), torch.asarray(power), noise, 250e6)
        assert isinstance(got, torch.Tensor)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14)


def test_gradients_even_of_a_channel_that_is_zero():
    torch = pytest.importorskip("torch")
    h = torch.tensor([0.3 + 0.4j, 0.0 + 0.0j, -1.0j], dtype=torch.complex128, requires_grad=True)
    p = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, p: rate_bps(h, p, 0.1, 2.0), (h, p))
    rate_bps(h, p, 0.1, 2.0).backward()
    assert torch.isfinite(torch.view_as_real(h.grad)).all()
