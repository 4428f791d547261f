"""Bags written by other tools: rosbags (SQLite and MCAP) and the mcap library, with every compression that these have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from mcap_ros2.writer import Writer as Ros2Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_typestore

from lehrling.datasets import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

STORE = get_typestore(Stores.ROS2_JAZZY)
MS = 1_000_000
START = 1_700_000_000 * 10**9
JOINTS = ["joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper"]
JOINT_STATE = "sensor_msgs/msg/JointState"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
Compression = Literal["", "zstd", "lz4"]


@dataclass(frozen=True)
class Sent:
    """One message as a recorder receives it."""

    topic: str
    msgtype: str
    cdr: bytes
    received: int

    @property
    def decoded(self) -> Any:
        return STORE.deserialize_cdr(self.cdr, self.msgtype)


def joints(tick: int, names: list[str] | None = None, stamp: int | None = None, **changes: Any) -> Sent:
    """Joint states at 100 Hz, received 2 ms after their stamp; position k of tick t is t + k / 10."""
    at = START + tick * 10 * MS if stamp is None else stamp
    order = JOINTS if names is None else names
    position = changes.get("position", [tick + JOINTS.index(name) / 10 if name in JOINTS else 0 for name in order])
    velocity = changes.get("velocity", [-value for value in position])
    cdr = messages.joint_state(order, position, velocity, [], at)
    return Sent("/joint_states", JOINT_STATE, cdr, changes.get("received", START + tick * 10 * MS + 2 * MS))


def pose(topic: str, tick: int, stamp: int | None = None) -> Sent:
    """A pose whose x is the tick."""
    at = START + tick * 10 * MS
    cdr = messages.pose_stamped([tick, 0.5, 0.25], [0, 1, 0, 0], at if stamp is None else stamp, "cell")
    return Sent(topic, "geometry_msgs/msg/PoseStamped", cdr, at + 2 * MS)


def gripper(tick: int) -> Sent:
    at = START + tick * 10 * MS
    return Sent("/gripper_command", JOINT_STATE, messages.joint_state(["gripper"], [tick % 2], [], [], at), at)


def camera(name: str, tick: int, jpeg: bytes) -> Sent:
    at = START + tick * 10 * MS
    return Sent(f"/{name}/image_raw/compressed", COMPRESSED, messages.compressed_image(jpeg, at, name), at + 30 * MS)


def text(topic: str, tick: int, words: str) -> Sent:
    message = STORE.types["std_msgs/msg/String"](data=words)
    cdr = bytes(STORE.serialize_cdr(message, "std_msgs/msg/String"))
    return Sent(topic, "std_msgs/msg/String", cdr, START + tick * 10 * MS)


def arm(ticks: int = 20, first: int = 0, frame_bytes: int = 0) -> list[Sent]:
    """All that arm6 sends in `ticks` hundredths of a second, in order of receipt.

    `frame_bytes` pads each JPEG after its end, so that SQLite needs overflow pages.
    """
    from recordings import jpeg

    out: list[Sent] = []
    for tick in range(first, first + ticks):
        out += [joints(tick), pose("/tcp_pose", tick)]
        if tick % 5 == 0:
            out += [pose("/tcp_command", tick), gripper(tick)]
        if tick % 10 == 0:
            out += [
                camera(name, tick, jpeg(tick + k) + bytes(frame_bytes)) for k, name in enumerate(("front", "wrist"))
            ]
    return sorted(out, key=lambda sent: sent.received)


FORCE = "plant_msgs/msg/Force"
FORCE_DEFINITION = (
    "std_msgs/Header header\nfloat32[3] newton\n"
    + "=" * 80
    + "\nMSG: std_msgs/Header\n"
    + (
        "builtin_interfaces/Time stamp\nstring frame_id\n"
        + "=" * 80
        + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
    )
)


def forces(count: int) -> list[Sent]:
    out = []
    for tick in range(count):
        header = (0).to_bytes(4, "little") + (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0" + bytes(3)
        stamp = START + tick * MS
        header = (stamp // 10**9).to_bytes(4, "little") + (stamp % 10**9).to_bytes(4, "little") + header[8:]
        cdr = b"\0\1\0\0" + header + np.array([tick, 0.5, -tick], "<f4").tobytes()
        out.append(Sent("/force", FORCE, cdr, stamp + MS))
    return out


def write_rosbag(
    path: Path, sent: Iterable[Sent], *, mcap: bool = False, mode: CompressionMode = CompressionMode.NONE
) -> Path:
    """Write a rosbag2 directory with rosbags."""
    plugin = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
    writer = BagWriter(path, version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for message in sent:
            if message.topic not in connections:
                added = writer.add_connection(message.topic, message.msgtype, typestore=STORE)
                connections[message.topic] = added
            writer.write(connections[message.topic], message.received, message.cdr)
    return path


def write_mcap(
    path: Path,
    sent: Iterable[Sent],
    compression: Compression = "zstd",
    *,
    chunk_bytes: int | None = 8192,
    definitions: dict[str, str] | None = None,
    encoding: str = "cdr",
) -> Path:
    """Write an MCAP file with the mcap library; None for `chunk_bytes` writes no chunks.

    Each message is published 1 ms before it is received, and numbered per topic from 1.
    """
    kinds = {"": CompressionType.NONE, "zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4}
    with path.open("wb") as file:
        writer = McapWriter(
            file, chunk_size=chunk_bytes or 1, use_chunking=chunk_bytes is not None, compression=kinds[compression]
        )
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        counts: dict[str, int] = {}
        for message in sent:
            if message.topic not in channels:
                given = (definitions or {}).get(message.msgtype)
                definition = STORE.generate_msgdef(message.msgtype, ros_version=2)[0] if given is None else given
                schema = writer.register_schema(message.msgtype, "ros2msg", definition.encode())
                channels[message.topic] = writer.register_channel(message.topic, encoding, schema)
            counts[message.topic] = number = counts.get(message.topic, 0) + 1
            published = max(message.received - MS, 0)
            writer.add_message(channels[message.topic], message.received, message.cdr, published, number)
        writer.finish()  # type: ignore[no-untyped-call]
    return path


def write_ros2_mcap(path: Path, ticks: int) -> Path:
    """Write joint states and texts with mcap-ros2-support, which encodes messages itself."""
    state, string = STORE.generate_msgdef(JOINT_STATE, ros_version=2)[0], "string data"
    with path.open("wb") as file:
        writer = Ros2Writer(file)
        schemas = writer.register_msgdef(JOINT_STATE, state), writer.register_msgdef("std_msgs/msg/String", string)
        for tick in range(ticks):
            stamp = START + tick * 10 * MS
            header = {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": "base"}
            position = [tick + k / 10 for k in range(7)]
            joint_state = {"header": header, "name": JOINTS, "position": position, "velocity": [], "effort": []}
            writer.write_message("/joint_states", schemas[0], joint_state, stamp + MS, stamp)
            writer.write_message("/task", schemas[1], {"data": f"do {tick}"}, stamp + MS, stamp)
        writer.finish()
    return path


@dataclass(frozen=True)
class Expected:
    """A stream's rows as they must come out."""

    values: list[Any]
    stamps: list[int]
    received: list[int]


def expected(sent: Iterable[Sent]) -> dict[str, Expected]:
    """Return what arm6's streams must hold, decoded by rosbags."""
    by_topic: dict[str, list[Sent]] = {}
    for message in sent:
        by_topic.setdefault(message.topic, []).append(message)
    takes: dict[str, tuple[str, Any]] = {
        "joint_position": ("/joint_states", lambda m: m.position[[list(m.name).index(name) for name in JOINTS]]),
        "joint_velocity": ("/joint_states", lambda m: m.velocity[[list(m.name).index(name) for name in JOINTS]]),
        "tcp_pose": ("/tcp_pose", _pose),
        "tcp_command": ("/tcp_command", _pose),
        "gripper_command": ("/gripper_command", lambda m: m.position),
        "front": ("/front/image_raw/compressed", lambda m: bytes(m.data)),
        "wrist": ("/wrist/image_raw/compressed", lambda m: bytes(m.data)),
    }
    out = {}
    for name, (topic, take) in takes.items():
        rows = by_topic.get(topic, [])
        stamps = [row.decoded.header.stamp for row in rows]
        out[name] = Expected(
            [take(row.decoded) for row in rows],
            [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps],
            [row.received for row in rows],
        )
    return out


def _pose(message: Any) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    place, turn = message.pose.position, message.pose.orientation
    return np.array([place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w])
