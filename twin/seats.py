"""Who holds which knob, and the asking: controllers in other processes claim, are asked, answer or do not; none of them stops the loop."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from hal import wire
from hal.errors import Misuse, RemoteFault
from twin.outside import KNOBS, OBSERVED, Act, Claim, Event, Grant, Outside

__all__ = ["Post", "Seat", "Seats"]

SEATS = 16  # controllers at once
PROBE_NS = 100_000_000  # how often a wait looks whether those waited for are still there
USELESS = 100  # answers nobody asked for, in one subframe: more is a flood
NAME = 64  # characters
_log = logging.getLogger("twin.controllers")


class Post(Protocol):
    """What carries the words: the bus's control socket."""

    @property
    def asker(self) -> bytes:
        """Who asked what is being answered."""

    def tell(self, peer: bytes, kind: str, seq: int, payload: bytes = b"") -> str:
        """Say something: "" if it is on its way, else "gone" or "full"."""

    def wait(self, timeout_ms: int) -> int:
        """Answer what was asked, waiting up to ``timeout_ms`` for the first."""

    def service(self) -> None:
        """Look at all else that came in, and beat."""

    def answer(self, kind: str, handler: Callable[[bytes], bytes | None]) -> None:
        """From here on ``handler`` answers the question ``kind``."""


@dataclass
class Seat:
    """One controller that holds knobs."""

    peer: bytes
    claim: Claim
    knobs: frozenset[str]  # without the site
    points: frozenset[str]
    waiting: bool = False  # for its answer to the moment that is on
    act: Act | None = None  # that answer
    moment: int = -1  # the last one it was asked
    answered: int = -1  # the last one it answered
    misses: int = 0  # in a row
    useless: int = 0  # answers in this subframe that nobody asked for
    counts: Counter[str] = field(default_factory=Counter)


class Seats:
    """The controllers of one site; the loop's thread owns it.

    ``lockstep`` waits for answers until ``Outside.give_up_s``, otherwise until ``Outside.deadline_ns`` of wall time. ``grant`` completes a
    claim, ``stopping`` ends every wait, ``clock`` is in ns.
    """

    def __init__(
        self,
        site: str,
        post: Post,
        rules: Outside,
        mode: str,
        grant: Callable[[Claim], Grant],
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.site, self.rules, self.mode, self.stopping = site, rules, mode, stopping
        self.seats: list[Seat] = []
        self.came: set[str] = set()  # everyone who ever held a knob
        self.counts: Counter[str] = Counter()
        self.events: list[tuple[str, str, str]] = []  # what, who, why; ``said`` takes them
        self.wait_ns = 0
        self._post, self._grant, self._clock = post, grant, clock
        self._moment = -1
        for kind in ("claim", "act", "bye"):
            post.answer(kind, getattr(self, f"_{kind}"))

    def holder(self, knob: str) -> Seat | None:
        """Who holds ``knob`` now."""
        return next((seat for seat in self.seats if knob in seat.knobs), None)

    def groups(self, point: str) -> list[list[Seat]]:
        """Who is asked at ``point``, one group an order, the lowest first."""
        mine = [seat for seat in self.seats if point in seat.points]
        return [[s for s in mine if s.claim.order == order] for order in sorted({s.claim.order for s in mine})]

    def ask(self, group: Iterable[Seat], say: Callable[[Seat, int], bytes], truth: Callable[[], bytes]) -> None:
        """Ask each of ``group`` what ``say(seat, moment)`` encodes; when it returns, ``seat.act`` is the answer or None.

        Oracles are told ``truth()`` first.
        """
        began = self._clock()
        self._moment += 1
        asked = []
        for seat in group:
            seat.act = None
            if seat in self.seats:  # nobody has left since the group was formed
                asked.append(seat)
        for seat in asked:
            seat.moment, seat.waiting = self._moment, True
            if "truth" in seat.claim.observe and not self._told(seat, "truth", truth()):
                continue
            self._told(seat, "observe", say(seat, self._moment))
        self._await(asked, began)
        self.wait_ns += self._clock() - began

    def tell(self, kind: str, number: int, payload: bytes) -> None:
        """Say something to everyone who holds a knob; who does not read it is asked less kindly at the next moment."""
        for seat in self.seats:
            self._post.tell(seat.peer, kind, number, payload)

    def join(self) -> None:
        """Wait until everyone in ``Outside.wait_for`` has come; for who does not, the built-in chain does the work."""
        until = self._clock() + round(self.rules.join_s * 1e9)
        missing = self._absent()
        if missing:
            _log.warning("waiting for %s to claim knobs of %s", ", ".join(missing), self.site)
        while missing and not self.stopping() and self._clock() < until:
            self._post.wait(50)
            self._post.service()
            missing = self._absent()
        if missing:
            self.happened(
                "missed", ", ".join(missing), f"did not come within {self.rules.join_s:g} s; the built-in chain steers"
            )

    def drop(self, seat: Seat, why: str) -> None:
        """Take a controller's knobs away and tell it why."""
        if seat in self.seats:
            self.seats.remove(seat)
            seat.waiting = False
            self.counts["dropped"] += 1
            self.happened("dropped", seat.claim.name, why)
            self._post.tell(seat.peer, "dropped", self._moment, why.encode())

    def refuse(self, seat: Seat, why: str) -> None:
        """Count an answer that cannot be taken and tell its sender why."""
        self._count(seat, "refused")
        if seat.counts["refused"] <= 3:  # who is wrong every time is told so, and the log is not filled
            self.happened("refused", seat.claim.name, why)
        self._post.tell(seat.peer, "refused", seat.moment, why.encode())

    def refuse_by_name(self, name: str, why: str) -> None:
        """``refuse``, for who is known by name; who has left is not told."""
        for seat in self.seats:
            if seat.claim.name == name:
                self.refuse(seat, why)

    def happened(self, what: str, who: str, why: str) -> None:
        """Note an event."""
        self.events.append((what, who, why))
        (_log.info if what in ("claimed", "released") else _log.warning)("%s %s: %s", who, what, why)

    def said(self, t_ns: int) -> list[Event]:
        """The events since it was last asked."""
        events = [Event(t_ns=t_ns, what=what, who=who, why=why) for what, who, why in self.events]
        self.events.clear()
        return events

    def turn(self) -> None:
        """A subframe is over: floods end here."""
        self.wait_ns = 0
        for seat in list(self.seats):
            if seat.useless > USELESS:
                self.drop(seat, f"sent {seat.useless} answers in one subframe that nobody asked for")
            seat.useless = 0

    def close(self) -> None:
        """Tell everyone that the run is over."""
        for seat in self.seats:
            self._post.tell(seat.peer, "dropped", self._moment, b"the run is over")
        self.seats.clear()

    def _await(self, asked: list[Seat], began: int) -> None:
        rules, lockstep = self.rules, self.mode == "lockstep"
        limit_ns = rules.give_up_s * 1e9 if lockstep else float(rules.deadline_ns)
        probe_ns, warn_ns = began + PROBE_NS, began + rules.warn_s * 1e9 if lockstep else math.inf
        while waiting := [seat for seat in asked if seat.waiting]:
            now = self._clock()
            late = [seat for seat in waiting if not (rules.debug or seat.claim.debug)]
            if late and now - began >= limit_ns:
                for seat in late:
                    self._late(seat, limit_ns * 1e-9)
                continue
            if self.stopping():
                for seat in waiting:
                    seat.waiting = False
                return
            if now >= warn_ns:
                warn_ns = math.inf
                for seat in waiting:
                    self.happened("waiting", seat.claim.name, self._blocks(seat, (now - began) * 1e-9))
            if now >= probe_ns:
                probe_ns = now + PROBE_NS
                self._post.service()
                for seat in waiting:
                    self._told(seat, "beat", b"")
            until = min(probe_ns, warn_ns, began + limit_ns if late else math.inf)
            self._post.wait(max(0, int((until - now) / 1e6)))  # the last part of a millisecond is spun

    def _late(self, seat: Seat, limit_s: float) -> None:
        """A limit has passed without an answer: the policy decides."""
        seat.waiting = False
        why = self._blocks(seat, limit_s)
        if self.mode == "lockstep":
            return self.drop(seat, f"{why}; the limit is {limit_s:g} s")
        self._count(seat, "missed")
        seat.misses += 1
        if seat.misses == 1:
            self.happened("missed", seat.claim.name, why)
        if seat.misses >= self.rules.misses:
            self.drop(seat, f"missed {seat.misses} deadlines in a row; {why}")
        return None

    def _blocks(self, seat: Seat, waited_s: float) -> str:
        last = f"its last answer was to moment {seat.answered}" if seat.answered >= 0 else "it has not answered before"
        return f"no answer to moment {seat.moment} after {waited_s:.3g} s; {last}"

    def _told(self, seat: Seat, kind: str, payload: bytes) -> bool:
        """Say something; who is gone or does not read is out."""
        said = self._post.tell(seat.peer, kind, seat.moment, payload)
        if said:
            self.drop(seat, "has left" if said == "gone" else "does not read what it is told")
        return not said

    def _count(self, seat: Seat, what: str) -> None:
        seat.counts[what] += 1
        self.counts[what] += 1

    def _absent(self) -> list[str]:
        return [name for name in self.rules.wait_for if name not in self.came]

    # ------------------------------------------------------------------------------------------------ questions

    def _claim(self, payload: bytes) -> bytes:
        claim: Claim = wire.decode(payload, Claim)
        peer, knobs = self._post.asker, []
        if self.mode == "free":
            raise Misuse("claim: this run's clock.mode is free, which depends on nobody; run it with lockstep or paced")
        if not (claim.name and len(claim.name) <= NAME and claim.name.isprintable()):
            raise Misuse(f"claim.name = {claim.name[:NAME]!r}: must be 1 .. {NAME} printable characters")
        if claim.name in ("built-in", "held"):
            raise Misuse(f"claim.name = {claim.name!r}: is taken by the twin itself")
        for knob in claim.knobs:
            site, _, short = knob.partition(".")
            if site != self.site or short not in KNOBS:
                known = ", ".join(f"{self.site}.{name}" for name in KNOBS)
                raise Misuse(f"claim.knobs: {knob[:NAME]!r} is none; there are {known}")
            knobs.append(short)
        if not knobs:
            raise Misuse("claim.knobs: names none; only to listen, subscribe to the state endpoint")
        if claim.role not in ("controller", "oracle"):
            raise Misuse(f"claim.role = {claim.role[:NAME]!r}: must be controller or oracle")
        for what in claim.observe:
            if what not in OBSERVED:
                raise Misuse(f"claim.observe: {what[:NAME]!r} is none of {', '.join(OBSERVED)}")
        if "truth" in claim.observe and claim.role != "oracle":
            raise Misuse("claim.observe: the truth is shown to nobody but the role oracle, which must say so")
        for seat in list(self.seats):
            self._told(seat, "beat", b"")  # who has left holds nothing
        for knob in knobs:
            holder = self.holder(knob)
            if holder is not None:
                raise Misuse(f"claim.knobs: {self.site}.{knob} is held by {holder.claim.name!r}; a knob has one owner")
        if any(seat.claim.name == claim.name or seat.peer == peer for seat in self.seats):
            raise Misuse(f"claim.name = {claim.name!r}: is here already; claim all knobs at once, or say bye first")
        if len(self.seats) >= SEATS:
            raise Misuse(f"claim: {SEATS} controllers are here already")
        granted = self._grant(claim)
        points = frozenset(KNOBS[knob] for knob in knobs)
        self.seats.append(Seat(peer=peer, claim=claim, knobs=frozenset(knobs), points=points))
        self.came.add(claim.name)
        self.happened("claimed", claim.name, ", ".join(claim.knobs))
        return wire.encode(granted)

    def _act(self, payload: bytes) -> None:
        peer = self._post.asker
        seat = next((seat for seat in self.seats if seat.peer == peer), None)
        if seat is None:
            self.counts["useless"] += 1
            return
        if not seat.waiting:  # cheap: a flood is not even read
            seat.useless += 1
            self._count(seat, "duplicate" if seat.answered == seat.moment else "late")
            return
        try:
            act: Act = wire.decode(payload, Act)
        except RemoteFault as error:
            seat.waiting = False
            self.refuse(seat, str(error))
            return
        if act.moment != seat.moment:
            seat.useless += 1
            old = act.moment < seat.moment
            self._count(seat, ("duplicate" if act.moment == seat.answered else "late") if old else "refused")
            return
        seat.waiting = False
        taken = [knob for knob in KNOBS if getattr(act, knob) is not None and knob not in seat.knobs]
        if taken:
            owner = self.holder(taken[0])
            self.refuse(
                seat, f"act.{taken[0]}: is {'the built-in chain' if owner is None else owner.claim.name}'s, not yours"
            )
            return
        seat.act, seat.answered, seat.misses = act, act.moment, 0
        self._count(seat, "answered")

    def _bye(self, payload: bytes) -> bytes:
        seat = next((seat for seat in self.seats if seat.peer == self._post.asker), None)
        if seat is not None:
            self.seats.remove(seat)
            seat.waiting = False
            self.happened("released", seat.claim.name, "said bye")
        return b""
