"""The scripted expert of the bimanual lift: turn, reach over, come down, press, lift, hold; again if the box slips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.humanoid_arm import Palm
from lehrling.sim.humanoid_world import COMMAND_HZ, HumanoidWorld, posture
from lehrling.sim.tasks.bimanual_lift import BimanualLift

CLEAR_M, PRESS_M = 0.075, 0.015
"""From the box's side to the palm before the grip, and how deep beyond its side the palms are told to go."""
GRIP_Z_M = 0.065
"""Lowest height of the palms: their edges stay clear of the table."""
SPEED_M_S, JOINT_RAD_S = 0.55, 1.4
"""Peak speeds of a palm on a straight line, and of a joint in a free movement."""
LEAN_RAD, FINGERS_DOWN_RAD = 0.2, 0.12
FLAT = (0.1, 0.1, 0.05, 0.05, 0.05, 0.05)
CLOSED = (0.5, 0.4, 0.15, 0.15, 0.15, 0.15)
SLIP_M, SAG_M = 0.07, 0.008
"""How far the box may be from the middle of the palms, and how much lower it hangs than the palms are told to lift it."""
CREEP_M = 0.0006
"""Most that the palms move in one period to correct the height while holding: 3 cm/s."""
Hand = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Pose:
    """A whole-body pose of the lift.

    Attributes:
        left, right: middles of the palms [m].
        heading: direction of the fingers about z [rad].
    """

    waist: tuple[float, float, float]
    head: tuple[float, float]
    left: tuple[float, float, float]
    right: tuple[float, float, float]
    heading: float
    hand: Hand

    def joints(self) -> NDArray[np.float64]:
        """Solve for all joints (31,) [rad]."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        level, down = math.cos(FINGERS_DOWN_RAD), -math.sin(FINGERS_DOWN_RAD)
        fingers = (c * level, s * level, down)
        palms = (Palm(self.left, fingers, (s, -c, 0.0)), Palm(self.right, fingers, (-s, c, 0.0)))
        return posture(self.waist, self.head, palms, self.hand)

    @property
    def numbers(self) -> NDArray[np.float64]:
        """All numbers (18,), for interpolation."""
        return np.array([*self.waist, *self.head, *self.left, *self.right, self.heading, *self.hand])

    @staticmethod
    def of(numbers: NDArray[np.float64]) -> Pose:
        """Return the pose of these numbers."""
        n = [float(number) for number in numbers]
        return Pose((n[0], n[1], n[2]), (n[3], n[4]), (n[5], n[6], n[7]), (n[8], n[9], n[10]), n[11],
                    (n[12], n[13], n[14], n[15], n[16], n[17]))  # fmt: skip


def minimum_jerk(share: float) -> float:
    """Return the way done at a share of the time, at rest at both ends (Flash and Hogan, 1985)."""
    return share**3 * (10.0 - 15.0 * share + 6.0 * share**2)


class BimanualExpert:
    """Lifts the named box. Called once per command period (50 Hz)."""

    def __init__(self, world: HumanoidWorld, task: BimanualLift) -> None:
        self.world, self.task = world, task
        self._plan = self._lift()
        self._joints = world.target

    def act(self) -> NDArray[np.float64]:
        """Return all joint targets (31,) [rad] of the next period."""
        self._joints = next(self._plan, self._joints)
        return self._joints

    def _around(self, gap_m: float, z: float, hand: Hand) -> Pose:
        """Return the pose with the palms at the box's sides, `gap_m` away from them, at height z."""
        centre, yaw, _ = self.task.pose(self.world)
        bearing = math.atan2(centre[1], centre[0])
        waist = (0.9 * bearing, 0.0, LEAN_RAD)
        head = (max(-0.6, min(0.6, bearing - waist[0])), 0.75)
        reach = self.task.named.half[1] + gap_m
        x, y = float(centre[0]), float(centre[1])
        left = (x - reach * math.sin(yaw), y + reach * math.cos(yaw), z)
        right = (x + reach * math.sin(yaw), y - reach * math.cos(yaw), z)
        return Pose(waist, head, left, right, yaw, hand)

    def _reach(self, end: Pose, least_s: float) -> Iterator[NDArray[np.float64]]:
        """Move freely, in joint space, from wherever the robot was told to be."""
        start, goal = self._joints, end.joints()
        turn = float(np.abs(goal - start).max())
        periods = math.ceil(max(least_s, 1.875 * turn / JOINT_RAD_S) * COMMAND_HZ)
        for k in range(1, periods + 1):
            yield start + (goal - start) * minimum_jerk(k / periods)

    def _move(self, start: Pose, end: Pose, least_s: float) -> Iterator[NDArray[np.float64]]:
        """Move the palms along straight lines."""
        way = max(math.dist(start.left, end.left), math.dist(start.right, end.right))
        periods = math.ceil(max(least_s, 1.875 * way / SPEED_M_S) * COMMAND_HZ)
        a, b = start.numbers, end.numbers
        for k in range(1, periods + 1):
            yield Pose.of(a + (b - a) * minimum_jerk(k / periods)).joints()

    def _slipped(self) -> bool:
        centre, _, tilt = self.task.pose(self.world)
        palms = [self.world.link_pose(f"{side}_tcp")[0] for side in ("left", "right")]
        return bool(np.linalg.norm((palms[0] + palms[1]) / 2 - centre) > SLIP_M or tilt > 0.5)

    def _lift(self) -> Iterator[NDArray[np.float64]]:
        while True:
            top, grip_z = 2 * self.task.named.half[2], max(self.task.named.half[2], GRIP_Z_M)
            over = self._around(CLEAR_M, max(top + 0.10, 0.22), FLAT)
            yield from self._reach(over, 1.0)
            beside = self._around(CLEAR_M, grip_z, FLAT)
            yield from self._move(over, beside, 0.6)
            pressing = self._around(-PRESS_M, grip_z, CLOSED)
            yield from self._move(beside, pressing, 0.7)
            up = self.task.goal.level_m + SAG_M
            high = replace(pressing, left=_raised(pressing.left, up), right=_raised(pressing.right, up))
            yield from self._unless_slipped(self._move(pressing, high, 1.0))
            yield from self._unless_slipped(self._hold(high))
            yield from self._reach(self._around(2 * CLEAR_M, grip_z + up, FLAT), 0.8)

    def _hold(self, pose: Pose) -> Iterator[NDArray[np.float64]]:
        """Keep the box at its height, which disturbances shift within the grip."""
        way = rate = 0.0
        while True:
            error = self.task.goal.level_m - self.task.height(self.world)
            rate = 0.9 * rate + 0.1 * max(-CREEP_M, min(CREEP_M, 0.03 * error))
            way += rate
            yield replace(pose, left=_raised(pose.left, way), right=_raised(pose.right, way)).joints()

    def _unless_slipped(self, movement: Iterator[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
        for joints in movement:
            if self._slipped():
                return
            yield joints


def _raised(point: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    return (point[0], point[1], point[2] + by)
