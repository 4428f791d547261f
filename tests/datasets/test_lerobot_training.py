"""LeRobot's own training on an export: ACT, four steps on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from view_robots import arm_messages, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.view import Field, ViewSpec

SPEC = ViewSpec(
    rate_hz=20,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position", latency_ms=5),),
    action=(Field(stream="tcp_command"), Field(stream="gripper_command")),
    image_latency_ms=40,
)
ACT = (
    "--policy.type=act --policy.device=cpu --policy.push_to_hub=false --policy.pretrained_backbone_weights=null "
    "--policy.dim_model=64 --policy.n_heads=4 --policy.dim_feedforward=128 --policy.n_encoder_layers=1 "
    "--policy.n_vae_encoder_layers=1 --policy.chunk_size=8 --policy.n_action_steps=8 --batch_size=2 --num_workers=0 "
    "--steps=4 --save_freq=4 --log_freq=1 --wandb.enable=false --dataset.video_backend=pyav --dataset.repo_id=test/x"
)
NEEDED = ("lerobot", "accelerate", "datasets", "draccus", "torchvision")
"""What `lerobot-train` of ACT imports; wandb only where it is switched on, diffusers never."""


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_lerobot_trains_act_on_an_export_for_four_steps(tmp_path: Path, images: bool) -> None:
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"lerobot-train needs {', '.join(missing)}, which this environment lacks")
    root = tmp_path / "arm.zarr"
    record(root, "one", arm_messages(1, 20))
    record(root, "two", arm_messages(2, 24))
    export_lerobot(Dataset.open(root), tmp_path / "out", ExportOptions(SPEC, images=images))
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_train", *ACT.split()]
    command += [f"--dataset.root={tmp_path / 'out'}", f"--output_dir={folder}"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    model = folder / "checkpoints/000004/pretrained_model"
    assert (model / "model.safetensors").stat().st_size > 1_000_000
    features = json.loads((model / "config.json").read_text())
    assert set(features["input_features"]) == {
        "observation.state",
        "observation.images.front",
        "observation.images.wrist",
    }
    assert list(features["output_features"]) == ["action"]
