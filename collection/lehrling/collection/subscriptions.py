"""The subscriptions of a capture process: serialised messages of every bound topic into the queue."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import Captured, CaptureQueue
from lehrling.collection.take_loop import OnMessage, TakeLoop
from lehrling.deploy.ros_graph import message_class, offer_of, profile
from lehrling.deploy.ros_qos import Offer, Request, mismatch, request_for

UPDATE_S, FADE_S = 0.5, 1.0
CLOCK = "/clock"


@dataclass
class Heard:
    """A bound topic: its subscription and its publishers.

    Attributes:
        offers: of the publishers that are there.
        problem: of QoS or type, as a sentence; empty where all is well.
        fading: the subscription before this one, heard until this one has found its publishers, and until when [s].
        newest: sequence numbers heard of each publisher since; what the one before heard may come from this one much later.
        made: how many subscriptions were made.
        numbered: whether the middleware gives sequence numbers.
        received_ns, monotonic_ns: receipt of the newest message, on the wall clock and on the monotonic one.
    """

    topic: str
    msgtype: str
    offers: list[Offer] = field(default_factory=list)
    request: Request | None = None
    subscription: Any = None
    problem: str = ""
    fading: tuple[Any, float] | None = None
    newest: dict[bytes, int] = field(default_factory=dict)
    made: int = 0
    numbered: bool = True
    received_ns: int = 0
    monotonic_ns: int = 0

    def again(self, sender: bytes, sequence: int) -> bool:
        """Note a message that two subscriptions may hear; return whether the other one had it."""
        if sequence <= self.newest.get(sender, 0):
            return True
        self.newest[sender] = sequence
        return False


class Subscriptions:
    """Subscribes to topics with the QoS that their publishers allow, and again when these change."""

    def __init__(
        self, node: Any, bound: BoundTopics, topics: Sequence[str], queue: CaptureQueue, *, sim_time: bool = False
    ) -> None:
        """Subscribe; every topic is heard from here on.

        Raises:
            InputError: a message type that the sourced ROS lacks.
        """
        self._node, self._bound, self._queue = node, bound, queue
        self.heard = {topic: Heard(topic, bound.types[topic]) for topic in topics}
        self.sim_ns: int | None = None
        self._sim_time = sim_time
        self._clock = self._subscribe_clock() if sim_time else None
        self._updated, self.changed = 0.0, True
        self.update(recording=False)

    def _subscribe_clock(self) -> Any:
        from rosgraph_msgs.msg import Clock

        request = Request("best_effort", "volatile", 10)
        return self._node.create_subscription(Clock, CLOCK, self._on_clock, profile(request), raw=True)

    def _on_clock(self, cdr: bytes, _info: dict[str, Any]) -> None:
        seconds, nanoseconds = struct.unpack_from("<iI", cdr, 4)
        self.sim_ns = seconds * 1_000_000_000 + nanoseconds

    def update(self, *, recording: bool) -> None:
        """Look at the graph; while recording a subscription that hears its publishers is left as it is."""
        for heard in self.heard.values():
            infos = self._node.get_publishers_info_by_topic(self._bound.names[heard.topic])
            heard.offers = [offer_of(info) for info in infos if info.topic_type == heard.msgtype]
            source = self._bound.feeds[heard.topic][0][1]
            wanted = request_for(heard.offers, source)
            if self._renew(heard, wanted, recording=recording):
                self._subscribe(heard, wanted)
            self._forget(heard)
            heard.problem = self._problem(heard, [info.topic_type for info in infos])

    @staticmethod
    def _renew(heard: Heard, wanted: Request, *, recording: bool) -> bool:
        """Whether to subscribe anew; while recording only to what would not be heard, or was latched before it was."""
        if heard.request is None:
            return True
        if wanted == heard.request or not heard.offers:
            return False
        latched = wanted.durability == "transient_local" != heard.request.durability
        return not recording or latched or not all(heard.request.heard(offer) for offer in heard.offers)

    def _problem(self, heard: Heard, types: list[str]) -> str:
        other = sorted({kind for kind in types if kind != heard.msgtype})
        if other:
            return (
                f"{heard.topic}: expected {heard.msgtype}, a publisher sends {other[0]}; correct the embodiment file "
                "or the driver."
            )
        if self._sim_time and self.sim_ns is None:
            return f"Nothing was heard on {CLOCK}, which receive times are taken from; start the simulation, or leave --sim-time."
        assert heard.request is not None
        return mismatch(heard.request, heard.offers, heard.topic)

    def _subscribe(self, heard: Heard, request: Request) -> None:
        """Subscribe; without sequence numbers the subscription before goes first, since nothing tells what both hear."""
        if heard.subscription is not None:
            self._forget(heard, at_once=True)
            heard.fading, heard.newest = (heard.subscription, time.monotonic() + FADE_S * heard.numbered), {}
            self._forget(heard)
        name = self._bound.names[heard.topic]
        kind = message_class(heard.msgtype)
        heard.made += 1
        receive = self._receiver(heard, heard.made)
        heard.subscription = self._node.create_subscription(kind, name, receive, profile(request), raw=True)
        heard.request, self.changed = request, True

    def _forget(self, heard: Heard, *, at_once: bool = False) -> None:
        """Drop the subscription before this one, once its time is over."""
        if heard.fading is not None and (at_once or time.monotonic() >= heard.fading[1]):
            self._node.destroy_subscription(heard.fading[0])
            heard.fading, self.changed = None, True

    def _receiver(self, heard: Heard, number: int) -> OnMessage:
        """Return what does the least for a topic's subscription of that number: stamps and one append.

        Receipt is when a message could be had. The middleware's own stamp is earlier where it held a message back until a lost
        one before it was sent again, or where another subscription had the one before later; then it is the receipt of that
        one. Both clocks tell of the same moment.
        An executor may still call for a subscription that was dropped; the new one has heard the same.
        """
        put, monotonic, realtime, topic = self._queue.put, time.monotonic_ns, time.time_ns, heard.topic

        def receive(cdr: bytes, info: dict[str, Any]) -> None:
            if number < heard.made and heard.fading is None:
                return
            now, received = monotonic(), self.sim_ns
            if received is None:
                if self._sim_time:
                    return
                wall = realtime()
                received = info["received_timestamp"] or wall
                if received < heard.received_ns <= wall:
                    received = heard.received_ns
                now = max(now - max(wall - received, 0), heard.monotonic_ns)
            gid, sequence = info.get("publisher_gid"), info.get("publication_sequence_number")
            sender = gid["data"] if gid else b""
            if sequence is None:
                heard.numbered = False
            elif heard.made > 1 and heard.again(sender, sequence):
                return
            heard.received_ns, heard.monotonic_ns = received, now
            put(Captured(topic, cdr, received, now, info["source_timestamp"] or None, sequence, sender))

        return receive

    def pairs(self) -> list[tuple[Any, OnMessage]]:
        """Return the subscriptions with their callbacks, for a `TakeLoop`."""
        made = [(h.fading[0], self._receiver(h, h.made - 1)) for h in self.heard.values() if h.fading is not None]
        made += [(h.subscription, self._receiver(h, h.made)) for h in self.heard.values() if h.subscription is not None]
        return [*made, (self._clock, self._on_clock)] if self._clock is not None else made

    def run(self, loop: TakeLoop, stopped: Callable[[], bool], recording: Callable[[], bool]) -> None:
        """Take messages until told to stop, looking at the graph twice a second."""

        def ended() -> bool:
            now = time.monotonic()
            if now - self._updated >= UPDATE_S:
                self._updated = now
                self.update(recording=recording())
            if self.changed:
                loop.replace(self.pairs())
                self.changed = False
            return stopped()

        loop.run(ended)
