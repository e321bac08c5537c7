"""A recording as tables that other programs read: CSV, NumPy archives, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hal.errors import Misuse
from twin.record import created, read

__all__ = ["export"]


def export(path: str | Path, target: str | Path, format: str, topics: tuple[str, ...] = ()) -> list[Path]:
    """Convert a recording and return the files made; none that exists is written over.

    ``csv``: one table a topic, a row a message, scalars and real arrays of up to 64 entries a column each; of one topic
    ``target`` itself, of several ``<target>.<topic>csv``. ``npz``: one file; ``<topic>t_ns`` and ``<topic><field>``
    with the message as leading axis; where shapes differ the entries laid end to end, with the shapes in
    ``<topic><field>.shape``. ``parquet`` (needs pyarrow, in the extra ``sweep``): one file a topic, a row a message, arrays as lists laid out
    in C order with their ``shape`` and ``dtype`` in the column's metadata, complex numbers as re, im by turns. Raises Misuse for another format.
    """
    if format not in ("csv", "npz", "parquet"):
        raise Misuse(f"format = {format!r}: must be csv, npz or parquet")
    target = Path(target)
    columns: dict[str, dict[str, list[Any]]] = {}
    for topic, t_ns, document in read(path, *topics):
        table = columns.setdefault(topic, {"t_ns": []})
        table["t_ns"].append(t_ns)
        for name, value in _leaves(document):
            column = table.setdefault(name if name != "t_ns" else "t_ns.record", [])
            column += [None] * (len(table["t_ns"]) - 1 - len(column))  # a field that was not there before
            column.append(value)
    for table in columns.values():
        for column in table.values():
            column += [None] * (len(table["t_ns"]) - len(column))
    if format == "npz":
        return [_npz(target, columns)]
    write = _parquet if format == "parquet" else _csv
    return [
        write(target if len(columns) == 1 else target.with_name(f"{target.stem}.{topic}{format}"), table)
        for topic, table in columns.items()
    ]


def _npz(target: Path, columns: dict[str, dict[str, list[Any]]]) -> Path:
    stacked: dict[str, Any] = {}
    for topic, table in columns.items():
        for name, column in table.items():
            arrays = [np.asarray(np.nan if value is None else value) for value in column]
            if len({array.shape for array in arrays}) == 1:
                stacked[topic + name] = np.stack(arrays)
            else:
                stacked[topic + name] = np.concatenate([array.ravel() for array in arrays])
                stacked[f"{topic}{name}.shape"] = np.array([str(array.shape) for array in arrays])
    with created(target) as file:
        np.savez_compressed(file, **stacked)
    return target


def _csv(target: Path, table: dict[str, list[Any]]) -> Path:
    flat: dict[str, list[Any]] = {}
    rows = len(table["t_ns"])
    for name, column in table.items():
        for k, value in enumerate(column):
            if not isinstance(value, np.ndarray):
                flat.setdefault(name, [""] * rows)[k] = "" if value is None else value
            elif value.size <= 64 and value.dtype.kind in "fiub":
                for index in np.ndindex(value.shape):
                    flat.setdefault(name + "".join(f"[{i}]" for i in index), [""] * rows)[k] = value[index].item()
    with created(target) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(flat)
        writer.writerows(zip(*flat.values(), strict=True))
    return target


def _parquet(target: Path, table: dict[str, list[Any]]) -> Path:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Misuse(
            "format = 'parquet': needs pyarrow; pip install 'isac-twin[sweep]', or export to csv or npz"
        ) from None
    fields, columns = [], []
    for name, column in table.items():
        arrays = [value for value in column if isinstance(value, np.ndarray)]
        if not arrays:
            made = pa.array([value.item() if isinstance(value, np.generic) else value for value in column])
            fields.append(pa.field(name, made.type))
        else:
            plain = [None if value is None else _interleaved(np.asarray(value)) for value in column]
            made = pa.array(plain, type=pa.list_(pa.from_numpy_dtype(_interleaved(arrays[0]).dtype)))
            shapes = {str(value.shape) for value in arrays}
            about = {
                "dtype": arrays[0].dtype.str,
                "shape": shapes.pop() if len(shapes) == 1 else "differs from row to row",
            }
            fields.append(pa.field(name, made.type, metadata=about))
        columns.append(made)
    with created(target) as file:
        pq.write_table(pa.table(columns, schema=pa.schema(fields)), file, compression="zstd")
    return target


def _interleaved(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = np.ascontiguousarray(value).ravel()
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The scalars, texts and arrays of a document, with their path."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _leaves(entry, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for k, entry in enumerate(value):
            yield from _leaves(entry, f"{name}[{k}]")
    else:
        yield name, value
