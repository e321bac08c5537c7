"""A scenario: one story for the twin, from a YAML file to a tree of frozen dataclasses, and what follows from it at once.

Every field is defined here once: its name with the SI unit, its unit in the file (``In``), its bounds, its default. ``twin.fields``
derives the file's keys and checks from that, so that nothing is written twice; components bring their own fields the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from math import ceil, inf
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np

from hal import memory
from hal.array import Ula, Upa, rotation_from
from hal.check import Family, Ge, Gt, In, Le, MinLen
from hal.frontend import FrontendSpec, HalfSpec
from hal.network import Network
from twin.assembly import gather, plain
from twin.channel import Channel
from twin.combining import Combiner
from twin.data_echoes import DataEchoes
from twin.document import Document, Problem, ScenarioError, parse, read, written
from twin.engine import Pacing
from twin.estimation import Estimator
from twin.expect import Expectation
from twin.fields import columns
from twin.link import Link
from twin.mobility import Mobility
from twin.outside import Outside
from twin.planning import Planner
from twin.precoding import Precoder
from twin.records import Numerology
from twin.registry import make
from twin.sensing import Detector
from twin.system import System
from twin.tracking import Tracker
from twin.waveforms import Waveform

__all__ = [
    "Bus",
    "Communication",
    "Control",
    "Fault",
    "Mover",
    "Pilots",
    "Problem",
    "Receive",
    "Recording",
    "Scenario",
    "ScenarioError",
    "Sensing",
    "Site",
    "Subframe",
    "Timing",
    "Transmit",
    "dump",
    "frame_ns",
    "frontend_spec",
    "half_spec",
    "load",
    "loads",
    "numerology",
    "schema",
    "site_spec",
    "whole",
]

PARTS = {
    "tracker": "tracking",
    "estimator": "estimation",
    "planner": "planning",
    "precoder": "precoding",
    "combiner": "combining",
}
BOLTZMANN_JPK = 1.380649e-23
NOISE_KELVIN = 290.0  # docs/conventions.md


@dataclass(frozen=True)
class Subframe:
    """The frame structure: a period of equal blocks; what is left at its end is a silent guard."""

    period_ns: Annotated[int, In("ms"), Gt(0)] = 5_000_000
    blocks: Annotated[int, Ge(2)] = 35  # sensing dwells first, then data
    block_ns: Annotated[int, In("us"), Gt(0)] = 140_000  # the channel is drawn anew for each


@dataclass(frozen=True)
class Communication:
    """The data band and its users' receivers."""

    bandwidth_hz: Annotated[float, In("ghz"), Gt(0)] = 8e9
    subcarriers: Annotated[int, Ge(1)] = 32  # on which channel and rate are evaluated
    fidelity: Literal["abstract", "waveform"] = "abstract"  # rate formula, or bits through modem and channel
    noise_figure_db: Annotated[float, Ge(0), Le(100)] = 10.0  # of a user's receiver
    link: Link = field(default_factory=Link)  # what fidelity waveform sends


@dataclass(frozen=True)
class Sensing:
    """The sensing waveform, its frames and dwells, and the detector."""

    fidelity: Literal["echo", "bound"] = "echo"  # samples through the detector, or errors drawn from the CRB
    waveform: Annotated[Waveform, Family("twin.waveforms")] = field(
        default_factory=partial(make, "twin.waveforms", "oddm")
    )
    detector: Annotated[Detector, Family("twin.sensing")] = field(default_factory=partial(make, "twin.sensing", "glrt"))
    delay_bins: Annotated[int, Ge(2)] = 64
    doppler_bins: Annotated[int, Ge(2)] = 16
    spacing_hz: Annotated[float, In("khz"), Gt(0)] = 1e6  # bandwidth is delay_bins times this
    roll_off: Annotated[float, Ge(0), Le(1)] = 0.1  # of the square-root raised cosine
    pulse_span: Annotated[int, Ge(1)] = 10  # its support, in samples each side
    prefix_ns: Annotated[int, In("us"), Ge(0)] = 1_000  # cyclic prefix of a frame: as long as the farthest echo is late
    suffix_ns: Annotated[int, In("us"), Ge(0)] = 500  # cyclic suffix: as long as the pulse's tail
    frames_per_dwell: Annotated[int, Ge(1)] = 16  # through one beam, coherent
    dwells: Annotated[int, Ge(1)] = 2  # a subframe, back to back from its start
    range_m: Annotated[float, Gt(0)] = 140.0  # farthest target of interest
    data_echoes: DataEchoes = field(default_factory=DataEchoes)  # data blocks that are listened to


@dataclass(frozen=True)
class Pilots:
    """What users send in the blocks that open with pilots; how often is the planner's choice."""

    duration_ns: Annotated[int, In("us"), Gt(0)] = 9_000  # guard included
    power_w: Annotated[float, In("dbm"), Le(100)] = 10**2.3 * 1e-3  # 23 dBm: total over the band, a user


@dataclass(frozen=True)
class Transmit:
    """The sending half: elements and what feeds them."""

    array: Upa | Ula = field(default_factory=Upa)
    network: Network = field(default_factory=lambda: Network(chains=1, delay_lines=(8, 8)))
    memory_slots: Annotated[int, Ge(1)] = 64  # rows of beam memory


@dataclass(frozen=True)
class Receive:
    """The receiving half."""

    array: Upa | Ula = field(default_factory=Upa)
    network: Network = field(default_factory=lambda: Network(chains=4))
    memory_slots: Annotated[int, Ge(1)] = 64


@dataclass(frozen=True)
class Timing:
    """How long the machine takes to do as it is told."""

    command_latency_ns: Annotated[int, In("us"), Ge(0)] = 50_000  # from the call to the start of loading
    bus_ns_per_element: Annotated[int, Ge(0)] = 10  # loading one element's setting
    settling_ns: Annotated[int, In("us"), Ge(0)] = 1_000  # from the latch to a beam that may be used
    select_ns: Annotated[int, Ge(0)] = 100  # switching to another loaded slot


@dataclass(frozen=True)
class Control:
    """The built-in controller's parts: perceive, then act."""

    tracking: Annotated[Tracker, Family("twin.tracking")] = field(default_factory=partial(make, "twin.tracking", "ekf"))
    estimation: Annotated[Estimator, Family("twin.estimation")] = field(
        default_factory=partial(make, "twin.estimation", "mmse")
    )
    planning: Annotated[Planner, Family("twin.planning")] = field(
        default_factory=partial(make, "twin.planning", "fixed")
    )
    precoding: Annotated[Precoder, Family("twin.precoding")] = field(
        default_factory=partial(make, "twin.precoding", "delay_phase")
    )
    combining: Annotated[Combiner, Family("twin.combining")] = field(
        default_factory=partial(make, "twin.combining", "squinted")
    )  # of the beams that listen for echoes
    control_latency_ns: Annotated[int, In("us"), Ge(0)] = (
        0  # what designing a data beam takes: from the belief it rests on to its command
    )


@dataclass(frozen=True)
class Site:
    """A base station: where it stands, its machine, and who controls it."""

    position_m: tuple[float, float, float] = (0.0, 0.0, 10.0)  # phase centre of both halves; east, north, up
    yaw_rad: Annotated[float, In("deg")] = 0.0  # boresight, from east towards north
    downtilt_rad: Annotated[float, In("deg")] = 0.0  # boresight, below the horizon
    transmit: Transmit = field(default_factory=Transmit)
    receive: Receive = field(default_factory=Receive)
    power_w: Annotated[float, In("dbm"), Le(100)] = 1.0  # radiated at full drive
    noise_figure_db: Annotated[float, Ge(0), Le(100)] = 10.0
    isolation_db: Annotated[float, Gt(0)] = inf  # transmit to receive; inf: no leakage modelled
    timing: Timing = field(default_factory=Timing)
    device: Annotated[Any, Family("hal.devices")] = field(default_factory=partial(make, "hal.devices", "sim"))
    calibration: Path | None = None  # of the device, as ``twin calibrate`` writes it; nothing: settings go as they are
    patience_ns: Annotated[int, In("ms"), Ge(0)] = (
        1_000_000_000  # how long the loop goes on with a machine that does not answer
    )
    control: Control = field(default_factory=Control)


@dataclass(frozen=True)
class Mover:
    """One mover, or all movers of a law that moves several (their names are then ``name/inner``)."""

    name: Annotated[str, MinLen(1)]
    mobility: Annotated[Mobility, Family("twin.mobility")]
    rcs_m2: Annotated[float, In("m2"), In("dbsm")] = 10.0  # radar cross-section: users reflect too
    array: Upa | Ula | None = None  # of a user's radio, its axes the world's; nothing: one antenna


@dataclass(frozen=True)
class Bus:
    """Where the run is published."""

    state: str = "none"  # ZeroMQ endpoint, e.g. tcp://127.0.0.1:5555; none: not published
    keys: str = "none"  # the key that the twin answers with (`twin keys`); who is on the list is let in, nobody else. none: no keys
    insecure: bool = False  # others than this computer may reach it without keys
    iq: str = "none"  # ZeroMQ endpoint of raw samples, for GNU Radio: docs/iq.md
    taps: tuple[str, ...] = ("bs0.echo.0",)  # what is said there: SITE.echo.CHAIN, SITE.sent.STREAM


@dataclass(frozen=True)
class Recording:
    """What a run directory keeps."""

    limit_mb: Annotated[float, Gt(0)] = 2000.0  # a file; then the recording goes on in another
    beams_ns: Annotated[int, In("ms"), Ge(0)] = (
        100_000_000  # at most one report of each half's beams in this time: they are large
    )
    echoes: bool = False  # echo samples as well: about 1 MB a subframe


@dataclass(frozen=True)
class Fault:
    """Something that breaks at a set time, so that a run shows what happens then."""

    kind: memory.Kind  # docs/faults.md
    at_ns: Annotated[int, In("ms"), Ge(0)]
    until_ns: Annotated[int, In("ms"), Ge(0)] | None = None  # mended then; nothing: for good
    site: str | None = None  # nothing: the only one
    half: Literal["transmit", "receive"] = "transmit"
    elements: tuple[Annotated[int, Ge(0)], ...] = (0,)  # of dead_element, stuck_phase and stuck_bit
    chain: Annotated[int, Ge(0)] = 0
    line: Annotated[int, Ge(0)] = 0  # of stuck_delay
    phase_rad: Annotated[float, In("deg")] = 0.0  # at which stuck_phase stays
    delay_s: Annotated[float, In("ps"), Ge(0)] = 0.0  # at which stuck_delay stays
    bit: Annotated[int, Ge(0)] = 0  # of stuck_bit; 0 is the finest
    stuck_at: Literal[0, 1] = 1  # what that bit reads for ever
    drift_rad: Annotated[float, In("deg"), Ge(0)] = 1.0  # of drift: rms after a second
    late_s: Annotated[float, In("ms"), Ge(0)] = 2e-3  # of late_command

    def broken(self) -> tuple[memory.Fault, ...]:
        """What the machine is told, one an element where elements break."""
        values = {
            "stuck_phase": self.phase_rad,
            "stuck_bit": float(self.stuck_at),
            "stuck_delay": self.delay_s,
            "drift": self.drift_rad,
            "late_command": self.late_s,
        }
        value, bit = values.get(self.kind, 0.0), self.bit if self.kind == "stuck_bit" else 0
        elements = self.elements if self.kind in ("dead_element", "stuck_phase", "stuck_bit") else (0,)
        return tuple(memory.Fault(self.kind, self.half, n, self.chain, self.line, value, bit) for n in elements)


@dataclass(frozen=True)
class Scenario:
    """Everything a run depends on, but the code."""

    sites: dict[str, Site]  # by name; one today
    title: str = ""  # of reports and lists
    description: str = ""  # what the story is about, in a sentence or two
    fidelity: Literal["signal", "system"] = (
        "signal"  # samples, pilots and beams; or rates from a link budget and tracks from a bound, for many users and long times
    )
    system: System = field(default_factory=System)  # of fidelity system
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0  # all chance follows from it: same file, same run
    duration_ns: Annotated[int, In("s"), Gt(0)] = 1_000_000_000  # simulated
    clock: Pacing = field(default_factory=Pacing)
    carrier_hz: Annotated[float, In("ghz"), Gt(0)] = 100e9  # middle of the data band; sensing sits on it as well
    subframe: Subframe = field(default_factory=Subframe)
    communication: Communication = field(default_factory=Communication)
    sensing: Sensing = field(default_factory=Sensing)
    pilots: Pilots = field(default_factory=Pilots)
    channel: Annotated[Channel, Family("twin.channel")] = field(default_factory=partial(make, "twin.channel", "rician"))
    users: tuple[Mover, ...] = ()  # they carry a radio, and reflect too
    targets: tuple[Mover, ...] = ()  # they only reflect
    faults: tuple[Fault, ...] = ()  # what breaks, and when
    expect: tuple[Expectation, ...] = ()  # what the run must hold to; a line that is broken makes it fail
    bus: Bus = field(default_factory=Bus)
    record: Recording = field(default_factory=Recording)
    controllers: Outside = field(default_factory=Outside)

    @property
    def subframes(self) -> int:
        """How many subframes the run has."""
        return self.duration_ns // self.subframe.period_ns


def load(file: str | Path, overrides: Mapping[str, Any] = MappingProxyType({})) -> Scenario:
    """The scenario in a file, with some values replaced first: ``{"sensing.dwells": 1}``; text is read as YAML.

    What belongs to the only site or to its controller may be named from there: ``timing.select_ns``, ``precoder.kind``.

    Raises:
        ScenarioError: all that is wrong with it, each with file, line and column (or its ``--set``).
    """
    return _scenario(read(file, {whole(path): value for path, value in overrides.items()}))


def loads(text: str, name: str = "<text>", overrides: Mapping[str, Any] = MappingProxyType({})) -> Scenario:
    """The scenario in a text; see ``load``. Files it names are looked for from where ``name`` is."""
    return _scenario(parse(text, name, {whole(path): value for path, value in overrides.items()}))


def whole(path: str) -> str:
    """The path from the top of the file of what ``--set`` may name from the only site or its controller: ``precoder.kind``.

    The controller's parts go by their section or by what they are: ``precoding`` or ``precoder``.
    """
    first, dot, rest = path.partition(".")
    first = PARTS.get(first, first)
    for cls, above in ((Scenario, ""), (Site, "sites.*."), (Control, "sites.*.control.")):
        if any(first == key for column in columns(cls) for key, _ in column.spelled):
            return f"{above}{first}{dot}{rest}"
    return path


def dump(scenario: Scenario) -> str:
    """The scenario as run, as YAML: every default filled in, in file units; ``loads`` of it is an equal scenario."""
    return written(plain(scenario))


def schema() -> dict[str, Any]:
    """The JSON Schema of scenario files: keys in file units, components as choices of ``kind``. Imports every component."""
    from twin.schema import json_schema  # pays for importing every component there is

    return json_schema(Scenario)


def frame_ns(sensing: Sensing) -> int:
    """Length of a sensing frame, ``N / spacing + prefix + suffix``, rounded up to whole nanoseconds.

    N the Doppler bins. Sampling itself is not rounded: what is added is silence before the next prefix, below 1 ns.
    """
    exact = Fraction(sensing.doppler_bins) / Fraction(sensing.spacing_hz) * 10**9
    return ceil(exact) + sensing.prefix_ns + sensing.suffix_ns


def numerology(scenario: Scenario) -> Numerology:
    """The frame structure and the bands that every stage of the loop may know."""
    data, sensing = scenario.communication, scenario.sensing
    spacing_hz = data.bandwidth_hz / data.subcarriers
    offset = np.arange(data.subcarriers) - (data.subcarriers - 1) / 2
    return Numerology(
        carrier_hz=scenario.carrier_hz,
        subframe_ns=scenario.subframe.period_ns,
        blocks=scenario.subframe.blocks,
        block_ns=scenario.subframe.block_ns,
        subcarrier_hz=scenario.carrier_hz + spacing_hz * offset,
        subcarrier_spacing_hz=spacing_hz,
        delay_bins=sensing.delay_bins,
        doppler_bins=sensing.doppler_bins,
        sample_rate_hz=sensing.delay_bins * sensing.spacing_hz,
        roll_off=sensing.roll_off,
        pulse_span=sensing.pulse_span,
        prefix_ns=sensing.prefix_ns,
        frame_ns=frame_ns(sensing),
        frames_per_dwell=sensing.frames_per_dwell,
        pilot_ns=scenario.pilots.duration_ns,
        pilot_power_w=scenario.pilots.power_w,
        user_noise_w=BOLTZMANN_JPK * NOISE_KELVIN * 10 ** (data.noise_figure_db / 10) * spacing_hz,
    )


def frontend_spec(scenario: Scenario, name: str) -> FrontendSpec:
    """The nameplate of the front end of the site called ``name``.

    Raises:
        Misuse: array and network do not fit together.
    """
    return site_spec(scenario.sites[name], name, scenario.carrier_hz)


def site_spec(site: Site, name: str, carrier_hz: float) -> FrontendSpec:
    """The nameplate of a site alone; see ``frontend_spec``."""
    return FrontendSpec(
        name=name,
        carrier_hz=carrier_hz,
        transmit=half_spec(site, site.transmit, carrier_hz),
        receive=half_spec(site, site.receive, carrier_hz),
        transmit_power_w=site.power_w,
        noise_figure_db=site.noise_figure_db,
        isolation_db=site.isolation_db,
        command_latency_ns=site.timing.command_latency_ns,
        bus_ns_per_element=site.timing.bus_ns_per_element,
        settling_ns=site.timing.settling_ns,
        select_ns=site.timing.select_ns,
        simulated=True,
    )


def half_spec(site: Site, half: Transmit | Receive, carrier_hz: float) -> HalfSpec:
    """One half of a site's front end; Misuse where array and network do not fit together."""
    rotation = rotation_from(site.yaw_rad, site.downtilt_rad)
    array = half.array.build(carrier_hz, np.array(site.position_m), rotation)
    return HalfSpec(array=array, network=half.network.build(array.columns, array.rows), memory_slots=half.memory_slots)


def _planned(site: Site, name: str, draft: SimpleNamespace, document: Document) -> Site:
    """The site, its planner made for the dwells there are wherever the file leaves that open."""
    planning, sensing = site.control.planning, draft.sensing
    taken_ns = sensing.dwells * sensing.frames_per_dwell * frame_ns(sensing)
    fit = {"sensing_blocks": -(-taken_ns // draft.subframe.block_ns), "dwell_slots": sensing.dwells}
    at = ("sites", name, "control", "planning")
    open_ = {key: n for key, n in fit.items() if hasattr(planning, key) and (*at, key) not in document.spots}
    if not open_:
        return site
    return replace(site, control=replace(site.control, planning=replace(planning, **open_)))  # type: ignore[type-var]


def _scenario(document: Document) -> Scenario:
    from twin.rules import RULES  # rules are about this module's classes

    given = gather(Scenario, document.value, (), document)
    draft = SimpleNamespace(**given)
    for column in columns(Scenario):
        if not hasattr(draft, column.name) and not column.required:
            entry = Scenario.__dataclass_fields__[column.name]
            made = entry.default_factory() if callable(entry.default_factory) else entry.default
            setattr(draft, column.name, made)
    keys = {column.name: column.key for column in columns(Scenario)}
    if not any(document.blamed((keys[name],)) for name in ("sites", "subframe", "sensing")):
        draft.sites = {name: _planned(site, name, draft, document) for name, site in draft.sites.items()}
        given["sites"] = draft.sites
    for reads, rule in RULES:
        # A rule about several sections is only asked where each of them is sound by itself.
        if not any(document.blamed((keys[name],)) for name in reads):
            for place, said, got in rule(draft):
                document.complain(place, said, got)
    document.verdict()
    return Scenario(**given)
