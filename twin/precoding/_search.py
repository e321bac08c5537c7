"""Delay lines chosen one by one for the highest C-S correlation: papers/000's exhaustive search (eq 17), incremental and compiled.

Changing one line moves every beamspace field by ``(w' - w) b`` with b its sub-array's own pattern, separable over the grid: with the rest held,
``|rest + w b|^2 = A + Re(w) X + Im(w) Y``, so a candidate costs two multiplications, a square root and an addition a bin and subcarrier instead
of a transform. The choices are those of the naive search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from hal.array import LIGHT_MPS, cis, steering
from hal.errors import Misuse
from hal.record import Array, Float, Int
from twin.physics.beamspace import beamspace, distribution, divergence, echo_beamspace
from twin.precoding._scene import Scene

__all__ = ["Search", "delay_divergence"]


def delay_divergence(row: Scene, delay_s: Float[Array, " line"], grid: tuple[int, int], guard: float = 0.0) -> float:
    """``KL`` of eq (16) for the channels as these delays modify them, on a dictionary of ``grid`` directions; its inverse is Cor."""
    ramp = row.ramp(delay_s)
    user = beamspace(row.array, row.user_row * ramp, grid)
    echo = echo_beamspace(row.array, row.receive, row.target_direction, row.target_gain, row.frequency_hz, ramp, grid, row.convention)
    return float(divergence(distribution(user), distribution(echo), guard))


@dataclass(frozen=True)
class Search:
    """A row's search over delays on a dictionary of ``grid`` directions; ``precision`` single or double."""

    scene: Scene
    grid: tuple[int, int]
    guard: float = 0.0
    precision: str = "single"

    def __post_init__(self) -> None:
        row = self.scene
        real = np.float32 if self.precision == "single" else np.float64
        spans = _spans(row)
        y, z = _patterns(row, self.grid, spans)
        keep = object.__setattr__
        keep(self, "_spans", np.array([span[2:] for span in spans], dtype=np.int64))
        for name, (user, echo) in (("_y", y), ("_z", z)):
            keep(self, name, tuple(np.ascontiguousarray(part, dtype=real) for part in (user.real, user.imag, echo.real, echo.imag)))

    def run(
        self,
        delay_s: Float[Array, " line"],
        level_s: Float[Array, " level"],
        passes: int,
        first: int = 0,
        count: int | None = None,
    ) -> tuple[Float[Array, " line"], int]:
        """Delays after at most ``passes`` passes over the lines, and how many lines were tried; ends early when a pass changes nothing.

        Each line takes the level of the lowest divergence with all others held, the lowest level among equals. ``count`` and ``first`` try only so
        many lines once, round robin: a bounded step of a warm start. Delays must be on ``level_s``.
        """
        row = self.scene
        own: Any = self
        if not row.lines:
            return np.asarray(delay_s), 0
        index = np.argmin(np.abs(np.asarray(delay_s)[:, None] - level_s), axis=1)
        user, echo = self._fields(level_s[index])
        turn = cis(-2 * np.pi * row.frequency_hz[:, None] * level_s)  # [subcarrier level]
        real = user[0].dtype
        turn_re, turn_im = np.ascontiguousarray(turn.real.T, dtype=real), np.ascontiguousarray(turn.imag.T, dtype=real)
        order = np.arange(row.lines) if count is None else (first + np.arange(count)) % row.lines
        tried = 0
        for _ in range(passes if count is None else 1):
            changed = _pass(index, order, own._spans, *user, *echo, *own._y, *own._z, turn_re, turn_im, self.guard)
            tried += len(order)
            if not changed:
                break
        return np.asarray(level_s[index]), tried

    def _fields(self, delay_s: Float[Array, " line"]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        row, own = self.scene, self
        any_own: Any = own
        real = any_own._y[0].dtype
        user_y, echo_y = (any_own._y[i] + 1j * any_own._y[i + 1] for i in (0, 2))  # [across gy m], [K across gy m]
        user_z, echo_z = (any_own._z[i] + 1j * any_own._z[i + 1] for i in (0, 2))
        turn = cis(-2 * np.pi * row.frequency_hz * delay_s[:, None])  # [line m]
        gy, subcarriers, gz = user_y.shape[1], user_y.shape[2], user_z.shape[2]
        user = np.zeros((gy, subcarriers, gz), dtype=user_y.dtype)
        echo = np.zeros_like(user)
        across = any_own._spans
        for j in np.unique(across[:, 0]):
            lines = np.flatnonzero(across[:, 0] == j)
            # rows of this run of columns first, all at once: [m gz]
            tall = np.einsum("lm,lmz->mz", turn[lines].astype(user.dtype), user_z[across[lines, 1]])
            user += user_y[j][:, :, None] * tall
            for k in range(echo_y.shape[0]):
                tall = np.einsum("lm,lmz->mz", turn[lines].astype(user.dtype), echo_z[k][across[lines, 1]])
                echo += echo_y[k, j][:, :, None] * tall
        planar = [np.ascontiguousarray(part, dtype=real) for field in (user, echo) for part in (field.real, field.imag)]
        return (planar[0], planar[1]), (planar[2], planar[3])


def _spans(row: Scene) -> list[tuple[Int[Array, " column"], Int[Array, " row"], int, int]]:
    """Columns, rows, and the numbers of those runs of columns and rows, of each delay line's sub-array."""
    spans: list[Any] = []
    columns: dict[bytes, int] = {}
    rows: dict[bytes, int] = {}
    for line in range(row.lines):
        column, up = np.divmod(np.flatnonzero(row.line == line), row.array.rows)
        across, tall = np.unique(column), np.unique(up)
        if not len(across) * len(tall) == len(column) > 0:
            raise Misuse(f"delay line {line}: its elements do not fill a rectangle of the grid, which the search relies on")
        spans.append((across, tall, columns.setdefault(across.tobytes(), len(columns)), rows.setdefault(tall.tobytes(), len(rows))))
    return spans


def _patterns(row: Scene, grid: tuple[int, int], spans: list[Any]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Patterns of runs of columns ``[run gy m]`` and of rows ``[run m gz]``, of the user and (with what is received folded in) of each target."""
    k = 2 * np.pi / LIGHT_MPS * row.frequency_hz
    sign = -1.0 if row.convention == "printed" else 1.0
    y_m, z_m = row.array.position_m[:: row.array.rows, 1], row.array.position_m[: row.array.rows, 2]
    bin_y = cis(-2 * np.pi / grid[0] * np.outer(np.arange(grid[0]), np.arange(row.array.columns)))
    bin_z = cis(-2 * np.pi / grid[1] * np.outer(np.arange(grid[1]), np.arange(row.array.rows)))
    u, t = row.user_direction, row.target_direction
    user_y, user_z = cis(k[:, None] * u[1] * y_m), cis(k[:, None] * u[2] * z_m)  # [m column]
    echo_y = cis(sign * k[:, None] * t[:, 1, None, None] * y_m)  # [K m column]
    echo_z = cis(sign * k[:, None] * t[:, 2, None, None] * z_m)
    heard = row.receive
    back = [
        beamspace(heard, steering(heard, d, row.frequency_hz), grid) for d in t
    ]  # only its factors are needed; on the grid's axes they are rank one
    scale_y, scale_z = _factored(back)  # [K m gy], [K m gz]
    columns = {span[2]: span[0] for span in spans}
    rows = {span[3]: span[1] for span in spans}
    gain = np.abs(row.user_gain)  # the common phase of a subcarrier changes no modulus
    across = np.stack([bin_y[:, columns[j]] @ (gain[:, None] * user_y)[:, columns[j]].T for j in range(len(columns))]) if columns else np.zeros((0, grid[0], len(k)), complex)
    tall = np.stack([user_z[:, rows[j]] @ bin_z[:, rows[j]].T for j in range(len(rows))]) if rows else np.zeros((0, len(k), grid[1]), complex)
    folded_y = np.conj(row.target_gain[:, :, None] * scale_y)
    echo_across = np.stack([np.stack([(bin_y[:, columns[j]] @ echo_y[i][:, columns[j]].T) * folded_y[i].T for j in range(len(columns))]) for i in range(len(t))])
    echo_tall = np.stack([np.stack([(echo_z[i][:, rows[j]] @ bin_z[:, rows[j]].T) * np.conj(scale_z[i]) for j in range(len(rows))]) for i in range(len(t))])
    # one scale for each kind of field keeps single precision in range whatever the gains
    across = across / max(float(np.abs(across).max(initial=0)), 1e-300)
    echo_across = echo_across / max(float(np.abs(echo_across).max(initial=0)), 1e-300)
    return (across, echo_across), (tall, echo_tall)


def _factored(back: list[Array]) -> tuple[Array, Array]:
    """The two factors of separable patterns ``[m gy gz]``: through their largest entry."""
    across, tall = [], []
    for pattern in back:
        m = np.arange(len(pattern))
        at = np.abs(pattern).reshape(len(pattern), -1).argmax(axis=1)
        i, j = np.divmod(at, pattern.shape[2])
        across.append(pattern[m, :, j] / pattern[m, i, j][:, None])
        tall.append(pattern[m, i, :])
    return np.stack(across), np.stack(tall)


@njit(cache=True, fastmath={"contract", "nsz", "nnan"}, error_model="numpy")
def _sweep(ur, ui, yr, yi, zr, zi, old_re, old_im, turn_re, turn_im, gain, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # one kind of field of one column of the dictionary: out[level, gz] = sum_m |rest + w b|; (yr, zr) hold ``rank`` terms
    rank, count, lanes = yr.shape[0], ur.shape[0], ur.shape[1]
    levels = turn_re.shape[0]
    a, x, y = np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype)
    br, bi = np.empty(lanes, ur.dtype), np.empty(lanes, ur.dtype)
    out[:, :] = 0
    zero = ur.dtype.type(0)
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
            x[g] = 2 * (br[g] * rr + bi[g] * ri)
            y[g] = -2 * (bi[g] * rr - br[g] * ri)
        for c in range(levels):
            cr, ci = turn_re[c, m], turn_im[c, m]
            for g in range(lanes):
                out[c, g] += np.sqrt(max(a[g] + cr * x[g] + ci * y[g], zero))


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _shift(ur, ui, yr, yi, zr, zi, dr, di):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    # field += (w' - w) b over the whole dictionary; dr, di: w' - w by subcarrier
    for i in range(ur.shape[0]):
        for m in range(ur.shape[1]):
            for k in range(yr.shape[0]):
                pr = dr[m] * yr[k, i, m] - di[m] * yi[k, i, m]
                pi = dr[m] * yi[k, i, m] + di[m] * yr[k, i, m]
                for g in range(ur.shape[2]):
                    ur[i, m, g] += pr * zr[k, m, g] - pi * zi[k, m, g]
                    ui[i, m, g] += pr * zi[k, m, g] + pi * zr[k, m, g]


@njit(cache=True, error_model="numpy")
def _pass(index, order, spans, ur, ui, er, ei, yur, yui, yer, yei, zur, zui, zer, zei, turn_re, turn_im, guard):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    columns, lanes, levels = ur.shape[0], ur.shape[2], turn_re.shape[0]
    user, echo = np.empty((columns, levels, lanes), ur.dtype), np.empty((columns, levels, lanes), ur.dtype)
    changed = 0
    for q in order:
        j, n = spans[q, 0], spans[q, 1]
        old_re, old_im = turn_re[index[q]], turn_im[index[q]]
        yr, yi = yur[j : j + 1], yui[j : j + 1]
        zr, zi = zur[n : n + 1], zui[n : n + 1]
        for i in range(columns):
            _sweep(ur[i], ui[i], yr[:, i], yi[:, i], zr, zi, old_re, old_im, turn_re, turn_im, 1.0, user[i])
            _sweep(er[i], ei[i], yer[:, j, i], yei[:, j, i], zer[:, n], zei[:, n], old_re, old_im, turn_re, turn_im, 1.0, echo[i])
        best, chosen = np.inf, index[q]
        for c in range(levels):
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
            _shift(ur, ui, yr, yi, zr, zi, dr, di)
            _shift(er, ei, yer[:, j], yei[:, j], zer[:, n], zei[:, n], dr, di)
            index[q] = chosen
            changed += 1
    return changed
