"""What was recorded is what is read back: every value, every stamp, every JPEG byte."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from recordings import ARM6, MS, add_episode, jpeg, meta, record, write_rows

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import Embodiment, load_embodiment
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.journal_read import read_journal
from lehrling.datasets.message_types import standard
from lehrling.datasets.sealer import seal


def test_values_and_stamps_are_identical_to_what_was_sent(sealed: Path) -> None:
    episode = Dataset.open(sealed).episode("one")
    joints = episode.stream("joint_position")
    ticks = np.arange(50)
    np.testing.assert_array_equal(joints.value, np.sin(np.arange(7) + ticks[:, None] / 50))
    np.testing.assert_array_equal(episode.stream("joint_velocity").value, -joints.value)
    stamps = 10**18 + ticks * 10 * MS
    np.testing.assert_array_equal(joints.stamp_ns, stamps)
    np.testing.assert_array_equal(joints.received_ns, stamps + 2 * MS)
    np.testing.assert_array_equal(joints.publish_ns, stamps + MS)
    np.testing.assert_array_equal(joints.monotonic_ns, ticks)
    np.testing.assert_array_equal(joints.sequence, ticks)
    assert joints.mask.all()
    commands = episode.stream("tcp_command")
    np.testing.assert_array_equal(commands.value[:, 1], ticks[::5] / 100)
    assert (commands.publish_ns == -1).all()
    assert (commands.sequence == -1).all()


def test_jpegs_are_byte_identical_to_the_journals(root: Path) -> None:
    record(root, "one")
    journal = [messages.decode(m.cdr, "sensor_msgs/msg/CompressedImage") for m in
               read_journal(root, "one").messages["/front/image_raw/compressed"]]  # fmt: skip
    with Dataset.open_for_writing(root) as dataset:
        front = dataset.episode("one").stream("front")
        assert [front.encoded(i) for i in range(len(front))] == [m.data.tobytes() for m in journal]
        assert [front.encoded(i) for i in range(5)] == [jpeg(t) for t in range(0, 50, 10)]


def test_plain_zarr_reads_every_array_and_the_same_pixels(sealed: Path) -> None:
    group = zarr.open_group(str(sealed), mode="r")
    front = group["episodes/one/front/value"]
    ours = Dataset.open(sealed).episode("one").stream("front")
    assert isinstance(front, zarr.Array)
    np.testing.assert_array_equal(front[...], ours.frames(0, 5))
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pending: list[zarr.Group] = [group]
        while pending:
            for _, member in pending.pop().members():
                if isinstance(member, zarr.Group):
                    pending.append(member)
                else:
                    assert np.asarray(member[...]).shape == member.shape
                    count += 1
    assert count == 2 * 7 * 6


def test_the_same_messages_give_the_same_content_hash_anywhere(tmp_path: Path) -> None:
    hashes = set()
    for name in ("a", "b"):
        create_dataset(tmp_path / name)
        add_episode(tmp_path / name, "one")
        hashes.add(Dataset.open(tmp_path / name).records["one"].content_hash)
    add_episode(tmp_path / "a", "two", seconds=0.6)
    assert len(hashes) == 1
    assert Dataset.open(tmp_path / "a").records["two"].content_hash not in hashes


def test_sealing_again_after_a_crash_before_the_commit_gives_the_same_bytes(root: Path) -> None:
    record(root, "one")
    first = seal(root, "one")
    second = seal(root, "one")
    assert first.content_hash == second.content_hash
    assert first.lengths["joint_position"] == 50


def test_a_sealed_episode_is_never_sealed_over(sealed: Path) -> None:
    with pytest.raises(InputError, match="never changes"):
        record(sealed, "one", seconds=0.2)
    record(sealed, "one", seconds=0.2, origin="sim")
    with pytest.raises(InputError, match="never changes"):
        seal(sealed, "one")
    with Dataset.open_for_writing(sealed) as dataset:
        assert dataset.unfinished() == []
        assert dataset.records["one"].lengths["joint_position"] == 50


def test_the_manifest_tells_rates_gaps_and_drops(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        write_rows(journal, 0.3)
        stamp = 10**18 + 500 * MS
        late = messages.joint_state(["joint1"], [0.0], [0.0], [], stamp)
        journal.write("/joint_states", late, received_ns=stamp + 2 * MS, sequence=40)
        journal.close("failure", "gripper slipped")
    with Dataset.open_for_writing(root) as dataset:
        found = dataset.records["one"]
    timing = found.timing["joint_position"]
    assert (found.outcome, found.stop_cause) == ("failure", "gripper slipped")
    assert timing.count == 31
    assert timing.max_gap_ms == 210.0
    assert timing.dropped == 10
    assert found.timing["tcp_command"].dropped == -1
    assert found.timing["front"].rate_hz == 10.0
    assert found.timing["front"].latency_ms == 30.0


def test_a_partial_joint_state_gives_masked_rows_in_the_contracts_order(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        journal.write(
            "/joint_states", messages.joint_state(["gripper", "joint2"], [0.05, 2.0], [], [], 5), received_ns=6
        )
        journal.close("unknown", "test")
    seal(root, "one")
    with Dataset.open_for_writing(root) as dataset:
        stream = dataset.episode("one").stream("joint_position")
        np.testing.assert_array_equal(stream.value, [[0, 2.0, 0, 0, 0, 0, 0.05]])
        np.testing.assert_array_equal(stream.mask, [[False, True, False, False, False, False, True]])
        assert len(dataset.episode("one").stream("joint_velocity")) == 0


def test_an_unknown_joint_is_refused_by_name_and_the_journal_is_kept(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        journal.write("/joint_states", messages.joint_state(["elbow"], [1.0], [], [], 5), received_ns=6)
        journal.close("unknown", "test")
    with pytest.raises(InputError, match=r"'elbow', which stream 'joint_position'"):
        seal(root, "one")
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].status == "quarantined"
    assert (root / "quarantine" / "one" / "numeric-0.mcap").is_file()


def test_a_frame_of_another_kind_is_refused(root: Path) -> None:
    make = standard().make
    header = messages._header(5, "front")
    png = make("sensor_msgs/msg/CompressedImage")(header=header, format="png", data=np.zeros(9, np.uint8))
    with JournalWriter(root, meta("one"), ARM6) as journal:
        journal.write("/front/image_raw/compressed", messages.encode(png), received_ns=6)
        journal.close("unknown", "test")
    with pytest.raises(InputError, match=r"expected JPEG in a CompressedImage, got png"):
        seal(root, "one")


def humanoid_messages(robot: Embodiment) -> dict[str, list[tuple[bytes, int]]]:
    """Return topic -> messages with receive times: body at 50 Hz, hands at 25 Hz in reversed order."""
    joints = [joint.name for joint in robot.contract.joints]
    body, hands = joints[:31], joints[31:][::-1]
    sent: dict[str, list[tuple[bytes, int]]] = {topic: [] for topic in robot.binding.topics}
    make = standard().make
    for tick in range(10):
        stamp = 10**18 + tick * 20 * MS
        at = stamp + MS
        sent["/body/joint_states"].append((messages.joint_state(body, np.arange(31) + tick, [], [], stamp), at))
        if tick % 2 == 0:
            values = np.arange(12) + 100 + tick
            sent["/hands/joint_states"].append((messages.joint_state(hands, values, [], [], stamp), at + 1))
        depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) + tick
        sent["/head/depth/image_raw"].append((messages.image(depth, "16UC1", stamp, "head"), at))
        frame = messages.compressed_image(jpeg(tick, 96, 128), stamp, "head")
        sent["/head/color/image_raw/compressed"].append((frame, at))
        sent["/base_pose"].append((messages.pose_stamped([tick, 0, 0.9], [0, 0, 0, 1], stamp, "map"), at))
        sent["/joint_commands"].append((messages.joint_state(joints, np.full(43, tick), [], [], stamp), stamp))
        word = make("std_msgs/msg/String")(data="greife" + "!" * tick)
        sent["/speech"].append((messages.encode(word), at))
    return sent


def test_the_humanoid_with_partial_topics_depth_and_ragged_text_round_trips(root: Path) -> None:
    robot = load_embodiment("humanoid")
    with JournalWriter(root, EpisodeMeta("walk", "tend", "open the door", "humanoid", "robot"), robot) as journal:
        for topic, rows in humanoid_messages(robot).items():
            for cdr, at in rows:
                journal.write(topic, cdr, received_ns=at)
        journal.close("success", "test")
    with Dataset.open_for_writing(root) as dataset:
        episode = dataset.episode("walk")
        joints = episode.stream("joint_position")
        assert joints.value.shape == (15, 43)
        from_body = joints.mask[:, 0]
        assert from_body.sum() == 10
        np.testing.assert_array_equal(joints.mask[from_body][:, 31:], False)
        np.testing.assert_array_equal(joints.value[from_body][3, :31], np.arange(31) + 3)
        np.testing.assert_array_equal(joints.value[~from_body][1, 31:], (np.arange(12) + 102)[::-1])
        depth = episode.stream("head_depth")
        np.testing.assert_array_equal(depth.frame(4), np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) + 4)
        speech = episode.stream("speech")
        assert [speech.ragged(i).decode() for i in (0, 3)] == ["greife", "greife!!!"]
        assert speech.attributes["stamps"] == "received"
        assert episode.stream("head_camera").encoded(2) == jpeg(2, 96, 128)
        assert episode.stream("head_camera").frame(2).shape == (96, 128, 3)
        assert len(episode.stream("imu")) == 0


@pytest.mark.parametrize("array", ["joint_position/value/c/0/0", "tcp_command/stamp_ns/c/0", "front/value/c/0/0/0/0"])
def test_a_deleted_chunk_raises_instead_of_reading_zero(sealed: Path, array: str) -> None:
    (sealed / "episodes" / "one" / array).unlink()
    dataset = Dataset.open(sealed)
    stream = dataset.episode("one").stream(array.split("/", 1)[0])
    with pytest.raises(DamageError, match="lehrling verify"):
        _ = stream.frame(0) if array.startswith("front") else (stream.value, stream.stamp_ns)
    report = dataset.verify()
    assert not report.whole
    assert report.problems == {"one": [f"{array} is missing"]}


def test_one_flipped_bit_is_found_and_the_episode_quarantined(sealed: Path) -> None:
    path = sealed / "episodes" / "one" / "front" / "value" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))
    assert "has other content" in Dataset.open(sealed).verify().problems["one"][0]
    with Dataset.open_for_writing(sealed) as dataset:
        report = dataset.repair(deep=True)
        assert report.lossy
    dataset = Dataset.open(sealed)
    assert [episode.id for episode in dataset.episodes()] == ["two"]
    with pytest.raises(InputError, match=r"quarantined: .*other content"):
        dataset.episode("one")


def test_a_changed_inventory_does_not_hide_changed_data(sealed: Path) -> None:
    from lehrling.datasets import inventory

    folder = sealed / "episodes" / "one"
    (folder / "zarr.json").write_text((folder / "zarr.json").read_text().replace("red", "blue"))
    inventory.save(folder, inventory.build(folder))
    assert "not the one whose hash the manifest holds" in Dataset.open(sealed).verify().problems["one"][0]


def test_a_foreign_file_in_an_episode_is_reported(sealed: Path) -> None:
    (sealed / "episodes" / "one" / "note.txt").write_text("hello")
    assert Dataset.open(sealed).verify().problems == {"one": ["note.txt does not belong to the episode"]}


def test_reading_changes_no_file(sealed: Path) -> None:
    def state() -> str:
        files = sorted(p for p in sealed.rglob("*") if p.is_file())
        return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()

    before = state()
    dataset = Dataset.open(sealed)
    dataset.verify()
    assert len(dataset.episode("two").stream("front").frames(0, 5)) == 5
    assert state() == before


def test_a_copied_dataset_is_as_good_as_the_first(sealed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sealed, tmp_path / "copy")
    assert Dataset.open(copy).verify().whole
