"""What the handshake asks of a runtime again and again, and what it says of one that does not do it."""

from __future__ import annotations

from cell_bench import Bench
from fake_runtime import MS

from lehrling.deploy.handshake_image import SetSpeed


def test_a_speed_that_got_lost_on_its_way_is_set_again() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 10_000 * MS
    bench.executing()
    bench.write(speed_pct=10)
    assert SetSpeed(0.1) in bench.step().requests
    bench.runtime.speed = 1.0
    bench.steps(4)
    assert bench.runtime.speed == 0.1
