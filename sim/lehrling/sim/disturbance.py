"""Disturbances while demonstrating, so that the data shows recoveries (noise injection: DART, arXiv 1703.09327)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Disturbance:
    """Pushes the executed TCP target by a slowly varying offset, and sometimes shuts the gripper for a moment.

    The recorded command stays the expert's. An Ornstein-Uhlenbeck process per axis, drawn once per command period.
    """

    def __init__(self, rng: np.random.Generator, *, scale_m: float = 0.012, slip_chance: float = 0.01) -> None:
        self._rng, self._slip_chance = rng, slip_chance
        self._scale = scale_m * float(rng.uniform(0, 1.5)) * np.array([1.0, 1.0, 0.6])
        self._offset, self._slip = np.zeros(3), 0

    def push(self, tcp_z: float) -> NDArray[np.float64]:
        """Return the next offset (3,) [m] of the executed target; it fades as the TCP nears the table."""
        decay = 0.85
        draw = self._rng.normal(size=3) * self._scale * np.sqrt(1 - decay**2)
        self._offset = decay * self._offset + draw
        return self._offset * min(max((tcp_z - 0.02) / 0.1, 0.15), 1.0)

    def gripper(self, command: float) -> float:
        """Return the gripper command as executed: an open gripper may be shut for up to 0.4 s."""
        if self._slip == 0 and command > 0 and self._rng.random() < self._slip_chance:
            self._slip = int(self._rng.integers(4, 9))
        if self._slip and command > 0:
            self._slip -= 1
            return -1.0
        self._slip = 0
        return command


class Wander:
    """Pushes executed joint targets by slowly varying offsets: an Ornstein-Uhlenbeck process per joint, smoothed once more."""

    def __init__(self, rng: np.random.Generator, scale_rad: NDArray[np.float64]) -> None:
        self._rng = rng
        self._process: NDArray[np.float64] = np.zeros(len(scale_rad))
        self._offset: NDArray[np.float64] = np.zeros(len(scale_rad))
        self._scale = scale_rad * float(rng.uniform(0, 1.5))

    def push(self) -> NDArray[np.float64]:
        """Return the next offset [rad], called once per command period."""
        decay = 0.95
        draw = self._rng.normal(size=len(self._scale)) * self._scale * np.sqrt(1 - decay**2)
        self._process = decay * self._process + draw
        self._offset = decay * self._offset + (1 - decay) * self._process
        return self._offset
