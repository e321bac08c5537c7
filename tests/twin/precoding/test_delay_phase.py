from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import Ula, Upa
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.network import Network, quantise
from twin.precoding import Problem
from twin.precoding.delay_phase import DelayPhase, steer, waterfill

LIGHT = 299_792_458.0
CARRIER = 100e9


def half(columns=16, rows=16, array=None, carrier_hz=CARRIER, **network):
    array = Upa(columns, rows) if array is None else array
    built = array.build(carrier_hz, np.zeros(3), np.eye(3))
    return HalfSpec(array=built, network=Network(**network).build(built.columns, built.rows), memory_slots=64)


def unit(uy, uz):
    return np.array([np.sqrt(1 - uy * uy - uz * uz), uy, uz])


def band(subcarriers=32, bandwidth_hz=8e9):
    m = np.arange(subcarriers)
    return CARRIER + bandwidth_hz / subcarriers * (m - (subcarriers - 1) / 2)


def realised(spec, settings, u, frequency_hz, chain=0, row=0):
    """|sum_n response_n a_n|^2 written out, one element at a time, from the settings the machine would take."""
    delay, phase, amplitude, clipped = quantise(spec.network, settings.delay_s, settings.phase_rad, settings.amplitude)
    gain = np.zeros(len(frequency_hz))
    for m, f in enumerate(frequency_hz):
        total = 0j
        for n in np.flatnonzero(spec.network.wired[chain]):
            tau = delay[row, chain, spec.network.line[n]] if spec.network.lines else 0.0
            w = amplitude[row, chain, n] * np.exp(1j * phase[row, chain, n] - 2j * np.pi * f * tau)
            total += w * np.exp(2j * np.pi * f * (spec.array.position_m[n] @ u) / LIGHT)
        gain[m] = abs(total) ** 2 / spec.network.wired[chain].sum()
    return gain, clipped


def dirichlet(n, x):
    """sin(n x / 2) / (n sin(x / 2)): the normalised sum of n phasors x apart."""
    return 1.0 if x == 0 else np.sin(n * x / 2) / (n * np.sin(x / 2))


def continuous(**network):
    return {"delay_bits": 0, "phase_bits": 0, **network}


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.68, 0.68), st.floats(-0.68, 0.68))
def test_continuous_settings_match_exactly_at_the_carrier(uy, uz):
    for spec in (half(**continuous(delay_lines=(8, 8))), half(8, 4, **continuous(chains=4, connection="partial"))):
        u = unit(uy, uz)
        chains = len(spec.network.wired)
        made = steer(spec, np.broadcast_to(u, (1, chains, 3)), CARRIER)
        for chain in range(chains):
            gain, clipped = realised(spec, made, u, [CARRIER], chain)
            assert clipped == 0
            np.testing.assert_allclose(gain, spec.network.wired[chain].sum(), rtol=1e-9)


@pytest.mark.parametrize(("uy", "uz"), [(0.0, 0.0), (0.3, -0.2), (0.6, 0.1), (-0.8, -0.3), (0.0, 0.5)])
def test_phase_only_squints_by_the_closed_form(uy, uz):
    # phases match the carrier; at f the residual phase over the grid is pi (f - fc)/fc (c uy + r uz): two Dirichlet kernels
    spec, frequency = half(phase_bits=0), band()
    gain, _ = realised(spec, steer(spec, unit(uy, uz)[None, None], CARRIER), unit(uy, uz), frequency)
    slope = np.pi * (frequency - CARRIER) / CARRIER
    expected = [256 * dirichlet(16, s * uy) ** 2 * dirichlet(16, s * uz) ** 2 for s in slope]
    np.testing.assert_allclose(gain, expected, rtol=1e-9)


@pytest.mark.parametrize(("uy", "uz"), [(0.3, -0.2), (0.6, 0.1), (-0.6, -0.3)])
def test_delay_lines_leave_only_the_squint_within_a_sub_array(uy, uz):
    # an ideal line a 2x2 sub-array: the closed form above with 2 elements in place of 16
    spec, frequency = half(**continuous(delay_lines=(8, 8))), band()
    gain, clipped = realised(spec, steer(spec, unit(uy, uz)[None, None], CARRIER), unit(uy, uz), frequency)
    slope = np.pi * (frequency - CARRIER) / CARRIER
    assert clipped == 0
    np.testing.assert_allclose(
        gain, [256 * dirichlet(2, s * uy) ** 2 * dirichlet(2, s * uz) ** 2 for s in slope], rtol=1e-9
    )


def test_flagship_steps_cost_what_their_law_says_and_beat_phases_alone():
    # 8x8 lines of 4 bits over 100 ps and 6-bit phases against phases alone, 100 GHz, 8 GHz, 16x16
    rng = np.random.default_rng(5)
    frequency, spec, alone = band(), half(delay_lines=(8, 8)), half()
    step_s, losses = 100e-12 / 16, []
    for uy, uz in rng.uniform(-0.62, 0.62, (20, 2)):
        u = unit(uy, uz)
        lines, clipped = realised(spec, steer(spec, u[None, None], CARRIER), u, frequency)
        phases, _ = realised(alone, steer(alone, u[None, None], CARRIER), u, frequency)
        slope = np.pi * (frequency - CARRIER) / CARRIER
        ideal = np.array([256 * dirichlet(2, s * uy) ** 2 * dirichlet(2, s * uz) ** 2 for s in slope])
        # residual delay uniform over a step, residual phase uniform over its own: each scales the amplitude by a sinc
        law = ideal * np.sinc((frequency - CARRIER) * step_s) ** 2 * np.sinc(2.0**-6) ** 2
        assert clipped == 0
        # 64 lines and 256 phases average the errors; what remains is their spread
        np.testing.assert_allclose(lines / law, 1.0, atol=0.01)
        assert lines.min() >= phases.min() - 1.0
        losses.append((10 * np.log10(256 / lines.min()), 10 * np.log10(256 / phases.min())))
    worst = np.max(losses, axis=0)
    assert worst[0] < 0.15
    assert worst[1] > 0.7


def test_rounding_a_delay_is_absorbed_by_phases_at_the_carrier():
    # one delay step is 0.6 turns at 100 GHz: a design that left rounding to the machine would lose most of its gain
    spec, u = half(delay_lines=(8, 8), phase_bits=0), unit(0.41, -0.37)
    made = steer(spec, u[None, None], CARRIER)
    gain, _ = realised(spec, made, u, [CARRIER])
    np.testing.assert_allclose(gain, 256, rtol=1e-9)
    assert len(np.unique(made.delay_s)) > 4


def test_a_wave_slower_than_the_range_is_clipped_and_still_matched_at_the_carrier():
    spec, u = half(delay_lines=(8, 8), delay_range_s=30e-12, phase_bits=0), unit(0.7, 0.6)
    made = steer(spec, u[None, None], CARRIER)
    gain, clipped = realised(spec, made, u, [CARRIER])
    assert clipped == 0
    assert made.delay_s.min() == 0
    assert made.delay_s.max() == pytest.approx(30e-12 * 15 / 16)
    np.testing.assert_allclose(gain, 256, rtol=1e-9)


def test_each_chain_goes_its_own_way():
    spec = half(chains=4)
    directions = np.stack([unit(0.03 * a, 0.03 * b) for a in (-1, 1) for b in (-1, 1)])
    made = steer(spec, directions[None], CARRIER)
    for chain in range(4):
        gain = [realised(spec, made, u, [CARRIER], chain)[0][0] for u in directions]
        assert np.argmax(gain) == chain
        np.testing.assert_allclose(gain[chain], 256 * np.sinc(2.0**-6) ** 2, rtol=2e-3)


def test_a_line_array_and_a_digital_array_are_steered_too():
    line = half(array=Ula(12), **continuous())
    np.testing.assert_allclose(
        realised(line, steer(line, unit(0.5, 0.2)[None, None], CARRIER), unit(0.5, 0.2), [CARRIER])[0], 12, rtol=1e-9
    )
    digital = half(4, 1, chains=4, connection="partial", phase_bits=0)
    made = steer(digital, np.broadcast_to(unit(0.3, 0.0), (1, 4, 3)), CARRIER)
    np.testing.assert_array_equal(made.amplitude[0], np.eye(4))


def problem(rows=3, gain=None, power_w=2.0, noise_w=1e-3, spec=None):
    rng = np.random.default_rng(1)
    spec = half(delay_lines=(8, 8)) if spec is None else spec
    frequency = band()
    direction = np.stack([unit(*rng.uniform(-0.5, 0.5, 2)) for _ in range(rows)])
    gain = np.ones((rows, 32)) if gain is None else gain
    return Problem(
        half=spec,
        frequency_hz=frequency,
        user_direction=direction,
        user_gain=gain.astype(complex),
        target_direction=np.zeros((rows, 0, 3)),
        target_gain=np.zeros((rows, 0, 32), dtype=complex),
        power_w=power_w,
        noise_w=noise_w,
    )


def test_power_sums_and_a_search_row_gets_equal_power():
    gain = np.random.default_rng(2).normal(size=(3, 32)) * 1e-2
    gain[1] = 0
    for power in ("equal", "waterfill"):
        design = DelayPhase(power).design(problem(gain=gain))
        np.testing.assert_allclose(design.power_w.sum(axis=1), 2.0, rtol=1e-12)
        np.testing.assert_allclose(design.power_w[1], 2.0 / 32, rtol=1e-12)
    assert np.ptp(design.power_w[0]) > 0.01


def test_waterfill_knows_the_squint():
    # same gain on all subcarriers, phases alone far off boresight: the band's edges are weak, so they get less
    spec = half()
    asked = problem(rows=1, spec=spec, noise_w=30.0)
    asked = replace(asked, user_direction=unit(0.85, 0.0)[None])
    power = DelayPhase("waterfill").design(asked).power_w[0]
    assert power[15] > power[0] > 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12), st.floats(1e-4, 1e4))
def test_waterfill_meets_its_optimality_conditions(snr, power_w):
    snr = np.array([snr])
    power = waterfill(snr, power_w)
    assert np.all(power >= 0)
    np.testing.assert_allclose(power.sum(), power_w, rtol=1e-9)
    marginal = snr / (1 + snr * power)  # d rate / d p, up to ln 2
    on = power > 0
    level = marginal[on].max()
    np.testing.assert_allclose(marginal[on], level, rtol=1e-6)
    assert np.all(marginal[~on] <= level * (1 + 1e-6))


def test_waterfill_agrees_with_a_convex_solver():
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(3)
    for _ in range(3):
        snr, p = rng.exponential(2.0, 6), cvxpy.Variable(6, nonneg=True)
        cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.log1p(cvxpy.multiply(snr, p)))), [cvxpy.sum(p) == 1.5]).solve(
            solver="CLARABEL"
        )
        ours = waterfill(snr[None], 1.5)[0]
        np.testing.assert_allclose(ours, p.value, atol=1e-4)  # the interior-point solver's own accuracy
        assert np.log1p(snr * ours).sum() >= np.log1p(snr * p.value).sum() - 1e-9


def test_waterfill_gives_dead_subcarriers_nothing():
    power = waterfill(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), 3.0)
    np.testing.assert_allclose(power, [[1.5, 0, 1.5], [1, 1, 1]])


def test_misuse_is_named():
    spec = half()
    with pytest.raises(Misuse, match="direction"):
        steer(spec, np.full((1, 1, 3), np.nan), CARRIER)
    with pytest.raises(Misuse, match="power_w"):
        DelayPhase().design(problem(power_w=float("nan")))
    with pytest.raises(Misuse, match="noise_w"):
        DelayPhase("waterfill").design(problem(noise_w=0.0))
    with pytest.raises(Misuse, match="waterfill"):
        DelayPhase("most").design(problem())


def written_with_arrays(spec, direction):
    """``steer`` as its docstring says it, whole arrays at a time."""
    network, position_m = spec.network, spec.array.position_m
    path_s = np.einsum("rci,ni->rcn", direction, position_m) / LIGHT
    through_s = np.zeros_like(path_s)
    delay_s = np.zeros((*direction.shape[:2], network.lines))
    if network.lines:
        hangs = network.wired[:, None, :] & (network.line == np.arange(network.lines)[:, None])
        centre_m = np.einsum("cln,ni->cli", hangs * 1.0, position_m) / np.maximum(hangs.sum(axis=-1), 1)[..., None]
        wanted_s = np.einsum("rci,cli->rcl", direction, centre_m) / LIGHT
        step_s = network.delay_range_s / 2**network.delay_bits if network.delay_bits else 0.0
        longest_s = network.delay_range_s - step_s
        middle_s = (wanted_s.max(axis=-1, keepdims=True) + wanted_s.min(axis=-1, keepdims=True)) / 2
        delay_s = np.clip(wanted_s - middle_s + longest_s / 2, 0.0, longest_s)
        delay_s = np.rint(delay_s / step_s) * step_s if step_s else delay_s
        through_s = np.take(delay_s, network.line, axis=-1)
    return delay_s, 2 * np.pi * np.mod(CARRIER * (through_s - path_s), 1.0)


@pytest.mark.parametrize(
    "spec",
    [
        half(delay_lines=(8, 8)),
        half(delay_lines=(2, 2), delay_bits=0, delay_range_s=5e-12),
        half(8, 4, chains=4, connection="partial", delay_lines=(8, 2)),
        half(chains=4),
    ],
)
def test_the_compiled_beams_are_the_written_ones(spec):
    cosine = np.random.default_rng(3).uniform(-0.6, 0.6, (6, len(spec.network.wired), 2))
    direction = np.concatenate([np.sqrt(1 - np.sum(cosine**2, axis=-1, keepdims=True)), cosine], axis=-1)
    settings_, (delay_s, phase_rad) = steer(spec, direction, CARRIER), written_with_arrays(spec, direction)
    np.testing.assert_allclose(settings_.delay_s, delay_s, rtol=0, atol=1e-24)
    turn = (settings_.phase_rad - phase_rad) / (2 * np.pi)
    np.testing.assert_allclose(turn - np.rint(turn), 0.0, atol=1e-11)
    assert settings_.phase_rad.min() >= 0
    assert settings_.phase_rad.max() <= 2 * np.pi
