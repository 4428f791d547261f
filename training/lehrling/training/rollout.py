"""One rollout: a policy or the scripted expert acts in the simulator until it succeeds or time is up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lehrling.training.chunk import ChunkRunner
from lehrling.training.protocol import Observation, Policy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lehrling.sim.env import TaskEnv

Actor = Literal["tuned", "untrained", "expert"]
ACTORS: tuple[Actor, ...] = ("tuned", "untrained", "expert")
Watch = Callable[["TaskEnv"], None]
STEP_S = 0.1
"""A policy step of the simulator; a policy of another rate is refused."""


@dataclass(frozen=True)
class Rollout:
    """What came of one rollout.

    Attributes:
        steps: policy steps until success or the time limit.
        credit: partial credit at the end, 0 to 1.
        final_distance_m: from the named part to the middle of its place, in the table's plane.
    """

    seed: int
    actor: Actor
    instruction: str
    success: bool
    steps: int
    credit: float
    final_distance_m: float

    @property
    def seconds(self) -> float:
        """Simulated time until success or the time limit."""
        return round(self.steps * STEP_S, 3)

    def to_json(self) -> dict[str, str | int | float | bool]:
        """Return the row for reports."""
        return asdict(self)


def _finish(env: TaskEnv, seed: int, actor: Actor, steps: int) -> Rollout:
    part = env.task.part_position(env.world)
    distance = float(np.linalg.norm(part[:2] - np.asarray(env.task.goal.xy)))
    return Rollout(seed, actor, env.instruction, env.success, steps, float(env.partial_credit), round(distance, 4))


def as_observation(env: TaskEnv, policy: Policy) -> Observation:
    """Look at the world through the policy's cameras: images (px, px, 3) uint8, joints (S,), instruction."""
    seen = env.observe()
    images = {camera: seen[camera] for camera in policy.spec.cameras}
    return Observation(images=images, state=seen["state"], instruction=env.instruction)


def policy_rollout(
    env: TaskEnv, policy: Policy, seed: int, *, actor: Actor, execute: int, watch: Watch | None = None
) -> Rollout:
    """Let the policy act on one seed, `execute` steps of each chunk before it looks again."""
    env.reset(seed=seed)
    runner = ChunkRunner(policy.spec.chunk, execute)
    steps = 0
    while steps < env.steps_limit and not env.success:
        if runner.needs_chunk():
            runner.push(policy.act([as_observation(env, policy)])[0])
        env.advance(np.asarray(runner.next(), dtype=np.float32))
        steps += 1
        if watch is not None:
            watch(env)
    return _finish(env, seed, actor, steps)


def expert_rollout(env: TaskEnv, seed: int, *, watch: Watch | None = None) -> Rollout:
    """Let the scripted expert act on one seed, with the simulator's state in view."""
    from lehrling.sim.env import COMMANDS_PER_STEP
    from lehrling.sim.expert import Expert

    env.reset(seed=seed)
    expert = Expert(env.world, env.task)
    steps = 0
    while steps < env.steps_limit and not env.success:
        for _ in range(COMMANDS_PER_STEP):
            target, gripper = expert.act()
            env.world.command(target, gripper)
            env.world.step()
            env.success = env.task.update(env.world) or env.success
        steps += 1
        if watch is not None:
            watch(env)
    return _finish(env, seed, "expert", steps)


class Recorder:
    """Keeps a larger picture of each step for a rollout's video."""

    def __init__(self, px: int = 192, every: int = 1) -> None:
        self.frames: list[NDArray[np.uint8]] = []
        self._px, self._every, self._step = px, every, 0

    def __call__(self, env: TaskEnv) -> None:
        """Take a picture of the front camera."""
        if self._step % self._every == 0:
            kept, env.world.px = env.world.px, self._px
            self.frames.append(env.world.render("front"))
            env.world.px = kept
        self._step += 1
