"""The sender's clock against the receiver's, from stamps and receipts alone.

What is seen is d = received - stamp = latency - (sender's clock ahead of the receiver's). Latency jitters upwards: no message
arrives before the shortest latency, so the lower envelope of d is the shortest latency minus the clock's lead, and neither
size nor shape of the jitter moves it. Two lines along that envelope are tried, and the one that quarters of the rows agree on
better is taken: the line below all d with the least sum of distances (a linear programme solved by an edge of the lower
convex hull; Moon, Skelly and Towsley, INFOCOM 1999), sharp where many messages come about as early as any can, and a line
through low percentiles (Theil and Sen), better where early messages are rare.

What can be told apart: *drift* (the slope) from everything constant, and *jitter* (distances from the line) from both.
What cannot: a constant latency from a constant offset. The binding's `latency_ms` is taken for the shortest latency; where
that is wrong by x, the offset is wrong by x. A latency that itself grows or shrinks steadily looks like drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Floats = NDArray[np.float64]
Line = Callable[[Floats, Floats], tuple[float, float]]

HULL_POINTS_MAX, SUBSETS = 4096, 4
BLOCKS, BLOCK_ROWS_MIN, LOW_PERCENT = 32, 8, 20
LOW_LINE_ROWS_MIN = 4 * SUBSETS * BLOCK_ROWS_MIN
OUTLIER_SCALES, OUTLIER_MIN_MS = 6.0, 1.0
QUARTZ_PPM = 200.0
"""More than any quartz clock drifts; a line found no better than this is noise, and no floor is extrapolated with it."""
FAR_BEYOND = 3.0
SPAN_MIN_S, ROWS_MIN = 1.0, 16
STEP_MIN_MS, STEP_SPREADS = 5.0, 6.0
EDGE, STEP_SIDE, STEP_BLOCKS_MIN = 3, 8, 12


@dataclass(frozen=True)
class ClockFit:
    """A sender's clock as seen by the receiver.

    Attributes:
        floor_ms: shortest received minus stamp, at the first row: shortest latency minus the clock's lead. Where the
            drift found is noise, the shortest of all rows.
        drift_ppm: how much faster the sender's clock runs; None where too short, or where the clock was set on the way.
        drift_error_ppm: how far quarters of the rows (every fourth) are from all; in simulation not less than the true
            error in about nine of ten streams.
        step_ms: by how much the sender's clock (or a lasting latency, with the other sign) leapt; 0 if it did not.
    """

    floor_ms: float
    drift_ppm: float | None
    drift_error_ppm: float | None
    step_ms: float


def fit_clock(stamp_ns: Times, received_ns: Times) -> ClockFit | None:
    """Fit the sender's clock from stamps and receipts (N,) [ns] on one steady clock; None for no rows."""
    if len(stamp_ns) == 0:
        return None
    order = np.argsort(received_ns, kind="stable")
    received = received_ns[order]
    seconds = (received - received[0]) / 1e9
    delay = received - stamp_ns[order]
    base = int(np.median(delay))
    delay_ms = (delay - base) / 1e6
    if len(seconds) < ROWS_MIN or seconds[-1] < SPAN_MIN_S:
        return ClockFit(base / 1e6 + float(delay_ms.min()), None, None, 0.0)
    keep, step_ms = _examine(seconds, delay_ms)
    if step_ms:
        return ClockFit(base / 1e6 + float(delay_ms[: len(delay_ms) // BLOCKS].min()), None, None, -step_ms)
    seconds, delay_ms = seconds[keep], delay_ms[keep]
    lines = (lower_line, low_line) if len(delay_ms) >= LOW_LINE_ROWS_MIN else (lower_line,)
    slope, error = min((_tried(line, seconds, delay_ms) for line in lines), key=lambda tried: tried[1])
    told = drift_told(slope * 1e3, error * 1e3)
    floor = float((delay_ms - slope * seconds if told else delay_ms).min())
    return ClockFit(base / 1e6 + floor, -slope * 1e3, error * 1e3, 0.0)


def drift_told(drift_ppm: float | None, error_ppm: float | None) -> bool:
    """Whether a drift says anything: found to better than any quartz clock drifts, or far beyond its own error."""
    if drift_ppm is None or error_ppm is None:
        return False
    return error_ppm <= QUARTZ_PPM or abs(drift_ppm) > FAR_BEYOND * error_ppm


def _tried(line: Line, seconds: Floats, delay_ms: Floats) -> tuple[float, float]:
    """Return a line's slope, and how far those of four quarters of the rows are from it."""
    slope = line(seconds, delay_ms)[1]
    return slope, max(abs(line(seconds[k::SUBSETS], delay_ms[k::SUBSETS])[1] - slope) for k in range(SUBSETS))


def lower_line(seconds: Floats, values: Floats) -> tuple[float, float]:
    """Return intercept and slope of the line below all points (N,) with the least sum of distances; seconds ascend."""
    x, y = (points.tolist() for points in _minima(seconds, values, HULL_POINTS_MAX))
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1 and _turns_down(x, y, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    middle = float(seconds.mean())
    right = next((k for k, i in enumerate(hull) if x[i] > middle), len(hull) - 1)
    a, b = hull[max(0, right - 1)], hull[right]
    slope = (y[b] - y[a]) / (x[b] - x[a]) if x[b] > x[a] else 0.0
    return y[a] - slope * x[a], slope


def _turns_down(x: list[float], y: list[float], a: int, b: int, c: int) -> bool:
    return (y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a])


def _minima(seconds: Floats, values: Floats, blocks: int) -> tuple[Floats, Floats]:
    """Return the lowest point of each of at most `blocks` runs of equal length."""
    starts = np.unique(np.linspace(0, len(values), blocks + 1).astype(int)[:-1])
    picks = [int(a + values[a:b].argmin()) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]
    return seconds[picks], values[picks]


def low_line(seconds: Floats, values: Floats) -> tuple[float, float]:
    """Return intercept and slope of the line through low percentiles of blocks of points (N,), by Theil and Sen."""
    x, y = low_points(seconds, values)
    left, right = np.triu_indices(len(x), 1)
    slope = float(np.median((y[right] - y[left]) / np.maximum(x[right] - x[left], 1e-9))) if len(x) > 1 else 0.0
    return float(np.median(y - slope * x)), slope


def _examine(seconds: Floats, delay_ms: Floats) -> tuple[NDArray[np.bool_], float]:
    """Return which rows can be believed, and by how much the floor leapt (0 if it did not).

    A row far below all others was stamped in the future; one such row would carry the whole line.
    """
    rest = delay_ms - low_line(seconds, delay_ms)[1] * seconds
    low, middle = np.percentile(rest, (LOW_PERCENT, 50))
    return rest > low - (OUTLIER_SCALES * (middle - low) + OUTLIER_MIN_MS), floor_step(low_points(seconds, delay_ms)[1])


def low_points(seconds: Floats, delay_ms: Floats) -> tuple[Floats, Floats]:
    """Return the mean time and a low percentile of each block of points (N,); one point that is far off moves neither."""
    count = max(1, min(BLOCKS, len(delay_ms) // BLOCK_ROWS_MIN))
    blocks = [slice(part[0], part[-1] + 1) for part in np.array_split(np.arange(len(delay_ms)), count)]
    x = [float(seconds[block].mean()) for block in blocks]
    y = [float(np.percentile(delay_ms[block], LOW_PERCENT, method="lower")) for block in blocks]
    return np.array(x), np.array(y)


def floor_step(floors_ms: Floats) -> float:
    """Return the lasting leap within the floors of consecutive blocks (K,) [ms], 0 if there is none.

    A leap is one whose sides differ by much more than either scatters; a straight ramp never is.
    """
    if len(floors_ms) < STEP_BLOCKS_MIN:
        return 0.0
    splits = range(EDGE, len(floors_ms) - EDGE + 1)
    best = min(splits, key=lambda k: _deviation(floors_ms[:k]) + _deviation(floors_ms[k:]))
    before, after = floors_ms[:best], floors_ms[best:]
    leap = float(np.median(after) - np.median(before))
    spread = 1.4826 * max(_scatter(before), _scatter(after))
    if abs(leap) <= max(STEP_MIN_MS, STEP_SPREADS * spread):
        return 0.0
    return float(np.median(after[:STEP_SIDE]) - np.median(before[-STEP_SIDE:]))


def _deviation(values: Floats) -> float:
    return float(np.abs(values - np.median(values)).sum())


def _scatter(values: Floats) -> float:
    return float(np.median(np.abs(values - np.median(values))))
