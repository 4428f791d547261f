"""Unit quaternions (x, y, z, w), as ROS orders them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEARLY_EQUAL = 0.9995
"""Cosine of the half angle above which the arc is straight to within rounding: sin of the angle would be divided by itself."""


def slerp(start: NDArray[np.float64], end: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (T, 4) unit quaternions between `start` and `end` (T, 4), turned evenly along the shortest arc.

    Inputs are normalised first; a quaternion without length gives NaN. Source: Shoemake, "Animating rotation with quaternion
    curves", SIGGRAPH 1985.

    Args:
        start: (T, 4).
        end: (T, 4).
        weight: (T, 1) or (T,), 0 gives the start and 1 the end, or its negative, which is the same turn.
    """
    share = np.asarray(weight, np.float64).reshape(-1, 1)
    a, b = _unit(start), _unit(end)
    cosine = np.sum(a * b, axis=1, keepdims=True)
    b = np.where(cosine < 0, -b, b)
    cosine = np.abs(cosine)
    angle = np.arccos(np.clip(cosine, -1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return _unit(np.where(cosine > _NEARLY_EQUAL, a + share * (b - a), curved))


def _unit(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(quaternion, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(length > 0, quaternion / length, np.nan))
