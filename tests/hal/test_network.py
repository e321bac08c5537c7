"""Wiring, quantisation and response against brute force written out element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.errors import Misuse
from hal.network import Network, NetworkSpec, quantise, response

FREQUENCY_HZ = 100e9 + 0.25e9 * (np.arange(5) - 2)


def draw(spec: NetworkSpec, rng: np.random.Generator, *batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chains, elements = spec.wired.shape
    return (
        rng.uniform(0, spec.delay_range_s, (*batch, chains, spec.lines)),
        rng.uniform(-9, 9, (*batch, chains, elements)),
        rng.uniform(0, 1, (*batch, chains, elements)),
    )


def by_hand(spec, delay_s, phase_rad, amplitude, frequency_hz):
    chains, elements = spec.wired.shape
    out = np.zeros((len(frequency_hz), elements, chains), dtype=complex)
    for m, f in enumerate(frequency_hz):
        for n in range(elements):
            for c in range(chains):
                if spec.wired[c, n]:
                    delay = delay_s[c, spec.line[n]] if spec.lines else 0.0
                    w = amplitude[c, n] * np.exp(1j * phase_rad[c, n]) * np.exp(-2j * np.pi * f * delay)
                    out[m, n, c] = w / np.sqrt(spec.wired[c].sum()) / 10 ** (spec.loss_db / 20)
    return out


NETWORKS = {
    "papers/000: one chain, delay lines": Network(delay_lines=(2, 3)),
    "papers/001: full connection": Network(chains=3, loss_db=2.0),
    "papers/004: digital": Network(chains=24, connection="partial"),
    "partial with delay lines": Network(chains=2, connection="partial", delay_lines=(4, 3), loss_db=1.0),
    "full with delay lines": Network(chains=2, delay_lines=(4, 6)),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_response_is_the_product_written_out(network):
    spec = network.build(4, 6)
    delay_s, phase_rad, amplitude = draw(spec, np.random.default_rng(1), 2, 3)
    got = response(spec, delay_s, phase_rad, amplitude, FREQUENCY_HZ)
    assert got.shape == (2, 3, 5, 24, network.chains)
    for i in range(2):
        for j in range(3):
            want = by_hand(spec, delay_s[i, j], phase_rad[i, j], amplitude[i, j], FREQUENCY_HZ)
            np.testing.assert_allclose(got[i, j], want, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_columns_have_unit_norm_less_the_loss(network):
    spec = network.build(4, 6)
    delay_s, phase_rad, amplitude = draw(spec, np.random.default_rng(2), 4)
    got = response(spec, delay_s, phase_rad, np.ones_like(amplitude), FREQUENCY_HZ)
    np.testing.assert_allclose(np.sum(np.abs(got) ** 2, axis=-2), 10 ** (-network.loss_db / 10), rtol=1e-12)


def test_rows_of_a_batch_do_not_touch_each_other():
    spec = NETWORKS["full with delay lines"].build(4, 6)
    settings = draw(spec, np.random.default_rng(3), 7)
    whole = response(spec, *settings, FREQUENCY_HZ)
    for i in range(7):
        np.testing.assert_array_equal(whole[i], response(spec, *(s[i] for s in settings), FREQUENCY_HZ))


def test_torch_gives_and_differentiates_the_same_response():
    torch = pytest.importorskip("torch")
    strict = pytest.importorskip("array_api_strict")
    spec = NETWORKS["partial with delay lines"].build(4, 6)
    settings = draw(spec, np.random.default_rng(4), 2)
    want = response(spec, *settings, FREQUENCY_HZ)
    for make in (torch.asarray, strict.asarray):
        got = response(spec, *(make(s) for s in settings), make(FREQUENCY_HZ))
        np.testing.assert_allclose(np.asarray(got), want, atol=1e-12)
    small = Network(delay_lines=(2, 1)).build(2, 2)
    # delays in ps, so that all inputs are of order one
    delay_s, phase_rad, amplitude = draw(small, np.random.default_rng(5))
    inputs = [torch.tensor(x, requires_grad=True) for x in (delay_s * 1e12, phase_rad, amplitude)]
    f = torch.asarray(FREQUENCY_HZ)
    assert torch.autograd.gradcheck(lambda d, p, a: response(small, d * 1e-12, p, a, f), inputs, atol=1e-4)


# ---------------------------------------------------------------- wiring


def test_full_connection_gives_every_chain_every_element_and_its_own_lines():
    spec = Network(chains=2, delay_lines=(8, 8)).build(16, 16)
    assert spec.wired.all()
    assert spec.lines == 64
    # element (column 5, row 12) hangs on sub-array (2, 6)
    assert spec.line[5 * 16 + 12] == 2 * 8 + 6
    assert np.all(np.bincount(spec.line) == 4)


def test_partial_connection_splits_elements_and_lines_between_chains():
    spec = Network(chains=4, connection="partial", delay_lines=(8, 8)).build(16, 16)
    assert np.all(spec.wired.sum(axis=0) == 1)
    assert np.all(spec.wired.sum(axis=1) == 64)
    assert spec.lines == 16
    for chain in range(4):
        column, row = np.divmod(np.flatnonzero(spec.wired[chain]), 16)
        assert (column.min(), column.max()) == (4 * chain, 4 * chain + 3)
        np.testing.assert_array_equal(spec.line[spec.wired[chain]], (column - 4 * chain) // 2 * 8 + row // 2)


def test_no_delay_lines():
    spec = Network().build(4, 4)
    assert spec.lines == 0
    assert np.all(spec.line == -1)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network(delay_lines=(3, 8)), r"delay_lines = \(3, 8\): must divide the 16 x 16"),
        (Network(delay_lines=(0, 8)), "delay_lines"),
        (Network(chains=3, connection="partial"), "chains = 3: must divide"),
        (Network(chains=16, connection="partial", delay_lines=(8, 8)), "straddle"),
        (Network(connection="some"), "'full' or 'partial'"),
        (Network(phase_bits=-1), "phase_bits"),
        (Network(loss_db=float("nan")), "loss_db"),
        (Network(delay_range_s=0.0), "delay_lines = None"),
        (Network(chains=0), "chains"),
    ],
)
def test_wiring_that_cannot_be_is_refused_with_the_reason(network, said):
    with pytest.raises(Misuse, match=said):
        network.build(16, 16)


# ---------------------------------------------------------------- quantisation


@settings(deadline=None)  # the first call may compile
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_settings_go_to_the_nearest_grid_point(seed, delay_bits, phase_bits, amplitude_bits):
    spec = Network(
        delay_lines=(2, 2), delay_bits=delay_bits, phase_bits=phase_bits, amplitude_bits=amplitude_bits
    ).build(4, 2)
    rng = np.random.default_rng(seed)
    delay_s, phase_rad, amplitude = draw(spec, rng, 3)
    delay_s, amplitude = delay_s * 1.5 - 20e-12, amplitude * 1.4 - 0.2
    d, p, a, clipped = quantise(spec, delay_s, phase_rad, amplitude)
    grid = np.arange(2**delay_bits) / 2**delay_bits * 100e-12
    np.testing.assert_allclose(d, grid[np.argmin(np.abs(delay_s[..., None] - grid), axis=-1)], atol=1e-24)
    turn = 2 * np.pi * np.arange(2**phase_bits) / 2**phase_bits
    nearest = np.argmax(np.cos(phase_rad[..., None] - turn), axis=-1)
    np.testing.assert_allclose(np.exp(1j * p), np.exp(1j * turn[nearest]), atol=1e-12)
    assert np.all((p >= 0) & (p < 2 * np.pi))
    level = np.arange(2**amplitude_bits) / (2**amplitude_bits - 1)
    np.testing.assert_allclose(a, level[np.argmin(np.abs(amplitude[..., None] - level), axis=-1)], atol=1e-15)
    half = 100e-12 / 2**delay_bits / 2
    outside = np.sum((delay_s < -half) | (delay_s > grid[-1] + half))
    step = 1 / (2**amplitude_bits - 1)
    outside += np.sum((amplitude < -step / 2) | (amplitude > 1 + step / 2))
    assert clipped == outside
    again = quantise(spec, d, p, a)
    assert again[3] == 0
    for first, second in zip((d, p, a), again[:3], strict=True):
        np.testing.assert_array_equal(first, second)


def test_zero_bits_is_continuous_but_not_unbounded():
    spec = Network(delay_lines=(1, 1), delay_bits=0, phase_bits=0).build(2, 1)
    d, p, a, clipped = quantise(spec, np.array([[120e-12]]), np.array([[-1.0, 7.0]]), np.array([[0.123, -0.5]]))
    np.testing.assert_allclose(d, [[100e-12]])
    np.testing.assert_allclose(p, [[2 * np.pi - 1, 7 - 2 * np.pi]])
    np.testing.assert_allclose(a, [[0.123, 0.0]])
    assert clipped == 2


def test_the_longest_of_four_bits_over_100_ps_is_93_75_ps():
    spec = Network(delay_lines=(1, 1)).build(1, 1)
    d, _, _, clipped = quantise(spec, np.array([[96e-12]]), np.zeros((1, 1)), np.ones((1, 1)))
    assert d[0, 0] == pytest.approx(93.75e-12, rel=1e-12)
    assert clipped == 0
    assert quantise(spec, np.array([[98e-12]]), np.zeros((1, 1)), np.ones((1, 1)))[3] == 1


def test_settings_of_the_wrong_shape_or_not_finite_are_refused():
    spec = Network(delay_lines=(1, 1)).build(2, 1)
    good = np.zeros((1, 1)), np.zeros((1, 2)), np.ones((1, 2))
    with pytest.raises(Misuse, match=r"phase_rad: has shape \(2, 1\), .* \(chain, element\) = \(1, 2\)"):
        quantise(spec, good[0], np.zeros((2, 1)), good[2])
    with pytest.raises(Misuse, match="delay_s"):
        quantise(spec, np.array([[np.nan]]), good[1], good[2])
    with pytest.raises(Misuse, match="amplitude"):
        quantise(spec, good[0], good[1], np.array([[1.0, np.inf]]))


def written_out(spec, delay_s, phase_rad, amplitude):
    """``quantise`` in NumPy, an equation a line: what the compiled one must be, bit by bit."""
    if spec.delay_bits:
        step = spec.delay_range_s / 2**spec.delay_bits
        wanted = np.rint(delay_s / step)
        index = np.clip(wanted, 0, 2**spec.delay_bits - 1)
        clipped, delay_s = int(np.count_nonzero(index != wanted)), index * step
    else:
        kept = np.clip(delay_s, 0.0, spec.delay_range_s)
        clipped, delay_s = int(np.count_nonzero(kept != delay_s)), kept
    if spec.phase_bits:
        turn = 2**spec.phase_bits
        phase_rad = np.mod(np.rint(phase_rad * (turn / (2 * np.pi))), turn) * (2 * np.pi / turn)
    else:
        phase_rad = np.mod(phase_rad, 2 * np.pi)
    top = 2**spec.amplitude_bits - 1 if spec.amplitude_bits else 1
    wanted = np.rint(amplitude * top) if spec.amplitude_bits else amplitude
    index = np.clip(wanted, 0, top)
    return delay_s, phase_rad, index / top, clipped + int(np.count_nonzero(index != wanted))


SETTING = st.one_of(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1.5, -1e-300, 1e300, -1e300]), st.floats(-4, 4))


@given(
    st.lists(SETTING, min_size=8, max_size=8),
    st.sampled_from([0, 1, 4, 12]),
    st.sampled_from([0, 1, 6, 12]),
    st.sampled_from([0, 1, 5]),
)
def test_the_compiled_quantiser_is_the_written_out_one_bit_by_bit(values, delay_bits, phase_bits, amplitude_bits):
    spec = Network(
        delay_lines=(2, 2), delay_bits=delay_bits, phase_bits=phase_bits, amplitude_bits=amplitude_bits
    ).build(4, 2)
    phase_rad = 3 * np.array(values)[None, None, :]
    amplitude, delay_s = phase_rad[..., ::-1] / 3, phase_rad[..., :4] * 40e-12
    ours, plain = (f(spec, delay_s, phase_rad, amplitude) for f in (quantise, written_out))
    assert ours[3] == plain[3]
    for a, b in zip(ours[:3], plain[:3], strict=True):
        assert (a + 0.0).tobytes() == (b + 0.0).tobytes()  # but for the sign of nothing
