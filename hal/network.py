"""TTD + phase shifter + RF chain response at a frequency, quantisation, partial and full connection (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace
from numba import njit

from hal.array import cis, like
from hal.check import Ge, Gt, In, finite, positive
from hal.errors import Misuse
from hal.record import Array, Bool, Complex, Float, Int, record

__all__ = ["Network", "NetworkSpec", "check_coupling", "neighbour_coupling", "quantise", "response"]


@record
class NetworkSpec:
    """How chains reach elements: wiring, steps and ranges."""

    wired: Bool[Array, "chain element"]  # which elements each chain feeds
    line: Int[Array, " element"]  # which of a chain's delay lines an element hangs on; all -1 without delay lines
    lines: int  # delay lines a chain; 0: none
    delay_bits: int  # 0: continuous
    delay_range_s: float  # settings are b / 2^bits * range, b = 0 .. 2^bits - 1 (papers/000, eq 2)
    phase_bits: int  # 0: continuous
    amplitude_bits: int  # 0: continuous; settings 0 .. 1
    loss_db: float  # insertion loss of the whole network
    coupling: Complex[Array, "element element"] | None = (
        None  # what element n (row) radiates when each is fed; None: each itself
    )


@dataclass(frozen=True)
class Network:
    """RF chains behind delay lines and phase shifters.

    One chain with delay lines is papers/000's front end, four fully connected chains without them are papers/001's, and as many
    partially connected chains as elements are papers/004's digital array.
    """

    chains: Annotated[int, Ge(1)] = 1
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


def _response(spec: NetworkSpec, delay_s: Array, phase_rad: Array, amplitude: Array, frequency_hz: Array) -> Array:
    """``response`` for NumPy, row by row without temporaries."""
    share = spec.wired / np.sqrt(np.maximum(spec.wired.sum(axis=1, keepdims=True), 1)) * 10 ** (-spec.loss_db / 20)
    batch, (chains, elements) = phase_rad.shape[:-2], spec.wired.shape
    phasor = cis(phase_rad)
    phasor *= amplitude * share
    phasor = phasor.reshape(-1, chains, elements)
    out = np.empty((len(phasor), frequency_hz.size, elements, chains), dtype=np.complex128)
    if spec.lines:
        delay_s = np.broadcast_to(delay_s, (*batch, chains, spec.lines)).reshape(-1, chains, spec.lines)
        ramp = cis((-2 * np.pi * frequency_hz)[:, None, None] * delay_s[:, None])
        _spread(phasor, ramp, np.asarray(spec.line, dtype=np.int64), out)
    else:
        out[:] = np.swapaxes(phasor, 1, 2)[:, None]
    return out.reshape(*batch, *out.shape[1:])


@njit(cache=True)
def _spread(phasor: Any, ramp: Any, line: Any, out: Any) -> None:  # pragma: no cover - compiled
    rows, frequencies, elements, chains = out.shape
    for r in range(rows):
        for f in range(frequencies):
            for c in range(chains):
                for n in range(elements):
                    out[r, f, n, c] = ramp[r, f, c, line[n]] * phasor[r, c, n]


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
    for name, value, last in (
        ("delay_s", delay_s, spec.lines),
        ("phase_rad", phase_rad, elements),
        ("amplitude", amplitude, elements),
    ):
        if np.shape(finite(name, value))[-2:] != (chains, last):
            raise Misuse(
                f"{name}: has shape {np.shape(value)}, its last two axes must be (chain, {'line' if value is delay_s else 'element'}) = {(chains, last)}"
            )
    if spec.delay_bits:
        step = spec.delay_range_s / 2**spec.delay_bits
        wanted = np.rint(delay_s / step)
        index = np.clip(wanted, 0, 2**spec.delay_bits - 1)
        clipped, delay_s = int(np.count_nonzero(index != wanted)), index * step
    else:
        kept = np.clip(delay_s, 0.0, spec.delay_range_s)
        clipped, delay_s = int(np.count_nonzero(kept != delay_s)), kept
    if spec.phase_bits:
        turn = 2**spec.phase_bits
        phase_rad = np.mod(np.rint(phase_rad * (turn / (2 * np.pi))), turn) * (2 * np.pi / turn)
    else:
        phase_rad = np.mod(phase_rad, 2 * np.pi)
    top = 2**spec.amplitude_bits - 1 if spec.amplitude_bits else 1
    wanted = np.rint(amplitude * top) if spec.amplitude_bits else np.asarray(amplitude)
    index = np.clip(wanted, 0, top)
    return delay_s, phase_rad, index / top, clipped + int(np.count_nonzero(index != wanted))


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
        if np.max(np.abs(phase_rad), initial=0.0) < 1e6 and frequency_hz.ndim == 1:
            return _response(spec, delay_s, phase_rad, amplitude, frequency_hz)
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
