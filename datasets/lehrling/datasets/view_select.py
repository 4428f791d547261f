"""Which episodes of a dataset enter a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lehrling.datasets.errors import ContractError, InputError
from lehrling.datasets.snapshots import read_snapshot, snapshot_records
from lehrling.datasets.where import parse_where

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.view_spec import EpisodeFilter, ViewSpec


def eligible(records: Mapping[str, EpisodeRecord], keep: EpisodeFilter) -> list[EpisodeRecord]:
    """Return the sealed episodes that pass the filter, sorted by id: recording order changes nothing."""
    return sorted((record for record in records.values() if _passes(record, keep)), key=lambda record: record.id)


def selected(dataset: Dataset, keep: EpisodeFilter) -> list[EpisodeRecord]:
    """Return the episodes that pass the filter, of a snapshot if it names one, sorted by id.

    Raises:
        InputError: there is no such snapshot, or one of its episodes was purged; the message names it.
    """
    if keep.snapshot is None:
        return eligible(dataset.records, keep)
    return eligible(snapshot_records(dataset, keep.snapshot, keep.snapshot_hash), keep)


def pinned(dataset: Dataset, spec: ViewSpec) -> ViewSpec:
    """Return the specification with the hash of the snapshot that it names."""
    keep = spec.episodes
    if keep.snapshot is None or keep.snapshot_hash is not None:
        return spec
    found = read_snapshot(dataset.root, keep.snapshot).hash
    return spec.model_copy(update={"episodes": keep.model_copy(update={"snapshot_hash": found})})


def chosen(dataset: Dataset, keep: EpisodeFilter) -> tuple[list[EpisodeRecord], Contract]:
    """Return the episodes of a view and their one contract; `Dataset.episode_of` reads them.

    Raises:
        InputError: no episode passes, or one asked for by id is not sealed.
        ContractError: the episodes have several contracts; the message says what differs and how to choose.
    """
    for name in (keep.ids or ()) if keep.snapshot is None else ():
        dataset.episode(name)
    records = selected(dataset, keep)
    if not records:
        raise InputError(
            f"Expected at least one sealed episode in {dataset.root} that passes the view's filter "
            f"({keep.model_dump_json(exclude_none=True)}), got none; see `lehrling inspect`."
        )
    first = dataset.episode_of(records[0])
    for record in records[1:]:
        if record.contract_hash != records[0].contract_hash:
            raise ContractError(_mixed(dataset, records[0], record))
    return records, first.contract


def _passes(record: EpisodeRecord, keep: EpisodeFilter) -> bool:
    return (
        record.status == "sealed"
        and record.outcome in keep.outcomes
        and (keep.tasks is None or record.task in keep.tasks)
        and (keep.robots is None or record.robot in keep.robots)
        and (keep.ids is None or record.id in keep.ids)
        and (keep.contract is None or record.contract_hash.startswith(keep.contract))
        and (keep.where is None or parse_where(keep.where).matches(record))
    )


def _mixed(dataset: Dataset, first: EpisodeRecord, other: EpisodeRecord) -> str:
    difference = dataset.episode_of(first).contract.difference(dataset.episode_of(other).contract)
    return (
        f"Expected episodes of one contract, got {first.contract_hash[:12]} ({first.id}, {first.robot}) and "
        f"{other.contract_hash[:12]} ({other.id}, {other.robot}). {difference} Choose by `contract`, "
        "`robots`, `tasks` or `ids` under `episodes` in the view's specification."
    )
