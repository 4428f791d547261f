"""Rotation vectors: orientations as three axes that can be limited like others.

The angular velocity is at most the rate of the rotation vector, since the Jacobian between them has no singular value
above one; a limit on the axes is a limit on the rotation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def multiply(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the quaternion product a b, both x, y, z, w."""
    xyz = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.array([*xyz, a[3] * b[3] - a[:3] @ b[:3]])


def to_rotation_vector(quaternion: FloatArray, reference: FloatArray, near: FloatArray) -> FloatArray:
    """Return the rotation vector (3,) [rad] from `reference` to `quaternion` (x, y, z, w), both in the same frame.

    Of the vectors that mean this rotation, the one nearest to `near` (3,), so that a turn can go beyond half of one.
    A quaternion that is not of unit length gives NaN.
    """
    length = float(np.linalg.norm(quaternion))
    if not 0.9 < length < 1.1:
        return np.full(3, np.nan)
    inverse = reference * np.array([-1.0, -1.0, -1.0, 1.0])
    x, y, z, w = multiply(quaternion / length, inverse)
    sine = math.sqrt(x * x + y * y + z * z)
    if sine < 1e-9:
        axis = near / n if (n := float(np.linalg.norm(near))) > math.pi else np.array([1.0, 0.0, 0.0])
    else:
        axis = np.array([x, y, z]) / sine
    angle = 2 * math.atan2(sine, w)
    turns = np.array([angle - 4 * math.pi, angle - 2 * math.pi, angle, angle + 2 * math.pi])
    return np.asarray(axis * turns[int(np.argmin(np.linalg.norm(turns[:, None] * axis - near, axis=1)))])


def from_rotation_vector(vector: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the quaternion (x, y, z, w) that `vector` (3,) [rad] turns `reference` to."""
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 1e-12 else np.zeros(3)
    return multiply(np.array([*(axis * math.sin(angle / 2)), math.cos(angle / 2)]), reference)
