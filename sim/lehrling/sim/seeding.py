"""Seeds: every random draw of an episode comes from a named child of one SeedSequence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CHILDREN = ("layout", "appearance", "camera", "goal", "start", "sensor", "disturbance")


@dataclass(frozen=True)
class Seeds:
    """The generators of one episode.

    Attributes:
        seed: the episode's seed, the only number needed to get the same episode again.
    """

    seed: int
    _generators: dict[str, np.random.Generator] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        children = np.random.SeedSequence(self.seed).spawn(len(CHILDREN))
        generators = {name: np.random.default_rng(child) for name, child in zip(CHILDREN, children, strict=True)}
        object.__setattr__(self, "_generators", generators)

    def __getitem__(self, name: str) -> np.random.Generator:
        return self._generators[name]

    def describe(self) -> dict[str, int | list[str]]:
        """Return what reproduces the draws: the entropy and the children's names in spawn order."""
        return {"entropy": self.seed, "children": list(CHILDREN)}
