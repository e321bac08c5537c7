"""What the figures of papers/001 that compare waveforms share: Table I's numbers, CSV in and out, intervals."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hal.array import LIGHT_MPS
from tools.reproduce.squint import claim, main, told

__all__ = [
    "CARRIER_HZ",
    "DELAY_BINS",
    "DOPPLER_BINS",
    "MPS_PER_CYCLE",
    "RANGE_M_PER_SAMPLE",
    "SAMPLE_RATE_HZ",
    "claim",
    "frame",
    "main",
    "ratio_interval",
    "rows",
    "series",
    "told",
    "write",
]

CARRIER_HZ, DELAY_BINS, DOPPLER_BINS = 0.3e12, 64, 16  # Table I
SAMPLE_RATE_HZ = DELAY_BINS * 480e3
RANGE_M_PER_SAMPLE = LIGHT_MPS / (2 * SAMPLE_RATE_HZ)
MPS_PER_CYCLE = SAMPLE_RATE_HZ * LIGHT_MPS / (2 * CARRIER_HZ)  # speed of one cycle a sample of Doppler


def frame(roll_off: float = 0.1) -> Any:
    """Table I's frame as the waveforms want it; the paper prints no pulse span: 10."""
    return SimpleNamespace(
        delay_bins=DELAY_BINS,
        doppler_bins=DOPPLER_BINS,
        roll_off=roll_off,
        pulse_span=10,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )


def write(path: Path, head: Sequence[str], found: Iterable[Sequence[Any]]) -> None:
    """A CSV, row after row as they come."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(head)
        table.writerows(found)


def rows(path: Path) -> list[dict[str, Any]]:
    """The CSV, numbers as numbers."""

    def read(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(encoding="utf-8") as stream:
        return [{k: read(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def ratio_interval(
    one: np.ndarray, other: np.ndarray, statistic: Callable[[np.ndarray], float], resamples: int = 300
) -> tuple[float, float]:
    """95 % interval of ``statistic(one) - statistic(other)`` by resampling both."""
    rng = np.random.default_rng(0)
    found = [statistic(rng.choice(one, len(one))) - statistic(rng.choice(other, len(other))) for _ in range(resamples)]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def series(found: Iterable[Mapping[str, Any]], value: str, **where: Any) -> np.ndarray:
    """One column of the rows in which every named column has that value."""
    return np.array([r[value] for r in found if all(r[k] == v for k, v in where.items())])
