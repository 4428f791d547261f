"""The sealer: a journal becomes one Zarr episode, complete and verified, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lehrling.datasets import inventory
from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import MANIFEST, checked_id, fsync_tree, placed_whole, remove_tree, tree_bytes, unreadable
from lehrling.datasets.journal_read import JournalContents, read_journal
from lehrling.datasets.manifest import SETTLED, EpisodeRecord, read_manifest
from lehrling.datasets.rows import StreamRows, stream_rows
from lehrling.datasets.timing import episode_timing

EPISODE_FORMAT = 1
ATTRIBUTES_BYTES_MAX = 16 << 20
CLOCKS_APART_S = 60.0


def seal(root: Path, name: str) -> EpisodeRecord:
    """Turn `journals/<name>` into `episodes/<name>` and return the record to commit.

    Writes to a hidden sibling, reads it back, makes it durable, renames. Sealing again, after a crash before the record was
    committed, gives the same bytes.

    Raises:
        InputError: the episode is sealed already, or messages do not fit the contract.
        DamageError: the journal's beginning cannot be read, or what was written does not read back.
        StorageError: the disk is full or failed.
    """
    checked_id(name)
    if (root / MANIFEST).is_file():
        known = read_manifest(root).get(name)
        if known is not None and known.status in SETTLED:
            raise InputError(f"Episode {name!r} is {known.status} already; a sealed episode never changes.")
    contents = read_journal(root, name)
    rows = [stream_rows(contents, stream) for stream in contents.embodiment.contract.all_streams]
    final = root / "episodes" / name
    with placed_whole(final) as partial:
        for leftover in (partial, final):
            remove_tree(leftover)
        _write(partial, contents, rows)
        reach("seal-written")
        listing = inventory.build(partial)
        inventory.save(partial, listing)
        _verify(partial, rows)
        fsync_tree(partial)
        reach("seal-synced")
    reach("seal-renamed")
    return _record(contents, rows, final, inventory.content_hash(listing))


def _attributes(contents: JournalContents) -> dict[str, Any]:
    """Return what the episode says of itself; no host facts, no wall-clock times."""
    return {
        "lehrling_episode": EPISODE_FORMAT,
        **asdict(contents.meta),
        "outcome": contents.outcome,
        "stop_cause": contents.stop_cause,
        "embodiment": contents.embodiment.model_dump(mode="json"),
    }


def _write(directory: Path, contents: JournalContents, rows: list[StreamRows]) -> None:
    group = zarr.create_group(directory, zarr_format=3, attributes=_attributes(contents))
    for stream in rows:
        part = group.create_group(stream.name, attributes=stream.attributes)
        stream.write(part, directory / stream.name)


def _verify(directory: Path, rows: list[StreamRows]) -> None:
    """Read back what was written and compare every value, stamp and frame."""
    for stream in rows:
        problem = stream.compare(directory / stream.name)
        if problem:
            raise DamageError(f"Sealing {directory.name} failed: {problem}; the journal is kept, check the disk.")


def _record(contents: JournalContents, rows: list[StreamRows], final: Path, content_hash: str) -> EpisodeRecord:
    meta, contract = contents.meta, contents.embodiment.contract
    timing = episode_timing(contents, rows)
    return EpisodeRecord(
        meta.id,
        "sealed",
        meta.task,
        meta.instruction,
        meta.robot,
        meta.origin,
        meta.seed,
        meta.operator,
        contents.outcome,
        contents.stop_cause,
        round(duration_s(rows), 6),
        {r.name: len(r) for r in rows},
        timing.streams,
        tree_bytes(final),
        content_hash,
        contract.hash,
        contents.embodiment.binding_hash,
        tuple(contents.losses),
        code_version=metadata.version("lehrling-datasets"),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        skew=timing.skew,
        clock_jump_ms=timing.clock_jump_ms,
        facts=contents.facts,
    )


def duration_s(rows: Sequence[StreamRows]) -> float:
    """Return the time from first to last stamp; by receipts, where stamps are of clocks too different to be compared."""
    spans = [_span_s([getattr(r, name) for r in rows if len(r)]) for name in ("stamp_ns", "received_ns")]
    return spans[0] if abs(spans[0] - spans[1]) <= CLOCKS_APART_S else spans[1]


def _span_s(times: list[NDArray[np.int64]]) -> float:
    return (max(int(t.max()) for t in times) - min(int(t.min()) for t in times)) / 1e9 if times else 0.0


def read_attributes(directory: Path) -> dict[str, Any]:
    """Return an episode's attributes.

    Raises:
        DamageError: there are none that can be read.
    """
    path = directory / "zarr.json"
    try:
        data = read_json(path, "episode", bytes_max=ATTRIBUTES_BYTES_MAX)
        attributes = data["attributes"]
        if attributes["lehrling_episode"] != EPISODE_FORMAT:
            found = attributes["lehrling_episode"]
            raise InputError(f"Expected episode format {EPISODE_FORMAT} in {path}, got {found}; use a newer version.")
        return dict(attributes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = DamageError(f"Expected a sealed episode at {directory}, but its zarr.json cannot be read.")
        raise unreadable(error, path, damage) from error
