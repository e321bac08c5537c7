"""Schemes side by side: paired draws, the read-back, the table and its files."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest

from hal.errors import Misuse
from twin.compare_precoders import SCHEMES, Setup, arguments, compare, draw, interval_db, met, run, scored

SMALL = Setup(columns=6, rows=6, delay_lines=(3, 3), subcarriers=6)


def command(*words):
    parser = ArgumentParser()
    arguments(parser)
    return parser.parse_args([*words])


def test_draws_are_what_the_setup_says():
    setup = Setup(msia_rad=0.07, snr_db=13.0)
    for seed in range(5):
        problem = draw(seed, setup)
        (uy, uz), target = problem.user_direction[0, 1:], problem.target_direction[0]
        azimuth, elevation = np.arctan2(target[:, 1], target[:, 0]), np.arcsin(target[:, 2])
        user = np.arctan2(uy, problem.user_direction[0, 0]), np.arcsin(uz)
        apart = np.concatenate([azimuth - user[0], elevation - user[1]])
        assert np.sqrt(np.mean(apart**2)) == pytest.approx(0.07)
        assert problem.power_w == pytest.approx(10**1.3)
    louder = draw(3, Setup(snr_db=20.0))
    np.testing.assert_array_equal(louder.target_gain, draw(3, Setup()).target_gain)
    alpha = np.array([draw(seed, Setup(columns=2, rows=2, delay_lines=(1, 1))).target_gain * 4 for seed in range(200)])
    assert np.mean(np.abs(alpha) ** 2) == pytest.approx(0.36, rel=0.03)
    with pytest.raises(Misuse, match="targets"):
        draw(0, Setup(targets=0))
    with pytest.raises(Misuse, match="elevation_rad"):
        draw(0, Setup(elevation_rad=1.6))
    with pytest.raises(Misuse, match="inside the sector"):
        draw(0, Setup(msia_rad=3.0))


def test_scores_are_of_what_the_machine_makes():
    coarse = Setup(columns=6, rows=6, delay_lines=(3, 3), subcarriers=6, phase_bits=1)
    fine = draw(1, SMALL)
    design = SCHEMES["comm"].design(fine)
    assert scored(draw(1, coarse), design).rate < 0.9 * scored(fine, design).rate


def test_the_same_seeds_are_the_same_numbers_and_progress_is_told():
    told = []
    names = ("comm", "CBS (21)")
    schemes = {name: SCHEMES[name] for name in names}
    one = compare(SMALL, range(3), schemes, lambda done, total: told.append((done, total)))
    two = compare(SMALL, range(1, 3), schemes)
    assert told == [(1, 3), (2, 3), (3, 3)]
    for name in names:
        assert [s.crb for s in one[name][1:]] == [s.crb for s in two[name]]


def test_intervals_are_students_of_paired_decibels():
    mean, half = interval_db(np.array([1.0, 10.0, 100.0, np.inf]))
    assert mean == pytest.approx(10.0)
    assert half == pytest.approx(4.302653 * 10 / np.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom at 97.5 %


def test_the_command_prints_writes_and_plots(capsys, tmp_path):
    table, figure = tmp_path / "t.csv", tmp_path / "f.png"
    words = ("--draws", "2", "--array", "4", "--scheme", "CBS (21)", "--csv", str(table), "--plot", str(figure))
    assert run(command(*words, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["scheme"] for row in told["schemes"]} == {"comm", "sensing (21)", "CBS (21)"}
    assert len(table.read_text().splitlines()) == 1 + 2 * 3
    assert figure.stat().st_size > 5000
    assert run(command(*words)) == 0
    shown = capsys.readouterr().out
    assert "CBS (21)" in shown
    assert "clipped to the box" in shown
    with pytest.raises(Misuse, match="--draws 0"):
        run(command("--draws", "0"))


def test_a_scenarios_own_beams_are_compared_as_believed(capsys, tmp_path):
    smoke = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
    table = tmp_path / "t.csv"
    words = (str(smoke), "--draws", "3", "--scheme", "direct 4", "--csv", str(table), "--json")
    assert run(command(*words)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scenario"] == str(smoke)
    assert told["draws"] == 3
    rows = {row["scheme"]: row for row in told["schemes"]}
    assert rows["comm"]["rate_bits"] > rows["direct 4"]["rate_bits"] > rows["sensing (21)"]["rate_bits"]
    assert rows["direct 4"]["crb_rad2"] < rows["comm"]["crb_rad2"]
    problems = met(smoke, {}, 20, 3)
    true = np.array([[30.0, -5.0, 1.5], [50.0, 10.0, 1.5]]) - [0.0, 0.0, 10.0]
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    for problem in problems:  # one row each, its user where one of the two is, to a few centiradians after 0.1 s
        assert len(problem.user_direction) == 1
        assert np.linalg.norm(problem.user_direction - true, axis=1).min() < 0.04
        assert problem.previous is None
    with pytest.raises(Misuse, match="no data beam had a located user"):
        met(smoke, {}, 1, 3)
    with pytest.raises(Misuse, match="--subframes 0"):
        run(command(str(smoke), "--subframes", "0"))
