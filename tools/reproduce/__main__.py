"""Every claim of the three papers from one command: makes the numbers, draws them, judges them, and writes docs/reproduction.md."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from twin.sweep.farm import farm

FOLDER = Path("runs/reproduce")
DOCUMENT = Path("docs/reproduction.md")
PAPERS = {
    "squint": ("papers/000", "squint-aware hybrid precoding with true-time delays and phase shifters"),
    "oddm": ("papers/001", "ODDM sensing with hybrid beamforming"),
    "dual": ("papers/004", "dual-scale channel estimation: angles from sensing, gains from pilots"),
}
HOLDS = ("holds", "holds with other reading", "fails")


def names() -> list[str]:
    """Every figure, table, proposition and claim there is a file for: ``squint.fig4a``."""
    files = sorted(Path(__file__).parent.glob("*_*.py"))
    return [file.stem.replace("_", ".", 1) for file in files if not file.stem.startswith("_")]


def module(name: str) -> ModuleType:
    """The file of a name; ``dual.prop2`` is ``dual.proposition2``."""
    paper, _, rest = name.partition(".")
    if rest.startswith("prop") and not rest.startswith("proposition"):
        rest = "proposition" + rest[len("prop") :]
    if f"{paper}.{rest}" not in names():
        from twin.registry import nearest

        raise SystemExit(
            f"{name}: there is no such figure; nearest: {', '.join(nearest(f'{paper}.{rest}', names())[:5])}"
        )
    return import_module(f"tools.reproduce.{paper}_{rest}")


def judged(name: str, quick: bool, keep: bool) -> dict[str, Any]:
    """Make one CSV (unless kept), draw it and judge it."""
    made = module(name)
    path = FOLDER / f"{made.__name__.rpartition('.')[2]}.csv"
    began = time.perf_counter()
    if not (keep and path.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        made.make(path, quick)
    claims = made.verdict(path)
    figure = None
    if hasattr(made, "draw"):
        from matplotlib import rc_context

        from twin.drawing import STYLE

        with rc_context(STYLE):
            figure = path.with_suffix(".png")
            made.draw(path).savefig(figure, dpi=130)
    return {
        "name": name,
        "about": (made.__doc__ or "").splitlines()[0],
        "csv": str(path),
        "figure": None if figure is None else str(figure),
        "seconds": time.perf_counter() - began,
        "claims": claims,
    }


def document(found: list[dict[str, Any]], pace: str) -> str:
    """``docs/reproduction.md``: what the command found and nothing else."""
    every = [c for one in found for c in one["claims"]]
    counts = ", ".join(f"{sum(c['verdict'] == v for c in every)} {v}" for v in HOLDS)
    lines = [
        "# What of the papers reproduces",
        "",
        f"Written by `make reproduce` ({pace}); do not edit. {len(every)} claims: {counts}.",
        "",
        "A verdict is computed from the CSV of its row by the file named with it: *holds* as printed, *holds with other reading* (named),",
        'or *fails*. Claims that begin with "ours" are about what this project adds. Readings and errors found in the papers\' texts are in',
        "the files' own docstrings.",
    ]
    for paper, (number, about) in PAPERS.items():
        mine = [one for one in found if one["name"].startswith(paper + ".")]
        if not mine:
            continue
        lines += ["", f"## {number}: {about}"]
        for one in mine:
            file = one["name"].replace(".", "_", 1)
            lines += [
                "",
                f"### {one['name']}",
                "",
                f"{_cell(one['about'])} `make reproduce FIG={one['name']}`, [tools/reproduce/{file}.py](../tools/reproduce/{file}.py)",
                "",
            ]
            lines += ["| claim | verdict | numbers | reading |", "|---|---|---|---|"]
            for claim in one["claims"]:
                numbers = ", ".join(f"{k} {v:.4g}" for k, v in claim.items() if isinstance(v, float))
                reading = "; ".join(
                    str(v) for k, v in claim.items() if k not in ("claim", "verdict") and isinstance(v, str)
                )
                lines.append(f"| {_cell(claim['claim'])} | {claim['verdict']} | {numbers} | {_cell(reading)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """``make reproduce [FIG=squint.fig4a] [PACE=full]``."""
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__)
    parser.add_argument(
        "pace",
        nargs="?",
        choices=("quick", "full"),
        default="quick",
        help="quick: few draws and points, five minutes in all; full: an hour or more",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="this figure or proposition only, e.g. squint.fig4a, dual.prop2; may be given again",
    )
    parser.add_argument("--keep", action="store_true", help="judge and draw the CSVs that are there")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes to spread the figures over (default: this one alone; needs the extra sweep)",
    )
    parser.add_argument("--list", action="store_true", help="print the names and leave")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name:24s} {(module(name).__doc__ or '').splitlines()[0]}" for name in names()))
        return 0
    chosen = given.only or names()
    for name in chosen:
        module(name)
    work = partial(judged, quick=given.pace == "quick", keep=given.keep)
    table: dict[str, dict[str, Any]] = {}
    with farm(given.workers) as hands:
        for name, one, why in (done for some in hands.spread(work, chosen) for done in some):
            if one is None:
                raise SystemExit(f"{name}: {why}")
            table[name] = one
            print(f"{len(table)}/{len(chosen)} {name}: {one['seconds']:.1f} s", file=sys.stderr, flush=True)
            if not given.json:
                for claim in one["claims"]:
                    print(f"  {claim['verdict']:24s} {claim['claim']}")
    found = [table[name] for name in chosen]
    if given.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    if not given.only:
        DOCUMENT.write_text(document(found, given.pace), encoding="utf-8")
        print(f"written: {DOCUMENT}", file=sys.stderr)
    elif not given.json:
        print("\n".join(f"{one['csv']}{' and ' + one['figure'] if one['figure'] else ''}" for one in found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
