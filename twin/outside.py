"""What passes between a running twin and a controller in a process of its own, and how patient the twin is with it. Data only.

A controller asks ``claim`` on the control socket and gets a ``Grant``. From then on the twin says ``observe`` (a ``Moment``) at each point
at which the controller has a knob, the controller says ``act`` (an ``Act``), and at the end of the subframe the twin says ``applied`` (an
``Applied``). ``refused`` and ``dropped`` are said with a sentence. ``bye`` hands the knobs back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from hal.check import Ge, Gt, In
from hal.frontend import Beam, FrontendSpec
from hal.record import Array, Int, record
from twin.records import (
    BasebandCommand,
    BeamsCommand,
    Belief,
    Command,
    EchoObservation,
    Numerology,
    PilotObservation,
    Plan,
)

__all__ = [
    "KNOBS",
    "OBSERVED",
    "Act",
    "Applied",
    "Claim",
    "Commanded",
    "Event",
    "Grant",
    "Loaded",
    "Moment",
    "Outside",
    "Steering",
]

KNOBS = {"plan": "steer", "beams": "steer", "baseband": "precode"}  # and the point of the subframe at which each is set
OBSERVED = ("belief", "proposal", "echo", "pilots", "truth")


@dataclass(frozen=True)
class Outside:
    """Controllers in processes of their own: who is waited for, how long, and what happens instead of an answer."""

    wait_for: tuple[str, ...] = ()  # controllers that must have claimed their knobs before the first subframe
    join_s: Annotated[float, In("s"), Gt(0)] = 60.0  # how long the run waits for them to come
    # what a knob does whose owner did not answer: what the built-in chain would, or nothing
    on_miss: Literal["built_in", "hold"] = "built_in"
    deadline_ns: Annotated[int, In("ms"), Gt(0)] = 1_000_000  # paced: wall time that an answer may take
    misses: Annotated[int, Ge(1)] = 20  # paced: so many in a row, and its owner loses the knob
    warn_s: Annotated[float, In("s"), Gt(0)] = 1.0  # lockstep: the blocker is named
    give_up_s: Annotated[float, In("s"), Gt(0)] = 10.0  # lockstep: it loses its knobs
    debug: bool = False  # nobody is late: for a controller in a debugger


@record
class Claim:
    """The question ``claim``: who wants to set what."""

    name: str
    knobs: tuple[str, ...]  # e.g. "bs0.plan"; the knobs of a site are plan, beams, baseband
    observe: tuple[str, ...] = (
        "belief",
    )  # what a moment carries: belief, proposal, echo, pilots; truth for the role oracle
    order: int = 0  # at one point lower orders are asked first, and later ones see what they decided
    role: str = "controller"  # or "oracle", which may ask for the truth
    debug: bool = False  # no time-out holds for this controller


@record
class Grant:
    """Its answer: what the controller holds now, and what it must know."""

    name: str
    knobs: tuple[str, ...]
    run: str  # names the run
    k: int  # first subframe it is asked in, at the earliest
    clock: str  # lockstep, or paced: then an answer later than ``deadline_ns`` is a miss
    deadline_ns: int
    on_miss: str
    spec: FrontendSpec
    numerology: Numerology
    users: dict[str, int]  # by name; everyone who ever takes part


@record
class Moment:
    """Said as ``observe``: what may be known at one point of a subframe. To be answered by an ``Act`` with its number."""

    moment: int  # its number
    k: int
    t_ns: int  # start of the subframe
    point: str  # steer: after the echoes; precode: after pilots
    plan: Plan  # by which this subframe is played
    user: Int[Array, " user"]  # users attached now
    updates: int  # precode: length of the update axis of a baseband
    decided: Command  # what lower orders, or the built-in chain, have settled at this point
    belief: Belief | None = None
    proposal: Command | None = None  # of the knobs it holds, what the built-in chain would do: to be amended
    echo: EchoObservation | None = None
    pilots: PilotObservation | None = None


@record
class Act:
    """Said as ``act``: what the controller's knobs are to be; a knob left out stays as it is."""

    moment: int
    plan: Plan | None = None
    beams: BeamsCommand | None = None
    baseband: BasebandCommand | None = None


@record
class Loaded:
    """What the machine took of one half's beams."""

    readback: Beam | None  # quantised and clipped; None: this machine cannot say
    accepted_ns: int
    effective_ns: int  # settled and in force from here on
    clipped: int  # settings out of range
    uncertainty_ns: int  # of effective_ns
    fault: str


@record
class Applied:
    """Said as ``applied`` at the end of a subframe, to everyone who holds a knob: what became of the knobs in it."""

    k: int
    t_ns: int
    by: dict[str, str]  # who set each knob: a controller's name, "built-in", or "held"
    plan_ns: int  # the plan decided in this subframe is played from here on
    baseband_ns: int  # the first pilots of the subframe, from which its baseband holds; -1: there were none
    transmit: Loaded | None  # None: no rows were loaded
    receive: Loaded | None


@record
class Steering:
    """Who held the knobs in one subframe, and how the controllers outside did so far. No part of the run hash."""

    k: int
    t_ns: int
    plan: str  # who set it: a controller's name, "built-in", or "held"
    beams: str
    baseband: str
    controllers: int  # that hold a knob
    answered: int
    missed: int  # paced: not answered in time
    late: int  # answers that came after that
    duplicate: int
    refused: int  # answers that were nonsense, or not theirs to give
    dropped: int  # controllers that lost their knobs: dead, silent, flooding
    wait_ns: int  # wall time the loop waited in this subframe


@record
class Event:
    """Something happened to a controller, or an admin did something. No part of the run hash."""

    t_ns: int
    what: str  # claimed, released, refused, waiting, missed, dropped, failed; paused, resumed, stepped, paced, injected, mended, set, stopped
    who: str
    why: str


@record
class Commanded:
    """What a controller outside decided, as it came: with the seed, all that a run under it depends on."""

    k: int
    t_ns: int
    who: str
    act: Act
