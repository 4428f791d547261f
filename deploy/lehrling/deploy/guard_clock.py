"""The guard's clock: one tick per period, never caught up, never faster than the period on average."""

from __future__ import annotations

from enum import Enum


class Tick(Enum):
    """What a call at some time means."""

    EARLY = "too early for a command"
    NEXT = "a command is due"
    STALLED = "a command is due, after a gap in which the robot came to rest by itself"
    LOST = "a command is due, after a gap in which anything may have happened"
    BACK = "time went backwards"


class TickClock:
    """Turns the times of calls into ticks.

    A call earlier than half a period before its time gets no command, so that commands are at least half a period apart
    and, on average, a period. A late call gets one command: the trajectory waits, nothing is skipped.
    """

    def __init__(self, period_ns: int, stall_ns: int, lost_ns: int) -> None:
        self._period_ns, self._stall_ns, self._lost_ns = period_ns, stall_ns, lost_ns
        self._last_ns: int | None = None
        self._emitted_ns = self._due_ns = 0

    def tick(self, now_ns: int) -> Tick:
        """Tell what this call means."""
        last, self._last_ns = self._last_ns, now_ns
        if last is None:
            return self._emit(now_ns, now_ns, Tick.NEXT)
        if now_ns < last:
            return self._emit(now_ns, now_ns, Tick.BACK)
        if (gap_ns := now_ns - self._emitted_ns) > self._stall_ns:
            return self._emit(now_ns, now_ns, Tick.LOST if gap_ns > self._lost_ns else Tick.STALLED)
        if 2 * (self._due_ns - now_ns) > self._period_ns:
            return Tick.EARLY
        return self._emit(now_ns, max(self._due_ns, now_ns), Tick.NEXT)

    def _emit(self, now_ns: int, due_ns: int, tick: Tick) -> Tick:
        self._emitted_ns, self._due_ns = now_ns, due_ns + self._period_ns
        return tick
