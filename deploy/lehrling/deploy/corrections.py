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
WAITING_BYTES = 256 << 20
"""Messages of this size in all may wait for the disk."""


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
    size: int


@dataclass(frozen=True)
class _End:
    outcome: Outcome
    lost: int


class Corrections:
    """Writes interventions into a dataset, in a thread of its own; each is sealed once it has ended. Callers never wait.

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
        self._waiting: queue.SimpleQueue[Received | _Begin | _End | None] = queue.SimpleQueue()
        self._size, self._lock = 0, threading.Lock()
        self.written: list[str] = []
        self.lost = self._lost_before = 0
        self._thread = threading.Thread(target=self._run, name="corrections", daemon=True)
        self._thread.start()

    def take(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> None:
        """Note a message that was received or sent, by its full topic."""
        name = self._names.get(topic)
        if name is None:
            return
        message = Received(name, cdr, wall_ns, now_ns)
        if self._open:
            if self._fits(len(cdr)):
                self._waiting.put(message)
            else:
                self.lost += 1
            return
        self._before.append(message)
        self._bytes += len(cdr)
        while self._before and (now_ns - self._before[0].monotonic_ns > BEFORE_NS or self._bytes > BEFORE_BYTES):
            self._bytes -= len(self._before.popleft().cdr)

    def _fits(self, size: int) -> bool:
        """Take room for what shall wait, if there is any."""
        with self._lock:
            fits = self._size + size <= WAITING_BYTES
            self._size += size if fits else 0
        return fits

    def begin(self, instruction: str, details: dict[str, str | int]) -> None:
        """Begin an episode, with what was seen just before."""
        if not self._open:
            self._open, self._lost_before = True, self.lost
            fits = self._fits(self._bytes)
            self.lost += 0 if fits else len(self._before)
            before = tuple(self._before) if fits else ()
            self._waiting.put(_Begin(instruction, details, before, self._bytes if fits else 0))
            self._before.clear()
            self._bytes = 0

    def end(self, outcome: Outcome = "unknown") -> None:
        """End the episode, if there is one."""
        if self._open:
            self._open = False
            self._waiting.put(_End(outcome, self.lost - self._lost_before))

    def close(self) -> None:
        """End what is open, seal it and end the thread."""
        self.end()
        self._waiting.put(None)
        self._thread.join(60)

    def _run(self) -> None:
        writer: JournalWriter | None = None
        while (item := self._waiting.get()) is not None:
            try:
                writer = self._written(writer, item)
            except Exception as error:  # noqa: BLE001 (the thread must outlive whatever an episode brings)
                if writer is not None:
                    writer.abandon()
                writer = None
                why = str(error) if isinstance(error, LehrlingError) else f"{type(error).__name__}: {error}"
                self._tell(f"A correction is not recorded to its end: {why}")
            with self._lock:
                self._size -= _size(item)

    def _written(self, writer: JournalWriter | None, item: Received | _Begin | _End) -> JournalWriter | None:
        """Do what an item asks for; return the writer of the episode that is open after it."""
        if isinstance(item, _Begin):
            return self._begin(item)
        if writer is None:
            return None
        if isinstance(item, _End):
            self._end(writer, item)
            return None
        _write(writer, item)
        return writer

    def _begin(self, word: _Begin) -> JournalWriter:
        if not self._root.is_dir() or not any(self._root.iterdir()):
            Dataset.open_for_writing(self._root, create=True).close()
        Dataset.open(self._root)
        name = f"correction_{datetime.now(UTC):%Y%m%dT%H%M%S}_{time.time_ns() % 1_000_000_000:09d}"
        meta = EpisodeMeta(
            name, "correction", word.instruction, self._embodiment.name, "robot", details={**word.details}
        )
        writer = JournalWriter(self._root, meta, self._embodiment)
        try:
            for message in word.before:
                _write(writer, message)
        except BaseException:
            writer.abandon()
            raise
        return writer

    def _end(self, writer: JournalWriter, word: _End) -> None:
        lost = [f"{word.lost} messages found no room while the disk was behind"] if word.lost else []
        writer.close(word.outcome, "operator let go", lost, {"intervention": True})
        self.written.append(writer.directory.name)
        try:
            Dataset.open_for_writing(self._root).close()
        except LockedError:
            self._tell(f"{self._root} is being written by another program, which will seal {writer.directory.name}.")


def _size(item: Received | _Begin | _End) -> int:
    if isinstance(item, Received):
        return len(item.cdr)
    return item.size if isinstance(item, _Begin) else 0


def _write(writer: JournalWriter, message: Received) -> None:
    writer.write(message.topic, message.cdr, received_ns=message.received_ns, monotonic_ns=message.monotonic_ns)
