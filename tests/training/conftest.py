"""Fixtures: a small simulated dataset with a view, and a small checkpoint of a real class."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehrling.cli.views import make_view
from lehrling.sim.generate import generate
from lehrling.training.config import TrainConfig, parse_config
from lehrling.training.tiny import Size, tiny_backbone
from lehrling.training.tokenizer import make_tokenizer


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make four kitting episodes and the view `train` of them."""
    path = tmp_path_factory.mktemp("data") / "demo.zarr"
    generate(path, "kitting", "arm6", range(4), workers=2)
    make_view(path, "train", 10.0, 96, None, lambda _done, _total: None)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small random Qwen3-VL."""
    return save_checkpoint(tmp_path_factory.mktemp("base"), seed=0)


def save_checkpoint(folder: Path, *, seed: int) -> Path:
    tokenizer = make_tokenizer()
    tiny_backbone("qwen3_vl", tokenizer, Size(patch=16, merge=1), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def config(demonstrations: Path, checkpoint: Path, tmp_path: Path) -> TrainConfig:
    """Return a run of twelve steps with a checkpoint every four."""
    return parse_config(
        {
            "dataset": str(demonstrations),
            "output": str(tmp_path / "run"),
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
