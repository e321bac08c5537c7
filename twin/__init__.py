"""A real-time digital twin of a sub-THz integrated sensing and communication base station."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twin.build import run

__all__ = ["__version__", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `twin --help` must not pay for NumPy: the one public function is fetched when it is asked for.
    if name == "run":
        from twin.build import run

        return run
    raise AttributeError(f"module 'twin' has no attribute {name!r}")
