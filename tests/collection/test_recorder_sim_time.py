"""With simulation time, receipts are the clock topic's: stamps and receipts of an episode are of one clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ros_publishers import own_domain
from ros_rig import NEEDED, Rig, pose, recording_rig, rig

from lehrling.collection.capture_group import CaptureOptions
from lehrling.datasets import messages
from lehrling.datasets.message_types import standard

pytest.importorskip("rclpy")
MS, NOW = 1_000_000, 20_000_000_000


def clock(now_ns: int) -> bytes:
    make = standard().make
    stamp = make("builtin_interfaces/msg/Time")(*divmod(now_ns, 1_000_000_000))
    return messages.encode(make("rosgraph_msgs/msg/Clock")(clock=stamp))


def tell(robot: Rig, now_ns: int) -> None:
    robot.send("clock", clock(now_ns))
    time.sleep(0.1)


def test_receipts_are_those_of_the_clock_topic(tmp_path: Path) -> None:
    own_domain()
    with recording_rig(tmp_path / "d.zarr", rig(), CaptureOptions(sim_time=True)) as robot:
        robot.publishers.open("clock", "/clock", "rosgraph_msgs/msg/Clock", reliable=True, latched=False)
        robot.publishers.wait("clock")
        robot.open(*NEEDED)
        tell(robot, NOW)
        robot.wake()

        def act() -> None:
            for number in range(4):
                tell(robot, NOW + number * 100 * MS)
                robot.send("pose", pose(number, NOW + number * 100 * MS - 5 * MS))
                time.sleep(0.05)

        episode = robot.episode(act)
        stream = episode.stream("pose")
        assert stream.stamp_ns.tolist() == [NOW + number * 100 * MS - 5 * MS for number in range(4)]
        assert stream.received_ns.tolist() == [NOW + number * 100 * MS for number in range(4)]
        assert episode.record.facts["sim_time"] is True
        assert episode.record.timing["pose"].latency_ms == pytest.approx(5.0)
