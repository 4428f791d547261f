"""The receiver's own clocks: realtime, which can be set, against monotonic, which cannot.

A message's two receipts are not read at once: a middleware may stamp its arrival on the realtime clock, and the monotonic
clock is read when the message is taken, a queue later. So monotonic minus realtime scatters upwards, as latencies do, and
what tells is its floor: only where that leaps for good was realtime set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.clock_fit import BLOCK_ROWS_MIN, STEP_BLOCKS_MIN, floor_step, low_points

Times = NDArray[np.int64]

TOGETHER_MS = 20.0
"""Floors of most neighbouring blocks are closer than this where the two clocks run together, on a busy computer too."""


def clock_jump_ms(received_ns: Times, monotonic_ns: Times) -> float | None:
    """Return by how much realtime was set against monotonic while recording [ms], forward positive; 0 if it was not.

    Takes all messages (N,) [ns]; a negative monotonic time is unknown. Less than 5 ms cannot be told from scatter. None where
    too few monotonic times are known, or where the two clocks do not run together at all.
    """
    delay_ms, at_s = _taken(received_ns, monotonic_ns)
    if len(delay_ms) < BLOCK_ROWS_MIN * STEP_BLOCKS_MIN:
        return None
    floors = low_points(at_s, delay_ms)[1]
    if np.median(np.abs(np.diff(floors))) > TOGETHER_MS:
        return None
    return -floor_step(floors) + 0.0


def ahead_if_set_ns(received_ns: Times, monotonic_ns: Times) -> int | None:
    """Return realtime minus monotonic [ns] as it was before realtime was set; None where it was not, or is not known."""
    if not clock_jump_ms(received_ns, monotonic_ns):
        return None
    known = monotonic_ns >= 0
    first = np.argsort(monotonic_ns[known], kind="stable")[:BLOCK_ROWS_MIN]
    return int(np.median((received_ns - monotonic_ns)[known][first]))


def steady(received_ns: Times, monotonic_ns: Times, ahead_ns: int | None) -> Times:
    """Return receipts (N,) on the realtime clock as if it had never been set; as they are, where `ahead_ns` is None."""
    if ahead_ns is None:
        return received_ns
    return np.where(monotonic_ns >= 0, monotonic_ns + ahead_ns, received_ns)


def _taken(received_ns: Times, monotonic_ns: Times) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return monotonic minus realtime [ms] from where it began, and when [s], in order."""
    known = monotonic_ns >= 0
    received, monotonic = received_ns[known], monotonic_ns[known]
    if not len(received):
        return np.zeros(0), np.zeros(0)
    order = np.argsort(monotonic, kind="stable")
    later = (monotonic - received)[order]
    return (later - later[0]) / 1e6, (monotonic[order] - monotonic[order[0]]) / 1e9
