from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from view_robots import arm_messages, record

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.samples import SampleReader
from lehrling.datasets.view import Field, ViewSpec, build_view
from lehrling.training.loading import ViewDataset, to_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPEC = ViewSpec(
    rate_hz=20, image_px=48, cameras=("front",), state=(Field(stream="joint_position"),),
    action=(Field(stream="gripper_command"),),
)  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> SampleReader:
    root: Path = tmp_path_factory.mktemp("plant") / "plant.zarr"
    record(root, "a", arm_messages(1))
    return SampleReader(build_view(Dataset.open(root), "policy", SPEC), 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_loader_gives_every_sample_as_the_reader_does(reader: SampleReader, workers: int) -> None:
    dataset = ViewDataset(reader)
    loader = DataLoader(
        dataset, batch_size=7, num_workers=workers, multiprocessing_context="spawn" if workers else None
    )
    start = 0
    for batch in loader:
        rows = reader.rows[start : start + 7]
        expected = to_tensors(reader.batch(rows))
        for name in ("image.front", "state", "action", "action_is_pad"):
            torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0)
        assert batch["instruction"] == expected["instruction"]
        start += len(rows)
    assert start == len(dataset)


def test_tensors_share_the_memory_of_the_samples(reader: SampleReader) -> None:
    samples = reader.batch(reader.rows[:2])
    image = to_tensors(samples)["image.front"]
    assert isinstance(image, torch.Tensor)
    assert tuple(image.shape) == (2, 3, 48, 48)
    assert np.shares_memory(image.numpy(), samples.images["front"])
    np.testing.assert_array_equal(image[1, :, 5, 6].numpy(), samples.images["front"][1, 5, 6])


def test_a_sample_beyond_the_end_is_an_index_error_so_that_loops_end(reader: SampleReader) -> None:
    dataset = ViewDataset(reader)
    assert len(list(iter(cast("Sequence[object]", dataset)))) == len(dataset)
    with pytest.raises(IndexError, match="Expected a sample below"):
        dataset[len(dataset)]
