"""Fixtures: a small simulated dataset with a view, and a small checkpoint of a real class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_once import made_once
from small_policies import save_checkpoint

from lehrling.cli.views import make_view
from lehrling.sim.generate import generate
from lehrling.training.config import TrainConfig, parse_config


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make four kitting episodes and the view `train` of them; not to be changed."""

    def make(folder: Path) -> None:
        generate(folder / "demo.zarr", "kitting", "arm6", range(4), workers=2)
        make_view(folder / "demo.zarr", "train", 10.0, 96, None, lambda _done, _total: None)

    return made_once(tmp_path_factory, "demonstrations", make) / "demo.zarr"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small random Qwen3-VL; not to be changed."""
    return made_once(tmp_path_factory, "checkpoint", lambda folder: save_checkpoint(folder, seed=0))


@pytest.fixture(scope="session")
def run_of_twelve(demonstrations: Path, checkpoint: Path) -> Callable[[Path], TrainConfig]:
    """Return what makes the configuration of a run of twelve steps into an output, with a checkpoint every four."""

    def configured(output: Path) -> TrainConfig:
        return parse_config(
            {
                "dataset": str(demonstrations),
                "output": str(output),
                "base": {"path": str(checkpoint)},
                "lora": {"rank": 4, "alpha": 8},
                "head": {"hidden": 32},
                "steps": 12,
                "batch": 8,
                "warmup": 2,
                "state_noise": 0.05,
                "checkpoint_every": 4,
                "threads": 1,
            }
        )

    return configured


@pytest.fixture
def config(run_of_twelve: Callable[[Path], TrainConfig], tmp_path: Path) -> TrainConfig:
    """Return a run of twelve steps of this test's own."""
    return run_of_twelve(tmp_path / "run")
