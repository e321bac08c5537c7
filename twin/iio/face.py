"""A scenario seen through IIO: two boards of ADAR1000 chips, a receiver that hears the scene, and a clock that can be stopped.

Element 1 is the upper left one of an array as seen from behind it, looking where it looks; then to the right, row by row. So a chip's four
channels are neighbours in a row, and azimuth and elevation of ``adi.adar1000_array`` are this project's.
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hal.array import angles_from, direction_to
from hal.chain import thermal_noise_w
from hal.devices.iio import picture
from hal.devices.sim import SimFrontend
from hal.errors import Misuse
from hal.frontend import Beam, Drive, Emission, FrontendSpec, Incident, Listen
from hal.medium import Paths
from hal.record import Array, Bool, Int
from twin.build import Twin
from twin.iio.adar1000 import CHANNELS, Adar1000, label
from twin.iio.context import Attribute, Channel, Context, Device, refused
from twin.loop import sounding
from twin.records import Truth
from twin.scenario import Scenario

__all__ = ["Face", "Scene", "chips_of", "tone_cycles"]

NAMES = ("receive", "transmit")
FRAME = 4096  # samples computed together; movers stand still within
FULL_SCALE_W = 1e-3  # sine that fills the converter at a gain of 0 dB
TOP = 32767
NOISE_STEPS = 8.0  # rms of the noise in converter steps, at the gain the receiver starts with
RATE_HZ = 1_000_000
RATES_HZ = 500_000, 64_000_000
GAIN_DB = 0.0, 120.0
TONES = 64  # user k sends (k + 1) / TONES of the sampling rate above the carrier
LATE_S = 0.05  # a reader that comes later than this finds a gap


def chips_of(spec: FrontendSpec) -> dict[str, list[str]]:
    """Labels of each board's chips: the receive board first, each on chip-select lines of its own."""
    out: dict[str, list[str]] = {}
    first = 0
    for name in NAMES:
        elements = getattr(spec, name).array.position_m.shape[0]
        if elements % CHANNELS:
            raise Misuse(
                f"{name} array: has {elements} elements; an ADAR1000 serves four, so their number must divide by 4"
            )
        out[name] = [label(first + k) for k in range(elements // CHANNELS)]
        first += -(-len(out[name]) // CHANNELS) * CHANNELS
    return out


def tone_cycles(user: int, samples: int) -> int:
    """Whole turns of the ``user``-th user's tone in a period of ``samples`` samples: (user + 1) / 64 of the sampling rate, or the next that fits."""
    return round(samples * ((user + 1) % TONES) / TONES)


class Scene:
    """The running scenario: who is where at a time that follows the wall clock, or stands still."""

    def __init__(
        self, scenario: Scenario, hold_ns: int | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.twin = Twin(scenario)
        if not isinstance(self.twin.machine, SimFrontend):
            self.twin.stack.close()
            raise Misuse("sites.*.device: must be sim, without a calibration, to be served as IIO")
        self.machine, self.spec, self.air = self.twin.machine, self.twin.machine.spec, self.twin.air
        self._clock, self._epoch = clock, clock()
        self._held_ns = hold_ns
        self._latest_ns = 0  # last time of the scene that was asked for
        self._behind_ns = 0  # of the scene, against the machine: how long it has been held
        self._first_ns = 0 if hold_ns is None else hold_ns

    def now_ns(self) -> int:
        """The machine's time: it goes on even where the scene stands still."""
        return self._clock() - self._epoch + self._first_ns

    def scene_ns(self, machine_ns: int) -> int:
        """The scene's time at a time of the machine."""
        return machine_ns - self._behind_ns if self._held_ns is None else self._held_ns

    @property
    def held(self) -> bool:
        """Whether the scene stands still."""
        return self._held_ns is not None

    def hold(self, still: bool) -> None:
        """Stop the scene where it is, or let it go on from there."""
        now_ns = self.now_ns()
        if still and self._held_ns is None:
            self._held_ns = self.scene_ns(now_ns)
        elif not still and self._held_ns is not None:
            self._behind_ns, self._held_ns = now_ns - self._held_ns, None

    def at(self, machine_ns: int) -> Truth:
        """Who is where, in the scene, at a time of the machine; never before the last time asked for."""
        self._latest_ns = max(self.scene_ns(machine_ns), self._latest_ns)
        return self.air.world.at(self._latest_ns)

    def close(self) -> None:
        """Release the machine."""
        self.twin.stack.close()


class Face:
    """The context of one scene. All that clients do to the machine passes through here, one at a time."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.spec = scene, scene.spec
        self._lock = threading.Lock()  # of the machine and of the scene's time
        self._latest_ns = scene.now_ns()  # last time the machine was asked about
        self._stale: dict[
            str, int | None
        ] = {}  # half -> when it was last changed without the machine knowing; None: it knows
        self._fresh_ns = self._latest_ns  # from when on what was set is in force
        self._dark = {"transmit": True, "receive": True}
        self.rate_hz = float(RATE_HZ)
        noise_w = thermal_noise_w(self.rate_hz, self.spec.noise_figure_db)
        gain_db = 20 * np.log10(NOISE_STEPS / TOP) + 10 * np.log10(FULL_SCALE_W / noise_w)
        self.gain_db = float(np.clip(round(gain_db), *GAIN_DB))
        self.labels = chips_of(self.spec)
        self.chips = {name: [Adar1000(one, self._changed_by(name)) for one in self.labels[name]] for name in NAMES}
        self._place = {name: picture(getattr(self.spec, name).array).ravel() for name in NAMES}
        # a chain each element hangs on: the first of those that reach it
        self._chain = {name: np.argmax(getattr(self.spec, name).network.wired, axis=0) for name in NAMES}
        self.chains = np.unique(self._chain["receive"])
        # the transmitter's waveform: the scenario's sensing frame with known symbols, a sample of it a sample of the receiver
        frame = sounding(scene.air, scene.twin.site, np.zeros(1, np.int64), 0).samples
        assert frame is not None
        self._sounding = frame[0, 0]
        for name in NAMES:
            self._changed_by(name)(name)

    def context(self) -> Context:
        """What clients see."""
        devices = [
            chip.device(f"iio:device{k}") for k, chip in enumerate([*self.chips["receive"], *self.chips["transmit"]])
        ]
        devices.append(self._receiver(f"iio:device{len(devices)}"))
        devices.append(self._clock(f"iio:device{len(devices)}"))
        title = self.scene.twin.scenario.title
        about = {"carrier_hz": f"{self.spec.carrier_hz:.0f}", "scenario": title}
        for name, short in (("receive", "rx"), ("transmit", "tx")):
            shape = picture(getattr(self.spec, name).array).shape
            numbers = np.arange(1, shape[0] * shape[1] + 1)
            about[f"{short}_chips"] = json.dumps(self.labels[name])
            about[f"{short}_element_map"] = json.dumps(numbers.reshape(shape).tolist())
            about[f"{short}_chip_elements"] = json.dumps(numbers.reshape(-1, CHANNELS).tolist())
            about[f"{short}_spacing_m"] = f"{getattr(self.spec, name).array.spacing_m:.9g}"
        return Context(f"isac-twin: {title}", about, tuple(devices))

    def listen(self, samples: int, begin_ns: int) -> tuple[Array, int]:
        """What the chains hear in ``samples`` samples from ``begin_ns`` (or later, if the machine has been asked about later): ``[chain sample]``
        (sqrt(W)), and the time just after the last one.
        """
        with self._lock:
            self._flush()
            first_ns = max(begin_ns, self._latest_ns, self._fresh_ns)
            truth, rate_hz = self.scene.at(first_ns), self.rate_hz
            # every event is a whole period of all that is sent: the tones', or the transmitter's frame
            period = TONES if self._dark["transmit"] else len(self._sounding)
            t_ns = first_ns + np.rint(np.arange(-(-samples // period)) * (period * 1e9 / rate_hz)).astype(np.int64)
            listen = Listen(t_ns=t_ns, slot=np.zeros_like(t_ns), bandwidth_hz=rate_hz)
            heard = self.scene.machine.receive(self._incident(truth, t_ns, period), listen)
            self._latest_ns = int(t_ns[-1])
        chained = heard.samples[:, self.chains].transpose(1, 0, 2).reshape(len(self.chains), -1)
        return chained[:, :samples], first_ns + round(samples / rate_hz * 1e9)

    def warm(self) -> None:
        """Listen once for nobody, so that compiled functions are there before the first client."""
        self.listen(FRAME, self._latest_ns)

    def steps(self, samples: Array) -> Int[Array, "sample scan"]:
        """Converter words, I and Q of each chain side by side; what is too strong sticks to the end of the scale."""
        scaled = np.ascontiguousarray(samples.T, dtype=np.complex64).view(np.float32) * np.float32(1 / self.step)
        words: Array = np.clip(np.rint(scaled), -TOP - 1, TOP).astype("<i2")
        return words

    @property
    def step(self) -> float:
        """What one converter step stands for at the antenna connector (sqrt(W))."""
        return float(np.sqrt(FULL_SCALE_W) * 10 ** (-self.gain_db / 20) / TOP)

    def _changed_by(self, board: str) -> Callable[[str], None]:
        def changed(half: str) -> None:
            if half == board:  # the other half of its channels leads nowhere
                self._stale[board] = self.scene.now_ns()

        return changed

    def _flush(self) -> None:
        """Give the machine what the chips now hold, from when they were told."""
        for half, changed_ns in list(self._stale.items()):
            if changed_ns is None:
                continue
            self._stale[half] = None
            amplitude, phase_rad = (
                np.concatenate(parts) for parts in zip(*(c.settings(half) for c in self.chips[half]), strict=True)
            )
            network = getattr(self.spec, half).network
            beam = Beam(
                half=half,
                slot=np.zeros(1, np.int64),
                delay_s=np.zeros((1, len(network.wired), network.lines)),
                phase_rad=np.zeros((1, *network.wired.shape)),
                amplitude=np.zeros((1, *network.wired.shape)),
            )
            place, settings = self._place[half], {}
            chain = self._chain[half][place]
            for name, value in (("phase_rad", phase_rad), ("amplitude", amplitude)):
                settings[name] = getattr(beam, name).copy()
                settings[name][0, chain, place] = value
            at_ns = max(changed_ns, self._latest_ns)
            report = self.scene.machine.set_beam(replace(beam, **settings), at_ns)
            self._fresh_ns = max(self._fresh_ns, report.effective_ns)
            self._dark[half] = not amplitude.any()

    def _incident(self, truth: Truth, t_ns: Int[Array, " event"], period: int) -> Incident:
        """All that is in the air: each user's tone, and the echoes of what the transmit board sends."""
        air, spec, at_ns = self.scene.air, self.spec, np.array([truth.t_ns])
        out = []
        users = truth.entity[truth.is_user]
        paths = replace(air.channel.up(truth, spec.receive.array, at_ns, spec.carrier_hz, air.draws), t_ns=t_ns[:1])
        numbers = {int(user): k for k, user in enumerate(air.world.users)}
        alone = np.ones((1, 1, 1, 1), dtype=np.complex128)
        for user in users.tolist():
            turns = tone_cycles(numbers[user], period) / period
            tone = np.exp(2j * np.pi * turns * np.arange(period))
            drive = self._drive(t_ns, tone, air.numerology.pilot_power_w, np.ones((1, 1), np.complex128))
            emission = Emission(source=np.full_like(t_ns, user), drive=drive, row=np.zeros_like(t_ns), response=alone)
            out.append((emission, _some(paths, paths.source == user)))
        if not self._dark["transmit"] or not out:
            chains = len(spec.transmit.network.wired)
            used = np.isin(np.arange(chains), self._chain["transmit"])
            digital = (used / np.sqrt(used.sum())).astype(np.complex128)[:, None]
            power_w = 0.0 if self._dark["transmit"] else spec.transmit_power_w
            sent = np.resize(self._sounding, period)
            emission = self.scene.machine.emit(self._drive(t_ns, sent, power_w, digital))
            arrays = spec.transmit.array, spec.receive.array
            echoes = replace(air.channel.echo(truth, *arrays, at_ns, spec.carrier_hz, air.draws), t_ns=t_ns[:1])
            out.append((emission, echoes))
        return out

    def _drive(self, t_ns: Int[Array, " event"], samples: Array, power_w: float, digital: Array) -> Drive:
        """The same period in every event."""
        return Drive(
            t_ns=t_ns,
            slot=np.zeros_like(t_ns),
            frequency_hz=np.array([self.spec.carrier_hz]),
            power_w=np.full((len(t_ns), 1), power_w),
            digital=np.broadcast_to(digital, (len(t_ns), *digital.shape)),
            samples=np.broadcast_to(samples, (len(t_ns), 1, len(samples))),
            sample_rate_hz=self.rate_hz,
            roll_off=self.scene.air.numerology.roll_off,
        )

    def _receiver(self, id_: str) -> Device:
        shared = {
            "sampling_frequency": Attribute(lambda: f"{self.rate_hz:.0f}", self._set_rate),
            "hardwaregain": Attribute(lambda: f"{self.gain_db:.6f} dB", self._set_gain),
            "scale": Attribute(lambda: f"{self.step:.9e}"),
        }
        channels = tuple(Channel(f"voltage{k}", attributes=shared, scan=k) for k in range(2 * len(self.chains)))
        attributes = {
            "sampling_frequency_available": Attribute(lambda: f"[{RATES_HZ[0]} 1 {RATES_HZ[1]}]"),
            "carrier_hz": Attribute(lambda: f"{self.spec.carrier_hz:.0f}"),
            "noise_figure_db": Attribute(lambda: f"{self.spec.noise_figure_db:g}"),
        }
        return Device(id_, "twin-receiver", attributes, channels, stream=lambda: _Stream(self))

    def _clock(self, id_: str) -> Device:
        attributes = {
            "time_s": Attribute(lambda: f"{self.scene.scene_ns(self.scene.now_ns()) * 1e-9:.6f}"),
            "hold": Attribute(lambda: str(int(self.scene.held)), self._set_hold),
            "truth": Attribute(self._truth),
        }
        return Device(id_, "twin-scene", attributes)

    def _set_rate(self, text: str) -> None:
        rate_hz = float(text)
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            raise refused(errno.EINVAL)
        with self._lock:
            self.rate_hz = rate_hz

    def _set_gain(self, text: str) -> None:
        gain_db = float(text.removesuffix("dB"))
        if not GAIN_DB[0] <= gain_db <= GAIN_DB[1]:
            raise refused(errno.EINVAL)
        self.gain_db = gain_db

    def _set_hold(self, text: str) -> None:
        if text not in ("0", "1"):
            raise refused(errno.EINVAL)
        with self._lock:
            self.scene.hold(text == "1")

    def _truth(self) -> str:
        """Who is where now, from the receive array, as JSON: the answer that a laboratory has to find."""
        with self._lock:
            truth = self.scene.at(max(self.scene.now_ns(), self._latest_ns))
        direction, range_m = direction_to(self.spec.receive.array, truth.position_m)
        azimuth, elevation = (np.rad2deg(angle) for angle in angles_from(direction))
        names, users = self.scene.air.world.names, self.scene.air.world.users.tolist()
        told = [
            {
                "name": names[entity],
                "azimuth_deg": round(float(azimuth[k]), 4),
                "elevation_deg": round(float(elevation[k]), 4),
                "range_m": round(float(range_m[k]), 3),
                "tone": (users.index(entity) + 1) % TONES / TONES if entity in users else None,  # of the sampling rate
            }
            for k, entity in enumerate(truth.entity.tolist())
        ]
        return json.dumps({"t_s": round(truth.t_ns * 1e-9, 9), "movers": told})


class _Stream:
    """One client's samples, one after the other for as long as it keeps up."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._next_ns = 0

    def read(self, samples: int, columns: list[int]) -> bytes:
        """The samples that begin where the last ended, or now where the reader came late or the beam is another by now."""
        face, parts = self._face, []
        now_ns = face.scene.now_ns()
        begin_ns = self._next_ns if self._next_ns > now_ns - LATE_S * 1e9 else now_ns
        for first in range(0, samples, FRAME):
            count = min(FRAME, samples - first)
            heard, begin_ns = face.listen(count, begin_ns)
            parts.append(face.steps(heard)[:, columns])
            wait_ns = begin_ns - face.scene.now_ns()
            if wait_ns > 0:  # the last sample has not arrived yet
                time.sleep(wait_ns * 1e-9)
        self._next_ns = begin_ns
        return np.ascontiguousarray(np.concatenate(parts)).tobytes()


def _some(paths: Paths, mine: Bool[Array, " path"]) -> Paths:
    """Some of the paths of a table."""
    one = {
        name: getattr(paths, name)[mine]
        for name in ("source", "sink", "delay_s", "doppler_hz", "departure_m", "arrival_m")
    }
    return replace(paths, gain=paths.gain[:, mine], **one)
