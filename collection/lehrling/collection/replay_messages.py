"""An episode's rows as the messages that they came from, in their order and with their times, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from lehrling.datasets import messages
from lehrling.datasets.embodiment import IMAGE_KINDS, JOINT_KINDS, Source, Stream
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import InputError
from lehrling.datasets.message_types import standard

JOINT_STATE, COMPRESSED, IMAGE = "sensor_msgs/msg/JointState", messages.COMPRESSED_IMAGE, "sensor_msgs/msg/Image"
FIELDS = ("position", "velocity", "effort")


@dataclass(frozen=True)
class Timed:
    """A message and when it comes.

    Attributes:
        at_ns: after the first message of the replay, in the episode's time.
        stamp_ns: of its header, as recorded.
        make: returns its CDR bytes with another stamp.
    """

    at_ns: int
    stamp_ns: int
    topic: str
    type: str
    make: Callable[[int], bytes]

    @property
    def cdr(self) -> bytes:
        """The message as recorded."""
        return self.make(self.stamp_ns)


@dataclass(frozen=True)
class Skipped:
    """A stream that is not replayed, and why."""

    stream: str
    reason: str


def replayable(episode: Episode, streams: Sequence[str]) -> tuple[list[str], list[Skipped]]:
    """Return which of the streams can be replayed, and why others cannot."""
    taken, skipped = [], []
    for name in streams:
        reason = _obstacle(episode, name)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            taken.append(name)
    return taken, skipped


def _obstacle(episode: Episode, name: str) -> str:
    stream = episode.contract.stream(name)
    if len(episode.stream(name)) == 0:
        return "it has no rows"
    if stream.kind == "raw":
        return ""
    for source in episode.binding.sources[name]:
        if source.type == JOINT_STATE and source.field not in FIELDS:
            return f"{source.field!r} is no field of a JointState's joints"
        if not standard().known(source.type):
            return f"{source.type} is not among the standard message types"
        if source.type not in (JOINT_STATE, COMPRESSED, IMAGE) and not _whole(stream, source):
            return f"its rows are only a part of {source.type}"
    return ""


def _whole(stream: Stream, source: Source) -> bool:
    """Whether a stream's rows hold all numbers of its message."""
    if stream.kind == "ragged":
        return source.type == "std_msgs/msg/String"
    message = blank(source.type)
    try:
        width = len(messages.numbers(messages.field(message, source.field)))
    except (TypeError, ValueError, InputError):
        return False
    return width == int(np.prod(stream.shape)) and width == len(messages.numbers(message))


def replay_messages(episode: Episode, streams: Sequence[str], zero_ns: int | None = None) -> Iterator[Timed]:
    """Yield the messages of streams in the order in which they were received.

    Streams of one topic come together in one message, as they were sent; a stream with several topics sends a row with some of
    its joints on the topic whose rate fits.

    Args:
        episode: where they are from.
        streams: their names.
        zero_ns: receive time from which `at_ns` counts; of the first message if not given. What came before comes at once.

    Raises:
        InputError: nothing can be replayed; `replayable` says why.
    """
    taken, skipped = replayable(episode, streams)
    if not taken:
        reasons = "; ".join(f"{one.stream}: {one.reason}" for one in skipped)
        raise InputError(f"Nothing of episode {episode.id} can be replayed: {reasons or 'it names no streams'}.")
    rows = sorted(chain.from_iterable(_topic_rows(episode, taken)), key=lambda row: row[:2])
    zero = rows[0][0] if zero_ns is None else zero_ns
    for received, _, stamp, topic, kind, make in rows:
        yield Timed(max(0, received - zero), stamp, topic, kind, make)


Row = tuple[int, int, int, str, str, Callable[[int], bytes]]


def _topic_rows(episode: Episode, names: Sequence[str]) -> Iterator[Iterator[Row]]:
    joint_topics: dict[str, list[str]] = {}
    for order, name in enumerate(names):
        sources = episode.binding.sources[name]
        if episode.contract.stream(name).kind in JOINT_KINDS and sources[0].type == JOINT_STATE:
            for source in sources:
                joint_topics.setdefault(source.topic, []).append(name)
        else:
            yield _plain_rows(episode, name, sources[0], order)
    for order, (topic, members) in enumerate(joint_topics.items()):
        yield _joint_rows(episode, topic, members, -1 - order)


def _plain_rows(episode: Episode, name: str, source: Source, order: int) -> Iterator[Row]:
    rows, stream = episode.stream(name), episode.contract.stream(name)
    for index, (received, stamp) in enumerate(zip(rows.received_ns.tolist(), rows.stamp_ns.tolist(), strict=True)):
        make = _maker(episode, stream, source, index)
        yield received, order, stamp, source.topic, source.type, make


def _maker(episode: Episode, stream: Stream, source: Source, index: int) -> Callable[[int], bytes]:
    rows = episode.stream(stream.name)

    def make(stamp_ns: int) -> bytes:
        if stream.kind in IMAGE_KINDS:
            return _image(rows, stream, source, index, stamp_ns)
        if stream.kind == "raw":
            return rows.ragged(index)
        message = blank(source.type)
        if stream.kind == "ragged":
            message.data = rows.ragged(index).decode(errors="replace")
        else:
            fill(messages.field(message, source.field), iter(rows.value[index].reshape(-1).tolist()))
        _stamp(message, stamp_ns, stream.frame)
        return messages.encode(message)

    return make


def _image(rows: Any, stream: Stream, source: Source, index: int, stamp_ns: int) -> bytes:
    if source.type == COMPRESSED and stream.kind == "colour_image":
        return messages.compressed_image(rows.encoded(index), stamp_ns, stream.frame)
    encoding = "rgb8" if stream.kind == "colour_image" else "16UC1"
    return messages.image(rows.frame(index), encoding, stamp_ns, stream.frame)


def _joint_rows(episode: Episode, topic: str, names: Sequence[str], order: int) -> Iterator[Row]:
    """Yield the JointStates of a topic: its streams' rows of one receipt belong together."""
    parts: dict[tuple[int, int, int], list[tuple[str, int]]] = {}
    for name in names:
        rows = episode.stream(name)
        mine = _rows_on(episode, name, topic)
        keys = zip(rows.received_ns.tolist(), rows.sequence.tolist(), rows.stamp_ns.tolist(), strict=True)
        for index, key in enumerate(keys):
            if mine[index]:
                parts.setdefault(key, []).append((name, index))
    for (received, _, stamp), members in parts.items():
        yield received, order, stamp, topic, JOINT_STATE, _joint_maker(episode, topic, members)


def _joint_maker(episode: Episode, topic: str, members: Sequence[tuple[str, int]]) -> Callable[[int], bytes]:
    def make(stamp_ns: int) -> bytes:
        given: dict[str, dict[str, float]] = {field: {} for field in FIELDS}
        for name, index in members:
            source = next(s for s in episode.binding.sources[name] if s.topic == topic)
            rows = episode.stream(name)
            for joint, value, there in zip(rows.stream.names, rows.value[index], rows.mask[index], strict=True):
                if there:
                    given[source.field][joint] = float(value)
        joints = list(dict.fromkeys(joint for field in FIELDS for joint in given[field]))
        arrays = [
            [values[joint] for joint in joints] if len(values) == len(joints) else [] for values in given.values()
        ]
        return messages.joint_state(joints, arrays[0], arrays[1], arrays[2], stamp_ns)

    return make


def _rows_on(episode: Episode, name: str, topic: str) -> list[bool]:
    """Return which rows of a stream came on a topic.

    A sealed row does not tell; but joints that ever came together are one topic's, and of several such sets the one with the
    most rows belongs to the fastest topic.
    """
    sources, mask = episode.binding.sources[name], episode.stream(name).mask
    if len(sources) == 1:
        return [True] * len(mask)
    sets = _joint_sets(mask)
    rows = [next(place for place, joints in enumerate(sets) if (joints & row).any()) for row in mask]
    frequent = sorted(range(len(sets)), key=lambda place: -rows.count(place))
    fastest = sorted(sources, key=lambda source: -(source.rate_hz or 0.0))
    owner = {place: fastest[min(rank, len(fastest) - 1)].topic for rank, place in enumerate(frequent)}
    return [owner[place] == topic for place in rows]


def _joint_sets(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return disjoint sets (D,) of elements, each of those that ever came together, directly or through others."""
    sets: list[NDArray[np.bool_]] = []
    for pattern in np.unique(mask, axis=0):
        joined = [joints for joints in sets if (joints & pattern).any()]
        sets = [joints for joints in sets if not (joints & pattern).any()]
        sets.append(np.logical_or.reduce([pattern, *joined]))
    return sets


def _stamp(message: Any, stamp_ns: int, frame: str) -> None:
    header = getattr(message, "header", None)
    if header is not None:
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, messages.NS)
        header.frame_id = frame


def fill(message: Any, values: Iterator[float]) -> None:
    """Put numbers into a message's fields in their order, without headers and covariances; the reverse of `numbers`."""
    for name in message.__dataclass_fields__:
        value = getattr(message, name)
        if name in ("__msgtype__", "header") or name.endswith("covariance"):
            continue
        if hasattr(value, "__msgtype__"):
            fill(value, values)
        elif isinstance(value, np.ndarray):
            value[:] = [next(values) for _ in value]
        else:
            setattr(message, name, type(value)(next(values)))


def blank(msgtype: str) -> Any:
    """Return a message of a standard type with all fields zero or empty."""
    fields = {name: _blank_field(description) for name, description in _definitions()[msgtype][1]}
    return standard().make(msgtype)(**fields)


@cache
def _definitions() -> Mapping[str, Any]:
    return get_typestore(Stores.ROS2_JAZZY).fielddefs


def _blank_field(description: Any) -> Any:
    kind, inner = description
    if kind == Nodetype.NAME:
        return blank(inner)
    if kind == Nodetype.BASE:
        return {"string": "", "wstring": "", "bool": False}.get(inner[0], 0.0 if inner[0].startswith("float") else 0)
    (element, name), length = inner
    if element == Nodetype.NAME:
        return [blank(name) for _ in range(length if kind == Nodetype.ARRAY else 0)]
    count = length if kind == Nodetype.ARRAY else 0
    if name[0] in ("string", "wstring"):
        return [""] * count
    return np.zeros(count, dtype={"octet": "uint8", "byte": "uint8", "char": "uint8"}.get(name[0], name[0]))
