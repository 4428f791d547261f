"""An episode's frames out of a LeRobot dataset: its rows of a table, its pictures out of tables or videos."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from lehrling.datasets.errors import DamageError
from lehrling.datasets.lerobot_format import INDEX_FEATURES, Feature, needed
from lehrling.datasets.lerobot_listing import Listed, check_size, readable
from lehrling.datasets.lerobot_paths import inside
from lehrling.datasets.lerobot_tables import numbers_of
from lehrling.datasets.lerobot_video import PIXELS_MAX, TOLERANCE_S
from lehrling.datasets.resize import encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from lehrling.datasets.lerobot_source import Source

JPEG_QUALITY = 95
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PICTURE_BYTES_MAX = 64 << 20
TEXT_MAX = 1 << 16
ONLY_THIS_FILE = {"protocol_whitelist": "file"}
"""FFmpeg guesses formats by content, and playlists would have it open other files and addresses."""
BROKEN = (ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)
"""What PyAV raises besides its own errors where a file was bent."""
FLOAT32_STEP = 2.0**-22
"""Relative size of two steps of a float32, as which timestamps are stored."""


@dataclass(frozen=True)
class EpisodeRows:
    """An episode's columns by key: (N, …) numbers, or texts; `pictures` as stored, of cameras that are in the table."""

    length: int
    columns: dict[str, NDArray[Any] | list[str]]
    pictures: dict[str, list[bytes]]
    task_index: NDArray[np.int64]


class EpisodeReader:
    """Reads episodes' rows in turn; row groups that several share, as LeRobot's tools write them, are read once."""

    def __init__(self, source: Source) -> None:
        """Read from a dataset."""
        self._source = source
        self._last: tuple[Path, list[int], pa.Table] | None = None

    def rows(self, episode: Listed) -> EpisodeRows:
        """Read an episode's rows and check that they are its frames, in order, at the dataset's rate.

        Raises:
            InputError: the table is missing or cut, or its rows are not what the metadata says.
        """
        path = inside(self._source.root, episode.table)
        stored = [feature for feature in self._source.features if feature.dtype != "video"]
        with readable(f"{path}, episode {episode.index},"):
            table = self._table(path, episode, [f.key for f in (*stored, *INDEX_FEATURES)])
            index = {feature.key: numbers_of(table, feature).reshape(-1) for feature in INDEX_FEATURES}
            _check_index(episode, index, self._source.fps)
            return _taken_apart(table, stored, index["task_index"].astype(np.int64))

    def _table(self, path: Path, episode: Listed, columns: list[str]) -> pa.Table:
        """Return the episode's rows: of the row groups that can hold some, those that are its."""
        parquet = needed("pyarrow.parquet")
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if missing := [name for name in columns if name not in file.schema_arrow.names]:
                raise ValueError(f"it lacks the column {missing[0]}")
            groups = [group for group in range(file.metadata.num_row_groups) if _may_hold(file, group, episode.index)]
            if self._last is None or self._last[:2] != (path, groups):
                self._last = None
                check_size(file, path, groups)
                self._last = path, groups, file.read_row_groups(groups, columns)
        table = self._last[2]
        rows = np.flatnonzero(table.column("episode_index").to_numpy() == episode.index)
        if len(rows) and rows[-1] - rows[0] != len(rows) - 1:
            raise ValueError("its rows are not one after another")
        return table.slice(rows[0] if len(rows) else 0, len(rows))


def _taken_apart(table: pa.Table, stored: Sequence[Feature], task_index: NDArray[np.int64]) -> EpisodeRows:
    columns: dict[str, NDArray[Any] | list[str]] = {}
    pictures = {}
    for feature in stored:
        if feature.dtype == "image":
            pictures[feature.key] = _pictures(table, feature)
        elif feature.dtype == "string":
            columns[feature.key] = _texts(table, feature)
        else:
            columns[feature.key] = numbers_of(table, feature)
    return EpisodeRows(len(task_index), columns, pictures, task_index)


def _may_hold(file: Any, group: int, index: int) -> bool:
    facts = file.metadata.row_group(group)
    for number in range(facts.num_columns):
        column = facts.column(number)
        if column.path_in_schema == "episode_index" and column.statistics is not None and column.statistics.has_min_max:
            return bool(column.statistics.min <= index <= column.statistics.max)
    return True


def _check_index(episode: Listed, index: Mapping[str, NDArray[Any]], fps: int) -> None:
    rows = len(index["frame_index"])
    if rows != episode.length:
        raise ValueError(f"it has {rows} rows of it, the list of episodes says {episode.length}")
    frames = np.arange(rows)
    if not np.array_equal(index["frame_index"], frames):
        raise ValueError("its frame_index does not count from 0 on")
    off = np.abs(index["timestamp"].astype(np.float64) - frames / fps)
    if not (off <= TOLERANCE_S + frames / fps * FLOAT32_STEP).all():
        worst = int(np.nan_to_num(off, nan=np.inf).argmax())
        raise ValueError(
            f"frame {worst} is stamped {index['timestamp'][worst]} s, at {fps} Hz it is {worst / fps:.4f} s"
        )


def _texts(table: pa.Table, feature: Feature) -> list[str]:
    texts = table.column(feature.key).to_pylist()
    if not all(isinstance(text, str) and len(text) <= TEXT_MAX for text in texts):
        raise ValueError(f"{feature.key} has rows that are no text of at most {TEXT_MAX} characters")
    return list(texts)


def _pictures(table: pa.Table, feature: Feature) -> list[bytes]:
    rows = table.column(feature.key).to_pylist()
    found = [row.get("bytes") if isinstance(row, dict) else None for row in rows]
    if not all(isinstance(content, bytes) and 0 < len(content) <= PICTURE_BYTES_MAX for content in found):
        raise ValueError(f"{feature.key} has rows without an embedded picture")
    return [bytes(content) for content in found if content is not None]


def as_jpeg(content: bytes, size: Sequence[int], where: str) -> bytes:
    """Return an embedded picture of size (height, width) as JPEG: unchanged if it is one, else encoded at quality 95, 4:4:4.

    Raises:
        DamageError: neither JPEG nor PNG, or of another size.
    """
    if content.startswith(PNG_HEAD):
        return encode(_png(content, size, where), JPEG_QUALITY)
    try:
        found = simplejpeg.decode_jpeg_header(content)[:2]
    except ValueError as error:
        raise DamageError(f"Expected a PNG or JPEG as {where}, got {len(content)} bytes that are neither.") from error
    _check_picture(found, size, where)
    return content


def _png(content: bytes, size: Sequence[int], where: str) -> NDArray[np.uint8]:
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    _check_picture((height, width), size, where)
    av = needed("av")
    try:
        with av.open(io.BytesIO(content), format="png_pipe") as container:
            frame = next(container.decode(video=0))
            _check_picture((frame.height, frame.width), size, where)
            return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.error.FFmpegError, StopIteration, *BROKEN) as error:
        raise DamageError(f"Expected a PNG as {where}, got {len(content)} bytes that do not decode.") from error


def _check_picture(found: Sequence[int], size: Sequence[int], where: str) -> None:
    if tuple(found) != tuple(size):
        raise DamageError(f"Expected {size[0]} x {size[1]} pixels in {where}, got {found[0]} x {found[1]}.")


def video_frames(source: Source, episode: Listed, camera: Feature) -> Iterator[NDArray[np.uint8]]:
    """Yield an episode's images (h, w, 3) uint8, each from the frame at its row's time.

    Raises:
        InputError: the file is missing.
        DamageError: it cannot be decoded, has another size, or lacks a frame at some row's time.
    """
    part = episode.videos[camera.key]
    path = inside(source.root, part.path)
    av = needed("av")
    done = 0
    try:
        with av.open(str(path.resolve()), format="mp4", options=ONLY_THIS_FILE) as container:
            stream = _video_stream(container, path, picture_size(camera))
            container.seek(round(part.from_s / stream.time_base) - 1, backward=True, any_frame=False, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                wanted = part.from_s + done / source.fps
                seen = float(frame.pts * stream.time_base)
                if seen < wanted - TOLERANCE_S:
                    continue
                if seen > wanted + TOLERANCE_S:
                    break
                _check_picture((frame.height, frame.width), picture_size(camera), str(path))
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                done += 1
                if done == episode.length:
                    return
    except (av.error.FFmpegError, *BROKEN) as error:
        raise DamageError(
            f"{path} cannot be decoded after frame {done} of episode {episode.index}: {_reason(error)}."
        ) from error
    raise DamageError(
        f"{path} has no frame at {part.from_s + done / source.fps:.4f} s, which is frame {done} of episode {episode.index}."
    )


def _video_stream(container: Any, path: Path, size: Sequence[int]) -> Any:
    if not container.streams.video:
        raise DamageError(f"Expected a video in {path}, which has no such stream.")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.time_base:
        raise DamageError(f"Expected a video in {path} of a codec that FFmpeg knows, got one of none.")
    found = (stream.codec_context.height, stream.codec_context.width)
    if found[0] * found[1] > PIXELS_MAX:
        raise DamageError(f"{path} declares frames of {found[0]} x {found[1]}; it is refused.")
    _check_picture(found, size, str(path))
    return stream


def picture_size(camera: Feature) -> tuple[int, int]:
    """Return (height, width); some datasets say (3, height, width) instead of (height, width, 3)."""
    height, width = camera.shape[:2] if camera.shape[2] == 3 else camera.shape[1:]
    return height, width


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")
