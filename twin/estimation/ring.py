"""Pilots to whole channel vectors: linear MMSE from the correlation matrix that a tracked angle and a believed ring imply (papers/004, eq 15)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from hal.array import half_power_beamwidth, steering
from hal.check import Ge, Gt, In, Le
from hal.record import Array, Complex, Float, record
from twin.estimation._pilots import Ears, Heard, ears_of
from twin.estimation.mmse import Mmse
from twin.physics.aging import rho_of_speed
from twin.physics.correlation import one_ring_correlation
from twin.physics.dual_scale import angle_slope, believed_covariance
from twin.records import ChannelEstimate, PilotObservation, Tracks

__all__ = ["Ring", "Vectors"]


@record
class Vectors:
    """Channels at the receive array's elements after each update of a subframe: row m rests on pilots ``0 .. m``."""

    estimate: Complex[Array, "update user subcarrier element"]
    error: Complex[
        Array, "update user element element"
    ]  # covariance of what is not known, the same on every subcarrier
    prior: Complex[Array, "user element element"]  # R-hat, gain included: what is believed without any pilot
    surprise: Float[
        Array, " user"
    ]  # mean normalised squared innovation; 1 when the belief is right, NaN without pilots


@dataclass(frozen=True)
class Ring(Mmse):
    """Linear MMSE of the whole vector, ``h~ = R-hat W (W^H R-hat W + I / gamma)^-1 y``, about each user's tracked angle.

    R-hat is the one-ring correlation at the believed angle times the running mean power, and what the angle's own variance does to it
    (``believed_covariance``). With ``memory`` each update starts from the posterior of the one before, aged by the tracked speed:
    ``m = rho m``, ``S = rho^2 E + (1 - rho^2) R-hat``; of a user without a track nothing is kept. Fits line and planar arrays, digital
    receivers and hybrid ones with enough chains. Pilots' own angles come from a scan over everything in front.
    Left out: bending of R over the band (it is that at the carrier).

    Source: papers/004, eqs 13-15.
    """

    angle_floor: Annotated[float, Ge(0)] = 0.01  # of a ring seen through a few drawn rays, one sigma
    spread_rad: Annotated[float, In("deg"), Ge(0), Le(60)] = np.deg2rad(1.0)  # half angle of the ring, as believed
    # R-hat as papers/004 has it, cut to a covariance, or widened by what is not known of the angle
    guard: Literal["clip", "wide"] = "wide"
    memory: bool = False
    widest: Annotated[float, Gt(0), Le(1)] = 0.1  # deviation of a cosine that R-hat is widened by, at most

    def estimate(self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate) -> ChannelEstimate:
        """As ``Mmse.estimate``, with the whole vector, its error and the pilots' surprise beside it. Raises Misuse for pilots that are not finite."""
        found = super().estimate(pilots, tracks, previous)
        vectors = self.vectors(pilots, tracks, previous, found)
        return replace(found, vector=vectors.estimate[-1], vector_error=vectors.error[-1], surprise=vectors.surprise)

    def vectors(
        self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate, found: ChannelEstimate
    ) -> Vectors:
        """The vectors after each update, causal.

        ``found`` says along which directions; of it counts only what this subframe's pilots have no part in, but for newcomers.
        """
        users, updates = len(pilots.user), len(pilots.update_ns)
        array, subcarriers = pilots.spec.receive.array, len(pilots.numerology.subcarrier_hz)
        elements = len(array.position_m)
        prior = self._prior(pilots, tracks, previous, found)
        ears = ears_of(pilots)
        noise = pilots.noise_w / (pilots.numerology.pilot_power_w / subcarriers)
        estimate, error, last_ns, speed = self._past(pilots, tracks, previous, prior)
        estimates, errors = (
            np.zeros((updates, users, subcarriers, elements), np.complex128),
            np.zeros((updates, users, elements, elements), np.complex128),
        )
        surprise, heard = np.zeros(users), np.zeros(users)
        unit = np.eye(ears.pilot.shape[2])
        for m, t_ns in enumerate(pilots.update_ns):
            lag_s = max(int(t_ns) - last_ns, 0) * 1e-9
            kept = np.where(np.isfinite(speed), rho_of_speed(np.nan_to_num(speed), pilots.spec.carrier_hz, lag_s), 0.0)
            kept = kept if self.memory else np.zeros(users)
            estimate = kept[:, None, None] * estimate
            error = kept[:, None, None] ** 2 * error + (1 - kept[:, None, None] ** 2) * prior
            row = ears.index[m]
            on = np.flatnonzero(row >= 0)
            if on.size:
                heard_by = ears.held[row[on], ears.held.shape[1] // 2]  # [user element chain]; y = heard_by^T h
                pilot = ears.pilot[m, on] / np.sqrt(
                    pilots.numerology.pilot_power_w / subcarriers
                )  # [user chain subcarrier]
                cross = error[on] @ heard_by.conj()
                covariance = np.swapaxes(heard_by, 1, 2) @ cross + noise * unit
                gap = pilot - np.swapaxes(heard_by, 1, 2) @ np.swapaxes(estimate[on], 1, 2)
                solved = np.linalg.solve(covariance, gap)
                gain = np.conj(np.swapaxes(np.linalg.solve(covariance, np.conj(np.swapaxes(cross, 1, 2))), 1, 2))
                estimate[on] += np.swapaxes(cross @ solved, 1, 2)
                error[on] -= gain @ np.conj(np.swapaxes(cross, 1, 2))
                error[on] = (error[on] + np.conj(np.swapaxes(error[on], 1, 2))) / 2
                surprise[on] += np.sum((gap.conj() * solved).real, axis=(1, 2)) / gap[0].size
                heard[on] += 1
            estimates[m], errors[m], last_ns = estimate, error, int(t_ns)
        return Vectors(
            estimate=estimates,
            error=errors,
            prior=prior,
            surprise=np.divide(surprise, heard, out=np.full(users, np.nan), where=heard > 0),
        )

    def _prior(
        self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate, found: ChannelEstimate
    ) -> Complex[Array, "user element element"]:
        array, carrier_hz = pilots.spec.receive.array, pilots.spec.carrier_hz
        direction, spread = found.direction.copy(), found.direction_covariance[:, 0, 0].copy()
        power = np.zeros(len(direction)) if found.power is None else found.power.copy()
        same = found.user[:, None] == previous.user[None, :]
        met = np.flatnonzero(same.any(axis=1))
        row = same[met].argmax(axis=1) if met.size else met
        if previous.power is not None:
            power[met] = np.where(previous.power[row] > 0, previous.power[row], power[met])
        free = ~np.isin(found.user[met], tracks.user)
        direction[met[free]] = previous.direction[row[free]]
        spread[met[free]] = previous.direction_covariance[row[free], 0, 0]
        azimuth = np.arctan2(direction[:, 1], direction[:, 0])
        elevation = np.arcsin(np.clip(direction[:, 2], -1, 1))
        where = (array.position_m, carrier_hz, azimuth, elevation)
        variance = np.minimum(spread, self.widest**2) / np.maximum(direction[:, 0], 0.1) ** 2
        slope = angle_slope(*where, reference="element" if self.guard == "clip" else "centre")
        gain = np.maximum(power, 1e-30) * len(array.position_m)
        return believed_covariance(one_ring_correlation(*where, self.spread_rad), slope, gain, variance, self.guard)

    def _past(
        self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate, prior: Array
    ) -> tuple[Array, Array, int, Float[Array, " user"]]:
        """Estimate, error and time of the last update of the subframe before, and the tracked speeds (NaN: no track)."""
        users, subcarriers = len(pilots.user), len(pilots.numerology.subcarrier_hz)
        estimate = np.zeros((users, subcarriers, prior.shape[-1]), np.complex128)
        error, speed = prior.copy(), np.full(users, np.nan)
        user = np.asarray(pilots.user)
        same = user[:, None] == tracks.user[None, :]
        bound = np.flatnonzero(same.any(axis=1))
        if len(bound):
            velocity = tracks.state[same[bound].argmax(axis=1), 3:]
            speed[bound] = np.sqrt(np.sum(velocity**2, axis=1))
        same = user[:, None] == previous.user[None, :]
        known = np.flatnonzero(same.any(axis=1))
        if len(known) and previous.vector is not None and previous.vector_error is not None:
            row = same[known].argmax(axis=1)
            estimate[known], error[known] = previous.vector[row], previous.vector_error[row]
        return estimate, error, previous.t_ns, speed

    def _found(self, pilots: PilotObservation, ears: Ears) -> Heard:
        """Each user's direction where a scan over all in front finds most of its pilots' energy; cosines the array cannot tell stay unknown."""
        array, users = pilots.spec.receive.array, len(pilots.user)
        width = np.array(half_power_beamwidth(array, pilots.spec.carrier_hz))
        axes = [np.zeros(1) if w >= 2 else np.arange(-0.98, 0.981, w / 8) for w in width]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        grid = grid[np.sum(grid**2, axis=1) < 1]
        direction = np.column_stack([np.sqrt(1 - np.sum(grid**2, axis=1)), grid])
        held = ears.held[:, ears.held.shape[1] // 2]
        towards = steering(array, direction, pilots.spec.carrier_hz)
        b = np.einsum("ge,nec->ngc", towards, held)
        size = np.sum(np.abs(b) ** 2, axis=-1)
        heard = ears.index >= 0
        noise = pilots.noise_w
        cosines, covariance = np.zeros((users, 2)), np.broadcast_to(np.eye(2) / 3, (users, 2, 2)).copy()
        located = np.zeros(users, bool)
        for user in range(users):
            use = np.flatnonzero(heard[:, user])
            y = ears.pilot[use, user]  # [update chain subcarrier]
            energy = float(np.sum(np.abs(y) ** 2))
            excess = energy - noise * y.size
            heard[use, user] = excess > 6 * noise * np.sqrt(y.size)
            if not (use.size and excess > 6 * noise * np.sqrt(y.size)):
                continue
            row = ears.index[use, user]
            match = np.abs(np.einsum("ugc,ucm->ugm", b[row].conj(), y)) ** 2
            score = np.sum(np.sum(match, axis=2) / np.maximum(size[row], 1e-30), axis=0)
            best = int(score.argmax())
            explained = float(score[best]) - noise * len(use) * y.shape[2]
            cosines[user] = grid[best]
            snr = excess / noise
            told = width < 2
            fine = self.angle_floor**2 + width**2 / snr + (width / 8) ** 2 / 12
            covariance[user] = np.diag(np.where(told, fine, 1 / 3))
            located[user] = explained > self.fit * excess
        return Heard(heard=heard, located=located, astray=np.zeros(users, bool), cosines=cosines, covariance=covariance)
