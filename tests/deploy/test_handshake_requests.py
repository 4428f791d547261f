"""What the handshake asks of a runtime again and again, and what it says of one that does not do it."""

from __future__ import annotations

import pytest
from cell_bench import Bench
from fake_runtime import MS

from lehrling.deploy.handshake_image import Command, SetSpeed
from lehrling.deploy.runtime import Phase, Result


def test_a_speed_that_got_lost_on_its_way_is_set_again() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 10_000 * MS
    bench.executing()
    bench.write(speed_pct=10)
    assert SetSpeed(0.1) in bench.step().requests
    bench.runtime.speed = 1.0
    bench.steps(4)
    assert bench.runtime.speed == 0.1


@pytest.mark.parametrize("why", ["stop command", "time-out", "permission"])
def test_a_robot_that_does_not_come_to_rest_is_an_error_while_it_moves(why: str) -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 60_000 * MS
    bench.executing()
    bench.runtime.deaf = True
    if why == "stop command":
        bench.command(Command.STOP)
    elif why == "permission":
        bench.write(enable=False)
    bench.steps(45)
    assert not bench.status.error
    bench.steps(110)
    assert (bench.status.error_code, bench.status.busy, bench.status.done) == (99, True, False)
    assert bench.status.error_text == "The robot did not come to rest within 1 s."
    asked = bench.runtime.count("stop")
    bench.write(fault_ack=True)
    assert bench.steps(20).status.error, "the cause still holds"
    assert bench.runtime.count("stop") > asked
    bench.runtime.deaf = False
    bench.steps(20)
    assert (bench.status.busy, bench.status.done, bench.status.error) == (False, True, True)
    assert bench.status.result is (Result.TIMEOUT if why == "time-out" else Result.ABORTED)
    bench.write(fault_ack=False)
    bench.step()
    bench.write(fault_ack=True)
    assert not bench.step().status.error


def test_a_robot_that_goes_on_stopping_by_itself_is_an_error_as_well() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.phase, bench.runtime._left_ns = Phase.STOPPING, 10_000 * MS
    bench.steps(60)
    assert (bench.status.error_code, bench.status.busy) == (99, True)


def test_a_stop_that_is_asked_for_again_gives_no_more_time() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 60_000 * MS
    bench.executing()
    bench.runtime.deaf = True
    for _ in range(6):
        bench.command(Command.STOP)
        bench.steps(10)
    assert bench.status.error_code == 99


def test_a_cycle_after_one_that_was_stopped_has_its_time() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 1_500 * MS
    bench.executing()
    bench.command(Command.STOP)
    bench.steps(20)
    bench.command(Command.ACK)
    bench.command(Command.START)
    bench.steps(90)
    assert (bench.status.done, bench.status.result, bench.status.error) == (True, Result.SUCCESS, False)
