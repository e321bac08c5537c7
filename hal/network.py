"""TTD + phase shifter + RF chain response at a frequency, quantisation, partial and full connection (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace

from hal.array import cis, like
from hal.check import Ge, Gt, In, finite, positive
from hal.errors import Misuse
from hal.record import Array, Bool, Float, Int, record

__all__ = ["Network", "NetworkSpec", "quantise", "response"]


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
        )

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


def response(spec: NetworkSpec, delay_s: Any, phase_rad: Any, amplitude: Any, frequency_hz: Any) -> Any:
    """What each chain does to each element: ``amplitude exp(j phase) exp(-j 2 pi f delay) 10^(-loss/20) / sqrt(elements of the chain)``.

    ``delay_s[... chain line]``, ``phase_rad[... chain element]``, ``amplitude[... chain element]`` as they are in force (``quantise``
    makes them so), ``frequency_hz[frequency]`` (Hz); the result is ``[... frequency element chain]``. Columns have unit norm when every
    element is on at amplitude 1 and nothing is lost. The namespace is that of ``phase_rad``, and torch differentiates through it.
    Left out: phase error and loss that vary with setting or frequency, coupling between lines.
    """
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
