"""Archive: episodes whose cameras are kept as video from now on; all else, stamps included, is copied byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import zarr

from lehrling.datasets import inventory
from lehrling.datasets.codec_video import CRF
from lehrling.datasets.edit_cut import free_id, replaced
from lehrling.datasets.episode_part import Cut, span_of, was_cut
from lehrling.datasets.errors import DamageError, InputError
from lehrling.datasets.failpoints import reach
from lehrling.datasets.files import fsync_tree, placed_whole, tree_bytes
from lehrling.datasets.manifest import EpisodeRecord, Parent
from lehrling.datasets.video_frames import VideoFile, write_video

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.edits import EditReport
    from lehrling.datasets.episode import Episode, EpisodeStream

Progress = Callable[[int, int], None]
PSNR_MIN_DB = 20.0
"""Worse than that is no matter of quality: something went wrong."""


@dataclass(frozen=True)
class _Frames:
    """A camera's frames, decoded when they are asked for."""

    stream: EpisodeStream

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(self.stream.frame(index), np.uint8)


def archive(
    dataset: Dataset,
    records: Sequence[EpisodeRecord],
    cameras: Sequence[str] | None = None,
    crf: int = CRF,
    progress: Progress | None = None,
) -> EditReport:
    """Replace episodes by ones named after them with `.v1`, whose colour cameras are H.264; the former stay until purged.

    Args:
        dataset: open for writing.
        records: of sealed episodes.
        cameras: to be kept as video; None takes all colour cameras.
        crf: quality of x264, 0 to 51; lower is better and larger.
        progress: called with episodes made and episodes in all.

    Raises:
        InputError: an unknown camera, one that is video already, or `av` is not installed.
        DamageError: an episode is damaged, or the video does not show what went in.
        StorageError: the disk is full or failed.
    """
    if not 0 <= crf <= 51:
        raise InputError(f"Expected a crf from 0 to 51, got {crf}.")
    cuts, chosen = [], {}
    for record in records:
        episode = dataset.episode_of(record)
        chosen[record.id] = _chosen(episode, cameras)
        cuts.append(Cut(record, free_id(dataset, record.id, "v"), 0, span_of(episode)))
    told = records[0].id if len(records) == 1 else f"{len(records)} episodes"
    words = f"archived {told} as H.264, crf {crf}"

    def seal(dataset: Dataset, cut: Cut) -> EpisodeRecord:
        return _seal(dataset, cut, chosen[cut.record.id], crf)

    return replaced(dataset, "archive", cuts, words, progress, seal)


def _chosen(episode: Episode, cameras: Sequence[str] | None) -> list[str]:
    colour = [c.name for c in episode.contract.cameras if episode.stream(c.name).stream.kind == "colour_image"]
    if unknown := [name for name in cameras or () if name not in colour]:
        raise InputError(f"Expected colour cameras of {episode.id!r} ({', '.join(colour)}), got {unknown[0]!r}.")
    found = [name for name in colour if cameras is None or name in cameras]
    found = [name for name in found if len(episode.stream(name)) and not episode.stream(name).is_video]
    if not found:
        raise InputError(f"Expected a camera of {episode.id!r} that is no video yet, got none.")
    return found


def _seal(dataset: Dataset, cut: Cut, cameras: Sequence[str], crf: int) -> EpisodeRecord:
    episode = dataset.episode_of(cut.record)
    final = dataset.root / "episodes" / cut.name
    parent = Parent(episode.id, episode.record.content_hash, cut.start_ns / 1e9, cut.stop_ns / 1e9)
    with placed_whole(final) as partial:
        _write(partial, episode, cut.name, parent, cameras, crf)
        reach("edit-written")
        listing = inventory.build(partial)
        inventory.save(partial, listing)
        fsync_tree(partial)
        reach("edit-synced")
    reach("edit-renamed")
    return replace(
        episode.record,
        id=cut.name,
        status="sealed",
        reason="",
        bytes=tree_bytes(final),
        content_hash=inventory.content_hash(listing),
        code_version=metadata.version("lehrling-datasets"),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        parent=parent,
        edit=None,
    )


def _write(partial: Path, episode: Episode, name: str, parent: Parent, cameras: Sequence[str], crf: int) -> None:
    left_out = {str(episode.directory / camera): "value" for camera in cameras}

    def ignore(folder: str, names: list[str]) -> list[str]:
        wanted = left_out.get(folder)
        return [n for n in names if n == wanted or (folder == str(episode.directory) and n == inventory.NAME)]

    facts = episode.attributes  # looks for links before anything is copied
    video = {"cameras": list(cameras), "crf": crf, "cut": was_cut(facts)}
    shutil.copytree(episode.directory, partial, ignore=ignore)
    group = zarr.open_group(partial, mode="r+", zarr_format=3)
    group.attrs.put(facts | {"id": name, "parent": asdict(parent), "video": video})
    for camera in cameras:
        frames = _Frames(episode.stream(camera))
        path = f"{camera}/value"
        write_video(group, partial, path, frames, tuple(frames.stream.stream.shape), crf)  # type: ignore[arg-type]
        _compare(partial / path, frames)


def _compare(directory: Path, frames: _Frames) -> None:
    """Decode what was written, and refuse frames that do not show what went in."""
    video = VideoFile(directory)
    for number in range(len(frames)):
        error = float(np.mean((video[number].astype(np.float32) - frames[number]) ** 2))
        if 10 * np.log10(255**2 / max(error, 1e-9)) < PSNR_MIN_DB:
            raise DamageError(
                f"Frame {number} of {frames.stream.directory} is hardly to be seen in the video; lower the crf, or keep JPEG."
            )
