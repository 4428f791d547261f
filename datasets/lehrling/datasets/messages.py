"""ROS 2 messages as CDR bytes, written and read without a ROS installation (rosbags' type store)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rosbags.typesys import Stores, get_typestore

from lehrling.datasets.embodiment import Source, Stream
from lehrling.datasets.errors import DamageError, InputError

NS = 1_000_000_000


@cache
def _store() -> Any:
    return get_typestore(Stores.ROS2_JAZZY)


def known(msgtype: str) -> bool:
    """Whether the standard definitions include this type."""
    return msgtype in _store().fielddefs


@cache
def definition(msgtype: str) -> str:
    """Return the message definition, with those that it needs, as recorded in MCAP (`ros2msg`).

    Raises:
        InputError: the type is not among the standard definitions.
    """
    if not known(msgtype):
        raise InputError(f"There is no message type {msgtype!r} among the standard ROS 2 definitions.")
    return str(_store().generate_msgdef(msgtype, ros_version=2)[0])


def encode(message: Any) -> bytes:
    """Return a message of the type store as CDR bytes."""
    return bytes(_store().serialize_cdr(message, message.__msgtype__))


def decode(cdr: bytes, msgtype: str) -> Any:
    """Return the message in CDR bytes; arrays are views where they can be.

    Raises:
        DamageError: the bytes are no such message.
    """
    try:
        return _store().deserialize_cdr(cdr, msgtype)
    except Exception as error:
        raise DamageError(
            f"Expected a {msgtype}, got {len(cdr)} bytes that are none ({type(error).__name__})."
        ) from error


def _type(name: str) -> Any:
    return _store().types[name]


def _header(stamp_ns: int, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, NS)
    stamp = _type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
    return _type("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)


def joint_state(
    names: Sequence[str],
    position: ArrayLike,
    velocity: ArrayLike,
    effort: ArrayLike,
    stamp_ns: int,
    frame_id: str = "",
) -> bytes:
    """Return a JointState; empty arrays mean that the field is not there."""
    arrays = [np.asarray(values, dtype=np.float64) for values in (position, velocity, effort)]
    make = _type("sensor_msgs/msg/JointState")
    header = _header(stamp_ns, frame_id)
    return encode(make(header=header, name=list(names), position=arrays[0], velocity=arrays[1], effort=arrays[2]))


def pose_stamped(xyz: ArrayLike, quaternion_xyzw: ArrayLike, stamp_ns: int, frame_id: str) -> bytes:
    """Return a PoseStamped: position [m], quaternion x, y, z, w."""
    x, y, z = np.asarray(xyz, dtype=np.float64).tolist()
    qx, qy, qz, qw = np.asarray(quaternion_xyzw, dtype=np.float64).tolist()
    pose = _type("geometry_msgs/msg/Pose")(
        position=_type("geometry_msgs/msg/Point")(x=x, y=y, z=z),
        orientation=_type("geometry_msgs/msg/Quaternion")(x=qx, y=qy, z=qz, w=qw),
    )
    return encode(_type("geometry_msgs/msg/PoseStamped")(header=_header(stamp_ns, frame_id), pose=pose))


def compressed_image(jpeg: bytes, stamp_ns: int, frame_id: str) -> bytes:
    """Return a CompressedImage that holds the JPEG bytes as they are."""
    data = np.frombuffer(jpeg, dtype=np.uint8)
    make = _type("sensor_msgs/msg/CompressedImage")
    return encode(make(header=_header(stamp_ns, frame_id), format="jpeg", data=data))


def image(array: NDArray[np.generic], encoding: str, stamp_ns: int, frame_id: str) -> bytes:
    """Return an Image of (h, w) uint16 (`16UC1`) or (h, w, 3) uint8 (`rgb8`), little-endian."""
    rows = np.ascontiguousarray(array)
    height, width = rows.shape[:2]
    make = _type("sensor_msgs/msg/Image")
    message = make(
        header=_header(stamp_ns, frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.nbytes // height,
        data=rows.reshape(-1).view(np.uint8),
    )
    return encode(message)


def stamp_of(message: Any) -> int | None:
    """Return the header's stamp [ns], or None where the message has no header."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return int(header.stamp.sec) * NS + int(header.stamp.nanosec)


def field(message: Any, path: str) -> Any:
    """Follow a dotted field path; an empty path is the message itself.

    Raises:
        InputError: no such field.
    """
    value = message
    for part in path.split(".") if path else []:
        if not hasattr(value, part):
            raise InputError(f"{message.__msgtype__} has no field {path!r}.")
        value = getattr(value, part)
    return value


def numbers(value: Any) -> list[float]:
    """Return all numbers of a message in field order, without headers and covariances."""
    if dataclasses.is_dataclass(value):
        inside = [f.name for f in dataclasses.fields(value) if f.name != "__msgtype__"]
        names = [n for n in inside if n != "header" and not n.endswith("covariance")]
        return [number for name in names for number in numbers(getattr(value, name))]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [float(number) for number in np.asarray(value).reshape(-1)]
    return [float(value)]


def joint_row(message: Any, source: Source, stream: Stream) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return one row by joint name, in the contract's order, and which of its elements this message gave.

    Raises:
        InputError: the message names a joint that the contract lacks.
    """
    row, given = np.zeros(stream.shape), np.zeros(stream.shape, dtype=bool)
    values = getattr(message, source.field)
    place = {name: k for k, name in enumerate(stream.names)}
    unknown = [name for name in message.name if name not in place]
    if unknown:
        raise InputError(
            f"Topic {source.topic} names joint {unknown[0]!r}, which stream {stream.name!r} of the contract lacks; "
            "add it to the embodiment file or correct the driver's names."
        )
    if len(values) not in (0, len(message.name)):
        raise InputError(f"Topic {source.topic}: {len(message.name)} names but {len(values)} values of {source.field}.")
    for name, value in zip(message.name, values, strict=False):
        row[place[name]], given[place[name]] = value, True
    return row, given


def numeric_row(message: Any, source: Source, stream: Stream) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return one row of a numeric stream and its mask, each of the stream's shape.

    Raises:
        InputError: the field holds another number of values than the contract says, or an unknown joint.
    """
    if message.__msgtype__ == "sensor_msgs/msg/JointState":
        return joint_row(message, source, stream)
    values = numbers(field(message, source.field))
    wanted = int(np.prod(stream.shape))
    if len(values) != wanted:
        raise InputError(
            f"Topic {source.topic}: expected {wanted} values for stream {stream.name!r}, got {len(values)}."
        )
    return np.asarray(values).reshape(stream.shape), np.ones(stream.shape, dtype=bool)


def image_bytes(message: Any, stream: Stream, topic: str) -> bytes | NDArray[np.uint16]:
    """Return a colour image's JPEG bytes untouched, or a depth image (h, w) uint16 [mm].

    Raises:
        InputError: another format or size than the contract says.
    """
    if stream.kind == "colour_image":
        kind = str(getattr(message, "format", "")).lower()
        if message.__msgtype__ != "sensor_msgs/msg/CompressedImage" or not ("jpeg" in kind or "jpg" in kind):
            raise InputError(f"Topic {topic}: expected JPEG in a CompressedImage, got {kind or message.__msgtype__}.")
        return bytes(message.data.tobytes())
    height, width = stream.shape
    if message.encoding not in ("16UC1", "mono16") or (message.height, message.width) != (height, width):
        raise InputError(
            f"Topic {topic}: expected {height} x {width} 16UC1, got {message.height} x {message.width} {message.encoding}."
        )
    order = ">u2" if message.is_bigendian else "<u2"
    if len(message.data) != message.height * message.step or message.step < 2 * width:
        raise DamageError(f"Topic {topic}: {len(message.data)} bytes do not hold {height} rows of {message.step}.")
    rows = message.data.reshape(height, message.step)[:, : 2 * width]
    return np.ascontiguousarray(rows).view(order).astype(np.uint16)
