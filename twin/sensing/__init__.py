"""Sensing: echo samples to detections with covariance. Every other module plays the role."""

from __future__ import annotations

from typing import Protocol

from twin.records import Detections, EchoObservation, Tracks

__all__ = ["Detector"]


class Detector(Protocol):
    """A detector and four-parameter estimator: a frozen dataclass of its parameters."""

    def detect(self, observation: EchoObservation, tracks: Tracks) -> Detections:
        """All detections of all dwells of ``observation.echo``; ``tracks`` are predictions it may start from (it must not need them)."""
