"""What every task shares: parts on the table, a goal said in words, and a predicate on the simulator's state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.seeding import Seeds
from lehrling.sim.world import World

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.10),
    "green": (0.10, 0.60, 0.18),
    "blue": (0.12, 0.28, 0.85),
    "yellow": (0.92, 0.80, 0.10),
    "purple": (0.55, 0.15, 0.65),
    "white": (0.93, 0.93, 0.93),
}
PART_HALF_M = 0.02
PARTS_LOW, PARTS_HIGH = np.array([0.28, -0.20]), np.array([0.42, 0.20])


@dataclass(frozen=True)
class Part:
    """A loose part: its Bullet body and the words for it."""

    body: int
    colour: str
    shape: str


@dataclass(frozen=True)
class Goal:
    """Which part goes where.

    Attributes:
        part: index of the part.
        place: name of the place.
        xy: the place's centre [m].
        release_z: TCP height at which the part is let go [m].
        instruction: the goal in words.
    """

    part: int
    place: str
    xy: tuple[float, float]
    release_z: float
    instruction: str


class Task(ABC):
    """A task: lays out a world and judges it."""

    name: ClassVar[str]
    summary: ClassVar[str]
    time_limit_s: ClassVar[float] = 8.0
    parts_count: ClassVar[int] = 3
    parts: list[Part]
    goal: Goal

    def reset(self, world: World, seeds: Seeds) -> None:
        """Add fixtures and parts to a freshly reset world, draw the goal, and let everything settle."""
        self.places = self.build(world, seeds["layout"])
        self.parts = self._scatter(world, seeds)
        rng = seeds["goal"]
        part, place = int(rng.integers(len(self.parts))), str(rng.choice(sorted(self.places)))
        xy, release_z = self.places[place]
        chosen = self.parts[part]
        words = self.phrase(rng, chosen, place)
        self.goal = Goal(part, place, xy, release_z, words)
        self._calm = 0

    @abstractmethod
    def build(self, world: World, rng: np.random.Generator) -> dict[str, tuple[tuple[float, float], float]]:
        """Add the fixtures; return place name -> (centre xy [m], release height [m])."""

    @abstractmethod
    def phrase(self, rng: np.random.Generator, part: Part, place: str) -> str:
        """Say the goal in one of several ways."""

    @abstractmethod
    def inside(self, position: NDArray[np.float64]) -> bool:
        """Whether a part at `position` [m] lies in the goal's place."""

    def _scatter(self, world: World, seeds: Seeds) -> list[Part]:
        rng, look = seeds["layout"], seeds["appearance"]
        colours = [str(c) for c in rng.choice(sorted(COLOURS), self.parts_count, replace=False)]
        spots: list[NDArray[np.float64]] = []
        while len(spots) < self.parts_count:
            spot = rng.uniform(PARTS_LOW, PARTS_HIGH)
            if all(abs(spot[1] - s[1]) > 0.115 or abs(spot[0] - s[0]) > 0.09 for s in spots):
                spots.append(spot)
            elif spots and rng.random() < 0.05:
                spots.clear()
        return [self._part(world, look, rng, c, s) for c, s in zip(colours, spots, strict=True)]

    @staticmethod
    def _part(
        world: World,
        look: np.random.Generator,
        rng: np.random.Generator,
        colour: str,
        spot: NDArray[np.float64],
    ) -> Part:
        r, g, b = np.clip(np.asarray(COLOURS[colour]) + look.uniform(-0.06, 0.06, 3), 0, 1).tolist()
        half = PART_HALF_M * float(rng.uniform(0.9, 1.1))
        position, yaw = (float(spot[0]), float(spot[1]), half), float(rng.uniform(-0.5, 0.5))
        shape = "block" if rng.random() < 0.5 else "cylinder"
        if shape == "block":
            body = world.physics.box((half, half, half), position, (r, g, b), mass=0.06, yaw=yaw)
        else:
            body = world.physics.cylinder(half, 2 * half, position, (r, g, b), mass=0.06)
        world.physics.client.changeDynamics(body, -1, lateralFriction=0.9, spinningFriction=0.01)
        return Part(body, colour, shape)

    def part_position(self, world: World) -> NDArray[np.float64]:
        """Return the named part's position (3,) [m]."""
        return world.physics.position(self.parts[self.goal.part].body)

    def update(self, world: World) -> bool:
        """Judge the state, once per command period; return whether the task is done.

        Done: the named part lies in its place, let go and at rest, for four periods (0.2 s).
        """
        body = self.parts[self.goal.part].body
        settled = (
            self.inside(world.physics.position(body))
            and world.gripper_open_commanded
            and world.physics.speed(body) < 0.05
        )
        self._calm = self._calm + 1 if settled else 0
        return self._calm >= 4

    def partial_credit(self, world: World) -> float:
        """Return 0 (untouched), 0.5 (lifted or carried) or 1 (in its place)."""
        position = self.part_position(world)
        if self.inside(position):
            return 1.0
        return 0.5 if position[2] > PART_HALF_M + 0.03 else 0.0
