"""Represent action chunks relative to the state at their start, and back to what the robot is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSE_SIZE = 7
"""Position x, y, z and quaternion x, y, z, w."""


@dataclass(frozen=True)
class RelativePart:
    """Action columns and the state columns that they are relative to."""

    kind: Literal["chunk_relative", "end_effector"]
    action: tuple[int, ...]
    state: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.action) != len(self.state) or (self.kind == "end_effector" and len(self.action) != POSE_SIZE):
            raise InputError(
                f"Expected as many reference columns as action columns ({POSE_SIZE} for end_effector), got "
                f"{len(self.state)} and {len(self.action)}; select the same elements."
            )


@dataclass(frozen=True)
class ActionCodec:
    """Turns absolute chunks into what a policy predicts, and its predictions into absolute chunks."""

    parts: tuple[RelativePart, ...] = ()

    def encode(self, chunk: NDArray[np.float32], state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return chunk (..., H, A) relative to state (..., S), both of the chunk's first row."""
        out = np.array(chunk, np.float32)
        for part in self.parts:
            here, origin = out[..., part.action], state[..., None, part.state]
            out[..., part.action] = here - origin if part.kind == "chunk_relative" else _relative(here, origin)
        return out

    def decode(self, chunk: NDArray[np.float32], state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo `encode`."""
        out = np.array(chunk, np.float32)
        for part in self.parts:
            here, origin = out[..., part.action], state[..., None, part.state]
            out[..., part.action] = here + origin if part.kind == "chunk_relative" else _absolute(here, origin)
        return out


def multiply(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of quaternions (..., 4) in x, y, z, w order: rotate by `second`, then by `first`."""
    u, a = first[..., :3], first[..., 3:]
    v, b = second[..., :3], second[..., 3:]
    vector = a * v + b * u + np.cross(u, v)
    return np.concatenate([vector, a * b - np.sum(u * v, axis=-1, keepdims=True)], axis=-1)


def rotate(quaternion: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vector (..., 3) rotated by a unit quaternion (..., 4)."""
    u, w = quaternion[..., :3], quaternion[..., 3:]
    cross = 2 * np.cross(u, vector)
    return np.asarray(vector + w * cross + np.cross(u, cross))


def _inverse(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(quaternion * np.array([-1.0, -1.0, -1.0, 1.0]))


def _unit(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise, with w at least 0, so that a rotation has one representation; zero becomes the identity."""
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    identity = np.array([0.0, 0.0, 0.0, 1.0])
    unit = np.where(length > 0, quaternion / np.where(length > 0, length, 1), identity)
    return np.where(unit[..., 3:] < 0, -unit, unit)


def _poses(here: NDArray[np.float32], origin: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.broadcast_arrays(here.astype(np.float64), origin.astype(np.float64))
    return first, second


def _relative(here: NDArray[np.float32], origin: NDArray[np.float32]) -> NDArray[np.float32]:
    pose, base = _poses(here, origin)
    back = _inverse(_unit(base[..., 3:]))
    position = rotate(back, pose[..., :3] - base[..., :3])
    turn = _unit(multiply(back, _unit(pose[..., 3:])))
    return np.concatenate([position, turn], axis=-1).astype(np.float32)


def _absolute(here: NDArray[np.float32], origin: NDArray[np.float32]) -> NDArray[np.float32]:
    pose, base = _poses(here, origin)
    frame = _unit(base[..., 3:])
    position = base[..., :3] + rotate(frame, pose[..., :3])
    turn = _unit(multiply(frame, _unit(pose[..., 3:])))
    return np.concatenate([position, turn], axis=-1).astype(np.float32)
