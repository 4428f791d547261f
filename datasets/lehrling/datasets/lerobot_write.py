"""Write a LeRobot v3.0 dataset episode by episode: tables, videos, statistics, what is known of each episode."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.codec import decode_jpeg
from lehrling.datasets.errors import DamageError
from lehrling.datasets.lerobot_format import (
    DATA_PATH,
    EPISODES_PATH,
    INDEX_FEATURES,
    INFO,
    STATS,
    Feature,
    Limits,
    Place,
    Totals,
    info_json,
    needed,
)
from lehrling.datasets.lerobot_stats import NAMES, PixelCounts, Stats, column_stats
from lehrling.datasets.lerobot_tables import ParquetShards, column, frame_schema, numbers_of, write_tasks
from lehrling.datasets.lerobot_video import Span, VideoShards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from lehrling.datasets.lerobot_frames import CameraFrames, EpisodeFrames

EPISODES_AT_ONCE = 256


@dataclass
class _Writing:
    """What grows while episodes are written."""

    episodes: int = 0
    frames: int = 0
    pixels: dict[str, PixelCounts] = field(default_factory=dict)
    pending: list[dict[str, Any]] = field(default_factory=list)


class DatasetFiles:
    """The files of a dataset below `root`, which is there and empty; `finish` makes them a dataset."""

    def __init__(
        self,
        root: Path,
        features: Sequence[Feature],
        fps: int,
        pictures: Callable[[CameraFrames, str, int], bytes],
        limits: Limits | None = None,
    ) -> None:
        """Take a function that gives a camera's picture, a JPEG of its feature's size: of frames, by key and number."""
        self._root, self._fps = root, fps
        self._features = tuple(features)
        self._every = (*features, *INDEX_FEATURES)
        self._pictures = pictures
        sizes = limits or Limits()
        self._data = ParquetShards(root, DATA_PATH, frame_schema(self._every), sizes.data)
        self._episodes = ParquetShards(root, EPISODES_PATH, self._episode_schema(), sizes.data)
        self._videos = {
            f.key: VideoShards(root, f.key, (f.shape[0], f.shape[1]), fps, sizes.video)
            for f in features
            if f.dtype == "video"
        }
        self._now = _Writing(pixels={f.key: PixelCounts() for f in features if f.camera})

    @property
    def frames(self) -> int:
        """How many frames are written."""
        return self._now.frames

    def write(self, episode: EpisodeFrames, task_index: NDArray[np.int64], step: Callable[[], None]) -> None:
        """Write an episode; `step` is called after each camera."""
        number, first, rows = self._now.episodes, self._now.frames, episode.rows
        columns: dict[str, Any] = dict(episode.columns)
        frame = np.arange(rows)
        columns["timestamp"] = (frame / self._fps).astype(np.float32)
        columns["frame_index"], columns["index"] = frame, first + frame
        columns["episode_index"], columns["task_index"] = np.full(rows, number), task_index
        stats: dict[str, Stats] = {}
        facts: dict[str, Any] = {}
        for key, camera in episode.cameras.items():
            counted = PixelCounts()
            if key in self._videos:
                span = self._videos[key].write(self._shown(key, camera, counted), rows)
                facts |= _video_facts(key, span)
            else:
                columns[key] = self._embedded(key, camera, counted)
            stats[key] = counted.stats()
            self._now.pixels[key].merge(counted)
            step()
        for feature in self._counted:
            stats[feature.key] = column_stats(np.asarray(columns[feature.key]))
        place = self._write_rows(columns, rows)
        texts = list(dict.fromkeys(run.text for run in episode.tasks))
        facts |= {"tasks": texts, "length": rows, "data/chunk_index": place.chunk, "data/file_index": place.file}
        facts |= {"episode_index": number, "dataset_from_index": first, "dataset_to_index": first + rows}
        facts |= {f"stats/{key}/{name}": found[name] for key, found in stats.items() for name in NAMES}
        self._note(facts)
        self._now.episodes, self._now.frames = number + 1, first + rows

    @property
    def _counted(self) -> list[Feature]:
        return [f for f in self._every if not f.camera and f.dtype != "string"]

    def _shown(self, key: str, camera: CameraFrames, counted: PixelCounts) -> Iterator[NDArray[np.uint8]]:
        """Yield the image of each row; a frame that several rows in turn show is decoded once."""
        for number, times in _runs(camera.frame_of_row):
            image = self._pixels(key, number, self._pictures(camera, key, number))
            counted.add(image, times)
            for _ in range(times):
                yield image

    def _embedded(self, key: str, camera: CameraFrames, counted: PixelCounts) -> list[tuple[bytes, str]]:
        """Return (bytes, name) of each row's picture."""
        pictures: list[bytes] = []
        for number, times in _runs(camera.frame_of_row):
            content = self._pictures(camera, key, number)
            counted.add(self._pixels(key, number, content), times)
            pictures += [content] * times
        return [(content, f"frame-{row:06d}.jpg") for row, content in enumerate(pictures)]

    def _pixels(self, key: str, number: int, jpeg: bytes) -> NDArray[np.uint8]:
        height, width, _ = next(feature.shape for feature in self._features if feature.key == key)
        try:
            return decode_jpeg(jpeg, height, width)
        except ValueError as error:
            raise DamageError(
                f"Frame {number} of {key} is damaged: {error}; run `lehrling verify` on the dataset."
            ) from error

    def _write_rows(self, columns: dict[str, Any], rows: int) -> Place:
        arrow = needed("pyarrow")
        schema = frame_schema(self._every)
        stored = [f for f in self._every if f.dtype != "video"]
        table = arrow.Table.from_arrays([column(f, columns[f.key]) for f in stored], schema=schema)
        place = self._data.place(rows)
        self._data.write(table)
        return place

    def _note(self, facts: dict[str, Any]) -> None:
        self._now.pending.append(facts)
        if len(self._now.pending) >= EPISODES_AT_ONCE:
            self._write_episodes()

    def _write_episodes(self) -> None:
        arrow = needed("pyarrow")
        if not self._now.pending:
            return
        place = self._episodes.place(len(self._now.pending))
        here = {"meta/episodes/chunk_index": place.chunk, "meta/episodes/file_index": place.file}
        rows = [facts | here for facts in self._now.pending]
        self._episodes.write(arrow.Table.from_pylist(rows, schema=self._episode_schema()))
        self._now.pending.clear()

    def _episode_schema(self) -> pa.Schema:
        arrow = needed("pyarrow")
        whole, real = arrow.int64(), arrow.float64()
        fields = [("episode_index", whole), ("tasks", arrow.list_(arrow.string())), ("length", whole)]
        fields += [(name, whole) for name in ("data/chunk_index", "data/file_index")]
        fields += [(name, whole) for name in ("dataset_from_index", "dataset_to_index")]
        for feature in self._features:
            if feature.dtype == "video":
                fields += [(f"videos/{feature.key}/{name}", whole) for name in ("chunk_index", "file_index")]
                fields += [(f"videos/{feature.key}/{name}", real) for name in ("from_timestamp", "to_timestamp")]
        for feature in self._every:
            if feature.dtype == "string":
                continue
            kind = arrow.list_(arrow.list_(arrow.list_(real))) if feature.camera else arrow.list_(real)
            fields += [
                (f"stats/{feature.key}/{name}", arrow.list_(whole) if name == "count" else kind) for name in NAMES
            ]
        return arrow.schema([*fields, ("meta/episodes/chunk_index", whole), ("meta/episodes/file_index", whole)])

    def finish(self, robot_type: str | None, tasks: dict[int, str]) -> None:
        """Close every file, compute the statistics of all rows, write `meta/`."""
        self._write_episodes()
        self.close()
        stats = {key: counted.stats() for key, counted in self._now.pixels.items()}
        stats |= {feature.key: column_stats(self._whole(feature)) for feature in self._counted}
        ordered = {f.key: stats[f.key] for f in self._every if f.key in stats}
        write_tasks(self._root, tasks)
        totals = Totals(self._now.episodes, self._now.frames, len(tasks))
        _write_json(self._root / STATS, ordered)
        _write_json(self._root / INFO, info_json(self._features, self._fps, robot_type, totals))

    def _whole(self, feature: Feature) -> NDArray[Any]:
        """Return a column of all rows, read back from what was written."""
        parquet = needed("pyarrow.parquet")
        tables = [parquet.read_table(path, columns=[feature.key], partitioning=None) for path in self._data.paths]
        return np.concatenate([numbers_of(table, feature) for table in tables])

    def close(self) -> None:
        """Close what is open, and read videos back.

        Raises:
            StorageError: frames are missing in one.
        """
        for video in self._videos.values():
            video.close()
        self._data.close()
        self._episodes.close()

    def abandon(self) -> None:
        """Let go of what is open; the files are of no use."""
        for close in (*(video.abandon for video in self._videos.values()), self._data.close, self._episodes.close):
            with contextlib.suppress(Exception):
                close()


def _runs(frames: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield frame numbers with the number of rows in turn that show each."""
    starts = np.flatnonzero(np.diff(frames, prepend=frames[0] - 1))
    for start, stop in zip(starts, np.append(starts[1:], len(frames)), strict=True):
        yield int(frames[start]), int(stop - start)


def _video_facts(key: str, span: Span) -> dict[str, Any]:
    return {
        f"videos/{key}/chunk_index": span.place.chunk,
        f"videos/{key}/file_index": span.place.file,
        f"videos/{key}/from_timestamp": span.from_s,
        f"videos/{key}/to_timestamp": span.to_s,
    }


def _write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8")
