"""Extended Kalman tracks in the world frame from four-parameter detections, dwell by dwell, all tracks of a dwell at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np

from hal.array import LIGHT_MPS, half_power_beamwidth, steering
from hal.check import Ge, Gt, Lt, finite
from hal.errors import Misuse
from hal.frontend import BeamReport, FrontendSpec, HalfSpec
from hal.network import response
from hal.planar import nodes_of, planar_gains
from hal.record import Array, Bool, Complex, Float, Int
from twin.records import Detections, EchoObservation, Tracks

__all__ = ["Ekf", "drift", "illumination_db", "measure"]


@dataclass(frozen=True)
class Ekf:
    """A global-nearest-neighbour tracker with nearly-constant-velocity motion and M-of-N confirmation.

    One detection an object a dwell is assumed: an extended object that gives several bears several tracks. First-order linearisation: good
    while the cross-range error is small against the square root of range times range error (0.3 deg at 100 m is), poor for births wider than that.
    A detection with an infinite variance of uz (a line array's) is completed by a prior on height: its direction is where the cone of its uy meets that
    height at its range, and in place of uz the state's own z is observed, never to more than the prior's certainty: looks add nothing to a prior.
    Y. Bar-Shalom, X. R. Li, T. Kirubarajan, Estimation with Applications to Tracking and Navigation, Wiley 2001: motion (6.2.2),
    update in Joseph form (5.2.3-18).
    """

    # motion: white-noise acceleration of density 2 acceleration^2 hold on each axis, as one that lasts about ``hold`` would have
    acceleration_mps2: Annotated[float, Gt(0)] = 3.0  # horizontal, one sigma an axis
    vertical_acceleration_mps2: Annotated[float, Gt(0)] = 0.3
    acceleration_hold_s: Annotated[float, Gt(0)] = 0.5
    # birth: one sigma of the velocity, per horizontal axis and upwards, before the closing speed is used
    birth_speed_mps: Annotated[float, Gt(0)] = 12.0
    birth_vertical_speed_mps: Annotated[float, Gt(0)] = 0.5
    gate_probability: Annotated[float, Gt(0), Lt(1)] = 0.9997  # that a track's own detection falls in its gate
    # confirmation: M detections within the first N dwells that lit the track, its birth counted in both
    confirm_hits: Annotated[int, Ge(1)] = 3
    confirm_window: Annotated[int, Ge(1)] = 5
    # death: confirmed, lit and missed so often in a row; or unseen for so long; or the position's error, all axes together, so large
    miss_limit: Annotated[int, Ge(1)] = 6
    lost_s: Annotated[float, Gt(0)] = 1.0
    position_limit_m: Annotated[float, Gt(0)] = 15.0
    # a dwell lights what is within this of perfect pointing, both ways together
    main_lobe_db: Annotated[float, Gt(0)] = 6.0
    # a detection is a confirmed track's echo through a side lobe if range and speed are its own, the chains' outputs as alike, and the power within this
    image_db: Annotated[float, Gt(0)] = 6.0
    image_likeness: Annotated[float, Gt(0), Lt(1)] = 0.9
    strength_memory: Annotated[float, Ge(0), Lt(1)] = 0.7  # weight of the past in a track's running mean strength
    # model errors added to a detection's own, one sigma
    angle_floor: Annotated[float, Ge(0)] = 5e-4  # direction cosines
    # where the array tells no elevation: how high above the world's zero movers are believed to be, and one sigma
    height_m: float = 1.5
    height_sigma_m: Annotated[float, Gt(0)] = 0.5
    range_floor_m: Annotated[float, Ge(0)] = 0.05
    velocity_floor_mps: Annotated[float, Ge(0)] = 0.05

    def start(self) -> Tracks:
        """No tracks yet, at t = 0."""
        none = np.zeros(0, dtype=np.int64)
        return Tracks(
            t_ns=0,
            track=none,
            state=np.zeros((0, 6)),
            covariance=np.zeros((0, 6, 6)),
            user=none,
            confirmed=np.zeros(0, dtype=bool),
            hits=none,
            misses=none,
            seen_ns=none,
            looks=none,
            strength_db=np.zeros(0),
        )

    def predict(self, tracks: Tracks, t_ns: int) -> Tracks:
        """The tracks carried forward to ``t_ns``; two steps are exactly one long one. Raises Misuse for an earlier time."""
        if not t_ns >= tracks.t_ns:
            raise Misuse(
                f"t_ns = {t_ns}: must not be before the tracks' own {tracks.t_ns}; tracks are not smoothed backwards"
            )
        if t_ns == tracks.t_ns or not len(tracks.track):
            return replace(tracks, t_ns=int(t_ns))
        step_s = (t_ns - tracks.t_ns) * 1e-9
        state, covariance = drift(tracks.state, tracks.covariance, step_s)
        sigma_mps2 = np.array([self.acceleration_mps2, self.acceleration_mps2, self.vertical_acceleration_mps2])
        density = 2 * self.acceleration_hold_s * sigma_mps2**2
        i = np.arange(3)
        covariance[:, i, i] += density * step_s**3 / 3
        covariance[:, i, i + 3] += density * step_s**2 / 2
        covariance[:, i + 3, i] += density * step_s**2 / 2
        covariance[:, i + 3, i + 3] += density * step_s
        return replace(tracks, t_ns=int(t_ns), state=state, covariance=covariance)

    def update(self, tracks: Tracks, detections: Detections, observation: EchoObservation) -> Tracks:
        """Predict to each dwell in turn; assign, update, count misses of lit tracks, bear and bury.

        A detection that no track takes bears one, unless a confirmed track that the dwell did not light explains it: same range and speed, the
        power that its known strength would bring through this dwell's side lobes (within ``image_db``), and the same pattern over the receive
        chains (``image_likeness``). A track that lives on such detections, born before its origin was confirmed, is buried.
        A real mover that is like another in all three waits until one of them has moved on.
        Raises Misuse for detections that are not finite or have no plan's dwell.
        """
        finite("detections.value", detections.value)
        finite("detections.covariance", detections.covariance[~np.isinf(detections.covariance[:, 1, 1])])
        plan, numerology = observation.plan, observation.numerology
        dwells = len(plan.dwell_transmit_slot)
        if len(detections.dwell) and not (detections.dwell.min() >= 0 and detections.dwell.max() < dwells):
            raise Misuse(
                f"detections.dwell = {detections.dwell}: must be in 0 .. {dwells - 1}, the dwells of the observation's plan"
            )
        dwell_ns = numerology.frames_per_dwell * numerology.frame_ns
        tracks = replace(tracks, looks=_looks(tracks), strength_db=_strength_db(tracks))
        for dwell in range(dwells):
            own = detections.dwell == dwell
            t_ns = int(detections.t_ns[own][0]) if np.any(own) else observation.t_ns + dwell * dwell_ns + dwell_ns // 2
            tracks = self.predict(tracks, max(t_ns, tracks.t_ns))
            tracks = self._dwell(
                tracks, detections.value[own], detections.covariance[own], detections.snr_db[own], observation, dwell
            )
        return tracks

    def _dwell(
        self,
        tracks: Tracks,
        value: Float[Array, "detection 4"],
        covariance: Float[Array, "detection 4 4"],
        snr_db: Float[Array, " detection"],
        observation: EchoObservation,
        dwell: int,
    ) -> Tracks:
        spec = observation.spec
        floor = np.array([self.angle_floor, self.angle_floor, self.range_floor_m, self.velocity_floor_mps])
        noise = (covariance + np.swapaxes(covariance, -1, -2)) / 2 + np.diag(floor**2)
        level = np.isinf(noise[:, 1, 1])
        value, noise = self._levelled(value, noise, level, spec)
        expected, slope, ux = measure(spec, tracks.state)
        lit = self._lit(observation, dwell, expected, ux)
        spread = slope @ tracks.covariance @ np.swapaxes(slope, -1, -2)  # [track 4 4]
        track, detection = self._assign(value, noise, expected, spread)

        state, posterior = tracks.state.copy(), tracks.covariance.copy()
        if len(track):
            gap, seen_by, blur = value[detection] - expected[track], slope[track], noise[detection]
            flat = np.flatnonzero(level[detection])
            if flat.size:
                gap[flat, 1], seen_by[flat, 1] = self.height_m - state[track[flat], 2], np.eye(6)[2]
                blur[flat, 1, :], blur[flat, :, 1] = 0.0, 0.0
                blur[flat, 1, 1] = self._height_noise(posterior[track[flat], 2, 2])
            state[track], posterior[track] = _joseph(state[track], posterior[track], gap, seen_by, blur)
        seen = np.zeros(len(state), dtype=bool)
        seen[track] = True
        hits, looks = tracks.hits + seen, _looks(tracks) + (seen | lit)
        straight_db = snr_db - echo_gain_db(observation, dwell, _directions(value))
        origin = self._images(value, noise, snr_db, tracks, expected, spread, observation, dwell)
        origin &= tracks.confirmed & ~lit
        origin[detection, track] = False  # a track's own detection is no image of it
        image = np.asarray(origin.any(axis=1))
        strength_db = _strength_db(tracks).copy()
        strength_db[track] += (1 - self.strength_memory) * (straight_db[detection] - strength_db[track])
        kept = replace(
            tracks,
            state=state,
            covariance=posterior,
            confirmed=tracks.confirmed | ((hits >= self.confirm_hits) & (looks <= self.confirm_window)),
            hits=hits,
            misses=np.where(seen, 0, tracks.misses + lit),
            looks=looks,
            seen_ns=np.where(seen, tracks.t_ns, tracks.seen_ns),
            strength_db=strength_db,
        )
        ghost = np.zeros(len(state), dtype=bool)
        ghost[track] = image[detection]
        kept = _rows(kept, self._alive(kept) & ~ghost)

        free = np.setdiff1d(np.arange(len(value)), detection)
        new = free[~image[free]]
        return self._born(kept, value[new], noise[new], straight_db[new], spec)

    def _levelled(
        self,
        value: Float[Array, "detection 4"],
        noise: Float[Array, "detection 4 4"],
        level: Bool[Array, " detection"],
        spec: FrontendSpec,
    ) -> tuple[Float[Array, "detection 4"], Float[Array, "detection 4 4"]]:
        """Detections without an elevation, given the one that the believed height has at their range."""
        if not np.any(level):
            return value, noise
        value, noise = value.copy(), noise.copy()
        rotation, origin_m = spec.receive.array.rotation, spec.receive.array.origin_m
        uy, range_m = np.clip(value[level, 0], -0.999, 0.999), np.maximum(value[level, 2], 1e-3)
        # z = origin + r (R20 ux + R21 uy + R22 uz) with ux^2 + uz^2 = 1 - uy^2: an angle about the array's y axis
        side, lean = np.sqrt(1 - uy**2), np.hypot(rotation[2, 0], rotation[2, 2])
        wanted = ((self.height_m - origin_m[2]) / range_m - rotation[2, 1] * uy) / (side * lean)
        angle = np.arcsin(np.clip(wanted, -1, 1)) - np.arctan2(rotation[2, 0], rotation[2, 2])
        value[level, 1] = side * np.sin(angle)
        noise[level, 1, :], noise[level, :, 1] = 0.0, 0.0
        noise[level, 1, 1] = (self.height_sigma_m / range_m) ** 2
        return value, noise

    def _height_noise(self, variance: Float[Array, " track"]) -> Float[Array, " track"]:
        """Noise of the observed height that brings a track's own variance down to the prior's and no further."""
        prior = self.height_sigma_m**2
        return 1 / np.maximum(1 / prior - 1 / np.maximum(variance, 1e-12), 1e-12)

    def _lit(
        self, observation: EchoObservation, dwell: int, expected: Float[Array, "track 4"], ux: Float[Array, " track"]
    ) -> Bool[Array, " track"]:
        numerology, plan = observation.numerology, observation.plan
        direction = np.column_stack([ux, expected[:, :2]])
        gain_db = illumination_db(
            observation.spec,
            observation.transmit_beam,
            observation.receive_beam,
            int(plan.dwell_transmit_slot[dwell]),
            int(plan.dwell_receive_slot[dwell]),
            direction,
        )
        # an echo later than one frame without its prefix folds over: what lies beyond is not looked at
        reach_m = LIGHT_MPS / 2 * numerology.delay_bins / numerology.sample_rate_hz
        return np.asarray((gain_db >= -self.main_lobe_db) & (ux > 0) & (expected[:, 2] < reach_m))

    def _assign(
        self,
        value: Float[Array, "detection 4"],
        noise: Float[Array, "detection 4 4"],
        expected: Float[Array, "track 4"],
        spread: Float[Array, "track 4 4"],
    ) -> tuple[Int[Array, " pair"], Int[Array, " pair"]]:
        """Pairs that minimise the summed negative log likelihood over the dwell; a track may stay without."""
        if not len(value) or not len(expected):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        from scipy.optimize import linear_sum_assignment

        total = spread[:, None] + noise[None]
        gap = value[None] - expected[:, None]
        distance = np.einsum("tdi,tdi->td", gap, np.linalg.solve(total, gap[..., None])[..., 0])
        gate = _chi2(self.gate_probability, 4)
        cost = distance + np.linalg.slogdet(total)[1]
        inside = distance <= gate
        if not np.any(inside):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        # going without costs as much as the worst pair inside any gate, so that every pair inside its gate is worth having
        alone = cost[inside].max() + 1.0
        tracks, detections = cost.shape
        table = np.full((tracks, detections + tracks), alone + 1e6)
        table[:, :detections][inside] = cost[inside]
        table[np.arange(tracks), detections + np.arange(tracks)] = alone
        track, column = linear_sum_assignment(table)
        took = column < detections
        return track[took], column[took]

    def _images(
        self,
        value: Float[Array, "detection 4"],
        noise: Float[Array, "detection 4 4"],
        snr_db: Float[Array, " detection"],
        tracks: Tracks,
        expected: Float[Array, "track 4"],
        spread: Float[Array, "track 4 4"],
        observation: EchoObservation,
        dwell: int,
    ) -> Bool[Array, "detection track"]:
        """Which detections the echo of which tracks through this dwell's beams would look like."""
        gap = value[:, None, 2:] - expected[None, :, 2:]
        total = noise[:, None, 2:, 2:] + spread[None, :, 2:, 2:]
        distance = np.einsum("dti,dti->dt", gap, np.linalg.solve(total, gap[..., None])[..., 0])
        there = _directions(expected)
        brought_db = _strength_db(tracks) + echo_gain_db(observation, dwell, there)
        alike = likeness(observation, dwell, _directions(value), there)
        near = np.abs(snr_db[:, None] - brought_db) <= self.image_db
        width = half_power_beamwidth(observation.spec.receive.array, observation.spec.carrier_hz)
        apart = np.any(
            np.abs(value[:, None, :2] - expected[None, :, :2]) > width, axis=2
        )  # else it is the mover itself, or its neighbour
        return np.asarray((distance <= _chi2(self.gate_probability, 2)) & near & apart & (alike >= self.image_likeness))

    def _alive(self, tracks: Tracks) -> Bool[Array, " track"]:
        trace = np.trace(tracks.covariance[:, :3, :3], axis1=1, axis2=2)
        chances = np.maximum(self.confirm_window - _looks(tracks), 0)
        over = np.where(tracks.confirmed, tracks.misses >= self.miss_limit, tracks.hits + chances < self.confirm_hits)
        lost = tracks.t_ns - tracks.seen_ns > self.lost_s * 1e9
        return np.asarray(~over & ~lost & (trace <= self.position_limit_m**2))

    def _born(
        self,
        tracks: Tracks,
        value: Float[Array, "detection 4"],
        noise: Float[Array, "detection 4 4"],
        strength_db: Float[Array, " detection"],
        spec: FrontendSpec,
    ) -> Tracks:
        """A track for each detection: position from angles and range, then the velocity prior conditioned on the closing speed."""
        born = len(value)
        first = max(tracks.born, int(tracks.track.max(initial=-1)) + 1)
        if not born:
            return replace(tracks, born=first)
        state = np.zeros((born, 6))
        state[:, :3] = _position(spec, value)
        _, slope, _ = measure(spec, state)
        into = np.linalg.inv(slope[:, :3, :3])
        covariance = np.zeros((born, 6, 6))
        covariance[:, :3, :3] = into @ noise[:, :3, :3] @ np.swapaxes(into, -1, -2)
        i = np.arange(3, 6)
        covariance[:, i, i] = np.array([self.birth_speed_mps, self.birth_speed_mps, self.birth_vertical_speed_mps]) ** 2
        expected, slope, _ = measure(spec, state)
        state, covariance = _joseph(state, covariance, (value - expected)[:, 3:], slope[:, 3:], noise[:, 3:, 3:])
        one, new = np.ones(born, dtype=np.int64), first + np.arange(born)
        return replace(
            tracks,
            track=np.concatenate([tracks.track, new]),
            state=np.concatenate([tracks.state, state]),
            covariance=np.concatenate([tracks.covariance, covariance]),
            user=np.concatenate([tracks.user, -one]),
            confirmed=np.concatenate([tracks.confirmed, np.full(born, self.confirm_hits <= 1)]),
            hits=np.concatenate([tracks.hits, one]),
            misses=np.concatenate([tracks.misses, 0 * one]),
            seen_ns=np.concatenate([tracks.seen_ns, np.full(born, tracks.t_ns)]),
            looks=np.concatenate([_looks(tracks), one]),
            strength_db=np.concatenate([_strength_db(tracks), strength_db]),
            born=first + born,
        )


def measure(
    spec: FrontendSpec, state: Float[Array, "track 6"]
) -> tuple[Float[Array, "track 4"], Float[Array, "track 4 6"], Float[Array, " track"]]:
    """What a detector would say of world-frame states ``x y z vx vy vz``, its slope with respect to them, and ``ux``.

    ``uy, uz`` are the direction's cosines in the receive array's frame; with r_t, r_r the distances to the halves' phase centres,
    ``range_m = (r_t + r_r) / 2`` and ``velocity_mps = -d range / dt``, which is half the delay times c whether or not the halves share a place.
    A state at a phase centre has no direction: it is treated as a millimetre away.
    """
    to_receive = _towards(spec.receive, state)
    velocity = state[:, 3:]
    away, across_hz, range_m = np.zeros_like(velocity), np.zeros_like(velocity), np.zeros(len(state))
    for unit, distance_m in (to_receive, _towards(spec.transmit, state)):
        along = np.sum(unit * velocity, axis=1, keepdims=True)
        away += unit / 2
        range_m += distance_m / 2
        across_hz += (velocity - along * unit) / (2 * distance_m[:, None])
    turned = _turned(to_receive[0], spec.receive.array.rotation)  # components along the array's axes
    expected = np.column_stack([turned[:, 1], turned[:, 2], range_m, -np.sum(away * velocity, axis=1)])
    slope = np.zeros((len(state), 4, 6))
    for row, axis in ((0, 1), (1, 2)):
        axis_w = spec.receive.array.rotation[:, axis]
        slope[:, row, :3] = (axis_w - turned[:, axis, None] * to_receive[0]) / to_receive[1][:, None]
    slope[:, 2, :3] = away
    slope[:, 3, :3] = -across_hz
    slope[:, 3, 3:] = -away
    return expected, slope, turned[:, 0]


def drift(
    state: Float[Array, "track 6"], covariance: Float[Array, "track 6 6"], step_s: float
) -> tuple[Float[Array, "track 6"], Float[Array, "track 6 6"]]:
    """States and covariances ``step_s`` later (or earlier) at constant velocity, ``F P F^T`` without any acceleration."""
    moved = np.array(state)
    moved[:, :3] += step_s * state[:, 3:]
    grown = np.array(covariance)
    grown[:, :3, :] += step_s * covariance[:, 3:, :]
    grown[:, :, :3] += step_s * grown[:, :, 3:]
    return moved, (grown + np.swapaxes(grown, -1, -2)) / 2


def illumination_db(
    spec: FrontendSpec,
    transmit_beam: BeamReport,
    receive_beam: BeamReport,
    transmit_slot: int,
    receive_slot: int,
    direction: Float[Array, "track 3"],
) -> Float[Array, " track"]:
    """Two-way gain (dB) of a dwell's beams towards receive-frame directions, 0 for perfect pointing of both.

    Of several chains the best counts; transmit chains of elements of their own send one dwell together. Read-back settings if the machine
    has them, else the set points, at the carrier; the element pattern is left out. ``-inf`` where a slot holds no row.
    """
    world = _turned(direction, spec.receive.array.rotation.T)
    towards = _turned(world, spec.transmit.array.rotation)
    out = _outputs(spec.transmit, transmit_beam, transmit_slot, towards, spec.carrier_hz)
    back = _outputs(spec.receive, receive_beam, receive_slot, direction, spec.carrier_hz)
    gain = _sent_power(spec.transmit, out, whole=True)
    # a chain of unit-norm weights gains at most as much as it has elements
    gain = gain * np.max(np.abs(back) ** 2 / spec.receive.network.wired.sum(axis=1), axis=1, initial=0.0)
    return np.asarray(10 * np.log10(gain, out=np.full(len(gain), -np.inf), where=gain > 0))


def echo_gain_db(observation: EchoObservation, dwell: int, direction: Float[Array, "item 3"]) -> Float[Array, " item"]:
    """Two-way power gain (dB) of a dwell's beams, all receive chains together, towards receive-frame directions in front; -300 for none."""
    spec, plan = observation.spec, observation.plan
    world = _turned(direction, spec.receive.array.rotation.T)
    sent = _turned(world, spec.transmit.array.rotation)
    out = _outputs(
        spec.transmit, observation.transmit_beam, int(plan.dwell_transmit_slot[dwell]), sent, spec.carrier_hz
    )
    back = _outputs(
        spec.receive, observation.receive_beam, int(plan.dwell_receive_slot[dwell]), direction, spec.carrier_hz
    )
    power = _sent_power(spec.transmit, out) * np.sum(np.abs(back) ** 2, axis=1)
    return np.asarray(10 * np.log10(np.maximum(power, 1e-30)))


def likeness(
    observation: EchoObservation, dwell: int, one: Float[Array, "item 3"], other: Float[Array, "place 3"]
) -> Float[Array, "item place"]:
    """How alike echoes from two directions look at a dwell's receive chains: 1 for outputs that differ by a factor only."""
    spec, slot = observation.spec, int(observation.plan.dwell_receive_slot[dwell])
    a, b = (_outputs(spec.receive, observation.receive_beam, slot, d, spec.carrier_hz) for d in (one, other))
    size = np.sum(np.abs(a) ** 2, axis=1)[:, None] * np.sum(np.abs(b) ** 2, axis=1)
    return np.asarray(np.abs(a.conj() @ b.T) ** 2 / np.maximum(size, 1e-30))


def _outputs(
    half: HalfSpec, report: BeamReport, slot: int, direction: Float[Array, "item 3"], carrier_hz: float
) -> Array:
    """Chain outputs ``response^T a(u)`` of the row a slot holds, [item chain]; zeros where it holds none."""
    held = _held(half, report, slot, carrier_hz)
    if held is None:
        return np.zeros((len(direction), len(half.network.wired)), dtype=np.complex128)
    if half.array.columns and len(direction) and np.all(np.any(direction != 0, axis=1)):
        at = nodes_of(half.array, np.array([carrier_hz]), True)
        grid = at.wave, at.spread, at.column_m, at.row_m, at.columns, at.rows
        every = np.ones((1, len(direction)), dtype=np.bool_)
        return np.asarray(
            planar_gains(np.ascontiguousarray(direction), 1.0, 0.0, *grid, held[None, None], every)[0, :, 0]
        )
    return np.asarray(steering(half.array, direction, carrier_hz) @ held)


@lru_cache(maxsize=16)  # a report is told from another by identity, and never changes
def _held(half: HalfSpec, report: BeamReport, slot: int, carrier_hz: float) -> Array | None:
    beam = report.setpoint if report.readback is None else report.readback
    row = np.flatnonzero(beam.slot == slot)[-1:]
    if not len(row):
        return None
    held = response(half.network, beam.delay_s[row], beam.phase_rad[row], beam.amplitude[row], np.array([carrier_hz]))[
        0, 0
    ]
    return np.asarray(held)


def _sent_power(half: HalfSpec, out: Complex[Array, "item chain"], whole: bool = False) -> Float[Array, " item"]:
    """Power that one stream through these chains sends; with ``whole`` over the most it could be.

    Chains of elements of their own carry it together in equal shares, of chains that share elements the best stands for all.
    """
    wired = half.network.wired
    elements = wired.sum(axis=1)
    if len(wired) > 1 and not np.any(wired.sum(axis=0) > 1):
        return np.asarray(np.abs(out.sum(axis=1)) ** 2 / (len(wired) * (elements.sum() if whole else 1)))
    return np.asarray(np.max(np.abs(out) ** 2 / (elements if whole else 1), axis=1, initial=0.0))


def _towards(half: HalfSpec, state: Float[Array, "track 6"]) -> tuple[Float[Array, "track 3"], Float[Array, " track"]]:
    vector_m = state[:, :3] - half.array.origin_m
    range_m = np.sqrt(np.sum(vector_m * vector_m, axis=1))
    return vector_m / np.maximum(range_m, 1e-3)[:, None], np.maximum(range_m, 1e-3)


def _position(spec: FrontendSpec, value: Float[Array, "detection 4"]) -> Float[Array, "detection 3"]:
    """The world point at the detection's angles whose mean distance to the two halves is its range (on their ellipsoid)."""
    uy, uz = value[:, 0], value[:, 1]
    # noise may push a grazing direction outside the unit disc
    long = np.maximum(np.sqrt(uy * uy + uz * uz) / 0.999999, 1.0)
    uy, uz = uy / long, uz / long
    local = np.column_stack([np.sqrt(1 - uy * uy - uz * uz), uy, uz])
    unit = _turned(local, spec.receive.array.rotation.T)
    between = spec.transmit.array.origin_m - spec.receive.array.origin_m
    range_m = np.maximum(value[:, 2], 1e-3)
    from_receive = (4 * range_m**2 - between @ between) / (4 * range_m - 2 * (unit @ between))
    return np.asarray(spec.receive.array.origin_m + from_receive[:, None] * unit)


def _turned(vector: Float[Array, "row 3"], rotation: Float[Array, "3 3"]) -> Float[Array, "row 3"]:
    """``rotation^T vector``, row by row."""
    return np.asarray(vector @ rotation)


def _joseph(
    state: Float[Array, "track 6"],
    covariance: Float[Array, "track 6 6"],
    innovation: Float[Array, "track value"],
    slope: Float[Array, "track value 6"],
    noise: Float[Array, "track value value"],
) -> tuple[Float[Array, "track 6"], Float[Array, "track 6 6"]]:
    """Kalman update; ``(I - K H) P (I - K H)^T + K R K^T`` stays symmetric and positive whatever the rounding of K."""
    cross = slope @ covariance
    gain = np.swapaxes(np.linalg.solve(cross @ np.swapaxes(slope, -1, -2) + noise, cross), -1, -2)
    left = np.eye(6) - gain @ slope
    posterior = left @ covariance @ np.swapaxes(left, -1, -2) + gain @ noise @ np.swapaxes(gain, -1, -2)
    return state + (gain @ innovation[..., None])[..., 0], (posterior + np.swapaxes(posterior, -1, -2)) / 2


def _rows(tracks: Tracks, keep: Bool[Array, " track"]) -> Tracks:
    return replace(
        tracks,
        track=tracks.track[keep],
        state=tracks.state[keep],
        covariance=tracks.covariance[keep],
        user=tracks.user[keep],
        confirmed=tracks.confirmed[keep],
        hits=tracks.hits[keep],
        misses=tracks.misses[keep],
        seen_ns=tracks.seen_ns[keep],
        looks=_looks(tracks)[keep],
        strength_db=_strength_db(tracks)[keep],
        born=max(tracks.born, int(tracks.track.max(initial=-1)) + 1),
    )


def _looks(tracks: Tracks) -> Int[Array, " track"]:
    return tracks.hits + tracks.misses if tracks.looks is None else tracks.looks


def _strength_db(tracks: Tracks) -> Float[Array, " track"]:
    return np.zeros(len(tracks.track)) if tracks.strength_db is None else tracks.strength_db


def _directions(value: Float[Array, "detection 4"]) -> Float[Array, "detection 3"]:
    ux = np.sqrt(np.maximum(1 - value[:, 0] ** 2 - value[:, 1] ** 2, 0.0))
    return np.column_stack([ux, value[:, :2]])


@lru_cache(maxsize=16)
def _chi2(probability: float, freedom: int) -> float:
    from scipy.special import gammaincinv

    return float(2 * gammaincinv(freedom / 2, probability))
