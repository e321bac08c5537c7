"""``twin device check``: the conformance suite on a machine, for people, for programs and for CI."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hal.conformance import Verdict, check, junit
from hal.devices.remote import Remote
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Frontend

__all__ = ["arguments", "run"]

COLOUR = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "target",
        metavar="ENDPOINT",
        help="where the machine is served (tcp://HOST:PORT), or a scenario whose device is opened here",
    )
    parser.add_argument("--rules", help="only these, comma-separated")
    parser.add_argument("--fresh", action="store_true", help="the machine was just started: slots must be dark")
    parser.add_argument(
        "--latency-ms", type=float, default=100.0, help="limit of set_beam's 99th percentile (default %(default)s)"
    )
    parser.add_argument("--timeout-s", type=float, default=10.0, help="limit of one question (default %(default)s)")
    parser.add_argument(
        "--start-ns",
        type=int,
        help="time of the first command, later than any the machine has heard (default: this computer's uptime)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON, and nothing else")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write them as JUnit XML as well")


def run(given: Namespace) -> int:
    """Run the suite; 0 if no rule is broken, 1 if one is, or if the machine cannot be opened."""
    endpoint = given.target if "://" in given.target else None
    only = None if given.rules is None else [name.strip() for name in given.rules.split(",")]
    with ExitStack() as stack:
        try:
            frontend = _opened(given, endpoint)
        except (RemoteFault, LateArrival) as error:
            if given.junit is not None:
                given.junit.write_text(junit([Verdict("open", "fail", str(error), {})], given.target), encoding="utf-8")
            raise
        stack.callback(frontend.close)
        verdicts = check(
            frontend,
            endpoint,
            only=only,
            latency_limit_s=given.latency_ms * 1e-3,
            start_ns=time.monotonic_ns() if given.start_ns is None else given.start_ns,
            fresh=given.fresh or endpoint is None,
            closing=True,
            told=None if given.json or not sys.stderr.isatty() else _progress,
        )
    name = f"{frontend.spec.name} at {given.target}"
    if given.junit is not None:
        given.junit.write_text(junit(verdicts, name), encoding="utf-8")
    if given.json:
        told = [{"rule": v.rule, "verdict": v.verdict, "says": v.says, "numbers": dict(v.numbers)} for v in verdicts]
        json.dump({"machine": frontend.spec.name, "target": given.target, "verdicts": told}, sys.stdout, indent=1)
        print()
    else:
        show(verdicts, name)
    return int(any(v.verdict == "fail" for v in verdicts))


def show(verdicts: list[Verdict], name: str) -> None:
    """The verdicts as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"conformance of {escape(name)}", title_justify="left", box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding", overflow="fold")
    for v in verdicts:
        table.add_row(v.rule, f"[{COLOUR[v.verdict]}]{v.verdict}[/]", escape(v.says))
    console = Console()
    console.print(table)
    count = {kind: sum(v.verdict == kind for v in verdicts) for kind in COLOUR}
    console.print(f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped")


def _progress(verdict: Verdict) -> None:
    print(f"\r{verdict.rule:<20}", end="\r", file=sys.stderr, flush=True)


def _opened(given: Namespace, endpoint: str | None) -> Frontend:
    if endpoint is not None:
        return Remote(endpoint, timeout_s=given.timeout_s, warn_s=given.timeout_s / 2).open(None, None)
    if not Path(given.target).is_file():
        raise Misuse(f"{given.target}: is neither an endpoint (tcp://HOST:PORT) nor a scenario file")
    from twin.build import open_frontend
    from twin.scenario import load

    scenario: Any = load(given.target)
    return open_frontend(scenario)
