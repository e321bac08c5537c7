"""A run at fidelity ``system``: one event a report, however many users there are."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np

from hal import wire
from hal.array import to_array_frame
from hal.errors import Misuse
from hal.frontend import FrontendSpec
from hal.record import Array, Float
from twin.build import Twin
from twin.kpi import Kpi
from twin.records import Truth
from twin.scenario import Scenario, frame_ns, frontend_spec
from twin.system import Budget, Stretch, at_boresight, nobody, scored

__all__ = ["SystemTwin"]


class SystemTwin(Twin):
    """What a run opens and leaves behind where there is neither machine nor controller: truth and key figures, published and recorded."""

    steerable = False

    def _equip(self, scenario: Scenario) -> FrontendSpec:
        site, sensing, n = scenario.sites[self.site_name], scenario.sensing, self.air.numerology
        spec, control = frontend_spec(scenario, self.site_name), site.control
        channel: Any = scenario.channel
        for name in ("sight_amplitude", "diffuse_share", "echo_amplitude"):
            if not hasattr(channel, name):
                raise Misuse(f"channel: fidelity = 'system' needs its {name}, and {type(channel).__name__} has none")
        taken_ns = sensing.dwells * sensing.frames_per_dwell * frame_ns(sensing)
        self.budget = Budget(
            spec=spec,
            numerology=n,
            channel=channel,
            draws=self.air.draws,
            true_tracks=scenario.system.tracks == "none",
            sensing_blocks=-(-taken_ns // n.block_ns),
            dwells=sensing.dwells,
            **at_boresight(spec, n, control.combining, getattr(control.planning, "squint", 0.3)),
        )
        self.movers = nobody(len(self.user))
        self.user_column = np.searchsorted(self.entity, self.user)
        return spec

    def warnings(self) -> list[str]:
        """None: what is left out is the fidelity's own affair."""
        return []

    def _story(self, first: int, last: int, split: bool) -> Generator[Any, Any, None]:
        engine, n = self.engine, self.air.numerology
        whole, stage = max(1, self.scenario.system.report_ns // n.subframe_ns), engine.ledger.stage
        for k in range(first, last, whole):
            subframes = min(whole, last - k)
            start, end = k * n.subframe_ns, (k + subframes) * n.subframe_ns
            with stage("world"):
                truth, stretch = self._stretch(k, subframes, start, end)
            yield engine.until(end)
            with stage("budget"):
                kpi, self.movers = scored(self.budget, self.movers, stretch)
            with stage("publish"):
                self._say(truth, kpi, subframes)
            engine.pace(end)

    def _stretch(self, k: int, subframes: int, start: int, end: int) -> tuple[Truth, Stretch]:
        """The truth as the stretch begins, and everybody's places during it."""
        t_ns = np.linspace(start, end, 1 - (start - end) // self.scenario.system.sample_ns).astype(np.int64)
        truths = [self.air.world.at(int(t)) for t in t_ns]
        array = self.budget.spec.transmit.array
        position_m = np.full((len(t_ns), len(self.entity), 3), np.nan)
        rcs_m2: Float[Array, " entity"] = np.zeros(len(self.entity))
        for row, truth in zip(position_m, truths, strict=True):
            column = (
                slice(None) if len(truth.entity) == len(self.entity) else np.searchsorted(self.entity, truth.entity)
            )
            row[column], rcs_m2[column] = truth.position_m, truth.rcs_m2
        away_m = np.ascontiguousarray(np.moveaxis(to_array_frame(array, position_m - array.origin_m), -1, 0))
        return truths[0], Stretch(
            k=k,
            subframes=subframes,
            user=self.user,
            user_column=self.user_column,
            entity=self.entity,
            rcs_m2=rcs_m2,
            t_ns=t_ns,
            away_m=away_m,
        )

    def _say(self, truth: Truth, kpi: Kpi, subframes: int) -> None:
        """Publish, record and count one report."""
        records: dict[str, Any] = {"truth.": truth, f"{self.site_name}.kpi.": kpi}
        for topic, record in records.items():
            encoded = wire.encode(record)
            self.hash.add(topic, kpi.t_ns, encoded)
            self.say(topic, record, kpi.t_ns, encoded)
        self.bus.service()
        report = SimpleNamespace(kpi=kpi, truth=truth, reports=[])
        self.expectations.add(report)
        self.summary.add(kpi, np.isin(self.entity, truth.entity))
        self.subframes += subframes
        if self.kept is not None:
            self.kept.append(kpi)
        if self.progress is not None:
            self.progress.show(kpi.k + subframes)
        if self.asked_to_stop():
            raise KeyboardInterrupt
