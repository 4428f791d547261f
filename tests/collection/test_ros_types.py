"""Definitions of message types that the sourced ROS brings along."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lehrling.collection.ros_types import definition_text, search_paths, types_for
from lehrling.datasets.errors import InputError
from lehrling.datasets.message_types import DEFINITION_BYTES_MAX, Types, standard

GRIP = """# how hard
uint8 OPEN=0
std_msgs/Header header
Contact[<=4] contacts  # those that touch
geometry_msgs/Point[2] tips
float64[] forces
string<=5[<=3] labels
string<=10[] others
bool[7] flags
"""


def install(prefix: Path, **definitions: str) -> Path:
    """Write definitions as a sourced workspace has them: `package__Name`."""
    for name, text in definitions.items():
        package, kind = name.split("__")
        path = prefix / "share" / package / "msg" / f"{kind}.msg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return prefix


def test_a_definition_brings_along_what_it_needs_and_reads_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = install(
        tmp_path / "ws",
        hand_msgs__Grip=GRIP,
        hand_msgs__Contact="Finger finger\nfloat32 force\n",
        hand_msgs__Finger="int16 number\n",
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    types = types_for(["hand_msgs/msg/Grip", "sensor_msgs/msg/JointState"])
    contact = types.make("hand_msgs/msg/Contact")(finger=types.make("hand_msgs/msg/Finger")(number=-3), force=1.5)
    point = types.make("geometry_msgs/msg/Point")
    import numpy as np

    message = types.make("hand_msgs/msg/Grip")(
        header=types.make("std_msgs/msg/Header")(
            stamp=types.make("builtin_interfaces/msg/Time")(sec=1, nanosec=2), frame_id="palm"
        ),
        contacts=[contact],
        tips=[point(x=1.0, y=2.0, z=3.0), point(x=4.0, y=5.0, z=6.0)],
        forces=np.array([0.5, 0.25]),
        labels=["a"],
        others=["bc"],
        flags=np.array([True, False] * 3 + [True]),
    )
    back = types.decode(types.encode(message), "hand_msgs/msg/Grip")
    assert back.contacts[0].finger.number == -3
    assert back.tips[1].z == 6.0
    assert types.has_header("hand_msgs/msg/Grip")
    again = Types({"hand_msgs/msg/Grip": types.definition("hand_msgs/msg/Grip")})
    assert again.decode(types.encode(message), "hand_msgs/msg/Grip").forces.tolist() == [0.5, 0.25]


def test_standard_types_need_no_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    assert types_for(["sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"]) is standard()


def test_the_first_workspace_on_the_path_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = install(tmp_path / "over", hand_msgs__Grip="int8 a\n")
    under = install(tmp_path / "under", hand_msgs__Grip="int64 b\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{over}::{under}")
    assert search_paths() == [over, under, Path(sys.prefix)]
    assert definition_text("hand_msgs/msg/Grip") == "int8 a\n"


def test_the_wheels_definitions_are_found_without_a_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    assert "sensor_msgs/Joy" not in definition_text("sensor_msgs/msg/Joy")
    assert "MSG: std_msgs/Header" in definition_text("sensor_msgs/msg/Joy")


def test_a_definition_that_is_nowhere_or_needs_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"definition of hand_msgs/msg/Grip is neither .* source the workspace that has hand_msgs"
    ):
        definition_text("hand_msgs/msg/Grip", [tmp_path])
    install(tmp_path, hand_msgs__Grip="Contact c\n")
    with pytest.raises(InputError, match="definition of hand_msgs/msg/Contact is neither"):
        definition_text("hand_msgs/msg/Grip", [tmp_path])


def test_a_definition_beyond_any_is_not_read(tmp_path: Path) -> None:
    install(tmp_path, hand_msgs__Grip="#" * (DEFINITION_BYTES_MAX + 1))
    with pytest.raises(InputError, match="neither standard nor in the sourced ROS"):
        definition_text("hand_msgs/msg/Grip", [tmp_path])


def test_definitions_that_need_each_other_end(tmp_path: Path) -> None:
    install(tmp_path, hand_msgs__A="B b\n", hand_msgs__B="A a\n")
    with pytest.raises(InputError, match="cannot be"):
        Types({"hand_msgs/msg/A": definition_text("hand_msgs/msg/A", [tmp_path])})
