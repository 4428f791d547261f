"""What a message gives a stream, and what is refused with a cause before it becomes a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import ARM6, jpeg, meta, record

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Source, Stream
from lehrling.datasets.errors import DamageError, InputError, MessageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.message_types import Types, standard
from lehrling.datasets.row_reader import row_value
from lehrling.datasets.sealer import seal

JOINT_STATE = "sensor_msgs/msg/JointState"
NAMES = ["joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper"]


def stream(kind: str, shape: tuple[int, ...] = (), names: tuple[str, ...] = ()) -> Stream:
    return Stream(name="data", kind=kind, shape=shape, names=names)


def value(cdr: bytes, msgtype: str, field: str, wanted: Stream) -> tuple[Any, Any]:
    source = Source(topic="/topic", type=msgtype, field=field)
    return row_value(messages.decode(cdr, msgtype), cdr, source, wanted, ARM6.contract.joint_names)


def test_a_stream_of_some_joints_passes_over_the_robots_others() -> None:
    cdr = messages.joint_state(NAMES, range(7), [], [], 5)
    row, mask = value(cdr, JOINT_STATE, "position", stream("joint_position", (2,), ("gripper", "joint2")))
    assert row.tolist() == [6.0, 1.0]
    assert mask.all()


def test_a_joint_that_the_robot_lacks_is_refused() -> None:
    cdr = messages.joint_state([*NAMES, "elbow"], range(8), [], [], 5)
    with pytest.raises(MessageError, match="names joint 'elbow'") as refused:
        value(cdr, JOINT_STATE, "position", stream("joint_position", (1,), ("gripper",)))
    assert refused.value.cause == "unknown joint"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_by_the_elements_name(bad: float) -> None:
    cdr = messages.joint_state(NAMES, [0, 0, bad, 0, 0, 0, 0], [], [], 5)
    with pytest.raises(MessageError, match="joint3 of stream 'data' is") as refused:
        value(cdr, JOINT_STATE, "position", stream("joint_position", (7,), tuple(NAMES)))
    assert refused.value.cause == "no finite number"
    pose = messages.pose_stamped([0, bad, 0], [0, 0, 0, 1], 5, "cell")
    with pytest.raises(MessageError, match="element 1 of stream"):
        value(pose, "geometry_msgs/msg/PoseStamped", "pose", stream("pose", (7,)))


@pytest.mark.parametrize(
    ("field", "kind", "reason"),
    [
        ("positions", "joint_position", "has no field 'positions'"),
        ("header.stamp.year", "scalar", "has no field 'header.stamp.year'"),
    ],
)
def test_a_field_that_the_type_lacks_is_refused(field: str, kind: str, reason: str) -> None:
    cdr = messages.joint_state(NAMES, range(7), [], [], 5)
    with pytest.raises(MessageError, match=reason):
        value(cdr, JOINT_STATE, field, stream(kind, (7,), tuple(NAMES)))


def test_text_is_no_row_of_numbers() -> None:
    make = standard().make
    cdr = messages.encode(make("std_msgs/msg/String")(data="hello"))
    with pytest.raises(MessageError, match="'data' of std_msgs/msg/String holds no plain numbers"):
        value(cdr, "std_msgs/msg/String", "data", stream("scalar", (1,)))


def test_a_list_of_messages_has_no_bytes_of_its_own() -> None:
    make = standard().make
    header = messages._header(5, "base")
    duration = make("builtin_interfaces/msg/Duration")(sec=1, nanosec=0)
    point = make("trajectory_msgs/msg/JointTrajectoryPoint")(*[np.zeros(1)] * 4, duration)
    kind = "trajectory_msgs/msg/JointTrajectory"
    cdr = messages.encode(make(kind)(header, ["a"], [point]))
    for field in ("points", "joint_names"):
        with pytest.raises(MessageError, match=f"'{field}' of {kind} is neither text nor numbers; declare"):
            value(cdr, kind, field, stream("ragged"))
    assert value(cdr, kind, "", stream("raw"))[0] == cdr


def test_an_image_of_another_size_is_refused_before_it_is_sealed(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        for number, height in enumerate((96, 96, 48)):
            image = messages.compressed_image(jpeg(number, height, 96), number, "front")
            journal.write("/front/image_raw/compressed", image, received_ns=number)
        journal.close("success", "test")
    with pytest.raises(InputError, match="expected 96 x 96 pixels, got 48 x 96"):
        seal(root, "one")


def test_bytes_that_are_no_jpeg_are_damage() -> None:
    cdr = messages.compressed_image(b"JFIF", 5, "front")
    with pytest.raises(DamageError, match="4 bytes that are no JPEG"):
        value(cdr, "sensor_msgs/msg/CompressedImage", "data", stream("colour_image", (96, 96, 3)))


def test_raw_colour_of_an_unknown_encoding_or_too_few_bytes_is_refused() -> None:
    wanted = stream("colour_image", (8, 8, 3))
    pixels = np.zeros((8, 8, 2), np.uint8)
    with pytest.raises(MessageError, match=r"expected rgb8, bgr8.* got an image in 'yuv422'"):
        value(messages.image(pixels, "yuv422", 5, "front"), "sensor_msgs/msg/Image", "data", wanted)
    with pytest.raises(DamageError, match="128 bytes do not hold 8 rows of 16"):
        value(messages.image(pixels, "rgb8", 5, "front"), "sensor_msgs/msg/Image", "data", wanted)


def test_an_interrupted_import_is_discarded_since_its_source_gives_it_again(root: Path) -> None:
    with JournalWriter(root, EpisodeMeta("bag", "test", "", "arm6", "import"), ARM6) as journal:
        journal.write("/tcp_pose", messages.pose_stamped([0, 0, 0], [0, 0, 0, 1], 5, "cell"), received_ns=6)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.repaired.discarded == ("bag",)
        assert dataset.records["bag"].reason == "interrupted import; its source gives it again"
        assert not dataset.repaired.lossy


def test_losses_that_the_writer_knows_of_stand_in_the_manifest(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        journal.write("/tcp_pose", messages.pose_stamped([0, 0, 0], [0, 0, 0, 1], 5, "cell"), received_ns=6)
        journal.close("unknown", "source truncated", ("it ends early",))
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].losses == ("it ends early",)


def test_finish_seals_a_journal_or_sets_it_aside(root: Path) -> None:
    with Dataset.open_for_writing(root) as dataset:
        record(root, "good")
        with JournalWriter(root, meta("bad"), ARM6) as journal:
            journal.write("/joint_states", messages.joint_state(["elbow"], [1], [], [], 5), received_ns=6)
            journal.close("success", "test")
        assert dataset.finish("good").status == "sealed"
        found = dataset.finish("bad")
        assert (found.status, "elbow" in found.reason) == ("quarantined", True)
    assert (root / "quarantine" / "bad").is_dir()


IDL = "module a_msgs { module msg { struct B { double x[3]; string z; }; }; };"


@pytest.mark.parametrize("text", [IDL, f"{'=' * 80}\nIDL: a_msgs/msg/B\n{IDL}\n", "float64[3] x\nstring z\n"])
def test_definitions_are_read_in_each_form_that_bags_have(text: str) -> None:
    types = Types({"a_msgs/msg/B": text})
    assert types.definitions() == {"a_msgs/msg/B": "float64[3] x\nstring z\n"}
    message = types.make("a_msgs/msg/B")(x=np.arange(3.0), z="hello")
    decoded = types.decode(types.encode(message), "a_msgs/msg/B")
    assert (decoded.x.tolist(), decoded.z) == ([0, 1, 2], "hello")
    assert not standard().known("a_msgs/msg/B")


def test_a_comment_about_modules_does_not_make_a_definition_idl() -> None:
    types = Types({"a_msgs/msg/B": "# the module { in a struct }\nfloat64 x # module a {\n"})
    assert types.definition("a_msgs/msg/B") == "float64 x\n"
