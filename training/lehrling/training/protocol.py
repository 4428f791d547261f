"""What a policy is to those who run one: observations in, chunks of actions out, in physical units. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Observation:
    """One look at the world.

    Attributes:
        images: camera name -> (h, w, 3) uint8.
        state: (S,) float32 in the order of the policy's `state_names`, units of the contract.
        instruction: the goal in words.
    """

    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    instruction: str


@dataclass(frozen=True)
class PolicySpec:
    """What a policy takes and gives.

    Attributes:
        image_px: height and width of every image.
        chunk: H, future steps predicted at once, `rate_hz` apart; the first is for now.
    """

    cameras: tuple[str, ...]
    image_px: int
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    chunk: int
    rate_hz: float


class Policy(Protocol):
    """Anything that turns observations into action chunks."""

    @property
    def spec(self) -> PolicySpec:
        """What it takes and gives."""
        ...

    def act(self, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return (B, H, A) float32 actions in physical units."""
        ...
