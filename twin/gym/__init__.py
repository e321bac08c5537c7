"""Gymnasium environments: the twin as a thing to learn on. Importing this registers ``isac_twin/Street-v0`` and ``isac_twin/Beam-v0``.

``gymnasium.make("isac_twin/Street-v0")`` finds them by itself where the package is installed. docs/gym.md says what they are.
"""

from __future__ import annotations

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry

from twin.gym.agents import Linear, trained
from twin.gym.environments import Beam, Steering, Street

__all__ = ["Beam", "Linear", "Steering", "Street", "register", "trained"]


def register() -> None:
    """Make both environments known to ``gymnasium.make``; a second call does nothing."""
    for kind in (Street, Beam):
        name = f"isac_twin/{kind.__name__}-v0"
        if name not in registry:
            _register(name, entry_point=f"{kind.__module__}:{kind.__name__}")


register()
