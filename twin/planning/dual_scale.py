"""Sensing time and pilots by the dual-scale trade-off of papers/004: the paper's search, its counterparts, and what beats them, as one planner.

The problem and its searches are plain functions (``solve``, ``kalman``, ``adapt``); ``DualScale`` asks them with what the twin believes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from hal.array import LIGHT_MPS, half_power_beamwidth
from hal.chain import thermal_noise_w
from hal.check import Ge, Gt, In, Le
from hal.errors import Misuse
from hal.frontend import FrontendSpec
from hal.record import Array, Bool, Float, Int, record
from twin.physics.aging import ageing
from twin.planning._adaptive import Adapted, adapt, ergodic_plan, ergodic_rate_of
from twin.planning._drops import paper_drop
from twin.planning._ergodic import Sample, Scene, case_of, ergodic_bits, sampled
from twin.planning._memory import kalman, lengthened, longest_paying
from twin.planning._search import (
    SEARCHES,
    Case,
    Choice,
    bits,
    dynamic_split,
    even_split,
    loops,
    rate,
    shortest_sensing_s,
    solve,
    user_bits,
)
from twin.planning.fixed import Fixed, Layout, Requests
from twin.records import Belief, Numerology, Plan

__all__ = [
    "SEARCHES",
    "Adapted",
    "Case",
    "Choice",
    "Decision",
    "DualScale",
    "Sample",
    "Scene",
    "adapt",
    "bits",
    "case_of",
    "dynamic_split",
    "ergodic_bits",
    "ergodic_plan",
    "ergodic_rate_of",
    "even_split",
    "kalman",
    "lengthened",
    "longest_paying",
    "loops",
    "paper_drop",
    "rate",
    "sampled",
    "shortest_sensing_s",
    "solve",
    "user_bits",
]

MONOPULSE = 1.6  # slope of a monopulse pair, in beamwidths: sigma = width / (1.6 sqrt(2 SNR))


@record
class Decision:
    """What a ``DualScale`` makes of a belief, before it becomes a plan."""

    sensing_s: float  # T_l asked for; the plan's dwells are whole
    dwells: int
    updates: int
    split: Int[Array, " update"]
    rate: float  # predicted: bit/Hz a subframe, eq 24, in the metric of ``metric``; NaN where nothing was solved
    feasible: bool  # False: the requirement cannot be met, and the fixed plan is played
    reason: tuple[str, ...]  # one a user of ``user``, or one for all
    user: Int[Array, " solved"]  # for whom it was solved
    scene: Scene | None = None
    case: Case | None = None
    pilots: Bool[Array, " solved"] | None = (
        None  # who is served by pilots, by an adaptive plan's beams; None: by the paper's
    )


@dataclass(frozen=True)
class DualScale(Fixed):
    """Sensing time and updates from believed angles, speeds and gains; dwells, service and beams as ``Fixed`` has them.

    What is believed becomes a ``Case``: angle and echo variance of each located user (its last detection's, or from its echo's
    strength, or its track's), its speed, its gain and the pilots' SNR. One dwell looks at one thing and tracks add looks up, so
    a user's angle after T_l a subframe has the variance of one dwell on it, times the dwell's length and the number of users,
    over T_l and ``memory_subframes``. Without a located user, or with a requirement that cannot be met, ``sensing_blocks`` and
    ``updates`` are played, and the decision says so.

    Of service "spatial" the plan carries what it expects of itself: rates over channels drawn from the belief (``planned_bps``), which compare with
    realised ones, and those of equation (22) (``formula_bps``), and the reasons. Users whose pilots surprise (``ChannelEstimate.surprise``)
    by more than ``stale_surprise`` have a stale R-hat: the plan is made anew at once, and their tracks are looked at first.
    """

    # the paper's search, its counterparts (one update; one a block; a random split), every M and T_l ("brute": minutes for a large
    # array), ``sensing_blocks`` and ``updates`` as they are, or what pays for each user
    search: Literal["optimal", "ssu", "fsu", "rba", "brute", "fixed", "adaptive"] = "optimal"
    # the requirement on every located user's angle, a variance (crb_max_rad2_of_std_deg turns degrees of deviation into it)
    crb_max_rad2: Annotated[float, Gt(0)] = 7.6e-5  # (0.5 deg)^2
    law: Literal["geometric", "jakes", "one_ring"] = "jakes"  # of the channel's ageing
    rho_1: Annotated[float, Ge(0), Le(1)] = 0.0  # of "geometric", for every user; 0: from each user's measured speed
    spread_rad: Annotated[float, In("deg"), Ge(0), Le(60)] = np.deg2rad(1.0)  # half angle of the ring, as believed
    k_db: float = -30.0  # line of sight over scatter, as believed: that part of the channel does not age
    own_term: bool = True  # the i = k term of eq 22: a user that knows its channel's mean only
    reference: Literal["element", "centre"] = "element"  # of the phase in R-hat: as printed, or the array's centre
    metric: Literal["bound", "ergodic"] = "bound"  # of "adaptive": eq 22, or the rate with a demodulation pilot
    draws: Annotated[int, Ge(16)] = 64  # channels that the ergodic metric is judged by
    replan_subframes: Annotated[int, Ge(1)] = (
        1  # plans are made anew every so many; between them the last one's shape is kept
    )
    memory_subframes: Annotated[int, Ge(1)] = 8  # over which a track's looks add up before its user has moved on
    most_updates: Annotated[int, Ge(1)] = 12  # beam memory is laid out for so many
    stale_surprise: Annotated[float, Gt(1)] = 4.0

    def plan(
        self,
        k: int,
        belief: Belief,
        user: Int[Array, " user"],
        spec: FrontendSpec,
        numerology: Numerology,
        previous: Plan | None,
    ) -> Plan:
        """The plan of subframe ``k``: ``decide``, then ``Fixed.plan`` in that shape.

        Raises Misuse when blocks, updates or memory do not suffice for the fixed plan.
        """
        user = np.asarray(user, dtype=np.int64)
        stale = self.stale(belief, user)
        if stale and previous is not None and previous.looked is not None:  # what was never looked at comes first
            theirs = belief.tracks.track[np.isin(belief.tracks.user, list(stale))]
            previous = replace(previous, looked=previous.looked[~np.isin(previous.looked[:, 0], theirs)])
        decision: Decision | None = None
        if previous is not None and self._kept(k, belief, user, previous) and not stale:
            sensing_blocks = previous.sensing_blocks
            split = np.diff(np.append(previous.update_block, numerology.blocks))
        else:
            decision = self.decide(k, belief, user, spec, numerology)
            dwell_ns = numerology.frames_per_dwell * numerology.frame_ns
            solved = np.isfinite(decision.rate)
            sensing_blocks = -(-decision.dwells * dwell_ns // numerology.block_ns) if solved else self.sensing_blocks
            split = decision.split
        shaped = replace(self, sensing_blocks=sensing_blocks, updates=len(split))
        plan = Fixed.plan(shaped, k, belief, user, spec, numerology, previous)
        # the first pilots wait for the receive beams; what they lose, the last update's blocks make up
        block = plan.update_block[0] + np.concatenate([[0], np.cumsum(split[:-1])]).astype(np.int64)
        block = np.minimum(block, numerology.blocks - len(block) + np.arange(len(block)))
        plan = replace(plan, update_block=block)
        if decision is None and previous is not None:
            return replace(
                plan,
                baseband=previous.baseband if plan.baseband is not None else None,
                blind=previous.blind,
                planned_bps=previous.planned_bps,
                formula_bps=previous.formula_bps,
                reason=previous.reason,
            )
        assert decision is not None
        why = tuple(
            f"user {one}: pilots {ratio:.1f} times as far from what was believed as they should be; planned anew, looked at first"
            for one, ratio in stale.items()
        )
        return self._foretold(replace(plan, reason=(*decision.reason, *why)), decision, numerology)

    def _kept(self, k: int, belief: Belief, user: Int[Array, " user"], previous: Plan) -> bool:
        """Whether the last plan's shape goes on: it is not time for another, and it was made for the users that have tracks now."""
        if k % self.replan_subframes == 0 or previous.formula_bps is None or not np.array_equal(previous.user, user):
            return False
        solved = np.isfinite(previous.formula_bps)
        return bool(solved.any() and np.array_equal(solved, np.isin(user, belief.tracks.user)))

    def stale(self, belief: Belief, user: Int[Array, " user"]) -> dict[int, float]:
        """Users with a track whose pilots do not fit what is believed of their channel, and by how much."""
        channel = belief.channel
        if channel.surprise is None:
            return {}
        tracked = np.isin(channel.user, user) & np.isin(channel.user, belief.tracks.user)
        over = np.flatnonzero(tracked & (np.nan_to_num(channel.surprise) > self.stale_surprise))
        return dict(zip(channel.user[over].tolist(), channel.surprise[over].tolist(), strict=True))

    def _foretold(self, plan: Plan, decision: Decision, numerology: Numerology) -> Plan:
        """The plan with what is to be expected of it as it is played: whole dwells, whole blocks."""
        planned, formula = np.full(len(plan.user), np.nan), np.full(len(plan.user), np.nan)
        blind = np.zeros(len(plan.user), bool)
        if decision.case is None or decision.scene is None:
            return replace(plan, planned_bps=planned, formula_bps=formula, blind=blind if plan.baseband else None)
        scene, case, pilots = decision.scene, decision.case, decision.pilots
        sensing_s = max(plan.sensing_ns * 1e-9, 1e-9)
        row = np.searchsorted(plan.user, decision.user)
        block = np.arange(numerology.blocks)
        update = np.searchsorted(plan.update_block, block, side="right") - 1
        age = block - plan.update_block[np.maximum(update, 0)]
        age = np.where(update < 0, numerology.blocks - 1, age)  # the baseband of the subframe before
        share = np.where(np.isin(block, plan.update_block), 1 - case.pilot_s / case.block_s, 1.0)
        width_hz = numerology.subcarrier_spacing_hz * len(numerology.subcarrier_hz)
        time = plan.served[:, row].T * share * (width_hz * numerology.block_ns / numerology.subframe_ns)  # [user block]
        formula[row] = np.sum(time * user_bits(case, sensing_s)[:, age], axis=1)
        baseband = plan.baseband
        if baseband is not None:
            baseband = self.baseband if self.search != "adaptive" else "mrt" if pilots is None else "rzf"
            mask = None if baseband == "mrt" else np.ones(len(row), bool) if pilots is None else pilots
            sample = sampled(case, self.draws, plan.k)
            table = ergodic_bits(scene, case, sample, sensing_s, mask, unit=True)
            planned[row] = np.sum(time * table[:, age], axis=1)
            blind[row] = False if mask is None else ~mask
        return replace(
            plan,
            baseband=baseband,
            blind=blind if baseband is not None else None,
            planned_bps=planned,
            formula_bps=formula,
        )

    def decide(
        self, k: int, belief: Belief, user: Int[Array, " user"], spec: FrontendSpec, numerology: Numerology
    ) -> Decision:
        """T_l, M and N_m for what is believed, and why."""
        user = np.asarray(user, dtype=np.int64)
        found = self.believed(belief, user, spec, numerology)
        if found is None:
            return self._fixed(numerology, "no user is located yet")
        scene, case, _ = found
        try:
            choice, reason, pilots = self._chosen(k, scene, case)
        except Misuse as error:
            return self._fixed(numerology, str(error), feasible=False)
        dwell_s = numerology.frames_per_dwell * numerology.frame_ns * 1e-9
        dwells = int(np.ceil(choice.sensing_s / dwell_s * (1 - 1e-9)))
        most = min(self.dwell_slots, int((numerology.blocks - 1) * case.block_s / dwell_s))
        if dwells > most:
            reason = (*reason, f"sensing cut to {most} dwells: dwell_slots = {self.dwell_slots}")
        dwells = max(min(dwells, most), 1)
        data = numerology.blocks - int(-(-dwells * dwell_s // case.block_s))
        if choice.search == "rba" and int(choice.split.sum()) == data and choice.updates <= self.most_updates:
            split = choice.split
        else:
            split = even_split(data, max(min(choice.updates, self.most_updates, data), 1))
        if choice.updates > self.most_updates:
            reason = (*reason, f"{choice.updates} updates cut to most_updates = {self.most_updates}")
        if choice.updates == 0:
            reason = (*reason, "one update is kept: users are told from other echoes by their pilots")
        return Decision(
            sensing_s=choice.sensing_s,
            dwells=dwells,
            updates=len(split),
            split=split,
            rate=choice.rate,
            feasible=True,
            reason=reason,
            user=found[2],
            scene=scene,
            case=case,
            pilots=pilots,
        )

    def believed(
        self, belief: Belief, user: Int[Array, " user"], spec: FrontendSpec, numerology: Numerology
    ) -> tuple[Scene, Case, Int[Array, " solved"]] | None:
        """The instance that the belief amounts to, and its users, those with a track only; None if there is none."""
        from twin.planning.fixed import _track_directions

        tracks, channel = belief.tracks, belief.channel
        row = np.flatnonzero(np.isin(tracks.user, user) & (tracks.user >= 0))
        row = row[np.isin(tracks.user[row], channel.user)]
        row = row[np.argsort(tracks.user[row], kind="stable")]
        if not row.size:
            return None
        direction = _track_directions(belief, spec, belief.t_ns)[row]
        at = np.array([int(np.flatnonzero(channel.user == u)[0]) for u in tracks.user[row]])
        power = np.mean(np.abs(channel.gain[at]) ** 2, axis=1) if channel.power is None else channel.power[at]
        heard = power > 0
        if not np.any(heard):
            return None
        row, direction, power = row[heard], direction[heard], power[heard]
        users, array = len(row), spec.transmit.array
        velocity = tracks.state[row, 3:]
        vector_m = tracks.state[row, :3] - spec.receive.array.origin_m
        range_m = np.maximum(np.linalg.norm(vector_m, axis=1), 1.0)
        radial = np.sum(velocity * vector_m, axis=1) / range_m
        speed = np.linalg.norm(velocity, axis=1)
        across = np.sqrt(np.maximum(speed**2 - radial**2, 0.0))
        block_s = numerology.block_ns * 1e-9
        heading = np.arctan2(across, np.abs(radial))
        first = np.full(users, self.rho_1) if self.law == "geometric" and self.rho_1 > 0 else None
        rho = ageing(
            self.law, numerology.blocks, block_s, speed * spec.carrier_hz / LIGHT_MPS, rho_1=first, heading_rad=heading
        )
        k = 10 ** (self.k_db / 10)
        elements, subcarriers = len(array.position_m), len(numerology.subcarrier_hz)
        noise_bs_w = thermal_noise_w(1e9 / numerology.pilot_ns, spec.noise_figure_db)  # a pilot is heard whole
        together = self.service == "spatial"
        dwell_s = numerology.frames_per_dwell * numerology.frame_ns * 1e-9
        crb_s_rad2 = self._look_variance(belief, row, direction, spec) * dwell_s * users / self.memory_subframes
        scene = Scene(
            position_m=array.position_m,
            frequency_hz=spec.carrier_hz,
            azimuth_rad=np.arctan2(direction[:, 1], direction[:, 0]),
            elevation_rad=np.arcsin(np.clip(direction[:, 2], -1, 1)),
            azimuth_spread_rad=self.spread_rad,
            drift_radps=across / range_m,
        )
        case = case_of(
            scene,
            reference=self.reference,
            gain=power * elements,
            power_w=np.full(users, spec.transmit_power_w / subcarriers / (users if together else 1)),
            noise_w=numerology.user_noise_w,
            pilot_snr=np.full(users, numerology.pilot_power_w / subcarriers / noise_bs_w),
            crb_s_rad2=crb_s_rad2,
            # nothing shorter than a dwell is ever played
            crb_max_rad2=min(self.crb_max_rad2, float(crb_s_rad2.max()) / dwell_s),
            rho=(k + rho) / (k + 1),
            blocks=numerology.blocks,
            block_s=block_s,
            pilot_s=numerology.pilot_ns * 1e-9,
            own_term=self.own_term,
            weight=None if together else np.zeros((users, users)),
        )
        return scene, case, tracks.user[row]

    def layout(self, spec: FrontendSpec) -> Layout:
        """As ``Fixed.layout``, for as many updates as any plan may have."""
        return Fixed.layout(replace(self, updates=self.most_updates), spec)

    def dwell_requests(self, plan: Plan, belief: Belief, spec: FrontendSpec, t_ns: int | None = None) -> Requests:
        """As ``Fixed.dwell_requests``, for the updates this plan has."""
        return Fixed.dwell_requests(replace(self, updates=max(len(plan.update_block), 1)), plan, belief, spec, t_ns)

    def _sweep_slots(self, k: int, layout: Layout) -> Int[Array, " update"]:
        if layout.resident:
            return super()._sweep_slots(k, layout)
        return layout.sweep + k % 2 * self.most_updates + np.arange(self.updates)

    def _fixed(self, numerology: Numerology, why: str, feasible: bool = True) -> Decision:
        dwell_s = numerology.frames_per_dwell * numerology.frame_ns * 1e-9
        fit = int(self.sensing_blocks * numerology.block_ns * 1e-9 / dwell_s * (1 + 1e-9))
        dwells = min(fit, self.dwell_slots)
        split = even_split(numerology.blocks - self.sensing_blocks, min(self.updates, self.most_updates))
        return Decision(
            sensing_s=dwells * dwell_s,
            dwells=dwells,
            updates=len(split),
            split=split,
            rate=np.nan,
            feasible=feasible,
            reason=(f"fixed plan: {why}",),
            user=np.zeros(0, dtype=np.int64),
        )

    def _chosen(
        self, k: int, scene: Scene, case: Case
    ) -> tuple[Choice, tuple[str, ...], Bool[Array, " solved"] | None]:
        if self.search == "adaptive":
            adapted = adapt(scene, case, metric=self.metric, draws=self.draws, seed=k)
            return adapted.choice, adapted.reason, adapted.pilots
        if self.search == "fixed":
            fixed_s = self.sensing_blocks * case.block_s
            choice = solve(case, "fixed", updates=min(self.updates, self.most_updates), sensing_s=fixed_s)
            return choice, ("fixed plan: as asked",), None
        choice = solve(case, self.search, seed=k)
        said = f"{self.search}: T_l {choice.sensing_s / case.block_s:.3g} blocks, {choice.updates} updates"
        return choice, (said,), None

    def _look_variance(
        self, belief: Belief, row: Int[Array, " user"], direction: Float[Array, "user 3"], spec: FrontendSpec
    ) -> Float[Array, " user"]:
        """Variance of a user's azimuth after one dwell on it: its nearest detection's, else from its echo strength, else its track's as it is."""
        tracks, seen = belief.tracks, belief.detections
        width = float(np.min(np.array(half_power_beamwidth(spec.receive.array, spec.carrier_hz))))
        forward = np.maximum(direction[:, 0], 0.1) ** 2
        state = tracks.state[row, :3] - spec.receive.array.origin_m
        spread = np.trace(tracks.covariance[row, :3, :3], axis1=1, axis2=2) / 3
        variance = spread / np.maximum(np.sum(state**2, axis=1), 1.0)
        if tracks.strength_db is not None:
            # all elements of chains that share none, of one chain otherwise
            halves = (spec.transmit.network.wired, spec.receive.network.wired)
            straight_db = 10 * np.log10(
                np.prod([float(w.sum() if np.all(w.sum(axis=0) <= 1) else w.sum(axis=1).max()) for w in halves])
            )
            strength = tracks.strength_db[row] + straight_db
            known = np.isfinite(strength) & (tracks.hits[row] > 0)
            variance[known] = (width / MONOPULSE) ** 2 / (2 * 10 ** (strength[known] / 10)) / forward[known]
        if len(seen.t_ns):
            apart = np.linalg.norm(direction[:, None, 1:] - seen.value[None, :, :2], axis=2)
            near = apart.argmin(axis=1)
            close = apart[np.arange(len(row)), near] < width / 2
            if (
                tracks.strength_db is not None
            ):  # one seen through a side lobe tells nothing of what a look of its own would
                close &= ~(seen.snr_db[near] < tracks.strength_db[row] + straight_db - 3)
            variance[close] = seen.covariance[near[close], 0, 0] / forward[close]
        return np.asarray(np.maximum(variance, 1e-14))
