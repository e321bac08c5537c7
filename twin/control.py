"""The second edge: what a controller is, and the chain that is built in.

A controller holds the Belief; all it may know comes in as observations, all it may do goes out as commands. The built-in chain perceives
(sense, track, estimate) and acts (plan, precode); the truth is nowhere in reach.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hal.array import LIGHT_MPS, direction_to, element_amplitude
from hal.chain import thermal_noise_w
from hal.frontend import FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float, Int
from twin.binding import bind
from twin.binding import start as nobody_bound
from twin.estimation import Estimator
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
    Tracks,
)
from twin.sensing import Detector
from twin.tracking import Tracker

__all__ = ["Chain", "Controller", "Parts"]

MOST_TARGETS = 4  # that a data row is asked to light beside its user


class Controller(Protocol):
    """Two calls a subframe, and a belief to look at."""

    belief: Belief

    def first(self) -> Command:
        """Before the first subframe: a plan to start with and beams to search with."""

    def steer(self, echo: EchoObservation) -> Command:
        """After the sensing phase: beams now, and the plan of the next subframe."""

    def precode(self, pilots: PilotObservation) -> Command:
        """After pilots: baseband on a causal update axis; pilot m changes no earlier block.

        Called again with more pilots of the same subframe it starts from what it believed before the first of them.
        """


@dataclass(frozen=True)
class Parts:
    """The choices a scenario makes for the built-in chain."""

    detector: Detector
    tracker: Tracker
    estimator: Estimator
    planner: Planner
    precoder: Precoder


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
        self._designs: dict[
            int, tuple[int, Design, int]
        ] = {}  # of each data slot: its user, the last design and the row of it

    def first(self) -> Command:
        """A plan from nothing known, and every beam it may need."""
        planner = self.parts.planner
        plan = planner.plan(0, self.belief, np.zeros(0, np.int64), self.spec, self.numerology, None)
        wanted = join(planner.raster_requests(self.spec), planner.dwell_requests(plan, self.belief, self.spec))
        return Command(plan=plan, beams=self._beams(wanted))

    def steer(self, echo: EchoObservation) -> Command:
        """Look at the echoes, update the tracks, plan the next subframe and point the beams that both subframes need."""
        parts, stage, now_ns = self.parts, self.stage, echo.t_ns + echo.plan.sensing_ns
        with stage("sensing"):
            predicted = parts.tracker.predict(self.belief.tracks, echo.t_ns)
            detections = parts.detector.detect(echo, predicted) if echo.detections is None else echo.detections
        with stage("tracking"):
            tracks = parts.tracker.predict(parts.tracker.update(self.belief.tracks, detections, echo), now_ns)
        self.belief = replace(self.belief, t_ns=now_ns, detections=detections, tracks=tracks)
        with stage("planning"):
            plan = parts.planner.plan(echo.k + 1, self.belief, echo.user, self.spec, self.numerology, echo.plan)
        with stage("precoding"):
            next_ns = echo.t_ns + self.numerology.subframe_ns
            data = parts.planner.data_requests(plan, self.belief, self.spec, (now_ns + next_ns) // 2)
            dwells = parts.planner.dwell_requests(plan, self.belief, self.spec, next_ns)
            beams = self._beams(join(data, dwells), data_rows=len(data.transmit_slot))
        self._before_pilots, self._bindings_before = self.belief, self._bindings
        return Command(plan=plan, beams=beams)

    def precode(self, pilots: PilotObservation) -> Command:
        """Estimate every user's channel, bind users to tracks, and set power over subcarriers."""
        parts, before = self.parts, self._before_pilots
        channel = parts.estimator.estimate(pilots, before.tracks, before.channel)
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
        baseband = self._baseband(pilots)
        self.belief = replace(
            before,
            t_ns=channel.t_ns,
            tracks=tracks,
            channel=channel,
            predicted_bps=self._predicted(pilots, channel, baseband),
            swaps=self._bindings.swaps,
            rebindings=self._bindings.rebindings,
        )
        return Command(baseband=baseband)

    def _beams(self, wanted: Requests, data_rows: int = 0) -> BeamsCommand:
        """Machine settings for rows of both halves' beam memory; the first ``data_rows`` carry data and may light targets too."""
        design = self._designed(wanted, data_rows)
        self._power_w.update(zip(wanted.transmit_slot.tolist(), design.power_w, strict=True))
        heard = steer(self.spec.receive, wanted.receive_direction, self.spec.carrier_hz)
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

    def _baseband(self, pilots: PilotObservation) -> BasebandCommand:
        """Power over subcarriers of every slot in use, the same at each update: one stream leaves the rest to the analog beam."""
        slot = np.array(sorted(self._power_w), dtype=np.int64)
        updates, chains = len(pilots.update_ns), len(self.spec.transmit.network.wired)
        power = np.stack([self._power_w[s] for s in slot.tolist()])
        weights = one_stream(self.spec)
        return BasebandCommand(
            slot=slot,
            digital=np.broadcast_to(weights, (updates, len(slot), chains, 1)),
            power_w=np.broadcast_to(power, (updates, *power.shape)),
        )

    def _predicted(
        self, pilots: PilotObservation, estimate: ChannelEstimate, baseband: BasebandCommand
    ) -> Float[Array, " user"]:
        """Rate a user over the subframe, if the channel is what it is believed to be and the beam what was read back."""
        channel = self.parts.estimator.channel(estimate, pilots)
        plan, numerology = pilots.plan, self.numerology
        beam = pilots.transmit_beam.setpoint if pilots.transmit_beam.readback is None else pilots.transmit_beam.readback
        rate = np.zeros(len(pilots.user))
        for i, user in enumerate(pilots.user):
            block = np.flatnonzero(plan.served[:, plan.user == user].any(axis=1))
            row = np.flatnonzero(beam.slot == plan.slot[block[0]]) if block.size else block
            if not row.size:
                continue
            sent = response(
                self.spec.transmit.network,
                beam.delay_s[row],
                beam.phase_rad[row],
                beam.amplitude[row],
                numerology.subcarrier_hz,
            )[0]
            at = np.searchsorted(baseband.slot, plan.slot[block[0]])
            heard = np.einsum("me,mec,c->m", channel[i], sent, baseband.digital[-1, at, :, 0])
            size = np.abs(estimate.gain[i]) ** 2
            known = size > 0  # what is not known of a gain has power too
            power = np.abs(heard) ** 2 * np.where(
                known, 1 + estimate.gain_variance[i] / np.where(known, size, 1.0), 1.0
            )
            bits = np.log2(1 + power * baseband.power_w[-1, at] / numerology.user_noise_w).sum()
            share = (
                block.size * numerology.block_ns - np.isin(block, plan.update_block).sum() * numerology.pilot_ns
            ) / numerology.subframe_ns
            rate[i] = bits * numerology.subcarrier_spacing_hz * share
        return rate


def one_stream(spec: FrontendSpec) -> Complex[Array, "chain 1"]:
    """Baseband weights of one stream that keep the radiated power: equal on chains of disjoint elements, the first of chains that share them."""
    wired = spec.transmit.network.wired
    shared = bool((wired.sum(axis=0) > 1).any())
    weights = np.zeros((len(wired), 1), dtype=np.complex128)
    weights[: 1 if shared else len(wired)] = 1.0 if shared else len(wired) ** -0.5
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
    for row in range(data_rows if most else 0):
        able = np.flatnonzero((away[:, 0] > 0) & ((tracks.user[seen] != user[row]) | (user[row] < 0)))
        nearest = able[np.argsort(-(away[able] @ direction[row]), kind="stable")[:most]]
        found[row, : len(nearest)], gain[row, : len(nearest)] = away[nearest], size[nearest]
    return found, gain


def no_detections() -> Detections:
    """Nothing found."""
    none = np.zeros(0, np.int64)
    return Detections(t_ns=none, dwell=none, value=np.zeros((0, 4)), covariance=np.zeros((0, 4, 4)), snr_db=np.zeros(0))
