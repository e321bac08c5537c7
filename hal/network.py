"""TTD + phase shifter + RF chain response at a frequency, quantisation, partial and full connection (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace
from numba import njit

from hal.array import _cis, cis, like
from hal.check import Ge, Gt, In, finite, positive
from hal.errors import Misuse
from hal.record import Array, Bool, Complex, Float, Int, record

__all__ = ["Network", "NetworkSpec", "check_coupling", "neighbour_coupling", "quantise", "response"]


@record
class NetworkSpec:
    """How chains reach elements: wiring, steps and ranges."""

    wired: Bool[Array, "chain element"]  # which elements each chain feeds
    line: Int[Array, " element"]  # which of a chain's delay lines an element hangs on; all -1 without delay lines
    lines: int = 0  # delay lines a chain; 0: none
    delay_bits: int = 0  # 0: continuous
    delay_range_s: float = 0.0  # settings are b / 2^bits * range, b = 0 .. 2^bits - 1 (papers/000, eq 2)
    phase_bits: int = 0  # 0: continuous
    amplitude_bits: int = 0  # 0: continuous; settings 0 .. 1
    loss_db: float = 0.0  # insertion loss of the whole network
    coupling: Complex[Array, "element element"] | None = (
        None  # what element n (row) radiates when each is fed; None: each itself
    )


@dataclass(frozen=True)
class Network:
    """RF chains behind delay lines and phase shifters.

    One chain with delay lines is papers/000's front end, four fully connected chains without them are papers/001's, and as many
    partially connected chains as elements are papers/004's digital array.
    """

    chains: Annotated[int, Ge(1)] = 1  # RF chains
    connection: str = (
        "full"  # "full": every chain feeds every element; "partial": equal runs of elements, in element order
    )
    delay_lines: tuple[int, int] | None = (
        None  # columns x rows of sub-arrays, each with a delay line a chain; None: no delay lines
    )
    delay_bits: Annotated[int, Ge(0)] = 4  # 0: continuous
    delay_range_s: Annotated[float, In("ps"), Gt(0)] = 100e-12  # longest setting is range * (1 - 2^-bits)
    phase_bits: Annotated[int, Ge(0)] = 6  # 0: continuous
    amplitude_bits: Annotated[int, Ge(0)] = 0  # 0: continuous
    loss_db: Annotated[float, Ge(0)] = 0.0  # insertion loss of the whole network
    coupling_db: float = float("-inf")  # of each element into its four neighbours (``neighbour_coupling``); -inf: none
    coupling: Path | None = None  # file of a measured matrix instead (``hal.measured.load_coupling``)

    def build(self, columns: int, rows: int) -> NetworkSpec:
        """The wiring for a grid of ``columns x rows`` elements.

        Raises Misuse where counts do not divide or a sub-array with one delay line would straddle two chains.
        """
        elements = columns * rows
        chains = int(positive("chains", self.chains))
        for name in ("delay_bits", "phase_bits", "amplitude_bits"):
            if not 0 <= getattr(self, name) <= 24:
                raise Misuse(f"{name} = {getattr(self, name)!r}: must be 0 (continuous) .. 24")
        if not self.loss_db >= 0:
            raise Misuse(
                f"loss_db = {self.loss_db!r}: must be >= 0; gain belongs to transmit power or the noise figure"
            )
        positive("delay_range_s", self.delay_range_s, "a network without delay lines is delay_lines = None")
        if self.connection == "full":
            wired = np.ones((chains, elements), dtype=bool)
        elif self.connection == "partial":
            if elements % chains:
                raise Misuse(
                    f"chains = {chains}: must divide the {columns} x {rows} = {elements} elements when connection = 'partial'"
                )
            wired = np.arange(elements) // (elements // chains) == np.arange(chains)[:, None]
        else:
            raise Misuse(f"connection = {self.connection!r}: must be 'full' or 'partial'")
        line, lines = self._lines(columns, rows, wired)
        return NetworkSpec(
            wired=wired,
            line=line,
            lines=lines,
            delay_bits=self.delay_bits,
            delay_range_s=self.delay_range_s,
            phase_bits=self.phase_bits,
            amplitude_bits=self.amplitude_bits,
            loss_db=self.loss_db,
            coupling=self._coupling(columns, rows),
        )

    def _coupling(self, columns: int, rows: int) -> Array | None:
        if self.coupling is None:
            return None if self.coupling_db == -np.inf else neighbour_coupling(columns, rows, self.coupling_db)
        from hal.measured import load_coupling  # which knows front ends, which know networks

        found = load_coupling(self.coupling)
        if len(found) != columns * rows:
            raise Misuse(f"coupling = {self.coupling}: is of {len(found)} elements, the array has {columns * rows}")
        return found

    def _lines(self, columns: int, rows: int, wired: Array) -> tuple[Array, int]:
        if self.delay_lines is None:
            return np.full(columns * rows, -1), 0
        across, up = self.delay_lines
        if not (across > 0 and up > 0) or columns % across or rows % up:
            raise Misuse(
                f"delay_lines = {self.delay_lines}: must divide the {columns} x {rows} elements, column by column and row by row"
            )
        column, row = np.divmod(np.arange(columns * rows), rows)
        sub_array = (column * across // columns) * up + row * up // rows
        if self.connection == "full":
            return sub_array, across * up
        line = np.empty(columns * rows, dtype=np.int64)
        owner = np.argmax(wired, axis=0)
        for chain in range(len(wired)):
            own, line[wired[chain]] = np.unique(sub_array[wired[chain]], return_inverse=True)
            if np.any((owner != chain) & np.isin(sub_array, own)):
                raise Misuse(
                    f"delay_lines = {self.delay_lines}: a sub-array would straddle two of the {len(wired)} partially connected chains; "
                    "use more, smaller sub-arrays"
                )
        return line, int(line.max()) + 1


def _response(
    spec: NetworkSpec, delay_s: Array, phase_rad: Array, amplitude: Array, frequency_hz: Array
) -> Array | None:
    """``response`` for NumPy, row by row without temporaries; None for phases too many turns long."""
    share, line = _wiring(spec)
    batch, (chains, elements), lines = phase_rad.shape[:-2], share.shape, (*phase_rad.shape[:-1], spec.lines)
    rows, frequencies = prod(batch), frequency_hz.size
    phases, sizes = (np.ascontiguousarray(a).reshape(rows, chains, elements) for a in (phase_rad, amplitude))
    # without delay lines a row is the same at every frequency
    out = np.empty((rows, frequencies if spec.lines else min(frequencies, 1), elements, chains), dtype=np.complex128)
    delays = delay_s if delay_s.shape == lines else np.broadcast_to(delay_s, lines)
    delays = np.ascontiguousarray(delays).reshape(rows, chains, spec.lines)
    if not _respond(delays, phases, sizes, share, line, frequency_hz, out):
        return None
    if frequencies > 1 and not spec.lines:
        out = np.repeat(out, frequencies, axis=1)
    return out.reshape(*batch, frequencies, elements, chains)


@lru_cache(maxsize=16)
def _wiring(spec: NetworkSpec) -> tuple[Array, Array]:
    """Amplitude at which each chain reaches each element, and each element's delay line."""
    wired = np.asarray(spec.wired)
    share = wired / np.sqrt(np.maximum(wired.sum(axis=1, keepdims=True), 1)) * 10 ** (-spec.loss_db / 20)
    return share, np.asarray(spec.line, dtype=np.int64)


@njit(cache=True)
def _respond(
    delay_s: Any, phase_rad: Any, amplitude: Any, share: Any, line: Any, frequency_hz: Any, out: Any
) -> bool:  # pragma: no cover - compiled
    rows, chains, elements = phase_rad.shape
    lines = delay_s.shape[2]
    phasor, ramp, turn = np.empty(2 * elements), np.empty(2 * lines), np.empty(lines)
    for r in range(rows):
        for c in range(chains):
            if not _cis(phase_rad[r, c], phasor):
                return False
            for n in range(elements):
                size = amplitude[r, c, n] * share[c, n]
                phasor[2 * n] *= size
                phasor[2 * n + 1] *= size
            if lines == 0:
                for f in range(out.shape[1]):
                    for n in range(elements):
                        out[r, f, n, c] = complex(phasor[2 * n], phasor[2 * n + 1])
                continue
            for f in range(out.shape[1]):
                for k in range(lines):
                    turn[k] = -2 * np.pi * frequency_hz[f] * delay_s[r, c, k]
                if not _cis(turn, ramp):
                    return False
                for n in range(elements):
                    a, b = ramp[2 * line[n]], ramp[2 * line[n] + 1]
                    x, y = phasor[2 * n], phasor[2 * n + 1]
                    out[r, f, n, c] = complex(a * x - b * y, a * y + b * x)
    return True


def quantise(
    spec: NetworkSpec,
    delay_s: Float[Array, "... chain line"],
    phase_rad: Float[Array, "... chain element"],
    amplitude: Float[Array, "... chain element"],
) -> tuple[Float[Array, "... chain line"], Float[Array, "... chain element"], Float[Array, "... chain element"], int]:
    """The settings the hardware takes, and how many were out of range: ``(delay_s, phase_rad, amplitude, clipped)``.

    Delays go to the nearest ``b / 2^bits * range`` with b = 0 .. 2^bits - 1 (papers/000, eq 2), 0 .. range when continuous; phases to the
    nearest multiple of ``2 pi / 2^bits``, modulo 2 pi into [0, 2 pi); amplitudes to the nearest ``k / (2^bits - 1)`` in 0 .. 1. A delay or
    amplitude more than half a step outside its range is clipped to it and counted. Quantising twice changes nothing.
    Raises Misuse for settings that are not finite or whose last two axes do not fit the wiring.
    """
    chains, elements = spec.wired.shape
    given, taken = [], []
    for name, value, last in (
        ("delay_s", delay_s, spec.lines),
        ("phase_rad", phase_rad, elements),
        ("amplitude", amplitude, elements),
    ):
        value = np.asarray(value, dtype=np.float64)
        if value.shape[-2:] != (chains, last):
            axis = "line" if name == "delay_s" else "element"
            raise Misuse(
                f"{name}: has shape {value.shape}, its last two axes must be (chain, {axis}) = {(chains, last)}"
            )
        flat = value.ravel()
        flat.flags.writeable = False  # as those of records: one type to compile for
        given.append(flat)
        taken.append(np.empty(value.shape))
    (delays, phases, sizes), (delays_out, phases_out, sizes_out) = given, [out.ravel() for out in taken]
    steps = spec.delay_bits, spec.delay_range_s, spec.phase_bits, spec.amplitude_bits
    clipped: int = _quantise(delays, phases, sizes, delays_out, phases_out, sizes_out, *steps)
    if clipped < 0:
        for name, value in (("delay_s", delay_s), ("phase_rad", phase_rad), ("amplitude", amplitude)):
            finite(name, value)
    return taken[0], taken[1], taken[2], clipped


@njit(cache=True)
def _quantise(
    delay_s: Any,
    phase_rad: Any,
    amplitude: Any,
    delay_out: Any,
    phase_out: Any,
    amplitude_out: Any,
    delay_bits: Any,
    delay_range_s: Any,
    phase_bits: Any,
    amplitude_bits: Any,
) -> Any:  # pragma: no cover - compiled
    """Settings clipped; -1 where one is not finite."""
    sane, clipped = True, 0
    top = 2.0**delay_bits - 1.0 if delay_bits else delay_range_s
    step = delay_range_s / 2.0**delay_bits if delay_bits else 1.0
    for n in range(len(delay_s)):
        sane &= abs(delay_s[n]) < np.inf
        wanted = np.rint(delay_s[n] / step) if delay_bits else delay_s[n]
        index = min(wanted if wanted > 0.0 else 0.0, top)
        clipped += index != wanted
        delay_out[n] = index * step if delay_bits else index
    if phase_bits:
        turn = 2.0**phase_bits
        to, back = turn / (2 * np.pi), 2 * np.pi / turn
        for n in range(len(phase_rad)):
            sane &= abs(phase_rad[n]) < np.inf
            word = np.rint(phase_rad[n] * to)
            phase_out[n] = (word - turn * np.floor(word / turn)) * back
    else:
        for n in range(len(phase_rad)):
            sane &= abs(phase_rad[n]) < np.inf
            rest = np.fmod(phase_rad[n], 2 * np.pi)
            phase_out[n] = rest + 2 * np.pi if rest < 0 else abs(rest)
    top = 2.0**amplitude_bits - 1.0 if amplitude_bits else 1.0
    for n in range(len(amplitude)):
        sane &= abs(amplitude[n]) < np.inf
        wanted = np.rint(amplitude[n] * top) if amplitude_bits else amplitude[n]
        index = min(wanted if wanted > 0.0 else 0.0, top)
        clipped += index != wanted
        amplitude_out[n] = index / top
    return clipped if sane else -1


def check_coupling(given: Any) -> Complex[Array, "element element"]:
    """The coupling matrix, if an antenna could have it; Misuse where it is not square or finite, or gains power in some excitation."""
    matrix: Array = np.asarray(finite("coupling", given), dtype=np.complex128)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise Misuse(f"coupling: has shape {matrix.shape}; must be a square matrix, one row an element")
    most = float(np.linalg.norm(matrix, 2))
    if not most <= 1.01:
        raise Misuse(
            f"coupling: gains {20 * np.log10(most):.2f} dB in some excitation; an antenna does not, divide it by {most:.4g}"
        )
    return matrix


def neighbour_coupling(columns: int, rows: int, coupling_db: float) -> Complex[Array, "element element"]:
    """Lossless reciprocal coupling of each element of a grid with its nearest neighbours: ``exp(j kappa A)``.

    ``A`` is 1 between neighbours along columns and rows, ``kappa = 10^(coupling_db / 20)`` the amplitude that goes over, to first order in
    quadrature, as between coupled waveguides. Unitary and symmetric, so power is kept and both halves see the same. A model, not a measurement:
    real coupling also depends on frequency and polarisation, and reflects.
    """
    if not coupling_db <= 0:
        raise Misuse(f"coupling_db = {coupling_db!r}: must be <= 0, or -inf for none")
    column, row = np.divmod(np.arange(columns * rows), rows)
    apart = np.abs(column[:, None] - column) + np.abs(row[:, None] - row)
    values, vectors = np.linalg.eigh((apart == 1).astype(np.float64))
    out: Array = (vectors * np.exp(1j * 10 ** (coupling_db / 20) * values)) @ vectors.T
    return out


def response(spec: NetworkSpec, delay_s: Any, phase_rad: Any, amplitude: Any, frequency_hz: Any) -> Any:
    """What each chain does to each element: ``amplitude exp(j phase) exp(-j 2 pi f delay) 10^(-loss/20) / sqrt(elements of the chain)``.

    ``delay_s[... chain line]``, ``phase_rad[... chain element]``, ``amplitude[... chain element]`` as they are in force (``quantise``
    makes them so), ``frequency_hz[frequency]`` (Hz); the result is ``[... frequency element chain]``. Columns have unit norm when every
    element is on at amplitude 1 and nothing is lost. The namespace is that of ``phase_rad``, and torch differentiates through it.
    Coupling between elements multiplies it from the left (flat in frequency). Left out: phase error and loss that vary with setting or
    frequency, coupling between lines.
    """
    uncoupled = _uncoupled(spec, delay_s, phase_rad, amplitude, frequency_hz)
    if spec.coupling is None:
        return uncoupled
    xp = array_namespace(uncoupled)
    return xp.matmul(xp.asarray(np.array(spec.coupling), dtype=uncoupled.dtype, device=device(uncoupled)), uncoupled)


def _uncoupled(spec: NetworkSpec, delay_s: Any, phase_rad: Any, amplitude: Any, frequency_hz: Any) -> Any:
    if all(type(a) is np.ndarray and a.dtype == np.float64 for a in (delay_s, phase_rad, amplitude)):
        frequency_hz = np.ascontiguousarray(frequency_hz, dtype=np.float64)
        found = _response(spec, delay_s, phase_rad, amplitude, frequency_hz) if frequency_hz.ndim == 1 else None
        if found is not None:
            return found
    xp = array_namespace(phase_rad)
    share = spec.wired / np.sqrt(np.maximum(spec.wired.sum(axis=1, keepdims=True), 1)) * 10 ** (-spec.loss_db / 20)
    phasor = cis(phase_rad)
    phasor = phasor * xp.astype(like(amplitude, phase_rad) * like(share, phase_rad), phasor.dtype)
    phasor = xp.matrix_transpose(phasor)[..., None, :, :]  # [... 1 element chain]
    frequency_hz = like(frequency_hz, phase_rad)
    if not spec.lines:
        flat = xp.ones_like(frequency_hz)[:, None, None]
        return phasor * xp.astype(flat, phasor.dtype)
    delay_s = xp.matrix_transpose(like(delay_s, phase_rad))[..., None, :, :]  # [... 1 line chain]
    ramp = cis((-2 * np.pi * frequency_hz)[:, None, None] * delay_s)
    line = xp.asarray(np.array(spec.line), device=device(phase_rad))
    spread = xp.take(ramp, line, axis=-2)
    if is_numpy_namespace(xp) and np.shape(phasor)[:-3] == np.shape(ramp)[:-3]:
        spread *= phasor  # a second array of this size costs ten times the multiplication, in page faults
        return spread
    return spread * phasor
