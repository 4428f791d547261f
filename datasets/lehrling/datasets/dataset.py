"""A dataset: a directory of sealed episodes, the manifest that says which are valid, journals and views."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from lehrling.datasets import inventory
from lehrling.datasets.dataset_root import FORMAT, check_root, create_dataset, is_empty
from lehrling.datasets.edit_pending import recover_edit
from lehrling.datasets.embodiment import Contract
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import ContractError, InputError, LehrlingError, StorageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import checked_id, is_id, storage_error
from lehrling.datasets.journal_read import read_meta
from lehrling.datasets.lock import WriteLock
from lehrling.datasets.manifest import (
    SETTLED,
    EpisodeRecord,
    append_record,
    append_records,
    mend_manifest,
    read_manifest,
)
from lehrling.datasets.purge import remove_purged
from lehrling.datasets.reports import RepairOutcome, RepairReport, VerifyReport
from lehrling.datasets.sealer import seal
from lehrling.datasets.sweep import set_aside, sweep

__all__ = ["FORMAT", "Dataset", "RepairReport", "VerifyReport", "check_root", "create_dataset"]

Progress = Callable[[int, int], None]
Sealer = Callable[[Path, str], EpisodeRecord]
AGAIN = {
    "simulation": "interrupted simulation; its seed gives it again",
    "import": "interrupted import; its source gives it again",
}
"""Origins of which an interrupted journal is discarded."""


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
        if create and is_empty(root):
            create_dataset(root)
        check_root(root)
        if not os.access(root, os.W_OK):
            raise StorageError(f"{root} cannot be written (read-only); copy it, or open it for reading.")
        lock = WriteLock(root)
        try:
            mended = mend_manifest(root)
            dataset = cls(root, lock)
            dataset.repair(torn=mended)
        except OSError as error:
            lock.release()
            raise storage_error(error, root) from error
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

    def check_writing(self) -> None:
        """Refuse to change what is open for reading.

        Raises:
            InputError: it is.
        """
        if self._lock is None:
            raise InputError(f"{self.root} is open for reading; open it for writing to change it.")

    def episodes(self, status: str = "sealed") -> list[Episode]:
        """Return the episodes of a status, in the manifest's order."""
        records = list(self.records.values())
        return [self.episode_of(record) for record in records if record.status == status]

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
        return self.episode_of(record)

    def episode_of(self, record: EpisodeRecord) -> Episode:
        """Return the episode that a record is of, whatever its status, as snapshots need it."""
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
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path.name for path in found if path.is_dir() and is_id(path.name))

    def commit(self, record: EpisodeRecord) -> None:
        """Make a sealed episode valid, then remove its journal.

        Raises:
            InputError: the dataset is open for reading.
        """
        self.check_writing()
        reach("commit")
        append_record(self.root, record)
        self.records[record.id] = record
        reach("committed")
        shutil.rmtree(self.root / "journals" / checked_id(record.id), ignore_errors=True)

    def commit_edit(self, records: Sequence[EpisodeRecord]) -> None:
        """Make all lines of one edit valid together; `edits` says which lines there are.

        Raises:
            InputError: the dataset is open for reading.
        """
        self.check_writing()
        reach("edit-commit")
        append_records(self.root, records)
        self.records |= {record.id: record for record in records}
        reach("edit-committed")

    def _note(self, name: str, status: str, reason: str) -> None:
        known = self.records.get(name) or EpisodeRecord(name, "discarded")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = replace(known, status=status, reason=reason, written_at=now, edit=None)  # type: ignore[arg-type]
        append_record(self.root, record)
        self.records[name] = record

    def discard(self, name: str, reason: str) -> None:
        """Take an episode or journal out; an episode's files stay until `purge`."""
        self.check_writing()
        self._note(checked_id(name), "discarded", reason)
        shutil.rmtree(self.root / "journals" / name, ignore_errors=True)

    def purge(self, name: str) -> None:
        """Delete an episode's files for good, from views too; the manifest keeps a tombstone.

        Raises:
            InputError: there is no such episode.
        """
        self.check_writing()
        self.check_purgeable([name])
        known = self.records[name]
        self._note(name, "purged", "purged on request")
        reach("purge-noted")
        tombstone = EpisodeRecord(
            name, "purged", robot=known.robot, origin=known.origin, content_hash=known.content_hash,
            reason="purged on request", written_at=self.records[name].written_at, parent=known.parent,
        )  # fmt: skip
        append_record(self.root, tombstone)
        self.records[name] = tombstone
        remove_purged(self.root, [name])

    def check_purgeable(self, names: Sequence[str]) -> None:
        """Refuse ids that nothing can be purged of.

        Raises:
            InputError: naming the first.
        """
        for name in names:
            known = self.records.get(checked_id(name))
            if known is None or known.status == "purged":
                raise InputError(
                    f"There is no episode {name!r} to purge in {self.root}; `lehrling inspect` lists them."
                )

    def quarantine(self, name: str, reason: str) -> None:
        """Mark a damaged episode, so that nothing reads or trains on it; its files stay."""
        self.check_writing()
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
        self.check_writing()
        mended = ["cut a torn line off the manifest"] if torn else []
        purged = [name for name, record in self.records.items() if record.status == "purged"]
        mended += [f"finished purging {name}" for name in remove_purged(self.root, purged)]
        mended += recover_edit(self, drop=deep) + sweep(self)
        outcome = RepairOutcome()
        for name in self.unfinished():
            self._settle_any(name, outcome)
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

    def finish(self, name: str, sealer: Sealer = seal) -> EpisodeRecord:
        """Seal and commit an ended journal, or quarantine it where it does not pass; return the manifest's word on it.

        `sealer` may seal elsewhere, as in another process; it is called with the root and the id.
        """
        self.check_writing()
        self._settle(name, RepairOutcome(), sealer)
        return self.records[name]

    def _settle(self, name: str, outcome: RepairOutcome, sealer: Sealer = seal) -> None:
        """Finish one journal, or set it aside where that cannot be done."""
        try:
            verdict = self._finish(name, sealer)
        except StorageError:
            raise
        except LehrlingError as error:
            self._give_up(name, str(error), outcome)
            return
        if verdict is None:
            outcome.discarded.append(name)
        elif verdict:
            outcome.sealed.append(name)
            outcome.losses += [f"{name}: {loss}" for loss in self.records[name].losses]

    def _give_up(self, name: str, reason: str, outcome: RepairOutcome) -> None:
        self.quarantine(name, reason)
        set_aside(self.root, self.root / "journals" / name)
        outcome.quarantined[name] = reason

    def _settle_any(self, name: str, outcome: RepairOutcome) -> None:
        """Finish one journal; no error that nobody foresaw may keep the dataset from being opened."""
        try:
            self._settle(name, outcome)
        except LehrlingError:
            raise
        except MemoryError:
            raise StorageError(f"There is not enough memory to seal {name!r}; its journal stays, try again.") from None
        except Exception as error:  # noqa: BLE001 — a defect of ours; every byte is kept
            self._give_up(name, f"sealing failed ({type(error).__name__}: {error})", outcome)

    def _finish(self, name: str, sealer: Sealer) -> bool | None:
        """Finish one journal: True if sealed, False if it was committed already, None if discarded."""
        directory = self.root / "journals" / name
        record = self.records.get(name)
        if record is not None and record.status == "quarantined":
            set_aside(self.root, directory)
            return False
        if record is not None and record.status in SETTLED:
            shutil.rmtree(directory)
            return False
        meta, _ = read_meta(directory)
        ended = (directory / "end.json").is_file()
        if meta.origin in AGAIN and not ended:
            self.discard(name, AGAIN[meta.origin])
            shutil.rmtree(self.root / "episodes" / name, ignore_errors=True)
            return None
        self.commit(sealer(self.root, name))
        return True
