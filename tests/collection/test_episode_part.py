"""One episode of a capture process: what fits is in the journal byte by byte, what does not ends it by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from recordings import jpeg, meta
from ros_rig import HEIGHT, JOINTS, WIDTH, depth, distances, front, pixels, plan, pose, rig, side, state, text
from small_disks import remount, small_disk

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import Captured
from lehrling.collection.capture_words import Stop
from lehrling.collection.episode_part import EpisodePart
from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import StorageError
from lehrling.datasets.journal import JournalPart, begin_journal, end_journal
from lehrling.datasets.journal_read import JournalContents, read_journal
from lehrling.datasets.message_types import Types, standard

START, MS = 10**18, 1_000_000
ROBOT = rig()


class Part:
    """A part, and a clock that gives each message the next millisecond."""

    def __init__(self, root: Path, embodiment: Embodiment = ROBOT, types: Types | None = None) -> None:
        if not root.exists():
            create_dataset(root)
        self.root, self.number = root, 0
        self.directory = begin_journal(root, meta("one"), embodiment)
        self.part = EpisodePart(self.directory, embodiment, BoundTopics(embodiment), types or standard(), 0.05, 1.0)

    def take(self, topic: str, cdr: bytes, *, after_ms: int = 1, sender: bytes = b"a") -> None:
        self.number += after_ms
        received = START + self.number * MS
        self.part.take(Captured(topic, cdr, received, self.number * MS, received - MS, self.number, sender))

    def end(self) -> JournalContents:
        counts, stop = self.part.finish(), self.part.stop
        end_journal(self.directory, "unknown", stop.cause if stop else "operator", counts)
        return read_journal(self.root, "one")


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path / "d.zarr")


def stamped(number: int, **more: object) -> bytes:
    return state(number, stamp_ns=START + number * MS, **more)  # type: ignore[arg-type]


def test_every_kind_of_message_is_in_the_journal_as_it_came(part: Part) -> None:
    sent = {
        "/joint_states": stamped(1),
        "/tcp_pose": pose(2),
        "/command": stamped(3),
        "/plan": plan(5),
        "/front/compressed": front(4),
        "/depth/image_raw": depth(6),
        "/robot_description": text("<robot/>"),
    }
    for topic, cdr in sent.items():
        part.take(topic, cdr)
    contents = part.end()
    assert {topic: [row.cdr for row in rows] for topic, rows in contents.messages.items()} == {
        t: [c] for t, c in sent.items()
    }
    assert contents.counts == dict.fromkeys(sent, 1)
    assert contents.losses == []
    row = contents.messages["/tcp_pose"][0]
    assert (row.received_ns, row.publish_ns, row.monotonic_ns, row.sequence) == (START + 2 * MS, START + MS, 2 * MS, 2)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_a_raw_image_becomes_a_jpeg_with_its_header_kept(part: Part, encoding: str) -> None:
    cdr = side(7, encoding)
    header = messages.decode(cdr, "sensor_msgs/msg/Image").header
    part.take("/side/image_raw", cdr)
    (row,) = part.end().messages["/side/image_raw"]
    found = messages.decode(row.cdr, row.msgtype)
    assert row.msgtype == "sensor_msgs/msg/CompressedImage"
    assert (found.header.stamp, found.header.frame_id, found.format) == (header.stamp, "side 7", "jpeg")
    frame = simplejpeg.decode_jpeg(found.data.tobytes(), colorspace=encoding[:3].upper())
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert abs(frame.astype(int) - pixels(7)).mean() < 6


def test_a_raw_image_stays_raw_where_the_embodiment_says_so(tmp_path: Path) -> None:
    part, cdr = Part(tmp_path / "d.zarr", rig(journal_images="raw")), side(7)
    part.take("/side/image_raw", cdr)
    part.take("/depth/image_raw", depth(1))
    contents = part.end()
    (row,) = contents.messages["/side/image_raw"]
    assert (row.cdr, row.msgtype) == (cdr, "sensor_msgs/msg/Image")
    (row,) = contents.messages["/depth/image_raw"]
    found = messages.decode(row.cdr, row.msgtype).data.view("<u2").reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, distances(1))


def test_joints_come_in_any_order_and_in_part(part: Part) -> None:
    part.take("/joint_states", stamped(1, names=JOINTS[::-1], position=[3.0, 2.0, 1.0]))
    part.take("/joint_states", stamped(2, names=JOINTS[1:2], position=[5.0]))
    assert part.part.stop is None
    part.end()
    with Dataset.open_for_writing(part.root) as dataset:
        stream = dataset.episode("one").stream("position")
        assert stream.value.tolist() == [[1, 2, 3], [0, 5, 0]]
        assert stream.mask.tolist() == [[True] * 3, [False, True, False]]


BAD: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "unknown joint": (
        "/joint_states",
        lambda: stamped(9, names=("elbow", "knee")),
        "unknown joint",
        "names joint 'knee'",
    ),
    "NaN": ("/joint_states", lambda: stamped(9, position=[0, math.nan, 0]), "no finite number", "wrist of stream"),
    "infinite": ("/command", lambda: stamped(9, position=[0, 0, math.inf]), "no finite number", "grip of stream"),
    "names without values": (
        "/joint_states",
        lambda: stamped(9, position=[1.0]),
        "names without values",
        "3 names but 1",
    ),
    "changed image size": (
        "/front/compressed",
        lambda: front(9, 128),
        "other image size",
        "expected 96 x 96 pixels, got 128 x 128",
    ),
    "changed raw image size": (
        "/side/image_raw",
        lambda: side(9, "rgb8", pixels(1)[:, :32]),
        "other image size",
        "got 48 x 32",
    ),
    "unknown encoding": ("/side/image_raw", lambda: side(9, "yuv422"), "unknown encoding", "got an image in 'yuv422'"),
    "depth in metres": (
        "/depth/image_raw",
        lambda: messages.image(np.zeros((HEIGHT, WIDTH), np.float32), "32FC1", START, ""),
        "unknown encoding",
        "expected an Image in 16UC1, got '32FC1'",
    ),
    "no JPEG": (
        "/front/compressed",
        lambda: messages.compressed_image(b"GIF89a", START, ""),
        "damaged message",
        "no JPEG",
    ),
    "cut short": ("/tcp_pose", lambda: pose(9)[:50], "damaged message", "got 50 bytes that are none"),
    "empty": ("/tcp_pose", lambda: b"", "damaged message", "got 0 bytes"),
    "stamp 0": ("/joint_states", lambda: state(9, stamp_ns=0), "stamp 0", "the sender never set it"),
    "stamp going backwards": (
        "/joint_states",
        lambda: state(9, stamp_ns=START - 2000 * MS),
        "stamps go backwards",
        "2.003 s before the one before",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_the_first_message_that_does_not_fit_ends_the_episode_and_what_came_before_is_kept(
    part: Part, case: str
) -> None:
    topic, make, cause, words = BAD[case]
    good: dict[str, Callable[[int], bytes]] = {
        "/joint_states": stamped,
        "/command": stamped,
        "/tcp_pose": pose,
        "/front/compressed": front,
    }
    good |= {"/front/compressed": front, "/side/image_raw": side, "/depth/image_raw": depth}
    for number in range(1, 4):
        part.take("/joint_states", stamped(number))
        part.take(topic, good[topic](number))
    before = dict(part.part.counts)
    part.take(topic, make())
    for number in range(10, 14):
        part.take("/joint_states", stamped(number))
    assert part.part.stop is not None
    assert part.part.stop.cause == cause
    assert words in part.part.stop.text
    assert topic in part.part.stop.text
    assert part.part.passed_over == 4
    assert part.part.counts == before
    contents = part.end()
    assert {topic: len(rows) for topic, rows in contents.messages.items()} == before
    assert contents.stop_cause == cause


def test_an_episode_that_ended_by_a_message_is_sealed_with_what_came_before(part: Part) -> None:
    for number in range(1, 4):
        part.take("/joint_states", stamped(number))
    part.take("/joint_states", stamped(4, names=("elbow", "knee")))
    part.end()
    with Dataset.open_for_writing(part.root) as dataset:
        assert (dataset.records["one"].status, dataset.records["one"].stop_cause) == ("sealed", "unknown joint")
        assert dataset.episode("one").stream("position").value[:, 0].tolist() == [1, 2, 3]


def test_what_was_received_before_is_kept_also_where_its_topic_was_asked_later(part: Part) -> None:
    part.take("/joint_states", stamped(1))
    part.take("/joint_states", stamped(9, names=("elbow", "knee")), after_ms=10)
    part.take("/tcp_pose", pose(2), after_ms=-5)
    part.take("/tcp_pose", pose(3), after_ms=5)
    part.take("/joint_states", stamped(4), after_ms=-5)
    assert part.part.counts == {"/joint_states": 1, "/tcp_pose": 1}
    assert part.part.passed_over == 2
    assert part.part.stop is not None
    assert part.part.stop.cause == "unknown joint"


def test_receipts_that_go_backwards_end_the_episode(part: Part) -> None:
    part.take("/tcp_pose", pose(1), after_ms=1000)
    part.take("/tcp_pose", pose(2), after_ms=-200)
    assert part.part.stop is None
    part.take("/tcp_pose", pose(3), after_ms=-100)
    assert part.part.stop == Stop(
        "receive times go backwards", "Topic /tcp_pose: a message was received 0.3 s before the last."
    )


def test_numbers_of_a_second_publisher_are_no_sequence(part: Part) -> None:
    part.take("/tcp_pose", pose(1), sender=b"a")
    part.take("/tcp_pose", pose(2), sender=b"b")
    part.take("/tcp_pose", pose(3), sender=b"a")
    part.take("/joint_states", stamped(4), sender=b"c")
    contents = part.end()
    assert [row.sequence for row in contents.messages["/tcp_pose"]] == [1, -1, -1]
    assert [row.sequence for row in contents.messages["/joint_states"]] == [4]


def test_a_type_of_the_sourced_ros_is_kept_with_its_definition(tmp_path: Path) -> None:
    data = ROBOT.model_dump(mode="json")
    data["binding"]["sources"]["description"] = [{"topic": "/grip", "type": "hand_msgs/msg/Grip"}]
    definition = "std_msgs/Header header\nfloat32 force\n"
    header = standard().definition("std_msgs/msg/Header")
    types = Types({"hand_msgs/msg/Grip": f"{definition}{'=' * 80}\nMSG: std_msgs/Header\n{header}"})
    stamp = types.make("builtin_interfaces/msg/Time")(sec=1, nanosec=5)
    cdr = types.encode(
        types.make("hand_msgs/msg/Grip")(header=types.make("std_msgs/msg/Header")(stamp=stamp, frame_id=""), force=2.5)
    )
    part = Part(tmp_path / "d.zarr", Embodiment.model_validate(data), types)
    part.take("/grip", cdr)
    contents = part.end()
    assert contents.types.decode(contents.messages["/grip"][0].cdr, "hand_msgs/msg/Grip").force == 2.5
    with Dataset.open_for_writing(part.root) as dataset:
        stream = dataset.episode("one").stream("description")
        assert stream.ragged(0) == cdr
        assert stream.stamp_ns.tolist() == [1_000_000_005]
        assert "float32 force" in stream.attributes["definitions"]["hand_msgs/msg/Grip"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "cause"), [("No space left while writing x", "disk full"), ("Writing x failed: EIO", "disk failed")]
)
def test_a_disk_that_fails_ends_the_episode_by_name(
    part: Part, monkeypatch: pytest.MonkeyPatch, words: str, cause: str
) -> None:
    part.take("/tcp_pose", pose(1))

    def fail(*_arguments: object, **_more: object) -> None:
        raise StorageError(words)

    with monkeypatch.context() as patch:
        patch.setattr(JournalPart, "write", fail)
        part.take("/tcp_pose", pose(2))
    assert part.part.stop == Stop(cause, words)
    part.take("/tcp_pose", pose(3))
    assert [len(rows) for rows in part.end().messages.values()] == [1]


@pytest.mark.parametrize("earlier", [None, Stop("unknown joint", "")])
def test_a_disk_that_fails_at_the_very_end_is_named_unless_there_was_an_earlier_cause(
    part: Part, monkeypatch: pytest.MonkeyPatch, earlier: Stop | None
) -> None:
    part.take("/tcp_pose", pose(1))
    part.take("/front/compressed", front(1))
    numeric = part.part._journal._files["numeric"]
    part.part.stop = earlier

    def close() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(part.part._journal._files["front"], "close", close)
    assert part.part.finish() == {"/tcp_pose": 1, "/front/compressed": 1}
    assert part.part.stop is not None
    assert part.part.stop.cause == ("unknown joint" if earlier else "disk full")
    assert numeric.stream.closed
    assert len(read_journal(part.root, "one").messages["/front/compressed"]) == 1


def test_an_episode_that_is_abandoned_is_what_a_crash_leaves(part: Part) -> None:
    part.take("/front/compressed", front(1))
    part.part.abandon()
    contents = read_journal(part.root, "one")
    assert not contents.ended
    found = messages.decode(contents.messages["/front/compressed"][0].cdr, "sensor_msgs/msg/CompressedImage")
    assert found.data.tobytes() == jpeg(1)


def test_a_full_disk_ends_the_episode_and_there_is_room_to_say_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3) as disk:
        part = Part(disk / "d.zarr")
        taken = 0
        while part.part.stop is None:
            part.take("/front/compressed", front(taken))
            taken += 1
        time.sleep(0.2)
        contents = part.end()
        assert (contents.ended, contents.stop_cause) == (True, "disk full")
        found = [
            messages.decode(row.cdr, row.msgtype).header.frame_id for row in contents.messages["/front/compressed"]
        ]
        assert found == [f"front {number}" for number in range(len(found))]
        assert len(found) > 100
        remount(disk, "size=64m")
        with Dataset.open_for_writing(part.root) as dataset:
            record = dataset.records["one"]
            assert (record.status, record.stop_cause, record.lengths["front"]) == ("sealed", "disk full", len(found))
