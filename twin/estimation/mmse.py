"""Pilots to a channel of one direction a user: the direction from its track or from its pilots' angle, the gain by linear MMSE along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.array import element_amplitude, half_power_beamwidth, steering, to_array_frame, to_world_frame
from hal.check import Ge, Gt, Lt, positive
from hal.frontend import FrontendSpec
from hal.planar import nodes_of, planar_gains
from hal.record import Array, Complex, Float, Int
from twin.estimation._kernels import carry, follow, fuse
from twin.estimation._pilots import Ears, Heard, ears_of, hear, hear_with, patterns, unit
from twin.physics import motion
from twin.records import ChannelEstimate, PilotObservation, Tracks

__all__ = ["Heard", "Mmse", "hear"]

SIDE_LOBE = 0.1  # of the loudest row's power towards a user: what hears it fainter says nothing of its gain


@dataclass(frozen=True)
class Mmse:
    """Rank-one estimation: ``h[m] = gain[m] a(u, f_m)``, the scattered part outside the direction ``u`` left out.

    Fits users whose line of sight, or a narrow ring about it, carries the power; with a ring as wide as the beam it keeps what the beam sees.
    """

    false_alarm: Annotated[float, Gt(0), Lt(1)] = 1e-3  # that a silent user is heard in a subframe, at most
    # share of a pilot's energy that its best direction must explain, else it is no direction
    fit: Annotated[float, Gt(0), Lt(1)] = 0.6
    angle_floor: Annotated[float, Ge(0)] = 5e-4  # model error of a pilot's direction cosine, one sigma
    # motion of the direction cosines: first rate, and white-noise acceleration that lasts about ``hold``
    angular_rate_hz: Annotated[float, Gt(0)] = 0.4  # one sigma, 1/s
    angular_acceleration: Annotated[float, Gt(0)] = 0.5  # one sigma, 1/s^2
    acceleration_hold_s: Annotated[float, Gt(0)] = 0.2
    coherence_s: Annotated[float, Gt(0)] = (
        5e-3  # of the gain beyond a common phase and delay, which are followed by themselves
    )
    power_memory: Annotated[float, Gt(0), Lt(1)] = (
        0.8  # weight of the past in the running mean power at each update that hears well
    )

    def start(self) -> ChannelEstimate:
        """Nothing known of anyone."""
        none = np.zeros(0)
        return ChannelEstimate(
            t_ns=0,
            user=np.zeros(0, dtype=np.int64),
            direction=np.zeros((0, 3)),
            direction_covariance=np.zeros((0, 2, 2)),
            gain=np.zeros((0, 0), dtype=np.complex128),
            gain_variance=np.zeros((0, 0)),
            heard=np.zeros(0, dtype=bool),
            pilot_state=np.zeros((0, 4)),
            pilot_covariance=np.zeros((0, 4, 4)),
            power=none,
        )

    def estimate(self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate) -> ChannelEstimate:
        """The belief at the last update, users in the order of ``pilots.user``, matched to ``previous`` by identity.

        Direction, in the receive array's frame: of the bound track (``tracks.user``) carried to the update, else of the pilots' own angle,
        which a constant-rate Kalman filter of (uy, uz) fuses over time from what ``hear`` finds; boresight with a variance of 1/3 before
        anything was heard. Gain: at each update ``z = b^H y / (|b|^2 sqrt(p))``, ``b = response^T a(u)``, in noise ``N / (|b|^2 p)``, all white;
        the prior is the last gain, aged by ``exp(-dt / coherence_s)`` towards zero mean and the user's running mean power, turned by the common phase and
        delay that match ``z`` best. The gain holds the receive element's amplitude; ``channel`` exchanges it for the transmit element's.
        Raises Misuse for pilots that are not finite.
        """
        t_ns = int(pilots.update_ns[-1]) if len(pilots.update_ns) else pilots.t_ns
        state, covariance, *before = self._remembered(pilots, previous)
        ears = ears_of(pilots)
        found = self._found(pilots, ears)
        middle_ns = int(np.mean(pilots.update_ns)) if len(pilots.update_ns) else t_ns
        width = np.array(half_power_beamwidth(pilots.spec.receive.array, pilots.spec.carrier_hz))
        fuse(
            state,
            covariance,
            found.located,
            found.astray,
            found.cosines,
            found.covariance,
            self.angle_floor**2,
            (width / 4) ** 2,
            self._unknown(),
            2 * self.acceleration_hold_s * self.angular_acceleration**2,
            max((middle_ns - previous.t_ns) * 1e-9, 0.0),
            max((t_ns - middle_ns) * 1e-9, 0.0),
        )
        cosines, spread = _directions(pilots, tracks, t_ns, state, covariance)
        gain, variance, power = self._gains(pilots, ears, cosines, previous.t_ns, *before)
        return ChannelEstimate(
            t_ns=t_ns,
            user=np.asarray(pilots.user),
            direction=unit(cosines),
            direction_covariance=spread,
            gain=gain[-1],
            gain_variance=variance[-1],
            heard=np.asarray(np.any(found.heard, axis=0)),
            pilot_state=state,
            pilot_covariance=covariance,
            power=power,
        )

    def gains(
        self, pilots: PilotObservation, tracks: Tracks, previous: ChannelEstimate
    ) -> tuple[Complex[Array, "update user subcarrier"], Float[Array, "update user subcarrier"]]:
        """Gain and its variance after each update, causal: row i rests on pilots ``0 .. i`` and on directions known before this subframe's pilots."""
        state, covariance, *before = self._remembered(pilots, previous)
        state, covariance = self._carried(state, covariance, (pilots.t_ns - previous.t_ns) * 1e-9)
        cosines, _ = _directions(pilots, tracks, pilots.t_ns, state, covariance)
        gain, variance, _ = self._gains(pilots, ears_of(pilots), cosines, previous.t_ns, *before)
        return gain[1:], variance[1:]

    def channel(self, estimate: ChannelEstimate, pilots: PilotObservation) -> Complex[Array, "user subcarrier element"]:
        """``h[user subcarrier element]`` at the transmit array by reciprocity: a far user receives ``h^T x`` of element signals x.

        The halves' frames may differ in rotation; their phase centres are taken to be one point (the common phase between them is left out).
        """
        outward, exchange = _exchanged(estimate.direction, pilots.spec)
        gain = estimate.gain * exchange[:, None]
        towards = steering(pilots.spec.transmit.array, outward[:, None, :], pilots.numerology.subcarrier_hz[None, :])
        return np.asarray(gain[..., None] * towards)

    def through(
        self,
        estimate: ChannelEstimate,
        pilots: PilotObservation,
        who: Int[Array, " row"],
        response: Complex[Array, "row subcarrier element chain"],
    ) -> Complex[Array, "row subcarrier chain"]:
        """``h^T response``: what users ``who`` would receive of a row each, h as of ``channel``, whose vectors it does without."""
        array, frequency_hz = pilots.spec.transmit.array, pilots.numerology.subcarrier_hz
        if not array.columns:
            return np.asarray((self.channel(estimate, pilots)[who][..., None, :] @ response)[..., 0, :])
        outward, exchange = _exchanged(estimate.direction[who], pilots.spec)
        nodes = nodes_of(array, frequency_hz, False)
        grid = nodes.wave, nodes.spread, nodes.column_m, nodes.row_m, nodes.columns, nodes.rows
        pattern = planar_gains(outward, 1.0, 0.0, *grid, response, np.eye(len(who), dtype=np.bool_))
        each = np.arange(len(who))
        return np.asarray((estimate.gain[who] * exchange[:, None])[..., None] * pattern[each, each])

    def _found(self, pilots: PilotObservation, ears: Ears) -> Heard:
        """Who is heard in a subframe, and from where, by its pilots alone."""
        return hear_with(pilots, ears, self.false_alarm, self.fit)

    def _remembered(
        self, pilots: PilotObservation, previous: ChannelEstimate
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Pilot state and covariance, gain, its variance and the mean power of each user; priors for those not met before."""
        users, subcarriers = len(pilots.user), len(pilots.numerology.subcarrier_hz)
        state, covariance = np.zeros((users, 4)), np.zeros((users, 4, 4))
        covariance[:] = self._unknown()
        gain, variance = np.zeros((users, subcarriers), dtype=np.complex128), np.zeros((users, subcarriers))
        power = np.zeros(users)
        same = np.asarray(pilots.user)[:, None] == previous.user[None, :]
        known = np.flatnonzero(same.any(axis=1))
        if not len(known):
            return state, covariance, gain, variance, power
        row = same[known].argmax(axis=1)
        if previous.pilot_state is not None and previous.pilot_covariance is not None:
            state[known], covariance[known] = previous.pilot_state[row], previous.pilot_covariance[row]
        gain[known], variance[known] = previous.gain[row], previous.gain_variance[row]
        if previous.power is not None:
            power[known] = previous.power[row]
        else:
            power[known] = (np.abs(previous.gain[row]) ** 2 + previous.gain_variance[row]).mean(axis=1)
        return state, covariance, gain, variance, power

    def _unknown(self) -> Float[Array, "4 4"]:
        return np.diag([1 / 3, 1 / 3, self.angular_rate_hz**2, self.angular_rate_hz**2])

    def _carried(self, state: Array, covariance: Array, step_s: float) -> tuple[Array, Array]:
        state, covariance = state.copy(), covariance.copy()
        density = 2 * self.acceleration_hold_s * self.angular_acceleration**2
        for n in range(len(state)):
            carry(state[n], covariance[n], density, max(step_s, 0.0))
        return state, covariance

    def _gains(
        self,
        pilots: PilotObservation,
        ears: Ears,
        cosines: Float[Array, "user 2"],
        last_ns: int,
        gain: Complex[Array, "user subcarrier"],
        variance: Float[Array, "user subcarrier"],
        power: Float[Array, " user"],
    ) -> tuple[Complex[Array, "state user subcarrier"], Float[Array, "state user subcarrier"], Float[Array, " user"]]:
        """Gains before the first update and after each; variances; the mean power at the end, which is moved in place."""
        sent_w = positive("pilot_power_w", pilots.numerology.pilot_power_w) / max(gain.shape[1], 1)
        users = len(cosines)
        pair, place = np.unique((ears.index + 1) * users + np.arange(users), return_inverse=True)
        ear, user = np.divmod(pair, max(users, 1))
        held = patterns(pilots, ears, ear - 1, cosines[user])[0]  # [pair subcarrier chain]
        gains, variances = follow(
            held,
            place.reshape(ears.index.shape),
            ears.pilot,
            np.asarray(pilots.update_ns),
            last_ns,
            gain,
            variance,
            power,
            sent_w,
            pilots.noise_w,
            self.coherence_s,
            self.power_memory,
            SIDE_LOBE,
        )
        return gains, variances, power


def _exchanged(
    direction: Float[Array, "user 3"], spec: FrontendSpec
) -> tuple[Float[Array, "user 3"], Float[Array, " user"]]:
    """Directions out of the receive array's frame as the transmit array has them, and its element's amplitude there over the other's."""
    receive, transmit = spec.receive.array, spec.transmit.array
    outward = to_array_frame(transmit, to_world_frame(receive, direction))
    heard_by, sent_by = element_amplitude(receive, direction), element_amplitude(transmit, outward)
    return outward, np.divide(sent_by, heard_by, out=np.zeros_like(sent_by), where=heard_by > 0)


def _directions(
    pilots: PilotObservation,
    tracks: Tracks,
    t_ns: int,
    state: Float[Array, "user 4"],
    covariance: Float[Array, "user 4 4"],
) -> tuple[Float[Array, "user 2"], Float[Array, "user 2 2"]]:
    """Cosines and covariance each user's channel is believed along: of its track, carried at constant velocity, else of its pilots."""
    array = pilots.spec.receive.array
    cosines, spread = state[:, :2].copy(), covariance[:, :2, :2].copy()
    same = np.asarray(pilots.user)[:, None] == tracks.user[None, :]
    bound = np.flatnonzero(same.any(axis=1))
    if len(bound):
        row = same[bound].argmax(axis=1)
        place, blur = tracks.state[row], tracks.covariance[row]
        motion.carry(place, blur, (t_ns - tracks.t_ns) * 1e-9, np.zeros(3))
        seen, _, ux, seen_spread = motion.expect(place, blur, array.rotation, array.origin_m, array.origin_m)
        ahead = ux > 0
        cosines[bound[ahead]], spread[bound[ahead]] = seen[ahead, :2], seen_spread[ahead, :2, :2]
    long = np.maximum(np.sqrt(np.sum(cosines**2, axis=1)) / 0.9999, 1.0)
    return cosines / long[:, None], spread
