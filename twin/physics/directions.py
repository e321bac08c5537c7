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
    look = _planar_look if array.columns else _look
    aperture, null = _axes(array, frequency_hz)[:2]
    reach = width * null
    centre, cosine, seen = look(array, outputs, frequency_hz, null, reach)
    root, turn = eigen(np.ascontiguousarray(noise, dtype=np.complex128))
    strong = root > 1e-6 * root[-1]
    whitener = np.ascontiguousarray((turn[:, strong] / np.sqrt(root[strong])).conj().T)
    projection = whitener @ outputs.T
    manifold = whitener @ seen
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
        cosine=cosine,
        manifold=manifold / np.sqrt(np.sum(manifold.real**2 + manifold.imag**2, axis=0)),
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
    amplitude, variance = (
        np.ascontiguousarray(a, dtype=d) for a, d in ((amplitude, np.complex128), (variance, np.float64))
    )
    owner, cosine = _starts(lobe.manifold, amplitude, variance, lobe.prior, lobe.cosine, lobe.centre, 0.6 * lobe.width)
    z, v = amplitude[owner], variance[owner]
    low, high = np.maximum(lobe.centre - lobe.width, -0.999), np.minimum(lobe.centre + lobe.width, 0.999)
    if lobe.array.columns:
        shape = (len(lobe.projection), lobe.array.columns, lobe.array.rows)
        feed = np.ascontiguousarray(lobe.projection, dtype=np.complex128).reshape(shape)
        b, gain, left, normal = _climb(
            feed,
            *_reaches(lobe.array, lobe.frequency_hz),
            z,
            v,
            cosine,
            lobe.prior,
            lobe.centre,
            lobe.width,
            low,
            high,
            steps,
        )
        norm = np.sum(b.real**2 + b.imag**2, axis=1)
    else:
        cosine, gain, left, normal, norm = _stepped(lobe, cosine, z, v, low, high, steps)
    return _chosen(len(amplitude), owner, cosine, gain, left, normal, norm, v)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _starts(
    manifold: Any, amplitude: Any, variance: Any, prior: Any, cosine: Any, centre: Any, far: Any
) -> Any:  # pragma: no cover - compiled
    # whose start it is and where: every echo's best grid point, then second ones far from it where the grid leaves a doubt: their own
    # score, taken off the grid, could still win
    echoes, rows, points = amplitude.shape[0], amplitude.shape[1], manifold.shape[1]
    owner, start = np.empty(2 * echoes, np.int64), np.empty((2 * echoes, 2))
    score = np.empty(points)
    count = echoes
    for e in range(echoes):
        best = 0
        for p in range(points):
            found = 0j
            for r in range(rows):
                found += manifold[r, p].conjugate() * amplitude[e, r]
            away = 0.0
            for a in range(2):
                away += prior[a] * (cosine[p, a] - centre[a]) ** 2
            score[p] = found.real**2 + found.imag**2 - 0.5 * variance[e] * away
            if score[p] > score[best]:
                best = p
        owner[e], start[e] = e, cosine[best]
        second = -1
        for p in range(points):
            apart = abs(cosine[p, 0] - cosine[best, 0]) > far[0] or abs(cosine[p, 1] - cosine[best, 1]) > far[1]
            if apart and (second < 0 or score[p] > score[second]):
                second = p
        if second >= 0 and score[second] > 0.5 * score[best]:
            owner[count], start[count] = e, cosine[second]
            count += 1
    return owner[:count], start[:count]


@njit(cache=True, error_model="numpy")
def _chosen(
    echoes: int, owner: Any, cosine: Any, gain: Any, left: Any, normal: Any, norm: Any, variance: Any
) -> Any:  # pragma: no cover - compiled
    # of each echo's starts the one that fits better: direction, covariance, misfit, fitted signal to noise ratio
    misfit = np.empty(owner.size)
    own = np.arange(echoes)
    rows = left.shape[1]
    for n in range(owner.size):
        rest = 0.0
        for r in range(rows):
            rest += left[n, r].real ** 2 + left[n, r].imag ** 2
        misfit[n] = 2 * rest / variance[n]
        if misfit[n] < misfit[own[owner[n]]]:
            own[owner[n]] = n
    covariance, fitted = np.empty((echoes, 2, 2)), np.empty(echoes)
    for e in range(echoes):
        n = own[e]
        m = normal[n]
        excess = misfit[n] / max(2 * rows - 4, 1)
        scale = (excess if excess > _MISFIT else 1.0) / (m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0])
        covariance[e, 0, 0], covariance[e, 1, 1] = scale * m[1, 1], scale * m[0, 0]
        covariance[e, 0, 1], covariance[e, 1, 0] = -scale * m[0, 1], -scale * m[1, 0]
        fitted[e] = (gain[n].real ** 2 + gain[n].imag ** 2) * norm[n] / variance[n]
    return cosine[own], covariance, misfit[own], fitted


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


def _look(
    array: AntennaArray, outputs: Complex[Array, "element chain"], frequency_hz: float, null: Array, reach: Array
) -> tuple[Array, Array, Array]:
    """The beams' common centre, the grid points within ``reach`` of it, and what the chains hear from there; elements anywhere."""
    grid, inside = _axes(array, frequency_hz)[3:]
    field = _manifold_of(array, frequency_hz) @ outputs.astype(np.complex64)
    power = np.sum(field.real**2 + field.imag**2, axis=1).astype(np.float64)
    whole = np.zeros(len(grid))
    whole[inside] = power
    near = np.empty(0, np.int64)
    centre = grid[np.argmax(whole)]
    for span in (1.2 * null, 1.2 * null, reach):
        close = inside[np.all(np.abs(grid[inside] - centre) <= span, axis=1)]
        if span is not reach:
            centre = (whole[close] @ grid[close]) / whole[close].sum()
        near = close
    if not near.size:
        near = inside[[np.argmin(np.sum((grid[inside] - centre) ** 2, axis=1))]]
    return centre, grid[near], outputs.T @ steering(array, _direction(grid[near]), frequency_hz).T


def _planar_look(
    array: AntennaArray, outputs: Complex[Array, "element chain"], frequency_hz: float, null: Array, reach: Array
) -> tuple[Array, Array, Array]:
    """The same for a planar grid, by the two factors of its steering vectors."""
    a_y, a_z, across, upward, inside, coarse_y, coarse_z = _factors(array, frequency_hz)
    feed = outputs.T.reshape(-1, array.columns, array.rows)
    field = coarse_y @ (feed.astype(np.complex64) @ coarse_z)  # [chain, point, point]
    centre, y, z = _centred(field, inside, across, upward, 1.2 * null, reach)
    seen = (a_y[y[0] : y[-1] + 1] @ (feed @ a_z[:, z.min() : z.max() + 1]))[:, y - y[0], z - z.min()]
    return centre, np.column_stack([across[y], upward[z]]), seen


@njit(cache=True, error_model="numpy")
def _centred(
    field: Any, inside: Any, across: Any, upward: Any, near: Any, reach: Any
) -> Any:  # pragma: no cover - compiled
    # power-weighted mean about the peak, twice, and the grid points within reach of it; the nearest one where there are none
    chains, tall, wide = field.shape
    power = np.zeros((tall, wide))
    top, best, at = -1.0, (0, 0), np.zeros(2)
    for i in range(tall):
        for j in range(wide):
            if inside[i, j]:
                for c in range(chains):
                    power[i, j] += field[c, i, j].real ** 2 + field[c, i, j].imag ** 2
                if power[i, j] > top:
                    top, best = power[i, j], (i, j)
    at[0], at[1] = across[best[0]], upward[best[1]]
    for _ in range(2):
        total, y, z = 0.0, 0.0, 0.0
        for i in range(tall):
            if abs(across[i] - at[0]) <= near[0]:
                for j in range(wide):
                    if abs(upward[j] - at[1]) <= near[1]:
                        total += power[i, j]
                        y += power[i, j] * across[i]
                        z += power[i, j] * upward[j]
        at[0], at[1] = y / total, z / total
    first, second = np.empty(power.size, np.int64), np.empty(power.size, np.int64)
    count, least = 0, np.inf
    for i in range(tall):
        for j in range(wide):
            if inside[i, j]:
                apart = (across[i] - at[0]) ** 2 + (upward[j] - at[1]) ** 2
                if apart < least:
                    least, best = apart, (i, j)
                if abs(across[i] - at[0]) <= reach[0] and abs(upward[j] - at[1]) <= reach[1]:
                    first[count], second[count] = i, j
                    count += 1
    if not count:
        first[0], second[0] = best
        count = 1
    return at, first[:count], second[:count]


@lru_cache(maxsize=4)
def _axes(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array, list[Array], Array, Array]:
    """Direction cosines a third of a null apart: aperture and null distance of each axis, the axes, all their points, which of them are ahead."""
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    axes = [np.linspace(-1, 1, 2 * int(np.ceil(3 / n)) + 1) if n < 1 else np.zeros(1) for n in null]
    cosine = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return aperture, null, axes, cosine, np.flatnonzero(np.sum(cosine**2, axis=1) < 0.998)


@lru_cache(maxsize=4)
def _factors(array: AntennaArray, frequency_hz: float) -> tuple[Array, ...]:
    """Both factors of a planar grid's steering vectors on its axes, these, which pairs are ahead, and the factors in single precision."""
    _, _, (across, upward), cosine, ahead = _axes(array, frequency_hz)
    inside = np.zeros(len(cosine), dtype=np.bool_)
    inside[ahead] = True
    y_m, z_m = _reaches(array, frequency_hz)
    a_y, a_z = cis(across[:, None] * y_m), np.ascontiguousarray(cis(upward[:, None] * z_m).T)
    coarse = a_y.astype(np.complex64), a_z.astype(np.complex64)
    return a_y, a_z, across, upward, inside.reshape(len(across), len(upward)), *coarse


@lru_cache(maxsize=4)
def _reaches(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array]:
    """Phase of a planar grid's columns and of its rows for a unit of direction cosine."""
    wave = 2 * np.pi * frequency_hz / LIGHT_MPS
    return wave * array.position_m[:: array.rows, 1], wave * array.position_m[: array.rows, 2]


@lru_cache(maxsize=4)
def _manifold_of(array: AntennaArray, frequency_hz: float) -> Array:
    """Steering vectors of the points ahead, for elements anywhere."""
    grid, inside = _axes(array, frequency_hz)[3:]
    return np.asarray(steering(array, _direction(grid[inside]), frequency_hz).astype(np.complex64))
