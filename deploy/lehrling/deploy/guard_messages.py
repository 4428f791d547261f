"""Commands as ROS 2 messages, in CDR bytes and without ROS: one encoder per message type that can command a robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets import messages
from lehrling.datasets.embodiment import Source, Stream
from lehrling.datasets.errors import InputError
from lehrling.datasets.message_types import standard

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """What a stream is commanded.

    Attributes:
        value: the stream's row.
        velocity: of its elements, where they are joints.
        stamp_ns: for the header.
        reach_ns: when the value is to be reached, after the stamp.
    """

    value: FloatArray
    velocity: FloatArray
    stamp_ns: int
    reach_ns: int


Encoder = Callable[[Motion, Stream], bytes]


def encode(motion: Motion, stream: Stream, source: Source) -> bytes:
    """Return the message of a source's type.

    Raises:
        InputError: no command of this stream can be told in this message type.
    """
    kinds = ENCODERS.get(stream.kind, {})
    if source.type not in kinds:
        known = ", ".join(sorted(kinds)) or "none"
        raise InputError(
            f"Action stream {stream.name!r} ({stream.kind}) is bound to {source.topic} as {source.type}, which cannot carry "
            f"its commands; expected one of {known}."
        )
    return kinds[source.type](motion, stream)


def _make(msgtype: str, **fields: object) -> object:
    return standard().make(msgtype)(**fields)


def _header(stamp_ns: int, frame: str) -> object:
    seconds, nanoseconds = divmod(stamp_ns, messages.NS)
    stamp = _make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return _make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def _duration(nanoseconds: int) -> object:
    seconds, rest = divmod(nanoseconds, messages.NS)
    return _make("builtin_interfaces/msg/Duration", sec=seconds, nanosec=rest)


def _joint_state(motion: Motion, stream: Stream) -> bytes:
    return messages.joint_state(stream.names, motion.value, motion.velocity, [], motion.stamp_ns)


def _trajectory(motion: Motion, stream: Stream) -> bytes:
    """Return a trajectory of one point; its stamp is 0, which means: from now on, whatever the receiver's clock."""
    empty = np.empty(0)
    point = _make(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=np.asarray(motion.value, dtype=np.float64),
        velocities=np.asarray(motion.velocity, dtype=np.float64),
        accelerations=empty,
        effort=empty,
        time_from_start=_duration(motion.reach_ns),
    )
    header = _header(0, stream.frame)
    make = "trajectory_msgs/msg/JointTrajectory"
    return messages.encode(_make(make, header=header, joint_names=list(stream.names), points=[point]))


def _array(motion: Motion, stream: Stream) -> bytes:
    del stream
    layout = _make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    data = np.asarray(motion.value, dtype=np.float64)
    return messages.encode(_make("std_msgs/msg/Float64MultiArray", layout=layout, data=data))


def _pose_stamped(motion: Motion, stream: Stream) -> bytes:
    return messages.pose_stamped(motion.value[:3], motion.value[3:], motion.stamp_ns, stream.frame)


def _pose(motion: Motion, stream: Stream) -> bytes:
    del stream
    x, y, z, qx, qy, qz, qw = motion.value.tolist()
    position = _make("geometry_msgs/msg/Point", x=x, y=y, z=z)
    orientation = _make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw)
    return messages.encode(_make("geometry_msgs/msg/Pose", position=position, orientation=orientation))


def _twist_fields(value: FloatArray) -> object:
    linear, angular = (
        _make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z)) for x, y, z in value.reshape(2, 3)
    )
    return _make("geometry_msgs/msg/Twist", linear=linear, angular=angular)


def _twist(motion: Motion, stream: Stream) -> bytes:
    del stream
    return messages.encode(_twist_fields(motion.value))


def _twist_stamped(motion: Motion, stream: Stream) -> bytes:
    header, twist = _header(motion.stamp_ns, stream.frame), _twist_fields(motion.value)
    return messages.encode(_make("geometry_msgs/msg/TwistStamped", header=header, twist=twist))


ENCODERS: Mapping[str, Mapping[str, Encoder]] = {
    "joint_position": {
        "sensor_msgs/msg/JointState": _joint_state,
        "trajectory_msgs/msg/JointTrajectory": _trajectory,
        "std_msgs/msg/Float64MultiArray": _array,
    },
    "pose": {"geometry_msgs/msg/PoseStamped": _pose_stamped, "geometry_msgs/msg/Pose": _pose},
    "twist": {"geometry_msgs/msg/TwistStamped": _twist_stamped, "geometry_msgs/msg/Twist": _twist},
}
"""Kind of stream -> message type -> encoder."""


def commandable(stream: Stream, sources: Sequence[Source]) -> None:
    """Check that a stream's commands can be told in its sources' types.

    Raises:
        InputError: naming the first that cannot.
    """
    width = 7 if stream.kind == "pose" else 6 if stream.kind == "twist" else len(stream.names)
    still = Motion(np.zeros(width), np.zeros(width), 0, 0)
    for source in sources:
        encode(still, stream, source)
