"""Rate-CRB regions: what is on the boundary, and the area that counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.errors import Misuse
from twin.physics.boundary import best_crb_at, dual_functional_gain, pareto

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(points)
def test_a_point_is_on_the_boundary_unless_another_beats_it(found):
    rate, crb = np.array(found, float).T
    for i, on in enumerate(pareto(rate, crb)):
        beaten = (rate >= rate[i]) & (crb <= crb[i]) & ((rate > rate[i]) | (crb < crb[i]))
        assert on == (not beaten.any())


def test_gain_is_nothing_for_time_sharing_and_one_for_both_at_once():
    sensing, comm = (1.0, 0.1), (5.0, 0.9)
    line = np.linspace(0, 1, 50)
    along = 1.0 + 4 * line, 0.1 + 0.8 * line
    for edge in ("staircase", "hull"):
        assert dual_functional_gain(*along, sensing, comm, edge) == pytest.approx(0, abs=1e-3)
        assert dual_functional_gain(np.array([5.0]), np.array([0.1]), sensing, comm, edge) == pytest.approx(1, abs=1e-3)
        # beyond the box counts as its corner
        assert dual_functional_gain(np.array([9.0]), np.array([0.01]), sensing, comm, edge) == pytest.approx(
            1, abs=1e-3
        )
    # one point in the middle of the lower right half: a square of side 1/2 less the triangle under the segment, by hand
    half = dual_functional_gain(np.array([3.0]), np.array([0.1]), sensing, comm)
    assert half == pytest.approx(2 * (0.25 / 2), rel=1e-9)
    assert dual_functional_gain(np.array([3.0]), np.array([0.1]), sensing, comm, "hull") == pytest.approx(0.5, abs=1e-3)


@given(points, points)
def test_more_points_never_lower_the_gain(few, more):
    small, large = np.array(few, float).T, np.array(few + more, float).T
    for edge in ("staircase", "hull"):
        assert (
            dual_functional_gain(*large, (1.0, 1.0), (5.0, 5.0), edge)
            >= dual_functional_gain(*small, (1.0, 1.0), (5.0, 5.0), edge) - 1e-9
        )


def test_no_box_no_gain():
    with pytest.raises(Misuse, match="no box"):
        dual_functional_gain(np.ones(1), np.ones(1), (5.0, 0.1), (1.0, 0.9))
    assert np.isnan(best_crb_at(np.ones(1), np.ones(1), 2.0))
    assert best_crb_at(np.array([1.0, 2.0]), np.array([0.5, 0.7]), 1.5) == 0.7
