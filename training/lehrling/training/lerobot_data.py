"""A view as LeRobot's training wants a dataset, without an export; needs the extra `lerobot`.

What LeRobot 0.6.1's training asks of a dataset is its metadata (features, statistics, tasks, where episodes begin and end),
its length, and samples by frame number with windows of `delta_timestamps`. Samples equal those of an export with embedded
pictures, except that pixels stay uint8, as LeRobot's training has them from videos, and are divided by 255 on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View
from lehrling.training.lerobot_table import FrameTable

try:
    import datasets as huggingface
    import pandas as pd
    from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.datasets.feature_utils import check_delta_timestamps, get_delta_indices
    from lerobot.datasets.utils import DatasetInfo
    from lerobot.utils.constants import IMAGENET_STATS
except ImportError as error:
    raise InputError(
        f"LeRobot's training needs {error.name}, which is not installed; "
        "install it with `pip install 'lehrling-training[lerobot]'`."
    ) from error

Sample = dict[str, Tensor | str]
ImageStatistics = Literal["imagenet", "exact"]
TOLERANCE_S = 1e-4
"""How far LeRobot lets a window's times be from frames."""


class ViewMetadata(LeRobotDatasetMetadata):  # type: ignore[misc]
    """LeRobot's metadata of a view: everything that is asked of `meta`, from the view instead of files."""

    def __init__(self, table: FrameTable, image_statistics: ImageStatistics = "imagenet") -> None:
        """Describe the frames of a table.

        Args:
            table: the frames.
            image_statistics: `imagenet` gives every camera ImageNet's mean and deviation, as LeRobot's training does by
                default; `exact` looks at every picture.
        """
        self.table, self._image_statistics = table, image_statistics
        super().__init__(f"local/{table.view.directory.name}", root=table.view.directory)

    def _load_metadata(self) -> None:
        """Set what LeRobot would read from `meta/`."""
        table = self.table
        self.info = DatasetInfo.from_dict(table.info)
        self.tasks = pd.DataFrame({"task_index": range(len(table.tasks))}, index=pd.Index(table.tasks, name="task"))
        self.episodes = huggingface.Dataset.from_dict(_episodes(table))
        images = table.pixels() if self._image_statistics == "exact" else _imagenet(table)
        found = table.numbers() | images
        ordered = {feature.key: found[feature.key] for feature in table.features}
        self.stats = {
            key: {name: np.atleast_1d(np.array(value)) for name, value in facts.items()}
            for key, facts in ordered.items()
        }


def _episodes(table: FrameTable) -> dict[str, list[Any]]:
    first, stop = table.bounds[:, 0], table.bounds[:, 1]
    return {
        "episode_index": list(range(len(first))),
        "tasks": [[table.tasks[number]] for number in table.columns["task_index"][first]],
        "length": (stop - first).tolist(),
        "dataset_from_index": first.tolist(),
        "dataset_to_index": stop.tolist(),
    }


def _imagenet(table: FrameTable) -> dict[str, dict[str, Any]]:
    """Return per camera what LeRobot's training puts in the place of its statistics, in float32 as there."""
    ends = {"min": np.zeros((3, 1, 1)), "max": np.ones((3, 1, 1)), "count": [len(table)]}
    known = {name: np.array(value, np.float32) for name, value in IMAGENET_STATS.items()}
    return dict.fromkeys(table.cameras, ends | known)


class LerobotViewDataset(torch.utils.data.Dataset[Sample]):
    """Map-style dataset of a view's frames, to stand where LeRobot's training has a `LeRobotDataset`.

    Nothing is decoded before it is asked for; it may be sent to workers.
    """

    episodes: list[int] | None = None
    """All of them."""
    absolute_to_relative_idx: dict[int, int] | None = None

    def __init__(self, meta: ViewMetadata, delta_timestamps: Mapping[str, Sequence[float]] | None = None) -> None:
        """Take frames, and windows [s] by key.

        Raises:
            InputError: a window is of an unknown key, or does not fall on frames.
        """
        self.meta = meta
        self._table = meta.table
        self._columns = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in self._table.columns.items()}
        self._frames = {key: self._table.view.images(camera) for key, camera in self._table.cameras.items()}
        self.delta_indices = self._windows(delta_timestamps or {})

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        name: str,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        image_statistics: ImageStatistics = "imagenet",
    ) -> LerobotViewDataset:
        """Open a view of a dataset.

        Raises:
            InputError: there is no such view, its rate is no whole number, or it has no whole frame.
        """
        return cls(ViewMetadata(frame_table(dataset, View.open(dataset, name)), image_statistics), delta_timestamps)

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        return len(self._table)

    @property
    def num_episodes(self) -> int:
        """The number of episodes."""
        return len(self._table.bounds)

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self._table.fps

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """LeRobot's features by key."""
        found: dict[str, dict[str, Any]] = self.meta.features
        return found

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._table)

    def __getitem__(self, index: int) -> Sample:
        """Return a frame's sample, without a batch axis.

        Cameras are (3, h, w) uint8, with a window of K times (K, 3, h, w); numbers as LeRobot has them; `KEY_is_pad`
        (K,) bool says where a window reaches beyond its episode, whose first or last frame then stands in.

        Raises:
            IndexError: no such frame.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected a frame below {len(self)}, got {index}.")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several samples, read together: a frame that several of them show is decoded once."""
        at = np.asarray(indices, np.int64)
        batch: dict[str, Tensor] = {}
        for feature in self._table.features:
            index, is_pad = self._window(feature.key, at)
            batch[feature.key] = (
                self._pixels(feature.key, index) if feature.camera else self._columns[feature.key][index]
            )
            if is_pad is not None:
                batch[f"{feature.key}_is_pad"] = torch.from_numpy(is_pad)
        tasks = [self._table.tasks[number] for number in self._table.columns["task_index"][at]]
        return [{key: v[place] for key, v in batch.items()} | {"task": task} for place, task in enumerate(tasks)]

    def _windows(self, wanted: Mapping[str, Sequence[float]]) -> dict[str, list[int]]:
        if unknown := sorted(set(wanted) - set(self.features)):
            raise InputError(f"Expected windows of {', '.join(self.features)}, got one of {unknown[0]}.")
        given = {key: list(times) for key, times in wanted.items()}
        try:
            check_delta_timestamps(given, self.fps, TOLERANCE_S)
        except ValueError as error:
            raise InputError(f"Expected windows that fall on frames at {self.fps} Hz, got {given}.") from error
        found: dict[str, list[int]] = get_delta_indices(given, self.fps)
        return found

    def _window(self, key: str, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """Return the frames (B,) or (B, K) that a key shows, and which of them are padding."""
        steps = self.delta_indices.get(key)
        if steps is None:
            return at, None
        first, stop = self._table.bounds[self._table.columns["episode_index"][at]].T
        wanted = at[:, None] + np.array(steps, np.int64)
        index = np.clip(wanted, first[:, None], stop[:, None] - 1)
        return index, index != wanted

    def _pixels(self, key: str, index: NDArray[np.int64]) -> Tensor:
        frames = self._frames[key]
        images = frames.batch(self._table.rows[index].reshape(-1))
        return torch.from_numpy(images.reshape(*index.shape, *images.shape[1:])).movedim(-1, -3)


def frame_table(dataset: Dataset, view: View) -> FrameTable:
    """Return a view's frames in LeRobot's terms, with contract and robot of its first episode.

    Raises:
        InputError: its rate is no whole number, or it has no whole frame.
    """
    first = dataset.episode(view.episodes[0].id)
    return FrameTable.of(view, first.contract, first.record.robot or first.embodiment.name)
