"""The table: for people, for documents, and against an earlier one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hal.errors import Misuse

__all__ = ["changes", "duration", "figure", "head", "markdown", "text", "written"]

BEGIN, END = "<!-- bench: begin", "<!-- bench: end -->"
STILL = 0.1  # a ratio may change by so much between two runs of one program: memory is laid out anew
LEGEND = "What an item is, against what, and where the work differs (x: multiplied up from a part):"
COLUMNS = ("row", "reference", "ours", "ratio", "quartiles", "target", "above floor")


def duration(microseconds: float) -> str:
    """Two or three figures and a unit."""
    for unit, size, limit in (("us", 1.0, 1e3), ("ms", 1e3, 1e6), ("s", 1e6, 3.6e9)):
        if microseconds < limit:
            return f"{figure(microseconds / size)} {unit}"
    return f"{figure(microseconds / 3.6e9)} h"


def figure(value: float) -> str:
    """Two or three figures, whole from a hundred up, thousands apart."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}".replace(",", " ")
    return f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["status"] != "measured":
        return (row["name"], row["status"], "", "", "", "", "")
    ratio, above = row["ratio"], row["above_floor"]
    target = "" if row["target"] is None else f"{figure(row['target'])} {'met' if row['met'] else 'NOT MET'}"
    return (
        row["name"],
        duration(row["naive_us"]["median"]) + (" x" if row["extrapolated"] else ""),
        duration(row["ours_us"]["median"]),
        figure(ratio["median"]),
        f"{figure(ratio['q1'])} .. {figure(ratio['q3'])}",
        target,
        "" if above is None else figure(above["median"]),
    )


def head(report: dict[str, Any]) -> str:
    """Where and how the figures came about."""
    about = report["facts"]
    load = f"load average {about['load'][0]:g} at the start, " if about["load"] else ""
    return (
        f"{about['processor']}, {about['cores']} cores, {load}{about['system']}, Python {about['python']}, "
        f"NumPy {about['packages'].get('numpy', '?')}, Numba {about['packages'].get('numba', '?')}; "
        f"revision {about['revision'] or 'unknown'}, pace {report['pace']}"
    )


def text(report: dict[str, Any]) -> str:
    """The table in columns, and below it what stands against what."""
    cells = [COLUMNS, *(_cells(row) for row in report["rows"])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = [head(report), ""]
    for line in cells:
        lines.append("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]))
    lines += ["", LEGEND]
    lines += [f"  {row['name']}: {_said(row)}" for row in report["rows"]]
    return "\n".join(line.rstrip() for line in lines)


def _said(row: dict[str, Any]) -> str:
    against = f"{row['naive']} ({row['peer']})" if row.get("peer") else row["naive"]
    said = f"{row['unit']}; against {against}"
    if row["status"] != "measured":
        return f"{said}. {row['status'].upper()}: {row['reason']}"
    if row["floor"]:
        said += f"; floor: {row['floor']}, {duration(row['floor_us']['median'])}"
    return said + (f". {row['note']}" if row["note"] else "")


def markdown(report: dict[str, Any]) -> str:
    """The same for a document."""
    lines = [f"{head(report)}.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in report["rows"]:
        cells = _cells(row)
        lines.append("| " + " | ".join((f"`{cells[0]}`", *cells[1:])) + " |")
    lines += ["", LEGEND, ""]
    lines += [f"- `{row['name']}`: {_said(row)}" for row in report["rows"]]
    return "\n".join(lines)


def written(path: Path, body: str) -> None:
    """Put ``body`` between the two markers of a document. Raises Misuse where they are not there, once and in order."""
    page = path.read_text(encoding="utf-8")
    if not (page.count(BEGIN) == 1 == page.count(END) and page.index(BEGIN) < page.index(END)):
        raise Misuse(f"{path}: needs a line that starts with '{BEGIN}' and after it one that is '{END}'")
    first = page.index("\n", page.index(BEGIN)) + 1
    path.write_text(f"{page[:first]}\n{body}\n\n{page[page.index(END) :]}", encoding="utf-8")


def changes(now: dict[str, Any], before: dict[str, Any]) -> list[dict[str, Any]]:
    """Each row's ratio before and now.

    ``worse``: it fell by more than a tenth, and its quartiles no longer meet those of before; or it was measured, and now disagrees or fails.
    """
    earlier = {row["name"]: row for row in before["rows"]}
    out = []
    for row in now["rows"]:
        other = earlier.get(row["name"])
        if other is None or other["status"] != "measured":
            continue
        line = {"name": row["name"], "before": other["ratio"]["median"], "now": None, "change": None}
        if row["status"] == "measured":
            ratio = row["ratio"]
            line |= {"now": ratio["median"], "change": ratio["median"] / other["ratio"]["median"]}
            line["worse"] = line["change"] < 1 - STILL and ratio["q3"] < other["ratio"]["q1"]
        else:
            line["worse"] = row["status"] in ("disagrees", "failed")
        out.append(line)
    return out
