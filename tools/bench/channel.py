"""Rows: what beams make of channels, beside building the channel tensor."""

from __future__ import annotations

import numpy as np

from hal.array import Upa, direction_from, steering
from hal.frontend import SITE
from hal.medium import Paths, beam_gains
from hal.planar import nodes_of
from tools.bench.row import Row, Side, Work, apart

CARRIER_HZ, USERS, CHAINS = 100e9, 100, 4
FREQUENCY_HZ = CARRIER_HZ + 0.25e9 * (np.arange(32) - 15.5)


def ready() -> Work:
    """Line of sight from 256 elements to 100 users, at 32 subcarriers, through one row of four chains."""
    rng = np.random.default_rng(0)
    array = Upa().build(CARRIER_HZ, np.zeros(3), np.eye(3))
    size = len(array.position_m)
    direction = direction_from(rng.uniform(-1, 1, USERS), rng.uniform(-0.4, 0.4, USERS))
    paths = Paths(
        carrier_hz=CARRIER_HZ,
        t_ns=np.zeros(1, np.int64),
        source=np.full(USERS, SITE),
        sink=np.arange(USERS),
        gain=np.exp(2j * np.pi * rng.random((1, USERS))) * 1e-4,
        delay_s=rng.uniform(30e-9, 600e-9, USERS),
        doppler_hz=np.zeros(USERS),
        departure_m=40 * direction,
        arrival_m=-40 * direction,
    )
    held = np.exp(2j * np.pi * rng.random((1, 1, size, CHAINS))) / np.sqrt(size)
    held = np.broadcast_to(held, (1, len(FREQUENCY_HZ), size, CHAINS))

    def naive() -> np.ndarray:
        out = np.empty((USERS, len(FREQUENCY_HZ), CHAINS), complex)
        for u in range(USERS):
            for m, f in enumerate(FREQUENCY_HZ):
                turn = np.exp(-2j * np.pi * (f - CARRIER_HZ) * paths.delay_s[u])
                h = paths.gain[0, u] * turn * steering(array, direction[u], f)
                out[u, m] = h @ held[0, m]
        return out

    def ours() -> np.ndarray:
        gains = beam_gains(paths, array, held, FREQUENCY_HZ)[0]
        turn = np.exp(-2j * np.pi * paths.delay_s[:, None] * (FREQUENCY_HZ - CARRIER_HZ))
        return np.asarray((paths.gain[0, :, None] * turn)[..., None] * gains)

    nodes = len(nodes_of(array, FREQUENCY_HZ, True).wave)
    waves = np.exp(2j * np.pi * rng.random((USERS * nodes, array.columns)))
    fed = np.exp(2j * np.pi * rng.random((array.columns, array.rows * CHAINS)))
    return Work(
        naive=Side(naive, USERS),
        ours=Side(ours, USERS),
        apart=apart,
        within=1e-7,
        floor=Side(lambda: waves @ fed, USERS),
    )


ROWS = (
    Row(
        "channel.beams",
        "a user's channel through a beam row: 256 elements, 32 subcarriers, 4 chains",
        "the channel vector of every subcarrier, then the row",
        ready,
        target=140,
        floor="the row's product with ready waves of a column, at the nodes over frequency (GEMM)",
        note="ours never builds the 32 x 256 tensor: waves by recurrence, a dozen nodes over frequency",
    ),
)
