"""What a scenario means before it is run: resolution, ambiguity, beams, link budget, and what its numbers leave no room for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import asin, ceil, degrees, inf, log10, pi, radians

import numpy as np

from hal.array import (
    LIGHT_MPS,
    direction_from,
    fraunhofer_distance_m,
    half_power_beamwidth,
    steering,
)
from hal.frontend import FrontendSpec, HalfSpec
from hal.network import quantise, response
from hal.reception import noise_root
from hal.record import Array, Float
from twin.physics.absorption import specific_attenuation_db_per_km
from twin.physics.bounds import direction_information
from twin.physics.draws import Draws
from twin.physics.propagation import (
    doppler_hz,
    free_space_amplitude,
    gas_amplitude,
    longest_echo_range_m,
    radar_amplitude,
    range_cell_m,
    thermal_noise_w,
    unambiguous_range_m,
    unambiguous_velocity_mps,
    velocity_cell_mps,
)
from twin.planning._rows import squinted
from twin.records import Numerology
from twin.scenario import Mover, Scenario, frontend_spec, numerology

__all__ = ["Fact", "facts", "squint_loss_db"]

SECTOR_DEG = 60.0  # off boresight: where squint is told for
AGEING_LIMIT = 0.3  # diffuse Doppler times block, above which a pilot says little about the block after its own
DETECTION_DB = 15.0  # integrated SNR that a detection in a few thousand cells takes
INSTANTS = 21  # at which movers are looked at to learn their speed


@dataclass(frozen=True)
class Fact:
    """One thing worth knowing; a note that begins with ``warning:`` says what to do about it."""

    name: str
    value: float | int | str
    unit: str = ""
    note: str = ""


def facts(scenario: Scenario) -> list[Fact]:
    """All that follows from the scenario without running it, for its first site."""
    name = next(iter(scenario.sites))
    spec, frame = frontend_spec(scenario, name), numerology(scenario)
    return [
        *_frame(scenario, frame),
        *_waveform(scenario, frame),
        *_beams(scenario, spec, frame),
        *_links(scenario, spec, frame),
        *_ageing(scenario, frame),
        *_memory(scenario, spec),
    ]


def squint_loss_db(half: HalfSpec, direction: Float[Array, " axis"], carrier_hz: float, frequency_hz: float) -> float:
    """Power lost at ``frequency_hz`` by a beam matched to ``direction`` (array frame) at the carrier, in dB.

    ``|response(f)^T a(u, f)|^2`` against ``N``, the first chain's elements on. With delay lines each takes the slope at its sub-array's centre,
    about the middle of its range; delays are quantised as the hardware would, phases are not (their loss is not squint).
    """
    network, array = half.network, half.array
    on = network.wired[0]
    path_s = array.position_m @ direction / LIGHT_MPS
    delay_s = np.zeros((1, len(network.wired), network.lines))
    for line in range(network.lines):
        delay_s[0, :, line] = path_s[on & (network.line == line)].mean() + network.delay_range_s / 2
    loose = replace(network, phase_bits=0, amplitude_bits=0)
    delay_s, _, _, _ = quantise(loose, delay_s, np.zeros((1, *network.wired.shape)), np.ones((1, *network.wired.shape)))
    through_s = np.take(delay_s, network.line, axis=-1) if network.lines else np.zeros((1, *network.wired.shape))
    phase_rad = 2 * pi * carrier_hz * (through_s - path_s)
    made = response(loose, delay_s, phase_rad, network.wired[None].astype(float), np.array([frequency_hz]))[0, 0, :, 0]
    gain = abs(made @ steering(array, direction, np.array(frequency_hz))) ** 2
    return max(0.0, float(-10 * np.log10(gain / np.count_nonzero(on)) - network.loss_db))


def _frame(scenario: Scenario, frame: Numerology) -> list[Fact]:
    sub, sensing = scenario.subframe, scenario.sensing
    exact_ns = sensing.doppler_bins / sensing.spacing_hz * 1e9 + sensing.prefix_ns + sensing.suffix_ns
    dwell_ns = frame.frame_ns * frame.frames_per_dwell
    sensing_ns = sensing.dwells * dwell_ns
    blocks = ceil(sensing_ns / sub.block_ns)
    return [
        Fact("subframes", scenario.subframes, "", f"of {sub.period_ns * 1e-6:g} ms"),
        Fact(
            "sensing share",
            100 * blocks * sub.block_ns / sub.period_ns,
            "%",
            f"{blocks} of {sub.blocks} blocks hold the dwells",
        ),
        Fact(
            "dwell",
            dwell_ns * 1e-3,
            "us",
            f"{frame.frames_per_dwell} frames of {frame.frame_ns * 1e-3:g} us, {sensing.dwells} a subframe",
        ),
        Fact(
            "frame gap",
            frame.frame_ns - exact_ns,
            "ns",
            "silence that rounds a frame up to whole nanoseconds; samples are not rounded",
        ),
        Fact("data share", 100 * (sub.blocks - blocks) * sub.block_ns / sub.period_ns, "%", "pilots included"),
        Fact("guard", (sub.period_ns - sub.blocks * sub.block_ns) * 1e-3, "us", "silent end of the subframe"),
    ]


def _waveform(scenario: Scenario, frame: Numerology) -> list[Fact]:
    sensing, rate = scenario.sensing, frame.sample_rate_hz
    step = "frame" if frame.frames_per_dwell > 1 else "symbol"
    covered = longest_echo_range_m(sensing.prefix_ns * 1e-9, 2 * sensing.pulse_span / rate)
    note = "beyond it the prefix is shorter than delay and pulse together"
    if covered < sensing.range_m:
        note = f"echoes from there to range_m = {sensing.range_m:g} m lose a little of the pulse's tail"
    dwell_s = frame.frame_ns * frame.frames_per_dwell * 1e-9
    return [
        Fact("range resolution", range_cell_m(rate), "m", f"{rate * 1e-6:g} MHz of sensing bandwidth"),
        Fact(
            "range ambiguity",
            unambiguous_range_m(1 / sensing.spacing_hz),
            "m",
            "farther echoes appear nearer by this much",
        ),
        Fact("range within prefix", covered, "m", note),
        Fact("velocity resolution", velocity_cell_mps(dwell_s, scenario.carrier_hz), "m/s", "of one dwell"),
        Fact("velocity ambiguity", _fastest(scenario, frame), "m/s", f"either sign, from {step} to the next"),
    ]


def _beams(scenario: Scenario, spec: FrontendSpec, frame: Numerology) -> list[Fact]:
    found, edges = (
        [],
        (
            scenario.carrier_hz - scenario.communication.bandwidth_hz / 2,
            scenario.carrier_hz + scenario.communication.bandwidth_hz / 2,
        ),
    )
    towards = direction_from(radians(SECTOR_DEG), 0.0)
    for which, half in (("transmit", spec.transmit), ("receive", spec.receive)):
        across, up = (
            degrees(2 * asin(min(1.0, width / 2))) for width in half_power_beamwidth(half.array, scenario.carrier_hz)
        )
        wiring = f"{half.array.columns} x {half.array.rows} elements, {len(half.network.wired)} chains, {half.network.lines} delay lines a chain"
        found.append(Fact(f"{which} beamwidth, azimuth", across, "deg", wiring))
        flat = which == "receive" and 1 in (half.array.rows, half.array.columns)
        note = (
            "warning: one line of elements tells one angle: no four-dimensional detections"
            if flat
            else "half power, at boresight"
        )
        found.append(Fact(f"{which} beamwidth, elevation", up, "deg", note))
    reach = max(fraunhofer_distance_m(half.array, scenario.carrier_hz) for half in (spec.transmit, spec.receive))
    found.append(Fact("far field from", reach, "m", "nearer movers see a spherical wave"))
    bare = _half_without_lines(spec.transmit)
    where = f"band edges, {SECTOR_DEG:g} deg off boresight"
    found.append(
        Fact(
            "squint loss, phases only",
            max(squint_loss_db(bare, towards, scenario.carrier_hz, f) for f in edges),
            "dB",
            where,
        )
    )
    if spec.transmit.network.lines:
        lost = max(squint_loss_db(spec.transmit, towards, scenario.carrier_hz, f) for f in edges)
        found.append(Fact("squint loss, delay lines", lost, "dB", f"{where}, delays quantised"))
    return [*found, *_combiner(scenario, spec)]


def _combiner(scenario: Scenario, spec: FrontendSpec) -> list[Fact]:
    """What the beams that listen for echoes cost, for arrays and chains that tell both angles."""
    control = next(iter(scenario.sites.values())).control
    array, network, ahead = spec.receive.array, spec.receive.network, np.array([[1.0, 0.0, 0.0]])
    if min(array.columns, array.rows) < 2 or len(network.wired) < 3:
        return []
    asked = squinted(spec.receive, spec.carrier_hz, ahead, getattr(control.planning, "squint", 0.3))
    made = control.combining.settings(spec.receive, asked, ahead, spec.carrier_hz)
    settings = quantise(network, made.delay_s, made.phase_rad, made.amplitude)[:3]
    heard = response(network, *settings, np.array([spec.carrier_hz]))[0, 0]  # [element, chain]
    root = noise_root(network.wired, heard[None])[0]
    levers = 2 * pi * spec.carrier_hz / LIGHT_MPS * (array.position_m[:, 1:] - array.position_m[:, 1:].mean(axis=0))
    of_angles, _ = direction_information(heard.sum(axis=0), 1j * levers.T @ heard, root @ root.conj().T)
    if not np.linalg.det(of_angles) > 0:
        return [
            Fact(
                "combiner",
                "blind",
                "",
                "warning: straight ahead this combiner tells no angle; choose another control.combining",
            )
        ]
    over = np.trace(np.linalg.inv(of_angles)) / np.sum(1 / np.sum(levers**2, axis=0))
    lost_db = max(0.0, -10 * log10(np.sum(np.abs(heard) ** 2, axis=0).min()))
    note = f"angle variance over that of all elements sampled, straight ahead; attenuators take {lost_db:.1f} dB of the weakest chain's signal"
    return [Fact("combiner", 10 * log10(over), "dB", note)]


def _links(scenario: Scenario, spec: FrontendSpec, frame: Numerology) -> list[Fact]:
    edge_m, carrier = scenario.sensing.range_m, scenario.carrier_hz
    try:
        gas_db = float(specific_attenuation_db_per_km(carrier, *_air(scenario)))
    except ValueError:
        gas_db = 0.0
    send, hear = (_peak_gain(half) for half in (spec.transmit, spec.receive))
    one_way = free_space_amplitude(edge_m, carrier) ** 2 * gas_amplitude(gas_db, edge_m) ** 2
    subcarriers = len(frame.subcarrier_hz)
    down = spec.transmit_power_w / subcarriers * send * one_way / frame.user_noise_w
    rate = frame.subcarrier_spacing_hz * subcarriers * np.log2(1 + down)
    rcs_m2 = min((mover.rcs_m2 for mover in (*scenario.users, *scenario.targets) if mover.rcs_m2 > 0), default=1.0)
    two_way = radar_amplitude(edge_m, carrier, rcs_m2) ** 2 * gas_amplitude(gas_db, 2 * edge_m) ** 2
    noise_w = thermal_noise_w(frame.sample_rate_hz, spec.noise_figure_db)
    cells = frame.delay_bins * frame.doppler_bins * frame.frames_per_dwell
    echo_db = _db(spec.transmit_power_w * send * hear * two_way / noise_w * cells)
    pilot_noise_w = thermal_noise_w(1e9 / frame.pilot_ns, spec.noise_figure_db)
    pilot = frame.pilot_power_w / subcarriers * hear * one_way / pilot_noise_w
    weak = (
        ""
        if echo_db >= DETECTION_DB
        else f"warning: below {DETECTION_DB:g} dB it is hardly ever seen; more frames, power or elements; "
    )
    return [
        Fact("gas loss", gas_db, "dB/km", f"{gas_db * edge_m * 1e-3:.3g} dB one way to range_m = {edge_m:g} m"),
        Fact("down SNR at the edge", _db(down), "dB", "a subcarrier, perfect beam, no fading"),
        Fact("down rate at the edge", rate * 1e-9, "Gbit/s", "while served, before pilots and ageing"),
        Fact("echo SNR at the edge", echo_db, "dB", f"{weak}integrated over a dwell, {rcs_m2:.3g} m2, perfect beams"),
        Fact("pilot SNR at the edge", _db(pilot), "dB", "a subcarrier, perfect receive beam"),
    ]


def _ageing(scenario: Scenario, frame: Numerology) -> list[Fact]:
    of_users, of_targets = (
        [_speed(mover, scenario) for mover in group] for group in (scenario.users, scenario.targets)
    )
    speed = max(of_users, default=0.0)
    age = doppler_hz(speed, scenario.carrier_hz) * scenario.subframe.block_ns * 1e-9
    note = f"largest Doppler shift times a block, fastest user {speed:.3g} m/s"
    if age > AGEING_LIMIT:
        note = f"warning: above {AGEING_LIMIT:g} the diffuse part changes within a block: pilots help its own block only; {note}"
    velocity = max((*of_users, *of_targets), default=0.0)
    limit = _fastest(scenario, frame)
    fast = (
        f"warning: beyond the ambiguity of {limit:.3g} m/s" if velocity > limit else f"ambiguous beyond {limit:.3g} m/s"
    )
    return [Fact("ageing", age, "", note), Fact("fastest mover", velocity, "m/s", fast)]


def _memory(scenario: Scenario, spec: FrontendSpec) -> list[Fact]:
    users = sum(len(mover.mobility.movers()) for mover in scenario.users)
    need = users + scenario.sensing.dwells
    elements = max(half.network.wired.sum() for half in (spec.transmit, spec.receive))
    load_ns = spec.command_latency_ns + int(elements) * spec.bus_ns_per_element + spec.settling_ns
    late = scenario.subframe.blocks * scenario.subframe.block_ns < load_ns
    have = min(spec.transmit.memory_slots, spec.receive.memory_slots)
    return [
        Fact("users", users, "", "attached to the site"),
        Fact("memory slots", have, "", f"{need} needed: one a user and one a dwell"),
        Fact(
            "beam load",
            load_ns * 1e-3,
            "us",
            "warning: longer than the blocks of a subframe" if late else "one row: command, bus and settling",
        ),
    ]


def _fastest(scenario: Scenario, frame: Numerology) -> float:
    """Closing speed beyond which Doppler repeats: from frame to frame, or within the only frame of a dwell."""
    step_s = frame.frame_ns * 1e-9 if frame.frames_per_dwell > 1 else 1 / scenario.sensing.spacing_hz
    return float(unambiguous_velocity_mps(step_s, scenario.carrier_hz))


def _peak_gain(half: HalfSpec) -> float:
    """Power gain of a perfect beam: every element that any chain reaches, an element's peak, and the network's loss."""
    return float(
        half.network.wired.any(axis=0).sum() * 10 ** ((half.array.element_gain_dbi - half.network.loss_db) / 10)
    )


def _air(scenario: Scenario) -> tuple[float, float, float]:
    """Pressure, temperature and vapour density of the channel, or the standard atmosphere's."""
    standard = {"pressure_pa": 101325.0, "temperature_k": 288.15, "vapour_density_g_m3": 7.5}
    return tuple(float(getattr(scenario.channel, name, value)) for name, value in standard.items())  # type: ignore[return-value]


def _speed(mover: Mover, scenario: Scenario) -> float:
    names = mover.mobility.movers()
    state = mover.mobility.start(np.arange(len(names)), Draws(scenario.seed))
    fastest = 0.0
    for t_ns in np.linspace(0, scenario.duration_ns - 1, INSTANTS).astype(np.int64):
        state, motion = mover.mobility.at(state, int(t_ns))
        speed = np.sqrt(np.sum(motion.velocity_mps**2, axis=-1))
        fastest = max(fastest, float(speed[motion.present].max(initial=0.0)))
    return fastest


def _half_without_lines(half: HalfSpec) -> HalfSpec:
    return replace(half, network=replace(half.network, line=np.full(len(half.network.line), -1), lines=0))


def _db(ratio: float) -> float:
    return 10 * log10(ratio) if ratio > 0 else -inf
