"""What a crash leaves in a dataset's directory, taken away at the next opening for writing."""

from __future__ import annotations

import os
from itertools import chain, count
from typing import TYPE_CHECKING

from lehrling.datasets.dataset_root import GROUP
from lehrling.datasets.edit_pending import pending_edit
from lehrling.datasets.files import fsync_path, remove_tree, storage_error

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.dataset import Dataset


def sweep(dataset: Dataset) -> list[str]:
    """Remove half-written siblings, and set aside episodes that were never committed; return what was done.

    Whole episodes of an interrupted merge stay, for the merge to go on; nothing reads them meanwhile.
    """
    root = dataset.root
    swept = []
    for path in sorted((root / "journals").glob(".*.partial")):
        remove_tree(path)
        swept.append(f"removed the half-begun journal {path.name}")
    for path in sorted((root / "snapshots").glob(".*.partial")):
        if not _alive(path.name.split(".")[-2]):
            path.unlink(missing_ok=True)
            swept.append(f"removed the half-written snapshot {path.name}")
    awaited = pending_edit(root)
    kept = {*dataset.records, *dataset.unfinished(), *(awaited.ids if awaited else ())}
    for path in sorted((root / "episodes").iterdir()):
        if path.name.startswith(".") and path.name.endswith(".partial"):
            remove_tree(path)
            swept.append(f"removed the half-written {path.name}")
        elif path.name != GROUP and path.name not in kept and path.is_dir():
            set_aside(root, path)
            swept.append(f"set aside {path.name}, which the manifest does not list")
    return swept


def set_aside(root: Path, path: Path) -> None:
    """Move a directory below `quarantine`, durably and beside what is there under its name; every byte is kept.

    Raises:
        StorageError: the disk is full or failed.
    """
    folder = root / "quarantine"
    names = chain([path.name], (f"{path.name}.{number}" for number in count(2)))
    try:
        folder.mkdir(exist_ok=True)
        path.rename(next(target for name in names if not (target := folder / name).exists()))
        fsync_path(folder)
        fsync_path(path.parent)
    except OSError as error:
        raise storage_error(error, folder) from error


def _alive(process: str) -> bool:
    """Whether the process runs that is writing a snapshot, which takes no lock."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
