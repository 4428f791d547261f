"""Statistics as LeRobot 0.6.1 keeps them, per episode and over all, with exact quantiles.

LeRobot takes an episode's quantiles from a histogram of 5000 bins and those of a dataset as the mean of its episodes', which
is wrong as soon as episodes differ. Here all are of the rows themselves, interpolated linearly (Hyndman and Fan 1996, type
7, in numpy's arithmetic); of images, whose values are 0 to 255, by counting each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
LARGE_PX, THINNED_PX = 300, 150
"""LeRobot takes every n-th pixel of images larger than this, down to about that."""
LEVELS = 256
Stats = dict[str, Any]
"""Numbers as nested lists, by NAMES; `count` is a list of one."""


def column_stats(values: NDArray[Any]) -> Stats:
    """Return the statistics of values (N, …) of numbers over their rows, N at least 1.

    Of matrices the last axis is kept, as LeRobot does.
    """
    rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1).astype(np.float64)
    facts: Stats = {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(values)],
    }
    found = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return facts | {name: found[place].tolist() for place, name in enumerate(QUANTILES)}


class PixelCounts:
    """How often each level of each channel was seen: adds up over frames and over episodes."""

    def __init__(self) -> None:
        self.levels: NDArray[np.int64] = np.zeros((3, LEVELS), np.int64)
        self.frames = 0

    def add(self, image: NDArray[np.uint8], times: int = 1) -> None:
        """Count an image (h, w, 3) uint8 that so many rows show."""
        height, width = image.shape[:2]
        longer = max(height, width)
        step = longer // THINNED_PX if longer >= LARGE_PX else 1
        thinned = image[::step, ::step]
        for channel in range(3):
            self.levels[channel] += times * np.bincount(thinned[..., channel].reshape(-1), minlength=LEVELS)
        self.frames += times

    def merge(self, other: PixelCounts) -> None:
        """Add what another counted."""
        self.levels += other.levels
        self.frames += other.frames

    def stats(self) -> Stats:
        """Return the statistics per channel in 0 to 1, shape (3, 1, 1)."""
        value = np.arange(LEVELS) / (LEVELS - 1)
        total = self.levels.sum(axis=1)
        mean = self.levels @ value / total
        spread = np.sqrt(np.maximum(self.levels @ value**2 / total - mean**2, 0))
        seen = self.levels > 0
        low, high = seen.argmax(axis=1), LEVELS - 1 - seen[:, ::-1].argmax(axis=1)
        facts = {"min": value[low], "max": value[high], "mean": mean, "std": spread}
        facts |= {name: _quantile(self.levels, part) / (LEVELS - 1) for name, part in QUANTILES.items()}
        return {name: numbers.reshape(3, 1, 1).tolist() for name, numbers in facts.items()} | {"count": [self.frames]}


def _quantile(levels: NDArray[np.int64], part: float) -> NDArray[np.float64]:
    """Return a quantile per channel: between the two values around its rank, linearly."""
    upto = np.cumsum(levels, axis=1)
    rank = part * (upto[:, -1] - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, upto[:, -1] - 1)
    first = np.array([np.searchsorted(upto[c], below[c], side="right") for c in range(3)], np.float64)
    second = np.array([np.searchsorted(upto[c], above[c], side="right") for c in range(3)], np.float64)
    return np.asarray(first + (second - first) * (rank - below))
