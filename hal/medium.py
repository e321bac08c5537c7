"""What lies between two arrays at one instant, as data, and what a signal becomes on the way.

Two transports share the table: ``wideband`` gives the channel of each subcarrier (data blocks, pilots), ``narrowband`` carries sampled
cyclic frames through delay, Doppler and pulse shaping (sensing). Each event is computed by a fixed order of operations of its own, so a
result does not depend, in any bit, on which other events are computed with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from hal.array import AntennaArray, cis, element_amplitude, near_field, steering
from hal.check import positive, shaped
from hal.errors import Misuse
from hal.lanes import LANES, added, packed, transform, unpacked
from hal.planar import nodes_of, planar_gains
from hal.record import Array, Bool, Complex, Float, Int, record

__all__ = ["Paths", "beam_gains", "block_at", "narrowband", "wideband"]


@record
class Paths:
    """A table of propagation paths; superposition is a list of (Emission, Paths).

    At frequency f and time t after ``t_ns[block]`` a path's field ratio is
    ``gain[block] exp(-j 2 pi (f - carrier_hz) delay_s) exp(+j 2 pi doppler_hz (t - t_ns[block]))``.
    """

    carrier_hz: float
    t_ns: Int[Array, " block"]  # instants from which the rows of ``gain`` hold, ascending
    source: Int[Array, " path"]  # entity the path leaves (SITE for the base station itself)
    sink: Int[Array, " path"]  # entity it reaches
    gain: Complex[
        Array, "block path"
    ]  # sqrt(power ratio) between unit-gain antennas, carrier phase included; fading is its block axis
    delay_s: Float[Array, " path"]
    doppler_hz: Float[Array, " path"]  # positive when the path shortens
    departure_m: Float[Array, "path 3"]  # source array's frame: from its phase centre to the first interaction point
    arrival_m: Float[Array, "path 3"]  # sink array's frame: from its phase centre to the last interaction point


def block_at(paths: Paths, t_ns: Int[Array, " event"]) -> tuple[Int[Array, " event"], Float[Array, " event"]]:
    """Row of ``paths.gain`` in force at each time, and the time (s) since its instant: ``(block, offset_s)``.

    Raises Misuse for a time before the first row.
    """
    t_ns = np.asarray(t_ns)
    block = np.searchsorted(paths.t_ns, t_ns, side="right") - 1
    if t_ns.size and not block.min() >= 0:
        raise Misuse(
            f"t_ns = {int(t_ns.min())}: lies before the paths' first instant {int(paths.t_ns[0])}; ask the channel for paths from then on"
        )
    return block, (t_ns - paths.t_ns[block]) * 1e-9


def beam_gains(
    paths: Paths,
    array: AntennaArray,
    response: Complex[Array, "row subcarrier element chain"],
    frequency_hz: Float[Array, " subcarrier"],
    end: str = "departure",
    spherical: bool = False,
    wanted: Bool[Array, "row path"] | None = None,
) -> Complex[Array, "row path subcarrier chain"]:
    """Amplitude between each path and each chain's port: ``e(u_path) a(u_path, f)^T response[row, f]``.

    ``end`` says which end of the path the array is at; by reciprocity both use the same product. ``e`` and ``a`` are ``element_amplitude``
    and ``steering``, or ``near_field`` where ``spherical``, or the array is (exact for a point scatterer, at several times the cost: no factors);
    ``frequency_hz`` (Hz) belongs to the response's rows. Pairs that are not ``wanted`` are left at zero and cost nothing.
    Raises Misuse for a path that starts or ends at the array's phase centre.
    """
    if end not in ("departure", "arrival"):
        raise Misuse(f"end = {end!r}: must be 'departure' or 'arrival'")
    point_m = paths.departure_m if end == "departure" else paths.arrival_m
    frequency_hz = np.atleast_1d(np.asarray(frequency_hz, dtype=np.float64))
    shaped("response", response, (None, len(frequency_hz), len(array.position_m), None))
    if wanted is None:
        wanted = np.ones((len(response), len(point_m)), dtype=np.bool_)
    wanted = np.ascontiguousarray(shaped("wanted", wanted, (len(response), len(point_m))))
    spherical = spherical or array.spherical
    if array.columns and not spherical and array.pattern is None:
        flat = _flat(response)
        nodes = nodes_of(array, frequency_hz, flat)
        found: Array = planar_gains(
            np.ascontiguousarray(point_m, dtype=np.float64),
            10 ** (array.element_gain_dbi / 20),
            float(array.element_exponent),
            nodes.wave,
            nodes.spread,
            nodes.column_m,
            nodes.row_m,
            nodes.columns,
            nodes.rows,
            np.ascontiguousarray(response[:, :1] if flat else response, dtype=np.complex128),
            wanted,
        )
        if found.ndim and len(found) == len(response):
            return found
    range_m = np.sqrt(np.sum(point_m * point_m, axis=-1))
    if not np.all(range_m > 0):
        raise Misuse(
            f"paths.{end}_m[{int(np.argmin(range_m > 0))}]: must be away from the array's phase centre, else it has no direction"
        )
    direction = point_m / range_m[:, None]
    a = (
        near_field(array, point_m[:, None, :], frequency_hz)
        if spherical
        else steering(array, direction[:, None, :], frequency_hz)
    )
    zr, zi = (np.ascontiguousarray(part.transpose(0, 2, 1)) for part in (a.real, a.imag))
    yr = np.repeat(element_amplitude(array, direction), len(frequency_hz)).reshape(-1, 1, len(frequency_hz))
    out: Array = _project(yr, np.zeros_like(yr), zr, zi, np.ascontiguousarray(response, dtype=np.complex128), wanted)
    return out


def _flat(response: Complex[Array, "row subcarrier element chain"]) -> bool:
    """Whether rows are the same at every frequency, as those of a network without delay lines are, however they came here."""
    if response.shape[1] <= 1 or response.strides[1] == 0:
        return True
    one = response[:, :1]
    return bool(np.all(response[:, :, 0] == one[:, :, 0]) and np.all(response == one))


@njit(cache=True)
def _project(yr: Any, yi: Any, zr: Any, zi: Any, response: Any, wanted: Any) -> Any:  # pragma: no cover - compiled
    # yr, yi [path column subcarrier], zr, zi [path row subcarrier]; subcarriers are the vector lanes, so no sum is ever reordered
    paths, columns, subcarriers = yr.shape
    rows = zr.shape[1]
    slots, _, elements, chains = response.shape
    out = np.zeros((slots, paths, subcarriers, chains), dtype=np.complex128)
    fr = np.empty((elements, subcarriers))
    fi = np.empty((elements, subcarriers))
    tr, ti, sr, si = np.empty(subcarriers), np.empty(subcarriers), np.empty(subcarriers), np.empty(subcarriers)
    for slot in range(slots):
        if not np.any(wanted[slot]):
            continue
        for chain in range(chains):
            for m in range(subcarriers):
                for n in range(elements):
                    fr[n, m] = response[slot, m, n, chain].real
                    fi[n, m] = response[slot, m, n, chain].imag
            for p in range(paths):
                if not wanted[slot, p]:
                    continue
                sr[:] = 0.0
                si[:] = 0.0
                for column in range(columns):
                    tr[:] = 0.0
                    ti[:] = 0.0
                    whole = rows - rows % 4
                    for row in range(
                        0, whole, 4
                    ):  # four at a time in the same order: fewer passes over the accumulators
                        a, b, c, d = row, row + 1, row + 2, row + 3
                        n = column * rows + row
                        for m in range(subcarriers):
                            re, im = tr[m], ti[m]
                            re += zr[p, a, m] * fr[n, m] - zi[p, a, m] * fi[n, m]
                            im += zr[p, a, m] * fi[n, m] + zi[p, a, m] * fr[n, m]
                            re += zr[p, b, m] * fr[n + 1, m] - zi[p, b, m] * fi[n + 1, m]
                            im += zr[p, b, m] * fi[n + 1, m] + zi[p, b, m] * fr[n + 1, m]
                            re += zr[p, c, m] * fr[n + 2, m] - zi[p, c, m] * fi[n + 2, m]
                            im += zr[p, c, m] * fi[n + 2, m] + zi[p, c, m] * fr[n + 2, m]
                            re += zr[p, d, m] * fr[n + 3, m] - zi[p, d, m] * fi[n + 3, m]
                            im += zr[p, d, m] * fi[n + 3, m] + zi[p, d, m] * fr[n + 3, m]
                            tr[m], ti[m] = re, im
                    for row in range(whole, rows):
                        n = column * rows + row
                        for m in range(subcarriers):
                            tr[m] += zr[p, row, m] * fr[n, m] - zi[p, row, m] * fi[n, m]
                            ti[m] += zr[p, row, m] * fi[n, m] + zi[p, row, m] * fr[n, m]
                    for m in range(subcarriers):
                        sr[m] += yr[p, column, m] * tr[m] - yi[p, column, m] * ti[m]
                        si[m] += yr[p, column, m] * ti[m] + yi[p, column, m] * tr[m]
                for m in range(subcarriers):
                    out[slot, p, m, chain] = complex(sr[m], si[m])
    return out


def wideband(
    paths: Paths,
    gains: Complex[Array, "row path subcarrier chain"],
    frequency_hz: Float[Array, " subcarrier"],
    row: Int[Array, " event"],
    block: Int[Array, " event"],
    entity: Int[Array, " event"],
    end: str = "departure",
    offset_s: Float[Array, " event"] | None = None,
) -> Complex[Array, "event subcarrier chain"]:
    """The superposed channel between the array's chains and one single-antenna entity an event.

    ``h[e, f, c] = sum over p of gain[block_e, p] exp(-j 2 pi (f - f_c) delay_p) exp(+j 2 pi doppler_p offset_e) gains[row_e, p, f, c]``,
    over the paths between the array and ``entity[e]``: those that end there when the array is at the ``departure`` end, those that leave from
    there when it is at the ``arrival`` end. ``gains`` are ``beam_gains`` of that end, ``offset_s`` the time since ``paths.t_ns[block]``
    (``block_at``); None is 0: Doppler is then removed, as by a receiver that tracks it. The channel is constant over an event and
    over a subcarrier. An entity without paths gets zeros.
    """
    if end not in ("departure", "arrival"):
        raise Misuse(f"end = {end!r}: must be 'departure' or 'arrival'")
    frequency_hz = np.atleast_1d(np.asarray(frequency_hz, dtype=np.float64))
    shaped("gains", gains, (None, len(paths.delay_s), len(frequency_hz), None))
    row, block, entity = (np.asarray(index, dtype=np.int64) for index in (row, block, entity))
    ramp = cis(-2 * np.pi * (frequency_hz - paths.carrier_hz) * paths.delay_s[:, None])
    far = paths.sink if end == "departure" else paths.source
    order = np.argsort(far, kind="stable")
    first = np.searchsorted(far[order], entity, side="left")
    last = np.searchsorted(far[order], entity, side="right")
    offset_s = np.zeros(len(row)) if offset_s is None else np.asarray(offset_s, dtype=np.float64)
    shaped("offset_s", offset_s, row.shape)
    out: Array = _superpose(
        order,
        first,
        last,
        row,
        block,
        offset_s,
        np.ascontiguousarray(paths.gain, dtype=np.complex128),
        paths.doppler_hz,
        ramp,
        np.ascontiguousarray(gains, dtype=np.complex128),
    )
    if len(out) < len(row):
        for name, index, size in (("row", row, len(gains)), ("block", block, len(paths.gain))):
            if not (index.min() >= 0 and index.max() < size):
                raise Misuse(f"{name}: holds {int(index.min())} .. {int(index.max())}, must be 0 .. {size - 1}")
    return out


@njit(cache=True)
def _superpose(
    order: Any,
    first: Any,
    last: Any,
    row: Any,
    block: Any,
    offset_s: Any,
    gain: Any,
    doppler_hz: Any,
    ramp: Any,
    gains: Any,
) -> Any:  # pragma: no cover - compiled
    subcarriers, chains = gains.shape[2], gains.shape[3]
    out = np.zeros((row.size, subcarriers, chains), dtype=np.complex128)
    for e in range(row.size):
        if not (0 <= row[e] < len(gains) and 0 <= block[e] < len(gain)):
            return out[:0]
        for i in range(first[e], last[e]):
            p = order[i]
            turn = 2 * np.pi * doppler_hz[p] * offset_s[e]
            weight = gain[block[e], p] * complex(np.cos(turn), np.sin(turn))
            for m in range(subcarriers):
                field = weight * ramp[p, m]
                for c in range(chains):
                    out[e, m, c] += field * gains[row[e], p, m, c]
    return out


def narrowband(
    paths: Paths,
    samples: Complex[Array, "event stream sample"],
    sample_rate_hz: float,
    roll_off: float,
    departure: Complex[Array, "event path stream"],
    arrival: Complex[Array, "event path chain"],
    block: Int[Array, " event"],
    start_s: Float[Array, " event"],
    prefix_s: float | None = None,
) -> Complex[Array, "event chain sample"]:
    """Sampled cyclic frames at the chains' outputs, after pulse shaping, delay, Doppler and matched filter; no noise.

    Each frame repeats with its period K / sample_rate, so its pulse train has the line spectrum ``A(f) S(f)``, f = k sample_rate / K, with ``A``
    the square-root raised cosine. A path delays it by ``exp(-j 2 pi f delay)`` and shifts it by its Doppler nu; the matched filter weighs the
    shifted line by ``A(f + nu)``, and one sample a period folds the lines outside the Nyquist band back in. With t_q = start + q / sample_rate:

    ``y[c, q] = sum_p gain_p arrival[p, c] exp(j 2 pi nu_p t_q) IDFT_q( sum_s departure[p, s] S_s(f) A(f) A(f + nu_p) exp(-j 2 pi f delay_p) )``

    with the fold inside the IDFT. This is the exact response of pulse, delay, Doppler, pulse to an endless cyclic frame: the
    limit of the oversampled operator without its wrapped edges, and of papers/001 eqs (5)-(8) without the approximation of (7), which takes
    ``A(f)^2`` for ``A(f) A(f + nu)``. A real frame is cyclic only as far as its prefix reaches past delay plus pulse, and its suffix past
    the pulse: with roll-off 0.1, a prefix of 64 samples and a suffix of 32, the difference is -91 dB of the path at a delay of 20 samples,
    -64 dB at 55 and -38 dB at 62. The delay is constant during a frame (no range migration).

    ``departure`` is a path's amplitude for each stream in sqrt(W) (``beam_gains`` times baseband weights times sqrt(power)) and ``arrival`` its
    amplitude at each chain; a path whose departure or arrival is zero throughout an event costs nothing. ``start_s`` is the time from
    ``paths.t_ns[block]`` to the frame's first sample (the end of its prefix), which keeps Doppler coherent from frame to frame.
    Unit gain: with no delay and no Doppler, and unit weights, out comes what went in. Result in complex64, good to 1e-6 of the strongest path.
    Raises Misuse for a roll-off outside 0 .. 1, a Doppler shift beyond a tenth of the sample rate, or a delay beyond ``prefix_s``, if given.
    """
    events, streams, count = np.shape(samples)
    positive("sample_rate_hz", sample_rate_hz)
    if not 0 <= roll_off <= 1:
        raise Misuse(f"roll_off = {roll_off!r}: must be 0 .. 1")
    widest_hz = float(np.max(np.abs(paths.doppler_hz), initial=0.0))
    if not widest_hz <= 0.1 * sample_rate_hz:
        raise Misuse(
            f"paths.doppler_hz: reaches {widest_hz:.6g} Hz, must stay below a tenth of the sample rate, {sample_rate_hz:.6g} Hz"
        )
    if prefix_s is not None and len(paths.delay_s) and not np.max(paths.delay_s) <= prefix_s:
        p = int(np.argmax(paths.delay_s))
        raise Misuse(
            f"paths.delay_s[{p}] = {paths.delay_s[p]:.6g}: must not exceed the cyclic prefix, {prefix_s:.6g} s; lengthen it or leave the path out"
        )
    shaped("departure", departure, (events, len(paths.delay_s), streams))
    shaped("arrival", arrival, (events, len(paths.delay_s), None))
    block = np.asarray(block, dtype=np.int64)
    start_s = np.asarray(start_s, dtype=np.float64)
    shaped("block", block, (events,))
    shaped("start_s", start_s, (events,))
    groups = -(-events // LANES)
    doppler = paths.doppler_hz / sample_rate_hz
    sent, got, lit = _by_lanes(
        np.ascontiguousarray(departure, dtype=np.complex128),
        np.ascontiguousarray(arrival, dtype=np.complex128),
        np.ascontiguousarray(paths.gain, dtype=np.complex128),
        block,
        doppler * sample_rate_hz,
        start_s,
    )
    used = np.flatnonzero(lit.any(axis=0))
    heard = np.zeros((groups, got.shape[2], 2, count, LANES), dtype=np.float32)
    if used.size:
        fourier = transform(count)
        passage, ramp = _passage(paths.delay_s[used] * sample_rate_hz, doppler[used], roll_off, count, fourier.order)
        spectrum = packed(samples).swapaxes(0, 1)  # [group stream 2 sample lane]
        spectrum = np.ascontiguousarray(spectrum)
        fourier.forward(spectrum)
        for g in range(groups):
            path = np.flatnonzero(lit[g, used])
            wave = np.zeros((path.size, 2 * count * LANES), dtype=np.float32)
            added(spectrum[g].reshape(streams, -1), sent[g][:, used[path]], wave)
            fourier.turn(wave, passage[path])
            fourier.backward(wave)
            fourier.turn(wave, ramp[path])
            added(wave, got[g][used[path]], heard[g].reshape(got.shape[2], -1))
    return unpacked(np.ascontiguousarray(heard.swapaxes(0, 1)), events)


@njit(cache=True)
def _by_lanes(
    departure: Any, arrival: Any, gain: Any, block: Any, doppler_hz: Any, start_s: Any
) -> Any:  # pragma: no cover - compiled
    # amplitudes of the events of each group of lanes, real parts apart from imaginary ones: [group stream path 2 lane] of what leaves, [group path chain
    # 2 lane] of what comes in, gain and Doppler's phase at the frame's start included; and which paths any event of a group is lit by
    events, paths, streams = departure.shape
    chains = arrival.shape[2]
    groups = -(-events // LANES)
    sent = np.zeros((groups, streams, paths, 2, LANES), np.float32)
    got = np.zeros((groups, paths, chains, 2, LANES), np.float32)
    lit = np.zeros((groups, paths), np.bool_)
    for e in range(events):
        g, j = e // LANES, e % LANES
        for p in range(paths):
            leaves, comes = False, False
            for s in range(streams):
                leaves = leaves or departure[e, p, s] != 0
            turn = 2 * np.pi * doppler_hz[p] * start_s[e]
            weight = gain[block[e], p] * complex(np.cos(turn), np.sin(turn))
            for c in range(chains):
                comes = comes or weight * arrival[e, p, c] != 0
            if leaves and comes:
                lit[g, p] = True
                for s in range(streams):
                    sent[g, s, p, 0, j], sent[g, s, p, 1, j] = departure[e, p, s].real, departure[e, p, s].imag
                for c in range(chains):
                    field = weight * arrival[e, p, c]
                    got[g, p, c, 0, j], got[g, p, c, 1, j] = field.real, field.imag
    return sent, got, lit


@njit(cache=True, error_model="numpy")
def _passage(delay: Any, doppler: Any, roll_off: float, count: int, order: Any) -> Any:  # pragma: no cover - compiled
    # of each path, in units of the sample rate: folded spectrum ``sum_i A(f - i) A(f - i + nu) exp(-j 2 pi (f - i) delay) / count`` in the order of a
    # wave's lines, and the Doppler's turn over the samples
    passage = np.empty((delay.size, count), dtype=np.complex64)
    ramp = np.empty((delay.size, count), dtype=np.complex64)
    reach = int(np.ceil(count * (1 + roll_off) / 2))
    line, late = np.empty(count, dtype=np.complex128), np.empty(2 * reach + 1, dtype=np.complex128)
    turn = np.empty(count, dtype=np.complex128)
    for p in range(delay.size):
        _phasors(delay[p] * reach / count, -delay[p] / count, late)
        line[:] = 0
        flat = int((1 - roll_off) / 2 * count - abs(doppler[p]) * count) - 1
        for k in range(-reach, reach + 1):
            gain = 1.0
            if not -flat < k < flat:
                gain = _root_cosine(k / count, roll_off) * _root_cosine(k / count + doppler[p], roll_off)
            at = k if k >= 0 else k + count
            line[at] += complex(gain * late[reach + k].real, gain * late[reach + k].imag)
        for m in range(count):
            passage[p, m] = complex(line[order[m]].real / count, line[order[m]].imag / count)
        _phasors(0.0, doppler[p], turn)
        ramp[p] = turn
    return passage, ramp


@njit(cache=True, error_model="numpy")
def _phasors(first: float, step: float, out: Any) -> None:  # pragma: no cover - compiled
    # exp(j 2 pi (first + step i)), of every 64th i by its own angle
    near = np.empty(64, dtype=np.complex128)
    for i in range(64):
        angle = 2 * np.pi * step * i
        near[i] = complex(np.cos(angle), np.sin(angle))
    for begin in range(0, out.size, 64):
        angle = 2 * np.pi * (first + step * begin)
        far = complex(np.cos(angle), np.sin(angle))
        for i in range(min(64, out.size - begin)):
            out[begin + i] = far * near[i]


@njit(cache=True, error_model="numpy")
def _root_cosine(f: float, roll_off: float) -> float:  # pragma: no cover - compiled
    # spectrum of the square-root raised cosine, 1 in its flat part, at f in units of the symbol rate
    over = abs(f) - (1 - roll_off) / 2
    if over < 0:
        return 1.0
    if roll_off == 0:
        return np.sqrt(0.5) if over == 0 else 0.0
    return float(np.cos(min(over * (np.pi / (2 * roll_off)), np.pi / 2)))
