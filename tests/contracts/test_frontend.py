"""What every front end promises, whatever stands behind it: simulated here, over loopback, in a machine's shadow, on tape."""

from __future__ import annotations

import importlib.util
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal.devices
from hal.devices.recorded import Recorded, RecordedFrontend, TapeFrontend
from hal.devices.remote import Remote
from hal.devices.shadow import Shadow
from hal.devices.sim import Sim
from hal.errors import Misuse
from hal.frontend import SITE, Drive, Frontend, Listen
from hal.medium import Paths
from hal.serve import serve
from hal.wire import encode


def _load(name: str) -> Any:
    path = Path(__file__).parents[1] / "hal" / "devices" / f"{name}.py"
    found = importlib.util.spec_from_file_location(f"contract_{name}", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


machine = _load("machine")
SPEC = machine.SPEC


@contextmanager
def sim(**fields: Any) -> Iterator[Frontend]:
    frontend = Sim(**fields).open(SPEC, machine.noise)
    yield frontend
    frontend.close()


@contextmanager
def loopback(**fields: Any) -> Iterator[Frontend]:
    done, bound, where = threading.Event(), threading.Event(), []

    def announce(endpoint: str) -> None:
        where.append(endpoint)
        bound.set()

    with sim(**fields) as hosted:
        worker = threading.Thread(target=serve, args=(hosted, "tcp://127.0.0.1:0", done.is_set, announce))
        worker.start()
        assert bound.wait(10)
        frontend = Remote(where[0], timeout_s=10.0, warn_s=5.0).open(SPEC, None)
        try:
            yield frontend
        finally:
            frontend.close()
            done.set()
            worker.join()


@contextmanager
def shadow(**fields: Any) -> Iterator[Frontend]:
    frontend = Shadow(real=Sim(**fields), air=Sim(**fields)).open(SPEC, machine.noise)
    yield frontend
    frontend.close()


class Rehearsed:
    """Each question is put to a machine with a tape running, and then to the tape, whose answer counts."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.tape = TapeFrontend(Sim(**fields).open(SPEC, machine.noise), path)
        self.played: dict[Any, int] = {}
        self.path = path
        self.last = self.open()
        self.spec = self.last.spec

    def open(self) -> RecordedFrontend:
        frontend = Recorded(self.path, exact=True).open(SPEC)
        frontend._played = self.played
        return frontend

    def _both(self, verb: str, *asked: Any) -> Any:
        refused = None
        try:
            getattr(self.tape, verb)(*asked)
        except Misuse as error:
            refused = error
        self.last.close()
        self.last = self.open()
        if self.tape._file.closed:
            self.last.close()
        answer = getattr(self.last, verb)(*asked)
        assert refused is None, "the tape knows what the machine refused"
        return answer

    def set_beam(self, beam: Any, at_ns: int) -> Any:
        return self._both("set_beam", beam, at_ns)

    def emit(self, drive: Any) -> Any:
        return self._both("emit", drive)

    def receive(self, incident: Any, listen: Any) -> Any:
        return self._both("receive", incident, listen)

    def close(self) -> None:
        self.tape.close()
        self.last.close()


@contextmanager
def taped(**fields: Any) -> Iterator[Frontend]:
    with tempfile.TemporaryDirectory() as folder:
        frontend = Rehearsed(Path(folder) / "tape", **fields)
        yield frontend
        frontend.close()


KINDS = {"sim": sim, "remote": loopback, "shadow": shadow, "recorded": taped}


@pytest.fixture(params=sorted(KINDS))
def frontend(request: pytest.FixtureRequest) -> Iterator[Frontend]:
    with KINDS[request.param]() as made:
        yield made


def drive(events: int = 3, t_ns: int = 10**9) -> Drive:
    rng = np.random.default_rng(0)
    return Drive(
        t_ns=t_ns + 17_500 * np.arange(events),
        slot=np.arange(events) % 2,
        frequency_hz=np.array([SPEC.carrier_hz]),
        power_w=np.full((events, 1), SPEC.transmit_power_w),
        digital=np.ones((events, 1, 1), complex),
        samples=np.exp(2j * np.pi * rng.random((events, 1, 32))),
        sample_rate_hz=64e6,
        roll_off=0.1,
    )


def echo() -> Paths:
    point = np.array([[30.0, 4.0, -2.0], [50.0, -9.0, 1.0]])
    return Paths(
        carrier_hz=SPEC.carrier_hz,
        t_ns=np.array([10**9]),
        source=np.array([SITE, SITE]),
        sink=np.array([3, 4]),
        gain=np.array([[1e-6, 2e-6j]]),
        delay_s=np.array([2e-7, 3.3e-7]),
        doppler_hz=np.array([4e3, -1e3]),
        departure_m=point,
        arrival_m=point,
    )


def listen(sent: Drive) -> Listen:
    return Listen(t_ns=sent.t_ns, slot=sent.slot, bandwidth_hz=64e6)


def load(frontend: Frontend, at_ns: int = 0) -> None:
    for half in ("transmit", "receive"):
        frontend.set_beam(machine.beam(half, [0, 1]), at_ns)


def test_every_device_kind_is_under_contract() -> None:
    """A new file in hal/devices must be added to KINDS above, or say here why it cannot be."""
    kinds = {p.stem for p in Path(next(iter(hal.devices.__path__))).glob("*.py")} - {"__init__"}
    elsewhere = {
        "iio"
    }  # boards of other elements and bands than this machine: tests/hal/devices/test_iio.py, and the conformance suite
    assert kinds - elsewhere == set(KINDS), "a device without a contract test"


def test_it_plays_the_role_and_has_a_nameplate(frontend: Frontend) -> None:
    assert isinstance(frontend, Frontend)
    assert encode(frontend.spec) == encode(SPEC)


@pytest.mark.parametrize("half", ["transmit", "receive"])
def test_a_report_tells_what_was_taken_and_when(frontend: Frontend, half: str) -> None:
    wanted = machine.beam(half, [1, 0])
    report = frontend.set_beam(wanted, 5000)
    assert encode(report.setpoint) == encode(wanted)
    assert report.accepted_ns == 5000
    assert report.effective_ns >= 5000 + SPEC.command_latency_ns + SPEC.settling_ns
    assert report.readback is not None
    assert report.readback.slot.tolist() == [1, 0]
    turn = 2 * np.pi / 2 ** getattr(SPEC, half).network.phase_bits
    off = np.angle(np.exp(1j * (report.readback.phase_rad - wanted.phase_rad)))
    assert np.all(np.abs(off) <= turn / 2 + 1e-9)
    again = frontend.set_beam(report.readback, report.effective_ns)
    assert encode(again.readback) == encode(report.readback)


def test_a_beam_is_in_force_from_its_effective_time_on(frontend: Frontend) -> None:
    load(frontend)
    report = frontend.set_beam(machine.beam("transmit", [0], seed=5), 10**9)
    sent = replace(drive(2), t_ns=report.effective_ns + np.array([-1, 0]), slot=np.array([0, 0]))
    emission = frontend.emit(sent)
    before, after = emission.response[emission.row]
    assert not np.array_equal(before, after)
    assert np.array_equal(frontend.emit(replace(sent, t_ns=sent.t_ns + 10**8)).response[0], after)


def test_no_power_is_made(frontend: Frontend) -> None:
    """Each chain's response has at most unit norm, in every slot, at every frequency."""
    load(frontend)
    sent = drive(2)
    grid = SPEC.carrier_hz + np.linspace(-4e9, 4e9, 5)
    wide = replace(sent, frequency_hz=grid, power_w=np.full((2, 5), 0.1), samples=None)
    response = frontend.emit(wide).response
    assert response.shape == (2, 5, 64, 1)
    assert np.all(np.sum(np.abs(response) ** 2, axis=2) <= 1 + 1e-9)


def test_a_reception_has_a_row_an_event_and_says_its_noise(frontend: Frontend) -> None:
    load(frontend)
    sent = frontend.emit(drive())
    heard = frontend.receive([(sent, echo())], listen(sent.drive))
    assert heard.samples.shape == (3, 2, 32)
    assert np.array_equal(heard.t_ns, sent.drive.t_ns)
    assert np.isfinite(heard.samples).all()
    assert heard.noise_w > 0
    assert heard.dropped_w >= 0


def test_what_is_given_is_left_as_it_was(frontend: Frontend) -> None:
    load(frontend)
    wanted, sent, field = machine.beam("transmit", [0], seed=2), drive(), echo()
    before = [encode(wanted), encode(sent), encode(field)]
    frontend.set_beam(wanted, 0)
    emission = frontend.emit(sent)
    frontend.receive([(emission, field)], listen(sent))
    assert [encode(wanted), encode(sent), encode(field)] == before


@pytest.mark.parametrize(
    "changes",
    [
        {"half": "sideways"},
        {"slot": np.array([0, 10**6])},
        {"slot": np.array([0, 0])},
        {"phase_rad": np.full((2, 1, 64), np.nan)},
        {"amplitude": np.zeros((2, 1, 3)), "phase_rad": np.zeros((2, 1, 3))},
    ],
)
def test_a_beam_that_cannot_be_is_misuse_and_changes_nothing(frontend: Frontend, changes: dict[str, Any]) -> None:
    load(frontend)
    before = encode(frontend.emit(drive()))
    with pytest.raises(Misuse):
        frontend.set_beam(replace(machine.beam("transmit", [0, 1], seed=3), **changes), 0)
    assert encode(frontend.emit(drive())) == before


def test_closing_twice_is_once_and_a_closed_one_says_so(frontend: Frontend) -> None:
    frontend.close()
    frontend.close()
    with pytest.raises(Misuse, match="is closed"):
        frontend.emit(drive())


@pytest.mark.parametrize("fields", [{}, {"readback": False, "converter_bits": 10, "converter_full_scale_w": 1e-6}])
def test_here_and_over_loopback_are_the_same_bits(fields: dict[str, Any]) -> None:
    said = []
    for kind in sorted(KINDS):
        with KINDS[kind](**fields) as frontend:
            reports = [frontend.set_beam(machine.beam(half, [0, 1]), 0) for half in ("transmit", "receive")]
            reports.append(frontend.set_beam(machine.beam("transmit", [1], seed=4), 10**9 - 5000))
            emission = frontend.emit(drive())
            heard = frontend.receive([(emission, echo())], listen(drive()))
            said.append([encode(one) for one in (*reports, emission, heard)])
    assert len(said) == len(KINDS)
    assert all(one == said[0] for one in said)


def test_data_blocks_come_back_alike_from_every_kind(frontend: Frontend) -> None:
    """Echoes of the site's own wide-band events: over a line, in a machine's shadow and from tape to the bit as from the machine itself."""

    def asked(one: Frontend) -> bytes:
        load(one)
        t_ns = 10**9 + 140_000 * np.arange(3)
        f = SPEC.carrier_hz + 250e6 * (np.arange(4) - 1.5)
        block = Drive(
            t_ns=t_ns,
            slot=np.array([0, 1, 0]),
            frequency_hz=f,
            power_w=np.full((3, 4), 0.2),
            digital=np.ones((3, 1, 1), complex),
        )
        sent = one.emit(block)
        back = one.receive([(sent, echo())], Listen(t_ns=t_ns, slot=np.array([1, 0, 0]), bandwidth_hz=1e5))
        assert back.samples.shape == (3, 2, 4)
        return encode(back)

    with sim() as plain:
        assert asked(frontend) == asked(plain)
