"""Where receive beams look together, and which direction best explains what their chains heard."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hal.array import LIGHT_MPS, AntennaArray, steering, steering_gradient
from hal.errors import Misuse
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
    grid, manifold = _dictionary(array, frequency_hz)
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    power = np.abs(manifold @ outputs.astype(np.complex64)) ** 2
    centre = grid[np.argmax(power.sum(axis=1))]
    for _ in range(2):
        near = np.all(np.abs(grid - centre) <= 1.2 * null, axis=1)
        centre = (power[near].sum(axis=1) @ grid[near]) / power[near].sum()
    root, turn = np.linalg.eigh(noise)
    strong = root > 1e-6 * root[-1]
    whitener = (turn[:, strong] / np.sqrt(root[strong])).conj().T
    reach = width * null
    near = np.all(np.abs(grid - centre) <= reach, axis=1)
    if not near.any():
        near[np.argmin(np.sum((grid - centre) ** 2, axis=1))] = True
    projection = whitener @ outputs.T
    seen = projection @ manifold[near].T
    blind = np.full(2, np.count_nonzero(strong) < 3) | (aperture == 0)
    planar = not np.any(array.position_m[:, 0])
    # at broadside a = 1, so its derivatives are the levers themselves
    lever = np.stack(steering_gradient(array, np.array([1.0, 0.0, 0.0]), np.float64(frequency_hz)))
    return Lobe(
        array=array,
        frequency_hz=frequency_hz,
        projection=projection,
        slopes=projection * lever[:, None] if planar else None,
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
    misfit = 2 * np.sum(np.abs(left) ** 2, axis=1) / v
    own = np.arange(echoes)
    better = echoes + np.flatnonzero(misfit[echoes:] < misfit[doubt])
    own[owner[better]] = better
    freedom = max(2 * z.shape[1] - 4, 1)
    excess = misfit[own] / freedom
    covariance = np.linalg.inv(normal[own]) * np.where(excess > _MISFIT, excess, 1.0)[:, None, None]
    return cosine[own], covariance, misfit[own], np.abs(gain[own]) ** 2 * norm[own] / variance


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
def _dictionary(array: AntennaArray, frequency_hz: float) -> tuple[Array, Array]:
    """Direction cosines of the front half space, a third of a null apart, and their steering vectors."""
    aperture = np.sqrt(12 * np.var(array.position_m[:, 1:], axis=0))
    null = np.minimum(LIGHT_MPS / (frequency_hz * np.maximum(aperture, 1e-12)), 1.0)
    axes = [np.linspace(-1, 1, 2 * int(np.ceil(3 / n)) + 1) if n < 1 else np.zeros(1) for n in null]
    cosine = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cosine = cosine[np.sum(cosine**2, axis=1) < 0.998]
    return cosine, steering(array, _direction(cosine), frequency_hz).astype(np.complex64)
