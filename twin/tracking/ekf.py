"""Extended Kalman tracks in the world frame from four-parameter detections, dwell by dwell, all tracks of a dwell at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import numpy as np

from hal.array import LIGHT_MPS, half_power_beamwidth, steering
from hal.check import Ge, Gt, Lt, finite
from hal.errors import Misuse
from hal.frontend import BeamReport, FrontendSpec, HalfSpec
from hal.planar import nodes_of, planar_gains
from hal.record import Array, Bool, Complex, Float, Int
from twin.physics.held import held
from twin.physics.motion import carry, expect
from twin.records import Detections, EchoObservation, Tracks
from twin.tracking._kernels import compare, correct, gains_db, images

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
        sigma_mps2 = np.array([self.acceleration_mps2, self.acceleration_mps2, self.vertical_acceleration_mps2])
        state, covariance = np.array(tracks.state), np.array(tracks.covariance)
        carry(state, covariance, (t_ns - tracks.t_ns) * 1e-9, 2 * self.acceleration_hold_s * sigma_mps2**2)
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
        for dwell in range(dwells):
            own = np.flatnonzero(detections.dwell == dwell)
            t_ns = int(detections.t_ns[own[0]]) if own.size else observation.t_ns + dwell * dwell_ns + dwell_ns // 2
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
        noise = (covariance + covariance.swapaxes(1, 2)) / 2 + np.diag(floor**2)
        level = np.isinf(noise[:, 1, 1])
        value, noise = self._levelled(value, noise, level, spec)
        state, posterior = np.array(tracks.state), np.array(tracks.covariance)
        expected, slope, ux, spread = _expected(spec, state, posterior)
        distance, size, late = compare(value, noise, expected, spread)
        track, detection = self._assign(distance, size)

        here, there = _directions(value), _directions(expected)
        out, back = _outputs(observation, dwell, np.concatenate([here, there]))
        gain_db, pointed_db = _gains_db(spec, out, back)
        straight_db, through_db = snr_db - gain_db[: len(here)], gain_db[len(here) :]
        # an echo later than one frame without its prefix folds over: what lies beyond is not looked at
        reach_m = LIGHT_MPS / 2 * observation.numerology.delay_bins / observation.numerology.sample_rate_hz
        lit = (pointed_db[len(here) :] >= -self.main_lobe_db) & (ux > 0) & (expected[:, 2] < reach_m)

        seen, strength_db = np.zeros(len(state), dtype=bool), _strength_db(tracks).copy()
        seen[track] = True
        origin = np.repeat((tracks.confirmed & ~lit)[:, None], len(value), axis=1)
        origin[track, detection] = False  # a track's own detection is no image of it
        image: Array = images(
            late,
            _chi2(self.gate_probability, 2),
            snr_db - (strength_db + through_db)[:, None],
            self.image_db,
            value,
            expected,
            half_power_beamwidth(spec.receive.array, spec.carrier_hz),
            back,
            self.image_likeness,
            origin,
        )
        if len(track):
            gap, seen_by, blur = value[detection] - expected[track], slope[track], noise[detection]
            flat = np.flatnonzero(level[detection])
            if flat.size:
                gap[flat, 1], seen_by[flat, 1] = self.height_m - state[track[flat], 2], np.eye(6)[2]
                blur[flat, 1, :], blur[flat, :, 1] = 0.0, 0.0
                blur[flat, 1, 1] = self._height_noise(posterior[track[flat], 2, 2])
            correct(state, posterior, track, gap, seen_by, blur)
            strength_db[track] += (1 - self.strength_memory) * (straight_db[detection] - strength_db[track])
        hits, looks = tracks.hits + seen, _looks(tracks) + (seen | lit)
        columns = {
            "track": tracks.track,
            "state": state,
            "covariance": posterior,
            "user": tracks.user,
            "confirmed": tracks.confirmed | ((hits >= self.confirm_hits) & (looks <= self.confirm_window)),
            "hits": hits,
            "misses": np.where(seen, 0, tracks.misses + lit),
            "seen_ns": np.where(seen, tracks.t_ns, tracks.seen_ns),
            "looks": looks,
            "strength_db": strength_db,
        }
        born = max(tracks.born, int(tracks.track.max(initial=-1)) + 1)
        keep = self._alive(tracks.t_ns, columns)
        keep[track[image[detection]]] = False  # it lived on images, born before their origin was confirmed
        if not keep.all():
            columns = {name: column[keep] for name, column in columns.items()}
        image[detection] = True
        new = np.flatnonzero(~image)
        if new.size:
            born += new.size
            newborn = self._born(born, value[new], noise[new], straight_db[new], tracks.t_ns, spec)
            columns = {name: np.concatenate([column, newborn[name]]) for name, column in columns.items()}
        return Tracks(t_ns=tracks.t_ns, born=born, **columns)

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

    def _assign(
        self, distance: Float[Array, "track detection"], size: Float[Array, "track detection"]
    ) -> tuple[Int[Array, " pair"], Int[Array, " pair"]]:
        """Pairs that minimise the summed negative log likelihood over the dwell, ascending; a track may stay without."""
        inside = distance <= _chi2(self.gate_probability, 4)
        if not inside.any():
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        from scipy.optimize import linear_sum_assignment

        cost = distance + size
        # going without costs as much as the worst pair inside any gate, so that every pair inside its gate is worth having
        alone = cost[inside].max() + 1.0
        tracks, detections = cost.shape
        table = np.full((tracks, detections + tracks), alone + 1e6)
        table[:, :detections][inside] = cost[inside]
        table[np.arange(tracks), detections + np.arange(tracks)] = alone
        track, column = linear_sum_assignment(table)
        took = column < detections
        return track[took], column[took]

    def _alive(self, t_ns: int, columns: dict[str, Array]) -> Bool[Array, " track"]:
        hits, spread = columns["hits"], columns["covariance"]
        trace = spread[:, 0, 0] + spread[:, 1, 1] + spread[:, 2, 2]
        chances = np.maximum(self.confirm_window - columns["looks"], 0)
        over = np.where(columns["confirmed"], columns["misses"] >= self.miss_limit, hits + chances < self.confirm_hits)
        lost = t_ns - columns["seen_ns"] > self.lost_s * 1e9
        return np.asarray(~(over | lost) & (trace <= self.position_limit_m**2))

    def _born(
        self,
        end: int,
        value: Float[Array, "detection 4"],
        noise: Float[Array, "detection 4 4"],
        strength_db: Float[Array, " detection"],
        t_ns: int,
        spec: FrontendSpec,
    ) -> dict[str, Array]:
        """A track for each detection: position from angles and range, then the velocity prior conditioned on the closing speed."""
        born = len(value)
        state = np.zeros((born, 6))
        state[:, :3] = _position(spec, value)
        covariance = np.zeros((born, 6, 6))
        expected, slope, _, _ = _expected(spec, state, covariance)
        into = np.linalg.inv(slope[:, :3, :3])
        covariance[:, :3, :3] = into @ noise[:, :3, :3] @ into.swapaxes(1, 2)
        i = np.arange(3, 6)
        covariance[:, i, i] = np.array([self.birth_speed_mps, self.birth_speed_mps, self.birth_vertical_speed_mps]) ** 2
        speed = (value - expected)[:, 3:], slope[:, 3:], noise[:, 3:, 3:]
        correct(state, covariance, np.arange(born), *(np.ascontiguousarray(a) for a in speed))
        one = np.ones(born, dtype=np.int64)
        return {
            "track": end - born + np.arange(born),
            "state": state,
            "covariance": covariance,
            "user": -one,
            "confirmed": np.full(born, self.confirm_hits <= 1),
            "hits": one,
            "misses": 0 * one,
            "seen_ns": t_ns * one,
            "looks": one,
            "strength_db": strength_db,
        }


def measure(
    spec: FrontendSpec, state: Float[Array, "track 6"]
) -> tuple[Float[Array, "track 4"], Float[Array, "track 4 6"], Float[Array, " track"]]:
    """What a detector would say of world-frame states ``x y z vx vy vz``, its slope with respect to them, and ``ux``.

    ``uy, uz`` are the direction's cosines in the receive array's frame; with r_t, r_r the distances to the halves' phase centres,
    ``range_m = (r_t + r_r) / 2`` and ``velocity_mps = -d range / dt``, which is half the delay times c whether or not the halves share a place.
    A state at a phase centre has no direction: it is treated as a millimetre away.
    """
    expected, slope, ux, _ = _expected(spec, np.array(state), np.zeros((len(state), 6, 6)))
    return expected, slope, ux


def _expected(spec: FrontendSpec, state: Array, covariance: Array) -> tuple[Array, Array, Array, Array]:
    """``measure``, and the covariance of what it expects."""
    array = spec.receive.array
    found: tuple[Array, Array, Array, Array] = expect(
        state, covariance, array.rotation, array.origin_m, spec.transmit.array.origin_m
    )
    return found


def drift(
    state: Float[Array, "track 6"], covariance: Float[Array, "track 6 6"], step_s: float
) -> tuple[Float[Array, "track 6"], Float[Array, "track 6 6"]]:
    """States and covariances ``step_s`` later (or earlier) at constant velocity, ``F P F^T`` without any acceleration."""
    moved, grown = np.array(state), np.array(covariance)
    carry(moved, grown, step_s, np.zeros(3))
    return moved, grown


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
    slots = (transmit_beam, transmit_slot), (receive_beam, receive_slot)
    pointed_db: Array = _gains_db(spec, *_chain_outputs(spec, *slots, direction))[1]
    return pointed_db


def echo_gain_db(observation: EchoObservation, dwell: int, direction: Float[Array, "item 3"]) -> Float[Array, " item"]:
    """Two-way power gain (dB) of a dwell's beams, all receive chains together, towards receive-frame directions in front; -300 for none."""
    gain_db: Array = _gains_db(observation.spec, *_outputs(observation, dwell, direction))[0]
    return gain_db


def _gains_db(spec: FrontendSpec, out: Complex[Array, "item chain"], back: Complex[Array, "item rchain"]) -> Any:
    sent, together = _elements(spec.transmit)
    return gains_db(out, back, sent, _elements(spec.receive)[0], together)


def _outputs(observation: EchoObservation, dwell: int, direction: Float[Array, "item 3"]) -> tuple[Array, Array]:
    """``_chain_outputs`` of a dwell's beams."""
    plan = observation.plan
    to = observation.transmit_beam, int(plan.dwell_transmit_slot[dwell])
    at = observation.receive_beam, int(plan.dwell_receive_slot[dwell])
    return _chain_outputs(observation.spec, to, at, direction)


def _chain_outputs(
    spec: FrontendSpec, to: tuple[BeamReport, int], at: tuple[BeamReport, int], direction: Float[Array, "item 3"]
) -> tuple[Array, Array]:
    """``response^T a(u)`` of the rows that slots of both halves hold, ``[item chain]`` each, towards receive-frame directions."""
    sent = direction @ (spec.receive.array.rotation.T @ spec.transmit.array.rotation)
    halves = (spec.transmit, to, sent), (spec.receive, at, direction)
    out, back = (
        _pattern(half, held(half, *beam, spec.carrier_hz), towards, spec.carrier_hz) for half, beam, towards in halves
    )
    return out, back


def _pattern(half: HalfSpec, row: Array | None, direction: Float[Array, "item 3"], carrier_hz: float) -> Array:
    """One row's ``response^T a(u)`` at the carrier, element pattern left out; zero without a row."""
    if row is None:
        return np.zeros((len(direction), len(half.network.wired)), dtype=np.complex128)
    if half.array.columns:
        at = nodes_of(half.array, np.array([carrier_hz]), True)
        grid = at.wave, at.spread, at.column_m, at.row_m, at.columns, at.rows
        every = np.ones((1, len(direction)), dtype=np.bool_)
        found: Array = planar_gains(np.ascontiguousarray(direction), 1.0, 0.0, *grid, row[None, None], every)
        if len(found):
            return np.asarray(found[0, :, 0])
    return np.asarray(steering(half.array, direction, carrier_hz) @ row)


@lru_cache(maxsize=16)
def _elements(half: HalfSpec) -> tuple[Int[Array, " chain"], bool]:
    """How many elements each chain has, and whether several chains have elements of their own."""
    wired = half.network.wired
    return wired.sum(axis=1), len(wired) > 1 and not np.any(wired.sum(axis=0) > 1)


def _position(spec: FrontendSpec, value: Float[Array, "detection 4"]) -> Float[Array, "detection 3"]:
    """The world point at the detection's angles whose mean distance to the two halves is its range (on their ellipsoid)."""
    uy, uz = value[:, 0], value[:, 1]
    # noise may push a grazing direction outside the unit disc
    long = np.maximum(np.sqrt(uy * uy + uz * uz) / 0.999999, 1.0)
    uy, uz = uy / long, uz / long
    local = np.column_stack([np.sqrt(1 - uy * uy - uz * uz), uy, uz])
    unit = local @ spec.receive.array.rotation.T
    between = spec.transmit.array.origin_m - spec.receive.array.origin_m
    range_m = np.maximum(value[:, 2], 1e-3)
    from_receive = (4 * range_m**2 - between @ between) / (4 * range_m - 2 * (unit @ between))
    return np.asarray(spec.receive.array.origin_m + from_receive[:, None] * unit)


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
