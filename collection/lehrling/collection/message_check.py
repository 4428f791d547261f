"""Messages against the contract, one by one, by the functions that the sealer uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from lehrling.collection.bag_report import RefusedMessages, StreamTaken
from lehrling.collection.bag_unpack import plain
from lehrling.collection.bound_topics import BoundTopics
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import DamageError, MessageError
from lehrling.datasets.message_layout import Layout, layout_of
from lehrling.datasets.message_types import Types
from lehrling.datasets.messages import COMPRESSED_IMAGE, compressed, header_stamp, stamp_of
from lehrling.datasets.pictures import IMAGE, colour_pixels
from lehrling.datasets.row_reader import NOT_NUMBERS, row_value

SECOND_NS = 1_000_000_000
REORDERED_MAX_NS = SECOND_NS // 4
"""Two publishers on one topic, or a camera pipeline with threads, change places by less; a clock that is set jumps further."""
AHEAD_MAX_NS = 3600 * SECOND_NS
"""A simulation may run faster than what receives it, but no robot's stamps gain an hour between two messages."""
TIME_MAX_NS = 2**63 - 1


@dataclass(frozen=True)
class Fit:
    """A message as the journal takes it, and what it gives each stream.

    Attributes:
        rows: names of the streams that get a row of it.
        stamp_ns: the header's stamp, or where it has none the receive time.
    """

    topic: str
    cdr: bytes
    msgtype: str
    rows: tuple[str, ...]
    stamp_ns: int


@dataclass
class _Times:
    """The newest stamp and receive time of a topic."""

    stamp_ns: int = -1
    received_ns: int = -1


class Incoming(Protocol):
    """A message as it came, from a bag or from the middleware."""

    @property
    def cdr(self) -> bytes:
        """Its CDR bytes."""
        ...

    @property
    def received_ns(self) -> int:
        """When it was received."""
        ...


class MessageCheck:
    """Checks the messages of one episode in turn; remembers each topic's newest stamps."""

    def __init__(self, embodiment: Embodiment, bound: BoundTopics, types: Types) -> None:
        self._bound, self._types = bound, types
        self._joints = embodiment.contract.joint_names
        self._as_jpeg = embodiment.binding.journal_images == "jpeg"
        self._times: dict[str, _Times] = {}
        self._known: dict[str, tuple[Layout, tuple[str, ...]]] = {}
        self.out_of_order: dict[str, int] = {}

    def fit(self, message: Incoming, topic: str) -> Fit:
        """Return the message as the journal takes it: image bytes and values are those that came.

        Raises:
            MessageError: it does not fit the contract, or its times cannot be; the cause names which.
        """
        cdr, msgtype = plain(message.cdr, topic), self._bound.types[topic]
        known = self._known.get(topic)
        if known is not None and known[0].fits(cdr):
            stamp = header_stamp(cdr)
            self._check_times(topic, message.received_ns, stamp)
            return Fit(topic, cdr, msgtype, known[1], stamp)
        return self._fit_long(message, cdr, topic)

    def _fit_long(self, message: Incoming, cdr: bytes, topic: str) -> Fit:
        """Decode and check everything; remember how such messages look."""
        msgtype = self._bound.types[topic]
        try:
            decoded = self._types.decode(cdr, msgtype)
            rows, jpeg = self._rows(decoded, cdr, topic)
        except DamageError as error:
            raise MessageError("damaged message", f"Topic {topic}: {error}") from error
        stamp = stamp_of(decoded)
        self._check_times(topic, message.received_ns, stamp)
        if jpeg is not None and self._as_jpeg:
            cdr, msgtype = compressed(decoded, jpeg), COMPRESSED_IMAGE
        else:
            self._learn(topic, cdr, rows)
        return Fit(topic, cdr, msgtype, rows, message.received_ns if stamp is None else stamp)

    def _learn(self, topic: str, cdr: bytes, rows: tuple[str, ...]) -> None:
        feeds = self._bound.feeds[topic]
        if all(stream.kind not in NOT_NUMBERS for stream, _ in feeds):
            fields, dtypes = {source.field for _, source in feeds}, {stream.dtype for stream, _ in feeds}
            layout = layout_of(cdr, self._bound.types[topic], frozenset(fields), frozenset(dtypes))
            if layout is not None:
                self._known[topic] = layout, rows

    def _rows(self, decoded: object, cdr: bytes, topic: str) -> tuple[tuple[str, ...], bytes | None]:
        """Return the streams that get a row, and the JPEG that a raw colour image became."""
        rows, jpeg = [], None
        for stream, source in self._bound.feeds[topic]:
            if stream.kind == "colour_image" and source.type == IMAGE and not self._as_jpeg:
                colour_pixels(decoded, stream, topic)
                rows.append(stream.name)
                continue
            value, mask = row_value(decoded, cdr, source, stream, self._joints)
            if mask is None or mask.any():
                rows.append(stream.name)
            if stream.kind == "colour_image" and source.type == IMAGE:
                jpeg = value
        return tuple(rows), jpeg

    def _check_times(self, topic: str, received_ns: int, stamp_ns: int | None) -> None:
        newest = self._times.setdefault(topic, _Times())
        if not 0 <= received_ns <= TIME_MAX_NS:
            raise MessageError("receive time out of range", f"Topic {topic}: the receive time is {received_ns} ns.")
        if (back := newest.received_ns - received_ns) > REORDERED_MAX_NS:
            raise MessageError(
                "receive times go backwards", f"Topic {topic}: a message was received {back / 1e9:g} s before the last."
            )
        if stamp_ns is not None:
            self._check_stamp(topic, stamp_ns, received_ns, newest)
            newest.stamp_ns = max(newest.stamp_ns, stamp_ns)
        newest.received_ns = max(newest.received_ns, received_ns)

    def _check_stamp(self, topic: str, stamp_ns: int, received_ns: int, newest: _Times) -> None:
        """Refuse stamps that were never set, and clocks that jump back; a simulation may begin at 0."""
        if stamp_ns < 0 or (stamp_ns == 0 and received_ns > SECOND_NS):
            raise MessageError("stamp 0", f"Topic {topic}: the header's stamp is {stamp_ns}, the sender never set it.")
        ahead = stamp_ns - newest.stamp_ns - max(0, received_ns - newest.received_ns)
        if newest.stamp_ns >= 0 and ahead > AHEAD_MAX_NS:
            raise MessageError(
                "stamps jump ahead",
                f"Topic {topic}: stamp {stamp_ns} is {ahead / 1e9:.0f} s further ahead of the one before than the time between "
                "them; the sender's clock was set, or its driver fills in wrong stamps.",
            )
        back = newest.stamp_ns - stamp_ns
        if back > REORDERED_MAX_NS:
            raise MessageError(
                "stamps go backwards",
                f"Topic {topic}: stamp {stamp_ns} is {back / 1e9:g} s before the one before; the sender's clock was set "
                "back, or the simulation started again.",
            )
        if back > 0:
            self.out_of_order[topic] = self.out_of_order.get(topic, 0) + 1


@dataclass
class Tally:
    """What an episode took and what was refused, for the report."""

    streams: dict[str, StreamTaken] = field(default_factory=dict)
    refused: dict[tuple[str, str], RefusedMessages] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)

    def take(self, fit: Fit) -> None:
        """Count a message that was taken."""
        self.topics.add(fit.topic)
        for name in fit.rows:
            known = self.streams.get(name, StreamTaken(0, fit.stamp_ns, 0))
            self.streams[name] = StreamTaken(known.rows + 1, known.first_stamp_ns, fit.stamp_ns)

    def refuse(self, topic: str, error: MessageError) -> None:
        """Count a message that was refused."""
        key = topic, error.cause
        known = self.refused.get(key)
        first = known.first if known else str(error)
        self.refused[key] = RefusedMessages(topic, error.cause, known.messages + 1 if known else 1, first)
