"""The environment keeps Gymnasium's rules and gives the same episode for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.sim.env import TaskEnv
from lehrling.sim.tasks import TASKS

TASK_NAMES = sorted(TASKS)


@pytest.fixture
def env() -> Iterator[TaskEnv]:
    made = TaskEnv("kitting", "arm6", render_mode="rgb_array")
    yield made
    made.close()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_gymnasiums_checker_accepts_the_environment(task: str) -> None:
    env = TaskEnv(task, "arm6", image_px=48, render_mode="rgb_array")
    check_env(env, skip_render_check=False)
    env.close()


def fingerprint(task: str, robot: str, seed: int) -> str:
    env = TaskEnv(task, robot, image_px=64)
    seen, _ = env.reset(seed=seed)
    digest = hashlib.sha256()
    rng = np.random.default_rng(seed)
    for _ in range(12):
        for value in seen.values():
            digest.update(np.ascontiguousarray(value).tobytes())
        action = rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)  # type: ignore[attr-defined]
        seen = env.step(action)[0]
    digest.update(str(env.task.part_position(env.world).tolist()).encode())
    env.close()
    return digest.hexdigest()


@pytest.mark.parametrize("robot", ["arm6", "iiwa"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(task: str, robot: str) -> None:
    assert fingerprint(task, robot, 7) == fingerprint(task, robot, 7)
    assert fingerprint(task, robot, 7) != fingerprint(task, robot, 8)


def test_a_used_environment_gives_the_same_bits_as_a_fresh_one(env: TaskEnv) -> None:
    first = env.reset(seed=3)[0]["front"].copy()
    for _ in range(5):
        env.step(np.array([0.4, 0.0, 0.1, -1.0], dtype=np.float32))
    env.reset(seed=4)
    np.testing.assert_array_equal(env.reset(seed=3)[0]["front"], first)


def test_the_instruction_names_the_goal_and_varies_with_it(env: TaskEnv) -> None:
    texts = set()
    for seed in range(12):
        _, info = env.reset(seed=seed)
        goal = env.task.goal
        assert env.task.parts[goal.part].colour in info["instruction"]
        assert goal.place in info["instruction"]
        texts.add(info["instruction"])
    assert len(texts) > 6


def test_doing_nothing_earns_nothing_and_ends_at_the_time_limit(env: TaskEnv) -> None:
    env.reset(seed=0)
    rewards, truncated, steps = 0.0, False, 0
    while not truncated:
        _, reward, terminated, truncated, _ = env.step(np.array([0.4, 0.0, 0.3, 1.0], dtype=np.float32))
        rewards, steps = rewards + reward, steps + 1
        assert not terminated
    assert rewards == 0.0
    assert steps == env.steps_limit == 80


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([np.nan, 0, 0, 0]), np.array([0.4, np.inf, 0, 1])])
def test_a_malformed_action_is_refused(env: TaskEnv, bad: NDArray[Any]) -> None:
    env.reset(seed=0)
    with pytest.raises(InputError, match="finite action of shape"):
        env.advance(bad.astype(np.float32))


def test_unknown_tasks_robots_and_sizes_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="kitting, sorting"):
        TaskEnv("juggling")
    with pytest.raises(InputError, match="arm6, iiwa"):
        TaskEnv("kitting", "r2d2")
    with pytest.raises(InputError, match="16 to 1024"):
        TaskEnv("kitting", image_px=4)
