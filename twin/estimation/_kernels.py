"""The estimator's inner loops over planar grids, compiled: patterns of receive rows, directions of pilots, gains from update to update."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.planar import line, paired, pattern, spread_out

__all__ = ["carry", "follow", "fuse", "locate"]

_EDGE = 5  # starting points of a direction on each axis of the main lobe
_MOVES = 3  # Newton steps from the best of them


@njit(cache=True, fastmath={"contract"})
def _best_start(
    level: Any,
    lean: Any,
    wave: Any,
    column_m: Any,
    row_m: Any,
    columns: int,
    rows: int,
    moment: Any,
    middle: Any,
    width: Any,
) -> Any:  # pragma: no cover - compiled
    # the place of a coarse grid over the lobe that explains most; subcarriers in four groups, each at its own mean frequency
    subcarriers, chains = moment.shape[0], moment.shape[1]
    groups = min(4, subcarriers)
    pairs, wide = level.shape[1], level.shape[2]
    away_m = (columns // 2 - (columns - 1) / 2) * column_m[1]
    yr, yi, one_r, one_i = np.empty(pairs), np.empty(pairs), np.empty(rows), np.empty(rows)
    half, zr, zi = np.empty(wide), np.empty((rows, _EDGE)), np.empty((rows, _EDGE))
    br, bi = np.empty((chains, _EDGE)), np.empty((chains, _EDGE))
    score = np.zeros((_EDGE, _EDGE))
    total = np.empty((chains, chains), np.complex128)
    for g in range(groups):
        first, last = g * subcarriers // groups, (g + 1) * subcarriers // groups
        total[:] = 0
        mean = 0.0
        for m in range(first, last):
            mean += wave[m] / (last - first)
            for c in range(chains):
                for d in range(chains):
                    total[c, d] += moment[m, c, d]
        f = (first + last) // 2 if len(level) > 1 else 0
        for j in range(_EDGE):
            uz = middle[1] + (1.6 * j / (_EDGE - 1) - 0.8) * width[1]
            line(row_m[0], row_m[1], rows, mean, uz, one_r, one_i)
            zr[:, j], zi[:, j] = one_r, one_i
        for i in range(_EDGE):
            line(away_m, column_m[1], pairs, mean, middle[0] + (1.6 * i / (_EDGE - 1) - 0.8) * width[0], yr, yi)
            half[:] = 0.0
            for c in range(pairs):
                for k in range(wide):
                    half[k] += yr[c] * level[f, c, k] + yi[c] * lean[f, c, k]
            br[:] = 0.0
            bi[:] = 0.0
            for r in range(rows):
                for c in range(chains):
                    x, y = half[2 * (r * chains + c)], half[2 * (r * chains + c) + 1]
                    for j in range(_EDGE):  # the vector lanes
                        br[c, j] += zr[r, j] * x - zi[r, j] * y
                        bi[c, j] += zr[r, j] * y + zi[r, j] * x
            for j in range(_EDGE):
                power, size = 0.0, 1e-30
                for c in range(chains):
                    square = br[c, j] ** 2 + bi[c, j] ** 2
                    size += square
                    power += total[c, c].real * square
                    for d in range(c):  # total is Hermitian
                        power += 2 * (complex(br[c, j], -bi[c, j]) * total[c, d] * complex(br[d, j], bi[d, j])).real
                score[i, j] += power / size
    best = np.argmax(score)
    return (
        middle[0] + (1.6 * (best // _EDGE) / (_EDGE - 1) - 0.8) * width[0],
        middle[1] + (1.6 * (best % _EDGE) / (_EDGE - 1) - 0.8) * width[1],
    )


@njit(cache=True, error_model="numpy")
def locate(
    hr: Any,
    hi: Any,
    wave: Any,
    spread: Any,
    all_wave: Any,
    column_m: Any,
    row_m: Any,
    columns: int,
    rows: int,
    pilot: Any,
    who: Any,
    use: Any,
    ear: Any,
    middle: Any,
    limit: Any,
    noise: float,
    fit: float,
) -> Any:  # pragma: no cover - compiled
    """Directions, covariances and whether they explain what was heard, of users ``who`` in the main lobes of their rows ``ear``.

    ``pilot`` is white, ``[update user chain subcarrier]``; ``use`` says which updates count; ``limit`` is the lobe's width on each axis, 2 for
    one that these rows do not resolve.
    """
    users, subcarriers, chains = len(who), spread.shape[1], pilot.shape[2]
    cosines, covariance, good = np.zeros((users, 2)), np.zeros((users, 2, 2)), np.zeros(users, np.bool_)
    moment = np.empty((subcarriers, chains, chains), np.complex128)
    node = np.empty((3, len(wave), chains), np.complex128)
    b = np.empty((3, subcarriers, chains), np.complex128)
    seen, size, power = np.empty((subcarriers, chains), np.complex128), np.empty(subcarriers), np.empty(subcarriers)
    across = np.empty((2, chains), np.complex128)
    width = np.where(limit < 2, limit, 0.0)
    for n in range(users):
        moment[:] = 0
        looks, energy = 0, 0.0
        for i in range(len(pilot)):
            if use[i, n]:
                looks += 1
                y = pilot[i, who[n]]
                for m in range(subcarriers):
                    for c in range(chains):
                        energy += y[c, m].real ** 2 + y[c, m].imag ** 2
                        for d in range(chains):
                            moment[m, c, d] += y[c, m] * y[d, m].conjugate()
        row = paired(hr[ear[n]], hi[ear[n]], columns)
        at = np.empty(2)
        at[0], at[1] = _best_start(row[0], row[1], all_wave, column_m, row_m, columns, rows, moment, middle[n], width)
        gradient, overlap, information = np.empty(2), np.zeros((2, 2)), np.zeros((2, 2))
        for step in range(_MOVES + 1):
            pattern(row[0], row[1], wave, column_m, row_m, columns, rows, at[0], at[1], node)
            for k in range(3):
                spread_out(spread, node[k], 1.0, b[k])
            above, below, whole = 0.0, 0.0, 0.0
            for m in range(subcarriers):
                size[m], power[m] = 1e-30, 0.0
                for c in range(chains):
                    size[m] += b[0, m, c].real ** 2 + b[0, m, c].imag ** 2
                    seen[m, c] = 0j
                    for d in range(chains):
                        seen[m, c] += b[0, m, d].conjugate() * moment[m, d, c]  # b^H R
                    power[m] += (seen[m, c] * b[0, m, c]).real
                above += power[m] - looks * noise * size[m]
                below += size[m] ** 2
                whole += size[m]
            # mean |gain|^2 summed over the looks, freed of noise
            level = max(above / below, 1e-6 * energy / max(whole, 1e-30))
            gradient[:] = 0
            overlap[:] = 0
            information[:] = 0
            for m in range(subcarriers):
                for a in range(2):
                    inner = 0j
                    for c in range(chains):
                        inner += b[0, m, c].conjugate() * b[1 + a, m, c]
                    for c in range(chains):
                        across[a, c] = b[1 + a, m, c] - b[0, m, c] * (inner / size[m])
                        gradient[a] += 2 * (seen[m, c] * across[a, c]).real / size[m]
                snr = level * size[m] / (looks * noise)
                weight = 2 / noise * level * snr / (1 + snr)
                for a in range(2):
                    for o in range(2):
                        both = 0.0
                        for c in range(chains):
                            both += (across[a, c].conjugate() * across[o, c]).real
                        overlap[a, o] += both
                        information[a, o] += weight * both
            for a in range(2):
                information[a, a] += (0.5 * limit[a]) ** -2.0
                overlap[a, a] = overlap[a, a] + noise * (0.5 * limit[a]) ** -2.0 / (2 * level)
            if step == _MOVES:
                break
            # Newton with the curvature 2 level overlap (+ prior)
            det = overlap[0, 0] * overlap[1, 1] - overlap[0, 1] * overlap[1, 0]
            moved = (
                (overlap[1, 1] * gradient[0] - overlap[0, 1] * gradient[1]) / (2 * level * det),
                (overlap[0, 0] * gradient[1] - overlap[1, 0] * gradient[0]) / (2 * level * det),
            )
            for a in range(2):
                at[a] += min(max(moved[a], -0.2 * limit[a]), 0.2 * limit[a])
        det = information[0, 0] * information[1, 1] - information[0, 1] * information[1, 0]
        covariance[n, 0, 0], covariance[n, 1, 1] = information[1, 1] / det, information[0, 0] / det
        covariance[n, 0, 1] = covariance[n, 1, 0] = -information[0, 1] / det
        explained = -looks * subcarriers * noise
        for m in range(subcarriers):
            explained += power[m] / size[m]
        samples = looks * subcarriers * chains
        signal = energy - noise * (samples + 2 * np.sqrt(samples))  # it may well be that little
        near = abs(at[0] - middle[n, 0]) <= 0.9 * limit[0] and abs(at[1] - middle[n, 1]) <= 0.9 * limit[1]
        good[n] = explained > fit * signal and near and at[0] ** 2 + at[1] ** 2 < 1
        cosines[n] = at
    return cosines, covariance, good


@njit(cache=True, error_model="numpy")
def _common_turn(
    gain: Any, z: Any, weight: Any, turns: Any, coarse: Any, product: Any, total: Any
) -> Any:  # pragma: no cover - compiled
    # the common phase and delay of z against gain: strongest of 16 x subcarriers delays, found among every eighth and its neighbours;
    # ``coarse[subcarrier part place]`` holds the turns of every eighth, places being the vector lanes
    subcarriers, places = len(gain), len(turns)
    total[:] = 0.0
    for m in range(subcarriers):
        product[m] = gain[m].conjugate() * z[m] * weight[m]
        x, y = product[m].real, product[m].imag
        for k in range(coarse.shape[2]):
            total[0, k] += x * coarse[m, 0, k] - y * coarse[m, 1, k]
            total[1, k] += x * coarse[m, 1, k] + y * coarse[m, 0, k]
    best, place, value = -1.0, 0, 0j
    for k in range(coarse.shape[2]):
        size = total[0, k] ** 2 + total[1, k] ** 2
        if size > best:
            best, place, value = size, 8 * k, complex(total[0, k], total[1, k])
    middle = place
    for fine in range(middle - 7, middle + 8):
        lag = fine % places
        if lag == middle:
            continue
        field = 0j
        at = 0
        for m in range(subcarriers):
            field += product[m] * turns[at]
            at += lag
            if at >= places:
                at -= places
        size = field.real**2 + field.imag**2
        if size > best:
            best, place, value = size, lag, field
    return place, value


@njit(cache=True, error_model="numpy")
def follow(
    held: Any,
    place: Any,
    pilot: Any,
    update_ns: Any,
    last_ns: int,
    gain: Any,
    variance: Any,
    power: Any,
    sent_w: float,
    noise_w: float,
    coherence_s: float,
    power_memory: float,
    side_lobe: float,
) -> Any:  # pragma: no cover - compiled
    """Gains ``[state user subcarrier]`` and variances before the first update and after each; ``power`` is moved in place.

    ``held`` are patterns ``[pair subcarrier chain]``, ``place`` which of them an (update, user) has. See ``Mmse.estimate``.
    """
    updates, users, chains, subcarriers = pilot.shape
    gains = np.empty((updates + 1, users, subcarriers), np.complex128)
    variances = np.empty((updates + 1, users, subcarriers))
    gains[0], variances[0] = gain, variance
    places = 16 * subcarriers
    turns = np.empty(places, np.complex128)
    for k in range(places):
        turns[k] = complex(np.cos(2 * np.pi * k / places), -np.sin(2 * np.pi * k / places))
    coarse = np.empty((subcarriers, 2, 2 * subcarriers))
    for m in range(subcarriers):
        for k in range(2 * subcarriers):
            turn = turns[8 * k * m % places]
            coarse[m, 0, k], coarse[m, 1, k] = turn.real, turn.imag
    total = np.empty((2, 2 * subcarriers))
    strength, match = np.empty(subcarriers), np.empty(subcarriers, np.complex128)
    z, weight, product = (
        np.empty(subcarriers, np.complex128),
        np.empty(subcarriers),
        np.empty(subcarriers, np.complex128),
    )
    root = np.sqrt(sent_w)
    for u in range(users):
        loudest = np.zeros(subcarriers)
        before_ns = last_ns
        for i in range(updates):
            b, y = held[place[i, u]], pilot[i, u]
            fourth, fresh, open_any = 0.0, 0.0, False
            level = 0.0
            for m in range(subcarriers):
                strength[m], match[m] = 0.0, 0j
                for c in range(chains):
                    strength[m] += b[m, c].real ** 2 + b[m, c].imag ** 2
                    match[m] += b[m, c].conjugate() * y[c, m]
                loudest[m] = max(loudest[m], strength[m])
                # through a side lobe the scattered part outshines the direction
                open_ = strength[m] > 0 and strength[m] > side_lobe * loudest[m]
                safe = strength[m] if strength[m] > 0 else 1.0
                z[m] = match[m] / (safe * root)
                weight[m] = safe * sent_w / noise_w if open_ else 0.0
                heard = strength[m] if open_ else 0.0
                fourth += heard**2
                level += heard
                fresh += match[m].real ** 2 + match[m].imag ** 2 - noise_w * heard
                open_any |= open_
            # the running mean of |gain|^2: each update counts by how well it can hear a gain of that size
            if fourth > 0:
                fresh = max(fresh / (sent_w * fourth), 0.0)
                spread = noise_w * level / (sent_w * fourth)  # what noise alone would add
                if power[u] == 0:
                    if fresh > 3 * spread / np.sqrt(max(subcarriers, 1)):
                        power[u] = fresh
                else:
                    power[u] += (1 - power_memory) * (power[u] / (power[u] + spread)) ** 2 * (fresh - power[u])
            kept = np.exp(-max(update_ns[i] - before_ns, 0) * 1e-9 / coherence_s)
            lag, value = _common_turn(gains[i, u], z, weight, turns, coarse, product, total)
            own, new = 0.0, -float(subcarriers)
            for m in range(subcarriers):
                own += (gains[i, u, m].real ** 2 + gains[i, u, m].imag ** 2) * weight[m]
                new += (z[m].real ** 2 + z[m].imag ** 2) * weight[m]
            found = value.real**2 + value.imag**2
            # what is not listened to disproves nothing
            trusted = not open_any or (found > np.log(places / 1e-3) * own and found > 0.5 * own * max(new, 1.0))
            kept = kept if trusted else 0.0
            turn = value / np.sqrt(found) if open_any and found > 0 else 1.0 + 0j
            for m in range(subcarriers):
                before = kept * gains[i, u, m] * turn
                if open_any:
                    before *= turns[(lag * m) % places].conjugate()
                doubt = kept**2 * variances[i, u, m] + (1 - kept**2) * power[u]
                share = 0.0
                if weight[m] > 0:
                    both = doubt + 1 / weight[m]
                    share = doubt / both if both > 0 else 0.0
                gains[i + 1, u, m] = before + share * (z[m] - before)
                variances[i + 1, u, m] = (1 - share) * doubt
            before_ns = update_ns[i]
    return gains, variances


@njit(cache=True, error_model="numpy")
def carry(state: Any, covariance: Any, density: float, step_s: float) -> None:  # pragma: no cover - compiled
    """One user's (uy, uz) and rates ``step_s`` later, in place; white accelerations of ``density``. Never less known than anywhere in front."""
    for i in range(2):
        state[i] += step_s * state[i + 2]
        for j in range(4):
            covariance[i, j] += step_s * covariance[i + 2, j]
    for i in range(4):
        for j in range(2):
            covariance[i, j] += step_s * covariance[i, j + 2]
    for i in range(2):
        covariance[i, i] += density * step_s**3 / 3
        covariance[i, i + 2] += density * step_s**2 / 2
        covariance[i + 2, i] += density * step_s**2 / 2
        covariance[i + 2, i + 2] += density * step_s
    over = max(3 * max(covariance[0, 0], covariance[1, 1]), 1.0)
    covariance /= over


@njit(cache=True, error_model="numpy")
def fuse(
    state: Any,
    covariance: Any,
    located: Any,
    astray: Any,
    cosines: Any,
    spread: Any,
    floor: float,
    doubt: Any,
    unknown: Any,
    density: float,
    before_s: float,
    after_s: float,
) -> None:  # pragma: no cover - compiled
    """Kalman filters of all users' pilot directions over one subframe, in place: carried to the pilots, corrected, carried to the end."""
    kalman, left = np.empty((4, 2)), np.empty((4, 4))
    total, into = np.empty((2, 2)), np.empty((2, 2))
    for n in range(len(state)):
        x, p = state[n], covariance[n]
        carry(x, p, density, before_s)
        if astray[n]:
            # heard, but not from where its beams stand: a few such subframes unmake a direction, and the user is swept for again
            p[0, 0] += doubt[0]
            p[1, 1] += doubt[1]
        if located[n]:
            gap = cosines[n] - x[:2]
            for again in range(2):
                for i in range(2):
                    for j in range(2):
                        total[i, j] = p[i, j] + spread[n, i, j] + (floor if i == j else 0.0)
                det = total[0, 0] * total[1, 1] - total[0, 1] * total[1, 0]
                into[0, 0], into[1, 1] = total[1, 1] / det, total[0, 0] / det
                into[0, 1], into[1, 0] = -total[0, 1] / det, -total[1, 0] / det
                far = 0.0
                for i in range(2):
                    for j in range(2):
                        far += gap[i] * into[i, j] * gap[j]
                if again == 0 and far > 18:
                    # what was followed was a side lobe, or the user jumped: begin again
                    x[2:] = 0.0
                    p[:] = unknown
                else:
                    break
            for i in range(4):
                for j in range(2):
                    kalman[i, j] = p[i, 0] * into[0, j] + p[i, 1] * into[1, j]
            for i in range(4):
                x[i] += kalman[i, 0] * gap[0] + kalman[i, 1] * gap[1]
                for j in range(4):
                    left[i, j] = (1.0 if i == j else 0.0) - (kalman[i, j] if j < 2 else 0.0)
            p[:] = left @ p.copy() @ left.T.copy()
            for i in range(4):
                for j in range(4):
                    for a in range(2):
                        for b in range(2):
                            noise = spread[n, a, b] + (floor if a == b else 0.0)
                            p[i, j] += kalman[i, a] * noise * kalman[j, b]
        carry(x, p, density, after_s)
