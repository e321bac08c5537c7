"""How the figures of the reproduction are drawn: curves of means over draws with their 95 % bands, straight from a CSV's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from twin.drawing import GRID, canvas, look

__all__ = ["Panel", "curves", "figure"]

Panel = tuple[Any, Sequence[Mapping[str, Any]]]  # axes, and the rows that are drawn in them


def figure(panels: int = 1, height_in: float = 3.4) -> tuple[Any, list[Any]]:
    """An empty drawing of panels side by side, two a row."""
    rows, columns = -(-panels // 2), min(panels, 2)
    drawing, axes = canvas(height_in * rows, rows, columns)
    flat = list(axes.flat)
    for spare in flat[panels:]:
        spare.set_visible(False)
    return drawing, flat[:panels]


def curves(
    axis: Any,
    found: Iterable[Mapping[str, Any]],
    x: str,
    y: str,
    by: str,
    *,
    names: Sequence[Any] | None = None,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log_x: bool = False,
    log_y: bool = False,
    scale: float = 1.0,
    legend: bool = True,
) -> None:
    """One curve a value of ``by``: mean of ``y`` over the rows at each ``x`` (geometric on a logarithmic axis), and its 95 % band."""
    kept = [r for r in found if np.isfinite(float(r[y])) and (not log_y or float(r[y]) > 0)]
    for i, name in enumerate(names if names is not None else dict.fromkeys(r[by] for r in kept)):
        mine = [r for r in kept if r[by] == name]
        places = sorted({float(r[x]) for r in mine})
        if not places:
            continue
        at = [np.array([float(r[y]) * scale for r in mine if float(r[x]) == p]) for p in places]
        values = [np.log(v) for v in at] if log_y else at
        mean = np.array([v.mean() for v in values])
        half = np.array([1.96 * v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else 0.0 for v in values])
        back = np.exp if log_y else np.asarray
        dense = len(places) > 14
        axis.plot(places, back(mean), label=str(name), linewidth=1.2, markersize=0 if dense else 3.5, **look(i))
        axis.fill_between(places, back(mean - half), back(mean + half), color=look(i)["color"], alpha=0.15, linewidth=0)
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    axis.set(xlabel=xlabel or x, ylabel=ylabel or y)
    axis.set_title(title)
    axis.grid(**GRID)
    axis.spines[["top", "right"]].set_visible(False)
    if legend and axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=7.5)
