"""Actions relative to the state: trained on relative chunks, executed as absolute ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.view import Field, View, ViewSpec, build_view
from lehrling.datasets.windows import chunk_indices
from lehrling.training.artefact import read_description
from lehrling.training.config import TrainConfig
from lehrling.training.data import TrainingData
from lehrling.training.normalise import Normaliser
from lehrling.training.policy import TorchPolicy, load_policy
from lehrling.training.protocol import Observation
from lehrling.training.trainer import train

XYZ = ("x", "y", "z")


@pytest.fixture
def own(demonstrations: Path, tmp_path: Path) -> Path:
    """Copy the demonstrations, to build views in."""
    return Path(shutil.copytree(demonstrations, tmp_path / "own.zarr"))


def make_relative_view(path: Path, representation: str) -> str:
    reference = "tcp_pose" if representation != "delta" else None
    command = Field.model_validate(
        {"stream": "tcp_command", "select": XYZ, "representation": representation, "reference": reference}
    )
    spec = ViewSpec(
        rate_hz=10.0,
        image_px=96,
        cameras=("front", "wrist"),
        state=(Field(stream="tcp_pose", select=XYZ), Field(stream="joint_position")),
        action=(command, Field(stream="gripper_command")),
    )
    build_view(Dataset.open(path), representation, spec, lambda _done, _total: None)
    return representation


def test_batches_hold_chunks_relative_to_the_state_at_their_start(own: Path) -> None:
    view = View.open(Dataset.open(own), make_relative_view(own, "chunk_relative"))
    same = [Normaliser((0.0,) * n, (1.0,) * n) for n in (view.state.shape[1], view.action.shape[1])]
    data = TrainingData(view, 8, *same)
    rows = data.rows[:5]
    actions = data.batch(rows).actions.numpy()
    absolute = view.action[chunk_indices(view, rows, 8).index]
    np.testing.assert_allclose(actions[..., :3] + view.state[rows][:, None, :3], absolute[..., :3], atol=1e-6)
    np.testing.assert_array_equal(actions[..., 3], absolute[..., 3])


def test_the_policy_adds_the_state_that_its_prediction_is_relative_to(
    config: TrainConfig, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make_relative_view(own, "chunk_relative")
    result = train(config.model_copy(update={"dataset": own, "view": view, "steps": 2}))
    policy = load_policy(result.policy)
    monkeypatch.setattr(TorchPolicy, "_predict", lambda _self, _images, texts, _state: torch.zeros(len(texts), 8, 4))
    images = {name: np.zeros((96, 96, 3), np.uint8) for name in ("front", "wrist")}
    state = np.linspace(0.1, 1.0, 10, dtype=np.float32)
    chunk = policy.act([Observation(images, state, "put the red part into the left pocket")])[0]
    offset = np.asarray(read_description(result.policy).action["offset"], np.float32)
    np.testing.assert_allclose(chunk[:, :3], np.broadcast_to(state[:3] + offset[:3], (8, 3)), atol=1e-6)
    np.testing.assert_allclose(chunk[:, 3], offset[3], atol=1e-6)


def test_a_view_of_differences_between_rows_is_refused(config: TrainConfig, own: Path) -> None:
    view = make_relative_view(own, "delta")
    with pytest.raises(InputError, match="which the chunk runtime cannot execute"):
        train(config.model_copy(update={"dataset": own, "view": view}))
