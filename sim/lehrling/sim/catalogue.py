"""Which tasks there are and which robots can do them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lehrling.datasets.errors import InputError
from lehrling.sim.arm_station import ArmStation
from lehrling.sim.humanoid_station import ROBOT, HumanoidStation
from lehrling.sim.robots import ROBOTS, robot_named
from lehrling.sim.station import Size, Station
from lehrling.sim.tasks import TASKS, task_named
from lehrling.sim.tasks.bimanual_lift import BimanualLift


@dataclass(frozen=True)
class Offer:
    """A task as the simulator offers it.

    Attributes:
        robots: that can do it.
        make: builds the station of the task's and robot's names at an image size.
    """

    summary: str
    time_limit_s: float
    robots: tuple[str, ...]
    make: Callable[[str, str, Size], Station]


def _arm(task: str, robot: str, size: Size) -> Station:
    return ArmStation(task_named(task), robot_named(robot), size)


def _humanoid(_task: str, _robot: str, size: Size) -> Station:
    return HumanoidStation(size)


OFFERS: dict[str, Offer] = {
    name: Offer(task.summary, task.time_limit_s, tuple(sorted(ROBOTS)), _arm) for name, task in TASKS.items()
}
OFFERS[BimanualLift.name] = Offer(BimanualLift.summary, BimanualLift.time_limit_s, (ROBOT,), _humanoid)
ALL_ROBOTS = tuple(sorted({robot for offer in OFFERS.values() for robot in offer.robots}))


def offer(task: str, robot: str) -> Offer:
    """Return the task's offer if the robot can do it.

    Raises:
        InputError: there is no such task or robot, or this robot cannot do this task.
    """
    if task not in OFFERS:
        raise InputError(f"There is no task {task!r}; choose one of {', '.join(sorted(OFFERS))}.")
    if robot not in ALL_ROBOTS:
        raise InputError(f"There is no robot {robot!r} in the simulator; choose one of {', '.join(ALL_ROBOTS)}.")
    found = OFFERS[task]
    if robot not in found.robots:
        can = ", ".join(sorted(name for name, other in OFFERS.items() if robot in other.robots))
        raise InputError(
            f"Robot {robot!r} cannot do task {task!r}, which is for {', '.join(found.robots)}; it can do {can}."
        )
    return found


def make_station(task: str, robot: str, size: Size) -> Station:
    """Build a world with the robot at the task.

    Raises:
        InputError: there is no such task or robot, or this robot cannot do this task.
    """
    return offer(task, robot).make(task, robot, size)
