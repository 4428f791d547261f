"""One episode's part of a view, computed from the episode or copied from the view's last version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lehrling.datasets.resize import view_jpeg
from lehrling.datasets.view_rows import EpisodeRows, NumericRows, Streams, episode_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.episode import Episode
    from lehrling.datasets.manifest import EpisodeRecord
    from lehrling.datasets.view_data import View
    from lehrling.datasets.view_layout import Layout
    from lehrling.datasets.view_meta import ViewEpisode


@dataclass(frozen=True)
class Part:
    """An episode's rows, with frames numbered from 0 without gaps, and how to get these frames.

    Attributes:
        counts: frames per camera.
        jpegs: gives a camera's frames in order.
    """

    record: EpisodeRecord
    rows: EpisodeRows
    counts: dict[str, int]
    jpegs: Callable[[str], Iterator[bytes]]


def episode_streams(episode: Episode) -> Streams:
    """Return an episode's streams, as rows are made from them."""

    def numeric(name: str) -> NumericRows:
        stream = episode.stream(name)
        count = len(stream)
        value = np.asarray(stream.value, np.float64).reshape(count, -1)
        given = np.asarray(stream.mask, np.bool_).reshape(count, -1)
        return NumericRows(stream.stamp_ns, stream.received_ns, np.where(given, value, np.nan))

    return Streams(numeric, episode.stream)


def new_part(dataset: Dataset, record: EpisodeRecord, layout: Layout) -> Part:
    """Align an episode; its images are read, and resized where they must be, once they are asked for."""
    rows = episode_rows(episode_streams(dataset.episode_of(record)), layout)
    shown = {camera: np.unique(frames) for camera, frames in rows.frames.items()}
    numbered = {camera: np.searchsorted(shown[camera], frames) for camera, frames in rows.frames.items()}

    def jpegs(camera: str) -> Iterator[bytes]:
        stream = dataset.episode_of(record).stream(camera)
        return (view_jpeg(stream.encoded(int(frame)), layout.spec, camera) for frame in shown[camera])

    counts = {camera: len(frames) for camera, frames in shown.items()}
    return Part(record, _renumbered(rows, numbered), counts, jpegs)


def copied_part(view: View, episode: ViewEpisode, record: EpisodeRecord) -> Part:
    """Take an unchanged episode from the view's last version, JPEGs as they are."""
    span = slice(episode.start, episode.stop)

    def jpegs(camera: str) -> Iterator[bytes]:
        frames = view.images(camera)
        return (frames.frame(number) for number in range(*episode.frames[camera]))

    numbered = {camera: view.images(camera).frame_of_row[span] - first for camera, (first, _) in episode.frames.items()}
    rows = EpisodeRows(
        view.row_stamp_ns[span],
        view.state[span],
        view.action[span],
        numbered,
        view.age_ns[span],
        view.valid[span],
    )
    counts = {camera: stop - first for camera, (first, stop) in episode.frames.items()}
    return Part(record, rows, counts, jpegs)


def _renumbered(rows: EpisodeRows, frames: dict[str, NDArray[np.int64]]) -> EpisodeRows:
    return EpisodeRows(rows.stamp_ns, rows.state, rows.action, frames, rows.age_ns, rows.valid, rows.reason)
