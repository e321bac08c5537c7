"""What the figures and propositions of papers/004 share: readings, CSV, claims, and the command line of one of them."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twin.physics.dual_scale import crb_constant_rad2
from twin.planning.dual_scale import Case, paper_drop

# Gamma is printed without a unit, the radar's power not at all. A reading is the unit of Gamma, the sensing time that 0.5 of it takes the
# worst user of a drop (blocks), and whether equation (22) keeps its i = k term. The first is the equation as printed; the others come closest to the figures.
READINGS: dict[str, tuple[str, float, bool]] = {
    "(22), variance in deg^2, 2.3 blocks": ("variance", 2.3, True),
    "(22), variance in deg^2, 1.7 blocks": ("variance", 1.7, True),
    "i=k dropped, variance in deg^2, 1.7 blocks": ("variance", 1.7, False),
    "i=k dropped, variance in deg^2, 1.5 blocks": ("variance", 1.5, False),
    "i=k dropped, deviation in deg, 0.17 blocks": ("deviation", 0.17, False),
}
PRINTED = "(22), variance in deg^2, 2.3 blocks"


def drop(seed: int, gamma: float, reading: str, **given: Any) -> Case:
    """A random drop of section IV with the requirement ``gamma`` in a reading's unit."""
    unit, blocks, own = READINGS[reading]

    def variance(value: float) -> float:
        degree = np.deg2rad(1.0)
        return value * degree**2 if unit == "variance" else (value * degree) ** 2

    azimuth = paper_drop(seed)[0].azimuth_rad
    worst = float(crb_constant_rad2(1.0, 8, azimuth).max())  # a symbol's, at unit echo SNR
    echo_snr = worst / (blocks * 70 * variance(0.5))
    return paper_drop(seed, crb_max_rad2=variance(gamma), echo_snr=echo_snr, **({"own_term": own} | given))[1]


def written(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """The CSV, a line at a time."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(columns)
        for line in lines:
            out.writerow([f"{v:.12g}" if isinstance(v, float) else v for v in line])
            told(" ".join(str(v) for v in line[:4]))


def read(path: Path) -> list[dict[str, Any]]:
    """The CSV, numbers as numbers."""

    def number(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(encoding="utf-8") as stream:
        return [{key: number(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def mean_ci(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half its 95 % interval (normal); infinite for a single value."""
    v = np.asarray(values, float)
    return float(v.mean()), float(1.96 * v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("inf")


def claim(text: str, printed: bool, other: Mapping[str, bool] | None = None, **numbers: float) -> dict[str, Any]:
    """A sentence of the paper and whether the CSV bears it out: as printed, under another reading (named), or not."""
    also = [name for name, holds in (other or {}).items() if holds]
    verdict = "holds" if printed else "holds with other reading" if also else "fails"
    reading = {} if printed or not also else {"reading": also[0]}
    return {"claim": text, "verdict": verdict, **reading, **{key: float(value) for key, value in numbers.items()}}


def told(text: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:70.70s}", end="", file=sys.stderr, flush=True)


def main(doc: str | None, make: Callable[[Path, bool], None], verdict: Callable[[Path], list[dict[str, Any]]]) -> int:
    """``python -m tools.reproduce.NAME [quick] [--csv FILE] [--keep]``: make the CSV (unless kept), judge it, print the verdicts."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(
        "pace", nargs="?", choices=("quick", "full"), default="full", help="quick: few drops and points"
    )
    parser.add_argument(
        "--csv", type=Path, default=None, help="where the numbers go (default: runs/reproduce/NAME.csv)"
    )
    parser.add_argument("--keep", action="store_true", help="judge the CSV that is there instead of making it again")
    given = parser.parse_args()
    path = given.csv or Path("runs/reproduce") / f"{Path(sys.argv[0]).stem}.csv"
    if not given.keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, given.pace == "quick")
    told("")
    json.dump({"csv": str(path), "claims": verdict(path)}, sys.stdout, indent=1)
    print()
    return 0
