"""Superposed echoes of known frames: a coarse delay-Doppler map, peaks worth a closer look, and a joint fit of all of them.

Delays in samples, Doppler in cycles a sample, as in ``delay_doppler``. Data are white: every row has the same independent noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hal.array import cis
from hal.errors import Misuse
from hal.record import Array, Complex, Float, Int, record
from twin.physics.delay_doppler import field_curvature, folded_spectrum, raised_cosine, templates

__all__ = ["Fit", "Grid", "Sounding", "delay_doppler_map", "fit_echoes", "no_echoes", "search_grid", "strong_peaks"]

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

    replica: Complex[Array, "shift half frame sample"]  # conj(spectrum), by Doppler within a frame and by half sample
    energy: Float[Array, "shift half"]
    first: int  # lag of the first column
    lags: int  # whole lags; the map has twice as many columns
    doppler: Float[Array, " bin"]
    shift: Int[Array, " bin"]  # which replica a bin uses
    turn: Complex[Array, "bin frame"]
    gain: Float[Array, " bin"]  # of the power of a peak in a bin, against a replica of its own Doppler
    kernel: Float[
        Array, "axis three offset"
    ]  # offset from a map point (in steps), lopsidedness of its neighbours there, loss of amplitude

    @property
    def delay(self) -> Float[Array, " column"]:
        """Lag of each column of the map, in samples."""
        return self.first + 0.5 * np.arange(2 * self.lags)


@record
class Fit:
    """Echoes that explain a dwell together, and what they leave unexplained."""

    delay: Float[Array, " echo"]
    doppler: Float[Array, " echo"]
    amplitude: Complex[Array, "echo row"]  # of an echo in each row
    template: Complex[Array, "echo column"]  # the echoes themselves, frames end to end
    residual: Complex[Array, "row column"]
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
    within = np.arange(size) - (size - 1) / 2
    replica = np.empty((len(layout.centres), 2, frames, size), dtype=np.complex64)
    for i, centre in enumerate(layout.centres):
        spectrum = sounding.spectrum
        if centre != 0:
            spectrum = np.fft.fft(np.fft.ifft(spectrum) * cis(2 * np.pi * centre * within))
        np.conj(spectrum, out=replica[i, 0])
        np.multiply(replica[i, 0], layout.half, out=replica[i, 1])
    first = int(np.floor(delay[0]))
    return Grid(
        replica=replica,
        energy=np.array([[np.vdot(r, r).real / size for r in pair] for pair in replica]),
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

    centres: Float[Array, " shift"]  # Doppler of the replicas
    half: Complex[Array, " sample"]  # conjugate spectrum of half a sample's delay
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
        half=folded_spectrum(size, 0.5, 0.0, roll_off)[0].conj().astype(np.complex64),
        doppler=axis,
        shift=which,
        turn=cis(-2 * np.pi * axis[:, None] * middle).astype(np.complex64),
        gain=np.sinc((axis - centres[which]) * size) ** 2,
        kernel=np.array([[offset, (k[2] - k[0]) / k[1], k[1]] for k in (turns, delays)]),
    )


def delay_doppler_map(grid: Grid, data: Complex[Array, "row frame sample"]) -> Complex[Array, "row bin column"]:
    """Matched filter outputs on the grid, scaled so that white noise keeps its power.

    Fast time by circular correlation (FFT), slow time by a Fourier sum over the frames' own instants, which need not be evenly spaced.
    """
    from scipy.fft import fft, ifft

    spectrum = fft(data, axis=-1)
    rows = len(data)
    out = np.empty((rows, len(grid.doppler), grid.lags, 2), dtype=np.complex64)
    window = (grid.first + np.arange(grid.lags)) % data.shape[-1]
    for i in range(len(grid.replica)):
        own = grid.shift == i
        for j in range(2):
            lag = ifft(spectrum * grid.replica[i, j], axis=-1, overwrite_x=True)[..., window]
            out[..., j][:, own] = (grid.turn[own] @ lag) * np.float32(1 / np.sqrt(grid.energy[i, j]))
    return out.reshape(rows, len(grid.doppler), 2 * grid.lags)


def strong_peaks(
    grid: Grid, power: Float[Array, "bin column"], floor: float, limit: int, pedestal: float
) -> tuple[Float[Array, " peak"], Float[Array, " peak"]]:
    """Peaks of a map above ``floor`` that are not a stronger peak's skirts: delays and Doppler shifts, strongest first.

    A peak is placed between map points by how its neighbours on each axis differ, and corrected for what the point and its bin
    lose. It is passed over if it lies below three times the sidelobes of the stronger ones (sinc envelopes in delay and Doppler over
    a ``pedestal``, the floor of random symbols): those show again once the stronger ones are subtracted.
    """
    power = power / grid.gain[:, None]
    padded = np.pad(power, 1)
    row, column = np.nonzero(power > 0.7 * floor)
    around = np.stack([padded[row + i, column + j] for i in range(3) for j in range(3)])
    top = np.argmax(around, axis=0) == 4
    row, column, around = row[top], column[top], around[:, top]
    value, offset = around[4], np.zeros((2, row.size))
    for axis, (below, above) in enumerate(((around[1], around[7]), (around[3], around[5]))):
        lean = np.where(
            (below > 0) & (above > 0), (np.sqrt(above) - np.sqrt(below)) / np.sqrt(around[4]), 0.0
        )  # none at the map's edge
        offset[axis] = np.interp(lean, grid.kernel[axis, 1], grid.kernel[axis, 0])
        value = value / np.interp(offset[axis], grid.kernel[axis, 0], grid.kernel[axis, 2]) ** 2
    step = grid.doppler[1] - grid.doppler[0] if len(grid.doppler) > 1 else 1.0
    delay = grid.first + 0.5 * (column + offset[1])
    doppler = grid.doppler[row] + step * offset[0]
    skirts = np.full(row.size, floor)
    kept: list[int] = []
    while len(kept) < limit and np.any(value > skirts):
        p = int(np.argmax(np.where(value > skirts, value, 0.0)))
        kept.append(p)
        skirt = np.ones(row.size)
        for distance in (np.abs(delay - delay[p]), np.abs(doppler - doppler[p]) / (2 * step)):
            skirt /= np.where(distance < 1.5, 1.0, np.pi * distance) ** 2
        skirts += 3 * value[p] * (skirt + pedestal)
    return delay[kept], doppler[kept]


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
    """Maximum likelihood of ``data = sum_e amplitude_e T(delay_e, doppler_e) + sum known + noise``, all echoes jointly, by Gauss-Newton.

    Amplitudes (one an echo and row, also of the ``known`` waveforms) are eliminated in closed form (variable projection, Kaufman's
    approximation), so the normalising denominator of papers/001 eq (35) is inside. Starts at ``delay``, ``doppler`` (within half a cell).
    Steps are capped at 0.3 cells and end when one moves an echo by little enough for its curvature to drown in the noise, or after
    ``steps``; that last step moves the templates along their tangents, which costs no evaluation.
    """
    frames, size = sounding.spectrum.shape
    echoes, fixed = len(delay), len(known)
    delay, doppler = np.array(delay, dtype=np.float64), np.array(doppler, dtype=np.float64)
    unit = np.array(field_curvature(size, sounding.roll_off, tuple(sounding.start.tolist())))
    per = np.repeat(1 / unit, echoes)  # one standard slope of each parameter
    cell = 1 / (np.ptp(sounding.start) + size)
    cap = np.repeat([0.3, 0.3 * cell], echoes) * np.repeat(unit, echoes)
    base = fixed + echoes
    rows = len(data)
    if not echoes:
        raise Misuse("delay: is empty; a dwell without echoes is no_echoes")
    stack = np.empty((base + 2 * echoes + rows, frames * size), dtype=np.complex64)  # known, echoes, slopes, data
    stack[:fixed], stack[base + 2 * echoes :] = known, data
    gram = np.zeros((base + 2 * echoes, len(stack)), dtype=np.complex128)
    step = 0
    while True:
        step += 1
        for e in range(echoes):
            made = templates(sounding.spectrum, sounding.start, delay[e], doppler[e], sounding.roll_off).reshape(3, -1)
            stack[fixed + e], stack[base + e], stack[base + echoes + e] = made
        gram[:base] = stack[:base].conj() @ stack.T
        gram[base:, :base] = gram[:base, base:-rows].conj().T
        gram[base:, -rows:] = stack[base:-rows].conj() @ stack[-rows:].T
        # slopes of echoes far apart overlap by the symbols' chance only; leaving that out of the metric slows a step by as little
        close = (np.abs(delay[:, None] - delay) < 3) & (np.abs(doppler[:, None] - doppler) < 3 * cell)
        for e, other in zip(*np.nonzero(np.triu(close)), strict=True):
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                a, b = base + e + i * echoes, base + other + j * echoes
                gram[a, b] = np.vdot(stack[a], stack[b])
                gram[b, a] = gram[a, b].conj()
        gram[base:, -rows:] *= per[:, None]
        gram[base:, :base] *= per[:, None]
        gram[:base, base:-rows] *= per
        gram[base:, base:-rows] *= np.outer(per, per)
        inverse = np.linalg.inv(gram[:base, :base])
        onto = gram[base:, :base] @ inverse
        bent = gram[base:, base:-rows] - onto @ gram[:base, base:-rows]
        left = gram[base:, -rows:] - onto @ gram[:base, -rows:]
        own = (inverse @ gram[:base, -rows:])[fixed:]
        normal = np.real(bent * np.tile(own.conj() @ own.T, (2, 2)) * np.tile(close, (2, 2)))
        slope = np.real(np.sum(np.tile(own, (2, 1)).conj() * left, axis=1))
        move = np.clip(np.linalg.solve(normal + 1e-9 * np.diag(np.diag(normal)), slope), -cap, cap)
        delay, doppler = delay + (move * per)[:echoes], doppler + (move * per)[echoes:]
        energy = np.sum(np.abs(own) ** 2, axis=1) * np.real(np.diag(gram))[fixed:base]
        if step == steps or np.all(energy * np.sum(move.reshape(2, echoes) ** 2, axis=0) ** 2 < tolerance * noise_w):
            break
    tangent = np.eye(base, base + 2 * echoes)
    tangent[fixed + np.arange(2 * echoes) % echoes, base + np.arange(2 * echoes)] = move
    inverse = np.linalg.inv(tangent @ gram[:, :-rows] @ tangent.T)
    amplitude = inverse @ (tangent @ gram[:, -rows:])
    tangent[:, base:] *= per
    tangent = tangent.astype(np.complex64)
    return Fit(
        delay=delay,
        doppler=doppler,
        amplitude=amplitude[fixed:],
        template=tangent[fixed:] @ stack[:-rows],
        residual=data - (amplitude.T.astype(np.complex64) @ tangent) @ stack[:-rows],
        spread=np.real(np.diag(inverse))[fixed:] + _dragged(onto[:, fixed:].conj().T, normal, own),
        information=2 * normal / np.outer(per, per),
        steps=step,
    )


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
        spread=none,
        information=np.empty((0, 0)),
        steps=0,
    )


def _dragged(
    pull: Complex[Array, "echo parameter"],
    normal: Float[Array, "parameter parameter"],
    amplitude: Complex[Array, "echo row"],
) -> Float[Array, " echo"]:
    """Variance of an echo's amplitude in a row, caused by the uncertain places of the other echoes: matters within a cell or two.

    The amplitudes move along few directions of the rows; their power is spread over half of them here, which errs on the safe side.
    """
    echoes = len(amplitude)
    if echoes < 2:
        return np.zeros(echoes)
    others = np.tile(~np.eye(echoes, dtype=bool), 2)
    place = np.linalg.inv(normal + 1e-12 * np.diag(np.diag(normal))) / 2
    moved = np.where(others, pull, 0)[:, :, None] * np.tile(amplitude, (2, 1))
    power: Array = np.real(np.einsum("epr,pq,eqr->e", moved.conj(), place, moved)) * (2 / amplitude.shape[1])
    return power
