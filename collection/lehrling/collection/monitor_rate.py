"""A topic's rate over the last seconds."""

from __future__ import annotations

from collections import deque

from lehrling.collection.monitor_limits import MonitorLimits
from lehrling.collection.monitor_topic import Expected, TopicWatch

ENOUGH = 0.8
"""Share of the span that must have passed before a rate is judged."""


class RateJudge:
    """Measures a rate between messages, not between checks, so that few messages are no less exact.

    Attributes:
        rate_hz: over the last seconds; 0 before there are two messages.
        off: the rate's share of the wanted one where it is beyond tolerance; None where it is not, or not known yet.
    """

    def __init__(self, limits: MonitorLimits, expected: Expected) -> None:
        self._limits, self._wanted = limits, expected.rate_hz
        period_s = expected.period_s
        self._span_ns = int(max(limits.rate_s, limits.rate_messages * period_s) * 1e9)
        self._marks: deque[tuple[int, int]] = deque()
        self.rate_hz = 0.0
        self.off: float | None = None

    def restart(self) -> None:
        """Measure anew, as in and after silence that was told already."""
        self._marks.clear()
        self.rate_hz, self.off = 0.0, None

    def take(self, watch: TopicWatch, now_ns: int) -> None:
        """Measure; call about once a second."""
        total, last_ns = watch.total, watch.last_ns
        if not total:
            return
        while len(self._marks) > 1 and now_ns - self._marks[1][0] >= self._span_ns:
            self._marks.popleft()
        if self._marks:
            since_ns, count = self._marks[0]
            silent_ns = now_ns - last_ns - (2e9 / self._wanted if self._wanted else 2e9)
            span_ns = last_ns - since_ns + max(silent_ns, 0)
            self.rate_hz = (total - count) * 1e9 / span_ns if span_ns > 0 else 0.0
            self._judge(span_ns)
        else:
            self.off = None
        self._marks.append((last_ns, total))

    def _judge(self, span_ns: float) -> None:
        if self._wanted is None or span_ns < ENOUGH * self._span_ns:
            self.off = None
            return
        share = self.rate_hz / self._wanted
        tolerance = self._limits.rate_tolerance * (0.5 if self.off is not None else 1.0)
        self.off = share if abs(share - 1) > tolerance else None
