"""A simulated machine: it quantises, loads, settles, hears and breaks as the nameplate says; it owns no clock and never sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from hal.ageing import Ageing
from hal.block_echoes import block_echoes
from hal.chain import convert, thermal_noise_w
from hal.check import Ge, Gt, In, finite, shaped
from hal.distortion import block_s, converted, leaked, sent_block
from hal.errors import Misuse, RemoteFault
from hal.frontend import SITE, Beam, BeamReport, Drive, Emission, FrontendSpec, Incident, Listen, Reception
from hal.health import SILENT
from hal.impairments import Impairments, heard_share, received, sent
from hal.memory import BeamMemory, Fault
from hal.reception import add_noise, frames, noise_root, subcarriers
from hal.record import Array, Float, Int
from hal.walk import Noise

__all__ = ["Sim", "Noise", "SimFrontend"]  # noqa: RUF022 - the component comes first


@dataclass(frozen=True)
class Sim:
    """How the simulated machine behaves; what it is (geometry, wiring, steps, times) is its nameplate."""

    readback: bool = True  # False: reports do not tell what was taken, as with write-only registers
    self_test: bool = True  # reports name the faults that are there; False: the controller must find them
    out_of_range: Literal["clip", "refuse"] = (
        "clip"  # settings beyond the range: clipped and counted, or the load is refused
    )
    leakage: bool = True  # transmitted power reaches the receive chains, isolation_db down; False: perfectly isolated
    saturation_w: Annotated[float, In("dbm"), Gt(-100)] = float(
        "inf"
    )  # of each chain's amplifier (Rapp, smoothness 2); inf: linear
    converter_bits: Annotated[int, Ge(0)] = 0  # of each of I and Q; 0: no steps
    converter_full_scale_w: Annotated[float, In("dbm"), Gt(-300)] = float(
        "inf"
    )  # sine that just fills the converter; inf: never full
    impairments: Impairments = field(default_factory=Impairments)  # what else its chains do to a signal
    ageing: Ageing = field(default_factory=Ageing)  # errors of its elements, and how they drift
    drop_db: Annotated[float, Ge(0)] = (
        30.0  # a path that brings less than this below one sample's noise in a whole frame is left out
    )

    def __post_init__(self) -> None:
        if self.out_of_range not in ("clip", "refuse"):
            raise Misuse(f"out_of_range = {self.out_of_range!r}: must be 'clip' or 'refuse'")
        if not self.saturation_w > 0:
            raise Misuse(f"saturation_w = {self.saturation_w!r}: must be > 0; a linear amplifier is inf")
        if not self.converter_full_scale_w > 0 or (self.converter_bits and np.isinf(self.converter_full_scale_w)):
            raise Misuse(
                f"converter_full_scale_w = {self.converter_full_scale_w!r}: must be > 0, and finite where converter_bits "
                f"(= {self.converter_bits}) are not 0"
            )
        if not self.drop_db >= 0:
            raise Misuse(f"drop_db = {self.drop_db!r}: must be >= 0; inf keeps every path")

    def open(self, spec: FrontendSpec, noise: Noise) -> SimFrontend:
        """The machine of this nameplate, all slots dark. ``noise`` is the only chance it has."""
        return SimFrontend(self, spec, noise)


class SimFrontend:
    """The four verbs, simulated. Each event is computed by itself, so results do not depend on how events are batched."""

    def __init__(self, sim: Sim, spec: FrontendSpec, noise: Noise) -> None:
        self.spec = spec
        self._sim = sim
        self._noise = noise
        self._memory = {
            name: BeamMemory(name, getattr(spec, name), sim.ageing, noise, spec.select_ns)
            for name in ("transmit", "receive")
        }
        self._busy_ns = {"transmit": -(2**62), "receive": -(2**62)}  # until when a half's bus is loading
        self._roots: dict[tuple[int, bytes], Array] = {}
        self._closed = False

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load and latch: ``effective = max(at + command latency, bus free) + bus time x settings loaded + settling``.

        Settings loaded are rows x wired (chain, element) pairs. While a load runs the old rows stay in force, and a second load to the
        same half waits for the bus. Delay lines load with their elements.
        Raises Misuse for a half, slot or shape that is not there, a setting that is not finite, and, where ``out_of_range`` is
        ``refuse``, for one that is out of range.
        """
        self._open()
        memory, at_ns = self._half(beam.half), int(at_ns)
        self._connected(at_ns)
        taken, clipped = memory.check(beam)
        if clipped and self._sim.out_of_range == "refuse":
            raise Misuse(
                f"{beam.half} beam: {clipped} settings are out of range; scale them into it, or set out_of_range = 'clip'"
            )
        spec = self.spec
        settings = len(taken.slot) * memory.settings
        health = memory.faults.at(at_ns)
        late_ns = round(sum(fault.value for fault in health if fault.kind == "late_command") * 1e9)
        start_ns = max(at_ns + late_ns + spec.command_latency_ns, self._busy_ns[beam.half])
        loaded_ns = start_ns + settings * spec.bus_ns_per_element
        effective_ns = loaded_ns + spec.settling_ns
        if any(fault.kind == "lost_command" for fault in health):
            taken = memory.held(taken, effective_ns)
        else:
            self._busy_ns[beam.half] = loaded_ns
            memory.load(taken, effective_ns, at_ns)
        return BeamReport(
            setpoint=beam,
            readback=taken if self._sim.readback else None,
            accepted_ns=at_ns,
            effective_ns=effective_ns,
            clipped=clipped,
            uncertainty_ns=0,
            fault="; ".join(str(fault) for fault in health if fault.kind not in SILENT) if self._sim.self_test else "",
        )

    def emit(self, drive: Drive) -> Emission:
        """Send. An event uses the row its slot holds when it starts; a slot never loaded radiates nothing.

        Switching to another slot takes ``select_ns``: an event that comes sooner goes through the old one (``BeamMemory.selected``).
        A finite ``saturation_w`` compresses each chain: samples one by one, subcarrier powers by the chain's total. What flaws of the
        chains do to wide-band events is in their weights and in ``Emission.distortion``. Raises Misuse for
        slots, shapes or values that cannot be, and for more radiated power than the nameplate's.
        """
        self._open()
        self._check_drive(drive)
        self._connected(np.asarray(drive.t_ns))
        memory = self._memory["transmit"]
        t_ns = np.asarray(drive.t_ns)
        row, keys = memory.rows(memory.selected(np.asarray(drive.slot), t_ns), t_ns)
        response = memory.responses(keys, drive.frequency_hz)
        distortion = None
        if np.isfinite(self._sim.saturation_w) or self._sim.impairments.sends:
            flawed = self._sim.impairments, self._sim.saturation_w, self._noise
            if drive.samples is None:
                drive, distortion = sent_block(drive, *flawed)
            else:
                drive = sent(drive, *flawed)
        return Emission(source=np.full(len(row), SITE), drive=drive, row=row, response=response, distortion=distortion)

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Receive the superposition: ``y = response^T (sum of paths + noise of the elements) + leakage``.

        Event e of every emission is event e of ``listen``. Frames (``Drive.samples``) come from this site or from single antennas
        (``reception.frames``), so do wide-band events: pilots (``reception.subcarriers``), and the echoes of blocks that this site sent
        (``block_echoes``, their known symbols integrated over ``1 / listen.bandwidth_hz``). Each chain has the nameplate's
        ``noise_w``; chains that share elements share noise (``reception.noise_root``). It is drawn under the label ``thermal``, and
        ``thermal.ENTITY`` for wide-band events, so that users whose pilots share an instant do not share noise.
        Raises Misuse for slots that are not there, nothing to hear, and emissions at other times than ``listen`` names.
        """
        self._open()
        t_ns, slot = np.asarray(listen.t_ns), np.asarray(listen.slot)
        self._check_listen(incident, t_ns, slot)
        self._connected(t_ns)
        noise_w = thermal_noise_w(listen.bandwidth_hz, self.spec.noise_figure_db)
        sim, first = self._sim, incident[0][0]
        framed = first.drive.samples is not None
        memory = self._memory["receive"]
        row, keys = memory.rows(memory.selected(slot, t_ns), t_ns)
        response = memory.responses(keys, first.drive.frequency_hz)
        heard, dropped_w = [], 0.0
        leakage = 10 ** (-self.spec.isolation_db / 20) if sim.leakage else 0.0
        arrays = self.spec.transmit.array, self.spec.receive.array
        for emission, paths in incident:
            if framed:
                assert emission.drive.samples is not None
                limit_w = (
                    noise_w * 10 ** (-sim.drop_db / 10) / emission.drive.samples.shape[-1]
                )  # the frame adds its samples up
                one, left_w = frames(emission, paths, *arrays, row, response, limit_w, leakage)
                dropped_w += left_w
            elif np.any(emission.source == SITE):
                one = block_echoes(emission, paths, *arrays, row, response, leakage, 1 / listen.bandwidth_hz)
            else:
                one = subcarriers(emission, paths, self.spec.receive.array, row, response)
            heard.append(one)
        total = sum(heard[1:], start=heard[0])
        flaws, own = sim.impairments, bool(np.any(first.source == SITE))
        if flaws.switching_ns and not framed and not own:
            total = total * np.sqrt(heard_share(flaws, 1 / listen.bandwidth_hz))
        if flaws.turns and not framed:
            total = leaked(total, flaws, self._noise, t_ns, first.drive.frequency_hz, 1 / listen.bandwidth_hz)
        root = self._roots_of(keys, first.drive.frequency_hz, response)
        total = add_noise(total, root, row, self._normals(first, framed, t_ns, total.shape[1:]), noise_w)
        if flaws.hears:
            rate_hz = first.drive.sample_rate_hz if framed else None
            total = received(total, flaws, self._noise, t_ns, rate_hz, 1 / listen.bandwidth_hz, own)
        overload = None
        if np.isfinite(sim.converter_full_scale_w):
            converter = sim.converter_bits, float(np.sqrt(sim.converter_full_scale_w))
            if framed:
                total, clipped = convert(total, *converter)
                overload = np.asarray(clipped.any(axis=-1))
            else:
                band_hz = len(first.drive.frequency_hz) / block_s(first.drive)
                normals = self._normals(first, framed, t_ns, total.shape[1:], "converter")
                total, overload = converted(total, normals, *converter, noise_w, band_hz / listen.bandwidth_hz)
        return Reception(t_ns=t_ns, slot=slot, samples=total, noise_w=noise_w, dropped_w=dropped_w, overload=overload)

    def inject(self, fault: Fault, at_ns: int) -> None:
        """Break something from ``at_ns`` on; events from then on feel it, without any other command."""
        self._half(fault.half).inject(fault, at_ns)

    def clear(self, fault: Fault | None, at_ns: int) -> None:
        """Mend it (None: everything) from ``at_ns`` on."""
        for memory in self._memory.values() if fault is None else (self._half(fault.half),):
            memory.clear(fault, at_ns)

    def close(self) -> None:
        """Refuse every verb from now on; a second call does nothing."""
        self._closed = True

    def _open(self) -> None:
        if self._closed:
            raise Misuse(f"{self.spec.name}: this front end is closed; open another")

    def _connected(self, t_ns: Int[Array, " event"] | int) -> None:
        health = [memory.faults for memory in self._memory.values()]
        if not any("connection_cut" in one.kinds for one in health):
            return
        t_ns = np.atleast_1d(t_ns)
        cut = [one.struck("connection_cut", t_ns) for one in health]
        if np.any(cut):
            t = int(t_ns[np.argmax(np.any(cut, axis=0))])
            raise RemoteFault(f"{self.spec.name}: the connection is cut at {t} ns; it keeps the beams it has")

    def _half(self, name: str) -> BeamMemory:
        if name not in self._memory:
            raise Misuse(f"half = {name!r}: must be 'transmit' or 'receive'")
        return self._memory[name]

    def _check_drive(self, drive: Drive) -> None:
        network = self.spec.transmit.network
        events, chains = len(shaped("drive.t_ns", drive.t_ns, (None,))), len(network.wired)
        _check_slots(
            "drive.slot", np.asarray(shaped("drive.slot", drive.slot, (events,))), self.spec.transmit.memory_slots
        )
        shaped("drive.frequency_hz", drive.frequency_hz, (None,))
        power_w = shaped("drive.power_w", drive.power_w, (events, len(drive.frequency_hz)))
        digital = shaped("drive.digital", drive.digital, (events, chains, None))
        if not np.all(drive.frequency_hz > 0):
            raise Misuse(f"drive.frequency_hz = {drive.frequency_hz!r}: must be > 0")
        if drive.samples is not None:
            finite("drive.samples", shaped("drive.samples", drive.samples, (events, digital.shape[2], None)))
            if len(drive.frequency_hz) != 1:
                raise Misuse(f"drive.frequency_hz: has {len(drive.frequency_hz)} entries; a frame has one, its carrier")
        radiated_w = power_w.sum(axis=1) * (digital.real**2 + digital.imag**2).sum(axis=(1, 2))
        limit_w = self.spec.transmit_power_w * (1 + 1e-6)
        if not events or (power_w.min(initial=0.0) >= 0 and radiated_w.max() <= limit_w):
            return
        finite("drive.power_w", power_w)
        finite("drive.digital", digital)
        if not np.all(power_w >= 0):
            raise Misuse(f"drive.power_w: reaches {np.min(power_w)!r}, must be >= 0")
        e = int(np.argmax(radiated_w))
        raise Misuse(
            f"drive event {e} asks for {radiated_w[e]:.6g} W, the front end has {self.spec.transmit_power_w:.6g} W; lower power_w, or "
            "the norm of digital (power_w is what is radiated where all of its columns together have norm 1)"
        )

    def _check_listen(self, incident: Incident, t_ns: Int[Array, " event"], slot: Int[Array, " event"]) -> None:
        shaped("listen.slot", slot, t_ns.shape)
        _check_slots("listen.slot", slot, self.spec.receive.memory_slots)
        if not len(incident):
            raise Misuse(
                "incident: is empty; give at least the emission listened for (its paths may be none), it says what a sample is"
            )
        first = incident[0][0].drive
        for k, (emission, _) in enumerate(incident):
            drive = emission.drive
            if not np.array_equal(drive.t_ns, t_ns):
                raise Misuse(
                    f"incident[{k}]: its events are not at listen.t_ns; event e of each emission is event e of listen"
                )
            if (drive.samples is None) != (first.samples is None) or not np.array_equal(
                drive.frequency_hz, first.frequency_hz
            ):
                raise Misuse(
                    f"incident[{k}]: emissions heard together are all frames or all wide-band, at the same frequency_hz"
                )

    def _normals(
        self,
        emission: Emission,
        framed: bool,
        t_ns: Int[Array, " event"],
        shape: tuple[int, ...],
        label: str = "thermal",
    ) -> Array:
        if framed:
            return np.asarray(self._noise(label, t_ns, shape))
        out = np.empty((len(t_ns), *shape), dtype=np.complex128)
        for entity in set(emission.source.tolist()):
            mine = emission.source == entity
            out[mine] = self._noise(f"{label}.{entity}", t_ns[mine], shape)
        return out

    def _roots_of(self, keys: list[int], frequency_hz: Float[Array, " subcarrier"], response: Array) -> Array:
        """``noise_root`` of each state, ``[row subcarrier chain chain]``; of one subcarrier where all are alike."""
        network, names = self.spec.receive.network, [(key, frequency_hz.tobytes()) for key in keys]
        new = [row for row, name in enumerate(names) if name not in self._roots]
        if len(self._roots) + len(new) > 256:
            self._roots.clear()
            new = list(range(len(names)))
        if new or not names:
            found = noise_root(network.wired, response[new] if network.lines else response[new, :1])
            self._roots.update(zip([names[row] for row in new], found, strict=True))
        return np.stack([self._roots[name] for name in names]) if names else found


def _check_slots(field: str, slot: Int[Array, " event"], slots: int) -> None:
    if len(slot) and not (slot.min() >= 0 and slot.max() < slots):
        bad = int(np.argmin((slot >= 0) & (slot < slots)))
        raise Misuse(f"{field}[{bad}] = {slot[bad]}: must be 0 .. {slots - 1}; the memory has {slots} slots")
