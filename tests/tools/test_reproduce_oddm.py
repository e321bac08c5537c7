"""Verdicts on papers/001 come from the CSV alone: numbers that say otherwise flip them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tools.reproduce import oddm, oddm_fig5, oddm_fig6, oddm_fig7, oddm_fig8, oddm_fig9, oddm_fig10


def score(error: float, bound: float = 1e-3, outliers: float = 0.0) -> list[float]:
    return oddm.scored(oddm.Score(np.full(4, error * bound), np.full(4, bound), np.full(4, error), outliers))


def sheet(path, head, lines):
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(head)
        table.writerows(lines)
    return path


def verdicts(found):
    return [one["verdict"] == oddm.claim("", True)["verdict"] for one in found]


@pytest.mark.parametrize("good", [True, False])
def test_figure_5_and_9(tmp_path, good):
    lines = []
    for budget in ("paper", "radar"):
        for combiner, base in (("random phases", 1e-5), ("genetic", 1e-6)):
            for x in (-20.0, 5.0, 15.0, 25.0):
                db = -abs(x - 15)
                bound = (
                    base * 10 ** (-db / 20) * (100 if budget == "radar" else 1) * (1 if good else 1 + 1e5 * (x == 15))
                )
                for scheme in ("three_step", "joint"):
                    lines.append((budget, combiner, x, db, scheme, *score(1.0 if good else 30.0, bound)))
    path = sheet(tmp_path / "f.csv", ("budget", "combiner", "x", "pattern_db", "scheme", *oddm.SCORED), lines)
    five = [line for line in lines if line[1] == "random phases"]
    assert (
        verdicts(oddm_fig5.verdict(sheet(tmp_path / "g.csv", path.read_text().splitlines()[0].split(","), five)))[:5]
        == [good] * 5
    )
    assert verdicts(oddm_fig9.verdict(path))[:2] == [good] * 2


@pytest.mark.parametrize("good", [True, False])
def test_figure_6(tmp_path, good):
    lines = []
    for scheme in ("three_step", "joint"):
        for i in range(4):
            lines.append((f"random {i}", scheme, *score(50.0 if good else 1.0, 1e-2 if good else 1e-4)))
        for name in ("genetic", "squinted", "closed form", "unambiguous, all ahead"):
            worse = not good and name in ("closed form", "genetic")
            lines.append(
                (
                    name,
                    scheme,
                    *score(9.0 if worse else 1.0, 3e-5 * (1 + (worse and name == "closed form")), 0.0 if good else 0.5),
                )
            )
    path = sheet(tmp_path / "f.csv", ("combiner", "scheme", *oddm.SCORED), lines)
    assert verdicts(oddm_fig6.verdict(path)) == [good] * 6


@pytest.mark.parametrize("good", [True, False])
def test_figure_7(tmp_path, good):
    end, speed = (
        ({0.1: 1.5, 0.4: 1.3, 0.7: 1.29}, {0.1: 2, 0.4: 5, 0.7: 15})
        if good
        else ({0.1: 0.5, 0.4: 1.3, 0.7: 1.5}, {0.1: 20, 0.4: 10, 0.7: 3})
    )
    lines = [(40, 0, rate, g, end[rate] + 2 * np.exp(-g / speed[rate])) for rate in end for g in range(51)]
    path = sheet(tmp_path / "f.csv", ("population", "seed", "rate", "generation", "over_digital"), lines)
    assert sorted(verdicts(oddm_fig7.verdict(path))) == [good] * 4


@pytest.mark.parametrize(("spread", "same"), [(0.5, True), (0.01, False)])
def test_seeds_that_scatter_do_not_tell_two_elite_rates_apart(tmp_path, spread, same):
    """The means are 8 % apart in both: with five seeds that scatter by 40 % that is nothing, with seeds that agree it is something."""
    lines = [
        (40, seed, rate, g, end + spread * (seed - 2) * (1 if rate == 0.4 else -1) / 2 + np.exp(-g))
        for seed in range(5)
        for rate, end in ((0.1, 1.6), (0.4, 1.35), (0.7, 1.25))
        for g in range(51)
    ]
    path = sheet(tmp_path / "f.csv", ("population", "seed", "rate", "generation", "over_digital"), lines)
    (told,) = (c for c in oddm_fig7.verdict(path) if "same fitness" in c["claim"])
    assert verdicts([told]) == [same]
    assert told["ratio"] == pytest.approx(1.08)
    assert told["seeds"] == 5


@pytest.mark.parametrize("narrow", [True, False])
def test_figure_8(tmp_path, narrow):
    lines = []
    for name in ("genetic", "closed form", "unambiguous, all ahead"):
        for x in np.arange(5.0, 26.0):
            far = narrow and abs(x - 15) > 4 and not name.startswith("un")
            lines += [
                (name, x, scheme, *score(40.0 if far else 1.0, 1e-3 * (2 if abs(x - 15) > 4 else 1)))
                for scheme in ("three_step", "joint")
            ]
    path = sheet(tmp_path / "f.csv", ("combiner", "x", "scheme", *oddm.SCORED), lines)
    assert verdicts(oddm_fig8.verdict(path)) == [narrow, narrow, False, True]


@pytest.mark.parametrize("good", [True, False])
def test_figure_10(tmp_path, good):
    rate = {"sensing": 18.0, "svd": 37.0 if good else 19.0, "svd, pe_altmin": 37.0 if good else 10.0, "svd, omp": 35.0}
    lines = [
        (-27.0, name, scheme, se, *score(1.0 if good else 3.0, (1e-4 if name == "sensing" else 2e-4) if good else 1e-1))
        for name, se in rate.items()
        for scheme in ("three_step", "joint")
    ]
    path = sheet(tmp_path / "f.csv", ("nlos_db", "precoder", "scheme", "se_bps_hz", *oddm.SCORED), lines)
    assert verdicts(oddm_fig10.verdict(path)) == [good] * 5


def test_a_figure_is_made_by_the_public_functions():
    made = oddm.trials(oddm.Setup(), count=2)
    found = oddm.scores({"joint": oddm.estimators()["joint"]}, made)["joint"]
    assert found.outliers == 0
    assert np.all(found.rmse < 6 * found.bound)


def test_budgets_are_the_notes_numbers():
    # integrated SNR of the aligned arrays: 38.2 dB by the radar equation for 1 m2, 83.43 dB by one-way Friis: by hand from Table I
    honest, paper = (10 * np.log10(oddm.Setup(budget=b).integrated_snr) for b in ("radar", "paper"))
    assert honest == pytest.approx(38.2, abs=0.15)
    assert paper == pytest.approx(83.43, abs=0.05)
