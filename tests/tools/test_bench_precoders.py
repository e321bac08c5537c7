"""The precoders' benchmark: its naive ways give the same numbers, so that what it divides by is no straw man."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bench import precoders
from twin.compare_precoders import Setup, draw, row_of
from twin.precoding._search import delay_divergence


def test_separable_reevaluation_is_the_divergence():
    row = row_of(draw(1, Setup(columns=8, rows=8, delay_lines=(4, 4), subcarriers=6)))
    delay_s = np.random.default_rng(0).uniform(0, 90e-12, 16)
    assert precoders.separable(row, delay_s, (16, 24))() == pytest.approx(
        delay_divergence(row, delay_s, (16, 24)), rel=1e-9
    )


def test_the_naive_information_and_the_conic_solver_agree():
    ours, naive = precoders.informations()
    np.testing.assert_allclose(ours(), (plain := naive()), rtol=0, atol=1e-12 * np.abs(plain).max())
    pytest.importorskip("cvxpy")
    found = precoders.power(1)
    assert abs(found["(20) bound apart"]) < 1e-6
    assert abs(found["(21) bound apart"]) < 1e-6


def test_a_part_that_is_none(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench", "spead"])
    with pytest.raises(SystemExit):
        precoders.main()
    assert "there are fim, search" in capsys.readouterr().err
