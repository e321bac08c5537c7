"""Figures of a run over time, each with a caption that says what to look for."""

from __future__ import annotations

from typing import Any

import numpy as np

from twin.drawing import ALARM, BLACK, COLOURS, GREY, GRID, STROKES, Sheet, canvas, look, plainly, styled
from twin.history import History, who_has

__all__ = ["events", "lag", "plan", "rate", "sensing"]

USERS_SHOWN = 8
POINTS = 60  # of an error curve
PER_POINT = 20  # detections that a root mean square should rest on
STRIPES = 240  # of the shares of blocks
# stages that the built-in controller accounts for within another
INNER = {"sensing": "steer", "tracking": "steer", "planning": "steer", "precoding": "steer"}
BELIEVED: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": STROKES[1]}


@styled
def rate(out: History, subframe_s: float) -> Sheet:
    """Delivered and believed rate of each user over time."""
    head = ("rate", "Rate of each user")
    if out.rate is None or not out.user:
        return Sheet(*head, "", missing=out.lacks("kpi.") or "The scenario has no users.")
    users, mean = len(out.user), out.rate.mean
    total = np.nansum(mean[:, :users], axis=0)
    shown = np.sort(np.argsort(-total, kind="stable")[:USERS_SHOWN])
    drawing, grid = canvas(0.9 + 0.95 * (len(shown) + 1), len(shown) + 1, 1, sharex=True)
    t = out.rate.k * subframe_s
    top = 1.08 * float(np.nanmax(np.nan_to_num(mean[:, shown]), initial=0.0)) or 1.0
    for axes, i in zip(grid[:-1, 0], shown.tolist(), strict=True):
        name = out.name(out.user[i])
        axes.plot(t, mean[:, users + i], **BELIEVED, label="believed when the baseband was set")
        axes.plot(t, mean[:, i], color=look(i)["color"], linewidth=1.2, label="delivered")
        axes.set_title(name, pad=2)
        axes.set_ylim(0, top)
        for event in out.events:
            if event.kind == "outage" and event.what.startswith(f"{name}:"):
                span = (event.t_ns * 1e-9, event.until_ns * 1e-9 + subframe_s)
                axes.axvspan(*span, ymax=0.1, facecolor="none", edgecolor=ALARM, hatch="//////", linewidth=0)
    whole = grid[-1, 0]
    whole.plot(t, np.nansum(mean[:, users:], axis=1), **BELIEVED)
    whole.plot(t, np.nansum(mean[:, :users], axis=1), color=BLACK, linewidth=1.2)
    whole.set_title("all users together", pad=2)
    whole.set_ylim(0, None)
    whole.set_xlabel("simulated time, s")
    for axes in grid[:, 0]:
        axes.grid(axis="y", **GRID)
        axes.margins(x=0.01)
    drawing.supylabel("rate, Gbit/s", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper right", ncols=2)
    more = (
        f" Shown are the {USERS_SHOWN} of {users} users with the highest rates; the table has all."
        if users > USERS_SHOWN
        else ""
    )
    return Sheet(
        *head,
        "Delivered over the drawn channel and the realised beam (solid), and what the base station believed it would deliver "
        f"(dashed); each point is a mean over {out.rate.width * subframe_s * 1e3:g} ms. Look for: solid far from dashed (the belief is too optimistic or too "
        "timid), steps where a turn in service is won or lost, and zeros where nobody knows where a user is. Hatched marks at the foot are outage: "
        f"served blocks whose mean SNR was below 0 dB.{more}",
        drawing,
    )


@styled
def sensing(out: History, subframe_s: float) -> Sheet:
    """Errors of detections beside their Cramer-Rao bound: over all movers, and for the one seen most often."""
    head = ("sensing", "Sensing error beside its bound")
    if out.miss is None or not out.miss.count[:, 0].any():
        return Sheet(*head, "", missing=out.lacks("kpi.") or "No detection was near a mover.")
    found = int(out.miss.count[:, 0].sum())
    course = out.miss.coarser(int(np.clip(found // PER_POINT, 8, POINTS)))
    root, count = np.sqrt(course.mean), course.count
    best = int(out.miss.count[:, 6::6].sum(axis=0).argmax())
    columns = (("all movers together", 0), (f"{out.name(out.mover[best])}, detected most often", 6 * (1 + best)))
    rows = (("angle, millidegrees", np.rad2deg(1e3)), ("range, mm", 1e3), ("speed, mm/s", 1e3))
    drawing, grid = canvas(6.2, 3, 2, sharex=True, sharey="row")
    t = course.k * subframe_s
    for column, (name, first) in enumerate(columns):
        for row, (quantity, unit) in enumerate(rows):
            axes = grid[row, column]
            bound, error = root[:, first + 3 + row] * unit, root[:, first + row] * unit
            axes.plot(t, bound, color=BLACK, linestyle=STROKES[1], linewidth=1.3, marker="_", label="Cramér–Rao bound")
            axes.plot(t, error, color=COLOURS[0], marker="o", markersize=3, linewidth=0.8, label="error")
            axes.set_yscale("log")
            plainly(axes.yaxis)
            axes.grid(**GRID)
            axes.tick_params(labelleft=True)
            axes.set_ylabel(quantity if column == 0 else "")
        grid[0, column].set_title(name)
        grid[2, column].set_xlabel("simulated time, s")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper right", ncols=2)
    many = max(float(np.median(count[count[:, 0] > 0, 0])), 1.0)
    return Sheet(
        *head,
        f"Root mean square over stretches of {course.width * subframe_s * 1e3:g} ms, typically {many:.0f} detections over all movers; the dashed line is "
        "the bound of the same detections, with the beams really in force. The angle is that of both direction cosines together, at boresight. Look "
        "for: points along the dashed line (an efficient estimator), and points well above it (ambiguity, merged movers, a wrong model). An RMS of "
        f"{many:.0f} values scatters by some {100 / np.sqrt(2 * many):.0f} % by itself. Peaks of both are looks at a mover at the edge of the beam.",
        drawing,
    )


@styled
def plan(out: History, subframe_s: float) -> Sheet:
    """What blocks were used for: the last subframes block by block, and shares over the whole run."""
    head = ("plan", "What the blocks were used for")
    if out.share is None or not out.plans:
        return Sheet(*head, "", missing=out.lacks("plan.", "kpi.") or "No plan was recorded.")
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    users = len(out.user)
    palette = ["#ffffff", "#3a3a3a", *(look(i)["color"] for i in range(users))]  # silent, sensing, users
    first, last = out.plans[0][0], out.plans[-1][0]
    image = np.full((max(len(p.slot) for _, p in out.plans), last - first + 1), np.nan)
    for k, p in out.plans:
        image[: len(p.slot), k - first] = who_has(p, out.user) + 2
    drawing, grid = canvas(5.6, 2, 1, height_ratios=(3, 2))
    tail, whole = grid[:, 0]
    extent = (first - 0.5, last + 0.5, -0.5, len(image) - 0.5)
    colours = {"cmap": ListedColormap(palette), "vmin": -0.5, "vmax": len(palette) - 0.5}
    tail.imshow(image, aspect="auto", origin="lower", interpolation="nearest", extent=extent, **colours)
    pilots = np.array([(k, b) for k, p in out.plans for b in p.update_block.tolist()]).reshape(-1, 2)
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "white", "markeredgecolor": BLACK}
    tail.plot(*pilots.T, **dot, markeredgewidth=0.5, markersize=2.5)
    tail.set(ylabel="block of the subframe", xlabel=f"subframe ({subframe_s * 1e3:g} ms each)")
    for axis in (tail.xaxis, tail.yaxis):
        axis.get_major_locator().set_params(integer=True)
    tail.set_title(f"the last {len(out.plans)} subframes")
    course = out.share.coarser(STRIPES)
    share, t = 100 * np.nan_to_num(course.mean), course.k * subframe_s
    order = (users, *range(users), users + 1)  # sensing below, silence on top
    whole.stackplot(
        t, *(share[:, i] for i in order), colors=[palette[1], *palette[2:], palette[0]], linewidth=0, step="mid"
    )
    whole.set(ylim=(0, 100), ylabel="share of blocks, %", xlabel="simulated time, s", title="the whole run")
    whole.margins(x=0)
    names = ["silent", "sensing", *(out.name(u) for u in out.user)]
    handles: list[Any] = [Patch(facecolor=c, edgecolor=GREY, label=n) for c, n in zip(palette, names, strict=True)]
    handles = [*handles[2 : 2 + 12][::-1], handles[1], handles[0]]
    handles.append(Line2D([], [], **dot, markersize=4, label="opens with pilots"))
    drawing.legend(handles=handles, loc="outside right center")
    return Sheet(
        *head,
        "Above: each column is a subframe, each cell a block; the first blocks sense, the others carry data for one user. Below: the share of blocks over the "
        f"run, each point a mean over {course.width * subframe_s * 1e3:g} ms, stacked in the order of the legend. Look for: white (silence: nobody could be "
        "served), one user crowding out the others, and blocks taken by sensing.",
        drawing,
    )


@styled
def lag(out: History) -> Sheet:
    """Time of each stage against the subframe's budget."""
    head = ("time", "Where the time goes")
    clock = out.summary.get("clock", {})
    if not clock.get("stages") or not clock.get("subframes"):
        return Sheet(
            *head, "", missing="Timings are kept in summary.json alone, and this run did not get to write them."
        )
    stages = [*clock["stages"].items(), ("subframe", clock["subframe"])]
    order = {name: i for i, (name, _) in enumerate(stages)}
    stages.sort(key=lambda stage: (order.get(INNER.get(stage[0], stage[0]), 99), stage[0] in INNER, order[stage[0]]))
    drawing, grid = canvas(1.1 + 0.24 * len(stages))
    axes, y = grid[0, 0], np.arange(len(stages))[::-1]
    cpu, middle, worst = (np.array([s[k] for _, s in stages]) * 1e-3 for k in ("cpu_p50_us", "p50_us", "p99_us"))
    budget_ms = clock["budget_us"] * 1e-3
    axes.hlines(y, np.minimum(cpu, middle), worst, color="#cccccc", linewidth=2, zorder=1)
    axes.plot(cpu, y, "o", color=COLOURS[0], label="CPU, median")
    axes.plot(middle, y, "|", color=BLACK, markersize=9, markeredgewidth=1.6, label="wall clock, median")
    axes.plot(worst, y, "D", color=COLOURS[1], markersize=5, label="wall clock, 99th percentile")
    axes.axvline(budget_ms, color=ALARM, linestyle=STROKES[1], label=f"budget of a subframe: {budget_ms:g} ms")
    axes.set_xscale("log")
    plainly(axes.xaxis)
    axes.set_yticks(y, [f"– {name}" if name in INNER else name for name, _ in stages])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_xlabel("time a subframe, ms")
    axes.grid(axis="x", **GRID)
    drawing.legend(loc="outside upper right", ncols=4, columnspacing=1.0, handletextpad=0.4)
    share, late_ms = clock["subframe"]["cpu_p50_us"] / clock["budget_us"], clock["lag"]["p99_us"] * 1e-3
    amount = f"{100 * share:.0f} % of" if share < 2 else f"{share:.1f} times"
    paced = "The run went as fast as it could"
    if clock["mode"] == "paced":
        paced = f"The run was paced at {clock['factor']:g} x real time, and 99 % of its subframes ended less than {late_ms:.2f} ms late"
    return Sheet(
        *head,
        f"Stages with a dash are part of the stage above them. {paced}; a typical subframe took {amount} its budget in CPU time. Look for: anything "
        "right of the dashed line, which alone rules out real time, and 99th percentiles far from their medians (other work on the machine, or "
        "a first call that compiles). Times, here and in the first table, are all that another run of this scenario would not repeat.",
        drawing,
    )


@styled
def events(out: History) -> Sheet:
    """When what happened."""
    head = ("events", "What happened when")
    if not out.events:
        return Sheet(*head, "", missing=out.lacks("kpi.", "belief.") or "Nothing happened that counts as an event.")
    kinds = sorted({event.kind for event in out.events}, key=lambda kind: [e.kind for e in out.events].index(kind))
    drawing, grid = canvas(0.9 + 0.26 * len(kinds))
    axes = grid[0, 0]
    axes.grid(**GRID)
    for i, kind in enumerate(kinds):
        y, style = len(kinds) - 1 - i, look(i)
        mine = [event for event in out.events if event.kind == kind]
        lasting = [(e.t_ns * 1e-9, (e.until_ns - e.t_ns) * 1e-9) for e in mine if e.until_ns > e.t_ns]
        if lasting:
            axes.broken_barh(lasting, (y - 0.2, 0.4), color=style["color"], linewidth=0)
        at = [e.t_ns * 1e-9 for e in mine if e.until_ns <= e.t_ns]
        axes.plot(at, [y] * len(at), linestyle="none", marker=style["marker"], color=style["color"], markersize=5)
    axes.set_yticks(range(len(kinds)), [f"{kind} ({out.story.counts[kind]})" for kind in kinds[::-1]])
    axes.set(xlabel="simulated time, s", ylim=(-0.6, len(kinds) - 0.4))
    left_out = sum(out.story.counts.get(kind, 0) for kind in kinds) - len(out.events)
    more = f" {left_out} more are counted but not drawn." if left_out else ""
    return Sheet(
        *head,
        "Marks are moments, bars last; how often each happened stands in brackets, and the table below names the first. Look for: tracks lost while their "
        f"mover is still there, swapped bindings, bars of outage.{more}",
        drawing,
    )
