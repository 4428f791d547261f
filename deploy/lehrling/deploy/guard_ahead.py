"""What the path ahead asks of the axes, compared with their limits: how fast it can be driven along."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard_axes import Axes
from lehrling.deploy.guard_path import Path

FloatArray = NDArray[np.float64]
CRUISE = 0.97
"""Of the limits, where path and rate are even; the rest is for changes of the rate."""


class Ahead:
    """Per point of a path, the largest ratio over the axes of its next differences to a limit.

    Columns: first difference to velocity, second to acceleration, third to jerk, first to acceleration, first to jerk.
    """

    def __init__(self, path: Path, axes: Axes) -> None:
        self._path, self._axes = path, axes
        self._ratios = np.zeros((len(path.points), 5))

    def measure(self, keep: int) -> None:
        """Compute anew what changed with the points from `keep` on."""
        first = max(0, keep - 3)
        axes, points = self._axes, self._path.points[first : self._path.count]
        ratios = self._ratios[first : self._path.count]
        ratios[:] = 0.0
        one = np.abs(np.diff(points, axis=0))
        for column, limit in ((0, axes.velocity), (3, axes.acceleration), (4, axes.jerk)):
            ratios[:-1, column] = (one / limit).max(axis=1)
        ratios[:-2, 1] = (np.abs(np.diff(points, 2, axis=0)) / axes.acceleration).max(axis=1)
        ratios[:-3, 2] = (np.abs(np.diff(points, 3, axis=0)) / axes.jerk).max(axis=1)

    def shift(self, drop: int) -> None:
        """Follow the path, which forgot `drop` points."""
        count = self._path.count
        self._ratios[:count] = self._ratios[drop : drop + count].copy()

    def bounds(self, s: float, horizon: float) -> tuple[float, float, float]:
        """Return what the points from s to the horizon allow.

        Returns:
            Largest ratio of first difference to acceleration limit, of first difference to jerk limit, and the rate
            [spans/s] at which curve and limits go together.
        """
        first = self._path.span(s)
        last = min(max(first + 4, int(horizon) + 4), self._path.count)
        v, a, j, slope, jerk = self._ratios[first:last].max(axis=0).tolist()
        return slope, jerk, CRUISE / max(v, math.sqrt(a), j ** (1 / 3), 1e-9)

    def here(self, s: float) -> tuple[float, float]:
        """Return the ratios of the path's slope at s to acceleration and jerk limit; from rest in a point they grow from 0."""
        first = self._path.span(s)
        t = s - first
        a, b, c = (1 - t) * (1 - t) / 2, (1 + 2 * t - 2 * t * t) / 2, t * t / 2
        (slope0, jerk0), (slope1, jerk1), (slope2, jerk2) = self._ratios[first : first + 3, 3:].tolist()
        return a * slope0 + b * slope1 + c * slope2, a * jerk0 + b * jerk1 + c * jerk2
