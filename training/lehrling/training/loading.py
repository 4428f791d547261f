"""A view as a torch dataset, for PyTorch's own loaders and for other trainers; `Loader` in `lehrling.datasets` needs neither."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lehrling.datasets.samples import SampleReader, Samples

Sample = dict[str, Tensor | str]
TensorBatch = dict[str, Tensor | list[str]]


def pinned_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return memory from which a GPU copies without waiting; images are decoded straight into it. Needs CUDA."""
    memory: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    return memory


def to_tensors(samples: Samples) -> TensorBatch:
    """Return a batch as tensors that share its memory.

    Keys: `image.CAMERA` (B, 3, h, w) uint8, a view of (B, h, w, 3); `state`; `action`; `action_is_pad`; `instruction`.
    """
    images = {f"image.{name}": torch.from_numpy(pixels).movedim(-1, -3) for name, pixels in samples.images.items()}
    return {
        **images,
        "state": torch.from_numpy(samples.state),
        "action": torch.from_numpy(samples.action),
        "action_is_pad": torch.from_numpy(samples.is_pad),
        "instruction": list(samples.instruction),
    }


class ViewDataset(torch.utils.data.Dataset[Sample]):
    """Map-style dataset of a view's usable rows; works in forked and spawned workers."""

    def __init__(self, reader: SampleReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self.reader.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without a batch axis.

        Raises:
            IndexError: no such sample.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"Expected a sample below {len(self)}, got {index}.")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return several samples, read together: a frame that several of them show is decoded once."""
        batch = to_tensors(self.reader.batch(self.reader.rows[np.asarray(indices, np.int64)]))
        return [{name: values[place] for name, values in batch.items()} for place in range(len(indices))]
