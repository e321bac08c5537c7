"""Compiled functions whose cache cannot be written (a full disk, a home that is read only) are compiled again the next time, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from numba.core import caching

__all__ = ["forgive_the_cache"]


def forgive_the_cache() -> None:
    """From here on Numba's cache is a help and no condition: what it cannot read or write is as if it were not there."""
    # as Numba does itself, but on Windows alone
    caching.Cache._guard_against_spurious_io_errors = _guard  # type: ignore[method-assign, assignment]  # noqa: SLF001


@contextmanager
def _guard(cache: object) -> Iterator[None]:
    try:
        yield
    except OSError:
        pass
