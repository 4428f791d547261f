"""What a monitor tolerates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MonitorLimits:
    """Tolerances; the defaults let pass whatever regular traffic on a busy computer does.

    Attributes:
        missing_s: a topic that never had a message is missing after this.
        stale_s, stale_periods: silence longer than both (and than `stale_s` alone for cameras without a rate, tenfold).
        rate_tolerance: share by which a rate may differ, over `rate_s` seconds and at least `rate_messages` messages; a
            finding ends at half of it.
        frozen_frames, frozen_s: equal camera frames in a row, or for so long.
        clock_ms: leap of this computer's realtime against its monotonic clock.
        step_ms: lasting leap of receipt minus stamp.
        stamp_ms: stamps this far from receipt less the known latency.
        lag_ms: mean delay above the shortest of the last minute, twice in a row.
        quiet_s: a loss, or broken numbering, is over after so long without another.
    """

    missing_s: float = 3.0
    stale_s: float = 0.5
    stale_periods: float = 5.0
    rate_tolerance: float = 0.2
    rate_s: float = 5.0
    rate_messages: int = 20
    frozen_frames: int = 15
    frozen_s: float = 1.0
    clock_ms: float = 20.0
    step_ms: float = 50.0
    stamp_ms: float = 500.0
    lag_ms: float = 100.0
    quiet_s: float = 3.0
