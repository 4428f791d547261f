"""The tasks as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.sim.robots import robot_named
from lehrling.sim.seeding import Seeds
from lehrling.sim.tasks import task_named
from lehrling.sim.world import COMMAND_HZ, WORKSPACE_HIGH, WORKSPACE_LOW, World

POLICY_HZ = 10
COMMANDS_PER_STEP = COMMAND_HZ // POLICY_HZ
CAMERAS = ("front", "wrist")
Observation = dict[str, NDArray[Any]]


class TaskEnv(gym.Env[Observation, NDArray[np.float32]]):
    """A task with a robot, at 10 Hz.

    Observation: `front` and `wrist` (px, px, 3) uint8, `state` (J,) float32: joint1 … [rad] and gripper opening [m].
    Action (4,) float32: TCP target x, y, z [m, cell frame] and gripper (-1 closed, 1 open); reached by interpolation over
    the step's two command periods. Reward: partial credit gained in this step, so that an episode's return is at most 1.
    """

    metadata = {  # noqa: RUF012 — Gymnasium declares it on the instance
        "render_modes": ["rgb_array"],
        "render_fps": POLICY_HZ,
    }

    def __init__(self, task: str, robot: str = "arm6", image_px: int = 96, render_mode: str | None = None) -> None:
        self.task, self.robot = task_named(task), robot_named(robot)
        if not 16 <= image_px <= 1024:
            raise InputError(f"Expected image_px from 16 to 1024, got {image_px}.")
        self.render_mode, self.image_px = render_mode, image_px
        self.world = World(self.robot, image_px)
        image = gym.spaces.Box(0, 255, (image_px, image_px, 3), np.uint8)
        joints = gym.spaces.Box(-8.0, 8.0, (len(self.robot.joint_names),), np.float32)
        self.observation_space = gym.spaces.Dict(
            {  # type: ignore[assignment]
                "front": image,
                "wrist": image,
                "state": joints,
            }
        )
        low, high = np.append(WORKSPACE_LOW, -1.0), np.append(WORKSPACE_HIGH, 1.0)
        self.action_space = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self._credit = 0.0
        self.success = False

    @property
    def instruction(self) -> str:
        """The goal in words."""
        return self.task.goal.instruction

    @property
    def steps_limit(self) -> int:
        """Number of steps after which the episode is truncated."""
        return int(self.task.time_limit_s * POLICY_HZ)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Reload the world for a seed; without one, the next draw of the environment's own generator."""
        super().reset(seed=seed, options=options)
        episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        self.seeds = Seeds(episode_seed)
        self.world.reset(self.seeds)
        self.task.reset(self.world, self.seeds)
        self._elapsed, self._credit, self.success = 0, 0.0, False
        return self.observe(), {"instruction": self.instruction, "seed": episode_seed}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move for 0.1 s."""
        self.advance(action)
        gained = self.partial_credit - self._credit
        self._credit += gained
        info = {"instruction": self.instruction, "success": self.success}
        truncated = not self.success and self._elapsed >= self.steps_limit
        return self.observe(), float(gained), self.success, truncated, info

    def advance(self, action: NDArray[np.float32]) -> None:
        """Move for 0.1 s without rendering, for policies that look only once per chunk."""
        if np.shape(action) != (4,) or not np.isfinite(action).all():
            raise InputError(f"Expected a finite action of shape (4,), got {np.asarray(action)!r}.")
        start, target = self.world.target, np.asarray(action[:3], dtype=np.float64)
        for k in range(1, COMMANDS_PER_STEP + 1):
            self.world.command(start + (target - start) * (k / COMMANDS_PER_STEP), float(action[3]))
            self.world.step()
            self.success = self.task.update(self.world) or self.success
        self._elapsed += 1

    @property
    def partial_credit(self) -> float:
        """How far the task is: 0, 0.5 (carried) or 1 (in its place)."""
        return self.task.partial_credit(self.world)

    def observe(self) -> Observation:
        """Render both cameras and read the joints."""
        state = self.world.joints()[0].astype(np.float32)
        return {**{name: self.world.render(name) for name in CAMERAS}, "state": state}

    def render(self) -> NDArray[np.uint8] | None:
        """Return the cameras side by side (px, 2 px, 3) uint8 where the mode is rgb_array."""
        if self.render_mode != "rgb_array":
            return None
        return np.concatenate([self.world.render(name) for name in CAMERAS], axis=1)

    def close(self) -> None:
        """Disconnect from Bullet."""
        self.world.close()
