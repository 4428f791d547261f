"""Copying a sealed episode byte for byte, every file compared with its inventory on the way."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from lehrling.datasets import inventory
from lehrling.datasets.errors import DamageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import fsync_path

BLOCK_BYTES = 1 << 20
NOT_IN_KERNEL = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
THREADS = 8
"""Most of the time goes into waiting for the disk to make small files durable, several at once."""


def copy_episode(source: Path, target: Path, content_hash: str) -> None:
    """Copy the episode in `source` to the new directory `target`, durably.

    Every file is hashed once copied and must be what the inventory says, the inventory what `content_hash` says.

    Raises:
        DamageError: the source is not as it was sealed; nothing of use is in `target` then.
        OSError: reading or writing failed.
    """
    entries = inventory.load(source)
    if inventory.content_hash(entries) != content_hash:
        raise DamageError(f"Expected the inventory whose hash the manifest holds in {source}, got another.")
    for entry in entries:
        _refuse_outside(entry.path, source)
    folders = _folders(entry.path for entry in entries)
    target.mkdir()
    for folder in folders:
        (target / folder).mkdir()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda entry: _copy(source, target, entry), entries))
        (target / inventory.NAME).write_bytes((source / inventory.NAME).read_bytes())
        reach("edit-written")
        list(pool.map(fsync_path, [target / inventory.NAME, *(target / folder for folder in folders), target]))
    reach("edit-synced")


def _refuse_outside(path: str, source: Path) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or path == inventory.NAME:
        raise DamageError(f"The inventory of {source} lists {path[:80]!r}, which is no file of an episode.")


def _folders(paths: Iterable[str]) -> list[str]:
    """Return the directories of files, outer ones first."""
    found = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
    return sorted(found - {"."}, key=lambda folder: (folder.count("/"), folder))


def _copy(source: Path, target: Path, entry: inventory.Entry) -> None:
    place = target / entry.path
    with (source / entry.path).open("rb", buffering=0) as reader, place.open("xb+", buffering=0) as writer:
        size = _transfer(reader.fileno(), writer.fileno(), entry.size + 1)
        writer.seek(0)
        found = hashlib.file_digest(writer, "sha256").hexdigest()
        os.fsync(writer.fileno())
    if size != entry.size or found != entry.sha256:
        raise DamageError(
            f"{source / entry.path} is not as it was sealed; run `lehrling verify` on its dataset, nothing was merged."
        )


def _transfer(reader: int, writer: int, most: int) -> int:
    """Copy up to so many bytes inside the kernel, which shares blocks where the file system can; return how many."""
    done = 0
    try:
        while done < most and (count := os.copy_file_range(reader, writer, most - done)):
            done += count
    except OSError as error:
        if done or error.errno not in NOT_IN_KERNEL:
            raise
    while done < most and (block := os.read(reader, min(BLOCK_BYTES, most - done))):
        view = memoryview(block)
        while view:
            view = view[os.write(writer, view) :]
        done += len(block)
    return done
