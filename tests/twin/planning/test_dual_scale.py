"""The compiled search against dense formulas, brute force and per-pair SciPy; propositions 1-3; what lies beyond the paper; the planner."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from hal.errors import Misuse
from twin.physics.dual_scale import believed_covariance, mmse_error, mmse_filter
from twin.physics.sinr import mrt, simulated_sinr, subframe_rate
from twin.planning._search import dense_bits
from twin.planning.dual_scale import (
    DualScale,
    adapt,
    bits,
    case_of,
    dynamic_split,
    ergodic_plan,
    ergodic_rate_of,
    even_split,
    kalman,
    lengthened,
    longest_paying,
    loops,
    rate,
    shortest_sensing_s,
    solve,
)

_spec = importlib.util.spec_from_file_location("dual_cases", Path(__file__).with_name("dual_cases.py"))
_cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cases)
instance, BLOCK_S, PILOT_S = _cases.instance, _cases.BLOCK_S, _cases.PILOT_S


def drawn(rng, most_std=0.707, **given):
    """An instance with everything at random."""
    blocks = int(rng.integers(6, 36))
    wanted = {
        "users": int(rng.integers(1, 6)),
        "blocks": blocks,
        "std_deg": rng.uniform(0.03, most_std),
        "shortest_blocks": rng.uniform(0.2, 0.6 * blocks),
        "pilot_snr_db": rng.uniform(-10, 30),
        "noise_w": 10 ** rng.uniform(-4, 0),
        "offset": int(rng.integers(2)),
        "reference": ("element", "centre")[int(rng.integers(2))],
        "own_term": bool(rng.integers(2)),
    }
    return instance(rng, **(wanted | given))[1]


def per_pair(case):
    """The paper's search by hand: a bounded scalar solver for every (M, floor T_l), dense matrices inside."""
    best = -np.inf
    pilot, shortest = case.pilot_s / case.block_s, shortest_sensing_s(case) / case.block_s
    for h in range(int(shortest + 1e-12), case.blocks):
        left, right = max(shortest, float(h)), h + 1 - pilot
        if left > right:
            continue
        for m in range(1, case.blocks - h + 1):
            split = even_split(case.blocks - h, m)

            def loss(t, split=split):
                return -subframe_rate(
                    dense_bits(case, np.array([t * case.block_s]))[0],
                    split,
                    t * case.block_s,
                    case.block_s,
                    case.pilot_s,
                )

            found = [-loss(left), -loss(right)]
            if right > left:
                found.append(
                    -minimize_scalar(loss, bounds=(left, right), method="bounded", options={"xatol": 1e-7}).fun
                )
            best = max(best, *found)
    return best


@pytest.mark.parametrize("law", ["geometric", "jakes", "one_ring"])
def test_kernels_are_the_dense_formulas(law):
    rng = np.random.default_rng(0)
    for _ in range(15):
        case = drawn(rng, 3.0, law=law)
        for t in (0.4, 2.3, 5.0):
            np.testing.assert_allclose(
                bits(case, t * BLOCK_S), dense_bits(case, np.array([t * BLOCK_S]))[0], rtol=1e-10
            )


def test_kernels_on_a_large_array_and_through_either_factorisation():
    case = instance(np.random.default_rng(1), users=9, elements=64, spread_deg=0.5)[1]
    np.testing.assert_allclose(bits(case, 2e-4), dense_bits(case, np.array([2e-4]))[0], rtol=1e-9)
    wide = instance(np.random.default_rng(1), users=3, elements=4, spread_deg=30)[1]
    np.testing.assert_allclose(bits(wide, 2e-4), dense_bits(wide, np.array([2e-4]))[0], rtol=1e-9)


def test_the_plan_is_brute_force_on_two_hundred_instances():
    rng = np.random.default_rng(2)
    gap = []
    for _ in range(200):
        case = drawn(rng)
        found, brute = solve(case), solve(case, "brute", step_s=case.block_s / 5)
        gap.append(found.rate / brute.rate - 1)
        assert found.rate == pytest.approx(rate(case, found.sensing_s, found.split), rel=1e-11)
        assert found.sensing_s >= shortest_sensing_s(case) * (1 - 1e-12)
    assert min(gap) > -1e-9  # never below the grid
    assert np.sum(np.array(gap) > 1e-9) <= 10  # above it only where the optimum lies between two of its points


@pytest.mark.slow
def test_the_plan_is_per_pair_scipy():
    rng = np.random.default_rng(3)
    for _ in range(6):
        case = drawn(rng, blocks=int(rng.integers(5, 9)), shortest_blocks=rng.uniform(0.05, 2.0))
        assert solve(case).rate == pytest.approx(per_pair(case), rel=1e-9)


@pytest.mark.parametrize(("snr_db", "own"), [(0, True), (20, True), (0, False)])
def test_an_optimum_inside_a_piece_is_found(snr_db, own):
    # sensing so short that accuracy is worth more than time: what a search of left edges alone would miss
    case = instance(
        np.random.default_rng(4), std_deg=0.577, shortest_blocks=0.05, pilot_snr_db=snr_db, own_term=own, noise_w=1e-3
    )[1]
    found = solve(case)
    value = [rate(case, t * BLOCK_S, found.split) for t in np.arange(0.05, 0.87, 0.002)]
    assert found.rate >= max(value) * (1 - 1e-12)
    assert found.rate <= max(value) * (1 + 1e-4)
    assert 0.06 < found.sensing_s / BLOCK_S < 0.1
    edge = max(solve(case, "fixed", updates=m, sensing_s=0.05 * BLOCK_S).rate for m in range(5, 20))
    assert found.rate > edge * (1 + 1e-4)


@pytest.mark.parametrize("std_deg", [0.6, 1.0, 3.0])
def test_outside_the_guard_everything_is_finite_and_more_sensing_costs_no_sinr(std_deg):
    rng = np.random.default_rng(5)
    for _ in range(12):
        case = instance(
            rng,
            users=int(rng.integers(1, 6)),
            std_deg=std_deg,
            shortest_blocks=rng.uniform(1, 10),
            pilot_snr_db=rng.uniform(0, 40),
        )[1]
        found = solve(case)
        assert np.isfinite(found.rate)
        assert found.rate > 0
        t = np.linspace(shortest_sensing_s(case), 34 * BLOCK_S, 60)
        first = np.array([bits(case, at)[0] for at in t])
        assert np.all(np.diff(first) >= -1e-9 * first[1:])
        assert found.rate >= solve(case, "brute", step_s=case.block_s / 3).rate * (1 - 1e-9)


def test_raw_past_its_pole_is_refused_and_not_believed():
    case = replace(instance(np.random.default_rng(6), std_deg=3.0, pilot_snr_db=30)[1], guard="raw")
    assert np.all(np.isnan(bits(case, shortest_sensing_s(case))))
    with pytest.raises(Misuse, match=r"guard = 'raw'.*past its pole.*use guard = 'clip'"):
        solve(replace(case, crb_s_rad2=case.crb_s_rad2 * 10, crb_max_rad2=np.deg2rad(3.0) ** 2 * 10))


@settings(max_examples=40)
@given(st.integers(0, 100_000))
def test_proposition_2_equal_splits_are_best_when_ageing_is_geometric(seed):
    rng = np.random.default_rng(seed)
    case = drawn(rng)
    phi = bits(case, shortest_sensing_s(case))
    blocks = int(rng.integers(1, case.blocks + 1))
    updates = int(rng.integers(1, blocks + 1))
    best, split = dynamic_split(phi, blocks, updates)
    total = np.concatenate([[0], np.cumsum(phi)])
    assert split.sum() == blocks
    assert total[split].sum() == pytest.approx(best, rel=1e-13)
    assert total[even_split(blocks, updates)].sum() == pytest.approx(best, rel=1e-12)


def test_proposition_2_fails_under_jakes_with_few_updates():
    case = instance(np.random.default_rng(0), law="jakes")[1]
    phi = bits(case, shortest_sensing_s(case))
    total = np.concatenate([[0], np.cumsum(phi)])
    loss = [total[even_split(31, m)].sum() / dynamic_split(phi, 31, m)[0] - 1 for m in range(1, 32)]
    assert min(loss[:5]) < -0.03
    best = int(np.argmax([total[even_split(31, m)].sum() - m * PILOT_S / BLOCK_S * phi[0] for m in range(1, 32)]))
    assert loss[best] > -1e-12


@pytest.mark.parametrize("own", [True, False])
def test_proposition_3_second_differences(own):
    # with the i = k term concave without exception; without it a user's interference may rise with another's accuracy, by parts in 1e7
    rng = np.random.default_rng(7)
    most = -np.inf
    for _ in range(60):
        case = drawn(rng, 0.57, shortest_blocks=3.0, blocks=20, own_term=own)
        h, m = int(rng.integers(3, 15)), int(rng.integers(1, 5))
        t = np.linspace(h + 1e-3, h + 1 - PILOT_S / BLOCK_S - 1e-3, 41)
        split = even_split(20 - h, m)
        value = np.array([subframe_rate(bits(case, at * BLOCK_S), split, at * BLOCK_S, BLOCK_S, PILOT_S) for at in t])
        most = max(most, np.max(np.diff(value, 2) / value[1:-1]))
    assert most <= 1e-13 if own else 1e-13 < most < 1e-6


def test_searches_are_ordered():
    rng = np.random.default_rng(8)
    for seed in range(10):
        case = drawn(rng, users=4, blocks=25, shortest_blocks=2.0)
        best = solve(case)
        for search in ("ssu", "fsu", "rba", "fixed"):
            other = solve(case, search, updates=5, seed=seed)
            assert other.rate <= best.rate * (1 + 1e-9)
            assert other.rate == pytest.approx(rate(case, other.sensing_s, other.split), rel=1e-11)
        assert solve(case, "ssu").updates == 1
        fsu = solve(case, "fsu")
        assert fsu.updates == 25 - int(fsu.sensing_s / BLOCK_S * (1 + 1e-12))
        rba = solve(case, "rba", seed=seed)
        assert (rba.updates, rba.split.sum()) == (best.updates, best.split.sum())
    assert loops(35, 0) == 630


def test_kalman_is_a_simulated_filter():
    case = instance(np.random.default_rng(9), users=3, pilot_snr_db=5, shortest_blocks=2.0, blocks=12)[1]
    found = kalman(case, most_updates=3)
    rng = np.random.default_rng(0)
    draws, gaps = 60_000, np.append(found.split, 0)
    R = case.factor @ np.conj(np.swapaxes(case.factor, 1, 2))
    prior = believed_covariance(R, case.slope, case.gain, case.crb_s_rad2 / found.sensing_s)
    value, vector = np.linalg.eigh(prior)
    root = vector * np.sqrt(np.maximum(value, 0))[:, None, :]
    extra = R - prior  # what sensing does not see of the channel: no pilot hears it in the paper's model
    value, vector = np.linalg.eigh(extra)
    assert np.all(value > -1e-3)
    blind = vector * np.sqrt(np.maximum(value, 0))[:, None, :]

    def draw(factor):
        white = (rng.standard_normal((draws, 3, 8, 2)) @ np.array([1, 1j])) / np.sqrt(2)
        return np.einsum("kab,dkb->dka", factor, white)

    h, estimate, error = draw(root), np.zeros((draws, 3, 8), complex), prior
    whole = 0.0
    gaps = np.concatenate([[12 - found.split.sum() + found.split[-1]], found.split[:-1]])
    for period in range(4):
        total = 0.0
        for update, gap in enumerate(gaps):
            keep = 0.98**gap
            h, estimate = keep * h + np.sqrt(1 - keep**2) * draw(root), keep * estimate
            error = keep**2 * error + (1 - keep**2) * prior
            take = mmse_filter(error, case.pilot_snr)
            noise = (rng.standard_normal((draws, 3, 8, 2)) @ np.array([1, 1j])) / np.sqrt(2 * case.pilot_snr[0])
            estimate = estimate + np.einsum("kab,dkb->dka", take, h + noise - estimate)
            error = mmse_error(error, case.pilot_snr)
            if period == 3:
                trace = np.mean(np.sum(np.abs(estimate) ** 2, axis=2), axis=0)
                gamma = simulated_sinr(h + draw(blind), mrt(estimate, trace), np.ones(3), case.noise_w)
                n = found.split[update]
                phi = np.array([np.sum(np.log2(1 + 0.98 ** (2 * j) * gamma)) for j in range(n)])
                charge = PILOT_S + (found.sensing_s % BLOCK_S if update == 0 else 0)
                total += BLOCK_S * phi.sum() - charge * phi[0]
        whole = total
    assert whole == pytest.approx(found.rate, rel=0.012)


def test_memory_pays_when_pilots_are_weak_and_never_costs():
    gains = []
    for seed in range(6):
        for snr_db, least in ((-5, 0.6), (5, 0.10), (20, 0.0)):
            case = instance(np.random.default_rng(seed), pilot_snr_db=snr_db)[1]
            gain = kalman(case).rate / solve(case).rate - 1
            assert gain >= least - 1e-9
            if snr_db == 5:
                gains.append(gain)
    assert 0.10 <= np.mean(gains) <= 0.16


def test_memory_is_refused_for_channels_without_a_state():
    with pytest.raises(Misuse, match=r"rho: must age geometrically"):
        kalman(instance(np.random.default_rng(0), law="jakes")[1])


def test_longer_pilots_pay_when_they_are_weak():
    for snr_db, low, high in ((0, 0.2, 0.4), (20, 0.0, 1e-3)):
        case = instance(np.random.default_rng(1), pilot_snr_db=snr_db)[1]
        best, symbols = longest_paying(case, range(9, 25), 1e-6)
        assert low <= best.rate / solve(case).rate - 1 <= high
        assert (symbols > 12) == (snr_db == 0)
        assert lengthened(case, symbols, 1e-6).pilot_s == pytest.approx(symbols * 1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adaptive_is_half_again_better_at_one_degree(seed):
    # 20 dB, ergodic metric, one symbol of demodulation pilot a block for both, both re-optimised; judged on channels drawn anew
    scene, case = instance(np.random.default_rng(seed), pilot_snr_db=20, demodulation_s=1e-6)
    found, paper = adapt(scene, case, draws=200), ergodic_plan(scene, case, draws=200)
    fresh = ergodic_rate_of(scene, case, found.choice, found.pilots, memory=found.memory, draws=1500)
    theirs = ergodic_rate_of(scene, case, paper, None, draws=1500)
    assert found.paper_rate == pytest.approx(paper.rate, rel=1e-12)
    assert fresh / theirs > 1.5
    assert fresh == pytest.approx(found.choice.rate, rel=0.06)
    assert len(found.reason) == 5
    for why, sends in zip(found.reason, found.pilots, strict=True):
        assert why.startswith("pilots" if sends else "sensing alone")
        assert "bit/Hz a subframe" in why


@pytest.mark.parametrize(("spread_deg", "snr_db"), [(0.2, 0), (5, -5), (15, 10), (15, 20)])
def test_adaptive_is_never_worse(spread_deg, snr_db):
    scene, case = instance(
        np.random.default_rng(11),
        spread_deg=spread_deg,
        std_deg=0.1,
        pilot_snr_db=snr_db,
        noise_w=10 ** (-snr_db / 10),
        demodulation_s=1e-6,
    )
    found, paper = adapt(scene, case, draws=150), ergodic_plan(scene, case, draws=150)
    fresh = ergodic_rate_of(scene, case, found.choice, found.pilots, memory=found.memory, draws=1000)
    assert found.choice.rate >= found.paper_rate
    assert fresh >= 0.97 * ergodic_rate_of(scene, case, paper, None, draws=1000)
    bound = adapt(scene, case, metric="bound", pilot_symbols=(12, 18))
    assert bound.choice.rate >= solve(case).rate * (1 - 1e-12)


def test_the_mode_follows_the_spread():
    # users 12 degrees apart and more: a narrow ring is known by its angle, a wide one by pilots only
    share = []
    for spread_deg in (1.0, 10.0):
        scene, case = instance(
            np.random.default_rng(0), spread_deg=spread_deg, std_deg=0.1, pilot_snr_db=20, demodulation_s=1e-6
        )
        apart = replace(scene, azimuth_rad=np.deg2rad([-50.0, -25.0, -5.0, 20.0, 45.0]))
        fields = {name: getattr(case, name) for name in case.__slots__ if name not in ("factor", "slope")}
        share.append(int(adapt(apart, case_of(apart, **fields), draws=100).pilots.sum()))
    assert share == [0, 5]


def test_users_that_cross_the_beam_are_followed_and_it_says_so():
    scene, case = instance(
        np.random.default_rng(0), spread_deg=0.3, std_deg=0.1, pilot_snr_db=20, drift_radps=np.deg2rad(800.0)
    )
    assert any("the beam follows the angle" in why for why in adapt(scene, case, draws=100).reason)
    calm = replace(scene, drift_radps=0.0)
    assert not any("follows the angle" in why for why in adapt(calm, case, draws=100).reason)


def test_by_the_bound_memory_is_named():
    scene, case = instance(np.random.default_rng(0), pilot_snr_db=5)
    found = adapt(scene, case, metric="bound", pilot_symbols=(12, 15))
    assert found.memory
    assert "remember" in found.reason[0]
    assert found.choice.rate / found.paper_rate > 1.1


def test_bad_input_is_named():
    scene, case = instance(np.random.default_rng(0))
    with pytest.raises(Misuse, match=r"crb_max_rad2 = .*user \d: needs T_l = .*smallest attainable is .* rad\^2"):
        solve(replace(case, crb_max_rad2=case.crb_max_rad2 / 100))
    worst = replace(case, crb_max_rad2=case.crb_max_rad2 / 100)
    with pytest.raises(Misuse) as caught:
        shortest_sensing_s(worst)
    least = float(str(caught.value).split("attainable is ")[1].split()[0])
    allowed = replace(case, crb_max_rad2=least * (1 + 1e-5))
    assert shortest_sensing_s(allowed) <= 35 * BLOCK_S  # what it says can be had can be had
    with pytest.raises(Misuse, match=r"updates = 34: must lie in \[1, 33\]"):
        solve(case, "fixed", updates=34)
    with pytest.raises(Misuse, match=r"updates = 9: must lie in \[1, 8\]"):
        even_split(8, 9)
    with pytest.raises(Misuse, match=r"azimuth_spread_rad = .*-0\.01"):
        instance(np.random.default_rng(0), spread_deg=np.rad2deg(-0.01))
    with pytest.raises(Misuse, match=r"pilot_s = 7\.1e-05.*longer than a block"):
        solve(replace(case, pilot_s=71e-6))
    with pytest.raises(Misuse, match=r"symbols = 71.*longer than a block"):
        lengthened(case, 71, 1e-6)
    with pytest.raises(Misuse, match=r"gain\[2\] = nan"):
        solve(replace(case, gain=np.array([1.0, 1.0, np.nan, 1.0, 1.0])))
    with pytest.raises(Misuse, match="search = 'best'"):
        solve(case, "best")
    with pytest.raises(Misuse, match=r"split: sums to 30"):
        rate(case, 3 * BLOCK_S, np.array([30]))
    with pytest.raises(Misuse, match="metric = 'mean'"):
        adapt(scene, case, metric="mean")


def contract():
    """The belief and front end that every planner is held to."""
    found = importlib.util.spec_from_file_location("c", Path(__file__).parents[2] / "contracts" / "test_planner.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_its_memory_layout_does_not_move_with_the_plan():
    # a memory too small for the raster: sweep rows of neighbouring subframes take turns, whatever their numbers of updates
    module, rng = contract(), np.random.default_rng(0)
    spec = module.frontend()
    small = replace(
        spec, transmit=replace(spec.transmit, memory_slots=64), receive=replace(spec.receive, memory_slots=64)
    )
    planner, users = DualScale(most_updates=9, law="geometric", crb_max_rad2=1e-2), np.arange(4)
    before, counts = set(), set()
    for k in range(20):
        belief = module.believed(k, users, rng)
        one = replace(planner, rho_1=rng.uniform(0.3, 1.0))
        assert replace(one, updates=2).layout(small).end == planner.layout(small).end
        plan = one.plan(k, belief, users, small, module.NUMEROLOGY, None)
        requests = one.dwell_requests(plan, belief, small)
        sweep = set(requests.receive_slot[requests.receive_slot >= one.layout(small).sweep].tolist())
        assert len(sweep) == len(plan.update_block) <= 9
        assert not sweep & before
        before = sweep
        counts.add(len(sweep))
    assert len(counts) > 1


@pytest.mark.parametrize("search", ["optimal", "ssu", "fsu", "rba", "fixed", "adaptive"])
def test_every_search_plans_from_belief(search):
    module, rng = contract(), np.random.default_rng(0)
    spec, users, solved = module.frontend(), np.arange(4), 0
    planner = DualScale(search=search, law="geometric", rho_1=0.98, crb_max_rad2=1e-2)
    for k in range(12):
        belief = module.believed(k, users, rng)
        decision = planner.decide(k, belief, users, spec, module.NUMEROLOGY)
        plan = planner.plan(k, belief, users, spec, module.NUMEROLOGY, None)
        assert len(plan.update_block) == len(decision.split) == decision.updates
        assert len(decision.reason) >= 1
        solved += np.isfinite(decision.rate)
    assert solved > 0


def test_faster_users_get_more_updates():
    module = contract()
    spec, users, updates = module.frontend(), np.arange(4), []
    belief = module.believed(0, users, np.random.default_rng(0))
    for speed in (0.05, 0.4):
        state = np.tile([30.0, 5.0, 1.0, 0.0, speed, 0.0], (2, 1))
        tracks = replace(
            belief.tracks,
            track=np.arange(2),
            state=state,
            covariance=np.tile(0.01 * np.eye(6), (2, 1, 1)),
            user=np.arange(2),
            confirmed=np.ones(2, bool),
            **{name: np.zeros(2, np.int64) for name in ("hits", "misses", "seen_ns")},
        )
        planner = DualScale(crb_max_rad2=1e-2, k_db=-30)
        updates.append(planner.decide(0, replace(belief, tracks=tracks), users, spec, module.NUMEROLOGY).updates)
    assert updates[1] > updates[0]


def test_a_requirement_that_cannot_be_met_is_said_and_the_fixed_plan_played():
    module = contract()
    spec, rng = module.frontend(), np.random.default_rng(3)
    planner = DualScale(crb_max_rad2=1e-15, sensing_blocks=6, updates=3)
    said = []
    for k in range(12):
        belief = module.believed(k, np.arange(4), rng)
        decision = planner.decide(k, belief, np.arange(4), spec, module.NUMEROLOGY)
        plan = planner.plan(k, belief, np.arange(4), spec, module.NUMEROLOGY, None)
        assert (plan.sensing_blocks, len(plan.update_block)) == (6, 3)
        said.append((decision.feasible, decision.reason[0]))
    assert any(not feasible and "smallest attainable" in why for feasible, why in said)
    assert any(feasible and "no user is located" in why for feasible, why in said)
