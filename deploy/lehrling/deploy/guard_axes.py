"""Axes: what a command vector is made of, and how fast each element may change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError

Unit = Literal["rad", "m", "1"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One element of a command: a joint, a TCP coordinate, a base velocity, a gripper.

    An axis of velocities (`is_velocity`) is commanded in `unit`/s and integrated inside the guard, so that every stop,
    hold and speed override brings it to zero; `velocity` then bounds the command, `acceleration` and `jerk` its changes.
    The unit `1` is a normalised command (-1 to 1), whose clamps are its meaning and are not counted.

    Attributes:
        low, high: range of the position in `unit`.
        velocity, acceleration, jerk: limits in unit/s, unit/s², unit/s³; infinite where none applies.
        margin: kept from both ends of the range by targets.
        step: largest change from one target to the next.
        measured: whether the robot reports where the axis is.
        coordinate: x, y or z of the commanded TCP [m], for workspace boxes.
    """

    name: str
    unit: Unit = "rad"
    low: float = -math.inf
    high: float = math.inf
    velocity: float = math.inf
    acceleration: float = math.inf
    jerk: float = math.inf
    margin: float = 0.0
    step: float = math.inf
    is_velocity: bool = False
    measured: bool = True
    coordinate: Literal["", "x", "y", "z"] = ""

    def __post_init__(self) -> None:
        limits = (self.velocity, self.acceleration, self.jerk, self.step)
        if any(math.isnan(value) or value <= 0 for value in limits):
            raise InputError(f"Axis {self.name!r}: expected limits above zero, got {limits}.")
        if not self.margin >= 0 or not self.low + 2 * self.margin <= self.high:
            raise InputError(
                f"Axis {self.name!r}: a margin of {self.margin} on both sides does not fit the range "
                f"{self.low} to {self.high} {self.unit}."
            )


class Axes:
    """Axes as arrays (D,), in the order of the command vector."""

    def __init__(self, axes: tuple[Axis, ...]) -> None:
        if not axes or len({axis.name for axis in axes}) != len(axes):
            raise InputError(f"Expected axes of different names, got {[axis.name for axis in axes]}.")
        self.all = axes
        self.names = tuple(axis.name for axis in axes)
        self.low, self.high = self._column("low"), self._column("high")
        self.velocity, self.acceleration = self._column("velocity"), self._column("acceleration")
        self.jerk, self.step, self.margin = self._column("jerk"), self._column("step"), self._column("margin")
        self.is_velocity = np.array([axis.is_velocity for axis in axes])
        self.measured = np.array([axis.measured and not axis.is_velocity for axis in axes])
        self.coordinates: dict[str, int] = {
            axis.coordinate: index for index, axis in enumerate(axes) if axis.coordinate
        }
        self.counted = np.array([axis.unit != "1" for axis in axes])

    def __len__(self) -> int:
        return len(self.all)

    def lengths(self, of_unit: Callable[[str], float]) -> FloatArray:
        """Return a length per axis by its unit; infinite for axes of velocities."""
        return np.array([np.inf if axis.is_velocity else of_unit(axis.unit) for axis in self.all])

    def _column(self, name: str) -> FloatArray:
        return np.array([getattr(axis, name) for axis in self.all], dtype=np.float64)
