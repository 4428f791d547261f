"""The peer: a plain rclpy node that subscribes typed and writes with the `mcap` writer, as tutorials show.

`python -m benchmarks.rigs.plain_node KIND CAMERAS FILE`; ends at a line on stdin; prints counts and CPU seconds.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from benchmarks.rigs import rig
from mcap.writer import Writer
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message

from lehrling.datasets.messages import definition
from lehrling.deploy.ros_graph import message_class


def main() -> None:
    """Record until told to stop."""
    kind, cameras, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    compressed = kind == "compressed"
    rclpy.init(args=[])
    node = rclpy.create_node("plain_recorder")
    counts: dict[str, int] = {}
    ended = threading.Event()
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start(profile="ros2", library="plain")
        names = {
            rig.camera_topic(k, compressed=compressed): rig.COMPRESSED if compressed else rig.IMAGE
            for k in range(cameras)
        }
        names |= {topic: rig.JOINT_STATE if topic == "/joint_states" else rig.POSE for topic in rig.numeric_messages()}
        for topic, msgtype in names.items():
            schema = writer.register_schema(msgtype, "ros2msg", definition(msgtype).encode())
            receive = _receiver(writer, writer.register_channel(topic, "cdr", schema), topic, counts)
            depth = 60 if msgtype in (rig.IMAGE, rig.COMPRESSED) else 2000
            quality = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)
            node.create_subscription(message_class(msgtype), topic, receive, quality)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        threading.Thread(target=_end_on_a_line, args=(ended,), daemon=True).start()
        print("there", flush=True)  # noqa: T201
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.1)
        writer.finish()  # type: ignore[no-untyped-call]
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"counts": counts, "cpu_s": used.ru_utime + used.ru_stime, "rss_mb": used.ru_maxrss / 1024}
    print(json.dumps(told), flush=True)  # noqa: T201
    rclpy.try_shutdown()


def _end_on_a_line(ended: threading.Event) -> None:
    sys.stdin.readline()
    ended.set()


def _receiver(writer: Any, channel: int, topic: str, counts: dict[str, int]) -> Callable[[Any], None]:
    def receive(message: Any) -> None:
        now = time.time_ns()
        writer.add_message(channel, now, serialize_message(message), now)
        counts[topic] = counts.get(topic, 0) + 1

    return receive


if __name__ == "__main__":
    main()
