"""What a scenario's sections must be to each other: each rule yields (place, rule, found) for what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from types import SimpleNamespace
from typing import Any

from hal.array import LIGHT_MPS, Ula
from hal.errors import Misuse
from twin.document import Place
from twin.physics.propagation import unambiguous_velocity_mps
from twin.scenario import frame_ns, half_spec, site_spec

__all__ = ["RULES"]

Broken = Iterator[tuple[Place, str, str]]
RULES: list[tuple[tuple[str, ...], Callable[[Any], Broken]]] = []  # the fields of Scenario a rule reads, and the rule


def reads(*names: str) -> Callable[[Callable[[Any], Broken]], Callable[[Any], Broken]]:
    """Enter a rule, with the fields of Scenario that it looks at."""

    def enter(rule: Callable[[Any], Broken]) -> Callable[[Any], Broken]:
        RULES.append((names, rule))
        return rule

    return enter


@reads("duration_ns", "subframe")
def whole_subframes(scenario: SimpleNamespace) -> Broken:
    """A run is a whole number of subframes."""
    period, duration = scenario.subframe.period_ns, scenario.duration_ns
    if duration % period:
        fit = max(1, round(duration / period)) * period
        yield (
            ("duration_s",),
            f"must be a multiple of subframe.period_ms: {duration} ns is not a multiple of {period} ns; the nearest is {fit * 1e-9:.9g}",
            f"{duration * 1e-9:.9g}",
        )


@reads("subframe")
def blocks_fit(scenario: SimpleNamespace) -> Broken:
    """The blocks fit into the subframe."""
    sub = scenario.subframe
    if sub.blocks * sub.block_ns > sub.period_ns:
        yield (
            ("subframe", "blocks"),
            f"{sub.blocks} blocks of {us(sub.block_ns)} take {us(sub.blocks * sub.block_ns)} and the subframe is {us(sub.period_ns)}; "
            f"at most {sub.period_ns // sub.block_ns} fit",
            str(sub.blocks),
        )


@reads("subframe", "sensing")
def dwells_fit(scenario: SimpleNamespace) -> Broken:
    """The sensing dwells leave at least one block for data."""
    sensing, sub = scenario.sensing, scenario.subframe
    frame = frame_ns(sensing)
    taken, room = sensing.dwells * sensing.frames_per_dwell * frame, (sub.blocks - 1) * sub.block_ns
    if taken > room:
        yield (
            ("sensing", "dwells"),
            f"{sensing.dwells} dwells of {sensing.frames_per_dwell} frames of {us(frame)} take {us(taken)}, and all blocks but one are {us(room)}; "
            f"at most {room // (sensing.frames_per_dwell * frame)} fit",
            str(sensing.dwells),
        )


@reads("sensing")
def range_fits(scenario: SimpleNamespace) -> Broken:
    """Echoes from the range of interest come back within the prefix, and are not ambiguous."""
    sensing = scenario.sensing
    late_s = 2 * sensing.range_m / LIGHT_MPS
    if late_s > 1 / sensing.spacing_hz:
        limit = LIGHT_MPS / (2 * sensing.spacing_hz)
        yield (
            ("sensing", "range_m"),
            f"must be at most {limit:.4g} m, where ranges repeat with a spacing of {sensing.spacing_hz * 1e-3:g} kHz; lower one of the two",
            f"{sensing.range_m:g}",
        )
    if late_s > sensing.prefix_ns * 1e-9:
        yield (
            ("sensing", "prefix_us"),
            f"must be at least {late_s * 1e6:.4g} us, the delay of an echo from range_m = {sensing.range_m:g} m; lengthen it or lower range_m",
            f"{sensing.prefix_ns * 1e-3:g}",
        )


@reads("sensing")
def pulse_fits(scenario: SimpleNamespace) -> Broken:
    """The pulse is short against the frame."""
    sensing = scenario.sensing
    if 2 * sensing.pulse_span >= sensing.delay_bins * sensing.doppler_bins:
        yield (
            ("sensing", "pulse_span"),
            f"twice the span must be below the frame's {sensing.delay_bins * sensing.doppler_bins} samples",
            str(sensing.pulse_span),
        )


@reads("subframe", "pilots")
def pilots_fit(scenario: SimpleNamespace) -> Broken:
    """Pilots are shorter than the block they open."""
    pilot, block = scenario.pilots.duration_ns, scenario.subframe.block_ns
    if pilot >= block:
        yield ("pilots", "duration_us"), f"must be shorter than a block ({us(block)})", f"{pilot * 1e-3:g}"


@reads("carrier_hz", "communication", "sensing")
def bands_fit(scenario: SimpleNamespace) -> Broken:
    """Both bands lie at positive frequencies about the one carrier."""
    carrier = scenario.carrier_hz
    for section, width in (
        ("communication", scenario.communication.bandwidth_hz),
        ("sensing", scenario.sensing.delay_bins * scenario.sensing.spacing_hz * (1 + scenario.sensing.roll_off)),
    ):
        if not width < 2 * carrier:
            key = "bandwidth_ghz" if section == "communication" else "spacing_khz"
            yield (
                (section, key),
                f"the band of {width * 1e-9:g} GHz about carrier_ghz = {carrier * 1e-9:g} reaches below 0 Hz; raise the carrier or narrow the band",
                "",
            )


@reads("sites")
def one_site(scenario: SimpleNamespace) -> Broken:
    """One base station, for now."""
    names = list(scenario.sites)
    if not names:
        yield ("sites",), "must name one site, e.g. bs0: {}", ""
    for name in names[1:]:
        yield ("sites", name), f"a second site is refused until handover is built; keep {names[0]}", ""
    for name in names:
        if not name or not all(c.isalnum() or c in "-_" for c in name):
            yield (
                ("sites", name),
                "a site's name is made of letters, digits, - and _: topics and knobs are called after it",
                name,
            )


@reads("sites", "carrier_hz", "sensing")
def machine_fits(scenario: SimpleNamespace) -> Broken:
    """Arrays and networks fit together, and the receiver can tell angles apart."""
    for name, site in scenario.sites.items():
        for which in ("transmit", "receive"):
            try:
                half_spec(site, getattr(site, which), scenario.carrier_hz)
            except Misuse as error:
                yield ("sites", name, which), str(error), ""
        array, chains = site.receive.array, site.receive.network.chains
        axes = 1 if isinstance(array, Ula) else (array.columns > 1) + (array.rows > 1)
        if chains < axes + 1:
            yield (
                ("sites", name, "receive", "network", "chains"),
                f"must be at least {axes + 1}: the phases of {chains} outputs cannot tell {axes} angles and a gain apart "
                "(papers/001, section III-C: the Fisher matrix is singular); add chains",
                str(chains),
            )


@reads("sites", "users", "sensing", "fidelity")
def memory_fits(scenario: SimpleNamespace) -> Broken:
    """Beam memory holds a row for every user and every dwell."""
    if scenario.fidelity == "system":  # which loads no beams
        return
    crews = [crew(scenario, mover) for mover in scenario.users]
    if any(isinstance(names, str) for names in crews):  # told by crews_known
        return
    users = sum(map(len, crews))
    for name, site in scenario.sites.items():
        for which in ("transmit", "receive"):
            slots, dwells = getattr(site, which).memory_slots, scenario.sensing.dwells
            if slots < users + dwells:
                yield (
                    ("sites", name, which, "memory_slots"),
                    f"must be at least {users + dwells}: one for each of {users} users and {dwells} dwells",
                    str(slots),
                )


@reads("fidelity", "communication", "faults", "controllers", "bus")
def seen_from_afar(scenario: SimpleNamespace) -> Broken:
    """A fidelity without samples and beams is asked for nothing that needs them."""
    if scenario.fidelity == "signal":
        return
    absent = {
        "communication": (scenario.communication.fidelity == "waveform", "fidelity", "no bits are sent"),
        "faults": (bool(scenario.faults), None, "there is no machine to break"),
        "controllers": (scenario.controllers != type(scenario.controllers)(), None, "nothing is steered"),
        "bus": (scenario.bus.iq != "none", "iq", "there are no samples"),
    }
    for section, (asked, key, why) in absent.items():
        if asked:
            yield (
                (section,) if key is None else (section, key),
                f"at fidelity system {why}; leave it out, or take fidelity: signal",
                "",
            )


@reads("sites", "users", "sensing", "subframe", "carrier_hz", "fidelity")
def plans_fit(scenario: SimpleNamespace) -> Broken:
    """A planner of fixed shape has blocks for the dwells, and rows for users, dwells and search."""
    sensing = scenario.sensing
    dwell = sensing.frames_per_dwell * frame_ns(sensing)
    users = sum(
        len(names) for names in (crew(scenario, mover) for mover in scenario.users) if not isinstance(names, str)
    )
    for name, site in scenario.sites.items():
        planning, at = site.control.planning, ("sites", name, "control", "planning")
        if hasattr(planning, "sensing_blocks"):
            fit = planning.sensing_blocks * scenario.subframe.block_ns // dwell
            if min(fit, getattr(planning, "dwell_slots", fit)) != sensing.dwells:
                yield (
                    (*at, "sensing_blocks"),
                    f"{planning.sensing_blocks} blocks of {us(scenario.subframe.block_ns)} hold {fit} dwells of {us(dwell)} and sensing.dwells is "
                    f"{sensing.dwells}; leave sensing_blocks and dwell_slots out to have as many as they take",
                    str(planning.sensing_blocks),
                )
        if getattr(planning, "user_slots", users) < users and scenario.fidelity == "signal":
            yield (*at, "user_slots"), f"must be at least {users}, the number of users", str(planning.user_slots)
        if hasattr(planning, "layout"):
            try:
                spec = site_spec(site, name, scenario.carrier_hz)
            except Misuse:  # told by machine_fits
                continue
            try:
                planning.layout(spec)
            except Misuse as error:
                yield at, str(error), ""


@reads("users", "targets")
def names_differ(scenario: SimpleNamespace) -> Broken:
    """Every mover has a name of its own: its random numbers are keyed by it."""
    first: dict[str, Place] = {}
    for section in ("users", "targets"):
        for index, mover in enumerate(getattr(scenario, section)):
            place: Place = (section, index, "name")
            if mover.name in first:
                yield (
                    place,
                    f"must be unique; {'.'.join(map(str, first[mover.name][:-1]))} has it too",
                    repr(mover.name),
                )
            first.setdefault(mover.name, place)


@reads("users", "targets")
def someone(scenario: SimpleNamespace) -> Broken:
    """There is someone to see or to serve."""
    if not scenario.users and not scenario.targets:
        yield ("users",), "a run needs at least one user or target", ""


@reads("users", "targets")
def cross_sections(scenario: SimpleNamespace) -> Broken:
    """A radar cross-section is positive (in m2 it may be written as 0, which no echo comes from)."""
    for section in ("users", "targets"):
        for index, mover in enumerate(getattr(scenario, section)):
            if not mover.rcs_m2 >= 0:
                yield (section, index, "rcs_m2"), "must be >= 0", f"{mover.rcs_m2:g}"


@reads("users", "targets")
def crews_known(scenario: SimpleNamespace) -> Broken:
    """Every law of motion can say whom it moves: files it names are there and make sense."""
    for section in ("users", "targets"):
        for index, mover in enumerate(getattr(scenario, section)):
            names = crew(scenario, mover)
            if isinstance(names, str) or not names:
                yield (section, index, "mobility"), names if isinstance(names, str) else "moves nobody", ""


def crew(scenario: SimpleNamespace, mover: Any) -> tuple[str, ...] | str:
    """Names of the movers of one entry, or what is wrong with it; files are read once."""
    known = scenario.__dict__.setdefault("crews", {})
    if id(mover) not in known:
        try:
            known[id(mover)] = mover.mobility.movers()
        except Misuse as error:
            known[id(mover)] = str(error)
    found: tuple[str, ...] | str = known[id(mover)]
    return found


@reads("faults", "sites", "duration_ns")
def faults_happen(scenario: SimpleNamespace) -> Broken:
    """A fault strikes something that exists, within the run, and ends after it began."""
    for index, fault in enumerate(scenario.faults):
        end = scenario.duration_ns
        if fault.at_ns >= end:
            yield (
                ("faults", index, "at_ms"),
                f"must be before the end of the run ({end * 1e-6:g} ms)",
                f"{fault.at_ns * 1e-6:g}",
            )
        if fault.until_ns is not None and not fault.until_ns > fault.at_ns:
            yield (
                ("faults", index, "until_ms"),
                f"must be after at_ms = {fault.at_ns * 1e-6:g}",
                f"{fault.until_ns * 1e-6:g}",
            )
        if fault.site is not None and fault.site not in scenario.sites:
            yield ("faults", index, "site"), f"must be {' or '.join(scenario.sites)}", repr(fault.site)
            continue
        half = getattr(scenario.sites[fault.site or next(iter(scenario.sites))], fault.half)
        lines = half.network.delay_lines or (0, 0)
        size = half.array.elements if isinstance(half.array, Ula) else half.array.columns * half.array.rows
        limits = {"chain": half.network.chains, "line": lines[0] * lines[1] if fault.kind == "stuck_delay" else inf}
        for key, limit in limits.items():
            if getattr(fault, key) >= limit:
                yield (
                    ("faults", index, key),
                    f"the {fault.half} half has {limit} of them, counted from 0",
                    str(getattr(fault, key)),
                )
        for place, element in enumerate(fault.elements):
            if element >= size:
                yield (
                    ("faults", index, "elements", place),
                    f"the {fault.half} half has {size} elements, counted from 0",
                    str(element),
                )


@reads("subframe", "sensing", "sites")
def listening_fits(scenario: SimpleNamespace) -> Broken:
    """A data block that is listened to is as long as what is integrated of it, and carries one stream, whose symbols are the ones looked for."""
    wanted, sub = scenario.sensing.data_echoes, scenario.subframe
    if not wanted.blocks:
        return
    if wanted.integration_ns > sub.block_ns:
        yield (
            ("sensing", "data_echoes", "integration_us"),
            f"must be at most a block, {us(sub.block_ns)}",
            us(wanted.integration_ns),
        )
    for name, site in scenario.sites.items():
        if getattr(site.control.planning, "service", "") == "spatial":
            yield (
                ("sites", name, "control", "planning", "service"),
                "several streams at once are not listened to: take another service, or leave sensing.data_echoes.blocks at 0",
                "spatial",
            )
        slots = site.receive.memory_slots
        if not slots > 2 * wanted.directions:
            yield (
                ("sites", name, "receive", "memory_slots"),
                f"must be more than the {2 * wanted.directions} that sensing.data_echoes takes; give the half more",
                str(slots),
            )


@reads("carrier_hz", "sensing")
def speeds_fit(scenario: SimpleNamespace) -> Broken:
    """A detector does not look for speeds that the frames cannot tell apart."""
    sensing = scenario.sensing
    asked = getattr(sensing.detector, "max_speed_mps", 0.0)
    limit = unambiguous_velocity_mps(frame_ns(sensing) * 1e-9, scenario.carrier_hz)
    if sensing.frames_per_dwell > 1 and not asked < limit:
        yield (
            ("sensing", "detector", "max_speed_mps"),
            f"must be below {limit:.4g}: frames {us(frame_ns(sensing))} apart tell speeds apart only so far; lower it, shorten the frame, "
            "or take one frame a dwell",
            f"{asked:g}",
        )


def us(time_ns: int) -> str:
    """A time as people write it here."""
    return f"{time_ns * 1e-3:g} us"
