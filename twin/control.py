"""The second edge: what a controller is, and the chain that is built in.

A controller holds the Belief; all it may know comes in as observations, all it may do goes out as commands. The built-in chain perceives
(sense, track, estimate) and acts (plan, precode); the truth is nowhere in reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hal.frontend import BeamReport, FrontendSpec
from hal.network import response
from hal.record import Array, Complex, Float, Int
from twin.binding import bind
from twin.engine import Ledger
from twin.estimation import Estimator
from twin.planning import Planner
from twin.precoding import Precoder
from twin.records import BasebandCommand, Belief, Command, EchoObservation, Numerology, PilotObservation, Plan
from twin.sensing import Detector
from twin.tracking import Tracker

__all__ = ["Chain", "Controller"]


class Controller(Protocol):
    """Two calls a subframe, and a belief to look at."""

    belief: Belief

    def first(self) -> Command:
        """Before the first subframe: a plan to start with and beams to search with."""

    def steer(self, echo: EchoObservation) -> Command:
        """After the sensing phase: beams now, and the plan of the next subframe."""

    def precode(self, pilots: PilotObservation) -> Command:
        """After pilots: baseband on a causal update axis; pilot m changes no earlier block."""
