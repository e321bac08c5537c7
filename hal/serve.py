"""Host any front end over a session: the four verbs and the nameplate, as questions.

==========  =====================  =============  =======================================================================
question    payload                answer         meaning
==========  =====================  =============  =======================================================================
spec        nothing                FrontendSpec   the nameplate
set_beam    [Beam, at_ns]          Taken          load and latch; a BeamReport without the setpoint, which the asker has
emit        Drive                  Emission       send
receive     [Incident, Listen]     Reception      receive what arrives; real hardware ignores Incident
==========  =====================  =============  =======================================================================

Records travel as ``hal.wire`` writes them. A client that leaves, or misbehaves, leaves the machine as it is: the beam in force stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hal.errors import Misuse
from hal.frontend import Beam, BeamReport, Drive, Emission, Frontend, FrontendSpec, Incident, Listen, Reception
from hal.record import record
from hal.session import Handler, Keys, Server
from hal.wire import decode, encode

__all__ = ["VERBS", "Taken", "handler", "serve"]


@record
class Taken:
    """A BeamReport on its way back to who knows the setpoint."""

    readback: Beam | None  # None: this hardware cannot say
    accepted_ns: int
    effective_ns: int  # settled and in force from here on
    clipped: int  # settings that were out of range and were clipped to it
    uncertainty_ns: int  # of effective_ns; 0 for a simulated device
    fault: str = ""  # what the machine says is wrong with it, as far as it knows


VERBS: dict[str, tuple[Any, Any]] = {  # question: type of its payload, type of its answer
    "spec": (None, FrontendSpec),
    "set_beam": (tuple[Beam, int], Taken),
    "emit": (Drive, Emission),
    "receive": (tuple[Incident, Listen], Reception),
}


def handler(frontend: Frontend) -> Handler:
    """What a session's server needs: ``handler(frontend)(verb, payload)`` does the verb and returns the answer's bytes."""

    def handle(verb: str, payload: bytes) -> bytes:
        if verb not in VERBS:
            raise Misuse(f"question {verb!r}: a front end answers {', '.join(VERBS)}")
        asked, answered = VERBS[verb]
        if verb == "spec":
            return encode(frontend.spec, answered)
        given: Any = decode(payload, asked)
        result: Any = getattr(frontend, verb)(*(given if isinstance(given, tuple) else (given,)))
        if isinstance(result, BeamReport):
            told = {f.name: getattr(result, f.name) for f in fields(Taken)}
            result = Taken(**told)
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
    server = Server(endpoint, keys, insecure, name=frontend.spec.name)
    try:
        if announce is not None:
            announce(server.endpoint)
        server.run(handler(frontend), stop)
    finally:
        server.close()
