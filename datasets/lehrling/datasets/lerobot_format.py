"""LeRobot's dataset format v3.0 as `lerobot` 0.6.1 reads it: features, files, and what `meta/info.json` says.

Written down from LeRobot's source (Apache-2.0, datasets/utils.py, dataset_writer.py, dataset_metadata.py) and from what it
wrote; nothing of it is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
PROVENANCE = "meta/lehrling.json"
"""Ours, which LeRobot ignores: where the episodes came from and how they were aligned."""
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
"""LeRobot begins a new file beyond this many MiB."""
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images"
STAMP, AGE, VALID = "lehrling.stamp_ns", "lehrling.age_ns", "lehrling.valid"
"""Auxiliary columns: what begins with `observation` or `action` would be fed to policies, what says `image` taken for one."""
CAMERAS = ("video", "image")
NUMPY = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool")


@dataclass(frozen=True)
class Feature:
    """A column of every frame.

    Attributes:
        dtype: a numpy name, `string`, or for a camera `image` or `video`.
        shape: of one frame; (height, width, 3) of a camera.
        names: of the elements, in whichever form the dataset gives them.
        info: of a video: codec and size.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] | None = None

    @property
    def camera(self) -> bool:
        """Whether it is a camera."""
        return self.dtype in CAMERAS

    def to_json(self) -> dict[str, Any]:
        """Return it as info.json holds it."""
        facts = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        return facts | ({"info": dict(self.info)} if self.info is not None else {})


INDEX_FEATURES = (
    Feature("timestamp", "float32", (1,)),
    Feature("frame_index", "int64", (1,)),
    Feature("episode_index", "int64", (1,)),
    Feature("index", "int64", (1,)),
    Feature("task_index", "int64", (1,)),
)
"""What every dataset has and LeRobot fills in itself."""
INDEX_KEYS = frozenset(feature.key for feature in INDEX_FEATURES)


@dataclass(frozen=True)
class Limits:
    """Sizes [bytes] beyond which a new file begins."""

    data: int = DATA_MB << 20
    video: int = VIDEO_MB << 20


@dataclass(frozen=True)
class Totals:
    """How much a dataset holds."""

    episodes: int
    frames: int
    tasks: int


def info_json(features: Sequence[Feature], fps: int, robot_type: str | None, totals: Totals) -> dict[str, Any]:
    """Return the content of `meta/info.json`; features without those of the index, which are added."""
    every = (*features, *INDEX_FEATURES)
    return {
        "codebase_version": VERSION,
        "fps": fps,
        "features": {feature.key: feature.to_json() for feature in every},
        "total_episodes": totals.episodes,
        "total_frames": totals.frames,
        "total_tasks": totals.tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(feature.dtype == "video" for feature in features) else None,
        "robot_type": robot_type,
        "splits": {"train": f"0:{totals.episodes}"},
    }


@dataclass(frozen=True)
class Place:
    """Where a file is: its chunk (folder) and its number there."""

    chunk: int = 0
    file: int = 0

    def next(self) -> Place:
        """Return the place after it."""
        full = self.file == FILES_PER_CHUNK - 1
        return Place(self.chunk + 1, 0) if full else Place(self.chunk, self.file + 1)

    def path(self, template: str, key: str = "") -> str:
        """Return the path by one of the templates above."""
        return template.format(chunk_index=self.chunk, file_index=self.file, video_key=key)


def needed(module: str) -> ModuleType:
    """Import pyarrow or av, which only the interchange with LeRobot needs.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise InputError(
            f"Reading and writing LeRobot datasets needs {name}, which is not installed; "
            "install it with `pip install 'lehrling-datasets[lerobot]'`."
        ) from error
