"""Where the robot may be: boxes for the TCP, and capsules that keep its links apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_axes import Axes
from lehrling.deploy.guard_events import Cause
from lehrling.deploy.guard_kinematics import Chain
from lehrling.deploy.guard_limits import Box, CapsuleConfig, SpaceConfig

FloatArray = NDArray[np.float64]
LEAST = float(np.finfo(np.float64).tiny)


def segment_distance(p1: FloatArray, q1: FloatArray, p2: FloatArray, q2: FloatArray) -> FloatArray:
    """Return the distance (…) between the segments p1-q1 and p2-q2 (…, 3).

    After C. Ericson, "Real-Time Collision Detection", 2005, section 5.1.9.
    """
    d1, d2, r = q1 - p1, q2 - p2, p1 - p2
    a, e = np.maximum((d1 * d1).sum(-1), LEAST), np.maximum((d2 * d2).sum(-1), LEAST)
    b, c, f = (d1 * d2).sum(-1), (d1 * r).sum(-1), (d2 * r).sum(-1)
    s = np.clip((b * f - c * e) / np.maximum(a * e - b * b, LEAST), 0, 1)
    t = np.clip((b * s + f) / e, 0, 1)
    s = np.clip((b * t - c) / a, 0, 1)
    return np.asarray(np.linalg.norm(r + d1 * s[..., None] - d2 * t[..., None], axis=-1))


class Capsules:
    """Capsules on the links of a chain; finds the first pair that comes too close."""

    def __init__(self, capsules: Sequence[CapsuleConfig], ignore: Sequence[tuple[str, str]], chain: Chain) -> None:
        self._link = np.array([chain.index(capsule.link) for capsule in capsules], dtype=np.intp)
        self._a, self._b = (np.array([getattr(c, end) for c in capsules], dtype=np.float64) for end in "ab")
        self._names = [capsule.link for capsule in capsules]
        apart = {frozenset(chain.index(name) for name in pair) for pair in ignore}
        pairs = [
            (i, j)
            for i in range(len(capsules))
            for j in range(i + 1, len(capsules))
            if not _joined(int(self._link[i]), int(self._link[j]), chain.parents, apart)
        ]
        self._first, self._second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        radius = np.array([capsule.radius for capsule in capsules])
        self._reach = radius[self._first] + radius[self._second]

    def clearance(self, rotations: FloatArray, origins: FloatArray) -> tuple[FloatArray, list[tuple[str, str]]]:
        """Return the clearance (n, pairs) [m], negative where capsules overlap, and the pairs' links."""
        turn, shift = rotations[self._link], origins[self._link]
        a = (turn @ self._a[:, None, :, None])[..., 0] + shift
        b = (turn @ self._b[:, None, :, None])[..., 0] + shift
        distance = segment_distance(a[self._first], b[self._first], a[self._second], b[self._second])
        pairs = [(self._names[i], self._names[j]) for i, j in zip(self._first, self._second, strict=True)]
        return distance.T - self._reach, pairs


def _joined(i: int, j: int, parents: list[int], apart: set[frozenset[int]]) -> bool:
    return i == j or parents[i] == j or parents[j] == i or frozenset((i, j)) in apart


class Space:
    """Checks positions of the axes against boxes and capsules."""

    def __init__(self, config: SpaceConfig, axes: Axes) -> None:
        """Prepare the checks.

        Raises:
            InputError: boxes or capsules without what they need.
        """
        self._axes, self.sample = axes, config.sample
        self._chain = Chain(config.links, axes.names)
        self._boxes, self._keep_out = _corners(config.boxes), _corners(config.keep_out)
        self._capsules = Capsules(config.capsules, config.ignore, self._chain) if config.capsules else None
        self._clearance_m = config.clearance_m
        self._coordinates = [axes.coordinates.get(name, -1) for name in "xyz"]
        self._tcp = self._chain.index(config.tcp) if config.tcp else -1
        if self._has_boxes and self._tcp < 0 and -1 in self._coordinates:
            raise InputError(
                "Expected axes x, y and z of a TCP, or `links` and `tcp`, for the workspace boxes; give the kinematic "
                "chain in the guard configuration's `space`, or no boxes."
            )

    @property
    def _has_boxes(self) -> bool:
        return bool(len(self._boxes) or len(self._keep_out))

    @property
    def checks(self) -> bool:
        """Whether there is anything to check."""
        return self._has_boxes or self._capsules is not None

    def violation(self, q: FloatArray) -> tuple[Cause, str] | None:
        """Return why a position among q (n, D) is not allowed, or None."""
        if not self.checks:
            return None
        rotations, origins = self._chain.poses(q)
        tcp = origins[self._tcp] if self._tcp >= 0 else q[:, self._coordinates] if self._has_boxes else None
        if tcp is not None and (problem := self._outside(tcp)):
            return Cause.WORKSPACE, problem
        if self._capsules is None:
            return None
        clearance, pairs = self._capsules.clearance(rotations, origins)
        if clearance.size == 0 or clearance.min() >= self._clearance_m:
            return None
        row, column = np.unravel_index(int(clearance.argmin()), clearance.shape)
        first, second = pairs[int(column)]
        near, least = clearance[row, column] * 1000, self._clearance_m * 1000
        text = f"Links {first!r} and {second!r} would come to {near:.0f} mm of each other, closer than {least:.0f} mm."
        return Cause.COLLISION, text

    def _outside(self, tcp: FloatArray) -> str:
        """Return which TCP position (n, 3) [m] is outside of the boxes or in one to keep out of."""
        wrong = np.zeros(len(tcp), dtype=bool)
        if len(self._boxes):
            wrong |= ~_inside(tcp, self._boxes).any(axis=1)
        if len(self._keep_out):
            wrong |= _inside(tcp, self._keep_out).any(axis=1)
        if not wrong.any():
            return ""
        x, y, z = tcp[int(wrong.argmax())]
        return f"The TCP would come to x {x:.3f}, y {y:.3f}, z {z:.3f} m, where the workspace does not allow it."


def _corners(boxes: Sequence[Box]) -> FloatArray:
    return np.array([(box.low, box.high) for box in boxes], dtype=np.float64).reshape(-1, 2, 3)


def _inside(points: FloatArray, boxes: FloatArray) -> NDArray[np.bool_]:
    """Return (n, boxes)."""
    above = points[:, None] >= boxes[None, :, 0]
    return np.asarray((above & (points[:, None] <= boxes[None, :, 1])).all(axis=2))
