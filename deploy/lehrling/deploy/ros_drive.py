"""What drives a robot in ROS 2: hears its topics, publishes commands, keeps the control loop's time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from lehrling.datasets.embodiment import Source
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_link import Outgoing
from lehrling.deploy.ros_graph import message_class, offer_of, profile
from lehrling.deploy.ros_qos import Request, request_for

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = Request("reliable", "volatile", 10)
JOY = "sensor_msgs/msg/Joy"
GRAPH_S = 0.5


class Link(Protocol):
    """What stands between a robot's topics and what drives it, as a `GuardLink` does."""

    @property
    def heard(self) -> Mapping[str, str]:
        """Topics to subscribe to -> message type."""
        ...

    @property
    def told(self) -> Mapping[str, str]:
        """Topics to publish on -> message type."""
        ...

    def hear(self, topic: str, cdr: bytes, now_ns: int, wall_ns: int) -> object:
        """Take a message that came at a monotonic and a wall-clock time."""
        ...


class Drive:
    """Hears and publishes for a link; use it in one thread.

    Subscriptions ask for what the publishers offer, and again when others come. Times are the monotonic clock's.
    """

    def __init__(self, node: Any, link: Link, extra: dict[str, str] | None = None) -> None:
        """Subscribe to what the link hears, and make its publishers.

        Args:
            node: of rclpy.
            link: to the guard, or what holds it.
            extra: further topics to publish on -> message type.

        Raises:
            InputError: a message type that the sourced ROS lacks.
        """
        self._node, self._link = node, link
        self._requests: dict[str, Request] = {}
        self._subscriptions: dict[str, Any] = {}
        self._publishers = {
            topic: node.create_publisher(message_class(kind), topic, profile(COMMANDS))
            for topic, kind in {**(extra or {}), **link.told}.items()
        }
        self.look()

    def look(self) -> None:
        """Look at who publishes, and subscribe anew where that changed what can be asked for."""
        for topic, kind in self._link.heard.items():
            offers = [offer_of(info) for info in self._node.get_publishers_info_by_topic(topic)]
            request = request_for(offers, Source(topic=topic, type=kind))
            if topic in self._requests and (request == self._requests[topic] or not offers):
                continue
            if topic in self._subscriptions:
                self._node.destroy_subscription(self._subscriptions[topic])
            hear = self._hearing(topic)
            self._subscriptions[topic] = self._node.create_subscription(
                message_class(kind), topic, hear, profile(request), raw=True
            )
            self._requests[topic] = request

    def _hearing(self, topic: str) -> Callable[[bytes], None]:
        def hear(cdr: bytes) -> None:
            self._link.hear(topic, cdr, time.monotonic_ns(), time.time_ns())

        return hear

    def listen_to_joy(self, topic: str, take: Callable[[bytes, int], object]) -> None:
        """Hand a joystick's messages on."""

        def hear(cdr: bytes) -> None:
            take(cdr, time.monotonic_ns())

        kind = message_class(JOY)
        loose = profile(Request("best_effort", "volatile", 5))
        self._subscriptions[topic] = self._node.create_subscription(kind, topic, hear, loose, raw=True)

    def publish(self, outgoing: Iterable[Outgoing]) -> None:
        """Publish messages as they are."""
        for message in outgoing:
            self._publishers[message.topic].publish(message.cdr)

    @property
    def heard_by(self) -> dict[str, int]:
        """How many subscribers each command topic has."""
        return {topic: self._publishers[topic].get_subscription_count() for topic in self._link.told}


def control_loop(executor: Any, drive: Drive, period_ns: int, tick: Callable[[int], bool]) -> None:
    """Call `tick` at the control rate, and callbacks in between, until it returns False.

    Ticks are due at fixed times from the start, so that their rate does not drift; a late one is made at once, after one
    callback, and those that were missed are left out.
    """
    due_ns = time.monotonic_ns()
    looked_s = time.monotonic()
    while True:
        executor.spin_once(timeout_sec=0)
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            executor.spin_once(timeout_sec=left_ns / 1e9)
        now_ns = time.monotonic_ns()
        if not tick(now_ns):
            return
        due_ns = max(due_ns + period_ns, now_ns - period_ns)
        if time.monotonic() - looked_s > GRAPH_S:
            looked_s = time.monotonic()
            drive.look()


def ros_ready() -> None:
    """Make sure that ROS 2 can be used.

    Raises:
        InputError: it cannot; the message says what to install.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"Expected ROS 2 for Python, but rclpy cannot be imported ({error}). Source a ROS 2 installation, or install "
            "lehrling-collection[ros-wheels]."
        ) from error


@contextmanager
def ros(name: str, arguments: Sequence[str] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield a node and its executor.

    Raises:
        InputError: ROS 2 cannot be used here.
    """
    ros_ready()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(args=list(arguments), context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        context.try_shutdown()
