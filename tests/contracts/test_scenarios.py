"""Every shipped scenario: it loads, explains itself, survives being written, and says what its paper prints."""

from __future__ import annotations

import math
import re
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest

from hal.array import angles_from, direction_to
from twin.facts import facts
from twin.fields import columns, convert, revert
from twin.registry import kinds
from twin.scenario import dump, frame_ns, frontend_spec, load, loads, numerology

HOME = Path(__file__).resolve().parents[2] / "scenarios"
SHIPPED = sorted(HOME.glob("*.yaml"))


def scenario(name: str):
    return load(HOME / f"{name}.yaml")


def text(name: str) -> str:
    return (HOME / f"{name}.yaml").read_text(encoding="utf-8")


def test_what_is_shipped():
    assert {"smoke", "street", "paper000", "paper001", "paper004"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_is_whole(path):
    made = load(path)
    assert made.title
    assert loads(dump(made)) == made
    assert all(math.isfinite(fact.value) for fact in facts(made) if not isinstance(fact.value, str))
    spec = frontend_spec(made, next(iter(made.sites)))
    assert len(numerology(made).subcarrier_hz) == made.communication.subcarriers
    assert all(len(half.network.wired) for half in (spec.transmit, spec.receive))
    for mover in made.users:  # somebody is there to be served when the run begins
        state = mover.mobility.start(np.arange(len(mover.mobility.movers())), None)
        _, motion = mover.mobility.at(state, 0)
        assert motion.present.all()
        _, range_m = direction_to(spec.transmit.array, motion.position_m)
        assert np.all(range_m < made.sensing.range_m)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_scenario_names_no_machine(path):
    assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["paper000", "paper001", "paper004"])
def test_what_a_paper_does_not_print_is_marked(name):
    assert text(name).count("our reading") >= 8


@pytest.mark.parametrize(
    "package",
    [
        "twin.mobility",
        "twin.channel",
        "twin.waveforms",
        "twin.sensing",
        "twin.tracking",
        "twin.estimation",
        "twin.planning",
        "twin.precoding",
        "twin.combining",
        "hal.devices",
    ],
)
def test_every_default_of_every_component_can_be_written_in_file_units(package):
    """Else a scenario written back would not be the scenario that ran: 0.2 W, say, is no number of dBm."""
    for kind, cls in kinds(package).items():
        defaults = {entry.name: entry.default for entry in fields(cls)}
        for column in columns(cls):
            unit, value = column.spelled[0][1], defaults[column.name]
            if unit is None or not isinstance(value, int | float) or value is MISSING:
                continue
            assert convert(revert(value, unit, column.name), unit, column.name) == value, (
                f"{package}.{kind}.{column.name} = {value!r}"
            )


def test_street_is_the_flagship():
    made = scenario("street")
    spec, frame = frontend_spec(made, "bs0"), numerology(made)
    assert made.sites["bs0"].position_m == (0, 0, 10)
    assert (spec.transmit.network.wired.shape, spec.transmit.network.lines) == ((1, 256), 64)
    assert (spec.receive.network.wired.shape, spec.receive.network.lines) == ((4, 256), 0)
    assert (frame.subframe_ns, frame.blocks, frame.block_ns, frame.frame_ns) == (5_000_000, 35, 140_000, 17_500)
    assert frame.frames_per_dwell * frame.frame_ns == frame.block_ns
    (cars,) = made.users
    assert len(cars.mobility.movers()) == 5
    assert len(made.targets) == 3
    assert all(0.5 <= mover.rcs_m2 <= 20 for mover in (*made.users, *made.targets))
    lines = [line for line in text("street").splitlines() if line.strip() and not line.strip().startswith("#")]
    assert sum("#" in line for line in lines) > len(lines) / 3


def test_smoke_is_small():
    made = scenario("smoke")
    assert made.subframes == 20
    assert (len(made.users), len(made.targets)) == (2, 1)
    spec = frontend_spec(made, "bs0")
    assert spec.transmit.array.columns == spec.receive.array.rows == 8


def test_paper000_holds_what_section_6_1_prints():
    made = scenario("paper000")
    spec, site = frontend_spec(made, "bs0"), made.sites["bs0"]
    send, hear = spec.transmit, spec.receive
    assert (made.carrier_hz, made.communication.bandwidth_hz, made.communication.subcarriers) == (100e9, 8e9, 32)
    assert len(send.array.position_m) == len(hear.array.position_m) == 256  # N_t, N_r
    assert (send.array.columns, send.array.rows) == (16, 16)  # N_h, N_v
    assert send.array.spacing_m == pytest.approx(299_792_458 / 100e9 / 2)  # eqs (4), (5)
    assert site.transmit.network.delay_lines == (8, 8)  # Q_h, Q_v
    assert np.bincount(send.network.line).tolist() == [4] * 64  # L_h L_v = 2 x 2
    assert (send.network.delay_bits, send.network.delay_range_s, send.network.phase_bits) == (4, 100e-12, 0)
    assert len(send.network.wired) == 1
    assert 10 * math.log10(site.power_w * 1e3) == pytest.approx(10)  # SNR 10 dB over 0 dBm
    assert (len(made.users), len(made.targets)) == (1, 3)  # K
    for printed in (
        "sigma_beta = 1",
        "sigma_alpha = 0.6",
        "tau_max = 100 ns",
        "0 dBm",
        "learning rate 0.004",
        "N_b = 16",
    ):
        assert printed in text("paper000")
    # MSIA as section 6.1 defines it, from where the movers stand
    where = np.array([mover.mobility.position_m for mover in (*made.users, *made.targets)])
    direction, range_m = direction_to(send.array, where)
    azimuth, elevation = angles_from(direction)
    msia = math.sqrt(np.sum((azimuth[1:] - azimuth[0]) ** 2 + (elevation[1:] - elevation[0]) ** 2) / (2 * 3))
    assert msia == pytest.approx(0.1, abs=2e-4)
    assert range_m == pytest.approx(35, abs=1e-2)
    assert direction[0] == pytest.approx([1, 0, 0], abs=1e-3)


def test_paper001_holds_what_table_1_and_section_5_print():
    made = scenario("paper001")
    spec, frame, sensing = frontend_spec(made, "bs0"), numerology(made), made.sensing
    assert made.carrier_hz == 0.3e12
    assert (sensing.spacing_hz, sensing.delay_bins, sensing.doppler_bins, sensing.roll_off) == (480e3, 64, 16, 0.1)
    assert frame.sample_rate_hz == 30.72e6
    assert len(spec.transmit.array.position_m) == len(spec.receive.array.position_m) == 1024
    assert len(spec.transmit.network.wired) == len(spec.receive.network.wired) == 4
    assert spec.transmit.network.wired.all()
    assert spec.receive.network.wired.all()
    assert spec.transmit.network.lines == spec.receive.network.lines == 0
    assert "N_s = 4 streams" in text("paper001")
    assert 10 * math.log10(spec.transmit_power_w * 1e3) == pytest.approx(20)
    assert sensing.frames_per_dwell == 1
    assert spec.isolation_db == math.inf
    (target,) = made.users  # (15 deg, 90 deg, 50 m, 300 km/h)
    direction, range_m = direction_to(spec.receive.array, np.array(target.mobility.position_m))
    azimuth, elevation = angles_from(direction)
    assert (math.degrees(azimuth), math.degrees(elevation), float(range_m)) == pytest.approx((15, 0, 50), abs=1e-3)
    closing = -np.dot(target.mobility.velocity_mps, target.mobility.position_m - spec.receive.array.origin_m) / range_m
    assert closing * 3.6 == pytest.approx(300, abs=1e-2)
    # oddm-like numbers of the target on the grid, which the reading of |alpha|^2 and the prefix rest on
    late = 2 * 50 / 299_792_458
    assert late * frame.sample_rate_hz == pytest.approx(10.2471, abs=1e-3)
    assert sensing.prefix_ns * 1e-9 >= late + 2 * sensing.pulse_span / frame.sample_rate_hz
    assert target.rcs_m2 == pytest.approx(4 * math.pi * 50**2, rel=1e-5)
    # T = 1/480 kHz is no whole number of ns: the frame is, by less than a nanosecond of silence
    assert frame.frame_ns == 33_334 + sensing.prefix_ns + sensing.suffix_ns
    gap = next(fact for fact in facts(made) if fact.name == "frame gap")
    assert gap.value == pytest.approx(2 / 3)


def test_paper004_holds_what_section_4_prints():
    made = scenario("paper004")
    spec = frontend_spec(made, "bs0")
    for half in (spec.transmit, spec.receive):
        assert (half.array.columns, half.array.rows) == (8, 1)  # L_t = L_r = 8
        assert np.array_equal(half.network.wired, np.eye(8, dtype=bool))  # as many chains as elements
    assert len(made.users) == 5
    assert 10 * math.log10(spec.transmit_power_w * 1e3) == pytest.approx(23)
    assert made.subframe.period_ns == 5_000_000
    assert made.subframe.blocks == 35
    assert made.subframe.block_ns == 70_000  # M_b T_s
    assert made.pilots.duration_ns == 9_000  # M_e T_s
    assert made.channel.spread_rad == pytest.approx(math.radians(1))
    dwells_ns = made.sensing.dwells * made.sensing.frames_per_dwell * frame_ns(made.sensing)
    assert dwells_ns == 4 * made.subframe.block_ns  # figure 5 starts at 4 blocks
    planning = made.sites["bs0"].control.planning
    assert (planning.service, planning.baseband) == ("spatial", "mrt")  # K users at once, eq 17
    assert math.degrees(math.sqrt(planning.crb_max_rad2)) == pytest.approx(0.5, abs=1e-3)
    speeds = {math.hypot(*user.mobility.velocity_mps) for user in made.users}
    assert len(speeds) == 1  # "the same mobility speed"
    from scipy.special import j0

    age = 2 * math.pi * speeds.pop() / 299_792_458 * made.carrier_hz * 70e-6
    assert j0(age) == pytest.approx(0.98, abs=1e-3)  # rho_1 by eq (4)
    for printed in ("rho_1 = 0.98", "Gamma = 0.5", "Gamma = 0.05", "SSU", "FSU", "RBA", "T_s = 1 us"):
        assert printed in text("paper004")
