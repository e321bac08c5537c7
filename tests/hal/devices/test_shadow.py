"""The shadow sends and hears with the settings the machine reports: no others, not rounded again, from when it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from machine import SPEC, beam, noise
from test_remote import process, thread
from test_sim import frame, listen, paths, wide

from hal.devices.remote import Remote
from hal.devices.shadow import Shadow, ShadowFrontend
from hal.devices.sim import Sim
from hal.errors import LateArrival, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, Incident, Listen, Reception
from hal.network import response


class Bench:
    """Real hardware, as far as the shadow may use it: its settings are off the nameplate's grid, and its air is its own."""

    def __init__(self, tells: bool = True, fails: Exception | None = None) -> None:
        self.spec = replace(SPEC, simulated=False)
        self.tells, self.fails, self.closed = tells, fails, 0

    def open(self, spec: Any, noise: Any) -> Bench:
        return self

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        if self.fails is not None:
            raise self.fails
        taken = replace(beam, phase_rad=beam.phase_rad % (2 * np.pi) * 0.999, amplitude=beam.amplitude * 0.9)
        return BeamReport(
            setpoint=beam,
            readback=taken if self.tells else None,
            accepted_ns=at_ns,
            effective_ns=at_ns + 77_777,
            clipped=0,
            uncertainty_ns=50,
        )

    def emit(self, drive: Drive) -> Emission:
        raise AssertionError("the air is simulated")

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        raise AssertionError("the air is simulated")

    def close(self) -> None:
        self.closed += 1


def over(bench: Bench) -> ShadowFrontend:
    return Shadow(real=bench).open(None, noise)


def test_what_was_read_back_is_sent_as_it_was_read_back_from_when_it_was_said() -> None:
    shadow = over(Bench())
    assert shadow.spec.simulated
    report = shadow.set_beam(beam("transmit", [2]), 1000)
    told = report.readback
    assert told is not None
    drive = wide([report.effective_ns - 1, report.effective_ns], [2, 2])
    emission = shadow.emit(drive)
    before, after = emission.response[emission.row]
    assert not before.any()
    exact = response(SPEC.transmit.network, told.delay_s, told.phase_rad, told.amplitude, drive.frequency_hz)[0]
    assert np.max(np.abs(after - exact)) < 1e-12  # on the machine's own values, not on the nameplate's grid
    doubt = shadow.doubt["transmit"]
    assert (doubt.told, doubt.phase_rad, doubt.delay_s, doubt.amplitude, doubt.effective_ns) == (
        True,
        0.0,
        0.0,
        0.0,
        50,
    )


def test_without_read_back_the_setpoint_in_steps_is_sent_and_the_doubt_is_half_a_step() -> None:
    shadow, sim = over(Bench(tells=False)), Sim().open(SPEC, noise)
    report = shadow.set_beam(beam("transmit", [0]), 0)
    sim.set_beam(beam("transmit", [0]), 0)
    assert report.readback is None
    drive = wide([10**9], [0])
    assert np.array_equal(shadow.emit(drive).response, sim.emit(drive).response)
    doubt = shadow.doubt["transmit"]
    assert not doubt.told
    assert doubt.phase_rad == pytest.approx(np.pi / 64)
    assert doubt.delay_s == pytest.approx(100e-12 / 16 / 2)
    assert doubt.amplitude == 0.0  # continuous


@pytest.mark.parametrize("error", [RemoteFault("hot"), LateArrival("slow")])
def test_a_command_that_fails_leaves_the_shadow_as_it_was(error: Exception) -> None:
    bench = Bench()
    shadow = over(bench)
    shadow.set_beam(beam("transmit", [0]), 0)
    before = shadow.emit(wide([10**9], [0])).response
    bench.fails = error
    with pytest.raises(type(error)):
        shadow.set_beam(beam("transmit", [0], seed=1), 10**6)
    assert np.array_equal(shadow.emit(wide([10**9], [0])).response, before)
    shadow.close()
    shadow.close()
    assert bench.closed == 2


def test_a_fault_that_the_read_back_shows_is_in_the_shadow_s_air_and_one_that_it_hides_is_not() -> None:
    from hal.memory import Fault

    real = Sim().open(SPEC, noise)
    shadow = ShadowFrontend(Shadow(), real, noise)
    shadow.set_beam(beam("transmit", [0]), 0)
    lost, dead = Fault(kind="lost_command", half="transmit"), Fault(kind="dead_element", half="transmit", element=3)
    before = shadow.emit(wide([10**8], [0])).response
    real.inject(lost, 10**7)
    shadow.set_beam(beam("transmit", [0], seed=1), 2 * 10**7)
    assert np.array_equal(shadow.emit(wide([10**8], [0])).response, before)  # read back: the old rows
    real.clear(lost, 3 * 10**7)
    real.inject(dead, 3 * 10**7)
    shadow.set_beam(beam("transmit", [0]), 4 * 10**7)
    assert np.array_equal(shadow.emit(wide([10**8], [0])).response, before)
    assert not real.emit(wide([10**8], [0])).response[0, :, 3].any()


def test_the_shadow_of_a_machine_in_another_process_is_that_machine_simulated_here() -> None:
    def heard(frontend: Any) -> bytes:
        for half in ("transmit", "receive"):
            frontend.set_beam(beam(half, [0, 1]), 0)
        t_ns = [10**9, 10**9 + 10**6]
        sent = frontend.emit(frame(t_ns, [0, 1]))
        return frontend.receive([(sent, paths(5))], listen(t_ns, [1, 0])).samples.tobytes()

    with process() as (endpoint, _):
        shadow = Shadow(real=endpoint).open(SPEC, noise)
        try:
            assert heard(shadow) == heard(Sim().open(SPEC, noise))
        finally:
            shadow.close()


def test_it_is_written_in_a_scenario() -> None:
    from twin.registry import resolve
    from twin.scenario import load

    assert resolve("hal.devices", "shadow") is Shadow
    with thread(Sim().open(SPEC, noise)) as endpoint:
        shadow = Shadow(real=Remote(endpoint)).open(SPEC, noise)
        shadow.close()
    site = {"kind": "shadow", "real": {"kind": "remote", "endpoint": "tcp://127.0.0.1:1"}, "air": {"drop_db": 40}}
    scenario = load("scenarios/smoke.yaml", {"sites.bs0.device": site})
    assert scenario.sites["bs0"].device == Shadow(real=Remote("tcp://127.0.0.1:1"), air=Sim(drop_db=40.0))
