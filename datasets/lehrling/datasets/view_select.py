"""Which episodes of a dataset enter a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lehrling.datasets.errors import ContractError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import Contract
    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.view_spec import EpisodeFilter


def eligible(records: Mapping[str, EpisodeRecord], keep: EpisodeFilter) -> list[EpisodeRecord]:
    """Return the sealed episodes that pass the filter, sorted by id: recording order changes nothing."""
    return sorted((record for record in records.values() if _passes(record, keep)), key=lambda record: record.id)


def chosen(dataset: Dataset, keep: EpisodeFilter) -> tuple[list[EpisodeRecord], Contract]:
    """Return the episodes of a view and their one contract.

    Raises:
        InputError: no episode passes, or one asked for by id is not sealed.
        ContractError: the episodes have several contracts; the message says what differs and how to choose.
    """
    for name in keep.ids or ():
        dataset.episode(name)
    records = eligible(dataset.records, keep)
    if not records:
        raise InputError(
            f"Expected at least one sealed episode in {dataset.root} that passes the view's filter "
            f"({keep.model_dump_json(exclude_none=True)}), got none; see `lehrling inspect`."
        )
    first = dataset.episode(records[0].id)
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
    )


def _mixed(dataset: Dataset, first: EpisodeRecord, other: EpisodeRecord) -> str:
    difference = dataset.episode(first.id).contract.difference(dataset.episode(other.id).contract)
    return (
        f"Expected episodes of one contract, got {first.contract_hash[:12]} ({first.id}, {first.robot}) and "
        f"{other.contract_hash[:12]} ({other.id}, {other.robot}). {difference} Choose by `contract`, "
        "`robots`, `tasks` or `ids` under `episodes` in the view's specification."
    )
