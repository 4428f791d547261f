"""Exact statistics of a view's columns, over all valid rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

STD_FLOOR = 1e-6
"""Smallest standard deviation reported, in the column's unit.

A joint that never moved has a standard deviation of zero, or of rounding noise; dividing by it would turn
noise into large numbers. At the floor, a constant column normalises to exactly zero.
"""
STD_FLOOR_RELATIVE = 1e-5
"""Smallest standard deviation reported, relative to the column's largest magnitude.

float32 resolves 6e-8 of a value: a spread below 1e-5 of it is rounding, not motion.
"""
RANGE_FLOOR = 1e-6
"""Smallest q99 - q01 and max - min that `scale` divides by, in the column's unit."""

Statistics = dict[str, "NDArray[np.float32]"]
"""mean, std, min, max, q01, q99, each (D,) float32, and count (1,)."""


def column_statistics(value: NDArray[np.float32], valid: NDArray[np.bool_]) -> Statistics:
    """Return exact statistics of value (N, D) over its valid rows; standard deviations have a floor.

    Quantiles are of all rows together, interpolated linearly (Hyndman and Fan 1996, type 7). Merging the
    quantiles of episodes, as others do, is wrong as soon as episodes differ.

    Raises:
        InputError: no row is valid, or a valid row is not finite.
    """
    rows = value[valid]
    if len(rows) == 0:
        raise InputError(f"Expected at least one valid row, got none of {len(value)}; see `age_ns`.")
    if not np.isfinite(rows).all():
        column = int(np.flatnonzero(~np.isfinite(rows).all(axis=0))[0])
        raise InputError(f"Expected finite numbers in valid rows, got others in column {column}.")
    columns = [_one(np.ascontiguousarray(rows[:, column], np.float64)) for column in range(rows.shape[1])]
    names = ("mean", "std", "min", "max", "q01", "q99")
    table = np.array(columns, np.float32).reshape(len(columns), len(names))
    statistics = {name: table[:, place].copy() for place, name in enumerate(names)}
    statistics["count"] = np.array([len(rows)], np.float32)
    return statistics


def standardise(value: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Map value (..., D) to zero mean and unit variance."""
    return np.asarray((value - statistics["mean"]) / statistics["std"], np.float32)


def unstandardise(value: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Undo `standardise`."""
    return np.asarray(value * statistics["std"] + statistics["mean"], np.float32)


def scale(value: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Map value (..., D) so that its q01 becomes -1 and its q99 becomes 1; a constant column becomes 0."""
    middle, half = _band(statistics)
    return np.asarray((value - middle) / half, np.float32)


def unscale(value: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """Undo `scale`."""
    middle, half = _band(statistics)
    return np.asarray(value * half + middle, np.float32)


def _band(statistics: Statistics) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    low, high = statistics["q01"], statistics["q99"]
    half = np.asarray(np.maximum(high - low, RANGE_FLOOR) / 2, np.float32)
    return np.asarray((low + high) / 2, np.float32), half


def _one(column: NDArray[np.float64]) -> tuple[float, ...]:
    low, high = float(column.min()), float(column.max())
    floor = max(STD_FLOOR, STD_FLOOR_RELATIVE * max(abs(low), abs(high)))
    q01, q99 = np.quantile(column, (0.01, 0.99))
    return float(column.mean()), max(float(column.std()), floor), low, high, float(q01), float(q99)
