"""Bags that other tools wrote, imported without ROS, train like any recording."""

from __future__ import annotations

from pathlib import Path

from bag_checks import take
from bags import arm, write_mcap, write_rosbag

from lehrling.cli.views import make_view
from lehrling.datasets.dataset import Dataset
from lehrling.training.config import parse_config
from lehrling.training.trainer import train


def test_a_rosbag2_and_an_mcap_file_are_one_dataset_that_trains(tmp_path: Path, checkpoint: Path) -> None:
    root = tmp_path / "d.zarr"
    take(write_rosbag(tmp_path / "bag", arm(100)), root)
    take(write_mcap(tmp_path / "bag.mcap", arm(100, first=200)), root)
    assert len(Dataset.open(root).episodes()) == 2
    make_view(root, "train", 10.0, 96, None, lambda _done, _total: None)
    result = train(
        parse_config(
            {
                "dataset": str(root),
                "output": str(tmp_path / "run"),
                "base": {"path": str(checkpoint)},
                "lora": {"rank": 4, "alpha": 8},
                "head": {"hidden": 32},
                "steps": 2,
                "batch": 4,
                "warmup": 1,
                "threads": 1,
            }
        )
    )
    assert result.steps == 2
    assert 0 < result.last_loss < 10
    assert (tmp_path / "run" / "policy" / "adapter_model.safetensors").is_file()
