"""What a topic's delays say, second by second: lag, leaps of its clock, stamps far from now."""

from __future__ import annotations

from collections import deque
from statistics import median, median_low

from lehrling.collection.monitor_limits import MonitorLimits
from lehrling.collection.monitor_topic import TopicWatch, Window

FLOORS = 60
RECENT, BEFORE = 3, 5
STAMP_BACK = 0.8
"""Stamps are near again below this share of the limit, so that a clock that drifts across it is told once."""
USUAL, AGREE = 9, 3


class DelayJudge:
    """Judges receipt minus stamp of one topic.

    A leap is told from lag by its shape: all of a leap's delays moved by the same, and stay; a lag's grow and scatter.

    Attributes:
        latency_ms: mean of the last window; None without stamps.
        lag_ms: how far that is above the shortest delay of the last minute.
        lagging: lag that lasts [ms], 0 if there is none.
        leapt_ms: lasting leap found in the last window, 0 if there was none; positive if stamps went forward.
        off_ms: how far stamps are from where they should be in the last two windows, 0 if near; positive if ahead.
    """

    def __init__(self, limits: MonitorLimits, known_latency_ms: float) -> None:
        self._limits, self._known_ms = limits, known_latency_ms
        self._floors: deque[float] = deque(maxlen=FLOORS)
        self._late = self._far = 0
        self.latency_ms: float | None = None
        self.lag_ms: float | None = None
        self.lagging = self.leapt_ms = self.off_ms = 0.0

    def take(self, watch: TopicWatch, window: Window) -> None:
        """Judge a window."""
        self.leapt_ms = 0.0
        if not window.stamped or watch.base_ns is None:
            return
        low, mean = window.delay_min / 1e6, window.delay_sum / window.stamped / 1e6
        self._floors.append(low)
        self._leap()
        self.lag_ms = mean - min(self._floors)
        self.latency_ms = mean + watch.base_ns / 1e6
        self._lag((window.delay_max - window.delay_min) / 1e6)
        self._off(self._known_ms - low - watch.base_ns / 1e6, watch.total)

    def clock_was_set(self) -> None:
        """Forget delays from before this computer's clock was set: receipts moved with it."""
        self._floors.clear()
        self._late = 0

    def _leap(self) -> None:
        floors = list(self._floors)
        recent, before = floors[-RECENT:], floors[-RECENT - BEFORE : -RECENT]
        if len(before) < RECENT:
            return
        leap = median(recent) - median(before)
        scatter = max(max(recent) - min(recent), max(before) - min(before))
        if abs(leap) > self._limits.step_ms and scatter < abs(leap) / 2:
            self.leapt_ms = -leap
            self._floors = deque(recent, maxlen=FLOORS)

    def _lag(self, scatter_ms: float) -> None:
        """Tell lag after two windows; where all messages are late by the same, wait whether it is a leap."""
        lag = self.lag_ms or 0.0
        self._late = self._late + 1 if lag > self._limits.lag_ms / (2 if self.lagging else 1) else 0
        enough = 2 if self.lagging or scatter_ms > lag / 2 else RECENT + 1
        self.lagging = lag if self._late >= enough else 0.0

    def _off(self, off_ms: float, total: int) -> None:
        limit_ms = self._limits.stamp_ms * (STAMP_BACK if self.off_ms else 1.0)
        self._far = self._far + 1 if abs(off_ms) > limit_ms and not self.lagging and total > 1 else 0
        self.off_ms = off_ms if self._far > 1 else 0.0


class ReceiveClock:
    """Watches this computer's realtime clock against its monotonic one.

    The two cannot be read at once, and the scheduler may tear a reading apart by many milliseconds: a leap is believed when
    three readings in a row agree on it, against the median of those before.

    Attributes:
        ahead_ns: realtime minus monotonic, as last believed.
    """

    def __init__(self, leap_ms: float, ahead_ns: int) -> None:
        self._leap_ns, self.ahead_ns = leap_ms * 1e6, ahead_ns
        self._usual, self._odd = deque([ahead_ns], maxlen=USUAL), list[int]()

    @property
    def doubtful(self) -> bool:
        """Whether readings are odd that may yet turn out torn, or a leap."""
        return bool(self._odd)

    def leapt_ms(self, ahead_ns: int) -> float:
        """Take a reading of realtime minus monotonic; return by how much realtime was set [ms], 0 if it was not."""
        if abs(ahead_ns - self.ahead_ns) <= self._leap_ns:
            self._odd.clear()
            self._usual.append(ahead_ns)
            self.ahead_ns = median_low(self._usual)
            return 0.0
        if self._odd and abs(ahead_ns - self._odd[0]) > self._leap_ns:
            self._odd.clear()
        self._odd.append(ahead_ns)
        if len(self._odd) < AGREE:
            return 0.0
        leap_ns, self.ahead_ns = median_low(self._odd) - self.ahead_ns, median_low(self._odd)
        self._usual = deque(self._odd, maxlen=USUAL)
        self._odd.clear()
        return leap_ns / 1e6
