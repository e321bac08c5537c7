"""A recorded run played again, and held against its recording record by record: what ``twin replay --verify`` and ``twin fork`` prove."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hal import wire
from hal.devices.sim import Sim
from hal.errors import Misuse
from twin.build import Twin, warm_up
from twin.bus import NullBus
from twin.client import plain
from twin.control import Chain
from twin.engine import Pacing
from twin.history import told as summary_of
from twin.outside import Act, Commanded, Steering
from twin.record import Row, RunHash
from twin.records import Belief, Change, Command, EchoObservation, PilotObservation
from twin.reel import Reel
from twin.scenario import Bus, Scenario, ScenarioError, load, loads

__all__ = ["Scripted", "UnlikeError", "Witness", "again", "retrace", "scenario_of", "told", "verify"]

BUILT_IN, HELD = "built-in", "held"  # who set a knob, when it was no controller outside
DECIDED = ("truth.", "plan.", "belief.", "kpi.")  # what the run hash is over, without the site's name


class UnlikeError(Exception):
    """A record came out otherwise than it was recorded."""


class Witness(NullBus):
    """A bus that holds what is published against a recording: topic by topic, each record's time and bytes.

    ``until_ns`` ends the comparison (from there on everything is taken). ``compared`` counts the records that were equal; ``both`` and
    ``recorded`` are hashes over what was said and over what was recorded, of the records a run hash is over. A record that differs raises
    UnlikeError, with its place in words. Topics that the recording lacks are left alone.
    """

    def __init__(self, reel: Reel, until_ns: int | None = None) -> None:
        self.reel, self.until_ns = reel, until_ns
        self.compared = 0
        self.said, self.recorded = RunHash(), RunHash()
        self._rows: dict[str, Iterator[Row]] = {topic: reel.rows(topic) for topic in reel.topics}

    def publish(self, topic: str, record: Any, t_ns: int, encoded: bytes | None = None) -> None:
        """Compare one record."""
        rows = self._rows.get(topic)
        if (
            encoded is None
            or rows is None
            or topic.endswith(".change.")
            or (self.until_ns is not None and t_ns >= self.until_ns)
        ):
            return
        row = next(rows, None)
        if row is None:
            raise UnlikeError(f"{topic} at t = {t_ns * 1e-9:g} s: the recording of this topic ends before")
        if topic.endswith(DECIDED):
            self.said.add(topic, t_ns, encoded)
            self.recorded.add(topic, row.t_ns, row.data)
        if (row.t_ns, row.data) != (t_ns, encoded):
            raise UnlikeError(unlike(topic, t_ns, encoded, row))
        self.compared += 1


def unlike(topic: str, t_ns: int, encoded: bytes, row: Row) -> str:
    """Where two records differ, in words."""
    where = f"{topic} at t = {t_ns * 1e-9:g} s"
    if row.t_ns != t_ns:
        return f"{where}: the recording has one at t = {row.t_ns * 1e-9:g} s instead"
    ours, theirs = (plain(msgspec.msgpack.decode(data)) for data in (encoded, row.data))
    names = list(differing(ours, theirs))
    return f"{where}: differs in {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def differing(ours: Any, theirs: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the fields in which two documents differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from differing(ours.get(key), theirs.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        if ours.shape != theirs.shape or ours.tobytes() != theirs.tobytes():
            yield name
    elif repr(ours) != repr(theirs):
        yield name


def scenario_of(reel: Reel) -> Scenario:
    """The scenario that a recording was made with; Misuse where it is not known, or not to be simulated again."""
    text = reel.about.get("scenario")
    file = reel.path.with_name("scenario.yaml")
    if text is None and not file.is_file():
        raise Misuse(
            f"{reel.path}: neither the recording nor a scenario.yaml beside it says which scenario it is of, so it cannot be run again; put the scenario there"
        )
    try:
        scenario = load(file) if text is None else loads(text, str(file))
    except ScenarioError as wrong:
        raise Misuse(f"{reel.path}: its scenario is not understood any more: {wrong}") from None
    for name, site in scenario.sites.items():
        if not isinstance(site.device, Sim):
            raise Misuse(
                f"{reel.path}: site {name} has a machine elsewhere, whose noise cannot be had again; only a simulated run can be run again"
            )
    return scenario


def again(scenario: Scenario) -> Scenario:
    """The same, as fast as it goes, published nowhere, expecting nothing: none of it changes what is decided."""
    return replace(scenario, clock=Pacing(), bus=Bus(), expect=())


class Scripted:
    """A controller that decides again what was decided: by controllers outside as they acted, the rest by the built-in chain.

    Mirrors ``twin.seam.Seam`` for what it said: ``steering`` names who set each knob in each subframe, ``acts`` are what they set.
    """

    def __init__(
        self, chain: Chain, steering: Mapping[int, Steering], acts: Mapping[tuple[int, str], list[Act]]
    ) -> None:
        self.chain, self.steering, self.acts = chain, steering, acts

    @property
    def belief(self) -> Belief:
        """What the control plane knows."""
        return self.chain.belief

    def first(self) -> Command:
        """The built-in chain's."""
        return self.chain.first()

    def steer(self, echo: EchoObservation) -> Command:
        """Perceive, and set plan and beams as they were set."""
        chain, by = self.chain, self.steering.get(echo.k)
        if by is None:
            return chain.steer(echo)
        chain.perceive(echo)
        plan = self._set(echo.k, "plan", by.plan, lambda: chain.plan(echo))
        plan = replace(echo.plan, k=echo.k + 1) if plan is None else plan
        beams = self._set(echo.k, "beams", by.beams, lambda: chain.point(echo, plan))
        if beams is not None and by.beams != BUILT_IN:
            chain.adopt(beams)
        return Command(plan=plan, beams=beams)

    def precode(self, pilots: PilotObservation) -> Command:
        """Estimate, and set the baseband as it was set."""
        chain, by = self.chain, self.steering.get(pilots.k)
        if by is None:
            return chain.precode(pilots)
        chain.estimate(pilots)
        baseband = self._set(pilots.k, "baseband", by.baseband, lambda: chain.baseband(len(pilots.update_ns)))
        chain.foresee(pilots, baseband)
        return Command(baseband=baseband)

    def _set(self, k: int, knob: str, who: str, built_in: Callable[[], Any]) -> Any:
        if who in (BUILT_IN, HELD):
            return built_in() if who == BUILT_IN else None
        given = [getattr(act, knob) for act in self.acts.get((k, who), []) if getattr(act, knob) is not None]
        if not given:
            raise UnlikeError(f"subframe {k}: {who} set the {knob}, but the recording does not say how")
        return given[0]


def script(reel: Reel, site: str, chain: Chain) -> Scripted | Chain:
    """The controller of a run done again: the chain itself where nobody else ever had a say."""
    told: list[Steering] = [wire.decode(row.data, Steering) for row in reel.rows(f"{site}.control.")]
    steering = {one.k: one for one in told}
    acts: dict[tuple[int, str], list[Act]] = {}
    for row in reel.rows(f"{site}.command."):
        one: Commanded = wire.decode(row.data, Commanded)
        acts.setdefault((one.k, one.who), []).append(one.act)
    return Scripted(chain, steering, acts) if steering else chain


def retrace(twin: Twin, reel: Reel, last: int, progress: bool = False) -> bool:
    """Play ``twin`` up to before subframe ``last`` as the recorded run went: under its controllers' acts, changed when it was changed.

    Returns whether it was interrupted.
    """
    site, period_ns, done = twin.site_name, twin.air.numerology.subframe_ns, 0
    if any(plain(msgspec.msgpack.decode(row.data))["what"] == "mended" for row in reel.rows(f"{site}.event.")):
        raise Misuse(
            f"{reel.path}: an admin mended faults while it ran, and when exactly is not recorded, so it cannot be run again"
        )
    twin.site.controller = script(reel, site, twin.chain)
    for row in reel.rows(f"{site}.change."):
        change: Change = wire.decode(row.data, Change)
        k = change.t_ns // period_ns
        if k >= last:
            break
        if k > done and twin.play(split=False, progress=progress, first=done, last=k):
            return True
        done = max(k, done)
        twin.change(replace(again(loads(change.scenario, str(reel.path))), duration_ns=twin.scenario.duration_ns))
    return twin.play(split=False, progress=progress, first=done, last=last)


def verify(run: str | Path, progress: bool = False) -> dict[str, Any]:
    """Run a recorded run again and compare; the verdict is plain data.

    ``equal``: every record is the same, byte for byte; ``first``: else where the first one differs. ``hash``: of the recorded records, of those
    of the new run (equal counts only), and the one in ``summary.json`` (None: there is none). ``subframes``, ``records``: how many were compared.
    """
    reel = Reel(run)
    scenario = again(scenario_of(reel))
    kpi = next((topic for topic in reel.topics if topic.endswith(".kpi.")), None)
    subframes = 0 if kpi is None else len(reel.of(kpi))
    if not subframes:
        raise Misuse(f"{reel.path}: holds no whole subframe, so there is nothing to compare")
    witness, first = Witness(reel), ""
    warm_up(scenario)
    with Twin(replace(scenario, duration_ns=subframes * scenario.subframe.period_ns)) as twin:
        twin.bus = witness
        try:
            retrace(twin, reel, subframes, progress)
        except UnlikeError as difference:
            first = str(difference)
    summary, _ = summary_of(reel.path.parent)
    hashed = summary.get("run", {}).get("hash")
    recorded = witness.recorded.hexdigest()
    if not first and hashed is not None and summary["run"].get("subframes") == subframes and hashed != recorded:
        first = "summary.json has another hash than the recording's records make: one of the two was changed"
    return {
        "run": str(reel.path.parent),
        "equal": not first,
        "first": first,
        "hash": {"recorded": recorded, "again": witness.said.hexdigest(), "summary": hashed},
        "subframes": subframes,
        "records": witness.compared,
        "versions": reel.about.get("versions"),
    }


def told(verdict: Mapping[str, Any]) -> str:
    """The verdict in words."""
    if verdict["equal"]:
        return (
            f"proved: {verdict['subframes']} subframes run again gave the same {verdict['records']} records, byte for byte; "
            f"hash {verdict['hash']['recorded'][:16]}"
            + ("" if verdict["hash"]["summary"] else " (the run left no summary to hold it against)")
        )
    made = verdict["versions"]
    by = f"It was made with {', '.join(f'{name} {version}' for name, version in made.items())}; " if made else ""
    return (
        f"not proved: after {verdict['records']} equal records, {verdict['first']}.\n"
        f"{by}other versions of these, or changed code, may give other numbers."
    )
