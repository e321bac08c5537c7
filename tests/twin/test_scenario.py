"""Scenarios: what loads, what is refused and how it is said, and what is derived from one."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.check import UNITS
from hal.errors import Misuse
from twin import scenario as scenarios
from twin.scenario import (
    Fault,
    Mover,
    Scenario,
    ScenarioError,
    Sensing,
    Site,
    dump,
    frame_ns,
    frontend_spec,
    load,
    loads,
    numerology,
    schema,
    whole,
)

LEAST = """\
sites: { bs0: {} }
users:
  - { name: a, mobility: static }
"""


def wrong(text: str, overrides=None) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        loads(text, "f.yaml", overrides or {})
    return str(caught.value).splitlines()


def test_the_least_scenario_is_three_lines():
    made = loads(LEAST)
    assert made.sites["bs0"].transmit == Site().transmit
    assert made.sites["bs0"].timing == Site().timing
    assert made.carrier_hz == 100e9
    assert made.subframes == 200
    assert made.users[0].rcs_m2 == 10.0
    assert made == loads(LEAST)


def test_what_is_dumped_loads_to_an_equal_scenario_with_every_default_in_it():
    made = loads(LEAST)
    text = dump(made)
    assert loads(text) == made
    for key in (
        "period_ms: 5",
        "delay_range_ps: 100",
        "command_latency_us: 50",
        "kind: static",
        "isolation_db: .inf",
        "power_dbm: 30",
    ):
        assert key in text
    assert dump(loads(text)) == text


@settings(max_examples=20, deadline=None)
@given(
    power=st.floats(-30, 60),
    yaw=st.floats(-180, 180),
    carrier=st.floats(20, 95),
    us=st.integers(0, 10**6),
    rcs=st.floats(-30, 40),
)
def test_dumping_loses_no_bit(power, yaw, carrier, us, rcs):
    text = f"""\
carrier_ghz: {carrier!r}
sites: {{ bs0: {{ power_dbm: {power!r}, yaw_deg: {yaw!r}, timing: {{ command_latency_us: {us / 1000!r} }} }} }}
users:
  - {{ name: a, rcs_dbsm: {rcs!r}, mobility: static }}
"""
    made = loads(text)
    assert made.sites["bs0"].timing.command_latency_ns == us
    assert made.sites["bs0"].power_w == UNITS["dbm"][1](power)
    assert loads(dump(made)) == made


def test_all_errors_at_once_field_and_cross_field_each_at_its_line():
    text = """\
titel: x
duration_s: 0.0123
subframe: { blocks: 40 }
communication: { fidelity: waveform }
sensing: { dwells: 99, prefix_us: 0.5, waveform: odm }
pilots: { duration_us: 140 }
sites:
  bs0: { power_dbm: lots, transmit: { array: { kind: upa, colums: 8 } } }
  bs1: {}
users:
  - { name: a, mobility: { kind: linear, velocity_mps: [1, 2] } }
  - { name: a, mobility: static }
"""
    said = wrong(text)
    assert said[0].startswith("f.yaml:1:1: titel: unknown key; did you mean 'title'?")
    assert said[1] == (
        "f.yaml:2:13: duration_s: must be a multiple of subframe.period_ms: 12300000 ns is not a multiple of 5000000 ns; "
        "the nearest is 0.01 (got 0.0123)"
    )
    assert said[2].startswith(
        "f.yaml:3:21: subframe.blocks: 40 blocks of 140 us take 5600 us and the subframe is 5000 us; at most 35 fit"
    )
    assert said[3].startswith(
        "f.yaml:5:50: sensing.waveform: kind 'odm' is not one of twin.waveforms's: known, nearest first: oddm"
    )
    assert said[4] == "f.yaml:8:21: sites.bs0.power_dbm: must be a number (got 'lots')"
    assert said[5].startswith("f.yaml:8:59: sites.bs0.transmit.array.colums: unknown key; did you mean 'columns'?")
    assert said[6] == "f.yaml:11:56: users.0.mobility.velocity_mps: must have 3 entries (got [1, 2])"
    assert len(said) == 7  # rules about sections that are wrong by themselves wait: dwells, pilots, sites, names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sensing: { dwells: 99 }",
            "f.yaml:4:20: sensing.dwells: 99 dwells of 16 frames of 17.5 us take 27720 us, and all blocks but one are 4760 us; at most 17 fit (got 99)",
        ),
        (
            "sensing: { prefix_us: 0.5 }",
            "f.yaml:4:23: sensing.prefix_us: must be at least 0.934 us, the delay of an echo from range_m = 140 m; lengthen it or lower range_m (got 0.5)",
        ),
        (
            "sensing: { range_m: 149.9, prefix_us: 2 }",
            "f.yaml:4:21: sensing.range_m: must be at most 149.9 m, where ranges repeat with a spacing of 1000 kHz; lower one of the two (got 149.9)",
        ),
        (
            "sensing: { delay_bins: 2, doppler_bins: 2 }",
            "f.yaml:4:10: sensing.pulse_span: twice the span must be below the frame's 4 samples (got 10)",
        ),
        (
            "carrier_ghz: 3",
            "f.yaml:1:1: communication.bandwidth_ghz: the band of 8 GHz about carrier_ghz = 3 reaches below 0 Hz; raise the carrier or narrow the band",
        ),
        (
            "duration_s: 1e-9",
            "f.yaml:4:13: duration_s: must be a multiple of subframe.period_ms: 1 ns is not a multiple of 5000000 ns; the nearest is 0.005 (got 1e-09)",
        ),
        (
            "duration_s: 0.0000000001",
            "f.yaml:4:13: duration_s: must be a whole number of ns: 0.1 lies between 0 and 1 (got 1e-10)",
        ),
        (
            "targets: [{ name: a, mobility: static }]",
            "f.yaml:4:19: targets.0.name: must be unique; users.0 has it too (got 'a')",
        ),
        (
            "targets: [{ name: '', mobility: static }]",
            "f.yaml:4:19: targets.0.name: must have at least 1 characters (got '')",
        ),
        (
            "targets: [{ name: b, rcs_m2: -1, mobility: static }]",
            "f.yaml:4:30: targets.0.rcs_m2: must be >= 0 (got -1)",
        ),
        ("targets: [{ name: b, mobility: { kind: trace, path: gone.csv } }]", "f.yaml:4:32: targets.0.mobility: "),
        (
            "faults: [{ kind: dead_element, at_ms: 10, elements: [255, 256] }]",
            "f.yaml:4:59: faults.0.elements.1: the transmit half has 256 elements, counted from 0 (got 256)",
        ),
        (
            "faults: [{ kind: chain_off, at_ms: 5000, chain: 1 }]",
            "f.yaml:4:36: faults.0.at_ms: must be before the end of the run (1000 ms) (got 5000)",
        ),
        (
            "faults: [{ kind: chain_off, at_ms: 50, until_ms: 50, site: bs1 }]",
            "f.yaml:4:50: faults.0.until_ms: must be after at_ms = 50 (got 50)",
        ),
        ("bus: { state: 3 }", "f.yaml:4:15: bus.state: must be text (got 3)"),
        ("clock: { mode: fast }", "f.yaml:4:16: clock.mode: must be free, paced or lockstep (got 'fast')"),
        ("clock: { factor: 0 }", "f.yaml:4:18: clock.factor: must be > 0 (got 0)"),
        ("seed: -1", "f.yaml:4:7: seed: must be >= 0 (got -1)"),
        ("seed: 1.5", "f.yaml:4:7: seed: must be a whole number (got 1.5)"),
        (
            "subframe: { block_us: 0.0001 }",
            "f.yaml:4:23: subframe.block_us: must be a whole number of ns: 0.1 lies between 0 and 1 (got 0.0001)",
        ),
    ],
)
def test_rules_of_one_section_and_between_sections(text, said):
    found = wrong(LEAST + text + "\n")
    assert found[0].startswith(said)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (
            "{ transmit: { memory_slots: 2 } }",
            "sites.bs0.transmit.memory_slots: must be at least 3: one for each of 1 users and 2 dwells (got 2)",
        ),
        (
            "{ receive: { network: { chains: 2 } } }",
            "sites.bs0.receive.network.chains: must be at least 3: the phases of 2 outputs cannot tell 2 angles",
        ),
        (
            "{ receive: { array: { kind: ula }, network: { chains: 1 } } }",
            "sites.bs0.receive.network.chains: must be at least 2",
        ),
        (
            "{ transmit: { network: { delay_lines: [3, 8] } } }",
            "sites.bs0.transmit: delay_lines = (3, 8): must divide the 16 x 16",
        ),
        (
            "{ transmit: { network: { chains: 3, connection: partial, delay_lines: null } } }",
            "sites.bs0.transmit: chains = 3: must divide",
        ),
        ("{ transmit: { array: { kind: upa, element_gain_dbi: 9 } } }", "sites.bs0.transmit: element_gain_dbi = 9"),
        (
            "{ control: { precoding: magic } }",
            "sites.bs0.control.precoding: kind 'magic' is not one of twin.precoding's",
        ),
        ("{ timing: { settling_us: 0.0001 } }", "sites.bs0.timing.settling_us: must be a whole number of ns"),
    ],
)
def test_rules_of_the_machine(site, said):
    text = f"sites:\n  bs0: {site}\nusers: [{{ name: a, mobility: static }}]\n"
    assert said in wrong(text)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("users: [{ name: a, mobility: static }]\n", "f.yaml:1:1: sites: must be given"),
        ("sites: {}\nusers: [{ name: a, mobility: static }]\n", "f.yaml:1:8: sites: must name one site, e.g. bs0: {}"),
        (
            "sites: { bs0: {}, bs1: {} }\nusers: [{ name: a, mobility: static }]\n",
            "f.yaml:1:24: sites.bs1: a second site is refused until handover is built; keep bs0",
        ),
        (
            "sites: { b/0: {} }\nusers: [{ name: a, mobility: static }]\n",
            "f.yaml:1:15: sites.b/0: a site's name is made of letters",
        ),
        ("sites: { bs0: {} }\n", "f.yaml:1:1: users: a run needs at least one user or target"),
        (
            "sites: { bs0: }\nusers: [{ name: a, mobility: static }]\n",
            "f.yaml:1:14: sites.bs0: must be a mapping of its parameters (got nothing)",
        ),
    ],
)
def test_sites_and_movers(text, said):
    assert wrong(text)[0].startswith(said)


def test_a_detector_must_not_look_for_speeds_that_frames_cannot_tell_apart():
    said = wrong(LEAST + "sensing: { detector: { kind: glrt, max_speed_mps: 50 } }\n")
    assert said == [
        "f.yaml:4:51: sensing.detector.max_speed_mps: must be below 42.83: frames 17.5 us apart tell speeds apart only so far; "
        "lower it, shorten the frame, or take one frame a dwell (got 50)"
    ]
    loads(LEAST + "sensing: { detector: { kind: glrt, max_speed_mps: 50 }, frames_per_dwell: 1 }\n")


def test_blocks_are_planned_for_the_dwells_there_are():
    blocks = {
        dwells: loads(LEAST, overrides={"sensing.dwells": dwells}).sites["bs0"].control.planning.sensing_blocks
        for dwells in (1, 2, 3)
    }
    assert blocks == {1: 2, 2: 4, 3: 6}
    planning = loads(LEAST, overrides={"sensing.frames_per_dwell": 1}).sites["bs0"].control.planning
    assert (planning.sensing_blocks, planning.dwell_slots) == (1, 2)  # 8 would fit in a block
    assert "sensing_blocks: 4" in dump(loads(LEAST))
    path = "sites.bs0.control.planning"
    for key, value, fit in (("sensing_blocks", 3, 1), ("dwell_slots", 1, 2)):
        said = wrong(LEAST, {f"{path}.{key}": str(value)})[0]
        assert f"hold {fit} dwells of 280 us and sensing.dwells is 2; leave sensing_blocks and dwell_slots out" in said
    loads(LEAST, overrides={f"{path}.sensing_blocks": "6"})  # longer than it takes: the plan is still of two dwells


def test_a_planner_has_rows_for_everybody():
    crowd = "sites: { bs0: {} }\nusers:\n" + "".join(f"  - {{ name: u{n}, mobility: static }}\n" for n in range(17))
    assert wrong(crowd)[0].startswith("f.yaml:1:15: sites.bs0.control.planning.user_slots: must be at least 17")
    small = wrong(LEAST, {"sites.bs0.receive.memory_slots": 20})
    assert len(small) == 1
    assert "sites.bs0.control.planning: receive.memory_slots = 20: must be >=" in small[0]


def test_overrides_are_applied_before_validation_and_blamed_by_name():
    made = loads(
        LEAST,
        "f.yaml",
        {"sensing.dwells": "1", "seed": 7, "sites.bs0.power_dbm": "20", "channel.k_db": 3, "users.0.name": "b"},
    )
    assert (made.sensing.dwells, made.seed, made.users[0].name, made.channel.k_db) == (1, 7, "b", 3.0)
    assert made.sites["bs0"].power_w == pytest.approx(0.1)
    text = LEAST + "subframe: { blocks: 99 }\n"
    assert loads(text, "f.yaml", {"subframe.blocks": "35"}).subframe.blocks == 35  # what a file has wrong may be mended
    assert wrong(LEAST, {"sensing.prefix": "1", "seed": "x", "pilots.duration_us": "999"}) == [
        "--set pilots.duration_us=999: pilots.duration_us: must be shorter than a block (140 us) (got 999)",
        "--set seed=x: seed: must be a whole number (got 'x')",
        "--set sensing.prefix=1: sensing.prefix: unknown key; did you mean 'prefix_us'? known: fidelity, waveform, detector, "
        "delay_bins, doppler_bins, spacing_khz, roll_off, pulse_span, prefix_us, suffix_us, frames_per_dwell, dwells, range_m, data_echoes",
    ]


def test_a_mapping_without_a_kind_is_about_the_default():
    made = loads(LEAST + "channel: { k_db: 3 }\n")
    assert (type(made.channel).__name__, made.channel.k_db) == ("Rician", 3.0)
    said = wrong(LEAST + "channel: { k_bd: 3 }\n")[0]
    assert said.startswith("f.yaml:4:12: channel.k_bd: unknown key; did you mean 'k_db'?")


def test_what_a_part_leaves_out_is_as_in_the_default_whole():
    """A parameter changed alone changes alone, though the transmit half's network is not the class's own default."""
    made = loads(
        LEAST, overrides={"sites.bs0.transmit.network.delay_bits": "3", "sites.bs0.receive.network.phase_bits": "2"}
    )
    assert made.sites["bs0"].transmit.network == replace(Site().transmit.network, delay_bits=3)
    assert made.sites["bs0"].receive.network == replace(Site().receive.network, phase_bits=2)
    assert made.sites["bs0"].transmit.network.delay_lines == (8, 8)
    assert made.sites["bs0"].receive.network.chains == 4


def test_an_error_names_the_file_as_it_was_given(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(LEAST + "seed: x\n")
    with pytest.raises(ScenarioError) as caught:
        load(file)
    assert str(caught.value) == f"{file}:4:7: seed: must be a whole number (got 'x')"
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.path, problem.rule, problem.got) == (
        4,
        7,
        "seed",
        "must be a whole number",
        "'x'",
    )
    assert isinstance(caught.value, Misuse)


def test_numerology_follows_the_conventions():
    made = numerology(loads(LEAST))
    assert made.subframe_ns == 5_000_000
    assert made.frame_ns == 17_500
    assert made.sample_rate_hz == 64e6
    f, spacing = made.subcarrier_hz, made.subcarrier_spacing_hz
    # docs/conventions.md: f_m = f_c + (B/M) (m - (M-1)/2)
    assert spacing == 250e6
    assert f == pytest.approx([100e9 + 8e9 / 32 * (m - 31 / 2) for m in range(32)], rel=0, abs=1e-3)
    assert np.mean(f) == pytest.approx(100e9, abs=1e-3)
    # k 290 K F B by hand: -173.975 dBm/Hz + 10 dB + 83.979 dB
    assert 10 * math.log10(made.user_noise_w * 1e3) == pytest.approx(-173.9752 + 10 + 83.9794, abs=1e-3)
    assert 10 * math.log10(made.pilot_power_w * 1e3) == pytest.approx(23, abs=1e-12)


@given(st.integers(1, 5000), st.integers(2, 64), st.integers(0, 3000), st.integers(0, 3000))
def test_frames_are_whole_nanoseconds_and_never_cut_a_sample(khz, bins, prefix, suffix):
    sensing = replace(Sensing(), spacing_hz=khz * 1e3, doppler_bins=bins, prefix_ns=prefix, suffix_ns=suffix)
    exact = Fraction(bins * 10**6, khz) + prefix + suffix
    assert 0 <= frame_ns(sensing) - exact < 1
    assert isinstance(frame_ns(sensing), int)


def test_the_nameplate():
    made = loads(
        LEAST,
        overrides={"sites.bs0.yaw_deg": "90", "sites.bs0.downtilt_deg": "10", "sites.bs0.position_m": "[1, 2, 3]"},
    )
    spec = frontend_spec(made, "bs0")
    assert spec.name == "bs0"
    assert spec.transmit.array.position_m.shape == (256, 3)
    assert spec.transmit.network.wired.shape == (1, 256)
    assert spec.transmit.network.lines == 64
    assert spec.receive.network.wired.shape == (4, 256)
    assert spec.receive.network.lines == 0
    assert spec.transmit.array.origin_m == pytest.approx([1, 2, 3])
    boresight = spec.transmit.array.rotation @ [1, 0, 0]
    assert boresight == pytest.approx([0, math.cos(math.radians(10)), -math.sin(math.radians(10))])
    assert spec.transmit.array.spacing_m == pytest.approx(299_792_458 / 100e9 / 2)
    assert spec.transmit_power_w == pytest.approx(1.0)
    assert spec.isolation_db == math.inf


def test_faults_become_what_the_machine_is_told():
    dead = Fault(kind="dead_element", at_ns=0, elements=(3, 5), half="receive")
    assert [str(fault) for fault in dead.broken()] == [
        "receive dead element element 3",
        "receive dead element element 5",
    ]
    stuck = Fault(kind="stuck_delay", at_ns=0, line=7, delay_s=50e-12)
    (told,) = stuck.broken()
    assert (told.line, told.value, told.half) == (7, 50e-12, "transmit")


def test_a_scenario_can_be_made_without_a_file():
    from twin.mobility.static import Static

    made = Scenario(sites={"bs0": Site()}, users=(Mover("a", Static()),))
    assert loads(dump(made)) == made


def test_no_field_of_the_tree_lacks_a_reason_or_a_unit():
    """A key that ends in no unit, of a field that holds a number of something, would be guessed at."""
    text = dump(loads(LEAST))
    for key in ("range_m", "spacing_khz", "prefix_us", "noise_figure_db", "yaw_deg", "limit_mb", "duration_s"):
        assert f"{key}: " in text


def test_the_schema_is_one_that_editors_understand():
    made = schema()
    assert made["$schema"].startswith("https://json-schema.org/")
    assert made["additionalProperties"] is False
    assert made["required"] == ["sites"]
    assert made["properties"]["carrier_ghz"]["exclusiveMinimum"] == 0
    precoding = made["$defs"]["twin.scenario.Control"]["properties"]["precoding"]["anyOf"]
    assert "delay_phase" in precoding[0]["enum"]
    sub = made["$defs"]["twin.scenario.Subframe"]
    assert sub["description"].startswith("The frame structure")
    assert sub["properties"]["blocks"] == {
        "description": "sensing dwells first, then data",
        "type": "integer",
        "minimum": 2,
        "default": 35,
    }
    assert sub["properties"]["period_ms"]["default"] == 5
    mover = made["$defs"]["twin.scenario.Mover"]
    assert mover["required"] == ["name", "mobility"]
    assert {"rcs_m2", "rcs_dbsm"} <= set(mover["properties"])
    assert _references(made) <= set(made["$defs"])


def _references(node) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].removeprefix("#/$defs/")} if "$ref" in node else set()
        return own | {name for value in node.values() for name in _references(value)}
    return {name for value in node for name in _references(value)} if isinstance(node, list) else set()


def test_loading_is_quick_once_imported():
    # A law of cost, not of a machine: loading must stay far below importing; CPU time, generous margin.
    loads(LEAST)
    began = time.process_time()
    for _ in range(5):
        loads(LEAST)
    assert (time.process_time() - began) / 5 < 0.3


def test_every_name_it_offers_is_there():
    for name in scenarios.__all__:
        assert hasattr(scenarios, name)
    assert Path(scenarios.__file__).name == "scenario.py"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("sensing.dwells", "sensing.dwells"),
        ("power_dbm", "sites.*.power_dbm"),
        ("timing.select_ns", "sites.*.timing.select_ns"),
        ("precoding.kind", "sites.*.control.precoding.kind"),
        ("precoder.kind", "sites.*.control.precoding.kind"),
        ("planner", "sites.*.control.planning"),
        ("no.such", "no.such"),
    ],
)
def test_what_belongs_to_the_only_site_may_be_named_from_there(path, meant):
    assert whole(path) == meant


def test_a_short_path_sets_what_the_whole_one_sets():
    short = loads(LEAST, overrides={"precoder.kind": "cbs", "power_dbm": 27})
    assert short == loads(LEAST, overrides={"sites.bs0.control.precoding.kind": "cbs", "sites.bs0.power_dbm": 27})


def test_a_short_path_needs_a_single_site():
    said = wrong(LEAST.replace("bs0: {}", "bs0: {}, bs1: {}"), {"power_dbm": 27})
    assert any("* is the only key there is; here are 2" in line for line in said)
