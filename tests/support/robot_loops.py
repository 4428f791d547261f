"""A robot's loop in a test: all that `run` and a cell's runtime have around the drive, with neither ROS nor a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driven_policies import JOINTS, Answers, Cell, recipe
from driven_robots import DrivenArm

from lehrling.deploy import robot_loop
from lehrling.deploy.guard_link import Outgoing
from lehrling.deploy.robot_loop import RobotLoop
from lehrling.deploy.run_config import RunConfig

FALSE, TRUE = b"\0\1\0\0\0", b"\0\1\0\0\1"
"""std_msgs/Bool."""


@dataclass
class Connected(Answers):
    """Stands in for `Inference`, and notes whether it was closed."""

    closed: bool = False

    def wait(self, _seconds: float) -> bool:
        return self.connected

    def close(self) -> None:
        self.closed = True


@dataclass
class LoopCell(Cell):
    """A cell whose drive is a `RobotLoop`'s."""

    folder: Path = Path()
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        guard = self.folder / "guard.yaml"
        guard.write_text(f"latch_path: {self.folder / 'latch.json'}\n")
        config = RunConfig(embodiment="arm6", guard=guard, **self.more)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(robot_loop, "Inference", lambda _connect: self.answers)
            self.loop = RobotLoop(config, {1: recipe()}, self._tell, self._settled)
        self.drive = self.loop.drive
        self.arm = DrivenArm(self.drive.link)
        self.positions = {name: 0.1 * place for place, name in enumerate(JOINTS)}

    def drive_by(self, step: Callable[[int], bool], patch: pytest.MonkeyPatch) -> None:
        """Run the loop as ROS would, on the test's clock, until `step` returns False."""
        patch.setattr(robot_loop, "Drive", lambda _node, _loop: self)
        patch.setattr(robot_loop, "control_loop", self._control)
        patch.setattr(time, "time_ns", lambda: self.arm.wall_ns)
        patch.setattr(time, "monotonic_ns", lambda: self.arm.now_ns)
        self.loop.run(None, None, step)

    def publish(self, outgoing: list[Outgoing]) -> None:
        """Take commands, as the robot does."""
        self.arm._take(outgoing)
        self.arm.poses.append(self.arm.pose.copy())

    def _control(self, _executor: object, _hands: object, period_ns: int, tick: Callable[[int], bool]) -> None:
        going_on = True
        while going_on:
            self.arm.now_ns, self.arm.tick = self.arm.now_ns + period_ns, self.arm.tick + 1
            self.arm._tell()
            self.happen(self.arm.now_ns, self.arm.wall_ns)
            going_on = tick(self.arm.now_ns)
