"""The policy that picks, user by user, what pays: pilots or sensing alone, memory or none, longer sensing or shorter; and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Bool, Float, record
from twin.planning._ergodic import Sample, Scene, ergodic_bits, sampled
from twin.planning._kernels import best_split
from twin.planning._memory import kalman, lengthened
from twin.planning._search import Case, Choice, check, even_split, shortest_sensing_s, solve

__all__ = ["Adapted", "adapt", "ergodic_plan", "ergodic_rate_of"]

WORTH = 2e-3  # smallest relative gain for which one way of serving a user is exchanged for another
MEMORY = 6  # updates that an estimate with memory is drawn over


@record
class Adapted:
    """A plan and the ways in which each user is served."""

    choice: Choice  # M = 0: no user sends pilots
    pilots: Bool[Array, " user"] | None  # who sends pilots; None: all, with the paper's beams
    memory: bool  # estimates start from the update before
    follow: bool  # beams follow the users' angular rate
    pilot_symbols: int  # 0: as the case has it
    paper_rate: float  # of the paper's estimator, beams and search in the same metric, its own T_l and M
    user_rate: Float[Array, " user"]  # bit/Hz a subframe; NaN where the metric has no single users
    reason: tuple[str, ...]  # one a user


def adapt(
    scene: Scene,
    case: Case,
    *,
    metric: str = "ergodic",
    draws: int = 400,
    seed: int = 0,
    longer_blocks: Sequence[int] = (1, 2, 4),
    pilot_symbols: Sequence[int] = (),
    symbol_s: float = 1e-6,
    guard_symbols: int = 0,
) -> Adapted:
    """The best of all ways to serve the users, by predicted rate.

    Args:
        scene: what is believed of places and surroundings.
        case: the instance; ``demodulation_s`` is charged to every candidate.
        metric: "ergodic": mean of log2(1 + SINR) over drawn channels. "bound": eq 22, in which only pilots, their length and memory differ.
        draws: channels a candidate is judged by; the same ones for all.
        seed: of the draws.
        longer_blocks: block edges past the shortest T_l that are tried.
        pilot_symbols: other pilot lengths to try.
        symbol_s: of a pilot symbol.
        guard_symbols: of a pilot, without energy.

    The paper's plan is among the candidates, so the prediction is never below it. Memory is tried where ageing is geometric, for then it is exact.

    Raises:
        Misuse: as ``solve``.
    """
    check(case)
    if metric == "bound":
        return _by_bound(case, pilot_symbols, symbol_s, guard_symbols)
    if metric != "ergodic":
        raise Misuse(f"metric = {metric!r}: must be 'ergodic' or 'bound'")
    sample = sampled(case, draws, seed)
    times = _times(case, longer_blocks)
    users = len(case.gain)
    paper, _ = _best(scene, case, sample, times, None, True)
    moving = bool(np.any(scene.drift_radps))
    ways = {"all": np.ones(users, bool), "none": np.zeros(users, bool)}
    found = {name: _best(scene, case, sample, times[:1], mask, True) for name, mask in ways.items()}
    name = max(found, key=lambda key: found[key][0].rate)
    mask, (plan, by_user) = ways[name], found[name]
    flips = [_best(scene, case, sample, times[:1], _flipped(mask, k), True) for k in range(users)]
    while users > 1 and max(flip[0].rate for flip in flips) > plan.rate * (1 + WORTH):
        k = int(np.argmax([flip[0].rate for flip in flips]))
        mask, (plan, by_user) = _flipped(mask, k), flips[k]
        flips = [_best(scene, case, sample, times[:1], _flipped(mask, k), True) for k in range(users)]
    plan, by_user = _best(scene, case, sample, times, mask, True)
    memory, used, symbols = False, case, 0
    if mask.any():
        if _geometric(case):
            long = sampled(case, draws, seed, MEMORY)
            for updates in sorted({plan.updates, kalman(case).updates}):
                other, other_users = _remembering(scene, case, long, times[0], mask, updates)
                if other.rate > plan.rate * (1 + WORTH):
                    plan, by_user, memory = other, other_users, True
        for length in pilot_symbols:
            if not memory:
                tried = lengthened(case, length, symbol_s, guard_symbols)
                other, other_users = _best(scene, tried, sample, _times(tried, longer_blocks)[:1], mask, True)
                if other.rate > plan.rate * (1 + WORTH):
                    plan, by_user, used, symbols = other, other_users, tried, length
    still = _best(scene, used, sample, times[:1], mask, False)[0].rate if moving and not memory else plan.rate
    if paper.rate > plan.rate:
        why = f"maximum ratio beams from pilots: {paper.rate:.4g} bit/Hz a subframe, the best other way {plan.rate:.4g}"
        rates = np.full(users, np.nan)
        return Adapted(
            choice=paper,
            pilots=None,
            memory=False,
            follow=True,
            pilot_symbols=0,
            paper_rate=paper.rate,
            user_rate=rates,
            reason=(why,) * users,
        )
    reason = []
    for k in range(users):
        way, instead = ("pilots", "sensing alone") if mask[k] else ("sensing alone", "pilots")
        change = flips[k][0].rate / plan.rate - 1
        text = (
            f"{way}: {by_user[k]:.4g} bit/Hz a subframe; all users would have {change:+.1%} with {instead} for this one"
        )
        if memory and mask[k]:
            text += "; estimates remember the update before"
        if symbols and mask[k]:
            text += f"; pilots of {symbols} symbols"
        if moving and still < plan.rate * (1 - WORTH):
            text += f"; the beam follows the angle ({still / plan.rate - 1:+.1%} without)"
        reason.append(text)
    return Adapted(
        choice=plan,
        pilots=mask,
        memory=memory,
        follow=True,
        pilot_symbols=symbols,
        paper_rate=paper.rate,
        user_rate=by_user,
        reason=tuple(reason),
    )


def ergodic_plan(
    scene: Scene, case: Case, *, draws: int = 400, seed: int = 0, longer_blocks: Sequence[int] = (1, 2, 4)
) -> Choice:
    """The paper's estimator and beams with T_l and M re-optimised for the ergodic rate."""
    check(case)
    return _best(scene, case, sampled(case, draws, seed), _times(case, longer_blocks), None, True)[0]


def ergodic_rate_of(
    scene: Scene,
    case: Case,
    choice: Choice,
    pilots: Bool[Array, " user"] | None,
    *,
    memory: bool = False,
    draws: int = 2000,
    seed: int = 1,
) -> float:
    """Ergodic rate of a plan on channels drawn anew: what a prediction is held against. bit/Hz a subframe."""
    sample = sampled(case, draws, seed, MEMORY if memory else 1)
    gap = case.blocks / max(choice.updates, 1) if memory else None
    table = ergodic_bits(scene, case, sample, choice.sensing_s, pilots, gap_blocks=gap)
    whole = int(np.floor(choice.sensing_s / case.block_s * (1 + 1e-12)))
    split = choice.split if choice.updates else np.array([case.blocks - whole])
    pilot = case.pilot_s if choice.updates else 0.0
    return float(_spent(case, table, split, choice.sensing_s - whole * case.block_s, pilot).sum())


def _times(case: Case, longer_blocks: Sequence[int]) -> list[float]:
    shortest_s = max(shortest_sensing_s(case), 1e-9 * case.block_s)
    edge = int(np.ceil(shortest_s / case.block_s - 1e-9))
    return [
        shortest_s,
        *(
            (edge + n) * case.block_s
            for n in (0, *longer_blocks)
            if shortest_s / case.block_s < edge + n <= case.blocks - 1
        ),
    ]


def _best(
    scene: Scene, case: Case, sample: Sample, times: Sequence[float], pilots: Bool[Array, " user"] | None, follow: bool
) -> tuple[Choice, Float[Array, " user"]]:
    """T_l among ``times`` and the M of the largest ergodic rate, and each user's part."""
    best: tuple[Choice, Array] | None = None
    for sensing_s in times:
        table = ergodic_bits(scene, case, sample, sensing_s, pilots, follow=follow)
        whole = int(np.floor(sensing_s / case.block_s * (1 + 1e-12)))
        data, rest_s = case.blocks - whole, max(sensing_s - whole * case.block_s, 0.0)
        bits = table.sum(axis=0)
        if pilots is not None and not pilots.any():
            split, updates, pilot_s = np.array([data]), 0, 0.0
        else:
            total = np.concatenate([[0.0], np.cumsum(bits)])
            _, updates = best_split(data, rest_s / case.block_s, case.pilot_s / case.block_s, bits, total, 1, data)
            split, pilot_s = even_split(data, updates), case.pilot_s
        by_user = _spent(case, table, split, rest_s, pilot_s)
        rate = float(by_user.sum())
        if best is None or rate > best[0].rate:
            best = _made(case, sensing_s, updates, split, rate, bits), by_user
    assert best is not None
    return best


def _remembering(
    scene: Scene, case: Case, sample: Sample, sensing_s: float, pilots: Bool[Array, " user"], updates: int
) -> tuple[Choice, Float[Array, " user"]]:
    whole = int(np.floor(sensing_s / case.block_s * (1 + 1e-12)))
    updates = min(updates, case.blocks - whole)
    split = even_split(case.blocks - whole, updates)
    table = ergodic_bits(scene, case, sample, sensing_s, pilots, gap_blocks=case.blocks / updates)
    by_user = _spent(case, table, split, max(sensing_s - whole * case.block_s, 0.0), case.pilot_s)
    return _made(case, sensing_s, updates, split, float(by_user.sum()), table.sum(axis=0)), by_user


def _spent(
    case: Case, table: Float[Array, "user block"], split: Array, rest_s: float, pilot_s: float
) -> Float[Array, " user"]:
    """Each user's part of eq 24 with the demodulation pilots charged."""
    total = np.concatenate([np.zeros((len(table), 1)), np.cumsum(table, axis=1)], axis=1)
    share = 1 - case.demodulation_s / case.block_s
    return np.asarray(
        share * (case.block_s * total[:, split].sum(axis=1) - (len(split) * pilot_s + rest_s) * table[:, 0])
    )


def _made(case: Case, sensing_s: float, updates: int, split: Array, rate: float, bits: Array) -> Choice:
    crb = case.crb_s_rad2 / sensing_s
    split = split if updates else split[:0]
    return Choice(
        search="adaptive",
        sensing_s=sensing_s,
        updates=updates,
        split=split,
        rate=rate,
        bits=bits,
        crb_rad2=crb,
        evaluations=0,
    )


def _flipped(mask: Bool[Array, " user"], k: int) -> Bool[Array, " user"]:
    out = mask.copy()
    out[k] = not out[k]
    return out


def _geometric(case: Case) -> bool:
    rho = np.asarray(case.rho)
    return bool(
        np.all(rho > 0)
        and np.allclose(rho, rho[:, :1] * (rho[:, 1:2] / rho[:, :1]) ** np.arange(rho.shape[1]), rtol=1e-9)
    )


def _by_bound(case: Case, pilot_symbols: Sequence[int], symbol_s: float, guard_symbols: int) -> Adapted:
    """Candidates that eq 22 can tell apart: pilot lengths, with memory and without."""
    paper = solve(case)
    tried = [(paper, False, 0)]
    for symbols in (0, *pilot_symbols):
        of_length = lengthened(case, symbols, symbol_s, guard_symbols) if symbols else case
        if symbols:
            tried.append((solve(of_length), False, symbols))
        if _geometric(case):
            tried.append((kalman(of_length), True, symbols))
    best, memory, symbols = tried[0]
    for choice, remembers, length in tried[1:]:
        if choice.rate > best.rate * (1 + (WORTH if (best is paper) else 0.0)):
            best, memory, symbols = choice, remembers, length
    users = len(case.gain)
    gain = best.rate / paper.rate - 1
    said = [
        text
        for text, on in (
            (f"pilots of {symbols} symbols", symbols),
            ("estimates that remember the update before", memory),
        )
        if on
    ]
    why = (
        f"pilots: {' and '.join(said)} bring {gain:+.1%} over the paper's plan"
        if said
        else "pilots as in the paper: memory and other lengths bring nothing"
    )
    return Adapted(
        choice=replace(best, search="adaptive"),
        pilots=np.ones(users, bool),
        memory=memory,
        follow=True,
        pilot_symbols=symbols,
        paper_rate=paper.rate,
        user_rate=np.full(users, np.nan),
        reason=(why,) * users,
    )
