"""A cache that cannot be written is no reason not to run."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from numba import njit
from numba.core import caching

from twin.forgiving import forgive_the_cache


def test_a_full_disk_under_the_cache_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def full(*given: Any) -> None:
        asked.append(1)
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    forgive_the_cache()

    @njit(cache=True)
    def more(x: int) -> int:
        return x + 1

    assert more(1) == 2
    assert asked
