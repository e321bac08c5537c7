"""Figures of a run over time and on the map, each with a caption that says what to look for."""

from __future__ import annotations

from typing import Any

import numpy as np

from twin.drawing import ALARM, BLACK, COLOURS, GREY, GRID, STROKES, WIDTH_IN, Sheet, canvas, look, plainly, styled
from twin.history import Course, History, who_has
from twin.scenario import Scenario

__all__ = ["events", "lag", "map_of", "plan", "rate", "sensing"]

USERS_SHOWN = 8
INNER = {"sensing": "steer", "tracking": "steer", "planning": "steer", "precoding": "steer"}  # stages within a stage


def seconds(out: History, course: Course, subframe_s: float) -> Any:
    """The middle of each bin of a course, in seconds."""
    return course.k * subframe_s


@styled
def map_of(out: History, scenario: Scenario | None) -> Sheet:
    """Everybody's path, the confirmed tracks with their ellipses, the mast and its sector."""
    head = ("map", "Who was where, and who was believed to be")
    lacking = out.lacks("truth.", "belief.", "kpi.")
    if lacking or not out.sightings:
        return Sheet(*head, "", missing=lacking or "No subframe was recorded.")
    from matplotlib.patches import Ellipse, Wedge

    truth = np.stack([s.position_m for s in out.sightings])  # [sighting, mover, 3]
    mast = np.zeros(3) if scenario is None else np.array(next(iter(scenario.sites.values())).position_m)
    spots = np.vstack([truth[..., :2].reshape(-1, 2), mast[None, :2]])
    low, high = np.nanmin(spots, axis=0), np.nanmax(spots, axis=0)
    margin = 0.06 * max(high - low) + 1.0
    low, high = low - margin, high + margin
    drawing, grid = canvas(float(np.clip((WIDTH_IN - 2.4) * (high[1] - low[1]) / (high[0] - low[0]) + 0.5, 2.6, 7.5)))
    axes = grid[0, 0]
    if scenario is not None:
        site = next(iter(scenario.sites.values()))
        yaw, wide = np.rad2deg(site.yaw_rad), np.rad2deg(getattr(site.control.planning, "azimuth_rad", 0.0))
        if wide > 0:
            axes.add_patch(
                Wedge(
                    mast[:2],
                    scenario.sensing.range_m,
                    yaw - wide,
                    yaw + wide,
                    color="#e8e8e8",
                    zorder=0,
                    label="sector searched",
                )
            )
    magnified, drawn = magnification(out, float(max(high - low))), set()
    step = max(1, len(out.sightings) // 8)
    for j, entity in enumerate(out.mover):
        style, is_user = look(j), entity in out.user
        axes.plot(
            *truth[:, j, :2].T,
            color=style["color"],
            linewidth=4 if is_user else 2,
            alpha=0.35,
            solid_capstyle="butt",
            zorder=2,
        )
        here = np.flatnonzero(np.isfinite(truth[:, j, 0]))
        if here.size:
            label = f"{out.name(entity)}{'' if is_user else ' (no user)'}"
            axes.plot(
                *truth[here[-1], j, :2],
                linestyle="none",
                marker=style["marker"],
                color=style["color"],
                markersize=7,
                zorder=4,
                label=label,
            )
        track = np.full((len(out.sightings), 2), np.nan)
        for i, s in enumerate(out.sightings):
            for row in np.flatnonzero(s.mover == j):
                track[i] = s.spot_m[row, :2]
                if i % step == step // 2:
                    size, turn = axes_of(s.covariance_m2[row, :2, :2])
                    axes.add_patch(
                        Ellipse(
                            track[i],
                            *(4 * magnified * size),
                            angle=turn,
                            fill=False,
                            edgecolor=BLACK,
                            linewidth=0.8,
                            zorder=5,
                        )
                    )
                    drawn.add(j)
        axes.plot(
            *track.T,
            color=BLACK,
            linewidth=0.9,
            linestyle=STROKES[1],
            zorder=3,
            label="confirmed track" if j == 0 else None,
        )
    false = [s.spot_m[s.mover < 0, :2] for s in out.sightings]
    false_at = np.concatenate(false) if false else np.zeros((0, 2))
    if len(false_at):
        axes.plot(
            *false_at.T,
            "x",
            color=GREY,
            markersize=3,
            markeredgewidth=0.7,
            zorder=1,
            label="confirmed track with no mover near",
        )
    axes.plot(*mast[:2], marker="*", color=BLACK, markersize=13, linestyle="none", zorder=6, label="mast")
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xlabel="east, m", ylabel="north, m")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    ellipses = (
        f"Ellipses are the tracks' own two-sigma regions, drawn {magnified:g} times as large: to scale most would be smaller than the line."
        if drawn
        else "No mover had a confirmed track at the moments drawn."
    )
    return Sheet(
        *head,
        "Wide pale lines are true paths (narrower ones belong to movers that are no users); the marker is where the mover was last. Dashed black lines are "
        f"confirmed tracks, seen every {out.stride} subframe(s). {ellipses} Look for: dashed lines that leave their pale line, ellipses that grow, "
        "and grey crosses, which are tracks that follow nobody.",
        drawing,
    )


def axes_of(covariance: Any) -> tuple[Any, float]:
    """Standard deviations along the principal axes of a 2 x 2 covariance, and the first one's angle in degrees."""
    value, vector = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(value[::-1], 0.0)), float(np.rad2deg(np.arctan2(vector[1, 1], vector[0, 1])))


def magnification(out: History, span_m: float) -> float:
    """By how much to enlarge ellipses so that the middling one shows: 1, 2, 5, 10, ... up to 100."""
    size = [np.sqrt(np.trace(c[:2, :2])) for s in out.sightings for c in s.covariance_m2[s.mover >= 0]]
    wanted = 0.02 * span_m / max(2 * float(np.median(size)), 1e-9) if size else 1.0
    return float(max(m for m in (1, 2, 5, 10, 20, 50, 100) if m <= max(wanted, 1.0)))


@styled
def rate(out: History, subframe_s: float) -> Sheet:
    """Delivered and believed rate of each user over time."""
    head = ("rate", "Rate of each user")
    if out.rate is None or not out.user:
        return Sheet(*head, "", missing=out.lacks("kpi.") or "The scenario has no users.")
    users = len(out.user)
    shown = sorted(
        range(users),
        key=lambda i: -np.nan_to_num(np.nanmean(out.rate.mean[:, i]) if out.rate.count[:, i].any() else 0.0),
    )[:USERS_SHOWN]
    shown.sort()
    drawing, grid = canvas(0.7 + 0.95 * (len(shown) + 1), len(shown) + 1, 1, sharex=True)
    t, mean = seconds(out, out.rate, subframe_s), out.rate.mean
    top = np.nanmax(mean[:, :users], initial=0.0, where=np.isfinite(mean[:, :users])) * 1.08 or 1.0
    for axes, i in zip(grid[:-1, 0], shown, strict=True):
        colour = (
            COLOURS[out.mover.index(out.user[i]) % len(COLOURS)]
            if out.user[i] in out.mover
            else COLOURS[i % len(COLOURS)]
        )
        axes.plot(
            t,
            mean[:, users + i],
            color=GREY,
            linewidth=0.9,
            linestyle=STROKES[1],
            label="believed when the baseband was set",
        )
        axes.plot(t, mean[:, i], color=colour, linewidth=1.2, label="delivered")
        axes.set_title(out.name(out.user[i]), color=BLACK, pad=2)
        axes.set_ylim(0, top)
        for event in out.events:
            if event.kind == "outage" and event.what.startswith(out.name(out.user[i]) + ":"):
                axes.axvspan(
                    event.t_ns * 1e-9,
                    event.until_ns * 1e-9 + subframe_s,
                    ymax=0.08,
                    color=ALARM,
                    hatch="////",
                    linewidth=0,
                )
        axes.grid(axis="y", **GRID)
    grid[0, 0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)
    whole = grid[-1, 0]
    whole.plot(t, np.nansum(mean[:, users:], axis=1), color=GREY, linewidth=0.9, linestyle=STROKES[1])
    whole.plot(t, np.nansum(mean[:, :users], axis=1), color=BLACK, linewidth=1.2)
    whole.set_title(f"all {users} users together", pad=2)
    whole.set_ylim(0, None)
    whole.grid(axis="y", **GRID)
    whole.set_xlabel("simulated time, s")
    drawing.supylabel("rate, Gbit/s", fontsize=9)
    left_out = (
        f" The {USERS_SHOWN} users with the highest mean rates are shown, of {users}; the table of users has all."
        if users > USERS_SHOWN
        else ""
    )
    return Sheet(
        *head,
        f"Delivered over the drawn channel and the realised beam (solid), and what the base station believed it would deliver (dashed), each point "
        f"a mean over {out.rate.width} subframe(s) = {out.rate.width * subframe_s * 1e3:g} ms. Look for: solid far below dashed (the belief is too "
        "optimistic), steps where a service slot is won or lost, gaps where nobody knows where a user is; hatched marks at the foot are outage "
        f"(mean SNR of a served block below 0 dB).{left_out}",
        drawing,
    )


@styled
def sensing(out: History, subframe_s: float) -> Sheet:
    """Errors of detections beside their Cramer-Rao bound: for the mover seen most often, and over all."""
    head = ("sensing", "Sensing error beside its bound")
    if out.miss is None or not out.miss.count[:, 0].any():
        return Sheet(*head, "", missing=out.lacks("kpi.") or "No detection was near a mover.")
    course = out.miss.coarser(60)
    squared, count = course.mean, course.count
    per_mover = out.miss.count[:, 6::6].sum(axis=0)
    best = int(per_mover.argmax())
    columns = (("all movers together", 0), (f"{out.name(out.mover[best])}, detected most often", 6 * (1 + best)))
    rows = (("angle, mdeg", np.rad2deg(1e3)), ("range, mm", 1e3), ("speed, mm/s", 1e3))
    drawing, grid = canvas(6.0, 3, 2, sharex=True, sharey="row")
    t = seconds(out, course, subframe_s)
    for column, (name, first) in enumerate(columns):
        for row, (quantity, unit) in enumerate(rows):
            axes = grid[row, column]
            axes.plot(
                t,
                np.sqrt(squared[:, first + 3 + row]) * unit,
                color=BLACK,
                linestyle=STROKES[1],
                linewidth=1.3,
                label="Cramér–Rao bound",
            )
            axes.plot(
                t,
                np.sqrt(squared[:, first + row]) * unit,
                color=COLOURS[0],
                marker="o",
                markersize=3,
                linewidth=0.8,
                label="error",
            )
            axes.set_yscale("log")
            axes.grid(**GRID)
            axes.tick_params(labelleft=True)
            if column == 0:
                axes.set_ylabel(quantity)
        grid[0, column].set_title(name)
        grid[2, column].set_xlabel("simulated time, s")
    grid[0, 0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)
    many = float(np.median(count[count[:, 0] > 0, 0]))
    return Sheet(
        *head,
        f"Root mean square over the detections in stretches of {course.width} subframe(s), half of them of {many:.0f} detections and more; the "
        "dashed line is the bound of the same detections with the beams really in force (angle: both direction cosines together, as an angle at "
        f"boresight). An RMS of {many:.0f} scatters by about {100 / np.sqrt(2 * max(many, 1)):.0f} % by itself. Look for: points along the dashed line (an "
        "efficient estimator), points well above it (ambiguity, merged movers, a wrong model), and points below it for long, which would mean that "
        "the bound is computed for another dwell. The bound itself rises where a mover leaves the beam.",
        drawing,
    )


@styled
def plan(out: History, scenario: Scenario | None, subframe_s: float) -> Sheet:
    """What blocks were used for: the last subframes block by block, and shares over the whole run."""
    head = ("plan", "What the blocks were used for")
    if out.share is None or not out.plans:
        return Sheet(*head, "", missing=out.lacks("plan.", "kpi.") or "No plan was recorded.")
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    users = len(out.user)
    palette = ["#ffffff", "#3a3a3a", *(COLOURS[i % len(COLOURS)] for i in range(users))]  # silent, sensing, users
    names = ["silent", "sensing", *(out.name(u) for u in out.user)]
    ks = np.array([k for k, _ in out.plans])
    image = np.full((max(len(p.slot) for _, p in out.plans), ks[-1] - ks[0] + 1), np.nan)
    drawing, grid = canvas(5.6, 2, 1, height_ratios=(3, 2))
    tail, whole = grid[:, 0]
    pilots: list[tuple[int, int]] = []
    for k, p in out.plans:
        image[: len(p.slot), k - ks[0]] = who_has(p, out.user) + 2
        pilots += [(k, b) for b in p.update_block.tolist()]
    tail.imshow(
        image,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap=ListedColormap(palette),
        vmin=-0.5,
        vmax=len(palette) - 0.5,
        extent=(ks[0] - 0.5, ks[-1] + 0.5, -0.5, len(image) - 0.5),
    )
    if pilots:
        tail.plot(
            *np.array(pilots).T,
            linestyle="none",
            marker="o",
            color="white",
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            markersize=3,
        )
    tail.set(
        ylabel="block of the subframe",
        xlabel=f"subframe ({subframe_s * 1e3:g} ms each)",
        title=f"the last {len(ks)} subframes",
    )
    shares = out.share.mean  # users, sensing, silent
    bottom, t = np.zeros(len(shares)), seconds(out, out.share, subframe_s)
    for column, colour in zip((users, *range(users), users + 1), (palette[1], *palette[2:], palette[0]), strict=True):
        above = bottom + np.nan_to_num(shares[:, column])
        whole.fill_between(t, 100 * bottom, 100 * above, color=colour, linewidth=0, step="mid")
        bottom = above
    whole.set(
        ylim=(0, 100),
        xlim=(t[0], t[-1]) if len(t) > 1 else None,
        ylabel="share of blocks, %",
        xlabel="simulated time, s",
        title="the whole run",
    )
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Patch(facecolor=c, edgecolor=GREY, linewidth=0.5, label=n) for c, n in zip(palette, names, strict=True)
    ]
    handles.append(
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            color="white",
            markeredgecolor=BLACK,
            markersize=4,
            label="opens with pilots",
        )
    )
    tail.legend(handles=handles, loc="center left", bbox_to_anchor=(1.005, 0.2))
    return Sheet(
        *head,
        f"Above: each column is a subframe, each cell a block; the first blocks sense, the rest carry data for one user. Below: the share of blocks over "
        f"the run, in the same order and colours from bottom to top, each point over {out.share.width} subframe(s). Look for: white (silent blocks: nobody "
        "could be served), one user crowding out the others, and sensing taking more than it gives back.",
        drawing,
    )


@styled
def lag(out: History) -> Sheet:
    """Time of each stage against the subframe's budget."""
    head = ("time", "Where the time goes")
    clock = out.summary.get("clock", {})
    if not clock.get("stages"):
        return Sheet(
            *head,
            "",
            missing="Timings are kept in summary.json, which this run could not write; they are no part of the recording.",
        )
    stages = [*clock["stages"].items(), ("subframe", clock["subframe"])]
    order = {name: i for i, (name, _) in enumerate(stages)}
    stages.sort(key=lambda entry: (order.get(INNER.get(entry[0], entry[0]), 99), entry[0] in INNER, order[entry[0]]))
    drawing, grid = canvas(1.0 + 0.24 * len(stages))
    axes, y = grid[0, 0], np.arange(len(stages))[::-1]
    marks = {key: np.array([s[key] for _, s in stages]) * 1e-3 for key in ("cpu_p50_us", "p50_us", "p99_us")}
    axes.hlines(y, marks["cpu_p50_us"], marks["p99_us"], color="#cccccc", linewidth=2, zorder=1)
    axes.plot(marks["cpu_p50_us"], y, "o", color=COLOURS[0], label="CPU, median")
    axes.plot(marks["p50_us"], y, "|", color=BLACK, markersize=9, markeredgewidth=1.6, label="wall clock, median")
    axes.plot(marks["p99_us"], y, "D", color=COLOURS[1], markersize=5, label="wall clock, 99th percentile")
    budget_ms = clock["budget_us"] * 1e-3
    axes.axvline(budget_ms, color=ALARM, linestyle=STROKES[1], label=f"budget of a subframe: {budget_ms:g} ms")
    axes.set_xscale("log")
    axes.set_yticks(y, [f"– {name}" if name in INNER else name for name, _ in stages])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_xlabel("time a subframe, ms (log)")
    axes.grid(axis="x", **GRID)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        frameon=False,
        fontsize=8,
        columnspacing=1.0,
        handletextpad=0.4,
    )
    share, late = clock["subframe"]["cpu_p50_us"] / clock["budget_us"], clock["lag"]["p99_us"] * 1e-3
    paced = "It ran as fast as it could"
    if clock["mode"] == "paced":
        paced = f"It was paced at {clock['factor']:g} x real time, and 99 % of the subframes ended less than {late:.2f} ms late"
    return Sheet(
        *head,
        f"Times of each stage; those with a dash are part of the stage above them. {paced}; the middling subframe "
        f"took {100 * share:.0f} % of its budget in CPU time. Look for: anything right of the dashed line, which alone makes real time impossible, and 99th percentiles far from their median. These are the "
        "only figures here that another machine, or another run on this one, would not repeat.",
        drawing,
    )


@styled
def events(out: History) -> Sheet:
    """When what happened."""
    head = ("events", "What happened when")
    if not out.events:
        return Sheet(*head, "", missing=out.lacks("kpi.", "belief.") or "Nothing happened that counts as an event.")
    kinds = list(dict.fromkeys(event.kind for event in out.events))
    drawing, grid = canvas(0.9 + 0.26 * len(kinds))
    axes = grid[0, 0]
    for i, kind in enumerate(kinds):
        y, style = len(kinds) - 1 - i, look(i)
        mine = [event for event in out.events if event.kind == kind]
        spans = [(e.t_ns * 1e-9, (e.until_ns - e.t_ns) * 1e-9) for e in mine if e.until_ns > e.t_ns]
        if spans:
            axes.broken_barh(spans, (y - 0.2, 0.4), color=style["color"], linewidth=0)
        at = [e.t_ns * 1e-9 for e in mine if e.until_ns <= e.t_ns]
        axes.plot(
            at, [y] * len(at), linestyle="none", marker=style["marker"], color=style["color"], markersize=5, alpha=0.8
        )
    axes.set_yticks(range(len(kinds)), [f"{kind} ({out.story.counts[kind]})" for kind in kinds[::-1]])
    axes.set(xlabel="simulated time, s", ylim=(-0.6, len(kinds) - 0.4))
    axes.grid(**GRID)
    left_out = sum(out.story.counts.get(kind, 0) for kind in kinds) - len(out.events)
    return Sheet(
        *head,
        "Marks are moments, bars last; how often each happened stands in brackets, and the table below names the first of them. Look for: tracks lost while "
        f"their mover is still there, swapped bindings, bars of outage.{f' {left_out} more events are counted but not drawn.' if left_out else ''}",
        drawing,
    )
