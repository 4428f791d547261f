"""Timing of one stream: rate, gaps, jitter, latency, drops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.manifest import StreamTiming

Times = NDArray[np.int64]


def stream_timing(stamp_ns: Times, received_ns: Times, sequence: Times) -> StreamTiming:
    """Summarise a stream; all arrays are (N,), in order of receipt, nanoseconds."""
    count = len(stamp_ns)
    latency = float(np.mean(received_ns - stamp_ns)) / 1e6 if count else 0.0
    if count < 2:
        return StreamTiming(count, 0.0, 0.0, 0.0, 0.0, round(latency, 4), dropped(sequence))
    ordered = np.sort(stamp_ns)
    gaps = np.diff(ordered) / 1e6
    span = float(ordered[-1] - ordered[0]) / 1e9
    rate = (count - 1) / span if span > 0 else 0.0
    return StreamTiming(
        count,
        round(rate, 4),
        round(float(gaps.mean()), 4),
        round(float(gaps.max()), 4),
        round(float(gaps.std()), 4),
        round(latency, 4),
        dropped(sequence),
    )


def dropped(sequence: Times) -> int:
    """Return how many sequence numbers are missing, or -1 where they are not known."""
    if len(sequence) == 0 or (sequence < 0).any():
        return -1
    distinct = np.unique(sequence)
    return int(distinct[-1] - distinct[0] + 1 - len(distinct))
