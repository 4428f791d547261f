"""The audit: what a robot's software did, in an append-only file whose records are chained by their hashes.

Each record carries the sha256 over the hash of the record before it and its own canonical JSON, so that a record that is
changed, removed, inserted or moved later is found (`audit_verify`). What a chain alone cannot show is that its end was cut
off, or that all of it was written anew: for that, keep the head that `close` returns somewhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from lehrling.datasets.errors import DamageError, DocumentError, InputError, StorageError
from lehrling.datasets.files import flock, fsync_path
from lehrling.deploy.audit_record import (
    FORMAT,
    LINE_BYTES_MAX,
    START,
    Head,
    Kind,
    audit_files,
    decode,
    encode,
    next_file,
    torn_files,
)

FILE_BYTES_MAX = 16 << 20
CLOSE_S = 4.0
TORN_BYTES_MAX = 64 << 20
UNSYNCED = frozenset({Kind.CLAMPS})
"""Kinds that may be lost with the power, not with the process: they come in bursts, and none of them ends a motion."""


class AuditLog:
    """Writes an audit; to be used by several threads at will.

    `write` returns once the record is in the file, and for all but clamp bursts on the disk, which can take many
    milliseconds: stop first, then write. After a failure nothing more is taken; opening it again verifies and mends it.

    Attributes:
        head: of the last record.
        failure: why nothing more is taken; "" while all is well.
    """

    def __init__(
        self, path: Path, *, facts: Mapping[str, object] | None = None, file_bytes_max: int = FILE_BYTES_MAX
    ) -> None:
        """Open an audit, or go on with the one at `path`, whose newest file is verified first.

        `facts` hold from now on, such as hashes of model, contract and configuration. A file that would grow beyond
        `file_bytes_max` is renamed to `PATH.000001` and so on.

        Raises:
            LockedError: another process writes it.
            DamageError: what is there is no whole chain; it is left as it is.
            StorageError: it cannot be written.
        """
        self.path, self.facts, self._bytes_max = path, dict(facts or {}), file_bytes_max
        self.head, self.failure = START, ""
        self._mutex = threading.Lock()
        self._file, self._bytes = -1, 0
        self._lock = _take_lock(path)
        try:
            self._begin()
        except OSError as error:
            self._release()
            raise _unwritten(error, path) from error
        except BaseException:
            self._release()
            raise

    def write(self, kind: str, facts: Mapping[str, object] | None = None) -> Head:
        """Append a record; `kind` is a `Kind` or another name in small letters. Return the new head.

        Raises:
            StorageError: it cannot be written, or the audit is closed; the caller stops the robot.
            InputError: the kind is not a name.
        """
        with self._mutex:
            return self._write(kind, facts or {})

    def close(self) -> Head:
        """Say that the audit ends, and return its head, to be kept elsewhere; a second call returns it again.

        Raises:
            StorageError: the last record cannot be written, or another thread still waits for the disk.
        """
        if not self._mutex.acquire(timeout=CLOSE_S):
            raise StorageError(
                f"The disk of the audit {self.path} does not answer, and its last records may be missing; look at the disk."
            )
        try:
            if self._file >= 0 and not self.failure:
                self._write(Kind.CLOSED, {})
            return self.head
        finally:
            self._release()
            self._mutex.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _begin(self) -> None:
        self.head = _resumed(self.path)
        self._open()
        if torn := [(file.name, file.read_bytes()) for file in torn_files(self.path, self.head.next)]:
            kept = [{"file": n, "bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in torn]
            self._write(Kind.TORN, {"kept": kept})
        self._write(Kind.OPENED, {"format": FORMAT, **self.facts})

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self.path, flags, 0o640)
        self._bytes = os.fstat(self._file).st_size
        fsync_path(self.path.parent)

    def _write(self, kind: str, facts: Mapping[str, object]) -> Head:
        if self.failure or self._file < 0:
            raise StorageError(self.failure or f"The audit {self.path} is closed; open it again to write.")
        line = encode(self.head, kind, facts, time.monotonic_ns())
        try:
            if self._bytes and self._bytes + len(line) > self._bytes_max:
                self._rotate()
                line = encode(self.head, kind, facts, time.monotonic_ns())
            self._append(line, durable=kind not in UNSYNCED)
        except OSError as error:
            self.failure = str(_unwritten(error, self.path))
            raise StorageError(self.failure) from error
        return self.head

    def _append(self, line: bytes, *, durable: bool) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
            if durable:
                os.fdatasync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._bytes)
            raise
        self._bytes += len(line)
        self.head = _head(line)

    def _rotate(self) -> None:
        """Begin another file, whose first record says what holds, so that it can be read alone."""
        os.fsync(self._file)
        self.path.rename(next_file(self.path))
        os.close(self._file)
        self._file = -1
        self._open()
        line = encode(self.head, Kind.CONTINUED, {"format": FORMAT, **self.facts}, time.monotonic_ns())
        self._append(line, durable=True)

    def _release(self) -> None:
        for name in ("_file", "_lock"):
            if (descriptor := getattr(self, name)) >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


def _head(line: bytes) -> Head:
    record = decode(line, "the record written last")
    return Head(record.sequence, record.hash)


def _resumed(path: Path) -> Head:
    """Return the head to go on from; the newest file is verified, and a line torn at its end is kept aside."""
    files = audit_files(path)
    if not files:
        return START
    found, torn = _scanned(files[-1])
    head = found or _head_of(files[:-1])
    if torn and (files[-1] != path or b"\n" in torn or len(torn) > TORN_BYTES_MAX):
        raise DamageError(f"{files[-1]} is no chain behind record {head.sequence}; keep it, and begin another audit.")
    if torn:
        _keep_aside(path, torn, head)
    return head


def _head_of(older: list[Path]) -> Head:
    """Return the head that a file goes on from which holds no record yet."""
    if not older:
        return START
    head, torn = _scanned(older[-1])
    if head is None or torn:
        raise DamageError(f"{older[-1]} is not whole, though it was full; keep it, and begin another audit.")
    return head


def _scanned(path: Path) -> tuple[Head | None, bytes]:
    """Verify a file's whole lines; return the head, if there is a record, and what is behind the last of them."""
    head = None
    with path.open("rb") as file:
        while (line := file.readline(LINE_BYTES_MAX + 1)).endswith(b"\n"):
            head = _followed(line, head, path)
        return head, line + file.read(TORN_BYTES_MAX)


def _followed(line: bytes, head: Head | None, file: Path) -> Head:
    try:
        record = decode(line, f"{file}, {'the first record' if head is None else f'record {head.next}'},")
    except DocumentError as error:
        raise DamageError(f"{str(error).rstrip('.')}; keep the file, and begin another audit.") from error
    if head is not None and (record.sequence, record.previous) != (head.next, head.hash):
        raise DamageError(f"{file} is no chain after record {head.sequence}; keep it, and begin another audit.")
    return Head(record.sequence, record.hash)


def _keep_aside(path: Path, torn: bytes, head: Head) -> None:
    """Move a torn line into a file of its own, durably before it leaves this one."""
    aside = path.with_name(f"{path.name}.torn-{head.next:09d}-{len(torn_files(path, head.next))}")
    with aside.open("xb") as kept:
        kept.write(torn)
        kept.flush()
        os.fsync(kept.fileno())
    fsync_path(path.parent)
    with path.open("r+b") as whole:
        whole.truncate(whole.seek(0, os.SEEK_END) - len(torn))
        os.fsync(whole.fileno())


def _take_lock(path: Path) -> int:
    lock = path.with_name(f".{path.name}.lock")
    if path.is_dir():
        raise InputError(f"Expected a file to write the audit to, but {path} is a folder.")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise _unwritten(error, path) from error
    flock(descriptor, f"Another process writes the audit {path}; end it first, or give another path.")
    return descriptor


def _unwritten(error: OSError, path: Path) -> StorageError:
    return StorageError(
        f"The audit {path} cannot be written ({error.strerror or error}), and the robot is not to run without. "
        "Free some space or mend the disk, then start again."
    )
