"""Simulation time follows the wall clock at the factor asked for, and says when it cannot."""

from __future__ import annotations

import pytest
from sim_serving import EPOCH_NS, Clock

from lehrling.sim.pacing import BEHIND_MAX_NS, FactorMeter, Reading

MS = 1_000_000


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_waiting_takes_the_time_that_the_factor_leaves(factor: float) -> None:
    clock = Clock()
    pacer, begun = clock.pacer(factor), clock.now_ns
    pacer.restart(70 * MS)
    for sim in range(70, 1071, 5):
        pacer.wait(sim * MS)
    assert clock.now_ns - begun == pytest.approx(1000 * MS / factor, abs=MS)


def test_a_short_delay_is_caught_up_with() -> None:
    clock = Clock()
    pacer, begun = clock.pacer(), clock.now_ns
    pacer.restart(0)
    clock.now_ns += 60 * MS
    for sim in range(5, 105, 5):
        pacer.wait(sim * MS)
    assert clock.now_ns == begun + 100 * MS
    assert pacer.lost_ns == 0


def test_a_long_delay_moves_the_schedule_instead_of_a_burst() -> None:
    clock = Clock()
    pacer, begun = clock.pacer(), clock.now_ns
    pacer.restart(0)
    clock.now_ns += BEHIND_MAX_NS + 405 * MS
    pacer.wait(5 * MS)
    pacer.wait(10 * MS)
    assert clock.now_ns == begun + BEHIND_MAX_NS + 410 * MS
    assert pacer.lost_ns == BEHIND_MAX_NS + 400 * MS


def test_stamps_are_the_schedule_on_the_wall_clock_and_follow_it_when_it_is_set() -> None:
    clock = Clock()
    pacer, begun = clock.pacer(2.0), clock.now_ns
    pacer.restart(100 * MS)
    assert pacer.stamp_ns(100 * MS) == EPOCH_NS + begun
    assert pacer.stamp_ns(300 * MS) == EPOCH_NS + begun + 100 * MS
    pacer.wall_ns = lambda: clock.now_ns + EPOCH_NS + 7 * MS
    assert pacer.stamp_ns(300 * MS) == EPOCH_NS + begun + 100 * MS
    pacer.listen()
    assert pacer.stamp_ns(300 * MS) == EPOCH_NS + begun + 107 * MS


def test_the_factor_reached_and_the_share_of_a_core_are_read_once_a_second() -> None:
    clock = Clock(busy=0.75)
    meter, readings = FactorMeter(clock.monotonic_ns, clock.cpu_ns), []
    for sim in range(0, 2000, 5):
        clock.now_ns += 10 * MS
        readings.append(meter.reading(sim * MS))
    reached = [reading for reading in readings if reading is not None]
    assert reached == [Reading(0.5, 0.75)] * 3


def test_a_restarted_meter_forgets_the_time_before() -> None:
    clock = Clock()
    meter = FactorMeter(clock.monotonic_ns, clock.cpu_ns)
    assert meter.reading(0) is None
    clock.now_ns += 900 * MS
    meter.restart()
    clock.now_ns += 900 * MS
    assert meter.reading(900 * MS) is None
    clock.now_ns += 1000 * MS
    assert meter.reading(1900 * MS) == Reading(1.0, 1.0)
