"""Key figures: what the truth says of the belief and of the beams. Beside the loop, the only room that sees both.

Rates come from the drawn channel and the realised beam, errors from the true mover, bounds from the realised illumination; nothing here is
a planner's formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS as C
from hal.array import element_amplitude, steering_gradient
from hal.frontend import BeamReport, Emission, FrontendSpec, HalfSpec, Listen
from hal.medium import Paths, beam_gains
from hal.planar import nodes_of, patterns_at
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.channel import doppler_block_product
from twin.link import Carried
from twin.overheard import Overheard, data_errors
from twin.physics.bounds import direction_information, informed_bound
from twin.physics.draws import Draws
from twin.physics.held import held
from twin.records import Belief, Detections, EchoObservation, Numerology, Truth

__all__ = [
    "Blocks",
    "Dwell",
    "Kpi",
    "Scorer",
    "bound_detections",
    "dwell_bound",
    "no_blocks",
    "with_carried",
    "with_served",
]

ELEVATION = np.diag([False, True, False, False])  # of a covariance: uz
SAME_MOVER_M = 4.0  # a detection or track nearer than this to a mover is of that mover: a car's length


@record
class Kpi:
    """One subframe's key figures. Axes are fixed for the run: ``user`` and ``entity`` list everyone who ever takes part; NaN where absent."""

    k: int
    t_ns: int
    user: Int[Array, " user"]
    rate_bps: Float[Array, " user"]  # delivered in the subframe, over its whole period
    predicted_bps: Float[Array, " user"]  # the same, as believed when the baseband was set
    snr_db: Float[
        Array, " user"
    ]  # mean over the user's served blocks and subcarriers; other users' streams count as noise
    beam_loss_db: Float[Array, " user"]  # what a matched beam on the same paths would have had above it
    served_blocks: Int[Array, " user"]
    outage_blocks: Int[Array, " user"]  # served blocks whose mean SNR is under the outage threshold
    block_rate_bps: Float[Array, "block user"]  # while the block lasts
    entity: Int[Array, " entity"]
    tracked: Int[Array, " entity"]  # the confirmed track that follows it, or -1
    position_error_m: Float[Array, " entity"]  # of that track
    track_sigma_m: Float[Array, " entity"]  # what that track believes its error to be
    error: Float[Array, "entity 4"]  # best-lit detection minus truth: uy, uz, range_m, velocity_mps
    bound: Float[Array, "entity 4"]  # standard deviation no unbiased estimate beats in that dwell
    echo_snr_db: Float[Array, " entity"]  # integrated, in its best-lit dwell
    tracks_confirmed: int
    tracks_tentative: int
    tracks_false: int  # confirmed, and no mover near
    track_nees: float  # mean normalised squared error of followed tracks' positions; 3 expected
    detections: int
    side_lobe_echoes: int  # detections with a mover's range and speed, but not its direction
    false_alarms: int  # detections that are nobody's
    lit: int  # movers in the main lobe of a dwell at 20 dB and more
    missed: int  # of those, not detected
    nees: float  # mean normalised squared error of detections; 4 expected
    users_bound: int
    users_bound_right: int  # to the track that follows them
    swaps: int
    rebindings: int
    sensing_share: float
    beams_set: int  # rows loaded
    beams_clipped: int  # settings out of range
    beam_delay_us: float  # from the command to a beam in force
    doppler_block: float  # largest Doppler spread x block; above 0.3 the block-fading picture breaks
    dropped_w: float  # stated bound on incident power left out
    # of a planner that predicts (``Plan.planned_bps``): the same rate as ``rate_bps``, as expected when the subframe was planned
    planned_bps: Float[Array, " user"] | None = None  # mean over channels drawn from the belief
    formula_bps: Float[Array, " user"] | None = None  # by equation (22) of papers/004
    surprise: Float[Array, " user"] | None = (
        None  # of the pilots (``ChannelEstimate.surprise``); above 1: the belief is stale
    )
    updates: int | None = None  # that the plan had
    reason: tuple[str, ...] | None = None  # why it is as it is, one a user of the plan or one for all
    short_db: float | None = (
        None  # believed utility of the beams below ``direct``'s, decibels of bound, where it was compared
    )
    # of data sent as a waveform (``twin.link``)
    data_bits: Int[Array, " user"] | None = None  # uncoded, of the frames that were played
    ber: Float[Array, " user"] | None = None  # share of them decided wrongly
    evm_db: Float[Array, " user"] | None = None  # mean square error of a unit-power symbol after the equaliser
    efficiency_bps_hz: Float[Array, " user"] | None = (
        None  # of users with several antennas, mean over their served blocks (``twin.antennas``)
    )
    # of data blocks of the subframe before that were listened to (``twin.data_echoes``): as ``error`` and ``bound``
    data_error: Float[Array, "entity 4"] | None = None  # estimate minus truth
    data_bound: Float[Array, "entity 4"] | None = None  # standard deviation no unbiased estimate beats in those blocks
    data_looks: int | None = None  # tracks that were heard
    data_taken: int | None = None  # of them, updated


@dataclass(frozen=True)
class Dwell:
    """What one dwell really was: for bounds, and for detections drawn from them."""

    truth: Truth
    paths: Paths
    emission: Emission
    listen: Listen
    noise_w: float


@record
class Blocks:
    """What the data blocks of one subframe delivered, so far."""

    user: Int[Array, " user"]
    served: Bool[Array, "block user"]
    rate_bps: Float[Array, "block user"]
    snr: Float[Array, "block user"]  # mean over subcarriers, ratio
    matched: Float[Array, "block user"]  # the same with a matched beam on the same path powers
    carried: Float[Array, "block user 3"] | None = (
        None  # bits, wrong bits, mean square error of the frame played; None: none is
    )
    efficiency: Float[Array, "block user"] | None = (
        None  # bit/s/Hz of users with several antennas; None: there are none
    )


def no_blocks(numerology: Numerology, user: Int[Array, " user"], played: bool = False, arrays: bool = False) -> Blocks:
    """No block served yet; ``played``: frames of bits will be; ``arrays``: there are users with several antennas."""
    shape = (numerology.blocks, len(user))
    return Blocks(
        user=user,
        served=np.zeros(shape, bool),
        rate_bps=np.zeros(shape),
        snr=np.zeros(shape),
        matched=np.zeros(shape),
        carried=np.zeros((*shape, 3)) if played else None,
        efficiency=np.full(shape, np.nan) if arrays else None,
    )


def with_carried(blocks: Blocks, frames: Carried, block: Int[Array, " event"], column: Int[Array, " event"]) -> Blocks:
    """Add the frames played for some (block, user) pairs."""
    carried = np.zeros((*blocks.served.shape, 3)) if blocks.carried is None else blocks.carried.copy()
    carried[block, column] = np.column_stack([frames.bits, frames.wrong, frames.error])
    return replace(blocks, carried=carried)


def with_served(
    blocks: Blocks,
    block: Int[Array, " event"],
    column: Int[Array, " event"],
    channel: Complex[Array, "event subcarrier chain"],
    digital: Complex[Array, "event chain stream"],
    power_w: Float[Array, "event subcarrier"],
    matched_gain: Float[Array, " event"],
    data_share: Float[Array, " event"],
    spacing_hz: float,
    noise_w: float,
    distortion: Complex[Array, "event subcarrier chain source"] | None = None,
    stream: Int[Array, " event"] | None = None,
) -> Blocks:
    """Add served (block, user) pairs: ``rate = data_share spacing sum_m log2(1 + |h_m d|^2 p_m / noise)`` (papers/000, eq 7).

    Of several streams an event's own is ``stream``; the others come through the same channel and count as noise, too.
    What the machine sends that is no data (``Emission.distortion``) comes through the same channel and counts as noise.
    """
    streams = (channel[..., :, None] * digital[:, None, :, :]).sum(axis=2)
    heard, noise, share = streams[..., 0], noise_w, 1.0  # type: Any, Any, Any
    if stream is not None and streams.shape[-1] > 1:
        event = np.arange(len(stream))
        heard = streams[event, :, stream]
        power = streams.real**2 + streams.imag**2
        noise = noise_w + (power.sum(axis=-1) - power[event, :, stream]) * power_w
        share = np.sum(np.abs(digital[event, :, stream]) ** 2, axis=-1)
    if distortion is not None:
        noise = noise + (np.abs((channel[:, :, None, :] @ distortion)[:, :, 0]) ** 2).sum(axis=-1)
    snr = (heard.real**2 + heard.imag**2) * power_w / noise
    served, rate, mean, matched = (getattr(blocks, name).copy() for name in ("served", "rate_bps", "snr", "matched"))
    served[block, column] = True
    rate[block, column] = data_share * spacing_hz * np.log2(1.0 + snr).sum(axis=-1)
    mean[block, column] = snr.mean(axis=-1)
    matched[block, column] = matched_gain * share * power_w.mean(axis=-1) / noise_w
    return replace(blocks, served=served, rate_bps=rate, snr=mean, matched=matched)


def dwell_bound(
    dwell: Dwell,
    receive: BeamReport,
    spec: FrontendSpec,
    numerology: Numerology,
    sent: Complex[Array, " entity"] | None = None,
) -> tuple[Float[Array, "entity 4 4"], Float[Array, " entity"]]:
    """Cramer-Rao bound of (uy, uz, range_m, velocity_mps) of every mover in a dwell, and its integrated SNR (ratio).

    The receive combiner is the machine's read-back where it has one; the transmit response is the one really in force. ``sent`` is
    ``sent_amplitude``, if known.
    """
    paths, emission, half = dwell.paths, dwell.emission, spec.receive
    frequency = emission.drive.frequency_hz
    sent = sent_amplitude(dwell, spec) if sent is None else sent
    amplitude = paths.gain[0] * sent * np.sqrt(emission.drive.power_w[0].sum())
    combiner = held(half, receive, int(dwell.listen.slot[0]), float(frequency[0]))
    assert combiner is not None
    heard = beam_gains(paths, half.array, combiner[None, None], frequency, end="arrival")[0, :, 0]  # [path, chain]
    direction = paths.arrival_m / np.linalg.norm(paths.arrival_m, axis=1, keepdims=True)
    b_gradient = leaning(half, direction, float(frequency[0]), combiner)
    b_gradient = b_gradient * element_amplitude(half.array, direction)[:, None, None]
    noise = combiner.T @ combiner.conj()
    # what attenuators keep from a chain its termination makes up (hal.reception.noise_root); rounding is left as it is
    short = 1 - np.diagonal(noise).real
    noise = dwell.noise_w * (noise + np.diag(np.where(short > 1e-9, short, 0.0)))
    assert emission.drive.samples is not None
    samples, frames = emission.drive.samples.shape[-1], len(emission.drive.t_ns)
    told, power = direction_information(heard, b_gradient, noise)
    covariance = informed_bound(
        told,
        power,
        amplitude=amplitude,
        carrier_hz=paths.carrier_hz,
        sample_rate_hz=numerology.sample_rate_hz,
        roll_off=numerology.roll_off,
        samples=samples,
        frame_t_ns=emission.drive.t_ns,
        delay_s=paths.delay_s,
    )
    return covariance, np.abs(amplitude) ** 2 * power * (samples * frames)


def leaning(
    half: HalfSpec, direction: Float[Array, "path 3"], frequency_hz: float, combiner: Complex[Array, "element chain"]
) -> Complex[Array, "path 2 chain"]:
    """Derivatives of a combiner's outputs ``combiner^T a(u)`` with respect to uy and uz."""
    if not half.array.columns:
        return np.asarray(np.stack(steering_gradient(half.array, direction, frequency_hz), axis=1) @ combiner)
    at = nodes_of(half.array, np.array([frequency_hz]), True)
    grid = at.wave, at.spread, at.column_m, at.row_m, at.columns, at.rows
    held = np.ascontiguousarray(combiner).reshape(1, 1, -1)
    out = np.zeros((3, len(direction), 1, combiner.shape[1]), dtype=np.complex128)
    first = np.zeros(len(direction), dtype=np.int64)
    patterns_at(
        np.ascontiguousarray(held.real),
        np.ascontiguousarray(held.imag),
        *grid,
        first,
        np.ascontiguousarray(direction[:, 1:]),
        out,
    )
    return np.swapaxes(out[1:, :, 0], 0, 1)


def sent_amplitude(dwell: Dwell, spec: FrontendSpec) -> Complex[Array, " entity"]:
    """Transmit beam's amplitude towards every mover of a dwell, element pattern included; sqrt(elements) at full gain."""
    emission = dwell.emission
    towards = beam_gains(
        dwell.paths,
        spec.transmit.array,
        emission.response[emission.row[:1]],
        emission.drive.frequency_hz,
        end="departure",
    )[0, :, 0]
    return np.asarray((towards @ emission.drive.digital[0]).sum(axis=-1))


def in_main_lobe(
    dwell: Dwell, spec: FrontendSpec, sent: Complex[Array, " entity"] | None = None
) -> Bool[Array, " entity"]:
    """Movers within 6 dB of the transmit beam's full gain."""
    direction = dwell.paths.departure_m / np.linalg.norm(dwell.paths.departure_m, axis=1, keepdims=True)
    full = len(spec.transmit.array.position_m) * element_amplitude(spec.transmit.array, direction) ** 2
    return np.asarray(np.abs(sent_amplitude(dwell, spec) if sent is None else sent) ** 2 > 0.25 * full)


def measured(dwell: Dwell) -> Float[Array, "entity 4"]:
    """What a perfect sensor would measure in a dwell: (uy, uz, range_m, velocity_mps) of every mover."""
    paths = dwell.paths
    direction = paths.arrival_m / np.linalg.norm(paths.arrival_m, axis=1, keepdims=True)
    return np.column_stack([direction[:, 1:], paths.delay_s * (C / 2), paths.doppler_hz * (C / (2 * paths.carrier_hz))])


def owners(
    value: Float[Array, "detection 4"], spread: Float[Array, "detection 4 4"], truth: Float[Array, "entity 4"]
) -> tuple[Int[Array, " detection"], Bool[Array, " detection"]]:
    """Whose echo each detection is (-1: nobody's), and whether it says so of the direction too.

    An echo's range and speed do not depend on the beam it came through, so the owner is the mover nearest in both, within five standard
    deviations and half a metre and half a metre a second; a detection then is the owner's own when it is also within a car's length of it, its
    elevation taken to be right where it has none.
    """
    gap = np.abs(value[:, None, 2:] - truth[None, :, 2:])
    reach = 5 * np.sqrt(np.diagonal(spread, axis1=1, axis2=2)[:, 2:]) + 0.5
    cost = (gap / reach[:, None]).max(axis=-1)
    owner = cost.argmin(axis=1)
    flat = np.isinf(spread[:, 1, 1])
    value = np.where(flat[:, None] & ELEVATION.diagonal(), truth[owner], value)
    apart = np.linalg.norm(spot(value) - spot(truth)[owner], axis=-1)
    owner = np.where(cost[np.arange(len(value)), owner] < 1, owner, -1)
    return owner, (owner >= 0) & (apart < SAME_MOVER_M)


def bound_detections(
    dwells: Sequence[Dwell],
    receive: BeamReport,
    spec: FrontendSpec,
    numerology: Numerology,
    draws: Draws,
    detect_db: float = 13.0,
) -> Detections:
    """Detections drawn from the bound: the sensing fidelity ``bound``.

    A mover inside the beam's main lobe is detected when its integrated SNR exceeds ``detect_db``; its error is normal with the bound's covariance.
    One by a line array says nothing of elevation: uz is 0 with infinite variance. Leaves out false alarms, ambiguities and the merging of close
    movers, which the fidelity ``echo`` has.
    """
    found: list[tuple[Any, ...]] = []
    for d, dwell in enumerate(dwells):
        bound, snr = dwell_bound(dwell, receive, spec, numerology)
        flat = np.isinf(bound[:, 1, 1]) & (spec.receive.array.rows == 1)  # a line array tells no elevation
        drawn = np.where(flat[:, None, None] & ELEVATION, 1.0, bound)
        seen = np.flatnonzero(
            (snr > 10 ** (detect_db / 10)) & in_main_lobe(dwell, spec) & np.isfinite(drawn).all(axis=(1, 2))
        )
        at_ns = dwell.truth.t_ns
        error = draws.normal("sensing.bound", dwell.paths.sink[seen], at_ns, 4)
        value = measured(dwell)[seen] + np.einsum("eij,ej->ei", np.linalg.cholesky(drawn[seen]), error)
        value[flat[seen], 1] = 0.0
        found.append((np.full(seen.size, at_ns), np.full(seen.size, d), value, bound[seen], decibels(snr[seen])))
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros((0, 4, 4)), np.zeros(0))
    t_ns, dwell_of, value, covariance, snr_db = (np.concatenate(column) for column in zip(empty, *found, strict=True))
    return Detections(t_ns=t_ns, dwell=dwell_of, value=value, covariance=covariance, snr_db=snr_db)


class Scorer:
    """Scores each subframe against the truth; knows only who there is to score."""

    def __init__(self, user: Int[Array, " user"], entity: Int[Array, " entity"], outage_snr_db: float = 0.0) -> None:
        self.user, self.entity, self.outage_snr = user, entity, 10 ** (outage_snr_db / 10)

    def score(
        self,
        k: int,
        truth: Truth,
        dwells: Sequence[Dwell],
        echo: EchoObservation,
        belief: Belief,
        reports: Sequence[tuple[str, BeamReport]],
        blocks: Blocks,
        down: Paths,
        listened: Sequence[Overheard] | None = None,
    ) -> Kpi:
        """The key figures of subframe ``k``; ``reports`` are the machine's on the beams it was given in it."""
        predicted = self._spread(belief.channel.user, belief.predicted_bps)
        plan, foretold = echo.plan, echo.plan.formula_bps is not None
        return Kpi(
            k=k,
            t_ns=truth.t_ns,
            predicted_bps=predicted,
            swaps=belief.swaps,
            rebindings=belief.rebindings,
            sensing_share=echo.plan.sensing_ns / echo.numerology.subframe_ns,
            beams_set=sum(len(report.setpoint.slot) for _, report in reports),
            beams_clipped=sum(report.clipped for _, report in reports),
            beam_delay_us=max((report.effective_ns - report.accepted_ns for _, report in reports), default=0) * 1e-3,
            doppler_block=doppler_block_product(down, echo.numerology.block_ns),
            dropped_w=0.0 if echo.echo is None else echo.echo.dropped_w,
            planned_bps=self._spread(plan.user, plan.planned_bps) if foretold else None,
            formula_bps=self._spread(plan.user, plan.formula_bps) if foretold else None,
            surprise=self._spread(belief.channel.user, belief.channel.surprise) if foretold else None,
            updates=len(plan.update_block) if foretold else None,
            reason=plan.reason,
            short_db=belief.short_db,
            **self._service(blocks, echo.numerology),
            **({} if blocks.carried is None else self._data(blocks.user, blocks.carried)),
            efficiency_bps_hz=self._efficiency(blocks),
            **self._sensing(dwells, belief.detections, echo.receive_beam, echo.spec, echo.numerology),
            **self._following(truth, belief),
            **(
                {}
                if listened is None
                else data_errors(listened, belief.refined, echo.receive_beam, echo.spec, self.entity)
            ),
        )

    def _spread(self, user: Int[Array, " some"], value: Float[Array, " some"] | None) -> Float[Array, " user"]:
        """Figures of some users along the axis of all; NaN for the others."""
        out = np.full(len(self.user), np.nan)
        if value is not None:
            which, row = np.nonzero(self.user[:, None] == user)
            out[which] = value[row]
        return out

    def _service(self, blocks: Blocks, numerology: Numerology) -> dict[str, Any]:
        """Rates, signal to noise and outage of the users; NaN for the absent."""
        column = np.searchsorted(self.user, blocks.user)
        rate, snr_db, loss_db = (np.full(len(self.user), np.nan) for _ in range(3))
        served, outage = (np.zeros(len(self.user), np.int64) for _ in range(2))
        block_rate = np.full((numerology.blocks, len(self.user)), np.nan)
        block_rate[:, column] = blocks.rate_bps
        rate[column] = blocks.rate_bps.sum(axis=0) * numerology.block_ns / numerology.subframe_ns
        count = blocks.served.sum(axis=0)
        served[column] = count
        outage[column] = (blocks.served & (blocks.snr < self.outage_snr)).sum(axis=0)
        mean = blocks.snr.sum(axis=0) / np.where(count, count, np.nan)
        snr_db[column] = decibels(mean)
        loss_db[column] = decibels(blocks.matched.sum(axis=0) / np.where(count, count, np.nan)) - snr_db[column]
        return {
            "user": self.user,
            "rate_bps": rate,
            "snr_db": snr_db,
            "beam_loss_db": loss_db,
            "served_blocks": served,
            "outage_blocks": outage,
            "block_rate_bps": block_rate,
        }

    def _efficiency(self, blocks: Blocks) -> Float[Array, " user"] | None:
        if blocks.efficiency is None:
            return None
        told = np.isfinite(blocks.efficiency)
        count = told.sum(axis=0)
        return self._spread(
            blocks.user, np.where(told, blocks.efficiency, 0.0).sum(axis=0) / np.where(count, count, np.nan)
        )

    def _data(self, user: Int[Array, " some"], carried: Float[Array, "block some 3"]) -> dict[str, Any]:
        """Bits, bit error rate and error vector of the users' frames; NaN where no frame was played."""
        frames = (carried[..., 0] > 0).sum(axis=0)
        bits, wrong, error = carried.sum(axis=0).T
        mean = np.where(frames, error, np.nan) / np.maximum(frames, 1)
        return {
            "data_bits": np.nan_to_num(self._spread(user, bits)).astype(np.int64),
            "ber": self._spread(user, np.where(frames, wrong, np.nan) / np.maximum(bits, 1)),
            "evm_db": self._spread(user, decibels(mean)),
        }

    def _sensing(
        self,
        dwells: Sequence[Dwell],
        detections: Detections,
        receive: BeamReport,
        spec: FrontendSpec,
        numerology: Numerology,
    ) -> dict[str, Any]:
        """Each mover's best-lit detection beside its bound; what was missed and what was made up."""
        error, bound = np.full((len(self.entity), 4), np.nan), np.full((len(self.entity), 4), np.nan)
        best_db = np.full(len(self.entity), np.nan)
        nees: list[float] = []
        aside, false_alarms = 0, 0
        lit, seen = np.zeros(len(self.entity), bool), np.zeros(len(self.entity), bool)
        for d, dwell in enumerate(dwells):
            value, spread = detections.value[detections.dwell == d], detections.covariance[detections.dwell == d]
            if not len(dwell.paths.sink):
                false_alarms += len(value)
                continue
            sent = sent_amplitude(dwell, spec)
            covariance, snr = dwell_bound(dwell, receive, spec, numerology, sent)
            truth, column = measured(dwell), np.searchsorted(self.entity, dwell.paths.sink)
            lit[column] |= in_main_lobe(dwell, spec, sent) & (snr > 100.0)
            owner, near = owners(value, spread, truth)
            aside += int(((owner >= 0) & ~near).sum())
            false_alarms += int((owner < 0).sum())
            own = np.flatnonzero(near)
            mover, told = owner[own], np.isfinite(np.diagonal(spread[own], axis1=1, axis2=2))
            miss = np.where(told, value[own] - truth[mover], np.nan)
            # what is not told weighs nothing
            weight = np.where(told[:, :, None] & told[:, None], spread[own], np.eye(4))
            square = squared(np.where(told, miss, 0.0), weight)
            nees += (square * 4 / told.sum(axis=1)).tolist()
            snr_db, sigma = decibels(snr), np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
            seen[column[mover]] = True
            for i, j in enumerate(mover.tolist()):
                at = column[j]
                if not best_db[at] >= snr_db[j] or np.isnan(error[at, 0]):
                    error[at], bound[at], best_db[at] = miss[i], sigma[j], snr_db[j]
            dark = np.isnan(best_db[column]) & np.isfinite(covariance[:, 0, 0])
            best_db[column[dark]], bound[column[dark]] = snr_db[dark], sigma[dark]
        return {
            "entity": self.entity,
            "error": error,
            "bound": bound,
            "echo_snr_db": best_db,
            "detections": len(detections.t_ns),
            "side_lobe_echoes": aside,
            "false_alarms": false_alarms,
            "lit": int(lit.sum()),
            "missed": int((lit & ~seen).sum()),
            "nees": float(np.mean(nees)) if nees else np.nan,
        }

    def _following(self, truth: Truth, belief: Belief) -> dict[str, Any]:
        """Which track follows whom, how far off it is, and how far off it believes to be."""
        tracks = belief.tracks
        now = truth.position_m + truth.velocity_mps * (
            (tracks.t_ns - truth.t_ns) * 1e-9
        )  # a subframe's acceleration is under a tenth of a millimetre
        tracked = np.full(len(self.entity), -1)
        miss_m, sigma_m = np.full(len(self.entity), np.nan), np.full(len(self.entity), np.nan)
        confirmed = np.flatnonzero(tracks.confirmed)
        apart = np.linalg.norm(tracks.state[confirmed, None, :3] - now[None], axis=-1)
        owner = np.full(confirmed.size, -1)
        for i, j in sorted(np.argwhere(apart < SAME_MOVER_M).tolist(), key=lambda pair: apart[pair[0], pair[1]]):
            column = int(np.searchsorted(self.entity, truth.entity[j]))
            if owner[i] < 0 and tracked[column] < 0:
                owner[i], tracked[column] = j, tracks.track[confirmed[i]]
        follows = np.flatnonzero(owner >= 0)
        whom, row = owner[follows], confirmed[follows]
        spread, column = tracks.covariance[row, :3, :3], np.searchsorted(self.entity, truth.entity[whom])
        nees = squared(tracks.state[row, :3] - now[whom], spread)
        miss_m[column] = apart[follows, whom]
        sigma_m[column] = np.sqrt(np.trace(spread, axis1=1, axis2=2))
        bound = tracks.user[confirmed] >= 0
        right = truth.entity[whom] == tracks.user[row]
        return {
            "tracked": tracked,
            "position_error_m": miss_m,
            "track_sigma_m": sigma_m,
            "tracks_confirmed": confirmed.size,
            "tracks_tentative": int((~tracks.confirmed).sum()),
            "tracks_false": int((apart.min(axis=1) >= SAME_MOVER_M).sum()) if len(now) else confirmed.size,
            "track_nees": float(np.mean(nees)) if nees.size else np.nan,
            "users_bound": int(bound.sum()),
            "users_bound_right": int(right.sum()),
        }


def squared(miss: Float[Array, "item value"], spread: Float[Array, "item value value"]) -> Float[Array, " item"]:
    """Normalised squared errors ``d^T S^-1 d``."""
    return np.asarray((miss * np.linalg.solve(spread, miss[..., None])[..., 0]).sum(axis=-1))


def spot(value: Float[Array, "item 4"]) -> Float[Array, "item 3"]:
    """Array-frame position of a measurement (uy, uz, range, velocity), in front of the array."""
    ux = np.sqrt(np.maximum(0.0, 1.0 - value[:, 0] ** 2 - value[:, 1] ** 2))
    return np.column_stack([ux, value[:, 0], value[:, 1]]) * value[:, 2:3]


def decibels(ratio: Any) -> Any:
    """Power ratio in dB; minus infinity for nothing, without a warning."""
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(ratio)
