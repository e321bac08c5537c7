"""From a scenario to a run: every part made once, in one place, and closed whatever happens."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np

from hal import calibration, memory, wire
from hal.ageing import Ageing
from hal.array import AntennaArray, fraunhofer_distance_m
from hal.devices.sim import Sim, SimFrontend
from hal.errors import Misuse
from hal.frontend import Frontend, FrontendSpec
from hal.impairments import Impairments
from hal.outage import Patient
from hal.record import Array, Bool, Complex, Int
from hal.session import Keys
from twin import __version__, loop
from twin.bus import Bus, NullBus, ZmqBus, flatten
from twin.columns import Table
from twin.compiling import told_compiling
from twin.control import Chain, Parts
from twin.desk import VERBS
from twin.easing import eased
from twin.engine import Engine, Pacing
from twin.expect import Expectations
from twin.forgiving import forgive_the_cache
from twin.helm import Helm
from twin.invariants import Invariants
from twin.iq import Tap
from twin.kpi import Kpi, Scorer, measured
from twin.loop import Air, Subframe
from twin.physics.draws import Draws
from twin.record import Recorder, RunHash
from twin.records import Change, Clock, Truth
from twin.scenario import Fault, Scenario, dump, frontend_spec, load, numerology
from twin.summary import Summary
from twin.world import Mover, World, entity_of

__all__ = ["Run", "open_frontend", "run"]

forgive_the_cache()  # before anything is compiled
LOOK_SUBFRAMES = 20  # between two looks for users whose channel changes within a block
UPDATE_S = 0.2  # wall seconds between two updates of the progress line


@dataclass(frozen=True)
class Run:
    """A finished run: where it lies, what it amounts to, and its key figures as arrays when they were kept."""

    path: Path | None
    summary: dict[str, Any]
    kpi: SimpleNamespace  # every field of ``twin.kpi.Kpi`` stacked over subframes; empty unless kept
    user: tuple[str, ...]  # names along the axis ``user``
    entity: tuple[str, ...]  # names along the axis ``entity``
    interrupted: bool


def run(
    file: str | Path | Scenario,
    set: Mapping[str, Any] = MappingProxyType({}),
    *,
    out: str | Path | None = None,
    keep: bool = True,
    split: bool = False,
    progress: bool = False,
    write: bool = True,
    junit: str | Path | None = None,
) -> Run:
    """Play a scenario and return what happened.

    ``set`` replaces values (``{"sensing.dwells": 1}``); ``out`` is the run directory, which must not exist yet (default: ``runs/NAME-NUMBER``);
    ``keep`` holds every subframe's key figures in memory for ``Run.kpi``; ``split`` advances block by block, with the same result;
    ``write=False`` leaves no files; ``junit`` names a file for what became of the scenario's ``expect:`` lines.
    Interrupted by Ctrl-C, the recording is closed and the summary covers what ran.
    Raises ScenarioError for a scenario that is wrong, Misuse for a run directory that exists or a port that is taken.
    """
    scenario = file if isinstance(file, Scenario) else load(file, set)
    name = "run" if isinstance(file, Scenario) else Path(file).stem
    with told_compiling(progress), ExitStack() as stack:
        if scenario.clock.mode == "paced" and scenario.fidelity == "signal":
            warm_up(scenario)
        folder = run_folder(name, out) if write else None
        source = None if isinstance(file, Scenario) else file
        try:
            twin = stack.enter_context(
                kind_of(scenario)(scenario, name, folder, keep, source, None if junit is None else Path(junit))
            )
        except BaseException:
            if folder is not None:  # nothing ran: the same command must be possible again
                shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            interrupted = twin.play(split, progress)
        except Exception as error:
            twin.finish(True, failure=f"{type(error).__name__}: {error}")
            raise
        return twin.finish(interrupted)


def kind_of(scenario: Scenario) -> type[Twin]:
    """What plays the scenario's fidelity."""
    if scenario.fidelity == "signal":
        return Twin
    from twin.system_run import SystemTwin

    return SystemTwin


def warm_up(scenario: Scenario) -> None:
    """Play two subframes for nobody, so that compiled functions are loaded before the clock starts; only where the machine is simulated here."""
    if any(not isinstance(site.device, Sim) for site in scenario.sites.values()):
        return
    brief = replace(
        scenario, clock=Pacing(), bus=type(scenario.bus)(), expect=(), duration_ns=2 * scenario.subframe.period_ns
    )
    with TemporaryDirectory() as folder, Twin(brief, folder=Path(folder)) as twin:
        twin.play(split=False, progress=False)


def run_folder(name: str, out: str | Path | None) -> Path:
    """Make the run directory: ``out``, or the next free ``runs/NAME-NUMBER``; Misuse if ``out`` is there already."""
    if out is not None:
        folder = Path(out)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise Misuse(
                f"--out {folder}: exists already, and a run never overwrites another; name a new directory or remove this one"
            ) from None
        return folder
    number = 1 + max(
        (int(p.name.rpartition("-")[2]) for p in Path("runs").glob(f"{name}-*") if p.name.rpartition("-")[2].isdigit()),
        default=0,
    )
    while True:
        folder = Path("runs") / f"{name}-{number:03d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def open_frontend(scenario: Scenario) -> Frontend:
    """The scenario's machine, opened: simulated receivers hear noise drawn from the scenario's seed."""
    (name,) = scenario.sites
    draws = Draws(scenario.seed)

    def noise(label: str, t_ns: Int[Array, " event"], shape: tuple[int, ...]) -> Complex[Array, event * shape]:
        drawn = draws.complex_normal(f"{name}.{label}", 0, t_ns, prod(shape))
        return drawn.reshape(len(t_ns), *shape)

    site = scenario.sites[name]
    frontend: Frontend = site.device.open(frontend_spec(scenario, name), noise)
    simulated = isinstance(frontend, SimFrontend)
    if site.calibration is not None:
        frontend = calibration.Calibrated(frontend, calibration.load(site.calibration, frontend.spec))
    if simulated:  # a machine elsewhere breaks where it is: its own scenario scripts that
        strike(frontend, scenario.faults)
    return frontend


def door(scenario: Scenario) -> Keys | None:
    """The keys that the scenario's bus answers with; None where it has no door."""
    if scenario.bus.keys == "none":
        return None
    from hal.keys import answering

    return answering(scenario.bus.keys)


def strike(machine: Any, scripts: Iterable[Fault]) -> None:
    """Put scripted faults on a simulated machine's timeline."""
    for at_ns, verb, fault in sorted((c for script in scripts for c in changes(script)), key=lambda change: change[:2]):
        getattr(machine, verb)(fault, at_ns)


def parts_of(scenario: Scenario) -> Parts:
    """What the built-in chain is made of."""
    (site,) = scenario.sites.values()
    control = site.control
    return Parts(
        detector=scenario.sensing.detector,
        tracker=control.tracking,
        estimator=control.estimation,
        planner=control.planning,
        precoder=control.precoding,
        combiner=control.combining,
        control_latency_ns=control.control_latency_ns,
        data_echoes=scenario.sensing.data_echoes,
    )


def listening_ns(scenario: Scenario) -> int:
    """How long data blocks are listened to; 0 for not at all."""
    wanted = scenario.sensing.data_echoes
    return wanted.integration_ns if wanted.blocks else 0


def antennas(scenario: Scenario) -> dict[int, AntennaArray]:
    """Arrays of the users that have one, by entity number. Raises Misuse where data go as a waveform, whose receiver has one antenna."""
    found = {}
    for mover in scenario.users:
        if mover.array is None:
            continue
        if scenario.communication.fidelity == "waveform":
            raise Misuse(
                f"users: {mover.name!r} has an array, and communication.fidelity = 'waveform' plays to single antennas only; "
                "take fidelity abstract, or leave the array out"
            )
        built = mover.array.build(scenario.carrier_hz, np.zeros(3), np.eye(3))
        for inner in mover.mobility.movers():
            found[entity_of(f"{mover.name}/{inner}" if inner else mover.name)] = built
    return found


def changes(script: Fault) -> Iterator[tuple[int, str, memory.Fault]]:
    """What a scripted fault does to the machine's timeline: (time, "clear" or "inject", what), for each element it names."""
    for fault in script.broken():
        yield script.at_ns, "inject", fault
        if script.until_ns is not None:
            yield script.until_ns, "clear", fault


class Twin:
    """Everything a run opens, and what it leaves behind."""

    invariants: Invariants | None = None  # what every subframe is held to
    steerable = True  # there is a machine with a controller, for others to take over or look over its shoulder

    def __init__(
        self,
        scenario: Scenario,
        name: str = "run",
        folder: Path | None = None,
        keep: bool = False,
        file: str | Path | None = None,
        junit: Path | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
        bus: Any = None,
    ) -> None:
        self.inner = bus  # instead of the scenario's: a ``Bus`` that is a ``twin.seats.Post`` too
        self.about = about  # what else the recording and the bus are to say of the run
        self.scenario, self.folder, self.junit = scenario, folder, junit
        self.stack = ExitStack()
        try:
            self._open(scenario, name, folder, keep, file)
        except BaseException:
            self.stack.close()
            raise

    def _open(self, scenario: Scenario, name: str, folder: Path | None, keep: bool, file: str | Path | None) -> None:
        if self.steerable != (scenario.fidelity == "signal"):
            raise Misuse(
                f"fidelity = {scenario.fidelity!r}: has neither samples nor beams, which this needs; take fidelity: signal"
            )
        (self.site_name,) = scenario.sites
        draws = Draws(scenario.seed)
        movers = [
            Mover(name=m.name, is_user=user, rcs_m2=m.rcs_m2, mobility=m.mobility)
            for group, user in ((scenario.users, True), (scenario.targets, False))
            for m in group
        ]
        self.air = Air(
            world=World(movers, draws),
            channel=scenario.channel,
            draws=draws,
            numerology=numerology(scenario),
            waveform=scenario.sensing.waveform,
            sensing_fidelity=scenario.sensing.fidelity,
            antennas=antennas(scenario),
            link=scenario.communication.link if scenario.communication.fidelity == "waveform" else None,
            listening_ns=listening_ns(scenario),
        )
        names = self.air.world.names
        self.entity = np.array(sorted(names), dtype=np.int64)
        self.user = self.air.world.users
        self.entity_names, self.user_names = (tuple(names[int(e)] for e in ids) for ids in (self.entity, self.user))
        self.engine = Engine(scenario.clock)
        spec = self._equip(scenario)
        self.summary = Summary(self.user_names, self.entity_names)
        self.hash = RunHash()
        self.expectations = Expectations(scenario, self.user_names, spec, file)
        self.kept: list[Kpi] | None = [] if keep else None
        self.run_id = f"{name}-{scenario.seed}-{time.time_ns():x}"
        clock = scenario.clock
        about = {
            "title": scenario.title,
            "scenario": dump(scenario),  # as run: enough to run it again, and to know the machine
            "versions": {"twin": __version__, "python": platform.python_version(), "numpy": np.__version__},
            "seed": scenario.seed,
            "sites": list(scenario.sites),
            "subframes": scenario.subframes,
            "clock": {"mode": clock.mode, "factor": clock.factor},
            "users": dict(zip(map(str, self.user), self.user_names, strict=True)),
            "movers": {str(e): n for e, n in names.items()},
            "controls": [] if scenario.bus.state == "none" or not self.steerable else list(VERBS),
            **self.about,
        }
        self.bus: Bus = NullBus()
        self.helm: Helm | None = None
        self.asked_to_stop: Callable[[], bool] = lambda: False
        if self.inner is not None or scenario.bus.state != "none":
            bus: Any = self.inner or ZmqBus(
                self.run_id, scenario.bus.state, about=about, keys=door(scenario), insecure=scenario.bus.insecure
            )
            self.stack.callback(bus.close)
            self.bus = bus
            if self.steerable:
                self.helm = Helm(
                    bus,
                    self.engine,
                    scenario,
                    self.site,
                    self.chain,
                    dict(zip(self.user_names, self.user.tolist(), strict=True)),
                    self.air.world.at,
                    self.change,
                    lambda: self.asked_to_stop(),
                )
        self.tap: Tap | None = None
        if scenario.bus.iq != "none":
            self.tap = Tap(scenario.bus.iq, scenario.bus.taps, self.site_name, door(scenario), scenario.bus.insecure)
            self.stack.callback(self.tap.close)
        self.recorder: Recorder | None = None
        self.subframes, self.wall_s = 0, 0.0  # played so far
        if folder is not None:
            (folder / "scenario.yaml").write_text(dump(scenario), encoding="utf-8")
            self.recorder = self.stack.enter_context(
                Recorder(folder / "recording.mcap", about=about, limit_bytes=int(scenario.record.limit_mb * 1e6))
            )
            if self.steerable:
                stream = self.stack.enter_context((folder / "kpi.csv").open("wb"))
                self.summary.table = Table(stream, self.user_names, self.entity_names)
        self.easing: tuple[Scenario, Scenario, tuple[str, str]] | None = (
            None  # as it is, searching less, and both dumps
        )
        if clock.overrun == "ease":
            less = eased(scenario)
            self.easing = scenario, less, (dump(scenario), dump(less))
        self.last: Subframe | None = None
        self.there: tuple[Any, Any] | None = None  # entities, and which of all they are
        self.restless: dict[int, float] = {}
        self.nearest_m = np.inf
        self.beam_due_ns: dict[str, int] = {}

    def _equip(self, scenario: Scenario) -> FrontendSpec:
        """The machine, its controller, and who scores both; returns the machine's nameplate."""
        self.machine = open_frontend(scenario)
        frontend: Frontend = Patient(self.machine, scenario.sites[self.site_name].patience_ns)
        self.stack.callback(frontend.close)
        self.chain = Chain(parts_of(scenario), frontend.spec, self.air.numerology, self.engine.ledger.stage)
        self.site = loop.opened(self.site_name, frontend, self.chain, self.air.numerology)
        self.site.control_latency_ns = self.chain.parts.control_latency_ns
        self.scorer = Scorer(self.user, self.entity)
        device = scenario.sites[self.site_name].device
        ideal = isinstance(device, Sim) and device.ageing == Ageing() and device.impairments == Impairments()
        self.invariants = self.site.invariants = Invariants(frontend.spec, ideal, self.folder)
        return frontend.spec

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def change(self, scenario: Scenario, text: str | None = None) -> None:
        """Go by another scenario from the next subframe on: its parts of the chain, and the faults that this one has not; from the next call of
        ``play`` on its propagation, fidelity and duration too. That is said and recorded, so that the run can be had again; ``text`` is its dump,
        where that is known.
        """
        self.chain.parts = parts_of(scenario)
        self.site.control_latency_ns = self.chain.parts.control_latency_ns
        at_ns = self.engine.now
        told = Change(t_ns=at_ns, scenario=dump(scenario) if text is None else text)
        self.say(f"{self.site_name}.change.", told, at_ns, wire.encode(told))
        self.air = replace(
            self.air,
            channel=scenario.channel,
            sensing_fidelity=scenario.sensing.fidelity,
            listening_ns=listening_ns(scenario),
        )
        strike(self.machine, [fault for fault in scenario.faults if fault not in self.scenario.faults])
        self.scenario = scenario

    def play(self, split: bool, progress: bool, first: int = 0, last: int | None = None) -> bool:
        """Run from subframe ``first`` to before ``last`` (nothing: to the end) or to an interrupt; return whether it was interrupted."""
        subframes = self.scenario.subframes if last is None else last
        self.progress = Progress(subframes, self.air.numerology.subframe_ns) if progress else None
        process = self.engine.process(self._story(first, subframes, split))
        self.started = time.perf_counter()
        self.engine.start()
        try:
            with polite_interrupts() as self.asked_to_stop:
                if self.helm is not None and not first:
                    self.helm.seats.join()
                    self.engine.start()
                self.engine.run(until=process)
            self._turn()
        except KeyboardInterrupt:
            self._turn()
            return True
        finally:
            self.wall_s += time.perf_counter() - self.started
            if self.progress is not None:
                self.progress.close()
        return False

    def _story(self, first: int, last: int, split: bool) -> Generator[Any, Any, None]:
        return loop.play(self.engine, self.air, self.site, self.scorer, last, self.watch, split, first)

    def watch(self, subframe: Subframe, site: loop.Site) -> None:
        """Publish, record and count one subframe."""
        prefix, t_ns = f"{self.site_name}.", subframe.t_ns
        decided = {
            "truth.": subframe.truth,
            prefix + "plan.": subframe.plan,
            prefix + "belief.": site.controller.belief,
            prefix + "kpi.": subframe.kpi,
        }
        for topic, record in decided.items():
            encoded = wire.encode(record)
            self.hash.add(topic, t_ns, encoded)
            self.say(topic, record, t_ns, encoded)
        seen: dict[str, Any] = {f"{prefix}beam.{half}.": report for half, report in subframe.reports}
        if subframe.k == 0:
            seen[prefix + "memory.transmit."] = site.transmit
        if subframe.echo.echo is not None:
            seen[prefix + "echo."] = subframe.echo.echo
        for topic, record in seen.items():
            echo = topic.endswith("echo.")
            keep = self.scenario.record.echoes if echo else t_ns >= self.beam_due_ns.get(topic, 0)
            if keep:
                self.beam_due_ns[topic] = t_ns + self.scenario.record.beams_ns
            if keep or self.bus.wanted(topic):
                self.say(topic, record, t_ns, wire.encode(record), keep)
        if self.tap is not None:
            self.tap.say(subframe.echo)
        if self.bus.wanted(prefix + "clock."):
            self.bus.publish(prefix + "clock.", self._clock(subframe), t_ns)
        if self.invariants is not None and self.bus.wanted(prefix + "invariants."):
            self.bus.publish(prefix + "invariants.", self.invariants.margins, t_ns)
        if self.bus.wanted(f"flat.{prefix}kpi."):
            self.bus.flat(prefix + "kpi.", flatten(subframe.kpi), t_ns)
        self.bus.service()
        if self.helm is not None:
            for topic, record in self.helm.turn(subframe):
                self.say(prefix + topic, record, t_ns, wire.encode(record))
        if subframe.k % LOOK_SUBFRAMES == 0:
            self.warn_of_restless(subframe)
        self.expectations.add(subframe)
        self.subframes += 1
        self.last = subframe
        if self.summary.add(subframe.kpi, self._present(subframe.truth)):
            self._turn()
        if self.kept is not None:
            self.kept.append(subframe.kpi)
        if self.progress is not None:
            self.progress.show(subframe.k + 1)
        if self.helm is not None:
            self.helm.desk.hold(subframe.k)
        if self.easing is not None:
            self._ease(self.easing)
        if self.asked_to_stop() or (self.helm is not None and self.helm.desk.stopped):
            raise KeyboardInterrupt

    def _ease(self, easing: tuple[Scenario, Scenario, tuple[str, str]]) -> None:
        """Go over to less searching, or back, as the clock asks for; who was changed by somebody else meanwhile stays so."""
        full, less, texts = easing
        now = {True: full, False: less}[self.engine.eased]  # what is to be left
        if self.scenario is now:
            self.change(less if self.engine.eased else full, texts[self.engine.eased])

    def warn_of_restless(self, subframe: Subframe) -> None:
        """Note users whose channel changes within a block: what follows from one gain a block is then a picture."""
        array, numerology = self.site.frontend.spec.transmit.array, self.air.numerology
        who, turns = self.air.channel.restless(subframe.truth, array, numerology.carrier_hz, numerology.block_ns)
        away_m = np.linalg.norm(subframe.truth.position_m - array.origin_m, axis=1)
        self.nearest_m = min(self.nearest_m, float(away_m.min(initial=np.inf)))
        for user, product in zip(who.tolist(), turns.tolist(), strict=True):
            self.restless[user] = max(product, self.restless.get(user, 0.0))

    def warnings(self) -> list[str]:
        """What a reader of the figures should know."""
        said = []
        far_m = fraunhofer_distance_m(self.site.frontend.spec.transmit.array, self.air.numerology.carrier_hz)
        if self.nearest_m < far_m and not self.site.frontend.spec.transmit.array.spherical:
            said.append(
                f"a mover came as near as {self.nearest_m:.3g} m, the far field begins at {far_m:.3g} m: plane waves are wrong there; "
                "set spherical: true in the arrays"
            )
        if not self.restless:
            return said
        named = ", ".join(f"{self.air.world.names[user]} ({product:.2f})" for user, product in self.restless.items())
        return [
            f"Doppler x block goes above 0.3 for {named}: the scattered part of these channels changes within a block"
        ]

    def say(self, topic: str, record: Any, t_ns: int, encoded: bytes, keep: bool = True) -> None:
        """Publish a record and, unless it is one too many to keep, record it."""
        self.bus.publish(topic, record, t_ns, encoded)
        if keep and self.recorder is not None:
            self.recorder.write(topic, record, t_ns, encoded)

    def _clock(self, subframe: Subframe) -> Clock:
        engine = self.engine
        return Clock(
            k=subframe.k,
            t_ns=subframe.t_ns,
            lag_ns=engine.lag_ns,
            budget_ns=round(self.air.numerology.subframe_ns / engine.pacing.factor),
            late=engine.late,
            stage_ns=dict(engine.ledger.last),
        )

    def _present(self, truth: Truth) -> Bool[Array, " entity"]:
        """Which movers are there; looked up when others are than before."""
        if self.there is None or not np.array_equal(self.there[0], truth.entity):
            self.there = truth.entity, np.isin(self.entity, truth.entity)
        return self.there[1]

    def _turn(self) -> None:
        """Write the rows of the table that wait."""
        try:
            self.summary.turn()
        except OSError as full:
            self.summary.table = None
            at_ns = 0 if self.last is None else self.last.t_ns
            raise OSError(
                full.errno,
                f"{full.strerror}: the run ends at t = {at_ns * 1e-9:g} s, what ran is kept",
                str(self.folder / "kpi.csv" if self.folder is not None else "kpi.csv"),
            ) from full

    def _keep_a_dwell(self, file: Path) -> None:
        """The delay-Doppler map of the last subframe's first dwell, for the report."""
        if self.last is None or self.last.echo.echo is None or not self.last.dwells:
            return
        from twin.dwell import dwell_map

        dwell = self.last.dwells[0]
        found = self.site.controller.belief.detections
        arrays: dict[str, Any] = dwell_map(self.last.echo, 0, found, measured(dwell), dwell.paths.sink)
        np.savez_compressed(file, **arrays)

    def finish(self, interrupted: bool, failure: str = "") -> Run:
        """Close everything and write the summary."""
        with suppress(OSError):  # what ran was written when it ended, unless there is a failure to tell of
            self._turn()
        told = self.summary.told()
        told["clock"] = self.engine.report()
        told["warnings"] = self.warnings()
        if self.invariants is not None:
            told["invariants"] = self.invariants.told()
        self.expectations.finish()
        told["expect"] = self.expectations.summary()
        if self.junit is not None:
            self.expectations.junit(self.junit)
        told["run"] = {
            "id": self.run_id,
            "title": self.scenario.title,
            "seed": self.scenario.seed,
            "subframes": self.subframes,
            "simulated_s": self.subframes * self.air.numerology.subframe_ns * 1e-9,
            "wall_s": self.wall_s,
            "interrupted": interrupted,
            "failure": failure,
            "hash": self.hash.hexdigest(),
        }
        if self.helm is not None:
            told["controllers"] = self.helm.told()
            self.helm.seats.close()
        self.bus.close("interrupted" if interrupted else "finished", told["run"])
        self.stack.close()
        if self.folder is not None:
            self._keep_a_dwell(self.folder / "dwell.npz")
            (self.folder / "summary.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        kept = self.kept or []
        stacked = SimpleNamespace(
            **{f.name: over_time([getattr(kpi, f.name) for kpi in kept]) for f in fields(Kpi)} if kept else {}
        )
        return Run(
            path=self.folder,
            summary=told,
            kpi=stacked,
            user=self.user_names,
            entity=self.entity_names,
            interrupted=interrupted,
        )


def over_time(values: list[Any]) -> Any:
    """A key figure of all subframes: numbers stacked, words in a list."""
    return values if any(isinstance(v, tuple) for v in values) else np.stack([np.asarray(v) for v in values])


@contextmanager
def polite_interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and a polite kill ask to stop at the end of a subframe, so that nothing is half written; the second one stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield lambda: False
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """One line that moves on a terminal; one line at the end elsewhere."""

    def __init__(self, subframes: int, subframe_ns: int) -> None:
        self.subframes, self.subframe_s = subframes, subframe_ns * 1e-9
        self.moves = sys.stderr.isatty()
        self.began = self.shown = time.perf_counter()
        self.done = 0

    def show(self, done: int) -> None:
        """Say how far the run is, at most a few times a second."""
        self.done = done
        now = time.perf_counter()
        if self.moves and now - self.shown > UPDATE_S:
            self.shown = now
            left = (now - self.began) / done * (self.subframes - done)
            print(
                f"\r{done}/{self.subframes} subframes, t = {done * self.subframe_s:.2f} s, about {left:.0f} s left                   ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave a clean line behind."""
        if self.moves:
            print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)
        else:
            print(f"{self.done} subframes in {time.perf_counter() - self.began:.1f} s", file=sys.stderr, flush=True)
