"""The chunk runtime: a queue of predicted steps, executed one by one. numpy only, shared by `eval` and `deploy`."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.errors import InputError

Mode = Literal["sync", "ensemble"]
ENSEMBLE_DECAY = 0.1
"""Weight exp(-decay * age) of older predictions (ACT, arXiv 2304.13705, which weighs the oldest most; here the newest)."""

FloatArray = NDArray[np.float32]


class ChunkRunner:
    """Executes chunks (H, A): `execute` steps of each, then asks for the next.

    `sync` plays the newest chunk. `ensemble` averages, for each step, all chunks that predicted it, weighing newer ones
    more. A chunk may arrive late: `push(chunk, started_at=step)` drops the steps that have passed, so a late result is
    never played as if it were fresh.
    """

    def __init__(self, chunk: int, execute: int, mode: Mode = "sync") -> None:
        if not 1 <= execute <= chunk:
            raise InputError(f"Expected to execute from 1 to the chunk length {chunk} steps, got {execute}.")
        self._length, self._execute, self._mode = chunk, execute, mode
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new episode begins at step 0."""
        self.step = 0
        self._chunks: deque[tuple[int, FloatArray]] = deque()
        self._due = 0

    def needs_chunk(self) -> bool:
        """Whether a new chunk should be asked for before the next step."""
        return self.step >= self._due

    def push(self, chunk: FloatArray, *, started_at: int | None = None) -> None:
        """Take a chunk (H, A) whose first step is `started_at` (default: now).

        Raises:
            InputError: wrong length, not finite, from the future, or wholly in the past.
        """
        start = self.step if started_at is None else started_at
        if chunk.ndim != 2 or len(chunk) != self._length or not np.isfinite(chunk).all():
            raise InputError(f"Expected a finite chunk of {self._length} rows, got shape {chunk.shape}.")
        if not self.step - self._length < start <= self.step:
            raise InputError(
                f"Expected a chunk that covers step {self.step}, got one for steps {start} to {start + self._length - 1}."
            )
        self._chunks.append((start, np.asarray(chunk, dtype=np.float32)))
        if self._mode == "sync":
            self._chunks = deque([self._chunks[-1]])
        self._due = max(start + self._execute, self.step + 1)

    def next(self) -> FloatArray:
        """Return the action (A,) for this step and advance.

        Raises:
            InputError: no chunk covers this step.
        """
        while self._chunks and self._chunks[0][0] + self._length <= self.step:
            self._chunks.popleft()
        rows = [chunk[self.step - start] for start, chunk in self._chunks]
        if not rows:
            raise InputError(f"No chunk covers step {self.step}; push one first.")
        self.step += 1
        if len(rows) == 1:
            return np.asarray(rows[0], dtype=np.float32)
        ages = np.arange(len(rows))[::-1]
        weights = np.exp(-ENSEMBLE_DECAY * ages)
        mean: FloatArray = np.average(np.stack(rows), axis=0, weights=weights).astype(np.float32)
        return mean


def interpolate(previous: FloatArray, target: FloatArray, ratio: int) -> FloatArray:
    """Return (ratio, A) commands from `previous` (excluded) to `target` (included), for a control rate above the policy's."""
    if ratio < 1:
        raise InputError(f"Expected a ratio of at least 1, got {ratio}.")
    shares = np.arange(1, ratio + 1, dtype=np.float32)[:, None] / ratio
    result = previous + (target - previous) * shares
    result[-1] = target
    return np.asarray(result, dtype=np.float32)
