"""Rules about what a machine says of itself and what it takes: nameplate, round trip, steps, ranges, refusals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hal.conformance.bench import HALVES, Bench, Broken, Finding, Skipped, changed, gaps, slots_of
from hal.errors import Misuse
from hal.frontend import Beam, HalfSpec
from hal.record import Array

__all__ = ["LAST", "RULES"]

TRIPS = 200
SWEEP = 64  # settings tried in each of two sweeps


def nameplate(bench: Bench) -> Finding:
    """Everything finite, of one shape, and no wire loose."""
    spec, wrong = bench.spec, []
    for name in ("carrier_hz", "transmit_power_w"):
        if not (np.isfinite(getattr(spec, name)) and getattr(spec, name) > 0):
            wrong.append(f"{name} = {getattr(spec, name)}")
    if not spec.noise_figure_db >= 0:
        wrong.append(f"noise_figure_db = {spec.noise_figure_db}")
    for name in ("command_latency_ns", "bus_ns_per_element", "settling_ns", "select_ns"):
        if not getattr(spec, name) >= 0:
            wrong.append(f"{name} = {getattr(spec, name)}")
    for name in HALVES:
        wrong += [f"{name}: {flaw}" for flaw in _half_flaws(bench.half(name))]
    if wrong:
        raise Broken("; ".join(wrong), {"flaws": len(wrong)})
    elements = {half: bench.half(half).network.wired.shape for half in HALVES}
    return Finding(
        f"{spec.name}: " + ", ".join(f"{half} {c} x {n} (chain x element)" for half, (c, n) in elements.items()),
        {f"{half}_elements": shape[1] for half, shape in elements.items()},
    )


def _half_flaws(half: HalfSpec) -> list[str]:
    network, array = half.network, half.array
    elements = network.wired.shape[1]
    flaws = []
    if array.position_m.shape != (elements, 3) or not np.isfinite(array.position_m).all():
        flaws.append(f"positions {array.position_m.shape} for {elements} wired elements")
    if array.columns and array.columns * array.rows != elements:
        flaws.append(f"{array.columns} x {array.rows} grid of {elements} elements")
    if not np.allclose(array.rotation @ array.rotation.T, np.eye(3), atol=1e-9):
        flaws.append("rotation is not one")
    if not network.wired.any(axis=1).all():
        flaws.append(f"chain {int(np.argmin(network.wired.any(axis=1)))} feeds no element")
    if not network.wired.any(axis=0).all():
        flaws.append(f"element {int(np.argmin(network.wired.any(axis=0)))} hangs on no chain")
    low, high = (0, network.lines - 1) if network.lines else (-1, -1)
    if network.line.shape != (elements,) or not np.all((network.line >= low) & (network.line <= high)):
        flaws.append(f"line: must be {low} .. {high} for each element")
    if network.lines and not (np.isfinite(network.delay_range_s) and network.delay_range_s > 0):
        flaws.append(f"delay_range_s = {network.delay_range_s}")
    flaws += [
        f"{name} = {getattr(network, name)}"
        for name in ("phase_bits", "delay_bits", "amplitude_bits")
        if not 0 <= getattr(network, name) <= 24
    ]
    if not network.loss_db >= 0:
        flaws.append(f"loss_db = {network.loss_db}")
    if not half.memory_slots >= 1:
        flaws.append(f"memory_slots = {half.memory_slots}")
    return flaws


def round_trip(bench: Bench) -> Finding:
    """How long a set_beam of one row takes, on the wall's clock."""
    beams = [bench.scattered("transmit", [0], seed) for seed in range(4)]
    took = []
    for k in range(TRIPS):
        begun = time.perf_counter_ns()
        report = bench.frontend.set_beam(beams[k % 4], bench.now_ns)
        took.append(time.perf_counter_ns() - begun)
        bench.now_ns = max(bench.now_ns, report.effective_ns) + 10_000
    p50, p90, p99 = (float(p) * 1e-3 for p in np.percentile(took, [50, 90, 99]))
    numbers = {"p50_us": p50, "p90_us": p90, "p99_us": p99, "limit_us": bench.latency_limit_s * 1e6}
    says = f"set_beam takes {p50:.0f} us in the middle, {p99:.0f} us at the 99th percentile of {TRIPS}"
    if not p99 <= bench.latency_limit_s * 1e6:
        raise Broken(f"{says}; the limit is {bench.latency_limit_s * 1e3:g} ms", numbers)
    return Finding(says, numbers)


def phase_steps(bench: Bench) -> Finding:
    """Phases go to the nearest multiple of 2 pi / 2^bits."""
    return _steps(
        bench,
        "phase_rad",
        lambda half: (half.network.phase_bits, 2 * np.pi / 2**half.network.phase_bits, 2**half.network.phase_bits),
    )


def delay_steps(bench: Bench) -> Finding:
    """Delays go to the nearest b / 2^bits of the range."""
    return _steps(
        bench,
        "delay_s",
        lambda half: (
            half.network.delay_bits,
            half.network.delay_range_s / 2**half.network.delay_bits,
            2**half.network.delay_bits - bool(half.network.delay_bits),
        ),
    )


def amplitude_steps(bench: Bench) -> Finding:
    """Amplitudes go to the nearest k / (2^bits - 1)."""

    def steps(half: HalfSpec) -> tuple[int, float, int]:
        most = 2**half.network.amplitude_bits - 1 if half.network.amplitude_bits else 1
        return half.network.amplitude_bits, 1 / most, most

    return _steps(bench, "amplitude", steps)


def _steps(bench: Bench, field: str, steps: Callable[[HalfSpec], tuple[int, float, int]]) -> Finding:
    """Sweep a setting over a few steps and over all of its range: the step found, and the largest error, against the nameplate."""
    numbers: dict[str, float] = {}
    said = []
    for half in HALVES:
        if field == "delay_s" and not bench.half(half).network.lines:
            continue
        bits, step, count = steps(bench.half(half))
        fine = np.linspace(0, min(count, 8) * step, SWEEP)
        for asked in (fine, np.linspace(0, count * step, SWEEP)):
            got = _swept(bench, half, field, asked)
            off = np.angle(np.exp(1j * (got - asked))) if field == "phase_rad" else got - asked
            worst = float(np.max(np.abs(off)))
            allowed = (step / 2 if bits else 0.0) + 1e-9 * step
            if not worst <= allowed:
                raise Broken(
                    f"{half} {field}: taken up to {worst:.4g} from what was asked; half a step of the nameplate is {step / 2 if bits else 0:.4g}",
                    {"worst": worst, "step": step},
                )
            if asked is fine and bits:
                found = gaps(np.mod(np.round(got / step, 6), count if field == "phase_rad" else np.inf), 1e-4) * step
                if not abs(found - step) <= 1e-4 * step:
                    raise Broken(
                        f"{half} {field}: steps of {found:.6g}; the nameplate says {step:.6g}",
                        {"found": found, "step": step},
                    )
        numbers[f"{half}_step"] = step if bits else 0.0
        numbers[f"{half}_worst"] = worst
        said.append(f"{half} {f'in steps of {step:.4g} ({bits} bit)' if bits else 'continuous'}")
    if not said:
        raise Skipped("this machine has no delay lines")
    return Finding(f"{field}: " + ", ".join(said), numbers)


def _swept(bench: Bench, half: str, field: str, asked: Array) -> Array:
    """The read-back of each asked setting, as many at a time as one row of the half has."""
    network = bench.half(half).network
    places = np.argwhere(np.ones((len(network.wired), network.lines), bool) if field == "delay_s" else network.wired)
    got = np.empty(len(asked))
    for start in range(0, len(asked), len(places)):
        part = asked[start : start + len(places)]
        chain, column = places[: len(part)].T
        beam = bench.beam(half, [0])
        value = getattr(beam, field).copy()
        value[0, chain, column] = part
        got[start : start + len(part)] = getattr(bench.read(replace(beam, **{field: value})), field)[0, chain, column]
    return got


def out_of_range(bench: Bench) -> Finding:
    """What is out of range is clipped and counted, or refused; never silently."""
    ways = {}
    for half in HALVES:
        network = bench.half(half).network
        beam = bench.beam(half, [0])
        clean = bench.load(beam)
        if clean.clipped:
            raise Broken(
                f"{half}: {clean.clipped} settings of a beam within range are reported as clipped",
                {"clipped": clean.clipped},
            )
        amplitude, delay_s = beam.amplitude.copy(), beam.delay_s.copy()
        first, last = np.argwhere(network.wired)[[0, -1]]
        amplitude[0, first[0], first[1]], amplitude[0, last[0], last[1]] = 3.0, -2.0
        wrong = 2 if tuple(first) != tuple(last) else 1
        if network.lines:
            delay_s[0, 0, 0] = 2 * network.delay_range_s
            wrong += 1
        try:
            report = bench.load(replace(beam, amplitude=amplitude, delay_s=delay_s))
        except Misuse:
            ways[half] = "refused"
            continue
        if report.clipped != wrong:
            raise Broken(
                f"{half}: {wrong} settings out of range, {report.clipped} reported as clipped",
                {"sent": wrong, "reported": report.clipped},
            )
        if report.readback is not None:
            _within(half, report.readback, network.delay_range_s)
        ways[half] = "clipped and counted"
    return Finding("; ".join(f"{half} {way}" for half, way in ways.items()))


def _within(half: str, taken: Beam, delay_range_s: float) -> None:
    if not (
        np.all((taken.amplitude >= 0) & (taken.amplitude <= 1))
        and np.all((taken.delay_s >= 0) & (taken.delay_s <= delay_range_s))
    ):
        raise Broken(f"{half}: the read-back of a clipped beam is itself out of range")


def not_finite(bench: Bench) -> Finding:
    """NaN and infinity are refused as misuse, and leave the beam as it was."""
    tried = 0
    for half in HALVES:
        bench.load(bench.scattered(half, [0], 1))
        before = bench.sent([0], [bench.now_ns]) if half == "transmit" else None
        for field in ("phase_rad", "delay_s", "amplitude"):
            for bad in (np.nan, np.inf):
                beam = bench.beam(half, [0])
                value = getattr(beam, field).copy()
                if not value.size:
                    continue
                value[0, -1, -1] = bad
                wrong = replace(beam, **{field: value})
                bench.refused(f"{half} {field} = {bad}", lambda wrong=wrong: bench.load(wrong))
                tried += 1
        bench.now_ns += 1_000_000
        if before is not None and changed(bench.sent([0], [bench.now_ns]), before).any():
            raise Broken("a beam that was refused was taken all the same")
    return Finding(
        f"{tried} beams with one setting not finite, all refused as misuse, the beam in force kept", {"refused": tried}
    )


def shapes(bench: Bench) -> Finding:
    """Settings for another machine's shape are refused as misuse."""
    tried = 0
    for half in HALVES:
        beam = bench.beam(half, [0])
        chains, elements = bench.half(half).network.wired.shape
        wide = np.zeros((1, chains, elements + 1))
        tall = np.zeros((1, chains + 1, elements))
        lines = beam.delay_s.shape[2]
        for what, wrong in {
            f"{elements + 1} of {elements} elements": replace(beam, phase_rad=wide, amplitude=wide),
            f"{chains + 1} of {chains} chains": replace(
                beam, phase_rad=tall, amplitude=tall, delay_s=np.zeros((1, chains + 1, lines))
            ),
            f"{lines + 1} of {lines} delay lines": replace(beam, delay_s=np.zeros((1, chains, lines + 1))),
        }.items():
            bench.refused(f"{half} settings for {what}", lambda wrong=wrong: bench.load(wrong))
            tried += 1
    bench.refused("half = 'sideways'", lambda: bench.load(replace(bench.beam("transmit", [0]), half="sideways")))
    return Finding(f"{tried + 1} beams of a wrong shape or half, all refused as misuse", {"refused": tried + 1})


def slots(bench: Bench) -> Finding:
    """Rows for a slot that is not there, or for one slot twice, are refused; sending through one is refused or dark."""
    for half in HALVES:
        count = bench.half(half).memory_slots
        for wrong in (-1, count):
            bench.refused(
                f"{half} slot {wrong} of {count}", lambda half=half, wrong=wrong: bench.load(bench.beam(half, [wrong]))
            )
        bench.refused(f"{half} slot 0 twice in one load", lambda half=half: bench.load(bench.beam(half, [0, 0])))
    count = bench.spec.transmit.memory_slots
    try:
        leaks = float(np.max(np.abs(bench.sent([count], [bench.now_ns]))))
    except Misuse:
        return Finding(f"slots other than 0 .. {count - 1} are refused")
    if leaks:
        raise Broken(f"an emission through slot {count} of {count} radiates", {"amplitude": leaks})
    return Finding(f"slots other than 0 .. {count - 1} are refused for loading and dark for sending")


def dark(bench: Bench) -> Finding:
    """A slot never loaded radiates nothing."""
    last = slots_of(bench, "transmit", 10**9)[-1]
    try:
        amplitude = float(np.max(np.abs(bench.sent([last], [bench.now_ns]))))
    except Misuse:
        return Finding(f"slot {last}, not loaded yet, is refused")
    if amplitude and not bench.fresh:
        raise Skipped(
            f"slot {last} radiates; whether it was loaded before this session is not known (start the machine anew, and say so)"
        )
    if amplitude:
        raise Broken(f"slot {last} radiates before it was ever loaded", {"amplitude": amplitude})
    return Finding(f"slot {last}, not loaded yet, radiates nothing")


def close(bench: Bench) -> Finding:
    """Closing twice is closing once, and a closed front end says so."""
    bench.frontend.close()
    bench.frontend.close()
    bench.refused("a verb of a closed front end", lambda: bench.sent([0], [bench.now_ns]))
    return Finding("closed twice; a verb after that is misuse")


LAST = {"close": close}
RULES = {
    "nameplate": nameplate,
    "dark": dark,
    "round_trip": round_trip,
    "phase_steps": phase_steps,
    "delay_steps": delay_steps,
    "amplitude_steps": amplitude_steps,
    "out_of_range": out_of_range,
    "not_finite": not_finite,
    "shapes": shapes,
    "slots": slots,
}
