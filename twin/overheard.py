"""Data blocks that are listened to: what came back of them, what the controller gets to see of it, and the bound on what it may say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hal.array import element_amplitude
from hal.frontend import BeamReport, Emission, Frontend, FrontendSpec, Listen, Reception
from hal.medium import Paths
from hal.record import Array, Bool, Float, Int
from twin.channel import Channel
from twin.data_echoes import block_of, geometry_of
from twin.physics.block_echoes import bounds, signatures
from twin.physics.draws import Draws
from twin.planning._rows import unit
from twin.records import BlockEchoes, Numerology, Plan, Refinement, Truth
from twin.tracking.ekf import measure
from twin.world import World

__all__ = ["Overheard", "data_errors", "observed_blocks", "overhear"]

MOST = 16  # movers that the bound is about: the loudest
SAME_MOVER_M = 4.0  # as in ``twin.kpi``
AUDIBLE = 10.0  # ratio: movers below this integrated SNR have no bound, and are no part of the others'


@dataclass(frozen=True)
class Overheard:
    """One data block that was listened to, as it really was."""

    truth: Truth
    paths: Paths
    emission: Emission  # this block alone
    listen: Listen
    reception: Reception


def overhear(
    frontend: Frontend,
    world: World,
    channel: Channel,
    draws: Draws,
    numerology: Numerology,
    plan: Plan,
    emission: Emission,
    block: Int[Array, " event"],
    in_force_ns: int,
    length_ns: int,
) -> list[Overheard]:
    """Echoes of the plan's ``echo_slot`` among these emitted blocks: each meets the world as it is then.

    A block that begins before ``in_force_ns``, when the beams last reported are not yet what the machine holds, is not listened to.
    """
    if plan.echo_slot is None:
        return []
    spec, found = frontend.spec, []
    t_ns = np.asarray(emission.drive.t_ns)
    for e in np.flatnonzero((plan.echo_slot[block] >= 0) & (t_ns >= in_force_ns)).tolist():
        at = slice(e, e + 1)
        drive = replace(
            emission.drive,
            **{name: getattr(emission.drive, name)[at] for name in ("t_ns", "slot", "power_w", "digital")},
        )
        one = Emission(
            source=emission.source[at],
            drive=drive,
            row=np.zeros(1, dtype=np.int64),
            response=emission.response[emission.row[at]],
        )
        truth = world.at(int(t_ns[e]) + length_ns // 2)  # of what is integrated, the middle
        paths = channel.echo(truth, spec.transmit.array, spec.receive.array, t_ns[at], numerology.carrier_hz, draws)
        listen = Listen(t_ns=t_ns[at], slot=plan.echo_slot[block[at]], bandwidth_hz=1e9 / length_ns)
        found.append(Overheard(truth, paths, one, listen, frontend.receive([(one, paths)], listen)))
    return found


def observed_blocks(heard: Sequence[Overheard]) -> BlockEchoes | None:
    """What of it the controller gets to see."""
    if not heard:
        return None
    first = heard[0]

    def joined(records: list[Any], *names: str) -> Any:
        return replace(records[0], **{name: np.concatenate([getattr(one, name) for one in records]) for name in names})

    echo = joined([one.reception for one in heard], "t_ns", "slot", "samples")
    return BlockEchoes(
        drive=joined([one.emission.drive for one in heard], "t_ns", "slot", "power_w", "digital"),
        listen=replace(first.listen, t_ns=echo.t_ns, slot=echo.slot),
        echo=replace(echo, overload=None),
    )


def data_errors(
    heard: Sequence[Overheard],
    refined: Refinement | None,
    receive: BeamReport,
    spec: FrontendSpec,
    entity: Int[Array, " entity"],
) -> dict[str, Any]:
    """What listening said less what was true, and the Cramer-Rao bound of just these blocks through the combiner in force, for every mover.

    Both are of (uy, uz, range_m, velocity_mps); the bound takes every audible mover's reflections, directions and ranges as unknown, as the estimator does.
    """
    error, bound = (np.full((len(entity), 4), np.nan) for _ in range(2))
    told = {"data_error": error, "data_bound": bound, "data_looks": 0, "data_taken": 0}
    if not heard:
        return told
    t_ns = refined.t_ns if refined is not None else int(heard[len(heard) // 2].truth.t_ns)
    truth = min((one.truth for one in heard), key=lambda one: abs(one.t_ns - t_ns))
    now, ahead = _measured(spec, truth, t_ns)
    column = np.searchsorted(entity, truth.entity)
    audible, sigma = _bounds(heard, receive, spec, truth, t_ns, now, ahead)
    bound[column[audible]] = sigma
    if refined is not None:
        spots, there = (unit(value[:, :2]) * value[:, 2:3] for value in (refined.value, now))
        apart = np.linalg.norm(spots[:, None] - there, axis=-1)
        apart[:, ~ahead] = np.inf
        for look in range(len(spots) if len(now) else 0):
            nearest = int(np.argmin(apart[look]))
            if apart[look, nearest] < SAME_MOVER_M:
                known = np.isfinite(np.diagonal(refined.covariance[look]))
                error[column[nearest]] = np.where(known, refined.value[look] - now[nearest], np.nan)
        told |= {"data_looks": len(refined.track), "data_taken": int(refined.taken.sum())}
    return told


def _measured(spec: FrontendSpec, truth: Truth, t_ns: int) -> tuple[Float[Array, "entity 4"], Bool[Array, " entity"]]:
    """(uy, uz, range_m, velocity_mps) of every mover, carried to ``t_ns`` at its own velocity, and whether it is in front."""
    late_s = (t_ns - truth.t_ns) * 1e-9
    value, _, ux = measure(spec, np.column_stack([truth.position_m + late_s * truth.velocity_mps, truth.velocity_mps]))
    return value, ux > 0


def _bounds(
    heard: Sequence[Overheard],
    receive: BeamReport,
    spec: FrontendSpec,
    truth: Truth,
    t_ns: int,
    now: Float[Array, "entity 4"],
    ahead: Bool[Array, " entity"],
) -> tuple[Int[Array, " audible"], Float[Array, "audible 4"]]:
    """Rows of the movers that are audible, and one sigma of each."""
    geometry = geometry_of(spec, heard[0].emission.drive.frequency_hz)
    blocks, reflection = [], []
    for one in heard:
        # movers may come and go between blocks: those there at the reference are the ones asked about
        there = np.searchsorted(one.truth.entity, truth.entity)
        there = np.minimum(there, len(one.truth.entity) - 1)
        same = one.truth.entity[there] == truth.entity
        after_s = (one.truth.t_ns - t_ns) * 1e-9 * (len(heard) > 1)
        moved = np.where(same[:, None], _measured(spec, one.truth, one.truth.t_ns)[0][there] - now, 0.0)[:, :3]
        moved[:, 2] += now[:, 3] * after_s
        seen = BlockEchoes(drive=one.emission.drive, listen=one.listen, echo=one.reception)
        block = block_of(spec, one.emission.response[0], receive, seen, 0, after_s, moved)
        if block is None:
            continue
        paths, length_s = one.paths, 1 / one.listen.bandwidth_hz
        size = paths.gain[0] * np.sinc(paths.doppler_hz * length_s)
        for array, point_m in ((spec.transmit.array, paths.departure_m), (spec.receive.array, paths.arrival_m)):
            size = size * element_amplitude(array, point_m / np.linalg.norm(point_m, axis=1, keepdims=True))
        blocks.append(block)
        reflection.append(np.where(same, size[there], 0.0))
    if not blocks:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4))
    alpha = np.array(reflection)
    alone = sum(
        np.abs(a) ** 2 * np.sum(np.abs(signatures(b, now, geometry)[0]) ** 2, axis=1) / b.noise_w
        for a, b in zip(alpha, blocks, strict=True)
    )
    some = np.sort(np.argsort(-np.where(ahead, alone, -1.0), kind="stable")[:MOST])
    some = some[(alone[some] > AUDIBLE) & ahead[some]]
    covariance, snr = bounds([replace(b, ahead=b.ahead[some]) for b in blocks], now[some], alpha[:, some], geometry)
    kept = snr > AUDIBLE
    return some[kept], np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))[kept]
