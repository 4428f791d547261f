"""File operations that promises rest on: durable writes, contained paths, hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lehrling.datasets.errors import InputError, LehrlingError, LockedError, StorageError

MANIFEST = "manifest.jsonl"

_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
STRAYS_S = 2.0
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def is_id(name: str) -> bool:
    """Whether it can name a directory of its own."""
    return ".." not in name and ID.fullmatch(name) is not None


def checked_id(name: str) -> str:
    """Return the id if it can name a directory of its own.

    Raises:
        InputError: anything else, such as a path.
    """
    if not is_id(name):
        raise InputError(f"Expected an id of letters, digits, '_', '-' and '.', got {name[:80]!r}.")
    return name


def fsync_path(path: Path) -> None:
    """Make a file's content, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file at once: temporary sibling, fsync, rename, fsync of the directory; `mode` is its permissions' most."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error


def fsync_tree(root: Path) -> None:
    """Make every file and directory below `root` durable, innermost first."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            fsync_path(Path(folder) / name)
        fsync_path(Path(folder))


def remove_tree(path: Path) -> None:
    """Remove a directory, if it is there, also while threads of a write that failed still make files in it.

    Raises:
        OSError: it cannot be removed.
    """
    until = time.monotonic() + STRAYS_S
    while True:
        try:
            shutil.rmtree(path)
        except OSError as error:
            if not path.exists():
                return
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def placed_whole(final: Path) -> Iterator[Path]:
    """Yield the hidden sibling to write a directory at; it gets its name when that is done, and is taken away if not.

    What is in it must have been made durable; its new name is. Whatever was at `final` must be gone before.

    Raises:
        StorageError: the disk is full or failed.
    """
    partial = final.with_name(f".{final.name}.partial")
    try:
        yield partial
        partial.rename(final)
        fsync_path(final.parent)
    except OSError as error:
        raise storage_error(error, final) from error
    finally:
        with suppress(OSError):
            remove_tree(partial)


def flock(descriptor: int, refused: str) -> None:
    """Lock an open file or directory for this process alone, until it is closed.

    Raises:
        LockedError: another process holds it; `refused` is the message, and the descriptor is closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise LockedError(refused) from None


def sha256_file(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error that a user sees for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        recorded = any((folder / MANIFEST).is_file() for folder in path.parents)
        then = "run `lehrling repair` on the dataset" if recorded else "try again"
        return StorageError(
            f"No space left while writing {path}; what was written before stays. Free some space, then {then}."
        )
    return StorageError(f"Writing {path} failed: {error.strerror or error}; what was written before stays.")


def unreadable(error: Exception, path: Path, damage: LehrlingError) -> LehrlingError:
    """Return `damage`, unless what failed is the reading: then the file may be whole, and is no reason to give it up."""
    if isinstance(error, OSError) and error.errno not in _ABSENT:
        return StorageError(f"Reading {path} failed: {error.strerror or error}; nothing was changed, try again.")
    return damage


def first_link(root: Path | str, *, depth: int | None = None) -> str | None:
    """Return what is neither a file nor a folder below `root`, such as a symbolic link, if there is any.

    `depth` bounds how many folders down it is looked for.
    """
    folders = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    return entry.path
    except FileNotFoundError:
        return None
    if depth == 0:
        return None
    found = (first_link(folder, depth=None if depth is None else depth - 1) for folder in folders)
    return next((link for link in found if link), None)


def refuse_links(root: Path, *, depth: int | None = None) -> None:
    """Refuse symbolic links below `root`, which can lead out of a dataset, and pipes and devices, which never end.

    Raises:
        InputError: naming one.
    """
    if link := first_link(root, depth=depth):
        if Path(link).is_symlink():
            raise InputError(f"{link} is a symbolic link; datasets are read without following any.")
        raise InputError(f"{link} is no regular file; datasets hold nothing else.")


def tree_bytes(root: Path) -> int:
    """Return the size of all files below `root` in bytes."""
    return sum((Path(folder) / name).stat().st_size for folder, _, names in os.walk(root) for name in names)
