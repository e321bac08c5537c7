"""The second edge of the loop, open to others: knobs set by controllers in processes of their own, the rest by the built-in chain.

The built-in chain always perceives, so there is one Belief whoever steers. With no controller the seam is the chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from hal import wire
from hal.errors import Misuse
from hal.frontend import BeamReport
from hal.record import Array, Int
from twin.admission import admit_baseband, admit_beams, admit_plan
from twin.control import Chain
from twin.outside import Act, Applied, Commanded, Event, Loaded, Moment, Steering
from twin.records import BeamsCommand, Belief, Command, EchoObservation, PilotObservation, Plan, Truth
from twin.seats import Seat, Seats

__all__ = ["Seam"]

BUILT_IN, HELD = "built-in", "held"
MISSED = object()


class Seam:
    """A controller (``twin.control.Controller``) that asks those outside and falls back on ``chain``.

    ``known`` are all users there can be; ``truth`` is for oracles. A knob whose owner did not answer, or answered what cannot be taken, is
    set as ``Outside.on_miss`` says; a knob left out of an answer stays as it is. What the chain cannot do after what others did, it
    leaves, and an event says so.
    """

    def __init__(self, chain: Chain, seats: Seats, known: Int[Array, " user"], truth: Callable[[int], Truth]) -> None:
        self.chain, self.seats, self._known, self._truth = chain, seats, known, truth
        self._by = dict.fromkeys(("plan", "beams", "baseband"), BUILT_IN)
        self._foreign = False  # someone outside has set something in this run
        self._acts: list[tuple[str, Act]] = []
        self._pilots_ns = -1

    @property
    def belief(self) -> Belief:
        """What the control plane knows."""
        return self.chain.belief

    def first(self) -> Command:
        """The built-in chain's: whoever steers later, all begin alike."""
        return self.chain.first()

    def steer(self, echo: EchoObservation) -> Command:
        """Perceive; then ask for the knobs ``plan`` and ``beams``, in the declared order."""
        chain, seats = self.chain, self.seats
        if not (seats.seats or self._foreign):
            return chain.steer(echo)
        self._contained("perceive", lambda: chain.perceive(echo))
        self._by, self._pilots_ns = dict.fromkeys(self._by, BUILT_IN), -1
        owned = {knob for knob in ("plan", "beams") if seats.holder(knob) is not None}
        own, decided = _Own(chain, echo), dict[str, Any]()
        if "plan" not in owned:
            decided["plan"] = self._built_in("plan", own.plan, echo.k + 1)
        for group in seats.groups("steer"):
            likely = partial(own.beams, decided)
            self._ask(group, echo, "steer", 0, Command(**decided), {"plan": own.plan, "beams": likely})
            for seat in group:
                for knob in owned & seat.knobs:
                    given = self._given(seat, knob, echo, 0)
                    if given is not MISSED:
                        decided[knob] = given
                    elif knob == "plan":
                        decided["plan"] = self._fallen("plan", own.plan, echo.k + 1)
        if "beams" not in decided:
            settle = self._fallen if "beams" in owned else self._built_in
            decided["beams"] = settle("beams", partial(own.beams, decided), echo.k + 1)
        self._playable(own, decided, echo)
        return Command(plan=own.played(decided), beams=decided["beams"])

    def precode(self, pilots: PilotObservation) -> Command:
        """Estimate; then ask for the knob ``baseband``."""
        chain, seats = self.chain, self.seats
        if not (seats.seats or self._foreign):
            return chain.precode(pilots)
        self._contained("estimate", lambda: chain.estimate(pilots))
        updates, baseband = len(pilots.update_ns), None
        self._pilots_ns = int(pilots.update_ns[0])
        owner = seats.holder("baseband")
        if owner is None:
            baseband = self._built_in("baseband", lambda: chain.baseband(updates), pilots.k + 1, updates)
        else:
            self._ask([owner], pilots, "precode", updates, Command(), {"baseband": lambda: chain.baseband(updates)})
            baseband = self._given(owner, "baseband", pilots, updates)
            if baseband is MISSED:
                baseband = self._fallen("baseband", lambda: chain.baseband(updates), pilots.k + 1, updates)
        self._contained("foresee", lambda: chain.foresee(pilots, baseband))
        return Command(baseband=baseband)

    def turn(
        self, k: int, t_ns: int, reports: list[tuple[str, BeamReport]]
    ) -> tuple[Steering | None, list[Event], list[Commanded]]:
        """End subframe ``k``: tell the controllers what became of their knobs; return what there is to publish, nothing if nobody came."""
        seats = self.seats
        events = seats.said(t_ns)
        if not seats.came:
            return None, events, []
        halves = dict(reports)
        names = ("readback", "accepted_ns", "effective_ns", "clipped", "uncertainty_ns", "fault")
        loaded = {half: Loaded(**{name: getattr(halves[half], name) for name in names}) for half in halves}
        applied = Applied(
            k=k,
            t_ns=t_ns,
            by=self._by,
            plan_ns=t_ns + self.chain.numerology.subframe_ns,
            baseband_ns=self._pilots_ns,
            transmit=loaded.get("transmit"),
            receive=loaded.get("receive"),
        )
        seats.tell("applied", k, wire.encode(applied))
        counts = seats.counts
        steering = Steering(
            k=k,
            t_ns=t_ns,
            plan=self._by["plan"],
            beams=self._by["beams"],
            baseband=self._by["baseband"],
            controllers=len(seats.seats),
            answered=counts["answered"],
            missed=counts["missed"],
            late=counts["late"],
            duplicate=counts["duplicate"],
            refused=counts["refused"],
            dropped=counts["dropped"],
            wait_ns=seats.wait_ns,
        )
        commanded = [Commanded(k=k, t_ns=t_ns, who=who, act=act) for who, act in self._acts]
        self._acts = []
        seats.turn()
        return steering, events, commanded

    def _ask(
        self,
        group: list[Seat],
        seen: EchoObservation | PilotObservation,
        point: str,
        updates: int,
        decided: Command,
        own: dict[str, Callable[[], Any]],
    ) -> None:
        made: dict[tuple[frozenset[str], frozenset[str]], bytes] = {}
        echo, pilots = (seen, None) if isinstance(seen, EchoObservation) else (None, seen)

        def say(seat: Seat, moment: int) -> bytes:
            wanted = frozenset(seat.claim.observe)
            proposed = seat.knobs.intersection(own if "proposal" in wanted else ())
            if (wanted, proposed) not in made:
                told = Moment(
                    moment=moment,
                    k=seen.k,
                    t_ns=seen.t_ns,
                    point=point,
                    plan=seen.plan,
                    user=seen.user,
                    updates=updates,
                    decided=decided,
                    belief=self.belief if "belief" in wanted else None,
                    proposal=self._proposal({knob: own[knob] for knob in proposed}) if "proposal" in wanted else None,
                    echo=echo if "echo" in wanted else None,
                    pilots=pilots if "pilots" in wanted else None,
                )
                made[wanted, proposed] = wire.encode(told)
            return made[wanted, proposed]

        with self.chain.stage("controllers"):
            self.seats.ask(group, say, lambda: wire.encode(self._truth(seen.t_ns)))

    def _playable(self, own: _Own, decided: dict[str, Any], echo: EchoObservation) -> None:
        """Hold the plan in force if the one decided elsewhere goes through rows that nobody has loaded."""
        plan, beams, author = own.played(decided), decided["beams"], self._by["plan"]
        if author in (BUILT_IN, HELD):
            return
        named = {
            "transmit": (plan.dwell_transmit_slot,),
            "receive": (plan.dwell_receive_slot, plan.pilot_receive_slot),
        }
        if plan.echo_slot is not None:
            named["receive"] += (plan.echo_slot,)
        for half, slots in named.items():
            loaded = getattr(echo, f"{half}_beam").setpoint.slot
            if beams is not None:
                loaded = np.concatenate([loaded, getattr(beams, f"{half}_slot")])
            wanted = np.unique(np.concatenate([slot.ravel() for slot in slots]))
            dark = wanted[(wanted >= 0) & ~np.isin(wanted, loaded)]
            if dark.size:
                self.seats.refuse_by_name(
                    author, f"plan: goes through {half} slots {dark.tolist()[:8]}, which nobody has loaded"
                )
                decided["plan"], self._by["plan"] = None, HELD
                return

    def _proposal(self, own: dict[str, Callable[[], Any]]) -> Command:
        """What the chain would do with some knobs; one that it cannot set is left out."""
        made: dict[str, Any] = {}
        for knob, make in own.items():
            self._contained(knob, partial(_put, made, knob, make))
        return Command(**made)

    def _given(self, seat: Seat, knob: str, seen: EchoObservation | PilotObservation, updates: int) -> Any:
        """What ``seat`` answered for ``knob``: a command, None for no change, or MISSED."""
        if seat.act is None:
            return MISSED
        given = getattr(seat.act, knob)
        if given is None:
            self._by[knob] = HELD
            return None
        try:
            self._admit(knob, given, seen.k + 1, updates)
        except Misuse as error:
            self.seats.refuse(seat, str(error))
            return MISSED
        if knob == "beams":
            self.chain.adopt(given)
        self._foreign, self._by[knob] = True, seat.claim.name
        if not any(act is seat.act for _, act in self._acts):
            self._acts.append((seat.claim.name, seat.act))
        return given

    def _admit(self, knob: str, given: Any, k: int, updates: int) -> None:
        """Raise Misuse for what must not reach the loop."""
        spec, numerology = self.chain.spec, self.chain.numerology
        if knob == "plan":
            admit_plan(given, k, spec, numerology, self._known)
        elif knob == "beams":
            admit_beams(given, spec)
        else:
            admit_baseband(given, updates, spec, numerology)

    def _fallen(self, knob: str, make: Callable[[], Any], k: int, updates: int = 0) -> Any:
        """A knob whose owner gave nothing, as the policy says."""
        if self.seats.rules.on_miss == "built_in":
            return self._built_in(knob, make, k, updates)
        self._by[knob] = HELD
        return None

    def _built_in(self, knob: str, make: Callable[[], Any], k: int, updates: int = 0) -> Any:
        """A knob of subframe ``k - 1`` set by the chain; held where it cannot be."""
        made: dict[str, Any] = {}

        def do() -> None:
            value = make()
            if self._foreign:  # what it remembers may be what others told it
                self._admit(knob, value, k, updates)
            made[knob] = value

        self._by[knob] = BUILT_IN if self._contained(knob, do) else HELD
        return made.get(knob)

    def _contained(self, what: str, do: Callable[[], None]) -> bool:
        """Let the chain do something after what others did; return whether it could. Before that an error is an error."""
        try:
            do()
        except Exception as error:
            if not self._foreign:
                raise
            self.seats.happened(
                "failed", BUILT_IN, f"cannot {what} after what others did: {type(error).__name__}: {error}"
            )
            return False
        return True


def _put(into: dict[str, Any], knob: str, make: Callable[[], Any]) -> None:
    into[knob] = make()


class _Own:
    """What the chain itself would do at ``steer``, made when first asked for and once: a design remembers the one before."""

    def __init__(self, chain: Chain, echo: EchoObservation) -> None:
        self._chain, self._echo = chain, echo
        self._plan: Plan | None = None
        self._beams: tuple[Plan, BeamsCommand] | None = None

    def plan(self) -> Plan:
        """Its plan."""
        if self._plan is None:
            self._plan = self._chain.plan(self._echo)
        return self._plan

    def played(self, decided: dict[str, Any]) -> Plan:
        """The plan of the next subframe: the one decided, the one in force where that is held, its own where nobody has decided yet."""
        if "plan" not in decided:
            return self.plan()
        plan: Plan | None = decided["plan"]
        if plan is None:  # made once, so that it is known again
            plan = decided["plan"] = replace(self._echo.plan, k=self._echo.k + 1)
        return plan

    def beams(self, decided: dict[str, Any]) -> BeamsCommand:
        """Its beams for that plan."""
        plan = self.played(decided)
        if self._beams is None or self._beams[0] is not plan:
            self._beams = plan, self._chain.point(self._echo, plan)
        return self._beams[1]
