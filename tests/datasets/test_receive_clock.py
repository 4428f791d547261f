"""The receiver's realtime clock against its monotonic one."""

from __future__ import annotations

import numpy as np
import pytest

from lehrling.datasets.receive_clock import ahead_if_set_ns, clock_jump_ms, steady

MS = 1_000_000
MONOTONIC = 9_000 * MS + np.arange(500, dtype=np.int64) * 10 * MS
AHEAD = 1_700_000_000_000 * MS


def test_clocks_that_run_together_have_not_jumped() -> None:
    assert clock_jump_ms(MONOTONIC + AHEAD, MONOTONIC) == 0.0


@pytest.mark.parametrize("leap_ms", [-2000.0, -6.0, 40.0, 3_600_000.0])
def test_a_clock_set_while_recording_is_told_with_its_sign(leap_ms: float) -> None:
    received = MONOTONIC + AHEAD
    received[200:] += int(leap_ms * MS)
    assert clock_jump_ms(received, MONOTONIC) == leap_ms


def test_a_leap_too_small_to_be_told_from_scatter_is_none() -> None:
    received = MONOTONIC + AHEAD
    received[200:] += 3 * MS
    assert clock_jump_ms(received, MONOTONIC) == 0.0


def test_messages_taken_late_on_a_busy_computer_are_no_jump() -> None:
    """The middleware stamps arrival, the recorder takes later: by 40 ms at times, and in stalls of a quarter of a second."""
    rng = np.random.default_rng(1)
    taken = MONOTONIC + rng.exponential(8 * MS, 500).astype(np.int64)
    for begin in (40, 200, 475):
        taken[begin : begin + 25] = np.maximum(taken[begin : begin + 25], taken[begin + 24])
    assert clock_jump_ms(MONOTONIC + AHEAD, taken) == 0.0
    received = MONOTONIC + AHEAD
    received[300:] -= 100 * MS
    assert clock_jump_ms(received, taken) == pytest.approx(-100, abs=3)


def test_readings_torn_apart_by_the_scheduler_are_no_jump() -> None:
    received = MONOTONIC + AHEAD
    received[[3, 100, 102, 499]] += 30 * MS
    assert clock_jump_ms(received, MONOTONIC) == 0.0
    assert ahead_if_set_ns(received, MONOTONIC) is None


def test_a_jump_is_found_in_whatever_order_the_streams_come() -> None:
    received = MONOTONIC + AHEAD
    received[300:] -= 80 * MS
    order = np.random.default_rng(0).permutation(500)
    assert clock_jump_ms(received[order], MONOTONIC[order]) == -80.0
    assert ahead_if_set_ns(received[order], MONOTONIC[order]) == AHEAD


def test_unknown_monotonic_times_give_unknown_and_receipts_as_they_are() -> None:
    unknown = np.full(500, -1, np.int64)
    assert clock_jump_ms(MONOTONIC + AHEAD, unknown) is None
    assert clock_jump_ms(MONOTONIC + AHEAD, np.arange(500)) is None
    assert clock_jump_ms(MONOTONIC[:4], MONOTONIC[:4]) is None
    assert ahead_if_set_ns(MONOTONIC, unknown) is None
    assert steady(MONOTONIC, unknown, None) is MONOTONIC
    np.testing.assert_array_equal(steady(MONOTONIC + AHEAD, unknown, AHEAD), MONOTONIC + AHEAD)


def test_steady_receipts_do_not_follow_a_clock_that_is_set() -> None:
    received = MONOTONIC + AHEAD
    received[200:] -= 500 * MS
    np.testing.assert_array_equal(steady(received, MONOTONIC, AHEAD), MONOTONIC + AHEAD)
