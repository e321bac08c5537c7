"""Joint maximum likelihood: direction, delay and Doppler of all targets at once, for any number of transmit streams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np

from hal.check import Ge, Gt, Lt
from hal.record import Array, Complex, Float
from twin.physics.delay_doppler import field_curvature, peak_threshold
from twin.physics.hybrid_echo import Aperture, Estimate, JointFit
from twin.physics.lag_map import LagMap, lag_map, layout, map_at, map_power, summits
from twin.records import Detections, EchoObservation, Tracks
from twin.sensing._dwells import Dwell, detections, dwells, reach

__all__ = ["Joint", "Dwell", "joined", "none_found"]  # noqa: RUF022 - the component comes first


@dataclass(frozen=True)
class Joint:
    """Detector and four-parameter estimator: papers/001 eq (35) climbed by Gauss-Newton from several peaks, instead of searched in three steps.

    1. The folded map of every chain with every effective stream (``lag_map``; the precoder is compressed to its rank) gives the highest peaks in delay
       and Doppler, and at each the directions of the lobe that explain its chains and streams best.
    2. The best starts are climbed in all four parameters (``JointFit``); the most likely wins. With a precoder of rank one direction and
       delay-Doppler do not couple, and one fit does both.
    3. The target is subtracted, the residual searched again, and all found are refined together (Levenberg-Marquardt): cyclic cancellation, and the joint
       maximum for targets closer than a cell. It ends where the residual's peak stays below the threshold that noise alone exceeds
       anywhere in the dwell with ``false_alarm_probability``: the model's order.

    Covariances are the inverse joint information, amplitudes unknown. Needs planar arrays. Left out: range migration, clutter, echoes from beyond the
    prefix. Product-form receive beams are exactly ambiguous outside their main lobe: keep ``lobe_width`` at one for them; with
    an ambiguity-free combiner any width will do.
    """

    false_alarm_probability: Annotated[float, Gt(0), Lt(0.5)] = 1e-3  # a dwell, from noise alone
    max_targets: Annotated[int, Ge(1)] = 4  # a dwell
    min_range_m: Annotated[float, Ge(0)] = 5.0  # echoes nearer are not searched for
    max_range_m: Annotated[float, Gt(0)] = 150.0  # cut to what the cyclic prefix covers
    max_speed_mps: Annotated[float, Gt(0)] = 24.0  # closing or opening
    lobe_width: Annotated[float, Gt(0)] = (
        1.0  # half-width of the searched lobe, in the array's null distances; 100: all ahead
    )
    peaks: Annotated[int, Ge(1)] = 4  # of the map that are looked at
    starts: Annotated[int, Ge(1)] = 4  # that are climbed, where the map leaves a doubt
    misfit_probability: Annotated[float, Gt(0), Lt(1)] = 1e-4  # of turning away an echo that does fit one direction
    misfit_db: float = -25.0  # part of an echo's power that may fail to fit: beams are not quite what they said

    def detect(self, observation: EchoObservation, tracks: Tracks) -> Detections:
        """Detections of all dwells, dwell by dwell, strongest first. ``tracks`` are not used.

        Raises Misuse for events that are not whole dwells, samples that are not finite, arrays without a grid, and for a search rectangle
        that prefix or Doppler grid does not hold.
        """
        if observation.echo is None or observation.drive is None or observation.drive.samples is None:
            return none_found() if observation.detections is None else observation.detections
        found = [self.detect_dwell(dwell) for dwell in dwells(observation, self.lobe_width)]
        return joined(found) if found else none_found()

    def estimate(self, dwell: Dwell) -> tuple[JointFit, Estimate, float] | None:
        """All targets of one dwell, and the noise power judged by; None where there is nothing."""
        span, doppler = reach(dwell.numerology, self.min_range_m, self.max_range_m, self.max_speed_mps)
        grid = layout(dwell.start, dwell.sent.shape[2], span, doppler)
        rows, streams = len(dwell.data), len(dwell.sent)
        slope = field_curvature(dwell.sent.shape[2], dwell.numerology.roll_off, tuple(dwell.start.tolist()))
        sides = (slope[0] * (span[1] - span[0]), slope[1] * 2 * doppler)
        level = peak_threshold(self.false_alarm_probability, rows * streams, sides)
        work = self._started(dwell)
        found: Estimate | None = None
        noise_w = dwell.noise_w
        while len(work.delay) < self.max_targets:
            data = work.residual(found)
            before = work.cosine, work.delay, work.doppler
            starts = self._starts(dwell, grid, data, 0.6 * level * noise_w)
            best: Estimate | None = None
            for cosine, delay, shift in starts:
                if best is not None:
                    work.put(*before)
                work.add(cosine, delay, shift)
                tried = work.fit(noise_w)
                if best is None or tried.explained > best.explained:
                    best = tried
            if best is None:
                break
            if tried is not best:
                work.put(best.cosine, best.delay, best.doppler)
            free = dwell.data.size - 2 * rows
            noise = max(dwell.noise_w, (work.energy - best.explained) / free)
            present = work.presence()
            inside = (work.delay >= span[0]) & (work.delay <= span[1]) & (np.abs(work.doppler) <= doppler)
            if not np.all((present > level * noise) & inside):
                work.put(*before)
                break
            found, noise_w = best, noise
        return None if found is None else (work, found, noise_w)

    def _started(self, dwell: Dwell) -> JointFit:
        roll_off = dwell.numerology.roll_off
        return JointFit(dwell.data, dwell.sent, dwell.start, roll_off, dwell.aperture, self.max_targets)

    def _starts(
        self, dwell: Dwell, grid: LagMap, data: Complex[Array, "row frame sample"], floor: float
    ) -> list[tuple[Array, float, float]]:
        """Where to climb from, most promising first: (cosine, delay, Doppler)."""
        roll_off = dwell.numerology.roll_off
        field = lag_map(grid, data, dwell.sent)
        power = map_power(field, roll_off)
        seen: list[tuple[float, Array, float, float]] = []
        for column, bin in summits(power, max(floor, 0.3 * float(power.max())), self.peaks):
            at = map_at(field, column, bin, roll_off)
            for worth, cosine in _directions(dwell.aperture, at, dwell.sent, self.starts):
                seen.append((worth, cosine, grid.delay[column], grid.doppler[bin]))
        seen.sort(key=lambda one: -one[0])
        return [one[1:] for one in seen[: self.starts] if one[0] > 0.5 * seen[0][0]]

    def detect_dwell(self, dwell: Dwell) -> Detections:
        """Detections of one dwell, strongest first."""
        result = self.estimate(dwell)
        if result is None:
            return none_found()
        work, found, noise_w = result
        covariance = _blocks(found.information / noise_w)
        freedom = max(2 * work.rows * work.streams - 4, 0)
        rest = 2 * np.maximum(work.presence() - found.power, 0.0) / noise_w
        allowed = (
            _chi_square(1 - self.misfit_probability, freedom) + 2 * 10 ** (self.misfit_db / 10) * found.power / noise_w
        )
        lobe = dwell.aperture.lobe
        inside = np.all(np.abs(found.cosine - lobe.centre) < 0.98 * lobe.width, axis=1)
        excess = rest / max(freedom, 1)
        covariance[:, :2, :2] *= np.where(excess > 5.0, excess, 1.0)[:, None, None]
        everything = detections(dwell, found, noise_w, covariance)
        kept = ((rest <= allowed) & inside)[np.argsort(-found.power, kind="stable")]
        return replace(everything, **{name: getattr(everything, name)[kept] for name in _COLUMNS})


_CLOSE = (
    0.75  # a third of a null apart, a grid point keeps four fifths of a peak between points: a lower one cannot win
)
_COLUMNS = ("t_ns", "dwell", "value", "covariance", "snr_db")


def _directions(
    aperture: Aperture, at: Complex[Array, "row stream"], sent: Complex[Array, "stream frame sample"], limit: int
) -> list[tuple[float, Array]]:
    """Local maxima over the lobe's grid of ``|b^H Z c*|^2 / (|b|^2 c^H c)``, best first, and their places."""
    lobe = aperture.lobe
    if len(sent) == 1:
        score = np.abs(lobe.manifold.conj().T @ at[:, 0]) ** 2
    else:
        c = aperture.streams * np.sqrt(np.sum(np.abs(sent) ** 2, axis=(1, 2)))[:, None]
        said = np.einsum("rp,rs,sp->p", lobe.manifold.conj(), at, c.conj(), optimize=True)
        score = np.abs(said) ** 2 / np.maximum(np.sum(np.abs(c) ** 2, axis=0), 1e-300)
    out: list[tuple[float, Array]] = []
    while len(out) < limit:
        best = int(np.argmax(score))
        if not score[best] > 0 or (out and score[best] < _CLOSE * out[0][0]):
            break
        out.append((float(score[best]), lobe.cosine[best]))
        score = np.where(np.all(np.abs(lobe.cosine - lobe.cosine[best]) < 0.7 * aperture.null, axis=1), -1.0, score)
    return out


def _blocks(information: Float[Array, "parameter parameter"]) -> Float[Array, "target 4 4"]:
    """Each target's own block of the inverse."""
    scale = 1 / np.sqrt(np.maximum(np.diag(information), 1e-300))
    whole = np.linalg.inv(information * np.outer(scale, scale) + 1e-12 * np.eye(len(scale))) * np.outer(scale, scale)
    own = 4 * np.arange(len(scale) // 4)[:, None] + np.arange(4)
    return whole[own[:, :, None], own[:, None, :]]  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def _chi_square(probability: float, freedom: int) -> float:
    from scipy.special import gammaincinv

    return float(2 * gammaincinv(freedom / 2, probability)) if freedom else 0.0


def none_found() -> Detections:
    """No detection."""
    empty = np.empty(0)
    return Detections(
        t_ns=np.empty(0, np.int64),
        dwell=np.empty(0, np.int64),
        value=empty.reshape(0, 4),
        covariance=empty.reshape(0, 4, 4),
        snr_db=empty,
    )


def joined(parts: list[Detections]) -> Detections:
    """Detections of several dwells, in order."""
    return Detections(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in _COLUMNS})
