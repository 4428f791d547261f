"""What a cell and a robot's process say to each other, and a sender that nobody waits for."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

WAITING_MAX = 10_000


@dataclass(frozen=True)
class Audit:
    """A record that the cell shall write."""

    number: int
    kind: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """All records up to a number are written, or why this one is not."""

    number: int
    problem: str


@dataclass(frozen=True)
class Word:
    """Something to do or to know, by name."""

    name: str
    value: Any = None


class Sender:
    """Sends from a thread of its own, in order; callers of any thread return at once, whatever the other end does.

    Attributes:
        gone: whether the other end is closed, or does not read what it is sent.
    """

    def __init__(self, connection: Connection) -> None:
        """Take a pipe's end; nobody else sends there."""
        self._connection = connection
        self._waiting: deque[object] = deque()
        self._newest: object = None
        self._changed, self._ending = threading.Condition(), False
        self.gone = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def send(self, item: object) -> None:
        """Send, after what waits."""
        with self._changed:
            if len(self._waiting) < WAITING_MAX:
                self._waiting.append(item)
            else:
                self.gone = True
            self._changed.notify()

    def show(self, state: object) -> None:
        """Send a state, in place of one that still waits."""
        with self._changed:
            self._newest = state
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Send what waits, for so long at most."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                self._connection.send(item)
        except (OSError, ValueError, TypeError):  # TypeError: closed by another thread in the middle of it
            self.gone = True

    def _next(self) -> object:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._newest is not None or self._ending)
            if self._waiting:
                return self._waiting.popleft()
            state, self._newest = self._newest, None
            return state


class Worker[Item]:
    """Calls a function with what it is given, in order, from a thread of its own; what the function raises is of no effect."""

    def __init__(self, work: Callable[[Item], object]) -> None:
        """Begin."""
        self._work = work
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Have something done; return False where too much waits already."""
        if self._waiting.qsize() >= WAITING_MAX:
            return False
        self._waiting.put(item)
        return True

    def close(self, seconds: float) -> None:
        """Do what waits, for so long at most."""
        self._waiting.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            with suppress(Exception):
                self._work(item)
