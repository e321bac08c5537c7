"""``twin compare plans``: the dual-scale plans side by side over accuracy required, updates, sensing time, speed and spread."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from twin.planning.dual_scale import (
    Case,
    Choice,
    Scene,
    adapt,
    ergodic_plan,
    even_split,
    kalman,
    paper_drop,
    rate,
    shortest_sensing_s,
    solve,
)

__all__ = ["AXES", "Row", "arguments", "compare", "drawing", "run", "table"]

AXES: dict[str, tuple[str, tuple[float, ...]]] = {
    "accuracy": ("standard deviation required of the angles, deg", (0.1, 0.2, 0.3, 0.5, 0.7)),
    "updates": ("updates a subframe, M", (1, 2, 4, 6, 8, 11, 16, 24, 33)),
    "sensing": ("sensing time, blocks", (1.7, 3, 5, 8, 12, 18, 25)),
    "speed": ("speed of all users, m/s", (3, 10, 20, 33, 50, 80)),
    "spread": ("half angle of the ring, deg", (0.3, 1, 3, 5, 10, 15)),
}
BOUND = ("optimal", "ssu", "fsu", "rba", "kalman")
ERGODIC = ("paper", "adaptive")


@dataclass(frozen=True)
class Row:
    """One plan at one point of one axis, mean over drops."""

    axis: str
    value: float
    metric: str  # "bound": eq 22; "ergodic": log2(1 + SINR) over drawn channels, demodulation pilot charged
    plan: str
    rate: float  # bit/s/Hz of all users, over the subframe
    gain: float  # over the paper's plan in the same metric: "optimal" or "paper"
    sensing_blocks: float
    updates: float
    drops: int  # that the plan is possible in; the mean is over these


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin compare plans`` takes."""
    parser.add_argument(
        "--axis", action="append", choices=tuple(AXES), help="sweep this one only; may be given again (default: all)"
    )
    parser.add_argument(
        "--metric",
        choices=("bound", "ergodic", "both"),
        default="both",
        help="eq 22 of papers/004, drawn channels, or both",
    )
    parser.add_argument(
        "--drops", type=int, default=4, help="random placements of the users to average over (default 4)"
    )
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--antennas", type=int, default=8)
    parser.add_argument("--pilot-snr-db", type=float, default=10.0, help="beta gamma_e (default 10)")
    parser.add_argument(
        "--snr-db", type=float, default=20.0, help="of a user's downlink without interference (default 20)"
    )
    parser.add_argument("--drop-own-term", action="store_true", help="read eq 22 without its i = k term")
    parser.add_argument("--draws", type=int, default=150, help="channels a point of the ergodic metric is judged by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for plans.csv and a figure an axis")
    parser.add_argument("--json", action="store_true", help="print rows as JSON, no table and no progress")


def run(given: argparse.Namespace) -> int:
    """``twin compare plans``: sweep, print a table an axis, and write CSV and figures where asked."""
    for name, value in (("drops", given.drops), ("draws", given.draws), ("users", given.users)):
        if not value >= 1:
            raise Misuse(f"--{name} {value}: must be at least 1")
    axes = tuple(given.axis or AXES)
    metrics = ("bound", "ergodic") if given.metric == "both" else (given.metric,)
    fixed = {
        "users": given.users,
        "elements": given.antennas,
        "pilot_snr": 10 ** (given.pilot_snr_db / 10),
        "snr": 10 ** (given.snr_db / 10),
        "own_term": not given.drop_own_term,
    }
    say = (
        None
        if given.json or not sys.stderr.isatty()
        else lambda text: print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    )
    rows = compare(axes, metrics, drops=given.drops, seed=given.seed, draws=given.draws, say=say, **fixed)
    if say is not None:
        say("")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "plans.csv").write_text(as_csv(rows), encoding="utf-8")
        for axis in axes:
            drawing(rows, axis).savefig(given.out / f"plans_{axis}.svg")
    if given.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
        return 0
    from rich.console import Console

    for axis in axes:
        Console().print(table(rows, axis))
    if given.out is not None:
        print(f"rows and figures: {given.out}")
    return 0


def compare(
    axes: Sequence[str] = tuple(AXES),
    metrics: Sequence[str] = ("bound", "ergodic"),
    *,
    drops: int = 4,
    seed: int = 0,
    draws: int = 150,
    say: Callable[[str], None] | None = None,
    **fixed: Any,
) -> list[Row]:
    """Rates of every plan over the axes, the same drops for all; ``fixed`` goes to ``paper_drop``.

    On "updates" and "sensing" one of the two is held at the axis' value and the other is the best there is (the ergodic metric is left out: its
    plans choose both). On the others a plan that cannot meet the requirement in a drop is left out of the mean, and counted.

    Raises:
        Misuse: an axis is not known.
    """
    rows = []
    for axis in axes:
        if axis not in AXES:
            raise Misuse(f"axis = {axis!r}: must be one of {', '.join(AXES)}")
        for value in AXES[axis][1]:
            for metric in metrics:
                if metric == "ergodic" and axis in ("updates", "sensing"):
                    continue
                if say is not None:
                    say(f"{axis} {value:g}, {metric} metric")
                found: dict[str, list[tuple[float, float, float, float]]] = {}
                for drop in range(drops):
                    for name, got in _plans(axis, value, metric, seed + drop, draws, fixed).items():
                        found.setdefault(name, []).append(got)
                for name, each in found.items():
                    mean = np.mean(each, axis=0)
                    rows.append(
                        Row(
                            axis,
                            value,
                            metric,
                            name,
                            float(mean[0]),
                            float(mean[1]),
                            float(mean[2]),
                            float(mean[3]),
                            len(each),
                        )
                    )
    return rows


def _plans(
    axis: str, value: float, metric: str, seed: int, draws: int, fixed: dict[str, Any]
) -> dict[str, tuple[float, float, float, float]]:
    """(rate, gain, T_l in blocks, M) of each plan in one drop."""
    changed: dict[str, Any] = dict(fixed)
    if axis == "accuracy":
        changed["crb_max_rad2"] = np.deg2rad(value) ** 2
    elif axis == "speed":
        changed |= {"speed_mps": value}
    elif axis == "spread":
        changed["azimuth_spread_rad"] = np.deg2rad(value)
    if metric == "ergodic":
        changed["demodulation_symbols"] = 1
    scene, case = paper_drop(seed, **changed)
    try:
        plans = _held(axis, value, case) if axis in ("updates", "sensing") else _free(scene, case, metric, draws, seed)
    except Misuse:
        return {}
    length_s = case.blocks * case.block_s
    best = plans["paper" if metric == "ergodic" else "optimal"].rate
    return {
        name: (plan.rate / length_s, plan.rate / best - 1, plan.sensing_s / case.block_s, float(plan.updates))
        for name, plan in plans.items()
    }


def _free(scene: Scene, case: Case, metric: str, draws: int, seed: int) -> dict[str, Choice]:
    if metric == "ergodic":
        return {
            "paper": ergodic_plan(scene, case, draws=draws, seed=seed),
            "adaptive": adapt(scene, case, draws=draws, seed=seed).choice,
        }
    return {name: kalman(case) if name == "kalman" else solve(case, name, seed=seed) for name in BOUND}


def _held(axis: str, value: float, case: Case) -> dict[str, Choice]:
    plans = {"optimal": solve(case)}
    if axis == "updates":
        held = [
            solve(case, "fixed", updates=int(value), sensing_s=t)
            for t in (shortest_sensing_s(case), *(np.arange(1, case.blocks) * case.block_s))
            if t >= shortest_sensing_s(case) and value <= case.blocks - int(t / case.block_s * (1 + 1e-12))
        ]
        if held:
            plans["held"] = max(held, key=lambda plan: plan.rate)
        return plans
    sensing_s = value * case.block_s
    data = case.blocks - int(np.floor(value))
    every = {m: rate(case, sensing_s, even_split(data, m)) for m in range(1, data + 1)}
    shortest = max(shortest_sensing_s(case), 0.0)
    if sensing_s >= shortest * (1 - 1e-9):
        for name, m in (("held", max(every, key=lambda m: every[m])), ("ssu", 1), ("fsu", data)):
            plans[name] = solve(case, "fixed", updates=m, sensing_s=max(sensing_s, shortest))
    return plans


def as_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV with a heading."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{v:.9g}" if isinstance(v, float) else v for key, v in asdict(row).items()} for row in rows)
    return out.getvalue()


def table(rows: Sequence[Row], axis: str) -> Any:
    """A table of one axis for a person: a line a point and metric, a column a plan."""
    from rich.table import Table

    mine = [row for row in rows if row.axis == axis]
    plans = [name for name in (*BOUND, "held", *ERGODIC) if any(row.plan == name for row in mine)]
    shown = Table(
        title=f"rate in bit/s/Hz (T_l in blocks, M) over {AXES[axis][0]}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading in ("", "metric", *plans):
        shown.add_column(heading, justify="left" if heading == "metric" else "right")
    for value, metric in dict.fromkeys((row.value, row.metric) for row in mine):
        cells = []
        for name in plans:
            one = [row for row in mine if (row.value, row.metric, row.plan) == (value, metric, name)]
            cells.append(
                f"{one[0].rate:.3f} ({one[0].sensing_blocks:.1f}, {one[0].updates:.1f}) {one[0].gain:+.1%}"
                if one
                else "-"
            )
        shown.add_row(f"{value:g}", metric, *cells)
    return shown


def drawing(rows: Sequence[Row], axis: str) -> Any:
    """A figure of one axis: rate above, updates and sensing time below; a curve a plan."""
    from matplotlib import rc_context

    from twin.drawing import GRID, STYLE, canvas, look

    with rc_context(STYLE):
        mine = [row for row in rows if row.axis == axis]
        metrics = list(dict.fromkeys(row.metric for row in mine)) or ["bound"]
        figure, axes = canvas(5.6, 2, len(metrics), sharex="col")
        for column, metric in enumerate(metrics):
            above, below = axes[0][column], axes[1][column]
            for i, name in enumerate(dict.fromkeys(row.plan for row in mine if row.metric == metric)):
                curve = sorted(
                    (row.value, row.rate, row.updates) for row in mine if (row.metric, row.plan) == (metric, name)
                )
                x, y, m = zip(*curve, strict=True)
                above.plot(x, y, label=name, markersize=4, **look(i))
                below.plot(x, m, markersize=4, **look(i))
            above.set_title("equation 22" if metric == "bound" else "drawn channels, demodulation pilot")
            above.set_ylabel("sum rate, bit/s/Hz")
            below.set_ylabel("updates a subframe, M")
            below.set_xlabel(AXES[axis][0])
            above.legend()
            for one in (above, below):
                one.grid(**GRID)
                one.set_ylim(bottom=0)
                one.spines[["top", "right"]].set_visible(False)
        return figure
