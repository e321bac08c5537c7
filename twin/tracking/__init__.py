"""Tracking: detections to tracks. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from twin.records import Detections, EchoObservation, Tracks

__all__ = ["Tracker"]


class Tracker(Protocol):
    """A multi-target tracker: a frozen dataclass of its parameters; tracks go in and come out."""

    def start(self) -> Tracks:
        """No tracks yet."""

    def predict(self, tracks: Tracks, t_ns: int) -> Tracks:
        """The tracks carried forward to ``t_ns``."""

    def update(self, tracks: Tracks, detections: Detections, observation: EchoObservation) -> Tracks:
        """Predict to the dwells, assign, update, bear and bury."""
