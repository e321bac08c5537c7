"""Ageing laws against closed forms, and drawn processes against the correlation they were asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import j0

from hal.errors import Misuse
from twin.physics.aging import aged_gains, ageing, geometric, one_ring_doppler, rho_of_speed, speed_of_rho


def test_laws_meet_at_the_first_lag_only():
    # papers/004: rho_1 = 0.98; at lags 8 and 16 the two laws have nothing in common
    doppler = np.array([645.0])
    jakes = ageing("jakes", 17, 70e-6, doppler)[0]
    steady = ageing("geometric", 17, 70e-6, doppler, rho_1=np.array([0.98]))[0]
    assert jakes[1] == pytest.approx(0.98, abs=5e-4)
    assert steady[[8, 16]] == pytest.approx([0.851, 0.724], abs=1e-3)
    assert jakes[[8, 16]] == pytest.approx([0.072, -0.312], abs=5e-3)


@pytest.mark.parametrize("heading", [0.0, 0.4, np.pi / 2])
@pytest.mark.parametrize("x", [0.0, 0.3, 4.0, 40.0])
def test_one_ring_is_its_integral(x, heading):
    def part(b):
        return abs(np.cos(b)) / 4 * np.cos(x * np.cos(b - heading))

    whole = sum(quad(part, a, a + np.pi / 2, limit=200, epsabs=1e-13)[0] for a in np.arange(4) * np.pi / 2 - np.pi / 2)
    assert one_ring_doppler(1.0, x / (2 * np.pi), heading) == pytest.approx(whole, abs=1e-11)


def test_across_the_line_of_sight_it_is_a_sinc_and_not_jakes():
    x = np.linspace(0.1, 30, 50)
    found = one_ring_doppler(1.0, x / (2 * np.pi), np.pi / 2)
    np.testing.assert_allclose(found, np.sin(x) / x, atol=1e-13)
    assert np.max(np.abs(found - j0(x))) > 0.1


@given(st.floats(0, 80), st.floats(1e9, 3e11), st.floats(1e-6, 1e-3))
def test_a_users_a_follows_its_speed(speed, carrier, block_s):
    rho = float(rho_of_speed(speed, carrier, block_s))
    assert 0 <= rho <= 1
    if 0.01 < rho < 0.999999:
        back = speed_of_rho(rho, carrier, block_s)
        assert float(rho_of_speed(back, carrier, block_s)) == pytest.approx(rho, abs=1e-9)


def test_speed_of_the_paper():
    assert speed_of_rho(0.98, 5.9e9, 70e-6) == pytest.approx(33, abs=0.5)


@pytest.mark.parametrize("law", ["geometric", "jakes", "one_ring"])
def test_draws_have_the_correlation_at_every_lag(law):
    # a recursion fitted to the first lags passes there and fails at the later ones
    blocks, draws = 12, 40_000
    rho = ageing(law, blocks, 70e-6, np.array([900.0]))[0]
    rng = np.random.default_rng(4)
    white = (rng.standard_normal((blocks, draws)) + 1j * rng.standard_normal((blocks, draws))) / np.sqrt(2)
    gains = aged_gains(white, rho)
    found = (gains @ gains.conj().T / draws).real
    lag = np.abs(np.subtract.outer(np.arange(blocks), np.arange(blocks)))
    np.testing.assert_allclose(found, rho[lag], atol=5 / np.sqrt(draws))
    exact = aged_gains(np.eye(blocks), rho)
    np.testing.assert_allclose(exact @ exact.T, rho[lag], atol=1e-7)


def test_bad_input_is_named():
    with pytest.raises(Misuse, match=r"rho_1 = 1\.2.*\[0, 1\]"):
        geometric(1.2, 3)
    with pytest.raises(Misuse, match="law = 'clarke': must be one of geometric, jakes, one_ring"):
        ageing("clarke", 3, 1.0, np.ones(1))
    with pytest.raises(Misuse, match="block_s = nan"):
        ageing("jakes", 3, float("nan"), np.ones(1))
    with pytest.raises(Misuse, match="no process has this correlation"):
        aged_gains(np.ones((3, 1)), np.array([1.0, 0.9, -0.9]))
    with pytest.raises(Misuse, match="has 1 lags"):
        aged_gains(np.ones((3, 1)), np.ones(1))
