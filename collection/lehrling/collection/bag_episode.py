"""One episode of a bag on its way into a journal."""

from __future__ import annotations

import shutil
from pathlib import Path

from lehrling.collection.bag_records import BagMessage
from lehrling.collection.message_check import TIME_MAX_NS, MessageCheck, Tally
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import MessageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter, Outcome
from lehrling.datasets.message_types import Types

FLUSH_S, FSYNC_S = 1.0, 10.0
"""An interrupted import is begun again from the bag, so that nothing hangs on frequent syncs."""


class EpisodeWriter:
    """Takes messages while they fit; the journal begins with the first."""

    def __init__(
        self, root: Path, meta: EpisodeMeta, embodiment: Embodiment, types: Types, check: MessageCheck
    ) -> None:
        self.meta, self.tally, self.check = meta, Tally(), check
        self._root, self._embodiment, self._types = root, embodiment, types
        self._journal: JournalWriter | None = None
        self.stopped: MessageError | None = None
        self.passed_over = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was taken."""
        return self._journal is None

    def take(self, message: BagMessage, topic: str, *, skip_bad: bool) -> None:
        """Take a message; the first that does not fit ends the episode, or is left out where `skip_bad` says so.

        Raises:
            StorageError: the disk is full or failed.
        """
        if self.stopped is not None:
            self.passed_over += 1
            return
        try:
            fit = self.check.fit(message, topic)
        except MessageError as error:
            self.tally.refuse(topic, error)
            self.stopped = None if skip_bad else error
            return
        publish = message.publish_ns
        self._open().write(
            topic,
            fit.cdr,
            received_ns=message.received_ns,
            publish_ns=publish if publish is not None and publish <= TIME_MAX_NS else None,
            sequence=message.sequence,
            msgtype=fit.msgtype,
        )
        self.tally.take(fit)

    def _open(self) -> JournalWriter:
        if self._journal is None:
            self._journal = JournalWriter(self._root, self.meta, self._embodiment, FLUSH_S, FSYNC_S, self._types)
        return self._journal

    def losses(self, cut: str) -> tuple[str, ...]:
        """Return sentences on what is missing: messages refused, and the bag's missing end."""
        if self.stopped is not None:
            return (f"{self.stopped} The episode ends there; {self.passed_over} later messages were not taken.",)
        refused = self.tally.refused.values()
        said = [f"{r.messages} messages on {r.topic} left out ({r.cause}): {r.first}" for r in refused]
        return (*said, *([cut] if cut else []))

    def close(self, outcome: Outcome, stop_cause: str, losses: tuple[str, ...]) -> None:
        """End the journal, if it was begun."""
        if self._journal is not None:
            self._journal.close(outcome, stop_cause, losses)

    def abandon(self) -> None:
        """Stop in the middle; the next opening for writing discards what was begun."""
        if self._journal is not None:
            self._journal.abandon()

    def undo(self) -> None:
        """Take back what was begun, as if it had never been."""
        if self._journal is not None:
            self._journal.abandon()
            shutil.rmtree(self._journal.directory)
            self._journal = None
