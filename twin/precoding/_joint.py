"""The rate-CRB utility of one beam as a function of delays, phases and power, with its gradient: compiled, no matrix of the array's size.

``U = w R - ln CRB``. Phases are counted at the carrier (``theta = phase - 2 pi f_c T``), so that a delay only tilts the beam over frequency and does
not spin it. Subcarriers are the inner loops' lanes; columns and rows of the grid are contracted in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, cis
from hal.record import Array, Float
from twin.precoding._scene import Scene

__all__ = ["Utility"]

_MEMORY = 8  # moves that an ascent remembers


class Prepared(NamedTuple):
    """Arrays for the compiled parts: the grid's steering factors (planar), delay lines, phase slopes, the user's gain, the receiver's Gram matrix."""

    grid: Any
    line: Array
    turn: Array
    snr: Array
    gram: Array


@dataclass(frozen=True)
class Utility:
    """``U(theta, T, z) = weight R - ln CRB``, ``p = P softmax(z)``; R in bits a symbol over all subcarriers, CRB in rad^2."""

    scene: Scene
    weight: float

    @cached_property
    def prepared(self) -> Prepared:
        """What no setting changes."""
        row, k = self.scene, 2 * np.pi / LIGHT_MPS * self.scene.frequency_hz
        sign = -1.0 if row.convention == "printed" else 1.0
        y_m, z_m = row.array.position_m[:: row.array.rows, 1], row.array.position_m[: row.array.rows, 2]
        uy = np.concatenate([row.user_direction[1:2], sign * row.target_direction[:, 1]])
        uz = np.concatenate([row.user_direction[2:3], sign * row.target_direction[:, 2]])
        a_y = cis(uy[:, None, None] * y_m[:, None] * k) / len(row.line) ** 0.5  # [who column subcarrier]
        a_z = cis(uz[:, None, None] * z_m[:, None] * k)
        count, targets = len(k), len(row.target_direction)
        parts = (a_y.real, a_y.imag, a_z.real, a_z.imag, y_m, z_m, sign * k)
        return Prepared(
            grid=tuple(np.ascontiguousarray(part) for part in parts),
            line=np.ascontiguousarray(np.where(row.line < 0, 0, row.line)),
            turn=2 * np.pi * (row.frequency_hz - row.carrier_hz) if row.lines else np.zeros(count),
            snr=np.abs(row.user_gain) ** 2 / row.noise_w,
            gram=np.ascontiguousarray(row.gram.reshape(count, 3 * targets, 3 * targets)),
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Elements, delay lines, subcarriers."""
        return len(self.scene.line), self.scene.lines, len(self.scene.frequency_hz)

    def __call__(
        self, theta: Float[Array, " element"], delay_s: Float[Array, " line"], z: Float[Array, " subcarrier"]
    ) -> tuple[float, tuple[Array, Array, Array]]:
        """U and its gradient with respect to theta, T (1/s) and z; ``-inf`` where the information is singular."""
        own = self.prepared
        delay = delay_s if self.scene.lines else np.zeros(1)
        share = np.exp(z - z.max())
        share /= share.sum()
        beam = _beam(cis(theta), cis(-delay[:, None] * own.turn), own.line)
        forward: Any = _forward  # compiled: its arguments are not typed
        lit = forward(beam[0], beam[1], *own.grid)
        value, _, _, pull, slope = _middle(
            lit, share * self.scene.power_w, own.snr, own.gram, self.scene.weight, self.weight
        )
        backward: Any = _backward
        d_theta, d_delay = backward(
            beam[0], beam[1], pull.real.copy(), pull.imag.copy(), *own.grid, own.line, own.turn, len(delay)
        )
        d_share = slope * self.scene.power_w
        return value, (d_theta, d_delay[: self.scene.lines], share * (d_share - d_share @ share))

    def parts(
        self, theta: Float[Array, " element"], delay_s: Float[Array, " line"], power_w: Float[Array, " subcarrier"]
    ) -> tuple[float, float, float]:
        """U, R and CRB of one setting."""
        own = self.prepared
        delay = delay_s if self.scene.lines else np.zeros(1)
        beam = _beam(cis(theta), cis(-delay[:, None] * own.turn), own.line)
        forward: Any = _forward
        lit = forward(beam[0], beam[1], *own.grid)
        value, rate, bound, _, _ = _middle(lit, power_w, own.snr, own.gram, self.scene.weight, self.weight)
        return value, rate, bound

    def ascend(
        self,
        theta: Float[Array, " element"],
        delay_s: Float[Array, " line"],
        z: Float[Array, " subcarrier"],
        evaluations: int,
    ) -> tuple[Float[Array, " element"], Float[Array, " subcarrier"], int]:
        """Phases and powers after at most ``evaluations`` of U and its gradient, delays held: (theta, z, evaluations used).

        L-BFGS with backtracking, compiled; U is never lower than at the start. For steps bounded in time: a climb to the end is ``direct``'s own.
        """
        own = self.prepared
        delay = delay_s if self.scene.lines else np.zeros(1)
        ramp = cis(-delay[:, None] * own.turn)
        given = own.line, own.turn, self.scene.power_w, own.grid, own.snr, own.gram, self.scene.weight, self.weight
        compiled: Any = _ascend
        found, used = compiled(np.concatenate([theta, z]), ramp, *given, evaluations)
        return found[: len(theta)], found[len(theta) :], int(used)

    def polish(
        self,
        theta: Float[Array, " element"],
        delay_s: Float[Array, " line"],
        power_w: Float[Array, " subcarrier"],
        level_s: Float[Array, " level"],
        first: int = 0,
        count: int | None = None,
        reach: int = 0,
    ) -> tuple[Float[Array, " line"], int]:
        """Delays after trying other levels of ``count`` lines in turn from ``first`` on, theta and power held: (delays, lines changed).

        ``reach`` tries only so many levels either way; 0 tries all. Each change strictly raises U.
        """
        own = self.prepared
        if not self.scene.lines:
            return delay_s, 0
        count = self.scene.lines if count is None else count
        order = (first + np.arange(count)) % self.scene.lines
        compiled: Any = _polish
        made, changed = compiled(
            cis(theta),
            cis(-delay_s[:, None] * own.turn),
            delay_s,
            power_w,
            level_s,
            order,
            reach,
            own.line,
            own.turn,
            *own.grid,
            own.snr,
            own.gram,
            self.scene.weight,
            self.weight,
        )
        return made, int(changed)


@njit(cache=True, fastmath={"contract"})
def _beam(phasor, ramp, line):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    elements, count = phasor.size, ramp.shape[1]
    re, im = np.empty((elements, count)), np.empty((elements, count))
    for n in range(elements):
        c, s, q = phasor[n].real, phasor[n].imag, line[n]
        for m in range(count):
            re[n, m] = c * ramp[q, m].real - s * ramp[q, m].imag
            im[n, m] = c * ramp[q, m].imag + s * ramp[q, m].real
    return re, im


@njit(cache=True, fastmath={"contract"})
def _gather(re, im, ayr, ayi, azr, azi, y, z, column, first, last, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # adds to out[who, s, 2, m] what rows first .. last of one column send; slopes still lack their j k
    who, count = azr.shape[0], azr.shape[2]
    rows = z.size
    flat = np.empty((4, count))
    for v in range(who):
        flat[:] = 0.0
        for r in range(first, last):
            n = column * rows + r
            for m in range(count):
                fr = re[n, m] * azr[v, r, m] - im[n, m] * azi[v, r, m]
                fi = re[n, m] * azi[v, r, m] + im[n, m] * azr[v, r, m]
                flat[0, m] += fr
                flat[1, m] += fi
                flat[2, m] += z[r] * fr
                flat[3, m] += z[r] * fi
        for m in range(count):
            br = flat[0, m] * ayr[v, column, m] - flat[1, m] * ayi[v, column, m]
            bi = flat[0, m] * ayi[v, column, m] + flat[1, m] * ayr[v, column, m]
            out[v, 0, 0, m] += br
            out[v, 0, 1, m] += bi
            out[v, 1, 0, m] += y[column] * br
            out[v, 1, 1, m] += y[column] * bi
            out[v, 2, 0, m] += flat[2, m] * ayr[v, column, m] - flat[3, m] * ayi[v, column, m]
            out[v, 2, 1, m] += flat[2, m] * ayi[v, column, m] + flat[3, m] * ayr[v, column, m]


@njit(cache=True)
def _lit(summed, k):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    who, _, _, count = summed.shape
    lit = np.empty((who, 3, count), np.complex128)
    for v in range(who):
        for m in range(count):
            lit[v, 0, m] = complex(summed[v, 0, 0, m], summed[v, 0, 1, m])
            for s in range(1, 3):
                lit[v, s, m] = complex(-k[m] * summed[v, s, 1, m], k[m] * summed[v, s, 0, m])
    return lit


@njit(cache=True)
def _forward(re, im, ayr, ayi, azr, azi, y, z, k):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    summed = np.zeros((ayr.shape[0], 3, 2, k.size))
    for column in range(y.size):
        _gather(re, im, ayr, ayi, azr, azi, y, z, column, 0, z.size, summed)
    return _lit(summed, k)


@njit(cache=True)
def _information(lit, power, gram):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # sum_m p_m J_m of the targets' cosines; lit[0] is the user
    targets, count = lit.shape[0] - 1, lit.shape[2]
    total = np.zeros((2 * targets, 2 * targets))
    left = np.empty((2, 2 * targets), np.complex128)
    for m in range(count):
        for a in range(targets):
            for i in range(2):
                left[0, 2 * a + i], left[1, 2 * a + i] = lit[a + 1, 0, m], lit[a + 1, 1 + i, m]
        for a in range(2 * targets):
            u, s = a // 2, 1 + a % 2
            for b in range(a, 2 * targets):
                v, t = b // 2, 1 + b % 2
                right = gram[m, 3 * u + s, 3 * v + t] * left[0, b] + gram[m, 3 * u + s, 3 * v] * left[1, b]
                tilted = gram[m, 3 * u, 3 * v + t] * left[0, b] + gram[m, 3 * u, 3 * v] * left[1, b]
                both = np.conj(left[0, a]) * right + np.conj(left[1, a]) * tilted
                total[a, b] += power[m] * both.real
    for a in range(2 * targets):
        for b in range(a):
            total[a, b] = total[b, a]
    return total


@njit(cache=True)
def _bound(total, weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # tr(W J^-1) and J^-1, of the matrix scaled to a unit diagonal; -1 where it has no inverse
    size = total.shape[0]
    scale = np.empty(size)
    for a in range(size):
        if not total[a, a] > 0.0:
            return -1.0, total
        scale[a] = 1.0 / np.sqrt(total[a, a])
    lower = np.zeros((size, size))
    for a in range(size):
        for b in range(a + 1):
            rest = total[a, b] * scale[a] * scale[b]
            for c in range(b):
                rest -= lower[a, c] * lower[b, c]
            if a == b:
                if not rest > 1e-13:
                    return -1.0, total
                lower[a, a] = np.sqrt(rest)
            else:
                lower[a, b] = rest / lower[b, b]
    back = np.zeros((size, size))  # inverse of the lower factor
    for a in range(size):
        back[a, a] = 1.0 / lower[a, a]
        for b in range(a):
            rest = 0.0
            for c in range(b, a):
                rest -= lower[a, c] * back[c, b]
            back[a, b] = rest / lower[a, a]
    inverse = np.zeros((size, size))
    for a in range(size):
        for b in range(a + 1):
            rest = 0.0
            for c in range(a, size):
                rest += back[c, a] * back[c, b]
            inverse[a, b] = inverse[b, a] = rest * scale[a] * scale[b]
    bound = 0.0
    for a in range(size):
        for b in range(size):
            bound += weight[a, b] * inverse[b, a]
    return bound, inverse


@njit(cache=True)
def _value(lit, power, snr, gram, weight, rate_weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    rate = 0.0
    for m in range(power.size):
        rate += np.log2(1.0 + snr[m] * power[m] * (lit[0, 0, m].real ** 2 + lit[0, 0, m].imag ** 2))
    bound, _ = _bound(_information(lit, power, gram), weight)
    if not bound > 0.0:
        return -np.inf, rate, np.inf
    return rate_weight * rate - np.log(bound), rate, bound


@njit(cache=True)
def _middle(lit, power, snr, gram, weight, rate_weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # U, R, CRB; gradient towards the fields (dU = Re sum conj(pull) dlit) and towards the powers
    who, _, count = lit.shape
    targets = who - 1
    pull = np.zeros((who, 3, count), np.complex128)
    slope = np.zeros(count)
    rate = 0.0
    for m in range(count):
        size = snr[m] * (lit[0, 0, m].real ** 2 + lit[0, 0, m].imag ** 2)
        rate += np.log2(1.0 + size * power[m])
        common = rate_weight / np.log(2.0) / (1.0 + size * power[m])
        slope[m] = common * size
        pull[0, 0, m] = common * power[m] * snr[m] * 2.0 * lit[0, 0, m]
    bound, inverse = _bound(_information(lit, power, gram), weight)
    if not bound > 0.0:
        return -np.inf, rate, np.inf, pull, slope
    omega = (inverse @ weight @ inverse) / bound  # d(-ln CRB) / dJ
    field = np.zeros(3 * targets, np.complex128)
    for m in range(count):
        for b in range(2 * targets):
            # column b of D: two entries of the steering vector and its slopes
            v, t = b // 2, 1 + b % 2
            here, tilt = lit[v + 1, 0, m], lit[v + 1, t, m]
            for a in range(3 * targets):
                field[a] = gram[m, a, 3 * v + t] * here + gram[m, a, 3 * v] * tilt
            for a in range(2 * targets):
                u, s = a // 2, 1 + a % 2
                share = omega[a, b]
                slope[m] += (
                    share
                    * (np.conj(lit[u + 1, 0, m]) * field[3 * u + s] + np.conj(lit[u + 1, s, m]) * field[3 * u]).real
                )
                pull[u + 1, 0, m] += 2.0 * power[m] * share * field[3 * u + s]
                pull[u + 1, s, m] += 2.0 * power[m] * share * field[3 * u]
    return rate_weight * rate - np.log(bound), rate, bound, pull, slope


@njit(cache=True, fastmath={"contract"})
def _backward(re, im, pr, pi, ayr, ayi, azr, azi, y, z, k, line, turn, lines):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    who, count = azr.shape[0], k.size
    d_theta, d_delay = np.zeros(re.shape[0]), np.zeros(lines)
    base = np.empty((who, 4, count))
    ar, ai = np.empty(count), np.empty(count)
    for column in range(y.size):
        for v in range(who):
            for m in range(count):
                # conj(pull) with the slopes' j k folded in: level + z tilt, times a_y
                lr = pr[v, 0, m] + y[column] * k[m] * pi[v, 1, m]
                li = -pi[v, 0, m] + y[column] * k[m] * pr[v, 1, m]
                tr, ti = k[m] * pi[v, 2, m], k[m] * pr[v, 2, m]
                base[v, 0, m] = lr * ayr[v, column, m] - li * ayi[v, column, m]
                base[v, 1, m] = lr * ayi[v, column, m] + li * ayr[v, column, m]
                base[v, 2, m] = tr * ayr[v, column, m] - ti * ayi[v, column, m]
                base[v, 3, m] = tr * ayi[v, column, m] + ti * ayr[v, column, m]
        for r in range(z.size):
            ar[:], ai[:] = 0.0, 0.0
            for v in range(who):
                for m in range(count):
                    hr = base[v, 0, m] + z[r] * base[v, 2, m]
                    hi = base[v, 1, m] + z[r] * base[v, 3, m]
                    ar[m] += hr * azr[v, r, m] - hi * azi[v, r, m]
                    ai[m] += hr * azi[v, r, m] + hi * azr[v, r, m]
            n = column * z.size + r
            spin, tilt = 0.0, 0.0
            for m in range(count):
                imaginary = ar[m] * im[n, m] + ai[m] * re[n, m]
                spin -= imaginary
                tilt += turn[m] * imaginary
            d_theta[n] = spin
            d_delay[line[n]] += tilt
    return d_theta, d_delay


@njit(cache=True)
def _climbing(x, ramp, line, turn, power_w, grid, snr, gram, weight, rate_weight):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # U and its gradient towards (theta, z)
    ayr, ayi, azr, azi, y, z, k = grid
    elements = line.size
    share = np.exp(x[elements:] - x[elements:].max())
    share /= share.sum()
    re, im = _beam(np.exp(1j * x[:elements]), ramp, line)
    lit = _forward(re, im, ayr, ayi, azr, azi, y, z, k)
    value, _, _, pull, slope = _middle(lit, share * power_w, snr, gram, weight, rate_weight)
    d_theta, _ = _backward(
        re, im, pull.real.copy(), pull.imag.copy(), ayr, ayi, azr, azi, y, z, k, line, turn, ramp.shape[0]
    )
    gradient = np.empty_like(x)
    gradient[:elements] = d_theta
    gradient[elements:] = share * power_w * (slope - np.sum(slope * share))
    return value, gradient


@njit(cache=True)
def _ascend(x, ramp, line, turn, power_w, grid, snr, gram, weight, rate_weight, evaluations):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    value, gradient = _climbing(x, ramp, line, turn, power_w, grid, snr, gram, weight, rate_weight)
    used, kept = 1, 0
    moves, bends = np.empty((_MEMORY, x.size)), np.empty((_MEMORY, x.size))
    alpha = np.empty(_MEMORY)
    while used < evaluations and np.isfinite(value):
        way = gradient.copy()
        count = min(kept, _MEMORY)
        for i in range(count):
            j = (kept - 1 - i) % _MEMORY
            alpha[j] = np.sum(moves[j] * way) / np.sum(moves[j] * bends[j])
            way -= alpha[j] * bends[j]
        if count:
            j = (kept - 1) % _MEMORY
            way *= np.sum(moves[j] * bends[j]) / np.sum(bends[j] ** 2)
        else:
            way /= max(np.sqrt(np.sum(gradient**2)), 1e-300)  # a radian in all
        for i in range(count):
            j = (kept - count + i) % _MEMORY
            way += (alpha[j] - np.sum(bends[j] * way) / np.sum(moves[j] * bends[j])) * moves[j]
        rise, length = np.sum(gradient * way), 1.0
        if not rise > 1e-12 * abs(value):
            break
        better = False
        while used < evaluations:
            trial = x + length * way
            reached, slope = _climbing(trial, ramp, line, turn, power_w, grid, snr, gram, weight, rate_weight)
            used += 1
            if reached >= value + 1e-4 * length * rise:
                better = True
                break
            length *= 0.3
        if not better:
            break
        j = kept % _MEMORY
        moves[j], bends[j] = trial - x, gradient - slope
        if np.sum(moves[j] * bends[j]) > 1e-12 * np.sum(bends[j] ** 2):
            kept += 1
        x, value, gradient = trial, reached, slope
    return x, used


@njit(cache=True)
def _polish(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    phasor,
    ramp,
    delay,
    power,
    level,
    order,
    reach,
    line,
    turn,
    ayr,
    ayi,
    azr,
    azi,
    y,
    z,
    k,
    snr,
    gram,
    weight,
    rate_weight,
):
    delay = delay.copy()
    re, im = _beam(phasor, ramp, line)
    summed = np.zeros((ayr.shape[0], 3, 2, k.size))
    for column in range(y.size):
        _gather(re, im, ayr, ayi, azr, azi, y, z, column, 0, z.size, summed)
    best, _, _ = _value(_lit(summed, k), power, snr, gram, weight, rate_weight)
    own, trial = np.empty_like(summed), np.empty_like(summed)
    changed = 0
    for q in order:
        own[:] = 0.0
        for n in range(line.size):
            if line[n] == q:
                _gather(re, im, ayr, ayi, azr, azi, y, z, n // z.size, n % z.size, n % z.size + 1, own)
        here = int(np.argmin(np.abs(level - delay[q])))
        first, last = 0, level.size
        if reach > 0:
            first, last = max(0, here - reach), min(level.size, here + reach + 1)
        chosen = -1
        for b in range(first, last):
            if b == here:
                continue
            for m in range(k.size):
                angle = -turn[m] * (level[b] - delay[q])
                c, s = np.cos(angle) - 1.0, np.sin(angle)
                for v in range(own.shape[0]):
                    for i in range(3):
                        trial[v, i, 0, m] = summed[v, i, 0, m] + c * own[v, i, 0, m] - s * own[v, i, 1, m]
                        trial[v, i, 1, m] = summed[v, i, 1, m] + c * own[v, i, 1, m] + s * own[v, i, 0, m]
            value, _, _ = _value(_lit(trial, k), power, snr, gram, weight, rate_weight)
            if value > best + 1e-12 * abs(best):
                best, chosen = value, b
        if chosen >= 0:
            changed += 1
            for m in range(k.size):
                angle = -turn[m] * (level[chosen] - delay[q])
                c, s = np.cos(angle), np.sin(angle)
                for v in range(own.shape[0]):
                    for i in range(3):
                        wr, wi = own[v, i, 0, m], own[v, i, 1, m]
                        summed[v, i, 0, m] += (c - 1.0) * wr - s * wi
                        summed[v, i, 1, m] += (c - 1.0) * wi + s * wr
                for n in range(line.size):
                    if line[n] == q:
                        wr, wi = re[n, m], im[n, m]
                        re[n, m], im[n, m] = c * wr - s * wi, c * wi + s * wr
            delay[q] = level[chosen]
    return delay, changed
