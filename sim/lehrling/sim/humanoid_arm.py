"""Closed-form joints of a humanoid's arm: spherical shoulder, elbow, spherical wrist.

Plain floats in a fixed order, no linear-algebra library, so that a seed gives the same numbers whichever kernels a machine
would choose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lehrling.sim.humanoid_model import FORE_M, SHOULDER, UPPER_M, Vector, tcp_of

Matrix = tuple[Vector, Vector, Vector]
"""A rotation by rows."""
REACH_MAX_M, REACH_MIN_M = UPPER_M + FORE_M - 0.004, 0.12
SWIVEL_RAD = 0.1
"""How far the elbow points outwards from straight below the line from shoulder to wrist."""


def add(a: Vector, b: Vector, scale: float = 1.0) -> Vector:
    """Return a + scale * b."""
    return (a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2])


def dot(a: Vector, b: Vector) -> float:
    """Return the inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Return the outer product."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def unit(a: Vector) -> Vector:
    """Return the direction; the x axis for a vector of no length."""
    length = math.sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length) if length > 1e-12 else (1.0, 0.0, 0.0)


def transposed(m: Matrix) -> Matrix:
    """Return the inverse rotation."""
    (a, b, c), (d, e, f), (g, h, i) = m
    return ((a, d, g), (b, e, h), (c, f, i))


def turned(m: Matrix, v: Vector) -> Vector:
    """Return m v."""
    return (dot(m[0], v), dot(m[1], v), dot(m[2], v))


def product(a: Matrix, b: Matrix) -> Matrix:
    """Return a b."""
    x, y, z = transposed(b)
    return (
        (dot(a[0], x), dot(a[0], y), dot(a[0], z)),
        (dot(a[1], x), dot(a[1], y), dot(a[1], z)),
        (dot(a[2], x), dot(a[2], y), dot(a[2], z)),
    )


def about(axis: str, angle: float) -> Matrix:
    """Return the rotation about x, y or z [rad]."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == "x":
        return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
    if axis == "y":
        return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Palm:
    """Where a palm is to be, in the cell frame.

    Attributes:
        xyz: middle of its surface [m].
        fingers, normal: unit vectors along the fingers and out of the palm.
    """

    xyz: Vector
    fingers: Vector
    normal: Vector


def torso(yaw: float, roll: float, pitch: float) -> Matrix:
    """Return the torso's rotation in the cell frame for the waist's joints [rad]; its origin stays where it is."""
    return product(product(about("z", yaw), about("x", roll)), about("y", pitch))


def _shoulder(elbow_from: Vector, forearm: Vector) -> tuple[Matrix, tuple[float, float, float]]:
    """Return the upper arm's rotation and the shoulder's pitch, roll, yaw for directions of upper arm and forearm."""
    z = (-elbow_from[0], -elbow_from[1], -elbow_from[2])
    x = unit(add(forearm, elbow_from, -dot(forearm, elbow_from)))
    y = cross(z, x)
    rotation = transposed((x, y, z))
    roll = math.asin(max(-1.0, min(1.0, -rotation[1][2])))
    pitch = math.atan2(rotation[0][2], rotation[2][2])
    return rotation, (pitch, roll, math.atan2(rotation[1][0], rotation[1][1]))


def arm_joints(side: str, waist: tuple[float, float, float], palm: Palm, swivel_rad: float = SWIVEL_RAD) -> list[float]:
    """Solve an arm's seven joints [rad], shoulder to wrist, for a palm; the waist's yaw, roll, pitch are given.

    Targets beyond reach are drawn onto the reachable sphere, so that the arm stretches and never jumps. Joint limits are
    not looked at.
    """
    sign = 1.0 if side == "left" else -1.0
    back = transposed(torso(*waist))
    fingers, normal = unit(turned(back, palm.fingers)), turned(back, palm.normal)
    normal = unit(add(normal, fingers, -dot(normal, fingers)))
    z, y = (-fingers[0], -fingers[1], -fingers[2]), (-sign * normal[0], -sign * normal[1], -sign * normal[2])
    hand = transposed((cross(y, z), y, z))
    shoulder = (SHOULDER[0], sign * SHOULDER[1], SHOULDER[2])
    line = add(add(turned(back, palm.xyz), turned(hand, tcp_of(side)), -1.0), shoulder, -1.0)
    length = min(max(math.sqrt(dot(line, line)), REACH_MIN_M), REACH_MAX_M)
    along = unit(line)
    below = unit(add((0.0, 0.0, -1.0), along, along[2]))
    outwards = cross(below, along) if dot(cross(below, along), (0.0, sign, 0.0)) > 0 else cross(along, below)
    share = (UPPER_M**2 - FORE_M**2 + length**2) / (2 * length)
    height = math.sqrt(max(UPPER_M**2 - share**2, 0.0))
    bend = add(add((0.0, 0.0, 0.0), below, height * math.cos(swivel_rad)), outwards, height * math.sin(swivel_rad))
    elbow = add(bend, along, share)
    forearm = unit(add((along[0] * length, along[1] * length, along[2] * length), elbow, -1.0))
    rotation, joints = _shoulder(unit(elbow), forearm)
    flexion = math.acos(max(-1.0, min(1.0, (length**2 - UPPER_M**2 - FORE_M**2) / (2 * UPPER_M * FORE_M))))
    wrist = product(transposed(product(rotation, about("y", -flexion))), hand)
    roll, pitch = math.atan2(wrist[1][0], wrist[0][0]), math.asin(max(-1.0, min(1.0, -wrist[2][0])))
    return [*joints, flexion, roll, pitch, math.atan2(wrist[2][1], wrist[2][2])]
