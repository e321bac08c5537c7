"""Users with several antennas: their channel through the beams in force, and what the streams sent to them carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hal.array import AntennaArray, element_amplitude, steering
from hal.frontend import Emission
from hal.medium import Paths, wideband
from hal.record import Array, Bool, Complex, Float, Int
from twin.kpi import Blocks
from twin.physics.rate import streams_bits

__all__ = ["user_channel", "with_received"]


def user_channel(
    down: Paths,
    array: AntennaArray,
    gains: Complex[Array, "row path subcarrier chain"],
    frequency_hz: Float[Array, " subcarrier"],
    row: Int[Array, " event"],
    block: Int[Array, " event"],
    user: int,
) -> Complex[Array, "event subcarrier antenna chain"]:
    """``H = sum_p gain_p a_u(arrival_p) (response^T a(departure_p))^T``: ``hal.medium.wideband`` at every antenna of one user.

    ``gains`` are ``hal.medium.beam_gains`` of the site's half, ``row`` and ``block`` each event's row of them and of the paths' gains.
    """
    own = down.sink == user
    away = down.arrival_m / np.linalg.norm(down.arrival_m, axis=1, keepdims=True)
    phase = np.zeros((len(own), len(frequency_hz), len(array.position_m)), dtype=np.complex128)
    lean = steering(array, away[own][:, None, :], frequency_hz) * element_amplitude(array, away[own])[:, None, None]
    phase[own] = lean
    entity = np.full(len(row), user)
    at = [wideband(down, gains * phase[:, :, n, None], frequency_hz, row, block, entity) for n in range(phase.shape[2])]
    return np.stack(at, axis=2)


def with_received(
    blocks: Blocks,
    arrays: Mapping[int, AntennaArray],
    down: Paths,
    gains: Complex[Array, "row path subcarrier chain"],
    emission: Emission,
    *,
    block: Int[Array, " event"],
    event: Int[Array, " event"],
    sink: Int[Array, " event"],
    column: Int[Array, " event"],
    own: Bool[Array, "event stream"],
    data_share: Float[Array, " event"],
    spacing_hz: float,
    noise_w: float,
) -> Blocks:
    """Served (block, user) pairs anew for users with an array: ``rate = data_share spacing sum_m log2 det(I + R^-1 H F_own F_own^H H^H)``.

    papers/001 eq (47) with the combiner that loses nothing, ``R`` the user's noise, distortion and the streams that are somebody else's
    (``own`` says which are the user's). SNR is that of all its streams after the combiner; a matched beam's grows with the antennas.
    """
    out = {name: getattr(blocks, name).copy() for name in ("rate_bps", "snr", "matched")}
    assert blocks.efficiency is not None
    efficiency = blocks.efficiency.copy()
    drive, frequency_hz = emission.drive, emission.drive.frequency_hz
    for user in np.unique(sink[np.isin(sink, list(arrays))]).tolist():
        mine = np.flatnonzero(sink == user)
        at = event[mine]
        channel = user_channel(down, arrays[user], gains, frequency_hz, emission.row[at], block[mine], user)
        heard = (channel @ drive.digital[at][:, None]) * np.sqrt(drive.power_w[at])[:, :, None, None]
        others: Any = heard * ~own[mine][:, None, None, :]
        if emission.distortion is not None:
            others = np.concatenate([others, channel @ emission.distortion[at]], axis=-1)
        bits, snr = streams_bits(heard * own[mine][:, None, None, :], others, noise_w)
        place = block[mine], column[mine]
        out["rate_bps"][place] = data_share[mine] * spacing_hz * bits.sum(axis=1)
        out["snr"][place] = snr.mean(axis=1)
        out["matched"][place] *= len(arrays[user].position_m)
        efficiency[place] = bits.mean(axis=1)
    return replace(blocks, **out, efficiency=efficiency)
