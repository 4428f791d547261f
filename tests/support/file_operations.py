"""Every file operation below a directory passes through here, to be counted, refused or written down.

Python's own functions are replaced, those of `io` and `os`, so that what zarr and mcap do is seen too.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        kind: read (a file is opened to read), create, truncate, write, fsync, rename, link, mkdir, unlink or rmdir.
        path: relative to the watched directory, "." for itself.
        other: where it is renamed or linked to.
        offset: where `data` goes in the file, or the size it is cut to.
    """

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


Watcher = Callable[[Operation], None]
"""Called before an operation is done; what it raises is what the operation fails with."""


class _Raw(io.FileIO):
    """A file whose writes are told."""

    def __init__(self, watch: _Watch, name: str, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._watch, self._place, self._appends = watch, name, "a" in mode

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        at = os.fstat(self.fileno()).st_size if self._appends else self.tell()
        self._watch.tell(Operation("write", self._place, offset=at, data=content))
        return super().write(content)

    def truncate(self, size: int | None = None, /) -> int:
        self._watch.tell(Operation("truncate", self._place, offset=self.tell() if size is None else size))
        return super().truncate(size)


class _Watch:
    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root, self.watcher = os.path.realpath(root), watcher
        self.lock = threading.RLock()
        self.io_open, self.os_open, self.functions = io.open, os.open, {}  # type: ignore[var-annotated]

    def tell(self, operation: Operation) -> None:
        with self.lock:
            self.watcher(operation)

    def name(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return a path relative to the watched directory; None of what is outside."""
        if isinstance(path, int):
            full = str(Path(f"/proc/self/fd/{path}").readlink())
        else:
            base = str(Path(f"/proc/self/fd/{dir_fd}").readlink()) if dir_fd is not None else ""
            full = os.path.abspath(os.path.join(base, os.fspath(path)))  # noqa: PTH100, PTH118
        if full != self.root and not full.startswith(self.root + "/"):
            return None
        return os.path.relpath(full, self.root)

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        name = None if isinstance(file, int) else self.name(file)
        if name is None:
            return self.io_open(file, mode, buffering, *rest, **named)
        writes = bool(set(mode) & set("wxa+"))
        if not writes:
            self.tell(Operation("read", name))
            return self.io_open(file, mode, buffering, *rest, **named)
        with self.lock:
            self._told_opening(name, file, mode)
            raw = _Raw(self, name, file, mode.replace("b", "").replace("t", ""))
        if "b" in mode and buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        stream = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return stream if "b" in mode else io.TextIOWrapper(stream, *rest, **named)

    def _told_opening(self, name: str, file: Any, mode: str) -> None:
        there = os.path.exists(file)  # noqa: PTH110
        if not there and "r" not in mode:
            self.tell(Operation("create", name))
        elif "w" in mode:
            self.tell(Operation("truncate", name))
        else:
            self.tell(Operation("read", name))

    def low_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self.name(path, dir_fd)
        if name is not None:
            made = flags & os.O_CREAT and not os.path.exists(path)  # noqa: PTH110
            self.tell(Operation("create" if made else "read", name))
        return self.os_open(path, flags, mode, dir_fd=dir_fd)

    def function(self, kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:
            name = self.name(path, named.get("dir_fd"))
            with self.lock:
                if name is not None:
                    self.tell(self._operation(kind, name, rest))
                return original(path, *rest, **named)

        return call

    def _operation(self, kind: str, name: str, rest: tuple[Any, ...]) -> Operation:
        if kind in ("rename", "link"):
            return Operation(kind, name, self.name(rest[0]) or "")
        if kind == "write":
            return Operation(kind, name, offset=rest[1] if len(rest) > 1 else 0, data=bytes(rest[0]))
        return Operation(kind, name, offset=rest[0] if kind == "truncate" else 0)


FUNCTIONS = {
    "fsync": "fsync",
    "fdatasync": "fsync",
    "rename": "rename",
    "replace": "rename",
    "link": "link",
    "mkdir": "mkdir",
    "unlink": "unlink",
    "remove": "unlink",
    "rmdir": "rmdir",
    "truncate": "truncate",
    "ftruncate": "truncate",
    "pwrite": "write",
}


@contextmanager
def watched(root: Path, watcher: Watcher) -> Iterator[None]:
    """Let a watcher see every operation below `root` before it is done."""
    watch = _Watch(root, watcher)
    patches: list[Any] = [
        mock.patch.object(io, "open", watch.open),
        mock.patch.object(builtins, "open", watch.open),
        mock.patch.object(os, "open", watch.low_open),
    ]
    patches += [mock.patch.object(os, n, watch.function(kind, getattr(os, n))) for n, kind in FUNCTIONS.items()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
