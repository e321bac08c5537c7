"""What a command from outside must be before it may reach the loop; each rule says what was wrong and what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.check import finite, shaped
from hal.errors import Misuse
from hal.frontend import FrontendSpec
from hal.network import quantise
from hal.record import Array, Int
from twin.records import BasebandCommand, BeamsCommand, Numerology, Plan

__all__ = ["admit_baseband", "admit_beams", "admit_plan"]

MOST_USERS = 4096
MOST_DWELLS = 256
HUGE = 1e6  # of any setting: beyond, a phase has no meaning left
SLACK = 1e-6  # of a power, relative


def admit_plan(plan: Plan, k: int, spec: FrontendSpec, numerology: Numerology, known: Int[Array, " user"]) -> None:
    """Raise Misuse unless ``plan`` can be played as subframe ``k`` by users among ``known``."""
    blocks = numerology.blocks
    transmit, receive = spec.transmit.memory_slots, spec.receive.memory_slots
    if plan.k != k:
        raise Misuse(f"plan.k = {plan.k}: must be {k}, the next subframe")
    if not 0 <= plan.sensing_blocks <= blocks:
        raise Misuse(f"plan.sensing_blocks = {plan.sensing_blocks}: must be 0 .. {blocks}")
    dwells = len(plan.dwell_transmit_slot)
    if not 1 <= dwells <= MOST_DWELLS:
        raise Misuse(f"plan.dwell_transmit_slot: has {dwells} dwells, must have 1 .. {MOST_DWELLS}")
    taken_ns = dwells * numerology.frames_per_dwell * numerology.frame_ns
    room_ns = plan.sensing_blocks * numerology.block_ns
    if not taken_ns <= plan.sensing_ns <= room_ns:
        raise Misuse(
            f"plan.sensing_ns = {plan.sensing_ns}: must be {taken_ns} ns, which {dwells} dwells take, .. {room_ns} ns, "
            f"which {plan.sensing_blocks} blocks have"
        )
    _slots("plan.dwell_transmit_slot", plan.dwell_transmit_slot, 0, transmit)
    _slots("plan.dwell_receive_slot", plan.dwell_receive_slot, 0, receive)
    _ascending("plan.update_block", plan.update_block, plan.sensing_blocks, blocks)
    _ascending("plan.user", plan.user, 0, 2**31)
    if len(plan.user) > MOST_USERS or not np.isin(plan.user, known).all():
        raise Misuse("plan.user: names users that this run has not got")
    _slots("plan.pilot_receive_slot", plan.pilot_receive_slot, 0, receive)
    shaped("plan.slot", plan.slot, (blocks,))
    _slots("plan.slot", plan.slot, -1, transmit)
    shaped("plan.served", plan.served, (blocks, len(plan.user)))
    if plan.served.sum(axis=1).max(initial=0) > 1:
        raise Misuse("plan.served: a block serves one user; a row has more than one True")
    if plan.echo_slot is not None:
        _slots("plan.echo_slot", shaped("plan.echo_slot", plan.echo_slot, (blocks,)), -1, receive)
    if plan.echo_track is not None:
        shaped("plan.echo_track", plan.echo_track, (blocks,))
    if plan.user_slot is not None:
        _slots("plan.user_slot", plan.user_slot, -1, min(transmit, receive))
        given = plan.user_slot[plan.user_slot >= 0]
        if len(np.unique(given)) < len(given):
            raise Misuse(f"plan.user_slot = {plan.user_slot.tolist()[:16]}: two users cannot have one slot")
    if plan.throughput is not None and not np.all(finite("plan.throughput", plan.throughput) >= 0):
        raise Misuse(f"plan.throughput: reaches {plan.throughput.min()}, must be >= 0")
    if not 0 <= plan.search_cell < 2**31:
        raise Misuse(f"plan.search_cell = {plan.search_cell}: must be >= 0")


def admit_beams(beams: BeamsCommand, spec: FrontendSpec) -> None:
    """Raise Misuse unless both halves of the machine can take these rows; what is out of range is clipped by the machine itself."""
    for name in ("transmit", "receive"):
        half = getattr(spec, name)
        slot, *settings = (getattr(beams, f"{name}_{field}") for field in ("slot", "delay_s", "phase_rad", "amplitude"))
        _slots(f"beams.{name}_slot", slot, 0, half.memory_slots)
        if len(np.unique(slot)) < len(slot):
            raise Misuse(f"beams.{name}_slot = {slot.tolist()}: a slot is named twice")
        try:
            for field, value in zip(("delay_s", "phase_rad", "amplitude"), settings, strict=True):
                if not np.all(np.abs(finite(field, value)) <= HUGE):
                    raise Misuse(f"{field}: reaches {np.max(np.abs(value)):.3g}, must be within {HUGE:g}")
            quantise(half.network, *settings)
        except Misuse as error:
            raise Misuse(f"beams.{name}_{error}") from None


def admit_baseband(baseband: BasebandCommand, updates: int, spec: FrontendSpec, numerology: Numerology) -> None:
    """Raise Misuse unless the machine can radiate this: one stream, within its power, a row for each of ``updates``."""
    slots, chains = len(baseband.slot), len(spec.transmit.network.wired)
    _ascending("baseband.slot", baseband.slot, 0, spec.transmit.memory_slots)
    digital = finite("baseband.digital", shaped("baseband.digital", baseband.digital, (updates, slots, chains, 1)))
    power_w = finite(
        "baseband.power_w",
        shaped("baseband.power_w", baseband.power_w, (updates, slots, len(numerology.subcarrier_hz))),
    )
    if not np.all(power_w >= 0):
        raise Misuse(f"baseband.power_w: reaches {power_w.min()}, must be >= 0")
    with np.errstate(over="ignore"):
        weight = (digital.real**2 + digital.imag**2).sum(axis=(2, 3))
        radiated_w = power_w.sum(axis=2) * weight
    if not np.all(radiated_w <= spec.transmit_power_w * (1 + SLACK)):
        raise Misuse(
            f"baseband: a slot asks for {np.max(radiated_w):.6g} W, the front end has {spec.transmit_power_w:.6g} W; lower power_w, "
            "or the norm of digital"
        )
    if not np.all(weight <= 1 + SLACK):  # sensing frames leave through the same weights, at full power
        raise Misuse(f"baseband.digital: a column has norm {np.sqrt(np.max(weight)):.6g}, must be <= 1")


def _slots(field: str, slot: Any, low: int, limit: int) -> None:
    bad = np.asarray(slot)[~((np.asarray(slot) >= low) & (np.asarray(slot) < limit))]
    if bad.size:
        raise Misuse(f"{field}: holds {bad.flat[0]}, must be {low} .. {limit - 1}")


def _ascending(field: str, value: Any, low: int, limit: int) -> None:
    if np.any(np.diff(np.asarray(value, dtype=np.int64)) <= 0):
        raise Misuse(f"{field} = {np.asarray(value).tolist()[:16]}: must ascend, each once")
    _slots(field, value, low, limit)
