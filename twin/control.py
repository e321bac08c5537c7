"""The second edge: what a controller is, and the chain that is built in.

A controller holds the Belief; all it may know comes in as observations, all it may do goes out as commands. The built-in chain perceives
(sense, track, estimate) and acts (plan, precode); the truth is nowhere in reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hal.array import element_amplitude, steering
from hal.frontend import BeamReport, FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float, Int
from twin.binding import Bindings, bind
from twin.binding import start as nobody_bound
from twin.engine import Ledger
from twin.estimation import Estimator
from twin.planning import Planner
from twin.precoding import Design, Precoder, Problem
from twin.precoding.delay_phase import steer
from twin.records import BasebandCommand, BeamsCommand, Belief, Command, Detections, EchoObservation, Numerology, PilotObservation, Plan
from twin.sensing import Detector
from twin.tracking import Tracker

__all__ = ["Chain", "Controller", "Parts"]


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

    def __init__(self, parts: Parts, spec: FrontendSpec, numerology: Numerology, ledger: Ledger) -> None:
        self.parts, self.spec, self.numerology, self.ledger = parts, spec, numerology, ledger
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

    def first(self) -> Command:
        """A plan from nothing known, and every beam it may need."""
        plan = self.parts.planner.plan(0, self.belief, np.zeros(0, np.int64), self.spec, self.numerology, None)
        return Command(plan=plan, beams=self._beams(plan, None))

    def steer(self, echo: EchoObservation) -> Command:
        """Look at the echoes, update the tracks, plan the next subframe and point the beams that both subframes need."""
        parts, stage, now_ns = self.parts, self.ledger.stage, echo.t_ns + echo.plan.sensing_ns
        with stage("sensing"):
            predicted = parts.tracker.predict(self.belief.tracks, echo.t_ns)
            detections = parts.detector.detect(echo, predicted) if echo.detections is None else echo.detections
        with stage("tracking"):
            tracks = parts.tracker.predict(parts.tracker.update(self.belief.tracks, detections, echo), now_ns)
        self.belief = replace(self.belief, t_ns=now_ns, detections=detections, tracks=tracks)
        with stage("planning"):
            plan = parts.planner.plan(echo.k + 1, self.belief, echo.user, self.spec, self.numerology, echo.plan)
        with stage("precoding"):
            beams = self._beams(plan, echo.plan)
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
                tracks, channel.user, channel.pilot_state[:, :2], channel.pilot_covariance[:, :2, :2], array, self._bindings_before
            )
        baseband = self._baseband(pilots)
        self.belief = replace(
            before,
            t_ns=channel.t_ns,
            tracks=tracks,
            channel=channel,
            predicted_bps=self._predicted(pilots, parts.estimator.channel(channel, pilots), baseband),
            swaps=self._bindings.swaps,
            rebindings=self._bindings.rebindings,
        )
        return Command(baseband=baseband)
