"""What a crash leaves in a dataset's directory, taken away at the next opening for writing."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from lehrling.datasets.dataset_root import GROUP
from lehrling.datasets.edit_pending import pending_edit

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
        shutil.rmtree(path)
        swept.append(f"removed the half-begun journal {path.name}")
    for path in sorted((root / "snapshots").glob(".*.partial")):
        if not _alive(path.name.split(".")[-2]):
            path.unlink(missing_ok=True)
            swept.append(f"removed the half-written snapshot {path.name}")
    awaited = pending_edit(root)
    kept = {*dataset.records, *dataset.unfinished(), *(awaited.ids if awaited else ())}
    for path in sorted((root / "episodes").iterdir()):
        if path.name.startswith(".") and path.name.endswith(".partial"):
            shutil.rmtree(path)
            swept.append(f"removed the half-written {path.name}")
        elif path.name != GROUP and path.name not in kept and path.is_dir():
            _set_aside(root, path)
            swept.append(f"set aside {path.name}, which the manifest does not list")
    return swept


def _set_aside(root: Path, path: Path) -> None:
    target = root / "quarantine" / path.name
    target.parent.mkdir(exist_ok=True)
    path.rename(target)


def _alive(process: str) -> bool:
    """Whether the process runs that is writing a snapshot, which takes no lock."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
