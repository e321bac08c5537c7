"""Key figures: closed forms of rate and ownership, and detections drawn from the bound that have the bound's spread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twin import build, loop
from twin.kpi import bound_detections, dwell_bound, measured, no_blocks, owners, spot, with_served
from twin.scenario import load

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


def test_rate_is_shannon_over_subcarriers_less_pilots() -> None:
    scenario = load(SMOKE)
    with build.Twin(scenario, "t", None, False) as twin:
        numerology = twin.air.numerology
    channel = np.full((2, 4, 1), 1e-5 + 0j)
    served = with_served(
        no_blocks(numerology, np.array([7, 9])),
        block=np.array([3, 5]),
        column=np.array([0, 1]),
        channel=channel,
        digital=np.ones((2, 1, 1)),
        power_w=np.array([[1e-3] * 4, [3e-3] * 4]),
        matched_gain=np.array([4e-10, 4e-10]),
        data_share=np.array([1.0, 0.9]),
        spacing_hz=250e6,
        noise_w=1e-13,
    )
    assert served.rate_bps[3, 0] == pytest.approx(4 * 250e6 * np.log2(1 + 1.0))
    assert served.rate_bps[5, 1] == pytest.approx(0.9 * 4 * 250e6 * np.log2(1 + 3.0))
    assert served.matched[3, 0] == pytest.approx(4.0)
    assert served.served.sum() == 2


def test_owner_is_told_by_range_and_speed_and_near_by_place() -> None:
    truth = np.array([[0.0, -0.1, 40.0, 5.0], [0.3, -0.1, 60.0, -3.0]])
    value = np.array(
        [
            [0.01, -0.1, 40.1, 5.05],  # the first, where it is
            [0.4, -0.1, 40.1, 5.05],  # the first, through a side lobe
            [0.3, -0.1, 60.0, 12.0],  # at the second's place, but not its speed: nobody's
        ]
    )
    spread = np.broadcast_to(np.diag([1e-3, 1e-3, 0.05, 0.05]) ** 2, (3, 4, 4))
    owner, near = owners(value, spread, truth)
    assert owner.tolist() == [0, 0, -1]
    assert near.tolist() == [True, False, False]


def test_spot_is_range_along_the_direction() -> None:
    assert spot(np.array([[0.6, 0.0, 10.0, 1.0]])) == pytest.approx(np.array([[8.0, 6.0, 0.0]]))


def test_detections_drawn_from_the_bound_have_its_spread() -> None:
    normed = []
    with build.Twin(load(SMOKE, {"sensing.fidelity": "bound"}), "t", None, False) as twin:
        air, site = twin.air, twin.site
        numerology, spec = air.numerology, site.frontend.spec
        plan = replace(
            site.plan, dwell_transmit_slot=np.arange(64), dwell_receive_slot=np.arange(64)
        )  # every beam there is
        loaded = np.isin(plan.dwell_transmit_slot, site.transmit.setpoint.slot)
        plan = replace(plan, dwell_transmit_slot=np.flatnonzero(loaded), dwell_receive_slot=np.flatnonzero(loaded))
        for dwell in loop.sense(air, site, plan, 0)[0]:
            bound, _ = dwell_bound(dwell, site.receive, spec, numerology)
            for t_ns in range(0, 200_000, 1000):  # only the draw depends on it
                seen = bound_detections(
                    [replace(dwell, truth=replace(dwell.truth, t_ns=t_ns))], site.receive, spec, numerology, air.draws
                )
                for value, spread in zip(seen.value, seen.covariance, strict=True):
                    j = int(np.argmin(np.abs(bound - spread).sum(axis=(1, 2))))
                    assert np.array_equal(bound[j], spread)
                    gap = value - measured(dwell)[j]
                    normed.append(float(gap @ np.linalg.solve(spread, gap)))
    assert len(normed) >= 400
    assert np.mean(normed) == pytest.approx(4.0, abs=5 * np.sqrt(8 / len(normed)))


def test_more_power_lowers_the_bound_as_it_should() -> None:
    with build.Twin(load(SMOKE), "t", None, False) as twin:
        (dwell,) = loop.sense(twin.air, twin.site, twin.site.plan, 0)[0]
        spec, numerology = twin.site.frontend.spec, twin.air.numerology
        weak, snr = dwell_bound(dwell, twin.site.receive, spec, numerology)
        loud, more = dwell_bound(
            replace(dwell, paths=replace(dwell.paths, gain=dwell.paths.gain * 3)), twin.site.receive, spec, numerology
        )
    finite = np.isfinite(weak[:, 2, 2])
    assert finite.any()
    assert weak[finite, 2, 2] / loud[finite, 2, 2] == pytest.approx(9.0)
    assert more / snr == pytest.approx(9.0)
