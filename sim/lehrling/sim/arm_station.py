"""An arm with a gripper at one of its tasks: topics of joints, TCP and cameras; commands as TCP targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.sim import expert
from lehrling.sim.disturbance import Disturbance
from lehrling.sim.physics import Physics
from lehrling.sim.robots import TOOL_DOWN, Robot
from lehrling.sim.seeding import Seeds
from lehrling.sim.sensing import SENSORS, compressed, raw
from lehrling.sim.station import FRAME, Message, Reader, Size
from lehrling.sim.tasks.base import Task
from lehrling.sim.variants import resized
from lehrling.sim.world import STEPS_PER_COMMAND, World

TCP_COMMAND, GRIPPER_COMMAND = "/tcp_command", "/gripper_command"
DISTURBANCE_M, SLIP_CHANCE = 0.008, 0.004


def command_messages(xyz: NDArray[np.float64], gripper: float, stamp_ns: int) -> list[Message]:
    """Return a TCP target (3,) [m] and a gripper command (-1 closed, 1 open) as their two messages."""
    pose = messages.pose_stamped(xyz, TOOL_DOWN, stamp_ns, FRAME)
    return [(TCP_COMMAND, pose), (GRIPPER_COMMAND, messages.joint_state(["gripper"], [gripper], [], [], stamp_ns))]


class ArmExpert:
    """The scripted expert of the arms' tasks; its commands as messages."""

    def __init__(self, world: World, task: Task) -> None:
        self._expert = expert.Expert(world, task)

    def act(self, stamp_ns: int) -> Sequence[Message]:
        """Return the TCP target and the gripper command of the next period."""
        target, gripper = self._expert.act()
        return command_messages(target, gripper, stamp_ns)


class ArmStation:
    """A robot arm at its table."""

    period_steps = STEPS_PER_COMMAND

    def __init__(self, task: Task, robot: Robot, size: Size) -> None:
        self.world, self.task = World(robot, *size), task
        self.embodiment = resized(load_embodiment(robot.name), size)
        self._heard: tuple[NDArray[np.float64] | None, float] = (None, 1.0)

    @property
    def task_name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def physics(self) -> Physics:
        """The world's clock and engine."""
        return self.world.physics

    @property
    def time_limit_s(self) -> float:
        """Simulation time after which an episode has failed [s]."""
        return self.task.time_limit_s

    @property
    def instruction(self) -> str:
        """The goal in words."""
        return self.task.goal.instruction

    @property
    def readers(self) -> Mapping[str, Reader]:
        """Joints and TCP, and every camera both as JPEG and as it is."""
        found: dict[str, Reader] = {"/joint_states": self._joints, "/tcp_pose": self._tcp}
        for camera in self.embodiment.contract.cameras:
            pixels = partial(self.world.render, camera.name)
            found[f"/{camera.name}/image_raw/compressed"] = compressed(pixels, camera.name)
            found[f"/{camera.name}/image_raw"] = raw(pixels, "rgb8", camera.name)
        return found

    def _joints(self, stamp_ns: int, rng: np.random.Generator) -> bytes:
        position, velocity = self.world.joints()
        noise = rng.normal(size=position.shape) * SENSORS.joint_noise_rad
        noise[-1] *= SENSORS.opening_noise_m / SENSORS.joint_noise_rad
        return messages.joint_state(self.world.robot.joint_names, position + noise, velocity, [], stamp_ns)

    def _tcp(self, stamp_ns: int, _: np.random.Generator) -> bytes:
        return messages.pose_stamped(*self.world.tcp(), stamp_ns, FRAME)

    def reset(self, seeds: Seeds, *, disturb: bool) -> None:
        """Lay out the episode of these seeds."""
        self.world.reset(seeds)
        self.task.reset(self.world, seeds)
        scale, slip = (DISTURBANCE_M, SLIP_CHANCE) if disturb else (0.0, 0.0)
        self._disturbance = Disturbance(seeds["disturbance"], scale_m=scale, slip_chance=slip)
        self._heard = (None, 1.0)

    def expert(self) -> ArmExpert:
        """Return the scripted expert."""
        return ArmExpert(self.world, self.task)

    def hear(self, topic: str, cdr: bytes) -> None:
        """Take a TCP target or a gripper command.

        Raises:
            InputError: another frame, no gripper among the joints, or numbers that are not finite.
        """
        xyz, gripper = self._heard
        if topic == TCP_COMMAND:
            xyz = _position(messages.decode(cdr, "geometry_msgs/msg/PoseStamped"))
        elif topic == GRIPPER_COMMAND:
            gripper = _gripper(messages.decode(cdr, "sensor_msgs/msg/JointState"))
        self._heard = (xyz, gripper)

    def apply(self) -> None:
        """Move towards the target heard last; without one, stay."""
        xyz, gripper = self._heard
        self.world.disturbance = self._disturbance.push(float(self.world.tcp()[0][2]))
        self.world.command(self.world.target if xyz is None else xyz, self._disturbance.gripper(gripper))

    def judge(self) -> bool:
        """Whether the named part lies in its place."""
        return self.task.update(self.world)

    def urdf(self) -> str:
        """Return arm and gripper as URDF."""
        return self.world.robot.urdf()

    def close(self) -> None:
        """Give the engine back."""
        self.world.close()


def _position(message: object) -> NDArray[np.float64]:
    frame = messages.field(message, "header.frame_id")
    if frame not in ("", FRAME):
        raise InputError(f"Topic {TCP_COMMAND}: expected a pose in frame {FRAME!r}, got one in {str(frame)[:64]!r}.")
    point = messages.field(message, "pose.position")
    return _finite(np.array([point.x, point.y, point.z]), TCP_COMMAND)


def _gripper(message: object) -> float:
    names, values = messages.field(message, "name"), messages.field(message, "position")
    if "gripper" not in names or len(values) != len(names):
        raise InputError(f"Topic {GRIPPER_COMMAND}: expected a position of joint 'gripper', got {list(names)[:4]}.")
    return float(_finite(np.array([values[list(names).index("gripper")]]), GRIPPER_COMMAND)[0])


def _finite(values: NDArray[np.float64], topic: str) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise InputError(f"Topic {topic}: expected finite numbers, got {values.tolist()}.")
    return values
