"""Fixtures: datasets made of real messages, sealed by the real sealer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lerobot_files import SPEC
from recordings import add_episode
from view_robots import arm_messages, record

from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.lerobot_format import Limits


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make an empty dataset."""
    path = tmp_path / "plant.zarr"
    create_dataset(path)
    return path


@pytest.fixture
def sealed(root: Path) -> Path:
    """Make a dataset with two sealed episodes, one and two."""
    add_episode(root, "one")
    add_episode(root, "two")
    return root


@pytest.fixture(scope="session")
def lerobot_recorded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("arm") / "arm.zarr"
    record(root, "one", arm_messages(1, 14))
    record(root, "three", arm_messages(3, 12))
    record(root, "two", arm_messages(2, 16), outcome="unknown", task="press")
    return Dataset.open(root)


@pytest.fixture(scope="session")
def lerobot_exported(lerobot_recorded: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose every episode has files of its own."""
    out = tmp_path_factory.mktemp("out") / "videos"
    export_lerobot(lerobot_recorded, out, ExportOptions(SPEC, limits=Limits(1000, 1000)))
    return out


@pytest.fixture
def lerobot_source(lerobot_exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    shutil.copytree(lerobot_exported, tmp_path / "source")
    return tmp_path / "source"
