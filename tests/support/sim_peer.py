"""Talk to a served robot over real DDS, from a process of its own; prints what it found as JSON.

Usage: python sim_peer.py SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

NODE = "/cell1/lehrling_sim"
WATCHED = {
    "/cell1/joint_states": "sensor_msgs/msg/JointState",
    "/cell1/tcp_pose": "geometry_msgs/msg/PoseStamped",
    "/cell1/front/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
}
LATCHED = {
    "/cell1/robot_description": "std_msgs/msg/String",
    "/cell1/task_instruction": "std_msgs/msg/String",
    "/cell1/task_success": "std_msgs/msg/Bool",
}


def interface(name: str) -> Any:
    package, kind, message = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), message)


class Peer:
    """A node that watches, commands and asks."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data

        rclpy.init(args=[])
        self.node = rclpy.create_node("peer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.got: dict[str, list[tuple[int, Any]]] = {name: [] for name in (*WATCHED, *LATCHED)}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._open = [(name, kind, qos_profile_sensor_data) for name, kind in WATCHED.items()]
        self._open += [(name, kind, latched) for name, kind in LATCHED.items()]

    def watch(self) -> None:
        for name, kind, qos in self._open:
            self.node.create_subscription(interface(kind), name, self._keep(name), qos)

    def _keep(self, name: str) -> Callable[[Any], None]:
        return lambda message: self.got[name].append((time.time_ns(), message))

    def spin(self, until: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self.executor.spin_once(timeout_sec=0.05)
        return until()

    def ask(self, service: str, kind: str, **fields: Any) -> dict[str, Any]:
        made = interface(kind)
        client = self.node.create_client(made, f"{NODE}/{service}")
        client.wait_for_service(timeout_sec=20)
        future = client.call_async(made.Request(**fields))
        self.spin(future.done, 20)
        return {"success": future.result().success, "message": future.result().message}

    def tcp(self) -> list[float]:
        point = self.got["/cell1/tcp_pose"][-1][1].pose.position
        return [point.x, point.y, point.z]

    def counts(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self.got.items()}

    def move(self, xyz: tuple[float, float, float], seconds: float) -> list[float]:
        pose, grip = interface("geometry_msgs/msg/PoseStamped")(), interface("sensor_msgs/msg/JointState")()
        pose.header.frame_id = "cell"
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = xyz
        grip.name, grip.position = ["gripper"], [-1.0]
        sender = self.node.create_publisher(type(pose), "/cell1/tcp_command", 10)
        gripper = self.node.create_publisher(type(grip), "/cell1/gripper_command", 10)
        self.spin(lambda: sender.get_subscription_count() > 0 and gripper.get_subscription_count() > 0, 10)
        sender.publish(pose)
        gripper.publish(grip)
        self.spin(lambda: False, seconds)
        return self.tcp()


def timing(rows: list[tuple[int, Any]]) -> dict[str, float]:
    stamps = np.array([m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in rows])
    late = np.array([at for at, _ in rows]) - stamps
    periods = np.diff(stamps)
    return {
        "rate_hz": float(1e9 / periods.mean()),
        "period_ms": float(np.median(periods) / 1e6),
        "late_ms": float(np.median(late) / 1e6),
        "least_late_ms": float(late.min() / 1e6),
    }


def main() -> None:
    peer = Peer()
    peer.spin(lambda: NODE in [f"{ns.rstrip('/')}/{n}" for n, ns in peer.node.get_node_names_and_namespaces()], 30)
    time.sleep(0.5)
    peer.watch()
    late = peer.spin(lambda: all(peer.got[name] for name in LATCHED), 20)
    found: dict[str, Any] = {"latched": late, "first": {name: peer.got[name][0][1].data for name in LATCHED}}
    for rows in peer.got.values():
        rows.clear()
    peer.spin(lambda: False, float(sys.argv[1]))
    found["counts"] = peer.counts()
    found["timing"] = {name: timing(peer.got[name]) for name in WATCHED}
    joints = peer.got["/cell1/joint_states"][-1][1]
    found["joints"] = list(joints.name)
    before = peer.tcp()
    found["moved"] = {"from": before, "to": peer.move((0.42, 0.12, 0.22), 2.5)}
    found["opening"] = peer.got["/cell1/joint_states"][-1][1].position[-1]
    found["reset"] = peer.ask("reset", "std_srvs/srv/Trigger")
    peer.spin(lambda: bool(peer.got["/cell1/task_instruction"]), 10)
    found["instruction"] = peer.got["/cell1/task_instruction"][-1][1].data
    found["pause"] = peer.ask("pause", "std_srvs/srv/SetBool", data=True)
    peer.spin(lambda: False, 0.3)
    quiet = peer.counts()
    peer.spin(lambda: False, 0.5)
    found["silent"] = quiet == peer.counts()
    found["resume"] = peer.ask("pause", "std_srvs/srv/SetBool", data=False)
    found["awake"] = peer.spin(lambda: peer.counts()["/cell1/joint_states"] > quiet["/cell1/joint_states"], 10)
    graph = dict(peer.node.get_topic_names_and_types())
    found["topics"] = {name: types[0] for name, types in graph.items() if name.startswith("/cell1/")}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
