"""``twin fork``: a recorded run played again up to a moment, going on from there by another scenario, with both futures side by side."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse, RemoteFault
from twin import diff
from twin.build import Twin, parts_of, run_folder, warm_up
from twin.bus import NullBus
from twin.commands import pair
from twin.drawing import BLACK, COLOURS, GREY, GRID, STROKES, Sheet, canvas, picture, styled
from twin.paired import rows_of
from twin.reel import Reel
from twin.replay import moment
from twin.report import page, report, table
from twin.scenario import Scenario, dump, loads, whole
from twin.verify import UnlikeError, Witness, again, retrace, scenario_of

__all__ = ["arguments", "changes", "course", "drawn", "fork", "run"]

MAY = (
    "control.",
    "sensing.detector",
    "sensing.fidelity",
    "channel",
    "faults",
    "duration_s",
    "record.",
    "expect",
    "title",
    "description",
)
SIDE = ("rate_bps", "predicted_bps", "snr_db", "beam_loss_db", "outage_blocks")
FIGURES = (  # of the drawing: title, column, factor, how the columns of a subframe are joined
    ("rate of all users, Gbit/s", "rate_bps.", 1e-9, np.nansum),
    ("SNR, mean over users, dB", "snr_db.", 1.0, np.nanmean),
    ("track error, mean over movers, m", "position_error_m.", 1.0, np.nanmean),
    ("echo SNR, strongest, dB", "echo_snr_db.", 1.0, np.nanmax),
)
POINTS = 400


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin fork`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Ask what if: play a recorded run again up to a moment, proving on the way that it comes out as recorded, change\n"
        "something, and play on. Leaves a run directory with fork.html, where both futures lie side by side."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin fork runs/street-001 --at 1.25s --set precoder.kind=direct\n"
        "  twin fork runs/street-001 --at 1s --set planner.kind=dual_scale --set sites.bs0.control.planning.max_updates=6\n"
        "  twin fork runs/street-001 --at 1s --set 'faults=[{kind: chain_off, at_ms: 1200, half: receive, chain: 2}]'\n"
        "What belongs to the only site or its controller may be named from there: precoder.kind, planner.kind.\n"
        "May change: what is under control, the detector, sensing.fidelity, channel, faults yet to come, duration_s. What\n"
        "has a past (movers, arrays, frames) may not: that is another run, not another future."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of the original")
    parser.add_argument("--at", required=True, metavar="TIME", help="when it goes another way (1.25, 1.25s or 1250ms)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        required=True,
        metavar="PATH=VALUE",
        dest="sets",
        help="what is other from then on",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run directory of the fork; default: runs/NAME-fork-NUMBER"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON, and nothing else")


def run(given: argparse.Namespace) -> int:
    """``twin fork``: play, compare, print, and say where the pages lie."""
    found = fork(
        given.run, moment(given.at, "--at"), dict(pair(text) for text in given.sets), given.out, progress=not given.json
    )
    if given.json:
        print(json.dumps(found, indent=1))
        return 0
    print(diff.table(found["futures"]))
    print(proof(found))
    print(f"side by side: {found['fork']}/fork.html; the fork alone: {found['fork']}/report.html")
    return 0


def fork(
    run: str | Path, at_ns: int, sets: Mapping[str, str], out: str | Path | None = None, progress: bool = False
) -> dict[str, Any]:
    """Play a recorded run again up to ``at_ns``, then on with ``sets`` changed; return what both futures are, as plain data.

    Times between two subframes count as the next one's. ``futures`` is ``twin.diff.diff`` from then on; ``past`` says over how many records and
    subframes the fork was found equal to the recording, with the hash of both. Raises Misuse for a time outside the run, a recording without
    scenario, and a change of what has a past; ScenarioError as for any ``--set``; RemoteFault if the past does not come out as recorded.
    """
    reel = Reel(run)
    if "fork" in reel.about:
        raise Misuse(f"{run}: is a fork itself; fork the run that it came from ({reel.about['fork'].get('of')})")
    base = scenario_of(reel)
    period_ns = base.subframe.period_ns
    k = -(-at_ns // period_ns)
    if not 0 < k * period_ns <= reel.last_ns:
        raise Misuse(
            f"--at {at_ns * 1e-9:g} s: lies outside the run; its subframes begin at 0 to {reel.last_ns * 1e-9:g} s, and a fork needs one before and one after"
        )
    at_ns = k * period_ns
    changed = changes(base, sets, at_ns, str(reel.path.with_name("scenario.yaml")))
    name = reel.path.parent.name or "run"
    folder = run_folder(f"{name}-fork", out)
    told = {"of": str(reel.path.parent), "at_ns": at_ns, "set": dict(sets)}
    warm_up(again(base))
    witness = Witness(reel, until_ns=at_ns)
    try:
        first = replace(again(base), duration_ns=max(changed.duration_ns, at_ns + period_ns))
        with Twin(first, f"{name}-fork", folder, about={"fork": told}) as twin:
            twin.bus = witness
            stopped = retrace(twin, reel, k, progress)
            if not stopped:
                twin.bus, twin.site.controller = NullBus(), twin.chain  # whoever steered from outside is not here
                twin.change(again(changed))
                stopped = twin.play(split=False, progress=progress, first=k)
            twin.finish(stopped)
    except UnlikeError as difference:
        shutil.rmtree(folder, ignore_errors=True)
        raise RemoteFault(
            f"{run}: its past does not come out as recorded ({difference}), so a fork would not be of this run; was the code changed since? "
            f"`twin replay {run} --verify` says more"
        ) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / "scenario.yaml").write_text(dump(changed), encoding="utf-8")
    found = {
        "of": told["of"],
        "fork": str(folder),
        "at_s": at_ns * 1e-9,
        "set": told["set"],
        "past": {
            "subframes": k,
            "records": witness.compared,
            "hash": witness.said.hexdigest(),
            "recorded": witness.recorded.hexdigest(),
        },
        "futures": diff.diff(reel.path.parent, folder, since=k),
        "users": beside(reel.path.parent, folder, k),
    }
    (folder / "fork.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (folder / "fork.html").write_text(written(found), encoding="utf-8")
    report(folder)
    return found


def changes(base: Scenario, sets: Mapping[str, str], at_ns: int, name: str) -> Scenario:
    """The scenario from the fork on: ``base`` with ``sets`` replaced; another ``kind`` begins with that kind's defaults.

    Misuse for what may not change while a run goes on; ScenarioError for what no scenario may hold.
    """
    replaced: dict[str, Any] = {}
    for path, value in sets.items():
        path = whole(path)
        if path.endswith(".kind"):  # the fields of the kind that was there mean nothing to another
            path, value = path.removesuffix(".kind"), f"{{kind: {value}}}"
        replaced[path] = value
    text = dump(base)
    changed = loads(text, name, replaced)
    before, after = (diff.flattened(plainly(scenario)) for scenario in (base, changed))
    for key in dict.fromkeys((*before, *after)):
        own = key.removeprefix("sites.").partition(".")[2] if key.startswith("sites.") else key
        if before.get(key) != after.get(key) and not own.startswith(MAY):
            raise Misuse(
                f"--set {key}={after.get(key)}: cannot change while a run goes on; what can: site.control.*, sensing.detector, sensing.fidelity, channel, "
                "faults yet to come, duration_s. For anything else run the scenario with it from the start, and use twin diff"
            )
    for fault in changed.faults:
        if fault not in base.faults and not fault.at_ns >= at_ns:
            raise Misuse(
                f"--set faults: {fault.kind} at {fault.at_ns * 1e-6:g} ms lies before the fork at {at_ns * 1e-6:g} ms, and the past is what it was"
            )
    if any(fault not in changed.faults for fault in base.faults):
        raise Misuse(
            "--set faults: leaves out a fault of the original; a fork can only add some. Write the original's as well"
        )
    if not changed.duration_ns > at_ns:
        raise Misuse(f"--set duration_s={changed.duration_ns * 1e-9:g}: ends before the fork at {at_ns * 1e-9:g} s")
    parts_of(changed)
    return changed


def plainly(scenario: Scenario) -> Any:
    """A scenario as the plain values of its file."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(dump(scenario))


def beside(a: Path, b: Path, since: int) -> dict[str, dict[str, list[float | None]]]:
    """Mean of some key figures of each user after the fork, in both runs: user -> figure -> [original, fork]."""
    found: dict[str, dict[str, list[float | None]]] = {}
    tables = [numbers(folder, since) for folder in (a, b)]
    for name in tables[0]:
        figure, _, user = name.partition(".")
        if figure in SIDE and name in tables[1]:
            both = [
                float(np.mean(c[np.isfinite(c)])) if np.isfinite(c).any() else None for c in (t[name] for t in tables)
            ]
            found.setdefault(user, {})[figure] = both
    return found


def numbers(folder: Path, since: int = 0) -> dict[str, Any]:
    """The columns of a run's key figures from a subframe on."""
    head, rows = rows_of(folder)
    table = np.array([row for row in rows if int(row[head.index("k")]) >= since], dtype=np.float64).reshape(
        -1, len(head)
    )
    return dict(zip(head, table.T, strict=True))


def course(folder: Path, prefix: str, factor: float, join: Any) -> tuple[Any, Any]:
    """A figure over time, in at most ``POINTS`` means: seconds and values; nothing where the run has no such column."""
    table = numbers(folder)
    columns = [column for name, column in table.items() if name.startswith(prefix)]
    if not columns:
        return np.zeros(0), np.zeros(0)
    stacked = np.stack(columns, axis=1)
    value = np.full(len(stacked), np.nan)
    known = np.isfinite(stacked).any(axis=1)
    value[known] = join(stacked[known], axis=1) * factor
    each = -(-len(value) // POINTS)
    t_s, binned = (
        np.append(c, np.full(-len(c) % each, np.nan)).reshape(-1, each) for c in (table["t_ns"] * 1e-9, value)
    )
    count = np.isfinite(binned).sum(axis=1)
    mean = np.where(count > 0, np.nansum(binned, axis=1) / np.maximum(count, 1), np.nan)
    return np.nanmin(t_s, axis=1), mean


@styled
def drawn(found: Mapping[str, Any]) -> Sheet:
    """Both futures over time: the shared past in grey."""
    drawing, grid = canvas(1.5 * len(FIGURES) + 0.6, len(FIGURES), 1, sharex=True)
    for axes, (title, prefix, factor, join) in zip(grid[:, 0], FIGURES, strict=True):
        for folder, label, stroke in (
            (found["of"], "original", {"color": BLACK, "linestyle": STROKES[1], "linewidth": 1.2}),
            (found["fork"], "fork", {"color": COLOURS[0], "linewidth": 1.3}),
        ):
            t_s, value = course(Path(folder), prefix, factor, join)
            later = t_s >= found["at_s"] - (t_s[1] - t_s[0] if len(t_s) > 1 else 0.0)
            if label == "fork":
                axes.plot(t_s[t_s < found["at_s"]], value[t_s < found["at_s"]], color=GREY, linewidth=1.2, label="both")
            axes.plot(t_s[later], value[later], label=label, **stroke)
        axes.axvline(found["at_s"], color=COLOURS[5], linewidth=1.0)
        axes.set_title(title, pad=2)
        axes.grid(**GRID)
        axes.margins(x=0.01)
    grid[0, 0].set_ylim(0, None)
    grid[-1, 0].set_xlabel("simulated time, s")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper right", ncols=3)
    return Sheet(
        "futures",
        "Both futures",
        f"Up to the line at {found['at_s']:g} s both are one run (grey); from there the original (black, dashed) and the fork (blue). Look for: "
        "where they part, for how long, and whether it is more than the ups and downs that either has by itself; the table of key figures below "
        "judges that.",
        drawing,
    )


def proof(found: Mapping[str, Any]) -> str:
    """On what the claim rests that this is another future of the same run."""
    past = found["past"]
    return (
        f"Up to {found['at_s']:g} s the fork is the original: {past['records']} records of {past['subframes']} subframes are the same, byte for byte "
        f"(hash {past['hash'][:16]} of both)."
    )


def written(found: Mapping[str, Any]) -> str:
    """The page."""
    futures, sheet = found["futures"], drawn(found)
    sets = ", ".join(f"{key} = {value}" for key, value in found["set"].items())
    users = [
        (
            name,
            *(cell for figure in SIDE for cell in shown(figures.get(figure), 1e-9 if figure.endswith("_bps") else 1.0)),
        )
        for name, figures in found["users"].items()
    ]
    heads = ("rate, Gbit/s", "believed, Gbit/s", "SNR, dB", "beam loss, dB", "outage, blocks")
    head = ("user", *(f"{name}: {which}" for name in heads for which in ("original", "fork")))
    judged = [diff.row(name, figure) for name, figure in futures["figures"].items() if figure["verdict"] != "equal"]
    keys = [(key, *map(diff.shown, values)) for key, values in futures["scenario"].items()]
    inside = [
        f'<p class="when">original {escape(found["of"])}, fork {escape(found["fork"])}</p>',
        f"<p>What if, from {found['at_s']:g} s on, {escape(sets)}? {escape(proof(found))} {escape(' '.join(diff.sentences(futures)))}</p>",
        f'<section id="futures"><h2>{escape(sheet.title)}</h2><figure><div class="card">{picture(sheet)}</div>',
        f"<figcaption>{escape(sheet.caption)}</figcaption></figure></section>",
        "<h2>Users, means after the fork</h2>" + table(head, users, numeric=range(1, len(head))) if users else "",
        "<h2>Key figures after the fork</h2>"
        + table(
            ("figure", "original", "fork", "fork − original", "95 % interval", "the fork is"),
            judged,
            numeric=range(1, 5),
        )
        if judged
        else "",
        "<h2>What was changed</h2>" + table(("key", "original", "fork"), keys),
    ]
    return page(f"What if: {sets}", "\n".join(inside))


def shown(both: list[float | None] | None, factor: float) -> list[str]:
    """A figure of both runs as cells."""
    return ["–" if value is None else f"{value * factor:.3g}" for value in both or [None, None]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
