"""A cell's audit: what happens is written before it is acted on, and where it cannot be written nothing may run."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from lehrling.datasets.errors import LehrlingError, StorageError
from lehrling.deploy.handshake_image import Event

REOPEN_S = 2.0
WAITING_MAX = 200
LATE_S = 1.0
"""What is written so much later than it happened says so."""
UNWRITTEN = 7
_log = logging.getLogger("lehrling.cell")


class Audit(Protocol):
    """What takes records."""

    def write(self, kind: str, facts: Mapping[str, object]) -> object:
        """Write a record durably.

        Raises:
            StorageError: it cannot be written.
        """
        ...

    def close(self) -> object:
        """End."""
        ...


class CellAudit:
    """Writes events, and opens the audit anew after a failure; `tell` and `record` are for any thread.

    Attributes:
        failure: why nothing can be written; "" while all is well.
    """

    def __init__(self, make: Callable[[], Audit], clock: Callable[[], float] = time.monotonic) -> None:
        """Open the audit.

        Raises:
            LehrlingError: it cannot be.
        """
        self._make, self._clock = make, clock
        self._audit: Audit | None = make()
        self._waiting: deque[tuple[Event, float]] = deque()
        self._dropped = 0
        self.failure, self._failed_s = "", 0.0
        # The second is never held while the disk is waited for.
        self._lock, self._waiting_lock = threading.RLock(), threading.Lock()

    def trouble(self) -> Mapping[int, str]:
        """Return what is wrong, by code of `FAULTS`; try again where it is time to."""
        if self.failure and self._clock() - self._failed_s >= REOPEN_S:
            self._reopen()
        return {UNWRITTEN: f"The audit cannot be written: {self.failure}"} if self.failure else {}

    def tell(self, event: Event) -> None:
        """Have an event of another thread written with the next ones; of more than `WAITING_MAX` the oldest are dropped."""
        with self._waiting_lock:
            self._waiting.append((event, self._clock()))
            if len(self._waiting) > WAITING_MAX:
                self._waiting.popleft()
                self._dropped += 1

    def record(self, kind: str, facts: Mapping[str, object]) -> None:
        """Write at once.

        Raises:
            StorageError: it cannot be written; the robot is stopped.
        """
        if not self._write(kind, facts):
            raise StorageError(self.failure or "The cell's audit has ended.")

    def write(self, events: Iterable[Event]) -> bool:
        """Write events, those that wait first; return whether these are written. Others wait until the audit is back."""
        self._catch_up()
        written = True
        for event in events:
            if not (written and self._write(event.kind, event.facts)):
                written = False
                self.tell(event)
        return written and not self.failure

    def close(self) -> None:
        """End the audit."""
        self._let_go()
        if lost := self._dropped + len(self._waiting):
            _log.error("%d of the cell's events are not in the audit: it could not be written", lost)

    def _catch_up(self) -> None:
        """Write what was told, what could not be written before, and how much of it was dropped."""
        dropped = self._dropped
        if dropped and self._write("events dropped", {"count": dropped}):
            with self._waiting_lock:
                self._dropped -= dropped
        for _ in range(len(self._waiting)):
            with self._waiting_lock:
                event, told_s = self._waiting.popleft()
            age_s = self._clock() - told_s
            late = {"late_s": round(age_s, 3)} if age_s >= LATE_S else {}
            if not self._write(event.kind, {**event.facts, **late}):
                with self._waiting_lock:
                    self._waiting.appendleft((event, told_s))
                return

    def _write(self, kind: str, facts: Mapping[str, object]) -> bool:
        with self._lock:
            if self._audit is None:
                return False
            try:
                self._audit.write(kind, facts)
            except LehrlingError as error:
                self._fail(error)
                return False
            return True

    def _fail(self, error: LehrlingError) -> None:
        self.failure, self._failed_s = str(error), self._clock()
        _log.error("the audit cannot be written; the robot is stopped: %s", error)
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            if self._audit is None:
                return
            try:
                self._audit.close()
            except LehrlingError as error:
                _log.error("the end of the audit could not be written: %s", error)
            self._audit = None

    def _reopen(self) -> None:
        with self._lock:
            try:
                self._audit = self._make()
                self._audit.write("audit back", {"failure": self.failure})
                self.failure = ""
            except LehrlingError as error:
                self._fail(error)
