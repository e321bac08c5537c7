"""A tiny agent for either environment: one weight for each column of the observation's table, the same for every row."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from hal.errors import Misuse
from hal.record import Array, Float

__all__ = ["Linear", "trained"]


@dataclass(frozen=True)
class Linear:
    """``action[row] = tanh(weight . table[row] + bias)``: as many users or axes as there are."""

    weight: Float[Array, " column"]
    bias: float = 0.0

    def __call__(self, observation: Float[Array, " entry"]) -> Float[Array, " row"]:
        """The action, each entry within -1 .. 1."""
        table = observation.reshape(-1, len(self.weight)).astype(np.float64)
        return np.asarray(np.tanh(table @ self.weight + self.bias), dtype=np.float32)


def trained(name: str) -> Linear:
    """The agent that is shipped for ``street`` or ``beam`` (``python -m tools.train_gym`` makes it again)."""
    file = files("twin.gym") / "weights" / f"{name}.npz"
    if not file.is_file():
        raise Misuse(f"trained({name!r}): there are street and beam")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
        return Linear(weight=kept["weight"], bias=float(kept["bias"]))
