"""Normalisation of states and actions: kept with the policy, in physical units outside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

SCALE_FLOOR = 1e-3
"""Least scale in physical units: a joint that never moves must not blow up its noise."""

FloatArray = NDArray[np.float32]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NormaliserFacts(TypedDict):
    """A normaliser as JSON holds it; the bounds hold where pydantic reads it."""

    offset: list[_Finite]
    scale: list[_Positive]


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

    def to_json(self) -> NormaliserFacts:
        """Return offset and scale as lists."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, data: NormaliserFacts) -> Normaliser:
        """Read what `to_json` wrote."""
        return cls(tuple(data["offset"]), tuple(data["scale"]))

    @classmethod
    def from_statistics(cls, columns: Mapping[str, FloatArray]) -> Normaliser:
        """Map [q01, q99] to [-1, 1], and [min, max] where the quantiles lie together but the extremes do not.

        So an action of fewer than 1 % of the rows, as a gripper that closes once, does not become thousands.
        """
        low, high, least, most = (np.asarray(columns[name], np.float64) for name in ("q01", "q99", "min", "max"))
        rare = (high - low < 2 * SCALE_FLOOR) & (most - least > 2 * SCALE_FLOOR)
        return cls.from_bounds(np.where(rare, least, low), np.where(rare, most, high))

    @classmethod
    def from_bounds(cls, low: FloatArray, high: FloatArray) -> Normaliser:
        """Map [low, high] to [-1, 1]; quantiles keep outliers from stretching the range."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        scale = np.maximum((high - low) / 2, SCALE_FLOOR)
        return cls(tuple(((low + high) / 2).tolist()), tuple(scale.tolist()))
