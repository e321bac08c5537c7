"""``twin device inject``: break something in a served machine, or mend it, while whoever drives it goes on."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any

from hal.devices.remote import Remote
from hal.errors import Misuse

if TYPE_CHECKING:
    from twin.scenario import Fault

__all__ = ["arguments", "run"]


def arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = (
        "A fault is written as in a scenario (docs/faults.md). Without at_ms it strikes at once: after the last instant the machine was\n"
        "asked about. A simulated machine takes it; a real one refuses.\n\n"
        "  twin serve device scenarios/smoke.yaml --endpoint tcp://127.0.0.1:5600\n"
        "  twin device inject tcp://127.0.0.1:5600 '{kind: dead_element, elements: [0, 1]}'\n"
        "  twin device inject tcp://127.0.0.1:5600 '{kind: late_command, late_ms: 2, at_ms: 60, until_ms: 90}'\n"
        "  twin device inject tcp://127.0.0.1:5600 --mend\n"
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="where the machine is served (tcp://HOST:PORT)")
    parser.add_argument("fault", nargs="?", help="what breaks: '{kind: dead_element, half: receive, elements: [3]}'")
    parser.add_argument("--mend", action="store_true", help="mend that fault; without a fault, everything")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="limit of one question (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def parsed(text: str) -> tuple[Fault, bool]:
    """A fault as a scenario writes it, and whether it says when."""
    from twin.assembly import gather
    from twin.document import parse
    from twin.scenario import Fault

    document = parse(text, "FAULT")
    timed = isinstance(document.value, dict) and "at_ms" in document.value
    if isinstance(document.value, dict) and not timed:
        document.value["at_ms"] = 0
    found = gather(Fault, document.value, (), document)
    document.verdict()
    return Fault(**found), timed


def run(given: Namespace) -> int:
    """Break or mend; 0 when the machine has taken it. Misuse where it refuses."""
    if given.fault is None and not given.mend:
        raise Misuse("device inject: says no fault; write one, as '{kind: dead_element, elements: [3]}', or --mend")
    script, timed = (None, False) if given.fault is None else parsed(given.fault)
    frontend = Remote(given.endpoint, timeout_s=given.timeout_s, warn_s=given.timeout_s / 2).open(None)
    done: list[dict[str, Any]] = []
    try:
        at_ns = script.at_ns if script is not None and timed else None
        for one in (None,) if script is None else script.broken():
            told = "everything" if one is None else str(one)
            since_ns = frontend.clear(one, at_ns) if given.mend or one is None else frontend.inject(one, at_ns)
            done.append({"fault": told, "mended" if given.mend else "broken": True, "since_ns": since_ns})
            if script is not None and script.until_ns is not None and not given.mend:
                frontend.clear(one, script.until_ns)
                done[-1]["until_ns"] = script.until_ns
    finally:
        frontend.close()
    if given.json:
        json.dump({"machine": frontend.spec.name, "endpoint": given.endpoint, "faults": done}, sys.stdout, indent=1)
        print()
        return 0
    for entry in done:
        until = f" until {entry['until_ns'] / 1e6:g} ms" if "until_ns" in entry else ""
        print(
            f"{frontend.spec.name}: {entry['fault']} {'mended' if given.mend else 'broken'} from {entry['since_ns'] / 1e6:.6f} ms on{until}"
        )
    return 0
