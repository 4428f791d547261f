"""Robots that stand where their commands put them, and tell where they are: messages both ways, no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from guard_checks import Emitted, FloatArray

from lehrling.datasets import messages
from lehrling.datasets.message_types import standard
from lehrling.deploy.guard_events import Command
from lehrling.deploy.guard_link import GuardLink, Outgoing

WALL_NS = 1_700_000_000_000_000_000
POSE, JOINTS, TWIST = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState", "geometry_msgs/msg/TwistStamped"


def joy(axes: list[float], buttons: list[int]) -> bytes:
    make = standard().make
    stamp = make("builtin_interfaces/msg/Time")(sec=0, nanosec=0)
    header = make("std_msgs/msg/Header")(stamp=stamp, frame_id="")
    message = make("sensor_msgs/msg/Joy")(
        header=header, axes=np.array(axes, dtype=np.float32), buttons=np.array(buttons, dtype=np.int32)
    )
    return messages.encode(message)


def held_late(index: int) -> bytes:
    """A joystick whose deadman button is pressed after 20 messages."""
    return joy([0.0] * 6, [0, 0, 0, 0, int(index > 20)])


@dataclass
class DrivenArm:
    """arm6: takes TCP and gripper commands, tells its TCP at every tick.

    Attributes:
        sent: (tick, message) that the link published.
        deaf: whether it no longer tells where it is.
    """

    link: GuardLink
    pose: FloatArray = field(default_factory=lambda: np.array([0.4, 0.1, 0.2, 0.0, 1.0, 0.0, 0.0]))
    gripper: float = 1.0
    deaf: bool = False
    now_ns: int = 0
    tick: int = 0
    sent: list[tuple[int, Outgoing]] = field(default_factory=list)
    poses: list[FloatArray] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.emitted = Emitted(self.link.layout.axes)

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns

    def run(self, ticks: int, step: Callable[[int, int], tuple[Command, list[Outgoing]]]) -> Command:
        for _ in range(ticks):
            self.now_ns, self.tick = self.now_ns + self.link.guard.config.period_ns, self.tick + 1
            if not self.deaf:
                self._tell()
            command, outgoing = step(self.now_ns, self.wall_ns)
            self.emitted.check(command, self.link.guard.measured)
            self._take(outgoing)
            self.poses.append(self.pose.copy())
            self.commands.append(command)
        return command

    def _tell(self) -> None:
        pose = messages.pose_stamped(self.pose[:3], self.pose[3:], self.wall_ns, "cell")
        assert self.link.hear("/tcp_pose", pose, self.now_ns, self.wall_ns), self.link.refused

    def _take(self, outgoing: list[Outgoing]) -> None:
        for message in outgoing:
            self.sent.append((self.tick, message))
            decoded: Any = messages.decode(message.cdr, message.type)
            if message.topic == "/tcp_command":
                p, q = decoded.pose.position, decoded.pose.orientation
                self.pose = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
            elif message.topic == "/gripper_command":
                self.gripper = float(decoded.position[0])

    def times(self, topic: str) -> list[int]:
        return [tick for tick, message in self.sent if message.topic == topic]
