"""What two subscriptions of a topic hear goes into the queue once, in whatever order and however late they tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from record_runs import robot
from ros_rig import JOINTS

from lehrling.collection import subscriptions
from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import Captured, CaptureQueue
from lehrling.collection.subscriptions import Subscriptions
from lehrling.datasets import messages

TOPIC = "/joint_states"
Hear = Callable[[bytes, dict[str, Any]], None]


@dataclass
class Info:
    """A publisher, as the graph tells of it."""

    topic_type: str
    qos_profile: QoSProfile


@dataclass
class Node:
    """Stands in for rclpy's: notes the callbacks."""

    infos: list[Info] = field(default_factory=list)
    callbacks: list[Hear] = field(default_factory=list)
    destroyed: int = 0

    def get_publishers_info_by_topic(self, _topic: str) -> list[Info]:
        return self.infos

    def create_subscription(self, _kind: Any, _topic: str, hear: Hear, _profile: QoSProfile, *, raw: bool) -> int:
        assert raw
        self.callbacks.append(hear)
        return len(self.callbacks)

    def destroy_subscription(self, _subscription: int) -> None:
        self.destroyed += 1


def offer(reliable: bool) -> Info:
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    profile = QoSProfile(depth=10, reliability=policy, durability=DurabilityPolicy.VOLATILE)
    return Info("sensor_msgs/msg/JointState", profile)


def tell(hear: Hear, number: int, received_ns: int) -> None:
    cdr = messages.joint_state(JOINTS, [number, 0, 0], [], [], number)
    sender = {"publisher_gid": {"data": b"one"}, "publication_sequence_number": number}
    hear(cdr, {"received_timestamp": received_ns, "source_timestamp": 1, **sender})


def test_what_the_dropped_subscription_had_is_not_taken_again_from_the_new_one(monkeypatch: Any) -> None:
    node, queue = Node(), CaptureQueue()
    embodiment = robot(("position",), ())
    made = Subscriptions(node, BoundTopics(embodiment), (TOPIC,), queue)
    node.infos = [offer(True)]
    made.update(recording=False)
    old, new = node.callbacks
    tell(old, 1, 200)
    tell(old, 2, 210)
    monkeypatch.setattr(subscriptions, "FADE_S", 0.0)
    made.heard[TOPIC].fading = (1, 0.0)
    made.update(recording=False)
    assert (node.destroyed, made.heard[TOPIC].fading) == (1, None)
    for number in (2, 3):
        tell(new, number, 190 + number)
    tell(old, 4, 220)
    taken = [item for item in iter(lambda: queue.take(0), None) if isinstance(item, Captured)]
    assert [item.sequence for item in taken] == [1, 2, 3]
    assert [item.received_ns for item in taken] == [200, 210, 210]
    assert [item.monotonic_ns for item in taken] == sorted(item.monotonic_ns for item in taken)
