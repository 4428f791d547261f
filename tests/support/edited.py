"""Datasets to edit, and the state they are in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from recordings import add_episode

from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.manifest import EpisodeRecord


def small_dataset(root: Path, names: tuple[str, ...] = ("one", "two"), seconds: float = 0.3) -> Path:
    """Make a dataset with an episode of each name."""
    create_dataset(root)
    for name in names:
        add_episode(root, name, seconds=seconds)
    return root


def copied(source: Path, target: Path) -> Path:
    """Copy a dataset, since making one takes longer."""
    shutil.copytree(source, target)
    return target


def words(root: Path) -> dict[str, EpisodeRecord]:
    """Return what a reader sees, without who wrote it."""
    return dict(Dataset.open(root).records)


def valid(root: Path) -> list[str]:
    """Return the ids of valid episodes, sorted."""
    return sorted(episode.id for episode in Dataset.open(root).episodes())


def folders(root: Path) -> list[str]:
    """Return the names of all episodes' folders, hidden ones too."""
    return sorted(path.name for path in (root / "episodes").iterdir() if path.name != "zarr.json")


def files(directory: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def killed_at(place: str, action: Callable[[], object]) -> int:
    """Run an action in a forked process that dies at a place; return its exit code, 0 if it got past."""
    child = os.fork()
    if child == 0:
        os.environ["LEHRLING_KILL_AT"] = place
        try:
            action()
        except BaseException:  # noqa: BLE001 — the child must never return into the test runner
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
