"""A part of a sealed episode, sealed as an episode of its own: frames as they are stored, other rows copied."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from lehrling.datasets import inventory
from lehrling.datasets.arrays import read_array, write_array
from lehrling.datasets.embodiment import IMAGE_KINDS
from lehrling.datasets.encoded_chunks import EncodedChunks, copy_chunks, difference
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import fsync_tree, placed_whole, tree_bytes
from lehrling.datasets.manifest import EpisodeRecord, Parent
from lehrling.datasets.rows import TIMES, StreamRows
from lehrling.datasets.sealer import duration_s
from lehrling.datasets.timing import rows_timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.episode import Episode, EpisodeStream


@dataclass(frozen=True)
class Cut:
    """A part of an episode: rows received from `start_ns` until before `stop_ns`, counted from its first receipt.

    A part that ends with the episode keeps the last row too.
    """

    record: EpisodeRecord
    name: str
    start_ns: int
    stop_ns: int


@dataclass(frozen=True)
class _Slice:
    """A stream's rows start to stop; `chunks` of images."""

    stream: EpisodeStream
    start: int
    stop: int
    chunks: EncodedChunks | None


def span_of(episode: Episode) -> int:
    """Return the time from the first to the last receipt [ns].

    Raises:
        InputError: the episode has no rows.
    """
    first, last = _receipts(episode)
    return last - first


def _receipts(episode: Episode) -> tuple[int, int]:
    times = [received for name in episode.streams if len(received := episode.stream(name).received_ns)]
    if not times:
        raise InputError(f"Episode {episode.id!r} has no rows to cut.")
    return min(int(t.min()) for t in times), max(int(t.max()) for t in times)


def was_cut(attributes: Mapping[str, Any]) -> bool:
    """Whether an episode's attributes say that it is a part of one; an archived whole has a parent too."""
    return "parent" in attributes and bool(attributes.get("video", {}).get("cut", True))


def seal_part(dataset: Dataset, cut: Cut) -> EpisodeRecord:
    """Write the part as `episodes/<name>` and return the record to commit.

    Raises:
        InputError: no stream has rows in it.
        DamageError: the episode is damaged, or what was written does not read back.
        StorageError: the disk is full or failed.
    """
    episode = dataset.episode_of(cut.record)
    slices = _slices(episode, cut)
    if all(part.start == part.stop for part in slices):
        raise InputError(f"Expected rows in every part of {episode.id!r}, but {cut.name!r} would have none.")
    rows = [_rows(part) for part in slices]
    final = dataset.root / "episodes" / cut.name
    parent = Parent(episode.id, episode.record.content_hash, cut.start_ns / 1e9, cut.stop_ns / 1e9)
    with placed_whole(final) as partial:
        _write(partial, episode, cut.name, parent, slices, rows)
        reach("edit-written")
        listing = inventory.build(partial)
        inventory.save(partial, listing)
        _verify(partial, slices, rows)
        fsync_tree(partial)
        reach("edit-synced")
    reach("edit-renamed")
    record = _record(episode, rows, parent)
    return replace(record, id=cut.name, bytes=tree_bytes(final), content_hash=inventory.content_hash(listing))


def _slices(episode: Episode, cut: Cut) -> list[_Slice]:
    first, last = _receipts(episode)
    stop_ns = cut.stop_ns + 1 if cut.stop_ns == last - first else cut.stop_ns
    return [_slice(episode.stream(name), first + cut.start_ns, first + stop_ns) for name in episode.streams]


def _slice(stream: EpisodeStream, start_ns: int, stop_ns: int) -> _Slice:
    """Find a stream's rows; where frames are coded together, all frames of the first and last group."""
    received = np.maximum.accumulate(stream.received_ns)
    start, stop = (int(index) for index in np.searchsorted(received, [start_ns, stop_ns], "left"))
    if stream.stream.kind not in IMAGE_KINDS:
        return _Slice(stream, start, stop, None)
    chunks = EncodedChunks(stream.directory / "value")
    return _Slice(stream, *chunks.widened(start, stop), chunks)


def _rows(part: _Slice) -> StreamRows:
    stream, span = part.stream, slice(part.start, part.stop)
    times: dict[str, NDArray[np.int64]] = {name: getattr(stream, name)[span] for name in TIMES}
    masked = (stream.directory / "mask").is_dir()
    rows = StreamRows(
        stream.stream,
        times["stamp_ns"],
        times["received_ns"],
        times["publish_ns"],
        times["monotonic_ns"],
        times["sequence"],
        _values(part),
        mask=stream.mask[span] if masked else None,
        stamped=stream.attributes.get("stamps") == "header",
    )
    definitions = stream.attributes.get("definitions")
    return replace(rows, definitions=definitions) if isinstance(definitions, dict) else rows


def _values(part: _Slice) -> Any:
    stream, span = part.stream, range(part.start, part.stop)
    if part.chunks is not None:
        return [part.chunks[number] for number in span] if part.chunks.rows == 1 else [stream.frame(n) for n in span]
    if stream.stream.kind in ("ragged", "raw"):
        return [stream.ragged(number) for number in span]
    return stream.value[part.start : part.stop]


def _write(
    directory: Path, episode: Episode, name: str, parent: Parent, slices: Sequence[_Slice], rows: Sequence[StreamRows]
) -> None:
    facts = episode.attributes | {"id": name, "parent": asdict(parent)}
    if "video" in facts:
        facts["video"] = {**facts["video"], "cut": True}
    group = zarr.create_group(directory, zarr_format=3, attributes=facts)
    for part, stream in zip(slices, rows, strict=True):
        inner = group.create_group(stream.name, attributes=part.stream.attributes)
        if part.chunks is None:
            stream.write(inner, directory / stream.name)
            continue
        for time in TIMES:
            write_array(inner, time, getattr(stream, time))
        copy_chunks(part.chunks, directory / stream.name / "value", part.start, part.stop)


def _verify(directory: Path, slices: Sequence[_Slice], rows: Sequence[StreamRows]) -> None:
    """Read back what was written and compare every value, stamp and frame with the parent's."""
    for part, stream in zip(slices, rows, strict=True):
        place = directory / stream.name
        problem = stream.compare(place) if part.chunks is None else _image_problem(place, part, stream)
        if problem:
            raise DamageError(f"Cutting {part.stream.directory.parent.name} failed: {problem}; check the disk.")


def _image_problem(place: Path, part: _Slice, stream: StreamRows) -> str:
    for time in TIMES:
        if not np.array_equal(read_array(place / time), getattr(stream, time)):
            return f"{time} of {stream.name} reads back differently"
    return difference(part.chunks, place / "value", part.start) if part.chunks else ""


def _record(episode: Episode, rows: Sequence[StreamRows], parent: Parent) -> EpisodeRecord:
    timing = rows_timing(episode.binding, rows)
    return replace(
        episode.record,
        status="sealed",
        reason="",
        duration_s=round(duration_s(rows), 6),
        lengths={stream.name: len(stream) for stream in rows},
        timing=timing.streams,
        skew=timing.skew,
        clock_jump_ms=timing.clock_jump_ms,
        code_version=metadata.version("lehrling-datasets"),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        parent=parent,
        edit=None,
    )
