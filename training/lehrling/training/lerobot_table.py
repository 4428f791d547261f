"""A view in LeRobot's terms: the frames, columns, tasks and statistics that an export of the same episodes has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.embodiment import Contract
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_format import (
    ACTION,
    AGE,
    IMAGES,
    INDEX_FEATURES,
    STAMP,
    STATE,
    VALID,
    Feature,
    Totals,
    info_json,
)
from lehrling.datasets.lerobot_frames import ViewPlan, whole_rows
from lehrling.datasets.lerobot_stats import PixelCounts, Stats, column_stats
from lehrling.datasets.view import View
from lehrling.datasets.view_layout import resolve


@dataclass(frozen=True)
class FrameTable:
    """The N frames of E episodes.

    Attributes:
        features: of every column, those of the index last.
        rows: (N,) the view's row of each frame; rows without numbers are left out, as an export leaves them out.
        columns: by key, (N, …) numbers; without cameras.
        bounds: (E, 2) first frame of each episode, and the one after its last.
        tasks: by number, what was asked for.
        left_out: episodes that gave no frame, and why.
    """

    view: View
    features: tuple[Feature, ...]
    fps: int
    robot: str | None
    rows: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    bounds: NDArray[np.int64]
    tasks: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, view: View, contract: Contract, robot: str | None = None) -> FrameTable:
        """Number a view's frames.

        Raises:
            InputError: the rate is not a whole number, or no episode has a whole row.
        """
        if view.spec.rate_hz != round(view.spec.rate_hz):
            raise InputError(
                f"Expected a view at a whole number of frames per second, which LeRobot needs, got {view.spec.rate_hz}; "
                "build one at another --rate."
            )
        plan = ViewPlan.of(resolve(contract, view.spec), images=True)
        parts, left_out, texts = _parts(view)
        lengths = np.array([len(rows) for rows in parts], np.int64)
        stops = np.cumsum(lengths)
        rows = np.concatenate(parts)
        tasks = tuple(dict.fromkeys(texts))
        columns = _columns(view, rows, {feature.key for feature in plan.features})
        columns |= _index(lengths, plan.fps, np.array([tasks.index(text) for text in texts], np.int64))
        features = (*plan.features, *INDEX_FEATURES)
        bounds = np.stack([stops - lengths, stops], axis=1)
        return cls(view, features, plan.fps, robot, rows, columns, bounds, tasks, left_out)

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self.rows)

    @property
    def cameras(self) -> dict[str, str]:
        """The view's camera by key."""
        return {f"{IMAGES}.{camera}": camera for camera in self.view.spec.cameras}

    @property
    def info(self) -> dict[str, Any]:
        """What an export with embedded pictures has in `meta/info.json`."""
        own = [feature for feature in self.features if feature not in INDEX_FEATURES]
        return info_json(own, self.fps, self.robot, Totals(len(self.bounds), len(self), len(self.tasks)))

    def numbers(self) -> dict[str, Stats]:
        """Return exact statistics of every column of numbers."""
        return {key: column_stats(values) for key, values in self.columns.items()}

    def pixels(self) -> dict[str, Stats]:
        """Return exact statistics of every camera; each frame is decoded once."""
        found = {}
        for key, camera in self.cameras.items():
            frames, counted = self.view.images(camera), PixelCounts()
            shown = frames.frame_of_row[self.rows]
            _, first, times = np.unique(shown, return_index=True, return_counts=True)
            for place, count in zip(first.tolist(), times.tolist(), strict=True):
                counted.add(frames[int(self.rows[place])], count)
            found[key] = counted.stats()
        return found


def _parts(view: View) -> tuple[list[NDArray[np.int64]], dict[str, str], list[str]]:
    """Return per episode its rows and its task, and which episodes have none."""
    parts: list[NDArray[np.int64]] = []
    texts: list[str] = []
    left_out: dict[str, str] = {}
    for episode in view.episodes:
        rows = slice(episode.start, episode.stop)
        kept = whole_rows(view.state[rows], view.action[rows])
        if isinstance(kept, str):
            left_out[episode.id] = kept
            continue
        parts.append(np.arange(episode.start + kept.start, episode.start + kept.stop))
        texts.append(episode.instruction or episode.task)
    if not parts:
        name, reason = next(iter(left_out.items()))
        raise InputError(f"Expected frames, but no episode of the view gives any; {name}: {reason}.")
    return parts, left_out, texts


def _columns(view: View, rows: NDArray[np.int64], known: set[str]) -> dict[str, NDArray[Any]]:
    """Return the view's columns by LeRobot's keys; like there, what has one element has no axis of its own."""
    found: dict[str, NDArray[Any]] = {
        STATE: view.state[rows],
        ACTION: view.action[rows],
        STAMP: view.row_stamp_ns[rows],
        AGE: view.age_ns[rows],
        VALID: view.valid[rows],
    }
    return {key: v[:, 0] if v.shape[1:] == (1,) else v for key, v in found.items() if key in known}


def _index(lengths: NDArray[np.int64], fps: int, task_index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    frame = np.concatenate([np.arange(length) for length in lengths])
    return {
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(len(frame)),
        "task_index": np.repeat(task_index, lengths),
    }
