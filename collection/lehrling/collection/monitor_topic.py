"""What a monitor notes of one topic, message by message; plain Python, about a microsecond a call."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.datasets.embodiment import IMAGE_KINDS, Embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.sequences import SequenceCounter, plausible

FAR_NS = 1 << 62


@dataclass(frozen=True)
class Expected:
    """What the binding says of a topic: rate (None: not said), known latency, and whether it carries images."""

    topic: str
    rate_hz: float | None
    latency_ms: float
    images: bool

    @property
    def period_s(self) -> float:
        """The time between two messages; 0 where no rate is said."""
        return 1 / self.rate_hz if self.rate_hz else 0.0


def expectations(embodiment: Embodiment, topics: tuple[str, ...] | None = None) -> dict[str, Expected]:
    """Return what is expected of each bound topic, or of some of them; of several sources of a topic the highest rate.

    Raises:
        InputError: the embodiment binds no such topic.
    """
    images = {stream.name for stream in embodiment.contract.all_streams if stream.kind in IMAGE_KINDS}
    found: dict[str, Expected] = {}
    for name, sources in embodiment.binding.sources.items():
        for source in sources:
            before = found.get(source.topic, Expected(source.topic, None, source.latency_ms, images=False))
            rates = [rate for rate in (before.rate_hz, source.rate_hz) if rate is not None]
            latency_ms = max(before.latency_ms, source.latency_ms)
            found[source.topic] = Expected(
                source.topic, max(rates, default=None), latency_ms, before.images or name in images
            )
    if topics is None:
        return found
    if unknown := [topic for topic in topics if topic not in found]:
        raise InputError(f"The embodiment binds no topic {unknown[0]!r}; it binds {', '.join(sorted(found))}.")
    return {topic: found[topic] for topic in topics}


class Window:
    """Messages of about a second: count, and receipt minus stamp against `TopicWatch.base_ns` [ns]."""

    __slots__ = ("count", "delay_max", "delay_min", "delay_sum", "stamped")

    def __init__(self) -> None:
        self.count = self.stamped = self.delay_sum = 0
        self.delay_min, self.delay_max = FAR_NS, -FAR_NS


@dataclass(frozen=True)
class Freeze:
    """A run of equal frames on the monotonic clock [ns]; `until_ns` is None while it goes on."""

    since_ns: int
    until_ns: int | None
    frames: int


class TopicWatch:
    """Counts and extremes of one topic; written by the thread that receives, read by the one that checks.

    Attributes:
        gap_ns, gap_end_ns: longest time between two messages since the last check, and when it ended.
        freeze: longest run of equal frames that ended since the last check and was long enough to matter.
        base_ns: receipt minus stamp of the first stamped message, against which windows count.
        broken_ns: when their numbers last were not those of one publisher that ran through; 0: never.
    """

    __slots__ = (
        "_digest", "_frames", "_frozen_frames", "_frozen_ns", "_rate_hz", "_same_ns", "base_ns", "broken_ns", "bytes",
        "counter", "expected", "first_ns", "freeze", "gap_end_ns", "gap_ns", "last_ns", "total", "window",
    )  # fmt: skip

    def __init__(self, expected: Expected, frozen_frames: int, frozen_s: float) -> None:
        self.expected = expected
        self._frozen_frames, self._frozen_ns = frozen_frames, int(frozen_s * 1e9)
        self._rate_hz = expected.rate_hz
        self.window, self.counter = Window(), SequenceCounter()
        self.total = self.bytes = self.first_ns = self.last_ns = self.gap_ns = self.gap_end_ns = 0
        self.base_ns: int | None = None
        self.broken_ns = 0
        self.freeze: Freeze | None = None
        self._digest: object = None
        self._frames = self._same_ns = 0

    def received(
        self,
        received_ns: int,
        monotonic_ns: int,
        stamp_ns: int | None,
        sequence: int | None,
        size: int,
        digest: object,
    ) -> None:
        """Note one message."""
        window, gap = self.window, monotonic_ns - self.last_ns
        window.count += 1
        self.total += 1
        self.bytes += size
        if gap > self.gap_ns:
            self._longest(gap, monotonic_ns)
        if stamp_ns is not None:
            self._delayed(window, received_ns - stamp_ns)
        if sequence is not None:
            counter = self.counter
            if sequence == counter.newest + 1:
                counter.newest = sequence
            elif sequence >= 0:
                self._leap(sequence, gap, monotonic_ns)
        if digest is not None:
            if digest == self._digest:
                self._frames += 1
            else:
                self._changed(digest, monotonic_ns)
        self.last_ns = monotonic_ns

    def _delayed(self, window: Window, delay_ns: int) -> None:
        if self.base_ns is None:
            self.base_ns = delay_ns
        delay_ns -= self.base_ns
        window.stamped += 1
        window.delay_sum += delay_ns
        if delay_ns < window.delay_min:
            window.delay_min = delay_ns
        if delay_ns > window.delay_max:
            window.delay_max = delay_ns

    def _longest(self, gap_ns: int, monotonic_ns: int) -> None:
        if self.first_ns == 0:
            self.first_ns = monotonic_ns
        else:
            self.gap_ns, self.gap_end_ns = gap_ns, monotonic_ns

    def _leap(self, sequence: int, gap_ns: int, monotonic_ns: int) -> None:
        if self.counter.take(sequence, plausible(gap_ns, self._rate_hz)) == "broken":
            self.broken_ns = monotonic_ns

    def _changed(self, digest: object, monotonic_ns: int) -> None:
        run = self.frozen()
        if run is not None:
            self.freeze = Freeze(run.since_ns, monotonic_ns, run.frames)
        self._digest, self._frames, self._same_ns = digest, 1, monotonic_ns

    def frozen(self) -> Freeze | None:
        """Return the run of equal frames that goes on, if it is long enough to matter."""
        lasted = self.last_ns - self._same_ns
        if self._frames >= self._frozen_frames or (self._frames > 1 and lasted >= self._frozen_ns):
            return Freeze(self._same_ns, None, self._frames)
        return None

    @property
    def numbered(self) -> bool:
        """Whether messages carry sequence numbers."""
        return self.counter.newest >= 0

    def take_gap(self) -> tuple[int, int]:
        """Return the longest gap since the last call and when it ended [ns]."""
        gap, self.gap_ns = (self.gap_ns, self.gap_end_ns), 0
        return gap

    def take_freeze(self) -> Freeze | None:
        """Return the run of equal frames that ended since the last call."""
        run, self.freeze = self.freeze, None
        return run

    def take_window(self) -> Window:
        """Return the messages since the last call."""
        window, self.window = self.window, Window()
        return window
