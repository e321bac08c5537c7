"""``twin sweep``: play a sweep file, or draw its table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from hal.errors import Misuse

__all__ = ["arguments", "run"]

UPDATE_S, LINE_S = 0.2, 10.0  # between two looks at the progress: on a terminal, elsewhere


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin sweep`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "twin sweep SWEEP.yaml [options]\n       twin sweep plot DIR [options]"
    parser.description = (
        "Run a scenario over grids, lists, random draws and seeds on every core of this machine or on a dask cluster, into\n"
        "one Parquet table; then draw it. A sweep that was interrupted goes on where it was when the command is given again."
    )
    parser.epilog = (
        "A sweep file:\n"
        "  scenario: ../street.yaml            # beside this file\n"
        "  set: {duration_s: 0.5}              # for all runs\n"
        "  over:                               # all combinations\n"
        "    precoder.kind: [direct, delay_phase, no_ttd]\n"
        "    users.0.rcs_m2: {start: 1, stop: 10, step: 3}\n"
        "    seed: 0..19                       # the same for all: differences are paired\n"
        "  until: ci(rate_gbps) < 1 %          # no more seeds than it takes\n\n"
        "Examples:\n"
        "  twin sweep scenarios/sweeps/power.yaml\n"
        "  twin sweep big.yaml --scheduler tcp://10.0.0.5:8786\n"
        "  twin sweep plot sweeps/power --y users.near.snr_db\n"
        "  twin sweep plot sweeps/power --pareto rate_gbps sensing.bound.range_m"
    )
    parser.add_argument(
        "what", nargs="+", metavar="SWEEP.yaml | plot DIR", help="a sweep file, or `plot` and a sweep's directory"
    )
    playing = parser.add_argument_group("playing")
    playing.add_argument(
        "--out", type=Path, help="directory of the sweep (default sweeps/NAME); with plot: the picture to draw"
    )
    playing.add_argument("--workers", type=int, help="processes here (default: one a core; 0: play in this process)")
    playing.add_argument(
        "--scheduler", metavar="ADDRESS", help="a dask scheduler that already runs, e.g. tcp://10.0.0.5:8786"
    )
    playing.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="sets",
        help="replace a value of the sweep file, e.g. over.seed=0..3",
    )
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument(
        "--x", metavar="PARAMETER", help="along the axis (default: the parameter with the most numbers)"
    )
    drawing.add_argument(
        "--y", metavar="FIGURE", action="append", help="key figure, may be given again (default rate_gbps)"
    )
    drawing.add_argument("--by", metavar="PARAMETER", help="a curve a value (default: the first other parameter)")
    drawing.add_argument(
        "--pareto", nargs=2, metavar="FIGURE", help="one figure against another, e.g. rate_gbps sensing.bound.range_m"
    )
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")


def run(given: argparse.Namespace) -> int:
    """``twin sweep``; 0, 1 where runs failed, 130 interrupted."""
    if given.what[0] == "plot":
        if len(given.what) != 2:
            raise Misuse("twin sweep plot DIR: needs one directory, of a sweep")
        return _plot(given)
    if len(given.what) != 1:
        raise Misuse(f"twin sweep takes one sweep file, not {len(given.what)}; `twin sweep plot DIR` draws")
    from twin.commands import pair
    from twin.sweep.conduct import sweep

    line = None if given.json else Line()
    if line is not None and sys.stderr.isatty():
        print("trying every value on the scenario, starting workers", end="", file=sys.stderr, flush=True)
    try:
        done = sweep(
            given.what[0],
            dict(pair(text) for text in given.sets),
            out=given.out,
            workers=given.workers,
            scheduler=given.scheduler,
            say=line,
        )
    finally:
        if line is not None:
            line.close()
    told = {
        "directory": str(done.folder),
        "runs": len(done.rows),
        "played": done.played,
        "known_before": done.known,
        "failed": done.failed,
        "points": done.plan.points,
        "stopped_early": done.stopped_early,
        "seconds": done.seconds,
        "interrupted": done.interrupted,
    }
    if given.json:
        json.dump(told, sys.stdout, indent=1)
        print()
    else:
        print(table(done))
    return 130 if done.interrupted else int(done.failed > 0)


def table(done: Any) -> str:
    """What came of a sweep as a person reads it: a line a point, means over seeds with their 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    from twin.sweep.plot import POINT_FIGURES, grouped

    points = grouped(done.rows, done.plan.parameters)
    console = Console(file=None, record=False)
    with console.capture() as captured:
        shown = Table(title=done.plan.title, title_justify="left", box=None, pad_edge=False)
        for name in done.plan.parameters:
            shown.add_column(name, overflow="fold")
        for name in ("runs", *POINT_FIGURES.values()):
            shown.add_column(name, justify="right")
        for values, rows in points[:40]:
            cells = [str(sum(row["error"] is None for row in rows))]
            for figure in POINT_FIGURES:
                mean = _mean(rows, figure)
                cells.append(
                    "-" if not mean.count else f"{mean.value:.4g}" + ("" if mean.count < 2 else f" ± {mean.half:.2g}")
                )
            shown.add_row(*(str(v) for v in values), *cells)
        console.print(shown)
    lines = [f"{len(points) - 40} more points are in the table"] if len(points) > 40 else []
    for row in [r for r in done.rows if r["error"] is not None][:5]:
        lines.append(f"run {row['index']} failed: {row['error']}")
    if done.failed > 5:
        lines.append(f"{done.failed - 5} more runs failed; column `error` of the table says why")
    lines.append(
        f"{done.played} runs played in {done.seconds:.1f} s"
        + (f", {done.known} known from before" if done.known else "")
        + (f", {done.stopped_early} points known well enough early" if done.stopped_early else "")
    )
    if done.interrupted:
        lines.append("INTERRUPTED: the same command goes on from here")
    if done.rows:
        lines.append(f"table: {done.folder / 'table.parquet'}; draw it: twin sweep plot {done.folder}")
    return captured.get() + "\n".join(lines)


def _mean(rows: list[dict[str, Any]], figure: str) -> Any:
    from twin.sweep.table import mean_of

    return mean_of(row.get(figure) for row in rows)


def _plot(given: argparse.Namespace) -> int:
    from twin.sweep.plot import plot

    made = plot(
        Path(given.what[1]), x=given.x, ys=tuple(given.y or ()), by=given.by, pareto=given.pareto, out=given.out
    )
    if given.json:
        json.dump(made.told, sys.stdout, indent=1)
        print()
    else:
        print("\n".join([*made.sentences, f"drawn in {made.file}"]))
    return 0


class Line:
    """Progress with time left: a line that moves on a terminal, one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.moves = sys.stderr.isatty()
        self.began = self.shown = time.perf_counter()

    def __call__(self, done: int, total: int, seconds: float) -> None:
        now = time.perf_counter()
        if now - self.shown < (UPDATE_S if self.moves else LINE_S):
            return
        self.shown = now
        left = f", about {_time((total - done) * seconds)} left" if seconds else ""
        text = f"{done}/{total} runs in {_time(now - self.began)}{left}"
        print(f"\r\033[K{text}" if self.moves else text, end="" if self.moves else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave a clean line behind."""
        if self.moves:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    whole = round(seconds)
    return (
        f"{whole} s"
        if whole < 100
        else f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole / 3600:.1f} h"
    )
