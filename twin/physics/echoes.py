"""Superposed echoes of known frames: a coarse delay-Doppler map, peaks worth a closer look, and a joint fit of all of them.

Delays in samples, Doppler in cycles a sample, as in ``delay_doppler``. Data are white: every row has the same independent noise. Rows of frames
are waves (``hal.lanes``) ``[row group 2 sample lane]``; lanes without a frame are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import njit

from hal.array import cis
from hal.errors import Misuse
from hal.lanes import LANES, TILE, packed, transform, unpacked
from hal.record import Array, Bool, Complex, Float, Int, record
from twin.physics.delay_doppler import field_curvature, folded_spectrum, raised_cosine

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

_BLUR = 0.26  # cycles of Doppler a frame may turn against its replica: sinc^2 = 1 dB


@dataclass(frozen=True)
class Sounding:
    """What was sent in one dwell: cyclic frames and when each began."""

    sent: Complex[Array, "frame sample"]
    start: Float[Array, " frame"]  # of each frame's first sample, in samples from the dwell's centre
    roll_off: float

    @cached_property
    def waves(self) -> Float[Array, "1 group 2 sample lane"]:
        """The frames."""
        return packed(self.sent[:, None])

    @cached_property
    def lines(self) -> Float[Array, "1 group 2 sample lane"]:
        """Their spectra, in the order of ``hal.lanes.transform``."""
        lines = self.waves.copy()
        transform(self.sent.shape[1]).forward(lines)
        return lines

    @cached_property
    def begin(self) -> Float[Array, "group lane"]:
        """``start`` by lanes; 0 where there is no frame."""
        out = np.zeros(self.lines.shape[1] * LANES)
        out[: len(self.start)] = self.start
        return out.reshape(-1, LANES)


@dataclass(frozen=True)
class Grid:
    """Where the coarse map is evaluated: half-sample lags, half-cell Doppler bins, and the replicas they need."""

    replica: Float[
        Array, "shift group 2 sample lane"
    ]  # spectra of the frames by Doppler within a frame, order of ``hal.lanes.transform``
    energy: Float[Array, " shift"]
    first: int  # lag of the first column
    lags: int  # whole lags; the map has twice as many columns
    doppler: Float[Array, " bin"]
    shift: Int[Array, " bin"]  # which replica a bin uses
    turn: Complex[Array, "group lane bin"]
    gain: Float[Array, " bin"]  # of the power of a peak in a bin, against a replica of its own Doppler
    kernel: Float[
        Array, "axis three offset"
    ]  # offset from a map point (in steps), lopsidedness of its neighbours there, loss of amplitude

    @cached_property
    def delay(self) -> Float[Array, " column"]:
        """Lag of each column of the map, in samples."""
        return np.asarray(self.first + 0.5 * np.arange(2 * self.lags))


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
    size = sounding.sent.shape[1]
    if not 0 <= delay[0] < delay[1] < size:
        raise Misuse(f"delay = {delay}: must ascend within 0 .. {size} samples, one frame")
    layout = _layout(size, tuple(sounding.start.tolist()), sounding.roll_off, float(doppler))
    first, fourier = int(np.floor(delay[0])), transform(size)
    replica = sounding.lines
    if layout.ramp.any():
        replica = np.repeat(sounding.waves, len(layout.ramp), axis=0)
        fourier.turn(replica, np.repeat(layout.ramp, replica.shape[1], axis=0))
        fourier.forward(replica)
    flat = replica.reshape(len(replica), -1)
    return Grid(
        replica=replica,
        energy=np.einsum("sk,sk->s", flat, flat) / size,
        first=first,
        lags=int(np.ceil(delay[1])) - first + 1,
        doppler=layout.doppler,
        shift=layout.shift,
        turn=layout.turn,
        gain=layout.gain,
        kernel=layout.kernel,
    )


@record
class _Layout:
    """What of a grid does not depend on the symbols."""

    ramp: Complex[
        Array, "shift sample"
    ]  # what turns frames to the Doppler of a replica; zero where there is one, which needs none
    doppler: Float[Array, " bin"]
    shift: Int[Array, " bin"]
    turn: Complex[Array, "group lane bin"]
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
    turn = np.zeros((-(-len(start) // LANES) * LANES, len(axis)), dtype=np.complex64)
    turn[: len(start)] = cis(-2 * np.pi * axis[:, None] * middle).T
    ramp = cis(2 * np.pi * centres[:, None] * (np.arange(size) - (size - 1) / 2)) * (shifts > 1)
    return _Layout(
        ramp=ramp.astype(np.complex64),
        doppler=axis,
        shift=which,
        turn=turn.reshape(-1, LANES, len(axis)),
        gain=np.sinc((axis - centres[which]) * size) ** 2,
        kernel=np.array([[offset, (k[2] - k[0]) / k[1], k[1]] for k in (turns, delays)]),
    )


def delay_doppler_map(grid: Grid, data: Float[Array, "row group 2 sample lane"]) -> Complex[Array, "row bin column"]:
    """Matched filter outputs on the grid, scaled so that white noise keeps its power.

    Fast time by circular correlation, once for whole and once for half-sample lags; slow time by a Fourier sum over the frames' own instants, which
    need not be evenly spaced.
    """
    size = data.shape[3]
    fourier, half = transform(size), _half_lag(size)
    spectrum = np.array(data)
    fourier.forward(spectrum)
    out = np.empty((len(data), len(grid.doppler), 2 * grid.lags), dtype=np.complex64)
    for i in range(len(grid.replica)):
        own = np.flatnonzero(grid.shift == i)
        whole = np.empty((2, *spectrum.shape), dtype=np.float32)
        flat = (*spectrum.shape[:3], -1)
        _correlated(spectrum.reshape(flat), grid.replica[i].reshape(flat[1:]), whole[0].reshape(flat))
        whole[1] = whole[0]
        fourier.turn(whole[1], half)
        fourier.backward(whole)
        turn = np.ascontiguousarray(grid.turn[:, :, own])
        _slow(whole, turn.real.copy(), turn.imag.copy(), grid.first, 1 / (np.sqrt(grid.energy[i]) * size), own, out)
    return out


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _correlated(spectrum: Any, replica: Any, out: Any) -> None:  # pragma: no cover - compiled
    # conj(replica) spectrum, line by line: [row group 2 line*lane]
    for r in range(len(spectrum)):
        for g in range(len(replica)):
            a, b, x, y = replica[g, 0], replica[g, 1], spectrum[r, g, 0], spectrum[r, g, 1]
            u, v = out[r, g, 0], out[r, g, 1]
            for k in range(a.size):
                u[k] = a[k] * x[k] + b[k] * y[k]
                v[k] = a[k] * y[k] - b[k] * x[k]


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _slow(
    wave: Any, turn_re: Any, turn_im: Any, first: int, scale: float, own: Any, out: Any
) -> None:  # pragma: no cover - compiled
    # Fourier sum over frames of correlations [half row group 2 lag lane] at the window's lags
    _, rows, groups, _, size, lanes = wave.shape
    bins = own.size
    re, im = np.empty(bins, np.float32), np.empty(bins, np.float32)
    for r in range(rows):
        for c in range(out.shape[2]):
            lag = (first + c // 2) % size
            re[:] = 0
            im[:] = 0
            for g in range(groups):
                for j in range(lanes):
                    x, y = wave[c % 2, r, g, 0, lag, j], wave[c % 2, r, g, 1, lag, j]
                    a, b = turn_re[g, j], turn_im[g, j]
                    for k in range(bins):
                        re[k] += a[k] * x - b[k] * y
                        im[k] += a[k] * y + b[k] * x
            for k in range(bins):
                out[r, own[k], c] = complex(re[k] * scale, im[k] * scale)


@lru_cache(maxsize=16)
def _half_lag(size: int) -> Complex[Array, "1 line"]:
    """What half a sample later means to each line of a wave; the line at half the rate belongs to both sides."""
    line = transform(size).order
    turn = np.where(2 * line == size, 0.0, cis(np.pi * np.where(2 * line > size, line - size, line) / size))
    return turn.astype(np.complex64)[None]


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
        self,
        data: Float[Array, "row group 2 sample lane"],
        sounding: Sounding,
        known: Float[Array, "known group 2 sample lane"],
        room: int,
    ) -> None:
        size = sounding.sent.shape[1]
        self.sounding, self.room = sounding, room
        self.rows, self.fixed = len(data), len(known)
        self.first = self.rows + self.fixed  # rows of data, known waveforms, then three an echo
        self.unit = np.array(field_curvature(size, sounding.roll_off, tuple(sounding.start.tolist())))
        self.cell = 1 / (np.ptp(sounding.start) + size)
        self.wave = np.empty((self.first + 3 * room, *data.shape[1:]), dtype=np.float32)
        self.wave[: self.rows], self.wave[self.rows : self.first] = data, known
        self.flat = self.wave.reshape(len(self.wave), data.shape[1], 2, size * LANES)
        self.energy = float(np.vdot(data, data))
        self.gram = np.zeros((len(self.wave), len(self.wave)), dtype=np.complex128)
        _gram(self.flat, np.arange(self.rows, self.first), self.first, self.gram)
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
        template, residual = nothing, nothing
        if whole:
            template, residual = (
                np.swapaxes(unpacked(w, len(self.sounding.start)), 0, 1).reshape(len(w), -1) for w in self.explained()
            )
        if not left > 1e-4 * self.energy:  # what single precision leaves of a difference that small is no estimate
            rest = self.explained(templates=False)[1]
            left = float(np.vdot(rest, rest))
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
    ) -> tuple[Float[Array, "echo group 2 sample lane"], Float[Array, "row group 2 sample lane"]]:
        """Templates of the echoes as last fitted, and what they and the known waveforms leave of the data; empty where not asked for."""
        row = self.first + 3 * self.slot
        echoes, shape = len(row), self.wave.shape[1:]
        template = np.empty((echoes, *shape), dtype=np.float32)
        rest = self.wave[: self.rows if residual else 0].copy()
        flat = self.flat.shape[1:]
        shift, amplitude = self._shift.astype(np.float32), self._amplitude.astype(np.complex64)
        _explained(
            self.flat, row, self.rows, shift, amplitude, template.reshape(echoes, *flat), rest.reshape(len(rest), *flat)
        )
        return template if templates else template[:0], rest

    def _evaluate(self, which: Int[Array, " echo"]) -> None:
        said, row = self.sounding, self.first + 3 * self.slot
        size = said.sent.shape[1]
        fourier = transform(size)
        for e in which:
            delay, doppler = float(self.delay[e]), float(self.doppler[e])
            value, slope = folded_spectrum(size, delay, doppler, said.roll_off)
            shape, turn, ramp = _shapes(value, slope, fourier.order, doppler, said.begin)
            pair = self.wave[row[e] : row[e] + 2]
            pair[:] = said.lines
            groups = pair.shape[1]
            fourier.turn(pair, np.repeat(shape, groups, axis=0))
            fourier.backward(pair)
            fourier.turn(pair, ramp)
            _lean(self.flat[row[e] : row[e] + 3], turn, said.begin)
        used = int(row.max(initial=self.first - 3)) + 3
        _gram(self.flat, (row[which, None] + np.arange(3)).reshape(-1), used, self.gram)


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
    frames = sounding.sent.shape
    data, known = (packed(np.swapaxes(np.reshape(rows, (len(rows), *frames)), 0, 1)) for rows in (data, known))
    joint = Joint(data, sounding, known, len(delay))
    joint.add(delay, doppler)
    return joint.fit(noise_w, steps, tolerance)


def no_echoes(rows: int, energy: float) -> Fit:
    """The fit of so many rows in which nothing was found: all their ``energy`` is left."""
    none, nothing = np.empty(0), np.empty((0, 0), np.complex64)
    return Fit(
        delay=none,
        doppler=none,
        amplitude=np.empty((0, rows), np.complex128),
        template=nothing,
        residual=nothing,
        left=energy,
        spread=none,
        information=np.empty((0, 0)),
        steps=0,
    )


@njit(cache=True, error_model="numpy")
def _shapes(value: Any, slope: Any, order: Any, doppler: float, begin: Any) -> Any:  # pragma: no cover - compiled
    # both filters in the order of a wave's lines, the Doppler's turn at the frames' starts [group 2 lane], and over a frame
    size = order.size
    shape, ramp = np.empty((2, size), np.complex64), np.empty((1, size), np.complex64)
    for m in range(size):
        a, b = value[order[m]], slope[order[m]]
        shape[0, m], shape[1, m] = complex(a.real / size, a.imag / size), complex(b.real / size, b.imag / size)
    a, b, c, s = 1.0, 0.0, np.cos(2 * np.pi * doppler), np.sin(2 * np.pi * doppler)
    for q in range(size):
        ramp[0, q] = complex(a, b)
        a, b = a * c - b * s, a * s + b * c
    turn = np.empty((len(begin), 2, begin.shape[1]), np.float32)
    for g in range(len(begin)):
        for j in range(begin.shape[1]):
            turn[g, 0, j] = np.cos(2 * np.pi * doppler * begin[g, j])
            turn[g, 1, j] = np.sin(2 * np.pi * doppler * begin[g, j])
    return shape, turn, ramp


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _lean(wave: Any, turn: Any, begin: Any) -> None:  # pragma: no cover - compiled
    # a template and its slope over delay [2 of three, group 2 sample*lane] by the frames' first turns; the slope over Doppler beside them
    half = wave.shape[3]
    re, im, time = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for g in range(wave.shape[1]):
        for k in range(TILE):
            re[k], im[k] = turn[g, 0, k % LANES], turn[g, 1, k % LANES]
        for first in range(0, half, TILE):
            last = min(first + TILE, half)
            for k in range(TILE):
                time[k] = 2 * np.pi * (begin[g, k % LANES] + first // LANES + k // LANES)
            for w in range(2):
                x, y = wave[w, g, 0, first:last], wave[w, g, 1, first:last]
                for k in range(last - first):
                    u, v = x[k], y[k]
                    x[k], y[k] = re[k] * u - im[k] * v, re[k] * v + im[k] * u
            x, y, a, b = (
                wave[0, g, 0, first:last],
                wave[0, g, 1, first:last],
                wave[2, g, 0, first:last],
                wave[2, g, 1, first:last],
            )
            for k in range(last - first):
                a[k], b[k] = -time[k] * y[k], time[k] * x[k]


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _gram(wave: Any, fresh: Any, used: int, gram: Any) -> None:  # pragma: no cover - compiled
    # inner products conj(wave[fresh]) . wave[:used], three at a time and a tile at a time, which stays in the first cache beside each partner
    groups, half = wave.shape[1], wave.shape[3]
    zero = np.float32(0)
    total = np.empty((3, used), dtype=np.complex128)
    for i in range(0, fresh.size, 3):
        one, two, three = fresh[i], fresh[min(i + 1, fresh.size - 1)], fresh[min(i + 2, fresh.size - 1)]
        total[:] = 0
        for g in range(groups):
            for begin in range(0, half, 4 * TILE):
                end = min(begin + 4 * TILE, half)
                ax, ay = wave[one, g, 0, begin:end], wave[one, g, 1, begin:end]
                bx, by = wave[two, g, 0, begin:end], wave[two, g, 1, begin:end]
                cx, cy = wave[three, g, 0, begin:end], wave[three, g, 1, begin:end]
                for r in range(used):
                    x, y = wave[r, g, 0, begin:end], wave[r, g, 1, begin:end]
                    ar, ai, br, bi, cr, ci = zero, zero, zero, zero, zero, zero
                    for k in range(end - begin):
                        ar += ax[k] * x[k] + ay[k] * y[k]
                        ai += ax[k] * y[k] - ay[k] * x[k]
                        br += bx[k] * x[k] + by[k] * y[k]
                        bi += bx[k] * y[k] - by[k] * x[k]
                        cr += cx[k] * x[k] + cy[k] * y[k]
                        ci += cx[k] * y[k] - cy[k] * x[k]
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


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz"})
def _explained(
    wave: Any, row: Any, rows: int, shift: Any, amplitude: Any, template: Any, rest: Any
) -> None:  # pragma: no cover - compiled
    # echoes moved along their tangents, and ``rest``, the data, less all that is explained: [.. group 2 sample*lane]
    echoes, fixed = row.size, len(amplitude) - row.size
    for g in range(wave.shape[1]):
        for e in range(echoes):
            a, b = shift[e], shift[echoes + e]
            for part in range(2):
                w, wl, wn, to = (
                    wave[row[e], g, part],
                    wave[row[e] + 1, g, part],
                    wave[row[e] + 2, g, part],
                    template[e, g, part],
                )
                for k in range(to.size):
                    to[k] = w[k] + a * wl[k] + b * wn[k]
        for r in range(len(rest)):
            u, v = rest[r, g, 0], rest[r, g, 1]
            for i in range(len(amplitude)):
                re, im = amplitude[i, r].real, amplitude[i, r].imag
                x, y = (
                    (wave[rows + i, g, 0], wave[rows + i, g, 1])
                    if i < fixed
                    else (template[i - fixed, g, 0], template[i - fixed, g, 1])
                )
                for k in range(u.size):
                    u[k] -= re * x[k] - im * y[k]
                    v[k] -= re * y[k] + im * x[k]
