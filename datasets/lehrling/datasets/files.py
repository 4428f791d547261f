"""File operations that promises rest on: durable writes, contained paths, hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

from lehrling.datasets.errors import InputError, StorageError

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def checked_id(name: str) -> str:
    """Return the id if it can name a directory of its own.

    Raises:
        InputError: anything else, such as a path.
    """
    if not ID.fullmatch(name) or ".." in name:
        raise InputError(f"Expected an id of letters, digits, '_', '-' and '.', got {name[:80]!r}.")
    return name


def fsync_path(path: Path) -> None:
    """Make a file's content, or a directory's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file at once: temporary sibling, fsync, rename, fsync of the directory."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
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


def sha256_file(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error that a user sees for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"No space left while writing {path}; what was written before stays. Free some space, then run "
            "`lehrling repair` on the dataset."
        )
    return StorageError(f"Writing {path} failed: {error.strerror or error}; what was written before stays.")


def refuse_links(root: Path) -> None:
    """Refuse symbolic links below `root`: they can lead out of a dataset.

    Raises:
        InputError: naming the first link.
    """
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder) / name
            if path.is_symlink():
                raise InputError(f"{path} is a symbolic link; datasets are read without following any.")


def tree_bytes(root: Path) -> int:
    """Return the size of all files below `root` in bytes."""
    return sum((Path(folder) / name).stat().st_size for folder, _, names in os.walk(root) for name in names)
