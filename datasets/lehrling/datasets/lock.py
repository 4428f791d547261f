"""The dataset lock: one writer at a time, released by the kernel however the writer ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

from lehrling.datasets.documents import parse_json
from lehrling.datasets.errors import LockedError
from lehrling.datasets.files import storage_error

LOCK = ".lock"


class WriteLock:
    """An flock on `<root>/.lock`; the file says who holds it."""

    def __init__(self, root: Path) -> None:
        """Take the lock.

        Raises:
            LockedError: another process holds it; the message says which.
            StorageError: the dataset cannot be written.
        """
        path = root / LOCK
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._descriptor, 4096).decode(errors="replace")
            os.close(self._descriptor)
            raise LockedError(f"{root} is being written by {_who(holder)}; wait for it to end, or stop it.") from None
        facts = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, facts.encode(), 0)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _who(text: str) -> str:
    try:
        facts = parse_json(text, "the lock")
        return f"process {facts['pid']} on {facts['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
