"""What is around a robot's drive, without ROS: errors and silence bring the robot to rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driven_policies import towards
from robot_loops import Connected, LoopCell

from lehrling.deploy import policy_drive, robot_loop
from lehrling.deploy.runtime import Phase, Result


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


def test_a_server_that_stays_and_is_silent_ends_the_cycle(cell: LoopCell) -> None:
    cell.drive.start(1, cell.arm.now_ns)
    cell.run(100)
    cell.answers.silent = True
    cell.run(450)
    assert cell.drive.phase is Phase.EXECUTING
    cell.run_until(lambda: cell.drive.phase is Phase.FAULT, 200)
    state = cell.drive.state
    assert (state.fault_code, state.fault) == (2, "The policy server has not answered within 5 s.")
    cell.drive.reset("operator")
    cell.answers.silent = False
    cell.run(5)
    cell.drive.start(2, cell.arm.now_ns)
    cell.run(600)
    assert cell.drive.phase is Phase.EXECUTING


def connected(**changes: Any) -> Connected:
    return Connected(towards(0.5, 0.2, 0.3), **changes)


def test_what_cannot_be_laid_out_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    answers, more = connected(), {"corrections": tmp_path / "corrections.zarr"}
    with monkeypatch.context() as patch:
        patch.setattr(robot_loop, "Corrections", refuse)
        with pytest.raises(OSError, match="No space left"):
            LoopCell(answers, folder=tmp_path, more=more)
    assert answers.closed
    with monkeypatch.context() as patch:
        patch.setattr(policy_drive, "ActionRows", refuse)
        with pytest.raises(OSError, match="No space left"):
            LoopCell(answers, folder=tmp_path, more=more)
    LoopCell(connected(), folder=tmp_path, more=more).loop.close()
