"""Host any front end over a session: the four verbs and the nameplate, as questions.

==========  =====================  =============  =======================================================================
question    payload                answer         meaning
==========  =====================  =============  =======================================================================
spec        nothing                FrontendSpec   the nameplate
set_beam    [Beam, at_ns]          Taken          load and latch; a BeamReport without the setpoint, which the asker has
emit        Drive                  Sent           send; an Emission without what the asker has
receive     [Incident, Listen]     Heard          receive what arrives; real hardware ignores Incident
inject      [Fault, at_ns]         at_ns          break something, where the machine can be broken by word of mouth
clear       [Fault, at_ns]         at_ns          mend it; nil for a Fault: everything
==========  =====================  =============  =======================================================================

A fault without a time strikes after the last instant the machine was asked about. Whoever may set beams may break a simulated machine; a real one
says no. Records travel as ``hal.wire`` writes them. A client that leaves, or misbehaves, leaves the machine as it is: the beam in force stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hal.errors import Misuse
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, FrontendSpec, Incident, Listen
from hal.gate import Gate, Rule
from hal.health import Fault
from hal.record import Array, Bool, Complex, Int, record
from hal.session import Handler, Keys, Server
from hal.wire import LIMIT_BYTES, decode, encode

__all__ = ["BREAKING", "VERBS", "Heard", "Sent", "Taken", "handler", "serve"]


@record
class Taken:
    """A BeamReport on its way back to who knows the setpoint."""

    readback: Beam | None  # None: this hardware cannot say
    accepted_ns: int
    effective_ns: int  # settled and in force from here on
    clipped: int = 0  # settings that were out of range and were clipped to it
    uncertainty_ns: int = 0  # of effective_ns; 0 for a simulated device
    fault: str = ""  # what the machine says is wrong with it, as far as it knows


@record
class Sent:
    """An Emission on its way back to who knows the drive."""

    response: Complex[Array, "row subcarrier element chain"]
    row: Int[Array, " event"] | None = None  # which of these each event used; None: each its own
    drive: Drive | None = None  # as it left, where that is not as it was asked for
    distortion: Complex[Array, "event subcarrier chain source"] | None = None  # as in Emission


@record
class Heard:
    """A Reception on its way back to who knows when it listened."""

    samples: Complex[Array, "event chain sample"]
    noise_w: float  # noise power of one sample at one chain's output, as the nameplate states it
    dropped_w: float = 0.0  # as in Reception
    overload: Bool[Array, "event chain"] | None = None  # a converter clipped


VERBS: dict[str, tuple[Any, Any]] = {  # question: type of its payload, type of its answer
    "spec": (None, FrontendSpec),
    "set_beam": (tuple[Beam, int], Taken),
    "emit": (Drive, Sent),
    "receive": (tuple[Incident, Listen], Heard),
}


BREAKING: dict[str, tuple[Any, Any]] = {  # what only a simulated machine answers
    "inject": (tuple[Fault, int | None], int),
    "clear": (tuple[Fault | None, int | None], int),
}


DRIVERS = frozenset(
    ("device", "admin")
)  # who may have the machine do something; its nameplate is for all who are let in
OTHER = Rule(DRIVERS, limit_bytes=LIMIT_BYTES)
BYTES_PER_S = 2e9  # that a peer may send: more than one reads from loopback
RULES = {
    "hello": Rule(limit_bytes=1024, per_s=20.0),
    "ping": Rule(limit_bytes=64, per_s=1000.0, burst=1000),
    "spec": Rule(limit_bytes=64, per_s=50.0),
}


def _some(kind: Any, whole: Any) -> Any:
    """What of a record the asker does not have."""
    return kind(**{name: getattr(whole, name) for name in kind.__slots__})


def _sent(emission: Emission, asked: Drive) -> Sent:
    drive = None if emission.drive is asked else emission.drive
    return Sent(response=emission.response, row=emission.row, drive=drive, distortion=emission.distortion)


def handler(frontend: Frontend) -> Handler:
    """What a session's server needs: ``handler(frontend)(verb, payload)`` does the verb and returns the answer's bytes."""
    latest_ns = 0

    def handle(verb: str, payload: bytes) -> bytes:
        nonlocal latest_ns
        if verb in BREAKING:
            asked, answered = BREAKING[verb]
            if not hasattr(frontend, verb):
                raise Misuse(f"{verb}: {frontend.spec.name} is not simulated; what breaks there, breaks by itself")
            fault, at_ns = decode(payload, asked)
            at_ns = latest_ns + 1 if at_ns is None else at_ns
            getattr(frontend, verb)(fault, at_ns)
            return encode(at_ns, answered)
        if verb not in VERBS:
            raise Misuse(f"question {verb!r}: a front end answers {', '.join([*VERBS, *BREAKING])}")
        asked, answered = VERBS[verb]
        if verb == "spec":
            return encode(frontend.spec, answered)
        given: Any = decode(payload, asked)
        result: Any = getattr(frontend, verb)(*(given if isinstance(given, tuple) else (given,)))
        if isinstance(result, BeamReport):
            latest_ns = max(latest_ns, result.accepted_ns)
            result = _some(Taken, result)
        else:
            asked_of = given if verb == "emit" else given[1]
            latest_ns = max(latest_ns, int(asked_of.t_ns.max(initial=0)))
            result = _sent(result, given) if verb == "emit" else _some(Heard, result)
        return encode(result, answered)

    return handle


def serve(
    frontend: Frontend,
    endpoint: str,
    stop: Callable[[], bool] = lambda: False,
    announce: Callable[[str], None] | None = None,
    keys: Keys | None = None,
    insecure: bool = False,
) -> None:
    """Answer for ``frontend`` at ``endpoint`` until ``stop()`` (asked every 50 ms) or an interrupt; the front end stays open.

    ``announce`` is called once with the endpoint bound to, port 0 or * resolved, when questions can come. Raises Misuse for an endpoint
    that cannot be bound, or that others than this computer can reach when there are neither ``keys`` with an allow-list nor ``insecure``.
    """
    server = Server(endpoint, keys, insecure, name=frontend.spec.name, gate=Gate(RULES, OTHER, bytes_per_s=BYTES_PER_S))
    try:
        if announce is not None:
            announce(server.endpoint)
        server.run(handler(frontend), stop)
    finally:
        server.close()
