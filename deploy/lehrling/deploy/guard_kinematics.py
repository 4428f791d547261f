"""Forward kinematics of chains and trees of revolute and prismatic joints, many positions at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_limits import LinkConfig

FloatArray = NDArray[np.float64]


def rotation_rpy(roll: float, pitch: float, yaw: float) -> FloatArray:
    """Return the matrix (3, 3) of roll about x, then pitch about y, then yaw about z, all fixed axes (URDF)."""
    (sr, sp, sy), (cr, cp, cy) = np.sin([roll, pitch, yaw]), np.cos([roll, pitch, yaw])
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)


def links_from_dh(rows: Sequence[tuple[float, float, float, float]], joints: Sequence[str]) -> tuple[LinkConfig, ...]:
    """Return the links of a chain in standard Denavit-Hartenberg parameters, the flange last.

    Args:
        rows: a [m], alpha [rad], d [m], theta offset [rad] per joint; every joint turns about its z.
        joints: names of the axes.
    """
    links, parent, xyz, roll = [], "", (0.0, 0.0, 0.0), 0.0
    for (a, alpha, d, theta), joint in zip(rows, joints, strict=True):
        links.append(_dh_link(joint, parent, xyz, roll, theta))
        turned = (a, 0.0, d)
        parent, xyz, roll = f"{joint}_link", turned, alpha
    links.append(LinkConfig(name="flange", parent=parent, xyz=xyz, rpy=(roll, 0.0, 0.0), kind="fixed"))
    return tuple(links)


def _dh_link(joint: str, parent: str, xyz: tuple[float, float, float], roll: float, theta: float) -> LinkConfig:
    matrix = rotation_rpy(roll, 0, 0) @ rotation_rpy(0, 0, theta)
    return LinkConfig(name=f"{joint}_link", parent=parent, xyz=xyz, rpy=_rpy(matrix), joint=joint)


def _rpy(matrix: FloatArray) -> tuple[float, float, float]:
    """Return roll, pitch, yaw of a rotation whose pitch is not a quarter turn."""
    pitch = float(np.arcsin(-np.clip(matrix[2, 0], -1, 1)))
    return float(np.arctan2(matrix[2, 1], matrix[2, 2])), pitch, float(np.arctan2(matrix[1, 0], matrix[0, 0]))


class Chain:
    """Links in the order of their configuration, each after its parent."""

    def __init__(self, links: Sequence[LinkConfig], axes: Sequence[str]) -> None:
        """Check the chain.

        Raises:
            InputError: a link's parent or joint is not known, or its axis is zero.
        """
        self.names = tuple(link.name for link in links)
        places = {name: index for index, name in enumerate(axes)}
        self.parents = [self._parent(index, link) for index, link in enumerate(links)]
        self._fixed = [(rotation_rpy(*link.rpy), np.array(link.xyz)) for link in links]
        self._joints = [_joint(link, places) for link in links]

    def _parent(self, index: int, link: LinkConfig) -> int:
        if not link.parent:
            return -1
        if link.parent not in self.names[:index]:
            raise InputError(f"Link {link.name!r}: its parent {link.parent!r} is no earlier link.")
        return self.names.index(link.parent)

    def index(self, name: str) -> int:
        """Return a link's place.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.names:
            raise InputError(f"There is no link {name!r}; the chain has {', '.join(self.names) or 'none'}.")
        return self.names.index(name)

    def poses(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return rotations (L, n, 3, 3) and origins (L, n, 3) of all links at q (n, D)."""
        rotations, origins = np.empty((len(self.names), len(q), 3, 3)), np.empty((len(self.names), len(q), 3))
        for index, (parent, (turn, shift), joint) in enumerate(
            zip(self.parents, self._fixed, self._joints, strict=True)
        ):
            if parent < 0:
                rotations[index], origins[index] = turn, shift
            else:
                origins[index] = origins[parent] + rotations[parent] @ shift
                rotations[index] = rotations[parent] @ turn
            if joint is not None:
                joint.move(q, rotations[index], origins[index])
        return rotations, origins


class _Revolute:
    def __init__(self, column: int, axis: FloatArray) -> None:
        x, y, z = axis
        self.column, self._cross = column, np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        self._square = self._cross @ self._cross

    def move(self, q: FloatArray, rotation: FloatArray, origin: FloatArray) -> None:
        del origin
        angle = q[:, self.column, None, None]
        turn = np.eye(3) + np.sin(angle) * self._cross + (1 - np.cos(angle)) * self._square
        rotation[:] = rotation @ turn


class _Prismatic:
    def __init__(self, column: int, axis: FloatArray) -> None:
        self.column, self._axis = column, axis

    def move(self, q: FloatArray, rotation: FloatArray, origin: FloatArray) -> None:
        origin += rotation @ self._axis * q[:, self.column, None]


def _joint(link: LinkConfig, places: dict[str, int]) -> _Revolute | _Prismatic | None:
    if link.kind == "fixed" or not link.joint:
        return None
    if link.joint not in places:
        raise InputError(f"Link {link.name!r}: its joint {link.joint!r} is none of the axes {', '.join(places)}.")
    length = float(np.linalg.norm(link.axis))
    if length == 0:
        raise InputError(f"Link {link.name!r}: its axis is zero.")
    axis = np.array(link.axis) / length
    return (_Revolute if link.kind == "revolute" else _Prismatic)(places[link.joint], axis)
