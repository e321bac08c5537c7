"""Delay lines chosen one by one for the highest C-S correlation: papers/000's exhaustive search (eq 17), incremental and compiled.

Changing one line moves every beamspace field by ``(w' - w) b`` with b its sub-array's own pattern, separable over the grid: with the rest held,
``|rest + w b|^2 = A + Re(w) X + Im(w) Y``, so a candidate costs two multiplications, a square root and an addition a bin and subcarrier instead
of a transform. The choices are those of the naive search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, cis
from hal.errors import Misuse
from hal.record import Array, Float, Int
from twin.physics.beamspace import beamspace, distribution, divergence, echo_beamspace
from twin.precoding._scene import Scene

__all__ = ["Search", "delay_divergence"]


def delay_divergence(row: Scene, delay_s: Float[Array, " line"], grid: tuple[int, int], guard: float = 0.0) -> float:
    """``KL`` of eq (16) for the channels as these delays modify them, on a dictionary of ``grid`` directions; its inverse is Cor."""
    ramp = row.ramp(delay_s)
    user = beamspace(row.array, row.user_row * ramp, grid)
    echo = echo_beamspace(
        row.array, row.receive, row.target_direction, row.target_gain, row.frequency_hz, ramp, grid, row.convention
    )
    return float(divergence(distribution(user), distribution(echo), guard))


class Prepared(NamedTuple):
    """Which runs of columns and rows each line feeds; planar patterns along y and along z, of the user and of the echoes."""

    spans: Array
    y: Any
    z: Any


@dataclass(frozen=True)
class Search:
    """A row's search over delays on a dictionary of ``grid`` directions; ``precision`` single or double."""

    scene: Scene
    grid: tuple[int, int]
    guard: float = 0.0
    precision: str = "single"

    @cached_property
    def prepared(self) -> Prepared:
        """Patterns of the sub-arrays, which no delay changes."""
        real = np.float32 if self.precision == "single" else np.float64
        row = self.scene
        spans, columns, rows = _spans(row.line.tobytes(), row.lines, row.array.columns, row.array.rows)
        y, z = _patterns(row, self.grid, columns, rows, real)
        return Prepared(spans, y, z)

    def run(
        self,
        delay_s: Float[Array, " line"],
        level_s: Float[Array, " level"],
        passes: int,
        first: int = 0,
        count: int | None = None,
        reach: int = 0,
    ) -> tuple[Float[Array, " line"], int]:
        """Delays after at most ``passes`` passes over the lines, and how many lines were tried; ends early when a pass changes nothing.

        Each line takes the level of the lowest divergence with all others held, the lowest level among equals. ``count`` and ``first`` try only so
        many lines once, round robin: a bounded step of a warm start. ``reach`` tries only so many levels either way; 0 tries all. Delays must be on
        ``level_s``.
        """
        row = self.scene
        own = self.prepared
        if not row.lines:
            return np.asarray(delay_s), 0
        index = np.argmin(np.abs(np.asarray(delay_s)[:, None] - level_s), axis=1)
        real = own.y[0].dtype
        turn = cis(-2 * np.pi * row.frequency_hz * level_s[:, None])  # [level subcarrier]
        turn_re, turn_im = np.ascontiguousarray(turn.real, dtype=real), np.ascontiguousarray(turn.imag, dtype=real)
        user, echo = self._fields(index, turn_re, turn_im)
        order = np.arange(row.lines) if count is None else (first + np.arange(count)) % row.lines
        compiled: Any = _pass
        tried = 0
        for _ in range(passes if count is None else 1):
            changed = compiled(
                index, order, own.spans, *user, *echo, *own.y, *own.z, turn_re, turn_im, self.guard, reach
            )
            tried += len(order)
            if not changed:
                break
        return np.asarray(level_s[index]), tried

    def _fields(
        self, index: Int[Array, " line"], turn_re: Array, turn_im: Array
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        own = self.prepared
        shape = (own.y[0].shape[1], own.y[0].shape[3], own.z[0].shape[3])
        fields = [np.zeros(shape, dtype=turn_re.dtype) for _ in range(4)]
        re, im = turn_re[index], turn_im[index]
        yur, yui, yer, yei = own.y
        zur, zui, zer, zei = own.z
        _assemble(own.spans, re, im, yur, yui, zur, zui, *fields[:2])
        _assemble(own.spans, re, im, yer, yei, zer, zei, *fields[2:])
        return (fields[0], fields[1]), (fields[2], fields[3])


@lru_cache(maxsize=8)
def _spans(line: bytes, lines: int, array_columns: int, array_rows: int) -> tuple[Int[Array, "line 2"], int, int]:
    """Which run of columns and which of rows each delay line feeds, and how many of each: sub-arrays are equal rectangles."""
    own = np.frombuffer(line, np.int64)
    across = np.array([np.unique(np.flatnonzero(own == q) // array_rows).size for q in range(lines)])
    tall = np.array([np.unique(np.flatnonzero(own == q) % array_rows).size for q in range(lines)])
    first = np.array([np.flatnonzero(own == q)[0] for q in range(lines)])
    columns, rows = array_columns // across[0], array_rows // tall[0]
    spans = np.column_stack([first // array_rows // across[0], first % array_rows // tall[0]])
    rebuilt = np.empty_like(own)
    place = np.empty((columns, rows), dtype=np.int64)
    if columns * rows == lines:
        place[spans[:, 0], spans[:, 1]] = np.arange(lines)
        column, up = np.divmod(np.arange(len(own)), array_rows)
        rebuilt = place[column // across[0], up // tall[0]]
    if not np.array_equal(rebuilt, own):
        raise Misuse(
            "delay lines: their elements must be equal rectangles that tile the grid, which the search relies on"
        )
    return np.ascontiguousarray(spans, dtype=np.int64), columns, rows


def _patterns(
    row: Scene, grid: tuple[int, int], columns: int, rows: int, real: Any
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Patterns of runs of columns ``[run gy term m]`` and of rows ``[run term m gz]``, real and imaginary parts: the user's (one term), and each
    target's with what is received folded in.
    """
    k = 2 * np.pi / LIGHT_MPS * row.frequency_hz
    sign = np.array([1.0] + [-1.0 if row.convention == "printed" else 1.0] * len(row.target_direction))
    direction = np.concatenate([row.user_direction[None], row.target_direction])
    sent, heard = row.array, row.receive
    compiled: Any = _onto
    # one scale for each kind of field keeps single precision in range whatever the gains; a subcarrier's common phase changes no modulus
    user = np.abs(row.user_gain) / max(float(np.abs(row.user_gain).max()), 1e-300)
    echo = row.target_gain / max(float(np.abs(row.target_gain).max()) * len(heard.position_m), 1e-300)

    def axis(which: int, runs: int, size: int, gains: tuple[Array, Array], last: bool) -> tuple[Array, ...]:
        n = sent.columns if which == 1 else sent.rows
        place = sent.position_m[:: sent.rows, 1] if which == 1 else sent.position_m[: sent.rows, 2]
        back = heard.position_m[:: heard.rows, 1] if which == 1 else heard.position_m[: heard.rows, 2]
        each = cis((sign * direction[:, which])[:, None, None] * k[:, None] * place)  # [who m n]
        a_r = cis(direction[1:, which, None, None] * k[:, None] * back)
        turn = cis(-2 * np.pi / size * np.arange(size)[:, None] * np.arange(max(n, len(back))))
        received = np.swapaxes(np.conj(gains[1] * (a_r @ turn[:, : len(back)].T).transpose(2, 0, 1)), 1, 2)
        sides = (each[:1], np.broadcast_to(gains[0][None, :, None], (size, len(k), 1))), (each[1:], received)
        out: list[Array] = []
        for seen, factor in sides:
            terms = len(seen), len(k)
            shape = (runs, *terms, size) if last else (runs, size, *terms)
            parts = np.empty(shape, real), np.empty(shape, real)
            # bins last, or terms last: one kernel, its outputs seen as [run bin m term]
            views = (np.transpose(part, (0, 3, 2, 1) if last else (0, 1, 3, 2)) for part in parts)
            compiled(np.ascontiguousarray(seen.transpose(2, 1, 0)), turn, runs, factor, *views)
            out.extend(parts)
        return tuple(out)

    return axis(1, columns, grid[0], (user, echo), False), axis(
        2, rows, grid[1], (np.ones(len(k)), np.ones(echo.shape)), True
    )


@njit(cache=True)
def _onto(each, turn, runs, factor, out_re, out_im):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # out[run bin m term] = factor[bin m term] * sum over the run's elements of each[n m term] turn[bin n]
    n, count, terms = each.shape
    length = n // runs
    for j in range(runs):
        for g in range(turn.shape[0]):
            for v in range(terms):
                for m in range(count):
                    total = 0j
                    for i in range(j * length, (j + 1) * length):
                        total += each[i, m, v] * turn[g, i]
                    total *= factor[g, m, v]
                    out_re[j, g, m, v], out_im[j, g, m, v] = total.real, total.imag


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _assemble(spans, re, im, yr, yi, zr, zi, out_re, out_im):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # out[gy m gz] = sum over lines and terms of y w z: rows of one run of columns first
    count, lanes = out_re.shape[1], out_re.shape[2]
    tall_re, tall_im = np.empty((count, lanes), out_re.dtype), np.empty((count, lanes), out_re.dtype)
    for j in range(yr.shape[0]):
        for k in range(yr.shape[2]):
            tall_re[:], tall_im[:] = 0, 0
            for q in range(spans.shape[0]):
                if spans[q, 0] != j:
                    continue
                n = spans[q, 1]
                for m in range(count):
                    for g in range(lanes):
                        tall_re[m, g] += re[q, m] * zr[n, k, m, g] - im[q, m] * zi[n, k, m, g]
                        tall_im[m, g] += re[q, m] * zi[n, k, m, g] + im[q, m] * zr[n, k, m, g]
            for i in range(out_re.shape[0]):
                for m in range(count):
                    ar, ai = yr[j, i, k, m], yi[j, i, k, m]
                    for g in range(lanes):
                        out_re[i, m, g] += ar * tall_re[m, g] - ai * tall_im[m, g]
                        out_im[i, m, g] += ar * tall_im[m, g] + ai * tall_re[m, g]


@njit(cache=True, fastmath={"contract", "nsz", "nnan"}, error_model="numpy")
def _sweep(ur, ui, yr, yi, zr, zi, old_re, old_im, turn_re, turn_im, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # one kind of field of one column of the dictionary: out[level, gz] = sum_m |rest + w b|; (yr, zr) hold ``rank`` terms
    rank, count, lanes = yr.shape[0], ur.shape[0], ur.shape[1]
    levels = turn_re.shape[0]
    a, x, y = np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype)
    br, bi = np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype)
    out[:, :] = 0
    zero, two = ur.dtype.type(0), ur.dtype.type(2)
    for m in range(count):
        for g in range(lanes):
            br[g] = yr[0, m] * zr[0, m, g] - yi[0, m] * zi[0, m, g]
            bi[g] = yr[0, m] * zi[0, m, g] + yi[0, m] * zr[0, m, g]
        for k in range(1, rank):
            for g in range(lanes):
                br[g] += yr[k, m] * zr[k, m, g] - yi[k, m] * zi[k, m, g]
                bi[g] += yr[k, m] * zi[k, m, g] + yi[k, m] * zr[k, m, g]
        wr, wi = old_re[m], old_im[m]
        for g in range(lanes):
            rr = ur[m, g] - (wr * br[g] - wi * bi[g])
            ri = ui[m, g] - (wr * bi[g] + wi * br[g])
            a[g] = rr * rr + ri * ri + br[g] * br[g] + bi[g] * bi[g]
            x[g] = two * (br[g] * rr + bi[g] * ri)
            y[g] = two * (br[g] * ri - bi[g] * rr)
        for c in range(levels):
            cr, ci = turn_re[c, m], turn_im[c, m]
            for g in range(lanes):
                out[c, g] += np.sqrt(max(a[g] + cr * x[g] + ci * y[g], zero))


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _shift(ur, ui, yr, yi, zr, zi, dr, di):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # field += (w' - w) b over the whole dictionary; dr, di: w' - w by subcarrier
    for i in range(ur.shape[0]):
        for m in range(ur.shape[1]):
            for k in range(yr.shape[1]):
                pr = dr[m] * yr[i, k, m] - di[m] * yi[i, k, m]
                pi = dr[m] * yi[i, k, m] + di[m] * yr[i, k, m]
                for g in range(ur.shape[2]):
                    ur[i, m, g] += pr * zr[k, m, g] - pi * zi[k, m, g]
                    ui[i, m, g] += pr * zi[k, m, g] + pi * zr[k, m, g]


@njit(cache=True, error_model="numpy")
def _pass(index, order, spans, ur, ui, er, ei, yur, yui, yer, yei, zur, zui, zer, zei, turn_re, turn_im, guard, reach):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    columns, lanes, levels = ur.shape[0], ur.shape[2], turn_re.shape[0]
    user, echo = np.empty((columns, levels, lanes), ur.dtype), np.empty((columns, levels, lanes), ur.dtype)
    changed = 0
    for q in order:
        j, n = spans[q, 0], spans[q, 1]
        old_re, old_im = turn_re[index[q]], turn_im[index[q]]
        low, high = 0, levels
        if reach > 0:
            low, high = max(0, index[q] - reach), min(levels, index[q] + reach + 1)
        re, im = turn_re[low:high], turn_im[low:high]
        for i in range(columns):
            _sweep(ur[i], ui[i], yur[j, i], yui[j, i], zur[n], zui[n], old_re, old_im, re, im, user[i, low:high])
            _sweep(er[i], ei[i], yer[j, i], yei[j, i], zer[n], zei[n], old_re, old_im, re, im, echo[i, low:high])
        best, chosen = np.inf, index[q]
        for c in range(low, high):
            total_user, total_echo, cross = 0.0, 0.0, 0.0
            for i in range(columns):
                for g in range(lanes):
                    total_user += user[i, c, g]
                    total_echo += echo[i, c, g]
            if guard > 0.0:
                for i in range(columns):
                    for g in range(lanes):
                        p, s = user[i, c, g] / total_user + guard, echo[i, c, g] / total_echo + guard
                        cross += p * np.log(p / s)
            else:
                for i in range(columns):
                    for g in range(lanes):
                        cross += user[i, c, g] * np.log(user[i, c, g] / echo[i, c, g])
                cross = cross / total_user + np.log(total_echo / total_user)
            if cross < best:
                best, chosen = cross, c
        if chosen != index[q]:
            dr, di = turn_re[chosen] - old_re, turn_im[chosen] - old_im
            _shift(ur, ui, yur[j], yui[j], zur[n], zui[n], dr, di)
            _shift(er, ei, yer[j], yei[j], zer[n], zei[n], dr, di)
            index[q] = chosen
            changed += 1
    return changed
