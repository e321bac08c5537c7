"""Beam memory in time: what a slot holds at an instant, what is broken then, and the response that follows."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from hal.ageing import Ageing, errors, wandered
from hal.check import finite, shaped
from hal.errors import Misuse
from hal.frontend import Beam, HalfSpec
from hal.health import STATES, Fault, Health, Kind
from hal.network import quantise, response
from hal.record import Array, Complex, Float, Int
from hal.walk import Noise

__all__ = ["BeamMemory", "Fault", "Kind"]

KEPT_NS = 200_000_000  # how long a superseded row can still be asked for
CACHE_BYTES = 128 * 1024 * 1024  # of responses, a half
_AGE = 1 << 41  # a key is ((age * versions) + version) * states + health


@dataclass(frozen=True)
class _Settings:
    delay_s: Float[Array, "chain line"]
    phase_rad: Float[Array, "chain element"]
    amplitude: Float[Array, "chain element"]


class BeamMemory:
    """One half's memory: rows by slot, each with the instant from which it is in force, and the faults likewise.

    A row stays in force until the next one loaded to its slot takes effect; all rows of one load do so together. A slot that was never
    loaded, or is asked for before its first row, is dark: its response is zero. Rows superseded more than 0.2 s before the last load
    are forgotten; to ask for them is Misuse.
    """

    def __init__(
        self,
        name: str,
        half: HalfSpec,
        ageing: Ageing | None = None,
        noise: Noise | None = None,
        select_ns: int = 0,
    ) -> None:
        self._select_ns = select_ns
        self._used_ns = -(2**62)  # last instant that went through the slots it asked for,
        self._used: list[int] = []  # which were these
        self.name = name
        self.half = half
        self.settings = int(half.network.wired.sum())  # of one row, loaded over the bus
        self._ageing = Ageing() if ageing is None else ageing
        self._noise = noise
        self._ages: dict[tuple[int, int], tuple[Array, Array]] = {}
        chains, elements = half.network.wired.shape
        dark = _Settings(
            np.zeros((chains, half.network.lines)), np.zeros((chains, elements)), np.zeros((chains, elements))
        )
        quantise(half.network, dark.delay_s, dark.phase_rad, dark.amplitude)  # compiles now, not within a command
        self._settings = {0: dark}
        self._made = 0
        self._since: dict[int, list[int]] = {}  # slot -> instants, ascending
        self._version: dict[int, list[int]] = {}  # slot -> what holds from each of them
        self._forgotten: dict[int, int] = {}  # slot -> before this instant nothing is known any more
        self.faults = Health()
        self._cache: OrderedDict[tuple[int, bytes], Complex[Array, "subcarrier element chain"]] = OrderedDict()
        self._cached_bytes = 0
        self._stacks: dict[tuple[tuple[int, ...], bytes], Complex[Array, "row subcarrier element chain"]] = {}

    def check(self, beam: Beam) -> tuple[Beam, int]:
        """The rows as the hardware takes them, and how many settings were clipped; Misuse for rows it cannot take at all."""
        chains, elements = self.half.network.wired.shape
        rows = len(shaped(f"{self.name} beam.slot", beam.slot, (None,)))
        slots, limit = np.asarray(beam.slot).tolist(), self.half.memory_slots
        for k, slot in enumerate(slots):
            if not 0 <= slot < limit:
                raise Misuse(
                    f"{self.name} beam.slot[{k}] = {slot}: must be 0 .. {limit - 1}; the memory has {limit} slots"
                )
        if len(set(slots)) < rows:
            raise Misuse(
                f"{self.name} beam.slot = {slots}: a slot is named twice; the rows of one load are latched together"
            )
        for field, width in (("delay_s", self.half.network.lines), ("phase_rad", elements), ("amplitude", elements)):
            if np.shape(getattr(beam, field)) != (rows, chains, width):
                shaped(f"{self.name} beam.{field}", getattr(beam, field), (rows, chains, width))
        try:
            delay_s, phase_rad, amplitude, clipped = quantise(
                self.half.network, beam.delay_s, beam.phase_rad, beam.amplitude
            )
        except Misuse as error:
            raise Misuse(f"{self.name} beam.{error}") from None
        return replace(beam, delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude), clipped

    def load(self, beam: Beam, effective_ns: int, now_ns: int) -> None:
        """Put the (checked) rows in force together from ``effective_ns`` on; never earlier than rows loaded before them."""
        for k, slot in enumerate(beam.slot.tolist()):
            self._made += 1
            self._settings[self._made] = _Settings(beam.delay_s[k], beam.phase_rad[k], beam.amplitude[k])
            since, version = self._since.setdefault(slot, []), self._version.setdefault(slot, [])
            since.append(effective_ns)
            version.append(self._made)
            while len(since) > 1 and since[1] <= now_ns - KEPT_NS:
                self._settings.pop(version.pop(0), None)
                since.pop(0)
                self._forgotten[slot] = since[0]

    def held(self, beam: Beam, t_ns: int) -> Beam:
        """The rows that the slots of ``beam`` hold at ``t_ns``: what a read-back of the registers finds."""
        rows = [self._settings[int(v)] for v in self._in_force(np.asarray(beam.slot), np.full(len(beam.slot), t_ns))]
        if not rows:
            return beam
        return Beam(
            half=beam.half,
            slot=beam.slot,
            delay_s=np.stack([row.delay_s for row in rows]),
            phase_rad=np.stack([row.phase_rad for row in rows]),
            amplitude=np.stack([row.amplitude for row in rows]),
        )

    def inject(self, fault: Fault, at_ns: int) -> None:
        """Break something from ``at_ns`` on; Misuse for what this half has not got."""
        chains, elements = self.half.network.wired.shape
        for field, limit in (("element", elements), ("chain", chains), ("line", max(self.half.network.lines, 1))):
            if not 0 <= getattr(fault, field) < limit:
                raise Misuse(
                    f"fault.{field} = {getattr(fault, field)}: must be 0 .. {limit - 1} in the {self.name} half"
                )
        finite("fault.value", fault.value)
        if fault.kind == "stuck_bit" and not (0 <= fault.bit < self.half.network.phase_bits and fault.value in (0, 1)):
            raise Misuse(
                f"fault.bit = {fault.bit} at {fault.value}: must be 0 .. {self.half.network.phase_bits - 1} at 0 or 1 in the {self.name} half"
            )
        if fault.kind == "calibration_lost":
            raise Misuse(
                "fault.kind = 'calibration_lost': this front end has no calibration to lose; load one (hal.calibration)"
            )
        if fault.kind in ("drift", "late_command") and not fault.value >= 0:
            raise Misuse(f"fault.value = {fault.value}: must be >= 0 for {fault.kind!r}")
        if fault.kind == "drift" and self._noise is None:
            raise Misuse("fault.kind = 'drift': a memory without chance cannot drift; give it noise")
        if fault.kind == "stuck_delay" and not self.half.network.lines:
            raise Misuse(f"fault.kind = 'stuck_delay': the {self.name} half has no delay lines")
        self.faults.inject(fault, at_ns)

    def clear(self, fault: Fault | None, at_ns: int) -> None:
        """Mend ``fault`` (None: everything) from ``at_ns`` on."""
        self.faults.clear(fault, at_ns)

    def selected(self, slot: Int[Array, " event"], t_ns: Int[Array, " event"]) -> Int[Array, " event"]:
        """The slot each event goes through: another than the last takes ``select_ns`` from the last event that went through it.

        An event that comes sooner still goes through the old slot. Events of one instant take turns that their caller arranges (pilots of several
        users), so their slots are selected side by side. A time before the last starts anew. Costs nothing while no select is late.
        """
        if not (self._select_ns and len(slot)):
            return slot
        asked: dict[int, list[int]] = {}  # event numbers by instant
        for event, at_ns in enumerate(t_ns.tolist()):
            asked.setdefault(at_ns, []).append(event)
        out, now_late = slot.tolist(), False
        for now_ns in sorted(asked):
            wanted = [out[event] for event in asked[now_ns]]
            if 0 < now_ns - self._used_ns < self._select_ns and not set(wanted) <= set(self._used):
                now_late = True
                for event in asked[now_ns]:
                    out[event] = out[event] if out[event] in self._used else self._used[-1]
            else:
                self._used_ns, self._used = now_ns, wanted
        return np.array(out, dtype=slot.dtype) if now_late else slot

    def rows(self, slot: Int[Array, " event"], t_ns: Int[Array, " event"]) -> tuple[Int[Array, " event"], list[int]]:
        """What is in force at the events: the distinct states as keys for ``responses``, and which of them each event has."""
        key = self._in_force(slot, t_ns) * STATES + self.faults.state(t_ns)
        if self._ageing.drifts or "drift" in self.faults.kinds:
            key = key + np.maximum(t_ns, 0) // self._ageing.update_ns * _AGE
        held = key.tolist()
        place = {one: row for row, one in enumerate(sorted(set(held)))}
        return np.array([place[one] for one in held], dtype=np.int64), list(place)

    def responses(
        self, keys: list[int], frequency_hz: Float[Array, " subcarrier"]
    ) -> Complex[Array, "row subcarrier element chain"]:
        """The response of each state at ``frequency_hz`` (Hz), read-only; computed once and kept while there is room."""
        frequency_hz = np.ascontiguousarray(frequency_hz, dtype=np.float64)
        name = (tuple(keys), frequency_hz.tobytes())
        found = self._stacks.get(name)
        if found is None:
            # without delay lines a row is the same at every frequency
            rows = self._computed(keys, frequency_hz if self.half.network.lines else frequency_hz[:1])
            found = np.broadcast_to(rows, (len(keys), len(frequency_hz), *rows.shape[2:]))
            found.flags.writeable = False
            if len(self._stacks) >= 8:
                self._stacks.pop(next(iter(self._stacks)))
            self._stacks[name] = found
        return found

    def _in_force(self, slot: Int[Array, " event"], t_ns: Int[Array, " event"]) -> Int[Array, " event"]:
        """Version in force at each event; 0 for a dark slot."""
        out = []
        for s, t in zip(slot.tolist(), t_ns.tolist(), strict=True):
            since = self._since.get(s, [])
            if t < self._forgotten.get(s, t):
                raise Misuse(
                    f"t_ns = {t}: what {self.name} slot {s} held before {self._forgotten[s]} is forgotten; ask within "
                    f"{KEPT_NS * 1e-9:g} s of the last load"
                )
            loads = bisect_right(since, t)
            out.append(self._version[s][loads - 1] if loads else 0)
        return np.array(out, dtype=np.int64)

    def _computed(
        self, keys: list[int], frequency_hz: Float[Array, " subcarrier"]
    ) -> Complex[Array, "row subcarrier element chain"]:
        """The response of each state, those computed before from the cache."""
        if not keys:
            return np.empty((0, len(frequency_hz), *self.half.network.wired.T.shape), dtype=np.complex128)
        hertz, cache = frequency_hz.tobytes(), self._cache
        new = [key for key in keys if (key, hertz) not in cache]
        if new:
            rows = [self._broken(self._settings[key % _AGE // STATES], key % STATES, key // _AGE) for key in new]
            names = ("delay_s", "phase_rad", "amplitude")
            delay_s, phase_rad, amplitude = (np.stack([getattr(row, name) for row in rows]) for name in names)
            computed: Array = response(self.half.network, delay_s, phase_rad, amplitude, frequency_hz)
            for oldest in list(itertools.islice(cache, 2 * len(new))):  # superseded rows are never asked for again
                if oldest[0] % _AGE // STATES in self._settings:
                    cache.move_to_end(oldest)
                else:
                    self._cached_bytes -= cache.pop(oldest).nbytes
            cache.update(zip(((key, hertz) for key in new), computed, strict=True))
            self._cached_bytes += computed.nbytes
        found = computed if len(new) == len(keys) else np.stack([cache[key, hertz] for key in keys])
        for key in keys:
            cache.move_to_end((key, hertz))
        while self._cached_bytes > CACHE_BYTES and len(cache) > 1:
            self._cached_bytes -= cache.popitem(last=False)[1].nbytes
        return found

    def _broken(self, row: _Settings, state: int, age: int) -> _Settings:
        health = self.faults.faults[state]
        if not health and not self._ageing.errs:
            return row
        delay_s, phase_rad, amplitude = row.delay_s.copy(), row.phase_rad.copy(), row.amplitude.copy()
        for fault in health:
            if fault.kind == "dead_element":
                amplitude[:, fault.element] = 0.0
            elif fault.kind == "chain_off":
                amplitude[fault.chain] = 0.0
            elif fault.kind == "stuck_phase":
                phase_rad[fault.chain, fault.element] = fault.value
            elif fault.kind == "stuck_bit":
                steps = 2**self.half.network.phase_bits / (2 * np.pi)
                word, bit = round(phase_rad[fault.chain, fault.element] * steps), 1 << fault.bit
                phase_rad[fault.chain, fault.element] = (word | bit if fault.value else word & ~bit) / steps
            elif fault.kind == "stuck_delay":
                delay_s[fault.chain, fault.line] = fault.value
        if self._ageing.errs or any(fault.kind == "drift" for fault in health):
            more_rad, ratio = self._aged(state, age)
            phase_rad, amplitude = phase_rad + more_rad, amplitude * ratio
        return _Settings(delay_s, phase_rad, amplitude)

    def _aged(self, state: int, age: int) -> tuple[Float[Array, "chain element"], Float[Array, "chain element"]]:
        """Errors of all elements in one stretch of time; the last few are kept, since every slot asks for them."""
        if (state, age) not in self._ages:
            assert self._noise is not None
            shape, t_ns = self.half.network.wired.shape, age * self._ageing.update_ns
            phase_rad, ratio = errors(self._ageing, self._noise, self.name, t_ns, shape)
            for fault in self.faults.faults[state]:
                if fault.kind == "drift":
                    since_ns = self.faults.since(fault, state)
                    phase_rad = phase_rad + fault.value * wandered(self._noise, self.name, since_ns, t_ns, shape)
            if len(self._ages) >= 16:
                self._ages.pop(next(iter(self._ages)))
            self._ages[state, age] = phase_rad, ratio
        return self._ages[state, age]
