"""Fixtures: the command, and a small dataset, view and policy made with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from cli_runs import Command

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
    """Make three demonstrations, a view and a policy of three steps; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    call("sim", "generate", folder / "cell.zarr", "--task", "kitting", "--episodes", 3, "--workers", 2)
    call("view", folder / "cell.zarr")
    write_config(folder, steps=3)
    call("train", folder / "train.yaml")
    return folder


def write_config(folder: Path, **changes: object) -> Path:
    """Write train.yaml into the folder."""
    content = {
        "dataset": str(folder / "cell.zarr"),
        "output": str(folder / "run"),
        "batch": 8,
        "threads": 1,
        "lora": {"rank": 4, "alpha": 8},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


@pytest.fixture
def cell(made: Path, tmp_path: Path) -> Path:
    """Copy the dataset, to be changed at will."""
    return Path(shutil.copytree(made / "cell.zarr", tmp_path / "cell.zarr"))
