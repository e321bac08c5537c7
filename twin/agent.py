"""A controller in a process of its own: claim knobs of a running twin, see what it believes, and set them.

A whole controller::

    from twin.client import control

    with control("tcp://127.0.0.1:5570", "mine", "bs0.plan") as site:
        for moment in site:
            site.act(plan=better(moment.plan, moment.belief))

Each moment is answered once; a moment that is not answered when the next one is asked for is answered with no change.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from types import TracebackType

from hal import wire
from hal.errors import Misuse, RemoteFault
from hal.session import Client, Keys, Patience
from twin.outside import Act, Applied, Claim, Grant, Moment
from twin.records import BasebandCommand, BeamsCommand, Plan, Truth

__all__ = ["Agent"]

_log = logging.getLogger("twin.controllers")


class Agent:
    """A claim and the conversation that follows; one thread owns it. Iterating ends with the run.

    ``grant`` says what it holds and what the machine is; ``applied`` is what became of its knobs in the last subframe; ``truth``, for an
    oracle, belongs to the moment at hand; ``counts`` are moments, acts, and refusals. Raises Misuse where the claim is refused,
    RemoteFault where the twin drops it or is lost, LateArrival where it does not answer.
    """

    def __init__(
        self,
        control: str,
        claim: Claim,
        *,
        patience: Patience | None = None,
        keys: Keys | None = None,
        silence_s: float = float("inf"),
    ) -> None:
        self.applied: Applied | None = None
        self.truth: Truth | None = None
        self.counts: Counter[str] = Counter()
        self.over = False
        self._silence_s = silence_s
        self._moment: Moment | None = None
        self._session = Client(control, patience or Patience(1.0, 5.0), keys, name=claim.name)
        try:
            self.grant: Grant = wire.decode(self._session.ask("claim", wire.encode(claim)), Grant)
        except BaseException:
            self._session.close()
            raise

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Moment]:
        while not self.over:
            moment = self.observe(self._silence_s)
            if moment is not None:
                yield moment

    def observe(self, timeout_s: float) -> Moment | None:
        """The next moment; None if none came in ``timeout_s``, or the run is over (``over``)."""
        if self._moment is not None:
            self.act()
        while not self.over:
            heard = self._session.hear(min(timeout_s, 3600.0))
            if heard is None:
                if timeout_s <= 3600.0:
                    return None
                continue
            kind, _, payload = heard
            if kind == "observe":
                self._moment = wire.decode(payload, Moment)
                self.counts["moments"] += 1
                return self._moment
            self._take(kind, payload)
        return None

    def act(
        self, plan: Plan | None = None, beams: BeamsCommand | None = None, baseband: BasebandCommand | None = None
    ) -> None:
        """Answer the moment at hand; a knob left out stays as it is."""
        if self._moment is None:
            raise Misuse("act: there is no moment to answer; each is answered once, and observe() brings the next")
        act = Act(moment=self._moment.moment, plan=plan, beams=beams, baseband=baseband)
        self._moment = None
        self._session.tell("act", wire.encode(act))
        self.counts["acts"] += 1

    def close(self) -> None:
        """Hand the knobs back and leave; a second call does nothing."""
        if not self.over:
            self.over = True
            try:
                self._session.ask("bye")
            except (RemoteFault, TimeoutError, Misuse) as error:
                _log.info("bye was not answered: %s", error)
        self._session.close()

    def _take(self, kind: str, payload: bytes) -> None:
        if kind == "applied":
            self.applied = wire.decode(payload, Applied)
        elif kind == "truth":
            self.truth = wire.decode(payload, Truth)
        elif kind in ("refused", "misuse", "fault"):
            self.counts["refused"] += 1
            _log.warning("refused: %s", payload.decode(errors="replace"))
        elif kind == "dropped":
            self.over = True
            why = payload.decode(errors="replace")
            if why != "the run is over":
                raise RemoteFault(f"{self._session}: {self.grant.name} lost its knobs: {why}")
