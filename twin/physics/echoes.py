"""Superposed echoes of known frames: a coarse delay-Doppler map, peaks worth a closer look, and a joint fit of all of them.

Delays in samples, Doppler in cycles a sample, as in ``delay_doppler``. Data are white: every row has the same independent noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.errors import Misuse
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.physics.delay_doppler import field_curvature, planar_templates, raised_cosine

__all__ = [
    "Fit",
    "Grid",
    "Joint",
    "Sounding",
    "delay_doppler_map",
    "fit_echoes",
    "map_power",
    "no_echoes",
    "search_grid",
    "strong_peaks",
]

_FOLD_DB = 90.0  # of what lies outside a map's window, under the map
_BLUR = 0.26  # cycles of Doppler a frame may turn against its replica: sinc^2 = 1 dB


@record
class Sounding:
    """What was sent in one dwell: cyclic frames and when each began."""

    spectrum: Complex[Array, "frame sample"]  # FFT of each frame
    start: Float[Array, " frame"]  # of each frame's first sample, in samples from the dwell's centre
    roll_off: float


@dataclass(frozen=True)
class Grid:
    """Where the coarse map is evaluated: half-sample lags, half-cell Doppler bins, and the replicas they need."""

    replica: Complex[
        Array, "shift frame sample"
    ]  # conj(spectrum) by Doppler within a frame, turned to the window's middle lag
    energy: Float[Array, " shift"]
    first: int  # lag of the first column
    lags: int  # whole lags; the map has twice as many columns
    doppler: Float[Array, " bin"]
    shift: Int[Array, " bin"]  # which replica a bin uses
    turn: Complex[Array, "bin frame"]
    gain: Float[Array, " bin"]  # of the power of a peak in a bin, against a replica of its own Doppler
    kernel: Float[
        Array, "axis three offset"
    ]  # offset from a map point (in steps), lopsidedness of its neighbours there, loss of amplitude
    thinning: Thinning

    @property
    def delay(self) -> Float[Array, " column"]:
        """Lag of each column of the map, in samples."""
        return self.first + 0.5 * np.arange(2 * self.lags)


@record
class Thinning:
    """How spectra are thinned out to as many lines as a window of lags needs: a low pass over frequency, then every ``step``-th line.

    What lies outside the window folds onto it 70 dB down; within it the low pass is flat but for ``level``, which is divided out.
    """

    middle: int  # lag at the window's middle
    step: int
    taps: Float[Array, " tap"]  # a multiple of four, the last ones zero
    reach: int  # the middle one's place
    column: Int[Array, " column"]  # of the transform of the thinned lines, zero-padded to twice their number
    level: Float[Array, " column"]


@lru_cache(maxsize=16)
def _thinning(size: int, first: int, lags: int) -> Thinning:
    middle, step, reach = first + lags // 2, 1, 0
    while size % (2 * step) == 0 and size // (2 * step) >= 2 * lags:
        step *= 2
    lines = size // step
    taps = np.array([1.0, 0, 0, 0])
    if step > 1:
        reach = int(np.ceil(0.5 * (_FOLD_DB - 7.95) / (2.285 * 2 * np.pi * (lines - lags - 1) / size)))
        count = 2 * reach + 1
        taps = np.sinc((np.arange(count) - reach) / step) * np.kaiser(count, 0.1102 * (_FOLD_DB - 8.7))
        taps = np.append(taps / taps.sum(), np.zeros(-count % 4))
    away = first - middle + 0.5 * np.arange(2 * lags)
    turn = np.cos(2 * np.pi * away[:, None] * (np.arange(len(taps)) - reach) / size)
    column = np.round(2 * away).astype(np.int64) % (2 * lines)
    return Thinning(
        middle=middle,
        step=step,
        reach=reach,
        taps=taps.astype(np.float32),
        column=column,
        level=(turn @ taps).astype(np.float32) / 2,
    )


@record
class Fit:
    """Echoes that explain a dwell together, and what they leave unexplained."""

    delay: Float[Array, " echo"]
    doppler: Float[Array, " echo"]
    amplitude: Complex[Array, "echo row"]  # of an echo in each row
    template: Complex[Array, "echo column"]  # the echoes themselves, frames end to end
    residual: Complex[Array, "row column"]
    left: float  # energy of the residual
    spread: Float[
        Array, " echo"
    ]  # variance of one row's amplitude in units of the noise power, the others' uncertain places included
    information: Float[
        Array, "parameter parameter"
    ]  # of all delays, then all Doppler shifts, times the noise power; amplitudes unknown
    steps: int


def search_grid(sounding: Sounding, delay: tuple[float, float], doppler: float) -> Grid:
    """The coarse grid over ``delay[0] .. delay[1]`` samples and ``-doppler .. doppler`` cycles a sample.

    Between two points the map loses at most 0.9 dB in delay, 0.9 dB in Doppler, and 1 dB to Doppler within a frame (more
    replicas are laid out where the span would need it). Raises Misuse for a span that is empty or longer than a frame.
    """
    frames, size = sounding.spectrum.shape
    if not 0 <= delay[0] < delay[1] < size:
        raise Misuse(f"delay = {delay}: must ascend within 0 .. {size} samples, one frame")
    layout = _layout(size, tuple(sounding.start.tolist()), sounding.roll_off, float(doppler))
    first = int(np.floor(delay[0]))
    lags = int(np.ceil(delay[1])) - first + 1
    thinning = _thinning(size, first, lags)
    within = np.arange(size) - (size - 1) / 2
    replica = np.empty((len(layout.centres), frames, size), dtype=np.complex64)
    for i, centre in enumerate(layout.centres):
        spectrum = sounding.spectrum
        if centre != 0:
            spectrum = np.fft.fft(np.fft.ifft(spectrum) * cis(2 * np.pi * centre * within))
        np.multiply(np.conj(spectrum), _middle_turn(size, thinning.middle), out=replica[i], casting="same_kind")
    return Grid(
        replica=replica,
        energy=np.array([np.vdot(r, r).real / size for r in replica]),
        first=first,
        lags=lags,
        doppler=layout.doppler,
        shift=layout.shift,
        turn=layout.turn,
        gain=layout.gain,
        kernel=layout.kernel,
        thinning=thinning,
    )


@lru_cache(maxsize=16)
def _middle_turn(size: int, middle: int) -> Complex[Array, " sample"]:
    return np.asarray(cis(2 * np.pi * np.arange(size) * middle / size).astype(np.complex64))


@record
class _Layout:
    """What of a grid does not depend on the symbols."""

    centres: Float[Array, " shift"]  # Doppler of the replicas
    doppler: Float[Array, " bin"]
    shift: Int[Array, " bin"]
    turn: Complex[Array, "bin frame"]
    gain: Float[Array, " bin"]
    kernel: Float[Array, "axis three offset"]


@lru_cache(maxsize=16)
def _layout(size: int, start: tuple[float, ...], roll_off: float, doppler: float) -> _Layout:
    middle = np.array(start) + (size - 1) / 2
    step = 0.5 / (np.ptp(middle) + size)
    bins = int(np.ceil(doppler / step))
    axis = step * np.arange(-bins, bins + 1)
    shifts = max(1, int(np.ceil(doppler * size / _BLUR)))
    centres = doppler * ((2 * np.arange(shifts) + 1) / shifts - 1)
    which = np.argmin(np.abs(axis[:, None] - centres), axis=1)
    offset = np.linspace(-0.75, 0.75, 61)
    delays = np.abs([raised_cosine(0.5 * (offset - i), roll_off) for i in (-1, 0, 1)])
    turns = np.abs([np.mean(cis(2 * np.pi * step * (offset - i)[:, None] * middle), axis=1) for i in (-1, 0, 1)])
    return _Layout(
        centres=centres,
        doppler=axis,
        shift=which,
        turn=cis(-2 * np.pi * axis[:, None] * middle).astype(np.complex64),
        gain=np.sinc((axis - centres[which]) * size) ** 2,
        kernel=np.array([[offset, (k[2] - k[0]) / k[1], k[1]] for k in (turns, delays)]),
    )


def delay_doppler_map(grid: Grid, data: Complex[Array, "row frame sample"]) -> Complex[Array, "row bin column"]:
    """Matched filter outputs on the grid, scaled so that white noise keeps its power.

    Fast time by circular correlation, of which only the window's lags are transformed back (``Thinning``); slow time by a Fourier sum over the
    frames' own instants, which need not be evenly spaced.
    """
    from scipy.fft import fft, ifft

    thin = grid.thinning
    rows, frames, size = data.shape
    spectrum = fft(data, axis=-1).reshape(rows * frames, size)
    out = np.empty((rows, len(grid.doppler), 2 * grid.lags), dtype=np.complex64)
    for i in range(len(grid.replica)):
        own = grid.shift == i if len(grid.replica) > 1 else slice(None)
        lines = _thinned(spectrum.view(np.float32), grid.replica[i].view(np.float32), thin.taps, thin.reach, thin.step)
        lag = ifft(lines.view(np.complex64), axis=-1, overwrite_x=True)
        scale = np.float32(1 / np.sqrt(grid.energy[i])) / thin.level
        window = _window(lag, thin.column, scale).reshape(rows, frames, -1)
        out[:, own] = grid.turn[own] @ window
    return out


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _thinned(spectrum: Any, replica: Any, taps: Any, reach: int, step: int) -> Any:  # pragma: no cover - compiled
    # complex numbers as interleaved reals: the product of spectrum [row frame] and replica [frame], low-passed along frequency, every step-th
    # line kept, and zero-padded to twice their number for half-sample lags
    rows, size = spectrum.shape[0], spectrum.shape[1] // 2
    frames, lines = len(replica), size // step
    wide = (size + taps.size) // step + 1
    a, b = np.zeros(wide * step, np.float32), np.zeros(wide * step, np.float32)
    # a phase of the step a line, so that the sums run over neighbours
    re, im = np.empty((step, wide), np.float32), np.empty((step, wide), np.float32)
    x, y = np.empty(lines, np.float32), np.empty(lines, np.float32)
    out = np.zeros((rows, 4 * lines), np.float32)
    for r in range(rows):
        one, other = spectrum[r], replica[r % frames]
        for k in range(size):
            a[reach + k] = one[2 * k] * other[2 * k] - one[2 * k + 1] * other[2 * k + 1]
            b[reach + k] = one[2 * k] * other[2 * k + 1] + one[2 * k + 1] * other[2 * k]
        for k in range(reach):
            a[k], b[k] = a[size + k], b[size + k]
            a[size + reach + k], b[size + reach + k] = a[reach + k], b[reach + k]
        for phase in range(step):
            for u in range(wide):
                re[phase, u], im[phase, u] = a[u * step + phase], b[u * step + phase]
        x[:] = 0
        y[:] = 0
        for t in range(0, taps.size, 4):  # four at a time: fewer passes over the sums
            h, i, j, k = taps[t], taps[t + 1], taps[t + 2], taps[t + 3]
            for sums, parts in ((x, re), (y, im)):
                p, q = parts[t % step, t // step :], parts[(t + 1) % step, (t + 1) // step :]
                v, w = parts[(t + 2) % step, (t + 2) // step :], parts[(t + 3) % step, (t + 3) // step :]
                for n in range(lines):
                    sums[n] += h * p[n] + i * q[n] + j * v[n] + k * w[n]
        middle = lines // 2
        for j in range(lines):
            at = j if j < middle else j + lines
            out[r, 2 * at], out[r, 2 * at + 1] = x[j], y[j]
        # the line at half the rate belongs to both sides
        out[r, 2 * middle], out[r, 2 * middle + 1] = x[middle] / 2, y[middle] / 2
        out[r, 2 * (middle + lines)], out[r, 2 * (middle + lines) + 1] = x[middle] / 2, y[middle] / 2
    return out


@njit(cache=True)
def _window(lag: Any, column: Any, scale: Any) -> Any:  # pragma: no cover - compiled
    out = np.empty((len(lag), column.size), np.complex64)
    for r in range(len(lag)):
        for c in range(column.size):
            out[r, c] = lag[r, column[c]] * scale[c]
    return out


def strong_peaks(
    grid: Grid, power: Float[Array, "bin column"], floor: float, limit: int, pedestal: float
) -> tuple[Float[Array, " peak"], Float[Array, " peak"]]:
    """Peaks of a map above ``floor`` that are not a stronger peak's skirts: delays and Doppler shifts, strongest first.

    A peak is placed between map points by how its neighbours on each axis differ, and corrected for what the point and its bin
    lose. It is passed over if it lies below three times the sidelobes of the stronger ones (sinc envelopes in delay and Doppler over
    a ``pedestal``, the floor of random symbols): those show again once the stronger ones are subtracted.
    """
    row, column, around = _tops(np.ascontiguousarray(power, dtype=np.float64), 1 / grid.gain, 0.7 * floor)
    if not row.size:
        return np.empty(0), np.empty(0)
    step = grid.doppler[1] - grid.doppler[0] if len(grid.doppler) > 1 else 1.0
    return _placed(row, column, around, grid.kernel, grid.doppler, step, grid.first, floor, limit, pedestal)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _placed(
    row: Any,
    column: Any,
    around: Any,
    kernel: Any,
    axis: Any,
    step: float,
    first: int,
    floor: float,
    limit: int,
    pedestal: float,
) -> Any:  # pragma: no cover - compiled
    tops = row.size
    value, delay, doppler = around[4].copy(), np.empty(tops), np.empty(tops)
    for n in range(tops):
        offset = np.zeros(2)
        for a in range(2):
            below, above = (around[1, n], around[7, n]) if a == 0 else (around[3, n], around[5, n])
            lean = 0.0  # none at the map's edge
            if below > 0 and above > 0:
                lean = (np.sqrt(above) - np.sqrt(below)) / np.sqrt(around[4, n])
            offset[a] = np.interp(lean, kernel[a, 1], kernel[a, 0])
            value[n] /= np.interp(offset[a], kernel[a, 0], kernel[a, 2]) ** 2
        delay[n] = first + 0.5 * (column[n] + offset[1])
        doppler[n] = axis[row[n]] + step * offset[0]
    skirts = np.full(tops, floor)
    kept = np.empty(limit, np.int64)
    count = 0
    while count < limit:
        best = -1
        for n in range(tops):
            if value[n] > skirts[n] and (best < 0 or value[n] > value[best]):
                best = n
        if best < 0:
            break
        kept[count] = best
        count += 1
        for n in range(tops):
            skirt = 1.0
            apart = abs(delay[n] - delay[best])
            if apart >= 1.5:
                skirt /= (np.pi * apart) ** 2
            apart = abs(doppler[n] - doppler[best]) / (2 * step)
            if apart >= 1.5:
                skirt /= (np.pi * apart) ** 2
            skirts[n] += 3 * value[best] * (skirt + pedestal)
    return delay[kept[:count]], doppler[kept[:count]]


@njit(cache=True)
def map_power(field: Any, without: Any, amplitude: Any, outside: Any) -> Any:  # pragma: no cover - compiled
    """Power over rows of a map less what echoes of these amplitudes ``[echo row]`` and maps ``without`` put there; 0 in ``outside`` columns."""
    rows, bins, columns = field.shape
    out = np.zeros((bins, columns))
    for r in range(rows):
        for b in range(bins):
            for c in range(columns):
                x, y = field[r, b, c].real, field[r, b, c].imag
                for e in range(len(without)):
                    u, v = np.float32(amplitude[e, r].real), np.float32(amplitude[e, r].imag)
                    w = without[e, b, c]
                    x -= u * w.real - v * w.imag
                    y -= u * w.imag + v * w.real
                out[b, c] += x * x + y * y
    for c in range(columns):
        if outside[c]:
            out[:, c] = 0.0
    return out


@njit(cache=True, error_model="numpy")
def _tops(power: Any, scale: Any, floor: float) -> Any:  # pragma: no cover - compiled
    # points above the floor that none of their eight neighbours exceeds (nor, earlier in order, equals), with those neighbours; 0 outside
    bins, columns = power.shape
    row, column = np.empty(power.size, np.int64), np.empty(power.size, np.int64)
    count = 0
    for b in range(bins):
        for c in range(columns):
            own = power[b, c] * scale[b]
            if not own > floor:
                continue
            top = True
            for i in range(max(b - 1, 0), min(b + 2, bins)):
                for j in range(max(c - 1, 0), min(c + 2, columns)):
                    other = power[i, j] * scale[i]
                    if other > own or (other == own and (i < b or (i == b and j < c))):
                        top = False
            if top:
                row[count], column[count] = b, c
                count += 1
    around = np.zeros((9, count))
    for n in range(count):
        for i in range(3):
            for j in range(3):
                b, c = row[n] + i - 1, column[n] + j - 1
                if 0 <= b < bins and 0 <= c < columns:
                    around[3 * i + j, n] = power[b, c] * scale[b]
    return row[:count], column[:count], around


class Joint:
    """Maximum likelihood of ``data = sum_e amplitude_e T(delay_e, doppler_e) + sum known + noise``, echoes that come and go, by Gauss-Newton.

    Amplitudes (one an echo and row, also of the ``known`` waveforms) are eliminated in closed form (variable projection, Kaufman's
    approximation), so the normalising denominator of papers/001 eq (35) is inside. Each echo keeps the waveforms ``T, dT/dl, dT/dnu`` of the place
    where it was last evaluated and their inner products with all others; a step that moves it by little enough for its curvature to
    drown in the noise goes along those tangents and evaluates nothing. So an echo that leaves, or a weak one that joins, costs small matrices.
    """

    def __init__(
        self, data: Complex[Array, "row column"], sounding: Sounding, known: Complex[Array, "known column"], room: int
    ) -> None:
        frames, size = sounding.spectrum.shape
        self.sounding, self.room = sounding, room
        self.rows, self.fixed = len(data), len(known)
        self.first = self.rows + self.fixed  # rows of data, known waveforms, then three an echo
        self.unit = np.array(field_curvature(size, sounding.roll_off, tuple(sounding.start.tolist())))
        self.cell = 1 / (np.ptp(sounding.start) + size)
        self.wave = np.empty((self.first + 3 * room, frames, 2, size), dtype=np.float32)
        for k, rows in ((0, data), (self.rows, known)):
            apart = np.ascontiguousarray(rows, dtype=np.complex64).reshape(len(rows), frames, size)
            _split(apart.view(np.float32), self.wave[k : k + len(rows)])
        self.energy = float(np.vdot(data, data).real)
        self.gram = np.zeros((len(self.wave), len(self.wave)), dtype=np.complex128)
        _gram(self.wave, np.arange(self.rows, self.first), self.first, self.gram)
        self.slot = np.empty(0, np.int64)
        self.delay, self.doppler = np.empty(0), np.empty(0)  # where evaluated, in the order of ``slot``

    def add(self, delay: Float[Array, " echo"], doppler: Float[Array, " echo"]) -> None:
        """Echoes that join, within half a cell of where they are. Raises Misuse where there is no room."""
        if len(self.slot) + len(delay) > self.room:
            raise Misuse(f"delay: {len(delay)} echoes beside {len(self.slot)} do not fit; room = {self.room}")
        taken = set(self.slot.tolist())
        free = np.array([k for k in range(self.room) if k not in taken][: len(delay)], dtype=np.int64)
        self.slot = np.concatenate([self.slot, free])
        self.delay = np.concatenate([self.delay, np.asarray(delay, dtype=np.float64)])
        self.doppler = np.concatenate([self.doppler, np.asarray(doppler, dtype=np.float64)])
        self._evaluate(np.arange(len(self.slot) - len(delay), len(self.slot)))

    def keep(self, rest: Bool[Array, " echo"]) -> None:
        """Only these echoes stay."""
        self.slot, self.delay, self.doppler = self.slot[rest], self.delay[rest], self.doppler[rest]

    def fit(self, noise_w: float, steps: int = 8, tolerance: float = 0.02, whole: bool = True) -> Fit:
        """The joint fit of the echoes there are; ``template`` and ``residual`` are left empty unless it is to be ``whole`` (``explained``).

        Steps are capped at 0.3 cells and end when one moves every echo by little enough for its curvature to drown in the noise, or after
        ``steps``; that last step moves the templates along their tangents, which costs no evaluation.
        """
        echoes = len(self.slot)
        if not echoes:
            raise Misuse("delay: is empty; a dwell without echoes is no_echoes")
        per = np.repeat(1 / self.unit, echoes)  # one standard slope of each parameter
        cap = np.repeat([0.3, 0.3 * self.cell], echoes) / per
        row = self.first + 3 * self.slot
        step = 0
        while True:
            step += 1
            # slopes of echoes far apart overlap by the symbols' chance only; leaving that out of the metric slows a step by as little
            close = (np.abs(self.delay[:, None] - self.delay) < 3) & (
                np.abs(self.doppler[:, None] - self.doppler) < 3 * self.cell
            )
            move, restless, normal, onto, own = _newton(self.gram, row, self.rows, self.fixed, per, cap, close)
            unsettled = np.flatnonzero(restless >= tolerance * noise_w)
            if step == steps or not unsettled.size:
                break
            self.delay[unsettled] += (move * per)[unsettled]
            self.doppler[unsettled] += (move * per)[echoes + unsettled]
            self._evaluate(unsettled)
        amplitude, spread, said = _moved(self.gram, row, self.rows, self.fixed, move * per, normal, onto, own)
        self._shift, self._amplitude = move * per, amplitude
        left = self.energy - said
        nothing = np.empty((0, 0), np.complex64)
        template, residual = self.explained() if whole else (nothing, nothing)
        if not left > 1e-4 * self.energy:  # what single precision leaves of a difference that small is no estimate
            rest = residual if whole else self.explained(templates=False)[1]
            left = float(np.vdot(rest, rest).real)
        return Fit(
            delay=self.delay + (move * per)[:echoes],
            doppler=self.doppler + (move * per)[echoes:],
            amplitude=amplitude[self.fixed :],
            template=template,
            residual=residual,
            left=left,
            spread=spread,
            information=2 * normal / np.outer(per, per),
            steps=step,
        )

    def explained(
        self, templates: bool = True, residual: bool = True
    ) -> tuple[Complex[Array, "echo column"], Complex[Array, "row column"]]:
        """Templates of the echoes as last fitted, and what they and the known waveforms leave of the data; empty where not asked for."""
        row = self.first + 3 * self.slot
        found = _explained(self.wave, row, self.rows, self.fixed, self._shift, self._amplitude, templates, residual)
        return found[0].view(np.complex64), found[1].view(np.complex64)

    def _evaluate(self, which: Int[Array, " echo"]) -> None:
        said, row = self.sounding, self.first + 3 * self.slot
        for e in which:
            out = self.wave[row[e] : row[e] + 3]
            planar_templates(said.spectrum, said.start, self.delay[e], self.doppler[e], said.roll_off, out)
        used = int(row.max(initial=self.first - 3)) + 3
        _gram(self.wave, (row[which, None] + np.arange(3)).reshape(-1), used, self.gram)


def fit_echoes(
    data: Complex[Array, "row column"],
    sounding: Sounding,
    delay: Float[Array, " echo"],
    doppler: Float[Array, " echo"],
    known: Complex[Array, "known column"],
    noise_w: float,
    steps: int = 8,
    tolerance: float = 0.02,
) -> Fit:
    """``Joint.fit`` of echoes that start at ``delay``, ``doppler`` (within half a cell). Raises Misuse for none."""
    joint = Joint(data, sounding, known, len(delay))
    joint.add(delay, doppler)
    return joint.fit(noise_w, steps, tolerance)


def no_echoes(data: Complex[Array, "row column"]) -> Fit:
    """The fit of a dwell in which nothing was found: all of it is residual."""
    none, rows = np.empty(0), len(data)
    nothing = np.empty((0, rows), np.complex128)
    return Fit(
        delay=none,
        doppler=none,
        amplitude=nothing,
        template=data[:0],
        residual=data,
        left=float(np.vdot(data, data).real),
        spread=none,
        information=np.empty((0, 0)),
        steps=0,
    )


@njit(cache=True)
def _split(together: Any, apart: Any) -> None:  # pragma: no cover - compiled
    # interleaved real and imaginary parts [row frame 2*sample] to [row frame 2 sample]
    for r in range(apart.shape[0]):
        for f in range(apart.shape[1]):
            for q in range(apart.shape[3]):
                apart[r, f, 0, q], apart[r, f, 1, q] = together[r, f, 2 * q], together[r, f, 2 * q + 1]


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _gram(wave: Any, fresh: Any, used: int, gram: Any) -> None:  # pragma: no cover - compiled
    # inner products conj(wave[fresh]) . wave[:used], three at a time: a triple stays in the first cache beside each partner
    frames, size = wave.shape[1], wave.shape[3]
    zero = np.float32(0)
    for i in range(0, fresh.size, 3):
        one, two, three = fresh[i], fresh[min(i + 1, fresh.size - 1)], fresh[min(i + 2, fresh.size - 1)]
        total = np.zeros((3, used), dtype=np.complex128)
        for f in range(frames):
            a, b, c = wave[one, f], wave[two, f], wave[three, f]
            for r in range(used):
                d = wave[r, f]
                ar, ai, br, bi, cr, ci = zero, zero, zero, zero, zero, zero
                for q in range(size):
                    x, y = d[0, q], d[1, q]
                    ar += a[0, q] * x + a[1, q] * y
                    ai += a[0, q] * y - a[1, q] * x
                    br += b[0, q] * x + b[1, q] * y
                    bi += b[0, q] * y - b[1, q] * x
                    cr += c[0, q] * x + c[1, q] * y
                    ci += c[0, q] * y - c[1, q] * x
                total[0, r] += complex(ar, ai)
                total[1, r] += complex(br, bi)
                total[2, r] += complex(cr, ci)
        for r in range(used):
            gram[one, r], gram[two, r], gram[three, r] = total[0, r], total[1, r], total[2, r]
            gram[r, one], gram[r, two], gram[r, three] = (
                total[0, r].conjugate(),
                total[1, r].conjugate(),
                total[2, r].conjugate(),
            )


@njit(cache=True, error_model="numpy")
def _inverse(matrix: Any) -> Any:  # pragma: no cover - compiled
    # Gauss-Jordan with row pivots; a dozen rows at most
    n = len(matrix)
    left, right = matrix.copy(), np.zeros_like(matrix)
    for i in range(n):
        right[i, i] = 1
    for i in range(n):
        best = i
        for k in range(i + 1, n):
            if abs(left[k, i]) > abs(left[best, i]):
                best = k
        if best != i:
            for k in range(n):
                left[i, k], left[best, k] = left[best, k], left[i, k]
                right[i, k], right[best, k] = right[best, k], right[i, k]
        pivot = 1 / left[i, i]
        for k in range(n):
            left[i, k] *= pivot
            right[i, k] *= pivot
        for j in range(n):
            if j != i:
                factor = left[j, i]
                for k in range(n):
                    left[j, k] -= factor * left[i, k]
                    right[j, k] -= factor * right[i, k]
    return right


@njit(cache=True, error_model="numpy")
def _newton(
    gram: Any, row: Any, rows: int, fixed: int, per: Any, cap: Any, close: Any
) -> Any:  # pragma: no cover - compiled
    # one Gauss-Newton step in standard slopes, and how much power a step of that length may leave behind in each echo
    echoes = row.size
    base, slopes = fixed + echoes, 2 * echoes
    at = np.empty(base, np.int64)
    for k in range(fixed):
        at[k] = rows + k
    at[fixed:] = row
    lean = np.empty(slopes, np.int64)
    lean[:echoes], lean[echoes:] = row + 1, row + 2
    level = np.empty((base, base), np.complex128)
    for i in range(base):
        for j in range(base):
            level[i, j] = gram[at[i], at[j]]
    inverse = _inverse(level)
    onto = np.zeros((slopes, base), np.complex128)
    for p in range(slopes):
        for j in range(base):
            for i in range(base):
                onto[p, j] += per[p] * gram[lean[p], at[i]] * inverse[i, j]
    own = np.zeros((echoes, rows), np.complex128)
    for e in range(echoes):
        for r in range(rows):
            for i in range(base):
                own[e, r] += inverse[fixed + e, i] * gram[at[i], r]
    normal = np.zeros((slopes, slopes))
    slope = np.zeros(slopes)
    for p in range(slopes):
        for r in range(rows):
            left = per[p] * gram[lean[p], r]
            for i in range(base):
                left -= onto[p, i] * gram[at[i], r]
            slope[p] += (own[p % echoes, r].conjugate() * left).real
        for s in range(slopes):
            if close[p % echoes, s % echoes]:
                bent = per[p] * per[s] * gram[lean[p], lean[s]]
                for i in range(base):
                    bent -= onto[p, i] * per[s] * gram[at[i], lean[s]]
                weight = 0j
                for r in range(rows):
                    weight += own[p % echoes, r].conjugate() * own[s % echoes, r]
                normal[p, s] = (bent * weight).real
    metric = normal.copy()
    for p in range(slopes):
        metric[p, p] *= 1 + 1e-9
    metric = _inverse(metric)
    move = np.zeros(slopes)
    for p in range(slopes):
        for s in range(slopes):
            move[p] += metric[p, s] * slope[s]
        move[p] = min(max(move[p], -cap[p]), cap[p])
    restless = np.empty(echoes)
    for e in range(echoes):
        power = 0.0
        for r in range(rows):
            power += own[e, r].real ** 2 + own[e, r].imag ** 2
        restless[e] = power * level[fixed + e, fixed + e].real * (move[e] ** 2 + move[echoes + e] ** 2) ** 2
    return move, restless, normal, onto, own


@njit(cache=True, error_model="numpy")
def _moved(
    gram: Any, row: Any, rows: int, fixed: int, shift: Any, normal: Any, onto: Any, own: Any
) -> Any:  # pragma: no cover - compiled
    # amplitudes of known waveforms and of echoes moved along their tangents, and the echoes' spread
    echoes = row.size
    base = fixed + echoes
    part = np.zeros((base, 3))
    at = np.zeros((base, 3), np.int64)
    for k in range(fixed):
        part[k, 0], at[k, 0] = 1.0, rows + k
    for e in range(echoes):
        part[fixed + e] = np.array([1.0, shift[e], shift[echoes + e]])
        at[fixed + e] = row[e] + np.arange(3)
    level = np.zeros((base, base), np.complex128)
    heard = np.zeros((base, rows), np.complex128)
    for i in range(base):
        for a in range(3):
            for j in range(base):
                for b in range(3):
                    level[i, j] += part[i, a] * part[j, b] * gram[at[i, a], at[j, b]]
            for r in range(rows):
                heard[i, r] += part[i, a] * gram[at[i, a], r]
    inverse = _inverse(level)
    amplitude = np.zeros((base, rows), np.complex128)
    for i in range(base):
        for j in range(base):
            for r in range(rows):
                amplitude[i, r] += inverse[i, j] * heard[j, r]
    spread = np.empty(echoes)
    place = normal.copy()
    for p in range(2 * echoes):
        place[p, p] *= 1 + 1e-12
    place = _inverse(place)
    # Variance of an echo's amplitude in a row, caused by the uncertain places of the other echoes: matters within a cell or two. The
    # amplitudes move along few directions of the rows; their power is spread over half of them here, which errs on the safe side.
    for e in range(echoes):
        power = 0.0
        for p in range(2 * echoes):
            for s in range(2 * echoes):
                if p % echoes != e and s % echoes != e:
                    weight = 0j
                    for r in range(rows):
                        weight += own[p % echoes, r].conjugate() * own[s % echoes, r]
                    power += (onto[p, fixed + e] * onto[s, fixed + e].conjugate() * weight).real * place[p, s]
        spread[e] = inverse[fixed + e, fixed + e].real + power / rows
    said = 0.0
    for i in range(base):
        for r in range(rows):
            said += (amplitude[i, r].conjugate() * heard[i, r]).real
    return amplitude, spread, said


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _explained(
    wave: Any, row: Any, rows: int, fixed: int, shift: Any, amplitude: Any, templates: bool, rest: bool
) -> Any:  # pragma: no cover - compiled
    # echoes moved along their tangents, and the data less all that is explained; complex numbers as interleaved reals
    echoes, frames, size = row.size, wave.shape[1], wave.shape[3]
    template = np.empty((echoes if templates else 0, 2 * frames * size), dtype=np.float32)
    residual = np.empty((rows if rest else 0, 2 * frames * size), dtype=np.float32)
    apart = np.empty((fixed + echoes, 2, size), dtype=np.float32)
    line = np.empty((2, size), dtype=np.float32)
    for f in range(frames):
        begin = 2 * f * size
        for k in range(fixed):
            apart[k] = wave[rows + k, f]
        for e in range(echoes):
            a, b = np.float32(shift[e]), np.float32(shift[echoes + e])
            w, wl, wn, to = wave[row[e], f], wave[row[e] + 1, f], wave[row[e] + 2, f], apart[fixed + e]
            for q in range(size):
                to[0, q] = w[0, q] + a * wl[0, q] + b * wn[0, q]
                to[1, q] = w[1, q] + a * wl[1, q] + b * wn[1, q]
            if templates:
                for q in range(size):
                    template[e, begin + 2 * q] = to[0, q]
                    template[e, begin + 2 * q + 1] = to[1, q]
        for r in range(len(residual)):
            line[:] = wave[r, f]
            for k in range(fixed + echoes):
                re, im = np.float32(amplitude[k, r].real), np.float32(amplitude[k, r].imag)
                part = apart[k]
                for q in range(size):
                    line[0, q] -= re * part[0, q] - im * part[1, q]
                    line[1, q] -= re * part[1, q] + im * part[0, q]
            for q in range(size):
                residual[r, begin + 2 * q] = line[0, q]
                residual[r, begin + 2 * q + 1] = line[1, q]
    return template, residual
