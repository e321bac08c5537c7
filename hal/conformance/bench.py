"""What the rules share: a machine on the bench, a time that only moves on, and beams whose effect is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, HalfSpec
from hal.record import Array, Complex, Float, Int

__all__ = ["HALVES", "Bench", "Broken", "Finding", "Skipped", "Verdict"]

HALVES = ("transmit", "receive")
GAP_NS = 10_000


@dataclass(frozen=True)
class Verdict:
    """What a rule found."""

    rule: str
    verdict: Literal["pass", "fail", "skip"]
    says: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """A rule kept."""

    says: str
    numbers: Mapping[str, float] = field(default_factory=dict)


class Broken(Exception):
    """A rule broken, in a sentence and numbers."""

    def __init__(self, says: str, numbers: Mapping[str, float] | None = None) -> None:
        super().__init__(says)
        self.numbers = dict(numbers or {})


class Skipped(Exception):
    """A rule that says nothing about this machine, and why."""


class Bench:
    """A front end under test. ``now_ns`` is the time of the next command, after all that was commanded before."""

    def __init__(
        self, frontend: Frontend, endpoint: str | None, latency_limit_s: float, start_ns: int, fresh: bool
    ) -> None:
        self.frontend, self.spec, self.endpoint = frontend, frontend.spec, endpoint
        self.latency_limit_s, self.now_ns, self.fresh = latency_limit_s, start_ns, fresh

    def half(self, name: str) -> HalfSpec:
        """A half's nameplate."""
        half: HalfSpec = getattr(self.spec, name)
        return half

    def settings(self, half: str, rows: int) -> int:
        """How many settings a load of ``rows`` brings over the bus."""
        return rows * int(self.half(half).network.wired.sum())

    def beam(self, half: str, slots: list[int], phase_rad: Any = 0.0, delay_s: Any = 0.0, amplitude: Any = 1.0) -> Beam:
        """A beam whose settings are broadcast to the half's shape."""
        network = self.half(half).network
        chains, elements = network.wired.shape

        def filled(value: Any, last: int) -> Array:
            return np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (len(slots), chains, last)))

        return Beam(
            half=half,
            slot=np.array(slots, dtype=np.int64),
            delay_s=filled(delay_s, network.lines),
            phase_rad=filled(phase_rad, elements),
            amplitude=filled(amplitude, elements),
        )

    def scattered(self, half: str, slots: list[int], seed: int) -> Beam:
        """Settings that differ from element to element and from seed to seed, all in range."""
        network = self.half(half).network
        rng = np.random.default_rng([seed, len(half)])
        chains, elements = network.wired.shape
        longest_s = network.delay_range_s * (1 - 2.0**-network.delay_bits if network.delay_bits else 1.0)
        return self.beam(
            half,
            slots,
            rng.uniform(0, 2 * np.pi, (len(slots), chains, elements)),
            rng.uniform(0, longest_s, (len(slots), chains, network.lines)),
            rng.uniform(0.25, 1, (len(slots), chains, elements)),
        )

    def load(self, beam: Beam, at_ns: int | None = None) -> BeamReport:
        """Set a beam at ``now_ns`` (or ``at_ns``) and let time pass until it is in force."""
        report = self.frontend.set_beam(beam, self.now_ns if at_ns is None else at_ns)
        self.now_ns = max(self.now_ns, report.effective_ns + report.uncertainty_ns) + GAP_NS
        return report

    def read(self, beam: Beam) -> Beam:
        """What the machine says it took; Skipped where it cannot say."""
        report = self.load(beam)
        if report.readback is None:
            raise Skipped("this machine has no read-back")
        return report.readback

    def drive(self, slot: Any, t_ns: Any, power_w: float | None = None) -> Drive:
        """Two subcarriers, a hundredth either side of the carrier, so that delays show."""
        slot, t_ns = np.broadcast_arrays(np.asarray(slot, dtype=np.int64), np.asarray(t_ns, dtype=np.int64))
        chains = len(self.spec.transmit.network.wired)
        power_w = self.spec.transmit_power_w / 4 if power_w is None else power_w
        return Drive(
            t_ns=np.array(t_ns),
            slot=np.array(slot),
            frequency_hz=self.spec.carrier_hz * np.array([0.99, 1.01]),
            power_w=np.full((len(slot), 2), power_w / 2),
            digital=np.full((len(slot), chains, 1), chains**-0.5, dtype=np.complex128),
        )

    def sent(self, slot: Any, t_ns: Any) -> Complex[Array, "event subcarrier element chain"]:
        """The responses in force in the transmit half at each (slot, time)."""
        emission = self.frontend.emit(self.drive(slot, t_ns))
        return spread(emission)

    def refused(self, what: str, call: Any) -> None:
        """``call()`` must be Misuse; anything else breaks the rule."""
        try:
            call()
        except Misuse:
            return
        except (RemoteFault, LateArrival) as error:
            raise Broken(
                f"{what}: refused as {type(error).__name__}; the asker's own mistake is misuse ({error})"
            ) from None
        raise Broken(f"{what}: was taken; it must be refused as misuse")


def spread(emission: Emission) -> Complex[Array, "event subcarrier element chain"]:
    """The response of each event, rows handed out."""
    response: Array = np.asarray(emission.response)[np.asarray(emission.row)]
    return response


def changed(a: Array, b: Array) -> Array:
    """Which elements of two responses ``[... subcarrier element chain]`` differ by more than rounding."""
    out: Array = np.any(np.abs(a - b) > 1e-9 * np.max(np.abs(b), initial=1e-30), axis=(-3, -1))
    return out


def gaps(values: Float[Array, " value"], least: float) -> float:
    """The smallest distance between distinct values; nan if there is only one."""
    apart = np.diff(np.unique(values))
    apart = apart[apart > least]
    return float(apart.min()) if apart.size else float("nan")


def slots_of(bench: Bench, half: str, most: int) -> list[int]:
    """Up to ``most`` slots of a half."""
    return list(range(min(bench.half(half).memory_slots, most)))


def at(t_ns: list[int]) -> Int[Array, " event"]:
    """Times as an array."""
    return np.array(t_ns, dtype=np.int64)
