"""An upper-body humanoid in boxes: 31 joints, their limits, and the URDF made of them. Own work.

Zero pose: arms hang, palms face each other, x ahead, y to the left, z up; the table's top and the hips are at z = 0.
Waist yaw, roll and pitch meet in one point, and so do the axes of each shoulder and of each wrist, so that an arm has a
closed-form solution (`humanoid_arm`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

Vector = tuple[float, float, float]
SIDES = ("left", "right")
SHOULDER: Vector = (0.0, 0.24, 0.38)
"""Centre of the left shoulder in the torso's frame [m]."""
UPPER_M, FORE_M = 0.28, 0.26
"""Shoulder to elbow, elbow to wrist [m]."""
TCP: Vector = (0.0, -0.018, -0.085)
"""Middle of the left palm's surface in the hand's frame [m]."""
FINGERS = ("index", "middle", "ring", "little")
GREY, DARK, ACCENT, LIGHT = (0.55, 0.57, 0.60), (0.20, 0.22, 0.25), (0.16, 0.42, 0.62), (0.80, 0.80, 0.82)


@dataclass(frozen=True)
class Box:
    """A part of a link's shape: centre and edge lengths [m], colour."""

    centre: Vector
    size: Vector
    rgb: Vector


@dataclass(frozen=True)
class Joint:
    """A revolute joint and the link that it moves.

    Attributes:
        origin: in the parent link's frame [m].
        lower, upper: [rad]; effort [N m]; velocity [rad/s]; acceleration [rad/s²]; jerk [rad/s³].
    """

    name: str
    parent: str
    origin: Vector
    axis: Vector
    lower: float
    upper: float
    effort: float
    velocity: float
    acceleration: float
    jerk: float
    mass: float
    boxes: tuple[Box, ...] = ()

    @property
    def link(self) -> str:
        """The link that it moves."""
        return f"{self.name}_link"


def _mirrored(vector: Vector) -> Vector:
    return (vector[0], -vector[1], vector[2])


def _joint(name: str, parent: str, origin: Vector, axis: Vector, limits: tuple[float, float], kind: Joint) -> Joint:
    return replace(kind, name=name, parent=parent, origin=origin, axis=axis, lower=limits[0], upper=limits[1])


def _kind(effort: float, velocity: float, acceleration: float, jerk: float, mass: float, *boxes: Box) -> Joint:
    zero = (0.0, 0.0, 0.0)
    return Joint("", "", zero, zero, 0, 0, effort, velocity, acceleration, jerk, mass, boxes)


def _trunk() -> Iterator[Joint]:
    x, y, z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    waist = Box((0, 0, 0.0), (0.16, 0.20, 0.06), DARK)
    torso = (Box((0, 0, 0.21), (0.17, 0.28, 0.34), GREY), Box((0.0, 0, 0.38), (0.12, 0.40, 0.08), ACCENT))
    head = (Box((0, 0, 0.09), (0.15, 0.15, 0.17), LIGHT), Box((0.078, 0, 0.10), (0.01, 0.12, 0.05), DARK))
    yield _joint("waist_yaw", "base_link", (0, 0, -0.04), z, (-1.2, 1.2), _kind(200, 2.0, 10, 200, 2, waist))
    yield _joint("waist_roll", "waist_yaw_link", (0, 0, 0.04), x, (-0.4, 0.4), _kind(200, 1.5, 8, 150, 0.5))
    yield _joint("waist_pitch", "waist_roll_link", (0, 0, 0), y, (-0.3, 0.8), _kind(200, 1.5, 8, 150, 10, *torso))
    neck = Box((0, 0, 0.0), (0.07, 0.07, 0.08), DARK)
    yield _joint("head_yaw", "waist_pitch_link", (0, 0, 0.46), z, (-1.3, 1.3), _kind(20, 3.0, 20, 400, 0.3, neck))
    yield _joint("head_pitch", "head_yaw_link", (0, 0, 0.05), y, (-0.5, 1.1), _kind(20, 3.0, 20, 400, 1.5, *head))


def _arm() -> Iterator[Joint]:
    """The left arm."""
    x, y, z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    big, small = (60.0, 4.0, 25.0, 500.0), (20.0, 5.0, 40.0, 800.0)
    inner = SHOULDER[1] - 0.05
    shoulder = _kind(*big, 1.0, Box((0, 0.02, 0), (0.09, 0.06, 0.09), ACCENT))
    upper = _kind(*big, 1.4, Box((0, 0, -0.13), (0.07, 0.07, 0.22), GREY))
    fore = _kind(
        *big, 0.9, Box((0, 0, 0.0), (0.075, 0.075, 0.075), ACCENT), Box((0, 0, -0.09), (0.06, 0.06, 0.10), GREY)
    )
    wrist = _kind(*small, 0.4, Box((0, 0, -0.06), (0.052, 0.03, 0.12), DARK))
    palm = _kind(
        *small, 0.4, Box((0, 0, -0.075), (0.085, 0.036, 0.09), LIGHT), Box((0, 0, -0.01), (0.04, 0.03, 0.05), DARK)
    )
    yield _joint("shoulder_pitch", "waist_pitch_link", (0, inner, SHOULDER[2]), y, (-3.0, 1.2), shoulder)
    yield _joint("shoulder_roll", "shoulder_pitch_link", (0, 0.05, 0), x, (-0.9, 2.2), _kind(*big, 0.5))
    yield _joint("shoulder_yaw", "shoulder_roll_link", (0, 0, 0), z, (-2.2, 2.2), upper)
    yield _joint("elbow", "shoulder_yaw_link", (0, 0, -UPPER_M), (0.0, -1.0, 0.0), (0.0, 2.6), fore)
    yield _joint("wrist_roll", "elbow_link", (0, 0, -0.14), z, (-2.2, 2.2), wrist)
    yield _joint("wrist_pitch", "wrist_roll_link", (0, 0, 0.14 - FORE_M), y, (-1.5, 1.5), _kind(*small, 0.1))
    yield _joint("wrist_yaw", "wrist_pitch_link", (0, 0, 0), x, (-1.6, 1.6), palm)


def _hand() -> Iterator[Joint]:
    """The left hand; positive angles close it."""
    motor = (3.0, 6.0, 80.0, 1600.0)
    thumb = _kind(*motor, 0.03, Box((0.012, 0, 0), (0.024, 0.02, 0.02), DARK))
    tip = _kind(*motor, 0.03, Box((0.02, 0, 0), (0.04, 0.018, 0.018), LIGHT))
    finger = _kind(*motor, 0.03, Box((0, 0, -0.036), (0.018, 0.018, 0.072), LIGHT))
    yield _joint("thumb_rotation", "wrist_yaw_link", (0.044, 0, -0.06), (0.0, 0.0, -1.0), (0.0, 1.4), thumb)
    yield _joint("thumb_flexion", "thumb_rotation_link", (0.024, 0, 0), (0.0, 1.0, 0.0), (0.0, 1.4), tip)
    for name, x in zip(FINGERS, (0.033, 0.011, -0.011, -0.033), strict=True):
        yield _joint(name, "wrist_yaw_link", (x, 0, -0.122), (-1.0, 0.0, 0.0), (0.0, 1.6), finger)


def _sided(joint: Joint, side: str) -> Joint:
    """Return a left joint as this side's: mirrored in the xz plane."""
    parent = joint.parent if joint.parent.startswith("waist") else f"{side}_{joint.parent}"
    named = replace(joint, name=f"{side}_{joint.name}", parent=parent)
    if side == "left":
        return named
    boxes = tuple(replace(box, centre=_mirrored(box.centre)) for box in joint.boxes)
    mirrored = replace(named, origin=_mirrored(joint.origin), boxes=boxes)
    if joint.lower == 0.0 and joint.axis[1] == 0.0:
        return replace(mirrored, axis=(-joint.axis[0], joint.axis[1], -joint.axis[2]))
    if joint.axis[1] == 0.0:
        return replace(mirrored, lower=-joint.upper, upper=-joint.lower)
    return mirrored


def _joints() -> Iterator[Joint]:
    yield from _trunk()
    for part in (_arm, _hand):
        for side in SIDES:
            yield from (_sided(joint, side) for joint in part())


JOINTS: tuple[Joint, ...] = tuple(_joints())
"""Waist, head, left arm, right arm, left hand, right hand."""
NAMES: tuple[str, ...] = tuple(joint.name for joint in JOINTS)
BODY_COUNT = 19
"""The first so many are the body's, the others the hands'."""


def group(side: str, part: str) -> tuple[str, ...]:
    """Return the names of a side's joints of `arm` or `hand`."""
    return tuple(f"{side}_{joint.name}" for joint in (_arm() if part == "arm" else _hand()))


def tcp_of(side: str) -> Vector:
    """Return the palm's middle in its hand's frame [m]."""
    return TCP if side == "left" else _mirrored(TCP)


def _words(*numbers: float) -> str:
    return " ".join(f"{number:.10g}" for number in numbers)


def _shape(box: Box) -> str:
    geometry = f'<origin xyz="{_words(*box.centre)}"/><geometry><box size="{_words(*box.size)}"/></geometry>'
    name = "c" + "_".join(f"{round(channel * 100)}" for channel in box.rgb)
    colour = f'<material name="{name}"><color rgba="{_words(*box.rgb)} 1"/></material>'
    return f"    <visual>{geometry}{colour}</visual>\n    <collision>{geometry}</collision>\n"


def _link(name: str, mass: float, boxes: tuple[Box, ...]) -> str:
    """Return a link; its inertia is that of its first box, and never so small that the solver suffers."""
    centre, size = (boxes[0].centre, boxes[0].size) if boxes else ((0.0, 0.0, 0.0), (0.05, 0.05, 0.05))
    a, b, c = (max(edge, 0.04) ** 2 * mass / 12 for edge in size)
    inertia = f'ixx="{b + c:.3e}" ixy="0" ixz="0" iyy="{a + c:.3e}" iyz="0" izz="{a + b:.3e}"'
    inertial = f'<inertial><origin xyz="{_words(*centre)}"/><mass value="{mass:g}"/><inertia {inertia}/></inertial>'
    return f'  <link name="{name}">\n    {inertial}\n{"".join(map(_shape, boxes))}  </link>\n'


def _hinge(joint: Joint) -> str:
    limit = f'lower="{joint.lower:g}" upper="{joint.upper:g}" effort="{joint.effort:g}" velocity="{joint.velocity:g}"'
    return (
        f'  <joint name="{joint.name}" type="revolute">\n    <parent link="{joint.parent}"/><child link="{joint.link}"/>\n'
        f'    <origin xyz="{_words(*joint.origin)}"/><axis xyz="{_words(*joint.axis)}"/><limit {limit}/>\n  </joint>\n'
    )


def _fixed(name: str, parent: str, xyz: Vector, rpy: Vector) -> str:
    light = (
        '<inertial><mass value="0.001"/><inertia ixx="1e-7" ixy="0" ixz="0" iyy="1e-7" iyz="0" izz="1e-7"/></inertial>'
    )
    return (
        f'  <joint name="{name}_mount" type="fixed">\n    <parent link="{parent}"/><child link="{name}"/>\n'
        f'    <origin xyz="{_words(*xyz)}" rpy="{_words(*rpy)}"/>\n  </joint>\n  <link name="{name}">{light}</link>\n'
    )


def urdf() -> str:
    """Return the robot as URDF; `left_tcp` and `right_tcp`: x along the fingers, z out of the palm."""
    half = 1.5707963267948966
    pedestal = (Box((0, 0, -0.42), (0.16, 0.22, 0.70), DARK), Box((0, 0, -0.78), (0.40, 0.45, 0.04), DARK))
    parts = ['<?xml version="1.0"?>\n<robot name="upper_humanoid">\n', _link("base_link", 40.0, pedestal)]
    parts += [_link(joint.link, joint.mass, joint.boxes) + _hinge(joint) for joint in JOINTS]
    parts.append(_fixed("head_camera", "head_pitch_link", (0.09, 0.0, 0.10), (0.0, half, 0.0)))
    parts.append(_fixed("left_tcp", "left_wrist_yaw_link", tcp_of("left"), (half, half, 0.0)))
    parts.append(_fixed("right_tcp", "right_wrist_yaw_link", tcp_of("right"), (-half, half, 0.0)))
    return "".join(parts) + "</robot>\n"
