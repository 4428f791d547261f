"""Whatever is wrong with a bag: it is named, what was before it is kept, and no row is invented."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from bag_checks import ARM6, check_rows, one_stream, read, take
from bags import FORCE, JOINTS, MS, START, STORE, Sent, arm, camera, forces, joints, write_mcap, write_rosbag
from recordings import jpeg
from rosbags.rosbag2 import CompressionMode

from lehrling.collection.bag_import import ImportOptions, import_bag
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError


def bad_camera(tick: int, **changes: Any) -> Sent:
    good = camera("front", tick, jpeg(tick))
    message = good.decoded
    for name, value in changes.items():
        setattr(message, name, value)
    return replace(good, cdr=bytes(STORE.serialize_cdr(message, good.msgtype)))


BAD = {
    "unknown joint": joints(25, [*JOINTS[:-1], "elbow"]),
    "no finite number": joints(25, position=[0, 0, float("nan"), 0, 0, 0, 0]),
    "infinity": joints(25, position=[0, 0, float("inf"), 0, 0, 0, 0]),
    "names without values": joints(25, position=[1.0, 2.0], velocity=[]),
    "stamp 0": joints(25, stamp=0),
    "stamps go backwards": joints(25, stamp=START - 1000 * MS),
    "stamps jump ahead": joints(25, stamp=START + 3602 * 1000 * MS),
    "receive times go backwards": joints(25, received=START - 1000 * MS),
    "damaged message": Sent("/joint_states", "sensor_msgs/msg/JointState", b"\0\1\0\0abc", START + 252 * MS),
    "other image size": camera("front", 25, jpeg(1, 64, 96)),
    "unknown encoding": bad_camera(25, format="png"),
    "no jpeg": bad_camera(25, data=np.zeros(9, np.uint8)),
    "empty message": Sent("/tcp_pose", "geometry_msgs/msg/PoseStamped", b"", START + 252 * MS),
}
CAUSES = {"infinity": "no finite number", "no jpeg": "damaged message", "empty message": "damaged message"}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_does_not_fit_ends_the_episode_with_its_cause(tmp_path: Path, name: str) -> None:
    bad, cause = BAD[name], CAUSES.get(name, name)
    before, after = arm(20), arm(20, first=30)
    report, episode = take(
        write_mcap(tmp_path / "bag.mcap", [*before, bad, *after]), tmp_path / "d.zarr", outcome="success"
    )
    check_rows(episode, before)
    assert (episode.record.stop_cause, episode.record.outcome) == (cause, "unknown")
    assert f"{len(after)} later messages were not taken" in episode.record.losses[0]
    assert bad.topic in episode.record.losses[0]
    assert [(r.topic, r.cause, r.messages) for r in report.refused] == [(bad.topic, cause, 1)]
    assert report.lossy


def test_messages_that_do_not_fit_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    good = [arm(20), arm(20, first=30)]
    sent = [*good[0], *BAD.values(), *good[1]]
    report, episode = take(write_mcap(tmp_path / "bag.mcap", sent), tmp_path / "d.zarr", skip_bad=True)
    check_rows(episode, [*good[0], *good[1]])
    assert sum(refused.messages for refused in report.refused) == len(BAD)
    assert episode.record.stop_cause == "end of bag"
    assert len(episode.record.losses) == len(report.refused)
    assert report.lossy


def test_nothing_is_imported_where_no_message_of_a_needed_topic_fits(tmp_path: Path) -> None:
    names = [f"axis_{k}" for k in range(7)]
    sent = [
        message if message.topic != "/joint_states" else joints(tick, names) for tick, message in enumerate(arm(20))
    ]
    source = write_mcap(tmp_path / "bag.mcap", sent)
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=r"Nothing was imported\. Topic /joint_states names joint 'axis_0'"):
            import_bag(source, tmp_path / "d.zarr", ARM6, ImportOptions(skip_bad=skip_bad))
        assert Dataset.open(tmp_path / "d.zarr").records == {}
        assert Dataset.open(tmp_path / "d.zarr").unfinished() == []


SMALL = arm(12, frame_bytes=3000)
Write = Callable[[Path, list[Sent]], Path]
WRITERS: dict[str, Write] = {
    "sqlite3": lambda folder, sent: next(write_rosbag(folder / "bag", sent).glob("*.db3")),
    "sqlite3.zstd": lambda folder, sent: next(
        write_rosbag(folder / "b", sent, mode=CompressionMode.FILE).glob("*.zstd")
    ),
    "rosbags mcap": lambda folder, sent: next(write_rosbag(folder / "bag", sent, mcap=True).glob("*.mcap")),
    "mcap zstd": lambda folder, sent: write_mcap(folder / "bag.mcap", sent),
    "mcap lz4": lambda folder, sent: write_mcap(folder / "bag.mcap", sent, "lz4"),
    "mcap unchunked": lambda folder, sent: write_mcap(folder / "bag.mcap", sent, chunk_bytes=None),
}


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_bag_cut_at_any_byte_gives_what_was_before_and_nothing_else(tmp_path: Path, kind: str, step: int) -> None:
    """Every byte of the last 4 KiB in the slow suite, every eleventh in the ordinary one, and 100 others."""
    path = WRITERS[kind](tmp_path, SMALL)
    whole, cut = read(path)
    assert whole == [(message.topic, message.cdr, message.received) for message in SMALL]
    assert not cut
    size, rng, counts = path.stat().st_size, random.Random(7), []
    tail = max(size - 4096, 0)
    for length in [*range(size - 1, tail, -step), *sorted(rng.choices(range(tail + 1), k=100), reverse=True)]:
        os.truncate(path, length)
        found, cut = read(path)
        assert found == whole[: len(found)]
        assert cut or len(found) == len(whole)
        counts.append(len(found))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0 or kind == "mcap unchunked"


@pytest.mark.parametrize("kind", ["sqlite3", "rosbags mcap", "mcap zstd"])
def test_an_import_of_a_cut_bag_keeps_what_was_before_and_says_where(tmp_path: Path, kind: str) -> None:
    sent = arm(60, frame_bytes=3000)
    path = WRITERS[kind](tmp_path, sent)
    size, made = path.stat().st_size, 0
    for length in (size * 2 // 3, size // 2, size // 3, size // 4, 3000, 50, 0):
        os.truncate(path, length)
        root = tmp_path / f"{length}.zarr"
        if not read(path)[0]:
            with pytest.raises(InputError, match=r"nothing was imported\. .* can be read no further"):
                take(path, root)
            assert not root.exists()
            continue
        report, episode = take(path, root)
        made += 1
        check_rows(episode, sent, whole=False)
        assert (episode.record.stop_cause, episode.record.outcome) == ("source truncated", "unknown")
        assert report.cut is not None
        assert report.cut.offset <= length
        assert episode.record.losses == (str(report.cut),)
        assert report.lossy
        assert Dataset.open(root).verify().whole
    assert made >= 2


def test_a_large_sqlite_bag_that_is_cut_needs_no_inner_pages(tmp_path: Path) -> None:
    sent = [joints(tick) for tick in range(6000)]
    path = next(write_rosbag(tmp_path / "bag", sent).glob("*.db3"))
    size = path.stat().st_size
    for part in (0.9, 0.5, 0.1):
        os.truncate(path, int(size * part))
        found, cut = read(path)
        assert cut
        assert len(found) > part * 6000 - 200
        assert [cdr for _, cdr, _ in found] == [message.cdr for message in sent[: len(found)]]


def test_a_flipped_byte_in_a_chunk_ends_the_bag_there(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", arm(60))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    report, episode = take(path, tmp_path / "d.zarr")
    assert report.cut is not None
    assert 0 < report.cut.offset < len(content) // 2
    check_rows(episode, arm(60), whole=False)
    assert 0 < len(episode.stream("joint_position")) < 60


def test_zeros_at_the_end_that_a_power_loss_leaves_are_no_messages(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", SMALL, chunk_bytes=None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    report, episode = take(path, tmp_path / "d.zarr", skip_bad=True, allow_missing=True)
    check_rows(episode, SMALL, whole=False)
    assert report.cut is not None


@pytest.mark.parametrize("metadata", [None, b"", b"\xff\x00", b"rosbag2_bagfile_information: 7\n"])
def test_a_bag_without_metadata_is_taken_as_one_whose_recorder_crashed(tmp_path: Path, metadata: bytes | None) -> None:
    sent = arm(10)
    source = write_rosbag(tmp_path / "bag", sent)
    (source / "metadata.yaml").unlink()
    if metadata is not None:
        (source / "metadata.yaml").write_bytes(metadata)
    report, episode = take(source, tmp_path / "d.zarr")
    check_rows(episode, sent)
    assert report.cut is not None
    assert report.cut.file == "metadata.yaml"
    assert episode.record.stop_cause == "source truncated"


def join(tmp_path: Path, parts: list[list[Sent]]) -> Path:
    """Make one bag of several files, as rosbag2 splits them, numbered 0, 1, … 10."""
    source = tmp_path / "split"
    source.mkdir()
    names = []
    for number, part in enumerate(parts):
        folder = write_rosbag(tmp_path / f"part{number}", part, mcap=True)
        names.append(f"split_{number}.mcap")
        (folder / f"part{number}.mcap").rename(source / names[-1])
    count = sum(map(len, parts))
    listing = "".join(f"  - {name}\n" for name in names)
    (source / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information:\n  version: 8\n  message_count: {count}\n  relative_file_paths:\n{listing}"
    )
    return source


def test_a_bag_of_several_files_is_read_in_order_up_to_the_first_that_is_missing(tmp_path: Path) -> None:
    parts = [arm(5, first=5 * number) for number in range(11)]
    source = join(tmp_path, parts)
    _, episode = take(source, tmp_path / "whole.zarr")
    check_rows(episode, [message for part in parts for message in part])
    (source / "metadata.yaml").rename(tmp_path / "metadata.yaml")
    _, episode = take(source, tmp_path / "listed.zarr")
    check_rows(episode, [message for part in parts for message in part])
    (tmp_path / "metadata.yaml").rename(source / "metadata.yaml")
    (source / "split_7.mcap").unlink()
    report, episode = take(source, tmp_path / "hole.zarr")
    check_rows(episode, [message for part in parts[:7] for message in part])
    assert report.cut is not None
    assert "split_7.mcap" in str(report.cut)


def test_fewer_messages_than_the_metadata_count_are_a_cut(tmp_path: Path) -> None:
    source = write_rosbag(tmp_path / "bag", arm(10))
    path = source / "metadata.yaml"
    path.write_text(path.read_text().replace("message_count: 26", "message_count: 30"))
    report, _ = take(source, tmp_path / "d.zarr")
    assert report.cut is not None
    assert report.cut.reason == "metadata.yaml counts 30 messages, 26 are there"


def test_what_is_no_bag_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("hello world, this is no bag")
    (tmp_path / "text.db3").write_text("hello world, this is no bag")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.yaml").write_text(
        "rosbag2_bagfile_information: {message_count: 0, relative_file_paths: [../../etc/passwd]}\n"
    )
    reasons = {
        "absent": "got none",
        "empty": "holds neither",
        "text.mcap": "no MCAP file",
        "text.db3": "no SQLite file",
        "old.bag": "rosbags-convert",
        "other": "expected .mcap or .db3",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason):
            import_bag(tmp_path / name, tmp_path / "d.zarr", ARM6)
    assert not (tmp_path / "d.zarr").exists()


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:

    database = sqlite3.connect(tmp_path / "x.db3")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1, i, x'00' FROM n"
    database.execute("CREATE TABLE topics(id INTEGER, name TEXT, type TEXT, serialization_format TEXT)")
    database.execute(f"CREATE VIEW messages AS {endless}")
    database.commit()
    database.close()
    with pytest.raises(InputError, match="has no table 'messages'"):
        import_bag(tmp_path / "x.db3", tmp_path / "d.zarr", ARM6)


def test_a_write_ahead_log_beside_the_database_is_read_too(tmp_path: Path) -> None:
    import sqlite3

    sent = arm(20)
    source = next(write_rosbag(tmp_path / "bag", sent[:30]).glob("*.db3"))
    live = sqlite3.connect(source)
    live.execute("PRAGMA journal_mode = WAL")
    topics = {name: number for number, name in live.execute("SELECT id, name FROM topics")}
    for message in sent[30:]:
        row = topics[message.topic], message.received, message.cdr
        live.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    live.commit()
    for name in ("", "-wal"):
        shutil.copy(f"{source}{name}", tmp_path / f"copy.db3{name}")
    live.close()
    _, episode = take(tmp_path / "copy.db3", tmp_path / "d.zarr")
    check_rows(episode, sent)


def test_bombs_are_refused_before_they_unfold(tmp_path: Path) -> None:

    packed = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    assert len(packed) < 20_000
    magic, head = b"\x89MCAP0\r\n", struct.Struct("<BQ")
    claims = {"told": 100 << 20, "hidden": 1000, "absurd": 1 << 60}
    for name, claimed in claims.items():
        chunk = struct.pack("<QQQII", 0, 0, claimed, 0, 4) + b"zstd" + struct.pack("<Q", len(packed)) + packed
        (tmp_path / f"{name}.mcap").write_bytes(magic + head.pack(6, len(chunk)) + chunk)
        with pytest.raises(InputError, match="refused"):
            import_bag(tmp_path / f"{name}.mcap", tmp_path / "d.zarr", ARM6)
    sent = replace(joints(0), cdr=packed)
    with pytest.raises(InputError, match="A message on /joint_states"):
        import_bag(write_rosbag(tmp_path / "bag", [sent]), tmp_path / "d.zarr", ARM6, ImportOptions(allow_missing=True))
    assert Dataset.open(tmp_path / "d.zarr").records == {}


def test_times_beyond_the_clock_are_refused(tmp_path: Path) -> None:
    late = replace(joints(25), received=2**64 - 1)
    report, episode = take(write_mcap(tmp_path / "bag.mcap", [*arm(20), late]), tmp_path / "d.zarr")
    assert report.refused[0].cause == "receive time out of range"
    check_rows(episode, arm(20))


@pytest.mark.parametrize(
    "definition",
    ["string[100000000] x\n", "other_msgs/Absent x\n", "]]]", "x" * 300_000, "plant_msgs/Force again\n"],
    ids=["huge array", "absent part", "garbage", "long", "recursive"],
)
def test_a_hostile_definition_is_refused_before_it_costs_anything(tmp_path: Path, definition: str) -> None:
    source = write_mcap(tmp_path / "bag.mcap", forces(1), definitions={FORCE: definition})
    with pytest.raises(InputError, match="The definition of plant_msgs/msg/Force that came along cannot be"):
        import_bag(source, tmp_path / "d.zarr", one_stream("raw", "/force", FORCE))
