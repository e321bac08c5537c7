"""Rules about beams in time and on the air: when they come into force, what they are then, and what is heard."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from hal.chain import thermal_noise_w
from hal.conformance.bench import GAP_NS, HALVES, Bench, Broken, Finding, Skipped, at, changed, slots_of, spread
from hal.errors import Misuse
from hal.frontend import SITE, Beam, Drive, Emission, Listen
from hal.medium import Paths, beam_gains
from hal.network import quantise, response
from hal.record import Array
from hal.wire import encode

__all__ = ["RULES"]

EVENTS, SAMPLES = 64, 128  # of the noise measurement


def causality(bench: Bench) -> Finding:
    """No beam is accepted before it is commanded, or in force before the command's latency is over."""
    least = np.inf
    for half in HALVES:
        begun = bench.now_ns
        report = bench.load(bench.scattered(half, [0], 2))
        if not report.accepted_ns >= begun:
            raise Broken(
                f"{half}: accepted {begun - report.accepted_ns} ns before it was commanded",
                {"early_ns": begun - report.accepted_ns},
            )
        wait_ns = report.effective_ns + report.uncertainty_ns - report.accepted_ns
        if not wait_ns >= bench.spec.command_latency_ns:
            raise Broken(
                f"{half}: in force {wait_ns} ns after it was accepted; the command alone takes {bench.spec.command_latency_ns} ns",
                {"wait_ns": wait_ns, "latency_ns": bench.spec.command_latency_ns},
            )
        least = min(least, wait_ns)
    return Finding(f"beams are in force {least:.0f} ns or more after the command", {"least_ns": least})


def settling(bench: Bench) -> Finding:
    """A beam is said to be in force no earlier than latency, bus and settling time after the command."""
    spec = bench.spec
    numbers: dict[str, float] = {}
    for half in HALVES:
        begun = bench.now_ns
        report = bench.load(bench.scattered(half, [0], 3))
        took = report.effective_ns + report.uncertainty_ns - begun
        least = spec.command_latency_ns + bench.settings(half, 1) * spec.bus_ns_per_element + spec.settling_ns
        if not took >= least:
            raise Broken(
                f"{half}: settled after {took} ns; the nameplate's latency, bus and settling add up to {least} ns",
                {"took_ns": took, "least_ns": least},
            )
        numbers |= {f"{half}_took_ns": took, f"{half}_least_ns": least}
    return Finding(
        "settled "
        + ", ".join(f"{numbers[f'{h}_took_ns']:.0f} ns ({h})" for h in HALVES)
        + " after the command, as the nameplate adds up",
        numbers,
    )


def bus_time(bench: Bench) -> Finding:
    """More rows take longer, by the nameplate's time a setting."""
    spec, numbers = bench.spec, {}
    for half in HALVES:
        rows = [n for n in (1, 2, 4, 8) if n <= bench.half(half).memory_slots]
        took = []
        for n in rows:
            begun = bench.now_ns
            report = bench.load(bench.scattered(half, list(range(n)), n))
            took.append(report.effective_ns - begun)
        if any(b < a for a, b in pairwise(took)):
            raise Broken(
                f"{half}: loads of {rows} rows take {took} ns; more rows cannot take less time", {"rows": len(rows)}
            )
        if len(rows) > 1:
            slope = (took[-1] - took[0]) / (bench.settings(half, rows[-1]) - bench.settings(half, rows[0]))
            slack = (
                0.1 * spec.bus_ns_per_element
                + 2 * report.uncertainty_ns / bench.settings(half, rows[-1] - rows[0])
                + 0.01
            )
            numbers[f"{half}_ns_per_setting"] = slope
            if not abs(slope - spec.bus_ns_per_element) <= slack:
                raise Broken(
                    f"{half}: {slope:.3g} ns a setting; the nameplate says {spec.bus_ns_per_element}",
                    {"found_ns": slope},
                )
    said = ", ".join(f"{value:.3g} ns a setting ({name.partition('_')[0]})" for name, value in numbers.items())
    return Finding(f"{said or 'one slot only'}; the nameplate says {spec.bus_ns_per_element}", numbers)


def busy(bench: Bench) -> Finding:
    """A second load waits for the bus: it is in force no earlier than its own loading after the first one's."""
    spec, numbers = bench.spec, {}
    for half in HALVES:
        begun = bench.now_ns
        first = bench.frontend.set_beam(bench.scattered(half, [0], 4), begun)
        try:
            second = bench.load(bench.scattered(half, [0], 5), begun)
        except Misuse:
            numbers[f"{half}_wait_ns"] = float("inf")
            bench.now_ns = first.effective_ns + GAP_NS
            continue
        wait = second.effective_ns - first.effective_ns
        least = bench.settings(half, 1) * spec.bus_ns_per_element - first.uncertainty_ns - second.uncertainty_ns
        numbers[f"{half}_wait_ns"] = wait
        if not wait >= least:
            raise Broken(
                f"{half}: a load while the bus is busy is in force {wait} ns after the one before; loading it takes {least} ns",
                {"wait_ns": wait, "least_ns": least},
            )
    return Finding(
        ", ".join(
            f"{half} {'refused' if np.isinf(n) else f'{n:.0f} ns later'}"
            for half, n in zip(HALVES, numbers.values(), strict=True)
        ),
        numbers,
    )


def time_order(bench: Bench) -> Finding:
    """A command that carries an earlier time than the last is refused, or is in force no earlier than what it would undo."""
    bench.now_ns += 1_000_000
    first = bench.load(bench.scattered("transmit", [0], 6))
    try:
        late = bench.load(bench.scattered("transmit", [0], 7), first.accepted_ns - 500_000)
    except Misuse:
        return Finding("a command from the past is refused")
    if not late.effective_ns >= first.effective_ns - first.uncertainty_ns - late.uncertainty_ns:
        raise Broken(
            f"a command from the past is in force {first.effective_ns - late.effective_ns} ns before the beam that was set already"
        )
    return Finding(
        f"a command from the past is in force {late.effective_ns - first.effective_ns} ns after the beam that was set already"
    )


def _opposed(bench: Bench, slots: list[int]) -> tuple[Beam, Beam]:
    """Two beams that no element has in common."""
    return bench.beam("transmit", slots), bench.beam("transmit", slots, phase_rad=np.pi)


def meanwhile(bench: Bench) -> Finding:
    """While rows load, the old ones stay in force."""
    slots = slots_of(bench, "transmit", 4)
    old, new = _opposed(bench, slots)
    bench.load(old)
    begun = bench.now_ns
    report = bench.load(new)
    until = report.effective_ns - report.uncertainty_ns - 1
    t_ns = np.unique(np.linspace(begun, until, 12).astype(np.int64))
    emitted = bench.sent(np.tile(slots, len(t_ns)), np.repeat(t_ns, len(slots)))
    off = changed(emitted, np.tile(emitted[: len(slots)], (len(t_ns), 1, 1, 1)))
    if off.any():
        event = int(np.argmax(off.any(axis=1)))
        raise Broken(
            f"{int(off[event].sum())} elements of slot {slots[event % len(slots)]} had left the old beam "
            f"{until + 1 - t_ns[event // len(slots)]} ns before the new one was in force",
            {"elements": int(off[event].sum())},
        )
    return Finding(
        f"{len(slots)} slots keep the old beam through {until + 1 - begun} ns of loading, at {len(t_ns)} instants",
        {"loading_ns": until + 1 - begun},
    )


def latch(bench: Bench) -> Finding:
    """All elements of all rows of a load change at ``effective_ns``: none has the new beam one ns before, and none lacks it then."""
    slots = slots_of(bench, "transmit", 4)
    old, new = _opposed(bench, slots)
    bench.load(old)
    was = bench.sent(slots, [bench.now_ns] * len(slots))
    report = bench.load(new)
    edge, tells = report.effective_ns, report.uncertainty_ns
    late_ns = bench.now_ns + 10_000_000
    bench.now_ns = late_ns
    emitted = bench.sent(slots * 3, np.repeat([edge - tells - 1, edge + tells, late_ns], len(slots)))
    before, after, settled = np.split(emitted, 3)
    moves = changed(was, settled)  # an element that is stuck has no instant of change
    if not moves.any():
        raise Broken("a beam opposed to the last one changes no element at all")
    early, missing = int((moves & ~changed(before, settled)).sum()), int((moves & changed(after, settled)).sum())
    numbers = {
        "elements": before.shape[0] * before.shape[2],
        "early": early,
        "missing": missing,
        "uncertainty_ns": tells,
    }
    if early or missing:
        raise Broken(
            f"of {numbers['elements']} elements, {early} had the new beam before it was in force and {missing} did not have it then",
            numbers,
        )
    return Finding(
        f"{numbers['elements']} elements of {len(slots)} slots change together, within {2 * tells + 1} ns", numbers
    )


def select(bench: Bench) -> Finding:
    """Another slot is in force ``select_ns`` after an event through the last one; sooner it is the old beam or the new one, never a mixture."""
    if bench.spec.transmit.memory_slots < 2:
        raise Skipped("one slot only")
    wait_ns, soonest = bench.spec.select_ns, np.inf
    old, new = _opposed(bench, [0])
    bench.load(old)
    bench.load(replace(new, slot=np.ones(1, np.int64)))
    before = bench.sent([0], [bench.now_ns])[0]
    bench.now_ns += 1_000_000
    after = bench.sent([1], [bench.now_ns])[0]
    for gap in sorted({1, max(wait_ns // 4, 1), max(wait_ns // 2, 1), max(wait_ns - 1, 1), max(wait_ns, 1)}):
        bench.now_ns += 1_000_000
        try:
            found = bench.sent([0, 1], [bench.now_ns, bench.now_ns + gap])[1]
        except Misuse:
            if gap >= wait_ns:
                raise Broken(
                    f"another slot {gap} ns after the last is refused; the nameplate says {wait_ns} ns", {"gap_ns": gap}
                ) from None
            continue
        old_now, new_now = (not changed(found, one).any() for one in (before, after))
        if not (old_now or new_now):
            count = int(changed(found, after).sum())
            raise Broken(
                f"{gap} ns after an event through another slot {count} elements still have its beam and the others not",
                {"gap_ns": gap, "elements": count},
            )
        if gap >= wait_ns and not new_now:
            raise Broken(
                f"another slot is not in force {gap} ns after the last; the nameplate says {wait_ns} ns",
                {"gap_ns": gap},
            )
        soonest = min(soonest, gap if new_now else np.inf)
    return Finding(
        f"another slot is in force {soonest:.0f} ns after the last; the nameplate says {wait_ns} ns",
        {"soonest_ns": soonest},
    )


def memory(bench: Bench) -> Finding:
    """Every slot holds its own beam, whatever is loaded to the others."""
    slots = slots_of(bench, "transmit", 256)
    for start in range(0, len(slots), 16):
        bench.load(bench.scattered("transmit", slots[start : start + 16], start))
    first = bench.sent(slots, [bench.now_ns] * len(slots))
    beam = first.reshape(len(slots), -1)
    norm = np.linalg.norm(beam, axis=1)
    if not np.all(norm > 0):
        raise Broken(
            f"{int((norm == 0).sum())} of {len(slots)} slots are dark after loading", {"dark": int((norm == 0).sum())}
        )
    apart = np.add.outer(norm**2, norm**2) - 2 * (beam.conj() @ beam.T).real
    alike = np.argwhere(np.triu(apart <= 1e-12 * np.outer(norm, norm), 1))
    if len(alike):
        raise Broken(
            f"slots {slots[alike[0, 0]]} and {slots[alike[0, 1]]} were loaded with two beams and send one",
            {"alike": len(alike)},
        )
    last = slots[-1]
    bench.load(bench.scattered("transmit", [last], 999))
    bench.now_ns += 1_000_000
    again = bench.sent(slots, [bench.now_ns] * len(slots))
    moved = [slot for slot in slots if changed(again[slot], first[slot]).any()]
    if moved != [last]:
        raise Broken(f"slot {last} was loaded anew; the slots that changed are {moved[:8]}", {"changed": len(moved)})
    return Finding(
        f"{len(slots)} slots loaded, each holds its own beam, and loading one leaves the others", {"slots": len(slots)}
    )


def _law(bench: Bench, taken: Beam, drive: Drive) -> Array:
    """What the nameplate's network makes of these settings: ``[slot subcarrier element chain]``."""
    out: Array = response(
        bench.spec.transmit.network, taken.delay_s, taken.phase_rad, taken.amplitude, drive.frequency_hz
    )
    return out


def readback(bench: Bench) -> Finding:
    """What is radiated is what the report says was taken, element by element, up to a common scale (that is the rule ``power``)."""
    slots, worst = slots_of(bench, "transmit", 4), 0.0
    network = bench.spec.transmit.network
    for seed in range(3):
        report = bench.load(bench.scattered("transmit", slots, 20 + seed))
        told = report.readback
        if told is None:
            delay_s, phase_rad, amplitude, _ = quantise(
                network, report.setpoint.delay_s, report.setpoint.phase_rad, report.setpoint.amplitude
            )
            told = replace(report.setpoint, delay_s=delay_s, phase_rad=phase_rad, amplitude=amplitude)
        drive = bench.drive(slots, [bench.now_ns] * len(slots))
        found, want = spread(bench.frontend.emit(drive)), _law(bench, told, drive)
        on = np.abs(want) > 0
        scale = float(np.median(np.abs(found[on]) / np.abs(want[on])))  # one wrong element must not blame the others
        off = np.abs(found - scale * want) / (abs(scale) * np.max(np.abs(want)) + 1e-300)
        worst = max(worst, float(off.max()))
        if not worst <= 1e-6:
            wrong = int((off > 1e-6).any(axis=(1, 3)).sum())
            source = "was read back" if report.readback is not None else "the nameplate makes of the setpoint"
            raise Broken(
                f"{wrong} of {off.shape[0] * off.shape[2]} elements radiate something else than {source} (off by {worst:.3g} of full amplitude)",
                {"worst": worst, "elements": wrong},
            )
    return Finding(
        f"what is radiated is what was {'read back' if report.readback else 'set'}, to {worst:.1e} of full amplitude",
        {"worst": worst},
    )


def power(bench: Bench) -> Finding:
    """Each chain's response has norm ``10^(-loss/20)`` with all on, and amplitude a scales its power by a^2."""
    network = bench.spec.transmit.network
    loss = 10 ** (-network.loss_db / 10)
    numbers = {}
    for amplitude in (1.0, 1 / 3):
        report = bench.load(bench.beam("transmit", [0], amplitude=amplitude))
        taken = amplitude if report.readback is None else report.readback.amplitude[0]
        want = loss * (network.wired * np.square(taken)).sum(axis=1) / network.wired.sum(axis=1)
        found = np.sum(np.abs(bench.sent([0], [bench.now_ns])[0]) ** 2, axis=1)
        numbers[f"norm2_at_{amplitude:.2g}"] = float(found.mean())
        if report.readback is None and network.amplitude_bits:
            continue
        off = float(np.max(np.abs(found - want)))
        if not off <= 1e-6:
            raise Broken(
                f"a chain radiates {float(found.flat[0]):.6g} of its power at amplitude {amplitude:.3g}; the law is {float(np.mean(want)):.6g}",
                numbers,
            )
    return Finding(
        f"a chain radiates {numbers['norm2_at_1']:.6f} of its power with all on, {numbers['norm2_at_0.33']:.6f} at a third of the amplitude",
        numbers,
    )


def determinism(bench: Bench) -> Finding:
    """The same drive twice is the same emission, bit by bit."""
    slots = slots_of(bench, "transmit", 2)
    bench.load(bench.scattered("transmit", slots, 30))
    drive = bench.drive(slots, [bench.now_ns] * len(slots))
    one, two = (bench.frontend.emit(drive) for _ in range(2))
    if encode(one) != encode(two):
        off = float(np.max(np.abs(spread(one) - spread(two))))
        raise Broken(f"the same drive twice gives two emissions, {off:.3g} apart", {"apart": off})
    return Finding(f"the same drive twice is the same emission, {len(encode(one))} bytes", {"bytes": len(encode(one))})


def _frame(bench: Bench, events: int, samples: int, power_w: float, source: bool) -> Drive:
    """Frames of a constant, from a source on its own or from the machine."""
    chains = 1 if source else len(bench.spec.transmit.network.wired)
    return Drive(
        t_ns=at([bench.now_ns + 20_000 * k for k in range(events)]),
        slot=np.zeros(events, dtype=np.int64),
        frequency_hz=np.array([bench.spec.carrier_hz]),
        power_w=np.full((events, 1), power_w),
        digital=np.full((events, chains, 1), chains**-0.5, dtype=np.complex128),
        samples=np.ones((events, 1, samples), dtype=np.complex128),
        sample_rate_hz=64e6,
    )


def _paths(bench: Bench, t_ns: int, source: list[int], sink: list[int], gain: Any, point_m: Any) -> Paths:
    return Paths(
        carrier_hz=bench.spec.carrier_hz,
        t_ns=at([t_ns]),
        source=at(source),
        sink=at(sink),
        gain=np.full((1, len(source)), gain, dtype=np.complex128),
        delay_s=np.zeros(len(source)),
        doppler_hz=np.zeros(len(source)),
        departure_m=np.array(point_m, dtype=np.float64).reshape(-1, 3),
        arrival_m=np.array(point_m, dtype=np.float64).reshape(-1, 3),
    )


def reception(bench: Bench) -> Finding:
    """A strong plane wave comes out of each chain as ``response^T a``, with the receive settings that were read back."""
    spec = bench.spec
    if not spec.simulated:
        raise Skipped("this machine hears real air, and is not told what arrives")
    report = bench.load(bench.scattered("receive", [0], 40))
    if report.readback is None:
        raise Skipped("this machine has no read-back")
    drive = _frame(bench, 2, 32, 1.0, source=True)
    there = Emission(
        source=np.zeros(2, dtype=np.int64),
        drive=drive,
        row=np.zeros(2, dtype=np.int64),
        response=np.ones((1, 1, 1, 1), dtype=np.complex128),
    )
    paths = _paths(bench, bench.now_ns, [0], [SITE], 1e-3, [[100.0, 20.0, -10.0]])
    bench.now_ns += 1_000_000
    heard = bench.frontend.receive([(there, paths)], Listen(t_ns=drive.t_ns, slot=drive.slot, bandwidth_hz=64e6))
    taken = report.readback
    told = np.asarray(
        response(spec.receive.network, taken.delay_s, taken.phase_rad, taken.amplitude, drive.frequency_hz)
    )
    want = 1e-3 * beam_gains(paths, spec.receive.array, told, drive.frequency_hz, "arrival")[0, 0, 0]
    off = float(np.max(np.abs(heard.samples.mean(axis=(0, 2)) - want)) / np.max(np.abs(want)))
    if not off <= 1e-2:
        raise Broken(
            f"a plane wave leaves the chains {off:.3g} off from what the settings read back make of it", {"off": off}
        )
    return Finding(f"a plane wave leaves {len(want)} chains as the settings read back say, to {off:.1e}", {"off": off})


def noise(bench: Bench) -> Finding:
    """With nothing to hear, each chain's samples have the power k T B F, within five standard errors."""
    spec = bench.spec
    bench.load(bench.beam("receive", [0]))
    drive = _frame(bench, EVENTS, SAMPLES, 0.0, source=False)
    bench.load(bench.beam("transmit", [0]))
    drive = replace(drive, t_ns=drive.t_ns + bench.now_ns - drive.t_ns[0])
    silence = bench.frontend.emit(drive)
    listen = Listen(t_ns=drive.t_ns, slot=drive.slot, bandwidth_hz=64e6)
    heard = bench.frontend.receive([(silence, _paths(bench, bench.now_ns, [], [], 1.0, []))], listen)
    bench.now_ns = int(drive.t_ns[-1]) + 1_000_000
    stated, lawful = heard.noise_w, thermal_noise_w(64e6, spec.noise_figure_db)
    samples = heard.samples[:, 0].ravel()
    measured, error = float(np.mean(np.abs(samples) ** 2)), 5 / np.sqrt(samples.size)
    numbers = {
        "measured_over_ktbf_db": 10 * np.log10(max(measured, 1e-300) / lawful),
        "stated_over_ktbf_db": 10 * np.log10(max(stated, 1e-300) / lawful),
        "samples": samples.size,
    }
    too_high = spec.simulated and measured > lawful * (1 + error)
    if measured < lawful * (1 - error) or too_high:
        raise Broken(
            f"{samples.size} samples of silence have {numbers['measured_over_ktbf_db']:+.2f} dB of k T B F; "
            f"five standard errors are {10 * np.log10(1 + error):.2f} dB",
            numbers,
        )
    if not abs(stated / lawful - 1) <= 1e-6:
        raise Broken(
            f"the noise stated is {numbers['stated_over_ktbf_db']:+.3f} dB of the nameplate's k T B F", numbers
        )
    return Finding(
        f"{samples.size} samples of silence have {numbers['measured_over_ktbf_db']:+.2f} dB of k T B F ({10 * np.log10(lawful * 1e3):.1f} dBm)",
        numbers,
    )


RULES = {
    "causality": causality,
    "settling": settling,
    "bus_time": bus_time,
    "busy": busy,
    "time_order": time_order,
    "meanwhile": meanwhile,
    "latch": latch,
    "select": select,
    "memory": memory,
    "readback": readback,
    "power": power,
    "determinism": determinism,
    "reception": reception,
    "noise": noise,
}
