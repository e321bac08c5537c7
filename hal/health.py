"""What is broken in a machine, and when."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Bool, Int

__all__ = ["SILENT", "STATES", "Fault", "Health", "Kind"]

STATES = 1 << 15  # changes a run has room for

Kind = Literal[
    "dead_element",
    "stuck_phase",
    "stuck_bit",
    "stuck_delay",
    "chain_off",
    "drift",
    "lost_command",
    "late_command",
    "calibration_lost",
    "connection_cut",
]


@dataclass(frozen=True)
class Fault:
    """Something broken, from the instant it is injected to the instant it is cleared (``docs/faults.md``).

    ``dead_element``: the element passes nothing. ``stuck_phase``, ``stuck_delay``: the element's phase shifter, or the line, of one
    chain stays at ``value`` (rad, s) whatever is loaded. ``stuck_bit``: bit ``bit`` (0 the finest) of the element's phase word in one chain
    stays at ``value`` (0 or 1). ``chain_off``: the chain passes nothing. ``drift``: every phase of the half walks away at random,
    ``value`` rad rms after a second, ten times that after a hundred. ``lost_command``: what is loaded meanwhile never arrives;
    ``late_command``: it arrives ``value`` s late. ``connection_cut``: every verb raises RemoteFault, whatever the half.
    ``calibration_lost`` is for a front end that has a calibration (``hal.calibration``).
    """

    kind: Kind
    half: str  # "transmit" | "receive"
    element: int = 0
    chain: int = 0
    line: int = 0
    value: float = 0.0
    bit: int = 0

    def __str__(self) -> str:
        where = {
            "dead_element": f"element {self.element}",
            "stuck_phase": f"chain {self.chain} element {self.element} at {self.value:.4g} rad",
            "stuck_bit": f"{self.bit} of chain {self.chain} element {self.element} at {self.value:.0f}",
            "stuck_delay": f"chain {self.chain} line {self.line} at {self.value:.4g} s",
            "chain_off": f"chain {self.chain}",
            "drift": f"of {self.value:.4g} rad in a second",
            "late_command": f"by {self.value:.4g} s",
        }.get(self.kind, "")
        return f"{self.half} {self.kind.replace('_', ' ')} {where}".strip()


SILENT = ("drift",)  # kinds no machine knows of


class Health:
    """What is broken when: scripted ahead, changed live, and asked about any instant.

    Time is cut into stretches, each with a state of its own, counted from 0; a change cuts the stretch it falls in and enters every later one,
    so a fault injected now leaves what is scripted for later as it is.
    """

    def __init__(self) -> None:
        self._since = [-(2**62)]
        self._state = [0]
        self.faults: list[tuple[Fault, ...]] = [()]  # of each state
        self.kinds: set[str] = set()  # there ever were

    def inject(self, fault: Fault, at_ns: int) -> None:
        """Break something from ``at_ns`` on."""
        self._change(at_ns, lambda faults: (*(f for f in faults if f != fault), fault))
        self.kinds.add(fault.kind)

    def clear(self, fault: Fault | None, at_ns: int) -> None:
        """Mend ``fault`` (None: everything) from ``at_ns`` on; Misuse if it is not there then."""
        there = self.at(at_ns)
        if fault is not None and fault not in there:
            raise Misuse(f"fault {str(fault)!r}: is not there to be cleared; there are {[str(f) for f in there]}")
        self._change(at_ns, lambda faults: () if fault is None else tuple(f for f in faults if f != fault))

    def _change(self, at_ns: int, edit: Callable[[tuple[Fault, ...]], tuple[Fault, ...]]) -> None:
        first = int(np.searchsorted(self._since, at_ns, side="left"))
        if first == len(self._since) or self._since[first] != at_ns:
            self._since.insert(first, int(at_ns))
            self._state.insert(first, self._state[first - 1])
        if len(self.faults) + len(self._since) > STATES:
            raise Misuse(
                f"at_ns = {at_ns}: health has changed {len(self.faults)} times, and a run has room for no more"
            )
        for k in range(first, len(self._since)):
            self.faults.append(edit(self.faults[self._state[k]]))
            self._state[k] = len(self.faults) - 1

    def state(self, t_ns: Int[Array, " event"]) -> Int[Array, " event"]:
        """The state at each instant."""
        if len(self._since) == 1:
            return np.zeros(np.shape(t_ns), np.int64)
        return np.asarray(np.array(self._state)[np.searchsorted(self._since, t_ns, side="right") - 1])

    def at(self, t_ns: int) -> tuple[Fault, ...]:
        """What is broken at ``t_ns``."""
        return self.faults[self._state[bisect_right(self._since, t_ns) - 1]]

    def struck(self, kind: str, t_ns: Int[Array, " event"]) -> Bool[Array, " event"]:
        """Whether a fault of this kind is there at each instant."""
        if kind not in self.kinds:
            return np.zeros(np.shape(t_ns), dtype=np.bool_)
        there = np.array([any(fault.kind == kind for fault in faults) for faults in self.faults])
        return np.asarray(there[self.state(t_ns)])

    def since(self, fault: Fault, state: int) -> int:
        """From when a fault of a state has been there without a break."""
        k = self._state.index(state)
        while fault in self.faults[self._state[k - 1]]:
            k -= 1
        return self._since[k]
