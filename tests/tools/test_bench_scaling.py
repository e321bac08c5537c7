from __future__ import annotations

import pytest

from tools.bench.scaling import slope


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_slope_is_the_power_of_the_upper_half(power):
    sizes = (1, 3, 10, 30, 100)
    assert slope({n: 7.0 * n**power for n in sizes}) == pytest.approx(power)
    assert slope({n: 7.0 * n**power if n >= 10 else 1e9 for n in sizes}) == pytest.approx(power)
