"""What the precoders' arithmetic costs beside doing it naively, and what time and freedom buy: ``python -m tools.bench.precoders [PART ...] [--json]``.

All times are process CPU time on one core, medians, each pair measured in turn in this process, at paper size: 16 x 16 elements, 64 delay lines of 16
levels, 32 subcarriers, 3 targets. What the naive way takes too long for is timed on a stated part of it and multiplied up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from hal.array import direction_from, steering, steering_gradient
from hal.record import Array
from tools.bench.row import Row, Side, Work, apart
from tools.reproduce.squint import told
from twin.compare_precoders import Setup, digital, draw, interval_db, row_of, scored
from twin.physics.allocation import crb_power, jensen_power, largest_snr, least_powers, unit_bounds
from twin.physics.fisher import crb, echo_gram, illumination, information, total_information
from twin.precoding import Problem
from twin.precoding._scene import Scene, delay_grid
from twin.precoding._search import Search, delay_divergence
from twin.precoding.cbs import Cbs
from twin.precoding.direct import Direct
from twin.precoding.no_ttd import NoTtd
from twin.precoding.sa_opt import SaOpt

BLOCK = 128  # dictionary columns that the dense search is timed on
DB = 10 / np.log(10)


def seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def repeated(work: Callable[[], Any], times: int) -> float:
    """Mean CPU time of so many."""
    return seconds(lambda: [work() for _ in range(times)]) / times


def in_turn(rounds: int, *works: Callable[[], Any], times: tuple[int, ...] | None = None) -> list[float]:
    """Median CPU time of each, one after the other in every round; ``times`` repeats the short ones within a round."""
    for work in works:
        work()
    spent = [
        [repeated(work, n) for work, n in zip(works, times or (1,) * len(works), strict=True)] for _ in range(rounds)
    ]
    return [float(np.median(column)) for column in zip(*spent, strict=True)]


def informations() -> tuple[Callable[[], Array], Callable[[], Array]]:
    """Fisher information of one beam, ours and papers/000 eq (10) term by term with dense vectors and covariances."""
    row = row_of(draw(0))
    design = Direct().design(draw(0))
    response = row.response(design.delay_s[0].reshape(-1)[: row.lines], design.phase_rad[0, 0])
    power = design.power_w[0]

    def ours() -> Array:
        gram = echo_gram(row.receive, row.target_direction, row.target_gain, row.frequency_hz, row.echo_noise_w)
        lit = illumination(row.array, row.target_direction, row.frequency_hz, response)
        return np.asarray(total_information(information(gram, lit), power))

    def naive() -> Array:
        k_count = len(row.target_direction)
        total = np.zeros((2 * k_count, 2 * k_count))
        for m, f in enumerate(row.frequency_hz):
            covariance = np.outer(response[m], response[m].conj()) * power[m]
            for k in range(k_count):
                for n in range(k_count):
                    a = [steering(row.array, row.target_direction[i], f) for i in (k, n)]
                    d = [steering_gradient(row.array, row.target_direction[i], f) for i in (k, n)]
                    size = row.target_gain[k, m].conj() * row.target_gain[n, m]
                    for i in range(2):
                        for j in range(2):
                            lit = [
                                left.conj() @ covariance.conj() @ right
                                for left, right in ((a[0], a[1]), (a[0], d[1][j]), (d[0][i], a[1]), (d[0][i], d[1][j]))
                            ]
                            value = (d[0][i].conj() @ d[1][j]) * lit[0] + (d[0][i].conj() @ a[1]) * lit[1]
                            value += (a[0].conj() @ d[1][j]) * lit[2] + (a[0].conj() @ a[1]) * lit[3]
                            total[2 * k + i, 2 * n + j] += 2 / row.echo_noise_w * (size * value).real
        return total

    return ours, naive


def fim(rounds: int) -> dict[str, float]:
    """Fisher information and bound of one beam, both ways."""
    ours, naive = informations()
    error = apart(ours(), naive())
    quick, slow = in_turn(rounds, lambda: crb(ours()), lambda: crb(naive()), times=(20, 1))
    return {"ms": 1e3 * quick, "naive ms": 1e3 * slow, "ratio": slow / quick, "relative error": error}


def search(rounds: int, draws: int) -> dict[str, float]:
    """One pass over 64 delay lines, N_D = 65536, against dense dictionaries and against separable re-evaluation; the quick search against the full."""
    row, grid = row_of(draw(0)), (256, 256)
    level_s = delay_grid(row.network)
    start = level_s[np.random.default_rng(0).integers(len(level_s), size=row.lines)]
    candidates, count = row.lines * len(level_s), len(row.frequency_hz)
    full = Search(row, grid)
    ours, part, once, again = in_turn(
        rounds,
        lambda: full.run(start, level_s, 1),
        dense(row, start),
        separable(row, start, grid),
        lambda: delay_divergence(row, start, grid),
    )
    whole = part * (grid[0] * grid[1] / BLOCK) * count * candidates
    small, kl = [], []
    for seed in range(draws):
        one = row_of(draw(seed))
        begin = level_s[np.random.default_rng(seed).integers(len(level_s), size=one.lines)]
        quick = Search(one, (32, 32))
        began = time.process_time()
        coarse = quick.run(begin, level_s, 20)[0]
        small.append(time.process_time() - began)
        fine = Search(one, grid).run(begin, level_s, 20)[0]
        kl.append((delay_divergence(one, coarse, grid), delay_divergence(one, fine, grid)))
        told(f"search: {seed + 1}/{draws} draws")
    mean = np.mean(kl, axis=0)
    return {
        "pass s": ours,
        "over dense (one subcarrier, candidate and 128 columns timed)": whole / ours,
        "over separable (one candidate timed)": once * candidates / ours,
        "over transforms (one candidate timed)": again * candidates / ours,
        "N_D 1024 converged ms": 1e3 * float(np.median(small[1:] or small)),
        "its mean KL at 65536": mean[0],
        "full search's": mean[1],
        "above it, %": 100 * float(mean[0] / mean[1] - 1),
        "draws": float(draws),
    }


def dense(row: Scene, delay_s: Array) -> Callable[[], Any]:
    """``D_t^H F h`` and ``diag(D_r^H G F D_t)`` of one subcarrier and candidate for ``BLOCK`` of the dictionary's columns, matrices written out."""
    column, up = np.divmod(np.arange(len(row.line)), row.array.rows)
    w = 2 * np.pi / 256 * np.arange(BLOCK)
    d = np.exp(1j * (w[:, None] * column + w[:, None] * up)).T / len(column) ** 0.5
    f = row.frequency_hz[0]
    ramp = np.exp(-2j * np.pi * f * delay_s[row.line])
    a = [steering(row.receive, u, f) for u in row.target_direction]
    g = np.sum([row.target_gain[k, 0] * np.outer(v, v.conj()) for k, v in enumerate(a)], axis=0)

    def once() -> tuple[Array, Array]:
        return np.abs(d.conj().T @ (row.user_row[0] * ramp)), np.abs(np.sum(d.conj() * ((g * ramp.conj()) @ d), axis=0))

    return once


def separable(row: Scene, delay_s: Array, grid: tuple[int, int]) -> Callable[[], float]:
    """The divergence of one candidate with planar steering factors and receive patterns prepared: two small matrix products a path and subcarrier."""
    k = 2 * np.pi / 299792458.0 * row.frequency_hz
    who = np.concatenate([row.user_direction[None], row.target_direction])
    y_m, z_m = row.array.position_m[:: row.array.rows, 1], row.array.position_m[: row.array.rows, 2]
    turn_y, turn_z = (
        np.exp(-2j * np.pi / size * np.outer(np.arange(size), np.arange(n)))
        for size, n in zip(grid, (len(y_m), len(z_m)), strict=True)
    )
    a_y, a_z = (np.exp(1j * who[:, i, None, None] * k[:, None] * place) for i, place in ((1, y_m), (2, z_m)))
    back = [(a_y[v] @ turn_y.T)[:, :, None] * (a_z[v] @ turn_z.T)[:, None, :] for v in range(1, len(who))]

    def once() -> float:
        ramp = np.exp(-2j * np.pi * row.frequency_hz[:, None] * delay_s[row.line]).reshape(-1, len(y_m), len(z_m))
        fields = [turn_y @ (a_y[v][:, :, None] * ramp * a_z[v][:, None, :]) @ turn_z.T for v in range(len(who))]
        echo = sum(row.target_gain[v, :, None, None] * back[v] * fields[v + 1].conj() for v in range(len(back)))
        p, q = np.abs(fields[0]).sum(axis=0), np.abs(echo).sum(axis=0)
        p, q = p / p.sum(), q / q.sum()
        return float(np.sum(p * np.log(p / q)))

    return once


def allocations() -> tuple[
    Callable[[Any], Array], Callable[[Any], Array], Callable[[Array], float], Callable[[Array], float]
]:
    """Eqs (20) and (21) by a named solver, on CBS's beam of the first draw, and what each is to make small."""
    problem = draw(0)
    row, design = row_of(problem), Cbs().design(problem)
    response = row.response(design.delay_s[0].reshape(-1)[: row.lines], design.phase_rad[0, 0])
    snr, unit = row.snr_per_w(response), row.unit_information(response)
    least = least_powers(snr, row.power_w, 0.5 * largest_snr(snr, row.power_w))
    bound = unit_bounds(unit, row.weight)

    def exact(solver: Any) -> Array:
        return crb_power(unit, least, row.power_w, row.weight, solver)

    def relaxed(solver: Any) -> Array:
        return jensen_power(bound, least, row.power_w, solver)

    return exact, relaxed, lambda p: row.crb(response, p), lambda p: float(np.sum(bound / p))


def power(rounds: int) -> dict[str, float]:
    """Eqs (20) and (21) in closed form against a conic solver."""
    exact, relaxed, crb_of, sum_of = allocations()
    spent = in_turn(
        rounds, *(lambda w=w, s=s: w(s) for w in (exact, relaxed) for s in ("closed", "cvxpy")), times=(5, 1, 20, 1)
    )
    worth = [crb_of(exact(s)) for s in ("closed", "cvxpy")]
    sums = [sum_of(relaxed(s)) for s in ("closed", "cvxpy")]
    return {
        "(20) ms": 1e3 * spent[0],
        "(20) over cvxpy": spent[1] / spent[0],
        "(20) bound apart": worth[0] / worth[1] - 1,
        "(21) ms": 1e3 * spent[2],
        "(21) over cvxpy": spent[3] / spent[2],
        "(21) bound apart": sums[0] / sums[1] - 1,
    }


BUDGETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "direct": (Direct(), (4, 6, 8, 12, 20)),
    "sa_opt": (SaOpt(), (1, 2, 4, 8)),
    "no_ttd": (NoTtd(), (1, 2, 4, 8)),
    "cbs": (Cbs(), (1, 4)),
}


def moving(seed: int, steps: int, step_rad: float = 2e-3) -> list[Problem]:
    """A draw whose user and targets go sideways together: 2 mrad a subframe of 5 ms is 12 m/s at 30 m."""
    first = draw(seed)
    out = []
    for i in range(steps):
        user, target = (
            direction_from(np.arctan2(u[..., 1], u[..., 0]) + i * step_rad, np.arcsin(u[..., 2]))
            for u in (first.user_direction, first.target_direction)
        )
        out.append(replace(first, user_direction=user, target_direction=target))
    return out


def budget(draws: int, steps: int = 25) -> list[dict[str, Any]]:
    """Warm steps after a moving scene: time of a design, and how far its utility is below that scheme's own design from nothing, in dB of bound."""
    out = []
    for name, (scheme, budgets) in BUDGETS.items():
        for n in (*budgets, 0):
            spent, short = [], []
            made = replace(scheme, budget_steps=n)
            for seed in range(draws):
                way = moving(seed, steps)
                bit = Direct().utility(row_of(way[0])).weight
                design = scheme.design(way[0])
                for problem in way[1:]:
                    asked = replace(problem, previous=design)
                    began = time.process_time()
                    design = made.design(asked)
                    spent.append(time.process_time() - began)
                    if n == 0 and len(spent) > 3:
                        break
                warm, cold = scored(way[-1], design), scored(way[-1], scheme.design(way[-1]))
                if n:
                    short.append(bit * (cold.rate - warm.rate) - np.log(cold.crb / warm.crb))
            db, half = interval_db(np.exp(short)) if n else (0.0, 0.0)
            out.append(
                {"scheme": name, "budget_steps": n, "ms": 1e3 * float(np.median(spent)), "short db": db, "ci95": half}
            )
            told(f"budget: {name} {n}")
    return out


def closing(draws: int, rate_weight: float = 4.28) -> list[dict[str, Any]]:
    """How far ``direct`` is below the fully digital bound, and what brings it nearer: starts, finer and longer delays, a line an element, any phases at all."""
    ways: dict[str, tuple[Setup, Direct]] = {
        "3 starts": (Setup(), Direct(rate_weight=rate_weight)),
        "3 starts, no polish over the grid": (Setup(), Direct(rate_weight=rate_weight, rounds=0)),
        "8 starts": (Setup(), Direct(rate_weight=rate_weight, starts=8)),
        "24 starts": (Setup(), Direct(rate_weight=rate_weight, starts=24)),
        "8 starts, continuous delays": (Setup(delay_bits=0), Direct(rate_weight=rate_weight, starts=8)),
        "delays to 400 ps": (Setup(delay_bits=6, delay_range_s=400e-12), Direct(rate_weight=rate_weight)),
        "256 lines": (Setup(delay_lines=(16, 16)), Direct(rate_weight=rate_weight)),
    }
    short: dict[str, list[tuple[float, float]]] = {name: [] for name in (*ways, "phases free on every subcarrier")}
    for seed in range(draws):
        problem = draw(seed)
        bound, bit = digital(problem, rate_weight)
        for name, (setup, made) in ways.items():
            own = draw(seed, setup)
            began = time.process_time()
            design = made.design(own)
            spent = time.process_time() - began
            score = scored(own, design)
            short[name].append((bound.utility - bit * score.rate + float(np.log(score.crb)), spent))
        began = time.process_time()
        reached = free_phases(problem, bit, ways["3 starts"][1])
        short["phases free on every subcarrier"].append((bound.utility - reached, time.process_time() - began))
        told(f"closing: {seed + 1}/{draws} draws")
    out = []
    for name, found in short.items():
        db, half = interval_db(np.exp([s for s, _ in found]))
        out.append({"way": name, "below digital db": db, "ci95": half, "s": float(np.median([t for _, t in found]))})
    return out


def free_phases(problem: Problem, bit: float, begin: Direct) -> float:
    """Utility climbed from ``begin``'s beam with a phase of its own for every element and subcarrier: what no network of phases can pass."""
    import torch
    from scipy.optimize import minimize

    row, design = row_of(problem), begin.design(problem)
    response = row.response(design.delay_s[0].reshape(-1)[: row.lines], design.phase_rad[0, 0])
    frequency, direction, gram, weight, user = (
        torch.asarray(np.array(v)) for v in (row.frequency_hz, row.target_direction, row.gram, row.weight, row.user_row)
    )

    def cost(x: Array) -> tuple[float, Array]:
        v = torch.tensor(x, requires_grad=True)
        phase, share = v[: response.size].reshape(response.shape), torch.softmax(v[response.size :], 0)
        beam = torch.complex(torch.cos(phase), torch.sin(phase)) / len(row.line) ** 0.5
        lit = illumination(row.array, direction, frequency, beam)
        bound = crb(total_information(information(gram, lit), share * row.power_w), weight)
        ratio = torch.abs(torch.sum(user * beam, dim=1)) ** 2 * share * (row.power_w / row.noise_w)
        value = torch.log(bound) - bit * torch.sum(torch.log2(1 + ratio))
        (slope,) = torch.autograd.grad(value, v)
        return value.item(), slope.numpy()

    start = np.concatenate([np.angle(response).ravel(), np.log(np.maximum(design.power_w[0], 1e-9))])
    return -float(minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": 250, "maxcor": 20}).fun)


def fim_ready() -> Work:
    def with_bound(information_of: Callable[[], Array]) -> Array:
        found = information_of()
        crb(found)
        return found

    ours, naive = informations()
    return Work(naive=Side(lambda: with_bound(naive)), ours=Side(lambda: with_bound(ours)), apart=apart, within=1e-12)


def power_ready(which: int) -> Work:
    exact, relaxed, crb_of, sum_of = allocations()
    solve, worth = ((exact, crb_of), (relaxed, sum_of))[which]
    return Work(
        naive=Side(lambda: solve("cvxpy")),
        ours=Side(lambda: solve("closed")),
        apart=lambda a, b: abs(worth(a) / worth(b) - 1),
        within=1e-6,
    )


@njit(cache=True, fastmath=True)
def roots(lane: Any, times: int) -> Any:  # pragma: no cover - compiled
    """Sums of square roots of a lane that stays in the nearest cache."""
    total = np.zeros_like(lane)
    for turn in range(times):
        for i in range(len(lane)):
            total[i] += np.sqrt(lane[i] + np.float32(turn))
    return total


def search_ready(naive: str) -> Work:
    """One pass over all lines and levels; the naive way is timed on one candidate, the dense one on a strip of its dictionary."""
    row, grid = row_of(draw(0)), (256, 256)
    level_s = delay_grid(row.network)
    start = level_s[np.random.default_rng(0).integers(len(level_s), size=row.lines)]
    candidates = row.lines * len(level_s)
    search = Search(row, grid)
    strip = candidates * len(row.frequency_hz) * grid[0] * grid[1] / BLOCK
    side = Side(dense(row, start), 1 / strip) if naive == "dense" else Side(separable(row, start, grid), 1 / candidates)
    size = len(row.frequency_hz) * candidates * grid[0] * grid[1] * 2
    lane = np.random.default_rng(1).uniform(0.5, 2.0, 2048).astype(np.float32)

    def choices(ours: Any, other: Any) -> float:
        from tests.twin.precoding.test_search import SMALL, dense_divergence
        from tests.twin.precoding.test_search import naive as walked

        small = row_of(draw(0, SMALL))
        begin = level_s[np.random.default_rng(0).integers(16, size=4)]
        slowly = walked(small, begin, level_s, (8, 8), 2, dense_divergence)
        return float(np.sum(Search(small, (8, 8)).run(begin, level_s, 2)[0] != slowly))

    return Work(
        naive=side,
        ours=Side(lambda: search.run(start, level_s, 1)),
        apart=choices,
        within=0.0,
        floor=Side(lambda: roots(lane, 1000), 1000 * len(lane) / size),
    )


_PASS = "a pass over 64 delay lines of 16 levels, 32 subcarriers, dictionary of 65536 beams"
_ROOTS = "its square roots alone, vectorised (2 a subcarrier, beam and candidate)"
_CHOICES = "lines set otherwise than by the dense search, small array"
ROWS = (
    Row(
        "precoders.search_dense",
        _PASS,
        f"dense dictionary; one subcarrier, candidate and {BLOCK} of its columns timed",
        partial(search_ready, "dense"),
        target=10_000,
        floor=_ROOTS,
        same=_CHOICES,
    ),
    Row(
        "precoders.search_separable",
        _PASS,
        "separable re-evaluation; one of 1024 candidates timed",
        partial(search_ready, "separable"),
        target=15,
        floor=_ROOTS,
        same=_CHOICES,
    ),
    Row(
        "precoders.fim",
        "Fisher information and bound of a beam: 256 elements, 3 targets, 32 subcarriers",
        "papers/000 eq (10) term by term, dense",
        fim_ready,
        target=400,
        same="the information",
    ),
    Row(
        "precoders.power_exact",
        "power over 32 subcarriers, eq (20)",
        "cvxpy",
        partial(power_ready, 0),
        target=40,
        same="the bound reached",
        needs=("cvxpy",),
    ),
    Row(
        "precoders.power_relaxed",
        "power over 32 subcarriers, eq (21)",
        "cvxpy",
        partial(power_ready, 1),
        target=40,
        same="the relaxed bound reached",
        needs=("cvxpy",),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench.precoders",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = ("fim", "search", "power", "budget", "closing")
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument(
        "--draws", type=int, default=24, help="for what is a mean over draws (default %(default)s; search: a quarter)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each timing (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and nothing else")
    given = parser.parse_args()
    wanted = given.part or parts
    if unknown := set(wanted) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    work: dict[str, Callable[[], Any]] = {
        "fim": lambda: fim(given.rounds),
        "search": lambda: search(given.rounds, max(given.draws // 4, 2)),
        "power": lambda: power(given.rounds),
        "budget": lambda: budget(max(given.draws // 4, 2)),
        "closing": lambda: closing(given.draws),
    }
    found = {name: work[name]() for name in parts if name in wanted}
    told("")
    if given.json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return 0
    for name, figures in found.items():
        print(name)
        for line in figures if isinstance(figures, list) else [figures]:
            print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
