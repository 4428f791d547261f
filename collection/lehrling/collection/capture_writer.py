"""The writing half of a capture process: takes from the queue, watches, and writes episodes."""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.capture_queue import Captured, CaptureQueue, Item, Lost, Mark
from lehrling.collection.capture_words import (
    LAG_PROMISED_MS,
    Answer,
    Begin,
    Begun,
    CaptureConfig,
    End,
    Ended,
    Failed,
    Late,
    Status,
    Stop,
    TopicFacts,
)
from lehrling.collection.episode_part import EpisodePart
from lehrling.collection.monitor import Monitor, Where
from lehrling.collection.sequences import SequenceCount
from lehrling.collection.subscriptions import Heard
from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment
from lehrling.datasets.errors import LehrlingError
from lehrling.datasets.message_types import Types
from lehrling.datasets.messages import header_stamp

STATUS_S = 0.2
WATCH_S, LATE_S = 0.01, 0.1
"""How often the lag is looked at, and told while it is too large."""
SETTLE_S = 0.05
"""Time for what was published before an episode's end to arrive and be taken from the middleware."""
STOOD_S, REPAIR_S = 0.5, 3.5
"""After a process stood still so long, what it missed may have to be sent again: publishers ask for that every 3 s."""
DIGEST_BYTES = 32 << 10
FINDINGS_MAX = 1000
"""Kept while the recorder does not listen."""
LATCHED_MAX = 16
"""Latched messages kept per topic: `/tf_static` has one per broadcaster."""


class CaptureWriter(threading.Thread):
    """Handles what was received, in order; one episode after another."""

    def __init__(
        self,
        config: CaptureConfig,
        embodiment: Embodiment,
        types: Types,
        queue: CaptureQueue,
        heard: Mapping[str, Heard],
        answer: Callable[[Answer], bool],
    ) -> None:
        super().__init__(name="capture-writer", daemon=True)
        self._config, self._embodiment, self._types = config, embodiment, types
        self._bound, self._queue, self._heard, self._answer = BoundTopics(embodiment), queue, heard, answer
        self._monitor, self._sequences = Monitor(embodiment, config.topics), SequenceCount()
        self._stamped = {topic: types.has_header(self._bound.types[topic]) for topic in config.topics}
        self._images = {
            topic for topic in config.topics if any(s.kind in IMAGE_KINDS for s, _ in self._bound.feeds[topic])
        }
        self._latched: dict[str, dict[bytes, Captured]] = {}
        self._part: EpisodePart | None = None
        self._until: End | None = None
        self._received_ns = self._taking_ns = 0
        self._lost: dict[str, int] = {}
        self._told_lost: dict[tuple[str, Where], int] = {}
        self._findings: deque[dict[str, object]] = deque(maxlen=FINDINGS_MAX)
        self._lag_max_ns = 0
        self._told, self._stood = 0.0, -REPAIR_S
        self._quit = threading.Event()

    @property
    def recording(self) -> bool:
        """Whether an episode is being written."""
        return self._part is not None

    @property
    def settle_s(self) -> float:
        """How long what was published until now may take to arrive."""
        return max(SETTLE_S, self._stood + REPAIR_S - time.monotonic())

    def quit(self) -> None:
        """End the thread; an episode that is open is left as a crash would leave it."""
        self._quit.set()

    def end_at(self, word: End) -> None:
        """Take nothing into the episode that was received and published later than this."""
        self._until = word

    def lag_ns(self) -> int:
        """Return how old the oldest message is that a kill would cost: queued, in hand, or not flushed."""
        part, now = self._part, time.monotonic_ns()
        since = [self._taking_ns, part.unflushed_ns if part is not None else 0]
        return max(self._queue.lag_ns(), *(now - ns if ns else 0 for ns in since))

    def _watch_lag(self) -> None:
        """Tell a lag that is too large at once, also while the writer waits for a disk."""
        told, before = 0.0, time.monotonic()
        while not self._quit.wait(WATCH_S):
            lag = self.lag_ns()
            self._lag_max_ns = max(self._lag_max_ns, lag)
            now = time.monotonic()
            if now - before > STOOD_S:
                self._stood = now
            before = now
            if self._part is not None and lag / 1e6 > LAG_PROMISED_MS and now - told >= LATE_S:
                self._answer(Late(self._config.name, round(lag / 1e6, 1)))
                told = now

    def run(self) -> None:
        """Handle items until told to quit; whatever goes wrong is told, never silent."""
        threading.Thread(target=self._watch_lag, name="capture-lag", daemon=True).start()
        while not self._quit.is_set():
            item = self._queue.take(0.02)
            try:
                self._handle(item)
                if time.monotonic() - self._told >= STATUS_S:
                    self._tell()
            except Exception as error:  # noqa: BLE001 — a thread that dies silently would record nothing
                self._fail(error)
        if self._part is not None:
            self._part.abandon()

    def _handle(self, item: Item | None) -> None:
        if isinstance(item, Captured):
            self._take(item)
        elif isinstance(item, Lost):
            self._note_lost(item)
        elif isinstance(item, Mark):
            self._obey(item.word)

    def _fail(self, error: Exception) -> None:
        kind = "" if isinstance(error, LehrlingError) else f"{type(error).__name__}: "
        text = f"{kind}{error}"
        if self._part is None:
            self._answer(Failed(self._config.name, text))
        elif self._part.stop is None:
            self._part.stop = Stop("recorder failed", f"Writing failed: {text}.")

    def _take(self, message: Captured) -> None:
        self._taking_ns, self._received_ns = message.monotonic_ns, message.received_ns
        try:
            self._take_one(message)
        finally:
            self._taking_ns = 0

    def _take_one(self, message: Captured) -> None:
        topic = message.topic
        request = self._heard[topic].request
        latched = request is not None and request.durability == "transient_local"
        if not latched or self._keep_latched(message):
            self._sequences.received(topic, message.sender, message.sequence)
            if self._part is not None and self._in_time(message):
                self._part.take(message)
            self._watch(message)

    def _in_time(self, message: Captured) -> bool:
        """Whether a message belongs to the episode that ends: what was published before is taken a moment later."""
        until = self._until
        if until is None or message.monotonic_ns <= until.monotonic_ns:
            return True
        return message.publish_ns is not None and message.publish_ns <= until.realtime_ns

    def _note_lost(self, lost: Lost) -> None:
        for (topic, sender), refused in lost.by_sender.items():
            self._sequences.refused(topic, sender, refused.count, refused.first, refused.newest)
            if self._until is None or lost.monotonic_ns <= self._until.monotonic_ns:
                self._lost[topic] = self._lost.get(topic, 0) + refused.count

    def _watch(self, message: Captured) -> None:
        cdr, stamp, digest = message.cdr, None, None
        if self._stamped[message.topic] and len(cdr) >= 12 and not self._config.sim_time:
            stamp = header_stamp(cdr)
        if message.topic in self._images:
            middle = len(cdr) // 2
            digest = zlib.crc32(memoryview(cdr)[middle : middle + DIGEST_BYTES])
        self._monitor.received(
            message.topic,
            received_ns=message.received_ns,
            monotonic_ns=message.monotonic_ns,
            stamp_ns=stamp,
            sequence=None,
            size=len(cdr),
            digest=digest,
        )

    def _keep_latched(self, message: Captured) -> bool:
        """Keep a topic's newest message; return whether the episode lacks it.

        A new subscription hears again what the one before it heard. That one may have asked for nothing that is latched, so
        that what it heard was not kept. It also hears what was published before that, which the topic no longer holds: taken,
        it would stand behind what followed it.
        """
        known, sender = self._latched.setdefault(message.topic, {}), message.sender
        newest = self._sequences.newest(message.topic, sender)
        if message.sequence is not None and message.sequence < newest + (sender in known):
            return False
        if sender not in known and len(known) >= LATCHED_MAX:
            known.pop(next(iter(known)))
        known[sender] = message
        return not self._sequences.counted(message.topic, sender, message.sequence)

    def _obey(self, word: object) -> None:
        if isinstance(word, Begin):
            self._begin(word)
        elif isinstance(word, End):
            self._end(word)

    def _begin(self, word: Begin) -> None:
        config = self._config
        self._part = EpisodePart(
            word.directory, self._embodiment, self._bound, self._types, config.flush_s, config.fsync_s
        )
        self._until, self._lag_max_ns = None, 0
        self._sequences.begin()
        self._monitor.begin_episode()
        self._lost, self._told_lost = {}, {}
        self._write_latched(self._part)
        self._answer(Begun(config.name, word.directory))

    def _write_latched(self, part: EpisodePart) -> None:
        """Give an episode what its topics hold; it has them from its beginning, whenever they were published."""
        monotonic = time.monotonic_ns()
        received = self._received_ns if self._config.sim_time else time.time_ns()
        for messages in self._latched.values():
            for message in sorted(messages.values(), key=lambda m: m.monotonic_ns):
                part.take(replace(message, received_ns=received, monotonic_ns=monotonic))

    def _end(self, word: End) -> None:
        part, self._part = self._part, None
        if part is None:
            self._answer(Ended(self._config.name, word.directory, {}, {}, {}, 0.0))
            return
        if not word.keep:
            part.abandon()
        counts = part.finish() if word.keep else {}
        self._check()
        self._answer(
            Ended(
                self._config.name,
                word.directory,
                counts,
                {topic: self._queue_lost(topic) for topic in self._config.topics},
                {topic: self._sequences.lost(topic) for topic in self._config.topics},
                round(self._lag_max_ns / 1e6, 1),
                tuple(finding.to_json() for finding in self._monitor.report()),
                part.stop,
                part.passed_over,
            )
        )

    def _queue_lost(self, topic: str) -> int:
        return self._lost.get(topic, 0)

    def _check(self) -> None:
        """Note the findings that are new or have ended."""
        for topic in self._config.topics:
            self._tell_lost(topic, "queue", self._queue_lost(topic))
            self._tell_lost(topic, "middleware", self._sequences.lost(topic) or 0)
            self._monitor.qos_mismatch(topic, self._heard[topic].problem)
        self._findings += (finding.to_json() for finding in self._monitor.check(time.monotonic_ns(), time.time_ns()))

    def _tell_lost(self, topic: str, where: Where, lost: int) -> None:
        more = lost - self._told_lost.get((topic, where), 0)
        if more > 0:
            self._monitor.lost(topic, more, where)
            self._told_lost[topic, where] = lost

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._check()
        part, findings = self._part, tuple(self._findings)
        topics = {topic: self._facts(topic) for topic in self._config.topics}
        lag = round(self.lag_ns() / 1e6, 1)
        status = Status(
            self._config.name,
            part is not None,
            lag,
            self._queue.bytes,
            topics,
            findings,
            part.stop if part is not None else None,
        )
        if self._answer(status):
            self._findings.clear()

    def _facts(self, topic: str) -> TopicFacts:
        state, heard = self._monitor.snapshot()[topic], self._heard[topic]
        asked = heard.request
        return TopicFacts(
            self._bound.feeds[topic][0][1].rate_hz,
            state.rate_hz,
            state.latency_ms,
            state.age_s,
            self._part.counts.get(topic, 0) if self._part is not None else 0,
            self._queue_lost(topic),
            self._sequences.lost(topic),
            sum(asked.heard(offer) for offer in heard.offers) if asked is not None else 0,
            f"{asked.reliability}, {asked.durability}" if asked is not None else "",
            heard.problem,
        )
