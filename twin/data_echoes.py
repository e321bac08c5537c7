"""Echoes of data blocks: which blocks are listened to and for whom, and what they say of the tracks that the data beams lit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np

from hal.array import LIGHT_MPS
from hal.chain import thermal_noise_w
from hal.check import Ge, Gt, In, Le, Lt
from hal.errors import Misuse
from hal.frontend import BeamReport, FrontendSpec, HalfSpec
from hal.network import response
from hal.reception import noise_root
from hal.record import Array, Bool, Complex, Float
from twin.physics.block_echoes import Block, Feed, Geometry, feed, fit, patterns, relate, signatures, whitened
from twin.planning import Requests
from twin.planning._rows import squinted, unit
from twin.records import BlockEchoes, EchoObservation, Numerology, Plan, Refinement, Tracks
from twin.tracking import Tracker
from twin.tracking.ekf import drift, measure

__all__ = ["DataEchoes", "block_of", "geometry_of"]


@dataclass(frozen=True)
class DataEchoes:
    """Listens to data blocks: their symbols are known here, so the echoes of what their beams light tell directions and ranges of tracks.

    A block gives one sample a subcarrier and chain, its symbols integrated over ``integration_us``; the rest of the block is not used. All tracks that may be
    heard are fitted together by maximum likelihood around their predictions (``twin.physics.block_echoes.fit``), the reflection of each in each block
    an unknown complex number, the same over the band; its covariance is the Fisher information's of the combiner in force. Confirmed tracks are
    updated with it: direction, and range where their prediction is sure enough to tell it from its repetition every ``c / (2 spacing)``.
    Left out: births, clutter, Doppler (what it turns within ``integration_us`` only costs power), movers wider than a range cell of the data band.
    """

    blocks: Annotated[int, Ge(0)] = 0  # data blocks a subframe that are listened to; 0: none
    integration_ns: Annotated[int, In("us"), Gt(0)] = 10_000  # 2500 symbols of 250 MHz; 13 kHz of Doppler cost 0.25 dB
    directions: Annotated[int, Ge(1)] = 1  # tracks a subframe at which receive beams are pointed for it
    squint: Annotated[float, Ge(0), Le(1)] = 0.3  # of those beams about their direction, in beamwidths
    most_targets: Annotated[int, Ge(1)] = 6  # fitted together: the strongest as expected
    detect_db: Annotated[float, Ge(10)] = 17.0  # integrated; noise alone peaks at 13 dB over four blocks and all ranges
    gate_probability: Annotated[float, Gt(0), Lt(1)] = 0.9997  # that a track's own estimate falls in its gate
    # model errors added to an estimate's own, one sigma
    angle_floor: Annotated[float, Ge(0)] = 5e-4  # direction cosines
    range_floor_m: Annotated[float, Ge(0)] = 0.05
    velocity_floor_mps: Annotated[float, Ge(0)] = 0.05

    def less(self, spec: FrontendSpec) -> FrontendSpec:
        """The machine without what listening takes of it: two sets of receive slots, used by turns, and the time that loading one takes.

        Raises Misuse for a receive memory with nothing left.
        """
        return _less(spec, self.directions) if self.blocks else spec

    def listening(
        self,
        plan: Plan,
        tracks: Tracks,
        transmit: BeamReport,
        spec: FrontendSpec,
        numerology: Numerology,
        start_ns: int,
    ) -> Plan:
        """The plan, with a receive slot for the data blocks that are listened to, unless it names some itself.

        Block by block the pair of block and confirmed track is taken whose position error falls most in the mean: by its covariance, by its strength, and by
        what the data beam of that block, as it was last set, brings to it. Blocks that open with pilots, or come before the first of them, are not heard.
        """
        if not self.blocks or plan.echo_slot is not None or plan.baseband is not None:  # several streams are not heard
            return plan
        whom = np.flatnonzero(tracks.confirmed)
        first = int(plan.update_block[0]) if len(plan.update_block) else plan.sensing_blocks
        block = np.setdiff1d(np.flatnonzero(plan.slot >= 0), plan.update_block)
        block = block[block >= first][::-1]  # latest first: of equals the first is taken
        if not (len(whom) and len(block)):
            return plan
        middle_ns = start_ns + numerology.subframe_ns // 2
        state, covariance = drift(tracks.state[whom], tracks.covariance[whom], (middle_ns - tracks.t_ns) * 1e-9)
        expected, slope, ahead = measure(spec, state)
        prior = np.diagonal(slope[:, :2] @ covariance @ np.swapaxes(slope[:, :2], 1, 2), axis1=1, axis2=2).copy()
        slots, own = np.unique(plan.slot[block], return_inverse=True)
        lit = np.stack([self._lit(spec, transmit, int(slot), expected) for slot in slots])[own]  # [block track]
        snr = lit * self._strength(tracks, spec, numerology)[whom] * (ahead > 0)
        lever = (2 * np.pi * spec.carrier_hz / LIGHT_MPS) ** 2 * np.var(spec.receive.array.position_m[:, 1:], axis=0)
        look = 1 / np.maximum(2 * snr[:, :, None] * lever, 1e-30)  # variance of one look, [block track axis]
        enough = snr >= 10 ** (self.detect_db / 10)
        slot, track = np.full(numerology.blocks, -1), np.full(numerology.blocks, -1)
        chosen: list[int] = []
        for _ in range(min(self.blocks, len(block))):
            gain = np.sum(prior**2 / (prior + look), axis=2) * expected[:, 2] ** 2 * enough
            gain[track[block] >= 0] = 0.0
            if len(chosen) == self.directions:
                gain[:, np.setdiff1d(np.arange(len(whom)), chosen)] = 0.0
            b, k = np.unravel_index(int(np.argmax(gain)), gain.shape)
            if not gain[b, k] > 0:
                break
            chosen += [] if k in chosen else [int(k)]
            slot[block[b]] = self._slot(spec, plan.k, chosen.index(int(k)))
            track[block[b]] = tracks.track[whom[k]]
            prior[k] = prior[k] * look[b, k] / (prior[k] + look[b, k])
        return replace(plan, echo_slot=slot, echo_track=track) if chosen else plan

    def requests(self, plan: Plan, tracks: Tracks, spec: FrontendSpec, t_ns: int) -> Requests:
        """Receive rows for the plan's listening, pointed where its tracks are believed to be at ``t_ns``; no transmit row."""
        none, far = np.zeros(0, dtype=np.int64), np.zeros((0, 3))
        slots, tracked = (none if given is None else given for given in (plan.echo_slot, plan.echo_track))
        named, at = np.unique(slots, return_index=True)
        same = tracked[at, None] == tracks.track
        there = np.flatnonzero((named >= 0) & same.any(axis=1))
        state, _ = drift(tracks.state, tracks.covariance, (t_ns - tracks.t_ns) * 1e-9)
        direction = unit(measure(spec, state[same[there].argmax(axis=1)])[0][:, :2]) if len(there) else far
        return Requests(
            transmit_slot=none,
            transmit_direction=far,
            transmit_user=none,
            transmit_track=none,
            receive_slot=named[there],
            receive_direction=squinted(spec.receive, spec.carrier_hz, direction, self.squint),
            receive_centre=direction,
        )

    def refined(self, seen: EchoObservation, tracks: Tracks, tracker: Tracker) -> tuple[Tracks, Refinement | None]:
        """Tracks after the echoes in ``seen.blocks``, at their mean time, and what those said; as they were where nothing was heard."""
        heard = seen.blocks
        if heard is None or not len(heard.listen.t_ns):
            return tracks, None
        t_ns = np.asarray(heard.listen.t_ns) + self.integration_ns // 2
        tracks = tracker.predict(tracks, max(int(t_ns.sum()) // len(t_ns), tracks.t_ns))
        whom = np.flatnonzero(measure(seen.spec, tracks.state)[2] > 0)
        place, slope, _ = measure(seen.spec, tracks.state[whom])
        blocks = []
        for event, after_s in enumerate(((t_ns - tracks.t_ns) * 1e-9).tolist()):
            state, _ = drift(tracks.state[whom], tracks.covariance[whom], after_s)
            ahead = (measure(seen.spec, state)[0] - place)[:, :3]
            after_s *= len(t_ns) > 1  # one block tells no speed: the predicted one holds
            ahead[:, 2] += place[:, 3] * after_s
            one = block_of(seen.spec, seen.transmit_beam, seen.receive_beam, heard, event, after_s, ahead)
            blocks += [] if one is None else [one]
        if not (blocks and len(whom)):
            return tracks, None
        geometry = geometry_of(seen.spec, heard.drive.frequency_hz)
        power = sum(np.sum(np.abs(signatures(b, place, geometry)[0]) ** 2, axis=1) / b.noise_w for b in blocks)
        rate = self._amplitude(tracks, seen.spec, seen.numerology)[whom] * power
        some = np.sort(np.argsort(-rate, kind="stable")[: self.most_targets])
        some = some[rate[some] >= 1.0]
        sigma_m = np.sqrt(np.einsum("ki,kij,kj->k", slope[:, 2], tracks.covariance[whom], slope[:, 2]))[some]
        spacing_hz = np.diff(heard.drive.frequency_hz).min(initial=np.inf)
        again_m = LIGHT_MPS / (2 * spacing_hz)
        found = fit(
            [replace(b, ahead=b.ahead[some]) for b in blocks],
            place[some],
            np.minimum(3 * sigma_m, again_m / 2),
            geometry,
            10 ** (self.detect_db / 10),
        )
        # directions turn between the blocks as the track's velocity says, and it says so with an error
        spread_s2 = np.mean([b.after_s**2 for b in blocks])
        turning = slope[some, :2, :3] @ tracks.covariance[whom[some], 3:, 3:] @ np.swapaxes(slope[some, :2, :3], 1, 2)
        covariance = found.covariance.copy()
        covariance[:, :2, :2] += spread_s2 * turning
        covariance[10 * sigma_m > again_m, 2, :], covariance[10 * sigma_m > again_m, :, 2] = 0.0, 0.0
        covariance[10 * sigma_m > again_m, 2, 2] = np.inf
        kept = found.found & tracks.confirmed[whom[some]]
        told = Refinement(
            t_ns=tracks.t_ns,
            track=tracks.track[whom[some]][kept],
            value=found.place[kept],
            covariance=covariance[kept],
            snr_db=10 * np.log10(np.maximum(found.snr[kept], 1e-30)),
            taken=np.zeros(int(kept.sum()), dtype=bool),
            misfit=float(found.misfit),
        )
        after, taken = self._updated(tracks, told, seen.spec)
        return after, replace(told, taken=taken)

    def _updated(self, tracks: Tracks, told: Refinement, spec: FrontendSpec) -> tuple[Tracks, Bool[Array, " look"]]:
        """Kalman update, at the tracks' own time, with what falls in their gates: direction, and range where its variance is finite."""
        state, covariance, seen_ns = np.array(tracks.state), np.array(tracks.covariance), np.array(tracks.seen_ns)
        taken = np.zeros(len(told.track), dtype=bool)
        expected, slope, _ = measure(spec, state)
        floor = np.diag(
            np.array([self.angle_floor, self.angle_floor, self.range_floor_m, self.velocity_floor_mps]) ** 2
        )
        for look, own in enumerate(np.searchsorted(tracks.track, told.track)):
            known = np.flatnonzero(np.isfinite(np.diagonal(told.covariance[look])))
            noise = (told.covariance[look] + floor)[np.ix_(known, known)]
            gap, seen_by = (told.value[look] - expected[own])[known], slope[own, known]
            total = seen_by @ covariance[own] @ seen_by.T + noise
            if not (len(known) and gap @ np.linalg.solve(total, gap) <= _chi2(self.gate_probability, len(known))):
                continue
            gain = np.linalg.solve(total, seen_by @ covariance[own]).T
            left = np.eye(6) - gain @ seen_by  # Joseph's form stays positive
            state[own] += gain @ gap
            covariance[own] = left @ covariance[own] @ left.T + gain @ noise @ gain.T
            seen_ns[own], taken[look] = tracks.t_ns, True
        return replace(tracks, state=state, covariance=covariance, seen_ns=seen_ns), taken

    def _amplitude(self, tracks: Tracks, spec: FrontendSpec, numerology: Numerology) -> Float[Array, " track"]:
        """Believed two-way power ratio between unit-gain antennas: what a track's mean strength in dwells stands for."""
        samples = numerology.delay_bins * numerology.doppler_bins * numerology.frames_per_dwell
        noise_w = thermal_noise_w(numerology.sample_rate_hz, spec.noise_figure_db)
        strength_db = np.zeros(len(tracks.track)) if tracks.strength_db is None else tracks.strength_db
        return np.asarray(10 ** (strength_db / 10) * noise_w / (spec.transmit_power_w * samples))

    def _strength(self, tracks: Tracks, spec: FrontendSpec, numerology: Numerology) -> Float[Array, " track"]:
        """Expected SNR of one block at unit gain of the sending beam, heard by beams that point at it."""
        noise_w = thermal_noise_w(1e9 / self.integration_ns, spec.noise_figure_db)
        heard = len(spec.receive.array.position_m) * spec.transmit_power_w / noise_w
        return self._amplitude(tracks, spec, numerology) * heard

    def _lit(
        self, spec: FrontendSpec, report: BeamReport, slot: int, expected: Float[Array, "track 4"]
    ) -> Float[Array, " track"]:
        """Power gain of a data beam, at the carrier, towards tracks."""
        held = _row(report, slot)
        if held is None:
            return np.zeros(len(expected))
        at = np.array([spec.carrier_hz])
        whole = response(spec.transmit.network, *held, at).sum(axis=-1)[:, :, None]
        out = patterns(feed(spec.transmit.array, whole, at), expected[:, :2])[:, 0, 0, 0]
        return np.asarray(np.abs(out) ** 2 / len(held[0]))

    def _slot(self, spec: FrontendSpec, k: int, direction: int) -> int:
        return spec.receive.memory_slots - 1 - (k % 2) * self.directions - direction


@lru_cache(maxsize=4)  # planners know a machine by its identity
def _less(spec: FrontendSpec, directions: int) -> FrontendSpec:
    left = spec.receive.memory_slots - 2 * directions
    if not left > 0:
        raise Misuse(
            f"receive.memory_slots = {spec.receive.memory_slots}: data_echoes takes {2 * directions} of them; give the half more"
        )
    more_ns = directions * int(spec.receive.network.wired.sum()) * spec.bus_ns_per_element
    return replace(
        spec,
        receive=replace(spec.receive, memory_slots=left),
        command_latency_ns=spec.command_latency_ns + more_ns,
    )


def geometry_of(spec: FrontendSpec, frequency_hz: Float[Array, " subcarrier"]) -> Geometry:
    """The geometry of a front end's halves over a band (Hz)."""
    return relate(spec.transmit.array, spec.receive.array, frequency_hz, spec.carrier_hz)


def block_of(
    spec: FrontendSpec,
    transmit: BeamReport | Complex[Array, "subcarrier element chain"],
    receive: BeamReport,
    heard: BlockEchoes,
    event: int,
    after_s: float,
    ahead: Float[Array, "target 3"],
) -> Block | None:
    """One event as ``twin.physics.block_echoes`` wants it; None where either half's slot holds nothing.

    ``transmit`` is what the machine reported, or the response that was really in force (bounds want the truth).
    """
    drive, f = heard.drive, heard.drive.frequency_hz
    held = _row(transmit, int(drive.slot[event])) if isinstance(transmit, BeamReport) else None
    hear = _row(receive, int(heard.listen.slot[event]))
    if hear is None or (held is None and isinstance(transmit, BeamReport)):
        return None
    sent = transmit if held is None else response(spec.transmit.network, *held, f)
    root_w = np.sqrt(drive.power_w[event])
    ear, white = _ear(spec.receive, *(part.tobytes() for part in hear), np.asarray(f).tobytes())
    wide = np.broadcast_to(white, (len(f), *white.shape[1:]))
    leak = np.zeros((0, *wide.shape[:2]), dtype=np.complex128)
    if np.isfinite(spec.isolation_db):
        leak = np.moveaxis(wide, 2, 0) * root_w[:, None]
    return Block(
        sent=feed(spec.transmit.array, (sent @ drive.digital[event].sum(axis=-1))[:, :, None], f),
        root_w=root_w,
        heard=ear,
        leak=leak.reshape(len(leak), -1) if len(leak) else leak.reshape(0, wide.shape[0] * wide.shape[1]),
        samples=(wide @ heard.echo.samples[event].T[:, :, None]).reshape(-1),
        noise_w=heard.echo.noise_w,
        after_s=after_s,
        ahead=ahead,
    )


def _row(report: object, slot: int) -> tuple[Array, Array, Array] | None:
    assert isinstance(report, BeamReport)
    beam = report.setpoint if report.readback is None else report.readback
    row = np.flatnonzero(beam.slot == slot)[-1:]
    if not row.size or not np.any(beam.amplitude[row[0]]):
        return None
    return beam.delay_s[row[0]], beam.phase_rad[row[0]], beam.amplitude[row[0]]


@lru_cache(maxsize=16)
def _ear(
    half: HalfSpec, delay_s: bytes, phase_rad: bytes, amplitude: bytes, hertz: bytes
) -> tuple[Feed, Complex[Array, "subcarrier row chain"]]:
    """Whitened receive response over the band, and the whitener: one subcarrier's where a row is the same at all."""
    network, f = half.network, np.frombuffer(hertz)
    chains = len(network.wired)
    delays, phases, sizes = (np.frombuffer(part).reshape(chains, -1) for part in (delay_s, phase_rad, amplitude))
    held = response(network, delays, phases, sizes, f if network.lines else f[:1])
    held, white = whitened(held, noise_root(network.wired, held))
    return feed(half.array, held, f), white


@lru_cache(maxsize=16)
def _chi2(probability: float, freedom: int) -> float:
    from scipy.special import gammaincinv

    return float(2 * gammaincinv(freedom / 2, probability))
