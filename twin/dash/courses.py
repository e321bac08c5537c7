"""The last ten seconds: rates, errors beside their bounds, correlation and lag over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hal.record import Array
from twin.dash.numbers import numbers
from twin.scene import Scene

__all__ = ["WINDOW_S", "courses"]

WINDOW_S, BINS = 10.0, 100


def courses(
    scene: Scene, correlated: Iterable[tuple[float, float]], lags: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """The last ten seconds in bins that stay where they are as time goes on."""
    assert scene.kpi is not None
    k, whole = int(scene.kpi["k"]), scene.subframes_in(WINDOW_S)
    each = max(1, whole // BINS)
    last = k // each
    subframes, service = scene.service.last(k, (BINS + 1) * each)
    _, sensed = scene.sensed.last(k, (BINS + 1) * each)
    row = subframes // each - (last - BINS + 1)
    squared = np.where(np.isfinite(sensed[:, :1]) & np.isfinite(sensed[:, 1:]), sensed, np.nan)[..., [0, 2]] ** 2
    # one root mean square over movers and bin: of the first cosine (in millidegrees off boresight) and of range (millimetres)
    flat = squared.transpose(0, 1, 3, 2).reshape(len(subframes), 4, -1)
    error = np.sqrt(_binned(row, flat)) * np.array([np.rad2deg(1e3), 1e3] * 2)
    rate = _binned(row, service[:, 0, :, None]) * 1e-9
    step_s = each * scene.period_ns * 1e-9
    first_s = (last - BINS + 1) * step_s
    return {
        "first": first_s,
        "since": max(first_s, int(scene.kpi["t_ns"]) * 1e-9 - scene.heard_s),
        "step": step_s,
        "now": int(scene.kpi["t_ns"]) * 1e-9,
        "rate": [numbers(column) for column in rate.T],
        "angle": numbers(error[:, 0]),
        "angle_bound": numbers(error[:, 2]),
        "range": numbers(error[:, 1]),
        "range_bound": numbers(error[:, 3]),
        "cs": [[t, v] for t, v in correlated if t >= first_s],
        "lag": [[t, v] for t, v in lags[:: max(1, len(lags) // 300)] if t >= first_s],
    }


def _binned(row: Array, value: Array) -> Array:
    """Means of ``value[sample column more]`` over samples of one bin (``row``, ascending) and over ``more``; NaN where nothing is known."""
    known = np.isfinite(value)
    edge = np.searchsorted(row, np.arange(BINS + 1))
    total, count = (
        np.diff(np.concatenate([np.zeros((1, value.shape[1])), np.cumsum(part.sum(axis=-1), axis=0)])[edge], axis=0)
        for part in (np.where(known, value, 0.0), known)
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
