"""An episode comes back as it was: its actions through the guard, its other messages in their order and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driven_episodes import EPOCH_NS, MS, arm_episode, commanded, humanoid_episode
from driven_robots import WALL_NS, DrivenArm
from view_robots import humanoid_messages, jpeg

from lehrling.collection.replay import Phase, Replay, plan_replay, read_track, station_of
from lehrling.collection.replay_messages import blank, fill, replay_messages, replayable
from lehrling.datasets import messages
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import ContractError, InputError
from lehrling.deploy.guard_events import Cause
from lehrling.deploy.guard_link import GuardLink

ARM = load_embodiment("arm6")


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return arm_episode(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def humanoid(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return humanoid_episode(tmp_path_factory.mktemp("humanoid"))


def replaying(episode: Episode, speed: float = 1.0, *, all_streams: bool = False) -> tuple[Replay, DrivenArm]:
    link = GuardLink.of(station_of(episode, None, None))
    plan = plan_replay(episode, link.layout, all_streams=all_streams)
    return Replay(link, plan.track, speed, plan.messages), DrivenArm(link)


# --- actions through the guard ------------------------------------------------------------------------------------------------


def test_the_robot_does_again_what_was_commanded_in_the_same_time(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(240, replay.tick)
    assert replay.phase is Phase.DONE
    assert replay.complete
    assert replay.reached == len(replay.track.targets) == 40
    assert replay.seconds == pytest.approx(replay.track.seconds, abs=0.35)
    np.testing.assert_allclose(robot.pose[:3], commanded(1.95), atol=1e-4)
    wanted = np.array([commanded(max(0.0, tick * 0.01 - 0.12)) for tick in range(180)])
    assert np.abs(np.array(robot.poses)[40:180, :3] - wanted[40:180]).max() < 0.008


def test_every_command_of_the_episode_is_passed_in_its_order(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(230, replay.tick)
    emitted = np.array([command.position[:3] for command in robot.commands if command.publish])
    near = [np.abs(emitted - target[:3]).max(axis=1) for target in replay.track.targets]
    assert max(float(distance.min()) for distance in near) < 0.002
    places = [int(distance.argmin()) for distance in near]
    assert places == sorted(places)


def test_the_gripper_closes_when_it_did(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(95, replay.tick)
    assert robot.gripper == pytest.approx(1.0)
    robot.run(40, replay.tick)
    assert robot.gripper == pytest.approx(-1.0)


@pytest.mark.parametrize(("speed", "ticks"), [(2.0, 170), (0.5, 460)])
def test_a_speed_factor_scales_time_and_leaves_the_path(episode: Episode, speed: float, ticks: int) -> None:
    replay, robot = replaying(episode, speed)
    robot.run(ticks, replay.tick)
    assert replay.complete
    assert replay.seconds == pytest.approx(1.95 / speed, abs=0.5)
    for target in replay.track.targets:
        positions = np.array([command.position[:3] for command in robot.commands if command.publish])
        assert np.abs(positions - target[:3]).max(axis=1).min() < 0.003


def test_a_robot_far_from_where_the_episode_begins_is_refused_and_nothing_is_sent(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.pose[0] += 0.2
    with pytest.raises(InputError, match=r"does not start. Axis 'tcp_command_x'.* 0.2 away"):
        robot.run(5, replay.tick)
    assert robot.sent == []


def test_a_robot_that_does_not_tell_where_it_is_is_refused_with_the_topic(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.deaf = True
    with pytest.raises(InputError, match="Nothing tells where the robot is: no usable message on /tcp_pose"):
        robot.run(1100, replay.tick)
    assert robot.sent == []


def test_a_jump_in_the_episode_is_driven_within_the_limits(tmp_path: Path) -> None:
    replay, robot = replaying(arm_episode(tmp_path, jump=0.08))
    robot.run(450, replay.tick)
    assert replay.complete
    assert replay.link.guard.counts[Cause.SCALED] > 5
    assert (robot.emitted.worst <= 1 + 1e-6).all()
    np.testing.assert_allclose(robot.pose[:3], commanded(1.95) + np.array([0, 0.08, 0]), atol=1e-4)


def test_a_stop_amid_the_replay_ends_it_and_says_why(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(60, replay.tick)
    replay.link.guard.stop(robot.now_ns, "gate opened")
    robot.run(60, replay.tick)
    assert replay.phase is Phase.DONE
    assert not replay.complete
    assert replay.trouble == "gate opened"
    assert 0 < replay.reached < 40


def test_a_deadman_let_go_pauses_the_replay_and_held_again_goes_on(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(60, replay.tick)
    robot.run(60, lambda now, wall: replay.tick(now, wall, enabled=False))
    stood = robot.pose.copy()
    robot.run(20, lambda now, wall: replay.tick(now, wall, enabled=False))
    np.testing.assert_array_equal(robot.pose, stood)
    robot.run(230, replay.tick)
    assert replay.complete
    np.testing.assert_allclose(robot.pose[:3], commanded(1.95), atol=1e-4)


def test_halted_early_the_robot_comes_to_rest_on_its_way(episode: Episode) -> None:
    replay, robot = replaying(episode)
    robot.run(100, replay.tick)
    replay.halt(robot.now_ns)
    robot.run(60, replay.tick)
    stood = robot.pose.copy()
    robot.run(60, replay.tick)
    np.testing.assert_array_equal(robot.pose, stood)
    assert replay.trouble == "stopped before the end"


@pytest.mark.parametrize("speed", [0.0, -1.0, 99.0, float("nan")])
def test_a_speed_out_of_range_is_refused(episode: Episode, speed: float) -> None:
    with pytest.raises(InputError, match="Expected a speed from"):
        replaying(episode, speed)


def test_another_robots_contract_is_refused_with_what_differs(episode: Episode) -> None:
    with pytest.raises(ContractError, match="contracts differ in joints"):
        read_track(episode, GuardLink.of(load_embodiment("iiwa")).layout)


def test_slower_streams_are_interpolated_at_the_times_of_the_densest(humanoid: Episode) -> None:
    layout = GuardLink.of(load_embodiment("humanoid"), streams=["joint_command"]).layout
    track = read_track(humanoid, layout)
    np.testing.assert_allclose(np.diff(track.at_s), 0.02)
    assert track.targets.shape == (len(humanoid.stream("joint_command")), 43)


def test_an_episode_without_commands_is_refused(humanoid: Episode) -> None:
    layout = GuardLink.of(load_embodiment("humanoid")).layout
    with pytest.raises(InputError, match="at least two commands of 'base_twist'"):
        read_track(humanoid, layout)


# --- other streams --------------------------------------------------------------------------------------------------------


def test_messages_come_back_byte_for_byte_in_their_order(episode: Episode) -> None:
    names = ["joint_position", "joint_velocity", "tcp_pose", "tcp_command", "gripper_command", "front"]
    back = list(replay_messages(episode, names))
    assert [message.at_ns for message in back] == sorted(message.at_ns for message in back)
    joints = [message for message in back if message.topic == "/joint_states"]
    assert len(joints) == 200
    position = np.sin(np.arange(7) + 0.5) * 0.1
    stamp = EPOCH_NS + 500 * MS
    wanted = messages.joint_state([j.name for j in ARM.contract.joints], position, position / 2, [], stamp)
    assert joints[50].cdr == wanted
    assert joints[50].at_ns == 502 * MS
    poses = [message for message in back if message.topic == "/tcp_pose"]
    assert poses[50].cdr == messages.pose_stamped(commanded(0.5), [0, 1, 0, 0], stamp, "cell")
    images = [message for message in back if message.topic == "/front/image_raw/compressed"]
    assert images[5].cdr == messages.compressed_image(jpeg(50, 1, 96), stamp, "front")


def test_a_message_can_be_given_another_stamp(episode: Episode) -> None:
    first = next(iter(replay_messages(episode, ["tcp_command"])))
    assert messages.stamp_of(messages.decode(first.make(5 * MS), first.type)) == 5 * MS


def test_rows_of_two_topics_go_back_to_the_topics_that_sent_them(humanoid: Episode) -> None:
    back = list(replay_messages(humanoid, ["joint_position", "joint_velocity"]))
    by_topic = {topic: [m for m in back if m.topic == topic] for topic in ("/body/joint_states", "/hands/joint_states")}
    sent = humanoid_messages(10)
    for topic, found in by_topic.items():
        wanted = [message.cdr for message in sent if message.topic == topic]
        names = [messages.decode(cdr, "sensor_msgs/msg/JointState").name for cdr in wanted]
        got = [messages.decode(message.cdr, message.type).name for message in found]
        assert set(map(tuple, got)) <= set(map(tuple, names))
    assert len(back) == sum(message.topic in by_topic for message in sent)


def test_streams_that_cannot_be_replayed_are_named_with_the_reason(humanoid: Episode) -> None:
    taken, skipped = replayable(humanoid, list(humanoid.streams))
    reasons = {one.stream: one.reason for one in skipped}
    assert "joint_position" in taken
    assert reasons["imu"] == "it has no rows"
    with pytest.raises(InputError, match="speech: it has no rows"):
        list(replay_messages(humanoid, ["speech"]))


def test_other_streams_come_at_their_times_without_drift(episode: Episode) -> None:
    replay, robot = replaying(episode, all_streams=True)
    robot.run(240, replay.tick)
    assert replay.complete
    ticks = robot.times("/joint_states")
    assert len(ticks) == 200
    start = ticks[0]
    wanted = [start + index for index in range(200)]
    assert max(abs(a - b) for a, b in zip(ticks, wanted, strict=True)) <= 1
    stamps = [messages.stamp_of(messages.decode(m.cdr, m.type)) for _, m in robot.sent if m.topic == "/joint_states"]
    assert set(np.diff(np.array(stamps, dtype=np.int64))) == {10 * MS}


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_what_came_before_the_first_command_is_stamped_before_and_the_rest_at_its_time(
    tmp_path: Path, speed: float
) -> None:
    replay, robot = replaying(arm_episode(tmp_path, commands_from=100), speed, all_streams=True)
    robot.run(260, replay.tick)
    assert replay.complete
    sent = [(tick, m) for tick, m in robot.sent if m.topic == "/joint_states"]
    stamps = np.array([messages.stamp_of(messages.decode(m.cdr, m.type)) for _, m in sent], dtype=np.int64)
    assert np.allclose(np.diff(stamps), 10 * MS / speed, atol=1)
    begun = sent[0][0]
    ahead = (stamps - (WALL_NS + begun * 10 * MS)) / 1e9 - np.array([tick - begun for tick, _ in sent]) * 0.01
    assert ahead[0] == pytest.approx(-1.0 / speed, abs=0.05)
    assert np.abs(ahead[110:]).max() < 0.05


@pytest.mark.parametrize(
    "msgtype",
    [
        "sensor_msgs/msg/Imu",
        "geometry_msgs/msg/WrenchStamped",
        "geometry_msgs/msg/TwistStamped",
    ],
)
def test_filling_a_blank_message_is_the_reverse_of_reading_its_numbers(msgtype: str) -> None:
    message = blank(msgtype)
    count = len(messages.numbers(message))
    fill(message, iter([float(k) for k in range(count)]))
    assert messages.numbers(message) == [float(k) for k in range(count)]
    assert messages.numbers(messages.decode(messages.encode(message), msgtype)) == messages.numbers(message)


def test_a_namespace_goes_before_every_topic(episode: Episode) -> None:
    link = GuardLink.of(station_of(episode, None, "cell1"))
    assert set(link.told) == {"/cell1/tcp_command", "/cell1/gripper_command"}
    assert set(link.heard) == {"/cell1/tcp_pose"}
