"""What happened in a run, as events: tracks and bindings that come and go, outage, clipped beams, movers that appear and leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Event", "Now", "Story"]

KEPT = 4000  # events in memory; more are only counted
QUIET_NS = 100_000_000  # a spell of outage, clipping, ... ends after so long without
DOPPLER_BLOCK = 0.3  # Doppler spread x block above which the block-fading picture breaks


class Event(NamedTuple):
    """Something that happened, once (``until_ns == t_ns``) or for a while."""

    t_ns: int
    until_ns: int
    kind: str
    what: str


@dataclass
class Now:
    """The records of the subframe being read, as far as they came."""

    t_ns: int = -1
    truth: Any = None
    plan: Any = None
    belief: Any = None
    kpi: Any = None

    def turn(self, t_ns: int) -> None:
        """Begin another subframe."""
        self.t_ns, self.truth, self.plan, self.belief, self.kpi = t_ns, None, None, None, None


@dataclass
class _Spell:
    t_ns: int
    until_ns: int
    amount: int


@dataclass
class Story:
    """Compares each subframe with the one before it."""

    now: Now = field(default_factory=Now)
    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    doppler_warning: float = DOPPLER_BLOCK
    _there: set[int] | None = None
    _tracks: dict[int, int] = field(default_factory=dict)  # confirmed track -> mover it follows, or -1
    _bound: dict[int, int] = field(default_factory=dict)  # user -> track
    _born: int = 0
    _k: int = -1
    _faults: set[str] = field(default_factory=set)
    _spells: dict[tuple[str, str], _Spell] = field(default_factory=dict)

    def say(self, kind: str, what: str, t_ns: int | None = None, until_ns: int | None = None) -> None:
        """Keep an event, or only count it when there are too many."""
        t_ns = self.now.t_ns if t_ns is None else t_ns
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.events) < KEPT:
            self.events.append(Event(t_ns, t_ns if until_ns is None else until_ns, kind, what))

    def tell(self, name: Callable[[int], str]) -> None:
        """Take in the subframe ``now``; ``name`` says what a mover is called."""
        truth, belief, kpi = self.now.truth, self.now.belief, self.now.kpi
        assert kpi is not None
        if self._k >= 0 and kpi.k > self._k + 1:
            self.say(
                "subframes missing",
                f"{kpi.k - self._k - 1} between {self._k} and {kpi.k}: skipped when late, or not recorded",
            )
        self._k = kpi.k
        if truth is not None:
            there = set(truth.entity.tolist())
            if self._there is not None:
                for entity in sorted(there - self._there):
                    self.say("mover appears", name(entity))
                for entity in sorted(self._there - there):
                    self.say("mover leaves", name(entity))
            self._there = there
        if belief is not None:
            self._tracking(belief, kpi, name)
        for i, user in enumerate(kpi.user.tolist()):
            self._spell("outage", name(user), int(kpi.outage_blocks[i]))
        self._spell("beams clipped", "settings out of range", kpi.beams_clipped)
        self._spell("lit mover missed", "in the main lobe at 20 dB and more, not detected", kpi.missed)
        over = kpi.doppler_block > self.doppler_warning
        self._spell(
            "channel changes within a block", f"Doppler spread x block above {self.doppler_warning:g}", int(over)
        )

    def _tracking(self, belief: Any, kpi: Any, name: Callable[[int], str]) -> None:
        tracks = belief.tracks
        follows = {int(t): int(e) for t, e in zip(kpi.tracked, kpi.entity, strict=True) if t >= 0}
        sure = {int(t): follows.get(int(t), -1) for t in tracks.track[tracks.confirmed]}
        for track, mover in sure.items():
            if track not in self._tracks:
                if mover >= 0:
                    self.say("track confirmed", f"track {track} follows {name(mover)}")
                else:
                    self.say("false track confirmed", f"track {track}: no mover within 4 m")
        for track, mover in self._tracks.items():
            if track not in sure:
                if mover >= 0:
                    self.say("track lost", f"track {track}, which followed {name(mover)}")
                else:
                    self.say("false track dropped", f"track {track}")
            elif sure[track] < 0:
                sure[track] = mover  # it strays for a moment: still whose it was
        self._tracks = sure
        if tracks.born > self._born:
            self.counts["track begun (tentative)"] = (
                self.counts.get("track begun (tentative)", 0) + tracks.born - self._born
            )
            self._born = tracks.born
        bound = {int(u): int(t) for u, t in zip(tracks.user, tracks.track, strict=True) if u >= 0}
        for user, track in bound.items():
            before = self._bound.get(user)
            if before is None:
                self.say("user bound", f"{name(user)} to track {track}")
            elif before != track:
                self.say("binding swapped", f"{name(user)} from track {before} to {track}")
        for user in self._bound.keys() - bound.keys():
            self.say("user unbound", f"{name(user)} from track {self._bound[user]}")
        self._bound = bound

    def fault(self, t_ns: int, text: str) -> None:
        """What the machine says is wrong with it, the first time it says so."""
        if text and text not in self._faults:
            self._faults.add(text)
            self.say("machine fault", text, t_ns)

    def _spell(self, kind: str, what: str, amount: int) -> None:
        spell, t_ns = self._spells.get((kind, what)), self.now.t_ns
        if spell is not None and t_ns - spell.until_ns > QUIET_NS:
            self._close(kind, what)
            spell = None
        if amount > 0:
            if spell is None:
                spell = self._spells[kind, what] = _Spell(t_ns, t_ns, 0)
            spell.until_ns, spell.amount = t_ns, spell.amount + amount

    def _close(self, kind: str, what: str) -> None:
        spell = self._spells.pop((kind, what))
        unit = {"outage": "blocks", "beams clipped": "settings", "lit mover missed": "times"}.get(kind, "subframes")
        self.say(kind, f"{what}: {spell.amount} {unit}", spell.t_ns, spell.until_ns)

    def end(self) -> None:
        """Close what still goes on, and put everything in order of time."""
        for key in list(self._spells):
            self._close(*key)
        self.events.sort(key=lambda event: event.t_ns)
