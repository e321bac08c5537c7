"""What the dashboard draws of waves is what the physics elsewhere says of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hal.array import direction_from, direction_to, steering
from hal.frontend import Beam
from twin.dash.look import Lobes, Memory, axes_of, cs_correlation, plan_line, squint
from twin.patterns import gain_db
from twin.precoding._search import delay_divergence
from twin.precoding.delay_phase import steer
from twin.scenario import frontend_spec, loads, numerology

TEXT = """
communication: {subcarriers: 16, bandwidth_ghz: 8}
users: [{name: near, mobility: {kind: static, position_m: [30, 0, 1.5]}}]
sites: {bs0: {downtilt_deg: 8, transmit: {network: {chains: 1%s}}}}
"""


def made(lines=", delay_lines: [8, 8]"):
    scenario = loads(TEXT % lines)
    return frontend_spec(scenario, "bs0"), numerology(scenario)


def pointed(spec, direction):
    setting = steer(spec.transmit, direction[None, None], spec.carrier_hz)
    return Beam(
        half="transmit",
        slot=np.array([3]),
        delay_s=setting.delay_s,
        phase_rad=setting.phase_rad,
        amplitude=setting.amplitude,
    )


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.0, 0.0), (-40.0, -8.0), (25.0, 10.0), (58.0, -3.0)])
def test_a_lobe_peaks_where_the_beam_points_with_the_gain_it_has(azimuth, elevation):
    spec, _ = made()
    direction = direction_from(np.deg2rad(azimuth), np.deg2rad(elevation))
    one = Lobes(spec).lobe(3, pointed(spec, direction), False)
    assert np.rad2deg(np.arccos(np.clip(one.peak @ direction, -1, 1))) < 1.5
    assert one.gain_db.max() == pytest.approx(10 * np.log10(256), abs=0.4)


def test_every_point_of_a_lobe_is_the_gain_in_its_direction():
    spec, _ = made()
    beam = pointed(spec, direction_from(0.5, -0.1))
    one = Lobes(spec).lobe(3, beam, False)
    uy, uz = np.meshgrid(one.uy, one.uz, indexing="ij")
    inside = uy**2 + uz**2 < 0.999
    direction = np.stack([np.sqrt(1 - uy[inside] ** 2 - uz[inside] ** 2), uy[inside], uz[inside]], axis=-1)
    np.testing.assert_allclose(
        one.gain_db[inside], gain_db(spec, beam, direction, np.array([spec.carrier_hz]))[:, 0], atol=1e-6
    )
    assert (one.gain_db[uy**2 + uz**2 > 1.001] <= -90).all()


def test_dead_elements_show_in_the_lobe():
    spec, _ = made()
    beam = pointed(spec, direction_from(0.3, 0.0))
    amplitude = beam.amplitude.copy()
    amplitude[..., :128] = 0.0  # half of the aperture along y
    broken = Beam(half="transmit", slot=beam.slot, delay_s=beam.delay_s, phase_rad=beam.phase_rad, amplitude=amplitude)
    whole, half = (Lobes(spec).lobe(3, one, False) for one in (beam, broken))
    assert whole.gain_db.max() - half.gain_db.max() == pytest.approx(6.02, abs=0.1)
    wide = [np.ptp(one.uy[one.gain_db.max(axis=1) > one.gain_db.max() - 3]) for one in (whole, half)]
    assert wide[1] > 1.5 * wide[0]


def test_squint_is_visible_without_delay_lines_and_gone_with_them():
    direction = direction_from(np.deg2rad(50.0), 0.0)
    leans = {}
    for lines in (", delay_lines: null", ", delay_lines: [16, 16], delay_range_ps: 400"):
        spec, frame = made(lines)
        shown = squint(spec, frame, pointed(spec, direction), direction)
        ridge = shown["angle_deg"][shown["gain_db"].argmax(axis=0)]
        leans[lines] = ridge[0] - ridge[-1]
        assert shown["azimuth_deg"] == pytest.approx(50.0)
        assert shown["gain_db"].shape == (97, 16)
    # sin(az) f is constant along the ridge: from 96.25 to 103.75 GHz it moves by 5.2 degrees
    low, high = (np.rad2deg(np.arcsin(np.sin(np.deg2rad(50)) * 100 / f)) for f in (96.25, 103.75))
    assert leans[", delay_lines: null"] == pytest.approx(low - high, abs=0.7)
    assert abs(leans[lines]) < 0.3 * leans[", delay_lines: null"]


def test_ellipsoids_have_the_covariance_s_axes():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 3, 3))
    covariance = root @ root.transpose(0, 2, 1)
    axes = axes_of(covariance, 2.0)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), 4 * covariance, atol=1e-9)
    sphere = rng.normal(size=(100, 3))
    sphere /= np.linalg.norm(sphere, axis=1)[:, None]
    surface = sphere @ axes[0].T
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", surface, np.linalg.inv(covariance[0]), surface), 4.0)


def test_cs_correlation_is_the_inverse_of_the_precoder_s_own_divergence():
    spec, frame = made()
    direction = direction_from(0.4, -0.1)
    beam, gain = pointed(spec, direction), np.exp(1j * np.arange(16)) * 1e-5
    target = spec.transmit.array.origin_m + spec.transmit.array.rotation @ direction_from(0.1, -0.15) * 40.0
    value = cs_correlation(spec, frame, beam, (direction, gain), target[None])
    away, _ = direction_to(spec.transmit.array, target[None])
    few = slice(None, None, 2)
    row = SimpleNamespace(
        array=spec.transmit.array,
        receive=spec.receive.array,
        user_row=gain[few, None] * steering(spec.transmit.array, direction[None], frame.subcarrier_hz[few]),
        target_direction=away,
        target_gain=np.ones((1, 8)),
        frequency_hz=frame.subcarrier_hz[few],
        convention="consistent",
        ramp=lambda delay_s: np.exp(-2j * np.pi * frame.subcarrier_hz[few, None] * delay_s[spec.transmit.network.line]),
    )
    assert value == pytest.approx(1 / delay_divergence(row, beam.delay_s[0, 0], (32, 32)), rel=1e-9)
    nearer = spec.transmit.array.origin_m + spec.transmit.array.rotation @ direction * 40.0
    assert cs_correlation(spec, frame, beam, (direction, gain), nearer[None]) > value
    assert cs_correlation(spec, frame, beam, (direction, gain), np.zeros((0, 3))) is None
    behind = spec.transmit.array.origin_m - spec.transmit.array.rotation @ direction * 40.0
    assert cs_correlation(spec, frame, beam, (direction, gain), behind[None]) is None


def test_memory_keeps_the_last_word_on_each_slot():
    def report(slots, value, readback=True, fault=""):
        beam = {
            "slot": np.array(slots),
            "delay_s": np.zeros((len(slots), 1, 4)),
            "phase_rad": np.full((len(slots), 1, 4), value),
            "amplitude": np.ones((len(slots), 1, 4)),
        }
        other = {**beam, "phase_rad": beam["phase_rad"] + 100}
        return {"setpoint": other, "readback": beam if readback else None, "fault": fault}

    memory = Memory()
    memory.take(report([1, 5], 0.5))
    memory.take(report([5], 0.7, readback=False, fault="chain 0 off"))
    assert memory.rows[1][0].phase_rad[0, 0, 0] == 0.5
    assert not memory.rows[1][1]
    assert memory.rows[5][0].phase_rad[0, 0, 0] == 100.7
    assert memory.rows[5][1]
    assert memory.version == {1: 1, 5: 2}
    assert memory.fault == "chain 0 off"


def test_a_plan_is_a_line_of_blocks():
    plan = {
        "slot": np.array([-1, -1, 4, 5, -1, 4]),
        "served": np.array([[0, 0], [0, 0], [1, 0], [0, 1], [0, 0], [0, 0]], bool),
        "user": np.array([70, 80]),
        "sensing_blocks": 2,
    }
    assert plan_line(plan, [80, 70]) == [-1, -1, 1, 0, -2, -2]
