"""Forward kinematics, capsules and boxes, against formulas and brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from guard_checks import FloatArray, Robot, arm_axes
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.errors import InputError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_axes import Axes, Axis
from lehrling.deploy.guard_events import Cause, State
from lehrling.deploy.guard_kinematics import Chain, links_from_dh, rotation_rpy
from lehrling.deploy.guard_limits import Box, CapsuleConfig, GuardConfig, LinkConfig, SpaceConfig
from lehrling.deploy.guard_space import Space, segment_distance

# UR5 in standard Denavit-Hartenberg parameters: a, alpha, d, theta offset
UR5 = (
    (0.0, math.pi / 2, 0.089159, 0.0),
    (-0.425, 0.0, 0.0, 0.0),
    (-0.39225, 0.0, 0.0, 0.0),
    (0.0, math.pi / 2, 0.10915, 0.0),
    (0.0, -math.pi / 2, 0.09465, 0.0),
    (0.0, 0.0, 0.0823, 0.0),
)
JOINTS = tuple(f"joint{i + 1}" for i in range(6))
angles = st.lists(st.floats(-3.1, 3.1), min_size=6, max_size=6)
points = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


def dh_matrix(a: float, alpha: float, d: float, theta: float) -> FloatArray:
    ct, st_, ca, sa = math.cos(theta), math.sin(theta), math.cos(alpha), math.sin(alpha)
    return np.array(
        [[ct, -st_ * ca, st_ * sa, a * ct], [st_, ct * ca, -ct * sa, a * st_], [0, sa, ca, d], [0, 0, 0, 1]]
    )


@given(st.lists(angles, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_chain_from_denavit_hartenberg_parameters_puts_the_flange_where_their_matrices_do(
    rows: list[list[float]],
) -> None:
    rotations, origins = Chain(links_from_dh(UR5, JOINTS), JOINTS).poses(np.array(rows))
    for row, rotation, origin in zip(rows, rotations[-1], origins[-1], strict=True):
        pose = np.eye(4)
        for (a, alpha, d, offset), angle in zip(UR5, row, strict=True):
            pose = pose @ dh_matrix(a, alpha, d, angle + offset)
        np.testing.assert_allclose(rotation, pose[:3, :3], atol=1e-12)
        np.testing.assert_allclose(origin, pose[:3, 3], atol=1e-12)


def test_a_prismatic_joint_moves_along_its_axis_in_the_parent_frame() -> None:
    links = (
        LinkConfig(name="turn", joint="joint1"),
        LinkConfig(name="slide", parent="turn", xyz=(0.1, 0, 0), joint="joint2", kind="prismatic", axis=(2, 0, 0)),
    )
    rotations, origins = Chain(links, JOINTS).poses(np.array([[math.pi / 2, 0.3, 0, 0, 0, 0]]))
    np.testing.assert_allclose(origins[1, 0], [0, 0.4, 0], atol=1e-12)
    np.testing.assert_allclose(rotations[1, 0], rotation_rpy(0, 0, math.pi / 2), atol=1e-12)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({"name": "b", "parent": "c"}, "its parent 'c' is no earlier link"),
        ({"name": "b", "joint": "knee"}, "its joint 'knee' is none of the axes"),
        ({"name": "b", "joint": "joint1", "axis": (0, 0, 0)}, "its axis is zero"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(link: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Chain((LinkConfig(name="a"), LinkConfig(**link)), JOINTS)


@given(points, points, points, points)
@settings(max_examples=150, deadline=None)
def test_segment_distance_equals_the_least_over_a_fine_grid(
    p1: list[float], q1: list[float], p2: list[float], q2: list[float]
) -> None:
    ends = [np.array(point) for point in (p1, q1, p2, q2)]
    share = np.linspace(0, 1, 201)[:, None]
    first, second = ends[0] + share * (ends[1] - ends[0]), ends[2] + share * (ends[3] - ends[2])
    grid = np.linalg.norm(first[:, None] - second[None], axis=2).min()
    found = float(segment_distance(*ends))
    assert grid - 0.02 <= found <= grid + 1e-9


@pytest.mark.parametrize(
    ("ends", "distance"),
    [
        (([0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]), 1.0),
        (([0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]), 1.0),
        (([0, 0, 0], [0, 0, 0], [0, 3, 4], [0, 3, 4]), 5.0),
        (([0, 0, 0], [2, 0, 0], [1, -1, 0], [1, 1, 0]), 0.0),
        (([0, 0, 0], [1, 0, 0], [0.5, 0.2, 0], [0.5, 0.2, 0]), 0.2),
    ],
)
def test_segment_distance_of_parallel_collinear_crossing_segments_and_points(ends: Any, distance: float) -> None:
    assert float(segment_distance(*(np.array(end, dtype=float) for end in ends))) == pytest.approx(distance, abs=1e-9)


# An arm in a plane: two links of 0.5 m, whose hand may hit the base when it folds.
PLANAR = SpaceConfig(
    links=(
        LinkConfig(name="base"),
        LinkConfig(name="upper", parent="base", joint="joint1"),
        LinkConfig(name="lower", parent="upper", xyz=(0.5, 0, 0), joint="joint2"),
        LinkConfig(name="hand", parent="lower", xyz=(0.5, 0, 0), kind="fixed"),
    ),
    tcp="hand",
    capsules=(
        CapsuleConfig(link="base", a=(0, 0, -0.3), b=(0, 0, 0.3), radius=0.1),
        CapsuleConfig(link="upper", a=(0, 0, 0), b=(0.5, 0, 0), radius=0.05),
        CapsuleConfig(link="lower", a=(0.1, 0, 0), b=(0.5, 0, 0), radius=0.05),
    ),
    ignore=(("upper", "lower"),),
)


def planar_axes() -> tuple[Axis, ...]:
    return arm_axes(2, margin=0.0, step=9.0)


def clearance(q: FloatArray) -> FloatArray:
    """Hand's segment to the base's column, in the plane."""
    elbow = 0.5 * np.stack([np.cos(q[:, 0]), np.sin(q[:, 0])], 1)
    way = np.stack([np.cos(q.sum(1)), np.sin(q.sum(1))], 1)
    near = np.clip(-(elbow * way).sum(1), 0.1, 0.5)[:, None]
    return np.asarray(np.linalg.norm(elbow + near * way, axis=1) - 0.15)


@given(st.floats(-3, 3), st.floats(-3.1, 3.1))
@settings(max_examples=60, deadline=None)
def test_a_folded_arm_is_found_exactly_when_its_capsules_come_too_close(first: float, second: float) -> None:
    q = np.array([[first, second]])
    apart = float(clearance(q)[0]) - 0.01
    if abs(apart) < 1e-6:
        return
    found = Space(PLANAR, Axes(planar_axes())).violation(q)
    assert (found is None) == (apart > 0)
    assert found is None or (found[0] is Cause.COLLISION and "'base' and 'lower'" in found[1])


def test_a_path_into_the_own_body_stops_the_robot_before_it_is_reached() -> None:
    robot = Robot(Guard(GuardConfig(space=PLANAR), planar_axes()))
    robot.tick(3)
    assert robot.submit(np.array([[0.1, 0.1], [0.3, 1.0], [0.4, 2.0]]), interval_ns=500_000_000)
    robot.tick(100)
    answer = robot.submit(np.array([[0.4, 2.2], [0.4, 3.1]]), interval_ns=500_000_000, replace=False)
    assert (answer.accepted, answer.cause) == (False, Cause.COLLISION)
    robot.rest()
    assert robot.state() is State.STOPPED
    assert clearance(np.array(robot.at)).min() > 0.01


def test_the_tcp_of_a_joint_command_stays_in_its_boxes() -> None:
    boxes = (Box(low=(0.5, -0.2, -1), high=(2, 0.2, 1)), Box(low=(0.5, 0.1, -1), high=(2, 0.9, 1)))
    space = PLANAR.model_copy(update={"boxes": boxes, "capsules": ()})
    robot = Robot(Guard(GuardConfig(space=space), planar_axes()))
    robot.tick(3)
    assert robot.submit([[0.1, 0.0], [0.5, 0.1]], interval_ns=10**9)
    robot.rest()
    answer = robot.submit([[1.5, 0.5]], interval_ns=10**9)
    assert answer.cause is Cause.WORKSPACE
    assert robot.guard.latch.cause == Cause.WORKSPACE


def test_a_straight_way_through_a_box_to_keep_out_of_is_refused_though_both_ends_are_allowed() -> None:
    axes = tuple(Axis(name, "m", -1, 1, 0.5, 2, 20, coordinate=name) for name in ("x", "y", "z"))
    space = SpaceConfig(keep_out=(Box(low=(0.2, -0.1, -0.1), high=(0.3, 0.1, 0.1)),))
    robot = Robot(Guard(GuardConfig(space=space), axes))
    robot.tick(3)
    assert robot.submit([0.04, 0, 0])
    robot.rest()
    answer = robot.submit([[0.5, 0, 0]], interval_ns=10**9)
    assert answer.cause is Cause.WORKSPACE
    assert "x 0.2" in answer.text


def test_boxes_without_a_tcp_are_refused_at_the_start() -> None:
    space = SpaceConfig(boxes=(Box(low=(0, 0, 0), high=(1, 1, 1)),))
    with pytest.raises(InputError, match="workspace boxes"):
        Guard(GuardConfig(space=space), arm_axes(3))
