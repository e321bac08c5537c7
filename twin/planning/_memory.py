"""Beyond papers/004, within its metric: estimates that remember the update before, and pilots as long as they pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numba import njit

from hal.errors import Misuse
from twin.planning._search import Case, Choice, _arrays, check, even_split, shortest_sensing_s, solve

__all__ = ["kalman", "lengthened", "longest_paying"]


def kalman(case: Case, most_updates: int | None = None) -> Choice:
    """The plan when each update's prior is the aged posterior of the one before: a Kalman filter across updates and subframes.

    Per eigenmode of R-hat (eigenvalue l) an update after g blocks takes the error ``e`` to ``e- = rho^2g e + (1 - rho^2g) l`` and
    ``e = e- / (1 + gamma_e e-)``; C_h has ``l - e``. Periodic over subframes, the sensing phase's gap included. Rates by eqs 22 and 24 as for the
    paper's estimator, so the two compare. T_l is searched over the shortest and the block edges after it.

    Args:
        case: its ``rho`` must age geometrically, for then the recursion is exact: channels of other laws have no such state.
        most_updates: cap on M; None: every data block may have one.

    Raises:
        Misuse: as ``solve``; or ``rho`` is not geometric.
    """
    check(case)
    rho = np.asarray(case.rho)[:, : case.blocks]
    first = rho[:, 1] / np.where(rho[:, 0] > 0, rho[:, 0], 1.0)
    if not np.allclose(rho, rho[:, :1] * first[:, None] ** np.arange(case.blocks), rtol=1e-9, atol=1e-12):
        raise Misuse(
            "rho: must age geometrically (rho_n = rho_1^n) for a Kalman filter across updates; use the paper's estimator for other laws"
        )
    size, value, slopes, inner, kappa, _, noise, power, sigma, weight, _, _, share = _arrays(case)
    pilot, t = case.pilot_s / case.block_s, max(shortest_sensing_s(case) / case.block_s, 1e-9)
    most = case.blocks if most_updates is None else most_updates
    best, best_t, best_m, tried = -np.inf, t, 1, 0
    while t <= case.blocks - 1:
        found, m = _kalman_sweep(
            t,
            case.blocks,
            pilot,
            1,
            most,
            size,
            value,
            slopes,
            inner,
            kappa,
            noise,
            power,
            sigma,
            weight,
            rho,
            first,
            share,
        )
        tried += 1
        if found > best:
            best, best_t, best_m = found, t, m
        if tried > 3 and found < best * 0.97:
            break
        t = np.floor(t + 1e-12) + 1.0
    return Choice(
        search="kalman",
        sensing_s=best_t * case.block_s,
        updates=best_m,
        split=even_split(case.blocks - int(np.floor(best_t + 1e-12)), best_m),
        rate=best * case.block_s,
        bits=np.full(case.blocks, np.nan),  # each update has its own
        crb_rad2=case.crb_s_rad2 / (best_t * case.block_s),
        evaluations=tried,
    )


def lengthened(case: Case, symbols: int, symbol_s: float, guard_symbols: int = 0) -> Case:
    """The case with pilots of another length: T_m, and gamma_e in proportion to the symbols that are no guard.

    Raises:
        Misuse: no symbol is left, or pilots longer than a block.
    """
    before = case.pilot_s / symbol_s - guard_symbols
    if not symbols > guard_symbols:
        raise Misuse(f"symbols = {symbols!r}: must be more than the {guard_symbols} guard symbols")
    if not symbols * symbol_s <= case.block_s * (1 + 1e-12):
        raise Misuse(
            f"symbols = {symbols!r} of {symbol_s!r} s: pilots longer than a block of {case.block_s!r} s leave no data in it"
        )
    return replace(
        case,
        pilot_s=min(symbols * symbol_s, case.block_s),
        pilot_snr=case.pilot_snr * ((symbols - guard_symbols) / before),
    )


def longest_paying(
    case: Case,
    symbols: Sequence[int],
    symbol_s: float,
    guard_symbols: int = 0,
    search: Callable[[Case], Choice] = solve,
) -> tuple[Choice, int]:
    """The best plan over pilot lengths, and its length in symbols; ``search`` finds the plan of each (``solve`` or ``kalman``).

    Raises:
        Misuse: as ``lengthened``; or no length is given.
    """
    if not len(symbols):
        raise Misuse("symbols: is empty; give the pilot lengths to choose from")
    plans = [(search(lengthened(case, n, symbol_s, guard_symbols)), int(n)) for n in symbols]
    return max(plans, key=lambda plan: plan[0].rate)


@njit(cache=True, error_model="numpy")
def _kalman_sweep(  # type: ignore[no-untyped-def]
    t, blocks, pilot, fewest, most, size, value, slopes, inner, kappa, noise, power, sigma, weight, rho, rho_1, share
):
    """(rate, M) at sensing time t (blocks) when every update starts from the aged posterior of the one before, across subframes too.

    Scalar Riccati recursions in the eigenbasis of the clipped R-hat, periodic over the subframe: the gap over the sensing phase counts.
    """
    users, p_most = value.shape
    modes = np.zeros((users, p_most))
    cross = np.zeros((users, users, p_most))
    for i in range(users):
        p = size[i]
        r_hat = np.empty((p, p))
        for a in range(p):
            for b in range(p):
                r_hat[a, b] = -kappa[i] / t * slopes[i, a] * slopes[i, b]
            r_hat[a, a] += value[i, a]
        d, v = np.linalg.eigh(r_hat)
        for j in range(p):
            modes[i, j] = max(d[j], 0.0)
            for k in range(users):
                for a in range(p):
                    for b in range(p):
                        cross[k, i, j] += v[a, j] * inner[k, i, a, b] * v[b, j]
    h = int(np.floor(t + 1e-12))
    n_data = blocks - h
    best, best_m = -np.inf, 0
    error = np.empty((users, p_most))
    estimate = np.empty((users, p_most))
    gamma = np.empty(users)
    for m in range(fewest, min(most, n_data) + 1):
        error[:] = modes
        before = -1.0
        for _ in range(400):
            rate = 0.0
            for update in range(m):
                start = update * n_data // m
                length = (update + 1) * n_data // m - start
                gap = start - (update - 1) * n_data // m if update > 0 else h + n_data - (m - 1) * n_data // m
                for i in range(users):
                    kept = rho_1[i] ** (2 * gap)
                    for j in range(size[i]):
                        e = kept * error[i, j] + (1.0 - kept) * modes[i, j]
                        e = e * noise[i] / (e + noise[i])
                        error[i, j] = e
                        estimate[i, j] = modes[i, j] - e
                for k in range(users):
                    gamma[k] = sigma
                for i in range(users):
                    trace = 0.0
                    for j in range(size[i]):
                        trace += estimate[i, j]
                    for k in range(users):
                        both = 0.0
                        for j in range(size[i]):
                            both += estimate[i, j] * cross[k, i, j]
                        gamma[k] += weight[k, i] * power[i] * both / trace
                for k in range(users):
                    trace = 0.0
                    for j in range(size[k]):
                        trace += estimate[k, j]
                    gamma[k] = power[k] * trace / gamma[k]
                charge = pilot + (t - h if update == 0 else 0.0)
                for n in range(length):
                    sum_ = 0.0
                    for k in range(users):
                        sum_ += np.log2(1.0 + rho[k, n] ** 2 * gamma[k])
                    rate += share * sum_ * ((1.0 - charge) if n == 0 else 1.0)
            if abs(rate - before) <= 1e-12 * rate:
                break
            before = rate
        if rate > best:
            best, best_m = rate, m
    return best, best_m
