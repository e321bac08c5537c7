"""How figures look, and how they become part of a page. Colours are Okabe and Ito's, and never the only difference."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any, ParamSpec

__all__ = [
    "ALARM",
    "BLACK",
    "COLOURS",
    "GREY",
    "GRID",
    "STROKES",
    "Sheet",
    "canvas",
    "every",
    "look",
    "picture",
    "plainly",
    "styled",
]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8F7A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STROKES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
BLACK, GREY, ALARM = "#1a1a1a", "#767676", "#D55E00"
GRID: dict[str, Any] = {"color": "#dddddd", "linewidth": 0.5}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and the reader's own fonts draw it
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
WIDTH_IN = 9.0
LARGEST_SVG = 400_000  # bytes; a heavier picture is drawn as pixels

P = ParamSpec("P")


@dataclass(frozen=True)
class Sheet:
    """One figure of a report: a drawing, or a sentence on why there is none."""

    name: str  # also its anchor
    title: str
    caption: str
    drawing: Any = None  # matplotlib's Figure
    missing: str = ""


def styled(draw: Callable[P, Sheet]) -> Callable[P, Sheet]:
    """Draws in the house's style, and leaves matplotlib's own settings as they were."""

    @wraps(draw)
    def within(*given: P.args, **named: P.kwargs) -> Sheet:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*given, **named)

    return within


def canvas(height_in: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """An empty drawing and its axes ``[row column]``; no window and no global state."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    return drawing, drawing.subplots(rows, columns, squeeze=False, **options)


def look(i: int) -> dict[str, Any]:
    """Colour, marker and stroke of the ``i``-th curve: no two of 28 are alike."""
    n = len(COLOURS)
    return {"color": COLOURS[i % n], "marker": MARKERS[(i + i // n) % n], "linestyle": STROKES[(i // n) % len(STROKES)]}


def every(subframes: int) -> str:
    """How often, in words."""
    return "every subframe" if subframes == 1 else f"every {subframes}th subframe"


def plainly(axis: Any) -> None:
    """Numbers on a logarithmic axis, whose data are drawn, as people write them: 1, 10, 100, and 2 and 5 between where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 300 * low else (1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def picture(sheet: Sheet) -> str:
    """Markup of the drawing: SVG within the page, or a PNG where that would be heavy. Deterministic, and no address in it is ever fetched."""
    from matplotlib import rc_context

    for axes in sheet.drawing.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with rc_context({**STYLE, "svg.hashsalt": sheet.name}):
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        sheet.drawing.savefig(out, format="svg", transparent=True, metadata=nothing)
        text = out.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{sheet.name}-", svg)  # unique among the figures of a page
        title = escape(sheet.title)
        if len(svg) <= LARGEST_SVG:
            return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
        pixels = io.BytesIO()
        sheet.drawing.savefig(pixels, format="png", dpi=130, transparent=True)
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(pixels.getvalue()).decode()}"/>'
