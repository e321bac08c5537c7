"""The rows of a sweep: kept as they come, read back after an interruption, written as one Parquet table, and averaged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hal.errors import Misuse

__all__ = ["CONFIDENCE", "Journal", "Mean", "half_width", "mean_of", "paired", "read_table", "write_table"]

CONFIDENCE = 0.95


class Journal:
    """A file of finished rows, one JSON object a line, which a kill can cost no more than its last line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, dict[str, Any]] = {}
        whole = 0
        if file.exists():
            data = file.read_bytes()
            for line in data.splitlines(keepends=True):
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if not isinstance(row, dict) or "key" not in row:
                    break
                self.rows[row["key"]] = row
                whole += len(line)
        self.stream = file.open("ab")
        self.stream.truncate(whole)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stream.close()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep rows; they are on disk when this returns."""
        for row in rows:
            self.rows[row["key"]] = dict(row)
            self.stream.write(json.dumps(row, default=str).encode() + b"\n")
        self.stream.flush()


@dataclass(frozen=True)
class Mean:
    """A mean over seeds."""

    value: float
    half: float  # half width of its 95 % interval; nan: one seed has none
    count: int


def half_width(values: np.ndarray[Any, Any]) -> float:
    """Half width of the 95 % interval of a mean, Student's t; nan for fewer than two values."""
    if len(values) < 2:
        return float("nan")
    from scipy.special import stdtrit  # of scipy.stats, without its import time

    t = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return t * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def mean_of(values: Iterable[float | None]) -> Mean:
    """The mean of what was measured: None and nan are left out."""
    known = np.array([v for v in values if v is not None and np.isfinite(v)], dtype=float)
    if not len(known):
        return Mean(float("nan"), float("nan"), 0)
    return Mean(float(known.mean()), half_width(known), len(known))


def paired(a: Mapping[int, float | None], b: Mapping[int, float | None]) -> Mean:
    """The mean of ``b - a`` over the seeds both have: with common random numbers far better known than either mean."""
    both = [s for s in a if a[s] is not None and b.get(s) is not None]
    return mean_of([b[s] - a[s] for s in both])  # type: ignore[operator]


def write_table(file: Path, rows: Sequence[Mapping[str, Any]], parameters: Sequence[str]) -> None:
    """One Parquet table, a row a run: parameters, seed, key figures, hash, seconds, error; lists are written as JSON text."""
    pyarrow, parquet = _parquet()
    first = ["index", "point", "seed", *parameters]
    last = ["hash", "seconds", "error"]
    names = [n for n in dict.fromkeys(key for row in rows for key in row) if n not in {*first, *last, "key"}]
    columns = {name: _column([row.get(name) for row in rows]) for name in (*first, *sorted(names), *last)}
    made = pyarrow.table({name: pyarrow.array(values) for name, values in columns.items()})
    partial = file.with_suffix(".partial")
    parquet.write_table(made.replace_schema_metadata({"parameters": json.dumps(list(parameters))}), partial)
    partial.replace(file)


def read_table(file: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The rows of a table and the names of its parameters.

    Raises:
        Misuse: there is no such table, or it is not one of a sweep.
    """
    pyarrow, parquet = _parquet()
    try:
        table = parquet.read_table(file)
        parameters = json.loads((table.schema.metadata or {})[b"parameters"])
    except FileNotFoundError:
        raise Misuse(f"{file}: no such table; `twin sweep SWEEP.yaml` writes one into its directory") from None
    except (pyarrow.ArrowException, KeyError, ValueError) as error:
        raise Misuse(f"{file}: is not the table of a sweep ({str(error).splitlines()[0]})") from error
    return table.to_pylist(), tuple(parameters)


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and len(kinds) > 1:
        return [None if v is None else float(v) for v in values]
    if len(kinds) > 1 or kinds & {list, dict, tuple}:
        return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return values


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Misuse("sweep tables need pyarrow: pip install 'isac-twin[sweep]'") from None
    return pyarrow, pyarrow.parquet
