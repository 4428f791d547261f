"""The latched stop: kept in a file, so that a restart finds it; only a local operator clears it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import flock, fsync_path, storage_error, write_durably

FILE_BYTES_MAX = 1 << 16


@dataclass(frozen=True)
class LatchState:
    """What the file says.

    Attributes:
        cause: of the stop; an empty string where none is latched.
        at: wall-clock time, ISO 8601.
        reset_by: who cleared the stop before.
    """

    cause: str = ""
    text: str = ""
    at: str = ""
    reset_by: str = ""

    @property
    def latched(self) -> bool:
        """Whether a stop is latched."""
        return bool(self.cause)


def read_latch(path: Path) -> LatchState:
    """Read a latch file; one that cannot be read counts as latched."""
    if not path.exists():
        return LatchState()
    try:
        data = read_json(path, "latch file", bytes_max=FILE_BYTES_MAX)
        return LatchState(**{key: str(data[key]) for key in ("cause", "text", "at", "reset_by")})
    except (OSError, InputError, TypeError, KeyError) as error:
        return LatchState("unreadable latch file", f"{path} cannot be read ({type(error).__name__})", _now())


class Latch:
    """A latched stop, with its file if there is one; one guard at a time may use a file.

    `engage` returns within the tick: the file is replaced at once, which outlives the process, and made durable against
    power loss by a thread. In memory the stop is latched whatever becomes of the file.
    """

    def __init__(self, path: Path | None) -> None:
        """Take the file.

        Raises:
            LockedError: another guard uses it.
            StorageError: the file cannot be written.
        """
        self.path, self._lock = path, -1
        self.state, self.failure = LatchState(), ""
        self._syncing: threading.Thread | None = None
        if path is not None:
            self._lock = _take_lock(path)
            self.state = read_latch(path)
            try:
                write_durably(path, _encoded(self.state))
            except BaseException:
                self.close()
                raise

    @property
    def latched(self) -> bool:
        """Whether a stop is latched."""
        return self.state.latched

    def engage(self, cause: str, text: str) -> None:
        """Latch a stop; the first cause stays. `failure` says if the file could not be written."""
        if self.latched:
            return
        self.state = LatchState(cause, text, _now(), self.state.reset_by)
        if self.path is None:
            return
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            partial.write_bytes(_encoded(self.state))
            partial.replace(self.path)
        except OSError as error:
            self.failure = str(storage_error(error, self.path))
            return
        self._syncing = threading.Thread(target=self._sync, name="guard-latch", daemon=True)
        self._syncing.start()

    def clear(self, operator: str) -> None:
        """Clear the stop, durably; for a local operator, never for what a client sends.

        Raises:
            StorageError: the file cannot be written; the stop stays latched.
        """
        self._joined()
        state = LatchState(reset_by=f"{operator} at {_now()}")
        if self.path is not None:
            write_durably(self.path, _encoded(state))
        self.state, self.failure = state, ""

    def close(self) -> None:
        """Let go of the file; a latched stop stays in it."""
        self._joined()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _joined(self) -> None:
        if self._syncing is not None:
            self._syncing.join()
            self._syncing = None

    def _sync(self) -> None:
        if self.path is None:
            return
        try:
            fsync_path(self.path)
            fsync_path(self.path.parent)
        except OSError as error:
            self.failure = str(storage_error(error, self.path))


def clear_latch(path: Path, operator: str) -> LatchState:
    """Clear a latch file while no guard uses it; return what it said.

    Raises:
        InputError: there is no such file.
        LockedError: a guard uses it; reset there.
    """
    if not path.is_file():
        raise InputError(f"There is no latch file at {path}.")
    latch = Latch(path)
    try:
        said = latch.state
        latch.clear(operator)
    finally:
        latch.close()
    return said


def _encoded(state: LatchState) -> bytes:
    return json.dumps(asdict(state), indent=1).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _take_lock(path: Path) -> int:
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage_error(error, lock) from error
    flock(descriptor, f"Another guard commands the robot of {path}; end it first.")
    return descriptor
