"""Key figures of a stretch of subframes as one array, a row a subframe: counted and written a page at a time, not a field at a time."""

from __future__ import annotations

import csv
from dataclasses import fields
from operator import attrgetter
from typing import BinaryIO, NamedTuple, get_args, get_type_hints

import msgspec
import numpy as np

from hal.record import Array, Bool, Float
from twin.kpi import Kpi

__all__ = ["Page", "Table"]

ROWS = 64  # of a page
PARAMETERS = ("uy", "uz", "range_m", "velocity_mps")
_ENCODE = msgspec.json.Encoder().encode


class _Column(NamedTuple):
    """Where a key figure stands in a row."""

    name: str
    axis: str  # user, entity, or "" for one number
    deep: int  # numbers an entry
    whole: bool  # integers
    first: int


class Page:
    """Up to ``ROWS`` subframes' key figures: ``page["rate_bps"]`` is ``[row, user]``. A figure that a subframe does not say is NaN.

    ``block_rate_bps`` and words are left out. Integers are exact below 2^53 (104 days of ``t_ns``).
    """

    def __init__(self, users: int, movers: int) -> None:
        sizes = {"user": users, "entity": movers}
        numbers, arrays = [], []
        for name, kind in get_type_hints(Kpi, include_extras=True).items():
            kind = (get_args(kind) or (kind,))[0]  # of ``X | None``
            axis, _, deep = getattr(kind, "dim_str", "").strip().partition(" ")
            if kind in (int, float):
                numbers.append(_Column(name, "", 1, kind is int, 0))
            elif axis in sizes and name not in sizes:
                arrays.append(_Column(name, axis, int(deep or 1), "int64" in kind.dtypes, 0))
        self.columns: list[_Column] = []
        width = 0
        for column in (*numbers, *arrays):  # numbers first: one assignment
            self.columns.append(column._replace(first=width))
            width += sizes.get(column.axis, 1) * column.deep
        self._numbers = len(numbers)
        self._at = {c.name: c for c in self.columns}
        self._sizes = sizes
        self._fetch = attrgetter(*self._at)
        self._absent = [np.full(sizes[c.axis] * c.deep, np.nan) for c in arrays]
        self._rows = np.full((ROWS, width), np.nan)
        self._present = np.zeros((ROWS, movers), bool)
        self.count = 0
        self.said: frozenset[str] = frozenset()  # figures that the first row had

    def add(self, kpi: Kpi, present: Bool[Array, " entity"]) -> bool:
        """Take in one subframe, ``present`` the movers that are there; return whether the page is full."""
        values, row, numbers = self._fetch(kpi), self._rows[self.count], self._numbers
        row[:numbers] = [np.nan if v is None else v for v in values[:numbers]]
        given = [
            absent if value is None else value.reshape(-1)
            for value, absent in zip(values[numbers:], self._absent, strict=True)
        ]
        np.concatenate(given, out=row[numbers:])
        self._present[self.count] = present
        if not self.said:
            self.said = frozenset(c.name for c, v in zip(self.columns, values, strict=True) if v is not None)
        self.count += 1
        return self.full

    @property
    def full(self) -> bool:
        """No room for another row."""
        return self.count == ROWS

    @property
    def present(self) -> Bool[Array, "row entity"]:
        """Who was there."""
        return self._present[: self.count]

    def __getitem__(self, name: str) -> Float[Array, "row ..."]:
        at = self._at[name]
        size = self._sizes.get(at.axis, 1) * at.deep
        found = self._rows[: self.count, at.first : at.first + size]
        if not at.axis:
            return found[:, 0]
        return found.reshape(self.count, -1, at.deep) if at.deep > 1 else found

    def rows(self) -> Float[Array, "row column"]:
        """All of it; the columns are those of ``titles``."""
        return self._rows[: self.count]

    def titles(self, users: tuple[str, ...], movers: tuple[str, ...]) -> list[tuple[str, int, bool]]:
        """Of what the first row said, in the order of ``Kpi``: title, column of ``rows`` and whether it holds integers."""
        names = {"user": users, "entity": movers}
        found = []
        for entry in fields(Kpi):
            if entry.name not in self.said:
                continue
            at = self._at[entry.name]
            parts = PARAMETERS[: at.deep] if at.deep > 1 else ("",)
            tails = [f".{p}.{who}" if p else f".{who}" for who in names[at.axis] for p in parts] if at.axis else [""]
            found += [(entry.name + tail, at.first + k, at.whole) for k, tail in enumerate(tails)]
        return found

    def clear(self) -> None:
        """An empty page."""
        self.count = 0


class Table:
    """The comma-separated table of a run; the first subframe's columns hold for all, whatever later ones say more or less."""

    def __init__(self, file: BinaryIO, users: tuple[str, ...], movers: tuple[str, ...]) -> None:
        self._file, self._users, self._movers = file, users, movers
        self._column: list[int] = []
        self._whole: list[bool] = []

    def write(self, page: Page) -> None:
        """Add a page's rows."""
        if not page.count:
            return
        if not self._column:
            titles, self._column, self._whole = (
                list(each) for each in zip(*page.titles(self._users, self._movers), strict=True)
            )
            head = _Line()
            csv.writer(head).writerow(titles)
            self._file.write(head.text.encode())
        block = page.rows()[:, self._column]
        columns: list[list[float]] = block.T.tolist()
        for k, whole in enumerate(self._whole):
            if whole and not np.isnan(block[:, k]).any():
                columns[k] = [int(value) for value in columns[k]]
        rows = zip(*columns, strict=True)
        if np.isinf(block).any():  # which JSON cannot say
            lines = [",".join(map(repr, row)).encode() for row in rows]
        else:
            lines = [_ENCODE(row)[1:-1].replace(b"null", b"nan") for row in rows]
        self._file.write(b"\r\n".join(lines) + b"\r\n")


class _Line:
    """A file of one line."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)
