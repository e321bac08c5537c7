"""The admin's desk in a running twin: pause, go on, step, another pace, a fault, another value of a live parameter, stop.

Each is a question on control, checked and answered at once with a ``Status``, and done at the end of a subframe, so that none is half one
thing and half another. A change is an event of the run; a run that was changed has another hash than one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np

from hal import memory
from hal.errors import Misuse, RemoteFault
from twin.document import ScenarioError
from twin.engine import Engine, Mode
from twin.outside import Event
from twin.scenario import Fault, Scenario, dump, loads, whole
from twin.seats import Post

__all__ = ["LIVE", "VERBS", "Desk", "Status"]

# Parameters that may change while the twin runs: nothing that was made before depends on them. ``*`` is one site.
LIVE = (
    "sensing.detector.*",
    "sites.*.control.tracking.*",
    "sites.*.control.estimation.*",
    "sites.*.control.planning.kind",
    "sites.*.control.planning.service",
    "sites.*.control.planning.averaging_*",
    "sites.*.control.planning.revisit_subframes",
    "sites.*.control.precoding.*",
    "record.beams_*",
    "controllers.*",
)
KINDS = ("sites.*.control.planning.kind", "sites.*.control.precoding.kind")  # another one begins with its defaults
VERBS = ("pause", "resume", "step", "pace", "inject", "mend", "set", "stop", "status")
STEPS = 10**9


class Status(msgspec.Struct):
    """The answer to every admin question: how things stand."""

    k: int  # subframe that ended last
    t_ns: int  # simulated time
    subframes: int  # of the whole run
    paused: bool  # it stands still, and answers
    mode: str  # free, lockstep, paced
    factor: float  # simulated seconds a wall second, where paced
    waiting: list[str]  # what was asked and is done at the end of this subframe
    controllers: dict[str, list[str]]  # who holds which knobs


class Desk:
    """What the admin asked for; the loop's thread owns it.

    ``adjust`` puts a changed scenario in force. ``stopping`` ends a pause, ``clock`` is in ns.
    """

    def __init__(
        self,
        post: Post,
        engine: Engine,
        scenario: Scenario,
        frontend: Any,
        adjust: Callable[[Scenario], None],
        controllers: Callable[[], dict[str, list[str]]],
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.stopped = False
        self._post, self._engine, self._scenario, self._frontend = post, engine, scenario, frontend
        self._adjust, self._controllers, self._stopping, self._clock = adjust, controllers, stopping, clock
        self._paused, self._standing, self._steps = False, False, 0
        self._todo: list[tuple[str, Callable[[], None]]] = []
        self._events: list[tuple[str, str]] = []
        self._k = -1
        for verb in VERBS:
            post.answer(verb, self._answering(getattr(self, f"_{verb}")))

    def said(self, t_ns: int) -> list[Event]:
        """What was asked since it was last asked for."""
        events = [Event(t_ns=t_ns, what=what, who="admin", why=why) for what, why in self._events]
        self._events.clear()
        return events

    def hold(self, k: int) -> None:
        """Subframe ``k`` has ended: do what was asked, and wait here while paused."""
        self._k = k
        self._do()
        if self._paused and not self._steps:
            began, self._standing = self._clock(), True
            while self._paused and not self._steps and not (self.stopped or self._stopping()):
                self._post.wait(50)
                self._post.service()
                self._do()
            self._standing = False
            self._engine.anew(self._engine.pacing, self._clock() - began)
        self._steps = max(self._steps - 1, 0)

    def _do(self) -> None:
        for _, do in self._todo:
            do()
        self._todo.clear()

    def _answering(self, verb: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
        def answer(payload: bytes) -> bytes:
            try:
                given = msgspec.msgpack.decode(payload, type=dict[str, Any]) if payload else {}
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RemoteFault(f"the payload is no map: {error}") from None
            verb(given)
            engine = self._engine
            return msgspec.msgpack.encode(
                Status(
                    k=self._k,
                    t_ns=engine.now,
                    subframes=self._scenario.subframes,
                    paused=self._standing,
                    mode=engine.pacing.mode,
                    factor=engine.pacing.factor,
                    waiting=[said for said, _ in self._todo],
                    controllers=self._controllers(),
                )
            )

        return answer

    def _later(self, what: str, why: str, do: Callable[[], None]) -> None:
        if len(self._todo) >= 256:
            raise Misuse("256 changes wait for the end of this subframe already")
        self._todo.append((f"{what} {why}", do))
        self._events.append((what, why))

    def _status(self, given: dict[str, Any]) -> None:
        """Say how things stand."""

    def _pause(self, given: dict[str, Any]) -> None:
        if not self._paused:
            self._events.append(("paused", ""))
        self._paused, self._steps = True, 0

    def _resume(self, given: dict[str, Any]) -> None:
        if self._paused:
            self._events.append(("resumed", ""))
        self._paused = False

    def _step(self, given: dict[str, Any]) -> None:
        steps = given.get("subframes", 1)
        if not (type(steps) is int and 1 <= steps <= STEPS):
            raise Misuse(f"step subframes = {steps!r}: must be an integer, 1 .. {STEPS}")
        self._paused = True
        self._steps += steps
        self._events.append(("stepped", str(steps)))

    def _stop(self, given: dict[str, Any]) -> None:
        self.stopped = True
        self._events.append(("stopped", ""))

    def _pace(self, given: dict[str, Any]) -> None:
        pacing, factor = self._engine.pacing, given.get("factor")
        if pacing.mode == "lockstep":
            raise Misuse("pace: a lock-step run goes as fast as its controllers let it")
        if not isinstance(factor, int | float) or isinstance(factor, bool):
            raise Misuse(f"pace factor = {factor!r}: must be a number; 1 is real time, 0 as fast as possible")
        mode: Mode = "paced" if factor else "free"
        changed = replace(pacing, mode=mode, factor=float(factor) if factor else pacing.factor)
        self._later("paced", f"{factor:g}", lambda: self._engine.anew(changed))

    def _inject(self, given: dict[str, Any]) -> None:
        if not hasattr(self._frontend, "inject"):
            raise Misuse("inject: this machine is elsewhere; what breaks there, it says itself")
        now_ms = self._engine.now * 1e-6
        for key in ("at_ms", "until_ms"):
            if key in given and not (type(given[key]) in (int, float) and given[key] >= now_ms):
                raise Misuse(f"inject {key} = {given[key]!r}: must be a number, not before the present, {now_ms:g} ms")
        (script,) = self._changed({"faults": [{"at_ms": now_ms, **given}]}).faults
        self._checked(script)

        def strike() -> None:
            now = replace(script, at_ns=max(script.at_ns, self._engine.now))
            self._put(replace(self._scenario, faults=(*self._scenario.faults, now)))

        self._later("injected", " ".join(f"{key}={value}" for key, value in given.items()), strike)

    def _checked(self, script: Fault) -> None:
        """Misuse now, and not in the loop, for what the machine cannot do."""
        for fault in script.broken():
            half = getattr(self._frontend.spec, script.half)
            memory.BeamMemory(script.half, half, noise=lambda label, t_ns, shape: np.zeros(0)).inject(fault, 0)

    def _mend(self, given: dict[str, Any]) -> None:
        if not hasattr(self._frontend, "clear"):
            raise Misuse("mend: this machine is elsewhere; it mends itself")
        self._later("mended", "everything", lambda: self._frontend.clear(None, self._engine.now))

    def _set(self, given: dict[str, Any]) -> None:
        if not given:
            raise Misuse("set: names nothing; write PATH=VALUE")
        for path in given:
            if not any(fnmatchcase(whole(path), pattern) for pattern in LIVE):
                raise Misuse(f"set {path}: is not live, the run was built on it; live are {', '.join(LIVE)}")
            if path.rpartition(".")[2] == "kind" and not any(fnmatchcase(whole(path), kind) for kind in KINDS):
                raise Misuse(f"set {path}: another kind is another run")
        said = " ".join(f"{path}={value}" for path, value in given.items())
        given = dict(
            (path[: -len(".kind")], {"kind": v}) if path.endswith(".kind") else (path, v) for path, v in given.items()
        )
        self._changed(given)  # wrong values are refused at once
        self._later("set", said, lambda: self._put(self._changed(given)))

    def _put(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._adjust(scenario)

    def _changed(self, given: dict[str, Any]) -> Scenario:
        """The scenario with some values replaced, checked whole."""
        try:
            return loads(dump(self._scenario), "<running>", given)
        except ScenarioError as wrong:
            raise Misuse(str(wrong)) from None
