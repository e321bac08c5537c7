"""An ADAR1000: four channels in each direction, settings staged and latched, a beam memory, and the registers around them.

Attribute names, ranges and meanings are those of the Linux driver as pyadi-iio 0.0.21 uses them; the numbers (7 bit phase and gain, 121 beam
positions, 15 dB attenuator) are the ADAR1000 data sheet's (Analog Devices, Rev. B).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hal.record import Array, Float
from twin.iio.context import Attribute, Channel, Device, refused

__all__ = ["ATTENUATOR_DB", "CHANNELS", "GAIN_TOP", "PHASES", "POSITIONS", "Adar1000", "Setting", "label"]

CHANNELS = 4
PHASES = 128  # steps of 2.8125 degrees
GAIN_TOP = 127
ATTENUATOR_DB = 15.0
POSITIONS = 121  # of the beam memory
BIASES = 7
WARM = 145  # code of the temperature sensor at 25 C; the twin has no warmth of its own

HALVES = {"receive": "rx", "transmit": "tx"}
FLAGS = (
    "beam_mem_enable bias_enable bias_ctrl bias_mem_enable common_mem_enable lna_bias_out_enable pol rx_en tx_en rx_lna_enable rx_vga_enable "
    "rx_vm_enable tx_drv_enable tx_vga_enable tx_vm_enable sw_drv_en_pol sw_drv_en_tr sw_drv_tr_mode_sel sw_drv_tr_state tr_source tr_spi"
).split()
NUMBERS = {  # name: largest value
    "lna_bias_off": 255,
    "lna_bias_on": 255,
    "bias_current_rx_lna": 15,
    "bias_current_rx": 127,
    "bias_current_tx": 127,
    "bias_current_tx_drv": 7,
    "rx_to_tx_delay_1": 15,
    "rx_to_tx_delay_2": 15,
    "tx_to_rx_delay_1": 15,
    "tx_to_rx_delay_2": 15,
    "static_rx_beam_pos_load": POSITIONS - 1,
    "static_tx_beam_pos_load": POSITIONS - 1,
}
PER_CHANNEL = {"beam_pos_load": POSITIONS - 1, "sequence_start": POSITIONS - 1, "sequence_end": POSITIONS - 1}
NEEDED = {  # what must be on for a half to work, and where the switch must stand
    "receive": ("rx_en", "rx_lna_enable", "rx_vga_enable", "rx_vm_enable"),
    "transmit": ("tx_en", "tx_drv_enable", "tx_vga_enable", "tx_vm_enable"),
}


@dataclass(frozen=True)
class Setting:
    """What one channel does to a signal."""

    phase: int = 0  # steps of 360 / 128 degrees
    gain: int = 0  # 0 .. 127
    bypass: int = 0  # 1: past the attenuator

    @property
    def amplitude(self) -> float:
        """Of the channel, 1 at most: linear in the gain word, 15 dB less through the attenuator."""
        return self.gain / GAIN_TOP * (1.0 if self.bypass else 10 ** (-ATTENUATOR_DB / 20))


def label(k: int) -> str:
    """What the k-th chip is called: four chips share a chip-select line and differ in their address."""
    return f"csb{k // 4 + 1}_chip{k % 4 + 1}"


class Adar1000:
    """One chip. ``changed(half)`` is called whenever what it does to a signal may have become another."""

    def __init__(self, name: str, changed: Callable[[str], None]) -> None:
        self.label, self._changed = name, changed
        self._reset()

    def _reset(self) -> None:
        """Registers as after power-up: everything off. The beam memory keeps what it has, as RAM does."""
        self._word = dict.fromkeys([*FLAGS, *NUMBERS], 0)
        self._own: dict[tuple[str, int, str], int] = {}
        self._staged = {(half, c): Setting() for half in HALVES for c in range(CHANNELS)}
        self._in_force = dict(self._staged)
        self._beams = getattr(self, "_beams", {})  # (half, channel, position) -> Setting
        self._biases: dict[tuple[str, int], str] = getattr(self, "_biases", {})

    def settings(self, half: str) -> tuple[Float[Array, " channel"], Float[Array, " channel"]]:
        """Amplitude (0 .. 1) and phase (rad) of each channel as they are in force; 0 where something is switched off."""
        word = self._word
        on = all(word[name] for name in NEEDED[half]) and word["tr_spi"] == (half == "transmit")
        taken = [self._in_force[half, c] for c in range(CHANNELS)]
        amplitude = [s.amplitude * (on and not self._off(half, c)) for c, s in enumerate(taken)]
        return np.array(amplitude), np.array([s.phase * 2 * np.pi / PHASES for s in taken])

    def device(self, id_: str) -> Device:
        """The chip as IIO offers it."""
        attributes: dict[str, Attribute] = {"label": Attribute(read=lambda: self.label)}
        for name in FLAGS:
            attributes[name] = self._register(name, 1)
        for name, top in NUMBERS.items():
            attributes[name] = self._register(name, top)
        attributes["sequencer_enable"] = Attribute(lambda: "0", self._sequence)
        attributes["gen_clk_cycles"] = Attribute(lambda: "0", lambda _: None)  # nothing here waits for a clock
        for half, short in HALVES.items():
            attributes[f"{short}_load_spi"] = Attribute(lambda: "0", partial(self._latch, half))
        attributes["reset"] = Attribute(lambda: "0", self._reset_by)
        channels = [self._channel(half, c) for half in HALVES for c in range(CHANNELS)]
        channels.append(Channel("temp0", attributes={"raw": Attribute(lambda: str(WARM))}))
        return Device(id_, "adar1000", attributes, tuple(channels), self.label)

    def _channel(self, half: str, c: int) -> Channel:
        attributes = {
            "hardwaregain": Attribute(
                lambda: str(self._staged[half, c].gain),
                lambda text: self._stage(half, c, gain=_whole(text, GAIN_TOP)),
            ),
            "phase": Attribute(
                lambda: f"{self._staged[half, c].phase * 360 / PHASES:.6f}",
                lambda text: self._stage(half, c, phase=_phase(text)),
            ),
            "attenuation": Attribute(
                lambda: str(self._staged[half, c].bypass),
                lambda text: self._stage(half, c, bypass=_whole(text, 1)),
            ),
            "powerdown": Attribute(
                lambda: str(self._off(half, c)), lambda text: self._set(half, c, "powerdown", _whole(text, 1))
            ),
            "beam_pos_save": Attribute(write=partial(self._save, half, c)),
        }
        for name, top in PER_CHANNEL.items():
            attributes[name] = self._local(half, c, name, top)
        if not c:
            attributes["bias_set_load"] = self._local(half, c, "bias_set_load", BIASES)
            attributes["bias_set_save"] = Attribute(write=partial(self._save_bias, half))
        if half == "transmit":
            attributes |= {name: self._local(half, c, name, 255) for name in ("pa_bias_on", "pa_bias_off")}
            attributes["detector_en"] = self._local(half, c, "detector_en", 1)
            attributes["raw"] = Attribute(lambda: str(self._detected(c)))
        return Channel(f"voltage{c}", half == "transmit", attributes)

    def _register(self, name: str, top: int) -> Attribute:
        def write(text: str) -> None:
            self._word[name] = _whole(text, top)
            for half in HALVES:
                self._changed(half)

        return Attribute(lambda: str(self._word[name]), write)

    def _local(self, half: str, c: int, name: str, top: int) -> Attribute:
        return Attribute(
            lambda: str(self._own.get((half, c, name), 0)), lambda text: self._set(half, c, name, _whole(text, top))
        )

    def _off(self, half: str, c: int) -> int:
        return self._own.get((half, c, "powerdown"), 1)

    def _set(self, half: str, c: int, name: str, value: int) -> None:
        self._own[half, c, name] = value
        self._changed(half)

    def _stage(self, half: str, c: int, **to: int) -> None:
        self._staged[half, c] = replace(self._staged[half, c], **to)

    def _latch(self, half: str, text: str) -> None:
        """All four channels take what is staged, or what the beam memory holds where that is switched on: an empty position is dark."""
        if not _whole(text, 1):
            return
        for c in range(CHANNELS):
            setting = self._staged[half, c]
            if self._word["beam_mem_enable"]:
                common = self._word[f"static_{HALVES[half]}_beam_pos_load"]
                position = common if self._word["common_mem_enable"] else self._own.get((half, c, "beam_pos_load"), 0)
                setting = self._beams.get((half, c, position), Setting())
            self._in_force[half, c] = setting
        self._changed(half)

    def _save(self, half: str, c: int, text: str) -> None:
        position, bypass, gain, phase = text.split(",")
        setting = Setting(_phase(phase), _whole(gain, GAIN_TOP), _whole(bypass, 1))
        self._beams[half, c, _whole(position, POSITIONS - 1)] = setting

    def _save_bias(self, half: str, text: str) -> None:
        position, *codes = text.split(",")
        for code in codes:
            _whole(code, 255)
        self._biases[half, _whole(position, BIASES)] = ",".join(codes)

    def _detected(self, c: int) -> int:
        """The power detector's code: 255 at full amplitude, 0 where it is off."""
        amplitude, _ = self.settings("transmit")
        return round(255 * float(amplitude[c]) ** 2) if self._own.get(("transmit", c, "detector_en"), 0) else 0

    def _sequence(self, text: str) -> None:
        if _whole(text, 1):
            raise refused(errno.EOPNOTSUPP)  # its clock is a pin that nobody here drives

    def _reset_by(self, text: str) -> None:
        if _whole(text, 1):
            self._reset()
            for half in HALVES:
                self._changed(half)


def _whole(text: str, top: int) -> int:
    """A whole number 0 .. top; EINVAL otherwise."""
    value = float(text)
    if not (0 <= value <= top and value == int(value)):
        raise refused(errno.EINVAL)
    return int(value)


def _phase(text: str) -> int:
    """The nearest step to an angle in degrees, modulo a turn; EINVAL for what is no angle."""
    value = float(text)
    if not abs(value) < 1e9:
        raise refused(errno.EINVAL)
    return round(value * PHASES / 360) % PHASES
