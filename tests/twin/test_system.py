"""Fidelity ``system``: what its formulas are worth beside the samples, and that users only lengthen the columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hal.array import LIGHT_MPS, Upa, steering
from hal.errors import Misuse
from twin.build import Twin, run
from twin.engine import Engine
from twin.scenario import ScenarioError, loads
from twin.system import dirichlet

HEAD = """
seed: 3
fidelity: system
duration_s: 0.5
system: { report_ms: 250, sample_ms: 50 }
channel: { kind: rician, rays: 0 }
sites:
  bs0:
    position_m: [0, 0, 10]
    transmit: { array: { kind: upa, columns: 8, rows: 8 }, network: { chains: 1, delay_lines: [8, 8], delay_bits: 0, phase_bits: 0 } }
    receive: { array: { kind: upa, columns: 8, rows: 8 }, network: { chains: 4, phase_bits: 0 } }
"""
CAR = "{{ name: car{i}, mobility: {{ kind: linear, position_m: [{x}, {y}, 1.5], velocity_mps: [0, {v}, 0] }} }}"
CROWD = "users:\n  - {{ name: crowd, rcs_m2: 1, mobility: {{ kind: crowd, count: {count}, fastest_mps: 10 }} }}\n"


def played(text, **sets):
    return run(loads(HEAD + text, overrides=sets), write=False)


def cars(*of):
    return "users:\n" + "".join(f"  - {CAR.format(i=i, x=x, y=y, v=v)}\n" for i, (x, y, v) in enumerate(of))


def test_rate_is_that_of_the_link_budget_written_out():
    ran = played(
        cars((40, 15, 0)), **{"system.tracks": "none", "channel.vapour_density_g_m3": 0.0, "channel.pressure_hpa": 1e-6}
    )
    range_m, wavelength_m = np.sqrt(40**2 + 15**2 + 8.5**2), LIGHT_MPS / 100e9
    # the defaults: 1 W on 8 GHz, a user's noise figure of 10 dB; 35 blocks of 140 us in 5 ms, of which 4 hold two dwells of 16 frames of 17.5 us
    snr = 64 * (wavelength_m / (4 * np.pi * range_m)) ** 2 / (1.380649e-23 * 290 * 10 * 8e9)
    blocks = 35 - int(np.ceil(2 * 16 * 17.5 / 140))
    assert np.allclose(ran.kpi.rate_bps, 8e9 * np.log2(1 + snr) * blocks * 131e-6 / 5e-3, rtol=1e-6)
    assert np.allclose(ran.kpi.snr_db, 10 * np.log10(snr), atol=1e-5)


def test_signal_to_noise_is_what_the_samples_bring_too():
    """The same street, static, at both fidelities: what separates them is what a beam designed from a track loses, far below a decibel."""
    scene = cars((40, 15, 0), (50, -20, 0)) + "sensing: { fidelity: bound, frames_per_dwell: 8 }\n"
    formula = played(scene)
    sampled = played(scene, fidelity="signal", duration_s=0.15)
    late = sampled.kpi.snr_db[15:]
    assert np.allclose(np.nanmean(late, axis=0), formula.kpi.snr_db.mean(axis=0), atol=0.5)


def test_without_power_there_is_no_rate_and_with_less_there_is_less():
    scene = CROWD.format(count=20)
    rate = [played(scene, **{"sites.bs0.power_dbm": power}).kpi.rate_bps.sum() for power in (30, 10, -300)]
    assert rate[0] > 1.5 * rate[1] > 0
    assert rate[2] < 1e-9 * rate[0]


def test_the_number_of_events_does_not_depend_on_the_users(monkeypatch):
    events = []
    schedule = Engine.schedule
    monkeypatch.setattr(
        Engine, "schedule", lambda self, *given, **more: (events.append(1), schedule(self, *given, **more))[1]
    )
    counts = []
    for count in (1, 10, 500):
        events.clear()
        played(CROWD.format(count=count))
        counts.append(len(events))
    assert len(set(counts)) == 1
    assert counts[0] < 12


def test_reports_of_any_length_add_up_to_the_same():
    """Turns, looks and chance go on from one report to the next: how often one is said changes nothing."""
    scene = cars(*((30 + 7 * i, 10 - 5 * i, (-1) ** i * 8) for i in range(5)))
    whole, often = (played(scene, **{"system.report_ms": ms, "system.sample_ms": 5}) for ms in (500, 25))
    assert (len(often.kpi.rate_bps), len(whole.kpi.rate_bps)) == (20, 1)
    for name in ("rate_bps", "predicted_bps"):
        assert np.allclose(getattr(often.kpi, name).mean(axis=0), getattr(whole.kpi, name)[0], rtol=1e-9)
    assert np.array_equal(often.kpi.served_blocks.sum(axis=0), whole.kpi.served_blocks[0])
    assert whole.kpi.served_blocks.sum() == 100 * 31
    assert np.ptp(whole.kpi.served_blocks) <= 1


def test_beams_rest_on_what_was_measured_not_on_the_truth():
    """The longer a turn takes to come round, the farther a manoeuvre has carried its user out of the beam; the true place never loses."""
    loss = {}
    for count in (3, 3000):
        ran = played(
            CROWD.format(count=count),
            duration_s=2,
            **{"users.0.mobility.fastest_mps": 30, "users.0.mobility.slowest_mps": 30},
        )
        loss[count] = np.nanmean(ran.kpi.beam_loss_db)
    true = played(CROWD.format(count=3000), **{"system.tracks": "none"})
    assert 0 <= loss[3] < 0.1 < loss[3000]
    assert np.nanmax(true.kpi.beam_loss_db) < 1e-5


def test_looks_err_as_their_bound_says():
    ran = played(CROWD.format(count=40), duration_s=10)
    ratio = (ran.kpi.error / ran.kpi.bound).reshape(-1, 4)
    ratio = ratio[np.isfinite(ratio).all(axis=1)]
    assert len(ratio) > 300
    assert np.allclose((ratio**2).mean(axis=0), 1.0, atol=5 * np.sqrt(2 / len(ratio)))
    assert (ran.kpi.tracked >= 0).mean() > 0.9


def test_who_is_not_there_is_not_served():
    scene = cars((40, 10, 5), (50, -10, 5)) + "targets: [{ name: bus, mobility: { kind: linear, appear_s: 0.3 } }]\n"
    ran = played(scene, **{"users.1.mobility.leave_s": 0.25})
    first, second = ran.kpi.served_blocks
    stays, left = (ran.user.index(name) for name in ("car0", "car1"))
    assert (first[stays], first[left]) == (
        50 * 31 // 2,
        40 * 31 // 2,
    )  # it was not there any more at the end of the fifth sample
    assert (second[stays], second[left]) == (50 * 31, 0)
    assert np.isnan(ran.kpi.rate_bps[1, left])
    assert np.isnan(ran.kpi.echo_snr_db[0, ran.entity.index("bus")])


def test_same_seed_same_run_other_seed_another():
    first, again, other = (played(CROWD.format(count=30), seed=seed).summary["run"]["hash"] for seed in (1, 1, 2))
    assert first == again != other


def test_what_is_kept_is_truth_and_key_figures_and_a_report_can_be_made(tmp_path):
    from twin.record import rows
    from twin.report import report

    ran = run(loads(HEAD + CROWD.format(count=3)), out=tmp_path / "run")
    assert {row.topic for row in rows(tmp_path / "run" / "recording.mcap")} >= {"truth.", "bs0.kpi."}
    assert ran.summary["run"]["subframes"] == 100
    assert ran.summary["run"]["simulated_s"] == pytest.approx(0.5)
    assert report(tmp_path / "run").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sets", "place"),
    [
        ({"communication.fidelity": "waveform"}, "communication.fidelity"),
        ({"bus.iq": "tcp://127.0.0.1:5599"}, "bus.iq"),
        ({"faults": [{"kind": "dead_element", "at_ms": 1}]}, "faults"),
    ],
)
def test_what_needs_samples_or_beams_is_refused(sets, place):
    with pytest.raises(ScenarioError, match=place):
        loads(HEAD + CROWD.format(count=3), overrides=sets)


def test_a_machine_for_this_fidelity_is_refused_to_whom_needs_one():
    scenario = loads(HEAD + CROWD.format(count=3))
    with pytest.raises(Misuse, match="fidelity"), Twin(scenario):
        pass
    with pytest.raises(Misuse, match="sight_amplitude"):
        run(replace(scenario, channel=object()), write=False)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_dirichlet_is_what_steering_vectors_make_of_it(count):
    array = Upa(columns=count, rows=1).build(100e9, np.zeros(3), np.eye(3))
    uy = np.linspace(-0.9, 0.9, 61)
    direction = np.column_stack([np.sqrt(1 - uy**2), uy, np.zeros_like(uy)])
    pattern = steering(array, direction, 100e9) @ steering(array, np.array([1.0, 0, 0]), 100e9).conj() / count
    assert np.allclose(dirichlet(count, np.pi * array.spacing_m * 100e9 / LIGHT_MPS * uy), pattern.real, atol=2e-5)
