"""Facts against arithmetic done here, in decibels and closed forms, from the scenario's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hal.array import direction_from
from twin.facts import facts, squint_loss_db
from twin.scenario import frontend_spec, loads

LIGHT = 299_792_458.0
TEXT = """\
sites: { bs0: {} }
users: [{ name: a, rcs_m2: 10, mobility: { kind: linear, position_m: [80, 0, 1.5], velocity_mps: [-6, 8, 0] } }]
targets: [{ name: b, rcs_m2: 2, mobility: { kind: linear, position_m: [80, 0, 1.5], velocity_mps: [0, 20, 0] } }]
"""


def told(extra: str = "", **overrides):
    made = loads(TEXT + extra, overrides=overrides)
    found = facts(made)
    assert len({fact.name for fact in found}) == len(found), "names are keys of twin check --json"
    return made, {fact.name: fact for fact in found}


def test_waveform_facts_are_the_textbooks():
    _, f = told()
    assert f["range resolution"].value == pytest.approx(LIGHT / (2 * 64e6))
    assert f["range ambiguity"].value == pytest.approx(LIGHT / (2 * 1e6))
    wavelength = LIGHT / 100e9
    assert f["velocity resolution"].value == pytest.approx(wavelength / (2 * 16 * 17.5e-6))
    assert f["velocity ambiguity"].value == pytest.approx(wavelength / (4 * 17.5e-6))
    assert f["range within prefix"].value == pytest.approx(LIGHT / 2 * (1e-6 - 20 / 64e6))
    assert "range_m = 140" in f["range within prefix"].note


def test_one_frame_a_dwell_is_ambiguous_within_itself_only():
    _, f = told("sensing: { frames_per_dwell: 1 }\n")
    assert f["velocity ambiguity"].value == pytest.approx(LIGHT / 100e9 / (4 * 1e-6))  # half of 16 bins of 1/16 MHz


def test_the_frame_and_its_gap():
    _, f = told()
    assert f["sensing share"].value == pytest.approx(4 * 0.14 / 5 * 100)
    assert f["data share"].value == pytest.approx(31 * 0.14 / 5 * 100)
    assert f["guard"].value == pytest.approx(100)
    assert f["frame gap"].value == 0
    _, f = told("sensing: { spacing_khz: 480, prefix_us: 1, suffix_us: 0.5, frames_per_dwell: 1 }\n")
    assert f["frame gap"].value == pytest.approx(2 / 3)  # 16 / 480 kHz = 33333 1/3 ns


def test_the_down_link_by_decibels():
    _, f = told("channel: { vapour_density_g_m3: 0, pressure_hpa: 1e-6 }\n")
    loss = 20 * math.log10(4 * math.pi * 140 * 100e9 / LIGHT)
    per_subcarrier = 30 - 10 * math.log10(32)
    gain = 10 * math.log10(256)
    noise = 10 * math.log10(1.380649e-23 * 290 * 1e3) + 10 + 10 * math.log10(250e6)
    assert f["gas loss"].value == pytest.approx(0, abs=1e-6)
    assert f["down SNR at the edge"].value == pytest.approx(per_subcarrier + gain - loss - noise, abs=1e-4)
    snr = 10 ** (f["down SNR at the edge"].value / 10)
    assert f["down rate at the edge"].value == pytest.approx(8 * math.log2(1 + snr))
    pilot_noise = 10 * math.log10(1.380649e-23 * 290 * 1e3) + 10 + 10 * math.log10(1 / 9e-6)
    assert f["pilot SNR at the edge"].value == pytest.approx(
        23 - 10 * math.log10(32) + gain - loss - pilot_noise, abs=1e-4
    )


def test_the_echo_by_decibels_with_gas():
    _, f = told()
    wavelength_db = 20 * math.log10(LIGHT / 100e9)
    two_way = wavelength_db + 10 * math.log10(2) - 30 * math.log10(4 * math.pi) - 40 * math.log10(140)
    gas = f["gas loss"].value * 2 * 0.140
    assert 0.3 < f["gas loss"].value < 0.6  # P.676, 100 GHz at sea level
    noise = 10 * math.log10(1.380649e-23 * 290 * 1e3) + 10 + 10 * math.log10(64e6)
    gains = 2 * 10 * math.log10(256) + 10 * math.log10(1024 * 16)
    assert f["echo SNR at the edge"].value == pytest.approx(30 + gains + two_way - gas - noise, abs=1e-6)


def test_a_weak_echo_is_warned_of():
    _, f = told("", **{"sites.bs0.power_dbm": "-20", "targets.0.rcs_m2": "0.1"})
    assert f["echo SNR at the edge"].note.startswith("warning: ")


def test_beams():
    _, f = told()
    # half-power width of a uniform line of N at half a wavelength, found by bisection on its own pattern
    n = 16
    low, high = 1e-6, 2 / n
    for _ in range(80):
        u = (low + high) / 2
        pattern = (math.sin(n * math.pi * u / 2) / (n * math.sin(math.pi * u / 2))) ** 2
        low, high = (u, high) if pattern > 0.5 else (low, u)
    assert f["transmit beamwidth, azimuth"].value == pytest.approx(2 * math.degrees(math.asin(low)), rel=1e-6)
    side = 16 * LIGHT / 100e9 / 2
    assert f["far field from"].value == pytest.approx(2 * 2 * side**2 * 100e9 / LIGHT, rel=1e-9)


@pytest.mark.parametrize("offset_hz", [-4e9, 1e9, 4e9])
@pytest.mark.parametrize("azimuth_deg", [0.0, 20.0, 60.0])
def test_squint_without_delay_lines_is_the_dirichlet_kernel(offset_hz, azimuth_deg):
    made, f = told("", **{"sites.bs0.transmit.network.delay_lines": "null"})
    spec = frontend_spec(made, "bs0")
    towards = direction_from(math.radians(azimuth_deg), 0.0)
    x = math.pi / 2 * math.sin(math.radians(azimuth_deg)) * offset_hz / 100e9
    kernel = 1.0 if x == 0 else (math.sin(16 * x) / (16 * math.sin(x))) ** 2
    loss = squint_loss_db(spec.transmit, towards, 100e9, 100e9 + offset_hz)
    assert loss == pytest.approx(-10 * math.log10(kernel), abs=1e-9)
    assert "squint loss, delay lines" not in f


def test_delay_lines_take_squint_away_and_their_steps_bring_a_little_back():
    made, f = told()
    bare, lined = f["squint loss, phases only"].value, f["squint loss, delay lines"].value
    assert bare > 1
    assert lined < 0.05
    _, coarse = told("", **{"sites.bs0.transmit.network.delay_bits": "1"})
    assert coarse["squint loss, delay lines"].value > lined
    _, exact = told(
        "", **{"sites.bs0.transmit.network.delay_bits": "0", "sites.bs0.transmit.network.delay_lines": "[16, 16]"}
    )
    assert exact["squint loss, delay lines"].value == pytest.approx(0, abs=1e-9)
    spec = frontend_spec(made, "bs0")
    assert squint_loss_db(spec.transmit, np.array([1.0, 0.0, 0.0]), 100e9, 104e9) == pytest.approx(0, abs=1e-9)


def test_ageing_is_the_users_doppler_over_a_block_and_warned_of():
    _, f = told()
    assert f["ageing"].value == pytest.approx(10 / LIGHT * 100e9 * 140e-6)
    assert f["ageing"].note.startswith("warning: above 0.3")
    assert f["fastest mover"].value == pytest.approx(20)
    _, f = told("", **{"users.0.mobility.velocity_mps": "[5, 0, 0]"})
    assert f["ageing"].value < 0.3
    assert not f["ageing"].note.startswith("warning")
    _, f = told("", **{"targets.0.mobility.velocity_mps": "[50, 0, 0]"})
    assert f["fastest mover"].note.startswith("warning: beyond the ambiguity")


def test_memory_and_load():
    _, f = told()
    assert f["users"].value == 1
    assert f["memory slots"].note.startswith("3 needed")
    assert f["beam load"].value == pytest.approx(50 + 1024 * 0.010 + 1)


def test_a_line_of_elements_is_warned_of():
    _, f = told("", **{"sites.bs0.receive.array": "{ kind: ula, elements: 8 }"})
    assert f["receive beamwidth, elevation"].note.startswith("warning: one line of elements")
    assert not told()[1]["receive beamwidth, elevation"].note.startswith("warning")


def test_digital_arrays_count_every_element():
    _, f = told("", **{"sites.bs0.transmit.network": "{ chains: 256, connection: partial, delay_lines: null }"})
    _, analog = told()
    assert f["down SNR at the edge"].value == pytest.approx(analog["down SNR at the edge"].value)
