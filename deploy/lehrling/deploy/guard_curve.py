"""From targets to the points of a path: smooth between targets, nothing beyond them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
KNOT_S = 0.025
POINTS_PER_TARGET_MAX = 40


@dataclass(frozen=True)
class Curve:
    """Points of a path.

    Attributes:
        points: (m, D).
        seconds: (m,) nominal time from each point's predecessor.
        targets: (n,) which of the points are targets.
    """

    points: FloatArray
    seconds: FloatArray
    targets: NDArray[np.intp]


def curve(
    start: FloatArray,
    spacing: FloatArray,
    targets: FloatArray,
    seconds: FloatArray,
    limit: FloatArray,
    blend: FloatArray,
    most: int,
) -> Curve | None:
    """Return points on a smooth curve through `targets`, evenly in time, or None if they would be more than `most`.

    Args:
        start: (D,) where the path is led on.
        spacing: (D,) from the point before it, with which the new points go on: an even path can be driven fastest.
        targets: (n, D).
        seconds: (n,) nominal time from each target's predecessor.
        limit: (D,) of the velocity; a way that takes longer with it gets points for that time.
        blend: (D,) how far the path may stay away from a target on a sharp turn.
        most: number of points.
    """
    if len(targets) > most:
        return None
    knots = np.vstack([start, targets])
    typical = float(np.median(seconds))
    per_target = min(max(math.ceil(typical / KNOT_S), _for_turns(knots, blend)), POINTS_PER_TARGET_MAX)
    takes = np.maximum(seconds, (np.abs(np.diff(knots, axis=0)) / limit).max(axis=1))
    counts = np.clip(np.rint(takes * (per_target / typical)), 1, POINTS_PER_TARGET_MAX).astype(np.intp)
    if counts.sum() > most:
        counts = np.maximum(1, counts * (most - len(counts)) // counts.sum())
    points = _hermite(knots, _slopes(knots, seconds, spacing * (counts[0] / seconds[0])), seconds, counts)
    return Curve(points, np.repeat(seconds / counts, counts), np.cumsum(counts) - 1)


def _for_turns(knots: FloatArray, blend: FloatArray) -> int:
    """Return how many points per target keep the path within `blend` of each.

    A B-spline stays away from a point by a sixth of the second difference there; on a turning point that of the curve's
    points is up to three times that of the targets, divided by the square of the points per target.
    """
    if len(knots) < 3:
        return 1
    bend = np.abs(np.diff(knots, 2, axis=0)).max(axis=0)
    return math.ceil(math.sqrt(float((bend / blend).max()) / 2))


def _hermite(knots: FloatArray, slopes: FloatArray, seconds: FloatArray, counts: NDArray[np.intp]) -> FloatArray:
    """Return points (sum of counts, D) on the cubics between knots (n + 1, D), `counts` on each, its end included."""
    segment = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    t = ((np.arange(len(segment)) - first[segment] + 1) / counts[segment])[:, None]
    h = seconds[segment, None]
    here, there = knots[segment], knots[segment + 1]
    before, after = slopes[segment] * h, slopes[segment + 1] * h
    return np.asarray(here + t * t * (3 - 2 * t) * (there - here) + t * (1 - t) * ((1 - t) * before - t * after))


def _slopes(knots: FloatArray, seconds: FloatArray, velocity: FloatArray) -> FloatArray:
    """Return the curve's velocities (n + 1, D) at the knots; from rest the curve begins straight.

    Central differences, limited so that the curve is monotone between targets (F. N. Fritsch and R. E. Carlson,
    "Monotone piecewise cubic interpolation", 1980), except that a smooth turning point keeps its slope (H. T. Huynh,
    "Accurate monotone cubic interpolation", 1993): there the curve may pass a target by at most an eighth of the second
    difference around it.
    """
    h = seconds[:, None]
    rates = np.diff(knots, axis=0) / h
    slopes = np.empty_like(knots)
    slopes[0] = np.where(velocity * rates[0] > 0, np.clip(velocity, -3 * np.abs(rates[0]), 3 * np.abs(rates[0])), 0.0)
    if not velocity.any():
        slopes[0] = rates[0]
    slopes[-1] = rates[-1]
    before, after = rates[:-1], rates[1:]
    central = (before * h[1:] + after * h[:-1]) / (h[1:] + h[:-1])
    if len(knots) > 4 and float(np.ptp(seconds)) < 1e-3 * float(seconds[0]):
        central[1:-1] = (8 * (knots[3:-1] - knots[1:-3]) - (knots[4:] - knots[:-4])) / (12 * h[0])
    limit = np.where(before * after > 0, 3 * np.minimum(np.abs(before), np.abs(after)), 0.0)
    limit = np.maximum(limit, _smooth_bend(after - before) / 2)
    slopes[1:-1] = np.clip(central, -limit, limit)
    return slopes


def _smooth_bend(bend: FloatArray) -> FloatArray:
    """Return the least of three neighbouring second differences where they have one sign, 0 elsewhere (minmod)."""
    least = np.zeros_like(bend)
    if len(bend) > 2:
        left, here, right = bend[:-2], bend[1:-1], bend[2:]
        same = (left * here > 0) & (here * right > 0)
        least[1:-1] = np.where(same, np.minimum(np.minimum(np.abs(left), np.abs(here)), np.abs(right)), 0.0)
    return least
