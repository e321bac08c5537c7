"""The chip by itself: steps, staging and latching, memory, switches, and what is refused."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.iio.adar1000 import Adar1000, label
from twin.iio.context import Device


class Bench:
    def __init__(self) -> None:
        self.changed: list[str] = []
        self.chip = Adar1000("csb1_chip1", self.changed.append)
        self.device: Device = self.chip.device("iio:device0")

    def put(self, name: str, value: object, channel: int | None = None, output: bool = False) -> None:
        write = self._attribute(name, channel, output).write
        assert write is not None
        write(str(value))

    def get(self, name: str, channel: int | None = None, output: bool = False) -> str:
        read = self._attribute(name, channel, output).read
        assert read is not None
        return read()

    def _attribute(self, name: str, channel: int | None, output: bool):
        if channel is None:
            return self.device.attributes[name]
        found = self.device.channel(f"voltage{channel}", output)
        assert found is not None
        return found.attributes[name]

    def on(self) -> None:
        for name in ("rx_en", "rx_lna_enable", "rx_vga_enable", "rx_vm_enable"):
            self.put(name, 1)
        for c in range(4):
            self.put("powerdown", 0, c)
            self.put("attenuation", 1, c)
            self.put("hardwaregain", 127, c)
        self.put("rx_load_spi", 1)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@given(st.floats(-1e6, 1e6), st.integers(0, 127))
def test_settings_are_the_nearest_step(phase_deg: float, gain: int) -> None:
    bench = Bench()
    bench.on()
    bench.put("phase", phase_deg, 2)
    bench.put("hardwaregain", gain, 2)
    bench.put("rx_load_spi", 1)
    told = float(bench.get("phase", 2))
    assert told % 2.8125 == 0
    assert 0 <= told < 360
    off = (told - phase_deg + 180) % 360 - 180
    assert abs(off) <= 2.8125 / 2 + 1e-6
    amplitude, phase_rad = bench.chip.settings("receive")
    assert amplitude.tolist() == [1, 1, gain / 127, 1]
    assert phase_rad[2] == pytest.approx(np.deg2rad(told))


def test_nothing_happens_before_the_latch(bench: Bench) -> None:
    bench.on()
    bench.put("phase", 90, 0)
    bench.put("hardwaregain", 64, 0)
    bench.put("attenuation", 0, 0)
    assert (float(bench.get("phase", 0)), bench.get("hardwaregain", 0)) == (90, "64")  # staged, and told
    amplitude, phase_rad = bench.chip.settings("receive")
    assert (amplitude[0], phase_rad[0]) == (1, 0)  # not in force
    bench.put("tx_load_spi", 1)
    bench.put("rx_load_spi", 0)
    assert bench.chip.settings("receive")[0][0] == 1  # another latch, and no latch
    bench.put("rx_load_spi", 1)
    amplitude, phase_rad = bench.chip.settings("receive")
    assert amplitude[0] == pytest.approx(64 / 127 * 10 ** (-15 / 20))
    assert phase_rad[0] == pytest.approx(np.pi / 2)
    assert bench.changed[-1] == "receive"


@pytest.mark.parametrize(
    "off",
    [
        lambda b: b.put("rx_en", 0),
        lambda b: b.put("rx_lna_enable", 0),
        lambda b: b.put("tr_spi", 1),
        lambda b: b.put("reset", 1),
    ],
)
def test_a_switch_works_at_once(bench: Bench, off: Callable[[Bench], None]) -> None:
    bench.on()
    assert bench.chip.settings("receive")[0].all()
    off(bench)
    assert not bench.chip.settings("receive")[0].any()


def test_one_channel_can_be_off(bench: Bench) -> None:
    bench.on()
    bench.put("powerdown", 1, 3)
    assert bench.chip.settings("receive")[0].tolist() == [1, 1, 1, 0]
    assert not bench.chip.settings("transmit")[0].any()


def test_the_memory_holds_beams_through_a_reset(bench: Bench) -> None:
    for c in range(4):
        bench.put("beam_pos_save", f"120, 1, {10 * c + 7}, {90 * c}", c)
        bench.put("beam_pos_save", f"5, 0, 127, {45 * c}", c)
    bench.put("reset", 1)
    bench.on()
    bench.put("beam_mem_enable", 1)
    bench.put("common_mem_enable", 1)
    bench.put("static_rx_beam_pos_load", 120)
    assert bench.chip.settings("receive")[0].tolist() == [1] * 4  # not latched yet
    bench.put("rx_load_spi", 1)
    amplitude, phase_rad = bench.chip.settings("receive")
    assert amplitude == pytest.approx(np.array([7, 17, 27, 37]) / 127)
    assert phase_rad == pytest.approx(np.deg2rad([0, 90, 180, 270]))
    bench.put("common_mem_enable", 0)
    bench.put("beam_pos_load", 5, 1)  # each channel its own; position 0 was never saved
    bench.put("rx_load_spi", 1)
    assert bench.chip.settings("receive")[0] == pytest.approx([0, 10 ** (-15 / 20), 0, 0])


@pytest.mark.parametrize(
    ("name", "value", "channel", "output"),
    [
        ("hardwaregain", "128", 0, False),
        ("hardwaregain", "1.5", 0, False),
        ("hardwaregain", "nan", 0, False),
        ("phase", "inf", 0, False),
        ("phase", "north", 0, False),
        ("beam_pos_save", "121, 1, 1, 1", 0, False),
        ("beam_pos_save", "1, 1, 1", 0, False),
        ("beam_pos_load", "121", 0, True),
        ("pa_bias_on", "256", 0, True),
        ("bias_set_save", "8, 1, 1", 0, True),
        ("rx_en", "2", None, False),
        ("sequencer_enable", "1", None, False),
    ],
)
def test_what_cannot_be_is_refused(bench: Bench, name: str, value: str, channel: int | None, output: bool) -> None:
    with pytest.raises((OSError, ValueError)) as caught:  # a ValueError becomes EINVAL
        bench.put(name, value, channel, output)
    if isinstance(caught.value, OSError):
        assert caught.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)


def test_the_detector_sees_what_is_sent(bench: Bench) -> None:
    for name in ("tx_en", "tx_drv_enable", "tx_vga_enable", "tx_vm_enable", "tr_spi"):
        bench.put(name, 1)
    for name, value in (("powerdown", 0), ("attenuation", 1), ("hardwaregain", 127)):
        bench.put(name, value, 1, True)
    bench.put("tx_load_spi", 1)
    assert bench.get("raw", 1, True) == "0"
    bench.put("detector_en", 1, 1, True)
    assert bench.get("raw", 1, True) == "255"


def test_labels() -> None:
    assert [label(k) for k in (0, 3, 4, 9)] == ["csb1_chip1", "csb1_chip4", "csb2_chip1", "csb3_chip2"]
