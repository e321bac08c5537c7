"""Where receive beams look together, and which direction best explains what their chains heard."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, AntennaArray, cis, steering, steering_gradient
from hal.errors import Misuse
from hal.hermitian import eigen
from hal.record import Array, Complex, Float, record

__all__ = ["Lobe", "find_directions", "main_lobe"]

_MISFIT = 5.0  # of its expectation, beyond what noise gives once in 2000 (chi-square, four degrees of freedom)


@record
class Lobe:
    """The receive beams of one slot: how chain outputs are whitened, and where their main lobe is."""

    array: AntennaArray
    frequency_hz: float
    projection: Complex[Array, "row element"]  # whitened outputs of a plane wave: projection @ a(u)
    slopes: (
        Complex[Array, "axis row element"] | None
    )  # of its derivatives: slopes @ a(u); None: elements off the y-z plane
    whitener: Complex[Array, "row chain"]
    centre: Float[Array, " axis"]  # uy, uz
    width: Float[Array, " axis"]  # half-widths of the searched rectangle
    cosine: Float[Array, "point axis"]  # grid points within it
    manifold: Complex[Array, "row point"]  # whitened, unit norm
    prior: Float[Array, " axis"]  # 1 / variance of a uniform direction, on axes these chains cannot resolve; else 0


def main_lobe(
    array: AntennaArray,
    outputs: Complex[Array, "element chain"],
    noise: Complex[Array, "chain chain"],
    frequency_hz: float,
    width: float = 1.0,
) -> Lobe:
    """Where receive beams look together and how to whiten them.

    ``outputs`` are ``hal.network.response`` of one slot, ``noise`` the covariance of the chains' noise in units of one chain's.

    The centre is the power-weighted mean direction of the beams' own main lobes, the half-width ``width`` times the array's null distance
    ``c / (f D)``, D the aperture of a uniform line with the same spread. Combinations of chains 60 dB below the strongest are dropped.
    Raises Misuse for beams that hear nothing.
    """
    if not np.any(outputs):
        raise Misuse("outputs: are zero, a dark slot has no lobe")
    grid, null, aperture = _grid(array, frequency_hz)
    power = _power(array, outputs.astype(np.complex64), frequency_hz)
    centre = grid[np.argmax(power)]
    for _ in range(2):
        near = _within(grid, centre, 1.2 * null)
        centre = (power[near] @ grid[near]) / power[near].sum()
    root, turn = eigen(np.ascontiguousarray(noise, dtype=np.complex128))
    strong = root > 1e-6 * root[-1]
    whitener = (turn[:, strong] / np.sqrt(root[strong])).conj().T
    reach = width * null
    near = _within(grid, centre, reach)
    if not near.size:
        near = np.array([np.argmin(np.sum((grid - centre) ** 2, axis=1))])
    projection = whitener @ outputs.T
    seen = projection @ steering(array, _direction(grid[near]), frequency_hz).T
    blind = np.full(2, np.count_nonzero(strong) < 3) | (aperture == 0)
    lever = _lever(array, frequency_hz)
    return Lobe(
        array=array,
        frequency_hz=frequency_hz,
        projection=projection,
        slopes=None if lever is None else projection * lever[:, None],
        whitener=whitener,
        centre=centre,
        width=reach,
        cosine=grid[near],
        manifold=seen / np.linalg.norm(seen, axis=0),
        prior=np.where(blind, 3 / reach**2, 0.0),
    )


def find_directions(
    lobe: Lobe, amplitude: Complex[Array, "echo row"], variance: Float[Array, " echo"], steps: int = 8
) -> tuple[Float[Array, "echo axis"], Float[Array, "echo axis axis"], Float[Array, " echo"], Float[Array, " echo"]]:
    """Directions that best explain each echo's whitened chain amplitudes: ``(cosine, covariance, misfit, fitted)``.

    ``max_u |b(u)^H z|^2 / ||b(u)||^2`` by Gauss-Newton from two separate grid points of the lobe; ``variance`` is that of one
    entry of z. ``misfit`` is twice the rest over the variance, chi-square with ``2 rows - 4`` degrees of freedom for a single true
    echo; where it exceeds five times those it scales the covariance, the inverse Fisher information. ``fitted`` is the explained
    power over the variance, the echo's integrated signal to noise ratio.
    """
    score = np.abs(lobe.manifold.conj().T @ amplitude.T) ** 2  # [point echo]
    score -= 0.5 * variance * np.sum(lobe.prior * (lobe.cosine - lobe.centre) ** 2, axis=1)[:, None]
    best = np.argmax(score, axis=0)
    far = np.any(np.abs(lobe.cosine[:, None] - lobe.cosine[best]) > 0.6 * lobe.width, axis=2)
    second = np.argmax(np.where(far, score, -np.inf), axis=0)
    echoes = len(amplitude)
    # a second start only where the grid leaves a doubt: its own score, taken off the grid, could still win
    doubt = np.flatnonzero(score[second, np.arange(echoes)] > 0.5 * score[best, np.arange(echoes)])
    owner = np.concatenate([np.arange(echoes), doubt])
    cosine = lobe.cosine[np.concatenate([best, second[doubt]])]
    z, v = amplitude[owner], variance[owner]
    low, high = np.maximum(lobe.centre - lobe.width, -0.999), np.minimum(lobe.centre + lobe.width, 0.999)
    if lobe.array.columns:
        position_m, wave = lobe.array.position_m, 2 * np.pi * lobe.frequency_hz / LIGHT_MPS
        shape = (len(lobe.projection), lobe.array.columns, lobe.array.rows)
        lever = wave * position_m[:: lobe.array.rows, 1], wave * position_m[: lobe.array.rows, 2]
        feed = np.ascontiguousarray(lobe.projection, dtype=np.complex128).reshape(shape)
        z, cosine = np.ascontiguousarray(z, dtype=np.complex128), cosine.copy()
        b, gain, left, normal = _climb(
            feed, *lever, z, v, cosine, lobe.prior, lobe.centre, lobe.width, low, high, steps
        )
        norm = np.sum(np.abs(b) ** 2, axis=1)
    else:
        cosine, gain, left, normal, norm = _stepped(lobe, cosine, z, v, low, high, steps)
    misfit = 2 * np.sum(np.abs(left) ** 2, axis=1) / v
    own = np.arange(echoes)
    better = echoes + np.flatnonzero(misfit[echoes:] < misfit[doubt])
    own[owner[better]] = better
    freedom = max(2 * z.shape[1] - 4, 1)
    excess = misfit[own] / freedom
    covariance = np.linalg.inv(normal[own]) * np.where(excess > _MISFIT, excess, 1.0)[:, None, None]
    return cosine[own], covariance, misfit[own], np.abs(gain[own]) ** 2 * norm[own] / variance


def _stepped(
    lobe: Lobe,
    cosine: Float[Array, "start axis"],
    z: Complex[Array, "start row"],
    v: Float[Array, " start"],
    low: Float[Array, " axis"],
    high: Float[Array, " axis"],
    steps: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """Gauss-Newton for elements anywhere, all starts together: directions, and what was found where the last step set out."""
    for _ in range(steps):
        b, slopes = _manifold(lobe, cosine)
        norm = np.sum(np.abs(b) ** 2, axis=1)
        gain = np.sum(b.conj() * z, axis=1) / norm
        left = z - gain[:, None] * b
        bent = gain[:, None, None] * (
            slopes - b[:, None] * (np.sum(b.conj()[:, None] * slopes, axis=2) / norm[:, None])[..., None]
        )
        normal = 2 / v[:, None, None] * np.real(np.einsum("eir,ejr->eij", bent.conj(), bent)) + np.diag(lobe.prior)
        normal += np.eye(2) * (1e-9 * normal + 1e-30)
        slope = 2 / v[:, None] * np.real(np.sum(bent.conj() * left[:, None], axis=2)) - lobe.prior * (
            cosine - lobe.centre
        )
        move = np.linalg.solve(normal, slope[..., None])[..., 0]
        cosine = np.clip(cosine + np.clip(move, -0.3 * lobe.width, 0.3 * lobe.width), low, high)
        cosine /= np.maximum(1.0, np.sqrt(np.sum(cosine**2, axis=1)) / 0.999)[:, None]
        if np.max(np.sum(move * slope, axis=1)) < 1e-2:  # a step of 0.1 standard deviations is the last
            break
    return cosine, gain, left, normal, norm


@njit(cache=True, error_model="numpy")
def _climb(
    feed: Any,
    lever_y: Any,
    lever_z: Any,
    z: Any,
    v: Any,
    cosine: Any,
    prior: Any,
    centre: Any,
    width: Any,
    low: Any,
    high: Any,
    steps: int,
) -> Any:  # pragma: no cover - compiled
    # the same for a planar grid, one start after the other by the two factors of its steering vectors; ``cosine`` is moved in place
    starts, rows, columns, tall = len(cosine), feed.shape[0], feed.shape[1], feed.shape[2]
    beam = np.zeros((starts, rows), np.complex128)
    gains = np.zeros(starts, np.complex128)
    left = np.zeros((starts, rows), np.complex128)
    normal = np.zeros((starts, 2, 2))
    bent = np.empty((2, rows), np.complex128)
    slopes = np.empty((2, rows), np.complex128)
    along, up = np.empty(columns, np.complex128), np.empty(tall, np.complex128)
    move, pull = np.empty(2), np.empty(2)
    for n in range(starts):
        b = beam[n]
        for _ in range(steps):
            for i in range(columns):
                along[i] = complex(np.cos(lever_y[i] * cosine[n, 0]), np.sin(lever_y[i] * cosine[n, 0]))
            for i in range(tall):
                up[i] = complex(np.cos(lever_z[i] * cosine[n, 1]), np.sin(lever_z[i] * cosine[n, 1]))
            norm, found = 0.0, 0j
            for r in range(rows):
                b[r], slopes[0, r], slopes[1, r] = 0j, 0j, 0j
                for c in range(columns):
                    flat, leaning = 0j, 0j
                    for i in range(tall):
                        term = feed[r, c, i] * up[i]
                        flat += term
                        leaning += lever_z[i] * term
                    b[r] += along[c] * flat
                    slopes[0, r] += lever_y[c] * along[c] * flat
                    slopes[1, r] += along[c] * leaning
                slopes[0, r] *= 1j
                slopes[1, r] *= 1j
                norm += b[r].real ** 2 + b[r].imag ** 2
                found += b[r].conjugate() * z[n, r]
            gain = found / norm
            gains[n] = gain
            for a in range(2):
                inner = 0j
                for r in range(rows):
                    inner += b[r].conjugate() * slopes[a, r]
                for r in range(rows):
                    bent[a, r] = gain * (slopes[a, r] - b[r] * (inner / norm))
            for r in range(rows):
                left[n, r] = z[n, r] - gain * b[r]
            for a in range(2):
                pull[a] = -prior[a] * (cosine[n, a] - centre[a])
                for r in range(rows):
                    pull[a] += 2 / v[n] * (bent[a, r].conjugate() * left[n, r]).real
                for o in range(2):
                    normal[n, a, o] = prior[a] if a == o else 0.0
                    for r in range(rows):
                        normal[n, a, o] += 2 / v[n] * (bent[a, r].conjugate() * bent[o, r]).real
                normal[n, a, a] += 1e-9 * normal[n, a, a] + 1e-30
            m = normal[n]
            det = m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
            move[0] = (m[1, 1] * pull[0] - m[0, 1] * pull[1]) / det
            move[1] = (m[0, 0] * pull[1] - m[1, 0] * pull[0]) / det
            for a in range(2):
                step = min(max(move[a], -0.3 * width[a]), 0.3 * width[a])
                cosine[n, a] = min(max(cosine[n, a] + step, low[a]), high[a])
            reach = max(1.0, np.sqrt(cosine[n, 0] ** 2 + cosine[n, 1] ** 2) / 0.999)
            cosine[n, 0] /= reach
            cosine[n, 1] /= reach
            if move[0] * pull[0] + move[1] * pull[1] < 1e-2:  # a step of 0.1 standard deviations is the last
                break
    return beam, gains, left, normal


def _manifold(
    lobe: Lobe, cosine: Float[Array, "echo axis"]
) -> tuple[Complex[Array, "echo row"], Complex[Array, "echo axis row"]]:
    direction = _direction(cosine)
    a = steering(lobe.array, direction, lobe.frequency_hz)
    if lobe.slopes is not None:
        return a @ lobe.projection.T, np.stack([a @ lobe.slopes[0].T, a @ lobe.slopes[1].T], axis=1)
    slopes = np.stack(steering_gradient(lobe.array, direction, lobe.frequency_hz), axis=1)
    return a @ lobe.projection.T, slopes @ lobe.projection.T


def _direction(cosine: Float[Array, "*batch axis"]) -> Float[Array, "*batch 3"]:
    ahead = np.sqrt(np.maximum(1 - np.sum(cosine**2, axis=-1, keepdims=True), 0.0))
    return np.concatenate([ahead, cosine], axis=-1)


@lru_cache(maxsize=4)
def _lever(array: AntennaArray, frequency_hz: float) -> Array | None:
    """What a steering vector is multiplied by in its derivatives, for elements in the y-z plane."""
    if np.any(array.position_m[:, 0]):
        return None
    # at broadside a = 1, so its derivatives are the levers themselves
    return np.stack(steering_gradient(array, np.array([1.0, 0.0, 0.0]), np.float64(frequency_hz)))


def _within(grid: Float[Array, "point axis"], centre: Float[Array, " axis"], reach: Float[Array, " axis"]) -> Array:
    return np.flatnonzero((np.abs(grid[:, 0] - centre[0]) <= reach[0]) & (np.abs(grid[:, 1] - centre[1]) <= reach[1]))


@lru_cache(maxsize=4)
def _grid(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array, Array]:
    """Direction cosines of the front half space, a third of a null apart; the null distance and the aperture of each axis."""
    aperture, null, _, inside, cosine = _axes(array, frequency_hz)
    return cosine[inside], null, aperture


def _axes(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array, list[Array], Array, Array]:
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    axes = [np.linspace(-1, 1, 2 * int(np.ceil(3 / n)) + 1) if n < 1 else np.zeros(1) for n in null]
    cosine = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return aperture, null, axes, np.sum(cosine**2, axis=1) < 0.998, cosine


@lru_cache(maxsize=4)
def _factors(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array, Array]:
    """Both factors of a planar grid's steering vectors on the axes of ``_grid``, and which pairs it holds."""
    _, _, (across, upward), inside, _ = _axes(array, frequency_hz)
    wave = 2 * np.pi * frequency_hz / LIGHT_MPS
    y_m, z_m = array.position_m[:: array.rows, 1], array.position_m[: array.rows, 2]
    a_y, a_z = (cis(wave * u[:, None] * p_m).astype(np.complex64) for u, p_m in ((across, y_m), (upward, z_m)))
    return a_y, a_z, inside


@lru_cache(maxsize=4)
def _manifold_of(array: AntennaArray, frequency_hz: float) -> Array:
    """Steering vectors of the points of ``_grid``, for elements anywhere."""
    return np.asarray(steering(array, _direction(_grid(array, frequency_hz)[0]), frequency_hz).astype(np.complex64))


def _power(
    array: AntennaArray, outputs: Complex[Array, "element chain"], frequency_hz: float
) -> Float[Array, " point"]:
    """Power of all chains together towards the points of ``_grid``."""
    if not array.columns:
        field = _manifold_of(array, frequency_hz) @ outputs
        return np.asarray(np.sum(field.real**2 + field.imag**2, axis=1))
    a_y, a_z, inside = _factors(array, frequency_hz)
    chains = outputs.shape[1]
    feed = outputs.T.reshape(chains * array.columns, array.rows) @ a_z.T  # [chain column, point]
    field = a_y @ feed.reshape(chains, array.columns, -1)  # [chain, point, point]
    return np.asarray(np.sum(field.real**2 + field.imag**2, axis=0).reshape(-1)[inside])
