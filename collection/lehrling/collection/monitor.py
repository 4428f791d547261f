"""What a recorder asks while it records: does every topic come, at its rate, in time, whole, and by which clock?

Plain Python without ROS. One thread may call `received` and others `check`, `lost`, `qos_mismatch` and `snapshot`. What is
judged by the second (rate, delays, clocks) is judged when a second has passed, however often `check` is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lehrling.collection.monitor_delay import AGREE, ReceiveClock
from lehrling.collection.monitor_findings import Finding, FindingLog
from lehrling.collection.monitor_limits import MonitorLimits
from lehrling.collection.monitor_rules import ROLL_NS, TopicRules, duration
from lehrling.collection.monitor_topic import expectations
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError

Clock = Callable[[], int]
Where = Literal["queue", "middleware"]


@dataclass(frozen=True)
class TopicState:
    """A topic as it stands.

    Attributes:
        rate_wanted_hz: None where the binding says none.
        rate_hz: over the last seconds.
        latency_ms: mean of receipt minus stamp in the last second, clocks included; None without stamps.
        lag_ms: how far that is above the shortest of the last minute.
        age_s: since the last message; None if there never was one.
        received, bytes: of this episode (bytes since the monitor began).
        lost_middleware: None where neither sequence numbers nor the middleware can tell.
    """

    rate_wanted_hz: float | None
    rate_hz: float
    latency_ms: float | None
    lag_ms: float | None
    age_s: float | None
    received: int
    bytes: int
    lost_queue: int
    lost_middleware: int | None


class Monitor:
    """Watches the topics that an embodiment binds, or some of them."""

    def __init__(
        self,
        embodiment: Embodiment,
        topics: Sequence[str] | None = None,
        *,
        limits: MonitorLimits | None = None,
        monotonic: Clock = time.monotonic_ns,
        realtime: Clock = time.time_ns,
    ) -> None:
        """Begin to watch; topics are named as in the binding.

        Raises:
            InputError: the embodiment binds no such topic.
        """
        self._limits, self._monotonic, self._realtime = limits or MonitorLimits(), monotonic, realtime
        wanted = expectations(embodiment, tuple(topics) if topics is not None else None)
        began_ns = monotonic()
        self._rules = {topic: TopicRules(expected, self._limits, began_ns) for topic, expected in wanted.items()}
        self._watches = {topic: rules.watch for topic, rules in self._rules.items()}
        self._log, self._clock = FindingLog(), ReceiveClock(self._limits.clock_ms, realtime() - began_ns)
        self._rolled_ns = began_ns

    def begin_episode(self) -> None:
        """Count anew and forget findings that have ended; what lasts goes on into the new episode."""
        now_ns = self._monotonic()
        for rules in self._rules.values():
            rules.begin_episode(now_ns)
        self._log.begin()

    def received(
        self,
        topic: str,
        *,
        received_ns: int,
        monotonic_ns: int,
        stamp_ns: int | None,
        sequence: int | None,
        size: int,
        digest: object = None,
    ) -> None:
        """Note a message that reached the callback, also one that the recorder's queue then refused.

        Args:
            topic: as the binding names it.
            received_ns: receipt on the realtime clock, which stamps are held against.
            monotonic_ns: receipt on the monotonic clock, by which silence and rates are judged.
            stamp_ns: of the header; None where there is none.
            sequence: publication sequence number; None where the middleware gives none, or the caller counts itself.
            size: bytes.
            digest: of an image, anything that compares equal for equal images.

        Raises:
            InputError: the topic is not watched.
        """
        watch = self._watches.get(topic)
        if watch is None:
            raise self._unknown(topic)
        watch.received(received_ns, monotonic_ns, stamp_ns, sequence, size, digest)

    def lost(self, topic: str, count: int, where: Where) -> None:
        """Note messages that the recorder's queue refused, or that the middleware says it lost.

        What sequence numbers say is not added to the middleware's own count: the larger of the two stands.
        """
        rules = self._rule(topic)
        if where == "queue":
            rules.queue += count
        else:
            rules.middleware += count

    def qos_mismatch(self, topic: str, text: str) -> None:
        """Note that a publisher's QoS does not fit, in a sentence; an empty text ends it."""
        self._rule(topic).qos = text

    def check(self, monotonic_ns: int | None = None, realtime_ns: int | None = None) -> list[Finding]:
        """Return findings that are new or have ended since the last call; call about once a second, or more often."""
        now_ns = self._monotonic() if monotonic_ns is None else monotonic_ns
        ahead_ns = (self._realtime() if realtime_ns is None else realtime_ns) - now_ns
        seen: list[Finding] = []
        if now_ns - self._rolled_ns >= ROLL_NS:
            seen += self._roll(now_ns, ahead_ns)
        for rules in self._rules.values():
            seen += rules.judge(now_ns)
        believed_ns = self._clock.ahead_ns
        return self._log.update([_on_realtime(finding, believed_ns) for finding in seen], now_ns + believed_ns)

    def _roll(self, now_ns: int, ahead_ns: int) -> list[Finding]:
        """Judge the last second; return what is to be said of this computer's clock."""
        self._rolled_ns = now_ns
        leapt_ms = self._clock.leapt_ms(ahead_ns)
        for rules in self._rules.values():
            if leapt_ms:
                rules.delay.clock_was_set()
            rules.roll(now_ns, doubtful=self._clock.doubtful)
        if not leapt_ms:
            return []
        how = f"{'forward' if leapt_ms > 0 else 'back'} by {duration(leapt_ms / 1e3)}"
        text = (
            f"This computer's clock was expected to run on, it was set {how}; receipts and stamps before and after do not fit "
            "together, so record again, and keep clocks from being set while recording (chrony without makestep)."
        )
        return [Finding("clock", "", now_ns - AGREE * ROLL_NS, now_ns, "error", text)]

    def snapshot(self) -> dict[str, TopicState]:
        """Return every topic as it stands."""
        now_ns = self._monotonic()
        return {topic: _state(rules, now_ns) for topic, rules in self._rules.items()}

    def report(self) -> list[Finding]:
        """Return the episode's findings so far, oldest first; what lasts has no end yet."""
        return self._log.all()

    def _rule(self, topic: str) -> TopicRules:
        if topic not in self._rules:
            raise self._unknown(topic)
        return self._rules[topic]

    def _unknown(self, topic: str) -> InputError:
        return InputError(f"Topic {topic!r} is not watched; watched are {', '.join(sorted(self._rules))}.")


def _on_realtime(finding: Finding, ahead_ns: int) -> Finding:
    until_ns = None if finding.until_ns is None else finding.until_ns + ahead_ns
    return replace(finding, since_ns=finding.since_ns + ahead_ns, until_ns=until_ns)


def _state(rules: TopicRules, now_ns: int) -> TopicState:
    watch, delay = rules.watch, rules.delay
    return TopicState(
        rules.expected.rate_hz,
        rules.rate.rate_hz,
        delay.latency_ms,
        delay.lag_ms,
        max(now_ns - watch.last_ns, 0) / 1e9 if watch.total else None,
        rules.received,
        watch.bytes,
        rules.queue,
        rules.lost_middleware,
    )
