"""Every speed this project claims, in one table: the naive way or a peer and ours by turns in one process, after both gave the same result.

A row's ratio is the reference's CPU time over ours, the median over turns with its quartiles; "above floor" is how many times ours takes what no way can
do without, timed beside it. ``--list`` says what there is. Then the stages of a subframe of the street.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench.row import Absent, Disagreement, Pace, Row, measured

PACES = {"quick": Pace(turns=3, seconds=0.5), "full": Pace(turns=3, seconds=5.0)}
MODULES = (
    "engine",
    "channel",
    "oddm",
    "sensing",
    "precoders",
    "csp_net",
    "dual_scale",
    "state",
    "set_beam",
    "street",
    "peers",
)
EPILOG = """examples:
  python -m tools.bench quick                                   two minutes
  python -m tools.bench --only oddm --only peer.sionna          rows by name, or by what their names begin with
  python -m tools.bench full --json now.json --compare then.json --strict
  python -m tools.bench --against HEAD~1 quick                  stages beside an earlier revision's, by turns
"""


def rows() -> list[Row]:
    """All there are, in the table's order."""
    from importlib import import_module

    return [row for name in MODULES for row in import_module(f"tools.bench.{name}").ROWS]


def chosen(names: Sequence[str] | None, pace: str) -> list[Row]:
    """Rows whose name is among these, or begins with one of them and a dot. Raises ValueError for a name that is nobody's."""
    everyone = rows()
    for name in names or ():
        if name != "stages" and not any(_named(row, name) for row in everyone):
            raise ValueError(f"--only {name}: no such row; there are stages, {', '.join(row.name for row in everyone)}")
    if names:
        return [row for row in everyone if any(_named(row, name) for name in names)]
    return [row for row in everyone if pace == "full" or not row.only]


def _named(row: Row, name: str) -> bool:
    return row.name == name or row.name.startswith(f"{name}.")


def line(row: Row, pace: Pace) -> dict[str, Any]:
    """The row's figures, or why there are none: ``status`` is measured, skipped, disagrees or failed; no row's trouble is another's."""
    said = {"name": row.name, "unit": row.unit, "naive": row.naive, "target": row.target, "note": row.note}
    try:
        return {"status": "measured", **measured(row, pace)}
    except Absent as reason:
        return {"status": "skipped", "reason": str(reason), **said}
    except Disagreement as reason:
        return {"status": "disagrees", "reason": str(reason), **said}
    except Exception as reason:
        return {"status": "failed", "reason": f"{type(reason).__name__}: {reason}", **said}


def told(what: str) -> None:
    """Progress: over itself on a screen, a line each in a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
    elif what:
        print(what, file=sys.stderr, flush=True)


def report(wanted: list[Row], pace: str, stages: float, scenario: str) -> dict[str, Any]:
    """Facts, rows, and the clock's figures of so many seconds of the scenario (0: none)."""
    from tools.bench.facts import facts

    out: dict[str, Any] = {"facts": facts(), "pace": pace, "rows": [], "stages": None}
    for i, row in enumerate(wanted):
        told(f"{i + 1}/{len(wanted)} {row.name}")
        out["rows"].append(line(row, PACES[pace]))
    if stages:
        from tools.bench.street import timed

        told(f"stages of {scenario}")
        out["stages"] = timed(scenario, stages)
    told("")
    return out


def compared(found: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Print each ratio beside an earlier report's; returns what is worse."""
    from tools.bench.table import changes, figure

    before = json.loads(path.read_text(encoding="utf-8"))
    lines = changes(found, before)
    print(f"\nratios beside {path} ({before['facts']['revision']}, {before['facts']['processor']})")
    for one in lines:
        now = "gone" if one["now"] is None else f"{figure(one['now'])} ({one['change']:.2f} x)"
        print(f"  {one['name']:<30}{figure(one['before']):>10} -> {now}{'  WORSE' if one['worse'] else ''}")
    return [one for one in lines if one["worse"]]


def against(revision: str, scenario: str, seconds: float, as_json: bool) -> int:
    """Stages before and after."""
    from tools.bench.street import compared

    found = compared(revision, scenario, seconds)
    if as_json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return 0
    print(f"{'stage':<12}{'before us':>12}{'after us':>12}{'ratio':>8}")
    for row in found:
        print(f"{row['stage']:<12}{row['before_us']:>12.0f}{row['after_us']:>12.0f}{row['ratio']:>8.2f}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pace", nargs="?", choices=tuple(PACES), default="full", help="quick: fewer turns, no slow rows"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="a row, a family of rows, or stages; repeatable"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="the figures as JSON, there or as the only output"
    )
    parser.add_argument("--compare", type=Path, metavar="EARLIER.json", help="print how each ratio has changed")
    parser.add_argument(
        "--strict", action="store_true", help="with --compare: exit 1 where a ratio fell by more than its spread"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the table between the bench markers of a document"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--peers-python", metavar="PYTHON", help="interpreter that has the peers (default: this one)")
    parser.add_argument("--scenario", default="scenarios/street.yaml", help="whose stages (default %(default)s)")
    parser.add_argument(
        "--against", metavar="REVISION", help="of git: time the stages of both, by turns, and nothing else"
    )
    given = parser.parse_args(argv)
    if given.compare is not None and given.json == "-":
        parser.error("--compare prints beside the table; give --json a FILE")
    if given.peers_python:
        os.environ["BENCH_PEERS_PYTHON"] = given.peers_python
    seconds = 0.5 if given.pace == "quick" else 10.0
    if given.against is not None:
        return against(given.against, given.scenario, max(seconds, 1.0), given.json is not None)
    try:
        wanted = chosen(given.only, given.pace)
    except ValueError as error:
        parser.error(str(error))
    if given.list:
        for row in rows():
            print(f"{row.name:<30}{'(full) ' if row.only else ''}{row.unit}; against {row.naive}")
        return 0
    from tools.bench.table import head, markdown, text, written
    from twin.engine import table

    stages = seconds if not given.only or "stages" in given.only else 0.0
    found = report(wanted, given.pace, stages, given.scenario)
    if given.json == "-":
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        print(text(found) if wanted else head(found))
        if found["stages"]:
            print(f"\n{given.scenario}, stages of {found['stages']['subframes']} subframes, one process, one thread")
            print(table(found["stages"]))
        if given.json:
            Path(given.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.write is not None:
        stage = (
            f"\n\nStages of `{given.scenario}`:\n\n```text\n{table(found['stages'])}\n```" if found["stages"] else ""
        )
        written(given.write, markdown(found) + stage)
    worse = compared(found, given.compare) if given.compare is not None else []
    wrong = any(row["status"] in ("disagrees", "failed") for row in found["rows"])
    return 1 if wrong or (given.strict and worse) else 0


if __name__ == "__main__":
    raise SystemExit(main())
