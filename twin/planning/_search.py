"""The dual-scale problem and its searches: sensing time, number of updates and their lengths for the largest rate (papers/004, eq 25)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int, record
from twin.physics.dual_scale import believed_covariance, mmse_covariance
from twin.physics.sinr import sinr, subframe_rate
from twin.planning import _kernels as kernels

__all__ = [
    "SEARCHES",
    "Case",
    "Choice",
    "bits",
    "dynamic_split",
    "even_split",
    "loops",
    "rate",
    "shortest_sensing_s",
    "solve",
    "user_bits",
]

SEARCHES = ("optimal", "ssu", "fsu", "rba", "brute", "fixed")


@record
class Case:
    """One instance of the problem: what is believed of the users, and the frame. Gains are totals over the array's elements."""

    factor: Complex[Array, "user element node"]  # B of R = B B^H, trace 1 (``one_ring_factor``)
    slope: Complex[Array, "user element"]  # f' over sqrt(beta) (``angle_slope``)
    gain: Float[Array, " user"]  # beta
    power_w: Float[Array, " user"]  # of each stream
    noise_w: float  # at a user
    pilot_snr: Float[Array, " user"]  # gamma_e of a channel of unit gain
    crb_s_rad2: Float[Array, " user"]  # variance of the sensed angle times sensing time
    crb_max_rad2: float | Float[Array, " user"]  # the requirement: a variance
    rho: Float[Array, "user block"]  # ageing after an update, a column for every block of the subframe
    blocks: int  # N
    block_s: float
    pilot_s: float  # T_m
    own_term: bool = True  # the i = k term of eq 22
    weight: Float[Array, "user user"] | None = None  # of other users' streams; None: all at once
    guard: str = "clip"
    demodulation_s: float = 0.0  # users' own pilot in each block


@record
class Choice:
    """What a search found."""

    search: str
    sensing_s: float  # T_l
    updates: int  # M
    split: Int[Array, " update"]  # N_m
    rate: float  # eq 24: bit/Hz a subframe, summed over users
    bits: Float[Array, " block"]  # bit/s/Hz of all users in each block after an update
    crb_rad2: Float[Array, " user"]  # at this T_l
    evaluations: int  # sensing times tried


def check(case: Case) -> None:
    users = len(case.gain)
    if not users:
        raise Misuse("gain: is empty; a plan needs at least one user")
    if not 0 <= case.pilot_s <= case.block_s:
        raise Misuse(
            f"pilot_s = {case.pilot_s!r}: must lie in [0, block_s = {case.block_s!r}]; pilots longer than a block leave no data in it"
        )
    if not 0 <= case.demodulation_s < case.block_s:
        raise Misuse(f"demodulation_s = {case.demodulation_s!r}: must lie in [0, block_s = {case.block_s!r})")
    if not case.blocks >= 2:
        raise Misuse(f"blocks = {case.blocks!r}: must be at least 2")
    if not case.rho.shape[1] >= case.blocks:
        raise Misuse(f"rho: has {case.rho.shape[1]} columns, must have one for each of {case.blocks} blocks")
    if case.guard not in ("clip", "raw"):
        raise Misuse(f"guard = {case.guard!r}: must be 'clip' or 'raw'")
    for name in ("gain", "power_w", "pilot_snr", "crb_s_rad2"):
        value = getattr(case, name)
        if not (value.min() > 0 or (name == "crb_s_rad2" and value.min() >= 0)) or not value.max() < np.inf:
            worst = int(np.argmin(np.where(np.isfinite(value), value, -np.inf)))
            rule = ">= 0" if name == "crb_s_rad2" else "> 0"
            raise Misuse(f"{name}[{worst}] = {float(value[worst])!r}: must be a finite number {rule}")
    if not case.noise_w > 0:
        raise Misuse(f"noise_w = {case.noise_w!r}: must be > 0")


def shortest_sensing_s(case: Case) -> float:
    """The shortest T_l that meets every user's requirement and leaves a data block with room for pilots: CRB(T_l) <= crb_max.

    A T_l whose last, partial block has no room for pilots moves on to that block's end.

    Raises:
        Misuse: the requirement cannot be met within the subframe; says the smallest variance that can, and the T_l this one needs.
    """
    limit = np.broadcast_to(np.asarray(case.crb_max_rad2, float), case.crb_s_rad2.shape)
    if not np.all(limit > 0):
        raise Misuse(
            f"crb_max_rad2 = {case.crb_max_rad2!r}: must be > 0; it is a variance in rad^2 (crb_max_rad2_of_std_deg makes one)"
        )
    need_s = float(np.max(case.crb_s_rad2 / limit))
    pilot, t = case.pilot_s / case.block_s, need_s / case.block_s
    if t - np.floor(t + 1e-12) > 1 - pilot + 1e-12:
        t = float(np.ceil(t - 1e-12))
    longest = case.blocks - pilot
    if not t <= longest + 1e-12:
        worst = int(np.argmax(case.crb_s_rad2 / limit))
        least = float(case.crb_s_rad2[worst] / (longest * case.block_s))
        raise Misuse(
            f"crb_max_rad2 = {limit[worst]:.6g} for user {worst}: needs T_l = {need_s:.6g} s, and a subframe with one update allows "
            f"{longest * case.block_s:.6g} s; the smallest attainable is {least:.6g} rad^2 ({np.rad2deg(np.sqrt(least)):.4g} deg)"
        )
    return max(t, 0.0) * case.block_s


def solve(
    case: Case,
    search: str = "optimal",
    *,
    updates: int = 1,
    sensing_s: float | None = None,
    seed: int = 0,
    step_s: float | None = None,
) -> Choice:
    """The plan of a search.

    Args:
        case: the instance.
        search: "optimal": the paper's two-dimensional search; "ssu": one update, "fsu": one a block, both with the best T_l; "rba": T_l and M of the
            optimum and a random split; "brute": every M and T_l on a grid, by the dense formulas; "fixed": T_l and M as given.
        updates: M of "fixed".
        sensing_s: T_l of "fixed"; None: the shortest.
        seed: of "rba".
        step_s: grid of "brute"; None: a seventieth of a block (a symbol of the paper).

    Raises:
        Misuse: the requirement cannot be met, more updates than data blocks, pilots longer than a block, or a field out of range.
    """
    if search not in SEARCHES:
        raise Misuse(f"search = {search!r}: must be one of {', '.join(SEARCHES)}")
    check(case)
    shortest_s = shortest_sensing_s(case)
    if search == "brute":
        return _brute(case, shortest_s, case.block_s / 70 if step_s is None else step_s)
    if search == "fixed":
        chosen_s = shortest_s if sensing_s is None else sensing_s
        data = case.blocks - int(np.floor(chosen_s / case.block_s * (1 + 1e-12)))
        if not 1 <= updates <= data:
            raise Misuse(
                f"updates = {updates!r}: must lie in [1, {data}], the data blocks that T_l = {chosen_s!r} s leaves"
            )
        if not chosen_s >= shortest_s * (1 - 1e-12):
            raise Misuse(f"sensing_s = {chosen_s!r}: must be >= {shortest_s!r}, the shortest that meets crb_max_rad2")
        return _choice(case, search, chosen_s, even_split(data, updates), 1)
    mode = {"optimal": 0, "rba": 0, "ssu": 1, "fsu": -1}[search]
    arrays = _arrays(case)
    found, t, m, evaluations = kernels.sweep(
        shortest_s / case.block_s, case.blocks, case.pilot_s / case.block_s, mode, *arrays
    )
    if not m > 0:
        raise Misuse(
            "guard = 'raw': the rate has no value at any sensing time, R-hat is past its pole everywhere; use guard = 'clip'"
        )
    data = case.blocks - int(np.floor(t + 1e-12))
    split = even_split(data, m)
    if search == "rba":
        cuts = np.sort(np.random.default_rng(seed).choice(np.arange(1, data), m - 1, replace=False))
        split = np.diff(np.concatenate([[0], cuts, [data]])).astype(np.int64)
        return _choice(case, search, t * case.block_s, split, evaluations)
    return Choice(
        search=search,
        sensing_s=t * case.block_s,
        updates=m,
        split=split,
        rate=found * case.block_s,
        bits=_bits(case, t, arrays),
        crb_rad2=case.crb_s_rad2 / (t * case.block_s),
        evaluations=evaluations,
    )


def rate(case: Case, sensing_s: float, split: Int[Array, " update"]) -> float:
    """Rate of eq 24 for any T_l and N_m, bit/Hz a subframe. Raises Misuse if blocks do not add up, or as ``subframe_rate``."""
    check(case)
    data = case.blocks - int(np.floor(sensing_s / case.block_s * (1 + 1e-12)))
    if not int(np.sum(split)) == data:
        raise Misuse(
            f"split: sums to {int(np.sum(split))} blocks, must be the {data} that T_l = {sensing_s!r} s leaves"
        )
    return subframe_rate(bits(case, sensing_s), split, sensing_s, case.block_s, case.pilot_s, case.demodulation_s)


def bits(case: Case, sensing_s: float) -> Float[Array, " block"]:
    """Bit/s/Hz of all users in each block after an update, by eqs 22 and 23, through the compiled kernels."""
    return _bits(case, sensing_s / case.block_s, _arrays(case))


def _bits(case: Case, t: float, arrays: tuple[Any, ...]) -> Float[Array, " block"]:
    gamma, out, total = np.empty(len(case.gain)), np.empty(case.blocks), np.empty(case.blocks + 1)
    signal: Any = kernels.signal
    fine, _ = signal(max(t, 1e-9), *arrays[:-2], gamma)
    if not fine:
        return np.full(case.blocks, np.nan)
    kernels.prefix(gamma, arrays[-2], 1.0, out, total)
    return out


def user_bits(case: Case, sensing_s: float) -> Float[Array, "user block"]:
    """Bit/s/Hz of each user in each block after an update, by eqs 22 and 23 and the dense formulas."""
    correlation = case.factor @ np.conj(np.swapaxes(case.factor, 1, 2))
    believed = believed_covariance(correlation, case.slope, case.gain, case.crb_s_rad2 / sensing_s, case.guard)
    estimate = mmse_covariance(believed, case.pilot_snr)
    rho = case.rho[:, : case.blocks]
    gamma = sinr(correlation, case.gain, estimate, case.power_w, case.noise_w, rho, case.own_term, case.weight)
    return np.asarray(np.log2(1 + gamma))


def even_split(blocks: int, updates: int) -> Int[Array, " update"]:
    """Blocks of each update, as equal as whole numbers allow and the longer ones spread evenly (eq 27).

    Raises:
        Misuse: more updates than blocks.
    """
    if not 1 <= updates <= blocks:
        raise Misuse(f"updates = {updates!r}: must lie in [1, {blocks}], the number of data blocks")
    return np.diff(np.arange(updates + 1) * blocks // updates).astype(np.int64)


def dynamic_split(bits: Float[Array, " block"], blocks: int, updates: int) -> tuple[float, Int[Array, " update"]]:
    """The best split of all, by dynamic programming: ``max sum_m F(N_m)``, F the running sum of ``bits``; and the split.

    Equal splits reach it whenever ``bits`` never rises (F is then concave): Proposition 2 for geometric ageing. Under Jakes they need not.
    """
    total = np.concatenate([[0.0], np.cumsum(bits)])[: blocks + 1]
    best, took = np.full((updates + 1, blocks + 1), -np.inf), np.zeros((updates + 1, blocks + 1), np.int64)
    best[0, 0] = 0.0
    for m in range(1, updates + 1):
        for n in range(m, blocks + 1):
            options = best[m - 1, :n] + total[n - np.arange(n)]
            took[m, n] = n - int(np.argmax(options))
            best[m, n] = options.max()
    split, left = [], blocks
    for m in range(updates, 0, -1):
        split.append(int(took[m, left]))
        left -= split[-1]
    return float(best[updates, blocks]), np.array(split[::-1], dtype=np.int64)


def loops(blocks: int, sensing_blocks: int) -> int:
    """Pairs (M, floor(T_l)) that the paper's search visits: ``sum_{h = sensing_blocks}^{N} (N - h)``."""
    return sum(blocks - h for h in range(sensing_blocks, blocks + 1))


def _arrays(case: Case) -> tuple[Any, ...]:
    """Arguments of the kernels after the frame's."""
    size, value, slopes, inner, _ = kernels.bases(np.ascontiguousarray(case.factor), case.slope, case.gain)
    return (
        *(
            size,
            value,
            slopes,
            inner,
            case.crb_s_rad2 / case.block_s,
            case.gain,
            1 / case.pilot_snr,
            case.power_w,
            float(case.noise_w),
        ),
        *(
            weights(case),
            case.guard == "clip",
            np.asarray(case.rho)[:, : case.blocks] ** 2,
            1 - case.demodulation_s / case.block_s,
        ),
    )


def weights(case: Case) -> Float[Array, "user user"]:
    """Weight of each stream in each user's interference, the i = k term included or not."""
    if case.weight is None:
        return _ones(len(case.gain), case.own_term)
    users = len(case.gain)
    return np.asarray(case.weight * (1 - np.eye(users)) + (np.eye(users) if case.own_term else 0.0))


@lru_cache(maxsize=64)
def _ones(users: int, own: bool) -> Float[Array, "user user"]:
    return np.ones((users, users)) - (0.0 if own else np.eye(users))


def _choice(case: Case, search: str, sensing_s: float, split: Int[Array, " update"], evaluations: int) -> Choice:
    found = bits(case, sensing_s)
    return Choice(
        search=search,
        sensing_s=sensing_s,
        updates=len(split),
        split=split,
        rate=subframe_rate(found, split, sensing_s, case.block_s, case.pilot_s, case.demodulation_s),
        bits=found,
        crb_rad2=case.crb_s_rad2 / max(sensing_s, 1e-300),
        evaluations=evaluations,
    )


def dense_bits(case: Case, sensing_s: Float[Array, " time"]) -> Float[Array, "time block"]:
    """``bits`` at many sensing times by the dense formulas of ``twin.physics``, matrices and all: what the kernels are held against."""
    out = np.empty((len(sensing_s), case.blocks))
    for i, t_s in enumerate(sensing_s):
        out[i] = np.sum(user_bits(case, float(t_s)), axis=0)
    return out


def _brute(case: Case, shortest_s: float, step_s: float) -> Choice:
    block_s, pilot_s, tiny = case.block_s, case.pilot_s, 1e-9 * case.block_s
    edges = np.arange(np.ceil(shortest_s / block_s - 1e-12), case.blocks) * block_s
    grid = np.unique(
        np.concatenate(
            [[shortest_s], edges, np.arange(shortest_s, (case.blocks - pilot_s / block_s) * block_s, step_s)]
        )
    )
    whole = np.floor(grid / block_s * (1 + 1e-12)).astype(int)
    room = (grid > 0) & (grid - whole * block_s <= block_s - pilot_s + tiny) & (whole < case.blocks)
    grid, whole = grid[room], whole[room]
    table = dense_bits(case, grid)
    total = np.concatenate([np.zeros((len(grid), 1)), np.cumsum(table, axis=1)], axis=1)
    best, at = -np.inf, (0, 1)
    for m in range(1, case.blocks + 1):
        able = np.flatnonzero(case.blocks - whole >= m)
        if not able.size:
            break
        n = case.blocks - whole[able]
        q, r = n // m, n % m
        extra = np.where(r > 0, table[able, np.minimum(q, case.blocks - 1)], 0.0)
        value = (
            block_s * (m * total[able, q] + r * extra)
            - (m * pilot_s + np.maximum(grid[able] - whole[able] * block_s, 0)) * table[able, 0]
        )
        top = int(np.argmax(value))
        if value[top] > best:
            best, at = float(value[top]), (int(able[top]), m)
    t_s, m = float(grid[at[0]]), at[1]
    found = replace(
        _choice(case, "brute", t_s, even_split(case.blocks - int(whole[at[0]]), m), len(grid)), bits=table[at[0]]
    )
    return replace(found, rate=best * (1 - case.demodulation_s / block_s))
