"""Where an environment's twin runs: in a thread of this process, in a process of its own, or anywhere, reached over ZeroMQ.

All are spoken to as any controller is: claim knobs, be asked a ``Moment``, answer it; so an environment is the same on each.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Protocol

import numpy as np

from hal import wire
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.record import Array, Float
from hal.session import Keys, Patience
from twin.bus import NullBus
from twin.outside import Act, Claim, Grant, Moment
from twin.scenario import Scenario, dump

__all__ = ["Apart", "Elsewhere", "Host", "Inside", "about"]

STARTS_S = 60.0  # wall time a twin may take to be there
ASKER = b"gym"


class Host(Protocol):
    """A twin that waits for one controller; ``grant`` is what was claimed."""

    grant: Grant

    def observe(self) -> tuple[Moment, Float[Array, " user"]]:
        """The next moment, and what each user of the run was delivered in the subframe before it (bit/s; zeros before the first).

        Raises RemoteFault where there is none: the run is over, or was lost.
        """

    def act(self, **knobs: Any) -> None:
        """Answer the moment at hand; a knob left out stays as it is."""

    def close(self) -> None:
        """End the run, or leave it where it is not ours; a second call does nothing."""


class _Inner(NullBus):
    """A bus without a wire: the loop's thread on one side, the environment's on the other."""

    def __init__(self) -> None:
        self.run, self.asker = "gym", ASKER
        self.questions: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self.told: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._handlers: dict[str, Callable[[bytes], bytes | None]] = {}

    def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Pass on the key figures."""
        if topic.endswith(".kpi."):
            self.told.put(("kpi", record))

    def tell(self, peer: bytes, kind: str, seq: int, payload: bytes = b"") -> str:
        """Say something to the environment."""
        self.told.put((kind, payload))
        return ""

    def answer(self, kind: str, handler: Callable[[bytes], bytes | None]) -> None:
        """From here on ``handler`` answers the question ``kind``."""
        self._handlers[kind] = handler

    def refused(self) -> list[tuple[str, str]]:
        """Nobody: there is no door."""
        return []

    def wait(self, timeout_ms: int) -> int:
        """Answer what was asked, waiting up to ``timeout_ms`` for it."""
        try:
            kind, payload = self.questions.get(timeout=timeout_ms * 1e-3) if timeout_ms else self.questions.get_nowait()
        except Empty:
            return 0
        try:
            answer = self._handlers[kind](payload)
        except (Misuse, RemoteFault) as error:
            self.told.put(("failed", error))
        else:
            if answer is not None:
                self.told.put(("answer", answer))
        return 1


class Inside:
    """A twin in a thread of this process: no wire, the same words."""

    def __init__(self, scenario: Scenario, claim: Claim) -> None:
        self._inner, self._closed = _Inner(), False
        self._moment = -1
        self._rate_bps: Float[Array, " user"] | None = None
        self._thread = Thread(target=self._play, args=(_waiting(scenario, claim),), name="twin", daemon=True)
        self._inner.questions.put(("claim", wire.encode(claim)))
        self._thread.start()
        self.grant: Grant = wire.decode(self._heard("answer"), Grant)

    def observe(self) -> tuple[Moment, Float[Array, " user"]]:
        """The next moment and the rates before it."""
        moment: Moment = wire.decode(self._heard("observe"), Moment)
        self._moment = moment.moment
        return moment, np.zeros(len(self.grant.users)) if self._rate_bps is None else self._rate_bps

    def act(self, **knobs: Any) -> None:
        """Answer the moment at hand."""
        self._inner.questions.put(("act", wire.encode(Act(moment=self._moment, **knobs))))

    def close(self) -> None:
        """Stop at the end of the subframe and wait for it."""
        if not self._closed:
            self._closed = True
            self._inner.questions.put(("stop", b""))
            self._thread.join()

    def _play(self, scenario: Scenario) -> None:
        from twin.build import Twin

        try:
            with Twin(scenario, bus=self._inner) as twin:
                self._inner.wait(round(STARTS_S * 1e3))  # the claim
                twin.play(split=False, progress=False)
            self._inner.told.put(("failed", RemoteFault("the run is over")))
        except Exception as error:
            self._inner.told.put(("failed", error))

    def _heard(self, wanted: str) -> bytes:
        while True:
            kind, said = self._inner.told.get()
            if kind == wanted:
                return bytes(said)
            if kind == "kpi":
                self._rate_bps = said.rate_bps
            elif kind == "refused":
                raise Misuse(said.decode())
            elif kind == "failed":
                raise said


def about(endpoint: str, keys: Keys | None = None) -> dict[str, Any]:
    """What the twin at a state endpoint says it is: scenario, seed, sites, users."""
    from twin.client import connect

    with connect(endpoint, "run.", keys=keys) as listener:
        until = time.monotonic() + STARTS_S
        while time.monotonic() < until:
            message = listener.receive(1.0)
            if message is not None and message.kind == "start":
                return dict(message.data["about"])
    raise LateArrival(f"{endpoint}: no twin said within {STARTS_S:g} s what it is")


class Elsewhere:
    """A running twin at a state endpoint, through ``twin.agent``; it must be in lock-step. ``keys`` as for any client.

    Raises Misuse where it runs another seed than ``seed`` (None: any will do).
    """

    def __init__(self, endpoint: str, claim: Claim, keys: Keys | None = None, seed: int | None = None) -> None:
        from twin.agent import Agent
        from twin.client import connect

        runs = about(endpoint, keys)["seed"]
        if seed not in (None, runs):
            raise Misuse(f"seed = {seed}: the twin at {endpoint} runs seed {runs}; start it with --seed {seed}")
        self._listener = connect(endpoint, f"{claim.knobs[0].partition('.')[0]}.kpi.", keys=keys)
        try:
            self._listener.receive(STARTS_S)  # joins: from here on no key figure is missed
            self._agent = Agent(self._listener.control, claim, patience=Patience(5.0, STARTS_S), keys=keys)
        except BaseException:
            self._listener.close()
            raise
        self.grant = self._agent.grant

    def observe(self) -> tuple[Moment, Float[Array, " user"]]:
        """The next moment and the rates before it."""
        moment = self._agent.observe(float("inf"))
        if self._agent.counts["refused"]:
            raise Misuse("the twin refused the last answer; its log says why")
        if moment is None:
            raise RemoteFault("the run is over")
        return moment, self._rates(moment.k - 1)

    def act(self, **knobs: Any) -> None:
        """Answer the moment at hand."""
        self._agent.act(**knobs)

    def close(self) -> None:
        """Hand the knobs back and leave."""
        self._agent.close()
        self._listener.close()

    def _rates(self, k: int) -> Float[Array, " user"]:
        """Of subframe ``k``: said before the moment that follows it, on another socket, so it may still be on its way."""
        said_k, rate_bps = -1, np.zeros(len(self.grant.users))
        while said_k < k:
            message = self._listener.receive(STARTS_S)
            if message is None:
                raise LateArrival(f"the key figures of subframe {k} did not come within {STARTS_S:g} s")
            if message.kind == "event":
                said_k, rate_bps = message.data["k"], message.data["rate_bps"]
        return rate_bps


class Apart:
    """A twin in a process of its own, spoken to over ZeroMQ."""

    def __init__(self, scenario: Scenario, claim: Claim) -> None:
        self._folder = TemporaryDirectory(prefix="twin-")
        at = Path(self._folder.name)
        state = f"ipc://{at}/state"
        (at / "scenario.yaml").write_text(dump(_waiting(scenario, claim)), encoding="utf-8")
        asked = [sys.executable, "-m", "twin", "run", str(at / "scenario.yaml"), "--out", str(at / "run"), "--json"]
        with (at / "log").open("wb") as log:
            self._twin = subprocess.Popen([*asked, "--no-report", "--state", state], stdout=log, stderr=log)
        self._line: Elsewhere | None = None
        try:
            until = time.monotonic() + STARTS_S
            while not (at / "state.control").exists() and self._twin.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            if not (at / "state.control").exists():
                raise RemoteFault(f"the twin did not start: {(at / 'log').read_text(errors='replace')[-2000:]}")
            self._line = Elsewhere(state, claim)
        except BaseException:
            self.close()
            raise
        self.grant, self.observe, self.act = self._line.grant, self._line.observe, self._line.act

    def close(self) -> None:
        """End the run."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._twin.poll() is None:
            self._twin.terminate()
        self._twin.wait()
        self._folder.cleanup()


def _waiting(scenario: Scenario, claim: Claim) -> Scenario:
    """The scenario as a run that waits for its controller, however long that thinks."""
    outside = replace(scenario.controllers, wait_for=(claim.name,), debug=True)
    return replace(scenario, clock=replace(scenario.clock, mode="lockstep"), controllers=outside, expect=())
