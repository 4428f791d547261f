"""Made-up traffic for the monitor: a robot's topics, a clock that the test turns, and faults at chosen times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lehrling.collection.monitor import Monitor
from lehrling.collection.monitor_findings import Finding
from lehrling.datasets.embodiment import Embodiment, load_embodiment

S = 1_000_000_000
MONOTONIC_NS, REALTIME_NS = 50 * S, 1_700_000_000 * S
JOINTS, FRONT, WRIST, SPEECH = "/joint_states", "/front/image_raw/compressed", "/wrist/image_raw/compressed", "/speech"


def robot(**changes: object) -> Embodiment:
    """Return arm6 with other words in the front camera's source."""
    arm = load_embodiment("arm6")
    front = arm.binding.sources["front"][0].model_copy(update=changes)
    sources = {**arm.binding.sources, "front": (front,)}
    return arm.model_copy(update={"binding": arm.binding.model_copy(update={"sources": sources})})


@dataclass(frozen=True)
class Message:
    """What the recorder tells of a message; times in seconds from the beginning, the sender's clock on time."""

    topic: str
    received_s: float
    stamp_s: float | None
    sequence: int | None = None
    digest: int | None = None


@dataclass
class Bench:
    """A monitor and its clocks.

    Attributes:
        clock_set: when realtime is set [s], and by how much.
        torn_s: by how much the clocks are read apart in a check at that time.
    """

    monitor: Monitor = field(init=False)
    embodiment: Embodiment = field(default_factory=lambda: load_embodiment("arm6"))
    topics: tuple[str, ...] = (FRONT,)
    now_s: float = 0.0
    clock_set: tuple[float, float] = (1e9, 0.0)
    torn_s: dict[float, float] = field(default_factory=dict)
    told: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.monitor = Monitor(
            self.embodiment,
            self.topics,
            monotonic=lambda: MONOTONIC_NS + round(self.now_s * S),
            realtime=lambda: self.realtime_ns(self.now_s) + round(self.torn_s.get(self.now_s, 0.0) * S),
        )

    def realtime_ns(self, at_s: float) -> int:
        """Return the recorder's realtime clock, which is set by some seconds at some time."""
        when, by = self.clock_set
        return REALTIME_NS + round((at_s + (by if at_s >= when else 0.0)) * S)

    def play(
        self,
        messages: list[Message],
        until_s: float,
        every_s: float = 1.0,
        before: Callable[[float], None] | None = None,
    ) -> list[Finding]:
        """Hand over messages in order of receipt and check; return what was told."""
        told, waiting, at = [], sorted(messages, key=lambda message: message.received_s), 0
        while self.now_s < until_s - 1e-9:
            self.now_s = round(self.now_s + every_s, 6)
            while at < len(waiting) and waiting[at].received_s <= self.now_s:
                self.hand_over(waiting[at])
                at += 1
            if before is not None:
                before(self.now_s)
            told += self.monitor.check()
        self.told += told
        return told

    def hand_over(self, message: Message) -> None:
        received = round(message.received_s * S)
        stamp = None if message.stamp_s is None else REALTIME_NS + round(message.stamp_s * S)
        self.monitor.received(
            message.topic,
            received_ns=self.realtime_ns(message.received_s),
            monotonic_ns=MONOTONIC_NS + received,
            stamp_ns=stamp,
            sequence=message.sequence,
            size=1000,
            digest=message.digest,
        )


def regular(
    topic: str = FRONT,
    rate_hz: float = 10.0,
    seconds: float = 20.0,
    *,
    latency_s: float = 0.03,
    seed: int = 0,
    begin_s: float = 0.0,
) -> list[Message]:
    """Return regular traffic with a little jitter, numbered, each picture another."""
    rng = np.random.default_rng(seed)
    times = begin_s + np.arange(round(rate_hz * seconds)) / rate_hz
    late = latency_s + rng.exponential(latency_s / 5 + 1e-4, len(times))
    return [Message(topic, float(t + d), float(t), k, k) for k, (t, d) in enumerate(zip(times, late, strict=True))]


def changed(messages: list[Message], since_s: float, change: Callable[[Message], Message | None]) -> list[Message]:
    """Return the messages with those stamped from `since_s` on changed, or left out."""
    return list(_changed(messages, since_s, change))


def _changed(messages: list[Message], since_s: float, change: Callable[[Message], Message | None]) -> Iterator[Message]:
    for message in messages:
        after = change(message) if (message.stamp_s or 0.0) >= since_s else message
        if after is not None:
            yield after


def later(message: Message, seconds: float) -> Message:
    """Return the message received later."""
    return replace(message, received_s=message.received_s + seconds)


def silent(messages: list[Message], since_s: float, until_s: float) -> list[Message]:
    """Return the messages of a sender that sends nothing for a while, and uses up no numbers."""
    kept = [m for m in messages if not since_s <= (m.stamp_s or 0.0) < until_s]
    return [replace(message, sequence=k) for k, message in enumerate(kept)]
