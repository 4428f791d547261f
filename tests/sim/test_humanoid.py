"""The upper-body humanoid: model, kinematics, limits, sensors, commands."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.sim.humanoid_arm import REACH_MAX_M, Palm, arm_joints, torso, turned
from lehrling.sim.humanoid_model import BODY_COUNT, JOINTS, NAMES, SHOULDER, group
from lehrling.sim.humanoid_station import HumanoidStation, millimetres
from lehrling.sim.humanoid_world import HumanoidWorld
from lehrling.sim.seeding import Seeds

JOINT_STATE = "sensor_msgs/msg/JointState"


@pytest.fixture(scope="module")
def station() -> Iterator[HumanoidStation]:
    made = HumanoidStation((48, 64))
    yield made
    made.close()


@pytest.fixture
def world(station: HumanoidStation) -> HumanoidWorld:
    station.reset(Seeds(3), disturb=False)
    return station.world


def command(names: list[str], position: list[float]) -> bytes:
    return messages.joint_state(names, position, [], [], 0)


def test_it_has_31_joints_of_which_the_last_twelve_are_the_hands() -> None:
    assert len(JOINTS) == len(set(NAMES)) == 31
    assert set(NAMES[BODY_COUNT:]) == {*group("left", "hand"), *group("right", "hand")}
    assert [len(group(side, part)) for side in ("left", "right") for part in ("arm", "hand")] == [7, 6, 7, 6]


def test_the_embodiments_joints_groups_and_limits_are_the_models() -> None:
    embodiment = load_embodiment("upper_humanoid")
    contract, limits = embodiment.contract, embodiment.binding.limits
    assert tuple(joint.name for joint in contract.joints) == NAMES == contract.stream("joint_command").names
    assert [name for members in contract.groups.values() for name in members] == list(NAMES)
    assert limits.position == {joint.name: (joint.lower, joint.upper) for joint in JOINTS}
    for kind in ("velocity", "acceleration", "jerk", "effort"):
        assert getattr(limits, kind) == {joint.name: getattr(joint, kind) for joint in JOINTS}


def test_both_sides_mirror_each_other(world: HumanoidWorld) -> None:
    client = world.physics.client
    angles = {name: 0.1 * (k + 1) for k, name in enumerate((*group("left", "arm"), *group("left", "hand")))}
    for name, angle in angles.items():
        joint, twin = JOINTS[NAMES.index(name)], JOINTS[NAMES.index(name.replace("left", "right"))]
        turns = -1.0 if joint.axis[1] == 0 and joint.lower < 0 else 1.0
        client.resetJointState(world.body, world.joints_in_engine[NAMES.index(name)], angle)
        client.resetJointState(world.body, world.joints_in_engine[NAMES.index(twin.name)], turns * angle)
    for k in range(5):
        client.resetJointState(world.body, world.joints_in_engine[k], 0.0)
    for link in ("tcp", "thumb_flexion_link", "index_link", "little_link"):
        left, right = world.link_pose(f"left_{link}")[0], world.link_pose(f"right_{link}")[0]
        np.testing.assert_allclose(left * [1, -1, 1], right, atol=1e-9)


def test_the_closed_form_puts_palms_where_they_are_to_be(world: HumanoidWorld) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        waist = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.1, 0.4)))
        heading, down = float(rng.uniform(-0.4, 0.4)), float(rng.uniform(0, 0.4))
        c, s = math.cos(heading), math.sin(heading)
        for index, angle in zip(world.joints_in_engine, waist, strict=False):
            world.physics.client.resetJointState(world.body, index, angle)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            shoulder = turned(torso(*waist), (SHOULDER[0], sign * SHOULDER[1], SHOULDER[2]))
            xyz = (shoulder[0] + float(rng.uniform(0.25, 0.35)), shoulder[1] * 0.7, float(rng.uniform(0.05, 0.3)))
            palm = Palm(xyz, (c * math.cos(down), s * math.cos(down), -math.sin(down)), (sign * s, -sign * c, 0.0))
            for name, angle in zip(group(side, "arm"), arm_joints(side, waist, palm), strict=True):
                world.physics.client.resetJointState(world.body, world.joints_in_engine[NAMES.index(name)], angle)
            found, quaternion = world.link_pose(f"{side}_tcp")
            axes = np.array(world.physics.client.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
            np.testing.assert_allclose(found, np.array(xyz), atol=1e-6)
            np.testing.assert_allclose(axes[:, 0], np.array(palm.fingers), atol=1e-6)
            np.testing.assert_allclose(axes[:, 2], np.array(palm.normal), atol=1e-6)


def test_palms_beyond_reach_stretch_the_arm_instead_of_failing() -> None:
    joints = arm_joints("left", (0.0, 0.0, 0.0), Palm((3.0, 0.24, 0.38), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0)))
    assert np.isfinite(joints).all()
    assert joints[3] == pytest.approx(2 * math.acos(REACH_MAX_M / 0.54), abs=0.02)


def test_commands_keep_to_position_and_velocity_limits(world: HumanoidWorld) -> None:
    before = world.target
    world.command(np.full(31, 50.0))
    step = world.target - before
    limits = np.array([joint.velocity for joint in JOINTS]) / 50
    assert (step <= limits + 1e-12).all()
    assert (step > 0).all()
    for _ in range(200):
        world.command(np.full(31, 50.0))
    assert world.target.tolist() == [joint.upper for joint in JOINTS]


def test_joint_state_comes_on_two_topics_that_share_the_joints(station: HumanoidStation, world: HumanoidWorld) -> None:
    rng = np.random.default_rng(0)
    body = messages.decode(station.readers["/body/joint_states"](5, rng), JOINT_STATE)
    hands = messages.decode(station.readers["/hands/joint_states"](5, rng), JOINT_STATE)
    assert (*body.name, *hands.name) == NAMES
    measured = np.concatenate([body.position, hands.position])
    error = np.abs(measured - world.joints()[0])
    assert 0 < error.max() < 0.003
    assert messages.stamp_of(body) == 5


def test_depth_is_the_distance_to_the_table_in_millimetres(station: HumanoidStation, world: HumanoidWorld) -> None:
    message = messages.decode(
        station.readers["/head/depth/image_raw"](0, np.random.default_rng(0)), "sensor_msgs/msg/Image"
    )
    assert (message.height, message.width, message.encoding, message.step) == (48, 64, "16UC1", 128)
    depth = message.data.view("<u2").reshape(48, 64)
    eye, quaternion = world.link_pose("head_camera")
    axis = np.array(world.physics.client.getMatrixFromQuaternion(quaternion)).reshape(3, 3)[:, 2]
    hits = [world.physics.client.rayTest(eye.tolist(), (eye + 3 * axis).tolist())[0]]
    expected = 1000 * 3 * hits[0][2]
    assert depth[23:25, 31:33].mean() == pytest.approx(expected, abs=12)


def test_depth_noise_grows_with_distance_and_nothing_is_zero() -> None:
    flat = np.concatenate([np.full((50, 50), 0.5), np.full((50, 50), 2.0), np.full((50, 50), 4.0)])
    seen = millimetres(flat, np.random.default_rng(0)).astype(float)
    assert seen[:50].mean() == pytest.approx(500, abs=0.1)
    assert seen[50:100].std() > 10 * seen[:50].std()
    assert not seen[100:].any()


def test_colour_and_depth_come_from_one_rendering_of_the_same_moment(
    station: HumanoidStation, world: HumanoidWorld
) -> None:
    colour, depth = world.look()
    assert world.look()[0] is colour
    assert colour.shape == (48, 64, 3)
    assert depth.shape == (48, 64)
    world.physics.step(1)
    assert world.look()[0] is not colour
    del station


def test_a_partial_command_moves_the_joints_that_it_names_and_no_others(
    station: HumanoidStation, world: HumanoidWorld
) -> None:
    before = world.target
    station.hear("/joint_commands", command(["head_yaw", "left_index"], [0.4, 1.0]))
    for _ in range(30):
        station.apply()
        world.physics.step(4)
    after = dict(zip(NAMES, world.target, strict=True))
    assert (after["head_yaw"], after["left_index"]) == (0.4, 1.0)
    still = [k for k, name in enumerate(NAMES) if name not in ("head_yaw", "left_index")]
    np.testing.assert_array_equal(world.target[still], before[still])
    measured = dict(zip(NAMES, world.joints()[0], strict=True))
    assert measured["head_yaw"] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize(
    ("names", "position", "reason"),
    [
        (["left_knee"], [0.1], "joint 'left_knee'"),
        ([], [], "0 names"),
        (["head_yaw", "head_pitch"], [0.1], "2 names and 1 positions"),
        (["head_yaw"], [math.inf], "finite"),
    ],
)
def test_a_command_that_it_cannot_follow_is_refused(
    station: HumanoidStation, world: HumanoidWorld, names: list[str], position: list[float], reason: str
) -> None:
    before = world.target
    with pytest.raises(InputError, match=reason):
        station.hear("/joint_commands", command(names, position))
    station.apply()
    np.testing.assert_array_equal(world.target, before)
