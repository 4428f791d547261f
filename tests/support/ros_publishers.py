"""ROS 2 publishers in a process of their own: they send CDR bytes that a test made, one by one or at a rate."""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

ANSWER_S = 60.0


def own_domain() -> None:
    """Let this process and those that it starts hear nobody else."""
    os.environ["ROS_DOMAIN_ID"] = str(random.SystemRandom().randint(1, 101))
    os.environ["ROS_LOCALHOST_ONLY"] = "1"


class Publishers:
    """The test's end: each call is done when it returns."""

    def __init__(self) -> None:
        context = mp.get_context("spawn")
        self._connection, its = context.Pipe()
        self.process = context.Process(target=_serve, args=(its,), daemon=True)
        self.process.start()
        its.close()
        self.sent: dict[str, list[bytes]] = {}

    def _ask(self, *words: Any) -> Any:
        self._connection.send(words)
        if not self._connection.poll(ANSWER_S):
            raise TimeoutError(f"the publishers did not answer to {words[0]}")
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def open(
        self, name: str, topic: str, msgtype: str, *, reliable: bool = True, latched: bool = False, depth: int = 1000
    ) -> None:
        """Make a publisher."""
        self.sent[name] = []
        self._ask("open", name, topic, msgtype, reliable, latched, depth)

    def wait(self, *names: str, subscribers: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until each publisher has as many subscribers."""
        until = time.monotonic() + timeout_s
        while min(self._ask("count", name) for name in names) < subscribers:
            if time.monotonic() > until:
                raise TimeoutError(f"{names} have no {subscribers} subscribers")
            time.sleep(0.02)

    def send(self, name: str, *messages: bytes, interval_s: float = 0.001) -> None:
        """Publish messages in turn."""
        self._ask("send", name, list(messages), interval_s)
        self.sent[name] += messages

    def pump(self, name: str, make: Callable[[int], bytes], rate_hz: float) -> None:
        """Publish `make(0)`, `make(1)`, … at a rate until told to rest."""
        self._ask("pump", name, make, rate_hz)

    def rest(self, *names: str) -> dict[str, int]:
        """Stop pumping by these publishers, or all; return how many messages each has pumped since it began."""
        return dict(self._ask("rest", names))

    def pumped_by(self, name: str, at_s: float) -> int:
        """Return how many messages a pumping publisher had sent by a moment of the last seconds, on the monotonic clock."""
        return int(self._ask("pumped_by", name, at_s))

    def close(self, name: str) -> None:
        """Destroy a publisher, once what it sent was received."""
        self._ask("close", name)

    def quit(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._connection.send(("quit",))
        self.process.join(10)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


@contextmanager
def publishers() -> Iterator[Publishers]:
    """Yield publishers of a process that ends with the block."""
    made = Publishers()
    try:
        yield made
    finally:
        made.quit()


@dataclass
class _Pump:
    make: Callable[[int], bytes]
    period_s: float
    due: float
    count: int = 0
    newest: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=3000))


@dataclass
class _Served:
    node: Any
    publishers: dict[str, Any] = field(default_factory=dict)
    pumps: dict[str, _Pump] = field(default_factory=dict)
    resting: dict[str, int] = field(default_factory=dict)

    def answer(self, word: str, *rest: Any) -> Any:
        return getattr(self, f"on_{word}")(*rest)

    def on_open(self, name: str, topic: str, msgtype: str, reliable: bool, latched: bool, depth: int) -> None:
        from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

        from lehrling.deploy.ros_graph import message_class

        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self.publishers[name] = self.node.create_publisher(message_class(msgtype), topic, profile)

    def on_count(self, name: str) -> int:
        return int(self.publishers[name].get_subscription_count())

    def on_send(self, name: str, messages: Sequence[bytes], interval_s: float) -> None:
        for message in messages:
            self.publishers[name].publish(message)
            time.sleep(interval_s)

    def on_pump(self, name: str, make: Callable[[int], bytes], rate_hz: float) -> None:
        self.pumps[name] = _Pump(make, 1 / rate_hz, time.monotonic())

    def on_rest(self, names: Sequence[str]) -> dict[str, int]:
        chosen = names or list(self.pumps)
        return {name: self.pumps.pop(name).count for name in chosen if name in self.pumps}

    def on_pumped_by(self, name: str, at_s: float) -> int:
        return max((count for sent_s, count in self.pumps[name].newest if sent_s <= at_s), default=0)

    def on_close(self, name: str) -> None:
        self.pumps.pop(name, None)
        from rclpy.duration import Duration

        publisher = self.publishers.pop(name)
        publisher.wait_for_all_acked(Duration(seconds=5))
        self.node.destroy_publisher(publisher)

    def pump(self) -> float:
        """Publish what is due; return how long to wait [s]."""
        now = time.monotonic()
        for name, pump in self.pumps.items():
            if now >= pump.due:
                self.publishers[name].publish(pump.make(pump.count))
                pump.count += 1
                pump.newest.append((time.monotonic(), pump.count))
                pump.due = max(pump.due + pump.period_s, now - 1.0)
        return max(0.0, min((pump.due for pump in self.pumps.values()), default=now + 0.1) - time.monotonic())


def _serve(connection: Connection) -> None:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    served = _Served(rclpy.create_node(f"test_publishers_{os.getpid()}"))
    while True:
        if connection.poll(served.pump()):
            try:
                word, *rest = connection.recv()
            except EOFError:
                break
            if word == "quit":
                break
            try:
                connection.send(served.answer(word, *rest))
            except Exception as error:  # noqa: BLE001 — the test raises it
                connection.send(RuntimeError(repr(error)))
    served.node.destroy_node()
    rclpy.try_shutdown()
