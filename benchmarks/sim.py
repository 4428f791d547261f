"""Control steps per second with two cameras, beside a bare PyBullet loop that does the same physics and rendering."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.common import Result, write
from numpy.typing import NDArray

from lehrling.sim.cameras import view_matrix
from lehrling.sim.env import CAMERAS, COMMANDS_PER_STEP, TaskEnv
from lehrling.sim.robots import ROBOTS, Arm
from lehrling.sim.world import STEPS_PER_COMMAND

STEPS, ROUNDS, PX, SEED, TARGET = 60, 9, 96, 3, 0.9


@dataclass
class Tape:
    """What an episode asked of PyBullet: motor targets per command, camera matrices per step."""

    motors: list[tuple[list[float], float]]
    cameras: list[list[tuple[Any, Any]]]


def actions() -> NDArray[np.float32]:
    """Return a wandering path (STEPS, 4)."""
    phase = np.linspace(0, 4 * np.pi, STEPS)
    path = [
        0.45 + 0.1 * np.cos(phase),
        0.2 * np.sin(phase / 2),
        0.2 + 0.08 * np.sin(phase),
        np.sign(np.sin(phase / 3) + 0.1),
    ]
    return np.stack(path, axis=1).astype(np.float32)


def run_ours(env: TaskEnv) -> float:
    """Return the steps per second of the environment, resets not counted."""
    env.reset(seed=SEED)
    begun = time.perf_counter()
    for action in actions():
        env.step(action)
    return STEPS / (time.perf_counter() - begun)


def record(env: TaskEnv) -> Tape:
    """Run the environment once and write down what it asks of PyBullet."""
    tape, original = Tape([], []), Arm.command
    env.reset(seed=SEED)
    client = env.world.physics.client

    def command(self: Arm, joints: NDArray[np.float64], opening: float) -> None:
        tape.motors.append((joints.tolist(), opening))
        original(self, joints, opening)

    Arm.command = command  # type: ignore[method-assign]
    try:
        for action in actions():
            env.step(action)
            pose = env.world.arm.link_pose(env.world.arm.camera_link)
            views = []
            for name in CAMERAS:
                camera = env.world.cameras[name]
                lens = client.computeProjectionMatrixFOV(camera.fov_deg, 1.0, camera.near, camera.far)
                views.append((view_matrix(client, camera, pose), lens))
            tape.cameras.append(views)
    finally:
        Arm.command = original  # type: ignore[method-assign]
    return tape


def run_bare(env: TaskEnv, tape: Tape) -> float:
    """Return the steps per second of PyBullet calls alone: no inverse kinematics, no sensors, no task."""
    env.reset(seed=SEED)
    p, arm, light = env.world.physics.client, env.world.arm, env.world.appearance.light
    forces = [env.world.robot.force] * len(arm.arm)
    motors = iter(tape.motors)
    begun = time.perf_counter()
    for views in tape.cameras:
        for _ in range(COMMANDS_PER_STEP):
            joints, opening = next(motors)
            p.setJointMotorControlArray(arm.body, arm.arm, p.POSITION_CONTROL, targetPositions=joints, forces=forces)
            for finger in arm.fingers:
                p.setJointMotorControl2(arm.body, finger, p.POSITION_CONTROL, opening / 2, force=25.0, maxVelocity=0.25)
            for _ in range(STEPS_PER_COMMAND):
                p.stepSimulation()
        for view, lens in views:
            p.getCameraImage(
                PX, PX, view, lens,
                lightDirection=light.direction, lightColor=light.colour, lightAmbientCoeff=light.ambient,
                lightDiffuseCoeff=light.diffuse, lightSpecularCoeff=light.specular, shadow=0,
                flags=p.ER_NO_SEGMENTATION_MASK, renderer=p.ER_TINY_RENDERER,
            )  # fmt: skip
    return STEPS / (time.perf_counter() - begun)


def alternate(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float, float]:
    """Return both medians and the median of the ratios of neighbouring runs, after a warm-up round."""
    first(), second()
    pairs = [(first(), second()) for _ in range(ROUNDS)]
    ours, theirs = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(theirs), statistics.median(a / b for a, b in pairs)


def main() -> None:
    """Measure every robot."""
    results = []
    for robot in sorted(ROBOTS):
        env = TaskEnv("kitting", robot, PX)
        tape = record(env)
        ours, bare, ratio = alternate(lambda env=env: run_ours(env), lambda env=env, tape=tape: run_bare(env, tape))  # type: ignore[misc]
        env.close()
        metric = f"kitting with {robot}, 10 Hz control steps, 2 cameras of {PX} px"
        results.append(
            Result(
                metric,
                ours,
                "steps/s",
                "bare PyBullet loop",
                bare,
                ratio,
                f"at least {TARGET} of the bare loop",
                ratio >= TARGET,
            )
        )
    write("sim", results)


if __name__ == "__main__":
    main()
