"""What an episode becomes in LeRobot's terms: frames at one rate, a column per feature.

Two ways: episodes of robots are aligned by a view specification, with the view's own code; episodes that came from LeRobot
are frames already and go out as they came, key by key and bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lehrling.datasets.episode_part import was_cut
from lehrling.datasets.lerobot_format import ACTION, AGE, IMAGES, STAMP, STATE, VALID, Feature
from lehrling.datasets.lerobot_origin import Origin, TaskRun, origin_of
from lehrling.datasets.lerobot_read import picture_size
from lehrling.datasets.lerobot_video import video_info
from lehrling.datasets.view_parts import episode_streams
from lehrling.datasets.view_rows import EpisodeRows, episode_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lehrling.datasets.episode import Episode, EpisodeStream
    from lehrling.datasets.view_layout import Layout

PICTURE_NAMES = ["height", "width", "channels"]


@dataclass(frozen=True)
class CameraFrames:
    """A camera's part: row i shows the stream's frame `frame_of_row[i]`."""

    stream: EpisodeStream
    frame_of_row: NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeFrames:
    """An episode's frames.

    Attributes:
        rows: how many.
        columns: by key, (rows, …) numbers or texts; without cameras and index columns.
        tasks: what was asked for from which row on.
        doubtful: rows that `lehrling.valid` marks as not valid.
        reason: why there are none; empty if there are.
    """

    rows: int = 0
    columns: dict[str, NDArray[Any] | Sequence[str]] = field(default_factory=dict)
    cameras: dict[str, CameraFrames] = field(default_factory=dict)
    tasks: tuple[TaskRun, ...] = ()
    doubtful: int = 0
    reason: str = ""


class Plan(Protocol):
    """How episodes become frames."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """All features, cameras included, index columns not."""
        ...

    @property
    def fps(self) -> int:
        """Frames per second."""
        ...

    def tasks(self, episode: Episode) -> tuple[TaskRun, ...]:
        """Return what an episode was asked to do, without reading its data."""
        ...

    def frames(self, episode: Episode) -> EpisodeFrames:
        """Return an episode's frames."""
        ...


@dataclass(frozen=True)
class ViewPlan:
    """Frames by a view specification: state, action, cameras in the view's size, stamps and ages."""

    layout: Layout
    features: tuple[Feature, ...]
    fps: int

    @classmethod
    def of(cls, layout: Layout, *, images: bool) -> ViewPlan:
        """Plan for a layout; `images` embeds pictures instead of making videos."""
        fps = round(layout.spec.rate_hz)
        features = [_numbers(STATE, layout.state_names)] if layout.state_names else []
        features.append(_numbers(ACTION, layout.action_names))
        for camera, size in layout.sizes.items():
            features.append(camera_feature(f"{IMAGES}.{camera}", size, fps, video=not images))
        features.append(Feature(STAMP, "int64", (1,), ["ns"]))
        features.append(Feature(AGE, "int64", (len(layout.sources),), list(layout.sources)))
        features.append(Feature(VALID, "bool", (1,)))
        return cls(layout, tuple(features), fps)

    def tasks(self, episode: Episode) -> tuple[TaskRun, ...]:
        """Return the episode's one task: its instruction."""
        record = episode.record
        return (TaskRun(0, None, record.instruction or record.task),)

    def frames(self, episode: Episode) -> EpisodeFrames:
        """Align an episode; rows without a number at either end are cut off."""
        rows = episode_rows(episode_streams(episode), self.layout)
        if rows.reason:
            return EpisodeFrames(reason=rows.reason)
        kept = whole_rows(rows.state, rows.action)
        if isinstance(kept, str):
            return EpisodeFrames(reason=kept)
        return self._cut(episode, rows, kept)

    def _cut(self, episode: Episode, rows: EpisodeRows, kept: slice) -> EpisodeFrames:
        columns: dict[str, NDArray[Any] | Sequence[str]] = {
            STATE: rows.state[kept],
            ACTION: rows.action[kept],
            STAMP: rows.stamp_ns[kept],
            AGE: rows.age_ns[kept],
            VALID: rows.valid[kept],
        }
        known = {feature.key for feature in self.features}
        cameras = {
            f"{IMAGES}.{name}": CameraFrames(episode.stream(name), found[kept]) for name, found in rows.frames.items()
        }
        return EpisodeFrames(
            kept.stop - kept.start,
            {key: values for key, values in columns.items() if key in known},
            cameras,
            self.tasks(episode),
            int((~rows.valid[kept]).sum()),
        )


@dataclass(frozen=True)
class FramePlan:
    """Episodes that came from LeRobot, frame by frame as they came."""

    origin: Origin
    features: tuple[Feature, ...]
    fps: int

    @classmethod
    def of(cls, origin: Origin, *, images: bool) -> FramePlan:
        """Plan for one origin; a camera that was embedded stays so, `images` embeds all."""
        features = tuple(
            camera_feature(f.key, picture_size(f), origin.fps, video=f.dtype == "video" and not images, names=_names(f))
            if f.camera
            else f
            for f in origin.features
        )
        return cls(origin, features, origin.fps)

    def tasks(self, episode: Episode) -> tuple[TaskRun, ...]:
        """Return what the episode's frames were asked to do, with LeRobot's numbers of it.

        A later label comes first. In a part that was cut off, tasks that follow each other are one: the instruction.
        """
        origin = origin_of(episode)
        labelled = episode.record.instruction != episode.attributes.get("instruction")
        if origin is None or labelled or (len(origin.tasks) > 1 and was_cut(episode.attributes)):
            return (TaskRun(0, None, episode.record.instruction or episode.record.task),)
        return origin.tasks

    def frames(self, episode: Episode) -> EpisodeFrames:
        """Return the frames."""
        columns: dict[str, NDArray[Any] | Sequence[str]] = {}
        cameras: dict[str, CameraFrames] = {}
        counts: dict[str, int] = {}
        for feature in self.origin.features:
            stream = episode.stream(self.origin.streams[feature.key])
            counts[stream.stream.name] = len(stream)
            if feature.camera:
                cameras[feature.key] = CameraFrames(stream, np.arange(len(stream)))
            else:
                columns[feature.key] = _as_it_came(stream, feature)
        rows = set(counts.values())
        if len(rows) != 1 or rows == {0}:
            return EpisodeFrames(reason=f"its streams differ in length, or are empty: {counts}")
        return EpisodeFrames(rows.pop(), columns, cameras, self.tasks(episode))


def whole_rows(state: NDArray[np.float32], action: NDArray[np.float32]) -> slice | str:
    """Return the rows of an episode that LeRobot, which has no mask, can have; or why there are none.

    Rows without a number in state (N, S) or action (N, A) are cut off at either end.
    """
    there = np.asarray(np.isfinite(state).all(axis=1) & np.isfinite(action).all(axis=1))
    if not there.any():
        return "no row has both a whole observation and a whole action"
    kept = slice(int(there.argmax()), len(there) - int(there[::-1].argmax()))
    if not there[kept].all():
        gap = kept.start + int((~there[kept]).argmax())
        return f"row {gap} has no observation or no action, and LeRobot has no mask for it"
    return kept


def _as_it_came(stream: EpisodeStream, feature: Feature) -> NDArray[Any] | list[str]:
    """Return a column in LeRobot's dtype: (N, …) numbers, or texts."""
    if stream.stream.kind != "ragged":
        return np.asarray(stream.value).astype(feature.dtype).reshape(-1, *feature.shape)
    rows = [stream.ragged(row) for row in range(len(stream))]
    if feature.dtype == "string":
        return [row.decode() for row in rows]
    return np.frombuffer(b"".join(rows), np.int64).astype(feature.dtype).reshape(-1, *feature.shape)


def _names(camera: Feature) -> object:
    """Return a camera's names, None where they are of (3, height, width)."""
    return camera.names if camera.shape[2] == 3 else None


def camera_feature(key: str, size: Sequence[int], fps: int, *, video: bool, names: object = None) -> Feature:
    """Return the feature of a camera of size (height, width)."""
    height, width = size
    info = video_info(height, width, fps) if video else None
    return Feature(key, "video" if video else "image", (height, width, 3), names or PICTURE_NAMES, info)


def _numbers(key: str, names: Sequence[str]) -> Feature:
    return Feature(key, "float32", (len(names),), list(names))
