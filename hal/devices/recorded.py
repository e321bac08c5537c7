"""A machine on tape: what a front end answered in one session, played back open loop in another.

A tape is a file of MessagePack values, one after the other, so that any MessagePack library's streaming reader opens it. The first is
``["isac-twin tape", [major, minor], nameplate]``, every other ``[verb, asked, answer]``; ``nameplate`` and ``answer`` are the bytes of
``hal.wire.encode`` of a FrontendSpec, and of a BeamReport, an Emission or a Reception; ``asked`` is ``[half, at_ns]`` for ``set_beam`` and
the bytes of the Drive or the Listen for ``emit`` and ``receive``. A session that was killed leaves a tape that ends early, and is played
up to there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgpack
import numpy as np

from hal.check import Family
from hal.devices.remote import differences
from hal.devices.sim import Noise, Sim
from hal.errors import Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, FrontendSpec, Incident, Listen, Reception
from hal.memory import BeamMemory
from hal.wire import LIMIT_BYTES, VERSION, decode, encode

__all__ = ["Recorded", "RecordedFrontend", "Tape", "TapeFrontend"]

FORMAT = "isac-twin tape"
_log = logging.getLogger("hal.devices.recorded")


@dataclass(frozen=True)
class Recorded:
    """A tape in place of a machine: open-loop playback, which refuses in words what is not on it."""

    path: Path  # of the tape
    trust: bool = False  # take the tape's nameplate where it differs from the scenario's; False: refuse the tape
    exact: bool = False  # refuse a beam that is not the recorded one; False: answer with what was done then, and count it in ``departed``

    def open(self, spec: FrontendSpec | None, noise: object = None) -> RecordedFrontend:
        """Read the tape's index; ``noise`` is not used, chance is on the tape. Raises Misuse for another machine's tape."""
        frontend = RecordedFrontend(self.path, self.exact)
        other = [] if spec is None or self.trust else list(differences(spec, frontend.spec, "spec"))
        if other:
            frontend.close()
            raise Misuse(
                f"tape {self.path}: its nameplate differs from the scenario's in {', '.join(other[:8])}{' ...' if len(other) > 8 else ''}; "
                "correct the scenario, or set trust to go by the tape's own"
            )
        return frontend


class RecordedFrontend:
    """The four verbs, answered from a tape.

    A question is found by its half and time (``set_beam``) or its times and slots (``emit``, ``receive``): what is sent or commanded does
    not change what happened then. The k-th time it is asked gets the k-th answer recorded, and the last one from then on. ``departed``
    counts beams that were not the recorded ones.
    """

    def __init__(self, path: str | Path, exact: bool = False) -> None:
        self.path, self.departed = Path(path), 0
        self._exact, self._closed = exact, False
        try:
            self._file = open(self.path, "rb")
        except OSError as error:
            raise Misuse(f"tape {self.path}: {error.strerror}; give the path of a tape that Tape wrote") from None
        try:
            self.spec, self._answers, self._span = _index(self._file, self.path)
        except BaseException:
            self._file.close()
            raise
        self._memory = {name: BeamMemory(name, getattr(self.spec, name)) for name in ("transmit", "receive")}
        self._played: dict[Any, int] = {}

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """What the machine reported when it was told so then.

        Raises Misuse where it was told nothing at this time, and for a beam that no machine of this nameplate can take.
        """
        if beam.half not in self._memory:
            raise Misuse(f"half = {beam.half!r}: must be 'transmit' or 'receive'")
        self._memory[beam.half].check(beam)
        key = ("set_beam", beam.half, int(at_ns))
        report: BeamReport = self._play(key, f"{beam.half} beam set at {at_ns} ns", BeamReport)
        if encode(report.setpoint) != encode(beam):
            if self._exact:
                raise Misuse(
                    f"tape {self.path}: the {beam.half} beam set at {at_ns} ns was another; with exact = False what was done then is played"
                )
            if not self.departed:
                _log.warning(
                    "tape %s: the %s beam set at %d ns was another; what was done then is played",
                    self.path,
                    beam.half,
                    at_ns,
                )
            self.departed += 1
        self._next(key)
        return report

    def emit(self, drive: Drive) -> Emission:
        """What left the machine at these times, through these slots, whatever is asked to be sent now."""
        key = _key("emit", drive)
        emission: Emission = self._play(key, f"emission of {_said(drive)}", Emission)
        self._next(key)
        return emission

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """What the machine heard at these times, through these slots; ``incident`` is not used, the air was the recorded one."""
        key = _key("receive", listen)
        reception: Reception = self._play(key, f"reception of {_said(listen)}", Reception)
        self._next(key)
        return reception

    def close(self) -> None:
        """Close the tape; a second call does nothing."""
        self._closed = True
        self._file.close()

    def _play(self, key: tuple[Any, ...], said: str, kind: type) -> Any:
        if self._closed:
            raise Misuse(f"tape {self.path}: this front end is closed; open another")
        answers = self._answers.get(key)
        if answers is None:
            count, first_ns, last_ns = self._span.get(key[0], (0, 0, 0))
            holds = (
                f"it holds {count} of {key[0]} from {first_ns} to {last_ns} ns"
                if count
                else f"it holds no {key[0]} at all"
            )
            raise Misuse(
                f"tape {self.path}: has no {said}; {holds}: playback is open loop, only what was recorded can be asked for"
            )
        start, length = answers[min(self._played.get(key, 0), len(answers) - 1)]
        self._file.seek(start)
        return decode(msgpack.unpackb(self._file.read(length))[2], kind)

    def _next(self, key: tuple[Any, ...]) -> None:
        self._played[key] = self._played.get(key, 0) + 1


@dataclass(frozen=True)
class Tape:
    """A machine, and a tape of all that it answers. In a scenario: ``device: {kind: hal.devices.recorded:Tape, path: ..., real: ...}``."""

    path: Path  # of the tape to write; one that exists is not written over
    real: Annotated[Any, Family("hal.devices")] = field(default_factory=Sim)  # the machine

    def open(self, spec: FrontendSpec | None, noise: Noise) -> TapeFrontend:
        """Open the machine and begin the tape."""
        return TapeFrontend(self.real.open(spec, noise), self.path)


class TapeFrontend:
    """Any front end, and a tape of what it answers; refusals are not recorded. Closing it closes both."""

    def __init__(self, real: Frontend, path: str | Path) -> None:
        self.real, self.spec, self.path = real, real.spec, Path(path)
        try:
            self._file = open(self.path, "xb")
        except OSError as error:
            real.close()
            raise Misuse(
                f"tape {self.path}: {error.strerror}; a tape is never written over: choose another name"
            ) from None
        self._write([FORMAT, list(VERSION), encode(self.spec)])

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Set it there, and note the report."""
        report = self.real.set_beam(beam, at_ns)
        self._write(["set_beam", [beam.half, int(at_ns)], encode(report)])
        return report

    def emit(self, drive: Drive) -> Emission:
        """Send there, and note what left."""
        emission = self.real.emit(drive)
        self._write(["emit", encode(drive), encode(emission)])
        return emission

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Hear there, and note it."""
        reception = self.real.receive(incident, listen)
        self._write(["receive", encode(listen), encode(reception)])
        return reception

    def close(self) -> None:
        """End the tape and close the machine; a second call does nothing."""
        self._file.close()
        self.real.close()

    def _write(self, entry: list[Any]) -> None:
        self._file.write(msgpack.packb(entry))
        self._file.flush()  # a killed session leaves whole entries


def _key(verb: str, asked: Drive | Listen) -> tuple[Any, ...]:
    width = asked.bandwidth_hz if isinstance(asked, Listen) else len(asked.frequency_hz)
    return verb, np.asarray(asked.t_ns).tobytes(), np.asarray(asked.slot).tobytes(), width


def _said(asked: Drive | Listen) -> str:
    t_ns = np.asarray(asked.t_ns)
    span = f" from {t_ns.min()} to {t_ns.max()} ns" if t_ns.size else ""
    return f"these {t_ns.size} events{span} through these slots"


_Index = tuple[FrontendSpec, dict[tuple[Any, ...], list[tuple[int, int]]], dict[str, tuple[int, int, int]]]


def _index(file: BinaryIO, path: Path) -> _Index:
    """The nameplate, where each answer stands in the file, and how many there are of each verb, from when to when."""
    entries = _entries(file, path)
    _, _, head = next(entries, (0, 0, None))
    if not (isinstance(head, list) and len(head) >= 3 and head[0] == FORMAT):
        raise RemoteFault(f"tape {path}: is not a tape of {FORMAT!r}")
    if head[1][0] != VERSION[0]:
        raise RemoteFault(f"tape {path}: is of version {head[1][0]}; this side reads {VERSION[0]}")
    answers: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    span: dict[str, tuple[int, int, int]] = {}
    for start, length, entry in entries:
        try:
            verb, asked, _ = entry
            if verb == "set_beam":
                key: tuple[Any, ...] = (verb, *asked)
                t_ns = np.array([asked[1]])
            else:
                question: Any = decode(asked, {"emit": Drive, "receive": Listen}[verb])
                key, t_ns = _key(verb, question), question.t_ns
        except (ValueError, TypeError, KeyError, IndexError, RemoteFault) as error:
            raise RemoteFault(f"tape {path}: the entry at byte {start} is damaged: {error}") from None
        answers.setdefault(key, []).append((start, length))
        if t_ns.size:
            count, first_ns, last_ns = span.get(verb, (0, int(t_ns.min()), 0))
            span[verb] = (count + 1, min(first_ns, int(t_ns.min())), max(last_ns, int(t_ns.max())))
    return decode(head[2], FrontendSpec), answers, span


def _entries(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, Any]]:
    """Start, length and value of each entry; what a killed writer left unfinished is logged and left out."""
    reader = msgpack.Unpacker(file, max_buffer_size=LIMIT_BYTES)
    start = 0
    while True:
        try:
            value = reader.unpack()
        except msgpack.OutOfData:
            file.seek(0, 2)
            if file.tell() > start:
                _log.warning("tape %s: ends in the middle of an entry at byte %d; played up to there", path, start)
            return
        except (ValueError, msgpack.UnpackException) as error:
            raise RemoteFault(f"tape {path}: is damaged at byte {start}: {error}") from None
        yield start, reader.tell() - start, value
        start = reader.tell()
