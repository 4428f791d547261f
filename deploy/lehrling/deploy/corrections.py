"""Interventions as demonstrations: what an operator did in place of the policy, as a labelled episode (DAgger-style)."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import LehrlingError, LockedError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter, Outcome

BEFORE_NS = 1_000_000_000
"""What was seen so long before the operator took over belongs to the episode."""
BEFORE_BYTES = 64 << 20
WAITING_MAX = 20_000


@dataclass(frozen=True)
class Received:
    """A message of an embodiment's topic, by the embodiment's name of it."""

    topic: str
    cdr: bytes
    received_ns: int
    monotonic_ns: int


@dataclass(frozen=True)
class _Begin:
    instruction: str
    details: dict[str, str | int]
    before: tuple[Received, ...]


@dataclass(frozen=True)
class _End:
    outcome: Outcome


class Corrections:
    """Writes interventions into a dataset, in a thread of its own; each is sealed once it has ended.

    Attributes:
        written: ids of the episodes that were.
        lost: messages that there was no room for, while the disk was behind.
    """

    def __init__(self, root: Path, embodiment: Embodiment, tell: Callable[[str], None]) -> None:
        """Take a dataset, which may be new; what goes wrong is told, the robot goes on."""
        self._root, self._embodiment, self._tell = root, embodiment, tell
        prefix = f"/{name}" if (name := embodiment.binding.namespace.strip("/")) else ""
        self._names = {prefix + topic: topic for topic in embodiment.binding.topics}
        self._before: deque[Received] = deque()
        self._bytes = 0
        self._open = False
        self._waiting: queue.Queue[Received | _Begin | _End | None] = queue.Queue(WAITING_MAX)
        self.written: list[str] = []
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="corrections", daemon=True)
        self._thread.start()

    def take(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        """Note a message that was received or sent, by its full topic."""
        name = self._names.get(topic)
        if name is None:
            return
        message = Received(name, cdr, wall_ns, now_ns)
        if self._open:
            self._put(message)
            return
        self._before.append(message)
        self._bytes += len(cdr)
        while self._before and (now_ns - self._before[0].monotonic_ns > BEFORE_NS or self._bytes > BEFORE_BYTES):
            self._bytes -= len(self._before.popleft().cdr)

    def _put(self, item: Received | _Begin | _End) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self.lost += 1

    def begin(self, instruction: str, details: dict[str, str | int]) -> None:
        """Begin an episode, with what was seen just before."""
        if not self._open:
            self._open = True
            self._put(_Begin(instruction, details, tuple(self._before)))
            self._before.clear()
            self._bytes = 0

    def end(self, outcome: Outcome = "unknown") -> None:
        """End the episode, if there is one."""
        if self._open:
            self._open = False
            self._waiting.put(_End(outcome))

    def close(self) -> None:
        """End what is open, seal it and end the thread."""
        self.end()
        self._waiting.put(None)
        self._thread.join(60)

    def _run(self) -> None:
        writer: JournalWriter | None = None
        while (item := self._waiting.get()) is not None:
            try:
                if isinstance(item, _Begin):
                    writer = self._begin(item)
                elif isinstance(item, _End):
                    ended, writer = writer, None
                    if ended is not None:
                        self._end(ended, item)
                elif writer is not None:
                    _write(writer, item)
            except LehrlingError as error:
                writer = None
                self._tell(f"A correction is not recorded to its end: {error}")

    def _begin(self, word: _Begin) -> JournalWriter:
        if not self._root.is_dir() or not any(self._root.iterdir()):
            Dataset.open_for_writing(self._root, create=True).close()
        Dataset.open(self._root)
        name = f"correction_{datetime.now(UTC):%Y%m%dT%H%M%S}_{time.time_ns() % 1_000_000_000:09d}"
        meta = EpisodeMeta(
            name, "correction", word.instruction, self._embodiment.name, "robot", details={**word.details}
        )
        writer = JournalWriter(self._root, meta, self._embodiment)
        for message in word.before:
            _write(writer, message)
        return writer

    def _end(self, writer: JournalWriter, word: _End) -> None:
        lost = [f"{self.lost} messages found no room while the disk was behind"] if self.lost else []
        writer.close(word.outcome, "operator let go", lost, {"intervention": True})
        self.written.append(writer.directory.name)
        try:
            Dataset.open_for_writing(self._root).close()
        except LockedError:
            self._tell(f"{self._root} is being written by another program, which will seal {writer.directory.name}.")


def _write(writer: JournalWriter, message: Received) -> None:
    writer.write(message.topic, message.cdr, received_ns=message.received_ns, monotonic_ns=message.monotonic_ns)
