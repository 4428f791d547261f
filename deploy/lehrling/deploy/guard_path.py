"""The path: a uniform cubic B-spline through what was asked for, which can be extended while it is driven along."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from lehrling.deploy.guard_curve import Curve

FloatArray = NDArray[np.float64]
CAPACITY = 8192
TAIL = 2
"""Copies of the last point: with them curve, first and second derivative come to rest in that point."""
_FOUR = np.arange(4)
_BASIS = np.array([[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]) / 6.0


class Path:
    """Control points (n, D) of the curve Q(s), 1 <= s <= end; Q is twice continuously differentiable.

    Span k (k <= s <= k + 1) depends on the points k to k + 3 and lies within their convex hull, so that positions stay
    inside every range and box that holds the points. Point i is passed at s = i - 1.

    Attributes:
        points: (capacity, D), the first `count` in use.
        seconds: (capacity,) nominal time of each span.
        targets: points that are targets and have not been passed.
    """

    def __init__(self, axes: int) -> None:
        self.points = np.zeros((CAPACITY, axes))
        self.seconds = np.ones(CAPACITY)
        self.targets: deque[int] = deque()
        self.restart(np.zeros(axes))

    def restart(self, position: FloatArray) -> None:
        """Forget everything; stand at `position` (D,) with s = end = 1."""
        self.count = 4
        self.points[:4] = position
        self.seconds[:4] = 1e-3
        self.targets.clear()

    @property
    def end(self) -> float:
        """The last s: rest in the last target."""
        return float(self.count - 3)

    @property
    def last(self) -> int:
        """The last point before the tail."""
        return self.count - 1 - TAIL

    def span(self, s: float) -> int:
        """Return the span of s; the end of the path belongs to the span before it."""
        return max(0, min(int(s), self.count - 4))

    def committed(self, s: float) -> int:
        """Return how many points the curve up to s depends on."""
        return min(max(math.ceil(s) - 1, 0) + 4, self.count)

    def spacing(self, keep: int) -> FloatArray:
        """Return how far (D,) its point `keep` - 1 is from the one before."""
        return np.asarray(self.points[keep - 1] - self.points[keep - 2])

    def extend(self, keep: int, curve: Curve) -> None:
        """Replace what follows the first `keep` points, which are at least those of the farthest s that is promised."""
        stop = keep + len(curve.points)
        self.points[keep:stop] = curve.points
        self.seconds[keep - 3] = curve.seconds[0]
        self.seconds[keep - 2 : stop - 2] = curve.seconds
        self.end_at(stop)
        while self.targets and self.targets[-1] >= keep:
            self.targets.pop()
        self.targets.extend((curve.targets + keep).tolist())

    def end_at(self, count: int) -> None:
        """End the path in point `count` - 1."""
        self.points[count : count + TAIL] = self.points[count - 1]
        self.seconds[count - 2 : count + TAIL] = self.seconds[count - 3]
        self.count = count + TAIL
        while self.targets and self.targets[-1] >= count:
            self.targets.pop()

    def pending(self, s: float) -> int:
        """Forget the targets that s has passed; return how many remain."""
        while self.targets and s >= self.targets[0] - (self.targets[0] < self.last):
            self.targets.popleft()
        return len(self.targets)

    def shift(self, s: float) -> int:
        """Forget points well behind s; return by how much every s is lower now."""
        drop = int(s) - 4
        if drop <= 0:
            return 0
        self.points[: self.count - drop] = self.points[drop : self.count].copy()
        self.seconds[: self.count - drop] = self.seconds[drop : self.count].copy()
        self.targets = deque(index - drop for index in self.targets if index >= drop)
        self.count -= drop
        return drop

    def at(self, s: FloatArray) -> FloatArray:
        """Return Q (n, D) at s (n,)."""
        span = np.minimum(s.astype(np.intp), self.count - 4)
        powers = np.empty((len(s), 4))
        powers[:, 0], powers[:, 1] = 1.0, s - span
        np.multiply(powers[:, 1], powers[:, 1], out=powers[:, 2])
        np.multiply(powers[:, 2], powers[:, 1], out=powers[:, 3])
        weights = powers @ _BASIS
        return np.asarray(np.matmul(weights[:, None, :], self.points[span[:, None] + _FOUR])[:, 0])
