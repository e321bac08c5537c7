"""``twin diff``: what differs between two runs, in the scenario and in the key figures, and whether the difference is more than chance."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from twin.drawing import BLACK, COLOURS, GREY, GRID, STROKES, Sheet, canvas, picture, styled
from twin.history import folder_of, settings, told
from twin.paired import CONFIDENCE, SAME, Paired

__all__ = ["arguments", "diff", "drawn", "flattened", "plot", "run", "table"]

DRAWN = 40  # figures in a plot


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin diff`` takes."""
    parser.add_argument("a", type=Path, metavar="RUN", help="run directory, as twin run left it")
    parser.add_argument("b", type=Path, metavar="RUN", help="the one to compare with it")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON, and nothing else")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="also draw it: a page (.html) or a picture (.png, .svg)"
    )


def run(given: argparse.Namespace) -> int:
    """``twin diff``: print the comparison, and draw it where asked."""
    if given.out is not None and given.out.suffix not in (".html", ".png", ".svg"):
        raise Misuse(f"--out {given.out}: must end in .html, .png or .svg")
    found = diff(given.a, given.b)
    if given.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        print(table(found))
    if given.out is not None:
        print(f"drawn in {plot(found, given.out)}", file=sys.stderr)
    return 0


def diff(a: str | Path, b: str | Path, since: int = 0) -> dict[str, Any]:
    """Compare two run directories from subframe ``since`` on; the result is plain data, fit for JSON.

    ``scenario``: dotted key -> both values (None: not there). ``hash``: ``equal`` (None: one is unknown) and both. ``first``: subframe, time and
    columns where the key figures first differ, or None. ``figures``: for each key figure both means over the subframes in which both have it,
    their ``difference`` b - a, ``low`` and ``high``, and a ``verdict``: "higher", "lower", "no difference" (the interval holds 0), "equal" (in
    every subframe) or "too short". Differences are paired subframe by subframe; intervals are batch means (``twin.paired.interval``), widened
    (Bonferroni) so that those of all figures hold together with 95 %. ``rate``: the sum rate of both over time. ``notes``: what could not be
    compared. Raises Misuse for what is not a run directory, or has no readable kpi.csv.
    """
    folders = [folder_of(a), folder_of(b)]
    one, other = (flattened(settings(folder)) for folder in folders)
    keys = [
        key for key in dict.fromkeys((*one, *other)) if key not in one or key not in other or one[key] != other[key]
    ]
    hashes, notes = [], []
    for folder in folders:
        summary, wrong = told(folder)
        hashes.append(summary.get("run", {}).get("hash"))
        if wrong:
            notes.append(f"{folder}: {wrong}")
        elif summary.get("run", {}).get("interrupted"):
            notes.append(f"{folder}: the run was interrupted.")
    pair = Paired(folders[0], folders[1], since).read()
    return {
        "a": str(folders[0]),
        "b": str(folders[1]),
        "scenario": {key: [one.get(key), other.get(key)] for key in keys},
        "hash": {"equal": None if None in hashes else hashes[0] == hashes[1], "a": hashes[0], "b": hashes[1]},
        "subframes": {"a": pair.rows[0], "b": pair.rows[1], "compared": pair.paired},
        "first": pair.first,
        "confidence": CONFIDENCE,
        "figures": pair.judged(),
        "rate": pair.sum_rates(),
        "notes": notes + pair.notes,
    }


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """Nested values as dotted keys; entries of a list go by their ``name`` where all have one, lists of plain values stay whole.

    Values are fit for JSON: what YAML calls null is "null", and infinities are texts.
    """
    if isinstance(value, Mapping):
        inner = [(str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        names = [entry.get("name") for entry in value]
        by_name = None not in names and len(set(names)) == len(names)
        inner = [(str(names[i] if by_name else i), entry) for i, entry in enumerate(value)]
    else:
        odd = value is None or (isinstance(value, float) and not np.isfinite(value))
        return {name: ("null" if value is None else str(value)) if odd else value}
    out: dict[str, Any] = {}
    for key, entry in inner:
        out.update(flattened(entry, f"{name}.{key}" if name else key))
    return out


def table(found: Mapping[str, Any]) -> str:
    """The comparison as a person reads it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=None, record=False)
    with console.capture() as captured:
        keys = Table(title="scenario", title_justify="left", box=None, pad_edge=False)
        for column in ("key", "a", "b"):
            keys.add_column(column, overflow="fold")
        for key, values in found["scenario"].items():
            keys.add_row(key, *map(shown, values))
        if found["scenario"]:
            console.print(keys)
        figures = Table(title="key figures that differ", title_justify="left", box=None, pad_edge=False)
        for column in ("figure", "a", "b", "b - a", "95 % interval", "b is"):
            figures.add_column(column, justify="left" if column in ("figure", "b is") else "right", overflow="fold")
        for name, f in found["figures"].items():
            if f["verdict"] not in ("equal", SAME, "too short"):
                figures.add_row(*row(name, f))
        if figures.row_count:
            console.print(figures)
    return captured.get() + "\n".join(sentences(found))


def row(name: str, figure: Mapping[str, Any]) -> tuple[str, ...]:
    """A key figure as a line of a table."""
    between = "-" if figure["low"] is None else f"{figure['low']:.3g} .. {figure['high']:.3g}"
    return (name, *(f"{figure[key]:.4g}" for key in ("a", "b", "difference")), between, figure["verdict"])


def shown(value: Any) -> str:
    """A scenario's value, or a dash for a key that is not there."""
    return "-" if value is None else str(value)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What to say of the comparison besides its tables."""
    first, figures, keys = found["first"], found["figures"], len(found["scenario"])
    said = [
        "The scenarios are the same." if not keys else f"{keys} scenario key{' differs' if keys == 1 else 's differ'}."
    ]
    hashes = {
        None: "Run hashes cannot be compared.",
        True: "Run hashes are equal: the same run.",
        False: "Run hashes differ.",
    }
    said.append(hashes[found["hash"]["equal"]])
    if not found["subframes"]["compared"]:
        said.append("No subframe could be compared.")
    elif first is None:
        said.append(f"Key figures are the same in all {found['subframes']['compared']} subframes compared.")
    else:
        names = ", ".join(first["columns"][:3]) + (
            f" and {len(first['columns']) - 3} more" if len(first["columns"]) > 3 else ""
        )
        said.append(f"Key figures first differ in subframe {first['k']}, at {first['t_s']:g} s: {names}.")
        many = {
            verdict: sum(f["verdict"] == verdict for f in figures.values()) for verdict in (SAME, "equal", "too short")
        }
        said.append(
            f"Of {len(figures)} key figures {many['equal']} are equal throughout and {many[SAME]} show no difference: their interval holds 0."
            + (f" The runs are too short to judge {many['too short']}." if many["too short"] else "")
        )
    return [*said, *found["notes"]]


def plot(found: Mapping[str, Any], target: Path) -> Path:
    """Draw the comparison into ``target`` (.html, .png or .svg) and return it; Misuse where there is nothing to draw in a picture."""
    from twin.report import page
    from twin.report import table as html

    sheet = drawn(found)
    if target.suffix != ".html":
        if sheet.drawing is None:
            raise Misuse(f"{target}: there is nothing to draw. {sheet.missing}")
        sheet.drawing.savefig(target, dpi=130, format=target.suffix[1:])
        return target
    keys = [(key, *map(shown, values)) for key, values in found["scenario"].items()]
    rows = [row(name, f) for name, f in found["figures"].items() if f["verdict"] != "equal"]
    inside = [
        f'<p class="when">a is {escape(found["a"])}, b is {escape(found["b"])}</p>',
        f"<p>{escape(' '.join(sentences(found)))}</p>",
        "<h2>Scenario</h2>" + html(("key", "a", "b"), keys) if keys else "",
        "<h2>Key figures</h2>",
    ]
    if sheet.drawing is None:
        inside.append(f'<p class="missing">{escape(sheet.missing)}</p>')
    else:
        caption = f"<figcaption>{escape(sheet.caption)}</figcaption>"
        inside.append(f'<figure><div class="card">{picture(sheet)}</div>{caption}</figure>')
    if rows:
        inside.append(html(("figure", "a", "b", "b − a", "95 % interval", "b is"), rows, numeric=range(1, 5)))
    target.write_text(page("Difference of two runs", "\n".join(inside)), encoding="utf-8")
    return target


@styled
def drawn(found: Mapping[str, Any]) -> Sheet:
    """Both sum rates over time, and the difference of every key figure with its interval."""
    head, figures = ("diff", "Differences"), found["figures"]
    judged = [(name, f) for name, f in figures.items() if f["low"] is not None and f["verdict"] != "equal"]
    if not judged and not found["rate"]:
        return Sheet(*head, "", missing="No subframe of the one run is at the time of one of the other.")
    some = judged[:DRAWN][::-1]
    tall = 0.22 * max(len(some), 1) + 0.3
    drawing, grid = canvas(3.0 + tall, 2, 1, height_ratios=(2.0, tall))
    above, below = grid[:, 0]
    if found["rate"]:
        k, a, b = (np.array([np.nan if v is None else v for v in found["rate"][key]]) for key in ("k", "a", "b"))
        above.plot(k, a, color=BLACK, linestyle=STROKES[1], linewidth=1.2, label="a")
        above.plot(k, b, color=COLOURS[0], linewidth=1.2, label="b")
        above.legend(loc="lower right", ncols=2)
    above.set(title="rate of all users, Gbit/s", xlabel="subframe", ylim=(0, None))
    above.grid(**GRID)
    for y, (name, f) in enumerate(some):
        colour, marker = {"higher": (COLOURS[0], ">"), "lower": (COLOURS[5], "<")}.get(f["verdict"], (GREY, "o"))
        below.plot([per_cent(name, f, f["low"]), per_cent(name, f, f["high"])], [y, y], color=colour, linewidth=1.4)
        below.plot(per_cent(name, f, f["difference"]), y, marker=marker, color=colour, markersize=5)
    below.axvline(0, color=BLACK, linewidth=0.8)
    below.set_xscale("symlog", linthresh=1.0)
    below.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.set_yticks(range(len(some)), [name for name, _ in some])
    below.set(xlabel="b − a, per cent", ylim=(-0.7, max(len(some), 1) - 0.3))
    below.grid(axis="x", **GRID)
    more = f" {len(judged) - len(some)} more are in the table only." if len(judged) > len(some) else ""
    return Sheet(
        *head,
        "Above: the rate of both runs. Below: the mean difference of each key figure, paired subframe by subframe, with intervals that all hold "
        "together with 95 %, in per cent of the larger of both means (of decibels: of the power); linear within one per cent, logarithmic "
        f"beyond. Grey circles: the interval holds 0, so no difference is shown; triangles point to where b lies.{more}",
        drawing,
    )


def per_cent(name: str, figure: Mapping[str, Any], change: float) -> float:
    """A difference in per cent: of the larger mean, or, where it is one of decibels, of the power."""
    if ", dB" in name:
        return 100.0 * float(np.expm1(change * np.log(10) / 10))
    return float(100 * change / max(abs(figure["a"]), abs(figure["b"]), 1e-300))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
