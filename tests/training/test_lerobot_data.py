"""A view as LeRobot's dataset: held against what LeRobot itself reads from an export of the same episodes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lerobot_peer
import numpy as np
import pytest
import torch
from view_robots import arm_messages, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_export import ExportOptions, export_lerobot
from lehrling.datasets.view import Field, View, ViewSpec, build_view

pytest.importorskip("lerobot")

from lehrling.training.lerobot_data import LerobotViewDataset, Sample

FPS = 20
CAMERAS = ("observation.images.front", "observation.images.wrist")
SPEC = ViewSpec(
    rate_hz=FPS,
    image_px=64,
    cameras=("front", "wrist"),
    state=(Field(stream="joint_position", latency_ms=5),),
    action=(Field(stream="tcp_command", representation="delta"), Field(stream="gripper_command")),
    image_latency_ms=40,
)
WINDOWS = {
    "action": [step / FPS for step in range(5)],
    "observation.state": [-2 / FPS, 0.0],
    "observation.images.front": [-1 / FPS, 0.0],
    "lehrling.valid": [0.0],
}
"""`delta` has no number in an episode's first row, so that rows are cut off."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("arm") / "arm.zarr"
    record(root, "one", arm_messages(1, 14))
    record(root, "two", arm_messages(2, 9), task="press")
    record(root, "three", arm_messages(3, 11))
    opened = Dataset.open(root)
    build_view(opened, "train", SPEC)
    return opened


@pytest.fixture(scope="module")
def export(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "images"
    export_lerobot(dataset, out, ExportOptions(SPEC, images=True))
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def as_lerobot(sample: Sample) -> dict[str, Any]:
    """Divide pixels by 255, as LeRobot's training does."""
    return {
        key: value.to(torch.float32) / 255.0
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8
        else value
        for key, value in sample.items()
    }


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if isinstance(value, str):
            assert ours[key] == value
        else:
            assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape), key
            assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("windows", [None, WINDOWS])
def test_every_sample_equals_lerobots_from_an_export_tensor_by_tensor(
    dataset: Dataset, export: Path, cache: Path, windows: dict[str, list[float]] | None
) -> None:
    peer = lerobot_peer.load(export, cache, delta_timestamps=windows)
    ours = LerobotViewDataset.open(dataset, "train", windows)
    assert len(ours) == len(peer) == len(View.open(dataset, "train")) - 3
    for frame in range(len(peer)):
        assert_equal(as_lerobot(ours[frame]), peer[frame])
    assert_equal(as_lerobot(ours[-1]), peer[len(peer) - 1])


def test_samples_equal_those_from_videos_within_the_codec(dataset: Dataset, cache: Path, tmp_path: Path) -> None:
    export_lerobot(dataset, tmp_path / "videos", ExportOptions(SPEC))
    peer = lerobot_peer.load(tmp_path / "videos", cache, delta_timestamps=WINDOWS, return_uint8=True)
    ours = LerobotViewDataset.open(dataset, "train", WINDOWS)
    for frame in (0, 1, len(peer) // 2, len(peer) - 1):
        mine, theirs = ours[frame], peer[frame]
        for camera in CAMERAS:
            shown, seen = mine.pop(camera), theirs.pop(camera)
            assert isinstance(shown, torch.Tensor)
            assert (shown.dtype, shown.shape) == (seen.dtype, seen.shape)
            assert apart(shown, seen) < 25
            assert apart(shown.flip(-1), seen) > 60
        assert_equal(dict(mine), theirs)


def test_metadata_equals_that_of_an_export(dataset: Dataset, export: Path, cache: Path) -> None:
    theirs = lerobot_peer.load(export, cache).meta
    ours = LerobotViewDataset.open(dataset, "train", image_statistics="exact").meta
    assert ours.info == theirs.info
    assert ours.tasks.equals(theirs.tasks)
    assert (ours.camera_keys, ours.depth_keys, ours.has_language_columns) == (list(CAMERAS), [], False)
    for column in ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"):
        assert list(ours.episodes[column]) == list(theirs.episodes[column])
    assert list(ours.stats) == list(theirs.stats)
    for key, facts in theirs.stats.items():
        assert set(ours.stats[key]) == set(facts)
        for name, value in facts.items():
            np.testing.assert_array_equal(ours.stats[key][name], value, err_msg=f"{key} {name}")


def test_samples_read_together_or_in_another_process_are_the_same(dataset: Dataset) -> None:
    ours = LerobotViewDataset.open(dataset, "train", WINDOWS)
    order = [3, 0, 3, len(ours) - 1]
    sent: LerobotViewDataset = pickle.loads(pickle.dumps(ours))
    for place, sample in enumerate(sent.__getitems__(order)):
        assert_equal(dict(sample), dict(ours[order[place]]))
    assert (sent.num_frames, sent.num_episodes, sent.fps) == (len(ours), 3, FPS)


def test_a_frame_or_window_that_is_not_there_is_refused(dataset: Dataset) -> None:
    ours = LerobotViewDataset.open(dataset, "train")
    with pytest.raises(IndexError, match=f"below {len(ours)}, got {len(ours)}"):
        ours[len(ours)]
    with pytest.raises(InputError, match=r"windows that fall on frames at 20 Hz"):
        LerobotViewDataset(ours.meta, {"action": [0.01]})
    with pytest.raises(InputError, match=r"got one of observation.nothing"):
        LerobotViewDataset(ours.meta, {"observation.nothing": [0.0]})


def test_a_view_at_a_broken_rate_is_refused(dataset: Dataset) -> None:
    build_view(dataset, "odd", SPEC.model_copy(update={"rate_hz": 12.5}))
    with pytest.raises(InputError, match=r"whole number of frames per second.*12\.5"):
        LerobotViewDataset.open(dataset, "odd")
