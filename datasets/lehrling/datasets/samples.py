"""Samples for training: images, state and action chunk of rows of a view, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lehrling.datasets.errors import InputError
from lehrling.datasets.windows import chunk_indices, usable_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lehrling.datasets.view import View


class Memory(Protocol):
    """Gives memory for an array; a loader may give such as a GPU copies from without waiting."""

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of that shape, uint8, its values undefined."""
        ...


def plain_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an ordinary array."""
    return np.empty(shape, np.uint8)


@dataclass(frozen=True)
class Samples:
    """A batch of B samples.

    Attributes:
        images: per camera (B, h, w, 3) uint8 RGB; with a history of K > 1 images (B, K, h, w, 3), the newest last.
        state: (B, S) float32; with a history (B, K, S).
        action: (B, H, A) float32, as the view's representation asks for; rows that are padding or not valid hold numbers that
            mean nothing.
        is_pad: (B, H) bool, true where the chunk reaches beyond its episode or its row is not valid.
        instruction: B texts.
        source: (B,) which of several views a sample is from; 0 where there is one.
        row: (B,) rows of that view.
    """

    images: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    is_pad: NDArray[np.bool_]
    instruction: tuple[str, ...]
    source: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples, B."""
        return len(self.row)


class SampleReader:
    """Reads samples of a view by row; numerics are in memory, images are decoded when asked for.

    It may be used from several threads at once, and sent to other processes.
    """

    def __init__(
        self,
        view: View,
        chunk: int,
        *,
        history: int = 1,
        cameras: Sequence[str] | None = None,
        drop_padded: bool = False,
    ) -> None:
        """Read the rows of a view whose whole chunk is valid, as far as the episode goes.

        Args:
            view: to read from.
            chunk: rows of an action chunk, H.
            history: images and states up to a row, K; before an episode's beginning its first one is repeated.
            cameras: of the view; None takes all.
            drop_padded: leave out rows whose chunk reaches beyond the episode.

        Raises:
            InputError: the view has no such camera, no usable row, or chunk or history is below 1.
        """
        if chunk < 1 or history < 1:
            raise InputError(f"Expected a chunk and a history of at least 1, got {chunk} and {history}.")
        self.view, self.chunk, self.history = view, chunk, history
        self.cameras = tuple(view.spec.cameras if cameras is None else cameras)
        self._frames = {camera: view.images(camera) for camera in self.cameras}
        self.rows = usable_rows(view, view.valid, chunk, drop_padded=drop_padded)
        if not len(self.rows):
            raise InputError(f"Expected rows with a valid chunk of {chunk} actions, got none; make the chunk shorter.")
        self._episode, self._texts = view.episode_index, [episode.instruction for episode in view.episodes]
        self._state, self._action, self._valid = view.state, view.action, view.valid

    def batch(self, rows: NDArray[np.int64] | Sequence[int], memory: Memory = plain_memory) -> Samples:
        """Return the samples of rows (B,).

        Raises:
            InputError: a row lies in no episode.
            DamageError: an image is missing or does not decode.
        """
        at = np.asarray(rows, np.int64)
        chunks = chunk_indices(self.view, at, self.chunk)
        shown = at[:, None] if self.history == 1 else self._past(at)
        images = {camera: self._images(camera, shown, memory) for camera in self.cameras}
        state = self._state[shown]
        return Samples(
            images,
            state[:, 0] if self.history == 1 else state,
            self.view.codec.encode(self._action[chunks.index], self._state[at]),
            chunks.is_pad | ~self._valid[chunks.index],
            tuple(self._texts[number] for number in self._episode[at]),
            np.zeros(len(at), np.int64),
            at,
        )

    def _past(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return chunk_indices(self.view, rows, self.history, first=1 - self.history).index

    def _images(self, camera: str, shown: NDArray[np.int64], memory: Memory) -> NDArray[np.uint8]:
        frames = self._frames[camera]
        size = frames.shape[1:]
        out = memory((shown.size, *size))
        frames.batch(shown.reshape(-1), out)
        return out if self.history == 1 else out.reshape(*shown.shape, *size)
