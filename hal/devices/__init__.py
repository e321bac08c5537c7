"""Devices: what a scenario chooses; opening one gives a ``hal.frontend.Frontend``. Every other module here plays the role."""

from __future__ import annotations

from typing import Protocol

from hal.frontend import Frontend, FrontendSpec

__all__ = ["Device"]


class Device(Protocol):
    """A choice of machine: a frozen dataclass of its parameters."""

    def open(self, spec: FrontendSpec, noise: object) -> Frontend:
        """Return the opened machine. ``noise(label, t_ns, shape)`` draws standard complex normals for simulated receivers."""
