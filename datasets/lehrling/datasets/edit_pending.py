"""The plan of an edit that makes files, on disk while it works, so that the next opening knows what a crash left.

`edit.json` beside the manifest names the edit's number, its verb and the ids of the episodes it makes. The edit is in force
once its lines are in the manifest. Before that, what a trim or split made is removed: its parent is still valid. What a merge
copied stays, unseen by readers, until the merge goes on, another edit makes files, or `lehrling repair`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import checked_id, fsync_path, storage_error, unreadable, write_durably
from lehrling.datasets.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.dataset import Dataset

PENDING = "edit.json"
BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class PendingEdit:
    """An edit at work: `ids` of the episodes it makes."""

    number: int
    verb: str
    ids: tuple[str, ...]


def pending_edit(root: Path) -> PendingEdit | None:
    """Return the edit that is at work, or was when the process died.

    Raises:
        DamageError: there is one that cannot be read.
    """
    path = root / PENDING
    if not path.is_file():
        return None
    try:
        data = read_json(path, "plan of an edit", bytes_max=BYTES_MAX)
        return PendingEdit(int(data["number"]), str(data["verb"]), tuple(map(checked_id, data["ids"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = DamageError(f"Expected the plan of an edit in {path}, got something else; remove the file.")
        raise unreadable(error, path, damage) from error


def begin_edit(root: Path, plan: PendingEdit) -> None:
    """Write down what an edit is going to make.

    Raises:
        StorageError: the disk is full or failed.
    """
    write_durably(root / PENDING, json.dumps(asdict(plan)).encode())
    reach("edit-planned")


def end_edit(root: Path) -> None:
    """Forget the plan: the edit is in force."""
    path = root / PENDING
    try:
        path.unlink()
        fsync_path(root)
    except OSError as error:
        raise storage_error(error, path) from error


def recover_edit(dataset: Dataset, *, drop: bool) -> list[str]:
    """Finish with an edit that a crash interrupted; with `drop`, with a merge too. Return what was done."""
    (dataset.root / f".{PENDING}.partial").unlink(missing_ok=True)
    plan = pending_edit(dataset.root)
    if plan is None:
        return []
    if any(record.edit and record.edit.number == plan.number for record in dataset.records.values()):
        end_edit(dataset.root)
        return [f"finished the {plan.verb} number {plan.number}"]
    if plan.verb == "merge" and not drop:
        return []
    drop_edit(dataset, plan)
    return [f"took back the interrupted {plan.verb}"]


def drop_edit(dataset: Dataset, plan: PendingEdit) -> None:
    """Remove what an edit made that never came into force, by what the manifest says on disk."""
    folder, said = dataset.root / "episodes", read_manifest(dataset.root)
    for name in plan.ids:
        record = said.get(name)
        if record is None or not record.content_hash:
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.rmtree(folder / f".{name}.partial", ignore_errors=True)
    try:
        fsync_path(folder)
    except OSError as error:
        raise storage_error(error, folder) from error
    end_edit(dataset.root)
