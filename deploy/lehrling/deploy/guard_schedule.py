"""When targets are due: intervals, or times of which some may have passed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lehrling.deploy.guard_events import Cause

INTERVAL_NS = 50_000_000
INTERVAL_MIN_NS, INTERVAL_MAX_NS = 1_000_000, 60_000_000_000
SHORTEST_S = INTERVAL_MIN_NS / 1e9


@dataclass(frozen=True)
class Schedule:
    """Times of the targets of one chunk.

    Attributes:
        interval_s: (n,) or (1,) for all; empty where `due_ns` holds.
        due_ns: (n,) increasing, or empty.
        observed_ns: when the observation was made that the chunk answers to.
    """

    interval_s: NDArray[np.float64]
    due_ns: NDArray[np.int64]
    observed_ns: int | None

    def problem(self, now_ns: int, targets: int, age_max_ns: int, *, replace: bool) -> tuple[Cause, str] | None:
        """Return why a chunk of so many targets cannot be taken for its times, or None."""
        if len(self.due_ns) and not replace:
            return Cause.SHAPE, "Expected intervals for targets that are appended, got times at which they are due."
        given = len(self.due_ns) or len(self.interval_s)
        if given != targets and (len(self.due_ns) or given != 1):
            return Cause.SHAPE, f"Expected {targets} times, one per target, got {given}."
        if len(self.due_ns) and int(self.due_ns[0]) - now_ns > INTERVAL_MAX_NS:
            return Cause.SHAPE, "The first target is due in more than 60 s; submit it when its time comes nearer."
        if self.observed_ns is not None and abs(now_ns - self.observed_ns) > age_max_ns:
            age, most = (now_ns - self.observed_ns) / 1e6, age_max_ns / 1e6
            return Cause.LATE, f"The chunk answers to an observation of {age:.0f} ms ago, more than {most:.0f} ms."
        return None

    def seconds(self, now_ns: int, targets: int, ahead_s: float) -> tuple[int, NDArray[np.float64]]:
        """Return how many of the targets are late, and the nominal times (n,) [s] from each other one's predecessor.

        Late is also what is due less than half an interval after the place from which the path is led on: the way to it
        would have to be made in next to no time.

        Args:
            now_ns: time of the call.
            targets: how many there are.
            ahead_s: nominal time until the place from which the path is led on.
        """
        if not len(self.due_ns):
            return 0, np.broadcast_to(self.interval_s, (targets,)).copy()
        due_s = (self.due_ns - now_ns) / 1e9
        close_s = ahead_s + (np.median(np.diff(due_s)) / 2 if targets > 1 else 0.0)
        first = int(np.searchsorted(due_s, close_s))
        return first, np.maximum(np.diff(due_s[first:], prepend=ahead_s), SHORTEST_S)


def schedule(interval_ns: ArrayLike | None, due_ns: ArrayLike | None, observed_ns: int | None) -> Schedule | str:
    """Return the schedule, or why the times are none."""
    if due_ns is None:
        interval = _nanoseconds(INTERVAL_NS if interval_ns is None else interval_ns)
        if isinstance(interval, str):
            return interval
        if (interval < INTERVAL_MIN_NS).any() or (interval > INTERVAL_MAX_NS).any():
            return "Expected intervals from 1 ms to 60 s."
        return Schedule(interval / 1e9, np.empty(0, dtype=np.int64), observed_ns)
    due = _nanoseconds(due_ns)
    if isinstance(due, str):
        return due
    steps = np.diff(due.astype(np.float64))
    if (steps < INTERVAL_MIN_NS).any() or (steps > INTERVAL_MAX_NS).any():
        return "Expected due times that increase by 1 ms to 60 s from target to target."
    return Schedule(np.empty(0), due, observed_ns)


def _nanoseconds(times: ArrayLike) -> NDArray[np.int64] | str:
    try:
        array = np.array(times, ndmin=1)
    except ValueError:
        array = np.empty(0)
    if array.dtype.kind not in "iu" or array.ndim != 1 or len(array) == 0:
        return "Expected times in whole nanoseconds, one for all or one per target."
    return array.astype(np.int64)
