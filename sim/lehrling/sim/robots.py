"""The robots: where their URDF comes from, their joints, and how a TCP target becomes joint targets."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError

OPENING_MAX_M = 0.10
TOOL_DOWN = (0.0, 1.0, 0.0, 0.0)
"""Orientation of the TCP, x, y, z, w: tool axis down, fingers opening along y."""


@dataclass(frozen=True)
class Robot:
    """A robot the simulator can load.

    Attributes:
        name: name of the embodiment it belongs to.
        arm: URDF joint names, base to wrist, in the contract's order.
        home: joint positions at rest [rad].
        urdf: returns the URDF text of arm and gripper.
        tool_down: True where the closed-form tool-down solution of `arm6` applies.
        force: limit of the position controllers [N m].
        base_x: where the base stands in the cell frame [m].
    """

    name: str
    arm: tuple[str, ...]
    home: tuple[float, ...]
    urdf: Callable[[], str]
    tool_down: bool
    force: float
    base_x: float = 0.0

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the contract's joints: joint1 … jointN and gripper."""
        return (*(f"joint{i + 1}" for i in range(len(self.arm))), "gripper")


def _asset(name: str) -> str:
    return (files("lehrling.sim") / "assets" / name).read_text(encoding="utf-8")


def with_gripper(arm_urdf: str, parent_link: str, mount_z: float) -> str:
    """Append the shared parallel gripper to an arm's URDF text."""
    gripper = _asset("gripper.xml").replace("PARENT_LINK", parent_link).replace("MOUNT_Z", str(mount_z))
    return arm_urdf.rsplit("</robot>", 1)[0] + gripper


def _arm6() -> str:
    return with_gripper(_asset("arm6.urdf"), "link6", 0.02)


def _iiwa() -> str:
    import pybullet_data

    folder = Path(pybullet_data.getDataPath()) / "kuka_iiwa"
    text = (folder / "model.urdf").read_text(encoding="utf-8").replace('filename="', f'filename="{folder}/')
    return with_gripper(text, "lbr_iiwa_link_7", 0.045)


ROBOTS: dict[str, Robot] = {
    "arm6": Robot(
        "arm6",
        tuple(f"joint{i}" for i in range(1, 7)),
        (0.0, 0.1, 1.75, 0.0, math.pi - 1.85, 0.0),
        _arm6,
        tool_down=True,
        force=300.0,
    ),
    "iiwa": Robot(
        "iiwa",
        tuple(f"lbr_iiwa_joint_{i}" for i in range(1, 8)),
        (0.0, 0.35, 0.0, -1.75, 0.0, 1.05, 0.0),
        _iiwa,
        tool_down=False,
        force=300.0,
        base_x=-0.22,
    ),
}


def robot_named(name: str) -> Robot:
    """Return the robot, or say which there are.

    Raises:
        InputError: unknown name.
    """
    if name not in ROBOTS:
        raise InputError(f"There is no robot {name!r} in the simulator; choose one of {', '.join(sorted(ROBOTS))}.")
    return ROBOTS[name]


def arm6_tool_down(xyz: NDArray[np.float64], yaw: float = 0.0) -> NDArray[np.float64]:
    """Solve arm6's joints [rad] for a TCP at `xyz` [m] pointing down, elbow up, in closed form.

    Targets beyond reach are drawn onto the reachable sphere, so that the arm stretches and never jumps.
    """
    upper, fore, tool, shoulder_z = 0.36, 0.36, 0.21, 0.30
    q1 = math.atan2(xyz[1], xyz[0])
    r, z = math.hypot(xyz[0], xyz[1]), float(xyz[2]) + tool - shoulder_z
    reach = min(max(math.hypot(r, z), 0.16), upper + fore - 1e-4)
    cosine = (reach**2 - upper**2 - fore**2) / (2 * upper * fore)
    q3 = math.acos(min(max(cosine, -1.0), 1.0))
    q2 = math.atan2(r, z) - math.atan2(fore * math.sin(q3), upper + fore * math.cos(q3))
    return np.array([q1, q2, q3, 0.0, math.pi - q2 - q3, q1 - yaw])


class Arm:
    """A loaded robot: joint targets in, joint states out."""

    def __init__(self, client: Any, robot: Robot) -> None:
        self._p, self.robot = client, robot
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{robot.name}.urdf"
            path.write_text(robot.urdf(), encoding="utf-8")
            flags = client.URDF_USE_INERTIA_FROM_FILE
            self.body = int(client.loadURDF(str(path), (robot.base_x, 0, 0), useFixedBase=True, flags=flags))
        joints, links = {}, {}
        for index in range(client.getNumJoints(self.body)):
            info = client.getJointInfo(self.body, index)
            joints[info[1].decode()], links[info[12].decode()] = index, index
        self.arm = [joints[name] for name in robot.arm]
        self.fingers = [joints["finger_left"], joints["finger_right"]]
        self.tcp_link, self.camera_link = links["tcp"], links["wrist_camera"]
        self._forces = [robot.force] * len(self.arm)
        for finger in self.fingers:
            client.changeDynamics(self.body, finger, lateralFriction=1.8, spinningFriction=0.02)
        self.place(np.asarray(robot.home), OPENING_MAX_M)

    def place(self, joints: NDArray[np.float64], opening: float) -> None:
        """Put the joints [rad] and the gripper's opening [m] where they are to start."""
        for index, value in zip(self.arm, joints, strict=True):
            self._p.resetJointState(self.body, index, float(value))
        for index in self.fingers:
            self._p.resetJointState(self.body, index, opening / 2)

    def solve(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joint targets [rad] for a TCP position [m] with the tool pointing down."""
        if self.robot.tool_down:
            return arm6_tool_down(xyz)
        solution = self._p.calculateInverseKinematics(
            self.body,
            self.tcp_link,
            xyz.tolist(),
            TOOL_DOWN,
            maxNumIterations=100,
            residualThreshold=1e-6,
        )
        return np.asarray(solution[: len(self.arm)])

    def command(self, joints: NDArray[np.float64], opening: float) -> None:
        """Set the position controllers' targets [rad, m]."""
        p = self._p
        p.setJointMotorControlArray(
            self.body, self.arm, p.POSITION_CONTROL, targetPositions=joints.tolist(), forces=self._forces
        )
        for finger in self.fingers:
            p.setJointMotorControl2(self.body, finger, p.POSITION_CONTROL, opening / 2, force=25.0, maxVelocity=0.25)

    def state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions and velocities (N+1,): arm joints [rad, rad/s], gripper opening [m, m/s]."""
        states = self._p.getJointStates(self.body, [*self.arm, *self.fingers])
        position = np.array([s[0] for s in states])
        velocity = np.array([s[1] for s in states])
        n = len(self.arm)
        return np.append(position[:n], position[n:].sum()), np.append(velocity[:n], velocity[n:].sum())

    def link_pose(self, link: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a link frame's position (3,) [m] and quaternion (4,) x, y, z, w in the base frame."""
        state = self._p.getLinkState(self.body, link, computeForwardKinematics=True)
        return np.asarray(state[4]), np.asarray(state[5])
