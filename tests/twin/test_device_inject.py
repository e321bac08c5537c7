"""A served machine is broken and mended from the command line while somebody else drives it; a real one refuses."""

from __future__ import annotations

import json
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.devices.remote import Remote
from hal.devices.sim import Sim
from hal.errors import Misuse
from hal.frontend import Beam, Drive
from hal.health import Fault
from hal.outage import Patient
from hal.serve import serve
from twin import build, device_inject
from twin.build import frontend_spec
from twin.document import ScenarioError
from twin.scenario import load

SMOKE = Path(__file__).parents[2] / "scenarios" / "smoke.yaml"


class Real:
    """A machine that nobody can break by word of mouth."""

    def __init__(self, frontend: Any) -> None:
        self.spec = frontend.spec
        self.set_beam, self.emit, self.receive, self.close = (
            frontend.set_beam,
            frontend.emit,
            frontend.receive,
            frontend.close,
        )


def simulated() -> Any:
    spec = frontend_spec(load(SMOKE), "bs0")
    return Sim().open(spec, lambda label, t_ns, shape: np.zeros((len(t_ns), *shape), complex))


def hosted(frontend: Any) -> Iterator[str]:
    stop, there, endpoint = threading.Event(), threading.Event(), []

    def bound(at: str) -> None:
        endpoint.append(at)
        there.set()

    thread = threading.Thread(target=serve, args=(frontend, "tcp://127.0.0.1:0", stop.is_set, bound))
    thread.start()
    try:
        assert there.wait(10)
        yield endpoint[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[str]:
    yield from hosted(simulated())


def command(*words: str) -> int:
    parser = ArgumentParser()
    device_inject.arguments(parser)
    return device_inject.run(parser.parse_args(words))


def beam(spec: Any) -> Beam:
    chains, elements = spec.transmit.network.wired.shape
    return Beam(
        half="transmit",
        slot=np.zeros(1, np.int64),
        delay_s=np.zeros((1, chains, spec.transmit.network.lines)),
        phase_rad=np.zeros((1, chains, elements)),
        amplitude=np.ones((1, chains, elements)),
    )


def power(frontend: Any, t_ns: int) -> float:
    chains = len(frontend.spec.transmit.network.wired)
    drive = Drive(
        t_ns=np.array([t_ns]),
        slot=np.zeros(1, np.int64),
        frequency_hz=np.array([frontend.spec.carrier_hz]),
        power_w=np.full((1, 1), 1e-3),
        digital=np.full((1, chains, 1), chains**-0.5 + 0j),
    )
    return float(np.sum(np.abs(frontend.emit(drive).response) ** 2))


def test_what_breaks_live_shows_in_telemetry_and_on_the_air_until_it_is_mended(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = Remote(endpoint).open(None)
    assert driver.set_beam(beam(driver.spec), 1_000_000).fault == ""
    whole = power(driver, 5_000_000)
    assert command(endpoint, "{kind: dead_element, elements: [0, 7]}") == 0
    said = capsys.readouterr().out
    assert "transmit dead element element 7 broken from 5.000001 ms on" in said
    assert power(driver, 5_000_000) == whole  # what was is not rewritten
    assert power(driver, 6_000_000) == pytest.approx(whole * 62 / 64)
    told = driver.set_beam(beam(driver.spec), 7_000_000).fault
    assert ("element 0" in told, "element 7" in told) == (True, True)
    assert command(endpoint, "--mend", "--json") == 0
    assert json.loads(capsys.readouterr().out)["faults"][0]["fault"] == "everything"
    assert driver.set_beam(beam(driver.spec), 8_000_000).fault == ""
    assert power(driver, 9_000_000) == whole
    driver.close()


def test_a_fault_may_say_when(endpoint: str) -> None:
    driver = Remote(endpoint).open(None)
    driver.set_beam(beam(driver.spec), 1_000_000)
    assert command(endpoint, "{kind: chain_off, at_ms: 20, until_ms: 30}") == 0
    assert [power(driver, at) > 0 for at in (19_999_999, 20_000_000, 29_999_999, 30_000_000)] == [
        True,
        False,
        False,
        True,
    ]
    driver.close()


def test_what_cannot_be_is_refused_with_its_reason(endpoint: str) -> None:
    with pytest.raises(Misuse, match=r"fault\.element = 64: must be 0 \.\. 63 in the transmit half"):
        command(endpoint, "{kind: dead_element, elements: [64]}")
    with pytest.raises(Misuse, match="says no fault"):
        command(endpoint)
    with pytest.raises(Misuse, match="is not there to be cleared"):
        command(endpoint, "{kind: chain_off}", "--mend")
    for wrong in ("{kind: dead_elephant}", "[1]", "{kind: dead_element, elment: 3}", "{kind: [}"):
        with pytest.raises(ScenarioError, match="FAULT"):
            command(endpoint, wrong)


def test_a_real_machine_refuses() -> None:
    real = Real(simulated())
    for at in hosted(real):
        with pytest.raises(Misuse, match="bs0 is not simulated; what breaks there, breaks by itself"):
            command(at, "{kind: dead_element}")
    with pytest.raises(Misuse, match="not simulated"):
        Patient(real, 0).inject(Fault("dead_element", "transmit"), 0)  # type: ignore[arg-type]


def test_a_run_on_a_served_machine_is_struck_from_outside(endpoint: str) -> None:
    """The twin drives the machine; the fault comes by another door, and the key figures show it from then on."""
    device = {"kind": "remote", "endpoint": endpoint, "timeout_ms": 10_000, "warn_ms": 5_000}
    first = build.run(SMOKE, {"duration_s": 0.03, "sites.bs0.device": device}, write=False)
    command(endpoint, "{kind: chain_off}")
    again = build.run(SMOKE, {"duration_s": 0.06, "sites.bs0.device": device}, write=False)
    assert np.nansum(first.kpi.rate_bps[-1]) > 0
    assert np.nansum(again.kpi.rate_bps[-1]) == 0
