"""The subframe, in order: it reads as the table in docs/subframe.md does.

Two edges: the machine (``frontend``) and the controller. Both may be simulated or real; nothing here can tell. One SimPy process a site,
a few events a subframe, the block axis vectorised. A change within a subframe (a latch, a fault) splits the block axis by itself, because the
machine answers for each block's own time; ``split`` materialises block events for whoever needs them, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hal.array import AntennaArray, element_amplitude
from hal.errors import Misuse
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, HalfSpec, Listen, Reception
from hal.medium import Paths, beam_gains, wideband
from hal.record import Array, Bool, Complex, Float, Int
from twin.antennas import with_received
from twin.channel import Channel
from twin.control import Controller, one_stream
from twin.engine import Engine
from twin.invariants import Invariants
from twin.kpi import Blocks, Dwell, Kpi, Scorer, bound_detections, no_blocks, with_carried, with_served
from twin.link import Link
from twin.overheard import Overheard, observed_blocks, overhear
from twin.physics.draws import Draws
from twin.records import (
    BasebandCommand,
    BeamsCommand,
    EchoObservation,
    Numerology,
    PilotObservation,
    Plan,
    Truth,
)
from twin.waveforms import Waveform
from twin.waveforms.oddm import qpsk
from twin.world import World

__all__ = ["Air", "Site", "play"]

ROW = ("slot", "delay_s", "phase_rad", "amplitude")  # of a beam memory


@dataclass(frozen=True)
class Air:
    """What surrounds the site: movers, propagation, chance, and the frame structure all agree on."""

    world: World
    channel: Channel
    draws: Draws
    numerology: Numerology
    waveform: Waveform
    sensing_fidelity: str  # "echo": samples through the estimator; "bound": errors drawn from the Cramer-Rao bound
    antennas: Mapping[int, AntennaArray] = field(default_factory=dict)  # of users that have more than one
    link: Link | None = None  # plays a frame of bits in every served block; None: rates by the formula alone
    listening_ns: int = 0  # of a data block that is listened to, how much is integrated; 0: none is


@dataclass
class Site:
    """One base station: its machine, its controller, and what is in force now."""

    name: str
    frontend: Frontend
    controller: Controller
    plan: Plan
    power_w: Float[Array, "slot subcarrier"]  # of the data blocks, as the baseband last set it
    digital: Complex[Array, "slot chain stream"]
    transmit: BeamReport  # the whole memory, as last reported
    receive: BeamReport
    control_latency_ns: int = 0  # from a data beam's design to its command
    waiting: list[tuple[int, BeamsCommand]] = field(default_factory=list)  # designed, to be commanded at these instants
    overheard: list[Overheard] = field(default_factory=list)  # data blocks listened to since the last ``steer``
    sent: list[Emission] = field(default_factory=list)  # of the data blocks of this subframe
    invariants: Invariants | None = None  # what every subframe is held to; None: it is not


@dataclass(frozen=True)
class Subframe:
    """What one subframe was, for whoever watches: all records, nothing computed."""

    k: int
    t_ns: int
    truth: Truth
    dwells: list[Dwell]
    echo: EchoObservation
    plan: Plan
    reports: list[tuple[str, BeamReport]]  # halves that were given beams, and what the machine said of them
    kpi: Kpi


def play(
    engine: Engine,
    air: Air,
    site: Site,
    scorer: Scorer,
    subframes: int,
    watch: Callable[[Subframe, Site], None],
    split: bool = False,
    begin: int = 0,
) -> Generator[Any, Any, None]:
    """The site's process: subframes ``begin .. subframes - 1``, each sense -> steer -> latch -> pilots -> precode -> serve -> score -> publish."""
    numerology, stage = air.numerology, engine.ledger.stage
    for k in range(begin, subframes):
        start, plan = k * numerology.subframe_ns, site.plan
        with stage("world"):
            truth, users, down, up, block_ns = surroundings(air, site, start)

        yield engine.until(start + plan.sensing_ns)
        with stage("echo"):
            dwells, heard = sense(air, site, plan, start)
            echo = observed_echo(air, site, k, start, users, dwells, heard)
            listened, site.overheard = site.overheard if air.listening_ns else None, []
        with stage("steer"):
            command = site.controller.steer(echo)
        with stage("set_beam"):
            following = plan if command.plan is None else command.plan
            next_ns = start + numerology.subframe_ns + following.sensing_ns
            reports = in_turn(site, command.beams, (plan, following), engine.now, next_ns)

        blocks = no_blocks(numerology, users, played=air.link is not None, arrays=bool(air.antennas))
        pilots: PilotObservation | None = None
        baseband: BasebandCommand | None = None
        for first, last in segments(numerology.blocks, split):
            yield engine.until(start + last * numerology.block_ns)
            with stage("pilots"):
                heard_before, pilots = (
                    pilots,
                    observed_pilots(air, site, k, start, users, up, block_ns, first, last, pilots),
                )
            if pilots is not None and pilots is not heard_before:
                with stage("precode"):
                    baseband = site.controller.precode(pilots).baseband
            with stage("blocks"):
                blocks = serve(site, air, plan, baseband, users, down, block_ns, first, last, blocks)
        keep(site, baseband)

        yield engine.until(start + numerology.subframe_ns)
        with stage("kpi"):
            kpi = scorer.score(k, truth, dwells, echo, site.controller.belief, reports, blocks, down, listened)
            sent, site.sent = [*(dwell.emission for dwell in dwells), *site.sent], []
            if site.invariants is not None:
                site.invariants.hold(k, truth, plan, numerology, site.controller.belief, reports, sent, down, blocks)
        with stage("publish"):
            watch(Subframe(k, start, truth, dwells, echo, plan, reports, kpi), site)
        if command.plan is not None:
            site.plan = command.plan
        engine.pace(start + numerology.subframe_ns)


def surroundings(
    air: Air, site: Site, start: int
) -> tuple[Truth, Int[Array, " user"], Paths, Paths, Int[Array, " block"]]:
    """Who is where, and the paths to and from the users with a gain a block."""
    numerology, spec = air.numerology, site.frontend.spec
    truth = air.world.at(start)
    block_ns = start + numerology.block_ns * np.arange(numerology.blocks)
    down = air.channel.down(truth, spec.transmit.array, block_ns, numerology.carrier_hz, air.draws)
    up = air.channel.up(truth, spec.receive.array, block_ns, numerology.carrier_hz, air.draws)
    return truth, truth.entity[truth.is_user], down, up, block_ns


def segments(blocks: int, split: bool) -> list[tuple[int, int]]:
    """Ranges of blocks evaluated together: all of them, or one by one."""
    return [(b, b + 1) for b in range(blocks)] if split else [(0, blocks)]


def sense(air: Air, site: Site, plan: Plan, start: int) -> tuple[list[Dwell], list[Reception]]:
    """The sensing phase: each dwell's frames leave through one transmit slot, meet every mover, and come back through a receive slot."""
    numerology, frontend = air.numerology, site.frontend
    frames = numerology.frames_per_dwell
    dwells: list[Dwell] = []
    heard: list[Reception] = []
    for d, (send, hear) in enumerate(zip(plan.dwell_transmit_slot, plan.dwell_receive_slot, strict=True)):
        event_ns = start + numerology.prefix_ns + numerology.frame_ns * (d * frames + np.arange(frames))
        centre_ns = int(
            event_ns.sum() // frames
            + round(numerology.delay_bins * numerology.doppler_bins / numerology.sample_rate_hz * 0.5e9)
        )
        truth = air.world.at(centre_ns)
        paths = air.channel.echo(
            truth,
            frontend.spec.transmit.array,
            frontend.spec.receive.array,
            event_ns[:1],
            numerology.carrier_hz,
            air.draws,
        )
        emission = frontend.emit(sounding(air, site, event_ns, int(send)))
        listen = Listen(t_ns=event_ns, slot=np.full(frames, hear), bandwidth_hz=numerology.sample_rate_hz)
        heard.append(frontend.receive([(emission, paths)], listen))
        dwells.append(Dwell(truth=truth, paths=paths, emission=emission, listen=listen, noise_w=heard[-1].noise_w))
    return dwells, heard


def sounding(air: Air, site: Site, event_ns: Int[Array, " event"], slot: int) -> Drive:
    """Sensing frames from one slot: QPSK on the delay-Doppler grid, known to the monostatic receiver, full power."""
    numerology, frames = air.numerology, len(event_ns)
    streams = max(int(site.digital[slot].any(axis=0).sum()), 1)
    weights = site.digital[slot][:, :streams]
    cells = numerology.delay_bins * numerology.doppler_bins
    words = air.draws.words(f"{site.name}.symbols", np.arange(streams)[None, :], event_ns[:, None], (cells + 15) // 16)
    grid = qpsk(words, cells).reshape(frames, streams, numerology.delay_bins, numerology.doppler_bins)
    samples = air.waveform.modulate(grid.astype(np.complex64), numerology)
    return Drive(
        t_ns=event_ns,
        slot=np.full(frames, slot),
        frequency_hz=np.array([numerology.carrier_hz]),
        power_w=np.full((frames, 1), site.frontend.spec.transmit_power_w),
        digital=np.broadcast_to(weights, (frames, *weights.shape)),
        samples=samples,
        sample_rate_hz=numerology.sample_rate_hz,
        roll_off=numerology.roll_off,
    )


def observed_echo(
    air: Air, site: Site, k: int, start: int, users: Int[Array, " user"], dwells: list[Dwell], heard: list[Reception]
) -> EchoObservation:
    """What the controller gets to see of the sensing phase: samples, or detections where the fidelity is ``bound``."""
    drives, listens = [d.emission.drive for d in dwells], [d.listen for d in dwells]
    whole = EchoObservation(
        k=k,
        t_ns=start,
        spec=site.frontend.spec,
        numerology=air.numerology,
        plan=site.plan,
        user=users,
        drive=joined(drives, "t_ns", "slot", "power_w", "digital", "samples"),
        listen=joined(listens, "t_ns", "slot"),
        echo=joined(heard, "t_ns", "slot", "samples", "overload"),
        detections=None,
        transmit_beam=site.transmit,
        receive_beam=site.receive,
        blocks=observed_blocks(site.overheard),
    )
    if air.sensing_fidelity == "echo":
        return whole
    return replace(
        whole,
        echo=None,
        detections=bound_detections(dwells, site.receive, site.frontend.spec, air.numerology, air.draws),
    )


def observed_pilots(
    air: Air,
    site: Site,
    k: int,
    start: int,
    users: Int[Array, " user"],
    up: Paths,
    block_ns: Int[Array, " block"],
    first: int,
    last: int,
    before: PilotObservation | None,
) -> PilotObservation | None:
    """All pilots up to block ``last``: orthogonal among users, coherent over the pilot's length, y = W^H h sqrt(p) + n."""
    numerology, plan = air.numerology, site.plan
    planned = users[:, None] == plan.user  # who came since the plan was made has no pilots in it yet
    users, seat = users[planned.any(axis=1)], np.nonzero(planned)[1]
    update = np.flatnonzero((plan.update_block >= first) & (plan.update_block < last))
    if not update.size or not users.size:
        return before
    event_ns = np.repeat(block_ns[plan.update_block[update]], len(users))
    subcarriers = len(numerology.subcarrier_hz)
    alone = np.zeros(event_ns.size, dtype=np.int64)
    drive = Drive(
        t_ns=event_ns,
        slot=alone,
        frequency_hz=numerology.subcarrier_hz,
        power_w=np.full((event_ns.size, subcarriers), numerology.pilot_power_w / subcarriers),
        digital=np.ones((event_ns.size, 1, 1), dtype=np.complex128),
    )
    one_antenna = np.ones((1, subcarriers, 1, 1), dtype=np.complex128)
    emission = Emission(
        source=np.repeat(users[None], update.size, axis=0).ravel(), drive=drive, row=alone, response=one_antenna
    )
    slot = plan.pilot_receive_slot[update][:, seat]
    heard = site.frontend.receive(
        [(emission, up)], Listen(t_ns=event_ns, slot=slot.ravel(), bandwidth_hz=1e9 / numerology.pilot_ns)
    )
    pilot = heard.samples.reshape(update.size, users.size, *heard.samples.shape[1:])
    return PilotObservation(
        k=k,
        t_ns=start,
        spec=site.frontend.spec,
        numerology=numerology,
        plan=plan,
        update_ns=block_ns[plan.update_block[: update[-1] + 1]],
        user=users,
        pilot=pilot if before is None else np.concatenate([before.pilot, pilot]),
        noise_w=heard.noise_w,
        transmit_beam=site.transmit,
        receive_beam=site.receive,
    )


def opened(name: str, frontend: Frontend, controller: Controller, numerology: Numerology) -> Site:
    """A site before its first subframe: the controller's first beams were loaded a subframe ago and are in force."""
    spec = frontend.spec
    command = controller.first()
    if command.plan is None or command.beams is None:
        raise Misuse(f"controller of site {name}: gave no plan or no beams to start with")
    nothing = {half: unloaded(half, getattr(spec, half)) for half in ("transmit", "receive")}
    chains, slots = len(spec.transmit.network.wired), spec.transmit.memory_slots
    subcarriers = len(numerology.subcarrier_hz)
    site = Site(
        name=name,
        frontend=frontend,
        controller=controller,
        plan=command.plan,
        power_w=np.full((slots, subcarriers), spec.transmit_power_w / subcarriers),
        digital=np.broadcast_to(one_stream(spec), (slots, chains, 1)).copy(),
        transmit=nothing["transmit"],
        receive=nothing["receive"],
    )
    latch(site, command.beams, -numerology.subframe_ns)
    return site


def unloaded(half: str, spec: HalfSpec) -> BeamReport:
    """The report of a beam memory without a row."""
    chains, elements = spec.network.wired.shape
    settings = np.zeros((0, chains, elements))
    empty = Beam(
        half=half,
        slot=np.zeros(0, np.int64),
        delay_s=np.zeros((0, chains, spec.network.lines)),
        phase_rad=settings,
        amplitude=settings,
    )
    return BeamReport(setpoint=empty, readback=empty, accepted_ns=0, effective_ns=0, clipped=0, uncertainty_ns=0)


def latch(site: Site, beams: BeamsCommand | None, at_ns: int) -> list[tuple[str, BeamReport]]:
    """Hand both halves' rows to the machine, and keep what it says it took."""
    reports = []
    for half in ("transmit", "receive"):
        if beams is None or not len(getattr(beams, f"{half}_slot")):
            continue
        slot, delay_s, phase_rad, amplitude = (getattr(beams, f"{half}_{name}") for name in ROW)
        report = site.frontend.set_beam(
            Beam(half=half, slot=slot, delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude), at_ns
        )
        setattr(site, half, merged(getattr(site, half), report))
        reports.append((half, report))
    return reports


def in_turn(
    site: Site, beams: BeamsCommand | None, plans: tuple[Plan, Plan], now_ns: int, next_ns: int
) -> list[tuple[str, BeamReport]]:
    """Latch what needs no design now, and data beams as each one's design is done: those due before ``next_ns``, at their own instants."""
    if beams is not None and site.control_latency_ns:
        data = np.isin(beams.transmit_slot, np.concatenate([plan.slot for plan in plans]))
        if data.any():
            site.waiting.append((now_ns + site.control_latency_ns, sent_rows(beams, data)))
        beams = sent_rows(beams, ~data, heard=True)
    reports = latch(site, beams, now_ns)
    while site.waiting and site.waiting[0][0] < next_ns:
        due_ns, rows = site.waiting.pop(0)
        reports += latch(site, rows, due_ns)
    return reports


def sent_rows(beams: BeamsCommand, keep: Bool[Array, " row"], heard: bool = False) -> BeamsCommand:
    """Some of the transmit rows, and all of the receive rows or none."""
    sent = {name: getattr(beams, f"transmit_{name}")[keep] for name in ROW}
    back = {name: getattr(beams, f"receive_{name}")[slice(None) if heard else slice(0)] for name in ROW}
    return replace(
        beams,
        **{f"transmit_{name}": value for name, value in sent.items()},
        **{f"receive_{name}": value for name, value in back.items()},
    )


def serve(
    site: Site,
    air: Air,
    plan: Plan,
    baseband: BasebandCommand | None,
    users: Int[Array, " user"],
    down: Paths,
    block_ns: Int[Array, " block"],
    first: int,
    last: int,
    blocks: Blocks,
) -> Blocks:
    """The data blocks ``first .. last-1``: the drawn channel through the beam really in force, a row for each block with a served user."""
    numerology = air.numerology
    block = np.arange(max(first, plan.sensing_blocks), last)
    block = block[(plan.slot[block] >= 0) & plan.served[block].any(axis=1)]
    if not block.size or not len(users):
        return blocks
    update = (
        np.searchsorted(plan.update_block, block, side="right") - 1
    )  # the pilots a block's baseband rests on; -1: last subframe's
    power, digital = site.power_w[plan.slot[block]].copy(), site.digital[plan.slot[block]].copy()
    if baseband is not None:
        digital = widened(digital, baseband.digital.shape[-1])
        where = np.searchsorted(baseband.slot, plan.slot[block])
        known = (
            (update >= 0)
            & (where < len(baseband.slot))
            & (baseband.slot[np.minimum(where, len(baseband.slot) - 1)] == plan.slot[block])
        )
        power[known] = baseband.power_w[update[known], where[known]]
        digital[known] = widened(baseband.digital, digital.shape[-1])[update[known], where[known]]
    drive = Drive(
        t_ns=block_ns[block],
        slot=plan.slot[block],
        frequency_hz=numerology.subcarrier_hz,
        power_w=power,
        digital=digital,
    )
    emission = site.frontend.emit(drive)
    site.sent.append(emission)
    if air.listening_ns:
        in_force_ns = max(site.transmit.effective_ns, site.receive.effective_ns)
        parts = site.frontend, air.world, air.channel, air.draws, numerology, plan, emission, block
        site.overheard += overhear(*parts, in_force_ns, air.listening_ns)
    column = np.flatnonzero((plan.user[:, None] == users).any(axis=1))
    event, who = np.nonzero(plan.served[block][:, column])
    sink = plan.user[column][who]
    # who is served at once with others has the stream of its rank among all that the plan serves at all
    stream = np.cumsum(plan.served.any(axis=0))[column][who] - 1 if plan.baseband is not None else np.zeros_like(who)
    array = site.frontend.spec.transmit.array
    wanted = np.equal.outer(np.arange(len(emission.response)), emission.row[event]) @ np.equal.outer(sink, down.sink)
    gains = beam_gains(down, array, emission.response, numerology.subcarrier_hz, end="departure", wanted=wanted)
    channel = wideband(
        down, gains, numerology.subcarrier_hz, emission.row[event], block[event], sink
    )  # [event, subcarrier, chain]
    if air.link is not None:
        blocks = with_carried(
            blocks,
            air.link.carried(
                numerology,
                down,
                gains,
                row=emission.row[event],
                block=block[event],
                sink=sink,
                emission=emission,
                event=event,
                stream=stream,
                channel=channel,
                draws=air.draws,
            ),
            block[event],
            np.searchsorted(users, sink),
        )
    opens = (block[event, None] == plan.update_block).any(axis=1)
    data_share = np.where(opens, 1.0 - numerology.pilot_ns / numerology.block_ns, 1.0)
    blocks = with_served(
        blocks,
        block=block[event],
        column=np.searchsorted(users, sink),
        channel=channel,
        digital=emission.drive.digital[event],
        power_w=emission.drive.power_w[event],
        matched_gain=matched_gain(down, array, block[event], sink),
        data_share=data_share,
        spacing_hz=numerology.subcarrier_spacing_hz,
        noise_w=numerology.user_noise_w,
        distortion=None if emission.distortion is None else emission.distortion[event],
        stream=stream,
    )
    if not air.antennas:
        return blocks
    streams = np.arange(emission.drive.digital.shape[-1])
    return with_received(
        blocks,
        air.antennas,
        down,
        gains,
        emission,
        block=block[event],
        event=event,
        sink=sink,
        column=np.searchsorted(users, sink),
        own=(streams == stream[:, None]) | (plan.baseband is None),
        data_share=data_share,
        spacing_hz=numerology.subcarrier_spacing_hz,
        noise_w=numerology.user_noise_w,
    )


def matched_gain(
    down: Paths, array: AntennaArray, block: Int[Array, " event"], sink: Int[Array, " event"]
) -> Float[Array, " event"]:
    """Power gain a beam matched to every path of a user would have: elements x element pattern x the sum of path powers."""
    pattern = element_amplitude(array, down.departure_m / np.linalg.norm(down.departure_m, axis=1, keepdims=True))
    power = (np.abs(down.gain) * pattern) ** 2
    return np.asarray(len(array.position_m) * np.sum(power[block] * (down.sink == sink[:, None]), axis=1))


def keep(site: Site, baseband: BasebandCommand | None) -> None:
    """The last update's baseband stays in force until the next subframe's first pilots."""
    if baseband is not None:
        site.power_w[baseband.slot] = baseband.power_w[-1]
        site.digital = widened(site.digital, baseband.digital.shape[-1])
        site.digital[baseband.slot] = widened(baseband.digital[-1], site.digital.shape[-1])


def widened(digital: Complex[Array, "... chain stream"], streams: int) -> Complex[Array, "... chain more"]:
    """Weights with at least so many streams: the added ones are silent."""
    more = streams - digital.shape[-1]
    return digital if more <= 0 else np.concatenate([digital, np.zeros((*digital.shape[:-1], more))], axis=-1)


def merged(old: BeamReport, new: BeamReport) -> BeamReport:
    """The whole memory as the machine last reported it: the rows of ``new`` over those of ``old``."""
    return replace(
        new,
        setpoint=overlaid(old.setpoint, new.setpoint),
        # a machine that did not answer for a while is believed to have taken what it was given
        readback=None
        if new.readback is None
        else overlaid(old.setpoint if old.readback is None else old.readback, new.readback),
    )


def overlaid(old: Beam, new: Beam) -> Beam:
    """Rows of ``new`` replace those of ``old`` with the same slot; slots ascend."""
    slot = np.array(sorted({*old.slot.tolist(), *new.slot.tolist()}), dtype=np.int64)
    was, now = np.searchsorted(slot, old.slot), np.searchsorted(slot, new.slot)
    both = {}
    for name in ("delay_s", "phase_rad", "amplitude"):
        kept, given = getattr(old, name), getattr(new, name)
        both[name] = kept.copy() if len(slot) == len(kept) else np.empty((len(slot), *given.shape[1:]))
        if len(slot) > len(kept):
            both[name][was] = kept
        both[name][now] = given
    return Beam(half=new.half, slot=slot, **both)


def joined(records: list[Any], *names: str) -> Any:
    """Records of one kind as one, event after event along the named fields; None for none."""
    if not records:
        return None
    columns = {name: [getattr(r, name) for r in records] for name in names}
    return replace(
        records[0], **{name: None if column[0] is None else np.concatenate(column) for name, column in columns.items()}
    )
