"""Replay buffers of diffusion_policy and UMI: which arrays there are, what each is, where episodes end.

`data/KEY` holds every episode's rows one after the other, `meta/episode_ends` where each ends; see
https://github.com/real-stanford/diffusion_policy (common/replay_buffer.py) and
https://github.com/real-stanford/universal_manipulation_interface. Nothing in it says a rate, a unit or a task.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lehrling.datasets.errors import InputError
from lehrling.datasets.lerobot_format import NUMPY, Feature
from lehrling.datasets.replay_array import open_array
from lehrling.datasets.replay_store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from lehrling.datasets.replay_array import ReplayArray

FORMAT = "replay buffer"
ARRAYS_MAX, EPISODES_MAX, FRAMES_MAX = 1000, 1_000_000, 10_000_000
ELEMENTS_MAX = 1 << 20
EPISODE_BYTES_MAX, BLOCK_BYTES_MAX = 1 << 30, 1 << 30
SIDE_MIN, SIDE_MAX = 8, 8192
LEVEL_MAX = 255


@dataclass(frozen=True)
class ReplayEpisode:
    """Rows start to stop (excluded) of every array."""

    name: str
    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class ReplaySource:
    """What a replay buffer holds.

    Attributes:
        arrays: by the feature's key.
        left_out: arrays that cannot be taken, and why.
    """

    name: str
    episodes: tuple[ReplayEpisode, ...]
    features: tuple[Feature, ...]
    arrays: dict[str, ReplayArray]
    left_out: dict[str, str] = field(default_factory=dict)

    def numbers(self, feature: Feature, episode: ReplayEpisode) -> NDArray[Any]:
        """Return an episode's rows of an array of numbers (N, …).

        Raises:
            InputError: they are more than any episode's.
            DamageError: a chunk is missing or cut.
        """
        array = self.arrays[feature.key]
        size = episode.length * prod(array.shape[1:]) * array.dtype.itemsize
        if size > EPISODE_BYTES_MAX:
            raise InputError(f"{self.name}, {episode.name}: {array.path} has {size} bytes; it is refused.")
        return array.rows(episode.start, episode.stop).reshape(-1, *feature.shape)

    def images(self, feature: Feature, episode: ReplayEpisode) -> Iterator[NDArray[np.uint8]]:
        """Yield an episode's images (h, w, 3), a chunk's rows at a time.

        Raises:
            InputError: they are no whole numbers from 0 to 255.
            DamageError: a chunk is missing or cut.
        """
        array, start = self.arrays[feature.key], episode.start
        while start < episode.stop:
            stop = min(episode.stop, (start // array.chunks[0] + 1) * array.chunks[0])
            for row, image in enumerate(array.rows(start, stop), start=start):
                pixels = _pixels(image)
                if pixels is None:
                    raise InputError(f"{self.name}: {array.path} holds no pixels from 0 to 255 in row {row}.")
                yield pixels
            start = stop


def open_replay(source: Path) -> ReplaySource:
    """Look at a replay buffer, a Zarr v2 folder or zip.

    Raises:
        InputError: it is none, asks for a codec that is not taken, or its parts do not fit each other.
        DamageError: it cannot be read.
    """
    store = open_store(source)
    episodes = _episodes(open_array(store, "meta/episode_ends"), store.name)
    frames = episodes[-1].stop
    names = store.groups("data")
    if not 1 <= len(names) <= ARRAYS_MAX:
        raise InputError(f"{store.name}: expected up to {ARRAYS_MAX} arrays in `data`, got {len(names)}.")
    features, arrays, left_out = [], {}, {}
    for name in names:
        array = open_array(store, f"data/{name}")
        if array.shape[0] != frames:
            raise InputError(
                f"{store.name}: data/{name} has {array.shape[0]} rows, but the last episode ends at {frames}."
            )
        feature = _feature(name, array)
        if isinstance(feature, str):
            left_out[name] = feature
        elif feature.key in arrays:
            left_out[name] = f"its name gives {feature.key} again"
        else:
            features.append(feature)
            arrays[feature.key] = array
    if not features:
        raise InputError(f"{store.name}: nothing in `data` can be taken, {left_out}.")
    return ReplaySource(store.name, episodes, tuple(features), arrays, left_out)


def _episodes(ends: ReplayArray, where: str) -> tuple[ReplayEpisode, ...]:
    if len(ends.shape) != 1 or ends.dtype.kind not in "iu" or not 1 <= ends.shape[0] <= EPISODES_MAX:
        raise InputError(f"{where}: meta/episode_ends is no list of rows, {ends.dtype} {ends.shape}.")
    stops = [int(stop) for stop in ends.rows(0, ends.shape[0])]
    starts = [0, *stops[:-1]]
    if any(stop <= start for start, stop in zip(starts, stops, strict=True)) or stops[-1] > FRAMES_MAX:
        raise InputError(f"{where}: meta/episode_ends does not go up from 1 to at most {FRAMES_MAX}.")
    return tuple(ReplayEpisode(f"episode_{n}", a, b) for n, (a, b) in enumerate(zip(starts, stops, strict=True)))


def _feature(name: str, array: ReplayArray) -> Feature | str:
    """Return what an array is, or why it cannot be taken."""
    short = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)[:100]
    shape, dtype = array.shape[1:], array.dtype.newbyteorder("=").name
    block = array.chunks[0] * prod(shape) * array.dtype.itemsize
    if len(shape) == 3 and shape[2] == 3 and all(SIDE_MIN <= side <= SIDE_MAX for side in shape[:2]):
        if block > BLOCK_BYTES_MAX:
            return f"chunks that reach over {block} bytes of images"
        if dtype != "uint8" and _pixels(array.rows(0, 1)[0]) is None:
            return f"{dtype} images that are no pixels from 0 to 255"
        return Feature(f"observation.images.{short}", "image", shape)
    if dtype not in NUMPY or len(shape) > 2 or not 1 <= prod(shape) <= ELEMENTS_MAX:
        return f"no numbers or colour images, {dtype} {shape}"
    return Feature(short if short.startswith("action") else f"observation.{short}", dtype, shape or (1,))


def _pixels(image: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return an image as uint8; None where it would change."""
    if image.dtype == np.uint8:
        return image
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > LEVEL_MAX:
        return None
    pixels: NDArray[np.uint8] = image.astype(np.uint8)
    return pixels if (pixels == image).all() and (image.dtype.kind in "iu" or image.max() > 1) else None
