"""Fixtures: the command, and a small dataset, view and policy made with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli_runs import Command
from made_once import made_once

from lehrling.cli.main import run


def call(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    assert not ended.value.code


@pytest.fixture
def lehrling(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return the command."""
    return Command(capfd)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three demonstrations, a view and a policy of three steps, which succeeds nowhere; not to be changed."""
    return made_once(tmp_path_factory, "made", make)


def make(folder: Path) -> None:
    call("sim", "generate", folder / "cell.zarr", "--task", "kitting", "--episodes", 3, "--workers", 2)
    call("view", folder / "cell.zarr")
    write_config(folder, steps=3)
    call("train", folder / "train.yaml")


def write_config(folder: Path, **changes: object) -> Path:
    """Write train.yaml into the folder."""
    content = {
        "dataset": str(folder / "cell.zarr"),
        "output": str(folder / "run"),
        "batch": 8,
        "threads": 1,
        "lora": {"rank": 4, "alpha": 8},
        "head": {"warm_start": False},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


@pytest.fixture
def cell(made: Path, tmp_path: Path) -> Path:
    """Copy the dataset, to be changed at will."""
    return Path(shutil.copytree(made / "cell.zarr", tmp_path / "cell.zarr"))


@pytest.fixture(scope="session")
def mixed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the dataset and add an episode of another robot; not to be changed."""

    def make_mixed(folder: Path) -> None:
        shutil.copytree(made / "cell.zarr", folder / "mixed.zarr")
        call("sim", "generate", folder / "mixed.zarr", "--task", "kitting", "--robot", "iiwa", "--episodes", 1)

    return made_once(tmp_path_factory, "mixed", make_mixed) / "mixed.zarr"


@pytest.fixture
def read_only(cell: Path) -> Iterator[Path]:
    """Copy the dataset to where nobody can write: by mode bits, or for root by a read-only mount."""
    if os.geteuid() != 0:
        cell.chmod(0o555)
        yield cell
        cell.chmod(0o755)
        return
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "--bind", cell, cell], capture_output=True, check=False).returncode:
        pytest.skip("root writes everywhere, and nothing can be mounted here")
    subprocess.run([mount, "-o", "remount,ro,bind", cell], check=True)
    yield cell
    subprocess.run(["umount", cell], check=True)
