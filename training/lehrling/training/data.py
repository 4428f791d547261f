"""Training batches from a view: numerics in memory, vision features computed once where the tower is frozen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View
from lehrling.datasets.windows import chunk_indices, usable_rows
from lehrling.training.normalise import Normaliser
from lehrling.training.policy_model import Features, PolicyModel

Progress = Callable[[int, int], None]
FREE_SHARE_MAX = 0.8


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        state: (B, S) normalised.
        actions: (B, H, A) normalised; mask: (B, H) true where the row is real and valid.
    """

    images: Tensor | Features
    instructions: list[str]
    state: Tensor
    actions: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        numbers = (part.to(device) for part in (self.state, self.actions, self.mask))
        return Batch(self.images.to(device), self.instructions, *numbers)


class TrainingData:
    """A view's rows as batches."""

    def __init__(self, view: View, chunk: int, state: Normaliser, action: Normaliser) -> None:
        self.view, self._chunk = view, chunk
        self._normalise = action
        self._state = torch.from_numpy(state.forward(view.state))
        self.rows = usable_rows(view, view.valid, chunk)
        self._instruction = [view.episodes[int(e)].instruction for e in view.episode_index]
        self._features: Features | None = None

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Return (B, C, h, w, 3) uint8."""
        cameras = [self.view.images(name).batch(rows) for name in self.view.spec.cameras]
        return torch.from_numpy(np.stack(cameras, axis=1))

    def _actions(self, rows: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return chunks (B, H, A) as the policy is to predict them: relative where the view says so, normalised."""
        return self._normalise.forward(self.view.codec.encode(self.view.action[index], self.view.state[rows]))

    def cache_features(self, model: PolicyModel, *, batch: int = 128, progress: Progress | None = None) -> None:
        """Run the frozen vision tower over every row once, in float32.

        In fp32 the cache changes no result; in bf16 it does slightly, since uncached features are of bf16 arithmetic.

        Raises:
            InputError: the features of all rows do not fit into this machine's free memory.
        """
        total, device = len(self.view.state), next(model.parameters()).device
        kept: Features | None = None
        for start in range(0, total, batch):
            stop = min(start + batch, total)
            with torch.inference_mode():
                found = model.encode_images(self.images(np.arange(start, stop)).to(device))
            kept = kept or _room(found, stop - start, total)
            kept.tokens[start:stop], kept.deep[:, start:stop] = found.tokens, found.deep
            if progress is not None:
                progress(stop, total)
        self._features = kept

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of these rows."""
        chunks = chunk_indices(self.view, rows, self._chunk)
        valid = self.view.valid[chunks.index] & ~chunks.is_pad
        at = torch.from_numpy(rows)
        if self._features is None:
            images: Tensor | Features = self.images(rows)
        else:
            images = Features(self._features.tokens[at], self._features.deep[:, at])
        return Batch(
            images,
            [self._instruction[int(row)] for row in rows],
            self._state[at],
            torch.from_numpy(self._actions(rows, chunks.index)),
            torch.from_numpy(valid),
        )


def free_bytes(table: Path = Path("/proc/meminfo")) -> float:
    """Return the memory that Linux can still give [bytes]; infinity where no such table says."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), math.inf)


def _room(some: Features, rows: int, total: int) -> Features:
    """Return memory for the features of `total` rows, of which some are `rows`."""
    needed = (some.tokens.nbytes + some.deep.nbytes) // rows * total
    free = free_bytes()
    if needed > FREE_SHARE_MAX * free:
        raise InputError(
            f"The vision features of {total} rows need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free; "
            "set `cache_features: false`, which computes them anew at every step."
        )
    tokens = torch.empty((total, *some.tokens.shape[1:]), dtype=some.tokens.dtype)
    return Features(tokens, torch.empty((len(some.deep), total, *some.deep.shape[2:]), dtype=some.deep.dtype))
