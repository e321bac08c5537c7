"""What must hold in every subframe whatever the scenario: checked as the run goes, and where it does not, the run ends with the state that led to it.

Radiated power stays within the nameplate, nobody hears more than a matched filter would, covariances are positive, time runs forwards, shares of
a subframe add up to no more than one. None of this can be broken by bad luck, a fault or a controller's whim: a violation is a mistake in the
twin, or in a machine's word on itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import njit

from hal import wire
from hal.array import element_amplitude
from hal.errors import InvariantError, Misuse
from hal.frontend import BeamReport, Emission, FrontendSpec
from hal.medium import Paths
from hal.record import Array, Float, record
from twin.kpi import Blocks
from twin.records import Belief, Margins, Numerology, Plan, Truth

__all__ = ["Invariants", "State", "arguments", "check", "run"]

ROUNDING = 1e-6  # relative: sums of thousands of rounded products
IMPERFECT = 2.0  # power of an imperfect machine over its nameplate: gains err by decibels, never by 3
NEGATIVE = 1e-9  # of a covariance scaled to unit diagonal: the least eigenvalue rounding may leave below zero
FIGURES, WORST = ("radiated", "gathered", "least", "covered"), (max, max, min, max)


@record
class State:
    """All that the invariants of one subframe are about; one that broke is kept, encoded, and breaks again when it is read back."""

    k: int
    t_ns: int
    before_k: int  # the subframe checked before; -1: none
    believed_ns: int  # time of the belief checked before
    power_w: float  # nameplate
    excess: float  # what power may exceed what the ideal allows by, a ratio above 1
    numerology: Numerology
    truth: Truth
    plan: Plan
    belief: Belief
    reports: tuple[BeamReport, ...]
    sent: tuple[Emission, ...]  # sensing dwells, then data blocks
    down: Paths
    pattern: Float[Array, " path"]  # element amplitude towards each of the paths
    elements: int  # of the transmit array
    blocks: Blocks


def check(state: State) -> tuple[float, float, float, float]:
    """The figures of ``Margins`` of a subframe; InvariantError, without a file, for the first invariant that is broken.

    - power: ``sum_m p_m ||D||_F^2 <= nameplate`` for every event, ``||response column|| <= 1`` for every chain, and
      ``sum_path |gain|^2 <= 1`` a user and block: a passive medium amplifies nothing;
    - matched filter: ``SNR <= N p (sum_path |gain| e)^2 / noise``, since ``|h^T f| <= ||h|| <= sqrt(N) sum_path |gain| e`` (Cauchy and Schwarz);
    - covariances of detections, tracks, directions and pilots: symmetric, no negative pivot; infinite variances are left out;
    - time: subframes follow each other, truth and beliefs lie where they must, nothing is in force before it was accepted;
    - shares: dwells fit their phase, blocks their subframe, data follow sensing, and by turns only one user has a block.
    """
    return radiated(state), gathered(state), least(state), covered(state)


def radiated(state: State) -> float:
    """Most power of an event over the nameplate's, power through lossless networks and a passive medium taken into account."""
    most = 0.0
    for emission in state.sent:
        drive = emission.drive
        watts, event, passed, row, chain = _radiated(drive.power_w, drive.digital, emission.response[:, 0])
        if not watts <= state.excess * state.power_w:
            raise InvariantError(
                f"power: the event at {int(drive.t_ns[event])} ns radiates {watts:.6g} W, the nameplate says {state.power_w:.6g} W"
            )
        if not passed <= state.excess:
            raise InvariantError(
                f"power: response {row} of chain {chain} gives out {passed:.6g} of each watt put in; networks are passive"
            )
        most = max(most, watts / state.power_w)
    return float(most)


def gathered(state: State) -> float:
    """Most SNR of a served block over what a matched filter on coherent paths would make of it."""
    blocks, down = state.blocks, state.down
    if not len(blocks.user) or not len(down.sink):
        return 0.0
    most, user, block, amplified = _gathered(
        down.gain, state.pattern, down.sink, blocks.user, blocks.served, blocks.snr, blocks.matched
    )
    if not amplified <= 1.0:
        raise InvariantError(f"power: a user is reached by {amplified:.6g} of what is sent; a medium is passive")
    if not most <= state.excess:
        raise InvariantError(
            f"matched filter: user {int(blocks.user[user])} has {blocks.snr[block, user]:.6g} (ratio) in block {block}, "
            f"{most:.6g} times the bound"
        )
    return float(most)


def least(state: State) -> float:
    """Least pivot of all covariances, scaled to unit diagonal."""
    belief = state.belief
    named = (
        ("detections.covariance", belief.detections.covariance),
        ("tracks.covariance", belief.tracks.covariance),
        ("channel.direction_covariance", belief.channel.direction_covariance),
        ("channel.pilot_covariance", belief.channel.pilot_covariance),
    )
    lowest = 1.0
    for name, covariance in named:
        if covariance is None or not len(covariance):
            continue
        row, pivot = _pivots(covariance)
        if not pivot >= -NEGATIVE:
            raise InvariantError(
                f"covariance: belief.{name}[{row}] is not positive semidefinite (pivot {pivot:.3g} at unit diagonal): "
                f"{np.array2string(np.asarray(covariance[row]), precision=4)}"
            )
        lowest = min(lowest, pivot)
    variance = belief.channel.gain_variance
    if variance.size and not variance.min() >= 0:
        raise InvariantError(f"covariance: belief.channel.gain_variance has {variance.min():.6g}, less than 0")
    return float(lowest)


def covered(state: State) -> float:
    """Share of the subframe that is sensing or served; also where time stands."""
    frames, plan, t_ns = state.numerology, state.plan, state.t_ns
    end_ns = t_ns + frames.subframe_ns
    forwards = (
        ("subframe", state.k, state.before_k + 1 if state.before_k >= 0 else state.k, state.k),
        ("start", t_ns, state.k * frames.subframe_ns, state.k * frames.subframe_ns),
        ("truth.t_ns", state.truth.t_ns, t_ns, t_ns),
        ("belief.t_ns", state.belief.t_ns, max(state.believed_ns, t_ns), end_ns),
        ("tracks.t_ns", state.belief.tracks.t_ns, t_ns, end_ns),
        *(("emission", at, t_ns, end_ns) for e in state.sent for at in (int(e.drive.t_ns[0]), int(e.drive.t_ns[-1]))),
        *(("effective_ns", r.effective_ns, r.accepted_ns, r.effective_ns) for r in state.reports),
    )
    for name, value, low, high in forwards:
        if not low <= value <= high:
            raise InvariantError(f"time: {name} = {value} in subframe {state.k}, must lie in {low} .. {high}")
    dwells_ns = len(plan.dwell_transmit_slot) * frames.frames_per_dwell * frames.frame_ns
    sensing_ns = plan.sensing_blocks * frames.block_ns
    if not (dwells_ns <= plan.sensing_ns <= sensing_ns and frames.blocks * frames.block_ns <= frames.subframe_ns):
        raise InvariantError(
            f"shares: dwells of {dwells_ns} ns in a phase of {plan.sensing_ns} ns in {sensing_ns} ns of blocks, and "
            f"{frames.blocks} blocks of {frames.block_ns} ns in {frames.subframe_ns} ns, do not fit"
        )
    served = state.blocks.served
    together = served.sum(axis=1)
    at_once = 1 if plan.baseband is None else max((e.drive.digital.shape[-1] for e in state.sent), default=1)
    if together.size and (together.max() > at_once or together[: plan.sensing_blocks].any()):
        b = int(np.argmax(together > at_once)) if together.max() > at_once else int(np.argmax(together > 0))
        raise InvariantError(
            f"shares: {int(together[b])} users in block {b}, of {at_once} at once, after {plan.sensing_blocks} blocks of sensing"
        )
    return (plan.sensing_ns + int((together > 0).sum()) * frames.block_ns) / frames.subframe_ns


class Invariants:
    """Checks subframe after subframe; what broke is written to ``folder`` (None: the system's place for temporary files)."""

    def __init__(self, spec: FrontendSpec, ideal: bool, folder: Path | None = None) -> None:
        self.spec, self.folder = spec, folder
        self.excess = 1 + ROUNDING if ideal else IMPERFECT
        self.checked = 0
        self.figures: tuple[float, ...] = (0.0, 0.0, 1.0, 0.0)  # of the subframe checked last
        self._worst: tuple[float, ...] = (0.0, 0.0, 1.0, 0.0)  # of the subframe checked last, and of the nearest ones
        self._before_k, self._believed_ns, self._t_ns = -1, 0, 0

    def hold(
        self,
        k: int,
        truth: Truth,
        plan: Plan,
        numerology: Numerology,
        belief: Belief,
        reports: Sequence[tuple[str, BeamReport]],
        sent: Sequence[Emission],
        down: Paths,
        blocks: Blocks,
    ) -> None:
        """Check subframe ``k``, which began at ``truth.t_ns``; InvariantError names the file with its state."""
        array, away = self.spec.transmit.array, down.departure_m
        state: Any = SimpleNamespace(  # a State, but for the time that making one takes
            k=k,
            t_ns=k * numerology.subframe_ns,
            before_k=self._before_k,
            believed_ns=self._believed_ns,
            power_w=self.spec.transmit_power_w,
            excess=self.excess,
            numerology=numerology,
            truth=truth,
            plan=plan,
            belief=belief,
            reports=tuple(report for _, report in reports),
            sent=tuple(sent),
            down=down,
            pattern=element_amplitude(array, away / np.sqrt((away * away).sum(axis=1))[:, None]),
            elements=len(array.position_m),
            blocks=blocks,
        )
        try:
            self.figures = figures = check(state)
        except InvariantError as broken:
            file = kept(State(**vars(state)), self.folder)
            raise InvariantError(
                f"t = {state.t_ns * 1e-9:g} s: {broken}. This is a mistake of the twin or of the machine's word on itself, not of the scenario; "
                f"the state that led to it: {file} (check it again: twin invariants {file})"
            ) from None
        self.checked += 1
        self._before_k, self._believed_ns, self._t_ns = k, belief.t_ns, state.t_ns
        self._worst = tuple(pick(a, b) for pick, a, b in zip(WORST, self._worst, figures, strict=True))

    @property
    def margins(self) -> Margins:
        """Of the subframe checked last."""
        return Margins(t_ns=self._t_ns, **dict(zip(FIGURES, self.figures, strict=True)))

    def told(self) -> dict[str, float]:
        """Subframes checked, and the nearest that any of them came."""
        return {"checked": self.checked, **dict(zip(FIGURES, self._worst, strict=True))}


def kept(state: State, folder: Path | None) -> Path:
    """Write a state to a new file."""
    data = wire.encode(state)
    if folder is not None:
        file = folder / f"violation-{state.k:06d}.state"
        file.write_bytes(data)
        return file
    handle, name = tempfile.mkstemp(prefix=f"violation-{state.k:06d}-", suffix=".state")
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    return Path(name)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin invariants`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Check a state again that a run was stopped for: the same invariant is broken, until its cause is mended."
    )
    parser.epilog = "Example:\n  twin invariants runs/street-001/violation-000412.state"
    parser.add_argument("file", type=Path, metavar="FILE", help="as the run's message named it")


def run(given: argparse.Namespace) -> int:
    """``twin invariants``: say what is broken, and return 1; 0 where nothing is."""
    try:
        data = given.file.read_bytes()
    except OSError as error:
        raise Misuse(f"{given.file}: cannot be read: {error.strerror or error}") from None
    try:
        figures = check(wire.decode(data, State))
    except InvariantError as broken:
        print(broken)
        return 1
    print(", ".join(f"{name} {figure:.6g}" for name, figure in zip(FIGURES, figures, strict=True)))
    return 0


@njit(cache=True)
def _radiated(power_w: Any, digital: Any, response: Any) -> Any:  # pragma: no cover - compiled
    """Most power of an event and which it is; most power of a response column at one frequency, its row and its chain."""
    watts, event, passed, row, chain = 0.0, 0, 0.0, 0, 0
    for e in range(len(power_w)):
        total, norm = 0.0, 0.0
        for m in range(power_w.shape[1]):
            total += power_w[e, m]
        for c in range(digital.shape[1]):
            for s in range(digital.shape[2]):
                norm += digital[e, c, s].real ** 2 + digital[e, c, s].imag ** 2
        if total * norm > watts or np.isnan(total * norm):  # NaN stays
            watts, event = total * norm, e
    for r in range(len(response)):
        for c in range(response.shape[2]):
            norm = 0.0
            for n in range(response.shape[1]):
                norm += response[r, n, c].real ** 2 + response[r, n, c].imag ** 2
            if norm > passed or np.isnan(norm):
                passed, row, chain = norm, r, c
    return watts, event, passed, row, chain


@njit(cache=True)
def _gathered(
    gain: Any, pattern: Any, sink: Any, user: Any, served: Any, snr: Any, matched: Any
) -> Any:  # pragma: no cover - compiled
    """Most of SNR over ``matched (sum |g| e)^2 / sum |g|^2 e^2``, where it is, and most of ``sum |g|^2``."""
    most, at_user, at_block, amplified = 0.0, 0, 0, 0.0
    for u in range(len(user)):
        first = np.searchsorted(sink, user[u])
        for b in range(len(gain)):
            if not served[b, u]:
                continue
            size, power, whole = 0.0, 0.0, 0.0
            p = first
            while p < len(sink) and sink[p] == user[u]:
                square = gain[b, p].real ** 2 + gain[b, p].imag ** 2
                whole += square
                power += square * pattern[p] ** 2
                size += np.sqrt(square) * pattern[p]
                p += 1
            if whole > amplified or np.isnan(whole):
                amplified = whole
            bound = matched[b, u] * size * size
            ratio = snr[b, u] * power / bound if bound > 0 else (np.inf if snr[b, u] > 0 else 0.0)
            if ratio > most or np.isnan(ratio):
                most, at_user, at_block = ratio, u, b
    return most, at_user, at_block, amplified


@njit(cache=True)
def _pivots(covariance: Any) -> Any:  # pragma: no cover - compiled
    """Least pivot of the Cholesky factors of covariances scaled to unit diagonal, and whose it is; minus infinity for one that is not symmetric or finite.

    Rows and columns of an infinite variance are left out: nothing is known there.
    """
    count, size = covariance.shape[0], covariance.shape[1]
    at, least = 0, 1.0
    scaled, scale = np.empty((size, size)), np.empty(size)
    for k in range(count):
        own = 1.0
        for i in range(size):
            variance = covariance[k, i, i]
            if not variance >= 0:
                own = -np.inf
            scale[i] = 0.0 if np.isinf(variance) or variance == 0 else 1 / np.sqrt(variance)
        for i in range(size):
            for j in range(i + 1):
                if scale[i] == 0 or scale[j] == 0:
                    value = 1.0 if i == j else 0.0
                    if not np.isinf(covariance[k, i, i]) and not np.isinf(covariance[k, j, j]) and i != j:
                        if covariance[k, i, j] != 0:
                            own = -np.inf  # correlated with what has no variance
                else:
                    value = covariance[k, i, j] * scale[i] * scale[j]
                    if not abs(value - covariance[k, j, i] * scale[i] * scale[j]) <= 1e-6:
                        own = -np.inf
                scaled[i, j] = value
        for j in range(size):
            pivot = scaled[j, j]
            for m in range(j):
                pivot -= scaled[j, m] ** 2
            if pivot < own or np.isnan(pivot):
                own = pivot
            root = np.sqrt(max(pivot, 1e-12))
            for i in range(j + 1, size):
                value = scaled[i, j]
                for m in range(j):
                    value -= scaled[i, m] * scaled[j, m]
                scaled[i, j] = value / root
        if own < least or np.isnan(own):
            at, least = k, own
    return at, least
