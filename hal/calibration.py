"""Calibration: element errors measured over the air, kept in a file, and taken out of every setting before it is quantised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hal.array import element_amplitude, steering
from hal.errors import Misuse
from hal.frontend import SITE, Beam, BeamReport, Drive, Emission, Frontend, FrontendSpec, Incident, Listen, Reception
from hal.health import Fault, Health
from hal.medium import Paths, beam_gains, wideband
from hal.record import Array, Complex, Float, Int, record
from hal.walk import Noise
from hal.wire import encode

__all__ = [
    "HALVES",
    "Calibrated",
    "Calibration",
    "Errors",
    "Instrument",
    "Probe",
    "Residual",
    "calibrate",
    "fingerprint",
    "load",
    "measure",
    "residual",
    "save",
    "simulated_instrument",
]

VERSION = 1
PROBE = 0  # the probe's number in ``Paths``
HALVES = ("transmit", "receive")


@record
class Errors:
    """One half's elements as they were found: relative complex response of each, 1 where all is as the nameplate says."""

    error: Complex[Array, "chain element"]  # common phase and median amplitude taken out; 1 where not wired
    variance: Float[Array, "chain element"]  # of the estimate, |.|^2; inf where not wired


@record
class Calibration:
    """What was measured of one machine, and the fingerprint of that machine."""

    version: int
    name: str
    fingerprint: str
    transmit: Errors
    receive: Errors


@dataclass(frozen=True)
class Probe:
    """A single antenna in the far field, at a place known in the array frame of both halves, in the clear."""

    point_m: tuple[float, float, float]
    gain: float  # amplitude of the path between unit-gain antennas: wavelength / (4 pi distance) in free space
    power_w: float  # it sends
    noise_figure_db: float = 10.0  # of its receiver
    bandwidth_hz: float = 1e5  # of one measurement: it takes 1 / bandwidth


@dataclass(frozen=True)
class Residual:
    """How far off elements are, and what that costs: the one figure of an array that is out of adjustment."""

    phase_rms_rad: float  # about the common phase; dead elements left out
    gain_rms_db: float
    array_gain_db: float  # below an array of the same elements all in phase
    noise_rad: float  # what of phase_rms_rad the measurement itself brings
    dead: int  # elements that answer less than a tenth of the others


Instrument = Callable[
    [Emission, Paths], Complex[Array, " event"]
]  # what the probe's receiver reads (sqrt(W)), noise included


def simulated_instrument(probe: Probe, spec: FrontendSpec, noise: Noise) -> Instrument:
    """The probe's receiver on a simulated machine's air."""
    from hal.chain import thermal_noise_w

    noise_w = thermal_noise_w(probe.bandwidth_hz, probe.noise_figure_db)

    def read(emission: Emission, paths: Paths) -> Complex[Array, " event"]:
        drive = emission.drive
        gains = beam_gains(paths, spec.transmit.array, emission.response, drive.frequency_hz, "departure")
        none = np.zeros(len(drive.t_ns), np.int64)
        channel = wideband(paths, gains, drive.frequency_hz, emission.row, none, none + PROBE)[:, 0]
        sent = (channel[:, :, None] * drive.digital).sum(axis=(1, 2)) * np.sqrt(drive.power_w[:, 0])
        return np.asarray(sent + np.sqrt(noise_w) * noise("probe", drive.t_ns, (1,))[:, 0])

    return read


def measure(
    frontend: Frontend, half: str, probe: Probe, instrument: Instrument, at_ns: int, repeats: int = 1
) -> tuple[Errors, int]:
    """Every element's complex error as seen from the probe, and when the measurement was over.

    All elements radiate at once, coded: in measurement k element n has phase ``0`` or ``pi`` by the sign of the Hadamard matrix, which every
    phase shifter of at least a bit sets exactly. ``e_n = (1/K) sum_k H_kn y_k / x_n`` with ``x_n`` what the nameplate says one element brings, so
    ``var e_n = noise / (K |x_n|^2)``: all K measurements count for each element, which is K times (K the next power of two above the number
    of elements, times ``repeats``) less than turning elements one by one (S. Silverstein, IEEE Trans. Signal Process. 45(1), 1997).
    Holds at the carrier; delay lines stand at 0. Uses every slot of the half's beam memory. Raises Misuse for less than one phase bit allows.
    """
    from scipy.linalg import hadamard

    spec: FrontendSpec = frontend.spec
    here = getattr(spec, half)
    chains, elements = here.network.wired.shape
    codes = 1 << max(int(elements - 1).bit_length(), 1)
    sign = hadamard(codes)[:, :elements]
    paths = _one_path(probe, spec, half)
    direction = np.array(probe.point_m) / np.linalg.norm(probe.point_m)
    each_ns = round(1e9 / probe.bandwidth_hz)
    total = np.zeros((chains, elements), np.complex128)
    power_w = spec.transmit_power_w if half == "transmit" else probe.power_w
    noise_w = 0.0
    for _ in range(repeats):
        for first in range(0, codes, here.memory_slots):
            rows = np.arange(first, min(first + here.memory_slots, codes))
            report = frontend.set_beam(_coded(half, here, sign[rows]), at_ns)
            slot, at_ns = np.arange(len(rows)), report.effective_ns
            if half == "transmit":
                for chain in range(chains):
                    t_ns = at_ns + (each_ns + spec.select_ns) * (1 + slot)
                    emission = frontend.emit(_tone(spec, t_ns, slot, chain, power_w))
                    total[chain] += (sign[rows] * instrument(emission, paths)[:, None]).sum(axis=0)
                    at_ns = int(t_ns[-1])
                continue
            t_ns = at_ns + (each_ns + spec.select_ns) * (1 + slot)
            heard = frontend.receive(
                [(_beacon(spec, t_ns, power_w), paths)], Listen(t_ns=t_ns, slot=slot, bandwidth_hz=probe.bandwidth_hz)
            )
            noise_w, at_ns = heard.noise_w, int(t_ns[-1])
            total += np.einsum("kn,kc->cn", sign[rows], heard.samples[:, :, 0])
    count = codes * repeats
    wave = steering(here.array, direction, np.float64(spec.carrier_hz))
    share = here.network.wired / np.sqrt(np.maximum(here.network.wired.sum(axis=1, keepdims=True), 1))
    expected = probe.gain * np.sqrt(power_w) * element_amplitude(here.array, direction) * wave * share
    if half == "transmit":
        from hal.chain import thermal_noise_w

        noise_w = thermal_noise_w(probe.bandwidth_hz, probe.noise_figure_db)
    wired = here.network.wired
    found = np.where(wired, total / count / np.where(wired, expected, 1.0), 1.0)
    variance = np.where(wired, noise_w / count / np.where(wired, np.abs(expected), 1.0) ** 2, np.inf)
    common = np.median(np.abs(found[wired])) * np.exp(1j * np.angle(found[wired].sum()))
    if not np.abs(common) > 0:
        raise Misuse(f"{half}: the probe hears nothing; is the half switched on, and the probe in front of it?")
    return Errors(error=np.where(wired, found / common, 1.0), variance=variance / abs(common) ** 2), at_ns


def _one_path(probe: Probe, spec: FrontendSpec, half: str) -> Paths:
    point = np.array([probe.point_m])
    ends = (SITE, PROBE) if half == "transmit" else (PROBE, SITE)
    return Paths(
        carrier_hz=spec.carrier_hz,
        t_ns=np.array([-(2**62)]),
        source=np.array(ends[:1]),
        sink=np.array(ends[1:]),
        gain=np.array([[probe.gain + 0j]]),
        delay_s=np.zeros(1),
        doppler_hz=np.zeros(1),
        departure_m=point,
        arrival_m=point,
    )


def _coded(half: str, here: Any, sign: Int[Array, "code element"]) -> Beam:
    rows, (chains, elements) = len(sign), here.network.wired.shape
    shape = (rows, chains, elements)
    return Beam(
        half=half,
        slot=np.arange(rows),
        delay_s=np.zeros((rows, chains, here.network.lines)),
        phase_rad=np.ascontiguousarray(np.broadcast_to(np.where(sign > 0, 0.0, np.pi)[:, None], shape)),
        amplitude=np.ascontiguousarray(np.broadcast_to(here.network.wired * 1.0, shape)),
    )


def _tone(
    spec: FrontendSpec, t_ns: Int[Array, " event"], slot: Int[Array, " event"], chain: int, power_w: float
) -> Drive:
    digital = np.zeros((len(t_ns), len(spec.transmit.network.wired), 1), np.complex128)
    digital[:, chain] = 1.0
    return Drive(
        t_ns=t_ns,
        slot=slot,
        frequency_hz=np.array([spec.carrier_hz]),
        power_w=np.full((len(t_ns), 1), power_w),
        digital=digital,
    )


def _beacon(spec: FrontendSpec, t_ns: Int[Array, " event"], power_w: float) -> Emission:
    none = np.zeros(len(t_ns), np.int64)
    drive = Drive(
        t_ns=t_ns,
        slot=none,
        frequency_hz=np.array([spec.carrier_hz]),
        power_w=np.full((len(t_ns), 1), power_w),
        digital=np.ones((len(t_ns), 1, 1), np.complex128),
    )
    return Emission(source=none + PROBE, drive=drive, row=none, response=np.ones((1, 1, 1, 1), np.complex128))


def calibrate(
    frontend: Frontend, probe: Probe, instrument: Instrument, at_ns: int = 0, repeats: int = 1
) -> tuple[Calibration, int]:
    """Both halves measured, one after the other; and when that was over."""
    found = {}
    for half in HALVES:
        found[half], at_ns = measure(frontend, half, probe, instrument, at_ns, repeats)
    spec = frontend.spec
    return Calibration(version=VERSION, name=spec.name, fingerprint=fingerprint(spec), **found), at_ns


def residual(errors: Errors) -> Residual:
    """What the errors of a half amount to, on average over its chains."""
    wired = np.isfinite(errors.variance)
    error = errors.error[wired]
    alive = _alive(errors)[wired]
    live = error[alive]
    phase = np.angle(live * np.conj(live.sum()))
    level_db = 20 * np.log10(np.abs(live))
    chains = [row[on] for row, on in zip(errors.error, wired, strict=True)]
    kept = np.mean([np.abs(row.sum()) ** 2 / max(np.abs(row).sum() ** 2, 1e-300) for row in chains])
    noise = errors.variance[wired][alive] / 2 / np.abs(live) ** 2
    return Residual(
        phase_rms_rad=float(np.sqrt(np.mean(phase**2))),
        gain_rms_db=float(np.std(level_db)),
        array_gain_db=float(min(10 * np.log10(kept), 0.0)),
        noise_rad=float(np.sqrt(np.mean(noise))),
        dead=int(np.count_nonzero(~alive)),
    )


def _alive(errors: Errors) -> Array:
    return np.asarray(
        (np.abs(errors.error) > 0.1)
        & (np.abs(errors.error) ** 2 > 4 * np.where(np.isinf(errors.variance), 0, errors.variance))
    )


def fingerprint(spec: FrontendSpec) -> str:
    """What identifies a machine whose errors were measured: its name, carrier, geometry and wiring; not where it stands."""
    digest = hashlib.sha256(f"{spec.name}\0{spec.carrier_hz!r}\0".encode())
    for half in HALVES:
        here = getattr(spec, half)
        still = replace(here, array=replace(here.array, rotation=np.eye(3), origin_m=np.zeros(3)))
        digest.update(encode(still))
    return digest.hexdigest()


def save(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as JSON or npz, by the file's suffix."""
    path = Path(path)
    head = {name: getattr(calibration, name) for name in ("version", "name", "fingerprint")}
    arrays = {
        f"{half}_{part}": value
        for half in HALVES
        for part, value in (
            ("error_re", getattr(calibration, half).error.real),
            ("error_im", getattr(calibration, half).error.imag),
            ("variance", getattr(calibration, half).variance),
        )
    }
    if path.suffix == ".npz":
        np.savez(path, **{name: np.array(value) for name, value in head.items()}, **arrays)  # type: ignore[arg-type]
    elif path.suffix == ".json":
        path.write_text(
            json.dumps({**head, **{name: value.tolist() for name, value in arrays.items()}}), encoding="utf-8"
        )
    else:
        raise Misuse(f"{path}: a calibration is written as .json or .npz")


def load(path: str | Path, spec: FrontendSpec) -> Calibration:
    """Read a calibration of the machine with this nameplate.

    Raises Misuse for a file that cannot be read, of another version, of another machine, or of other shapes than the machine's.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found: dict[str, Any] = {name: file[name] for name in file.files}
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
        version = int(found["version"])
        if version != VERSION:
            raise Misuse(f"{path}: is of version {version}, this reads version {VERSION}; measure again")
        halves = {
            half: Errors(
                error=np.array(found[f"{half}_error_re"]) + 1j * np.array(found[f"{half}_error_im"]),
                variance=np.array(found[f"{half}_variance"], dtype=np.float64),
            )
            for half in HALVES
        }
        calibration = Calibration(
            version=version, name=str(found["name"]), fingerprint=str(found["fingerprint"]), **halves
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, Misuse):
            raise
        raise Misuse(f"{path}: cannot be read as a calibration: {type(error).__name__}: {error}") from None
    return _fitting(calibration, spec, str(path))


def _fitting(calibration: Calibration, spec: FrontendSpec, what: str) -> Calibration:
    mine = fingerprint(spec)
    if calibration.fingerprint != mine:
        raise Misuse(
            f"{what}: is of {calibration.name!r} {calibration.fingerprint[:12]}, this machine is {spec.name!r} {mine[:12]}; "
            "geometry, wiring, carrier and name must be those it was measured with; measure again"
        )
    for half in HALVES:
        errors, wired = getattr(calibration, half), getattr(spec, half).network.wired
        if (
            errors.error.shape != wired.shape
            or errors.variance.shape != wired.shape
            or not np.all(np.isfinite(errors.error))
        ):
            raise Misuse(f"{what}: {half} errors have shape {errors.error.shape}, must be {wired.shape} and finite")
    return calibration


class Calibrated:
    """A front end whose settings are corrected on their way in, and whose read-back is told in terms of the corrected array.

    Every phase has its element's measured phase error taken off before the machine quantises it; elements that were found dead are left as
    they are. With ``equalise`` amplitudes are brought down to the weakest live element's too: lower side lobes for less gain. The correction
    holds at the carrier. The fault ``calibration_lost`` stops it for what is loaded meanwhile.
    """

    def __init__(self, frontend: Frontend, calibration: Calibration, equalise: bool = False) -> None:
        self.spec = frontend.spec
        self.inner = frontend
        self.calibration = _fitting(calibration, frontend.spec, "calibration")
        self._turn: dict[str, Array] = {}
        self._scale: dict[str, Array] = {}
        self._seen: dict[str, Array] = {}
        self._lost = Health()
        for half in HALVES:
            errors: Errors = getattr(calibration, half)
            size, alive = np.abs(errors.error), _alive(errors)
            self._turn[half] = np.where(alive, np.angle(errors.error), 0.0)
            weakest = size[alive & np.isfinite(errors.variance)].min(initial=np.inf)
            self._scale[half] = (
                np.where(alive, np.minimum(weakest / np.where(size > 0, size, 1.0), 1.0), 1.0)
                if equalise
                else np.ones(size.shape)
            )
            self._seen[half] = np.minimum(size, 1.0)

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load and latch the corrected rows; the report's setpoint is what was asked for."""
        lost = [fault for fault in self._lost.at(at_ns) if fault.half == beam.half]
        if lost:
            report = self.inner.set_beam(beam, at_ns)
            return replace(report, fault="; ".join([*([report.fault] if report.fault else []), *map(str, lost)]))
        turn = self._turn.get(beam.half)
        if turn is None or np.shape(beam.phase_rad)[1:] != turn.shape:
            return self.inner.set_beam(beam, at_ns)  # which says what is wrong with it
        corrected = replace(beam, phase_rad=beam.phase_rad - turn, amplitude=beam.amplitude * self._scale[beam.half])
        report = self.inner.set_beam(corrected, at_ns)
        taken = report.readback
        if taken is not None:
            phase_rad = np.mod(taken.phase_rad + turn, 2 * np.pi)
            taken = replace(taken, phase_rad=phase_rad, amplitude=taken.amplitude * self._seen[beam.half])
        return replace(report, setpoint=beam, readback=taken)

    def emit(self, drive: Drive) -> Emission:
        """Send."""
        return self.inner.emit(drive)

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Receive."""
        return self.inner.receive(incident, listen)

    def inject(self, fault: Fault, at_ns: int) -> None:
        """Break something from ``at_ns`` on: ``calibration_lost`` here, anything else in the machine."""
        if fault.kind == "calibration_lost":
            self._lost.inject(fault, at_ns)
        else:
            self.inner.inject(fault, at_ns)  # type: ignore[attr-defined]

    def clear(self, fault: Fault | None, at_ns: int) -> None:
        """Mend it (None: everything) from ``at_ns`` on."""
        if fault is None or fault.kind == "calibration_lost":
            self._lost.clear(fault, at_ns)
        if fault is None or fault.kind != "calibration_lost":
            self.inner.clear(fault, at_ns)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the machine."""
        self.inner.close()
