"""A front end that rides out a machine which does not answer: nothing is sent, nothing is heard, and it says so."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from hal.chain import thermal_noise_w
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, Incident, Listen, Reception
from hal.record import Array, Int

__all__ = ["Patient"]


class Patient:
    """The four verbs of ``frontend``, with RemoteFault and LateArrival borne for ``patience_ns`` of the caller's time.

    Meanwhile, in every event the machine does not answer for, what is sent is dark (a response of zero) and what is heard is silence
    (samples of zero, the nameplate's noise), and a load is reported as not read back, with the error as its fault, in force when the nameplate
    says. What beams the machine holds then is unknown until they are set again, which is always safe. After ``patience_ns`` since
    the last answer the error is raised. An answer for a part of the events is taken: a batch that fails is asked for again by halves, so the
    result does not depend on how events are batched; a late answer is not asked for again, the batch is lost.
    """

    def __init__(self, frontend: Frontend, patience_ns: int) -> None:
        self.spec = frontend.spec
        self.inner = frontend
        self._patience_ns = patience_ns
        self._since_ns: int | None = None  # first instant without an answer

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load and latch, or say that nobody knows."""
        try:
            report = self.inner.set_beam(beam, at_ns)
        except (RemoteFault, LateArrival) as error:
            self._bear(error, int(at_ns))
            spec = self.spec
            settings = len(beam.slot) * int(getattr(spec, beam.half).network.wired.sum())
            effective_ns = int(at_ns) + spec.command_latency_ns + settings * spec.bus_ns_per_element + spec.settling_ns
            return BeamReport(
                setpoint=beam,
                readback=None,
                accepted_ns=int(at_ns),
                effective_ns=effective_ns,
                clipped=0,
                uncertainty_ns=self._patience_ns,
                fault=f"no answer: {error}",
            )
        self._since_ns = None
        return report

    def emit(self, drive: Drive) -> Emission:
        """Send; dark where the machine does not answer."""
        try:
            emission = self.inner.emit(drive)
        except (RemoteFault, LateArrival) as error:
            if len(drive.t_ns) > 1 and isinstance(error, RemoteFault):
                return _one_emission([self.emit(_part(drive, half)) for half in _halves(len(drive.t_ns))], drive)
            self._bear(error, int(np.min(drive.t_ns)))
            chains, elements = self.spec.transmit.network.wired.shape
            dark = np.zeros((1, len(drive.frequency_hz), elements, chains), np.complex128)
            none = np.zeros(len(drive.t_ns), np.int64)
            return Emission(source=none - 1, drive=drive, row=none, response=dark)
        self._since_ns = None
        return emission

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Receive; silence where the machine does not answer."""
        try:
            reception = self.inner.receive(incident, listen)
        except (RemoteFault, LateArrival) as error:
            count = len(listen.t_ns)
            if count > 1 and isinstance(error, RemoteFault):
                parts = []
                for half in _halves(count):
                    some = [
                        (replace(e, source=e.source[half], row=e.row[half], drive=_part(e.drive, half)), paths)
                        for e, paths in incident
                    ]
                    parts.append(self.receive(some, _part(listen, half)))
                return _one_reception(parts)
            self._bear(error, int(np.min(listen.t_ns)))
            drive = incident[0][0].drive if len(incident) else None
            samples = (
                1 if drive is None else len(drive.frequency_hz) if drive.samples is None else drive.samples.shape[-1]
            )
            kind = np.complex64 if drive is not None and drive.samples is not None else np.complex128
            return Reception(
                t_ns=np.asarray(listen.t_ns),
                slot=np.asarray(listen.slot),
                samples=np.zeros((count, len(self.spec.receive.network.wired), samples), kind),
                noise_w=thermal_noise_w(listen.bandwidth_hz, self.spec.noise_figure_db),
            )
        self._since_ns = None
        return reception

    def inject(self, fault: Any, at_ns: int) -> None:
        """Break something in the machine; Misuse where it cannot be broken by word of mouth."""
        self._breaking("inject")(fault, at_ns)

    def clear(self, fault: Any, at_ns: int) -> None:
        """Mend it (None: everything)."""
        self._breaking("clear")(fault, at_ns)

    def _breaking(self, verb: str) -> Any:
        found = getattr(self.inner, verb, None)
        if found is None:
            raise Misuse(f"{verb}: {self.spec.name} is not simulated; what breaks there, breaks by itself")
        return found

    def close(self) -> None:
        """Close the machine."""
        self.inner.close()

    def _bear(self, error: Exception, t_ns: int) -> None:
        self._since_ns = t_ns if self._since_ns is None else min(self._since_ns, t_ns)
        if t_ns - self._since_ns > self._patience_ns:
            raise error


def _halves(count: int) -> tuple[slice, slice]:
    return slice(0, count // 2), slice(count // 2, count)


def _part(given: Any, some: slice) -> Any:
    """A drive or listen with some of its events."""
    axes = [f.name for f in fields(given) if f.name in ("t_ns", "slot", "power_w", "digital", "samples")]
    return replace(
        given, **{n: None if getattr(given, n) is None else np.asarray(getattr(given, n))[some] for n in axes}
    )


def _one_emission(parts: list[Emission], drive: Drive) -> Emission:
    rows = np.cumsum([0, *(len(part.response) for part in parts[:-1])])
    row: list[Int[Array, " event"]] = [part.row + first for part, first in zip(parts, rows, strict=True)]
    sent = [part.drive for part in parts]
    if any(
        s.samples is not None and s.samples.shape[1:] != sent[0].samples.shape[1:]
        for s in sent
        if sent[0].samples is not None
    ):
        sent = [drive]  # amplified and dark events have streams of other kinds; the dark ones decide nothing
    axes = [name for name in ("t_ns", "slot", "power_w", "digital", "samples") if getattr(sent[0], name) is not None]
    columns: dict[str, Any] = {name: np.concatenate([getattr(s, name) for s in sent]) for name in axes}
    joined = replace(sent[0], **columns)
    roots = [part.distortion for part in parts]
    told = next((root for root in roots if root is not None), None)
    if told is not None:  # dark parts distort nothing
        silent = [np.zeros((len(part.source), *told.shape[1:]), np.complex128) for part in parts]
        told = np.concatenate([s if root is None else root for s, root in zip(silent, roots, strict=True)])
    return Emission(
        source=np.concatenate([part.source for part in parts]),
        drive=joined,
        row=np.concatenate(row),
        response=np.concatenate([part.response for part in parts]),
        distortion=told,
    )


def _one_reception(parts: list[Reception]) -> Reception:
    first = next((part for part in parts if part.overload is not None), None)
    overload = None
    if first is not None:
        shape = parts[0].samples.shape[1]
        overload = np.concatenate(
            [np.zeros((len(p.t_ns), shape), np.bool_) if p.overload is None else p.overload for p in parts]
        )
    return replace(
        parts[0],
        t_ns=np.concatenate([p.t_ns for p in parts]),
        slot=np.concatenate([p.slot for p in parts]),
        samples=np.concatenate([p.samples for p in parts]),
        dropped_w=max(p.dropped_w for p in parts),
        overload=overload,
    )
