"""Counter-based chance: the same seed, stream, entity and time give the same numbers, whoever else asks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """All randomness of a run."""

    seed: int
