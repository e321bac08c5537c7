"""Simulated time in whole nanoseconds, its pace against the wall clock, and a ledger of where a subframe's time goes.

Nothing that decides may read the wall clock: ``Engine.pace`` delays, it changes no simulated value, and what the ledger
measures is reported and stays outside the run hash.
"""

from __future__ import annotations

import math
import operator
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import simpy
from simpy.events import NORMAL, Event, Timeout

from hal.check import Ge, Gt, In
from hal.errors import LateArrival, Misuse

__all__ = ["Engine", "Ledger", "Mode", "Overrun", "Pacing", "Tally", "table", "whole"]

Mode = Literal["free", "paced", "lockstep"]
Overrun = Literal["stretch", "hold", "skip", "ease", "abort"]
EASED_SUBFRAMES = 40  # in time in a row, before quality goes up again


@dataclass(frozen=True)
class Pacing:
    """How simulated time relates to the wall clock.

    ``free`` and ``lockstep`` never wait for the wall clock (lockstep waits for controllers, elsewhere). ``paced``
    reaches each subframe's end no earlier than its deadline ``epoch + t / factor``; what happens to a subframe that is
    late is named by ``overrun``:

    - ``stretch`` slips the epoch by the lateness: every later deadline is as much later, no subframe is hurried, and
      the twin falls behind the wall clock.
    - ``hold`` keeps the epoch and runs late: nothing is dropped, the beam in force stays in force for longer on the
      wall clock, and subframes that take less than their period catch up without waiting.
    - ``skip`` drops to the next deadline that is still ahead and counts those it dropped: the epoch slips by whole
      periods, so that subframes stay on the wall clock's grid (what frame-aligned hardware outside needs). No simulated
      subframe is left out, in this policy or in any other.
    - ``ease`` is ``hold`` with less searching: from the subframe after next on the parts under control take their cheapest settings
      (``twin.easing``), until forty subframes in a row were in time. What it changes is recorded as an admin's change is, so
      that the run can be had again.
    - ``abort`` raises LateArrival, which names the subframe, the lateness and the stage that took longest.
    """

    mode: Mode = "free"
    factor: Annotated[float, Gt(0)] = 1.0  # simulated seconds a wall second: 1 is real time, 0.5 half as fast
    overrun: Overrun = "stretch"  # what a late subframe does: stretch, hold, skip, ease or abort
    spin_ns: Annotated[int, In("us"), Ge(0)] = (
        100_000  # spun at a wait's end; up to five times it where sleeps wake later
    )

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise Misuse(f"clock.mode = {self.mode!r}: must be one of {', '.join(get_args(Mode))}")
        if self.overrun not in get_args(Overrun):
            raise Misuse(f"clock.overrun = {self.overrun!r}: must be one of {', '.join(get_args(Overrun))}")
        if not 0 < self.factor < float("inf"):
            raise Misuse(f"clock.factor = {self.factor!r}: must be a finite number > 0; not to wait, use mode = 'free'")
        if not self.spin_ns >= 0:
            raise Misuse(f"clock.spin_ns = {self.spin_ns!r}: must be >= 0; 0 sleeps only")


def whole(field: str, value: Any) -> int:
    """Return ``value`` as an int of nanoseconds; raise Misuse for what is no integer, 5e6 included."""
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise Misuse(f"{field} = {value!r}: must be an integer of nanoseconds; 5 ms is 5_000_000") from None


class Tally:
    """Count, sum, maximum and percentiles of non-negative integers in bounded memory.

    Values fall into bins of relative width at most 1/64 (exact below 128), so a percentile is exact or at most 1.6 %
    above the sample at that rank; maximum and sum are exact.
    """

    __slots__ = ("_bins", "count", "max", "sum")

    def __init__(self) -> None:
        self._bins = array("q", bytes(8 * 64 * 59))
        self.count = 0
        self.sum = 0
        self.max = 0

    def add(self, value: int) -> None:
        """Count one value; a negative one counts as 0."""
        if value < 0:
            value = 0
        shift = value.bit_length() - 7
        self._bins[value if shift < 0 else (shift << 6) + (value >> shift)] += 1
        self.count += 1
        self.sum += value
        if value > self.max:
            self.max = value

    def at(self, share: float) -> int:
        """The value that a ``share`` (0..1) of the samples do not exceed (nearest rank); 0 when there are none."""
        left = max(1, math.ceil(share * self.count - 1e-9))
        for k, n in enumerate(self._bins):
            left -= n
            if left <= 0:
                shift = max((k >> 6) - 1, 0)
                return min(self.max, ((k - (shift << 6) + 1) << shift) - 1)
        return 0


class _Stage:
    """One named stage: a context manager made once and entered every subframe."""

    __slots__ = ("_cpu", "_cpu0", "_wall", "_wall0", "cpu", "cpu_ns", "name", "wall", "wall_ns")

    def __init__(self, name: str, wall: Callable[[], int], cpu: Callable[[], int]) -> None:
        self.name = name
        self._wall, self._cpu = wall, cpu
        self._wall0 = self._cpu0 = 0
        self.wall_ns = self.cpu_ns = 0  # of this subframe, so far
        self.wall, self.cpu = Tally(), Tally()

    def __enter__(self) -> _Stage:
        self._cpu0 = self._cpu()
        self._wall0 = self._wall()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall_ns += self._wall() - self._wall0
        self.cpu_ns += self._cpu() - self._cpu0


class Ledger:
    """Where the time of a subframe goes: wall and CPU time of each named stage, and of the whole.

    ``with ledger.stage("sensing"): ...`` adds to that stage in this subframe, as often as it is entered (a stage may
    not be entered within itself; of two stages one inside the other, the outer includes the inner). ``turn`` ends the
    subframe. CPU is the calling thread's.
    """

    def __init__(
        self, clock: Callable[[], int] = time.perf_counter_ns, cpu: Callable[[], int] = time.thread_time_ns
    ) -> None:
        self._clock, self._cpu = clock, cpu
        self._stages: dict[str, _Stage] = {}
        self._wall, self._cpu_total, self._lag = Tally(), Tally(), Tally()
        self._wall0, self._cpu0 = clock(), cpu()
        self._budget_ns = 0
        self._waiting: int | None = None  # a lag that is not entered yet
        self.last: dict[str, int] = {}  # wall ns of each stage in the subframe that last ended
        self.misses = 0  # subframes that took longer than their budget

    def stage(self, name: str) -> _Stage:
        """The context manager that accounts for the stage ``name``."""
        stage = self._stages.get(name)
        if stage is None:
            stage = self._stages[name] = _Stage(name, self._clock, self._cpu)
        return stage

    def resume(self, now: int | None = None) -> None:
        """The subframe's own time starts here, or where the wall clock said ``now``; waiting before it is nobody's."""
        self._wall0, self._cpu0 = self._clock() if now is None else now, self._cpu()

    def forgive(self, wall_ns: int) -> None:
        """Leave ``wall_ns`` just spent out of the subframe: the loop was told to wait."""
        self._wall0 += wall_ns

    def turn(self, budget_ns: int) -> None:
        """End the subframe, which had ``budget_ns`` of wall time, and start the next."""
        wall0, cpu0 = self._wall0, self._cpu0
        self.resume()
        wall_ns = self._wall0 - wall0
        self._wall.add(wall_ns)
        self._cpu_total.add(self._cpu0 - cpu0)
        self._settle()
        self._budget_ns = budget_ns
        self.misses += wall_ns > budget_ns
        self.last = {}
        for name, stage in self._stages.items():
            self.last[name] = stage.wall_ns
            stage.wall.add(stage.wall_ns)
            stage.cpu.add(stage.cpu_ns)
            stage.wall_ns = stage.cpu_ns = 0

    def late(self, lag_ns: int) -> None:
        """Count how late a subframe ended against its deadline; entered with the next one's end, when there is time for it."""
        self._settle()
        self._waiting = lag_ns

    def _settle(self) -> None:
        if self._waiting is not None:
            self._lag.add(self._waiting)
            self._waiting = None

    def slowest(self) -> str:
        """The stage that took longest in the subframe that last ended, or ''."""
        return max(self.last, key=self.last.__getitem__, default="")

    def report(self) -> dict[str, Any]:
        """What was measured, in plain numbers: times in microseconds, shares of the subframe's budget.

        ``subframes, budget_us, misses`` (work longer than the budget), ``subframe`` and ``lag`` and one entry of
        ``stages`` a stage: ``p50 p95 p99 max mean`` of wall time, ``cpu_p50 cpu_mean`` and ``share`` (mean CPU time
        over the budget).
        """
        self._settle()
        budget = self._budget_ns

        def spread(wall: Tally) -> dict[str, float]:
            marks = {f"p{round(100 * q)}_us": wall.at(q) / 1e3 for q in (0.5, 0.95, 0.99)}
            return {**marks, "max_us": wall.max / 1e3, "mean_us": wall.sum / max(wall.count, 1) / 1e3}

        def both(wall: Tally, cpu: Tally) -> dict[str, float]:
            mean_ns = cpu.sum / max(cpu.count, 1)
            return {
                **spread(wall),
                "cpu_p50_us": cpu.at(0.5) / 1e3,
                "cpu_mean_us": mean_ns / 1e3,
                "share": mean_ns / budget if budget else 0.0,
            }

        return {
            "subframes": self._wall.count,
            "budget_us": budget / 1e3,
            "misses": self.misses,
            "subframe": both(self._wall, self._cpu_total),
            "lag": spread(self._lag),
            "stages": {name: both(stage.wall, stage.cpu) for name, stage in self._stages.items()},
        }


class Engine(simpy.Environment):
    """SimPy with integer nanoseconds, paced only where the loop asks.

    ``clock`` counts wall nanoseconds without stepping, ``sleep`` takes seconds, ``cpu`` counts the thread's CPU
    nanoseconds: all three are injectable. Times and delays that are not integers raise Misuse: one float in the queue
    would round every later time.
    """

    def __init__(
        self,
        pacing: Pacing | None = None,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
        cpu: Callable[[], int] = time.thread_time_ns,
        initial_ns: int = 0,
    ) -> None:
        super().__init__(whole("initial_ns", initial_ns))
        self.pacing = Pacing() if pacing is None else pacing
        self.ledger = Ledger(clock, cpu)
        self.lag_ns = 0  # of the subframe that last ended, against its deadline
        self.late = 0  # deadlines that had passed when their subframe ended
        self.skipped = 0  # deadlines dropped (overrun = skip)
        self.eased = False  # quality is to be low (overrun = ease)
        self._calm = 0  # subframes in time, in a row
        self.slipped_ns = 0  # how far the epoch has moved (overrun = stretch or skip)
        self._clock, self._sleep = clock, sleep
        self._spin_ns = (
            self.pacing.spin_ns
        )  # how early to wake: learnt, since a machine may oversleep by more than asked
        self._epoch: int | None = None  # wall time of simulated time _origin
        self._origin = self._paced = initial_ns

    @property
    def now(self) -> int:
        """The present, in ns."""
        return self._now  # type: ignore[return-value]

    def schedule(self, event: Event, priority: Any = NORMAL, delay: Any = 0) -> None:
        """Schedule ``event``; the delay is an integer of nanoseconds."""
        super().schedule(event, priority, delay if type(delay) is int else whole("delay", delay))

    def until(self, t_ns: int) -> Timeout:
        """An event at the absolute time ``t_ns``, now or later."""
        t_ns = whole("t_ns", t_ns)
        if t_ns < self._now:
            raise Misuse(f"until({t_ns}): lies {self._now - t_ns} ns before the present, t = {self._now} ns")
        return self.timeout(t_ns - self.now)

    def run(self, until: Any = None) -> Any:
        """Run to ``until``: None (no events left), an event, or a time in integer nanoseconds."""
        if until is not None and not isinstance(until, Event):
            until = whole("until", until)
            if until <= self._now:
                raise Misuse(f"run(until={until}): must be later than the present, t = {self._now} ns")
        return super().run(until)

    def start(self) -> None:
        """Set the epoch: simulated time now is wall time now.

        Call it after warming up; without it the first ``pace`` is in time by definition.
        """
        self._epoch = self._clock()
        self._origin = self._paced = self.now
        self.ledger.resume(self._epoch)

    def anew(self, pacing: Pacing, idle_ns: int = 0) -> None:
        """Keep this pace from here on: the next subframe's end is in time by definition, and ``idle_ns`` just waited is nobody's."""
        self.pacing, self._epoch = pacing, None
        self.ledger.forgive(idle_ns)

    def pace(self, t_ns: int) -> int:
        """End the subframe that ends at ``t_ns``: wait for its deadline where paced, and return the lag in ns.

        The wait sleeps to ``spin_ns`` before the deadline and spins from there; on a machine whose sleeps wake later than that
        it learns to wake earlier. Deadlines are absolute, so lags do not add up. The lag is wall time minus deadline when the
        wait is over: for a subframe that was in time, how late the machine woke. Raises LateArrival under ``abort``.
        """
        t_ns = whole("t_ns", t_ns)
        period_ns = t_ns - self._paced
        if not period_ns > 0:
            raise Misuse(f"pace({t_ns}): subframes end in order; the last ended at t = {self._paced} ns")
        self._paced = t_ns
        pacing, clock = self.pacing, self._clock
        budget_ns = round(period_ns / pacing.factor)
        self.ledger.turn(budget_ns)
        if pacing.mode != "paced":
            self.lag_ns = 0
            return 0
        now = clock()
        if self._epoch is None:
            self._epoch, self._origin = now, t_ns
        deadline = self._epoch + round((t_ns - self._origin) / pacing.factor)
        if (
            deadline - now > budget_ns + 1
        ):  # no subframe ends before it began: the clock went back, and the epoch goes with it
            self._epoch -= deadline - now - budget_ns
            deadline = now + budget_ns
        wait_ns, in_time = deadline, now <= deadline
        if not in_time:
            self.late += 1
            self.lag_ns = now - deadline
            wait_ns = self._overrun(t_ns, now, deadline, budget_ns)
        self._calm = self._calm + 1 if in_time else 0
        self.eased = pacing.overrun == "ease" and (not in_time or (self.eased and self._calm < EASED_SUBFRAMES))
        ahead = wait_ns - now - self._spin_ns
        before = now
        if ahead > 0:
            self._sleep(ahead * 1e-9)
            now = clock()
            needed = now - (wait_ns - self._spin_ns) + pacing.spin_ns // 4
            needed = min(max(needed, pacing.spin_ns), 5 * pacing.spin_ns)
            self._spin_ns += (needed - self._spin_ns) // 4  # one late wake in many is no reason to spin longer
        while before <= now < wait_ns:  # a clock that goes back meanwhile is not waited for
            before, now = now, clock()
        if in_time:
            self.lag_ns = now - deadline
        self.ledger.late(self.lag_ns)
        self.ledger.resume(now)  # nothing more between the deadline and the next subframe
        return self.lag_ns

    def _overrun(self, t_ns: int, now: int, deadline: int, budget_ns: int) -> int:
        """The deadline to wait for after missing ``deadline``, by the policy; moves the epoch where the policy does."""
        policy = self.pacing.overrun
        late_ns = now - deadline
        if policy == "abort":
            slowest = self.ledger.slowest()
            most = f"; longest stage: {slowest}, {self.ledger.last[slowest] / 1e3:.0f} us" if slowest else ""
            raise LateArrival(
                f"the subframe that ends at t = {t_ns} ns was {late_ns / 1e3:.0f} us late "
                f"(it has {budget_ns / 1e3:.0f} us of wall time){most}. "
                f"clock.overrun = abort stops here; to go on choose stretch, hold, skip or ease, "
                f"or a clock.factor below {self.pacing.factor:g}"
            )
        slip_ns = 0
        if policy == "stretch":
            slip_ns = late_ns
        elif policy == "skip":
            dropped = -(-late_ns // budget_ns)
            self.skipped += dropped
            slip_ns = dropped * budget_ns
        self.slipped_ns += slip_ns
        if self._epoch is not None:
            self._epoch += slip_ns
        return deadline + slip_ns

    def report(self) -> dict[str, Any]:
        """The ledger's report with the clock's own counts: ``mode, factor, overrun, late, skipped, slipped_us``."""
        pacing = self.pacing
        return {
            "mode": pacing.mode,
            "factor": pacing.factor,
            "overrun": pacing.overrun,
            "late": self.late,
            "skipped": self.skipped,
            "slipped_us": self.slipped_ns / 1e3,
            **self.ledger.report(),
        }


_COLUMNS = ("p50_us", "p95_us", "p99_us", "max_us", "cpu_p50_us", "share")


def table(report: dict[str, Any], columns: Sequence[str] = _COLUMNS) -> str:
    """``Engine.report()`` as a table for people, one line a stage."""
    rows = [("stage", *columns)]
    for name, spread in [*report["stages"].items(), ("subframe", report["subframe"]), ("lag", report["lag"])]:
        shown = {c: f"{100 * v:.1f} %" if c == "share" else f"{v:.1f}" for c, v in spread.items()}
        rows.append((name, *(shown.get(c, "") for c in columns)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
