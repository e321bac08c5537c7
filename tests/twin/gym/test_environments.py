"""The Gymnasium environments: what the two checkers ask, the same numbers on and off the wire, and seeds that hold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from hal.errors import Misuse  # noqa: E402
from twin.build import run  # noqa: E402
from twin.gym import Linear, Steering, trained  # noqa: E402
from twin.gym.environments import AxisView, UserView, box  # noqa: E402

SMOKE = Path(__file__).parents[3] / "scenarios" / "smoke.yaml"
SMALL: dict[str, Any] = {"scenario": SMOKE, "subframes": 6, "warm_up": 8, "sets": {"sensing.fidelity": "bound"}}
BEAM: dict[str, Any] = {"subframes": 6, "warm_up": 8}
BRIEF = {"subframes": 2, "warm_up": 1}
EACH = [("isac_twin/Street-v0", SMALL), ("isac_twin/Beam-v0", BEAM)]


def made(name: str, **options: Any) -> Any:
    return gymnasium.make(name, **options)


def played(env: Any, seed: int | None, actions: Any) -> tuple[list[Any], list[float]]:
    seen, rewards = [env.reset(seed=seed)[0]], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    return seen, rewards


@pytest.mark.parametrize(("name", "options"), EACH)
def test_gymnasium_s_checker_passes(name: str, options: dict[str, Any]) -> None:
    from gymnasium.utils.env_checker import check_env

    env = made(name, **options | BRIEF)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize(("name", "options"), EACH)
def test_stable_baselines_checker_passes(name: str, options: dict[str, Any]) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    env = made(name, **options | BRIEF)
    check_env(env, warn=True)
    env.close()


@pytest.mark.parametrize("kind", [UserView, AxisView])
def test_spaces_follow_the_descriptor(kind: type) -> None:
    space = box(kind, {"user": 3, "axis": 3})
    assert space.shape == (3 * len(kind.__dataclass_fields__),)


def test_a_seed_is_a_run_and_the_next_episode_another() -> None:
    env = made("isac_twin/Street-v0", **SMALL)
    actions = [env.action_space.sample() for _ in range(6)]
    first, rewards = played(env, 5, actions)
    _, again = played(env, None, actions)
    once_more, same = played(env, 5, actions)
    assert rewards == same
    assert np.array_equal(first, once_more)
    assert rewards != again
    env.close()


def test_the_rewards_are_the_run_s_own_key_figures() -> None:
    """The built-in chain's proposals answered unchanged: the rates of a run that nobody steers, one subframe later."""
    env = made("isac_twin/Street-v0", **SMALL).unwrapped
    env.reset(seed=3)
    rewards = [env.answer(**env.proposal())[1] for _ in range(6)]
    plain = run(SMOKE, {"sensing.fidelity": "bound", "seed": 3}, write=False)
    assert rewards == pytest.approx(plain.kpi.rate_bps.sum(axis=1)[8:14] * 1e-9, rel=1e-12)


def test_an_action_moves_blocks_to_whom_it_wishes() -> None:
    env = made("isac_twin/Street-v0", **SMALL).unwrapped
    env.reset(seed=1)
    for _ in range(5):
        observation, _, _, _, told = env.step(np.array([1.0, -1.0]))
    served = observation.reshape(2, -1)[:, 1]
    assert served[0] > 0.99
    assert served[1] < 0.01
    assert told["rate_bps"][0] > 0
    assert told["rate_bps"][1] == 0


def test_a_beam_pushed_away_delivers_less() -> None:
    env = made("isac_twin/Beam-v0", **BEAM).unwrapped
    env.reset(seed=2)
    stays = [env.step(np.zeros(2))[1] for _ in range(6)]
    env.reset(seed=2)
    leaves = [env.step(np.array([1.0, 0.0]))[1] for _ in range(6)]
    assert stays[0] > 5
    assert leaves[2] < 0.5 * stays[2]


@contextmanager
def running(tmp_path: Path, seed: int) -> Iterator[str]:
    endpoint = f"ipc://{tmp_path}/state"
    given = {
        "bus.state": endpoint,
        "clock.mode": "lockstep",
        "controllers.wait_for": ["gym"],
        "sensing.fidelity": "bound",
        "seed": seed,
    }
    twin = threading.Thread(target=run, args=(SMOKE, given), kwargs={"write": False})
    twin.start()
    try:
        yield endpoint
    finally:
        twin.join(60)
        assert not twin.is_alive()


def test_over_the_wire_it_is_the_same_environment(tmp_path: Path) -> None:
    inside = made("isac_twin/Street-v0", **SMALL)
    actions = [inside.action_space.sample() for _ in range(6)]
    seen, rewards = played(inside, 4, actions)
    with running(tmp_path, 4) as endpoint:
        outside = made("isac_twin/Street-v0", host=endpoint, subframes=6, warm_up=8)
        with pytest.raises(Misuse, match="runs seed 4"):
            outside.unwrapped.reset(seed=3)
        seen_there, rewards_there = played(outside, 4, actions)
        outside.close()
    assert np.array_equal(seen, seen_there)
    assert rewards == rewards_there


@pytest.mark.slow
def test_a_twin_in_a_process_of_its_own_begins_again_with_each_reset() -> None:
    env = made("isac_twin/Street-v0", host="apart", **SMALL)
    actions = [env.action_space.sample() for _ in range(3)]
    _, rewards = played(env, 4, actions)
    env.close()
    inside = made("isac_twin/Street-v0", **SMALL)
    assert played(inside, 4, actions)[1] == rewards
    inside.close()


def test_several_at_once() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: made("isac_twin/Beam-v0", **BEAM)] * 2)
    seen, _ = envs.reset(seed=[1, 2])
    assert seen.shape == (2, 4)
    seen, rewards, *_ = envs.step(np.zeros((2, 2), np.float32))
    assert rewards.shape == (2,)
    assert rewards[0] != rewards[1]
    envs.close()


def test_a_run_that_ends_by_itself_terminates() -> None:
    env = made("isac_twin/Street-v0", **SMALL).unwrapped
    env.reset(seed=1)
    env._host._inner.questions.put(("stop", b""))
    for _ in range(3):
        ended = env.answer()
        if ended[2]:
            break
    assert ended is not None
    assert ended[2]
    assert env.observation_space.contains(ended[0])


def test_misuse_is_said() -> None:
    env = made("isac_twin/Beam-v0", **BEAM).unwrapped
    with pytest.raises(Misuse, match="reset"):
        env.step(np.zeros(2))
    with pytest.raises(Misuse, match="subframes"):
        made("isac_twin/Beam-v0", subframes=0)
    with pytest.raises(Misuse, match="street and beam"):
        trained("nobody")


def test_threads_end_with_the_episode() -> None:
    before = threading.active_count()
    env = made("isac_twin/Beam-v0", **BEAM)
    for seed in range(3):
        env.reset(seed=seed)
    env.close()
    assert threading.active_count() == before


def test_the_agent_takes_any_number_of_rows() -> None:
    agent = Linear(weight=np.array([1.0, -1.0]))
    assert agent(np.array([0.5, 0.5, 1.0, 0.0])).tolist() == pytest.approx([0.0, np.tanh(1.0)])
    assert Steering.metadata["render_modes"] == []
