"""From a combiner's columns to settings of the receive network, row by row."""

from __future__ import annotations

import numpy as np

from hal.array import steering
from hal.errors import Misuse
from hal.frontend import HalfSpec
from hal.record import Array, Complex, Float
from twin.precoding.delay_phase import Settings, steer

__all__ = ["AHEAD", "as_settings", "grid_and_chains", "listening"]

AHEAD = np.array([1.0, 0.0, 0.0])  # where combiners are designed before they are shifted


def listening(
    half: HalfSpec,
    asked: Float[Array, "row chain 3"],
    centre: Float[Array, "row 3"],
    carrier_hz: float,
    columns: Complex[Array, "element chain"],
    shift: bool = True,
) -> Settings:
    """Rows that hear echoes through ``columns``, designed for straight ahead and shifted to their centres unless told not to; the others as asked."""
    settings = steer(half, asked, carrier_hz)
    rows = np.flatnonzero(np.isfinite(centre).all(axis=1))
    if not len(rows):
        return settings
    carrier = np.float64(carrier_hz)
    # papers/001 section IV-C: diag(a(centre) a*(ahead)) W, a shift in direction cosines
    turn = (
        steering(half.array, centre[rows], carrier) * steering(half.array, AHEAD, carrier).conj()
        if shift
        else np.ones((len(rows), 1))
    )
    own = as_settings(half, turn[:, :, None] * columns, centre[rows], carrier_hz)

    def put(everywhere: Array, here: Array) -> Array:
        out = np.array(everywhere)
        out[rows] = here
        return out

    return Settings(
        delay_s=put(settings.delay_s, own.delay_s),
        phase_rad=put(settings.phase_rad, own.phase_rad),
        amplitude=put(settings.amplitude, own.amplitude),
    )


def as_settings(
    half: HalfSpec, columns: Complex[Array, "row element chain"], centre: Float[Array, "row 3"], carrier_hz: float
) -> Settings:
    """What makes the machine hear ``columns^H x``: delays of a beam to the centre, phases that do the rest at the carrier, amplitudes up to 1.

    The machine multiplies, so its response is ``conj(columns)``. A chain keeps its loudest element whole and attenuates the others: a tapered column
    loses signal, and its terminations make up the noise (``hal.reception.noise_root``). Elements a chain does not reach are left out of its column.
    """
    network = half.network
    delay_s = steer(half, np.repeat(centre[:, None], len(network.wired), axis=1), carrier_hz).delay_s
    weight = np.swapaxes(columns, 1, 2).conj() * network.wired
    through_s = np.take(delay_s, network.line, axis=-1) if network.lines else np.zeros(weight.shape)
    phase_rad = np.mod(np.angle(weight) + 2 * np.pi * np.mod(carrier_hz * through_s, 1.0), 2 * np.pi)
    size = np.abs(weight)
    return Settings(
        delay_s=delay_s, phase_rad=phase_rad, amplitude=size / np.maximum(size.max(axis=-1, keepdims=True), 1e-300)
    )


def grid_and_chains(half: HalfSpec, fewest: int, most: int) -> int:
    """How many chains a planar array has. Raises Misuse for a line, which has no second angle, and for another number of chains."""
    chains = len(half.network.wired)
    if min(half.array.columns, half.array.rows) < 2:
        raise Misuse(
            "control.combining: needs a planar receive array (upa) of two rows and columns at least; with a line take squinted"
        )
    if not fewest <= chains <= most:
        raise Misuse(
            f"control.combining: the receive half has {chains} chains, this kind takes {fewest} .. {most}; take squinted, or other chains"
        )
    return chains
