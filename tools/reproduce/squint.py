"""What the figures of papers/000 share: sweeps of schemes over random draws, their CSV, and the command line of one figure."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from twin.compare_precoders import SCHEMES, Setup, compare, interval_db
from twin.precoding import Precoder
from twin.precoding.csp_net import CspNet

PAPER = {  # the paper's names for what it compares, and the steps it prints; eta and Gamma are our choice: it gives none
    "SA-Opt": SCHEMES["SA eq19 (21)"],
    "CBS-ISAC": SCHEMES["CBS (21)"],
    "Opt w/o TTD": SCHEMES["no TTD eq19 (21)"],
    "Comm-dedicated": SCHEMES["comm"],
    "Sensing-dedicated": SCHEMES["sensing (21)"],
    "CBS-ISAC, printed (24)": SCHEMES["CBS printed (24)"],
    "SA-Opt, amp (20)": SCHEMES["SA amp (20)"],
    "direct": SCHEMES["direct 4"],
    "CSP-Net": CspNet(
        rate_weight=4.28
    ),  # the factored network, at direct's trade-off; as published: squint_fig3, squint_table2
}


def sweep(path: Path, setups: Mapping[float, Setup], draws: int, schemes: Mapping[str, Precoder] = PAPER) -> None:
    """A row for each setup, draw and scheme: x, seed, scheme, rate, crb, divergence, time_s."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("x", "seed", "scheme", "rate", "crb", "divergence", "time_s"))
        for x, setup in setups.items():
            found = compare(
                setup, range(draws), schemes, lambda done, total, x=x: told(f"x = {x:g}: {done}/{total} draws")
            )
            for name, scores in found.items():
                table.writerows((x, seed, name, s.rate, s.crb, s.divergence, s.time_s) for seed, s in enumerate(scores))


def snr_setups(quick: bool) -> dict[float, Setup]:
    """Figures 4(a), 4(b)."""
    return {db: Setup(snr_db=db) for db in ((0.0, 10.0, 20.0) if quick else (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0))}


def msia_setups(quick: bool) -> dict[float, Setup]:
    """Figures 4(c), 4(d): SNR 10 dB."""
    return {rad: replace(Setup(), msia_rad=rad) for rad in ((0.05, 0.3) if quick else (0.02, 0.05, 0.1, 0.2, 0.3))}


def rows(path: Path) -> list[dict[str, Any]]:
    """The CSV, numbers as numbers."""
    with path.open(encoding="utf-8") as stream:
        return [{k: v if k == "scheme" else float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def column(found: Iterable[Mapping[str, Any]], scheme: str, what: str, x: float | None = None) -> np.ndarray:
    """One scheme's values, by draw."""
    return np.array([r[what] for r in found if r["scheme"] == scheme and (x is None or r["x"] == x)])


def curve(found: Sequence[Mapping[str, Any]], scheme: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The points x and the mean over draws there; CRBs as geometric means of the finite ones."""
    xs = sorted({r["x"] for r in found})
    at = [column(found, scheme, what, x) for x in xs]
    return np.array(xs), np.array([np.exp(np.log(v[np.isfinite(v)]).mean()) if what == "crb" else v.mean() for v in at])


def paired_db(found: Sequence[Mapping[str, Any]], scheme: str, other: str, what: str, x: float) -> tuple[float, float]:
    """Mean over the same draws of ``scheme`` over ``other`` in dB, and half its 95 % interval."""
    return interval_db(column(found, scheme, what, x) / column(found, other, what, x))


def claim(text: str, holds: bool, **numbers: float) -> dict[str, Any]:
    """One sentence of the paper, whether the CSV bears it out, and the numbers it was judged by."""
    return {"claim": text, "verdict": "holds" if holds else "fails", **{k: float(v) for k, v in numbers.items()}}


def told(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:60s}", end="", file=sys.stderr, flush=True)


def main(doc: str, make: Callable[[Path, bool], None], verdict: Callable[[Path], list[dict[str, Any]]]) -> int:
    """``python -m tools.reproduce.NAME [quick] [--csv FILE] [--keep]``: make the CSV (unless kept), judge it, print the verdicts."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: few draws and points"
    )
    parser.add_argument(
        "--csv", type=Path, default=None, help="where the numbers go (default: runs/reproduce/NAME.csv)"
    )
    parser.add_argument("--keep", action="store_true", help="judge the CSV that is there instead of making it again")
    given = parser.parse_args()
    name = Path(sys.argv[0]).stem
    path = given.csv or Path("runs/reproduce") / f"{name}.csv"
    if not given.keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, given.pace == "quick")
    told("")
    json.dump({"csv": str(path), "claims": verdict(path)}, sys.stdout, indent=1)
    print()
    return 0
