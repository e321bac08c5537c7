"""A machine in another process or another house: the same four verbs, asked over a session (``hal.serve`` answers)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import numpy as np

from hal.check import Gt, In
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import SITE, Beam, BeamReport, Drive, Emission, FrontendSpec, Incident, Listen, Reception
from hal.health import Fault
from hal.keys import asking
from hal.serve import BREAKING, VERBS, Heard, Sent, Taken
from hal.session import Client, Keys, Patience, PeerClock
from hal.wire import decode, encode

__all__ = ["Remote", "RemoteFrontend", "differences"]

TYPES = {**VERBS, **BREAKING}


@dataclass(frozen=True)
class Remote:
    """Where the machine answers, and how long it may take."""

    endpoint: str = "tcp://127.0.0.1:5600"  # tcp://HOST:PORT or ipc://PATH, where the machine is served
    timeout_s: Annotated[float, In("ms"), Gt(0)] = 1.0  # after it, a question without an answer is an error
    warn_s: Annotated[float, In("ms"), Gt(0)] = 0.1  # after it, the log names what is being waited for
    trust: bool = (
        False  # take the machine's own nameplate where it differs from the scenario's; False: refuse the machine
    )
    key: str = "none"  # the key to come with, where the machine has a door (`twin keys`); none: no keys
    server: str = "device"  # whose public key the machine must then have: a name, a file or the key itself

    def open(self, spec: FrontendSpec | None, noise: object = None, keys: Keys | None = None) -> RemoteFrontend:
        """Connect and read the nameplate; ``noise`` is not used, the machine has its own.

        ``spec`` is what the scenario takes the machine for; None takes whatever is there. Raises LateArrival or RemoteFault where nothing
        fit answers, and Misuse, naming the fields, where its nameplate is another and ``trust`` is not set.
        """
        if keys is None and self.key != "none":
            keys = asking(self.key, self.server)
        client = Client(self.endpoint, Patience(self.warn_s, self.timeout_s), keys, name="frontend")
        try:
            frontend = RemoteFrontend(client)
            other = [] if spec is None or self.trust else list(differences(spec, frontend.spec, "spec"))
        except BaseException:
            client.close()
            raise
        if other:
            frontend.close()
            raise Misuse(
                f"{client}: its nameplate differs from the scenario's in {', '.join(other[:8])}{' ...' if len(other) > 8 else ''}; "
                "correct the scenario, or set trust to go by the machine's own"
            )
        return frontend


class RemoteFrontend:
    """The four verbs of a machine elsewhere.

    Every verb answers or raises within ``timeout_s``: LateArrival when nothing came, RemoteFault when the machine failed, was started anew or
    closed the connection, Misuse when it refused the question. Safe state: after any of them the machine keeps the beam that is in force
    there; ``held`` is the last it reported, a half. Setting a beam again is always safe.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.held: dict[str, BeamReport] = {}
        self._incarnation = client.incarnation
        self.spec: FrontendSpec = decode(client.ask("spec"), FrontendSpec)

    @property
    def peer_clock(self) -> PeerClock:
        """The offset of the machine's clock as its answers tell it."""
        return self._client.peer_clock

    def set_beam(self, beam: Beam, at_ns: int) -> BeamReport:
        """Load and latch there; the report says what the machine took and from when."""
        taken: Taken = self._ask("set_beam", (beam, at_ns))
        report = BeamReport(
            setpoint=beam,
            readback=taken.readback,
            accepted_ns=taken.accepted_ns,
            effective_ns=taken.effective_ns,
            clipped=taken.clipped,
            uncertainty_ns=taken.uncertainty_ns,
            fault=taken.fault,
        )
        self.held[beam.half] = report
        return report

    def emit(self, drive: Drive) -> Emission:
        """Send there."""
        sent: Sent = self._ask("emit", drive)
        events = len(drive.t_ns)
        return Emission(
            source=np.full(events, SITE),
            drive=drive if sent.drive is None else sent.drive,
            row=np.arange(events) if sent.row is None else sent.row,
            response=sent.response,
            distortion=sent.distortion,
        )

    def receive(self, incident: Incident, listen: Listen) -> Reception:
        """Receive there; what arrives travels along only to a simulated machine, since real air needs no telling."""
        heard: Heard = self._ask("receive", (incident if self.spec.simulated else [], listen))
        return Reception(
            t_ns=listen.t_ns,
            slot=listen.slot,
            samples=heard.samples,
            noise_w=heard.noise_w,
            dropped_w=heard.dropped_w,
            overload=heard.overload,
        )

    def inject(self, fault: Fault, at_ns: int | None) -> int:
        """Break something there from ``at_ns`` on (None: from after what it was last asked about); return from when.

        Misuse, in the machine's words, where it has no such thing or is not simulated.
        """
        return self._break("inject", fault, at_ns)

    def clear(self, fault: Fault | None, at_ns: int | None) -> int:
        """Mend it (None: everything) there; return from when."""
        return self._break("clear", fault, at_ns)

    def close(self) -> None:
        """Drop the connection; the machine keeps its beam. A second call does nothing."""
        self._client.close()

    def _break(self, verb: str, fault: Fault | None, at_ns: int | None) -> int:
        since_ns: int = self._ask(verb, (fault, at_ns))
        return since_ns

    def _ask(self, verb: str, value: Any) -> Any:
        client, (asked, answered) = self._client, TYPES[verb]
        payload = encode(value, asked)
        try:
            if self._incarnation != client.incarnation:
                self._meet_again()
            answer = client.ask(verb, payload)
        except (LateArrival, RemoteFault) as error:
            doubt = verb == "set_beam" and isinstance(error, LateArrival)
            raise type(error)(f"{error}; safe state: {self._safe_state(doubt)}") from error
        try:
            return decode(answer, answered)
        except RemoteFault as error:
            raise RemoteFault(
                f"{client}: answered {verb} with nonsense: {error}; safe state: {self._safe_state(False)}"
            ) from error

    def _meet_again(self) -> None:
        """The machine was started anew: it must still be the one that was opened."""
        other = list(differences(self.spec, decode(self._client.ask("spec"), FrontendSpec), "spec"))
        if other:
            raise RemoteFault(
                f"{self._client}: was started anew as another machine, in {', '.join(other[:8])}; open it again"
            )
        self._incarnation = self._client.incarnation

    def _safe_state(self, doubt: bool) -> str:
        if self._incarnation != self._client.incarnation:
            self.held.clear()
            return "none, its slots are dark; load the beams again"
        held = ", ".join(f"{half} in force since {report.effective_ns} ns" for half, report in self.held.items())
        unless = " unless the beam just sent was taken; set it again to be sure" if doubt else ""
        return f"the machine keeps its beams ({held or 'none set from here'}){unless}"


def differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Paths of the fields in which two records differ."""
    if is_dataclass(ours):
        for f in fields(ours):
            yield from differences(getattr(ours, f.name), getattr(theirs, f.name), f"{path}.{f.name}")
    elif hasattr(ours, "shape"):
        if ours.shape != theirs.shape or not (ours == theirs).all():
            yield path
    elif not ours == theirs:
        yield path
