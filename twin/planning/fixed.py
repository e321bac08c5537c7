"""A plan by rule: fixed sensing time and pilots, dwells in turn, users in turn or by proportional fairness; and the beams that it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from hal.array import half_power_beamwidth, to_array_frame
from hal.check import Ge, Gt, In, Le
from hal.errors import Misuse
from hal.frontend import FrontendSpec
from hal.record import Array, Bool, Float, Int, record
from twin.planning import Requests
from twin.planning._rows import join, places, raster, squinted, to_transmit, unit
from twin.records import Belief, Numerology, Plan

__all__ = ["Fixed", "Layout", "Requests", "join", "raster", "squinted"]

NEVER = -(10**9)  # the subframe of a look that has not happened


@record
class Layout:
    """Where things live in the beam memory: first slots, the same in both halves but for the sweep, which only receives.

    Slots 0 .. dwell - 1 hold a data beam and a pilot beam for each user (``Plan.user_slot``); dwell .. search - 1 the dwells of one subframe.
    A memory that is large enough holds the rest once and for all: the raster (search .. sweep - 1) and the sweep (sweep .. end - 1), whose rows
    have each chain at a raster cell of its own. In a smaller one (``resident`` False) search dwells are loaded into dwell slots subframe by
    subframe, and the sweep's few rows into two sets of slots, sweep .. end - 1, by turns, so that no row is changed while it may be heard through.
    """

    dwell: int
    search: int
    sweep: int
    end: int
    resident: bool
    cells: int  # of the raster
    sweeps: int  # rows that a sweep of the whole raster takes


@dataclass(frozen=True)
class Fixed:
    """Every subframe alike: looks at what is known, a search dwell, evenly spread pilots, users by turns or at once.

    Memory: ``layout``. A user keeps its slot as long as it is attached; a newcomer takes the lowest free one; with none left it is not served.
    All state is in the plan (``Plan.user_slot, looked, search_cell, throughput``) and comes back as ``previous``.
    """

    sensing_blocks: Annotated[int, Ge(0)] = 4
    updates: Annotated[int, Ge(1)] = 4  # pilot updates a subframe
    # of a located user's updates the last so many still sweep: without, one followed in a side lobe would never be found out
    sweep_updates: Annotated[int, Ge(0)] = 1
    # who is served in a block: one by turns, one by proportional fairness, or all located users at once, a stream each
    service: Literal["round_robin", "proportional_fair", "spatial"] = "round_robin"
    baseband: Literal["rzf", "mrt"] = "rzf"  # the streams' weights of "spatial", from estimated channels
    averaging_s: Annotated[float, In("ms"), Gt(0)] = 0.1  # memory of proportional fairness
    # looks due for longer than this push the search aside, every other subframe at most
    revisit_subframes: Annotated[int, Ge(1)] = 8
    user_slots: Annotated[int, Ge(1)] = 16
    dwell_slots: Annotated[int, Ge(1)] = 4  # most dwells a subframe
    # the sector searched: azimuth to both sides of boresight, elevation above the world's horizon
    azimuth_rad: Annotated[float, In("deg"), Gt(0), Le(90)] = np.deg2rad(60.0)
    lowest_rad: Annotated[float, In("deg"), Ge(-90)] = np.deg2rad(-32.0)
    highest_rad: Annotated[float, In("deg"), Le(90)] = np.deg2rad(4.0)
    spacing: Annotated[float, Gt(0), Le(1)] = 1.0  # of the raster, in beamwidths of the narrower half
    squint: Annotated[float, Ge(0), Le(1)] = 0.3  # of a receive row's chains about their direction, likewise

    def plan(
        self,
        k: int,
        belief: Belief,
        user: Int[Array, " user"],
        spec: FrontendSpec,
        numerology: Numerology,
        previous: Plan | None,
    ) -> Plan:
        """The plan of subframe ``k``.

        Dwells: as many as fit. All but one look at what was looked at longest ago, tracks (new ones first) and located users without one;
        one, or as many as have nothing to look at, goes on through the raster. Data blocks: located users by turns, the largest
        believed rate over its running mean, or all at once from the first pilots on. Pilots: through the user's own row if it is located, else sweeping.
        Raises Misuse when blocks, updates or memory do not suffice.
        """
        layout, user = self.layout(spec), np.asarray(user, dtype=np.int64)
        data = numerology.blocks - self.sensing_blocks
        if not data >= self.updates:
            raise Misuse(
                f"sensing_blocks = {self.sensing_blocks}, updates = {self.updates}: must leave a data block for each update "
                f"in {numerology.blocks} blocks"
            )
        slot = self._user_slots(user, previous)
        located = self._located(user, belief, spec)
        dwell_slot, target, looked, cell = self._dwells(k, belief, user, located, layout, numerology, previous)
        served, throughput = self._service(user, located & (slot >= 0), belief, spec, numerology, previous)
        in_force = np.where(served.any(axis=1), slot[served.argmax(axis=1)] if len(user) else -1, -1)
        index = np.arange(self.updates)
        own = (located & (slot >= 0)) & (index < self.updates - self._checks())[:, None]
        hear = np.where(own, slot, self._sweep_slots(k, layout)[:, None])
        dwell_ns = numerology.frames_per_dwell * numerology.frame_ns
        # pilots wait for the receive beams that are loaded after the sensing phase: until then others are in force than were reported
        rows = int((located & (slot >= 0)).sum()) + len(target) + self.updates
        settings = rows * int(spec.receive.network.wired.sum())
        load_ns = spec.command_latency_ns + settings * spec.bus_ns_per_element + spec.settling_ns
        first = min(self.sensing_blocks - (-load_ns // numerology.block_ns), numerology.blocks - self.updates)
        together = self.service == "spatial"
        if together:  # streams have no weights before the first pilots
            served[:first], in_force[:first] = False, -1
        return Plan(
            k=k,
            sensing_blocks=self.sensing_blocks,
            sensing_ns=len(target) * dwell_ns,
            dwell_transmit_slot=dwell_slot,
            dwell_receive_slot=dwell_slot,
            dwell_target=target,
            update_block=first + index * (numerology.blocks - first) // self.updates,
            pilot_receive_slot=hear,
            slot=in_force,
            served=served,
            user=user,
            user_slot=slot,
            looked=looked,
            search_cell=cell,
            throughput=throughput,
            baseband=self.baseband if together else None,
        )

    def layout(self, spec: FrontendSpec) -> Layout:
        """The slot map. Raises Misuse when either half's memory is too small for even the smaller one, with the number of slots it needs."""
        cells, search = len(self.raster(spec)), self.user_slots + self.dwell_slots
        sweeps = -(-cells // len(spec.receive.network.wired))
        whole = Layout(
            dwell=self.user_slots,
            search=search,
            sweep=search + cells,
            end=search + cells + sweeps,
            resident=True,
            cells=cells,
            sweeps=sweeps,
        )
        if spec.transmit.memory_slots >= whole.sweep and spec.receive.memory_slots >= whole.end:
            return whole
        for name, need, have in (
            ("transmit", search, spec.transmit.memory_slots),
            ("receive", search + 2 * self.updates, spec.receive.memory_slots),
        ):
            if not have >= need:
                raise Misuse(
                    f"{name}.memory_slots = {have}: must be >= {need} for user_slots = {self.user_slots}, "
                    f"dwell_slots = {self.dwell_slots}, updates = {self.updates}; give the half more, or plan with fewer"
                )
        return replace(whole, sweep=search, end=search + 2 * self.updates, resident=False)

    def raster(self, spec: FrontendSpec) -> Float[Array, "cell 3"]:
        """Directions of the search, in the receive array's frame: see ``raster``."""
        return raster(spec, self.azimuth_rad, self.lowest_rad, self.highest_rad, self.spacing)

    def raster_requests(self, spec: FrontendSpec) -> Requests:
        """The rows that never change, to be loaded once before the first subframe; none where the memory is too small to keep them."""
        layout, cells = self.layout(spec), self.raster(spec)
        if not layout.resident:
            return self._rows(spec, np.zeros(0, dtype=np.int64), cells[:0])
        rows = self._rows(spec, np.arange(layout.search, layout.sweep), cells)
        return join(rows, self._sweep_rows(spec, np.arange(layout.sweep, layout.end), np.arange(layout.sweeps)))

    def data_requests(self, plan: Plan, belief: Belief, spec: FrontendSpec, t_ns: int | None = None) -> Requests:
        """A transmit row and a receive row for each located user of the plan, pointed where it is believed to be at ``t_ns``."""
        slot = self._user_slots(plan.user, None) if plan.user_slot is None else plan.user_slot
        direction, _ = _user_directions(plan.user, belief, spec, belief.t_ns if t_ns is None else t_ns)
        own = self._located(plan.user, belief, spec) & (slot >= 0)
        rows = self._rows(spec, slot[own], direction[own], user=plan.user[own])
        return replace(rows, receive_centre=np.full_like(rows.receive_centre, np.nan))

    def dwell_requests(self, plan: Plan, belief: Belief, spec: FrontendSpec, t_ns: int | None = None) -> Requests:
        """Rows for the plan's dwells, pointed where their targets are believed to be at ``t_ns``, and for search and sweep unless resident.

        To be loaded in the subframe before the plan's, after that one's own dwells. A target gone from the belief since leaves its dwell at boresight.
        """
        layout, cells = self.layout(spec), self.raster(spec)
        at_ns = belief.t_ns if t_ns is None else t_ns
        what = _looks_of(plan)
        slot = plan.dwell_transmit_slot[: len(what)] if layout.resident else plan.dwell_transmit_slot
        searches = len(slot) - len(what)
        what = np.concatenate([what, np.full((searches, what.shape[1]), -1)])
        direction = np.tile([1.0, 0.0, 0.0], (len(slot), 1))
        direction[len(slot) - searches :] = cells[(plan.search_cell - searches + np.arange(searches)) % len(cells)]
        by_user = np.flatnonzero(what[:, 1] >= 0)
        direction[by_user] = _user_directions(what[by_user, 1], belief, spec, at_ns)[0]
        row = places(what[:, 0], belief.tracks.track)
        by_track = row >= 0
        direction[by_track] = _track_directions(belief, spec, at_ns)[row[by_track]]
        rows = self._rows(spec, slot, direction, user=what[:, 1], track=what[:, 0])
        if layout.resident:
            return rows
        sweep = self._sweep_rows(spec, self._sweep_slots(plan.k, layout), self._sweep_index(plan.k, layout))
        return join(rows, sweep)

    def beam_requests(
        self, plan: Plan, belief: Belief, spec: FrontendSpec, data_ns: int | None = None, dwell_ns: int | None = None
    ) -> Requests:
        """``data_requests`` and ``dwell_requests`` together: made of the next subframe's plan, all that must be loaded now.

        Slots of users are stable, so these rows also refresh the subframe that is on.
        """
        return join(self.data_requests(plan, belief, spec, data_ns), self.dwell_requests(plan, belief, spec, dwell_ns))

    def _checks(self) -> int:
        return min(self.sweep_updates, self.updates - 1)

    def _sweep_index(self, k: int, layout: Layout) -> Int[Array, " update"]:
        """The sweep's row at each update; the last updates go round by themselves, so that they too come to every row."""
        checks = self._checks()
        first = k * (self.updates - checks) + np.arange(self.updates - checks)
        return np.concatenate([first, k * checks + np.arange(checks)]) % layout.sweeps

    def _sweep_slots(self, k: int, layout: Layout) -> Int[Array, " update"]:
        if layout.resident:
            return layout.sweep + self._sweep_index(k, layout)
        return layout.sweep + k % 2 * self.updates + np.arange(self.updates)

    def _sweep_rows(self, spec: FrontendSpec, slot: Int[Array, " row"], index: Int[Array, " row"]) -> Requests:
        chains, cells = len(spec.receive.network.wired), self.raster(spec)
        none = self._rows(spec, np.zeros(0, dtype=np.int64), cells[:0])
        direction = cells[(index[:, None] * chains + np.arange(chains)) % len(cells)]
        return replace(
            none, receive_slot=slot, receive_direction=direction, receive_centre=np.full((len(slot), 3), np.nan)
        )

    def _rows(
        self, spec: FrontendSpec, slot: Array, direction: Array, user: Array | None = None, track: Array | None = None
    ) -> Requests:
        none = np.full(len(slot), -1, dtype=np.int64)
        return Requests(
            transmit_slot=slot,
            transmit_direction=to_transmit(spec, direction),
            transmit_user=none if user is None else user,
            transmit_track=none if track is None else track,
            receive_slot=slot,
            receive_direction=squinted(spec.receive, spec.carrier_hz, direction, self.squint),
            receive_centre=direction,
        )

    def _user_slots(self, user: Int[Array, " user"], previous: Plan | None) -> Int[Array, " user"]:
        slot = np.full(len(user), -1, dtype=np.int64)
        if previous is not None and previous.user_slot is not None:
            row = places(user, previous.user)
            slot[row >= 0] = previous.user_slot[row[row >= 0]]
        taken = set(slot.tolist())
        free = [s for s in range(self.user_slots) if s not in taken]
        wanting = np.flatnonzero(slot < 0)[: len(free)]
        slot[wanting] = free[: len(wanting)]
        return slot

    def _located(self, user: Int[Array, " user"], belief: Belief, spec: FrontendSpec) -> Bool[Array, " user"]:
        """Bound to a track, or known by its pilots to half a beamwidth in either cosine."""
        width = np.array(half_power_beamwidth(spec.receive.array, spec.carrier_hz))
        sharp = np.all(np.diagonal(belief.channel.direction_covariance, axis1=1, axis2=2) <= (width / 2) ** 2, axis=1)
        return (places(user, belief.channel.user[sharp]) >= 0) | (places(user, belief.tracks.user) >= 0)

    def _dwells(
        self,
        k: int,
        belief: Belief,
        user: Int[Array, " user"],
        located: Bool[Array, " user"],
        layout: Layout,
        numerology: Numerology,
        previous: Plan | None,
    ) -> tuple[Array, Array, Array, int]:
        """Slots and targets of the dwells, looks first and then searches; the memory of looks; the raster's next cell."""
        tracks, cells = belief.tracks, layout.cells
        fit = self.sensing_blocks * numerology.block_ns // (numerology.frames_per_dwell * numerology.frame_ns)
        dwells = min(fit, self.dwell_slots)
        free = user[located & (places(user, tracks.user) < 0)]
        what = np.full((len(tracks.track) + len(free), 2), -1, dtype=np.int64)
        what[: len(tracks.track), 0], what[len(tracks.track) :, 1] = tracks.track, free
        last = np.full(len(what), NEVER)
        cell, searched = 0, False
        if previous is not None:
            cell = previous.search_cell % cells
            searched = len(previous.dwell_target) > len(_looks_of(previous))
            if previous.looked is not None:
                past = {(track, one): when for track, one, when in previous.looked.tolist()}
                last = np.array([past.get((track, one), NEVER) for track, one in what.tolist()], dtype=np.int64)
        overdue = int(np.sum(k - last >= self.revisit_subframes))
        looks = max(dwells - 1, 0)
        if searched and (overdue > looks or dwells == 1):
            looks = dwells
        chosen = np.argsort(last, kind="stable")[: min(looks, len(what))]
        chosen = np.sort(chosen)  # in the order in which ``looked`` keeps them
        last[chosen] = k
        slot, searches = layout.dwell + np.arange(dwells), dwells - len(chosen)
        if layout.resident:
            slot[len(chosen) :] = layout.search + (cell + np.arange(searches)) % cells
        target = np.full(dwells, -1, dtype=np.int64)
        target[: len(chosen)] = what[chosen, 0]
        looked = np.concatenate([what, last[:, None]], axis=1)[last > NEVER]
        return slot, target, looked, int((cell + searches) % cells)

    def _service(
        self,
        user: Int[Array, " user"],
        able: Bool[Array, " user"],
        belief: Belief,
        spec: FrontendSpec,
        numerology: Numerology,
        previous: Plan | None,
    ) -> tuple[Bool[Array, "block user"], Float[Array, " user"]]:
        rate = _rate_bps(user, belief, spec, numerology) * able
        mean = rate / max(int(able.sum()), 1)  # a newcomer starts with a fair share
        if previous is not None and previous.throughput is not None:
            row = places(user, previous.user)
            mean[row >= 0] = previous.throughput[row[row >= 0]]
        served = np.zeros((numerology.blocks, len(user)), dtype=bool)
        turn = np.flatnonzero(able)
        if not len(turn):
            return served, mean
        last = _last_served(user, previous)
        first = int(np.searchsorted(user[turn], last, side="right")) if last is not None else 0
        if self.service == "spatial":
            served[self.sensing_blocks :] = able
            return served, mean
        step = min(numerology.block_ns * 1e-9 / self.averaging_s, 1.0)
        fair = self.service == "proportional_fair" and bool(np.any(rate > 0))
        if self.service not in ("round_robin", "proportional_fair"):
            raise Misuse(f"service = {self.service!r}: must be 'round_robin', 'proportional_fair' or 'spatial'")
        for i, block in enumerate(range(self.sensing_blocks, numerology.blocks)):
            if fair:
                who = int(np.argmax(np.where(able, rate / np.maximum(mean, 1e-9 * rate.max()), -1.0)))
            else:
                who = int(turn[(first + i) % len(turn)])
            served[block, who] = True
            mean *= 1 - step
            mean[who] += step * rate[who]
        return served, mean


def _looks_of(plan: Plan) -> Int[Array, "look 3"]:
    """What the first dwells of a plan look at, in their order: track, user, subframe."""
    if plan.looked is None:
        targets = plan.dwell_target[plan.dwell_target >= 0]
        return np.column_stack([targets, np.full_like(targets, -1), np.full_like(targets, plan.k)])
    return np.asarray(plan.looked[plan.looked[:, 2] == plan.k])


def _track_directions(belief: Belief, spec: FrontendSpec, t_ns: int) -> Float[Array, "track 3"]:
    state = belief.tracks.state
    point_m = state[:, :3] + (t_ns - belief.tracks.t_ns) * 1e-9 * state[:, 3:]
    vector_m = to_array_frame(spec.receive.array, point_m - spec.receive.array.origin_m)
    cosines = vector_m[:, 1:] / np.maximum(np.sqrt(np.sum(vector_m**2, axis=1, keepdims=True)), 1e-3)
    return unit(cosines)


def _user_directions(
    user: Int[Array, " user"], belief: Belief, spec: FrontendSpec, t_ns: int
) -> tuple[Float[Array, "user 3"], Bool[Array, " user"]]:
    """Where users are believed to be at ``t_ns`` (receive frame): their tracks, else their pilots at their own rate; and whether at all."""
    channel, tracks = belief.channel, belief.tracks
    direction = np.tile([1.0, 0.0, 0.0], (len(user), 1))
    row = places(user, channel.user)
    heard = row >= 0
    cosines = channel.direction[row[heard], 1:]
    if channel.pilot_state is not None:
        cosines = cosines + (t_ns - channel.t_ns) * 1e-9 * channel.pilot_state[row[heard], 2:]
    direction[heard] = unit(cosines)
    row = places(user, tracks.user)
    bound = row >= 0
    if np.any(bound):
        direction[bound] = _track_directions(belief, spec, t_ns)[row[bound]]
    return direction, heard | bound


def _rate_bps(
    user: Int[Array, " user"], belief: Belief, spec: FrontendSpec, numerology: Numerology
) -> Float[Array, " user"]:
    """What each user could carry with a matched beam and equal power, as believed; 0 for one without a channel."""
    channel, subcarriers = belief.channel, len(numerology.subcarrier_hz)
    elements = len(spec.transmit.array.position_m)
    rate, row = np.zeros(len(user)), places(user, channel.user)
    known = row >= 0
    size = np.abs(channel.gain[row[known]]) ** 2 + channel.gain_variance[row[known]]
    snr = size * elements * spec.transmit_power_w / subcarriers / numerology.user_noise_w
    rate[known] = numerology.subcarrier_spacing_hz * np.sum(np.log2(1 + snr), axis=1)
    return rate


def _last_served(user: Int[Array, " user"], previous: Plan | None) -> int | None:
    if previous is None or not np.any(previous.served):
        return None
    block = int(np.flatnonzero(previous.served.any(axis=1))[-1])
    return int(previous.user[previous.served[block].argmax()])
