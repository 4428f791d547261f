"""Bimanual lift: raise the named box with both hands to the named height, and hold it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.humanoid_world import COMMAND_HZ, HumanoidWorld
from lehrling.sim.seeding import Seeds
from lehrling.sim.tasks.base import COLOURS

LEVELS_CM = (10, 15, 20)
TOLERANCE_M = 0.025
HOLD_S = 0.8
TILT_MAX_RAD = 0.35
SPEED_MAX_M_S = 0.12
STRAY_MAX_M = 0.05
PHRASES = (
    "lift the {colour} box {cm} centimetres with both hands",
    "raise the {colour} box by {cm} cm and hold it",
    "take the {colour} box in both hands and hold it {cm} centimetres above the table",
    "both hands : {colour} box up {cm} cm",
)


@dataclass(frozen=True)
class Load:
    """A box: its Bullet body, the word for its colour, half its edges [m]."""

    body: int
    colour: str
    half: tuple[float, float, float]


@dataclass(frozen=True)
class LiftGoal:
    """Which box is to be held how high.

    Attributes:
        box: index of the box.
        level_m: height of its underside above the table [m].
        instruction: the goal in words.
    """

    box: int
    level_m: float
    instruction: str


class BimanualLift:
    """Two boxes of different colours on a table, to the left and to the right."""

    name: ClassVar[str] = "bimanual_lift"
    summary: ClassVar[str] = "raise the named box with both hands to the named height and hold it"
    time_limit_s: ClassVar[float] = 10.0
    boxes: list[Load]
    goal: LiftGoal

    def reset(self, world: HumanoidWorld, seeds: Seeds) -> None:
        """Add the boxes to a freshly reset world and draw the goal."""
        rng, look = seeds["layout"], seeds["appearance"]
        colours = [str(colour) for colour in rng.choice(sorted(COLOURS), 2, replace=False)]
        self.boxes = [self._box(world, rng, look, *row) for row in zip(colours, (1.0, -1.0), strict=True)]
        self._rest = [world.physics.position(load.body) for load in self.boxes]
        draw = seeds["goal"]
        box, cm = int(draw.integers(2)), int(draw.choice(LEVELS_CM))
        words = str(draw.choice(PHRASES)).format(colour=self.boxes[box].colour, cm=cm)
        self.goal = LiftGoal(box, cm / 100, words)
        self._held = 0

    @staticmethod
    def _box(
        world: HumanoidWorld, rng: np.random.Generator, look: np.random.Generator, colour: str, side: float
    ) -> Load:
        x, y = float(rng.uniform(0.41, 0.47)), side * float(rng.uniform(0.16, 0.21))
        half = (float(rng.uniform(0.05, 0.075)), float(rng.uniform(0.055, 0.075)), float(rng.uniform(0.055, 0.075)))
        yaw = 0.6 * math.atan2(y, x) + float(rng.uniform(-0.15, 0.15))
        r, g, b = np.clip(np.asarray(COLOURS[colour]) + look.uniform(-0.06, 0.06, 3), 0, 1).tolist()
        body = world.physics.box(half, (x, y, half[2]), (r, g, b), mass=float(rng.uniform(0.4, 0.9)), yaw=yaw)
        world.physics.client.changeDynamics(body, -1, lateralFriction=0.9, spinningFriction=0.05)
        return Load(body, colour, half)

    @property
    def named(self) -> Load:
        """The box that the instruction names."""
        return self.boxes[self.goal.box]

    def pose(self, world: HumanoidWorld) -> tuple[NDArray[np.float64], float, float]:
        """Return the named box's centre (3,) [m], its yaw and its tilt [rad]."""
        position, quaternion = world.physics.client.getBasePositionAndOrientation(self.named.body)
        m = world.physics.client.getMatrixFromQuaternion(quaternion)
        return np.asarray(position), math.atan2(m[3], m[0]), math.acos(max(-1.0, min(1.0, m[8])))

    def height(self, world: HumanoidWorld) -> float:
        """Return how high the named box's underside is above the table [m]."""
        return float(self.pose(world)[0][2]) - self.named.half[2]

    def update(self, world: HumanoidWorld) -> bool:
        """Judge the state, once per command period; return whether the task is done.

        Done: for HOLD_S both hands touch the named box, which is level, at rest and within TOLERANCE_M of the named height,
        and the other box is where it was.
        """
        _, _, tilt = self.pose(world)
        other = 1 - self.goal.box
        stray = np.linalg.norm(world.physics.position(self.boxes[other].body) - self._rest[other])
        fine = (
            abs(self.height(world) - self.goal.level_m) < TOLERANCE_M
            and tilt < TILT_MAX_RAD
            and world.physics.speed(self.named.body) < SPEED_MAX_M_S
            and all(world.holds(side, self.named.body) for side in ("left", "right"))
            and bool(stray < STRAY_MAX_M)
        )
        self._held = self._held + 1 if fine else 0
        return self._held >= HOLD_S * COMMAND_HZ

    def partial_credit(self, world: HumanoidWorld) -> float:
        """Return 0 (on the table), 0.5 (lifted) or 1 (held at its height)."""
        if self._held >= HOLD_S * COMMAND_HZ:
            return 1.0
        return 0.5 if self.height(world) > 0.03 else 0.0
