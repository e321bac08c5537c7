"""Scatterers on a ring about the user: correlation over space, ageing over time, and the rays that have both."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np

from hal.array import LIGHT_MPS, cis
from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int, record
from twin.physics.draws import Draws

__all__ = [
    "Rays",
    "jakes",
    "one_ring_correlation",
    "one_ring_factor",
    "one_ring_nodes",
    "one_ring_rays",
    "ray_gain",
]

Numbers = float | Float[Array, "..."]
_TURN = 2 * np.pi
_HEIGHT = np.geomspace(1e-3, 50.0, 400)  # candidate half heights of the regions in which the error is bounded
_DIGITS = 34.0  # natural log of 6e14
_RING_LIMIT_RAD = 1.4  # nearer to the array than this half angle the ring's spectrum has no smooth form


@record
class Rays:
    """Rays from an array over scatterers on a ring to users, at one instant. Vectors are in the frame of the offsets."""

    departure_m: Float[Array, "user ray 3"]  # from the array's phase centre to the scatterer
    arrival_m: Float[Array, "user ray 3"]  # from the user to the scatterer
    delay_s: Float[Array, "user ray"]  # of the whole path, scatterer included
    doppler_hz: Float[Array, "user ray"]  # of the user against the scatterer, positive when the path shortens
    phase_rad: Float[Array, "user ray"]  # of the ray's gain at the instant, in [0, 2 pi)


def one_ring_correlation(
    position_m: Float[Array, "element 3"],
    frequency_hz: float,
    azimuth_rad: Numbers,
    elevation_rad: Numbers,
    azimuth_spread_rad: float,
    elevation_spread_rad: float = 0.0,
    spectrum: str = "uniform",
) -> Complex[Array, "*batch element element"]:
    """Spatial correlation ``R = E[a(u) a(u)^H] / N`` over a power-angle spectrum; Hermitian, trace 1.

    Args:
        position_m: elements about the phase centre, array frame.
        frequency_hz: at which the steering vectors ``a`` are taken.
        azimuth_rad: mean direction in the array frame, ``[*batch]``; broadcasts with ``elevation_rad``.
        elevation_rad: likewise.
        azimuth_spread_rad: of the spectrum, see below; the same for the whole batch.
        elevation_spread_rad: likewise, in elevation, independent of azimuth.
        spectrum: "uniform" over mean +- spread (papers/004, eq 5); "gaussian" with spread as its standard deviation, cut at
            8.3 of them and wrapped; "ring" of scatterers all round the user, seen under half angle spread: the spectrum
            of ``one_ring_rays`` for an array in the plane of the ring (azimuth only: elevation stays uniform).

    The quadrature follows from the aperture and the spread (``one_ring_nodes``); its error is below 1e-12 of the trace.
    Elements are isotropic, polarisation and distance to the ring are left out.

    Raises:
        Misuse: a spread is out of range, or the spectrum is not known.
    """
    factor = one_ring_factor(
        position_m, frequency_hz, azimuth_rad, elevation_rad, azimuth_spread_rad, elevation_spread_rad, spectrum
    )
    return np.asarray(factor @ np.conj(np.swapaxes(factor, -1, -2)))


def one_ring_factor(
    position_m: Float[Array, "element 3"],
    frequency_hz: float,
    azimuth_rad: Numbers,
    elevation_rad: Numbers,
    azimuth_spread_rad: float,
    elevation_spread_rad: float = 0.0,
    spectrum: str = "uniform",
) -> Complex[Array, "*batch element node"]:
    """Factor ``B`` of ``one_ring_correlation``, ``R = B B^H``: a column a node, far fewer than elements when spreads are small.

    Arguments, range and errors as ``one_ring_correlation``.
    """
    position = np.asarray(position_m, float)
    wavenumber = _TURN * frequency_hz / LIGHT_MPS
    extent = wavenumber * float(np.linalg.norm(np.ptp(position, axis=0)))
    azimuth, elevation, weight = one_ring_nodes(extent, azimuth_spread_rad, elevation_spread_rad, spectrum)
    az = np.asarray(azimuth_rad, float)[..., None] + azimuth
    el = np.asarray(elevation_rad, float)[..., None] + elevation
    u = np.stack(np.broadcast_arrays(np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)), axis=-2)
    return np.asarray(cis(wavenumber * (position @ u)) * np.sqrt(weight / len(position)))


def one_ring_nodes(
    extent_rad: float, azimuth_spread_rad: float, elevation_spread_rad: float = 0.0, spectrum: str = "uniform"
) -> tuple[Float[Array, " node"], Float[Array, " node"], Float[Array, " node"]]:
    """Quadrature of a power-angle spectrum: offsets in azimuth and elevation (rad) from the mean, and weights that sum to 1.

    Args:
        extent_rad: largest distance between two elements, in radians of carrier phase (``2 pi D / lambda``).
        azimuth_spread_rad: as in ``one_ring_correlation``.
        elevation_spread_rad: likewise.
        spectrum: likewise.

    Gauss-Legendre for "uniform", the trapezoid rule for the others, each with the nodes that the bound on its error asks for:
    some ``extent * spread / 2`` for the first, the same or twice that for the others, and a margin for 14 digits. (24
    Gauss-Legendre nodes, enough for eight elements, fail for 64 elements and 20 degrees.)

    Raises:
        Misuse: a spread is out of range, or the spectrum is not known.
    """
    if spectrum not in _SPECTRA:
        raise Misuse(f"spectrum = {spectrum!r}: must be one of {', '.join(_SPECTRA)}")
    limit_rad = _RING_LIMIT_RAD if spectrum == "ring" else np.pi
    if not 0 <= azimuth_spread_rad <= limit_rad:
        raise Misuse(f"azimuth_spread_rad = {azimuth_spread_rad!r}: must lie in [0, {limit_rad:.4g}]; it is in radians")
    if not 0 <= elevation_spread_rad <= np.pi / 2:
        raise Misuse(f"elevation_spread_rad = {elevation_spread_rad!r}: must lie in [0, pi/2]; it is in radians")
    if not extent_rad >= 0:
        raise Misuse(f"extent_rad = {extent_rad!r}: must be >= 0")
    azimuth, wa = _SPECTRA[spectrum](extent_rad, azimuth_spread_rad)
    elevation, we = _SPECTRA["uniform" if spectrum == "ring" else spectrum](extent_rad, elevation_spread_rad)
    az, el = np.meshgrid(azimuth, elevation, indexing="ij")
    return az.ravel(), el.ravel(), np.outer(wa, we).ravel()


def _uniform(extent: float, spread: float) -> tuple[Array, Array]:
    if spread == 0:
        return np.zeros(1), np.ones(1)
    # on the Bernstein ellipse of half height b the error falls as exp(extent sinh(spread b) - 2 n asinh b)
    with np.errstate(over="ignore"):
        nodes = np.min((extent * np.sinh(spread * _HEIGHT) + _DIGITS) / (2 * np.arcsinh(_HEIGHT)))
    x, w = _legendre(ceil(nodes) + 1)
    return spread * x, w / 2


@lru_cache(maxsize=64)
def _legendre(nodes: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(nodes)


def _gaussian(extent: float, spread: float) -> tuple[Array, Array]:
    if spread == 0:
        return np.zeros(1), np.ones(1)
    # in the strip of half height b the error falls as exp(extent sinh(spread b) + b^2 / 2 - 2 pi b / step)
    with np.errstate(over="ignore"):
        density = np.min((extent * np.sinh(spread * _HEIGHT) + _HEIGHT**2 / 2 + _DIGITS) / _HEIGHT) / _TURN
    half = ceil(8.3 * density)
    x = np.arange(-half, half + 1) * (8.3 / half)
    w = np.exp(-(x**2) / 2)
    return spread * x, w / w.sum()


def _ring(extent: float, spread: float) -> tuple[Array, Array]:
    if spread == 0:
        return np.zeros(1), np.ones(1)
    # in the strip of half height b < -log(sin(spread)) the error falls as exp(extent sinh(swing of the angle) - n b)
    s = np.sin(spread)
    b = -np.log(s) * np.linspace(0.002, 0.998, 499)
    swing = (
        np.log(np.maximum((1 + s * np.exp(-b)) / (1 - s * np.exp(b)), (1 + s * np.exp(b)) / (1 - s * np.exp(-b)))) / 2
    )
    nodes = ceil(np.min((extent * np.sinh(swing) + _DIGITS) / b))
    around = _TURN * (np.arange(nodes) + 0.5) / nodes
    return np.arctan2(s * np.sin(around), 1 + s * np.cos(around)), np.full(nodes, 1 / nodes)


_SPECTRA = {"uniform": _uniform, "gaussian": _gaussian, "ring": _ring}


def jakes(doppler_hz: Numbers, lag_s: Numbers) -> Float[Array, ...]:
    """Correlation of a gain with itself ``lag_s`` later, ``J0(2 pi f_d tau)``, f_d the largest Doppler shift; broadcasts.

    Scatterers all round, as many in every direction, in the plane of the velocity.

    Source: Clarke, Bell Syst. Tech. J. 47 (1968) 957; papers/004, eq 4.
    """
    from scipy.special import j0

    return np.asarray(j0(_TURN * np.asarray(doppler_hz, float) * lag_s))


def one_ring_rays(
    draws: Draws,
    entity: Int[Array, " user"],
    offset_m: Float[Array, "user 3"],
    velocity_mps: Float[Array, "user 3"],
    spread_rad: float,
    rays: int,
    frequency_hz: float,
    *,
    stream: str = "one ring",
    epoch: int = 0,
) -> Rays:
    """Rays over a ring of scatterers about each user that stand still while the user moves through their field.

    Ray i meets its scatterer in the direction ``e_i = (cos b_i, sin b_i, 0)`` from the user, at a ring of radius
    ``sin(spread)`` times the horizontal range, so that the array sees the ring under ``+- spread`` in the plane. One ``b_i`` falls
    anywhere in each of ``rays`` equal arcs. With wavenumber k, offset x and velocity v,
    ``phase_i = phi_i + k e_i . x`` and ``doppler_i = (f / c) e_i . v``:
    the phase follows the user's place, so it runs on without a jump from one call to the next along any path.

    The sum of gains of equal power has, over users, the correlation ``jakes(f |v| / c, tau)`` in time for a horizontal velocity
    and any number of rays, and the spectrum "ring" in space; it tends to a complex Gaussian as rays grow.

    Args:
        draws: chance; keyed by ``entity`` and ``epoch`` only, so other users change nothing.
        entity: the users' numbers.
        offset_m: from the array's phase centre to the user; axes of the world, z up (the ring is horizontal).
        velocity_mps: of the user, same axes.
        spread_rad: half angle of the ring, in [0, 1.4].
        rays: number of rays.
        frequency_hz: carrier.
        stream: name of the random stream; another name is another ring.
        epoch: another number is another draw of the same ring; constant over a run by default.

    Left out: scatterers that come and go as the user leaves its ring, height of the scatterers, and their own losses. Delays
    are geometric; the carrier phase they would cause is part of the random ``phi_i``.

    Raises:
        Misuse: the spread or the number of rays is out of range.
    """
    if not 0 <= spread_rad <= _RING_LIMIT_RAD:
        raise Misuse(f"spread_rad = {spread_rad!r}: must lie in [0, {_RING_LIMIT_RAD}]; it is a half angle in radians")
    if not rays >= 1:
        raise Misuse(f"rays = {rays!r}: must be at least 1; leave the diffuse part out by its power instead")
    offset, velocity = np.asarray(offset_m, float), np.asarray(velocity_mps, float)
    entity = np.asarray(entity, dtype=np.int64)
    e, start = _scatterers(draws, stream, entity.tobytes(), entity.shape, epoch, rays)
    radius = np.sin(spread_rad) * np.hypot(offset[..., 0], offset[..., 1])[..., None]
    arrival = radius[..., None] * e
    departure = offset[..., None, :] + arrival
    length = np.sqrt((departure**2).sum(-1)) + radius
    turns = frequency_hz / LIGHT_MPS
    phase = start + turns * (e * offset[..., None, :]).sum(-1)
    return Rays(
        departure_m=departure,
        arrival_m=arrival,
        delay_s=length / LIGHT_MPS,
        doppler_hz=turns * (e * velocity[..., None, :]).sum(-1),
        phase_rad=_TURN * (phase - np.floor(phase)),
    )


@lru_cache(maxsize=8)
def _scatterers(
    draws: Draws, stream: str, entity: bytes, shape: tuple[int, ...], epoch: int, rays: int
) -> tuple[Float[Array, "user ray 3"], Float[Array, "user ray"]]:
    """Directions from the users to their scatterers, and the rays' own phases in turns: chance that lasts for a run."""
    chance = draws.uniform(stream, np.frombuffer(entity, np.int64).reshape(shape), epoch, 2 * rays)
    around = _TURN / rays * (np.arange(rays) + chance[..., :rays])
    return np.stack([np.cos(around), np.sin(around), np.zeros_like(around)], axis=-1), chance[..., rays:]


def ray_gain(
    doppler_hz: Float[Array, "*user ray"], phase_rad: Float[Array, "*user ray"], elapsed_ns: Int[Array, " time"]
) -> Complex[Array, "time *user ray"]:
    """Gains of rays of equal power, ``exp(j (phase + 2 pi doppler t)) / sqrt(rays)``: their powers sum to 1 at every time.

    ``elapsed_ns`` counts from the instant of ``phase_rad``. Each gain is worked out from its own time alone, so any split of
    the time axis gives the same bits.
    """
    t_s = np.asarray(elapsed_ns)[(..., *(None,) * np.ndim(doppler_hz))] * 1e-9
    turns = doppler_hz * t_s
    return np.asarray(cis(phase_rad + _TURN * (turns - np.rint(turns))) / np.sqrt(np.shape(doppler_hz)[-1]))
