"""A sweep's table drawn: key figure against parameter with confidence bands, paired differences, and one figure against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from twin.drawing import GREY, GRID, Sheet, canvas, look, styled
from twin.registry import nearest
from twin.sweep.table import Mean, mean_of, paired, read_table

__all__ = ["POINT_FIGURES", "Drawn", "grouped", "plot"]

POINT_FIGURES = {
    "rate_gbps": "rate Gbit/s",
    "tracks.alive_share": "tracks alive",
    "sensing.rmse.range_m": "range rmse m",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """A picture and what it shows in words and numbers."""

    file: Path
    sentences: list[str]
    told: dict[str, Any]


def grouped(rows: Sequence[Row], parameters: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """The rows of each point, by its parameters' values, in the order of the table."""
    points: dict[int, list[Row]] = {}
    for row in rows:
        points.setdefault(row["point"], []).append(row)
    return [(tuple(_plain(mine[0].get(name)) for name in parameters), mine) for mine in points.values()]


def plot(
    folder: Path,
    *,
    x: str | None = None,
    ys: Sequence[str] = (),
    by: str | None = None,
    pareto: Sequence[str] | None = None,
    out: Path | None = None,
) -> Drawn:
    """Draw the table in ``folder`` into ``out`` (.png, .svg or .pdf; default: beside the table).

    Raises:
        Misuse: no table, an unknown parameter or key figure, nothing that varies.
    """
    rows, parameters = read_table(folder if folder.suffix == ".parquet" else folder / "table.parquet")
    figures = [n for n, v in rows[0].items() if n not in {"index", "point", *parameters} and not isinstance(v, str)]
    for name in (*ys, *(pareto or ())):
        _known(name, figures, "key figure")
    for parameter in (x, by):
        if parameter is not None:
            _known(parameter, [*parameters, "seed"], "parameter")
    sound = [row for row in rows if row["error"] is None]
    if not sound:
        raise Misuse(f"{folder}: all {len(rows)} runs failed; the first said: {rows[0]['error']}")
    target = out or (folder if folder.is_dir() else folder.parent) / ("pareto.png" if pareto else "sweep.png")
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise Misuse(f"--out {target}: must end in .png, .svg or .pdf")
    across = x or _across(sound, parameters)
    curves = by or next((p for p in parameters if p != across and _many(sound, p)), None)
    if pareto:
        sheet, sentences, told = _pareto(sound, parameters, pareto[0], pareto[1], curves or across)
    else:
        if across is None:
            raise Misuse(
                f"{folder}: nothing varies but the seed, so there is no axis to draw along; --pareto A B draws runs"
            )
        sheet, sentences, told = _lines(sound, parameters, across, curves, ys or ("rate_gbps",))
    sheet.drawing.savefig(target, dpi=130)
    failed = len(rows) - len(sound)
    return Drawn(target, [*sentences, *([f"{failed} failed runs are left out"] if failed else [])], told)


def _known(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise Misuse(f"{name}: the table has no such {what}; nearest: {', '.join(nearest(name, list(known))[:4])}")


def _many(rows: Sequence[Row], name: str) -> bool:
    return len({str(row[name]) for row in rows}) > 1


def _across(rows: Sequence[Row], parameters: Sequence[str]) -> str | None:
    varying = [p for p in parameters if _many(rows, p)]
    numeric = [p for p in varying if all(_number(row[p]) for row in rows)]
    return max(numeric or varying, key=lambda p: len({str(row[p]) for row in rows}), default=None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


@styled
def _sheet(draw: Any) -> Sheet:
    return Sheet("sweep", "", "", draw())


def _lines(
    rows: Sequence[Row], parameters: Sequence[str], x: str, by: str | None, ys: Sequence[str]
) -> tuple[Sheet, list[str], dict[str, Any]]:
    """Means over seeds and over whatever else varies, with bands; a second column of paired differences where there are curves to compare."""
    places = list(dict.fromkeys(row[x] for row in rows))
    if all(map(_number, places)):
        places.sort()
    names = list(dict.fromkeys(row[by] for row in rows)) if by else [None]
    told: dict[str, Any] = {"x": x, "by": by, "figures": {}}
    sentences = []

    def values(y: str, name: Any, place: Any) -> dict[int, float | None]:
        # a case's twin under another curve has the same seed and the same other parameters
        mine = [r for r in rows if r[x] == place and (by is None or r[by] == name)]
        others = [p for p in parameters if p not in (x, by)]
        return {hash((r["seed"], *(str(r[p]) for p in others))): r.get(y) for r in mine}

    def draw() -> Any:
        compared = len(names) > 1
        drawing, axes = canvas(0.4 + 2.9 * len(ys), len(ys), 2 if compared else 1)
        for n, y in enumerate(ys):
            means = {name: [mean_of(values(y, name, place).values()) for place in places] for name in names}
            for i, name in enumerate(names):
                _curve(axes[n][0], places, means[name], str(_plain(name)) if by else "", i)
            axes[n][0].set_ylabel(y)
            told["figures"][y] = {
                str(name): [
                    {"x": p, "mean": m.value, "half": m.half, "count": m.count}
                    for p, m in zip(places, means[name], strict=True)
                ]
                for name in names
            }
            if compared:
                first = names[0]
                for i, name in enumerate(names[1:], start=1):
                    differences = [paired(values(y, first, place), values(y, name, place)) for place in places]
                    _curve(axes[n][1], places, differences, f"{_plain(name)} − {_plain(first)}", i)
                    sentences.append(_said(y, str(_plain(name)), str(_plain(first)), x, places, differences))
                axes[n][1].axhline(0, color=GREY, linewidth=0.8)
                axes[n][1].set_ylabel("difference")
        for axis in axes.flat:
            axis.grid(**GRID)
            axis.set_xlabel(x)
            axis.spines[["top", "right"]].set_visible(False)
            if axis.get_legend_handles_labels()[1]:  # below: bands fill the axes
                axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        axes[0][0].set_title("mean over runs, 95 % band")
        if compared:
            axes[0][1].set_title("paired differences, same seeds, 95 % band")
        return drawing

    return _sheet(draw), sentences, told


def _curve(axis: Any, places: Sequence[Any], means: Sequence[Mean], label: str, i: int) -> None:
    at = np.array(places, dtype=float) if all(map(_number, places)) else np.arange(len(places))
    value, half = (np.array([getattr(m, part) for m in means]) for part in ("value", "half"))
    axis.plot(at, value, label=label or None, markersize=3.5, linewidth=1.2, **look(i))
    axis.fill_between(at, value - half, value + half, color=look(i)["color"], alpha=0.18, linewidth=0)
    if not all(map(_number, places)):
        axis.set_xticks(at, [str(p) for p in places])
    elif len(at) > 2 and at[0] > 0 and np.ptp(np.diff(np.log(at))) < 0.05 * np.ptp(np.log(at)) < np.ptp(np.diff(at)):
        axis.set_xscale("log")


def _said(y: str, name: str, first: str, x: str, places: Sequence[Any], differences: Sequence[Mean]) -> str:
    sure = [(p, m) for p, m in zip(places, differences, strict=True) if m.count > 1 and abs(m.value) > m.half]
    if not sure:
        return f"{y}: {name} and {first} show no difference at any {x}"
    place, most = max(sure, key=lambda pair: abs(pair[1].value))
    return (
        f"{y}: {name} differs from {first} at {len(sure)} of {len(places)} values of {x}, "
        f"most by {most.value:+.4g} ± {most.half:.2g} at {x} = {_plain(place)}"
    )


def _pareto(
    rows: Sequence[Row], parameters: Sequence[str], a: str, b: str, by: str | None
) -> tuple[Sheet, list[str], dict[str, Any]]:
    """Points' means of two figures: more of the first is better, less of the second; the front is joined."""
    points = grouped(rows, parameters)
    at = np.array([[mean_of(r.get(f) for r in mine).value for f in (a, b)] for _, mine in points])
    at_known = np.isfinite(at).all(axis=1)
    if not at_known.any():
        raise Misuse(f"--pareto {a} {b}: no point has both")
    best = [
        i
        for i in np.flatnonzero(at_known)
        if not any(
            (at[j, 0] >= at[i, 0]) & (at[j, 1] <= at[i, 1]) & (at[j] != at[i]).any() for j in np.flatnonzero(at_known)
        )
    ]
    best.sort(key=lambda i: float(at[i, 0]))
    labels = [str(_plain(mine[0][by])) if by else "" for _, mine in points]

    def draw() -> Any:
        drawing, axes = canvas(4.2)
        axis = axes[0][0]
        axis.plot(
            *at[best].T, color=GREY, linewidth=1, drawstyle="steps-post", zorder=1, label="nothing is better in both"
        )
        for i, name in enumerate(dict.fromkeys(labels)):
            mine = at_known & (np.array(labels) == name)
            axis.plot(*at[mine].T, label=name or None, **{**look(i), "linestyle": ""})
        axis.set(xlabel=f"{a} (more is better)", ylabel=f"{b} (less is better)")
        spread = at[at_known, 1]
        if spread.min() > 0 and spread.max() > 20 * spread.min():
            axis.set_yscale("log")
        axis.grid(**GRID)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(title=by)
        return drawing

    front = [dict(zip(parameters, points[i][0], strict=True)) | {a: at[i, 0], b: at[i, 1]} for i in best]
    said = [f"{len(best)} of {int(at_known.sum())} points are on the front:"]
    said += ["  " + ", ".join(f"{k} {_plain(v)}" for k, v in one.items()) for one in front]
    return _sheet(draw), said, {"front": front}
