"""LeRobot itself, as a reader and writer to hold ours against; offline, its caches below the test's folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def load(root: Path, cache: Path, **options: Any) -> Any:
    """Open a dataset with LeRobot's own class and PyAV decoder; a missing file is an error, nothing is fetched."""
    datasets = pytest.importorskip("datasets")
    peer = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    datasets.config.HF_DATASETS_CACHE = str(cache)
    options.setdefault("video_backend", "pyav")
    return peer.LeRobotDataset("test/dataset", root=root, **options)


def create(root: Path, cache: Path, features: dict[str, Any], fps: int = 20, **options: Any) -> Any:
    """Begin a dataset with LeRobot's own writer."""
    datasets = pytest.importorskip("datasets")
    peer = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    datasets.config.HF_DATASETS_CACHE = str(cache)
    return peer.LeRobotDataset.create("test/dataset", fps=fps, features=features, root=root, **options)


def tools() -> Any:
    """Return LeRobot's own dataset tools."""
    return pytest.importorskip("lerobot.datasets.dataset_tools")
