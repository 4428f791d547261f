"""A robot's loop in a test: all that `run` and a cell's runtime have around the drive, with neither ROS nor a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from driven_policies import JOINTS, Answers, Cell, recipe
from driven_robots import DrivenArm

from lehrling.deploy import robot_loop
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
