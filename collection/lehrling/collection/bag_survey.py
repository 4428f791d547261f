"""A bag's first reading: which topics it has, whether they are those that the embodiment binds, and where it is cut."""

from __future__ import annotations

from dataclasses import dataclass, field

from lehrling.collection.bag_files import Bag
from lehrling.collection.bag_records import BagChannel, BagCutError, BagMessage
from lehrling.collection.bag_report import TopicCount
from lehrling.collection.bag_unpack import plain
from lehrling.collection.bound_topics import BoundTopics
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.message_types import Types, standard

STRING = "std_msgs/msg/String"


@dataclass
class TopicSeen:
    """A topic in a bag: its channels, which agree in a sane bag, and its number of messages."""

    channels: set[BagChannel] = field(default_factory=set)
    messages: int = 0


class Gaps:
    """Tells where a new episode begins: after a pause of all bound topics longer than `gap_s`."""

    def __init__(self, gap_s: float | None) -> None:
        self._gap_ns = None if gap_s is None else round(gap_s * 1e9)
        self._newest: int | None = None

    def before(self, received_ns: int) -> bool:
        """Whether an episode begins with the message received then; to be asked of each in turn."""
        newest, self._newest = self._newest, max(received_ns, self._newest or received_ns)
        return newest is None or (self._gap_ns is not None and received_ns - newest > self._gap_ns)


@dataclass
class Survey:
    """What a bag holds.

    Attributes:
        instructions: one per episode to be, from the instruction topic, empty before its first message.
        bound: number of messages on bound topics.
    """

    topics: dict[str, TopicSeen] = field(default_factory=dict)
    instructions: list[str] = field(default_factory=list)
    bound: int = 0
    cut: BagCutError | None = None

    def unbound(self, bound: BoundTopics) -> dict[str, TopicCount]:
        """Return the topics that are not bound."""
        return {
            topic: TopicCount(", ".join(sorted({channel.msgtype for channel in seen.channels})), seen.messages)
            for topic, seen in sorted(self.topics.items())
            if bound.declared(topic) is None
        }

    def missing(self, bound: BoundTopics) -> dict[str, tuple[str, ...]]:
        """Return the bound topics without a message, with the streams that they would feed."""
        found = {bound.declared(topic) for topic, seen in self.topics.items() if seen.messages}
        return {
            topic: tuple(stream.name for stream, _ in feeds)
            for topic, feeds in bound.feeds.items()
            if topic not in found
        }


def survey(bag: Bag, bound: BoundTopics, gap_s: float | None, instruction_topic: str) -> Survey:
    """Read a bag once without decoding it; a cut is told, not raised.

    Raises:
        InputError: a file is no bag, or beyond any bounds; or the instruction topic holds no std_msgs/msg/String.
    """
    found, gaps, text = Survey(), Gaps(gap_s), ""
    try:
        for record in bag.records():
            channel = record.channel if isinstance(record, BagMessage) else record
            seen = found.topics.setdefault(channel.topic, TopicSeen())
            seen.channels.add(channel)
            if not isinstance(record, BagMessage):
                continue
            seen.messages += 1
            if bound.declared(channel.topic) is not None:
                found.bound += 1
                if gaps.before(record.received_ns):
                    found.instructions.append(text)
            if channel.topic == instruction_topic:
                text = _text(record)
                if found.instructions and not found.instructions[-1]:
                    found.instructions[-1] = text
    except BagCutError as cut:
        found.cut = cut
    if instruction_topic and instruction_topic not in found.topics:
        raise InputError(f"The bag has no topic {instruction_topic!r} to take the instruction from.")
    return found


def _text(message: BagMessage) -> str:
    topic = message.channel.topic
    if message.channel.msgtype != STRING:
        raise InputError(f"Expected a {STRING} on {topic} for the instruction, got {message.channel.msgtype}.")
    try:
        return str(standard().decode(plain(message.cdr, topic), STRING).data).strip()
    except DamageError as error:
        raise InputError(f"The instruction on {topic} cannot be read. {error}") from error


def check_topics(found: Survey, bound: BoundTopics, *, allow_missing: bool) -> Types:
    """Compare a bag's topics with the embodiment's; return the message types to read it with.

    A bag that is cut may lack any topic: what it has is kept.

    Raises:
        InputError: naming the topics of another type or encoding, or without a message.
    """
    seen = {bound.declared(topic): topic for topic in found.topics if bound.declared(topic) is not None}
    wrong = [
        sentence
        for topic, name in seen.items()
        if topic is not None and (sentence := _mismatch(topic, bound.types[topic], found.topics[name].channels))
    ]
    if wrong:
        raise InputError(f"The bag does not fit the embodiment: {'; '.join(wrong)}. Correct the embodiment file.")
    needed = [topic for topic in found.missing(bound) if bound.needed(topic)]
    if needed and not allow_missing and found.cut is None:
        have = ", ".join(sorted(topic for topic, seen in found.topics.items() if seen.messages)) or "no messages"
        raise InputError(
            f"The bag has no messages on {', '.join(needed)}, which the embodiment binds; it has {have}. Correct the "
            "embodiment file, or allow topics to be missing."
        )
    return _types(found, bound)


def _mismatch(topic: str, wanted: str, channels: set[BagChannel]) -> str:
    for channel in sorted(channels, key=repr):
        if channel.encoding != "cdr":
            return f"{topic} is encoded as {channel.encoding or 'nothing'!r}, not as cdr of ROS 2"
        if channel.msgtype != wanted:
            return f"{topic} holds {channel.msgtype or 'messages without a type'}, the embodiment says {wanted}"
    return ""


def _types(found: Survey, bound: BoundTopics) -> Types:
    texts: dict[str, str] = {}
    for topic, seen in found.topics.items():
        if (declared := bound.declared(topic)) is None:
            continue
        for channel in seen.channels:
            if channel.definition:
                texts.setdefault(channel.msgtype, channel.definition)
        wanted = bound.types[declared]
        if wanted not in texts and not standard().known(wanted):
            raise InputError(
                f"{topic} holds {wanted}, which is no standard ROS 2 type and which the bag does not define."
            )
    return Types(texts)
