"""Draw one subframe of a scenario in time: ``python -m tools.figures.subframe [SCENARIO] [--out docs/img/subframe.svg]``.

The scenario is played for a few subframes; drawn is the last one's plan as it was recorded, and when its beams came into force.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hal.record import Array, Bool, Int
from twin.build import run
from twin.drawing import BLACK, COLOURS, GREY, STYLE
from twin.record import read
from twin.records import Numerology
from twin.scenario import load, numerology

__all__ = ["Slice", "draw", "main", "played"]

SENSING, PILOT, GUARD, COMMAND = COLOURS[0], COLOURS[5], "#eeeeee", COLOURS[3]
DATA = ("#cfe8dc", "#9fd3bd", "#e6f2ec", "#83c4a8", "#b7ddcd")


@dataclass(frozen=True)
class Slice:
    """What one subframe was: its numerology, its plan, and the times of its beams after its start."""

    grid: Numerology
    sensing_ns: int
    sensing_blocks: int
    searches: Bool[Array, " dwell"]
    update_block: Int[Array, " update"]
    served: Bool[Array, "block user"]
    in_force_ns: int  # the last row of the beams commanded when the dwells are over


def played(scenario: str, subframes: int = 12) -> Slice:
    """Play so many subframes and take the last."""
    asked = load(scenario)
    grid = numerology(asked)
    site = next(iter(asked.sites))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run(
            scenario,
            {"duration_s": round(subframes * grid.subframe_ns * 1e-9, 9), "record.beams_ms": 0},
            out=out,
            keep=False,
        )
        told: dict[str, list[Any]] = {}
        for topic in (f"{site}.plan.", f"{site}.beam.transmit."):
            told[topic] = [entry[2] for entry in read(out / "recording.mcap", topic)]
    plan = told[f"{site}.plan."][-1]
    begins_ns = plan["k"] * grid.subframe_ns
    reports = [
        r for r in told[f"{site}.beam.transmit."] if begins_ns <= r["accepted_ns"] < begins_ns + grid.subframe_ns
    ]
    return Slice(
        grid=grid,
        sensing_ns=plan["sensing_ns"],
        sensing_blocks=plan["sensing_blocks"],
        searches=np.asarray(plan["dwell_target"]) < 0,
        update_block=np.asarray(plan["update_block"]),
        served=np.asarray(plan["served"]),
        in_force_ns=max(r["effective_ns"] for r in reports) - begins_ns,
    )


def draw(it: Slice) -> Any:
    """Above the whole subframe, below its beginning, with the points at which the controller believes and acts."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.3), layout="constrained")
        whole, close = figure.subplots(2, 1, height_ratios=(1, 1.35))
        until_us = _us((it.sensing_blocks + 4) * it.grid.block_ns)
        for axis, end_us, fine in ((whole, _us(it.grid.subframe_ns), False), (close, until_us, True)):
            _bars(axis, it, fine)
            axis.set(
                xlim=(-0.004 * end_us, 1.004 * end_us), yticks=[], ylim=(-1.5 if fine else -0.2, 2.15 if fine else 1.6)
            )
            for side in ("left", "right", "top"):
                axis.spines[side].set_visible(False)
        whole.set_title(
            f"A subframe of {it.grid.subframe_ns / 1e6:g} ms: {it.grid.blocks} blocks of {_us(it.grid.block_ns):g} µs, then a guard"
        )
        middle = _us(it.sensing_blocks + len(it.served)) * it.grid.block_ns / 2
        whole.text(
            middle, 1.12, "data, shaded by the user served; orange: pilots open the block", ha="center", color=BLACK
        )
        whole.text(0, 1.12, "dwells", color=SENSING)
        whole.text(_us(it.grid.subframe_ns), 1.12, "guard", ha="right", color=GREY)
        close.set_title("Its beginning")
        close.set_xlabel("time after the start of the subframe, µs")
        _points(close, it)
        return figure


def _bars(axis: Any, it: Slice, fine: bool) -> None:
    grid, line = it.grid, {"edgecolor": "white", "linewidth": 0.6}
    dwell_ns = grid.frames_per_dwell * grid.frame_ns
    for d, search in enumerate(it.searches):
        if not fine:
            axis.broken_barh(
                [(_us(d * dwell_ns), _us(dwell_ns))], (0, 1), color=SENSING, alpha=0.6 if search else 1.0, **line
            )
            continue
        for f in range(grid.frames_per_dwell):
            start = d * dwell_ns + f * grid.frame_ns
            axis.broken_barh(
                [(_us(start), _us(grid.frame_ns))], (0, 1), facecolor=SENSING, alpha=0.6 if search else 1.0, **line
            )
            axis.broken_barh([(_us(start), _us(grid.prefix_ns))], (0, 1), facecolor=BLACK, linewidth=0)
        name = "search" if search else "on a track"
        axis.text(_us((d + 0.5) * dwell_ns), 1.12, f"dwell {d + 1}: {name}", ha="center", color=SENSING)
    for block in range(it.sensing_blocks, grid.blocks):
        who = np.flatnonzero(it.served[block])
        colour = "white" if not who.size else DATA[int(who[0]) % len(DATA)]
        axis.broken_barh([(_us(block * grid.block_ns), _us(grid.block_ns))], (0, 1), facecolor=colour, **line)
        if block in it.update_block:
            wide = grid.pilot_ns if fine else max(grid.pilot_ns, grid.subframe_ns // 400)
            axis.broken_barh([(_us(block * grid.block_ns), _us(wide))], (0, 1), facecolor=PILOT, linewidth=0)
        if fine and block < it.sensing_blocks + 4:
            axis.text(_us((block + 0.5) * grid.block_ns), 0.5, f"block {block}", ha="center", va="center", fontsize=8)
    end = grid.blocks * grid.block_ns
    axis.broken_barh(
        [(_us(end), _us(grid.subframe_ns - end))], (0, 1), facecolor=GUARD, hatch="///", edgecolor=GREY, linewidth=0
    )


def _points(axis: Any, it: Slice) -> None:
    over, force = _us(it.sensing_ns), _us(it.in_force_ns)
    first = _us(int(it.update_block[0]) * it.grid.block_ns)
    axis.annotate("", (force, 1.35), (over, 1.35), arrowprops={"arrowstyle": "->", "color": COMMAND})
    axis.text(force + 4, 1.35, f"beams in force {force - over:.0f} µs after their command", va="center", color=COMMAND)
    axis.vlines([over, force], 0, [1.75, 1.35], color=COMMAND, linewidth=0.8)
    axis.text(over, 1.8, "steer: detections, tracks, the next plan, beams", ha="center", color=COMMAND)
    ready = first + _us(it.grid.pilot_ns)
    axis.annotate(
        f"pilots, {_us(it.grid.pilot_ns):g} µs; then precode: channel estimates, baseband",
        (ready, 0), (ready, -0.55), color=PILOT, ha="center", va="top", arrowprops={"arrowstyle": "->", "color": PILOT},
    )  # fmt: skip
    axis.annotate(
        "cyclic prefix", (_us(it.grid.prefix_ns) / 2, 0), (_us(it.grid.frame_ns) / 2, -0.55), va="top", color=BLACK,
        arrowprops={"arrowstyle": "->", "color": BLACK},
    )  # fmt: skip
    axis.text(0, -1.25, f"{it.grid.frames_per_dwell} frames of {_us(it.grid.frame_ns):g} µs a dwell", color=SENSING)


def _us(t_ns: float) -> float:
    return t_ns / 1e3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.figures.subframe", description=__doc__)
    parser.add_argument("scenario", nargs="?", default="scenarios/street.yaml")
    parser.add_argument("--out", default="docs/img/subframe.svg", help=".svg or .png")
    given = parser.parse_args()
    from matplotlib import rc_context

    with rc_context(STYLE | {"svg.hashsalt": "subframe"}):
        metadata = {"Date": None} if given.out.endswith(".svg") else None
        draw(played(given.scenario)).savefig(given.out, dpi=130, metadata=metadata)
    print(given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
