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
        self._told: deque[Event] = deque(maxlen=WAITING_MAX)
        self.failure, self._failed_s = "", 0.0
        self._lock = threading.RLock()

    def trouble(self) -> Mapping[int, str]:
        """Return what is wrong, by code of `FAULTS`; try again where it is time to."""
        if self.failure and self._clock() - self._failed_s >= REOPEN_S:
            self._reopen()
        return {UNWRITTEN: f"The audit cannot be written: {self.failure}"} if self.failure else {}

    def tell(self, event: Event) -> None:
        """Have an event of another thread written with the next ones; the oldest are dropped where nobody writes."""
        self._told.append(event)

    def record(self, kind: str, facts: Mapping[str, object]) -> None:
        """Write at once.

        Raises:
            StorageError: it cannot be written; the robot is stopped.
        """
        if self._audit is not None:
            self._write(kind, facts)
        if self._audit is None:
            raise StorageError(self.failure or "The cell's audit has ended.")

    def write(self, events: Iterable[Event]) -> bool:
        """Write events, those told before first; return whether all are written."""
        while self._told:
            told = self._told.popleft()
            self._write(told.kind, told.facts)
        for event in events:
            self._write(event.kind, event.facts)
        return not self.failure

    def close(self) -> None:
        """End the audit."""
        with self._lock:
            if self._audit is None:
                return
            try:
                self._audit.close()
            except LehrlingError as error:
                _log.error("the end of the audit could not be written: %s", error)
            self._audit = None

    def _write(self, kind: str, facts: Mapping[str, object]) -> None:
        with self._lock:
            if self._audit is None:
                return
            try:
                self._audit.write(kind, facts)
            except LehrlingError as error:
                self._fail(error)

    def _fail(self, error: LehrlingError) -> None:
        self.failure, self._failed_s = str(error), self._clock()
        _log.error("the audit cannot be written; the robot is stopped: %s", error)
        self.close()

    def _reopen(self) -> None:
        with self._lock:
            try:
                self._audit = self._make()
                self._audit.write("audit back", {"failure": self.failure})
                self.failure = ""
            except LehrlingError as error:
                self._fail(error)
