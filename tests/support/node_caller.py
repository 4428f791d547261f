"""Calls services of a node and hears its texts, from the test's process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WAIT_S = 60.0


class Caller:
    """A node of the test's own."""

    def __init__(self, node: Any, executor: Any) -> None:
        self._node, self._executor = node, executor
        self.heard: dict[str, list[str]] = {}

    def spin_until(self, done: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        """Wait until something holds, hearing what comes."""
        until = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > until:
                raise TimeoutError({topic: texts[-1:] for topic, texts in self.heard.items()})
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, kind: Any, name: str, request: Any = None) -> Any:
        """Call a service and return its answer."""
        client = self._node.create_client(kind, name)
        try:
            self.spin_until(client.service_is_ready)
            future = client.call_async(request if request is not None else kind.Request())
            self.spin_until(future.done)
            return future.result()
        finally:
            self._node.destroy_client(client)

    def trigger(self, name: str) -> tuple[bool, str]:
        """Call a std_srvs/Trigger."""
        from std_srvs.srv import Trigger

        answer = self.call(Trigger, name)
        return answer.success, answer.message

    def hear(self, topic: str) -> None:
        """Keep the texts of a topic (std_msgs/String)."""
        from std_msgs.msg import String

        texts = self.heard.setdefault(topic, [])
        self._node.create_subscription(String, topic, lambda message: texts.append(message.data), 10)

    def last(self, topic: str) -> dict[str, Any]:
        """Return the newest JSON of a topic, or an empty mapping."""
        texts = self.heard[topic]
        return json.loads(texts[-1]) if texts else {}


@contextmanager
def caller() -> Iterator[Caller]:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("caller", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield Caller(node, executor)
    finally:
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        context.try_shutdown()
