"""CSP-Net as a precoder: what ships is worth what its card says it is, and says so when it is asked for something else."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from hal.errors import Misuse
from twin.compare_precoders import SCHEMES, Setup, draw, row_of, scored
from twin.learning.cards import Card, load, save
from twin.learning.factored import Aperture, Factored
from twin.learning.scenes import Recipe
from twin.precoding.csp_net import CspNet, deep, infer, inputs
from twin.precoding.direct import Direct

HELD_OUT = 2_000_000


def worth(problem, design, bit=0.2):
    score = scored(problem, design)
    return bit * score.rate - np.log(score.crb)


def weight(problem, bit=0.2):
    return bit / Direct(rate_weight=1.0).utility(row_of(problem)).weight


@pytest.mark.parametrize("msia", [0.1, 0.3])
def test_what_ships_beats_sa_opt_and_cbs(msia):
    """On draws it never saw: random weights, or weights of another network, are 2 dB and more below either."""
    gain, rate, crb = [], [], []
    for seed in range(6):
        problem = draw(HELD_OUT + seed, Setup(msia_rad=msia))
        ours = CspNet(rate_weight=weight(problem)).design(problem)
        cbs = SCHEMES["CBS (20)"].design(problem)
        gain.append(worth(problem, ours) - worth(problem, SCHEMES["SA amp (20)"].design(problem)))
        one, two = scored(problem, CspNet(rate_weight=weight(problem, 0.1)).design(problem)), scored(problem, cbs)
        rate.append(one.rate - two.rate)
        crb.append(np.log(two.crb / one.crb))
    assert np.mean(gain) > 0.3
    assert np.mean(rate) > 0
    assert np.mean(crb) > 0


def test_more_weight_on_rate_buys_rate_with_bound():
    problem = draw(HELD_OUT + 9)
    scores = [scored(problem, CspNet(rate_weight=w).design(problem)) for w in (0.1, 2.0, 15.0)]
    assert scores[0].rate < scores[1].rate < scores[2].rate
    assert scores[0].crb < scores[1].crb < scores[2].crb


def test_the_compiled_power_is_the_networks():
    """``infer`` runs compiled slopes of direct's utility; the network's definition runs Fisher's functions. Same weights, same beam."""
    card, weights = load("paper")
    network = Factored(**card.shape)
    for seed in (1, 2):
        problem = draw(seed)
        row = row_of(problem)
        (found,) = infer(network, weights, [row], 3.0)
        scenes = inputs([row], network.most_targets, 3.0)
        aperture = Aperture.of(row.array, row.network, row.frequency_hz)
        _, delay_s, z = (value[0] for value in network.settings(weights, aperture, scenes))
        np.testing.assert_array_equal(found.delay_s, delay_s)
        response = row.response(found.delay_s, found.phase_rad)
        heard, unit = row.snr_per_w(response) * row.power_w, row.unit_information(response) * row.power_w
        bit = np.asarray(Direct(rate_weight=3.0).utility(row).weight)
        share = network.shares(weights, z, heard, unit, row.weight, bit)
        np.testing.assert_allclose(found.power_w, share * row.power_w, rtol=1e-5, atol=1e-9)


def test_steps_of_direct_only_add():
    for seed in range(3):
        problem = draw(HELD_OUT + 20 + seed)
        at = weight(problem)
        found = [worth(problem, CspNet(rate_weight=at, polish_steps=n).design(problem)) for n in (0, 4, 32)]
        assert found[0] <= found[1] <= found[2]
        assert found[2] > found[0]


def test_a_warm_row_is_polished_from_the_better_beam():
    problem = draw(HELD_OUT + 30)
    at = weight(problem)
    best = Direct(rate_weight=at).design(problem)
    kept = CspNet(rate_weight=at, polish_steps=1).design(replace(problem, previous=best))
    assert worth(problem, kept) >= worth(problem, best) - 1e-9


def test_more_targets_than_it_knows_and_none():
    problem = draw(3, Setup(targets=7))
    made = CspNet().design(problem)
    assert np.isfinite(scored(problem, made).crb)
    alone = replace(problem, target_gain=np.zeros_like(problem.target_gain))
    np.testing.assert_array_equal(CspNet().design(alone).phase_rad, SCHEMES["comm"].design(alone).phase_rad)


def test_sampled_designs_say_how_far_direct_is():
    problem = draw(HELD_OUT + 40, Setup(columns=8, rows=8, delay_lines=(4, 4)))
    precoder = CspNet(compare_every=3)
    design, told = None, []
    for _ in range(4):
        design = precoder.design(replace(problem, previous=design))
        told.append(None if design.short_db is None else float(design.short_db[0]))
    assert [value is not None for value in told] == [True, False, False, True]
    at = Direct().utility(row_of(problem)).weight
    expected = worth(problem, Direct().design(problem), at) - worth(problem, design, at)
    assert told[0] == pytest.approx(expected * 10 / np.log(10), abs=1e-6)


def test_named_weights_must_be_of_the_front_end(tmp_path):
    other = Setup(columns=8, rows=8, delay_lines=(4, 4))
    with pytest.raises(Misuse, match=r"16 x 16 elements.*8 x 8 elements, 4 x 4 delay lines"):
        CspNet(weights="paper").design(draw(0, other))
    CspNet(weights="paper").design(draw(0))
    CspNet(weights="auto").design(draw(0, other))
    with pytest.raises(Misuse, match="no such file"):
        CspNet(weights=str(tmp_path / "none.safetensors")).design(draw(0))


@pytest.fixture
def published(tmp_path):
    """A published network of random weights for a small array."""
    pytest.importorskip("torch")
    from twin.learning.published import Published, module

    recipe = Recipe(columns=4, rows=4, delay_lines=(2, 2), subcarriers=4, targets=(2, 2))
    shape = Published(channels=2, pool=2, hidden=8)
    state = {name: value.numpy() for name, value in module(shape, recipe.aperture).state_dict().items()}
    path = tmp_path / "deep.safetensors"
    save(path, Card("published", asdict(shape), asdict(recipe), {}), state)
    return path, Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=4, targets=2)


def test_the_published_network_is_a_precoder_too(published):
    path, setup = published
    problem = draw(1, setup)
    made = CspNet(weights=str(path)).design(problem)
    assert scored(problem, made).clipped == 0
    assert made.power_w.sum() == pytest.approx(problem.power_w)
    steps = made.delay_s / (100e-12 / 16)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


def test_the_published_network_without_torch_says_so(published, monkeypatch):
    path, setup = published
    row = row_of(draw(1, setup))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Misuse, match=r"needs torch.*factored"):
        deep(str(path), row)


def test_the_shipped_network_needs_no_torch():
    import subprocess

    said = (
        "import sys; from twin.compare_precoders import draw; from twin.precoding.csp_net import CspNet;"
        "CspNet().design(draw(0)); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0


def test_in_the_loop_a_sampled_subframe_is_compared():
    from twin.build import run

    precoding = "{kind: csp_net, compare_every: 4}"
    done = run("scenarios/smoke.yaml", {"sites.bs0.control.precoding": precoding, "duration_s": 0.1}, write=False)
    told = np.array([np.nan if value is None else value for value in done.kpi.short_db], float)
    assert np.isfinite(told).any()
    assert np.isnan(told).any()
    assert np.all(np.abs(told[np.isfinite(told)]) < 15)
