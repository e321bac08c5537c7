"""A small machine and a source of chance for tests of the machine's physics."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS, Ula, Upa, steering
from hal.devices.sim import Sim, SimFrontend
from hal.frontend import SITE, Beam, Drive, Emission, FrontendSpec, HalfSpec, Listen
from hal.medium import Paths
from hal.network import Network

CARRIER_HZ = 100e9
RATE_HZ = 64e6


def noise(label: str, t_ns: Any, shape: tuple[int, ...]) -> Any:
    """Unit complex normals keyed by label and time alone."""
    out = np.empty((len(t_ns), *shape), complex)
    for e, t in enumerate(t_ns):
        rng = np.random.Generator(np.random.Philox(key=[zlib.crc32(label.encode()), int(t) % 2**64]))
        out[e] = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * np.sqrt(0.5)
    return out


def quiet(label: str, t_ns: Any, shape: tuple[int, ...]) -> Any:
    """The same, without thermal noise."""
    return np.zeros((len(t_ns), *shape), complex) if label.startswith("thermal") else noise(label, t_ns, shape)


def half(columns: int = 8, rows: int = 8, slots: int = 16, array: Upa | Ula | None = None, **network: Any) -> HalfSpec:
    built = (Upa(columns, rows) if array is None else array).build(CARRIER_HZ, np.zeros(3), np.eye(3))
    return HalfSpec(array=built, network=Network(**network).build(built.columns, built.rows), memory_slots=slots)


def nameplate(
    transmit: HalfSpec | None = None, receive: HalfSpec | None = None, name: str = "small", power_w: float = 1.0
) -> FrontendSpec:
    return FrontendSpec(
        name=name,
        carrier_hz=CARRIER_HZ,
        transmit=half() if transmit is None else transmit,
        receive=half(chains=2) if receive is None else receive,
        transmit_power_w=power_w,
        noise_figure_db=10.0,
        isolation_db=np.inf,
        command_latency_ns=1_000,
        bus_ns_per_element=1,
        settling_ns=100,
        select_ns=50,
        simulated=True,
    )


def machine(spec: FrontendSpec | None = None, chance: Any = quiet, **sim: Any) -> SimFrontend:
    return Sim(**sim).open(nameplate() if spec is None else spec, chance)


def matched(spec: FrontendSpec, which: str, direction: Any = (1.0, 0.0, 0.0), slots: int = 1) -> Beam:
    here = getattr(spec, which)
    chains, elements = here.network.wired.shape
    phase = -np.angle(steering(here.array, np.asarray(direction, float), np.float64(spec.carrier_hz)))
    shape = (slots, chains, elements)
    return Beam(
        half=which,
        slot=np.arange(slots),
        delay_s=np.zeros((slots, chains, here.network.lines)),
        phase_rad=np.broadcast_to(phase, shape).copy(),
        amplitude=np.broadcast_to(here.network.wired * 1.0, shape).copy(),
    )


def frames(t_ns: Any, samples: Any, power_w: float = 1.0, chains: int = 1) -> Drive:
    t_ns = np.asarray(t_ns)
    return Drive(
        t_ns=t_ns,
        slot=np.zeros(len(t_ns), int),
        frequency_hz=np.array([CARRIER_HZ]),
        power_w=np.full((len(t_ns), 1), power_w),
        digital=np.full((len(t_ns), chains, 1), chains**-0.5 + 0j),
        samples=np.broadcast_to(samples, (len(t_ns), 1, np.shape(samples)[-1])),
        sample_rate_hz=RATE_HZ,
        roll_off=0.1,
    )


def echo_path(
    delay_samples: float = 0.0,
    gain: complex = 1.0,
    direction: Any = (1.0, 0.0, 0.0),
    source: int = SITE,
    sink: int = SITE,
) -> Paths:
    point = np.array([direction], float) * 1e3
    return Paths(
        carrier_hz=CARRIER_HZ,
        t_ns=np.array([0]),
        source=np.array([source]),
        sink=np.array([sink]),
        gain=np.array([[gain + 0j]]),
        delay_s=np.array([delay_samples / RATE_HZ]),
        doppler_hz=np.zeros(1),
        departure_m=point,
        arrival_m=point,
    )


def heard(front: SimFrontend, drive: Drive, paths: Paths, source: int = SITE) -> Any:
    """What the receive chains give for the site's own drive, or for a single antenna that sends it."""
    if source == SITE:
        emission = front.emit(drive)
    else:
        none = np.zeros(len(drive.t_ns), int)
        ones = np.ones((1, len(drive.frequency_hz), 1, 1), complex)
        emission = Emission(source=none + source, drive=drive, row=none, response=ones)
    rate = RATE_HZ if drive.samples is not None else 1e5
    return front.receive(
        [(emission, paths)], Listen(t_ns=drive.t_ns, slot=np.zeros(len(drive.t_ns), int), bandwidth_hz=rate)
    )


def wavelength_m() -> float:
    return LIGHT_MPS / CARRIER_HZ
