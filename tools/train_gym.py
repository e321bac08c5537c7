"""Train the tiny agents that are shipped with the Gymnasium environments, by the cross-entropy method.

``python -m tools.train_gym street|beam``: a generation draws weights about a mean, plays each for one short episode of the same seed, and
moves the mean to the best quarter. Writes twin/gym/weights/NAME.npz; minutes on one core.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import gymnasium
import numpy as np

from twin.gym import Linear
from twin.gym.environments import Steering

WEIGHTS = Path(__file__).parents[1] / "twin" / "gym" / "weights"
EPISODES = {
    "street": ("isac_twin/Street-v0", {"subframes": 30, "warm_up": 12, "sets": {"sensing.fidelity": "bound"}}),
    "beam": ("isac_twin/Beam-v0", {"subframes": 50, "warm_up": 8}),
}


def episode(env: gymnasium.Env, agent: Linear, seed: int) -> float:
    """Mean reward of one episode."""
    observation, _ = env.reset(seed=seed)
    rewards, over = [], False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(agent(observation))
        over = terminated or truncated
        rewards.append(float(reward))
    return float(np.mean(rewards))


def trained(name: str, generations: int, population: int, seed: int) -> Linear:
    made, options = EPISODES[name]
    env = gymnasium.make(f"twin.gym:{made}", **options)
    steering = env.unwrapped
    assert isinstance(steering, Steering)
    columns = len(fields(steering.view))
    draw = np.random.default_rng(seed)
    mean, spread = np.zeros(columns + 1), np.full(columns + 1, 3.0)
    for generation in range(generations):
        tried = mean + spread * draw.standard_normal((population, columns + 1))
        scores = [episode(env, Linear(w[:-1], float(w[-1])), 1000 + generation) for w in tried]
        best = tried[np.argsort(scores)[-population // 4 :]]
        mean, spread = best.mean(axis=0), best.std(axis=0) + 0.1
        print(f"generation {generation}: best {max(scores):.2f}, mean {np.mean(scores):.2f} Gbit/s", flush=True)
    env.close()
    return Linear(mean[:-1], float(mean[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.train_gym", description=__doc__)
    parser.add_argument("name", choices=sorted(EPISODES))
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--population", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: twin/gym/weights/NAME.npz")
    given = parser.parse_args()
    agent = trained(given.name, given.generations, given.population, given.seed)
    out = given.out or WEIGHTS / f"{given.name}.npz"
    np.savez(out, weight=agent.weight, bias=np.array(agent.bias))
    print(f"{out}: weight {np.round(agent.weight, 2).tolist()}, bias {agent.bias:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
