"""What was received on its way to the journal: a queue bounded in bytes, which counts what it cannot take."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

BYTES_MAX = 256 << 20
OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Captured:
    """One message as the middleware gave it.

    Attributes:
        topic: the embodiment's name of it.
        received_ns: receipt on the realtime clock, or on `/clock` where simulation time is used.
        monotonic_ns: receipt on the monotonic clock.
        publish_ns, sequence: None where the middleware does not tell.
        sender: the publisher's id, empty where the middleware does not tell.
    """

    topic: str
    cdr: bytes
    received_ns: int
    monotonic_ns: int
    publish_ns: int | None = None
    sequence: int | None = None
    sender: bytes = b""


@dataclass(frozen=True, slots=True)
class Mark:
    """A word to the writer, in order with the messages: what came before it is handled before it."""

    word: object


@dataclass(slots=True)
class Refused:
    """Messages of one publisher that did not fit; `first` and `newest` sequence numbers are None where there are none."""

    count: int
    first: int | None
    newest: int | None

    def add(self, sequence: int | None) -> None:
        """Count one more."""
        self.count += 1
        if sequence is None or self.newest is None or self.first is None:
            self.first = self.newest = None
        else:
            self.first, self.newest = min(self.first, sequence), max(self.newest, sequence)


@dataclass(slots=True)
class Lost:
    """Messages that did not fit, in order with those that did; by topic and publisher.

    Attributes:
        monotonic_ns: when the first of them was received.
    """

    monotonic_ns: int
    by_sender: dict[tuple[str, bytes], Refused] = field(default_factory=dict)
    taken: bool = False


Item = Captured | Mark | Lost


class CaptureQueue:
    """One thread puts messages, one takes them; neither waits for the other.

    Attributes:
        lost: messages that did not fit, per topic, since the beginning.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._items: deque[Item] = deque()
        self._bytes_max, self._in, self._out = bytes_max, 0, 0
        self._wake, self._refusing = threading.Event(), threading.Lock()
        self.lost: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        """Bytes of the messages that wait."""
        return self._in - self._out

    def put(self, message: Captured) -> bool:
        """Add a message, or count it as lost where the queue is full; return whether it was added."""
        size = len(message.cdr) + OVERHEAD_BYTES
        if self._in - self._out + size > self._bytes_max:
            self._refuse(message)
            return False
        self._in += size
        self._items.append(message)
        self._wake.set()
        return True

    def _refuse(self, message: Captured) -> None:
        """Count a message in the newest item, so that memory stays bounded however many are refused in a row."""
        self.lost[message.topic] = self.lost.get(message.topic, 0) + 1
        key, sequence = (message.topic, message.sender), message.sequence
        with self._refusing:
            last = self._items[-1] if self._items else None
            if not isinstance(last, Lost) or last.taken:
                last = Lost(message.monotonic_ns)
                self._items.append(last)
            if key in last.by_sender:
                last.by_sender[key].add(sequence)
            else:
                last.by_sender[key] = Refused(1, sequence, sequence)
        self._wake.set()

    def mark(self, word: object) -> None:
        """Add a word to the writer; it always fits."""
        self._items.append(Mark(word))
        self._wake.set()

    def take(self, timeout_s: float) -> Item | None:
        """Return the oldest item, or None after `timeout_s`."""
        if not self._items:
            self._wake.wait(timeout_s)
        self._wake.clear()
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, Captured):
            self._out += len(item.cdr) + OVERHEAD_BYTES
        elif isinstance(item, Lost):
            with self._refusing:
                item.taken = True
        return item

    def lag_ns(self) -> int:
        """Return how long the oldest message has waited."""
        try:
            oldest = self._items[0]
        except IndexError:
            return 0
        return time.monotonic_ns() - oldest.monotonic_ns if isinstance(oldest, Captured) else 0
