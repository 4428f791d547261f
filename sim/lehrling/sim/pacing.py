"""Pace simulation time by the wall clock, and say what its stamps are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

BEHIND_MAX_NS = 100_000_000
"""Beyond this the schedule is moved instead of caught up with, so that no burst follows a long stall."""
REPORT_NS = 1_000_000_000


@dataclass
class Pacer:
    """Lets simulation time pass `factor` times as fast as the wall clock, or slower where the machine is too slow.

    Attributes:
        monotonic_ns, wall_ns, sleep_s: the clocks and the sleep, replaceable in tests.
        lost_ns: wall time by which the schedule was moved, in all.
    """

    factor: float = 1.0
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    sleep_s: Callable[[float], None] = time.sleep
    lost_ns: int = 0
    _sim: int = field(default=0, init=False)
    _begun: int = field(default=0, init=False)
    _offset: int = field(default=0, init=False)

    def restart(self, sim_ns: int) -> None:
        """Let `sim_ns` be now: at the start and after a pause."""
        self._sim, self._begun = sim_ns, self.monotonic_ns()
        self.listen()

    def listen(self) -> None:
        """Follow the wall clock where it was set."""
        self._offset = self.wall_ns() - self.monotonic_ns()

    def _due(self, sim_ns: int) -> int:
        return self._begun + int((sim_ns - self._sim) / self.factor)

    def stamp_ns(self, sim_ns: int) -> int:
        """Return the wall-clock time of a simulation time, by the schedule [ns]."""
        return self._due(sim_ns) + self._offset

    def wait(self, sim_ns: int) -> None:
        """Sleep until `sim_ns` is due; move the schedule if that was long ago."""
        ahead = self._due(sim_ns) - self.monotonic_ns()
        if ahead > 0:
            self.sleep_s(ahead / 1e9)
        elif ahead < -BEHIND_MAX_NS:
            self.lost_ns -= ahead
            self._begun -= ahead


@dataclass(frozen=True)
class Reading:
    """What a second of real time gave.

    Attributes:
        factor: simulation time per wall time.
        cpu_share: of one core, that this process got.
    """

    factor: float
    cpu_share: float


@dataclass
class FactorMeter:
    """Measures the real-time factor reached, about once a second."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    cpu_ns: Callable[[], int] = time.process_time_ns
    _at: tuple[int, int, int] | None = None

    def restart(self) -> None:
        """Forget, after a pause."""
        self._at = None

    def reading(self, sim_ns: int) -> Reading | None:
        """Return what the time since the last reading gave, or None while a second has not passed."""
        now = self.monotonic_ns()
        if self._at is not None and now - self._at[0] < REPORT_NS:
            return None
        before, self._at = self._at, (now, sim_ns, self.cpu_ns())
        if before is None:
            return None
        elapsed = now - before[0]
        return Reading((sim_ns - before[1]) / elapsed, (self._at[2] - before[2]) / elapsed)
