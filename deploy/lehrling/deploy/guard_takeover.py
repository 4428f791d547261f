"""Taking the robot over where it stands: the first-move check, and the position from which commands start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard_axes import Axes

FloatArray = NDArray[np.float64]


class Takeover:
    """Compares targets and last commands (D,) with what is measured."""

    def __init__(self, axes: Axes, tolerance: FloatArray) -> None:
        self._axes, self._tolerance = axes, tolerance

    def problem(self, target: FloatArray, measured: FloatArray) -> str:
        """Return why motion may not start towards a target, or an empty string."""
        axes = self._axes
        away = np.where(axes.measured, np.abs(target - measured), 0.0)
        outside = np.where(axes.measured, np.maximum(axes.low - measured, measured - axes.high), 0.0)
        return (
            self._too_far(away, measured, "the first target is {:.3g} away from where it was measured, {:.4g}")
            or self._too_far(outside, measured, "it stands {:.3g} outside of its range, at {:.4g}")
        )  # fmt: skip

    def _too_far(self, far: FloatArray, measured: FloatArray, words: str) -> str:
        over = far > self._tolerance
        if not over.any():
            return ""
        worst = int(np.where(over, far, 0.0).argmax())
        axis = self._axes.all[worst]
        limit = f"{self._tolerance[worst]:.3g} {axis.unit}"
        return f"Axis {axis.name!r}: {words.format(far[worst], measured[worst])}; at most {limit} is allowed."

    def moved(self, last: FloatArray, measured: FloatArray) -> bool:
        """Whether the robot was moved since the last command."""
        return bool((self._axes.measured & ~(np.abs(last - measured) <= self._tolerance)).any())

    def start(self, last: FloatArray | None, measured: FloatArray, target: FloatArray) -> FloatArray:
        """Return where commands start.

        The last command stays where the robot still is at it, so that what a drive lags behind does not add up over
        many starts; an axis without measurement starts at its last command, or at the first target.
        """
        axes = self._axes
        start = target if last is None else last
        if last is None or self.moved(last, measured):
            start = np.where(axes.measured, measured, start)
        return np.asarray(np.clip(np.where(axes.is_velocity, 0.0, start), axes.low, axes.high))
