"""Everything of a run that others may touch while it runs: the controllers' seats, the seam they sit at, and the admin's desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from twin.bus import ZmqBus
from twin.control import Chain
from twin.desk import Desk
from twin.engine import Engine
from twin.loop import Site, Subframe
from twin.outside import Claim, Event, Grant
from twin.records import Truth
from twin.scenario import Scenario
from twin.seam import Seam
from twin.seats import Seats

__all__ = ["Helm"]


class Helm:
    """Opened with a run that has a bus; ``site.controller`` becomes the seam.

    ``users`` by name; ``truth`` is for oracles; ``change`` puts a changed scenario in force; ``stopping`` ends every wait.
    """

    def __init__(
        self,
        bus: ZmqBus,
        engine: Engine,
        scenario: Scenario,
        site: Site,
        chain: Chain,
        users: dict[str, int],
        truth: Callable[[int], Truth],
        change: Callable[[Scenario], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._k, self._bus = 0, bus
        rules, mode = scenario.controllers, scenario.clock.mode

        def grant(claim: Claim) -> Grant:
            return Grant(
                name=claim.name,
                knobs=claim.knobs,
                run=bus.run,
                k=self._k,
                clock=mode,
                deadline_ns=self.seats.rules.deadline_ns,
                on_miss=self.seats.rules.on_miss,
                spec=chain.spec,
                numerology=chain.numerology,
                users=users,
            )

        def adjust(changed: Scenario) -> None:
            self.seats.rules = changed.controllers
            change(changed)

        self.seats = Seats(site.name, bus, rules, mode, grant, lambda: stopping() or self.desk.stopped)
        self.desk = Desk(bus, engine, scenario, site.frontend, adjust, self._holders, stopping)
        self.seam = Seam(chain, self.seats, np.array(sorted(users.values()), dtype=np.int64), truth)
        site.controller = self.seam

    def turn(self, subframe: Subframe) -> list[tuple[str, Any]]:
        """Subframe over: tell the controllers; return what there is to say, as (topic under the site, record)."""
        self._k = subframe.k + 1
        steering, events, commanded = self.seam.turn(subframe.k, subframe.t_ns, subframe.reports)
        said: list[tuple[str, Any]] = [("command.", one) for one in commanded]
        turned_away = [Event(t_ns=subframe.t_ns, what="refused", who=who, why=why) for who, why in self._bus.refused()]
        said += [("event.", event) for event in (*turned_away, *events, *self.desk.said(subframe.t_ns))]
        return said if steering is None else [*said, ("control.", steering)]

    def told(self) -> dict[str, Any]:
        """For the summary: how often controllers answered and how often not."""
        return dict(self.seats.counts)

    def _holders(self) -> dict[str, list[str]]:
        return {seat.claim.name: list(seat.claim.knobs) for seat in self.seats.seats}
