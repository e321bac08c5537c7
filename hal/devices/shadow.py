"""A real machine's beam in simulated air: what the machine says it took drives a simulated array that sends and hears."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np

from hal.check import Family
from hal.devices.remote import Remote
from hal.devices.sim import Noise, Sim, SimFrontend
from hal.errors import Misuse
from hal.frontend import (
    Beam,
    BeamReport,
    Drive,
    Emission,
    Frontend,
    FrontendSpec,
    HalfSpec,
    Incident,
    Listen,
    Reception,
)
from hal.health import Fault
from hal.network import NetworkSpec, quantise
from hal.record import record

__all__ = ["Shadow", "Doubt", "ShadowFrontend"]  # noqa: RUF022 - the component comes first


@record
class Doubt:
    """How far the shadow's settings may be from the machine's, at most, and since when they are what they are within how long."""

    told: bool  # by read-back; False: taken from the setpoint and the nameplate's steps
    delay_s: float
    phase_rad: float
    amplitude: float
    effective_ns: int  # the switch to these settings is known to this


@dataclass(frozen=True)
class Shadow:
    """A machine that takes the beams, and a simulated copy of it that sends and hears with the settings the machine reports.

    Each report's read-back is in force in the simulated array from the report's ``effective_ns`` on, exactly as it was told, on no grid.
    A machine that cannot read back is taken to hold the setpoint in the nameplate's steps; ``ShadowFrontend.doubt`` then says by how much
    it may be off. What a machine does not report (a dead element, an ageing shifter) the shadow cannot show.
    """

    real: Annotated[Any, Family("hal.devices")] = field(default_factory=Remote)  # the machine; a text is its endpoint
    air: Sim = field(default_factory=Sim)  # how the simulated chains behave
    doubt_steps: float = 0.5  # without read-back, a setting is held to be right to this many of the nameplate's steps

    def open(self, spec: FrontendSpec | None, noise: Noise) -> ShadowFrontend:
        """Open the machine (its errors come through) and its shadow; ``noise`` is the simulated receiver's."""
        device = Remote(endpoint=self.real) if isinstance(self.real, str) else self.real
        return ShadowFrontend(self, device.open(spec, noise), noise)


class ShadowFrontend:
    """``set_beam`` goes to the machine, ``emit`` and ``receive`` to its shadow.

    A command that fails leaves the shadow as it was: a machine keeps its beams. After LateArrival nobody knows whether it took the beam;
    set it again. ``doubt`` has an entry for each half that was loaded.
    """

    def __init__(self, shadow: Shadow, real: Frontend, noise: Noise) -> None:
        self.real = real
        self.spec = replace(real.spec, simulated=True)
        self.doubt: dict[str, Doubt] = {}
        self._steps = shadow.doubt_steps
        at_once = replace(
            self.spec,
            transmit=_continuous(self.spec.transmit),
            receive=_continuous(self.spec.receive),
            command_latency_ns=0,
            bus_ns_per_element=0,
            settling_ns=0,
        )
        self._air = SimFrontend(shadow.air, at_once, noise)

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Set it there, and put what the report says is there in force here, from then on."""
        report = self.real.set_beam(beam, at_ns)
        network: NetworkSpec = getattr(self.spec, beam.half).network
        told = report.readback
        taken = _as_taken(network, report.setpoint) if told is None else told
        self._air.set_beam(taken, report.effective_ns)
        self.doubt[beam.half] = self._doubt(network, told is not None, report.uncertainty_ns)
        return report

    def emit(self, drive: Drive) -> Emission:
        """Send into the simulated air, with the settings the machine reported."""
        return self._air.emit(drive)

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Hear in the simulated air, with the settings the machine reported."""
        return self._air.receive(incident, listen)

    def inject(self, fault: Fault, at_ns: int) -> None:
        """Break something in the machine, where it can be; its shadow shows what the machine reports of it. Misuse where it cannot be."""
        self._breaking("inject")(fault, at_ns)

    def clear(self, fault: Fault | None, at_ns: int) -> None:
        """Mend it (None: everything) there."""
        self._breaking("clear")(fault, at_ns)

    def _breaking(self, verb: str) -> Any:
        found = getattr(self.real, verb, None)
        if found is None:
            raise Misuse(f"{verb}: {self.spec.name} is not simulated; what breaks there, breaks by itself")
        return found

    def close(self) -> None:
        """Close both; a second call does nothing."""
        self._air.close()
        self.real.close()

    def _doubt(self, network: NetworkSpec, told: bool, effective_ns: int) -> Doubt:
        steps = 0.0 if told else self._steps
        return Doubt(
            told=told,
            delay_s=steps * network.delay_range_s / 2**network.delay_bits
            if network.lines and network.delay_bits
            else 0.0,
            phase_rad=steps * 2 * np.pi / 2**network.phase_bits if network.phase_bits else 0.0,
            amplitude=steps / (2**network.amplitude_bits - 1) if network.amplitude_bits else 0.0,
            effective_ns=effective_ns,
        )


def _continuous(half: HalfSpec) -> HalfSpec:
    """The half without steps, so that what was read back is not rounded a second time."""
    return replace(half, network=replace(half.network, delay_bits=0, phase_bits=0, amplitude_bits=0))


def _as_taken(network: NetworkSpec, beam: Beam) -> Beam:
    delay_s, phase_rad, amplitude, _ = quantise(network, beam.delay_s, beam.phase_rad, beam.amplitude)
    return replace(beam, delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude)
