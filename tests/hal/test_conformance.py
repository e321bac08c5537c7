"""The suite passes every device kind we have, and fails each planted mutant by the rule that is there for it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from hal.conformance import LAST, RULES, Verdict, check, junit
from hal.devices.sim import Sim, SimFrontend
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, FrontendSpec, Incident, Listen, Reception


def _machine() -> Any:
    found = importlib.util.spec_from_file_location("suite_machine", Path(__file__).parent / "devices" / "machine.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


machine = _machine()
SPEC: FrontendSpec = machine.SPEC


def failed(verdicts: list[Verdict]) -> set[str]:
    return {v.rule for v in verdicts if v.verdict == "fail"}


class Mutant:
    """A simulated machine with one thing wrong; each subclass says what."""

    built: FrontendSpec = SPEC  # what it is, while its nameplate says SPEC
    fields: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.spec = SPEC
        self.sim: SimFrontend = Sim(**self.fields).open(self.built, machine.noise)

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        return self.sim.set_beam(beam, at_ns)

    def emit(self, drive: Drive) -> Emission:
        return self.sim.emit(drive)

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        return self.sim.receive(incident, listen)

    def close(self) -> None:
        self.sim.close()


def networked(**changes: Any) -> FrontendSpec:
    """SPEC with another network than its nameplate says, in both halves."""
    halves = {name: getattr(SPEC, name) for name in ("transmit", "receive")}
    return replace(SPEC, **{k: replace(half, network=replace(half.network, **changes)) for k, half in halves.items()})  # type: ignore[arg-type]


class ElementByElement(Mutant):
    """The second half of the elements latches a microsecond after the first."""

    def emit(self, drive: Drive) -> Emission:
        now = self.sim.emit(drive)
        then = self.sim.emit(replace(drive, t_ns=drive.t_ns - 1000)).response
        first = now.response[now.row].copy()
        old = self.sim.emit(replace(drive, t_ns=drive.t_ns - 1000))
        first[:, :, 32:] = then[old.row][:, :, 32:]
        return replace(now, row=np.arange(len(now.row)), response=first)


class CoarsePhases(Mutant):
    """A five-bit shifter behind a nameplate of six."""

    built = networked(phase_bits=5)


class FineDelays(Mutant):
    """A finer delay line than the nameplate's, which no test of the largest error would notice."""

    built = networked(delay_bits=6)


class NeverSettles(Mutant):
    """Says a beam may be used as soon as it is latched."""

    built = replace(SPEC, settling_ns=0)


class LyingReadback(Mutant):
    """Element 5 is stuck, and the read-back echoes the command register."""

    def emit(self, drive: Drive) -> Emission:
        emission = self.sim.emit(drive)
        response = emission.response.copy()
        response[:, :, 5] = np.abs(response[:, :, 5])
        return replace(emission, response=response)


class TakesNan(Mutant):
    """Writes zero where a setting is not a number."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        return super().set_beam(replace(beam, phase_rad=np.nan_to_num(beam.phase_rad, posinf=0.0)), at_ns)


class OneSlotShort(Mutant):
    """An address line is open: slot 6 is slot 2."""

    def emit(self, drive: Drive) -> Emission:
        return self.sim.emit(replace(drive, slot=np.where(drive.slot == 6, 2, drive.slot)))


class SelectsLate(Mutant):
    """Switching to another slot takes twice what the nameplate says."""

    built = replace(SPEC, select_ns=2 * SPEC.select_ns)


class SelectsByHalves(Mutant):
    """The second half of the elements is switched at once, the first when the nameplate says."""

    def __init__(self) -> None:
        super().__init__()
        self.quick: SimFrontend = Sim().open(replace(SPEC, select_ns=0), machine.noise)

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        self.quick.set_beam(beam, at_ns)
        return report

    def emit(self, drive: Drive) -> Emission:
        emission, quick = self.sim.emit(drive), self.quick.emit(drive)
        response = emission.response[emission.row].copy()
        response[:, :, 32:] = quick.response[quick.row][:, :, 32:]
        return replace(emission, row=np.arange(len(response)), response=response)


class ForgetsASlot(Mutant):
    """Loading the last slot of the memory clears slot 3."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        if beam.half == "transmit" and beam.slot.tolist() == [7]:
            self.sim._memory["transmit"]._since[3] = []
            self.sim._memory["transmit"]._version[3] = []
        return report


class ClipsSilently(Mutant):
    """Out-of-range settings are clipped and nobody is told."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        return replace(super().set_beam(beam, at_ns), clipped=0)


class TooMuchPower(Mutant):
    """Forgets the splitter: every element gets the chain's full amplitude."""

    def emit(self, drive: Drive) -> Emission:
        emission = self.sim.emit(drive)
        return replace(emission, response=emission.response * 8.0)


class QuietReceiver(Mutant):
    """Half the noise that its nameplate says, and that it says itself."""

    built = replace(SPEC, noise_figure_db=SPEC.noise_figure_db - 10 * np.log10(2))

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        heard = self.sim.receive(incident, listen)
        return replace(heard, noise_w=2 * heard.noise_w)


class BeforeItIsTold(Mutant):
    """Dates its beams from a clock that is 50 us slow."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        return replace(report, accepted_ns=report.accepted_ns - 50_000, effective_ns=report.effective_ns - 50_000)


class AcceptsBeforeItIsTold(Mutant):
    """The same, of the acceptance alone."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        return replace(report, accepted_ns=report.accepted_ns - 1)


class DarkWhileLoading(Mutant):
    """The old beam is gone while a new one loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: list[tuple[int, int]] = []

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        if beam.half == "transmit":
            self.loading.append((at_ns, report.effective_ns))
        return report

    def emit(self, drive: Drive) -> Emission:
        emission = self.sim.emit(drive)
        response = emission.response[emission.row].copy()
        for begun, until in self.loading[-4:]:
            response[(drive.t_ns > begun) & (drive.t_ns < until - 1)] = 0
        return replace(emission, row=np.arange(len(response)), response=response)


class FreeBus(Mutant):
    """Loading takes no time, however many rows there are: the nameplate's bus is not the machine's."""

    built = replace(SPEC, bus_ns_per_element=0, settling_ns=SPEC.settling_ns + 20_000)


class Jitters(Mutant):
    """Its gain drifts from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def emit(self, drive: Drive) -> Emission:
        emission = self.sim.emit(drive)
        self.calls += 1
        return replace(emission, response=emission.response * (1 + 1e-12 * self.calls))


class WrapsSlots(Mutant):
    """Takes a slot number modulo the memory's size."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        return super().set_beam(
            replace(beam, slot=beam.slot % getattr(SPEC, beam.half, SPEC.transmit).memory_slots), at_ns
        )


class WrongErrors(Mutant):
    """Blames itself for its caller's mistakes."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        if beam.phase_rad.shape[1:] != getattr(self.spec, beam.half, SPEC.transmit).network.wired.shape:
            raise RemoteFault("bus error")
        return super().set_beam(beam, at_ns)


class UndoesTime(Mutant):
    """Lets a late command come into force in the past of one that is in force."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        least = (
            at_ns
            + SPEC.command_latency_ns
            + int(getattr(SPEC, beam.half, SPEC.transmit).network.wired.sum()) * 10 * len(beam.slot)
            + 500
        )
        return replace(report, effective_ns=least) if report.effective_ns > at_ns + 400_000 else report


class DeafToSettings(Mutant):
    """Its receive half always listens to boresight."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        report = super().set_beam(beam, at_ns)
        if beam.half == "receive":
            self.sim.set_beam(replace(beam, phase_rad=beam.phase_rad * 0), at_ns)
        return report


class OverlappingLoads(Mutant):
    """Two loads at once are in force at once: the bus is not waited for."""

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        self.sim._busy_ns[beam.half] = -(2**62)
        return super().set_beam(beam, at_ns)


class RadiatesFromTheStart(Mutant):
    """Slots hold a default beam before they are loaded."""

    def emit(self, drive: Drive) -> Emission:
        emission = self.sim.emit(drive)
        return replace(emission, response=np.where(emission.response == 0, 0.125, emission.response))


class LooseWire(Mutant):
    """The nameplate lists an element that no chain feeds."""

    def __init__(self) -> None:
        super().__init__()
        wired = SPEC.transmit.network.wired.copy()
        wired[0, 63] = False
        network = replace(SPEC.transmit.network, wired=wired)
        self.spec = replace(SPEC, transmit=replace(SPEC.transmit, network=network))


class StaysOpen(Mutant):
    """Answers after it was closed."""

    def close(self) -> None:
        pass


MUTANTS: dict[type[Mutant], str] = {
    ElementByElement: "latch",
    CoarsePhases: "phase_steps",
    FineDelays: "delay_steps",
    NeverSettles: "settling",
    LyingReadback: "readback",
    TakesNan: "not_finite",
    OneSlotShort: "memory",
    SelectsLate: "select",
    SelectsByHalves: "select",
    ForgetsASlot: "memory",
    ClipsSilently: "out_of_range",
    TooMuchPower: "power",
    QuietReceiver: "noise",
    BeforeItIsTold: "causality",
    AcceptsBeforeItIsTold: "causality",
    DarkWhileLoading: "meanwhile",
    FreeBus: "bus_time",
    Jitters: "determinism",
    WrapsSlots: "slots",
    WrongErrors: "shapes",
    UndoesTime: "time_order",
    DeafToSettings: "reception",
    OverlappingLoads: "busy",
    RadiatesFromTheStart: "dark",
    LooseWire: "nameplate",
    StaysOpen: "close",
}
ALSO: dict[type[Mutant], set[str]] = {  # what follows from the same flaw
    BeforeItIsTold: {
        "not_finite",
        "settling",
        "meanwhile",
        "latch",
        "select",
        "memory",
        "readback",
        "power",
        "reception",
    },
    FreeBus: {"busy"},
    OverlappingLoads: {"time_order"},
    LooseWire: {"readback"},
}


def judged(mutant: type[Mutant]) -> list[Verdict]:
    return check(mutant(), fresh=True, closing=True)


def test_the_simulated_machine_passes_with_nothing_left_out() -> None:
    verdicts = judged(Mutant)
    assert [v.rule for v in verdicts] == [*RULES, *LAST]
    assert {v.verdict for v in verdicts} == {"pass"}, [v for v in verdicts if v.verdict != "pass"]


@pytest.mark.parametrize(
    "fields", [{"readback": False}, {"out_of_range": "refuse"}, {"converter_bits": 12, "converter_full_scale_w": 1e-6}]
)
def test_machines_that_behave_otherwise_pass_too(fields: dict[str, Any]) -> None:
    assert not failed(check(Sim(**fields).open(SPEC, machine.noise), fresh=True))


def test_other_machines_pass_too() -> None:
    from hal.array import Ula
    from hal.network import Network

    one = Ula(elements=4).build(28e9, np.zeros(3), np.eye(3))
    half = replace(
        SPEC.transmit,
        array=one,
        network=Network(chains=4, connection="partial", phase_bits=0, amplitude_bits=5, loss_db=2.0).build(4, 1),
    )
    spec = replace(
        SPEC, carrier_hz=28e9, transmit=half, receive=replace(half, memory_slots=1), bus_ns_per_element=0, settling_ns=0
    )
    verdicts = check(Sim().open(spec, machine.noise), fresh=True)
    assert not failed(verdicts), [v for v in verdicts if v.verdict == "fail"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_mutant_fails_its_own_rule(mutant: type[Mutant]) -> None:
    assert failed(judged(mutant)) == {MUTANTS[mutant]} | ALSO.get(mutant, set())


def test_every_rule_has_a_mutant() -> None:
    """One rule is about speed alone, one about steps that the others cover; a rule that nothing can fail is no rule."""
    assert {*RULES, *LAST} - set(MUTANTS.values()) == {"round_trip", "amplitude_steps"}
    assert failed(check(Mutant(), only=["round_trip"], latency_limit_s=1e-9)) == {"round_trip"}

    class CoarseAmplitude(Mutant):
        built = networked(amplitude_bits=3)

    assert failed(check(CoarseAmplitude(), only=["amplitude_steps"])) == {"amplitude_steps"}


@pytest.mark.parametrize("error", [RemoteFault, LateArrival, ZeroDivisionError])
def test_a_machine_that_breaks_down_gets_verdicts_all_the_same(error: type[Exception]) -> None:
    class Broken(Mutant):
        def emit(self, drive: Drive) -> Emission:
            raise error("the supply tripped")

    verdicts = check(Broken())
    assert len(verdicts) == len(RULES)
    assert {"latch", "memory", "power"} <= failed(verdicts)
    assert all("the supply tripped" in v.says for v in verdicts if v.rule in ("latch", "memory"))


def test_one_rule_can_be_asked_for_and_one_that_is_not_there_is_misuse() -> None:
    told: list[Verdict] = []
    assert [v.rule for v in check(Mutant(), only=["latch"], told=told.append)] == ["latch"] == [v.rule for v in told]
    with pytest.raises(Misuse, match="rule 'lach': is not one of nameplate, dark"):
        check(Mutant(), only=["lach"])


def test_junit_is_what_ci_reads() -> None:
    verdicts = [
        Verdict("a", "pass", "well", {"x_us": 1.5}),
        Verdict("b", "fail", "bad \x00 <&>", {}),
        Verdict("c", "skip", "no", {}),
    ]
    suite = ElementTree.fromstring(junit(verdicts, "bench & co"))
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("skipped")) == (
        "conformance of bench & co",
        "3",
        "1",
        "1",
    )
    assert [[child.tag for child in case] for case in suite] == [["system-out"], ["failure"], ["skipped"]]
    assert "x_us = 1.5" in (suite[0][0].text or "")
    assert suite[1][0].get("message") == "bad ? <&>"
