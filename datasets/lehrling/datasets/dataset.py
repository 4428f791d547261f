"""A dataset: a directory of sealed episodes, the manifest that says which are valid, journals and views."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from lehrling.datasets import inventory
from lehrling.datasets.embodiment import Contract
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import ContractError, InputError, LehrlingError, StorageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import checked_id, fsync_path, refuse_links, storage_error, write_durably
from lehrling.datasets.journal_read import read_meta
from lehrling.datasets.lock import WriteLock
from lehrling.datasets.manifest import MANIFEST, EpisodeRecord, append_record, mend_manifest, read_manifest
from lehrling.datasets.sealer import seal

FORMAT = 1
GROUP = "zarr.json"
FOLDERS = ("episodes", "views")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RepairReport:
    """What a repair did.

    Attributes:
        sealed: interrupted recordings that are episodes now; `losses` say what they miss.
        discarded: interrupted simulations, which their seed gives again.
        quarantined: what cannot be read, with the reason; nothing of it is deleted.
        mended: torn lines cut and leftovers removed.
    """

    sealed: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()
    quarantined: dict[str, str] | None = None
    mended: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()

    @property
    def lossy(self) -> bool:
        """Whether something recorded could not be saved."""
        return bool(self.losses or self.quarantined)

    def merged(self, later: RepairReport) -> RepairReport:
        """Return both reports as one."""
        return RepairReport(
            self.sealed + later.sealed,
            self.discarded + later.discarded,
            (self.quarantined or {}) | (later.quarantined or {}),
            self.mended + later.mended,
            self.losses + later.losses,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "sealed": list(self.sealed),
            "discarded": list(self.discarded),
            "quarantined": self.quarantined or {},
            "mended": list(self.mended),
            "losses": list(self.losses),
        }


@dataclass
class _Outcome:
    """A repair in the making."""

    sealed: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found: problems by episode id; `unfinished` are journals."""

    episodes: int
    files: int
    bytes: int
    problems: dict[str, list[str]]
    unfinished: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether every sealed episode is as it was sealed."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "whole": self.whole,
            "episodes": self.episodes,
            "files": self.files,
            "bytes": self.bytes,
            "problems": self.problems,
            "unfinished": list(self.unfinished),
        }


class Dataset:
    """Open with `open` to read (never writes) or `open_for_writing` (takes the lock and repairs)."""

    def __init__(self, root: Path, lock: WriteLock | None = None) -> None:
        self.root, self._lock = root, lock
        self.records = read_manifest(root)
        self.repaired = RepairReport()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open for reading.

        Raises:
            InputError: the directory is no dataset, or of another format.
        """
        root = Path(path)
        check_root(root)
        return cls(root)

    @classmethod
    def open_for_writing(cls, path: Path | str, *, create: bool = False) -> Self:
        """Open for writing: take the lock, finish what was interrupted.

        Raises:
            InputError: the directory is no dataset.
            LockedError: another process is writing.
            StorageError: the directory cannot be written.
        """
        root = Path(path)
        if create and _empty(root):
            create_dataset(root)
        check_root(root)
        if not os.access(root, os.W_OK):
            raise StorageError(f"{root} cannot be written (read-only); copy it, or open it for reading.")
        lock = WriteLock(root)
        try:
            mended = mend_manifest(root)
            dataset = cls(root, lock)
            dataset.repair(torn=mended)
        except BaseException:
            lock.release()
            raise
        return dataset

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the write lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _writing(self) -> None:
        if self._lock is None:
            raise InputError(f"{self.root} is open for reading; open it for writing to change it.")

    def episodes(self, status: str = "sealed") -> list[Episode]:
        """Return the episodes of a status, in the manifest's order."""
        return [self._episode(record) for record in self.records.values() if record.status == status]

    def episode(self, name: str) -> Episode:
        """Return a sealed episode.

        Raises:
            InputError: there is none of that id, or it is not sealed.
        """
        record = self.records.get(name)
        if record is None:
            raise InputError(f"There is no episode {name!r} in {self.root}; `lehrling inspect` lists them.")
        if record.status != "sealed":
            raise InputError(f"Episode {name!r} is {record.status}: {record.reason or 'no reason given'}.")
        return self._episode(record)

    def _episode(self, record: EpisodeRecord) -> Episode:
        return Episode(self.root / "episodes" / checked_id(record.id), record)

    def contract(self) -> Contract:
        """Return the one contract of all sealed episodes.

        Raises:
            InputError: there are no episodes.
            ContractError: they have several; the message says what differs.
        """
        first: Episode | None = None
        for episode in self.episodes():
            if first is None:
                first = episode
            elif episode.record.contract_hash != first.record.contract_hash:
                raise ContractError(
                    f"Episodes {first.id} and {episode.id} have different contracts. "
                    f"{first.contract.difference(episode.contract)}"
                )
        if first is None:
            raise InputError(f"{self.root} has no sealed episodes yet.")
        return first.contract

    def unfinished(self) -> list[str]:
        """Return ids of journals that are being recorded or need repair."""
        folder = self.root / "journals"
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def commit(self, record: EpisodeRecord) -> None:
        """Make a sealed episode valid, then remove its journal.

        Raises:
            InputError: the dataset is open for reading.
            ContractError: the dataset has this robot's episodes under another contract.
        """
        self._writing()
        reach("commit")
        append_record(self.root, record)
        self.records[record.id] = record
        reach("committed")
        shutil.rmtree(self.root / "journals" / checked_id(record.id), ignore_errors=True)

    def _note(self, name: str, status: str, reason: str) -> None:
        known = self.records.get(name) or EpisodeRecord(name, "discarded")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = replace(known, status=status, reason=reason, written_at=now)  # type: ignore[arg-type]
        append_record(self.root, record)
        self.records[name] = record

    def discard(self, name: str, reason: str) -> None:
        """Take an episode or journal out; an episode's files stay until `purge`."""
        self._writing()
        self._note(checked_id(name), "discarded", reason)
        shutil.rmtree(self.root / "journals" / name, ignore_errors=True)

    def purge(self, name: str) -> None:
        """Delete an episode's files for good, from views too; the manifest keeps a tombstone.

        Raises:
            InputError: there is no such episode.
        """
        self._writing()
        known = self.records.get(checked_id(name))
        if known is None or known.status == "purged":
            raise InputError(f"There is no episode {name!r} to purge in {self.root}; `lehrling inspect` lists them.")
        self._note(name, "purged", "purged on request")
        reach("purge-noted")
        tombstone = EpisodeRecord(
            name, "purged", robot=known.robot, origin=known.origin, content_hash=known.content_hash,
            reason="purged on request", written_at=self.records[name].written_at,
        )  # fmt: skip
        append_record(self.root, tombstone)
        self.records[name] = tombstone
        self._remove_purged(name)

    def _remove_purged(self, name: str) -> bool:
        """Delete what is left of a purged episode, and every view built from it."""
        found = False
        for path in (self.root / "episodes" / name, self.root / "journals" / name):
            if path.is_dir():
                found = True
                shutil.rmtree(path)
                fsync_path(path.parent)
        views = self.root / "views"
        for view in sorted(p for p in views.iterdir() if p.is_dir()) if views.is_dir() else []:
            if found and _mentions(view / GROUP, name):
                shutil.rmtree(view)
        return found

    def quarantine(self, name: str, reason: str) -> None:
        """Mark a damaged episode, so that nothing reads or trains on it; its files stay."""
        self._writing()
        self._note(checked_id(name), "quarantined", reason)

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Compare every file of every sealed episode with its inventory and the manifest's hash."""
        problems: dict[str, list[str]] = {}
        sealed, files, size = self.episodes(), 0, 0
        for done, episode in enumerate(sealed, start=1):
            found = inventory.problems(episode.directory, episode.record.content_hash)
            if found:
                problems[episode.id] = found
            else:
                entries = inventory.load(episode.directory)
                files, size = files + len(entries), size + sum(entry.size for entry in entries)
            if progress is not None:
                progress(done, len(sealed))
        for name, record in self.records.items():
            if record.status == "quarantined":
                problems[name] = [f"quarantined: {record.reason}"]
        return VerifyReport(len(sealed), files, size, problems, tuple(self.unfinished()))

    def repair(self, *, torn: bool = False, deep: bool = False) -> RepairReport:
        """Finish what was interrupted; with `deep`, verify every episode and quarantine what is damaged."""
        self._writing()
        mended = ["cut a torn line off the manifest"] if torn else []
        for name, record in self.records.items():
            if record.status == "purged" and self._remove_purged(name):
                mended.append(f"finished purging {name}")
        mended += self._sweep()
        outcome = _Outcome()
        for name in self.unfinished():
            self._settle(name, outcome)
        if deep:
            for name, found in self.verify().problems.items():
                if self.records[name].status == "sealed":
                    self.quarantine(name, found[0])
                    outcome.quarantined[name] = "; ".join(found)
        self.repaired = RepairReport(
            tuple(outcome.sealed),
            tuple(outcome.discarded),
            outcome.quarantined,
            tuple(mended),
            tuple(outcome.losses),
        )
        return self.repaired

    def _settle(self, name: str, outcome: _Outcome) -> None:
        """Finish one journal, or set it aside where that cannot be done."""
        try:
            verdict = self._finish(name)
        except StorageError:
            raise
        except LehrlingError as error:
            self.quarantine(name, str(error))
            self._set_aside(name)
            outcome.quarantined[name] = str(error)
            return
        if verdict is None:
            outcome.discarded.append(name)
        elif verdict:
            outcome.sealed.append(name)
            outcome.losses += [f"{name}: {loss}" for loss in self.records[name].losses]

    def _finish(self, name: str) -> bool | None:
        """Finish one journal: True if sealed, False if it was committed already, None if discarded."""
        directory = self.root / "journals" / name
        record = self.records.get(name)
        if record is not None and record.status in ("sealed", "quarantined", "purged"):
            shutil.rmtree(directory)
            return False
        meta, _ = read_meta(directory)
        ended = (directory / "end.json").is_file()
        if meta.origin == "simulation" and not ended:
            self.discard(name, "interrupted simulation; its seed gives it again")
            shutil.rmtree(self.root / "episodes" / name, ignore_errors=True)
            return None
        self.commit(seal(self.root, name))
        return True

    def _set_aside(self, name: str) -> None:
        """Move a journal that cannot be read out of the way, keeping every byte."""
        target = self.root / "quarantine" / name
        target.parent.mkdir(exist_ok=True)
        (self.root / "journals" / name).rename(target)

    def _sweep(self) -> list[str]:
        """Remove half-written siblings that a crash left, and episodes that were never committed."""
        swept = []
        for path in sorted((self.root / "episodes").iterdir()):
            if path.name == GROUP:
                continue
            orphan = path.name not in self.records and path.name not in self.unfinished()
            if path.name.startswith(".") and path.name.endswith(".partial"):
                shutil.rmtree(path)
                swept.append(f"removed the half-written {path.name}")
            elif orphan and path.is_dir():
                target = self.root / "quarantine" / path.name
                target.parent.mkdir(exist_ok=True)
                path.rename(target)
                swept.append(f"set aside {path.name}, which the manifest does not list")
        return swept


def _mentions(path: Path, name: str) -> bool:
    return path.is_file() and json.dumps(name) in path.read_text(encoding="utf-8")


def _empty(root: Path) -> bool:
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def create_dataset(root: Path) -> None:
    """Create an empty dataset in a directory that is absent or empty.

    Raises:
        StorageError: the directory cannot be written.
    """
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    try:
        root.mkdir(parents=True, exist_ok=True)
        for folder in FOLDERS:
            (root / folder).mkdir(exist_ok=True)
            write_durably(root / folder / GROUP, json.dumps(group).encode())
        (root / MANIFEST).touch()
        facts = group | {"attributes": {"lehrling_dataset": FORMAT}}
        write_durably(root / GROUP, (json.dumps(facts) + "\n").encode())
    except OSError as error:
        raise storage_error(error, root) from error


def check_root(root: Path) -> None:
    """Refuse what is no dataset.

    Raises:
        InputError: saying what is missing.
    """
    if not root.is_dir():
        raise InputError(f"Expected a dataset directory at {root}, but there is none.")
    try:
        data = json.loads((root / GROUP).read_text(encoding="utf-8"))
        version = data["attributes"]["lehrling_dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{root} is no Lehrling dataset: it has no {GROUP} that says so.") from None
    if data.get("zarr_format") != 3 or version != FORMAT:
        raise InputError(f"Expected dataset format {FORMAT} in {root}, got {version}; use the version that wrote it.")
    if not (root / MANIFEST).is_file():
        raise InputError(f"{root} has no {MANIFEST}; restore it from a backup, nothing else says what is valid.")
    refuse_links(root / "episodes")
