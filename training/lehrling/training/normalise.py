"""Normalisation of states and actions: kept with the policy, in physical units outside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCALE_FLOOR = 1e-3
"""Least scale in physical units: a joint that never moves must not blow up its noise."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Normaliser:
    """Affine and without clipping: normalised = (value - offset) / scale, per dimension."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def forward(self, values: FloatArray) -> FloatArray:
        """Return normalised values, (..., D)."""
        result = (values - np.asarray(self.offset, np.float32)) / np.asarray(self.scale, np.float32)
        return result.astype(np.float32)

    def inverse(self, values: FloatArray) -> FloatArray:
        """Return values in physical units, (..., D)."""
        result = values * np.asarray(self.scale, np.float32) + np.asarray(self.offset, np.float32)
        return result.astype(np.float32)

    def to_json(self) -> dict[str, list[float]]:
        """Return offset and scale as lists."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, data: dict[str, list[float]]) -> Normaliser:
        """Read what `to_json` wrote."""
        return cls(tuple(map(float, data["offset"])), tuple(map(float, data["scale"])))

    @classmethod
    def from_bounds(cls, low: FloatArray, high: FloatArray) -> Normaliser:
        """Map [low, high] to [-1, 1]; quantiles keep outliers from stretching the range."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        scale = np.maximum((high - low) / 2, SCALE_FLOOR)
        return cls(tuple(((low + high) / 2).tolist()), tuple(scale.tolist()))
