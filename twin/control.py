"""The second edge: what a controller is, and the chain that is built in.

A controller holds the Belief; all it may know comes in as observations, all it may do goes out as commands. The built-in chain perceives
(sense, track, estimate) and acts (plan, precode); the truth is nowhere in reach.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from hal.array import LIGHT_MPS, direction_to, element_amplitude
from hal.chain import thermal_noise_w
from hal.errors import Misuse
from hal.frontend import BeamReport, FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float, Int
from twin.binding import bind
from twin.binding import start as nobody_bound
from twin.combining import Combiner
from twin.combining.squinted import Squinted
from twin.data_echoes import DataEchoes
from twin.estimation import Estimator
from twin.estimation.ring import Ring, Vectors
from twin.physics.held import in_force
from twin.planning import Planner, Requests
from twin.planning._rows import join
from twin.precoding import Design, Precoder, Problem
from twin.precoding.delay_phase import steer
from twin.records import (
    BasebandCommand,
    BeamsCommand,
    Belief,
    ChannelEstimate,
    Command,
    Detections,
    EchoObservation,
    Numerology,
    PilotObservation,
    Plan,
    Tracks,
)
from twin.sensing import Detector
from twin.spatial import believed_bps, reciprocal, shared_directions, stream_bits, stream_weights
from twin.tracking import Tracker

__all__ = ["Chain", "Controller", "Occasion", "Parts"]

MOST_TARGETS = 4  # that a data row is asked to light beside its user


class Controller(Protocol):
    """Two calls a subframe, and a belief to look at."""

    @property
    def belief(self) -> Belief:
        """All that is known now."""

    def first(self) -> Command:
        """Before the first subframe: a plan to start with and beams to search with."""

    def steer(self, echo: EchoObservation) -> Command:
        """After the sensing phase: beams now, and the plan of the next subframe."""

    def precode(self, pilots: PilotObservation) -> Command:
        """After pilots: baseband on a causal update axis; pilot m changes no earlier block.

        Called again with more pilots of the same subframe it starts from what it believed before the first of them.
        """


class Occasion(Protocol):
    """What a decision at ``steer`` rests on beside the belief: of an observation, or of what a controller elsewhere is told."""

    @property
    def k(self) -> int:
        """The subframe."""

    @property
    def t_ns(self) -> int:
        """Its start."""

    @property
    def user(self) -> Int[Array, " user"]:
        """Users attached now."""

    @property
    def plan(self) -> Plan:
        """The plan it is played by."""


@dataclass(frozen=True)
class Parts:
    """The choices a scenario makes for the built-in chain."""

    detector: Detector
    tracker: Tracker
    estimator: Estimator
    planner: Planner
    precoder: Precoder
    combiner: Combiner = field(default_factory=Squinted)  # of echoes
    control_latency_ns: int = 0  # from a data beam's design to its command: its power waits as long
    data_echoes: DataEchoes = field(default_factory=DataEchoes)  # which data blocks are listened to


class Chain:
    """The built-in controller: sense -> track -> plan -> precode at ``steer``, estimate -> bind -> baseband at ``precode``."""

    def __init__(
        self,
        parts: Parts,
        spec: FrontendSpec,
        numerology: Numerology,
        stage: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext(),
    ) -> None:
        self.parts, self.spec, self.numerology, self.stage = parts, spec, numerology, stage
        self.belief = Belief(
            t_ns=0,
            detections=no_detections(),
            tracks=parts.tracker.start(),
            channel=parts.estimator.start(),
            predicted_bps=np.zeros(0),
            swaps=0,
            rebindings=0,
        )
        self._before_pilots = self.belief
        self._bindings = self._bindings_before = nobody_bound()
        self._power_w: dict[int, Float[Array, " subcarrier"]] = {}  # of each transmit slot, as last designed
        # of data beams whose design is not done yet: when it will be, and the power of each slot
        self._powers_due: list[tuple[int, dict[int, Float[Array, " subcarrier"]]]] = []
        self._designs: dict[
            int, tuple[int, Design, int]
        ] = {}  # of each data slot: its user, the last design and the row of it
        # of each transmit slot: weights and power over subcarriers, as last set
        self._baseband: dict[int, tuple[Complex[Array, " chain"], Float[Array, " subcarrier"]]] = {}
        self._streams: tuple[Vectors, PilotObservation] | None = None  # of a subframe that serves several users at once
        self._sent: BeamReport | None = None  # the transmit memory as last reported

    @property
    def _planned(self) -> FrontendSpec:
        """The machine as the planner may use it: less what listening to data blocks takes."""
        return self.parts.data_echoes.less(self.spec)

    def first(self) -> Command:
        """A plan from nothing known, and every beam it may need."""
        planner, spec = self.parts.planner, self._planned
        plan = planner.plan(0, self.belief, np.zeros(0, np.int64), spec, self.numerology, None)
        wanted = join(planner.raster_requests(spec), planner.dwell_requests(plan, self.belief, spec))
        return Command(plan=plan, beams=self._beams(wanted))

    def steer(self, echo: EchoObservation) -> Command:
        """Look at the echoes, update the tracks, plan the next subframe and point the beams that both subframes need."""
        self.perceive(echo)
        plan = self.plan(echo)
        return Command(plan=plan, beams=self.point(echo, plan))

    def precode(self, pilots: PilotObservation) -> Command:
        """Estimate every user's channel, bind users to tracks, and set power over subcarriers."""
        self.estimate(pilots)
        baseband = self.baseband(len(pilots.update_ns))
        self.foresee(pilots, baseband)
        return Command(baseband=baseband)

    def perceive(self, echo: EchoObservation) -> None:
        """The first half of ``steer``: the belief after the echoes."""
        parts, stage, now_ns = self.parts, self.stage, echo.t_ns + echo.plan.sensing_ns
        before, refined = self.belief.tracks, None
        if echo.blocks is not None:
            with stage("data_echoes"):
                before, refined = parts.data_echoes.refined(echo, before, parts.tracker)
        with stage("sensing"):
            predicted = parts.tracker.predict(before, echo.t_ns)
            detections = parts.detector.detect(echo, predicted) if echo.detections is None else echo.detections
        with stage("tracking"):
            tracks = parts.tracker.predict(parts.tracker.update(before, detections, echo), now_ns)
        self.belief = replace(self.belief, t_ns=now_ns, detections=detections, tracks=tracks, refined=refined)
        self._sent = echo.transmit_beam
        self._before_pilots, self._bindings_before = self.belief, self._bindings

    def plan(self, now: Occasion) -> Plan:
        """The knob ``plan``, from what is believed."""
        with self.stage("planning"):
            plan = self.parts.planner.plan(now.k + 1, self.belief, now.user, self._planned, self.numerology, now.plan)
            if self._sent is None:
                return plan
            after_ns, parts = now.t_ns + self.numerology.subframe_ns, self.parts
            return parts.data_echoes.listening(
                plan, self.belief.tracks, self._sent, self.spec, self.numerology, after_ns
            )

    def point(self, now: Occasion, plan: Plan) -> BeamsCommand:
        """The knob ``beams``: what is left of this subframe and the next one, played by ``plan``, need."""
        planner, now_ns = self.parts.planner, now.t_ns + now.plan.sensing_ns
        with self.stage("precoding"):
            next_ns = now.t_ns + self.numerology.subframe_ns
            data = planner.data_requests(plan, self.belief, self._planned, (now_ns + next_ns) // 2)
            rows = join(data, planner.dwell_requests(plan, self.belief, self._planned, next_ns))
            if plan.echo_slot is not None:
                middle_ns = next_ns + self.numerology.subframe_ns // 2
                rows = join(rows, self.parts.data_echoes.requests(plan, self.belief.tracks, self.spec, middle_ns))
            return self._beams(rows, len(data.transmit_slot), together=plan.baseband is not None)

    def estimate(self, pilots: PilotObservation) -> None:
        """The first half of ``precode``: the belief after the pilots; what rates it foresees is ``foresee``'s to say."""
        parts, before = self.parts, self._before_pilots
        channel = parts.estimator.estimate(pilots, before.tracks, before.channel)
        self._streams = None
        if pilots.plan.baseband is not None and pilots.plan.served.any():
            if not isinstance(parts.estimator, Ring):
                raise Misuse(
                    "planning.service = 'spatial': streams are weighed by whole channel vectors; set estimation: { kind: ring }"
                )
            reciprocal(self.spec)
            self._streams = parts.estimator.vectors(pilots, before.tracks, before.channel, channel), pilots
        tracks = parts.tracker.predict(before.tracks, channel.t_ns)
        if channel.pilot_state is not None and channel.pilot_covariance is not None:
            array = self.spec.receive.array
            tracks, self._bindings = bind(
                tracks,
                channel.user,
                channel.pilot_state[:, :2],
                channel.pilot_covariance[:, :2, :2],
                array,
                self._bindings_before,
            )
        self.belief = replace(
            before,
            t_ns=channel.t_ns,
            tracks=tracks,
            channel=channel,
            predicted_bps=np.zeros(len(channel.user)),
            swaps=self._bindings.swaps,
            rebindings=self._bindings.rebindings,
            short_db=self.belief.short_db,
        )

    def baseband(self, updates: int) -> BasebandCommand:
        """The knob ``baseband``: power over subcarriers of every slot in use, the same at each update.

        One stream leaves the rest to the analog beam; several, of users served at once, get weights at each update.
        """
        # one power a subframe: the one in force for most of it
        while (
            self._powers_due and self._powers_due[0][0] <= self._before_pilots.t_ns + self.numerology.subframe_ns // 2
        ):
            self._power_w.update(self._powers_due.pop(0)[1])
        slot = np.array(sorted(self._power_w), dtype=np.int64)
        power = np.stack([self._power_w[s] for s in slot.tolist()])
        weights = one_stream(self.spec)
        digital = np.broadcast_to(weights, (updates, len(slot), len(weights), 1))
        if self._streams is not None:
            vectors, pilots = self._streams
            streams = stream_weights(vectors, pilots, self.belief.channel)
            digital = np.concatenate([digital, np.zeros((*digital.shape[:3], streams.shape[2] - 1))], axis=3)
            digital[:, slot == self._shared(pilots.plan)] = streams[:, None]
        return BasebandCommand(
            slot=slot,
            digital=digital,
            power_w=np.broadcast_to(power, (updates, *power.shape)),
        )

    def _shared(self, plan: Plan) -> int:
        """The slot that users served at once share."""
        return int(plan.slot[plan.slot >= 0][0])

    def foresee(self, pilots: PilotObservation, baseband: BasebandCommand | None) -> None:
        """What rates the believed channel would bring with this baseband; None: with the one set before."""
        if baseband is not None:
            last = zip(baseband.digital[-1, :, :, 0], baseband.power_w[-1], strict=True)
            self._baseband.update(zip(baseband.slot.tolist(), last, strict=True))
        if self._streams is None or baseband is None:
            predicted = self._predicted(pilots, self.belief.channel)
        else:
            row = np.flatnonzero(baseband.slot == self._shared(pilots.plan))[0]
            streams, power_w = baseband.digital[:, row], baseband.power_w[-1, row]
            predicted = believed_bps(stream_bits(self._streams[0], pilots, streams, power_w), pilots)
        self.belief = replace(self.belief, predicted_bps=predicted)

    def adopt(self, beams: BeamsCommand) -> None:
        """Take note of rows that somebody else designed: their power is spread evenly, and the next design starts anew."""
        subcarriers = len(self.numerology.subcarrier_hz)
        for slot in beams.transmit_slot.tolist():
            self._power_w[slot] = np.full(subcarriers, self.spec.transmit_power_w / subcarriers)
            self._designs.pop(slot, None)

    def _beams(self, wanted: Requests, data_rows: int = 0, together: bool = False) -> BeamsCommand:
        """Machine settings for rows of both halves' beam memory; the first ``data_rows`` carry data and may light targets too.

        Data rows of users served at once are all the same: each chain at a user of its own.
        """
        design = self._designed(wanted, data_rows)
        if together and data_rows:
            row = steer(
                self.spec.transmit,
                shared_directions(self.spec, wanted.transmit_direction[:data_rows]),
                self.spec.carrier_hz,
            )
            subcarriers = len(self.numerology.subcarrier_hz)
            evenly = np.full((1, subcarriers), self.spec.transmit_power_w / subcarriers)
            shared: dict[str, Array] = {
                "delay_s": row.delay_s,
                "phase_rad": row.phase_rad,
                "amplitude": row.amplitude,
                "power_w": evenly,
            }
            rows: dict[str, Any] = {
                name: np.concatenate([np.repeat(one, data_rows, axis=0), getattr(design, name)[data_rows:]])
                for name, one in shared.items()
            }
            design = replace(design, **rows)
        powers = dict(zip(wanted.transmit_slot.tolist(), design.power_w, strict=True))
        if self.parts.control_latency_ns:
            late = {slot: powers.pop(slot) for slot in wanted.transmit_slot[:data_rows].tolist()}
            self._powers_due.append((self.belief.t_ns + self.parts.control_latency_ns, late))
        self._power_w.update(powers)
        heard = self.parts.combiner.settings(
            self.spec.receive, wanted.receive_direction, wanted.receive_centre, self.spec.carrier_hz
        )
        return BeamsCommand(
            transmit_slot=wanted.transmit_slot,
            transmit_delay_s=design.delay_s,
            transmit_phase_rad=design.phase_rad,
            transmit_amplitude=design.amplitude,
            receive_slot=wanted.receive_slot,
            receive_delay_s=heard.delay_s,
            receive_phase_rad=heard.phase_rad,
            receive_amplitude=heard.amplitude,
        )

    def _designed(self, wanted: Requests, data_rows: int) -> Design:
        """What the precoder makes of rows with these believed directions; a data row's targets are confirmed tracks that are not its user."""
        channel, subcarriers, spec = self.belief.channel, len(self.numerology.subcarrier_hz), self.spec
        direction, user, slots = wanted.transmit_direction, wanted.transmit_user, wanted.transmit_slot.tolist()
        gain = np.zeros((len(direction), subcarriers), dtype=np.complex128)
        known = np.flatnonzero(np.isin(user, channel.user))
        if known.size:
            gain[known] = channel.gain[np.searchsorted(channel.user, user[known])]
        lit = to_light(self.belief.tracks, direction, user, data_rows, spec, self.numerology)
        noise_w = thermal_noise_w(self.numerology.subcarrier_spacing_hz, spec.noise_figure_db)
        design = self.parts.precoder.design(
            Problem(
                half=spec.transmit,
                frequency_hz=self.numerology.subcarrier_hz,
                user_direction=direction,
                user_gain=gain,
                target_direction=lit[0],
                target_gain=np.broadcast_to(lit[1][..., None], (*lit[1].shape, subcarriers)).astype(np.complex128),
                power_w=spec.transmit_power_w,
                noise_w=self.numerology.user_noise_w,
                previous=self._previous(slots[:data_rows], user, len(direction)),
                receive=spec.receive.array,
                echo_noise_w=noise_w,
            )
        )
        self._designs.update((slot, (int(user[row]), design, row)) for row, slot in enumerate(slots[:data_rows]))
        told = np.zeros(0) if design.short_db is None else design.short_db[np.isfinite(design.short_db)]
        self.belief = replace(self.belief, short_db=float(np.mean(told)) if told.size else None)
        return design

    def _previous(self, slots: list[int], user: Int[Array, " row"], rows: int) -> Design | None:
        """The data rows as last designed for the same users, in today's order; rows without a past have no power."""
        past = {
            row: self._designs[slot][1:]
            for row, slot in enumerate(slots)
            if slot in self._designs and self._designs[slot][0] == user[row]
        }
        if not past:
            return None
        names = ("delay_s", "phase_rad", "amplitude", "power_w")
        one = next(iter(past.values()))[0]
        whole = {name: np.zeros((rows, *getattr(one, name).shape[1:])) for name in names}
        for row, (design, at) in past.items():
            for name in names:
                whole[name][row] = getattr(design, name)[at]
        return Design(**whole, steps=max(design.steps for design, _ in past.values()))

    def _predicted(self, pilots: PilotObservation, estimate: ChannelEstimate) -> Float[Array, " user"]:
        """Rate a user over the subframe, if the channel is what it is believed to be and the beam what was read back."""
        plan, numerology = pilots.plan, self.numerology
        beam = in_force(pilots.transmit_beam)
        subcarriers = len(numerology.subcarrier_hz)
        evenly = one_stream(self.spec)[:, 0], np.full(subcarriers, self.spec.transmit_power_w / subcarriers)
        rate = np.zeros(len(pilots.user))
        own = np.asarray(plan.user)[:, None] == pilots.user  # [column user]
        served = (plan.served @ own) & (plan.slot >= 0)[:, None]
        slot = plan.slot[served.argmax(axis=0)]  # of each user's first block
        held = beam.slot == slot[:, None]
        who = np.flatnonzero(served.any(axis=0) & held.any(axis=1))
        if not len(who):
            return rate
        row = held[who].argmax(axis=1)
        settings = beam.delay_s[row], beam.phase_rad[row], beam.amplitude[row]
        sent = response(self.spec.transmit.network, *settings, numerology.subcarrier_hz)
        digital, power_w = zip(*(self._baseband.get(int(s), evenly) for s in slot[who]), strict=True)
        heard = np.sum(self.parts.estimator.through(estimate, pilots, who, sent) * np.stack(digital)[:, None], axis=-1)
        size = np.abs(estimate.gain[who]) ** 2
        known = size > 0  # what is not known of a gain has power too
        more = np.where(known, 1 + estimate.gain_variance[who] / np.where(known, size, 1.0), 1.0)
        bits = np.log2(1 + np.abs(heard) ** 2 * more * np.stack(power_w) / numerology.user_noise_w).sum(axis=1)
        opening = served[plan.update_block][:, who].sum(axis=0)
        share = served[:, who].sum(axis=0) * numerology.block_ns - opening * numerology.pilot_ns
        rate[who] = bits * numerology.subcarrier_spacing_hz * share / numerology.subframe_ns
        return rate


@lru_cache(maxsize=16)
def one_stream(spec: FrontendSpec) -> Complex[Array, "chain 1"]:
    """Baseband weights of one stream that keep the radiated power: equal on chains of disjoint elements, the first of chains that share them."""
    wired = spec.transmit.network.wired
    shared = bool((wired.sum(axis=0) > 1).any())
    weights = np.zeros((len(wired), 1), dtype=np.complex128)
    weights[: 1 if shared else len(wired)] = 1.0 if shared else len(wired) ** -0.5
    weights.flags.writeable = False  # whoever asks gets these
    return weights


def to_light(
    tracks: Tracks,
    direction: Float[Array, "row 3"],
    user: Int[Array, " row"],
    data_rows: int,
    spec: FrontendSpec,
    numerology: Numerology,
) -> tuple[Float[Array, "row target 3"], Float[Array, "row target"]]:
    """Directions and two-way amplitudes (between unit-gain antennas) of what data rows may light: zero where a row has fewer.

    Confirmed tracks ahead of the array, the row's own user left out, the four nearest in direction. The amplitude is the one the track's mean echo strength
    stands for; where that is not kept, a square metre's at the track's range.
    """
    seen = np.flatnonzero(tracks.confirmed)
    away, range_m = direction_to(spec.transmit.array, tracks.state[seen, :3])
    if tracks.strength_db is None:
        size = LIGHT_MPS / spec.carrier_hz / ((4 * np.pi) ** 1.5 * range_m**2)
    else:
        samples = numerology.delay_bins * numerology.doppler_bins * numerology.frames_per_dwell
        noise_w = thermal_noise_w(numerology.sample_rate_hz, spec.noise_figure_db)
        pattern = element_amplitude(spec.transmit.array, away) * element_amplitude(spec.receive.array, away)
        size = np.sqrt(
            10 ** (tracks.strength_db[seen] / 10) * noise_w / (spec.transmit_power_w * samples)
        ) / np.maximum(pattern, 1e-6)
    most = min(MOST_TARGETS, len(seen)) if data_rows else 0
    found, gain = np.tile([1.0, 0.0, 0.0], (len(direction), most, 1)), np.zeros((len(direction), most))
    if most:
        whose = user[:data_rows, None]
        able = (away[:, 0] > 0) & ((tracks.user[seen] != whose) | (whose < 0))  # [row track]
        apart = np.where(able, -(direction[:data_rows] @ away.T), np.inf)
        nearest = np.argsort(apart, axis=1, kind="stable")[:, :most]
        row, place = np.nonzero(np.take_along_axis(able, nearest, axis=1))
        found[row, place], gain[row, place] = away[nearest[row, place]], size[nearest[row, place]]
    return found, gain


def no_detections() -> Detections:
    """Nothing found."""
    none = np.zeros(0, np.int64)
    return Detections(t_ns=none, dwell=none, value=np.zeros((0, 4)), covariance=np.zeros((0, 4, 4)), snr_db=np.zeros(0))
