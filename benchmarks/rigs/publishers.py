"""Publish the benchmark's robot: `python -m benchmarks.rigs.publishers KIND CAMERAS SECONDS`; begins at a line on stdin.

Before and after the load each topic gets a few slow messages, so that a loss at either end shows in the sequence numbers.
Prints how many messages each topic got, its CPU seconds, and how late it was at worst.
"""

from __future__ import annotations

import heapq
import json
import struct
import sys
import time
from typing import Any

import rclpy
from benchmarks.rigs import rig
from rclpy.qos import QoSProfile, ReliabilityPolicy

from lehrling.deploy.ros_graph import message_class

SLOW, SLOW_S = 5, 0.1


class Topic:
    """A publisher and what it sends in turn."""

    def __init__(self, node: Any, name: str, msgtype: str, content: list[bytes], rate_hz: int) -> None:
        depth = 10 if rate_hz <= rig.CAMERA_HZ else rate_hz
        quality = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        self.publisher = node.create_publisher(message_class(msgtype), name, quality)
        self.name, self.period_s, self.count = name, 1 / rate_hz, 0
        self._content = [bytearray(message) for message in content]

    def publish(self) -> None:
        """Send the next message, stamped now."""
        message = self._content[self.count % len(self._content)]
        struct.pack_into("<iI", message, 4, *divmod(time.time_ns(), 1_000_000_000))
        self.publisher.publish(bytes(message))
        self.count += 1


def topics(node: Any, *, compressed: bool, cameras: int) -> list[Topic]:
    """Return all topics of the robot."""
    images = rig.camera_messages(compressed=compressed)
    kind = rig.COMPRESSED if compressed else rig.IMAGE
    names = [rig.camera_topic(k, compressed=compressed) for k in range(cameras)]
    made = [Topic(node, name, kind, images, rig.CAMERA_HZ) for name in names]
    for name, content in rig.numeric_messages().items():
        state = name == "/joint_states"
        made.append(
            Topic(node, name, rig.JOINT_STATE if state else rig.POSE, content, rig.JOINT_HZ if state else rig.POSE_HZ)
        )
    return made


def slowly(robot: list[Topic]) -> None:
    """Send a few messages on each topic, one at a time."""
    for _ in range(SLOW):
        for topic in robot:
            topic.publish()
        time.sleep(SLOW_S)


def load(robot: list[Topic], seconds: float) -> float:
    """Publish at full rate; return how late a message was at worst [s]."""
    begun, worst = time.monotonic(), 0.0
    due = [(begun + topic.period_s * place / len(robot), place) for place, topic in enumerate(robot)]
    heapq.heapify(due)
    while due[0][0] < begun + seconds:
        when, place = heapq.heappop(due)
        wait = when - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        worst = max(worst, -wait)
        robot[place].publish()
        heapq.heappush(due, (when + robot[place].period_s, place))
    return worst


def main() -> None:
    """Publish when told to."""
    kind, cameras, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    rclpy.init(args=[])
    node = rclpy.create_node("benchmark_robot")
    robot = topics(node, compressed=kind == "compressed", cameras=cameras)
    print("there", flush=True)  # noqa: T201
    sys.stdin.readline()
    slowly(robot)
    before = time.process_time()
    late = load(robot, seconds)
    cpu = time.process_time() - before
    time.sleep(0.5)
    slowly(robot)
    print(json.dumps({"counts": {t.name: t.count for t in robot}, "cpu_s": cpu, "late_s": late}), flush=True)  # noqa: T201
    sys.stdin.readline()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
