"""The rate a user with a demodulation pilot has, by drawn channels: for any mix of users with pilots and users served by sensing alone."""

from __future__ import annotations

import numpy as np

from hal.record import Array, Bool, Complex, Float, record
from twin.physics.correlation import one_ring_factor
from twin.physics.dual_scale import angle_slope, believed_covariance, mmse_covariance, mmse_filter, steering_column
from twin.physics.sinr import mrt, rzf, users_sinr
from twin.planning._search import Case

__all__ = ["Sample", "Scene", "case_of", "ergodic_bits", "sampled"]

AGES = 8  # blocks after an update at which channels are drawn; between them rates are interpolated
HOURS = (0.1127016654, 0.5, 0.8872983346)  # Gauss-Legendre points of a subframe, for users that move across the beam
SHARES = (5 / 18, 8 / 18, 5 / 18)


@record
class Scene:
    """Where users are believed to be, and what surrounds them: what a ``Case`` leaves out because the closed forms need it not."""

    position_m: Float[Array, "element 3"]  # elements about the phase centre, array frame
    frequency_hz: float
    azimuth_rad: Float[Array, " user"]  # believed, array frame
    azimuth_spread_rad: float  # of the ring
    elevation_rad: float | Float[Array, " user"] = 0.0
    spectrum: str = "uniform"
    drift_radps: float | Float[Array, " user"] = 0.0  # azimuth rate of each user


@record
class Sample:
    """Chance, once for all candidates of a comparison."""

    angle: Float[Array, "draw user"]  # standard normal
    gain: Complex[
        Array, "update draw user node"
    ]  # of the ring's nodes; update 0 is the one the data follow, 1 the one before, ...
    change: Complex[Array, "draw user node"]  # what ageing brings in
    noise: Complex[Array, "update draw user element"]


def case_of(scene: Scene, *, reference: str = "element", **rest: object) -> Case:
    """The ``Case`` of a scene: its factor and slope worked out, all other fields as given.

    Args:
        scene: positions, angles and spread.
        reference: of the phase, as in ``angle_slope``.
        rest: the remaining fields of ``Case``.

    Raises:
        Misuse: a spread that is negative or too wide, or an unknown spectrum.
    """
    elevation = np.broadcast_to(np.asarray(scene.elevation_rad, float), scene.azimuth_rad.shape)
    where = (scene.position_m, scene.frequency_hz, scene.azimuth_rad, elevation)
    return Case(
        factor=one_ring_factor(*where, scene.azimuth_spread_rad, spectrum=scene.spectrum),
        slope=angle_slope(*where, reference=reference),
        **rest,  # type: ignore[arg-type]
    )


def sampled(case: Case, draws: int, seed: int, updates: int = 1) -> Sample:
    """A sample for the users of a case; ``updates`` more than one only for estimates with memory."""
    users, elements, nodes = case.factor.shape
    rng = np.random.default_rng(seed)

    def circular(*shape: int) -> Array:
        return np.asarray((rng.standard_normal((*shape, 2)) @ np.array([1, 1j])) / np.sqrt(2))

    return Sample(
        angle=rng.standard_normal((draws, users)),
        change=circular(draws, users, nodes),
        gain=circular(updates, draws, users, nodes),
        noise=circular(updates, draws, users, elements),
    )


def ergodic_bits(
    scene: Scene,
    case: Case,
    sample: Sample,
    sensing_s: float,
    pilots: Bool[Array, " user"] | None,
    *,
    follow: bool = True,
    gap_blocks: float | None = None,
    unit: bool = False,
) -> Float[Array, "user block"]:
    """Mean bit/s/Hz of each user in each block after an update: ``E log2(1 + SINR)``, the effective channel known at the user.

    Args:
        scene: what the base station believes.
        case: the instance; its ``rho`` ages the channels.
        sample: chance.
        sensing_s: T_l: true angles are drawn about the believed ones with variance crb / T_l.
        pilots: which users send pilots. Beams are ``rzf`` from aged estimates, from angle and spread alone for users without. None: the paper's,
            maximum ratio for all, from its R-hat.
        follow: whether beams follow the users' angular rate from block to block; if not they stay where they were at the subframe's start.
        unit: maximum ratio beams of unit norm each time, as a transmitter of constant power has them, instead of on average (eq 21).
        gap_blocks: blocks between updates, for estimates that remember the updates before (as many as the sample holds); None: each for itself.

    Pilots cross the true channel; the filter knows the believed angle only. Ages are drawn at ``AGES`` points and interpolated. Left out: errors of the
    users' own channel knowledge, and the change of R between two sensing phases but for the users' angular rate.
    """
    drift = np.broadcast_to(np.asarray(scene.drift_radps, float), scene.azimuth_rad.shape)
    if follow or not np.any(drift):
        return _bits_at(scene, case, sample, sensing_s, pilots, np.zeros_like(drift), gap_blocks, unit)
    length_s = case.blocks * case.block_s
    return np.asarray(
        sum(
            share * _bits_at(scene, case, sample, sensing_s, pilots, drift * hour * length_s, gap_blocks, unit)
            for hour, share in zip(HOURS, SHARES, strict=True)
        )
    )


def _bits_at(
    scene: Scene,
    case: Case,
    sample: Sample,
    sensing_s: float,
    pilots: Bool[Array, " user"] | None,
    moved_rad: Float[Array, " user"],
    gap_blocks: float | None,
    unit: bool,
) -> Float[Array, "user block"]:
    crb = case.crb_s_rad2 / max(sensing_s, 1e-12)
    elevation = np.broadcast_to(np.asarray(scene.elevation_rad, float), scene.azimuth_rad.shape)
    true_rad = scene.azimuth_rad + moved_rad + np.sqrt(crb) * sample.angle
    ring = (
        one_ring_factor(
            scene.position_m,
            scene.frequency_hz,
            true_rad,
            np.broadcast_to(elevation, true_rad.shape),
            scene.azimuth_spread_rad,
            spectrum=scene.spectrum,
        )
        * np.sqrt(case.gain)[:, None, None]
    )
    paper = pilots is None
    now, estimate, known, prior = _estimated(case, sample, ring, crb, paper, gap_blocks)
    fresh = _drawn(ring, sample.change)
    blind = pilots is not None and not np.any(pilots)
    ages = np.unique(np.rint(np.geomspace(1, case.blocks, AGES)).astype(int))[: 1 if blind else None] - 1
    towards = steering_column(scene.position_m, scene.frequency_hz, scene.azimuth_rad, elevation)
    beam = mrt(estimate, None if unit else np.trace(known, axis1=1, axis2=2).real)
    found = np.empty((len(ages), len(case.gain)))
    for i, age in enumerate(ages):
        rho = np.asarray(case.rho)[:, age, None]
        if pilots is not None:
            heard = np.where(pilots, rho[:, 0], 0.0)
            direction = np.where(pilots[:, None], estimate, towards)
            unknown = prior - heard[:, None, None] ** 2 * known
            beam = rzf(direction, heard[:, None] * estimate, unknown, case.power_w, case.noise_w)
        channel = rho * now + np.sqrt(np.maximum(1 - rho**2, 0)) * fresh
        found[i] = np.mean(np.log2(1 + users_sinr(channel, beam, case.power_w, case.noise_w)), axis=0)
    return np.stack([np.interp(np.arange(case.blocks), ages, column) for column in found.T])


def _drawn(
    ring: Complex[Array, "draw user element node"], white: Complex[Array, "draw user node"]
) -> Complex[Array, "draw user element"]:
    return np.asarray((ring @ white[..., None])[..., 0])


def _estimated(
    case: Case,
    sample: Sample,
    ring: Complex[Array, "draw user element node"],
    crb: Float[Array, " user"],
    paper: bool,
    gap_blocks: float | None,
) -> tuple[Array, Array, Array, Array]:
    """Channel at the last update, its estimate, the covariance of the estimate and of all that is believed before pilots."""
    correlation = case.factor @ np.conj(np.swapaxes(case.factor, 1, 2))
    if paper:
        prior = believed_covariance(correlation, case.slope, case.gain, crb, case.guard)
    else:  # an uncertain angle widens what is believed; counted from the array's centre, where it turns no common phase
        column = case.factor.mean(axis=2)
        along = np.sum(np.conj(column) * case.slope, axis=1) / np.maximum(np.sum(np.abs(column) ** 2, axis=1), 1e-300)
        prior = believed_covariance(correlation, case.slope - along[:, None] * column, case.gain, crb, "wide")
    size = np.sqrt(1 / case.pilot_snr)[:, None]
    if gap_blocks is None or len(sample.gain) == 1:
        now = _drawn(ring, sample.gain[0])
        take = mmse_filter(prior, case.pilot_snr)
        return (
            now,
            np.einsum("kab,dkb->dka", take, now + size * sample.noise[0]),
            mmse_covariance(prior, case.pilot_snr),
            prior,
        )
    kept = (np.asarray(case.rho)[:, 1] / np.asarray(case.rho)[:, 0]) ** gap_blocks
    keep, error = kept[:, None], prior
    now = estimate = np.zeros(sample.noise.shape[1:], complex)
    for step in range(len(sample.gain) - 1, -1, -1):
        drawn = _drawn(ring, sample.gain[step])
        first = step == len(sample.gain) - 1
        now = drawn if first else keep * now + np.sqrt(1 - keep**2) * drawn
        estimate = keep * estimate
        error = prior if first else keep[..., None] ** 2 * error + (1 - keep[..., None] ** 2) * prior
        take = mmse_filter(error, case.pilot_snr)
        estimate = estimate + np.einsum("kab,dkb->dka", take, now + size * sample.noise[step] - estimate)
        error = error - mmse_covariance(error, case.pilot_snr)
    return now, estimate, prior - error, prior
