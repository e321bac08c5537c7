"""Verdicts on papers/000 come from the CSV alone: numbers that say otherwise flip them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tools.reproduce import (
    squint,
    squint_fig3,
    squint_fig4a,
    squint_fig4b,
    squint_fig4c,
    squint_fig4d,
    squint_fig6,
    squint_proposition1,
    squint_table2,
    squint_table3,
)

HEAD = ("x", "seed", "scheme", "rate", "crb", "divergence", "time_s")


def sheet(path, value, schemes, xs=(0.0, 10.0, 20.0), seeds=6):
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(HEAD)
        for x in xs:
            for seed in range(seeds):
                for scheme in schemes:
                    rate, crb, time_s = value(x, scheme)
                    wobble = 1 + 0.01 * rng.normal()
                    table.writerow((x, seed, scheme, rate * wobble, crb * wobble, 1.0, time_s))
    return path


def verdicts(found):
    return [one["verdict"] for one in found]


@pytest.mark.parametrize("better", [True, False])
def test_figures_4(tmp_path, better):
    ahead = {
        "SA-Opt": 2.0 if better else 0.5,
        "Comm-dedicated": 2.05,
        "Opt w/o TTD": 1.0,
        "CSP-Net": 1.95 if better else 0.4,
    }
    below = {"SA-Opt": 0.5 if better else 2.0, "Sensing-dedicated": 0.5, "CSP-Net": 0.6 if better else 1.5}

    def value(x, scheme):
        return 10 ** (x / 10) * ahead.get(scheme, 1.0), 10 ** (-x / 10) * below.get(scheme, 1.0), 0.0

    path = sheet(tmp_path / "f.csv", value, squint.PAPER)
    expected = "holds" if better else "fails"
    assert set(verdicts(squint_fig4a.verdict(path))) == {expected}
    assert verdicts(squint_fig4b.verdict(path)[:1]) == [expected]
    assert verdicts(squint_fig4b.verdict(path)[-2:]) == [expected, "holds"]

    def spread(x, scheme):
        fall = 0.01 if (scheme == "CBS-ISAC") == better and scheme != "Comm-dedicated" else 0.9
        rise = 100.0 if (scheme == "CBS-ISAC") == better else 1.1
        return ((fall if x > 0.1 else 1.0) * ahead.get(scheme, 1.0), rise if x > 0.1 else 1.0, 0.0)

    path = sheet(tmp_path / "s.csv", spread, squint.PAPER, xs=(0.05, 0.3))
    assert set(verdicts(squint_fig4c.verdict(path))) == {expected}
    assert set(verdicts(squint_fig4d.verdict(path)[:3])) == {expected}


@pytest.mark.parametrize("slow", ["SA-Opt", "direct"])
def test_figure_6(tmp_path, slow):
    path = sheet(
        tmp_path / "f.csv",
        lambda x, scheme: (1.0, 1.0, 1.0 if scheme == slow else 1e-3),
        squint_fig6.TIMED,
        xs=(16.0, 64.0),
    )
    assert set(verdicts(squint_fig6.verdict(path))) == {"holds" if slow == "SA-Opt" else "fails"}


@pytest.mark.parametrize("as_stated", [True, False])
def test_table_3(tmp_path, as_stated):
    grown = {"N_t": 6 if as_stated else 1, "M": 1 if as_stated else 2, "2^B_t": 1 if as_stated else 0}
    names = [f"{axis}:SA-Opt" for axis in grown]
    path = sheet(
        tmp_path / "t.csv", lambda x, scheme: (1.0, 1.0, x ** grown[scheme.split(":")[0]]), names, xs=(2.0, 4.0, 8.0)
    )
    assert set(verdicts(squint_table3.verdict(path))) == {"holds" if as_stated else "fails"}


@pytest.mark.parametrize("sign", [1, -1])
def test_proposition_1(tmp_path, sign):
    path = tmp_path / "p.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(HEAD)
        for seed in range(4):
            for i in range(10):
                table.writerow((i, seed, "random", 5 + sign * i, 1 / (5 + sign * 0.4 * i), 1 / (1 + i), 0))
    assert set(verdicts(squint_proposition1.verdict(path))) == {"holds" if sign > 0 else "fails"}


def test_a_figure_is_made_by_the_public_functions(tmp_path):
    path = tmp_path / "q.csv"
    setup = squint.Setup(columns=4, rows=4, delay_lines=(2, 2), subcarriers=4)
    squint.sweep(path, {10.0: setup}, 2, {name: squint.PAPER[name] for name in ("CBS-ISAC", "Comm-dedicated")})
    found = squint.rows(path)
    assert len(found) == 4
    assert squint.curve(found, "Comm-dedicated", "rate")[1][0] > 0


def curves(path, rows, variant=None):
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow([*(["scheme"] if variant else []), "step", "gain", "correlation_share", "rate_bits", "crb_db"])
        table.writerows(rows)
    return path


@pytest.mark.parametrize("learns", [True, False])
def test_figure_3_and_table_2(tmp_path, learns):
    sign = 1 if learns else -1
    rises = [(i, 1 + sign * (1 - 0.5**i), 0.6 + sign * 0.3 * (1 - 0.5**i), 5 + sign * i, -sign * i) for i in range(10)]
    found = verdicts(squint_fig3.verdict(curves(tmp_path / "c.csv", rises)))
    assert [one for i, one in enumerate(found) if i != 1] == ["holds" if learns else "fails"] * 4
    assert found[1] == "holds"
    wanders = [(i, 1 + i, 0, 0, 0) for i in range(10)]
    assert verdicts(squint_fig3.verdict(curves(tmp_path / "w.csv", wanders)))[1] == "fails"
    full, half = (2.0, 0.9, 18, -30), (1.0, 0.45, 9, -15)
    table = [
        (name, step, *(full if (name == "CSP-Net") == learns else half))
        for name in squint_table2.VARIANTS
        for step in (1, 2)
    ]
    assert set(verdicts(squint_table2.verdict(curves(tmp_path / "t.csv", table, True)))) == {
        "holds" if learns else "fails"
    }
