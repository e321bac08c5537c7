"""Pilots to a channel of one direction a user: the direction from its track or from its pilots' angle, the gain by linear MMSE along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from hal.array import (
    LIGHT_MPS,
    cis,
    element_amplitude,
    half_power_beamwidth,
    steering,
    steering_factors,
    to_array_frame,
    to_world_frame,
)
from hal.check import Ge, Gt, Lt, finite, positive, shaped
from hal.errors import Misuse
from hal.network import response
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.records import ChannelEstimate, PilotObservation, Tracks

__all__ = ["Heard", "Mmse", "hear"]


@dataclass(frozen=True)
class Mmse:
    """Rank-one estimation: ``h[m] = gain[m] a(u, f_m)``, the scattered part outside the direction ``u`` left out.

    Fits users whose line of sight, or a narrow ring about it, carries the power; with a ring as wide as the beam it keeps what the beam sees.
    """

    false_alarm: Annotated[float, Gt(0), Lt(1)] = 1e-3  # that a silent user is heard in a subframe, at most
    fit: Annotated[float, Gt(0), Lt(1)] = (
        0.6  # share of a pilot's energy that its best direction must explain, else it is no direction
    )
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
        anything was heard. Gain: at each update ``z = b^H y / (|b|^2 sqrt(p))``, ``b = response^T a(u)``, in noise ``N / (|b|^2 p)``;
        the prior is the last gain, aged by ``exp(-dt / coherence_s)`` towards zero mean and the user's running mean power, turned by the common phase and
        delay that match ``z`` best. The gain holds the receive element's amplitude; ``channel`` exchanges it for the transmit element's.
        Raises Misuse for pilots that are not finite.
        """
        t_ns = int(pilots.update_ns[-1]) if len(pilots.update_ns) else pilots.t_ns
        state, covariance, _, _, _ = self._remembered(pilots, previous)
        ears = _ears(pilots)
        found = _hear(pilots, ears, self.false_alarm, self.fit)
        middle_ns = int(np.mean(pilots.update_ns)) if len(pilots.update_ns) else t_ns
        state, covariance = self._carried(state, covariance, (middle_ns - previous.t_ns) * 1e-9)
        noise = found.covariance + self.angle_floor**2 * np.eye(2)
        innovation = np.where(found.located[:, None], found.cosines - state[:, :2], 0.0)
        spread = covariance[:, :2, :2] + noise
        # what was followed was a side lobe, or the user jumped: begin again
        away = np.einsum("ui,ui->u", innovation, np.linalg.solve(spread, innovation[..., None])[..., 0]) > 18
        state[away], covariance[away] = (
            np.concatenate([state[away, :2], np.zeros((away.sum(), 2))], axis=1),
            self._unknown(),
        )
        spread = covariance[:, :2, :2] + noise
        kalman = np.swapaxes(np.linalg.solve(spread, covariance[:, :2, :]), -1, -2) * found.located[:, None, None]
        state = state + (kalman @ innovation[..., None])[..., 0]
        left = np.eye(4) - np.concatenate([kalman, np.zeros((len(state), 4, 2))], axis=2)
        covariance = left @ covariance @ np.swapaxes(left, 1, 2) + kalman @ noise @ np.swapaxes(kalman, 1, 2)
        state, covariance = self._carried(state, covariance, (t_ns - middle_ns) * 1e-9)
        cosines, spread = _directions(pilots, tracks, t_ns, state, covariance)
        gain, variance, power = self._gains(pilots, ears, cosines, previous)
        return ChannelEstimate(
            t_ns=t_ns,
            user=np.asarray(pilots.user),
            direction=_unit(cosines),
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
        state, covariance, _, _, _ = self._remembered(pilots, previous)
        state, covariance = self._carried(state, covariance, (pilots.t_ns - previous.t_ns) * 1e-9)
        cosines, _ = _directions(pilots, tracks, pilots.t_ns, state, covariance)
        gain, variance, _ = self._gains(pilots, _ears(pilots), cosines, previous)
        return gain[1:], variance[1:]

    def channel(self, estimate: ChannelEstimate, pilots: PilotObservation) -> Complex[Array, "user subcarrier element"]:
        """``h[user subcarrier element]`` at the transmit array by reciprocity: a far user receives ``h^T x`` of element signals x.

        The halves' frames may differ in rotation; their phase centres are taken to be one point (the common phase between them is left out).
        """
        receive, transmit = pilots.spec.receive.array, pilots.spec.transmit.array
        outward = to_array_frame(transmit, to_world_frame(receive, estimate.direction))
        heard_by, sent_by = element_amplitude(receive, estimate.direction), element_amplitude(transmit, outward)
        exchange = np.divide(sent_by, heard_by, out=np.zeros_like(sent_by), where=heard_by > 0)
        gain = estimate.gain * exchange[:, None]
        return np.asarray(
            gain[..., None] * steering(transmit, outward[:, None, :], pilots.numerology.subcarrier_hz[None, :])
        )

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
        step_s = max(step_s, 0.0)
        move = np.eye(4) + step_s * np.eye(4, k=2)
        density = 2 * self.acceleration_hold_s * self.angular_acceleration**2
        grown = np.kron(np.array([[step_s**3 / 3, step_s**2 / 2], [step_s**2 / 2, step_s]]), np.eye(2)) * density
        covariance = move @ covariance @ move.T + grown
        # a direction is never less known than anywhere in front
        over = np.maximum(covariance[:, [0, 1], [0, 1]].max(axis=1, initial=0.0) * 3, 1.0)
        return state @ move.T, covariance / over[:, None, None]

    def _gains(
        self, pilots: PilotObservation, ears: _Ears, cosines: Float[Array, "user 2"], previous: ChannelEstimate
    ) -> tuple[Complex[Array, "state user subcarrier"], Float[Array, "state user subcarrier"], Float[Array, " user"]]:
        """Gains before the first update and after each; variances; the mean power at the end."""
        _, _, gain, variance, power = self._remembered(pilots, previous)
        gains, variances = [gain], [variance]
        sent_w = positive("pilot_power_w", pilots.numerology.pilot_power_w) / max(gain.shape[1], 1)
        user = np.indices(ears.index.shape)[1]
        pair, place = np.unique(np.stack([ears.index, user], axis=-1).reshape(-1, 2), axis=0, return_inverse=True)
        patterns = _patterns(pilots, ears, pair[:, 0], cosines[pair[:, 1]])[0]  # [pair subcarrier chain]
        place = place.reshape(ears.index.shape)
        last_ns = previous.t_ns
        for i, t_ns in enumerate(pilots.update_ns):
            held = patterns[place[i]]  # [user subcarrier chain]
            strength = np.sum(np.abs(held) ** 2, axis=-1)
            match = np.einsum("umc,ucm->um", held.conj(), pilots.pilot[i])
            open_ = strength > 0
            safe = np.where(open_, strength, 1.0)
            z, noise = match / (safe * np.sqrt(sent_w)), np.where(open_, pilots.noise_w / (safe * sent_w), np.inf)
            power = self._power(power, match, strength, pilots.noise_w, sent_w)
            kept = np.exp(-max(int(t_ns) - last_ns, 0) * 1e-9 / self.coherence_s)
            turned, trusted = _turned(gain, z, noise)
            kept_user = np.where(trusted, kept, 0.0)[:, None]
            gain = kept_user * turned
            variance = kept_user**2 * variance + (1 - kept_user**2) * power[:, None]
            weight = np.where(open_, variance / np.where(variance + noise > 0, variance + noise, 1.0), 0.0)
            gain, variance = gain + weight * (z - gain), (1 - weight) * variance
            gains.append(gain)
            variances.append(variance)
            last_ns = int(t_ns)
        return np.stack(gains), np.stack(variances), power

    def _power(self, power: Array, match: Array, strength: Array, noise_w: float, sent_w: float) -> Array:
        """The running mean of ``|gain|^2``: each update counts by how well it can hear a gain of that size."""
        fourth = np.sum(strength**2, axis=1)
        safe = np.where(fourth > 0, fourth, 1.0)
        fresh = np.maximum(np.sum(np.abs(match) ** 2 - noise_w * strength, axis=1) / (sent_w * safe), 0.0)
        spread = noise_w * np.sum(strength, axis=1) / (sent_w * safe)  # what noise alone would add
        first = (power == 0) & (fresh > 3 * spread / np.sqrt(max(match.shape[1], 1)))
        share = (1 - self.power_memory) * np.divide(
            power, power + spread, out=np.zeros_like(power), where=power > 0
        ) ** 2
        return np.where(fourth > 0, np.where(first, fresh, power + share * (fresh - power)), power)


@record
class Heard:
    """What one subframe's pilots say by themselves, users in the order of ``PilotObservation.user``."""

    heard: Bool[Array, "update user"]  # above the noise
    located: Bool[Array, " user"]  # heard, and one direction explains what was heard
    cosines: Float[Array, "user 2"]  # uy, uz in the receive array's frame
    covariance: Float[Array, "user 2 2"]


def hear(pilots: PilotObservation, false_alarm: float = 1e-3, fit: float = 0.6) -> Heard:
    """Which users are above the noise, and from where.

    Heard: the energy of an update, or its strongest delay cell (a transform over subcarriers) at any chain, exceeds what noise does
    with probability ``false_alarm`` a user and subframe (union bound; noise white over chains).
    Direction, where a user's receive beams stand together: the maximum of ``sum |b^H y|^2 / |b|^2`` over subcarriers and updates (complex
    gains free at each), on a grid over the main lobe and then by scoring; covariance from the Fisher information, each sample's
    weight ``snr / (1 + snr)`` because its gain is not known. Where they sweep: within the main lobe of the loudest beam, the direction of a
    grid that maximises ``(sum |b^H y|)^2 / sum |b|^2`` (one level at all updates) over the middle subcarriers; covariance of
    a third of a beamwidth. ``fit`` is the share of signal energy the maximum must explain, which refuses most of what comes through side lobes.
    A user parked in a side lobe by beams that stand together is recognised only by a sweep that hears it louder: the loudest row of
    the subframe decides which of the two is done.
    Raises Misuse for a free-form array, which has no beamwidth, and for pilots that are not finite.
    """
    return _hear(pilots, _ears(pilots), false_alarm, fit)


@record
class _Ears:
    """The receive rows that pilots were heard through."""

    index: Int[Array, "update user"]  # which of the rows below; -1: none (a newcomer, or an empty slot)
    held: Complex[
        Array, "ear frequency element chain"
    ]  # their responses; one frequency stands for all without delay lines
    pointing: Float[Array, "ear chain 2"]  # direction cosines each chain points at


def _hear(pilots: PilotObservation, ears: _Ears, false_alarm: float, fit: float) -> Heard:
    updates, users = pilots.pilot.shape[:2]
    finite("pilot", pilots.pilot)
    shaped("update_ns", pilots.update_ns, (updates,))
    array = pilots.spec.receive.array
    width = np.array(half_power_beamwidth(array, pilots.spec.carrier_hz))
    cosines, covariance = np.zeros((users, 2)), np.broadcast_to(np.eye(2) / 3, (users, 2, 2)).copy()
    located = np.zeros(users, dtype=bool)
    rows = ears.index
    heard = np.asarray(_above_noise(pilots, false_alarm) & (rows >= 0))
    if not np.any(heard):
        return Heard(heard=heard, located=located, cosines=cosines, covariance=covariance)
    energy = np.sum(np.abs(pilots.pilot) ** 2, axis=(2, 3))
    middle = ears.pointing.mean(axis=1)
    together = np.all(np.abs(ears.pointing - middle[:, None]) <= 0.75 * width, axis=(1, 2))
    best = np.where(heard, energy, -1.0).argmax(axis=0)
    row = rows[best, np.arange(users)]
    fine = heard.any(axis=0) & together[row]
    if np.any(fine):
        who = np.flatnonzero(fine)
        use = heard[:, who] & (rows[:, who] == row[who])
        cosines[who], covariance[who], good = _main_lobe(pilots, ears, who, use, row[who], middle[row[who]], width, fit)
        located[who] = good
    coarse = np.flatnonzero(heard.any(axis=0) & ~fine)
    if len(coarse):
        cosines[coarse], located[coarse] = _sweep(pilots, ears, coarse, width, fit)
        covariance[coarse] = np.diag(np.minimum(width / 3, np.sqrt(1 / 3)) ** 2)
    return Heard(heard=heard, located=located, cosines=cosines, covariance=covariance)


def _above_noise(pilots: PilotObservation, false_alarm: float) -> Bool[Array, "update user"]:
    from scipy.special import gammainccinv

    updates, _, chains, subcarriers = pilots.pilot.shape
    level = pilots.pilot / np.sqrt(positive("noise_w", pilots.noise_w))
    share = false_alarm / (2 * updates)
    energy = np.sum(np.abs(level) ** 2, axis=(2, 3)) > gammainccinv(chains * subcarriers, share)
    cells = 2 * subcarriers
    peak = (np.abs(np.fft.fft(level, cells, axis=3)) ** 2).max(axis=(2, 3)) / subcarriers
    return np.asarray(energy | (peak > np.log(cells * chains / share)))


def _ears(pilots: PilotObservation) -> _Ears:
    array, network, plan = pilots.spec.receive.array, pilots.spec.receive.network, pilots.plan
    if not array.columns > 0:
        raise Misuse("spec.receive.array.columns = 0: pilot angles need a planar grid (Upa or Ula)")
    report = pilots.receive_beam
    beam = report.setpoint if report.readback is None else report.readback
    row = np.full((len(pilots.update_ns), len(pilots.user)), -1, dtype=np.int64)
    same = np.asarray(pilots.user)[:, None] == np.asarray(plan.user)[None, :]
    known = np.flatnonzero(same.any(axis=1))
    if len(known) and len(beam.slot):
        match = plan.pilot_receive_slot[: len(row), same[known].argmax(axis=1)][..., None] == beam.slot
        row[:, known] = np.where(match.any(axis=-1), match.argmax(axis=-1), -1)
    used = np.unique(row[row >= 0])
    setting = beam.delay_s[used], beam.phase_rad[used], beam.amplitude[used]
    carrier_hz = np.array([pilots.spec.carrier_hz])
    at_carrier = response(network, *setting, carrier_hz)
    held = response(network, *setting, pilots.numerology.subcarrier_hz) if network.lines else at_carrier
    # where a chain points: the mean phase step from column to column and from row to row
    grid = at_carrier[:, 0].reshape(len(used), array.columns, array.rows, len(network.wired))
    along = np.sum(grid[:, 1:] * grid[:, :-1].conj(), axis=(1, 2))
    up = np.sum(grid[:, :, 1:] * grid[:, :, :-1].conj(), axis=(1, 2))
    turn = 2 * np.pi * carrier_hz * array.spacing_m / LIGHT_MPS
    pointing = np.stack([-np.angle(along), -np.angle(up)], axis=-1) / turn
    return _Ears(index=np.where(row >= 0, np.searchsorted(used, row), -1), held=held, pointing=pointing)


def _patterns(
    pilots: PilotObservation,
    ears: _Ears,
    ear: Int[Array, " one"],
    cosines: Float[Array, "one 2"],
    slopes: bool = False,
) -> tuple[Array, ...]:
    """``b = response^T a(u, f_m)`` ``[one subcarrier chain]`` and, if asked for, its derivatives by uy and uz; 0 where ``ear`` is -1."""
    array, frequency_hz = pilots.spec.receive.array, pilots.numerology.subcarrier_hz
    subcarriers, chains = len(frequency_hz), ears.held.shape[-1]
    out = [np.zeros((len(ear), subcarriers, chains), dtype=np.complex128) for _ in range(3 if slopes else 1)]
    on = np.flatnonzero(ear >= 0)
    if not len(on):
        return tuple(out)
    a_y, a_z = steering_factors(array, _unit(cosines[on])[:, None, :], frequency_hz[None, :])
    wave = 2j * np.pi * frequency_hz[:, None] / LIGHT_MPS
    y_m, z_m = array.position_m[:: array.rows, 1], array.position_m[: array.rows, 2]
    columns = np.stack([a_y, wave * y_m * a_y], axis=-2) if slopes else a_y[..., None, :]
    half = _along_columns(columns, ears.held[ear[on]], array.rows)
    out[0][on] = (a_z[..., None, :] @ half[:, :, 0])[..., 0, :]
    if slopes:
        out[1][on] = (a_z[..., None, :] @ half[:, :, 1])[..., 0, :]
        out[2][on] = ((wave * z_m * a_z)[..., None, :] @ half[:, :, 0])[..., 0, :]
    return tuple(out)


def _along_columns(
    columns: Complex[Array, "one subcarrier point column"],
    held: Complex[Array, "one frequency element chain"],
    rows: int,
) -> Complex[Array, "one subcarrier point row chain"]:
    """Responses summed along y; where one frequency stands for all, a few large products in place of many small ones."""
    one, subcarriers, points, count = columns.shape
    held = held.reshape(one, held.shape[1], count, -1)
    if held.shape[1] == 1:
        half = columns.reshape(one, subcarriers * points, count) @ held[:, 0]
    else:
        half = columns @ held
    return np.asarray(half.reshape(one, subcarriers, points, rows, -1))


def _main_lobe(
    pilots: PilotObservation,
    ears: _Ears,
    who: Int[Array, " one"],
    use: Bool[Array, "update one"],
    row: Int[Array, " one"],
    middle: Float[Array, "one 2"],
    width: Float[Array, " axis"],
    fit: float,
) -> tuple[Float[Array, "one 2"], Float[Array, "one 2 2"], Bool[Array, " one"]]:
    y = pilots.pilot[:, who] * use[:, :, None, None]
    moment = np.einsum("iucm,iudm->umcd", y, y.conj())
    looks = use.sum(axis=0)
    offset = np.linspace(-0.8, 0.8, 9)[:, None] * np.where(width < 2, width, 0.0)
    a, b = np.divmod(_grid_score(pilots, ears, row, middle[:, None] + offset, moment).argmax(axis=1), len(offset))
    cosines = middle + np.column_stack([offset[a, 0], offset[b, 1]])
    energy, noise = np.trace(moment, axis1=2, axis2=3).real.sum(axis=1), pilots.noise_w
    subcarriers, chains = moment.shape[1], moment.shape[2]
    for last in (False, False, True):
        b, *slope = _patterns(pilots, ears, row, cosines, slopes=True)
        size = np.maximum(np.sum(np.abs(b) ** 2, axis=-1), 1e-30)
        seen = np.einsum("umc,umcd->umd", b.conj(), moment)  # b^H R
        power = np.einsum("umd,umd->um", seen, b).real
        across = [d - b * (np.einsum("umc,umc->um", b.conj(), d) / size)[..., None] for d in slope]
        # mean |gain|^2 summed over the looks, freed of noise
        level = np.sum(power - looks[:, None] * noise * size, axis=1) / np.sum(size**2, axis=1)
        level = np.maximum(level, 1e-6 * energy / np.maximum(size.sum(axis=1), 1e-30))
        overlap = np.stack([np.stack([np.sum(p.conj() * q, axis=-1).real for q in across], -1) for p in across], -2)
        prior = np.diag((0.5 * width) ** -2.0)
        if last:
            snr = level[:, None] * size / (looks[:, None] * noise)
            weight = level[:, None] * snr / (1 + snr)
            information = 2 / noise * np.einsum("um,umij->uij", weight, overlap) + prior
            break
        gradient = 2 * np.stack([np.einsum("umd,umd->um", seen, d).real for d in across], -1)
        gradient = np.sum(gradient / size[..., None], axis=1)
        curvature = 2 * level[:, None, None] * overlap.sum(axis=1) + noise * prior
        cosines = cosines + np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -0.2 * width, 0.2 * width)
    explained = np.sum(power / size, axis=1) - looks * subcarriers * noise
    signal = energy - looks * subcarriers * chains * noise
    good = (
        (explained > fit * signal)
        & np.all(np.abs(cosines - middle) <= 0.9 * width, axis=1)
        & (np.sum(cosines**2, axis=1) < 1)
    )
    return cosines, np.linalg.inv(information), good


def _grid_score(
    pilots: PilotObservation,
    ears: _Ears,
    row: Int[Array, " one"],
    cosines: Float[Array, "one point 2"],
    moment: Complex[Array, "one subcarrier chain chain"],
) -> Float[Array, "one place"]:
    """``sum |b^H y|^2 / |b|^2`` at every pair of a uy and a uz of ``cosines``, uz fastest; every fourth subcarrier is enough to start from."""
    array, some = pilots.spec.receive.array, slice(None, None, 4)
    frequency_hz, moment = pilots.numerology.subcarrier_hz[some], moment[:, some]
    held = ears.held[row] if ears.held.shape[1] == 1 else ears.held[row][:, some]
    direction = np.concatenate(
        [np.zeros((*cosines.shape[:2], 1)), cosines], axis=-1
    )  # ux is nothing to a grid in the y-z plane
    a_y, a_z = steering_factors(array, direction[:, None], frequency_hz[None, :, None])
    half = _along_columns(a_y, held, array.rows)
    points, chains = half.shape[2], half.shape[-1]
    b = a_z @ half.swapaxes(2, 3).reshape(*half.shape[:2], array.rows, -1)  # [one subcarrier uz (uy chain)]
    b = b.reshape(*b.shape[:2], points, points, chains).swapaxes(2, 3).reshape(*b.shape[:2], -1, chains)
    power = np.sum((b.conj() @ moment) * b, axis=-1).real
    return np.asarray(np.sum(power / np.maximum(np.sum(np.abs(b) ** 2, axis=-1), 1e-30), axis=1))


def _sweep(
    pilots: PilotObservation,
    ears: _Ears,
    who: Int[Array, " one"],
    width: Float[Array, " axis"],
    fit: float,
) -> tuple[Float[Array, "one 2"], Bool[Array, " one"]]:
    """The direction that explains the levels at all beams of a sweep, and whether it explains enough."""
    array, frequency_hz = pilots.spec.receive.array, pilots.numerology.subcarrier_hz
    central = np.argsort(np.abs(frequency_hz - pilots.spec.carrier_hz), kind="stable")[:8]
    wave = 2 * np.pi * pilots.spec.carrier_hz / LIGHT_MPS
    at_carrier = ears.held[:, np.abs(frequency_hz - pilots.spec.carrier_hz).argmin() if ears.held.shape[1] > 1 else 0]
    offset = np.linspace(-0.6, 0.6, 9)[:, None] * np.where(width < 2, width, 0.0)
    cosines, good = np.zeros((len(who), 2)), np.zeros(len(who), dtype=bool)
    for one, user in enumerate(who):
        use = np.flatnonzero(ears.index[:, user] >= 0)
        row = ears.index[use, user]
        y = pilots.pilot[use, user][:, :, central]  # [update chain subcarrier]
        update, chain = np.unravel_index(np.sum(np.abs(y) ** 2, axis=2).argmax(), y.shape[:2])
        axes = ears.pointing[row[update], chain] + offset
        a_y = cis(wave * axes[:, :1] * array.position_m[:: array.rows, 1])
        a_z = cis(wave * axes[:, 1:] * array.position_m[: array.rows, 2])
        half = (a_y @ at_carrier[row].reshape(len(row), array.columns, -1)).reshape(len(row), len(axes), array.rows, -1)
        b = (a_z @ half).reshape(len(row), len(axes) ** 2, -1)  # [update place chain]
        match = np.sum(np.abs(b.conj() @ y), axis=(0, 2))
        score = match**2 / np.maximum(np.sum(np.abs(b) ** 2, axis=(0, 2)) * len(central), 1e-30)
        best = score.argmax()
        noise = pilots.noise_w * y.size
        cosines[one] = axes[best // len(axes), 0], axes[best % len(axes), 1]
        explains = score[best] - noise / y.shape[1] > fit * (np.sum(np.abs(y) ** 2) - noise)
        good[one] = explains and np.sum(cosines[one] ** 2) < 1
    return cosines, good


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
        step_s = (t_ns - tracks.t_ns) * 1e-9
        move = np.hstack([np.eye(3), step_s * np.eye(3)])
        vector_m = (tracks.state[row] @ move.T - array.origin_m) @ array.rotation
        range_m = np.maximum(np.sqrt(np.sum(vector_m**2, axis=1)), 1e-3)
        unit = vector_m / range_m[:, None]
        slope = (
            (np.eye(3)[1:] - unit[:, 1:, None] * unit[:, None, :]) / range_m[:, None, None] @ array.rotation.T @ move
        )
        ahead = unit[:, 0] > 0
        cosines[bound[ahead]] = unit[ahead, 1:]
        spread[bound[ahead]] = (slope @ tracks.covariance[row] @ np.swapaxes(slope, 1, 2))[ahead]
    long = np.maximum(np.sqrt(np.sum(cosines**2, axis=1)) / 0.9999, 1.0)
    return cosines / long[:, None], spread


def _unit(cosines: Float[Array, "user 2"]) -> Float[Array, "user 3"]:
    return np.column_stack([np.sqrt(np.maximum(1 - np.sum(cosines**2, axis=1), 0.0)), cosines])


def _turned(
    gain: Complex[Array, "user subcarrier"],
    z: Complex[Array, "user subcarrier"],
    noise: Float[Array, "user subcarrier"],
) -> tuple[Complex[Array, "user subcarrier"], Bool[Array, " user"]]:
    """``gain`` under the common phase and delay that match ``z`` best, and whether the match is more than chance and most of ``z``."""
    subcarriers = z.shape[1]
    places = 16 * subcarriers
    weight = np.where(np.isfinite(noise), 1 / noise, 0.0)
    spectrum = np.fft.fft(gain.conj() * z * weight, places, axis=1)
    peak = np.abs(spectrum).argmax(axis=1)
    value = spectrum[np.arange(len(gain)), peak]
    ramp = 2 * np.pi * peak[:, None] / places * np.arange(subcarriers) + np.angle(value)[:, None]
    own = np.sum(np.abs(gain) ** 2 * weight, axis=1)
    fresh = np.maximum(np.sum(np.abs(z) ** 2 * weight, axis=1) - subcarriers, 1.0)
    strength = np.abs(value) ** 2
    return gain * cis(ramp), (strength > np.log(places / 1e-3) * own) & (strength > 0.5 * own * fresh)
