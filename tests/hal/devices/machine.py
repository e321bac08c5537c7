"""A small machine for tests, and a program that hosts it: ``python machine.py [ENDPOINT]`` prints where it listens."""

from __future__ import annotations

import sys
import zlib
from typing import Any

import numpy as np

from hal.array import Upa
from hal.devices.sim import Sim
from hal.frontend import Beam, FrontendSpec, HalfSpec
from hal.network import Network
from hal.serve import serve

CARRIER_HZ = 100e9
SPEC = FrontendSpec(
    name="small",
    carrier_hz=CARRIER_HZ,
    transmit=HalfSpec(
        array=Upa(8, 8).build(CARRIER_HZ, np.zeros(3), np.eye(3)),
        network=Network(chains=1, delay_lines=(4, 4)).build(8, 8),
        memory_slots=8,
    ),
    receive=HalfSpec(
        array=Upa(8, 8, element_gain_dbi=3.0, element_exponent=1.0).build(CARRIER_HZ, np.zeros(3), np.eye(3)),
        network=Network(chains=2, delay_lines=None).build(8, 8),
        memory_slots=4,
    ),
    transmit_power_w=1.0,
    noise_figure_db=10.0,
    isolation_db=70.0,
    command_latency_ns=20_000,
    bus_ns_per_element=10,
    settling_ns=500,
    select_ns=50,
    simulated=True,
)


def noise(label: str, t_ns: Any, shape: tuple[int, ...]) -> Any:
    """Unit complex normals keyed by label and time alone."""
    out = np.empty((len(t_ns), *shape), complex)
    for e, t in enumerate(t_ns):
        rng = np.random.Generator(np.random.Philox(key=[zlib.crc32(label.encode()), int(t) % 2**64]))
        out[e] = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * np.sqrt(0.5)
    return out


def beam(half: str, slots: list[int], seed: int = 0) -> Beam:
    """Settings at random, all in range and off the grid."""
    rng = np.random.default_rng([seed, len(half)])
    network = getattr(SPEC, half).network
    chains, elements = network.wired.shape
    return Beam(
        half=half,
        slot=np.array(slots, dtype=np.int64),
        delay_s=rng.uniform(0, 90e-12, (len(slots), chains, network.lines)),
        phase_rad=rng.uniform(-np.pi, np.pi, (len(slots), chains, elements)),
        amplitude=rng.uniform(0.5, 1, (len(slots), chains, elements)),
    )


if __name__ == "__main__":
    endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:0"
    serve(Sim().open(SPEC, noise), endpoint, announce=lambda bound: print(bound, flush=True))
