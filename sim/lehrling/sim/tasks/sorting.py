"""Sorting: put the named part into the good or the scrap bin."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.tasks.base import Part, Task
from lehrling.sim.world import World

BINS = ("good", "scrap")
INNER_HALF_M = 0.055
WALL_HEIGHT_M = 0.04
PHRASES = (
    "sort the {part} into the {place} bin",
    "drop the {part} in the {place} bin",
    "the {part} is {place} : bin it",
)


class Sorting(Task):
    """Three parts of different colours and two bins, green for good and dark red for scrap, on either side."""

    name: ClassVar[str] = "sorting"
    summary: ClassVar[str] = "put the named part into the good or the scrap bin"

    def build(self, world: World, rng: np.random.Generator) -> dict[str, tuple[tuple[float, float], float]]:
        """Add the two bins; sides are drawn, places vary by ±3 cm."""
        first = 1 if rng.random() < 0.5 else -1
        places = {}
        for name, side in zip(BINS, (first, -first), strict=True):
            x = 0.54 + float(rng.uniform(-0.03, 0.03))
            y = side * (0.14 + float(rng.uniform(-0.03, 0.05)))
            rgb = (0.30, 0.50, 0.36) if name == "good" else (0.45, 0.24, 0.22)
            self._bin(world, x, y, rgb)
            places[name] = ((x, y), 0.075)
        return places

    @staticmethod
    def _bin(world: World, x: float, y: float, rgb: tuple[float, float, float]) -> None:
        thick, height = 0.004, WALL_HEIGHT_M / 2
        reach = INNER_HALF_M + thick
        dark = (rgb[0] * 0.6, rgb[1] * 0.6, rgb[2] * 0.6)
        world.physics.box((reach, reach, 0.002), (x, y, 0.002), dark)
        for side in (-1, 1):
            world.physics.box((thick, reach, height), (x + side * reach, y, height), rgb)
            world.physics.box((reach, thick, height), (x, y + side * reach, height), rgb)

    def phrase(self, rng: np.random.Generator, part: Part, place: str) -> str:
        """Say which part goes into which bin."""
        noun = part.shape if rng.random() < 0.5 else "part"
        return str(rng.choice(PHRASES)).format(part=f"{part.colour} {noun}", place=place)

    def inside(self, position: NDArray[np.float64]) -> bool:
        """Whether the part lies in the bin."""
        offset = np.abs(position[:2] - np.asarray(self.goal.xy))
        return bool(offset.max() < INNER_HALF_M and position[2] < WALL_HEIGHT_M)
