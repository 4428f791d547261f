"""Who permits a robot to move: whoever starts its cycles, and an enabling switch where there is one; both, not either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven_policies import towards
from robot_loops import FALSE, TRUE, Connected, LoopCell

from lehrling.deploy.guard_events import Cause
from lehrling.deploy.robot_runtime import _obey, _Station
from lehrling.deploy.runtime_pipe import Word


class Switched(LoopCell):
    """A cell whose robot has an enabling switch, which says `switch`; the PLC's enable is `plc`. None is silence."""

    switch: bytes | None = TRUE
    plc: bool | None = True

    def _step(self, now_ns: int, wall_ns: int) -> Any:
        if self.switch is not None and self.arm.tick % 10 == 3:
            self.loop.hear("/enable", self.switch, now_ns, wall_ns)
        if self.plc is not None and self.arm.tick % 5 == 0:
            _obey(self.loop, {}, Word("enable", self.plc), now_ns, _Station.__new__(_Station))
        return super()._step(now_ns, wall_ns)

    def moved_m(self, ticks: int) -> float:
        before = self.arm.pose[:3].copy()
        self.run(ticks)
        return float(np.linalg.norm(self.arm.pose[:3] - before))


@pytest.fixture
def cell(tmp_path: Path) -> Any:
    made = Switched(Connected(towards(0.5, 0.2, 0.3)), enabled=False, folder=tmp_path, more={"enable_topic": "/enable"})
    made.ready()
    made.drive.start(1, made.arm.now_ns)
    yield made
    made.loop.close()


def test_a_robot_moves_by_switch_and_plc_together(cell: Switched) -> None:
    assert cell.moved_m(200) > 0.05


@pytest.mark.parametrize(("switch", "plc"), [(None, True), (FALSE, True), (TRUE, None), (TRUE, False)])
def test_neither_permission_alone_moves_a_robot(cell: Switched, switch: bytes | None, plc: bool | None) -> None:
    cell.switch, cell.plc = switch, plc
    cell.run(40)
    assert cell.moved_m(200) < 0.001


def test_a_switch_that_falls_silent_holds_the_robot_after_200_ms(cell: Switched) -> None:
    cell.run(103)
    cell.switch = None
    assert cell.run(19).cause is not Cause.DEADMAN
    assert cell.run(3).cause is Cause.DEADMAN
