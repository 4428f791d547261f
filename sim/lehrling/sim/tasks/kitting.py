"""Kitting: put the named part into the named pocket of a tray."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.tasks.base import Part, Task
from lehrling.sim.world import World

POCKETS = ("left", "middle", "right")
PITCH_M = 0.11
INNER_HALF_M = 0.042
WALL_HEIGHT_M = 0.03
PHRASES = (
    "put the {part} into the {place} pocket",
    "place the {part} in the {place} pocket of the tray",
    "kit the {part} : {place} pocket",
    "move the {part} to the {place} tray pocket",
)


class Kitting(Task):
    """Three parts of different colours on the table, a tray with three pockets behind them."""

    name: ClassVar[str] = "kitting"
    summary: ClassVar[str] = "put the named part into the named pocket of the tray"

    def build(self, world: World, rng: np.random.Generator) -> dict[str, tuple[tuple[float, float], float]]:
        """Add the tray; its place varies by ±2 cm."""
        cx, cy = 0.54 + float(rng.uniform(-0.02, 0.02)), float(rng.uniform(-0.02, 0.02))
        tint = float(rng.uniform(-0.05, 0.05))
        self._tray(world, cx, cy, (0.80 + tint, 0.74 + tint, 0.62 + tint))
        return {
            name: ((cx, cy + offset), 0.052) for name, offset in zip(POCKETS, (PITCH_M, 0.0, -PITCH_M), strict=True)
        }

    @staticmethod
    def _tray(world: World, cx: float, cy: float, rgb: tuple[float, float, float]) -> None:
        half_y, thick = 1.5 * PITCH_M, 0.006
        dark = (rgb[0] * 0.55, rgb[1] * 0.55, rgb[2] * 0.55)
        world.physics.box((INNER_HALF_M + 0.006, half_y, 0.002), (cx, cy, 0.002), dark)
        for side in (-1, 1):
            world.physics.box(
                (thick / 2, half_y, WALL_HEIGHT_M / 2),
                (cx + side * (INNER_HALF_M + thick / 2), cy, WALL_HEIGHT_M / 2),
                rgb,
            )
        wall = PITCH_M / 2 - INNER_HALF_M
        for k in range(4):
            y = cy + (k - 1.5) * PITCH_M
            world.physics.box((INNER_HALF_M, wall / 2 + 0.004, WALL_HEIGHT_M / 2), (cx, y, WALL_HEIGHT_M / 2), rgb)

    def phrase(self, rng: np.random.Generator, part: Part, place: str) -> str:
        """Say which part goes into which pocket."""
        noun = part.shape if rng.random() < 0.5 else "part"
        return str(rng.choice(PHRASES)).format(part=f"{part.colour} {noun}", place=place)

    def inside(self, position: NDArray[np.float64]) -> bool:
        """Whether the part stands in the pocket: within the walls and below their rim."""
        offset = np.abs(position[:2] - np.asarray(self.goal.xy))
        return bool(offset.max() < INNER_HALF_M and position[2] < WALL_HEIGHT_M + 0.01)
