"""How alike the user's and the targets' beamspace patterns are: papers/000's C-S correlation, for any dictionary size by zero-padded FFT.

A dictionary of ``columns x rows`` uniformly spaced spatial frequencies, the same at every subcarrier, turns ``D^H a`` into a two-dimensional FFT of the
array's grid padded with zeros. Array-API: NumPy and torch run the same code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace

from hal.array import AntennaArray, cis, like, steering
from hal.errors import Misuse
from twin.physics.fisher import Convention, like_complex

__all__ = [
    "array_gain_objective",
    "beamspace",
    "correlation",
    "delay_ramp",
    "distribution",
    "divergence",
    "echo_beamspace",
]


def beamspace(array: AntennaArray, vector: Any, grid: tuple[int, int]) -> Any:
    """``D^H x`` on a dictionary of ``grid = (columns, rows)`` spatial frequencies: ``vector[... element]`` -> ``[... columns rows]``.

    Columns of D are ``exp(+j (w_y n_h + w_z n_v)) / sqrt(N)``, ``w = 2 pi i / grid``; sources between two of them leak, as on any DFT grid.
    papers/000 eq (14), its N_D = N_t N_r being 16 x 16 times the critical 16 x 16. Raises Misuse for a free-form array or a grid coarser than it.
    """
    xp = array_namespace(vector)
    if not array.columns > 0:
        raise Misuse("array.columns = 0: beamspace needs a planar grid (Upa or Ula)")
    if not (grid[0] >= array.columns and grid[1] >= array.rows):
        raise Misuse(
            f"grid = {grid}: must be at least the array's own {(array.columns, array.rows)}; twice that loses nothing, N_t N_r is the paper's"
        )
    plane = xp.reshape(vector, (*vector.shape[:-1], array.columns, array.rows))
    return xp.fft.fftn(plane, s=grid, axes=(-2, -1)) / (array.columns * array.rows) ** 0.5


def delay_ramp(line: Any, delay_s: Any, frequency_hz: Any) -> Any:
    """What delay lines do to a channel row: ``exp(-j 2 pi f T_line(n))`` -> ``[... subcarrier element]``; ``delay_s[... line]``.

    Elements with ``line = -1`` (no delay lines) keep their phase.
    """
    xp = array_namespace(delay_s)
    line = np.asarray(line)
    if np.all(line < 0):
        shape = (*delay_s.shape[:-1], frequency_hz.shape[0], line.size)
        return cis(xp.zeros(shape, dtype=delay_s.dtype))
    spread = xp.take(delay_s, xp.asarray(line), axis=-1)
    return cis(-2 * np.pi * like(frequency_hz, delay_s)[:, None] * spread[..., None, :])


def echo_beamspace(
    transmit: AntennaArray,
    receive: AntennaArray,
    direction: Any,
    gain: Any,
    frequency_hz: Any,
    ramp: Any,
    grid: tuple[int, int],
    convention: Convention = "consistent",
) -> Any:
    """``h_s^b = diag(D_r^H G F D_t) = sum_k g_k (D_r^H a_r,k) conj(D_t^H F^H a_t,k)`` -> ``[... subcarrier columns rows]``.

    ``direction[target 3]``, ``gain[target subcarrier]``, ``ramp[... subcarrier element]`` from ``delay_ramp``. The diagonal pairs each transmit direction
    with the receive one of the same index: never more than two FFTs a target. Both signs follow papers/000's consistent reading
    ``G = A_r S A_t^H``; ``printed`` takes ``a_t^T``, whose product pairs a peak with the mirrored direction's side lobe. papers/000 eq (14).
    """
    xp = array_namespace(ramp)
    a = steering(transmit, direction[None, :, :], frequency_hz[:, None])  # [m k element]
    a = xp.conj(a) if convention == "printed" else a
    there = xp.conj(beamspace(transmit, a * ramp[..., None, :], grid))
    back = beamspace(receive, steering(receive, direction[None, :, :], frequency_hz[:, None]), grid)
    weight = xp.matrix_transpose(xp.astype(like_complex(gain, back), back.dtype))[..., None, None]
    return xp.sum(weight * back * there, axis=-3)


def distribution(field: Any) -> Any:
    """``sum_m |h_m| / || . ||_1`` over the dictionary: ``field[... subcarrier columns rows]`` -> ``[... bin]``, summing to 1. papers/000 eq (15)."""
    xp = array_namespace(field)
    size = xp.sum(xp.abs(field), axis=-3)
    size = xp.reshape(size, (*size.shape[:-2], -1))
    total = xp.sum(size, axis=-1, keepdims=True)
    if is_numpy_namespace(xp) and not np.all(total > 0):
        raise Misuse("field: is zero everywhere; a user or target without gain has no beamspace distribution")
    return size / total


def divergence(p: Any, q: Any, guard: float = 0.0) -> Any:
    """Kullback-Leibler divergence ``sum p ln(p / q)`` in nats -> ``[...]``. ``guard`` is added to both; 1e-9 and below change nothing, 1e-6 does.

    0 only where p = q: a one-way pattern against a two-way product never is, so coincident user and target give about 1. papers/000 eq (16).
    """
    xp = array_namespace(p)
    p, q = p + guard, q + guard
    return xp.sum(p * (xp.log(p) - xp.log(q)), axis=-1)


def correlation(p: Any, q: Any, guard: float = 0.0) -> Any:
    """papers/000's C-S correlation, ``1 / KL(p, q)`` (eq 16). Raises Misuse for distributions that are equal: it has no value there."""
    away = divergence(p, q, guard)
    if is_numpy_namespace(array_namespace(away)) and not np.all(away > 0):
        raise Misuse("p, q: are the same distribution; their correlation 1 / 0 has no value")
    return 1.0 / away


def array_gain_objective(user: Any, echo: Any, power_w: Any, eta: float) -> Any:
    """papers/000 eq (18): ``sum_m p_m (|h_m^T f|^2 + eta / N_r ||G_m f||^2)`` -> ``[...]``.

    ``user[... subcarrier]`` is ``h^T f``, ``echo[... subcarrier receive_element]`` is ``G f``; ``eta / N_r`` times the sum over receive elements is
    eta times their mean, which is how it is written here (steering vectors have unit modulus). Serving the strongest term alone maximises it.
    """
    xp = array_namespace(user)
    sensed = xp.mean(xp.abs(echo) ** 2, axis=-1)
    return xp.sum(power_w * (xp.abs(user) ** 2 + eta * sensed), axis=-1)
