"""Compiled core of the dual-scale search: every user's covariance in a few real numbers, every sensing time in a few microseconds.

In a basis of its own, user i's ``R-hat(c) = D - c z z^T`` is real: D the eigenvalues of beta R, z the slope. So C_h is a rank-two change of a diagonal
matrix (Sherman-Morrison; the clipped eigenpair from the secular equation), and ``tr(R_k C_i)`` the inner product with a matrix made once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["bases", "best_split", "prefix", "signal", "sweep"]

TOLERANCE = 1e-13  # of the trace: eigenvalues below it are left out
INSIDE = 1e-4  # of the gain: R-hat counts as a covariance while its negative eigenvalue is smaller
GOLDEN = 0.6180339887498949
GRID = 8  # points of a piece outside the guard


@njit(cache=True, error_model="numpy")
def bases(factor, slope, gain):  # type: ignore[no-untyped-def]
    """(p, D, z, N, Q): size, eigenvalues and slope of each user's basis; ``N[k, i] = Re(Q_i^H beta_k R_k Q_i)``; the bases."""
    users, elements, nodes = factor.shape
    most = min(elements, nodes + 1)
    size = np.zeros(users, np.int64)
    value = np.zeros((users, most))
    slopes = np.zeros((users, most))
    base = np.zeros((users, elements, most), np.complex128)
    root = np.zeros((users, elements, most), np.complex128)
    for i in range(users):
        b = np.ascontiguousarray(factor[i]) * np.sqrt(gain[i])
        if nodes >= elements:
            d, u = np.linalg.eigh(np.dot(b, np.ascontiguousarray(b.conj().T)))
        else:
            q, upper = np.linalg.qr(b)
            d, v = np.linalg.eigh(np.dot(upper, np.ascontiguousarray(upper.conj().T)))
            u = np.dot(np.ascontiguousarray(q), np.ascontiguousarray(v))
        z = slope[i] * np.sqrt(gain[i])
        left = z.copy()
        p = 0
        for j in range(len(d) - 1, -1, -1):
            if d[j] <= TOLERANCE * gain[i] or p == most:
                break
            along = 0j
            for e in range(elements):
                along += np.conj(u[e, j]) * z[e]
            turn = along / abs(along) if abs(along) > 0 else 1.0 + 0j
            value[i, p], slopes[i, p] = d[j], abs(along)
            for e in range(elements):
                base[i, e, p] = u[e, j] * turn
                root[i, e, p] = base[i, e, p] * np.sqrt(d[j])
                left[e] -= u[e, j] * along
            p += 1
        rest = 0.0
        whole = 0.0
        for e in range(elements):
            rest += abs(left[e]) ** 2
            whole += abs(z[e]) ** 2
        if p < most and rest > 1e-26 * whole:
            for e in range(elements):
                base[i, e, p] = left[e] / np.sqrt(rest)
            slopes[i, p] = np.sqrt(rest)
            p += 1
        size[i] = p
    widest = size.max()
    left_side = np.zeros((users * widest, elements), np.complex128)
    right_side = np.zeros((elements, users * widest), np.complex128)
    for i in range(users):
        for j in range(widest):
            for e in range(elements):
                left_side[i * widest + j, e] = np.conj(root[i, e, j])
                right_side[e, i * widest + j] = base[i, e, j]
    gram = np.dot(left_side, right_side)
    inner = np.zeros((users, users, widest, widest))
    for k in range(users):
        for i in range(users):
            for r in range(size[k]):
                for a in range(size[i]):
                    g = gram[k * widest + r, i * widest + a]
                    for b_ in range(a, size[i]):
                        h = gram[k * widest + r, i * widest + b_]
                        inner[k, i, a, b_] += g.real * h.real + g.imag * h.imag
            for a in range(widest):
                for b_ in range(a):
                    inner[k, i, a, b_] = inner[k, i, b_, a]
    return size, value[:, :widest].copy(), slopes[:, :widest].copy(), inner, base[:, :, :widest].copy()


@njit(cache=True, error_model="numpy")
def _below_zero(d, z, c, p):  # type: ignore[no-untyped-def]
    """Minus the negative eigenvalue of ``diag(d) - c z z^T``; 0 if there is none. Newton on 1/g, which is concave: monotone from the left."""
    if c == 0.0:
        return 0.0
    x = 0.0
    smallest = np.inf
    at_zero = 0.0
    for j in range(p):
        if z[j] != 0.0:
            x = max(x, c * z[j] ** 2 - d[j])
            smallest = min(smallest, d[j])
            if d[j] > 0:
                at_zero += c * z[j] ** 2 / d[j]
    if smallest > 0.0 and at_zero <= 1.0:
        return 0.0
    for _ in range(100):
        g = 0.0
        dg = 0.0
        for j in range(p):
            if z[j] != 0.0:
                t = c * z[j] ** 2 / (d[j] + x)
                g += t
                dg += t / (d[j] + x)
        step = g * (g - 1.0) / dg
        x += step
        if not step > 1e-15 * x:
            break
    return x


@njit(cache=True, error_model="numpy")
def _estimate(d, z, p, c, noise, clip, out):  # type: ignore[no-untyped-def]
    """C_h in the user's basis, its trace, minus the clipped eigenvalue, and whether it is one at all (raw: not past the pole)."""
    w = np.empty(p)
    a = 0.0
    for j in range(p):
        w[j] = noise * z[j] / (d[j] + noise)
        a += z[j] * w[j] / noise
    x = _below_zero(d, z, c, p)
    trace = 0.0
    if clip and x > 0.0:
        u = np.empty(p)
        y = np.empty(p)
        size = 0.0
        for j in range(p):
            u[j] = z[j] / (d[j] + x)
            size += u[j] ** 2
        size = np.sqrt(size)
        b = 0.0
        e = 0.0
        for j in range(p):
            u[j] /= size
            y[j] = noise * u[j] / (d[j] + noise)
            b += w[j] * u[j] / noise
            e += y[j] * u[j] / noise
        s11, s22 = a - 1.0 / c, 1.0 / x + e
        det = s11 * s22 - b * b
        for j in range(p):
            for m in range(p):
                pair = (s22 * w[j] * w[m] - b * (w[j] * y[m] + y[j] * w[m]) + s11 * y[j] * y[m]) / det
                out[j, m] = x * u[j] * u[m] - c * z[j] * z[m] - pair
            out[j, j] += d[j] * d[j] / (d[j] + noise)
            trace += out[j, j]
        return trace, x, True
    s = c / (1.0 - c * a) if c > 0 else 0.0
    for j in range(p):
        for m in range(p):
            out[j, m] = s * w[j] * w[m] - c * z[j] * z[m]
        out[j, j] += d[j] * d[j] / (d[j] + noise)
        trace += out[j, j]
    return trace, x, c * a < 1.0


@njit(cache=True, error_model="numpy")
def signal(t, size, value, slopes, inner, kappa, gain, noise, power, sigma, weight, clip, gamma):  # type: ignore[no-untyped-def]
    """SINR of each user right after an update (into ``gamma``), for sensing time t; (is one at all, R-hat is a covariance)."""
    users = len(gamma)
    most = value.shape[1]
    c_matrix = np.zeros((most, most))
    trace = np.zeros(users)
    total = np.zeros(users)
    fine, inside = True, True
    for i in range(users):
        p = size[i]
        trace[i], x, ok = _estimate(value[i], slopes[i], p, kappa[i] / t, noise[i], clip, c_matrix)
        fine = fine and ok and trace[i] > 0
        inside = inside and x <= INSIDE * gain[i]
        scale = power[i] / trace[i]
        for k in range(users):
            if weight[k, i] != 0.0:
                cross = 0.0
                for a in range(p):
                    row = 0.0
                    for b in range(a):
                        row += c_matrix[a, b] * inner[k, i, a, b]
                    cross += 2.0 * row + c_matrix[a, a] * inner[k, i, a, a]
                total[k] += weight[k, i] * cross * scale
    for k in range(users):
        gamma[k] = power[k] * trace[k] / (total[k] + sigma)
    return fine, inside


@njit(cache=True, error_model="numpy")
def prefix(gamma, rho2, share, bits, total):  # type: ignore[no-untyped-def]
    """Sum of the users' bits in each block after an update (into ``bits``) and its running sum (into ``total``, one longer)."""
    users, blocks = rho2.shape
    total[0] = 0.0
    for n in range(blocks):
        product, sum_ = 1.0, 0.0
        for k in range(users):
            product *= 1.0 + rho2[k, n] * gamma[k]
            if product > 1e200:
                sum_ += np.log2(product)
                product = 1.0
        bits[n] = share * (sum_ + np.log2(product))
        total[n + 1] = total[n] + bits[n]


@njit(cache=True, error_model="numpy")
def _value(m, blocks, rest, pilot, bits, total):  # type: ignore[no-untyped-def]
    q = blocks // m
    r = blocks - m * q
    last = bits[q] if r > 0 else 0.0
    return m * total[q] + r * last - (m * pilot + rest) * bits[0]


@njit(cache=True, error_model="numpy")
def best_split(blocks, rest, pilot, bits, total, fewest, most):  # type: ignore[no-untyped-def]
    """Best number of updates between two bounds for equal splits of ``blocks`` (eq 27), and its rate in blocks times bits."""
    best, at = -np.inf, 0
    for m in range(fewest, most + 1):
        v = _value(m, blocks, rest, pilot, bits, total)
        if v > best:
            best, at = v, m
    return best, at


@njit(cache=True, error_model="numpy")
def _range(mode, blocks):  # type: ignore[no-untyped-def]
    """Numbers of updates that a search allows: 0 all, -1 one a block, m > 0 that one."""
    if mode == 0:
        return 1, blocks
    if mode < 0:
        return blocks, blocks
    return mode, mode


@njit(cache=True, error_model="numpy")
def sweep(  # type: ignore[no-untyped-def]
    t_min, blocks, pilot, mode, size, value, slopes, inner, kappa, gain, noise, power, sigma, weight, clip, rho2, share
):
    """(rate, T_l, M, evaluations): the maximum of eq 24 over T_l and M, times in blocks.

    Pieces of T_l between block edges, from the shortest on; one ends the search when all later ones are bounded by the SINR of the longest sensing.
    In a piece the rate of each M is concave (Proposition 3): its left edge and its slope there tell whether the inside need be searched.
    """
    users = len(kappa)
    gamma = np.empty(users)
    bits, total = np.empty(blocks), np.empty(blocks + 1)
    bits2, total2 = np.empty(blocks), np.empty(blocks + 1)
    bits3, total3 = np.empty(blocks), np.empty(blocks + 1)
    bits4, total4 = np.empty(blocks), np.empty(blocks + 1)
    bits5, total5 = np.empty(blocks), np.empty(blocks + 1)
    args = (size, value, slopes, inner, kappa, gain, noise, power, sigma, weight, clip)
    signal(float(blocks), *args, gamma)
    prefix(gamma, rho2, share, bits2, total2)
    first = int(np.floor(t_min + 1e-12))
    bound = np.empty(blocks + 1)
    bound[0] = -np.inf
    for n in range(1, blocks - first + 1):
        low, high = _range(mode, n)
        bound[n] = best_split(n, 0.0, pilot, bits2, total2, low, high)[0] if high <= n else -np.inf
    best, best_t, best_m, evaluations, inside, skip = -np.inf, np.nan, 0, 1, True, 0
    for h in range(first, blocks):
        n = blocks - h
        left = max(t_min, float(h)) if h == first else float(h)
        right = h + 1.0 - pilot
        low, high = _range(mode, n)
        if high > n:
            break
        if left > right:
            continue
        slack = 1e-14 if inside else 1e-3  # outside the guard a longer look may cost a little
        if best > -np.inf and bound[n] * (1.0 + slack) <= best:
            break
        if h < skip:
            continue
        if best > -np.inf:  # bounds that are nearer: the SINR at the end of many pieces, of this one
            pruned = False
            for last in (min(2 * h + 2, blocks), h + 1):
                signal(float(last), *args, gamma)
                prefix(gamma, rho2, share, bits2, total2)
                evaluations += 1
                if best_split(n, 0.0, pilot, bits2, total2, low, high)[0] * (1.0 + slack) <= best:
                    skip, pruned = last, True
                    break
            if pruned:
                continue
        if left == 0.0:
            left = 1e-9
        fine, inside = signal(left, *args, gamma)
        prefix(gamma, rho2, share, bits, total)
        evaluations += 1
        width = right - left
        if fine:
            v, m = best_split(n, left - h, pilot, bits, total, low, high)
            if v > best:
                best, best_t, best_m = v, left, m
        if inside and fine:
            if width > 0.0:
                step = 1e-6 * width
                signal(left + step, *args, gamma)
                prefix(gamma, rho2, share, bits2, total2)
                evaluations += 1
                known = False
                for m in range(low, high + 1):
                    v = _value(m, n, left - h, pilot, bits, total)
                    rise = (_value(m, n, left + step - h, pilot, bits2, total2) - v) / step
                    if not (rise > 0.0 and v + rise * width > best * (1.0 + 1e-14)):
                        continue
                    if not known:  # the right end, for all M at once
                        signal(right, *args, gamma)
                        prefix(gamma, rho2, share, bits3, total3)
                        signal(right - step, *args, gamma)
                        prefix(gamma, rho2, share, bits4, total4)
                        evaluations += 2
                        known = True
                    end = _value(m, n, right - h, pilot, bits3, total3)
                    fall = (end - _value(m, n, right - step - h, pilot, bits4, total4)) / step
                    v, t, more = _climb(
                        left, right, v, end, rise, fall, best, h, n, m, pilot, args, gamma, rho2, share, bits5, total5
                    )
                    evaluations += more
                    if v > best:
                        best, best_t, best_m = v, t, m
        elif width > 0.0:  # no shape is promised: look at a few points
            top, top_m, top_t = -np.inf, 0, left
            for g in range(GRID + 1):
                t = left + width * (1e-6 if g == 0 else g / GRID)
                ok, _ = signal(t, *args, gamma)
                prefix(gamma, rho2, share, bits2, total2)
                evaluations += 1
                if ok:
                    v, m = best_split(n, t - h, pilot, bits2, total2, low, high)
                    if v > top:
                        top, top_m, top_t = v, m, t
            if top > best:
                from_t, to_t = max(left, top_t - width / GRID), min(right, top_t + width / GRID)
                if to_t == top_t:  # still rising at the end: there it is
                    before = _at(right - 1e-6 * width, h, n, top_m, pilot, args, gamma, rho2, share, bits3, total3)
                    evaluations += 1
                    if before < top:
                        best, best_t, best_m = top, top_t, top_m
                        continue
                v, t, more = _golden(from_t, to_t, h, n, top_m, pilot, args, gamma, rho2, share, bits2, total2)
                evaluations += more
                if top > v:
                    v, t = top, top_t
                best, best_t, best_m = v, t, top_m
    return best, best_t, best_m, evaluations


@njit(cache=True, error_model="numpy")
def _climb(left, right, fa, fb, ga, gb, best, h, n, m, pilot, args, gamma, rho2, share, bits, total):  # type: ignore[no-untyped-def]
    """The largest rate of one M within a piece where it is concave and rises at the left: secants of its slope, until tangents bound it by ``best``."""
    step = 1e-6 * (right - left)
    a, b, evaluations = left, right, 0
    if gb >= 0.0:
        return fb, b, evaluations
    for _ in range(60):
        meet = (fb - fa + ga * a - gb * b) / (ga - gb)
        bound = fa + ga * (meet - a)
        if bound <= best * (1.0 + 1e-14) or bound - max(fa, fb) <= 1e-14 * bound or b - a < 1e-8:
            break
        x = a + (b - a) * min(max(ga / (ga - gb), 0.05), 0.95)
        fx = _at(x, h, n, m, pilot, args, gamma, rho2, share, bits, total)
        gx = (_at(x + step, h, n, m, pilot, args, gamma, rho2, share, bits, total) - fx) / step
        evaluations += 2
        if gx > 0.0:
            a, fa, ga = x, fx, gx
        else:
            b, fb, gb = x, fx, gx
    return (fa, a, evaluations) if fa >= fb else (fb, b, evaluations)


@njit(cache=True, error_model="numpy")
def _golden(left, right, h, n, m, pilot, args, gamma, rho2, share, bits, total):  # type: ignore[no-untyped-def]
    """The same where nothing is known of its shape but that it has one maximum between two points of a grid."""
    a, b = left, right
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fx = _at(x, h, n, m, pilot, args, gamma, rho2, share, bits, total)
    fy = _at(y, h, n, m, pilot, args, gamma, rho2, share, bits, total)
    evaluations = 2
    while b - a > 1e-9:
        if fx >= fy:
            b, y, fy = y, x, fx
            x = b - GOLDEN * (b - a)
            fx = _at(x, h, n, m, pilot, args, gamma, rho2, share, bits, total)
        else:
            a, x, fx = x, y, fy
            y = a + GOLDEN * (b - a)
            fy = _at(y, h, n, m, pilot, args, gamma, rho2, share, bits, total)
        evaluations += 1
    return (fx, x, evaluations) if fx >= fy else (fy, y, evaluations)


@njit(cache=True, error_model="numpy")
def _at(t, h, n, m, pilot, args, gamma, rho2, share, bits, total):  # type: ignore[no-untyped-def]
    size, value, slopes, inner, kappa, gain, noise, power, sigma, weight, clip = args
    fine, _ = signal(t, size, value, slopes, inner, kappa, gain, noise, power, sigma, weight, clip, gamma)
    if not fine:
        return -np.inf
    prefix(gamma, rho2, share, bits, total)
    return _value(m, n, t - h, pilot, bits, total)
