"""The machine's role: four verbs and a nameplate. Nothing above this file knows what stands behind it.

A front end has two halves, ``transmit`` and ``receive``. Each half is an antenna array behind a network of RF chains, delay lines and
phase shifters (``hal.network``), with a *beam memory*: rows of settings, loaded by ``set_beam`` and selected fast by their slot number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hal.array import AntennaArray
from hal.medium import Paths
from hal.network import NetworkSpec
from hal.record import Array, Bool, Complex, Float, Int, record

__all__ = [
    "SITE",
    "Beam",
    "BeamReport",
    "Drive",
    "Emission",
    "Frontend",
    "FrontendSpec",
    "HalfSpec",
    "Incident",
    "Listen",
    "Reception",
]

SITE = -1  # the base station itself, in ``Paths.source`` and ``Paths.sink``


@record
class HalfSpec:
    """One half of a front end: the elements and what feeds them."""

    array: AntennaArray
    network: NetworkSpec
    memory_slots: int


@record
class FrontendSpec:
    """The nameplate: geometry, wiring, steps, ranges and times. Published; a controller may know all of it."""

    name: str
    carrier_hz: float
    transmit: HalfSpec
    receive: HalfSpec
    transmit_power_w: float  # total radiated power at full drive
    noise_figure_db: float
    isolation_db: float = float("inf")  # transmit to receive, between the chains' ports; inf: none modelled
    command_latency_ns: int = 0  # from the call to the start of loading
    bus_ns_per_element: int = 0  # loading one element's setting
    settling_ns: int = 0  # from the latch to a beam that may be used
    select_ns: int = 0  # switching to another loaded slot
    simulated: bool  # False: real hardware, whose air is real too


@record
class Beam:
    """Settings for rows of one half's beam memory, latched together.

    ``response[n, c](f) = amplitude exp(j phase) exp(-j 2 pi f delay) / sqrt(elements wired to c)`` (``hal.network.response``).
    """

    half: str  # "transmit" | "receive"
    slot: Int[Array, " slot"]  # memory address of each row
    delay_s: Float[Array, "slot chain line"]  # one a delay line; zero lines where the network has none
    phase_rad: Float[Array, "slot chain element"]
    amplitude: Float[Array, "slot chain element"]  # 0..1


@record
class BeamReport:
    """What the machine took: commanded, quantised, and from when."""

    setpoint: Beam
    readback: Beam | None  # None: this hardware cannot say
    accepted_ns: int
    effective_ns: int  # settled and in force from here on
    clipped: int  # settings that were out of range and were clipped to it
    uncertainty_ns: int  # of effective_ns; 0 for a simulated device
    fault: str = ""  # what the machine says is wrong with it, as far as it knows


@record
class Drive:
    """What to send: one event a frame or block, from one slot of the transmit memory.

    Narrow-band events carry ``samples`` at ``sample_rate_hz`` about ``frequency_hz[0]``; wide-band events carry power on each subcarrier.
    """

    t_ns: Int[Array, " event"]
    slot: Int[Array, " event"]
    frequency_hz: Float[Array, " subcarrier"]
    power_w: Float[Array, "event subcarrier"]
    digital: Complex[Array, "event chain stream"]  # baseband weights; unit column norm keeps power_w the radiated power
    samples: Complex[Array, "event stream sample"] | None = None  # unit mean power; cyclic within the event
    sample_rate_hz: float = 0.0
    roll_off: float = 0.0  # of the square-root raised cosine at both ends


@record
class Emission:
    """What leaves an array: the drive, and the responses actually in force."""

    source: Int[Array, " event"]  # SITE, or the entity that sends
    drive: Drive
    row: Int[Array, " event"]  # which of the distinct responses below each event used
    response: Complex[Array, "row subcarrier element chain"]  # element and chain of one for a single-antenna entity
    distortion: Complex[Array, "event subcarrier chain source"] | None = (
        None  # root of the power at the ports that is no data (sqrt(W)), a column a source independent of the others; None: none, or unknown
    )


Incident = Sequence[tuple[Emission, Paths]]


@record
class Listen:
    """When to receive, through which slot of the receive memory, and in what bandwidth."""

    t_ns: Int[Array, " event"]
    slot: Int[Array, " event"]
    bandwidth_hz: float  # of one sample or subcarrier: sets the noise power


@record
class Reception:
    """Chain outputs after the analog combiner, ``y = response^T x + noise`` (sqrt(W)).

    The last axis is the sample for narrow-band events and the subcarrier for wide-band ones.
    """

    t_ns: Int[Array, " event"]
    slot: Int[Array, " event"]
    samples: Complex[Array, "event chain sample"]
    noise_w: float  # noise power of one sample at one chain's output, as the nameplate states it
    dropped_w: float = 0.0  # stated bound on the power of incident paths left out to save work
    overload: Bool[Array, "event chain"] | None = None  # a converter clipped


@runtime_checkable
class Frontend(Protocol):
    """Four verbs and a nameplate.

    Times are the caller's ``t_ns``; a simulated device owns no clock and never sleeps. Calls come in order of time.
    """

    spec: FrontendSpec

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load rows into beam memory and latch them together; the report says what was taken and from when it is in force."""

    def emit(self, drive: Drive) -> Emission:
        """Send; each event uses the row its slot holds at the event's time."""

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Receive the superposition of what arrives; real hardware ignores ``incident`` and returns what its converters read."""

    def close(self) -> None:
        """Release what is held; a second call does nothing."""
