"""The time a design takes: data beams wait for it, nothing else does, and a user who moves meanwhile is missed by as much as geometry says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hal.array import Upa, direction_to, rotation_from, steering
from twin import loop
from twin.build import Twin, run
from twin.records import BeamsCommand
from twin.scenario import load

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"
ROUND = {
    "duration_s": 0.3,
    "sensing.fidelity": "bound",
    "channel.rays": 0,
    "targets": [],
    "users": [
        {
            "name": "car",
            "mobility": {
                "kind": "waypoints",
                "speed_mps": 20,
                "points_m": [
                    [15 * np.cos(a), 15 * np.sin(a), 1.5] for a in np.deg2rad(np.arange(-20, 21, 2.0)).tolist()
                ],
            },
        }
    ],
}


def rows(*slots: int) -> BeamsCommand:
    n, one = len(slots), np.zeros((1, 1, 1))
    return BeamsCommand(
        transmit_slot=np.array(slots),
        transmit_delay_s=np.zeros((n, 1, 0)),
        transmit_phase_rad=np.array(slots, float)[:, None, None],
        transmit_amplitude=np.ones((n, 1, 1)),
        receive_slot=np.array([9]),
        receive_delay_s=one[:, :, :0],
        receive_phase_rad=one,
        receive_amplitude=one,
    )


def test_data_rows_are_handed_over_at_their_own_instants_and_in_order(monkeypatch):
    said = []
    monkeypatch.setattr(
        loop,
        "latch",
        lambda site, beams, at_ns: [
            said.append(
                (
                    at_ns,
                    beams.transmit_slot.tolist(),
                    beams.receive_slot.tolist(),
                    beams.transmit_phase_rad.ravel().tolist(),
                )
            )
        ],
    )
    site = SimpleNamespace(control_latency_ns=7, waiting=[])
    plan = SimpleNamespace(slot=np.array([-1, 2, 3]))
    for now in (0, 5, 10):
        loop.in_turn(site, rows(2, 5, 3), (plan, plan), now, now + 5)
    assert said == [
        (0, [5], [9], [5.0]),
        (5, [5], [9], [5.0]),
        (7, [2, 3], [], [2.0, 3.0]),
        (10, [5], [9], [5.0]),
        (12, [2, 3], [], [2.0, 3.0]),
    ]
    assert [due for due, _ in site.waiting] == [17]


@pytest.mark.parametrize("latency_us", [2_000, 17_000])
def test_block_by_block_is_the_same_run(latency_us):
    hashes = [
        run(SMOKE, {"control_latency_us": latency_us}, write=False, split=split).summary["run"]["hash"]
        for split in (False, True)
    ]
    assert hashes[0] == hashes[1]


def test_a_late_beam_misses_by_what_the_user_moved_meanwhile():
    late_s = 0.05
    done = run(SMOKE, {**ROUND, "control_latency_us": 1e6 * late_s}, write=False)
    scenario = load(SMOKE, ROUND)
    with Twin(scenario) as twin:
        array = Upa(8, 8).build(100e9, np.array([0.0, 0.0, 10.0]), rotation_from(0.0, 0.0))
        # a beam aims at the middle of the 5 ms that begin with its command; with latency these begin that much later
        middle_ns = np.arange(20, 50) * 5_000_000 + 2_500_000
        place = np.concatenate([twin.air.world.at(int(t)).position_m for t in middle_ns])
        a = steering(array, direction_to(array, place)[0], 100e9)
        late = round(late_s / 5e-3)
        lost = -20 * np.log10(np.abs(np.sum(a[late:].conj() * a[:-late], axis=1)) / 64)
    found = done.kpi.beam_loss_db[20 + late : 50, 0]
    assert np.mean(lost) > 0.5  # what is tested is there to be seen
    assert np.mean(found) == pytest.approx(np.mean(lost), rel=0.15)
    prompt = run(SMOKE, ROUND, write=False)
    assert np.mean(prompt.kpi.beam_loss_db[30:50]) < 0.2 * np.mean(lost)


def test_power_waits_with_its_beam():
    """Of a design that is not done, neither is the power: water-filling of a beam not in force would be of no use to the one that is."""
    scenario = load(SMOKE, {"control_latency_us": 40_000, "precoder": {"kind": "delay_phase", "power": "waterfill"}})
    with Twin(scenario) as twin:
        seen = []
        plain = twin.chain.baseband
        twin.chain.baseband = lambda updates: seen.append((twin.chain.belief.t_ns, plain(updates))) or seen[-1][1]
        twin.play(split=False, progress=False)
    slots = sorted({int(s) for s in replace(twin.site.plan).slot if s >= 0})
    first = next(t for t, command in seen if set(slots) & set(command.slot.tolist()))
    designed = next(due for due, _ in [(t, None) for t, _ in seen])
    assert first - designed >= 35_000_000
