"""What a scenario promises of itself: the lines of ``expect:``, watched subframe by subframe, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

import numpy as np

from hal.check import Ge, Gt, In, Le, MinLen
from hal.frontend import BeamReport, FrontendSpec
from hal.record import Array
from twin.kpi import Kpi

__all__ = ["Alive", "Expectation", "Expectations", "Figure", "Rate", "Readback", "Recovery", "Violation"]


@dataclass(frozen=True)
class Rate:
    """A user's rate does not stay below a level for longer than a time."""

    at_least_bps: Annotated[float, In("gbps"), Gt(0)]  # of a subframe
    user: str = ""  # its name; nothing: every user that is there
    longer_than_ns: Annotated[int, In("ms"), Ge(0)] = 0  # it may stay below so long
    after_ns: Annotated[int, In("ms"), Ge(0)] = 0  # not looked at before


@dataclass(frozen=True)
class Readback:
    """Every phase, delay and amplitude that the machine reads back is what was asked for, within a number of steps."""

    steps: Annotated[float, Gt(0)] = (
        0.5  # of the machine's resolution; a continuous setting must agree to a millionth of its range
    )
    half: Literal["transmit", "receive", "both"] = "both"


@dataclass(frozen=True)
class Recovery:
    """After a fault was mended, everything served is soon as fast as before it struck."""

    fault: Annotated[int, Ge(0)] = 0  # place in the scenario's list of faults; it must have an ``until_ms``
    subframes: Annotated[int, Ge(1)] = 10  # from the mending
    share: Annotated[float, Gt(0), Le(1)] = 0.9  # of the sum rate over as many subframes before the fault


@dataclass(frozen=True)
class Alive:
    """Of all movers that are there, so many are followed by a confirmed track, on average over the run."""

    share: Annotated[float, Gt(0), Le(1)] = 0.95
    after_ns: Annotated[int, In("ms"), Ge(0)] = 1_000_000_000  # not looked at before


@dataclass(frozen=True)
class Figure:
    """Any figure of ``twin.kpi.Kpi`` stays within bounds; of one that has an entry a user or mover, every entry that is a number."""

    name: Annotated[str, MinLen(1)]  # of the field, e.g. beam_delay_us
    at_least: float | None = None
    at_most: float | None = None
    longer_than_ns: Annotated[int, In("ms"), Ge(0)] = 0  # it may be out of bounds so long
    after_ns: Annotated[int, In("ms"), Ge(0)] = 0

    def __post_init__(self) -> None:
        known = [name for name in Kpi.__dataclass_fields__ if name not in ("k", "t_ns", "user", "entity")]
        if self.name not in known:
            raise ValueError(f"name = {self.name!r}: is no key figure; there are {', '.join(known)}")
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least, at_most: one of them must be given")


Expectation = Rate | Readback | Recovery | Alive | Figure


@dataclass(frozen=True)
class Violation:
    """A line of ``expect:`` that was broken: which, when, and by what value."""

    index: int  # place in the list
    line: int  # of the scenario file; 0: not known
    kind: str
    t_ns: int
    value: float
    said: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}expect[{self.index}] {self.kind}: at {self.t_ns * 1e-9:.4f} s {self.said}"


class Expectations:
    """The watcher: give it every subframe, ask for ``violations`` at any time, and once more after ``finish``.

    Each expectation is reported at most once, when it is first broken. ``names`` are the users of ``Kpi.user`` in order; ``file`` lets violations
    name their line.
    """

    def __init__(
        self,
        scenario: Any,
        names: tuple[str, ...] = (),
        spec: FrontendSpec | None = None,
        file: str | Path | None = None,
    ) -> None:
        self._watchers = [_WATCHERS[type(entry)](entry, scenario, names, spec) for entry in scenario.expect]
        self._lines = _lines(file, len(self._watchers))
        self._period_ns: int = scenario.subframe.period_ns
        self.violations: list[Violation] = []
        self._broken: set[int] = set()

    def add(self, subframe: Any) -> None:
        """One subframe: anything with ``kpi``, ``truth`` and ``reports`` (half, BeamReport), in order of time."""
        for index, watcher in enumerate(self._watchers):
            if index not in self._broken:
                self._note(index, watcher.add(subframe, self._period_ns))

    def finish(self) -> None:
        """The run is over: what can only be judged as a whole is judged now."""
        for index, watcher in enumerate(self._watchers):
            if index not in self._broken:
                self._note(index, watcher.finish())

    def _note(self, index: int, broken: tuple[int, float, str] | None) -> None:
        if broken is not None:
            self._broken.add(index)
            kind = type(self._watchers[index].wanted).__name__.lower()
            self.violations.append(Violation(index, self._lines[index], kind, *broken))

    def summary(self) -> dict[str, Any]:
        """For the run's summary: how many were watched, and each that was broken."""
        broken = [
            {"index": v.index, "line": v.line, "kind": v.kind, "t_s": v.t_ns * 1e-9, "value": v.value, "said": v.said}
            for v in self.violations
        ]
        return {"watched": len(self._watchers), "violated": broken}

    def junit(self, path: str | Path, suite: str = "expect") -> None:
        """Write a JUnit XML report: one test case a line of ``expect:``."""
        root = ElementTree.Element("testsuites")
        one = ElementTree.SubElement(
            root,
            "testsuite",
            name=suite,
            tests=str(len(self._watchers)),
            failures=str(len(self.violations)),
            errors="0",
            skipped="0",
        )
        failed = {v.index: v for v in self.violations}
        for index, watcher in enumerate(self._watchers):
            case = ElementTree.SubElement(
                one, "testcase", classname=suite, name=f"expect[{index}] {_told(watcher.wanted)}"
            )
            if index in failed:
                ElementTree.SubElement(case, "failure", message=str(failed[index]), type=failed[index].kind)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _told(wanted: Expectation) -> str:
    parts = [f"{name}={getattr(wanted, name)!r}" for name in wanted.__dataclass_fields__]
    return f"{type(wanted).__name__.lower()} {' '.join(parts)}"


def _lines(file: str | Path | None, count: int) -> list[int]:
    if file is None:
        return [0] * count
    from twin.document import read

    spots = read(file).spots
    return [spots[("expect", i)][0][1] if ("expect", i) in spots else 0 for i in range(count)]


class _Below:
    """How long in a row something has been out of bounds."""

    def __init__(self, longer_than_ns: int) -> None:
        self.longer_than_ns = longer_than_ns
        self.since: int | None = None

    def add(self, bad: bool, t_ns: int, period_ns: int) -> bool:
        if not bad:
            self.since = None
            return False
        self.since = t_ns if self.since is None else self.since
        return bool(t_ns + period_ns - self.since > self.longer_than_ns)


class _RateWatch:
    def __init__(self, wanted: Rate, scenario: Any, names: tuple[str, ...], spec: FrontendSpec | None) -> None:
        self.wanted, self.names = wanted, names
        self.spells: dict[int, _Below] = {}

    def add(self, subframe: Any, period_ns: int) -> tuple[int, float, str] | None:
        kpi: Kpi = subframe.kpi
        if kpi.t_ns < self.wanted.after_ns:
            return None
        for i, rate in enumerate(kpi.rate_bps.tolist()):
            name = self.names[i] if i < len(self.names) else str(kpi.user[i])
            if self.wanted.user and name != self.wanted.user and name.partition("/")[0] != self.wanted.user:
                continue
            spell = self.spells.setdefault(i, _Below(self.wanted.longer_than_ns))
            if spell.add(rate < self.wanted.at_least_bps, kpi.t_ns, period_ns):  # absent is NaN, and not below
                since_s = (spell.since or 0) * 1e-9
                return (
                    kpi.t_ns,
                    rate,
                    f"{name} has {rate * 1e-9:.4g} Gbps, since {since_s:.4f} s below {self.wanted.at_least_bps * 1e-9:.4g}",
                )
        return None

    def finish(self) -> tuple[int, float, str] | None:
        return None


class _FigureWatch:
    def __init__(self, wanted: Figure, scenario: Any, names: tuple[str, ...], spec: FrontendSpec | None) -> None:
        self.wanted, self.spell = wanted, _Below(wanted.longer_than_ns)

    def add(self, subframe: Any, period_ns: int) -> tuple[int, float, str] | None:
        kpi: Kpi = subframe.kpi
        if kpi.t_ns < self.wanted.after_ns:
            return None
        value = np.asarray(getattr(kpi, self.wanted.name), dtype=np.float64).ravel()
        low = -np.inf if self.wanted.at_least is None else self.wanted.at_least
        high = np.inf if self.wanted.at_most is None else self.wanted.at_most
        out = value[(value < low) | (value > high)]
        if not self.spell.add(bool(out.size), kpi.t_ns, period_ns):
            return None
        return kpi.t_ns, float(out[0]), f"{self.wanted.name} is {out[0]:.6g}, must be {low:g} .. {high:g}"

    def finish(self) -> tuple[int, float, str] | None:
        return None


class _AliveWatch:
    def __init__(self, wanted: Alive, scenario: Any, names: tuple[str, ...], spec: FrontendSpec | None) -> None:
        self.wanted, self.there, self.followed, self.last_ns = wanted, 0, 0, 0

    def add(self, subframe: Any, period_ns: int) -> tuple[int, float, str] | None:
        kpi: Kpi = subframe.kpi
        if kpi.t_ns >= self.wanted.after_ns:
            self.last_ns = kpi.t_ns
            there = np.isin(kpi.entity, subframe.truth.entity)
            self.there += int(there.sum())
            self.followed += int((kpi.tracked >= 0).sum())
        return None

    def finish(self) -> tuple[int, float, str] | None:
        if not self.there:
            return None
        share = self.followed / self.there
        if share >= self.wanted.share:
            return None
        return self.last_ns, share, f"{share:.1%} of movers were followed, must be {self.wanted.share:.1%}"


class _ReadbackWatch:
    def __init__(self, wanted: Readback, scenario: Any, names: tuple[str, ...], spec: FrontendSpec | None) -> None:
        self.wanted, self.spec = wanted, spec

    def add(self, subframe: Any, period_ns: int) -> tuple[int, float, str] | None:
        kpi: Kpi = subframe.kpi
        for half, report in subframe.reports:
            if self.wanted.half not in ("both", half) or self.spec is None:
                continue
            steps = _steps_off(report, getattr(self.spec, half).network)
            if not steps <= self.wanted.steps * (1 + 1e-6):
                told = (
                    "nothing is read back" if report.readback is None else f"the worst setting is {steps:.3g} steps off"
                )
                return kpi.t_ns, steps, f"{half}: {told}{': ' + report.fault if report.fault else ''}"
        return None

    def finish(self) -> tuple[int, float, str] | None:
        return None


def _steps_off(report: BeamReport, network: Any) -> float:
    """Largest difference of set and read settings, in steps; infinite without read-back."""
    want, got = report.setpoint, report.readback
    if got is None or not np.array_equal(want.slot, got.slot):
        return np.inf
    wired: Array = network.wired & (want.amplitude > 0)
    turn = 2 * np.pi
    phase = np.abs(np.mod(want.phase_rad - got.phase_rad + np.pi, turn) - np.pi) * wired
    off = [np.max(phase, initial=0.0) * 2 ** (network.phase_bits or 20) / turn]
    if network.lines:
        off.append(
            np.max(np.abs(want.delay_s - got.delay_s), initial=0.0)
            * 2 ** (network.delay_bits or 20)
            / network.delay_range_s
        )
    return float(max(off))


class _RecoveryWatch:
    def __init__(self, wanted: Recovery, scenario: Any, names: tuple[str, ...], spec: FrontendSpec | None) -> None:
        self.wanted = wanted
        if not wanted.fault < len(scenario.faults) or scenario.faults[wanted.fault].until_ns is None:
            raise ValueError(f"expect: recovery of fault {wanted.fault}: there must be such a fault, with until_ms")
        fault = scenario.faults[wanted.fault]
        self.struck_ns, self.mended_ns = fault.at_ns, fault.until_ns
        self.before: list[float] = []
        self.since = 0
        self.done = False
        self.last = (0, 0.0)

    def add(self, subframe: Any, period_ns: int) -> tuple[int, float, str] | None:
        kpi: Kpi = subframe.kpi
        rate = float(np.nansum(kpi.rate_bps))
        if kpi.t_ns + period_ns <= self.struck_ns:
            self.before.append(rate)
        elif kpi.t_ns >= self.mended_ns and not self.done:
            self.since, self.last = self.since + 1, (kpi.t_ns, rate)
            usual = self._usual()
            self.done = rate >= self.wanted.share * usual
            if not self.done and self.since >= self.wanted.subframes:
                return (
                    kpi.t_ns,
                    rate,
                    f"{self.since} subframes after the mending the sum rate is {rate * 1e-9:.4g} Gbps; it was {usual * 1e-9:.4g} before",
                )
        return None

    def _usual(self) -> float:
        return float(np.mean(self.before[-self.wanted.subframes :])) if self.before else 0.0

    def finish(self) -> tuple[int, float, str] | None:
        if self.done:
            return None
        return *self.last, "the run ended before it had recovered"


_WATCHERS: dict[type, Any] = {
    Rate: _RateWatch,
    Readback: _ReadbackWatch,
    Recovery: _RecoveryWatch,
    Alive: _AliveWatch,
    Figure: _FigureWatch,
}
