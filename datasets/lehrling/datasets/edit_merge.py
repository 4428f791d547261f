"""Merge: bring the episodes of other datasets into one, byte for byte, all or none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lehrling.datasets import inventory
from lehrling.datasets.dataset_root import check_root
from lehrling.datasets.edit_log import next_number
from lehrling.datasets.edit_pending import PendingEdit, begin_edit, drop_edit, end_edit, pending_edit
from lehrling.datasets.edits import EditReport, commit, counted
from lehrling.datasets.episode import Episode
from lehrling.datasets.episode_copy import copy_episode
from lehrling.datasets.errors import ContractError, InputError, StorageError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import placed_whole, remove_tree
from lehrling.datasets.manifest import EpisodeRecord, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.where import Where

Progress = Callable[[int, int], None]
"""Called with bytes copied and bytes in all."""

SPARE_BYTES = 64 << 20


@dataclass
class _Plan:
    """What a merge is going to do.

    Attributes:
        copies: episodes to copy, with the dataset each is from.
        revived: episodes whose files are here, from a merge that was taken back.
        skipped: episodes that are here already, and how.
    """

    copies: dict[str, tuple[Path, EpisodeRecord]] = field(default_factory=dict)
    revived: dict[str, EpisodeRecord] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(record.bytes for _, record in self.copies.values())


def merge(
    dataset: Dataset,
    sources: Sequence[Path],
    where: Where | None = None,
    *,
    mixed: bool = False,
    progress: Progress | None = None,
) -> EditReport:
    """Copy the sealed episodes of other datasets into this one, all of them or, if it cannot be finished, none.

    Files are copied as they are, so content hashes stay. Episodes that are here already are left alone. An interrupted
    merge goes on where it was when it is asked for again. `mixed` allows contracts that this dataset does not hold.

    Raises:
        InputError: a source is no dataset or this one, no episode passes, or an id is taken by other content.
        ContractError: an episode's contract is not among this dataset's; the message says what differs.
        DamageError: an episode is not as it was sealed; nothing is merged.
        StorageError: there is not enough space, or the disk failed.
    """
    dataset.check_writing()
    plan = _planned(dataset, sources, where)
    if not mixed:
        _check_contracts(dataset, plan)
    if not plan.copies and not plan.revived:
        return EditReport("merge", 0, skipped=plan.skipped, words="nothing to merge")
    _check_space(dataset.root, plan)
    _begin(dataset, plan)
    _copy_all(dataset.root, plan, progress)
    records = [*(record for _, record in plan.copies.values()), *plan.revived.values()]
    words = f"{counted('merged', records)} of {', '.join(source.resolve().name for source in sources)}"
    number = commit(dataset, "merge", records, words)
    end_edit(dataset.root)
    return EditReport("merge", number, tuple(plan.revived), tuple(plan.copies), plan.skipped, words)


def _planned(dataset: Dataset, sources: Sequence[Path], where: Where | None) -> _Plan:
    plan, passing = _Plan(), 0
    for source in sources:
        check_root(source)
        if source.resolve() == dataset.root.resolve():
            raise InputError(f"Expected another dataset to merge, got {source} itself.")
        for record in read_manifest(source).values():
            if record.status == "sealed" and (where is None or where.matches(record)):
                passing += 1
                _place(dataset, plan, source, record)
    if not passing:
        told = f" that passes {where.text!r}" if where else ""
        raise InputError(f"Expected a sealed episode{told} in {', '.join(map(str, sources))}, got none.")
    return plan


def _place(dataset: Dataset, plan: _Plan, source: Path, record: EpisodeRecord) -> None:
    """Decide on one episode."""
    here = dataset.records.get(record.id)
    if record.id in plan.copies:
        _refuse_collision(record, plan.copies[record.id][1], source)
        plan.skipped[record.id] = "is in two of the sources"
    elif here is None or (here.status == "discarded" and not here.content_hash):
        plan.copies[record.id] = (source, record)
    else:
        _refuse_collision(record, here, source)
        if here.status == "deleted" and here.edit is not None and here.edit.verb == "undo":
            plan.revived[record.id] = _revived(dataset, record)
        else:
            plan.skipped[record.id] = "is here already" if here.status == "sealed" else f"is {here.status} here"


def _refuse_collision(record: EpisodeRecord, here: EpisodeRecord, source: Path) -> None:
    if record.content_hash != here.content_hash:
        raise InputError(
            f"Episode {record.id!r} of {source} has other content than the one of that id that is {here.status} already; "
            "nothing was merged. Leave it out with --where."
        )


def _revived(dataset: Dataset, record: EpisodeRecord) -> EpisodeRecord:
    if found := inventory.problems(dataset.root / "episodes" / record.id, record.content_hash):
        raise InputError(f"Episode {record.id!r} is here already, but damaged ({found[0]}); purge it first.")
    return record


def _check_contracts(dataset: Dataset, plan: _Plan) -> None:
    """Refuse a contract that the dataset, or the first episode of an empty one, does not have."""
    held = {r.contract_hash: dataset.episode_of(r) for r in reversed(dataset.records.values()) if r.status == "sealed"}
    for source, record in plan.copies.values():
        episode = Episode(source / "episodes" / record.id, record)
        if held and record.contract_hash not in held:
            other = next(iter(held.values()))
            raise ContractError(
                f"Episode {record.id!r} of {source} has another contract than {other.id!r}. "
                f"{other.contract.difference(episode.contract)} To hold both in one dataset, add --mixed."
            )
        held.setdefault(record.contract_hash, episode)


def _check_space(root: Path, plan: _Plan) -> None:
    free = shutil.disk_usage(root).free
    there = sum(r.bytes for name, (_, r) in plan.copies.items() if (root / "episodes" / name).is_dir())
    if free < plan.bytes - there + SPARE_BYTES:
        raise StorageError(
            f"Merging needs {plan.bytes / 1e6:.0f} MB in {root}, of which {free / 1e6:.0f} MB are free; nothing was merged."
        )


def _begin(dataset: Dataset, plan: _Plan) -> None:
    """Write the plan down; what an interrupted merge left stays if it is part of this one."""
    before = pending_edit(dataset.root)
    if before is not None:
        rest = tuple(name for name in before.ids if name not in plan.copies)
        drop_edit(dataset, PendingEdit(before.number, before.verb, rest))
    begin_edit(dataset.root, PendingEdit(next_number(dataset.root), "merge", tuple(plan.copies)))


def _copy_all(root: Path, plan: _Plan, progress: Progress | None) -> None:
    done = 0
    for source, record in plan.copies.values():
        final = root / "episodes" / record.id
        if not final.is_dir() or inventory.problems(final, record.content_hash):
            _copy_one(source / "episodes" / record.id, final, record)
        done += record.bytes
        if progress is not None:
            progress(done, plan.bytes)


def _copy_one(source: Path, final: Path, record: EpisodeRecord) -> None:
    with placed_whole(final) as partial:
        for leftover in (partial, final):
            remove_tree(leftover)
        copy_episode(source, partial, record.content_hash)
    reach("edit-renamed")
