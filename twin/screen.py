"""A scene as lines of text, for a terminal of any size: what does not fit is left out by rank, never wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.text import Text

from twin.scene import Scene

__all__ = ["screen", "sparkline"]

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
TONES = {"good": "green", "bad": "red", "plain": ""}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LATE_S = 1.5  # of silence before the head says so
Cell = tuple[str, str]  # text and style


@dataclass(frozen=True)
class Column:
    """One column of a table; the highest ranks are left out first where room is short."""

    head: str
    width: int
    rank: int = 0
    left: bool = False


def screen(scene: Scene, width: int, height: int, now_ns: int, ascii: bool = False) -> list[Text]:
    """The scene in ``height`` lines of at most ``width`` characters; colours are among the sixteen that every terminal has.

    ``ascii`` keeps to ASCII. ``now_ns`` is the listener's clock, by which silence is told.
    """
    lines = _head(scene, width, now_ns)
    if scene.kpi is None:
        lines += _waiting(scene)
    else:
        lines += _users(scene, width, ascii)
        lines += _sensing(scene, width)
        lines += _planned(scene, height - len(lines) > 24)
        short = min(max(3, height // 6), len(scene.notes) + 1)  # lines that notes can count on
        lines += _movers(scene, width, height - len(lines) - short)
        lines += _tracks(scene, width, height - len(lines) - short)
    lines += _notes(scene, height - len(lines))
    for line in lines:
        line.truncate(width)
        line.no_wrap = True
    return lines[:height]


def sparkline(value: Sequence[float] | Any, top: float, ascii: bool = False) -> str:
    """Values from 0 to ``top`` as a row of bars; a blank for what is no number."""
    bars = ASCII_BARS if ascii else BARS
    scale = len(bars) / top if top > 0 else 0.0
    return "".join(bars[min(int(v * scale), len(bars) - 1)] if np.isfinite(v) and v >= 0 else " " for v in value)


def _head(scene: Scene, width: int, now_ns: int) -> list[Text]:
    silent_s = (now_ns - scene.heard_ns) * 1e-9
    condition = scene.condition
    badge = {
        "waiting": (" NO TWIN YET ", "black on yellow"),
        "live": (" LIVE ", "black on green"),
        "late": (" SILENT ", "black on yellow"),
        "gone": (" GONE ", "white on red"),
        "stopped": (" ENDED ", "black on cyan"),
    }[condition]
    title = Text.assemble(("twin watch ", "dim"), (scene.title or scene.endpoint, "bold"))
    if scene.kpi is not None:
        t_s, k = int(scene.kpi["t_ns"]) * 1e-9, int(scene.kpi["k"])
        total = scene.about.get("subframes")
        title.append(f"  t {t_s:.3f} s  subframe {k}" + (f" of {total}" if total else ""))
    if scene.run and width >= 120:
        title.append(f"  {scene.run} at {scene.endpoint}", "dim")
    keys = "" if width < 60 else "  q quits"
    room = width - len(badge[0]) - len(keys) - 1
    title.truncate(max(room, 8))
    title.pad_right(max(0, room - title.cell_len))
    first = Text.assemble(title, " ", badge, (keys, "dim"))

    lost = sum(scene.lost.values())
    second = Text()
    if condition in ("late", "gone") or (condition == "live" and silent_s > LATE_S):
        second.append(_silence(scene, silent_s), "bold red" if condition == "gone" else "yellow")
    elif condition == "stopped":
        second.append(f"the run ended: {scene.reason}; below is its last. Waiting for the next.", "cyan")
    elif scene.kpi is not None:
        speed, factor = scene.speed, (scene.about.get("clock") or {}).get("factor")
        second.append("speed " + ("-" if speed is None else f"{speed:.2f} x real time"))
        if scene.lag_ns is not None:
            behind = scene.lag_ns > scene.period_ns / float(factor or 1.0)
            second.append(f" (asked {factor:g}), lag {scene.lag_ns * 1e-6:.0f} ms", "yellow" if behind else "")
        second.append(f"   site {scene.site}   lost here ")
        second.append(str(lost), "bold red" if lost else "")
        if scene.listeners > 1:
            second.append(f"   {scene.listeners} listeners, lost by all {scene.lost_by_all}")
        if scene.garbage:
            second.append(f"   {scene.garbage} unreadable", "red")
    return [first, second]


def _silence(scene: Scene, silent_s: float) -> str:
    why = {
        None: "",
        False: ", and nobody listens there: ended or killed",
        True: ", but its port answers: busy, or held",
    }[scene.answers]
    if scene.condition == "gone":
        return f"no word for {silent_s:.0f} s{why}. Waiting; below is old."
    return f"no word for {silent_s:.0f} s{why}"


def _waiting(scene: Scene) -> list[Text]:
    if scene.run:
        return [Text(), Text("The twin is there; waiting for its first subframe (a first run compiles for some time).")]
    return [
        Text(),
        Text.assemble("Nothing is heard at ", (scene.endpoint, "bold"), "; listening on."),
        Text("A twin publishes if it is told where:", "dim"),
        Text(f"  twin run scenarios/street.yaml --pace 1 --state {scene.endpoint}", "dim"),
        Text("On another computer:  ssh -L 5570:localhost:5570 -L 5571:localhost:5571 HOST", "dim"),
    ]


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[Text]:
    """Heads and rows, without the highest-ranked columns if ``width`` does not take them all."""
    kept, gap = list(range(len(columns))), _gap(width)
    while sum(columns[i].width + gap for i in kept) - gap > width and len(kept) > 1:
        kept.remove(max(kept, key=lambda i: (columns[i].rank, i)))

    def line(cells: Sequence[Cell]) -> Text:
        made = Text()
        for i in kept:
            text, style = cells[i]
            column = columns[i]
            text = text[: column.width]
            made.append(f"{text:<{column.width}}" if column.left else f"{text:>{column.width}}", style)
            made.append(" " * gap)
        made.rstrip()
        return made

    return [line([(column.head, "bold") for column in columns]), *(line(row) for row in rows)]


def _users(scene: Scene, width: int, ascii: bool) -> list[Text]:
    kpi, bound = scene.kpi, scene.bound_tracks()
    assert kpi is not None
    names = [scene.name(user) for user in kpi["user"].tolist()]
    columns = [
        Column("", 1, left=True),
        Column("user", _wide(names, 4), left=True),
        Column("Gbit/s", 6),
        Column("believed", 8, rank=2),
        Column("SNR dB", 6, rank=1),
        Column("beam loss", 9, rank=2),
        Column("outage", 6, rank=1),
        Column("track", 5, rank=1),
    ]
    taken = sum(column.width + _gap(width) for column in columns)
    columns.append(Column("", min(max(10, width - taken), 100), left=True))
    past = scene.rates(columns[-1].width) * 1e-9
    top = float(np.nanmax(past)) if np.isfinite(past).any() else 0.0
    head = f"Gbit/s, 0 to {top:.3g}, last {min(scene.window_s, scene.heard_s):.3g} s"
    if len(head) > columns[-1].width:
        head = f"0 to {top:.3g}"
    columns[-1] = Column(head, columns[-1].width, left=True)
    rate, predicted, snr_db, loss_db = scene.lately()
    rows: list[list[Cell]] = []
    for i, user in enumerate(kpi["user"].tolist()):
        served, out = int(kpi["served_blocks"][i]), int(kpi["outage_blocks"][i])
        absent = not np.isfinite(rate[i])
        rows.append(
            [
                (LETTERS[i % 26], "dim"),
                (names[i], "dim" if absent else ""),
                (_number(rate[i] * 1e-9, 2), "bold"),
                (_number(predicted[i] * 1e-9, 2), ""),
                (_number(snr_db[i], 1), ""),
                (_number(loss_db[i], 2), "yellow" if loss_db[i] > 3 else ""),
                ("away" if absent else f"{out}/{served}", "red" if out else ""),
                (f"#{bound[user]}" if user in bound else "-", "" if user in bound or absent else "yellow"),
                (sparkline(past[:, i], top, ascii), "cyan"),
            ]
        )
    return _table(columns, rows, width)


def _sensing(scene: Scene, width: int) -> list[Text]:
    kpi, mean = scene.kpi, scene.counts()
    assert kpi is not None
    missed = mean["missed"] / mean["lit"] if mean["lit"] > 0 else np.nan
    sensing = [
        (f"{100 * kpi['sensing_share']:.1f} %", ""),
        (f"{_number(mean['detections'], 1)} found a subframe", ""),
        (f"{_number(mean['false_alarms'], 1)} false", ""),
        (f"missed {_number(100 * missed, 1)} %", "yellow" if missed > 0.1 else ""),
        (f"NEES {_number(mean['nees'], 1)} (4)", "yellow" if mean["nees"] > 12 else ""),
        (f"errors and counts look back {scene.window_s:g} s", "dim"),
    ]
    false, bound, right = (int(kpi[name]) for name in ("tracks_false", "users_bound", "users_bound_right"))
    tracks = [
        (f"{kpi['tracks_confirmed']} confirmed", ""),
        *([(f"{false} of nobody", "red")] if false else []),
        (f"{kpi['tracks_tentative']} tentative", ""),
        (f"{bound} bound" + ("" if right < bound or not bound else " right"), ""),
        *([(f"{bound - right} to the wrong mover", "red")] if right < bound else []),
        *([(f"swaps {kpi['swaps']}", "yellow")] if kpi["swaps"] else []),
        *([(f"rebound {kpi['rebindings']}", "yellow")] if kpi["rebindings"] else []),
        (f"NEES {_number(mean['track_nees'], 1)} (3)", "yellow" if mean["track_nees"] > 9 else ""),
    ]
    return [_phrases("sensing", sensing, width), _phrases("tracks", tracks, width)]


def _phrases(head: str, phrases: Sequence[Cell], width: int) -> Text:
    """As many of the phrases as fit, in their order; none is cut."""
    line = Text.assemble((f"{head:<9}", "bold"))
    for n, (text, style) in enumerate(phrases):
        between = "  " if n else ""
        if line.cell_len + len(between) + len(text) > width:
            continue
        line.append(between)
        line.append(text, style)
    return line


def _planned(scene: Scene, legend: bool) -> list[Text]:
    plan, kpi = scene.plan, scene.kpi
    if plan is None or kpi is None:
        return []
    letter = {user: LETTERS[i % 26] for i, user in enumerate(kpi["user"].tolist())}
    blocks = []
    opens = set(plan["update_block"].tolist())
    for block, (slot, served) in enumerate(zip(plan["slot"].tolist(), plan["served"], strict=True)):
        users = plan["user"][served].tolist()
        mark = letter.get(users[0], "?") if len(users) == 1 else "*" if users else "."
        if block < plan["sensing_blocks"]:
            mark = "#"
        elif slot < 0 and not users:
            mark = "."
        blocks.append(mark.upper() if block in opens else mark)
    looks = ", ".join("search" if t < 0 else f"#{t}" for t in plan["dwell_target"].tolist())
    line = Text.assemble(("blocks   ", "bold"), ("".join(blocks), "cyan"))
    line.append(f"  looks at {looks}" if looks else "  no dwell")
    if not legend:
        return [line]
    key = "         # sensing, a letter: that user is served, a capital: opens with pilots, * several users, . silent"
    return [line, Text(key, "dim")]


def _movers(scene: Scene, width: int, room: int) -> list[Text]:
    kpi, truth = scene.kpi, scene.truth
    assert kpi is not None
    if truth is None or room < 2:
        return []
    rms, bound, times = scene.errors()
    row_of = {entity: i for i, entity in enumerate(kpi["entity"].tolist())}
    names = [scene.name(entity) for entity in truth["entity"].tolist()]
    columns = [
        Column("mover", _wide(names, 5), left=True),
        Column("x m", 6, rank=2),
        Column("y m", 6, rank=2),
        Column("z m", 5, rank=5),
        Column("m/s", 5, rank=2),
        Column("track", 5),
        Column("off m", 6, rank=1),
        Column("sigma", 5, rank=4),
        Column("angle mdeg (CRB)", 16, rank=1),
        Column("range mm (CRB)", 14, rank=2),
        Column("speed mm/s (CRB)", 16, rank=4),
        Column("looks", 5, rank=5),
        Column("echo dB", 7, rank=5),
    ]
    rows: list[list[Cell]] = []
    for row, entity in enumerate(truth["entity"].tolist()):
        i = row_of.get(entity)
        if i is None:
            continue
        speed = float(np.linalg.norm(truth["velocity_mps"][row]))
        track = int(kpi["tracked"][i])
        angle = [float(np.rad2deg(np.hypot(*pair[i, :2])) * 1e3) for pair in (rms, bound)]
        off, sigma = float(kpi["position_error_m"][i]), float(kpi["track_sigma_m"][i])
        rows.append(
            [
                (names[row], "" if truth["is_user"][row] else "magenta"),
                *((f"{v:.1f}", "") for v in truth["position_m"][row].tolist()),
                (f"{speed:.1f}", ""),
                (f"#{track}" if track >= 0 else "-", "" if track >= 0 else "dim"),
                (_number(off, 2), "yellow" if off > 3 * sigma else ""),
                (_number(sigma, 2), ""),
                _beside(angle[0], angle[1]),
                *(_beside(1e3 * rms[i, j], 1e3 * bound[i, j]) for j in (2, 3)),
                (str(int(times[i])), ""),
                (_number(kpi["echo_snr_db"][i], 1), ""),
            ]
        )
    made = _table(columns, rows, width)
    if len(made) > room:
        return [*made[: room - 1], Text(f"... and {len(made) - room + 1} more", "dim")]
    return made


def _tracks(scene: Scene, width: int, room: int) -> list[Text]:
    belief, kpi = scene.belief, scene.kpi
    if belief is None or kpi is None or room < 3:
        return []
    tracks, names = belief["tracks"], dict[int, str]()
    for entity, track in zip(kpi["entity"].tolist(), kpi["tracked"].tolist(), strict=True):
        names[track] = scene.name(entity)
    order = np.flatnonzero(tracks["confirmed"]).tolist()
    columns = [
        Column("track", 6, left=True),
        Column("follows", _wide([names.get(t, "nobody") for t in tracks["track"].tolist()], 7), left=True),
        Column("bound to", _wide([scene.name(u) for u in tracks["user"].tolist() if u >= 0], 8), left=True),
        Column("x m", 6, rank=1),
        Column("y m", 6, rank=1),
        Column("z m", 5, rank=2),
        Column("m/s", 5, rank=1),
        Column("sigma m", 7, rank=2),
        Column("hits", 6, rank=3),
        Column("misses", 6, rank=3),
        Column("seen ms ago", 11, rank=1),
    ]
    rows: list[list[Cell]] = []
    for i in order:
        state, track, user = tracks["state"][i], int(tracks["track"][i]), int(tracks["user"][i])
        rows.append(
            [
                (f"#{track}", ""),
                (names.get(track, "nobody"), "" if track in names else "red"),
                (scene.name(user) if user >= 0 else "-", ""),
                *((f"{v:.1f}", "") for v in state[:3].tolist()),
                (f"{float(np.linalg.norm(state[3:])):.1f}", ""),
                (_number(float(np.sqrt(np.trace(tracks["covariance"][i][:3, :3]))), 2), ""),
                (str(tracks["hits"][i]), ""),
                (str(tracks["misses"][i]), "yellow" if tracks["misses"][i] else ""),
                (f"{(tracks['t_ns'] - tracks['seen_ns'][i]) * 1e-6:.0f}", ""),
            ]
        )
    return _table(columns, rows, width)[:room] if rows else []


def _notes(scene: Scene, room: int) -> list[Text]:
    if room < 1 or not scene.notes:
        return []
    lines = [Text("what happened", "bold")] if room > 4 else []
    for note in list(scene.notes)[-(room - len(lines)) :]:
        line = Text(f"{note.t_ns * 1e-9:9.3f} s  ", "dim")
        line.append(note.text, TONES[note.tone])
        if note.times > 1:
            line.append(f"  ({note.times} times)", "dim")
        lines.append(line)
    return lines


def _beside(error: float, bound: float) -> Cell:
    """An error with its bound; yellow above three times the bound, red above ten."""
    if not np.isfinite(error):
        return "-", "dim"
    return f"{error:.1f} ({bound:.1f})", "red" if error > 10 * bound else "yellow" if error > 3 * bound else ""


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _gap(width: int) -> int:
    return 1 if width < 100 else 2


def _wide(names: Sequence[str], least: int) -> int:
    return max([least, *(min(len(name), 16) for name in names)])
