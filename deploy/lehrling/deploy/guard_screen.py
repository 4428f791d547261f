"""What targets must pass before they become a path: shape, numbers, range, step."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lehrling.deploy.guard_axes import Axes

FloatArray = NDArray[np.float64]


def as_targets(targets: ArrayLike, axes: int, most: int) -> FloatArray | str:
    """Return targets as (n, D), or why they are none."""
    try:
        array = np.array(targets, dtype=np.float64, ndmin=1)
    except (TypeError, ValueError, OverflowError):
        return f"Expected numbers of shape ({axes},) or (n, {axes}), got what is no array of numbers."
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] != axes or not 1 <= len(array) <= most:
        return f"Expected shape ({axes},) or (n, {axes}) with n from 1 to {most}, got {np.shape(targets)}."
    return array


def not_finite(targets: FloatArray, axes: Axes) -> str:
    """Return which target (n, D) is not finite, or an empty string."""
    if np.isfinite(targets).all():
        return ""
    row, column = np.argwhere(~np.isfinite(targets))[0]
    return f"Target {row} of axis {axes.names[column]!r} is {targets[row, column]}; the whole chunk is refused."


@dataclass(frozen=True)
class Clamped:
    """Targets in their ranges.

    Attributes:
        inside: (n, D).
        clamped: how many had to be brought in; `beyond`: how many of these were outside of the range itself.
        text: the first of them in words.
    """

    inside: FloatArray
    clamped: int
    beyond: int
    text: str


class Screen:
    """Brings targets into the range, in steps that are not too large, and counts how often it had to."""

    def __init__(self, axes: Axes, clamps_max: int, window_ns: int) -> None:
        self._axes, self._clamps_max, self._window_ns = axes, clamps_max, window_ns
        self._low = np.where(axes.is_velocity, -axes.velocity, axes.low)
        self._high = np.where(axes.is_velocity, axes.velocity, axes.high)
        self.low, self.high = self._low + axes.margin, self._high - axes.margin
        self._clamps: deque[int] = deque(maxlen=clamps_max)

    def clamp(self, targets: FloatArray) -> Clamped:
        """Bring targets (n, D) into the range less its margin."""
        inside = np.clip(targets, self.low, self.high)
        moved = (inside != targets) & self._axes.counted
        if not moved.any():
            return Clamped(inside, 0, 0, "")
        row, column = np.argwhere(moved)[0]
        text = (
            f"Axis {self._axes.names[column]!r}: target {targets[row, column]:.4g} is outside of "
            f"{self.low[column]:.4g} to {self.high[column]:.4g} {self._axes.all[column].unit}."
        )
        beyond = moved & ((targets < self._low) | (targets > self._high))
        return Clamped(inside, int(moved.any(axis=1).sum()), int(beyond.any(axis=1).sum()), text)

    def note(self, now_ns: int, beyond: int) -> bool:
        """Count targets beyond the range; return whether they are too many."""
        self._clamps.extend([now_ns] * min(beyond, self._clamps_max))
        return len(self._clamps) == self._clamps_max and now_ns - self._clamps[0] <= self._window_ns

    def forget(self) -> None:
        """Forget what was counted."""
        self._clamps.clear()

    def cap(self, start: FloatArray, targets: FloatArray) -> tuple[FloatArray, int]:
        """Return targets (n, D) with each step from its predecessor shortened to the cap, and how many were.

        A step keeps its direction: all axes are shortened alike.
        """
        step = np.where(self._axes.is_velocity, np.inf, self._axes.step)
        if (np.abs(np.diff(targets, axis=0, prepend=start[None])) <= step).all():
            return targets, 0
        capped, count, last = targets.copy(), 0, start
        for row in range(len(targets)):
            way = np.where(self._axes.is_velocity, 0.0, targets[row] - last)
            over = float((np.abs(way) / step).max())
            if over > 1:
                capped[row], count = np.where(self._axes.is_velocity, targets[row], last + way / over), count + 1
            last = capped[row]
        return capped, count
