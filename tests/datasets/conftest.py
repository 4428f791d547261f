"""Fixtures: datasets made of real messages, sealed by the real sealer."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import add_episode

from lehrling.datasets.dataset import create_dataset


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
