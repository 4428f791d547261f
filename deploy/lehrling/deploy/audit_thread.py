"""Writes an audit without holding the control loop up: records go to a thread, and a failure comes back with the next."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from lehrling.datasets.errors import StorageError

WAITING_MAX = 10_000
CLOSE_S = 30.0


class AuditThread:
    """Calls a writer from a thread of its own, in order.

    Attributes:
        problem: why nothing more is written; empty while all is well.
    """

    def __init__(self, write: Callable[[str, Mapping[str, Any]], object]) -> None:
        """Begin; `write` raises StorageError where it cannot."""
        self._write = write
        self._waiting: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(WAITING_MAX)
        self._open = 0
        self._lock = threading.Lock()
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def settled(self) -> bool:
        """Return whether all that was told is written.

        Raises:
            StorageError: it could not be.
        """
        if self.problem:
            raise StorageError(self.problem)
        return self._open == 0

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Have a record written soon.

        Raises:
            StorageError: one before could not be, or the disk is too far behind.
        """
        if self.problem:
            raise StorageError(self.problem)
        try:
            with self._lock:
                self._waiting.put_nowait((kind, dict(facts)))
                self._open += 1
        except queue.Full:
            self.problem = f"The audit is {WAITING_MAX} records behind; look at its disk."
            raise StorageError(self.problem) from None

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                if not self.problem:
                    self._write(*item)
            except StorageError as error:
                self.problem = str(error)
            except Exception as error:  # noqa: BLE001 (whatever it is, nothing runs unaudited)
                self.problem = f"The audit cannot be written ({type(error).__name__}: {error})."
            with self._lock:
                self._open -= 1

    def close(self) -> None:
        """Write what is waiting and end the thread; one whose disk does not answer is left behind, with a problem."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self.problem = f"The audit's disk has not answered for {CLOSE_S:g} s; its last records may be missing."
