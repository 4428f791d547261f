"""Taking messages from the middleware at the least cost.

rclpy's executors make a task per message: 1,720 messages/s with 110 MB/s cost a SingleThreadedExecutor 0.76 of a core,
this loop 0.22 (two cores, Kilted, Fast DDS). It uses what rclpy's own executors use, `WaitSet` and `take_message`, which
are not public; `SpinLoop` does the same by the public executor and stands in where these are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

COALESCE_S = 0.002
"""A pause after each round: several messages are taken at once. Receive times are the middleware's, no pause moves them."""
WAIT_NS = 50_000_000

OnMessage = Callable[[bytes, dict[str, Any]], None]


class TakeLoop(Protocol):
    """Takes serialised messages of subscriptions and gives each to its callback, until told to stop."""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Take messages; `stopped` is asked at least every 50 ms."""
        ...

    def replace(self, subscriptions: Sequence[tuple[Any, OnMessage]]) -> None:
        """Take these from the next round on; called by the thread that runs, from `stopped`."""
        ...


class WaitSetLoop:
    """Waits for all subscriptions at once and takes from each until it is empty."""

    def __init__(self, node: Any) -> None:
        from rclpy.impl.implementation_singleton import rclpy_implementation

        self._make, self._context = rclpy_implementation.WaitSet, node.context.handle
        self._subscriptions: list[tuple[Any, OnMessage]] = []
        self._wait_set: Any = None

    def replace(self, subscriptions: Sequence[tuple[Any, OnMessage]]) -> None:
        """Take these from the next round on."""
        self._subscriptions = list(subscriptions)
        self._wait_set = self._make(len(self._subscriptions), 0, 0, 0, 0, 0, self._context)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Take messages until told to stop."""
        while not stopped():
            if not self._subscriptions:
                time.sleep(WAIT_NS / 1e9)
                continue
            self._wait_set.clear_entities()
            places = [self._wait_set.add_subscription(s.handle) for s, _ in self._subscriptions]
            self._wait_set.wait(WAIT_NS)
            for place, (subscription, receive) in zip(places, self._subscriptions, strict=True):
                if self._wait_set.is_ready("subscription", place):
                    self._drain(subscription, receive)
            time.sleep(COALESCE_S)

    def _drain(self, subscription: Any, receive: OnMessage) -> None:
        take, msgtype = subscription.handle.take_message, subscription.msg_type
        while (taken := take(msgtype, True)) is not None:
            receive(*taken)


class SpinLoop:
    """The public way, by rclpy's SingleThreadedExecutor; the callbacks are the subscriptions' own."""

    def __init__(self, node: Any) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def replace(self, subscriptions: Sequence[tuple[Any, OnMessage]]) -> None:
        """Do nothing: the executor finds the node's subscriptions by itself."""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Take messages until told to stop."""
        while not stopped():
            self._executor.spin_once(timeout_sec=WAIT_NS / 1e9)
        self._executor.shutdown(timeout_sec=0)


def take_loop(node: Any, kind: str = "auto") -> TakeLoop:
    """Return the cheaper loop where this rclpy has what it needs (`auto`), or the kind asked for: `waitset`, `executor`."""
    if kind == "executor":
        return SpinLoop(node)
    try:
        return WaitSetLoop(node)
    except (ImportError, AttributeError):
        if kind == "waitset":
            raise
        return SpinLoop(node)
