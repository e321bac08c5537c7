"""Arrays as the page's script takes them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from hal.record import Array

__all__ = ["number", "numbers", "packed", "rounded"]


def packed(grid: Array) -> dict[str, Any]:
    """Values of 0 .. 255 as bytes, with their shape."""
    return {"shape": list(grid.shape), "data": base64.b64encode(np.round(grid).astype(np.uint8).tobytes()).decode()}


def rounded(values: list[float], digits: int = 3) -> list[float]:
    """No more digits than anybody sees."""
    return [round(value, digits) for value in values]


def number(value: float) -> float | None:
    """A number, or None for what is none."""
    return round(float(value), 3) if np.isfinite(value) else None


def numbers(column: Array) -> list[float | None]:
    """The same of a column."""
    return [number(value) for value in column]
