"""Linear equalisers for frames that crossed a known doubly selective channel: minimum mean square error, and the one tap of OFDM."""

from __future__ import annotations

import numpy as np

from hal.check import positive
from hal.errors import Misuse
from hal.record import Array, Complex, Float
from twin.physics.doubly_selective import Passage, adjoint, through

__all__ = ["mmse", "one_tap"]


def mmse(
    channel: Passage,
    received: Complex[Array, "*batch sample"],
    noise: float | Float[Array, "*batch"],
    tolerance: float = 1e-5,
    steps: int = 2000,
) -> Complex[Array, "*batch sample"]:
    """``(H^H H + noise I)^-1 H^H y``: the linear estimate of unit-power samples with the least mean square error.

    ``noise`` is the power of a sample's noise, one number or one a frame. By conjugate gradients on FFTs: no matrix is formed, and every unitary
    waveform shares the result, whose error is its own everywhere in the frame. Ends where every frame's residual is below ``tolerance`` of its
    start. Biased towards zero, as all such estimates are. Raises Misuse as ``through``, for noise that is not positive, or where ``steps`` do not suffice.
    """
    noise = np.asarray(noise, dtype=np.float64)
    for value in noise.reshape(-1):
        positive("noise", float(value), "without noise the channel may have no inverse")
    load = noise[..., None]
    left = adjoint(channel, received)
    out = np.zeros_like(left)
    way = left.copy()
    energy = np.sum(np.abs(left) ** 2, axis=-1, keepdims=True)
    goal = tolerance**2 * energy
    for _ in range(steps):
        if np.all(energy <= goal):
            return out
        pushed = adjoint(channel, through(channel, way)) + load * way
        slope = np.sum((way.conj() * pushed).real, axis=-1, keepdims=True)
        step = np.where(energy > goal, energy / np.where(slope > 0, slope, 1.0), 0.0)  # a frame's result is its own
        out += step * way
        left -= step * pushed
        fresh = np.sum(np.abs(left) ** 2, axis=-1, keepdims=True)
        way = left + fresh / np.where(energy > 0, energy, 1.0) * way
        energy = fresh
    worst = float(np.sqrt(np.max(energy / np.where(goal > 0, goal, 1.0)) * tolerance**2))
    raise Misuse(
        f"steps = {steps}: left a residual of {worst:.2g}, above {tolerance:g}; the noise is too low for this channel: allow more"
    )


def one_tap(
    channel: Passage, received: Complex[Array, "*batch sample"], noise: float | Float[Array, "*batch"]
) -> Complex[Array, "*batch sample"]:
    """Minimum mean square error a line of each cyclic stretch, blind to what Doppler does within it: a receiver that knows no intercarrier interference.

    Each stretch's own mean channel is divided by: ``h(f) = sum_p filter_p(f) mean_q turn_p(q)``. Exact where no path has Doppler.
    """
    from scipy.fft import fft, ifft

    received = np.asarray(received)
    periods, size = channel.turn.shape[-2:]
    lines = np.einsum("...pk,...pt->...tk", channel.filter, channel.turn.mean(axis=-1))
    heard = fft(received.reshape(*received.shape[:-1], periods, size), axis=-1)
    load = np.asarray(noise, dtype=np.float64)[..., None, None]
    out: Array = ifft(heard * lines.conj() / (np.abs(lines) ** 2 + load), axis=-1)
    return out.reshape(*out.shape[:-2], periods * size)
