"""Faults to order: what is typed is what strikes, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from sim_serving import served

from lehrling.datasets import messages
from lehrling.datasets.errors import InputError
from lehrling.sim.faults import Fault, half_size, parse_fault, restamped

COMPRESSED, JOINTS, POSE = (
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/JointState",
    "geometry_msgs/msg/PoseStamped",
)
FRONT, WRIST = "/front/image_raw/compressed", "/wrist/image_raw/compressed"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("camera_unplug:front:2:5", Fault("camera_unplug", "front", 2, 5)),
        ("freeze:wrist:0:0.5@2", Fault("freeze", "wrist", 0, 0.5, 0.0, 2)),
        ("nan:/joint_states:1:2", Fault("nan", "joint_states", 1, 2)),
        ("nan:hands/joint_states:1:2", Fault("nan", "hands/joint_states", 1, 2)),
        ("drop:tcp_pose:0.25", Fault("drop", "tcp_pose", 0, 1e6, 0.25)),
        ("drop:tcp_pose:1:3:4", Fault("drop", "tcp_pose", 3, 4, 1.0)),
        ("clock_jump:-0.5:3", Fault("clock_jump", "", 3, np.inf, -0.5)),
    ],
)
def test_a_fault_is_read_as_it_is_typed(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no fault ''; expected one of camera_unplug"),
        ("unplug:front:2:5", "there is no fault 'unplug'"),
        ("camera_unplug:front:2", "the parts do not fit; expected camera_unplug:CAMERA:FROM:TO"),
        ("camera_unplug::2:5", "the parts do not fit"),
        ("camera_unplug:front:5:2", "FROM is not before TO"),
        ("camera_unplug:front:two:5", "FROM 'two' is no number"),
        ("camera_unplug:front:nan:5", "FROM nan is not from 0 to 1e"),
        ("camera_unplug:front:-1:5", "FROM -1 is not from 0"),
        ("camera_unplug:front:1:inf", "TO inf is not from 0"),
        ("drop:front:1.5", "PROBABILITY 1.5 is not from 0 to 1"),
        ("drop:front:0.5:1", "the parts do not fit; expected drop:SENSOR:PROBABILITY"),
        ("clock_jump:1e9:0", "SECONDS 1e9 is not from"),
        ("clock_jump:1", "the parts do not fit; expected clock_jump:SECONDS:AT"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_form(text: str, reason: str) -> None:
    with pytest.raises(InputError, match="Fault ") as caught:
        parse_fault(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("freeze:back:1:2", "front, wrist"),
        ("nan:front:1:2", "joint_states, tcp_pose"),
        ("drop:x:1", "front, wrist, joint_s"),
    ],
)
def test_a_fault_of_what_the_robot_lacks_is_refused_with_the_choices(text: str, choices: str) -> None:
    with pytest.raises(InputError, match=choices), served(faults=[text]):
        pass


def test_a_message_gets_another_stamp_and_keeps_everything_else() -> None:
    before = messages.joint_state(["a"], [1.5], [2.5], [], 3_000_000_004, "frame")
    after = restamped(before, 9_000_000_007)
    assert messages.stamp_of(messages.decode(after, JOINTS)) == 9_000_000_007
    assert restamped(after, 3_000_000_004) == before


@pytest.mark.parametrize(("encoding", "shape"), [("rgb8", (12, 16, 3)), ("16UC1", (12, 16))])
def test_a_raw_image_at_half_size_is_every_other_pixel(encoding: str, shape: tuple[int, ...]) -> None:
    dtype = np.uint8 if encoding == "rgb8" else np.uint16
    whole = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    name = "sensor_msgs/msg/Image"
    message = messages.decode(half_size(messages.image(whole, encoding, 7, "front"), name), name)
    assert (message.height, message.width, message.encoding, message.header.frame_id) == (6, 8, encoding, "front")
    assert message.data.tobytes() == np.ascontiguousarray(whole[::2, ::2]).tobytes()


def test_an_unplugged_camera_is_silent_for_just_that_time() -> None:
    with served(faults=["camera_unplug:front:0.3:0.8"]) as robot:
        robot.run(1.2)
        begun = robot.sent.stamps(WRIST, COMPRESSED)[0]
        seen = [(stamp - begun) // 100_000_000 for stamp in robot.sent.stamps(FRONT, COMPRESSED)]
        assert seen == [0, 1, 2, 8, 9, 10, 11]
        assert len(robot.sent.stamps(WRIST, COMPRESSED)) == 12


def test_a_frozen_camera_repeats_its_last_picture_under_new_stamps() -> None:
    with served(size=(48, 48), faults=["freeze:wrist:0.2:0.5"]) as robot:
        robot.server.reset()
        robot.robot.station.hear("/tcp_command", messages.pose_stamped((0.5, 0.2, 0.2), (0, 1, 0, 0), 0, "cell"))
        robot.run(0.8)
        pictures = [m.data.tobytes() for m in robot.sent.decoded(WRIST, COMPRESSED)]
        stamps = robot.sent.stamps(WRIST, COMPRESSED)
    assert pictures[1] == pictures[2] == pictures[3] == pictures[4]
    assert len({pictures[0], pictures[1], pictures[5], pictures[6]}) == 4
    assert set(np.diff(stamps)) == {100_000_000}


def test_a_camera_frozen_from_the_beginning_shows_its_own_episode() -> None:
    with served(size=(48, 48), faults=["freeze:front:0:10"]) as robot, served(size=(48, 48)) as whole:
        firsts = []
        for _ in range(2):
            before = [len(r.sent.rows.get(FRONT, [])) for r in (robot, whole)]
            for one in (robot, whole):
                one.server.reset()
                one.run(0.34)
            frozen, seen = (
                [m.data.tobytes() for m in r.sent.decoded(FRONT, COMPRESSED)[k:]]
                for r, k in zip((robot, whole), before, strict=True)
            )
            assert set(frozen) == {seen[0]}
            firsts.append(seen[0])
    assert firsts[0] != firsts[1]


def test_dropped_messages_are_about_as_many_as_asked_and_the_others_unchanged() -> None:
    with served() as whole, served(faults=["drop:tcp_pose:0.3", "drop:joint_states:1:0.5:1@0"]) as lossy:
        whole.run(3)
        lossy.run(3)
        kept, sent = lossy.sent.stamps("/tcp_pose", POSE), whole.sent.stamps("/tcp_pose", POSE)
        assert set(kept) <= set(sent)
        assert 0.6 < len(kept) / len(sent) < 0.8
        assert len(lossy.sent.joints()) == len(whole.sent.joints()) - 50


def test_of_two_drops_at_once_each_strikes() -> None:
    with served(faults=["drop:tcp_pose:1:0.5:1", "drop:tcp_pose:0"]) as lossy, served() as whole:
        lossy.run(1.5)
        whole.run(1.5)
        assert len(lossy.sent.stamps("/tcp_pose", POSE)) == len(whole.sent.stamps("/tcp_pose", POSE)) - 50
    with served(faults=["drop:tcp_pose:0.5", "drop:tcp_pose:0.5"]) as lossy:
        lossy.run(3)
        assert 0.15 < len(lossy.sent.stamps("/tcp_pose", POSE)) / 300 < 0.35


def test_a_jumping_clock_shifts_all_stamps_from_then_on() -> None:
    with served(faults=["clock_jump:-0.25:0.5"]) as robot:
        robot.run(1)
        steps = np.diff(robot.sent.stamps("/joint_states", JOINTS)) / 1e6
    assert sorted(set(steps.tolist())) == [-240, 10]
    assert np.flatnonzero(steps < 0).tolist() == [49]


def test_images_of_the_wrong_size_come_for_just_that_time() -> None:
    with served(size=(32, 48), faults=["wrong_size:front:0.1:0.3"]) as robot:
        robot.run(0.5)
        jpegs = [m.data.tobytes() for m in robot.sent.decoded(FRONT, COMPRESSED)]
    assert [simplejpeg.decode_jpeg_header(j)[:2] for j in jpegs] == [(32, 48), (16, 24), (16, 24), (32, 48), (32, 48)]


def test_one_joint_and_one_coordinate_turn_to_no_number() -> None:
    with served(faults=["nan:joint_states:0.1:0.2", "nan:tcp_pose:0.1:0.2"]) as robot:
        robot.run(0.3)
        position = np.array([m.position for m in robot.sent.joints()])
        x = np.array([m.pose.position.x for m in robot.sent.decoded("/tcp_pose", POSE)])
    assert np.flatnonzero(np.isnan(position[:, 0])).tolist() == list(range(10, 20))
    assert np.flatnonzero(np.isnan(x)).tolist() == list(range(10, 20))
    assert np.isfinite(position[:, 1:]).all()


def test_a_fault_of_one_episode_leaves_the_others_alone() -> None:
    with served(faults=["camera_unplug:front:0:10@1"]) as robot:
        counts = []
        for _ in range(3):
            robot.server.reset()
            before = len(robot.sent.rows.get(FRONT, []))
            robot.run(0.34)
            counts.append(len(robot.sent.rows[FRONT]) - before)
    assert counts == [4, 0, 4]
