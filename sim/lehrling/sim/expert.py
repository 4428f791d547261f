"""The scripted expert: a feedback law on the simulator's state, so that it recovers from whatever happens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.tasks.base import Task
from lehrling.sim.world import World

HOVER_Z_M = 0.13
GRASP_Z_M = 0.02
LOOKAHEAD_M = 0.03
CLOSE_PERIODS = 7
OPEN_PERIODS = 5


class Expert:
    """Pick the named part, carry it above its place, let go, back off.

    Called once per command period (20 Hz). The target leads the measured TCP by at most LOOKAHEAD_M: the law depends on
    where the arm is, not on where it was told to be.
    """

    def __init__(self, world: World, task: Task) -> None:
        self.world, self.task = world, task
        self._closing = self._opening = 0
        self.gripper = 1.0

    def act(self) -> tuple[NDArray[np.float64], float]:
        """Return the TCP target (3,) [m, base frame] and the gripper command (-1 or 1)."""
        tcp = self.world.tcp()[0]
        part = self.task.part_position(self.world)
        if self.task.inside(part) and self.gripper > 0:
            target = self._leave(tcp)
        elif self.gripper > 0:
            target = self._pick(tcp, part)
        elif self._closing < CLOSE_PERIODS:
            self._closing += 1
            target = np.array([tcp[0], tcp[1], GRASP_Z_M])
        elif np.linalg.norm(part - tcp) > 0.05:
            self.gripper, self._closing = 1.0, 0
            target = np.array([tcp[0], tcp[1], HOVER_Z_M])
        else:
            target = self._carry(tcp)
        lead = target - tcp
        length = float(np.linalg.norm(lead))
        return tcp + lead * min(1.0, LOOKAHEAD_M / max(length, 1e-9)), self.gripper

    def _pick(self, tcp: NDArray[np.float64], part: NDArray[np.float64]) -> NDArray[np.float64]:
        self._opening = 0
        offset = float(np.linalg.norm(part[:2] - tcp[:2]))
        if offset > 0.012 and tcp[2] < 0.07 and offset > 0.03:
            return np.array([tcp[0], tcp[1], HOVER_Z_M])
        if offset > 0.012:
            return np.array([part[0], part[1], max(HOVER_Z_M, min(tcp[2], 0.16)) if offset > 0.03 else tcp[2]])
        if tcp[2] - GRASP_Z_M < 0.006:
            self.gripper, self._closing = -1.0, 0
        return np.array([part[0], part[1], GRASP_Z_M])

    def _carry(self, tcp: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = self.task.goal.xy
        release = self.task.goal.release_z
        offset = float(np.hypot(x - tcp[0], y - tcp[1]))
        if offset > 0.01:
            low = tcp[2] < HOVER_Z_M - 0.03
            return np.array([tcp[0], tcp[1], HOVER_Z_M]) if low and offset > 0.03 else np.array([x, y, HOVER_Z_M])
        if tcp[2] - release < 0.008:
            self._opening += 1
            if self._opening >= 2:
                self.gripper = 1.0
        return np.array([x, y, release])

    def _leave(self, tcp: NDArray[np.float64]) -> NDArray[np.float64]:
        self._opening += 1
        if self._opening < OPEN_PERIODS:
            return np.array([tcp[0], tcp[1], self.task.goal.release_z])
        return np.array([tcp[0], tcp[1], HOVER_Z_M])
