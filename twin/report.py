"""``twin report``: one page that says what a run was, readable from disk by anybody, on screen and on paper, without network or scripts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812 - it is a class

import numpy as np

from hal.errors import Misuse
from hal.frontend import FrontendSpec
from twin import figures, patterns
from twin.drawing import Sheet, picture
from twin.dwell import dwell_map, recorded_map
from twin.history import History, history, settings
from twin.map import map_of
from twin.records import Numerology
from twin.scenario import Scenario, ScenarioError, frontend_spec, load, numerology

__all__ = ["arguments", "dwell_map", "page", "report", "run", "table"]

PARAMETERS = (
    ("uy", "direction cosine uy"),
    ("uz", "direction cosine uz"),
    ("range_m", "range"),
    ("velocity_mps", "speed"),
)
EVENTS_LISTED = 60


def arguments(parser: argparse.ArgumentParser) -> None:
    """What ``twin report`` takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, as twin run left it")


def run(given: argparse.Namespace) -> int:
    """``twin report``: write the page and say where it is."""
    print(report(given.run))
    return 0


def report(run_dir: str | Path) -> Path:
    """Write ``report.html`` into a run directory (over an older one) and return its path.

    The page is self-contained and follows from the files there alone. What is missing, damaged or cut off is said in it; a run that was
    killed has a report up to its last whole subframe. Raises Misuse if ``run_dir`` is not a run directory or its scenario cannot be read.
    """
    out = history(run_dir)
    raw = settings(out.folder)
    scenario, spec, frame = read_scenario(out)
    sheets = drawn(out, scenario, spec, frame)
    title = str(raw.get("title") or out.folder.name)
    target = out.folder / "report.html"
    target.write_text(page(f"{title}: report of a run", body(out, raw, scenario, sheets)), encoding="utf-8")
    return target


def read_scenario(out: History) -> tuple[Scenario | None, FrontendSpec | None, Numerology | None]:
    """The scenario as objects, where this installation still understands it; else a notice."""
    try:
        scenario = load(out.folder / "scenario.yaml")
        return scenario, frontend_spec(scenario, next(iter(scenario.sites))), numerology(scenario)
    except ScenarioError as wrong:
        out.notices.append(
            f"scenario.yaml is not understood any more ({str(wrong).splitlines()[0]}): figures that need the array or the bands are left out."
        )
        return None, None, None


def drawn(out: History, scenario: Scenario | None, spec: FrontendSpec | None, frame: Numerology | None) -> list[Sheet]:
    """All figures of a run, in the order of the page."""
    subframe_s = 5e-3 if frame is None else frame.subframe_ns * 1e-9
    arrays, source, missing = dwell_arrays(out, scenario)
    return [
        map_of(out, scenario),
        figures.rate(out, subframe_s),
        figures.sensing(out, subframe_s),
        patterns.beam(out, spec, frame),
        patterns.dwell(out, arrays, source, missing),
        figures.plan(out, subframe_s),
        figures.lag(out),
        figures.events(out),
    ]


def dwell_arrays(out: History, scenario: Scenario | None) -> tuple[Mapping[str, Any] | None, str, str]:
    """A dwell to show, where it is from, or why there is none."""
    file = out.folder / "dwell.npz"
    if file.is_file():
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            lacking = {"power_db", "range_m", "velocity_mps"} - arrays.keys()
            if not lacking:
                return arrays, "the run's last subframe, dwell.npz", ""
            out.notices.append(f"dwell.npz lacks {', '.join(sorted(lacking))} and is not shown.")
        except (OSError, ValueError, EOFError, KeyError, AttributeError, BadZipFile, ZlibError) as error:
            out.notices.append(f"dwell.npz cannot be read ({error}).")
    if out.echo is not None and scenario is not None:
        try:
            return (
                recorded_map(scenario, *out.echo),
                "the recorded echo samples of the last subframe, its symbols drawn again from the seed",
                "",
            )
        except Misuse as wrong:
            out.notices.append(f"The recorded echo cannot be shown: {wrong}.")
    how = "Run it again with --set record.echoes=true (about 1 MB a subframe) and with sensing.fidelity = echo."
    return None, "", f"The run directory holds no dwell.npz, and the recording no echo samples. {how}"


def body(out: History, raw: Mapping[str, Any], scenario: Scenario | None, sheets: Sequence[Sheet]) -> str:
    """Everything below the title."""
    ran = out.summary.get("run", {})
    stamp = [
        f"run {ran['id']}" if "id" in ran else f"run directory {out.folder.name}",
        f"seed {raw.get('seed', 'unknown')}",
    ]
    if "hash" in ran:
        stamp.append(f"hash {ran['hash']}")
    parts = [f'<p class="when">{escape(", ".join(stamp))}</p>']
    if out.notices:
        parts.append('<div class="notice">' + "".join(f"<p>{escape(text)}</p>" for text in out.notices) + "</div>")
    parts.append(f"<p>{escape(paragraph(out, raw, scenario))}</p>")
    parts.append(
        "<nav>"
        + "".join(f'<a href="#{s.name}">{i}. {escape(s.title)}</a> ' for i, s in enumerate(sheets, 1))
        + "</nav>"
    )
    parts.append("<h2>Headline numbers</h2>" + headline(out) + users(out) + movers(out))
    for i, sheet in enumerate(sheets, 1):
        parts.append(f'<section id="{sheet.name}"><h2>{i}. {escape(sheet.title)}</h2>{framed(sheet)}</section>')
        if sheet.name == "events":
            parts.append(listed(out))
    parts.append(
        '<p class="quiet">Errors, bounds and outage compare with the truth of the simulation, which the base station never sees.</p>'
    )
    return "\n".join(parts)


def framed(sheet: Sheet) -> str:
    """A figure with its caption, or the sentence in its place."""
    if sheet.drawing is None:
        return f'<p class="missing">{escape(sheet.missing)}</p>'
    return f'<figure><div class="card">{picture(sheet)}</div><figcaption>{escape(sheet.caption)}</figcaption></figure>'


def paragraph(out: History, raw: Mapping[str, Any], scenario: Scenario | None) -> str:
    """The scenario in a few sentences, from its own description and figures."""
    said = " ".join(str(raw.get("description") or "").split())
    if scenario is None:
        return said or "The scenario has no description."
    name, site = next(iter(scenario.sites.items()))
    data, look, control, period_s = (
        scenario.communication,
        scenario.sensing,
        site.control,
        scenario.subframe.period_ns * 1e-9,
    )
    parts = (look.detector, control.tracking, control.estimation, control.planning, control.precoding)
    kinds = [type(part).__module__.rpartition(".")[2] for part in parts]
    sends, hears = (elements(half.array) for half in (site.transmit, site.receive))
    lines = site.transmit.network.delay_lines
    wired = f"behind {lines[0]} x {lines[1]} delay lines" if lines else "without delay lines"
    here = len(out.user) if out.mover else len(scenario.users)
    there = len(out.mover) - here if out.mover else len(scenario.targets)
    ran = f"the run has {out.subframes} of them, {out.subframes * period_s:g} s"
    if out.subframes != scenario.subframes:
        ran = (
            f"of the {scenario.subframes} planned ({scenario.subframes * period_s:g} s), {out.subframes} were recorded"
        )
    sentences = [
        said,
        f"Site {name} stands {site.position_m[2]:g} m high and works at {scenario.carrier_hz * 1e-9:g} GHz: data over {data.bandwidth_hz * 1e-9:g} GHz "
        f"in {many(data.subcarriers, 'subcarrier')}, sensing over {look.delay_bins * look.spacing_hz * 1e-6:g} MHz in {many(look.dwells, 'dwell')} of "
        f"{many(look.frames_per_dwell, 'frame')} a subframe (fidelity: {look.fidelity}).",
        f"It sends {10 * np.log10(site.power_w * 1e3):.0f} dBm from {many(sends, 'element')} {wired} and listens with {many(hears, 'element')} and "
        f"{many(site.receive.network.chains, 'chain')}.",
        f"It serves {many(here, 'user')}; {many(there, 'other mover')} carry no radio and are there to be found.",
        f"Detector, tracker, estimator, planner and precoder are {', '.join(kinds[:-1])} and {kinds[-1]}.",
        f"Subframes last {period_s * 1e3:g} ms; {ran}.",
        f"The machine breaks on purpose: {many(len(scenario.faults), 'fault')} in the scenario."
        if scenario.faults
        else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def elements(array: Any) -> int:
    """How many elements an array of the scenario has."""
    return array.columns * array.rows if hasattr(array, "columns") else int(array.elements)


def many(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def headline(out: History) -> str:
    """The numbers to look at first, with what to hold them against."""
    told = out.summary
    if not told:
        return '<p class="missing">There is neither a summary nor a recording to compute one from.</p>'
    sensing, tracks, beams = told["sensing"], told["tracks"], told["beams"]
    subframes = max(out.subframes or told.get("run", {}).get("subframes", 1), 1)
    outage = [u["outage_share"] for u in told["users"].values() if u["outage_share"] is not None]
    lobes = sensing.get("side_lobe_echoes")
    aside = f"; {lobes} more are movers seen in a side lobe" if lobes is not None else ""
    rows = [
        ("sum rate", f"{number(told['rate_gbps'], 2)} Gbit/s", "delivered, all users together, over the whole time"),
        ("worst user's outage", percent(max(outage, default=None)), "of served blocks below 0 dB mean SNR"),
        (
            "movers followed",
            percent(tracks["alive_share"]),
            "of the time a mover was there, a confirmed track followed it",
        ),
        (
            "false tracks",
            f"{number(tracks['false'], 2)} a subframe",
            "confirmed, with no mover within 4 m; should be 0",
        ),
        (
            "bindings",
            f"{percent(tracks['bound_right_share'])} right",
            f"{tracks['swaps']} swaps, {tracks['rebindings']} rebindings",
        ),
        (
            "false alarms",
            f"{number(sensing['false_alarms'] / subframes, 3)} a subframe",
            f"{sensing['false_alarms']} of {sensing['detections']} detections have no mover near{aside}",
        ),
        ("lit movers missed", percent(sensing["missed_share"]), "in the main lobe at 20 dB and more, yet not detected"),
        *(
            (f"{words}: error over bound", number(sensing["rmse_over_bound"][key], 2), "RMS; 1 is the Cramér–Rao bound")
            for key, words in PARAMETERS
        ),
        (
            "consistency of detections",
            number(sensing["nees"], 2),
            "mean normalised squared error; 4 if covariances are right",
        ),
        ("consistency of tracks", number(tracks["nees"], 2), "the same of positions; 3 if right, below is cautious"),
        ("time spent sensing", percent(sensing["share"]), "of each subframe"),
        (
            "beam settings",
            f"{beams['set']} rows",
            f"{beams['clipped']} settings clipped; in force after {number(beams['delay_us'], 0)} µs",
        ),
        (
            "Doppler spread x block",
            number(told["doppler_block"], 2),
            "largest; above 0.3 the channel changes within a block",
        ),
    ]
    clock, ran = told.get("clock"), told.get("run")
    if clock:
        rows.append(
            (
                "CPU time a subframe",
                f"{number(clock['subframe']['cpu_p50_us'] * 1e-3, 2)} ms",
                f"median, of {clock['budget_us'] * 1e-3:g} ms; {clock['misses']} of {clock['subframes']} subframes took longer than that by the wall clock",
            )
        )
    if ran:
        speed = ran["simulated_s"] / max(ran["wall_s"], 1e-9)
        rows.append(
            ("speed", f"{speed:.2f} x real time", f"{ran['simulated_s']:g} s simulated in {ran['wall_s']:.1f} s")
        )
    return table(("figure", "value", "what it says"), rows, numeric=(1,))


def users(out: History) -> str:
    """A row for each user; what its plan promised beside what came, where a planner predicts."""
    told = out.summary.get("users", {})
    columns = [("rate_gbps", 2, "rate, Gbit/s"), ("predicted_gbps", 2, "believed")]
    if any(u.get("planned_gbps") is not None for u in told.values()):
        columns += [("planned_gbps", 4, "planned"), ("formula_gbps", 4, "by equation (22)")]
        columns += [("planned_error", 3, "planning error"), ("pilot_surprise", 2, "pilots' surprise")]
    columns += [("snr_db", 1, "SNR, dB"), ("beam_loss_db", 2, "beam loss, dB")]
    fine = max((u["rate_gbps"] or 0.0 for u in told.values()), default=1.0) < 0.1
    rows = [
        (
            name,
            percent(u["present_share"]),
            *(number(u[key], 4 if fine and key.endswith("_gbps") else digits) for key, digits, _ in columns),
            percent(u["outage_share"]),
        )
        for name, u in told.items()
    ]
    head = ("user", "present", *(title for *_, title in columns), "outage")
    return table(head, rows, numeric=range(1, len(head)), caption="Users") if rows else ""


def movers(out: History) -> str:
    """A row for each mover: how well it was followed and measured."""
    rows = []
    for name, m in out.summary.get("movers", {}).items():
        cells = [
            name,
            percent(m["present_share"]),
            percent(m["tracked_share"]),
            number(m["position_rmse_m"], 3),
            str(m["detections"]),
        ]
        for keys, unit in ((("uy", "uz"), np.rad2deg(1e3)), (("range_m",), 1e3), (("velocity_mps",), 1e3)):
            both = [
                None if any(m[of][k] is None for k in keys) else unit * np.hypot.reduce([m[of][k] for k in keys])
                for of in ("rmse", "bound")
            ]
            cells.append("–" if None in both else f"{number(both[0], 1)} ({number(both[1], 1)})")
        rows.append(tuple(cells))
    head = (
        "mover",
        "present",
        "followed",
        "track error, m",
        "detections",
        "angle, mdeg (bound)",
        "range, mm (bound)",
        "speed, mm/s (bound)",
    )
    return (
        table(head, rows, numeric=range(1, 8), caption="Movers: RMS errors, and in brackets their Cramér–Rao bound")
        if rows
        else ""
    )


def listed(out: History) -> str:
    """The first events in words, and how many there were of each kind."""
    if not out.story.counts:
        return ""
    counts = table(
        ("kind", "how often"),
        [(k, str(n)) for k, n in sorted(out.story.counts.items(), key=lambda c: -c[1])],
        numeric=(1,),
        caption="Events by kind",
    )
    rows = [
        (f"{e.t_ns * 1e-9:.3f}" + (f" – {e.until_ns * 1e-9:.3f}" if e.until_ns > e.t_ns else ""), e.kind, e.what)
        for e in out.events[:EVENTS_LISTED]
    ]
    more = len(out.events) - len(rows)
    words = f"The first {len(rows)} events; {more} more follow" if more > 0 else "All events"
    return counts + (table(("time, s", "kind", "what"), rows, caption=words) if rows else "")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] | range = (), caption: str = ""
) -> str:
    """An HTML table; ``numeric`` columns are set flush right. Texts are escaped here."""

    def cells(row: Sequence[str], opening: str, closing: str) -> str:
        flush = (' class="n"' if i in numeric else "" for i in range(len(row)))
        return "".join(f"<{opening}{to}>{escape(str(cell))}</{closing}>" for cell, to in zip(row, flush, strict=True))

    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = cells(head, 'th scope="col"', "th")
    inside = "".join(f"<tr>{cells(row, 'td', 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table>{titled}<thead><tr>{top}</tr></thead><tbody>{inside}</tbody></table></div>'


def page(title: str, inside: str) -> str:
    """A whole page, which is also well-formed XML: style inside, nothing fetched, nothing that runs."""
    css = files("twin").joinpath("report.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>\n{css}</style></head>\n<body><main><h1>{escape(title)}</h1>\n{inside}\n</main></body></html>\n"
    )


def number(value: float | None, digits: int) -> str:
    """A number with so many digits, or a dash for what was never measured."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    sys.exit(run(parser.parse_args()))
