"""sim serve: what it refuses before any robot lives. What it does is in tests/sim/test_ros_robot.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import Command


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        (("--task", "juggling"), ("no task 'juggling'", "kitting")),
        (("--task", "kitting", "--robot", "r2d2"), ("no robot 'r2d2'", "arm6")),
        (("--task", "kitting", "--size", "9x9"), ("height x width", "'9x9'")),
        (("--task", "kitting", "--namespace", "my cell"), ("ROS namespace", "'my cell'")),
        (("--task", "kitting", "--fault", "unplug:front:1:2"), ("no fault 'unplug'", "camera_unplug:CAMERA:FROM:TO")),
        (("--task", "kitting", "--fault", "nan:tcp_pose:2:1"), ("FROM is not before TO", "nan:SENSOR:FROM:TO")),
        (("--task", "kitting", "--episodes", "3"), ("--expert",)),
        (("--task", "kitting", "--recorder", "/recorder"), ("--expert",)),
        (("--task", "kitting", "--real-time-factor", "0"), ("--real-time-factor", "0.01")),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    lehrling: Command, words: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    assert lehrling("sim", "serve", *words).refused(*reasons)


def test_an_embodiment_that_cannot_be_written_is_told_before_the_robot_lives(lehrling: Command, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "served.yaml"
    assert lehrling("sim", "serve", "--task", "kitting", "--embodiment-out", path).refused(str(path))
