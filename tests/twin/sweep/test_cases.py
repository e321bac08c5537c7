"""Sweep files: what they amount to, and what is said of wrong ones."""

from pathlib import Path

import numpy as np
import pytest

from twin.document import ScenarioError
from twin.sweep.cases import read_sweep

SMOKE = Path(__file__).parents[3] / "scenarios" / "smoke.yaml"


def written(folder, text):
    file = folder / "sweep.yaml"
    file.write_text(f"scenario: {SMOKE}\n{text}")
    return file


def problems(folder, text):
    with pytest.raises(ScenarioError) as caught:
        read_sweep(written(folder, text))
    return str(caught.value)


def test_a_grid_is_every_combination_with_seeds_innermost(tmp_path):
    plan = read_sweep(
        written(tmp_path, "over: {precoder.kind: [cbs, no_ttd], power_dbm: {start: 20, stop: 30, step: 5}, seed: 3..4}")
    )
    cases = list(plan.cases())
    assert [(c.values["precoder.kind"], c.values["power_dbm"], c.seed) for c in cases] == [
        (kind, power, seed) for kind in ("cbs", "no_ttd") for power in (20, 25, 30) for seed in (3, 4)
    ]
    assert [c.index for c in cases] == list(range(12))
    assert [c.point for c in cases] == [n // 2 for n in range(12)]
    assert plan.points == 6


def test_steps_are_the_numbers_one_would_write(tmp_path):
    plan = read_sweep(written(tmp_path, "over: {duration_s: {start: 0.1, stop: 0.5, step: 0.1}}"))
    assert [c.values["duration_s"] for c in plan.cases()] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_logarithmic_range_has_equal_ratios(tmp_path):
    plan = read_sweep(written(tmp_path, "over: {users.0.rcs_m2: {start: 0.1, stop: 10, count: 5, scale: log}}"))
    values = np.array([c.values["users.0.rcs_m2"] for c in plan.cases()])
    assert np.allclose(values[1:] / values[:-1], 10**0.5, rtol=1e-9)


def test_alternatives_set_several_values_under_one_name(tmp_path):
    plan = read_sweep(
        written(tmp_path, "over: {machine: {small: {power_dbm: 20, noise_figure_db: 12}, large: {power_dbm: 30}}}")
    )
    small, large = plan.cases()
    assert small.values == {"machine": "small"}
    assert small.sets == {"power_dbm": 20, "noise_figure_db": 12}
    assert large.sets == {"power_dbm": 30}


def test_random_draws_follow_their_seed_and_no_other_path(tmp_path):
    alone = "draw: {count: 400, seed: 5, of: {power_dbm: {normal: [25, 2]}}}"
    both = "draw: {count: 400, seed: 5, of: {users.0.rcs_m2: {log_uniform: [1, 100]}, power_dbm: {normal: [25, 2]}}}"
    first = [c.values["power_dbm"] for c in read_sweep(written(tmp_path, alone)).cases()]
    second = [c.values["power_dbm"] for c in read_sweep(written(tmp_path, both)).cases()]
    other = [c.values["power_dbm"] for c in read_sweep(written(tmp_path, alone), {"draw.seed": 6}).cases()]
    assert first == second != other
    assert abs(np.mean(first) - 25) < 4 * 2 / 20
    assert abs(np.std(first) - 2) < 0.3
    logs = np.log([c.values["users.0.rcs_m2"] for c in read_sweep(written(tmp_path, both)).cases()])
    assert logs.min() > 0
    assert logs.max() < np.log(100)
    assert abs(logs.mean() - np.log(10)) < 4 * np.log(100) / np.sqrt(12 * 400)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("over: {precoder.knd: [cbs]}", "unknown key; did you mean"),
        ("over: {precoder.kind: [cbs, nothing]}", "sweep.yaml:2:29: "),
        ("over: {precoder.kind: []}", "is empty"),
        ("over: {power_dbm: {start: 1, stop: 5, step: -1}}", "step must lead from start to stop"),
        ("over: {power_dbm: {start: 1, stop: 5}}", "either step or count"),
        ("over: {power_dbm: 20}", "must be a list"),
        ("over: {power_dbm: [20, 20]}", "holds a value twice"),
        ("over: {seed: [-1]}", "whole numbers from 0"),
        ("over: {power_dbm: [20, 2000]}", "power_dbm: must be <= 100 (got 2000)"),
        ("ovr: {power_dbm: [20]}", "did you mean 'over'"),
        ("set: {sensing.dwels: 1}", "sensing.dwels: unknown key"),
        ("draw: {count: 0, of: {power_dbm: {uniform: [1, 2]}}}", "draw.count: must be a whole number from 1"),
        ("draw: {count: 3, of: {power_dbm: {uniform: [2, 1]}}}", "low must lie below high"),
        ("draw: {count: 3, of: {power_dbm: {unifrm: [1, 2]}}}", "must be one of uniform"),
        ("until: ci(rates) < 1 %", "no key figure 'rates'"),
        ("until: rate < 1 %", "is written `ci(rate_gbps) < 1 %`"),
        ("keep: often", "must be true or false"),
    ],
)
def test_a_wrong_file_says_where_and_what_is_right(tmp_path, text, said):
    message = problems(tmp_path, text)
    assert "sweep.yaml:2:" in message
    assert said in message


def test_a_figure_may_go_by_its_name_without_the_unit(tmp_path):
    until = read_sweep(written(tmp_path, "until: ci(rate) < 2 %")).until
    assert (until.figure, until.share) == ("rate_gbps", 0.02)
    assert until.reached(mean=100.0, half=1.9)
    assert not until.reached(mean=100.0, half=2.1)
    assert not until.reached(mean=float("nan"), half=float("nan"))


def test_a_missing_scenario_is_named(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("scenario: nowhere.yaml\n")
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml: no such file"):
        read_sweep(file)


def test_a_row_is_known_again_only_if_nothing_it_follows_from_changed(tmp_path):
    plan = read_sweep(written(tmp_path, "over: {power_dbm: [20, 30], seed: 0..1}"))
    wider = read_sweep(written(tmp_path, "over: {power_dbm: [10, 20, 30], seed: 0..2}"))
    keys = {plan.key(c, "code") for c in plan.cases()}
    assert len(keys) == 4
    assert keys < {wider.key(c, "code") for c in wider.cases()}
    assert not keys & {plan.key(c, "other code") for c in plan.cases()}
    longer = read_sweep(written(tmp_path, "set: {duration_s: 2}\nover: {power_dbm: [20, 30], seed: 0..1}"))
    assert not keys & {longer.key(c, "code") for c in longer.cases()}
