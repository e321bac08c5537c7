"""Boards behind IIO, with a stand-in for libiio whose registers are the twin's own chips: no C library, no socket, no clock but the caller's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hal.array import Ula, Upa, direction_from, steering
from hal.conformance import check
from hal.devices.iio import Iio, picture
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, Drive, Emission, FrontendSpec, HalfSpec, Listen
from hal.network import Network
from twin.iio.adar1000 import Adar1000, label

CARRIER = 10e9


def half(columns: int, rows: int, chains: int, slots: int = 9, **more: Any) -> HalfSpec:
    network = Network(
        chains=chains,
        **{"connection": "partial", "delay_lines": None, "phase_bits": 7, "amplitude_bits": 7, **more},
    )
    array = Upa(columns, rows).build(CARRIER, np.zeros(3), np.eye(3))
    return HalfSpec(array=array, network=network.build(columns, rows), memory_slots=slots)


SPEC = FrontendSpec(
    name="boards",
    carrier_hz=CARRIER,
    transmit=half(4, 1, 1),
    receive=half(4, 2, 2),
    transmit_power_w=1.0,
    noise_figure_db=10.0,
    settling_ns=2000,
    simulated=True,
)


class Value:
    def __init__(self, attribute: Any, libiio: Any) -> None:
        self._attribute, self._libiio = attribute, libiio

    @property
    def value(self) -> str:
        self._libiio.asked()
        return str(self._attribute.read())

    @value.setter
    def value(self, text: str) -> None:
        self._libiio.asked()
        self._attribute.write(text)


class Libiio:
    """What of pylibiio is used, on two receiving chips, one that sends, and a receiver whose words a test chooses."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.chips = [Adar1000(label(k), lambda half: None) for k in range(3)]
        self.words = np.zeros((0, 4), np.int16)
        self.rate = "1000000"
        self.living = 0

    def asked(self) -> None:
        if self.error is not None:
            raise self.error

    def Context(self, uri: str) -> Any:  # noqa: N802 - as libiio has it
        self.asked()
        devices = [self._device(chip.device(f"iio:device{k}")) for k, chip in enumerate(self.chips)]
        shared = {
            "sampling_frequency": SimpleNamespace(read=lambda: self.rate, write=self._set_rate),
            "scale": SimpleNamespace(read=lambda: "1e-6"),
        }
        attrs = {name: Value(one, self) for name, one in shared.items()}
        channels = [SimpleNamespace(scan_element=True, output=False, attrs=attrs, enabled=False) for _ in range(4)]
        devices.append(SimpleNamespace(name="twin-receiver", label="", channels=channels))
        about = {"rx_chips": '["csb1_chip1", "csb1_chip2"]', "tx_chips": '["csb1_chip3"]'}
        by_name = {device.name: device for device in devices}
        return SimpleNamespace(devices=devices, attrs=about, find_device=by_name.get, timeout=0)

    def Buffer(self, device: Any, count: int) -> Any:  # noqa: N802
        libiio = self
        assert all(channel.enabled for channel in device.channels)

        class Made:
            def __init__(self) -> None:
                libiio.living += 1
                assert libiio.living == 1, "two buffers of one device"

            def __del__(self) -> None:
                libiio.living -= 1

            def refill(self) -> None:
                libiio.asked()

            def read(self) -> bytes:
                return np.resize(libiio.words, (count, 4)).astype("<i2").tobytes()

        return Made()

    def _set_rate(self, text: str) -> None:
        if float(text) > 64e6:
            raise OSError(22, "Invalid argument")
        self.rate = text

    def _device(self, made: Any) -> Any:
        def find(name: str, output: bool) -> Any:
            channel = made.channel(name, output)
            return SimpleNamespace(attrs={n: Value(a, self) for n, a in channel.attributes.items()})

        attrs = {n: Value(a, self) for n, a in made.attributes.items()}
        return SimpleNamespace(name=made.name, label=made.label, attrs=attrs, find_channel=find)


@pytest.fixture
def libiio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libiio]:
    made = Libiio()
    monkeypatch.setitem(sys.modules, "iio", made)  # type: ignore[arg-type]
    yield made
    assert made.living == 0


def test_the_picture_is_the_array_from_behind() -> None:
    array = Upa(3, 2).build(CARRIER, np.zeros(3), np.eye(3))
    seen = array.position_m[picture(array)]
    assert np.all(np.diff(seen[:, :, 1], axis=1) < 0)  # from left (+y) to right
    assert np.all(np.diff(seen[:, :, 2], axis=0) < 0)  # from above to below
    assert picture(Ula(4).build(CARRIER, np.zeros(3), np.eye(3))).tolist() == [[3, 2, 1, 0]]


def test_conformance(libiio: Libiio) -> None:
    libiio.words = np.random.default_rng(1).integers(-100, 100, (4096, 4))
    verdicts = {v.rule: v for v in check(Iio().open(SPEC), fresh=True, closing=True, latency_limit_s=2.0)}
    assert not [v for v in verdicts.values() if v.verdict == "fail"]
    assert {rule for rule, v in verdicts.items() if v.verdict == "skip"} == {"delay_steps", "reception"}


def test_a_row_reaches_the_elements_it_is_for(libiio: Libiio) -> None:
    frontend = Iio().open(SPEC)
    array, network = SPEC.receive.array, SPEC.receive.network
    a = steering(array, direction_from(np.deg2rad(25.0), np.deg2rad(-12.0)), CARRIER).ravel()
    rows = np.array([3, 7])
    phase_rad = np.stack([-np.angle(a), np.angle(a)])[:, None, :] * network.wired
    beam = Beam(
        half="receive",
        slot=rows,
        delay_s=np.zeros((2, 2, 0)),
        phase_rad=phase_rad,
        amplitude=np.full((2, 2, 8), 0.8) * network.wired,
    )
    report = frontend.set_beam(beam, 1000)
    assert report.clipped == 0
    frontend.receive([], Listen(t_ns=np.array([0]), slot=np.array([7]), bandwidth_hz=1e6))
    settings = [np.concatenate(parts) for parts in zip(*(c.settings("receive") for c in libiio.chips[:2]), strict=True)]
    amplitude, found_rad = (value[np.argsort(picture(array).ravel())] for value in settings)
    assert amplitude == pytest.approx(102 / 127)
    assert np.max(np.abs(np.angle(np.exp(1j * (found_rad - np.angle(a)))))) <= np.pi / 128 + 1e-9
    own = np.argmax(network.wired, axis=0)
    assert report.readback is not None
    assert np.exp(1j * report.readback.phase_rad[1, own, np.arange(8)]) == pytest.approx(np.exp(1j * found_rad))
    frontend.receive([], Listen(t_ns=np.array([1]), slot=np.array([5]), bandwidth_hz=1e6))  # never loaded
    assert not libiio.chips[0].settings("receive")[0].any()
    frontend.receive([], Listen(t_ns=np.array([2]), slot=np.array([3]), bandwidth_hz=1e6))
    assert libiio.chips[0].settings("receive")[0].all()
    frontend.set_beam(replace(beam, slot=np.array([8, 3])), 10**9)  # 3 is in force: the chips take the new row at once
    assert libiio.chips[0].settings("receive")[1] == pytest.approx(found_rad[picture(array).ravel()][:4])
    frontend.close()


def test_readback_is_what_the_registers_say_not_what_was_wished(
    libiio: Libiio, monkeypatch: pytest.MonkeyPatch
) -> None:
    frontend = Iio().open(SPEC)
    stage = Adar1000._stage
    monkeypatch.setattr(
        Adar1000,
        "_stage",
        lambda self, half, c, **to: stage(self, half, c, **{k: v & ~1 if k == "phase" else v for k, v in to.items()}),
    )  # a chip whose finest phase bit is stuck
    wired = SPEC.transmit.network.wired
    beam = Beam(
        half="transmit",
        slot=np.array([0]),
        delay_s=np.zeros((1, 1, 0)),
        phase_rad=np.full((1, 1, 4), 3 * np.pi / 64),
        amplitude=np.ones((1, *wired.shape)),
    )
    report = frontend.set_beam(beam, 0)
    assert report.readback is not None
    assert report.readback.phase_rad == pytest.approx(np.pi / 32)
    drive = Drive(
        t_ns=np.array([report.effective_ns]),
        slot=np.array([0]),
        frequency_hz=np.array([CARRIER]),
        power_w=np.ones((1, 1)),
        digital=np.ones((1, 1, 1), np.complex128),
    )
    assert np.angle(frontend.emit(drive).response) == pytest.approx(np.pi / 32)
    frontend.close()


def test_subcarriers_are_read_off_the_band(libiio: Libiio) -> None:
    frontend = Iio().open(SPEC)
    offset_hz, rate_hz = np.array([-1.5e6, -0.5e6, 0.5e6, 1.5e6]), 4e6
    n = np.arange(400)
    tone = 1000 * np.exp(2j * np.pi * 0.5e6 * n / rate_hz + 0.3j)
    libiio.words = np.stack([tone.real, tone.imag, -tone.imag, tone.real], axis=1).round()
    drive = Drive(
        t_ns=np.array([0]),
        slot=np.array([0]),
        frequency_hz=CARRIER + offset_hz,
        power_w=np.ones((1, 4)),
        digital=np.ones((1, 1, 1), np.complex128),
    )
    there = Emission(
        source=np.array([4]), drive=drive, row=np.array([0]), response=np.ones((1, 4, 1, 1), np.complex128)
    )
    heard = frontend.receive([(there, None)], Listen(t_ns=np.array([0]), slot=np.array([0]), bandwidth_hz=1e4))
    assert libiio.rate == "4000000"
    want = np.zeros((2, 4), np.complex128)
    want[:, 2] = 1e-3 * np.exp(0.3j) * np.array([1, 1j])
    assert heard.samples[0] == pytest.approx(want, abs=2e-6)
    assert heard.noise_w == pytest.approx(1.380649e-23 * 290 * 1e4 * 10)
    frontend.close()


def test_a_full_converter_is_told_and_a_scale_may_be_given(libiio: Libiio) -> None:
    libiio.words = np.array([[2047, 0, 5, 5]])
    frontend = Iio(full_scale_w=1e-6, converter_bits=12).open(SPEC)
    heard = frontend.receive([], Listen(t_ns=np.array([0]), slot=np.array([0]), bandwidth_hz=1e6))
    assert heard.overload is not None
    assert heard.overload.tolist() == [[True, False]]
    assert heard.samples[0, 0] == pytest.approx(1e-3)
    with pytest.raises(Misuse, match="bandwidth_hz = 1e\\+09"):
        frontend.receive([], Listen(t_ns=np.array([0]), slot=np.array([0]), bandwidth_hz=1e9))
    frontend.close()


@pytest.mark.parametrize(
    ("spec", "device", "says"),
    [
        (replace(SPEC, receive=half(4, 1, 1)), Iio(), "2 chips have 8 channels, the scenario's array 4 elements"),
        (replace(SPEC, receive=half(4, 2, 2, connection="full")), Iio(), "hangs on one chain"),
        (replace(SPEC, receive=half(4, 2, 2, phase_bits=6)), Iio(), "phase_bits: is 6; an ADAR1000 has 7"),
        (replace(SPEC, transmit=half(4, 1, 1, delay_lines=(2, 1))), Iio(), "delay_lines: is 2; an ADAR1000 has none"),
        (replace(SPEC, transmit=half(4, 1, 1, slots=122)), Iio(), "memory_slots = 122: an ADAR1000 has 121"),
        (SPEC, Iio(receive_chips=("csb1_chip1", "csb7_chip1")), "no chip 'csb7_chip1'"),
        (SPEC, Iio(receiver="radio"), "no such device"),
        (replace(SPEC, receive=half(8, 1, 1)), Iio(), "4 scan elements; 1 chains need I and Q"),
    ],
)
def test_what_is_no_such_board_is_refused(libiio: Libiio, spec: FrontendSpec, device: Iio, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        device.open(spec)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(32, "Broken pipe"), RemoteFault),
        (TimeoutError(110, "timed out"), LateArrival),
        (OSError(11, "again"), LateArrival),
    ],
)
def test_a_context_that_fails_is_named(libiio: Libiio, error: Exception, kind: type[Exception]) -> None:
    frontend = Iio().open(SPEC)
    libiio.error = error
    with pytest.raises(kind, match=r"IIO context ip:127.0.0.1: .*the boards keep their beams"):
        frontend.receive([], Listen(t_ns=np.array([0]), slot=np.array([0]), bandwidth_hz=1e6))
    with pytest.raises(kind):
        Iio().open(SPEC)
    frontend.close()


def test_without_libiio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iio", None)
    with pytest.raises(Misuse, match="pip install 'pylibiio<1'"):
        Iio().open(SPEC)
