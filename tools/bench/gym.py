"""What each way of steering earns in the Gymnasium environments: hold, random, the built-in chain, and the shipped trained agents.

``python -m tools.bench.gym [--seeds 5] [--json]``. Mean reward a step, Gbit/s of realised rate; the same seeds for all, none of them trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from twin.gym import Steering, trained

NAMES = {"street": "twin.gym:isac_twin/Street-v0", "beam": "twin.gym:isac_twin/Beam-v0"}


def ways(env: Steering, name: str) -> dict[str, Callable[[Any], Any]]:
    agent = trained(name)
    return {
        "hold": lambda seen: env.answer(**({} if name == "street" else env.command(np.zeros(2)))),
        "random": lambda seen: env.step(env.action_space.sample()),
        "built-in": lambda seen: env.answer(**env.proposal()),
        "trained": lambda seen: env.step(agent(seen)),
    }


def earned(name: str, seeds: int) -> dict[str, list[float]]:
    """Mean reward of each way's episodes."""
    env = gymnasium.make(NAMES[name]).unwrapped
    assert isinstance(env, Steering)
    told: dict[str, list[float]] = {}
    for way, step in ways(env, name).items():
        env.action_space.seed(0)
        for seed in range(seeds):
            seen, _ = env.reset(seed=seed)
            rewards, over = [], False
            while not over:
                seen, reward, terminated, truncated, _ = step(seen)
                over = terminated or truncated
                rewards.append(reward)
            told.setdefault(way, []).append(float(np.mean(rewards)))
            print(f"{name} {way} seed {seed}: {told[way][-1]:.2f}", file=sys.stderr, flush=True)
    env.close()
    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.gym", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    told = {name: earned(name, given.seeds) for name in NAMES}
    if given.json:
        json.dump(told, sys.stdout, indent=1)
        print()
        return 0
    for name, by_way in told.items():
        for way, values in by_way.items():
            print(f"{name:<8} {way:<10} {np.mean(values):6.2f}  ({min(values):.2f} .. {max(values):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
