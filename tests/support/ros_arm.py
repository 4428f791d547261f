"""arm6 in a process of its own, on real DDS: it stands where it is told to be and tells its TCP at 100 Hz."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

POSE, JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
START = (0.4, 0.1, 0.2)
ANSWER_S = 60.0


@dataclass(frozen=True)
class Heard:
    """What the arm was told: monotonic time of receipt [ns] and CDR, by topic, and what other topics sent."""

    commands: dict[str, list[tuple[int, bytes]]]
    position: tuple[float, float, float]


class RosArm:
    """The test's end."""

    def __init__(self, listen: dict[str, str], prefix: str) -> None:
        context = mp.get_context("spawn")
        self._connection, its = context.Pipe()
        self._process = context.Process(target=_serve, args=(its, listen, prefix), daemon=True)
        self._process.start()
        its.close()
        assert self._connection.poll(ANSWER_S), "the arm does not start"
        self._connection.recv()

    def heard(self) -> Heard:
        """Return what it was told so far."""
        self._connection.send("heard")
        assert self._connection.poll(ANSWER_S), "the arm does not answer"
        answer = self._connection.recv()
        assert isinstance(answer, Heard)
        return answer

    def quit(self) -> None:
        """End the process."""
        self._connection.send("quit")
        self._process.join(10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


@contextmanager
def ros_arm(listen: dict[str, str] | None = None, prefix: str = "") -> Iterator[RosArm]:
    """Yield an arm; it listens to further topics -> type, too."""
    arm = RosArm(listen or {}, prefix)
    try:
        yield arm
    finally:
        arm.quit()


def _serve(connection: Connection, listen: dict[str, str], prefix: str) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from lehrling.datasets import messages
    from lehrling.deploy.ros_graph import message_class

    rclpy.init(args=[])
    node = rclpy.create_node("test_arm")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    position, told = list(START), dict[str, list[tuple[int, bytes]]]()

    def hear(topic: str, cdr: bytes) -> None:
        told[topic].append((time.monotonic_ns(), cdr))
        if topic == f"{prefix}/tcp_command":
            point: Any = messages.decode(cdr, POSE).pose.position
            position[:] = [point.x, point.y, point.z]

    topics = {f"{prefix}/tcp_command": POSE, f"{prefix}/gripper_command": JOINTS, **listen}
    for topic, kind in topics.items():
        told[topic] = []
        node.create_subscription(message_class(kind), topic, lambda cdr, t=topic: hear(t, cdr), 50, raw=True)
    publisher = node.create_publisher(message_class(POSE), f"{prefix}/tcp_pose", 10)

    def tell() -> None:
        publisher.publish(messages.pose_stamped(position, [0.0, 1.0, 0.0, 0.0], time.time_ns(), "cell"))

    node.create_timer(0.01, tell)
    connection.send("ready")
    word = ""
    while word != "quit":
        executor.spin_once(timeout_sec=0.02)
        word = connection.recv() if connection.poll(0) else ""
        if word == "heard":
            connection.send(Heard(dict(told), (position[0], position[1], position[2])))
    node.destroy_node()
    rclpy.try_shutdown()
