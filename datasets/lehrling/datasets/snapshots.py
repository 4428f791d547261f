"""Snapshots: named, immutable versions of a dataset, `snapshots/NAME.json`.

A snapshot lists episodes by id, content hash and the labels in force when it was taken. Sealed files never change and stay
until they are purged, so it can be read again whatever was edited since.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lehrling.datasets.documents import read_json
from lehrling.datasets.edits import Labels
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import checked_id, fsync_path, storage_error
from lehrling.datasets.where import parse_where

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.manifest import EpisodeRecord

FOLDER = "snapshots"
SNAPSHOT_FORMAT = 1
BYTES_MAX = 256 << 20
HASHED = ("id", "content_hash", "contract_hash", "robot", "task", "instruction", "outcome", "tags", "parent")
"""What a snapshot's hash covers of each episode, in this order, for as long as there is format 1."""
NOW = "now"
"""The name of what is valid at the moment; no snapshot can have it."""


@dataclass(frozen=True)
class SnapshotEpisode:
    """An episode as a snapshot holds it; `parent` is the id of the episode that it was cut from, or empty."""

    id: str
    content_hash: str
    contract_hash: str
    robot: str
    task: str
    instruction: str
    outcome: str
    tags: tuple[str, ...] = ()
    parent: str = ""

    @classmethod
    def of(cls, record: EpisodeRecord) -> SnapshotEpisode:
        """Return what a snapshot says of a record."""
        return cls(
            record.id,
            record.content_hash,
            record.contract_hash,
            record.robot,
            record.task,
            record.instruction,
            record.outcome,
            record.tags,
            record.parent.id if record.parent else "",
        )


@dataclass(frozen=True)
class Snapshot:
    """A version of a dataset; `where` is the filter that it was taken with, `made_at` when, ISO 8601."""

    name: str
    episodes: tuple[SnapshotEpisode, ...]
    where: str = ""
    made_at: str = ""

    @cached_property
    def hash(self) -> str:
        """The sha256 over episodes and labels, in hex; the same for the same content whatever name and time."""
        content = [[getattr(episode, name) for name in HASHED] for episode in self.episodes]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @property
    def contract_hashes(self) -> list[str]:
        """The contracts of its episodes, sorted."""
        return sorted({episode.contract_hash for episode in self.episodes})

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
        return {
            "lehrling_snapshot": SNAPSHOT_FORMAT,
            "name": self.name,
            "hash": self.hash,
            "made_at": self.made_at,
            "where": self.where,
            "contract_hashes": self.contract_hashes,
            "episodes": [asdict(episode) for episode in self.episodes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """Read what `to_json` gave."""
        known = [{name: e[name] for name in HASHED} for e in data["episodes"]]
        episodes = [SnapshotEpisode(**e | {"tags": tuple(e["tags"])}) for e in known]
        return cls(checked_id(data["name"]), tuple(episodes), str(data["where"]), str(data["made_at"]))


def now(dataset: Dataset, where: str = "", name: str = NOW) -> Snapshot:
    """Return what is valid at the moment, sorted by id.

    Raises:
        InputError: the filter is none.
    """
    condition = parse_where(where) if where else None
    sealed = [r for r in dataset.records.values() if r.status == "sealed" and (not condition or condition.matches(r))]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Snapshot(name, tuple(SnapshotEpisode.of(r) for r in sorted(sealed, key=lambda r: r.id)), where, at)


def take_snapshot(dataset: Dataset, name: str, where: str = "") -> Snapshot:
    """Write a snapshot of what is valid, or of what a filter passes of it; needs no lock, recording can go on.

    Raises:
        InputError: the name is none or taken, the filter is none, or no episode passes.
        StorageError: the dataset cannot be written.
    """
    if checked_id(name) == NOW:
        raise InputError(f"Expected a name other than {NOW!r}, which always means what is valid at the moment.")
    path = snapshot_path(dataset.root, name)
    if path.exists():
        raise InputError(f"There is a snapshot {name!r} of {dataset.root} already, and snapshots never change.")
    snapshot = now(dataset, where, name)
    if not snapshot.episodes:
        raise InputError(f"Expected a sealed episode to pin in {dataset.root}, got none; see `lehrling inspect`.")
    try:
        _write_once(path, json.dumps(snapshot.to_json(), indent=1).encode() + b"\n")
    except FileExistsError:
        raise InputError(f"There is a snapshot {name!r} of {dataset.root} already; another process took it.") from None
    except OSError as error:
        raise storage_error(error, path) from error
    return snapshot


def snapshot_path(root: Path, name: str) -> Path:
    """Return where a snapshot is kept."""
    return root / FOLDER / f"{checked_id(name)}.json"


def _write_once(path: Path, content: bytes) -> None:
    """Write a file durably that is not there: whole, or not at all."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        reach("snapshot-written")
        path.hardlink_to(partial)
    finally:
        partial.unlink(missing_ok=True)
    fsync_path(path.parent)
    fsync_path(path.parent.parent)


def read_snapshot(root: Path, name: str) -> Snapshot:
    """Read a snapshot.

    Raises:
        InputError: there is none of that name; the message names those that there are.
        DamageError: it is not as it was written.
    """
    path = snapshot_path(root, name)
    if path.is_symlink() or not path.is_file():
        known = ", ".join(snapshot_names(root)) or "none"
        raise InputError(f"There is no snapshot {name!r} of {root}; there is: {known}.")
    try:
        data = read_json(path, "snapshot", bytes_max=BYTES_MAX)
        if data["lehrling_snapshot"] != SNAPSHOT_FORMAT:
            found = data["lehrling_snapshot"]
            raise InputError(f"Expected snapshot format {SNAPSHOT_FORMAT} in {path}, got {found}; use a newer version.")
        snapshot = Snapshot.from_json(data)
        whole = snapshot.hash == data["hash"] and snapshot.name == name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamageError(f"Expected a snapshot in {path}, but it cannot be read; restore it from a backup.") from error
    if not whole:
        raise DamageError(f"The snapshot in {path} is not as it was written; restore it from a backup.")
    return snapshot


def snapshot_names(root: Path) -> list[str]:
    """Return the names of all snapshots, sorted."""
    folder = root / FOLDER
    found = folder.glob("*.json") if folder.is_dir() else ()
    return sorted(path.stem for path in found if not path.name.startswith("."))


def snapshots_of(root: Path, ids: Collection[str]) -> list[str]:
    """Return the names of the snapshots that hold any of these episodes."""
    found = ((name, read_snapshot(root, name)) for name in snapshot_names(root))
    return [name for name, snapshot in found if any(episode.id in ids for episode in snapshot.episodes)]


def snapshot_records(dataset: Dataset, name: str, wanted_hash: str | None = None) -> dict[str, EpisodeRecord]:
    """Return the records of a snapshot's episodes with the labels of then, as if they were valid.

    Raises:
        InputError: there is no such snapshot, one with another hash is meant, or an episode of it was purged or is
            quarantined; the message names it.
        DamageError: the snapshot is not as it was written.
    """
    snapshot = read_snapshot(dataset.root, name)
    if wanted_hash is not None and wanted_hash != snapshot.hash:
        raise InputError(
            f"Expected the snapshot {name!r} with hash {wanted_hash[:12]}, got {snapshot.hash[:12]} in {dataset.root}; "
            "it is another dataset's."
        )
    return {episode.id: _record_then(dataset, episode, name) for episode in snapshot.episodes}


def _record_then(dataset: Dataset, episode: SnapshotEpisode, name: str) -> EpisodeRecord:
    record = dataset.records.get(episode.id)
    if record is None or record.status in ("purged", "quarantined") or record.content_hash != episode.content_hash:
        gone = record is not None and record.status in ("purged", "quarantined")
        state = record.status if record is not None and gone else "not there with that content"
        raise InputError(
            f"Snapshot {name!r} holds episode {episode.id!r}, which is {state}; it cannot be read as it was any more."
        )
    labels = Labels(episode.outcome, episode.task, episode.instruction)  # type: ignore[arg-type]
    return replace(labels.put_on(record), status="sealed", reason="", tags=episode.tags)
