"""What is heard through the face, against closed forms: array factor, link and radar equations, noise; and time, moving and held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hal.errors import Misuse
from twin.iio.face import Face, Scene
from twin.scenario import loads

C = 299792458.0
CARRIER = 10e9
BENCH = """
title: bench
seed: 3
carrier_ghz: 10
sensing: { dwells: 1 }
pilots: { power_dbm: 0 }
channel: { kind: rician, rays: 0, vapour_density_g_m3: 0, pressure_hpa: 1 }
sites:
  bench:
    position_m: [0, 0, 1]
    power_dbm: 30
    transmit: { array: { kind: ula, elements: 4 }, network: { delay_lines: null, phase_bits: 7, amplitude_bits: 7 } }
    receive: { array: { kind: upa, columns: 4, rows: 4 }, network: { chains: 4, phase_bits: 7, amplitude_bits: 7 } }
"""
USER = "users: [{name: walker, mobility: {kind: linear, position_m: [20, 5, 3], velocity_mps: [0, -1, 0]}}]\n"
TARGET = "targets: [{name: plate, rcs_m2: 40, mobility: {kind: static, position_m: [20, 0, 1]}}]\n"


class Clock:
    def __init__(self) -> None:
        self.t = 5

    def __call__(self) -> int:
        self.t += 1_000
        return self.t


class Set:
    """A face with a clock that a test moves, all chips on at full gain."""

    def __init__(self, more: str, hold_ns: int | None = None) -> None:
        self.clock = Clock()
        self.scene = Scene(loads(BENCH + more), hold_ns, self.clock)
        self.face = Face(self.scene)
        self.devices = {d.label or d.name: d for d in self.face.context().devices}

    def write(self, device: str, name: str, value: object, channel: int | None = None, output: bool = False) -> None:
        one = self.devices[device]
        where = one if channel is None else one.channel(f"voltage{channel}", output)
        assert where is not None
        where.attributes[name].write(str(value))  # type: ignore[misc]

    def on(self, half: str, phase_deg: Any = 0.0, gain: int = 127) -> None:
        short, output = {"receive": ("rx", False), "transmit": ("tx", True)}[half]
        phases = np.broadcast_to(phase_deg, 4 * len(self.face.labels[half]))
        amplifiers = (
            ("rx_lna_enable", "rx_vga_enable", "rx_vm_enable")
            if short == "rx"
            else ("tx_drv_enable", "tx_vga_enable", "tx_vm_enable")
        )
        for k, chip in enumerate(self.face.labels[half]):
            for name in (*amplifiers, f"{short}_en"):
                self.write(chip, name, 1)
            self.write(chip, "tr_spi", int(output))
            for c in range(4):
                for name, value in {
                    "powerdown": 0,
                    "attenuation": 1,
                    "hardwaregain": gain,
                    "phase": phases[4 * k + c],
                }.items():
                    self.write(chip, name, value, c, output)
            self.write(chip, f"{short}_load_spi", 1)

    def hear(self, samples: int = 4096) -> np.ndarray:
        heard, _ = self.face.listen(samples, self.scene.now_ns())
        return heard[0]

    def line_w(self, samples: int = 4096) -> float:
        return float(np.max(np.abs(np.fft.fft(self.hear(samples)) / samples) ** 2))

    def truth(self) -> dict[str, dict[str, Any]]:
        told = json.loads(self.devices["twin-scene"].attributes["truth"].read())  # type: ignore[misc]
        return {m["name"]: m for m in told["movers"]}


@pytest.fixture
def made() -> Iterator[Any]:
    opened: list[Set] = []

    def make(more: str, hold_ns: int | None = None) -> Set:
        opened.append(Set(more, hold_ns))
        return opened[-1]

    yield make
    for one in opened:
        one.scene.close()


def steering_deg(az_deg: float, el_deg: float) -> np.ndarray:
    """Phases of pyadi-iio's law, rows from above, columns from the left: 180 degrees times (column sin az + row sin el)."""
    row, column = np.divmod(np.arange(16), 4)
    return 180 * (column * np.sin(np.deg2rad(az_deg)) + row * np.sin(np.deg2rad(el_deg)))


def test_power_follows_the_array_factor_and_the_link_budget(made: Any) -> None:
    bench = made(USER, hold_ns=0)
    at = np.array([20, 5, 2.0])
    distance = np.linalg.norm(at)
    u = at / distance
    one_w = 1e-3 * (C / CARRIER / (4 * np.pi * distance)) ** 2
    for az, el in ((13.7, 5.5), (0, 0), (-40, 20), (70, -30)):
        phases = np.round(steering_deg(az, el) / 2.8125) * 2.8125
        bench.on("receive", steering_deg(az, el))
        row, column = np.divmod(np.arange(16), 4)
        p_y, p_z = -(column - 1.5) / 2, -(row - 1.5) / 2  # wavelengths; left is +y, up is +z
        factor = np.exp(2j * np.pi * (p_y * u[1] + p_z * u[2])) @ np.exp(1j * np.deg2rad(phases)) / 4
        assert bench.line_w() == pytest.approx(one_w * abs(factor) ** 2, rel=0.02, abs=3e-16)
    told = bench.truth()["walker"]
    assert told["azimuth_deg"] == pytest.approx(np.rad2deg(np.arctan2(5, 20)), abs=1e-3)
    assert told["range_m"] == pytest.approx(distance, abs=1e-3)
    assert told["tone"] == 1 / 64


def test_gain_is_in_amplitude_and_off_is_off(made: Any) -> None:
    bench = made(USER, hold_ns=0)
    bench.on("receive", steering_deg(14, 5))
    full_w = bench.line_w()
    bench.on("receive", steering_deg(14, 5), gain=64)
    assert bench.line_w() == pytest.approx(full_w * (64 / 127) ** 2, rel=0.03)
    for chip in bench.face.labels["receive"]:
        bench.write(chip, "rx_en", 0)
    assert bench.line_w() < 1e-4 * full_w


def test_staged_settings_are_not_heard_until_each_chip_is_latched(made: Any) -> None:
    bench = made(USER, hold_ns=0)
    bench.on("receive", steering_deg(14, 5))
    at_user_w = bench.line_w()
    away = np.round(steering_deg(-60, 5), 3)
    for k, chip in enumerate(bench.face.labels["receive"]):
        for c in range(4):
            bench.write(chip, "phase", away[4 * k + c], c)
    assert bench.line_w() == pytest.approx(at_user_w, rel=0.02)
    for chip in bench.face.labels["receive"]:
        bench.write(chip, "rx_load_spi", 1)
    assert bench.line_w() < 0.1 * at_user_w


def test_the_tone_is_where_it_is_said_to_be(made: Any) -> None:
    bench = made(USER, hold_ns=0)
    bench.on("receive", steering_deg(14, 5))
    line = int(np.argmax(np.abs(np.fft.fft(bench.hear(4096)))))
    assert line == 4096 // 64


def test_noise_is_that_of_the_nameplate_and_the_converter_scales_it(made: Any) -> None:
    bench = made(TARGET)
    bench.on("receive")
    heard = np.concatenate([bench.hear() for _ in range(8)])
    ktbf_w = 1.380649e-23 * 290 * 1e6 * 10
    assert np.mean(np.abs(heard) ** 2) == pytest.approx(ktbf_w, rel=0.05)
    words = bench.face.steps(heard[None])
    assert words.shape == (len(heard), 2)
    assert words.dtype == np.dtype("<i2")
    back = (words[:, 0] + 1j * words[:, 1]) * bench.face.step
    assert np.max(np.abs(back - heard)) <= bench.face.step * 0.75
    assert bench.face.steps(np.full((1, 3), 1.0))[:, 0].tolist() == [32767] * 3  # a watt is too much


def test_echoes_obey_the_radar_equation_and_need_the_transmit_board(made: Any) -> None:
    bench = made(TARGET)
    bench.on("receive")
    silent = np.mean(np.abs(bench.hear()) ** 2)
    bench.on("transmit")
    heard_w = np.mean(np.abs(bench.hear()) ** 2)
    wavelength = C / CARRIER
    echo_w = 1.0 * 4 * 16 * wavelength**2 * 40 / ((4 * np.pi) ** 3 * 20.0**4)
    assert heard_w - silent == pytest.approx(echo_w, rel=0.1)
    bench.on("transmit", phase_deg=[0, 180, 0, 180])  # a null straight ahead
    assert np.mean(np.abs(bench.hear()) ** 2) == pytest.approx(silent, rel=0.2)


def test_time_moves_the_bearing_and_holding_freezes_it(made: Any) -> None:
    bench = made(USER)
    first = bench.truth()["walker"]["azimuth_deg"]
    bench.clock.t += 5 * 10**9
    moved = bench.truth()["walker"]["azimuth_deg"]
    assert moved < first - 10  # 5 m at 20 m
    bench.write("twin-scene", "hold", 1)
    bench.on("receive", steering_deg(moved, 5))
    held_w = bench.line_w()
    bench.clock.t += 5 * 10**9
    assert bench.truth()["walker"]["azimuth_deg"] == pytest.approx(moved, abs=1e-2)
    assert bench.line_w() == pytest.approx(held_w, rel=0.02)
    assert not np.array_equal(bench.hear(), bench.hear())  # noise goes on
    bench.write("twin-scene", "hold", 0)
    assert bench.truth()["walker"]["azimuth_deg"] == pytest.approx(moved, abs=0.1)  # from where it stood
    bench.clock.t += 5 * 10**9
    assert bench.truth()["walker"]["azimuth_deg"] < moved - 10


def test_a_long_buffer_is_a_run_of_frames_and_a_keen_reader_hears_every_sample(made: Any, monkeypatch: Any) -> None:
    bench = made(USER)
    monkeypatch.setattr("twin.iio.face.time.sleep", lambda s: setattr(bench.clock, "t", bench.clock.t + round(s * 1e9)))
    stream = bench.devices["twin-receiver"].stream()
    begun = bench.scene.now_ns()
    for _ in range(5):
        assert len(stream.read(6000, [0, 1])) == 6000 * 4
    assert bench.scene.now_ns() - begun == pytest.approx(30e6, rel=0.01)  # 30000 samples at 1 MS/s
    bench.clock.t += 10**9
    late = bench.scene.now_ns()
    stream.read(1000, [1])
    assert bench.scene.now_ns() - late == pytest.approx(1e6, rel=0.05)  # a new start, not a second to catch up with


@pytest.mark.parametrize(
    ("name", "value"), [("sampling_frequency", "1"), ("sampling_frequency", "nan"), ("hardwaregain", "200")]
)
def test_the_receiver_refuses_what_it_cannot(made: Any, name: str, value: str) -> None:
    bench = made(TARGET)
    with pytest.raises(OSError, match="EINVAL"):
        bench.write("twin-receiver", name, value, 0)


def test_arrays_that_fit_no_chips_are_refused() -> None:
    odd = BENCH.replace("columns: 4, rows: 4", "columns: 3, rows: 3") + TARGET
    scene = Scene(loads(odd))
    with pytest.raises(Misuse, match="receive array: has 9 elements"):
        Face(scene)
    scene.close()
