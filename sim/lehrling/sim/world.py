"""The world of one episode: table, robot, cameras, and the controller that follows TCP targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.cameras import FRONT, WRIST, Camera, jittered, render
from lehrling.sim.physics import STEP_HZ, Light, Physics
from lehrling.sim.robots import OPENING_MAX_M, Arm, Robot
from lehrling.sim.seeding import Seeds

COMMAND_HZ = 20
STEPS_PER_COMMAND = STEP_HZ // COMMAND_HZ
WORKSPACE_LOW = np.array([0.22, -0.36, 0.012])
WORKSPACE_HIGH = np.array([0.66, 0.36, 0.42])
TCP_SPEED_MAX_M_S = 0.8


@dataclass(frozen=True)
class Appearance:
    """What is drawn anew for each episode: light and table colour."""

    light: Light
    table: tuple[float, float, float]


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draw lighting and table colour."""
    angle, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 1.6)
    tint = rng.uniform(0.88, 1.0, 3)
    light = Light(
        (float(np.cos(angle)), float(np.sin(angle)), float(height)),
        (float(tint[0]), float(tint[1]), float(tint[2])),
        ambient=float(rng.uniform(0.45, 0.65)),
        diffuse=float(rng.uniform(0.35, 0.6)),
    )
    grey = rng.uniform(0.35, 0.62)
    table = np.clip(grey + rng.uniform(-0.05, 0.05, 3), 0, 1)
    return Appearance(light, (float(table[0]), float(table[1]), float(table[2])))


class World:
    """A robot at a table; commands are TCP targets, sensors are joints, TCP pose and two cameras."""

    def __init__(self, robot: Robot, px: int, width: int | None = None) -> None:
        self.physics, self.robot, self.px = Physics(), robot, px
        self._aspect = (width or px) / px
        self.cameras: dict[str, Camera] = {}

    def reset(self, seeds: Seeds) -> None:
        """Reload everything for an episode's seeds; the arm starts somewhere above the table."""
        self.physics.reset()
        self.appearance = draw_appearance(seeds["appearance"])
        self.physics.box((0.5, 0.6, 0.02), (0.4, 0.0, -0.02), self.appearance.table)
        self.arm = Arm(self.physics.client, self.robot)
        self.cameras = {c.name: jittered(c, seeds["camera"]) for c in (FRONT, WRIST)}
        start = seeds["start"].uniform((0.28, -0.22, 0.16), (0.52, 0.22, 0.28))
        self._target = start
        self.arm.place(self.arm.solve(start), OPENING_MAX_M)
        if not self.robot.tool_down:
            for _ in range(4):
                self.arm.place(self.arm.solve(start), OPENING_MAX_M)
        self._opening = OPENING_MAX_M
        self.disturbance: NDArray[np.float64] = np.zeros(3)

    @property
    def target(self) -> NDArray[np.float64]:
        """The TCP target in force (3,) [m]."""
        return self._target.copy()

    def command(self, xyz: NDArray[np.float64], gripper: float) -> None:
        """Take a TCP target (3,) [m, base frame] and a gripper command (positive opens) for one command period.

        Targets are kept inside the workspace and approached at no more than TCP_SPEED_MAX_M_S.
        """
        wanted = np.clip(np.asarray(xyz, dtype=np.float64), WORKSPACE_LOW, WORKSPACE_HIGH)
        step = wanted - self._target
        length, limit = float(np.linalg.norm(step)), TCP_SPEED_MAX_M_S / COMMAND_HZ
        self._target = wanted if length <= limit else self._target + step * (limit / length)
        self._opening = OPENING_MAX_M if gripper > 0 else 0.0
        self.arm.command(self.arm.solve(self._target + self.disturbance), self._opening)

    def step(self, count: int = STEPS_PER_COMMAND) -> None:
        """Advance the physics by `count` steps."""
        self.physics.step(count)

    @property
    def gripper_open_commanded(self) -> bool:
        """Whether the gripper was last told to open."""
        return self._opening > 0

    def tcp(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the TCP's position [m] and quaternion x, y, z, w."""
        return self.arm.link_pose(self.arm.tcp_link)

    def joints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions and velocities of joint1 … gripper."""
        return self.arm.state()

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Render one camera: (h, w, 3) uint8; h is `px`, and w too unless another width was asked for."""
        return self.render_labelled(camera, mask=False)[0]

    def render_labelled(self, camera: str, *, mask: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Render one camera with the body id per pixel, for perception pre-training only."""
        pose = self.arm.link_pose(self.arm.camera_link)
        size = (self.px, round(self.px * self._aspect))
        return render(self.physics.client, self.cameras[camera], size, self.appearance.light, pose, mask=mask)

    def close(self) -> None:
        """Disconnect from Bullet."""
        self.physics.close()
