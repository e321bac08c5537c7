"""What each command of the command line does; ``twin.__main__`` only parses."""

from __future__ import annotations

import json
import signal
import sys
from argparse import Namespace
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["check", "record", "run", "schema", "serve"]


def run(given: Namespace) -> int:
    """``twin run``: play, print a table a person wants to read, and say where the run lies."""
    from twin.build import run as play
    from twin.summary import table

    replaced = dict(pair(text) for text in given.sets)
    for name, value in (
        ("seed", given.seed),
        ("duration_s", given.duration),
        ("clock.overrun", given.overrun),
        ("bus.state", given.state),
        ("bus.keys", given.keys),
        ("bus.insecure", given.insecure or None),
    ):
        if value is not None:
            replaced[name] = value
    if given.pace is not None:
        replaced |= {"clock.mode": "paced", "clock.factor": given.pace}
    done = play(
        given.file,
        set=replaced,
        out=given.out,
        split=given.split,
        progress=not given.json,
        junit=given.junit,
        keep=False,
    )
    if given.json:
        json.dump(done.summary, sys.stdout, indent=1)
        print()
    else:
        print(table(done.summary), flush=True)
    if done.path is not None and given.report and done.summary["run"]["subframes"]:
        from twin.report import report

        report(done.path)
    if not given.json:
        print(f"run directory: {done.path}")
    if given.overrun and done.summary["clock"]["mode"] != "paced":
        print("note: --overrun says what a late subframe does; without --pace none is late", file=sys.stderr)
    broken = done.summary["expect"]["violated"]
    for line in broken:
        print(f"{given.file}:{line['line']}: expect: {line['said']}", file=sys.stderr)
    return 130 if done.interrupted else int(bool(broken))


def interrupted(number: int, frame: FrameType | None) -> None:
    """A polite kill is a Ctrl-C: the recording is closed and the summary written for what ran."""
    raise KeyboardInterrupt


def pair(text: str) -> tuple[str, str]:
    """``path.to.key=value`` as a pair; the scenario reads the value as YAML."""
    from hal.errors import Misuse

    path, equals, value = text.partition("=")
    if not equals or not path:
        raise Misuse(f"--set {text}: must be PATH=VALUE, e.g. --set sensing.dwells=1")
    return path, value


def check(given: Namespace) -> int:
    """``twin check``: every problem at once, or what the scenario means."""
    from twin.facts import facts
    from twin.scenario import ScenarioError, load

    try:
        scenario = load(given.file, dict(pair(text) for text in given.sets))
    except ScenarioError as wrong:
        if not given.json:
            raise
        json.dump({"problems": [str(p) for p in wrong.problems]}, sys.stdout, indent=1)
        print()
        return 2
    found = facts(scenario)
    if given.json:
        json.dump({f.name: {"value": f.value, "unit": f.unit, "note": f.note} for f in found}, sys.stdout, indent=1)
        print()
    else:
        from rich.console import Console
        from rich.table import Table

        shown = Table(title=f"{given.file}: {scenario.title}", title_justify="left", box=None, pad_edge=False)
        for column in ("fact", "value", "unit", "what it means"):
            shown.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
        for f in found:
            shown.add_row(f.name, f"{f.value:.6g}" if isinstance(f.value, float) else str(f.value), f.unit, f.note)
        Console().print(shown)
    return 0


def schema(given: Namespace) -> int:
    """``twin schema``: the JSON Schema of scenario files."""
    from twin.scenario import schema as made

    json.dump(made(), sys.stdout, indent=1)
    print()
    return 0


def serve(given: Namespace) -> int:
    """``twin serve device``: host a scenario's front end until interrupted."""
    from hal.keys import answering
    from hal.serve import serve as host
    from twin.build import open_frontend
    from twin.scenario import load

    replaced: dict[str, Any] = dict(pair(text) for text in given.sets)
    if given.seed is not None:
        replaced["seed"] = given.seed
    scenario = load(given.file, replaced)
    signal.signal(signal.SIGTERM, interrupted)
    frontend = open_frontend(scenario)
    try:
        host(
            frontend,
            given.endpoint,
            announce=lambda endpoint: print(f"serving {frontend.spec.name} on {endpoint}", flush=True),
            keys=None if given.keys is None else answering(given.keys),
            insecure=given.insecure,
        )
    except KeyboardInterrupt:
        return 0
    finally:
        frontend.close()
    return 0


def record(given: Namespace) -> int:
    """``twin record info | recover | export``."""
    from twin import record as recording

    if given.file.is_dir():  # a run directory will do
        given.file = given.file / "recording.mcap"
    if given.verb == "info":
        told = recording.info(given.file)
        if given.json:
            json.dump(told, sys.stdout, indent=1, default=str)
            print()
        else:
            print(recording.told(told))
    elif given.verb == "recover":
        out = given.out or given.file.with_suffix(".recovered.mcap")
        kept = recording.recover(given.file, out)
        print(f"{kept} messages kept in {out}")
    else:
        from twin.export import export

        for made in export(given.file, given.out, given.format or Path(given.out).suffix.lstrip(".")):
            print(made)
    return 0
