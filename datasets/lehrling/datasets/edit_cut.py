"""Trim and split: parts of an episode as new episodes, frames as they are; the whole one is replaced by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lehrling.datasets import inventory
from lehrling.datasets.edit_log import next_number
from lehrling.datasets.edit_pending import PendingEdit, begin_edit, drop_edit, end_edit, pending_edit
from lehrling.datasets.edits import EditReport, commit
from lehrling.datasets.episode_part import Cut, seal_part, span_of
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.files import checked_id
from lehrling.datasets.manifest import EpisodeRecord

if TYPE_CHECKING:
    from lehrling.datasets.dataset import Dataset

Progress = Callable[[int, int], None]
"""Called with episodes made and episodes in all."""


def trim(
    dataset: Dataset,
    records: Sequence[EpisodeRecord],
    start_s: float = 0.0,
    stop_s: float | None = None,
    progress: Progress | None = None,
) -> EditReport:
    """Keep what was received from `start_s` until before `stop_s` [s], counted from the episode's first receipt.

    Negative times count from the last receipt. Each episode is replaced by a new one, named after it with `.t1`.

    Raises:
        InputError: the times are not within an episode, or leave nothing, or nothing out.
        DamageError: an episode is damaged.
        StorageError: the disk is full or failed.
    """
    cuts = [_trimmed(dataset, record, start_s, stop_s) for record in records]
    words = f"trimmed {_told(records)} to {start_s:g} s until {'the end' if stop_s is None else f'{stop_s:g} s'}"
    return replaced(dataset, "trim", cuts, words, progress)


def split(
    dataset: Dataset, records: Sequence[EpisodeRecord], at_s: Sequence[float], progress: Progress | None = None
) -> EditReport:
    """Cut episodes at times [s] counted as in `trim`; each is replaced by its pieces, named after it with `.s1` and so on.

    Raises:
        InputError: no times are given, or they are not within an episode, or leave a piece without rows.
        DamageError: an episode is damaged.
        StorageError: the disk is full or failed.
    """
    if not at_s:
        raise InputError("Expected at least one time to split at, got none.")
    cuts = [cut for record in records for cut in _pieces(dataset, record, at_s)]
    words = f"split {_told(records)} at {', '.join(f'{time:g} s' for time in at_s)}"
    return replaced(dataset, "split", cuts, words, progress)


def _trimmed(dataset: Dataset, record: EpisodeRecord, start_s: float, stop_s: float | None) -> Cut:
    span = span_of(dataset.episode_of(record))
    start, stop = _within(record, start_s, span), span if stop_s is None else _within(record, stop_s, span)
    if start >= stop or (start, stop) == (0, span):
        raise InputError(
            f"Expected times that keep a part of {record.id!r}, which lasts {span / 1e9:.3f} s, got "
            f"{start_s:g} to {'its end' if stop_s is None else f'{stop_s:g}'}."
        )
    return Cut(record, free_id(dataset, record.id, "t"), start, stop)


def _pieces(dataset: Dataset, record: EpisodeRecord, at_s: Sequence[float]) -> list[Cut]:
    span = span_of(dataset.episode_of(record))
    borders = [0, *sorted({_within(record, time, span) for time in at_s}), span]
    if len(set(borders)) < len(at_s) + 2:
        raise InputError(f"Expected times between 0 and {span / 1e9:.3f} s, each once, to split {record.id!r}.")
    names = _free_ids(dataset, record.id, len(borders) - 1)
    return [Cut(record, *parts) for parts in zip(names, borders, borders[1:], strict=False)]


def _within(record: EpisodeRecord, time_s: float, span_ns: int) -> int:
    """Return a time in ns from the first receipt."""
    near = abs(time_s) * 1e9 < span_ns + 1  # false for nan
    at = round(time_s * 1e9) + (span_ns if time_s < 0 else 0) if near else -1
    if not 0 <= at <= span_ns:
        raise InputError(f"Expected a time within the {span_ns / 1e9:.3f} s of {record.id!r}, got {time_s:g} s.")
    return at


def free_id(dataset: Dataset, name: str, letter: str) -> str:
    """Return an id after `name` that was never used."""
    number = 1
    while _taken(dataset, f"{name}.{letter}{number}"):
        number += 1
    return checked_id(f"{name}.{letter}{number}")


def _free_ids(dataset: Dataset, name: str, count: int) -> list[str]:
    first = 1
    while any(_taken(dataset, f"{name}.s{number}") for number in range(first, first + count)):
        first += 1
    return [checked_id(f"{name}.s{number}") for number in range(first, first + count)]


def _taken(dataset: Dataset, name: str) -> bool:
    places = (dataset.root / "episodes" / name, dataset.root / "journals" / name)
    return name in dataset.records or any(path.exists() for path in places)


def replaced(
    dataset: Dataset,
    verb: str,
    cuts: Sequence[Cut],
    words: str,
    progress: Progress | None,
    seal: Callable[[Dataset, Cut], EpisodeRecord] = seal_part,
) -> EditReport:
    """Seal the parts, then make them valid and their parents replaced, all at once."""
    dataset.check_writing()
    before = pending_edit(dataset.root)
    if before is not None:
        drop_edit(dataset, before)
    plan = PendingEdit(next_number(dataset.root), verb, tuple(cut.name for cut in cuts))
    begin_edit(dataset.root, plan)
    try:
        made, whole = list[EpisodeRecord](), set[str]()
        for cut in cuts:
            if cut.record.id not in whole:
                _check_whole(dataset, cut.record)
                whole.add(cut.record.id)
            made.append(seal(dataset, cut))
            if progress is not None:
                progress(len(made), len(cuts))
        parents = {cut.record.id: cut.record for cut in cuts}
        gone = [replace(r, status="replaced", reason=_by(r, cuts)) for r in parents.values()]
        number = commit(dataset, verb, [*gone, *made], words)
    except BaseException:
        drop_edit(dataset, plan)
        raise
    end_edit(dataset.root)
    return EditReport(verb, number, tuple(parents), plan.ids, words=words)


def _check_whole(dataset: Dataset, record: EpisodeRecord) -> None:
    """Refuse to cut what is not as it was sealed: the parts would have inventories of the damage.

    Raises:
        DamageError: naming the first file.
    """
    if found := inventory.problems(dataset.root / "episodes" / record.id, record.content_hash):
        raise DamageError(
            f"Episode {record.id!r} is not as it was sealed: {found[0]}; `lehrling repair` quarantines it."
        )


def _by(record: EpisodeRecord, cuts: Sequence[Cut]) -> str:
    return f"replaced by {', '.join(cut.name for cut in cuts if cut.record is record)}"


def _told(records: Sequence[EpisodeRecord]) -> str:
    return records[0].id if len(records) == 1 else f"{len(records)} episodes"
