"""Observations in, commands out, as messages: types, names, rates, stamps, staleness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven_robots import WALL_NS, DrivenArm
from guard_checks import FloatArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Embodiment, Source, load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_events import Cause, Command, State
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_link import GuardLink, Outgoing, StampClock
from lehrling.deploy.guard_messages import Motion, encode

MS = 1_000_000
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


def row(first: float, last: float, count: int) -> FloatArray:
    return np.linspace(first, last, count, dtype=np.float64)


def bound(name: str, stream: str, **changes: Any) -> Embodiment:
    """Return a shipped embodiment whose stream has another source."""
    shipped = load_embodiment(name)
    source = shipped.binding.sources[stream][0].model_copy(update=changes)
    sources = shipped.binding.sources | {stream: (source,)}
    return shipped.model_copy(update={"binding": shipped.binding.model_copy(update={"sources": sources})})


def encoded(name: str, stream: str, msgtype: str, motion: Motion) -> Any:
    embodiment = load_embodiment(name)
    source = Source(topic="/out", type=msgtype)
    return messages.decode(encode(motion, embodiment.contract.stream(stream), source), msgtype)


def test_a_joint_trajectory_has_one_point_that_is_reached_when_the_next_comes() -> None:
    motion = Motion(row(0, 4.2, 43), row(0, 0.42, 43), 5 * 10**9, 20 * MS)
    message = encoded("humanoid", "joint_command", TRAJECTORY, motion)
    assert message.joint_names == list(load_embodiment("humanoid").contract.stream("joint_command").names)
    (point,) = message.points
    np.testing.assert_array_equal(point.positions, row(0, 4.2, 43))
    np.testing.assert_array_equal(point.velocities, row(0, 0.42, 43))
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 20 * MS)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)


def test_every_type_carries_the_values_in_their_places() -> None:
    joints = Motion(row(0, 42, 43), np.zeros(43), 5 * 10**9 + 7, 0)
    state = encoded("humanoid", "joint_command", "sensor_msgs/msg/JointState", joints)
    assert (state.name[2], state.position[2], state.header.stamp.nanosec) == ("left_hip_yaw", 2.0, 7)
    assert encoded("humanoid", "joint_command", "std_msgs/msg/Float64MultiArray", joints).data.tolist() == list(
        range(43)
    )
    twist = Motion(row(1, 6, 6), np.zeros(6), 5 * 10**9, 0)
    stamped = encoded("humanoid", "base_twist", "geometry_msgs/msg/TwistStamped", twist)
    assert (stamped.header.frame_id, stamped.twist.linear.y, stamped.twist.angular.z) == ("base", 2.0, 6.0)
    plain = encoded("humanoid", "base_twist", "geometry_msgs/msg/Twist", twist)
    assert (plain.linear.x, plain.angular.x) == (1.0, 4.0)
    pose = Motion(np.array([1.0, 2.0, 3.0, 0, 0, 0.6, 0.8]), np.zeros(6), 5 * 10**9, 0)
    there = encoded("arm6", "tcp_command", "geometry_msgs/msg/PoseStamped", pose)
    assert (there.header.frame_id, there.pose.position.z, there.pose.orientation.w) == ("cell", 3.0, 0.8)
    assert encoded("arm6", "tcp_command", "geometry_msgs/msg/Pose", pose).orientation.z == 0.6


def test_a_message_type_that_cannot_carry_the_commands_is_refused_at_the_start() -> None:
    with pytest.raises(
        InputError, match="'tcp_command' \\(pose\\) is bound to /tcp_command as sensor_msgs/msg/JointState"
    ):
        GuardLink.of(bound("arm6", "tcp_command", type="sensor_msgs/msg/JointState"))


def test_a_controller_of_trajectories_gets_them_at_its_rate() -> None:
    link = GuardLink.of(bound("humanoid", "joint_command", type=TRAJECTORY, rate_hz=25), streams=["joint_command"])
    sent = drive_joints(link, 60)
    ticks = [tick for tick, _ in sent]
    assert set(np.diff(ticks)) == {4}
    point = messages.decode(sent[0][1].cdr, TRAJECTORY).points[0]
    assert point.time_from_start.nanosec == 40 * MS


def drive_joints(link: GuardLink, ticks: int) -> list[tuple[int, Outgoing]]:
    names = link.layout.embodiment.contract.stream("joint_position").names
    sent: list[tuple[int, Outgoing]] = []
    position: FloatArray = np.zeros(43)
    link.guard.accept(link.layout.claim())
    for tick in range(1, ticks):
        now_ns = tick * 10 * MS
        for topic, members in (("/body/joint_states", names[:31]), ("/hands/joint_states", names[31:])):
            here = position[: len(members)] if "body" in topic else position[31:]
            link.hear(topic, messages.joint_state(members, here, [], [], WALL_NS + now_ns), now_ns, WALL_NS + now_ns)
        link.guard.enable(now_ns)
        link.guard.client(now_ns)
        if tick == 2:
            assert link.guard.submit(now_ns, np.tile(np.full(43, 0.15), (9, 1)), interval_ns=100 * MS)
        command, outgoing = link.step(now_ns, WALL_NS + now_ns)
        sent += [(tick, message) for message in outgoing]
        position = command.position if command.publish else position
    return sent


def test_where_the_robot_is_counts_once_every_topic_has_told_and_is_as_old_as_the_oldest() -> None:
    link = GuardLink.of(load_embodiment("humanoid"))
    names = link.layout.embodiment.contract.stream("joint_position").names
    body = messages.joint_state(names[:31], np.ones(31), [], [], WALL_NS)
    hands = messages.joint_state(names[31:], np.ones(12), [], [], WALL_NS - 150 * MS)
    assert not link.hear("/body/joint_states", body, 10**9, WALL_NS)
    assert not np.isfinite(link.guard.measured).any()
    assert link.hear("/hands/joint_states", hands, 10**9, WALL_NS)
    assert np.isfinite(link.guard.measured[:43]).all()
    link.guard.accept(link.layout.claim())
    link.guard.client(10**9 + 100 * MS)
    link.guard.enable(10**9 + 100 * MS)
    assert link.guard.submit(10**9 + 100 * MS, np.zeros(49)).cause is Cause.OBSERVATION


@pytest.mark.parametrize(
    ("cdr", "words"),
    [
        (b"", "got 0 bytes"),
        (b"\x00\x01\x00\x00abc", "bytes that are none"),
        (messages.joint_state(["elbow9"], [1.0], [], [], WALL_NS), "names joint 'elbow9'"),
        (messages.joint_state(["left_knee"], [float("nan")], [], [], WALL_NS), "left_knee"),
    ],
)
def test_a_message_that_is_none_is_refused_and_said(cdr: bytes, words: str) -> None:
    link = GuardLink.of(load_embodiment("humanoid"))
    assert not link.hear("/body/joint_states", cdr, 10**9, WALL_NS)
    assert words in link.refused


def test_a_camera_is_heard_by_its_stamp_and_a_short_message_is_none() -> None:
    link = GuardLink.of(load_embodiment("arm6"), cameras=["front"])
    topic = "/front/image_raw/compressed"
    assert link.heard[topic] == "sensor_msgs/msg/CompressedImage"
    assert link.hear(topic, messages.compressed_image(b"x", WALL_NS, "front"), 10**9, WALL_NS)
    assert not link.hear(topic, messages.compressed_image(b"x", WALL_NS, "front"), 10**9 + MS, WALL_NS + MS)
    assert not link.hear(topic, b"\x00\x01", 10**9, WALL_NS)
    assert link.refused


def test_stamps_of_the_wall_clock_are_as_old_as_they_say_and_others_as_old_as_their_receipt() -> None:
    wall = StampClock()
    assert wall.monotonic(WALL_NS - 80 * MS, 10**9, WALL_NS) == 10**9 - 80 * MS
    assert wall.monotonic(WALL_NS - 80 * MS, 10**9 + MS, WALL_NS + MS) is None
    sim = StampClock()
    assert sim.monotonic(5 * MS, 10**9, WALL_NS) == 10**9
    assert sim.monotonic(15 * MS, 10**9 + 40 * MS, WALL_NS + 40 * MS) == 10**9 + 40 * MS
    assert sim.monotonic(15 * MS, 10**9 + 80 * MS, WALL_NS + 80 * MS) is None
    later = StampClock(last_ns=600 * 10**9)
    assert later.monotonic(10**9, 10**9, WALL_NS) == 10**9, "a clock that was set back begins anew"


def test_a_namespace_goes_before_all_topics() -> None:
    shipped = load_embodiment("arm6")
    named = shipped.model_copy(update={"binding": shipped.binding.model_copy(update={"namespace": "/cell1/"})})
    link = GuardLink.of(named)
    assert set(link.told) == {"/cell1/tcp_command", "/cell1/gripper_command"}
    assert link.topics_of("tcp_command") == ["/cell1/tcp_command"]


def test_the_last_message_before_the_guard_lets_go_says_rest() -> None:
    link = GuardLink.of(load_embodiment("humanoid"), GuardConfig(let_go_ms=100), streams=["base_twist"])
    robot_ns, twists, states = 0, list[float](), list[State]()
    link.guard.accept(link.layout.claim())
    for tick in range(1, 300):
        robot_ns = tick * 10 * MS
        link.guard.enable(robot_ns)
        link.guard.client(robot_ns)
        if tick == 2:
            assert link.guard.submit(robot_ns, np.tile([0.2, 0, 0, 0, 0, 0], (20, 1)))
        command, outgoing = link.step(robot_ns, WALL_NS + robot_ns)
        states.append(command.state)
        twists += [messages.decode(m.cdr, m.type).twist.linear.x for m in outgoing]
    assert max(twists) == pytest.approx(0.2, rel=0.05)
    assert twists[-1] == 0.0
    assert states[-1] is State.WAITING


def test_after_a_long_gap_the_last_message_says_rest_too() -> None:
    robot = DrivenArm(GuardLink.of(load_embodiment("arm6")))
    guard = robot.link.guard
    guard.accept(robot.link.layout.claim())

    def step(now_ns: int, wall_ns: int) -> tuple[Command, list[Outgoing]]:
        guard.client(now_ns)
        guard.enable(now_ns)
        if robot.tick == 3:
            target = guard.measured
            target[6] = 1.0
            path = np.linspace(target, target + np.eye(7)[0] / 10, 20)
            assert guard.submit(now_ns, path)
        return robot.link.step(now_ns, wall_ns)

    robot.run(40, step)
    stood = robot.pose.copy()
    robot.now_ns += 3 * 10**9
    robot.run(1, step)
    last = messages.decode(robot.sent[-1][1].cdr, robot.sent[-1][1].type)
    assert robot.sent[-1][0] == robot.tick
    assert last.name == ["gripper"]
    assert np.abs(robot.pose - stood).max() < 0.02
