"""ROS 2 messages as CDR bytes, written and read without a ROS installation (rosbags' type store)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lehrling.datasets.embodiment import Source, Stream
from lehrling.datasets.errors import MessageError
from lehrling.datasets.message_layout import LARGEST
from lehrling.datasets.message_types import standard

NS = 1_000_000_000
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"


def known(msgtype: str) -> bool:
    """Whether the standard definitions include this type."""
    return standard().known(msgtype)


@cache
def definition(msgtype: str) -> str:
    """Return the message definition, with those that it needs, as recorded in MCAP (`ros2msg`).

    Raises:
        InputError: the type is not among the standard definitions.
    """
    return standard().definition(msgtype)


def encode(message: Any) -> bytes:
    """Return a message of the type store as CDR bytes."""
    return standard().encode(message)


def decode(cdr: bytes, msgtype: str) -> Any:
    """Return the message of a standard type in CDR bytes; arrays are views where they can be.

    Raises:
        DamageError: the bytes are no such message.
    """
    return standard().decode(cdr, msgtype)


def _type(name: str) -> Any:
    return standard().make(name)


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


def compressed(message: Any, jpeg: bytes) -> bytes:
    """Return an Image's JPEG as a CompressedImage with the same header."""
    data = np.frombuffer(jpeg, dtype=np.uint8)
    header = _header(stamp_of(message) or 0, message.header.frame_id)
    return encode(_type(COMPRESSED_IMAGE)(header=header, format="jpeg", data=data))


def stamp_of(message: Any) -> int | None:
    """Return the header's stamp [ns], or None where the message has no header."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        return None
    return int(stamp.sec) * NS + int(stamp.nanosec)


def header_stamp(cdr: bytes) -> int:
    """Return the stamp [ns] of a little-endian message that begins with a header, without decoding it."""
    seconds, nanoseconds = struct.unpack_from("<iI", cdr, 4)
    return int(seconds) * NS + int(nanoseconds)


def field(message: Any, path: str) -> Any:
    """Follow a dotted field path; an empty path is the message itself.

    Raises:
        MessageError: no such field.
    """
    value = message
    for part in path.split(".") if path else []:
        if not hasattr(value, part):
            raise MessageError("no such field", f"{message.__msgtype__} has no field {path!r}.")
        value = getattr(value, part)
    return value


def numbers(value: Any) -> list[float | int]:
    """Return all numbers of a message in field order, without headers and covariances."""
    if dataclasses.is_dataclass(value):
        inside = [f.name for f in dataclasses.fields(value) if f.name != "__msgtype__"]
        names = [n for n in inside if n != "header" and not n.endswith("covariance")]
        return [number for name in names for number in numbers(getattr(value, name))]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_number(number) for number in np.asarray(value).reshape(-1).tolist()]
    return [_number(value)]


def _number(value: Any) -> float | int:
    """Return whole numbers as such: float64 does not hold all of them."""
    return int(value) if isinstance(value, int | np.integer) else float(value)


def joint_row(
    message: Any, source: Source, stream: Stream, joints: Collection[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return one row by joint name, in the contract's order, and which of its elements this message gave.

    Joints of the robot (`joints`) that the stream does not hold are passed over.

    Raises:
        MessageError: the message names a joint that the contract lacks, or a value is not finite.
    """
    row, given = np.zeros(stream.shape), np.zeros(stream.shape, dtype=bool)
    values = field(message, source.field)
    place = {name: k for k, name in enumerate(stream.names)}
    unknown = [name for name in message.name if name not in place and name not in joints]
    if unknown:
        raise MessageError(
            "unknown joint",
            f"Topic {source.topic} names joint {unknown[0]!r}, which stream {stream.name!r} of the contract lacks; "
            "add it to the embodiment file or correct the driver's names.",
        )
    if len(values) not in (0, len(message.name)):
        raise MessageError(
            "names without values",
            f"Topic {source.topic}: {len(message.name)} names but {len(values)} values of {source.field}.",
        )
    for name, value in zip(message.name, values, strict=False):
        if name in place:
            row[place[name]], given[place[name]] = value, True
    return held(row, source, stream), given


def held(row: NDArray[Any], source: Source, stream: Stream) -> NDArray[Any]:
    """Return the row if its numbers are finite and the stream's dtype holds them; float32 may round.

    Raises:
        MessageError: naming the first element that is not.
    """
    if not (finite := np.isfinite(row)).all():
        name, value = _first(~finite, row, stream)
        raise MessageError(
            "no finite number",
            f"Topic {source.topic}: {name} of stream {stream.name!r} is {value}; correct the driver, or leave this element "
            "out of the stream.",
        )
    if stream.dtype != "float64" and not (fits := _fits(row, stream.dtype)).all():
        name, value = _first(~fits, row, stream)
        raise MessageError(
            "value out of range",
            f"Topic {source.topic}: {name} of stream {stream.name!r} is {value}, which {stream.dtype} does not hold; correct "
            "the driver, or give the stream another dtype.",
        )
    return row


def _fits(row: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    if dtype in LARGEST:
        return np.asarray(np.abs(row) <= LARGEST[dtype])
    most = np.iinfo(dtype)
    if row.dtype.kind == "f":  # the nearest float64 to int64's largest is beyond it
        return np.asarray((row == np.floor(row)) & (row >= float(most.min)) & (row < float(most.max) + 1))
    return np.asarray((row >= most.min) & (row <= most.max))


def _first(which: NDArray[np.bool_], row: NDArray[Any], stream: Stream) -> tuple[str, Any]:
    place = int(np.flatnonzero(which.reshape(-1))[0])
    return stream.names[place] if stream.names else f"element {place}", row.reshape(-1)[place]


def numeric_row(
    message: Any, source: Source, stream: Stream, joints: Collection[str] = ()
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return one row of a numeric stream and its mask, each of the stream's shape.

    Raises:
        MessageError: another number of values than the contract says, an unknown joint, a value that is not finite or that
            the stream's dtype does not hold.
    """
    if message.__msgtype__ == "sensor_msgs/msg/JointState":
        return joint_row(message, source, stream, joints)
    found = field(message, source.field)
    try:
        values = numbers(found)
    except (TypeError, ValueError):
        raise MessageError(
            "no numbers",
            f"Topic {source.topic}: field {source.field!r} of {message.__msgtype__} holds no plain numbers.",
        ) from None
    wanted = int(np.prod(stream.shape))
    if len(values) != wanted:
        raise MessageError(
            "other number of values",
            f"Topic {source.topic}: expected {wanted} values for stream {stream.name!r}, got {len(values)}.",
        )
    row = held(_array(values).reshape(stream.shape), source, stream)
    return row, np.ones(stream.shape, dtype=bool)


def _array(values: list[float | int]) -> NDArray[Any]:
    row = np.asarray(values)
    return row.astype(np.float64) if row.dtype == object else row


def ragged_bytes(message: Any, source: Source) -> bytes:
    """Return a text as UTF-8, or a list of numbers as they are in memory (little-endian).

    Raises:
        MessageError: the field is a message or a list of messages or texts, which have no such form.
    """
    found = field(message, source.field)
    if isinstance(found, str):
        return found.encode()
    values = np.asarray(found)
    if values.dtype.kind not in "biuf":
        raise MessageError(
            "no numbers or text",
            f"Topic {source.topic}: field {source.field!r} of {message.__msgtype__} is neither text nor numbers; declare "
            "the stream's kind as raw.",
        )
    return values.tobytes()
