"""What is around a robot's drive, without ROS: an error brings the robot to rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driven_policies import towards
from robot_loops import Connected, LoopCell

from lehrling.deploy.runtime import Result


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[LoopCell]:
    made = LoopCell(Connected(towards(0.5, 0.2, 0.3)), folder=tmp_path)
    made.ready()
    yield made
    made.loop.close()


def speed(cell: LoopCell) -> float:
    """Return how fast the arm is told to go [m/s]."""
    return max(abs(axis.velocity) for axis in cell.drive.state.axes.values())


def test_an_error_in_a_tick_brings_the_robot_to_rest_and_is_raised_then(
    cell: LoopCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell.drive.start(1, cell.arm.now_ns)
    last, speeds = cell.arm.tick + 150, list[float]()

    def step(_now_ns: int) -> bool:
        speeds.append(speed(cell))
        if cell.arm.tick >= last:
            raise ValueError("something unforeseen")
        return True

    with pytest.raises(ValueError, match="something unforeseen"):
        cell.drive_by(step, monkeypatch)
    assert cell.arm.tick > last
    assert speeds[-1] > 0.02
    assert speed(cell) == 0
    assert (cell.drive.cycle, cell.drive.state.result) == (None, Result.ABORTED)
    assert cell.said("end")[0]["why"] == "The control loop ended by an error (ValueError: something unforeseen)."


def test_a_drive_that_raises_itself_does_not_hide_its_error(cell: LoopCell, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.drive.start(1, cell.arm.now_ns)

    def tick(_now_ns: int, _wall_ns: int) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(cell.drive, "tick", tick)
    with pytest.raises(RuntimeError, match="broken"):
        cell.drive_by(lambda _now_ns: True, monkeypatch)
