"""Bags of other tools come in with every value and stamp as they were, once, and only where they are this robot's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from bag_checks import ARM6, changed, check_rows, one_stream, take
from bags import (
    FORCE,
    FORCE_DEFINITION,
    JOINTS,
    MS,
    START,
    Compression,
    Sent,
    arm,
    forces,
    gripper,
    joints,
    pose,
    text,
    write_mcap,
    write_ros2_mcap,
    write_rosbag,
)
from recordings import jpeg
from rosbags.rosbag2 import CompressionMode
from rosbags.rosbag2 import Reader as RosbagReader

from lehrling.collection.bag_import import ImportOptions, import_bag
from lehrling.collection.bag_report import TopicCount
from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.view import Field, ViewSpec, build_view


@pytest.mark.parametrize(
    ("mcap", "mode"),
    [(False, CompressionMode.NONE), (False, CompressionMode.FILE), (False, CompressionMode.MESSAGE)]
    + [(True, mode) for mode in CompressionMode],
    ids=lambda value: getattr(value, "name", ("sqlite3", "mcap")[bool(value)]).lower(),
)
def test_a_rosbag2_comes_in_with_every_value_and_stamp(tmp_path: Path, mcap: bool, mode: CompressionMode) -> None:
    sent = arm(30)
    source = write_rosbag(tmp_path / "bag", sent, mcap=mcap, mode=mode)
    with RosbagReader(source) as reader:
        assert reader.message_count == len(sent)
    report, episode = take(source, tmp_path / "d.zarr", outcome="success")
    check_rows(episode, sent)
    found = report.episodes[0]
    assert (found.status, found.outcome, found.stop_cause, report.lossy) == ("sealed", "success", "end of bag", False)
    assert (report.missing, report.extra, report.cut, report.refused) == ({}, {}, None, ())
    assert report.format == f"rosbag2 {'mcap' if mcap else 'sqlite3'}"
    assert found.streams["joint_position"].rows == 30
    assert found.streams["joint_position"].first_stamp_ns == START
    assert found.streams["joint_position"].last_stamp_ns == START + 290 * MS


@pytest.mark.parametrize("chunk_bytes", [4096, None], ids=["chunked", "unchunked"])
@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
def test_an_mcap_file_comes_in_with_publish_times_and_sequences(
    tmp_path: Path, compression: Compression, chunk_bytes: int | None
) -> None:
    sent = arm(30)
    source = write_mcap(tmp_path / "bag.mcap", sent, compression, chunk_bytes=chunk_bytes)
    _, episode = take(source, tmp_path / "d.zarr")
    check_rows(episode, sent)
    stream = episode.stream("joint_position")
    assert stream.publish_ns.tolist() == [received - MS for received in stream.received_ns.tolist()]
    assert stream.sequence.tolist() == list(range(1, 31))
    assert (stream.monotonic_ns == -1).all()
    assert episode.record.timing["joint_position"].dropped == 0
    assert episode.attributes["instruction"] == "put the part into the tray"


def test_messages_encoded_by_mcap_ros2_support_come_in(tmp_path: Path) -> None:
    source = write_ros2_mcap(tmp_path / "bag.mcap", 10)
    report = import_bag(source, tmp_path / "d.zarr", ARM6, ImportOptions(instruction_topic="/task", allow_missing=True))
    episode = Dataset.open(tmp_path / "d.zarr").episode(report.episodes[0].id)
    stream = episode.stream("joint_position")
    np.testing.assert_array_equal(stream.value, [[tick + k / 10 for k in range(7)] for tick in range(10)])
    assert stream.stamp_ns.tolist() == [START + tick * 10 * MS for tick in range(10)]
    assert (stream.sequence == -1).all()
    assert len(episode.stream("joint_velocity")) == 0
    assert episode.record.instruction == "do 0"
    assert report.extra == {"/task": TopicCount("std_msgs/msg/String", 10)}
    assert report.missing["/tcp_command"] == ("tcp_command",)
    assert not report.lossy


def test_an_imported_dataset_builds_a_view(tmp_path: Path) -> None:
    take(write_rosbag(tmp_path / "bag", arm(100)), tmp_path / "d.zarr")
    dataset = Dataset.open(tmp_path / "d.zarr")
    action = (Field(stream="tcp_command", select=("x", "y", "z")), Field(stream="gripper_command"))
    state = (Field(stream="joint_position"),)
    spec = ViewSpec(rate_hz=20, image_px=96, cameras=("front", "wrist"), state=state, action=action)
    view = build_view(dataset, "train", spec)
    assert len(view) > 10
    assert view.valid.all()
    assert view.episodes[0].instruction == "put the part into the tray"
    assert view.images("front").encoded(0) == jpeg(0)
    assert dataset.verify().whole


def test_the_same_bag_twice_is_one_episode(tmp_path: Path) -> None:
    root, sent = tmp_path / "d.zarr", arm(10)
    first, _ = take(write_mcap(tmp_path / "a.mcap", sent), root)
    hashes = Dataset.open(root).records
    again, _ = take(tmp_path / "a.mcap", root)
    (tmp_path / "a.mcap").rename(tmp_path / "b.mcap")
    renamed, _ = take(tmp_path / "b.mcap", root)
    assert Dataset.open(root).records == hashes
    assert len(hashes) == 1
    assert (first.episodes[0].new, again.episodes[0].new, renamed.episodes[0].new) == (True, False, False)
    streams = ARM6.model_dump(mode="json")["contract"]["streams"]
    streams[4]["unit"] = "m"
    other = changed({"contract.streams": streams})
    third, _ = take(tmp_path / "b.mcap", root, other)
    assert third.episodes[0].new
    assert len(Dataset.open(root).records) == 2


def test_the_same_bag_gives_the_same_content_hash_anywhere(tmp_path: Path) -> None:
    source = write_mcap(tmp_path / "bag.mcap", arm(10))
    hashes = {take(source, tmp_path / name)[1].record.content_hash for name in ("a.zarr", "b.zarr")}
    assert len(hashes) == 1


def test_a_discarded_import_may_come_again_and_a_purged_one_may_not(tmp_path: Path) -> None:
    root, source = tmp_path / "d.zarr", write_mcap(tmp_path / "bag.mcap", arm(10))
    name = take(source, root)[0].episodes[0].id
    with Dataset.open_for_writing(root) as dataset:
        dataset.discard(name, "test")
    assert take(source, root)[0].episodes[0].new
    with Dataset.open_for_writing(root) as dataset:
        dataset.purge(name)
    report = import_bag(source, root, ARM6)
    assert [(episode.status, episode.new) for episode in report.episodes] == [("purged", False)]


KILLED = """
import os, signal, sys
from pathlib import Path
from lehrling.collection.bag_import import import_bag
from lehrling.datasets.embodiment import load_embodiment
def die(done, total):
    os.kill(os.getpid(), signal.SIGKILL)
import_bag(Path(sys.argv[1]), Path(sys.argv[2]), load_embodiment("arm6"), progress=die)
"""


def test_a_killed_import_leaves_nothing_and_can_be_done_again(tmp_path: Path) -> None:
    root, sent = tmp_path / "d.zarr", arm(120)
    source = write_mcap(tmp_path / "bag.mcap", sent)
    assert subprocess.run([sys.executable, "-c", KILLED, str(source), str(root)], check=False).returncode == -9
    assert len(Dataset.open(root).unfinished()) == 1
    _, episode = take(source, root)
    check_rows(episode, sent)
    assert Dataset.open(root).unfinished() == []


def test_joint_order_is_free_and_a_partial_message_gives_a_masked_row(tmp_path: Path) -> None:
    shuffled = [
        name for _, name in sorted((hash_ % 7, name) for hash_, name in zip(range(3, 45, 6), JOINTS, strict=True))
    ]
    sent = [joints(0, shuffled), joints(1, ["gripper", "joint2"]), *arm(3, first=10)]
    _, episode = take(write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr")
    stream = episode.stream("joint_position")
    np.testing.assert_array_equal(stream.value[0], [k / 10 for k in range(7)])
    np.testing.assert_array_equal(stream.value[1], [0, 1.1, 0, 0, 0, 0, 1.6])
    np.testing.assert_array_equal(stream.mask[1], [False, True, False, False, False, False, True])
    assert stream.mask[[0, 2, 3]].all()


def test_missing_topics_of_observations_and_actions_are_refused_by_name(tmp_path: Path) -> None:
    sent = [message for message in arm(10) if message.topic not in ("/tcp_command", "/wrist/image_raw/compressed")]
    source = write_mcap(tmp_path / "bag.mcap", sent)
    with pytest.raises(InputError, match=r"no messages on /tcp_command, /wrist/image_raw/compressed, which"):
        import_bag(source, tmp_path / "d.zarr", ARM6)
    assert not (tmp_path / "d.zarr").exists()
    report, episode = take(source, tmp_path / "d.zarr", allow_missing=True)
    check_rows(episode, sent)
    assert report.missing == {"/tcp_command": ("tcp_command",), "/wrist/image_raw/compressed": ("wrist",)}


def test_a_topic_of_auxiliary_streams_may_be_missing(tmp_path: Path) -> None:
    streams = ARM6.model_dump(mode="json")["contract"]["streams"]
    streams[2]["role"] = "auxiliary"
    sent = [message for message in arm(10) if message.topic != "/tcp_pose"]
    report, episode = take(
        write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr", changed({"contract.streams": streams})
    )
    assert report.missing == {"/tcp_pose": ("tcp_pose",)}
    assert len(episode.stream("tcp_pose")) == 0


def test_extra_topics_are_reported_and_left_out(tmp_path: Path) -> None:
    sent = [*arm(10), text("/chatter", 3, "hello"), text("/chatter", 4, "again")]
    report, episode = take(write_rosbag(tmp_path / "bag", sent), tmp_path / "d.zarr")
    assert report.extra == {"/chatter": TopicCount("std_msgs/msg/String", 2)}
    assert not report.lossy
    assert "chatter" not in episode.streams
    check_rows(episode, sent)


def test_a_topic_of_another_type_is_refused_with_both_types(tmp_path: Path) -> None:
    sent = [message for message in arm(10) if message.topic != "/tcp_pose"] + [text("/tcp_pose", 1, "here")]
    with pytest.raises(
        InputError, match=r"/tcp_pose holds std_msgs/msg/String, the embodiment says geometry_msgs/msg/Pose"
    ):
        import_bag(write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr", ARM6)
    assert not (tmp_path / "d.zarr").exists()


def test_another_encoding_of_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="encoded as 'ros1', not as cdr"):
        import_bag(write_mcap(tmp_path / "bag.mcap", arm(10), encoding="ros1"), tmp_path / "d.zarr", ARM6)


def test_a_standard_type_with_another_layout_is_refused(tmp_path: Path) -> None:
    other = {"sensor_msgs/msg/JointState": "string[] name\nfloat32[] position\n"}
    with pytest.raises(InputError, match=r"definition of sensor_msgs/msg/JointState .* different definition"):
        import_bag(write_mcap(tmp_path / "bag.mcap", arm(10), definitions=other), tmp_path / "d.zarr", ARM6)


def test_a_type_that_only_the_bag_defines_is_read_as_numbers(tmp_path: Path) -> None:
    source = write_mcap(tmp_path / "bag.mcap", forces(5), definitions={FORCE: FORCE_DEFINITION})
    robot = one_stream("tactile", "/force", FORCE, field="newton", shape=(3,))
    _, episode = take(source, tmp_path / "d.zarr", robot)
    np.testing.assert_array_equal(episode.stream("data").value, [[tick, 0.5, -tick] for tick in range(5)])
    assert episode.stream("data").stamp_ns.tolist() == [START + tick * MS for tick in range(5)]


def test_a_raw_stream_keeps_its_bytes_and_the_bags_definition(tmp_path: Path) -> None:
    sent = forces(5)
    source = write_mcap(tmp_path / "bag.mcap", sent, definitions={FORCE: FORCE_DEFINITION})
    _, episode = take(source, tmp_path / "d.zarr", one_stream("raw", "/force", FORCE))
    stream = episode.stream("data")
    assert [stream.ragged(row) for row in range(5)] == [message.cdr for message in sent]
    definitions = stream.attributes["definitions"]
    assert isinstance(definitions, dict)
    assert definitions[FORCE].startswith("std_msgs/Header header\nfloat32[3] newton\n")


def test_a_type_that_nothing_defines_is_refused(tmp_path: Path) -> None:
    source = write_mcap(tmp_path / "bag.mcap", forces(5), definitions={FORCE: ""}, encoding="cdr")
    with pytest.raises(InputError, match="/force holds plant_msgs/msg/Force, which is no standard"):
        import_bag(source, tmp_path / "d.zarr", one_stream("raw", "/force", FORCE))


def raw_image(tick: int, encoding: str, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Sent:
    at = START + tick * 10 * MS
    cdr = messages.image(pixels, encoding, at, "front")
    return Sent("/front/image_raw", "sensor_msgs/msg/Image", cdr, at + 30 * MS)


RAW_FRONT = [{"topic": "/front/image_raw", "type": "sensor_msgs/msg/Image", "field": "data"}]


@pytest.mark.parametrize("journal_images", ["jpeg", pytest.param("raw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "mono8"])
def test_raw_images_become_jpeg_with_their_header_kept(tmp_path: Path, encoding: str, journal_images: str) -> None:
    rng = np.random.default_rng(3)
    colours = np.kron(rng.integers(0, 256, (12, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    pixels = {"rgb8": colours, "bgr8": colours[..., ::-1], "mono8": colours[..., :1]}.get(encoding)
    if pixels is None:
        pixels = np.concatenate([colours, np.full((96, 96, 1), 255, np.uint8)], axis=2)
    sent = [message for message in arm(20) if not message.topic.startswith("/front")]
    sent += [raw_image(tick, encoding, pixels) for tick in (0, 10)]
    robot = changed({"binding.sources.front": RAW_FRONT, "binding.journal_images": journal_images})
    _, episode = take(write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr", robot)
    front = episode.stream("front")
    wanted = colours if encoding != "mono8" else colours[..., :1].repeat(3, axis=2)
    assert np.abs(front.frame(1).astype(int) - wanted).mean() < 3
    assert front.stamp_ns.tolist() == [START, START + 100 * MS]
    assert front.received_ns.tolist() == [START + 30 * MS, START + 130 * MS]


def test_stamps_that_change_places_are_kept_and_counted(tmp_path: Path) -> None:
    sent = arm(20)
    sent.insert(60, joints(15, stamp=START + 100 * MS, received=START + 160 * MS))
    report, episode = take(write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr")
    assert report.out_of_order == {"/joint_states": 1}
    assert len(episode.stream("joint_position")) == 21
    assert not report.lossy


def test_a_simulation_may_begin_at_stamp_0(tmp_path: Path) -> None:
    robot = one_stream(
        "joint_position", "/joint_states", "sensor_msgs/msg/JointState", field="position", shape=(7,), names=JOINTS
    )
    sent = [joints(0, stamp=tick * MS, received=tick * MS) for tick in range(5)]
    _, episode = take(write_rosbag(tmp_path / "bag", sent), tmp_path / "d.zarr", robot)
    assert episode.stream("data").stamp_ns.tolist() == [tick * MS for tick in range(5)]


def test_a_namespace_in_the_binding_is_put_before_the_topics(tmp_path: Path) -> None:
    sent = arm(10)
    moved = [replace(message, topic=f"/cell_1{message.topic}") for message in sent]
    _, episode = take(
        write_mcap(tmp_path / "bag.mcap", moved), tmp_path / "d.zarr", changed({"binding.namespace": "/cell_1"})
    )
    check_rows(episode, sent)


def test_a_pause_splits_a_bag_where_that_is_asked_for(tmp_path: Path) -> None:
    parts = [arm(20), arm(30, first=220), arm(10, first=600)]
    sent = [text("/task", 0, "first"), *parts[0], text("/task", 221, "second"), *parts[1], *parts[2]]
    source, root = write_rosbag(tmp_path / "bag", sent), tmp_path / "d.zarr"
    options = ImportOptions(instruction_topic="/task", split_gap_s=1.0)
    report = import_bag(source, root, ARM6, options)
    dataset = Dataset.open(root)
    for episode, part in zip(report.episodes, parts, strict=True):
        check_rows(dataset.episode(episode.id), part)
    assert [episode.id[-5:] for episode in report.episodes] == ["-0000", "-0001", "-0002"]
    assert [dataset.records[e.id].instruction for e in report.episodes] == ["first", "second", "second"]
    assert [episode.stop_cause for episode in report.episodes] == ["gap in the bag", "gap in the bag", "end of bag"]
    with Dataset.open_for_writing(root) as opened:
        opened.discard(report.episodes[1].id, "test")
    again = import_bag(source, root, ARM6, options)
    assert [episode.new for episode in again.episodes] == [False, True, False]
    with pytest.raises(InputError, match="split otherwise"):
        import_bag(source, root, ARM6)


def test_an_instruction_is_text_or_topic_and_the_topic_must_be_there(tmp_path: Path) -> None:
    source = write_mcap(tmp_path / "bag.mcap", [*arm(10), gripper(9), pose("/tcp_pose", 9)])
    with pytest.raises(InputError, match="got both"):
        import_bag(source, tmp_path / "d.zarr", ARM6, ImportOptions("a", instruction_topic="/task"))
    with pytest.raises(InputError, match="has no topic '/task'"):
        import_bag(source, tmp_path / "d.zarr", ARM6, ImportOptions(instruction_topic="/task"))
    with pytest.raises(InputError, match=r"Expected a std_msgs/msg/String on /tcp_pose"):
        import_bag(source, tmp_path / "d.zarr", ARM6, ImportOptions(instruction_topic="/tcp_pose"))


def test_the_humanoids_partial_topics_and_depth_come_in(tmp_path: Path) -> None:
    from view_robots import humanoid_messages

    robot = load_embodiment("humanoid")
    sent = [Sent(m.topic, robot.binding.topics[m.topic], m.cdr, m.received) for m in humanoid_messages()]
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    image = messages.image(depth, "16UC1", 10 * MS, "head")
    sent.append(Sent("/head/depth/image_raw", "sensor_msgs/msg/Image", image, 12 * MS))
    report, episode = take(
        write_rosbag(tmp_path / "bag", sent, mcap=True), tmp_path / "d.zarr", robot, allow_missing=True
    )
    position = episode.stream("joint_position")
    assert not position.mask.all()
    assert position.mask.any(axis=0).all()
    np.testing.assert_array_equal(episode.stream("head_depth").frame(0), depth)
    assert "/imu" in " ".join(report.missing)
    assert simplejpeg.is_jpeg(episode.stream("head_camera").encoded(0))
