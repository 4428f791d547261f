"""Losses from publication sequence numbers: counted where that is possible, unknown where it is not.

A publisher numbers its messages one by one. A missing number is a lost message, unless another publisher writes on the
same topic or the publisher was started again: then numbers come twice, go back, or leap further than the time between two
messages allows, and what is lost cannot be known.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

REORDER_MAX = 64
"""How far behind the newest a number may arrive and still be a message that was overtaken."""
PLAUSIBLE_FACTOR, PLAUSIBLE_SLACK = 3.0, 10
Numbers = NDArray[np.int64]
Step = Literal["next", "lost", "late", "broken"]


class SequenceCounter:
    """Counts missing numbers of one publisher, message by message.

    Attributes:
        missing: numbers left out so far and not arrived since.
        newest: the largest number taken; -1 before the first.
        broken: whether the numbers were not those of one publisher that ran through.
    """

    __slots__ = ("_behind", "broken", "missing", "newest")

    def __init__(self) -> None:
        self.newest = -1
        self._behind: set[int] = set()
        self.missing, self.broken = 0, False

    def take(self, sequence: int, most: float = float("inf")) -> Step:
        """Take the next number; at most `most` messages can have been lost before it."""
        leap = sequence - self.newest
        if leap == 1 or self.newest < 0:
            self.newest = sequence
            return "next"
        if leap > 1 and leap - 1 <= most:
            self.missing += leap - 1
            self._behind.update(range(max(self.newest + 1, sequence - REORDER_MAX), sequence))
            self._behind -= {number for number in self._behind if number < sequence - REORDER_MAX}
            self.newest = sequence
            return "lost"
        if sequence in self._behind:
            self._behind.remove(sequence)
            self.missing -= 1
            return "late"
        self._restart(sequence)
        return "broken"

    def _restart(self, sequence: int) -> None:
        self.broken, self.newest = True, sequence
        self._behind.clear()


def plausible(gap_ns: float, rate_hz: float | None) -> float:
    """Return how many messages can have been lost within a gap, at a rate (None: any), with room for jitter and bursts."""
    return float("inf") if rate_hz is None else PLAUSIBLE_FACTOR * gap_ns * rate_hz / 1e9 + PLAUSIBLE_SLACK


def dropped(sequence: Numbers, *times_ns: Numbers) -> int:
    """Return how many of one publisher's numbers (N,), in order of receipt, are missing; -1 where that is not known.

    With times (N,) [ns], such as stamps and receipts, a leap that no time before it can hold makes the count unknown.
    """
    if len(sequence) == 0 or (sequence < 0).any():
        return -1
    if (np.diff(sequence) == 1).all():
        return 0
    counter, most = SequenceCounter(), _most(len(sequence), times_ns)
    for number, limit in zip(sequence.tolist(), most.tolist(), strict=True):
        counter.take(number, limit)
        if counter.broken:
            return -1
    return counter.missing


def _most(count: int, times_ns: tuple[Numbers, ...]) -> NDArray[np.float64]:
    """Return (N,) how many messages can have been lost before each."""
    if not times_ns or count < 2:
        return np.full(count, np.inf)
    gaps = np.max([np.abs(np.diff(times)) for times in times_ns], axis=0).astype(np.float64)
    period = float(np.median(gaps))
    if period <= 0:
        return np.full(count, np.inf)
    return np.concatenate([[np.inf], [plausible(gap, 1e9 / period) for gap in gaps]])
