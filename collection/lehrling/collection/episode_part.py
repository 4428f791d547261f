"""One episode in one capture process: checked messages into the journal, until one does not fit."""

from __future__ import annotations

from pathlib import Path

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import Captured
from lehrling.collection.capture_words import Stop
from lehrling.collection.message_check import MessageCheck
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError, MessageError, StorageError
from lehrling.datasets.journal import JournalPart
from lehrling.datasets.message_types import Types


class EpisodePart:
    """Writes the files of this process's topics.

    Attributes:
        stop: why nothing more is taken, None while all is well.
        passed_over: messages that came after that.
    """

    def __init__(
        self, directory: Path, embodiment: Embodiment, bound: BoundTopics, types: Types, flush_s: float, fsync_s: float
    ) -> None:
        self._journal = JournalPart(directory, embodiment, flush_s, fsync_s, types)
        self._check = MessageCheck(embodiment, bound, types)
        self._senders: dict[str, bytes] = {}
        self._many: set[str] = set()
        self._refused: Captured | None = None
        self.stop: Stop | None = None
        self.passed_over = 0

    @property
    def counts(self) -> dict[str, int]:
        """Messages written per topic."""
        return self._journal.counts

    @property
    def unflushed_ns(self) -> int:
        """When the oldest message was received that the journal has not flushed, on the monotonic clock; 0: none."""
        return self._journal.unflushed_ns

    def take(self, message: Captured) -> None:
        """Write a message; the first that does not fit ends the episode, everything received before it is kept."""
        if self.stop is not None and not self._before(message):
            self.passed_over += 1
            return
        try:
            self._write(message)
        except MessageError as error:
            self.stop, self._refused = self.stop or Stop(error.cause, str(error)), message
        except StorageError as error:
            self.stop, self._refused = self.stop or _disk(error), None
        except InputError as error:
            self.stop = self.stop or Stop("message refused", str(error))

    def _before(self, message: Captured) -> bool:
        """Whether a message only comes after the one that was refused because its topic was asked later."""
        refused = self._refused
        return refused is not None and message.topic != refused.topic and message.received_ns < refused.received_ns

    def _write(self, message: Captured) -> None:
        fit = self._check.fit(message, message.topic)
        self._journal.write(
            message.topic,
            fit.cdr,
            received_ns=message.received_ns,
            publish_ns=message.publish_ns,
            monotonic_ns=message.monotonic_ns,
            sequence=self._sequence(message),
            msgtype=fit.msgtype,
        )

    def _sequence(self, message: Captured) -> int | None:
        """Return the sequence number; None once a second publisher is heard, since each counts for itself."""
        if self._senders.setdefault(message.topic, message.sender) != message.sender:
            self._many.add(message.topic)
        return None if message.topic in self._many else message.sequence

    def finish(self) -> dict[str, int]:
        """Close the files, everything durable; return the messages per topic.

        Where the disk fails, `stop` says so and what was written before stays.
        """
        try:
            return self._journal.finish()
        except StorageError as error:
            self.stop = self.stop or _disk(error)
            self._journal.abandon()
            return self._journal.counts

    def abandon(self) -> None:
        """Stop without an end."""
        self._journal.abandon()


def _disk(error: StorageError) -> Stop:
    return Stop("disk full" if "No space left" in str(error) else "disk failed", str(error))
