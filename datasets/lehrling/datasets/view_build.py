"""Build a view: align every episode, copy what the last version has already, swap it in at once."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from lehrling.datasets import inventory
from lehrling.datasets.arrays import write_array
from lehrling.datasets.codec import JpegFrames
from lehrling.datasets.errors import InputError, LehrlingError
from lehrling.datasets.fan_out import Workers, fan_out
from lehrling.datasets.files import checked_id, flock, fsync_path, fsync_tree, storage_error
from lehrling.datasets.statistics import Statistics, column_statistics
from lehrling.datasets.view_data import View
from lehrling.datasets.view_images import frames_per_shard, write_frames
from lehrling.datasets.view_layout import Layout, resolve
from lehrling.datasets.view_meta import ViewEpisode, ViewMeta, view_key
from lehrling.datasets.view_parts import Part, copied_part, new_part
from lehrling.datasets.view_pieces import PieceJob, make_piece, pieces_folder, read_piece
from lehrling.datasets.view_select import chosen, pinned
from lehrling.datasets.windows import chunk_indices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.view_spec import ViewSpec

ALONE = Workers()
Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


def build_view(
    dataset: Dataset,
    name: str,
    spec: ViewSpec,
    progress: Progress | None = None,
    workers: Workers = ALONE,
) -> View:
    """Build or refresh the view `name` and return it.

    A view that is current is returned as it is. Episodes that did not change are copied from the last
    version, others aligned and their images resized. The same episodes and specification always give the same
    bytes, whoever the workers are. The new version is written to a hidden sibling, made durable, and takes the old one's
    place. What several workers did before an interruption is not done again.

    Raises:
        InputError: no episode passes, a stream is unknown, or no row is valid.
        ContractError: the episodes have several contracts.
        LockedError: the view is being built already.
        StorageError: the dataset cannot be written.
    """
    spec = pinned(dataset, spec)
    records, contract = chosen(dataset, spec.episodes)
    layout = resolve(contract, spec)
    directory = dataset.root / "views" / checked_id(name)
    key = view_key(spec, records[0].contract_hash, records)
    try:
        with _claimed(directory):
            last = _last_version(dataset, name)
            if last is not None and last.key == key:
                return last
            steps = _Steps(len(records) * (1 + len(spec.cameras)), progress)
            folder = pieces_folder(directory, spec)
            parts = _parts(dataset, records, layout, last, steps, folder, workers)
            _write(_partial(directory), layout, key, parts, steps)
            _swap(directory)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise storage_error(error, directory) from error
    return View.open(dataset, name)


class _Steps:
    """Counts and reports steps."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def step(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _parts(
    dataset: Dataset,
    records: Sequence[EpisodeRecord],
    layout: Layout,
    last: View | None,
    steps: _Steps,
    folder: Path,
    workers: Workers,
) -> list[Part]:
    known = {}
    if last is not None and last.spec.hash == layout.spec.hash and last.contract_hash == records[0].contract_hash:
        known = {(episode.id, episode.content_hash): episode for episode in last.episodes}
    new = [record for record in records if (record.id, record.content_hash) not in known]
    if workers != ALONE:
        _make_pieces(dataset, new, layout, folder, workers, steps)
    parts = []
    for record in records:
        episode = known.get((record.id, record.content_hash))
        if last is not None and episode is not None:
            parts.append(copied_part(last, episode, record))
        else:
            parts.append(new_part(dataset, record, layout) if workers == ALONE else read_piece(folder, record))
        if workers == ALONE or episode is not None:
            steps.step()
    return parts


def _make_pieces(
    dataset: Dataset, records: Sequence[EpisodeRecord], layout: Layout, folder: Path, workers: Workers, steps: _Steps
) -> None:
    """Have workers make the parts of episodes, as files."""
    root, text = str(dataset.root.resolve()), layout.spec.model_dump_json()
    jobs = [PieceJob(root, str(folder.resolve()), record.id, record.content_hash, text) for record in records]
    for _ in fan_out(make_piece, jobs, workers):
        steps.step()


def _write(directory: Path, layout: Layout, key: str, parts: list[Part], steps: _Steps) -> None:
    """Write a whole view; attributes first, so that a purge finds the episodes in what a crash leaves."""
    skipped = {part.record.id: part.rows.reason for part in parts if part.rows.reason}
    parts = [part for part in parts if not part.rows.reason]
    if not parts:
        first = next(iter(skipped))
        raise InputError(f"Expected rows, but no episode gives any; {first}: {skipped[first]}.")
    episodes = _episodes(parts, layout)
    state, action = _joined(parts, "state"), _joined(parts, "action")
    valid = _joined(parts, "valid")
    meta = ViewMeta(
        key,
        layout.spec,
        parts[0].record.contract_hash,
        layout.state_names,
        layout.action_names,
        layout.sources,
        frames_per_shard(max((h * w for h, w in layout.sizes.values()), default=1)),
        episodes,
        skipped,
        layout.codec,
        _statistics(layout, episodes, state, action, valid),
    )
    group = zarr.create_group(directory, zarr_format=3, attributes=meta.to_json())
    for name, values in (("state", state), ("action", action), ("valid", valid)):
        write_array(group, name, values)
    write_array(group, "age_ns", _joined(parts, "age_ns"))
    write_array(group, "row_stamp_ns", _joined(parts, "stamp_ns"))
    for camera in layout.spec.cameras:
        _write_camera(group, directory, camera, layout, meta, parts, steps)
    inventory.save(directory, inventory.build(directory))
    fsync_tree(directory)


def _write_camera(
    group: zarr.Group,
    directory: Path,
    camera: str,
    layout: Layout,
    meta: ViewMeta,
    parts: list[Part],
    steps: _Steps,
) -> None:
    offsets = [episode.frames[camera][0] for episode in meta.episodes]
    rows = [part.rows.frames[camera] + first for part, first in zip(parts, offsets, strict=True)]
    write_array(group, f"frame_of_row/{camera}", np.concatenate(rows))
    size = (*layout.sizes[camera], 3)
    group.create_array(
        f"images/{camera}",
        shape=(meta.episodes[-1].frames[camera][1], *size),
        chunks=(1, *size),
        shards=(meta.per_shard, *size),
        dtype="uint8",
        serializer=JpegFrames(meta.spec.jpeg_quality),
        compressors=None,
        fill_value=0,
    )

    def frames() -> Iterator[bytes]:
        for part in parts:
            yield from part.jpegs(camera)
            steps.step()

    write_frames(directory / "images" / camera, frames(), meta.per_shard)


def _episodes(parts: list[Part], layout: Layout) -> tuple[ViewEpisode, ...]:
    row, frame = 0, dict.fromkeys(layout.spec.cameras, 0)
    episodes = []
    for part in parts:
        stop = row + len(part.rows.stamp_ns)
        frames = {camera: (first, first + part.counts[camera]) for camera, first in frame.items()}
        record = part.record
        episodes.append(ViewEpisode(record.id, row, stop, record.instruction, record.task, record.content_hash, frames))
        row, frame = stop, {camera: last for camera, (_, last) in frames.items()}
    return tuple(episodes)


def _joined(parts: list[Part], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(part.rows, name) for part in parts])


def _statistics(
    layout: Layout,
    episodes: tuple[ViewEpisode, ...],
    state: NDArray[np.float32],
    action: NDArray[np.float32],
    valid: NDArray[np.bool_],
) -> dict[str, Statistics]:
    statistics = {"state": column_statistics(state, valid), "action": column_statistics(action, valid)}
    if layout.codec.parts:
        rows = np.flatnonzero(valid)
        chunks = chunk_indices(episodes, rows, layout.spec.statistics_horizon)
        encoded = layout.codec.encode(action[chunks.index], state[rows])
        used = valid[chunks.index] & ~chunks.is_pad
        statistics["action_chunk"] = column_statistics(encoded.reshape(-1, action.shape[1]), used.reshape(-1))
    return statistics


def _partial(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.partial")


def _replaced(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.replaced")


@contextlib.contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """Hold the view's lock; tidy what an interrupted build left."""
    directory.parent.mkdir(exist_ok=True)
    descriptor = os.open(directory.with_name(f".{directory.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    flock(descriptor, f"View {directory.name!r} is being built by another process; wait for it.")
    try:
        if not directory.exists() and _replaced(directory).exists():
            _replaced(directory).rename(directory)
        _tidy(directory)
        yield
    finally:
        _tidy(directory)
        os.close(descriptor)


def _tidy(directory: Path) -> None:
    for leftover in (_partial(directory), _replaced(directory)):
        shutil.rmtree(leftover, ignore_errors=True)


def _swap(directory: Path) -> None:
    """Put the new version in place. A crash between the renames leaves the old one to the next build."""
    if directory.exists():
        directory.rename(_replaced(directory))
    _partial(directory).rename(directory)
    fsync_path(directory.parent)


def _last_version(dataset: Dataset, name: str) -> View | None:
    """Return the last version if it is whole; a purged episode in it does not matter, as it is not copied."""
    directory = dataset.root / "views" / name
    try:
        view = View(directory)
        return None if view.verify() else view
    except LehrlingError:
        return None
