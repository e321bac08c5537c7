"""ADAR1000 boards behind an IIO context (or the twin's own face of that kind) as a front end: phases and gains, one narrow band.

Rows of beam memory are the chips' own (121 positions). A setting goes through the chip's registers, where it is read back, into its memory.
"""

from __future__ import annotations

import errno
import json
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Annotated, Any

import numpy as np

from hal.array import AntennaArray
from hal.chain import thermal_noise_w
from hal.check import Ge, Gt, In, finite, shaped
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import SITE, Beam, BeamReport, Drive, Emission, FrontendSpec, HalfSpec, Incident, Listen, Reception
from hal.memory import BeamMemory
from hal.record import Array, Complex, Float, Int

__all__ = ["Iio", "Board", "IioFrontend", "picture"]  # noqa: RUF022 - the component comes first

CHANNELS = 4  # of a chip
BITS = 7  # of phase and of gain
TOP = 2**BITS - 1
POSITIONS = 121
HALVES = {"receive": ("rx", False), "transmit": ("tx", True)}
SWITCHES = {
    "receive": ("rx_lna_enable", "rx_vga_enable", "rx_vm_enable"),
    "transmit": ("tx_drv_enable", "tx_vga_enable", "tx_vm_enable"),
}
TRIALS = 31  # loads and selects timed when a board is opened


def picture(array: AntennaArray) -> Int[Array, "row column"]:
    """The array's own element index at each place as seen from behind, looking where it looks: the upper row first, from left (+y) to right.

    It is the order in which elements are wired to chips, four neighbours each. Raises Misuse for an array that is no grid.
    """
    if not array.columns:
        raise Misuse("array: must be a grid (upa or ula) to be spread over chips")
    index = np.arange(array.columns * array.rows).reshape(array.columns, array.rows)
    return index.T[::-1, ::-1]


@dataclass(frozen=True)
class Iio:
    """Which boards, and where. Biases, supplies and the local oscillator are the laboratory's to set, before this is opened."""

    uri: str = "ip:127.0.0.1"  # of the IIO context
    receive_chips: tuple[str, ...] = ()  # labels, in the order of ``picture``; none: as the context's rx_chips lists
    transmit_chips: tuple[str, ...] = ()  # likewise, tx_chips
    receiver: str = "twin-receiver"  # device whose buffers hold I and Q of each chain, 16 bit words
    full_scale_w: Annotated[float, In("dbm"), Gt(-300)] | None = (
        None  # sine at an element that fills the converter; nothing: the receiver has an attribute scale (sqrt(W) a step)
    )
    converter_bits: Annotated[int, Ge(2)] = 16  # of each of I and Q: 12 of an AD9361
    samples: Annotated[int, Ge(1)] = 1024  # of an event, where no frame says how many
    timeout_s: Annotated[float, In("ms"), Gt(0)] = 1.0  # after it, a question without an answer is an error

    def open(self, spec: FrontendSpec, noise: object = None) -> IioFrontend:
        """Connect, switch the boards on and time them; the nameplate is the scenario's with the times found. ``noise`` is the air's own.

        Raises RemoteFault where no such context answers, and Misuse where it lacks a chip, or the scenario's arrays are not what such
        boards can be: as many elements as channels, each on one chain, 7 bits of phase and of amplitude, no delay lines.
        """
        try:
            iio = import_module("iio")
        except (ImportError, OSError, AttributeError) as error:  # the last two: the package without the C library
            raise Misuse(f"device.kind = iio: {error}; install libiio 0.2x and pip install 'pylibiio<1'") from None
        with _answered(self.uri):
            context: Any = iio.Context(self.uri)
            context.timeout = round(self.timeout_s * 1e3)
            boards = {}
            for half, (short, _) in HALVES.items():
                labels = getattr(self, f"{half}_chips") or tuple(json.loads(context.attrs.get(f"{short}_chips", "[]")))
                boards[half] = Board(context, half, labels, getattr(spec, half))
            receiver = context.find_device(self.receiver)
            if receiver is None:
                raise Misuse(f"receiver = {self.receiver!r}: the context at {self.uri} has no such device")
            return IioFrontend(spec, boards, _Receiver(iio, receiver, len(spec.receive.network.wired), self), self)


class Board:
    """One half's chips, as registers: what is staged, saved, selected and latched."""

    def __init__(self, context: Any, half: str, labels: tuple[str, ...], spec: HalfSpec) -> None:
        _fits(half, labels, spec)
        self.half, (self.short, output) = half, HALVES[half]
        self.place = picture(spec.array).ravel()
        found = {device.label or device.name: device for device in context.devices}
        missing = [label for label in labels if label not in found]
        if missing:
            raise Misuse(
                f"{half}_chips: the context has no chip {missing[0]!r}; it has {', '.join(sorted(map(str, found)))}"
            )
        self.chips = [found[label].attrs for label in labels]
        self.channels = [
            found[label].find_channel(f"voltage{c}", output).attrs for label in labels for c in range(CHANNELS)
        ]
        for chip in self.chips:
            settings = {"tr_source": 0, "tr_spi": int(output), "beam_mem_enable": 1, "common_mem_enable": 1}
            for name, value in {**settings, **dict.fromkeys(SWITCHES[half], 1)}.items():
                chip[name].value = str(value)
        for channel in self.channels:
            channel["powerdown"].value = "0"
        self.lit: int | None = None
        self.switch(False)

    def save(
        self, slot: int, phase_rad: Float[Array, " element"], amplitude: Float[Array, " element"]
    ) -> tuple[Array, Array]:
        """Put one row (in the array's own element order) into the chips' memory; return it as the chips' registers read back."""
        taken_rad, taken = np.empty(len(self.place)), np.empty(len(self.place))
        for n, channel in zip(self.place.tolist(), self.channels, strict=True):
            channel["phase"].value = f"{np.rad2deg(phase_rad[n]):.6f}"
            channel["hardwaregain"].value = str(round(float(amplitude[n]) * TOP))
            phase_deg, gain = float(channel["phase"].value), int(float(channel["hardwaregain"].value.split()[0]))
            channel["beam_pos_save"].value = f"{slot}, 1, {gain}, {phase_deg}"  # 1: past the attenuator
            taken_rad[n], taken[n] = np.deg2rad(phase_deg), gain / TOP
        return taken_rad, taken

    def select(self, slot: int) -> None:
        """Bring a row of the memory into force in all chips, one after the other."""
        for chip in self.chips:
            chip[f"static_{self.short}_beam_pos_load"].value = str(slot)
        for chip in self.chips:
            chip[f"{self.short}_load_spi"].value = "1"
        if self.lit is None:
            self.switch(True)
        self.lit = slot

    def switch(self, on: bool) -> None:
        """The whole half on or off."""
        for chip in self.chips:
            chip[f"{self.short}_en"].value = str(int(on))
        self.lit = self.lit if on else None


class _Receiver:
    """Buffers of I and Q."""

    def __init__(self, iio: Any, device: Any, chains: int, told: Iio) -> None:
        self._iio, self._device, self._chains = iio, device, chains
        self._full = 2 ** (told.converter_bits - 1) - 1
        self._step = None if told.full_scale_w is None else np.sqrt(told.full_scale_w) / self._full
        self._channels = [channel for channel in device.channels if channel.scan_element and not channel.output]
        if len(self._channels) != 2 * chains:
            raise Misuse(
                f"receiver {device.name}: has {len(self._channels)} scan elements; {chains} chains need I and Q of each"
            )
        for channel in self._channels:
            channel.enabled = True
        self._buffer: Any = None
        self._size = 0

    def read(self, rate_hz: float, count: int) -> tuple[Complex[Array, "chain sample"], Array]:
        """``count`` samples taken from now on (sqrt(W)), and which chains' converters were full."""
        attributes = self._channels[0].attrs
        if float(attributes["sampling_frequency"].value) != round(rate_hz):
            try:
                attributes["sampling_frequency"].value = f"{rate_hz:.0f}"
            except OSError as error:
                raise Misuse(
                    f"bandwidth_hz = {rate_hz:g}: the receiver does not sample so fast or slow ({error})"
                ) from None
            self._buffer = None
        if self._buffer is None or self._size != count:
            self._buffer = None  # the old one must be gone before there is another
            self._buffer, self._size = self._iio.Buffer(self._device, count), count
        self._buffer.refill()
        words = np.frombuffer(self._buffer.read(), "<i2").reshape(count, self._chains, 2)
        step = float(attributes["scale"].value) if self._step is None else self._step
        samples = (words[..., 0] + 1j * words[..., 1]).T * step
        full: Array = np.any(np.abs(words.astype(np.int32)) >= self._full, axis=(0, 2))
        return samples, full

    def close(self) -> None:
        """End the buffer."""
        self._buffer = None


class IioFrontend:
    """The four verbs on boards whose time is the wall's, told in the caller's.

    A command takes as long as it takes: reports state the nameplate's times, which were measured at the opening, and as ``uncertainty_ns``
    by how much this load missed them. ``emit`` selects the transmit row and answers with the response read back; what waveform leaves
    is the exciter's. ``receive`` hears real air. Wide-band events are subcarriers within the receiver's band.
    """

    def __init__(self, spec: FrontendSpec, boards: dict[str, Board], receiver: _Receiver, device: Iio) -> None:
        self._boards, self._receiver, self._device = boards, receiver, device
        weakref.finalize(self, receiver.close)  # libiio crashes where a buffer outlives its context
        self._loaded: dict[str, set[int]] = {half: set() for half in HALVES}
        self._closed = False
        bus_ns, select_ns = self._timed()
        times = {"command_latency_ns": 0, "bus_ns_per_element": bus_ns, "select_ns": select_ns}
        self.spec: FrontendSpec = replace(spec, simulated=False, **times)  # type: ignore[arg-type]
        self._memory = {half: BeamMemory(half, getattr(spec, half), None, None, self.spec.select_ns) for half in HALVES}
        self._busy_ns = dict.fromkeys(HALVES, -(2**62))

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load rows into the chips' memory and read every setting back; a slot that is in force is latched anew, all chips in a row.

        Raises Misuse for a half, slot or shape that is not there and settings that are not finite, RemoteFault where the context is gone.
        """
        memory, board, at_ns = self._half(beam.half), self._boards[beam.half], int(at_ns)
        wanted, clipped = memory.check(beam)
        phase_rad, amplitude = wanted.phase_rad.copy(), wanted.amplitude.copy()
        begun_ns = time.perf_counter_ns()
        with _answered(self._device.uri):
            for k, slot in enumerate(beam.slot.tolist()):
                elements = np.arange(len(board.place))
                own = np.argmax(getattr(self.spec, beam.half).network.wired, axis=0)
                taken = board.save(slot, phase_rad[k, own, elements], amplitude[k, own, elements])
                phase_rad[k, own, elements], amplitude[k, own, elements] = taken
            if board.lit is not None and board.lit in beam.slot.tolist():
                board.select(board.lit)
        took_ns = time.perf_counter_ns() - begun_ns
        spec = self.spec
        bus_ns = len(beam.slot) * memory.settings * spec.bus_ns_per_element
        loaded_ns = max(at_ns + spec.command_latency_ns, self._busy_ns[beam.half]) + bus_ns
        self._busy_ns[beam.half] = loaded_ns
        self._loaded[beam.half].update(beam.slot.tolist())
        readback = replace(wanted, phase_rad=phase_rad, amplitude=amplitude)
        memory.load(readback, loaded_ns + spec.settling_ns, at_ns)
        return BeamReport(
            setpoint=beam,
            readback=readback,
            accepted_ns=at_ns,
            effective_ns=loaded_ns + spec.settling_ns,
            clipped=clipped,
            uncertainty_ns=abs(took_ns - spec.command_latency_ns - bus_ns),
        )

    def emit(self, drive: Drive) -> Emission:
        """Bring the last event's row into force on the transmit board; the response of each event is that of its row as it was read back."""
        memory, t_ns = self._half("transmit"), np.asarray(drive.t_ns)
        slot = self._slots("drive.slot", drive.slot, "transmit")
        shaped("drive.digital", drive.digital, (len(t_ns), len(self.spec.transmit.network.wired), None))
        finite("drive.power_w", drive.power_w)
        row, keys = memory.rows(memory.selected(slot, t_ns), t_ns)
        response = memory.responses(keys, drive.frequency_hz)
        if len(slot):
            self._select("transmit", int(slot[-1]))
        return Emission(source=np.full(len(row), SITE), drive=drive, row=row, response=response)

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """What the converters read, an event after the other, each through its slot; ``incident`` only says what a sample is.

        Frames: as many samples as the frame has (``samples`` where nothing is said), at ``bandwidth_hz``. Wide-band events: the mean over
        ``1 / bandwidth_hz`` at each subcarrier's offset, sampled as fast as the subcarriers are wide together.
        """
        self._half("receive")
        slot, drive = (
            self._slots("listen.slot", listen.slot, "receive"),
            incident[0][0].drive if len(incident) else None,
        )
        wide = drive is not None and drive.samples is None
        rate_hz, count, kernel = listen.bandwidth_hz, self._device.samples, None
        if drive is not None and drive.samples is not None:
            count = drive.samples.shape[-1]
        if wide:
            assert drive is not None
            offset_hz = drive.frequency_hz - self.spec.carrier_hz
            rate_hz = (
                2 * float(np.max(np.abs(offset_hz))) * len(offset_hz) / max(len(offset_hz) - 1, 1)
                or listen.bandwidth_hz
            )
            count = max(round(rate_hz / listen.bandwidth_hz), 1)
            kernel = np.exp(-2j * np.pi * np.outer(np.arange(count) / rate_hz, offset_hz)) / count
        heard, full = [], []
        for s in slot.tolist():
            self._select("receive", s)
            with _answered(self._device.uri):
                samples, overload = self._receiver.read(rate_hz, count)
            heard.append(samples if kernel is None else samples @ kernel)
            full.append(overload)
        chains, width = len(self.spec.receive.network.wired), count if kernel is None else kernel.shape[1]
        return Reception(
            t_ns=listen.t_ns,
            slot=listen.slot,
            samples=np.array(heard, dtype=np.complex128).reshape(len(slot), chains, width),
            noise_w=thermal_noise_w(listen.bandwidth_hz, self.spec.noise_figure_db),
            overload=np.array(full, dtype=np.bool_).reshape(len(slot), chains),
        )

    def close(self) -> None:
        """Let go of the context, the boards as they are; a second call does nothing."""
        self._closed = True
        self._receiver.close()

    def _half(self, name: str) -> BeamMemory:
        if self._closed:
            raise Misuse(f"{self.spec.name}: this front end is closed; open another")
        if name not in self._memory:
            raise Misuse(f"half = {name!r}: must be 'transmit' or 'receive'")
        return self._memory[name]

    def _slots(self, field: str, slot: Array, half: str) -> Array:
        slot, count = np.asarray(slot), getattr(self.spec, half).memory_slots
        if not np.all((slot >= 0) & (slot < count)):
            raise Misuse(f"{field}: holds {slot.min()} .. {slot.max()}; must be 0 .. {count - 1}")
        return slot

    def _select(self, half: str, slot: int) -> None:
        board = self._boards[half]
        with _answered(self._device.uri):
            if slot not in self._loaded[half]:  # the chip's memory may hold anything there
                board.switch(False)
            elif board.lit != slot:
                board.select(slot)

    def _timed(self) -> tuple[int, int]:
        """How long a setting and a select take: medians over loads of dark rows. What a command costs besides is within a setting's share."""
        settings_ns: list[float] = []
        selects_ns: list[float] = []
        with _answered(self._device.uri):
            for board in self._boards.values():
                dark = np.zeros(len(board.place))
                for _ in range(TRIALS):
                    begun_ns = time.perf_counter_ns()
                    board.save(0, dark, dark)
                    saved_ns = time.perf_counter_ns()
                    board.select(0)
                    settings_ns.append((saved_ns - begun_ns) / len(dark))
                    selects_ns.append(time.perf_counter_ns() - saved_ns)
                board.switch(False)
        return round(float(np.median(settings_ns))), round(float(np.median(selects_ns)))


def _fits(half: str, labels: tuple[str, ...], spec: HalfSpec) -> None:
    """Misuse where a scenario's half is not what a board of these chips is."""
    network, elements = spec.network, spec.array.position_m.shape[0]
    if not labels:
        raise Misuse(
            f"{half}_chips: none are named, and the context does not say which there are; name them in the scenario"
        )
    if CHANNELS * len(labels) != elements:
        raise Misuse(
            f"{half}_chips: {len(labels)} chips have {CHANNELS * len(labels)} channels, the scenario's array {elements} elements"
        )
    if not np.all(network.wired.sum(axis=0) == 1):
        raise Misuse(
            f"{half}.network: an ADAR1000's element hangs on one chain; write connection: partial, or chains: 1"
        )
    for name, value, must in (
        ("delay_lines", network.lines, 0),
        ("phase_bits", network.phase_bits, BITS),
        ("amplitude_bits", network.amplitude_bits, BITS),
    ):
        if value != must:
            raise Misuse(f"{half}.network.{name}: is {value}; an ADAR1000 has {must or 'none (null)'}")
    if spec.memory_slots > POSITIONS:
        raise Misuse(f"{half}.memory_slots = {spec.memory_slots}: an ADAR1000 has {POSITIONS}")


@contextmanager
def _answered(uri: str) -> Iterator[None]:
    """Errors of libiio in this project's words."""
    try:
        yield
    except TimeoutError as error:
        raise LateArrival(
            f"IIO context {uri}: did not answer in time ({error}); the boards keep their beams"
        ) from error
    except OSError as error:
        if error.errno in (errno.ETIMEDOUT, errno.EAGAIN):
            raise LateArrival(
                f"IIO context {uri}: did not answer in time ({error}); the boards keep their beams"
            ) from error
        raise RemoteFault(f"IIO context {uri}: {error}; the boards keep their beams") from error
    except KeyError as error:
        raise RemoteFault(
            f"IIO context {uri}: a device has no attribute {error}; it is no ADAR1000, or no receiver with a scale"
        ) from error
