"""What a monitor says of one topic: each rule in its own words."""

from __future__ import annotations

from collections.abc import Iterator

from lehrling.collection.monitor_delay import DelayJudge
from lehrling.collection.monitor_findings import Finding, Kind, Severity
from lehrling.collection.monitor_limits import MonitorLimits
from lehrling.collection.monitor_rate import RateJudge
from lehrling.collection.monitor_topic import Expected, Freeze, TopicWatch

ROLL_NS = 1_000_000_000
HALF = 0.5
UNRATED_STALE = 10


def duration(seconds: float) -> str:
    """Return a time in words: 45 ms, 1.2 s, 3 min, 56 years."""
    size = abs(seconds)
    for below, unit, scale in ((1, "ms", 1e-3), (120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if size < below:
            return f"{size / scale:.3g} {unit}"
    days = size / 86_400
    return f"{days:.3g} days" if days < 730 else f"{days / 365.25:.3g} years"


class TopicRules:
    """Judges one topic: what it had, and what the recorder told of it.

    Attributes:
        queue, middleware: messages lost in this episode, as told; what numbers say of the middleware is in `watch`.
        qos: what is said of a QoS mismatch; "" where there is none.
    """

    def __init__(self, expected: Expected, limits: MonitorLimits, began_ns: int) -> None:
        self.expected, self._limits = expected, limits
        self.watch = TopicWatch(expected, limits.frozen_frames, limits.frozen_s)
        self.rate, self.delay = RateJudge(limits, expected), DelayJudge(limits, expected.latency_ms)
        self.queue = self.middleware = 0
        self.qos = ""
        self._began_ns = began_ns
        self._received_before = self._missing_before = 0
        self._broken_before = began_ns
        self._unsettled = self._settled = self._lost_told = 0
        self._lost_ns: int | None = None
        self._qos_ns = self._leapt_ns = 0
        self._leaps = ""

    def begin_episode(self, now_ns: int) -> None:
        """Count anew."""
        self.queue = self.middleware = self._unsettled = self._settled = self._lost_told = 0
        self._lost_ns = None
        self._received_before, self._missing_before = self.watch.total, self.watch.counter.missing
        self._broken_before = now_ns

    @property
    def received(self) -> int:
        """Messages of this episode."""
        return self.watch.total - self._received_before

    @property
    def broken(self) -> bool:
        """Whether sequence numbers were not one publisher's at some time of this episode."""
        return self.watch.broken_ns > self._broken_before

    @property
    def lost_middleware(self) -> int | None:
        """Messages lost before they came here, None where neither numbers nor the middleware can tell."""
        if self.broken:
            return None
        if self.watch.numbered:
            return max(self.watch.counter.missing - self._missing_before, self.middleware, 0)
        return self.middleware or None

    def roll(self, now_ns: int, *, doubtful: bool) -> None:
        """Take a second's messages; their delays say nothing while this computer's clock is `doubtful`.

        A message may still come that others overtook: what is missing is lost only if it is so a second later.
        """
        missing = self.lost_middleware or 0
        self._unsettled, self._settled = missing, min(missing, self._unsettled)
        self.rate.take(self.watch, now_ns)
        window = self.watch.take_window()
        if not doubtful:
            self.delay.take(self.watch, window)
        if self.delay.leapt_ms:
            self._leapt_ns = now_ns - 3 * ROLL_NS

    def judge(self, now_ns: int) -> Iterator[Finding]:
        """Yield all that is wrong, on the monotonic clock."""
        gap_ns, gap_end_ns = self.watch.take_gap()
        if not self.watch.total:
            yield from self._missing(now_ns)
        else:
            yield from self._stale(now_ns, gap_ns, gap_end_ns)
            yield from self._off_rate(now_ns)
            yield from self._frozen()
            yield from self._sequence(now_ns)
            yield from self._delays(now_ns)
        yield from self._lost(now_ns)
        yield from self._qos(now_ns)

    def _finding(
        self, kind: Kind, since_ns: int, text: str, severity: Severity = "warning", until_ns: int | None = None
    ) -> Finding:
        return Finding(kind, self.expected.topic, since_ns, until_ns, severity, f"{self.expected.topic}: {text}")

    def _every(self) -> str:
        return f"a message every {duration(self.expected.period_s)}" if self.expected.rate_hz else "messages"

    def _missing(self, now_ns: int) -> Iterator[Finding]:
        waited_s = (now_ns - self._began_ns) / 1e9
        if waited_s < max(self._limits.missing_s, self._limits.stale_periods * self.expected.period_s):
            return
        if self.expected.rate_hz or self.expected.images:
            text = f"{self._every()} expected, none has ever come; start its publisher, or check name, namespace and domain"
            yield self._finding("missing", self._began_ns, f"{text}.", "error")
        else:
            text = "no message has come yet; if it comes rarely this is well, otherwise start its publisher"
            yield self._finding("missing", self._began_ns, f"{text}.")

    def _stale_s(self) -> float:
        """Return the silence that is too long; endless for what may come at any time."""
        if self.expected.rate_hz:
            return max(self._limits.stale_s, self._limits.stale_periods * self.expected.period_s)
        return UNRATED_STALE * self._limits.stale_s if self.expected.images else float("inf")

    def _stale(self, now_ns: int, gap_ns: int, gap_end_ns: int) -> Iterator[Finding]:
        limit_ns, last_ns = self._stale_s() * 1e9, self.watch.last_ns
        if max(gap_ns, now_ns - last_ns) > limit_ns:
            self.rate.restart()
        if gap_ns > limit_ns:
            yield self._silence(gap_end_ns - gap_ns, gap_ns, gap_end_ns)
        if now_ns - last_ns > limit_ns:
            yield self._silence(last_ns, now_ns - last_ns, None)

    def _silence(self, since_ns: int, silent_ns: int, until_ns: int | None) -> Finding:
        text = (
            f"{self._every()} expected, none came for {duration(silent_ns / 1e9)}; check its driver, cable and network."
        )
        return self._finding("stale", since_ns, text, "error", until_ns)

    def _off_rate(self, now_ns: int) -> Iterator[Finding]:
        share = self.rate.off
        if share is None or self.expected.rate_hz is None:
            return
        came = f"{self.expected.rate_hz:g} Hz expected, {self.rate.rate_hz:.3g} Hz came"
        slow = "check exposure time, USB and network load, or correct rate_hz in the embodiment"
        fast = "look for a second publisher, or correct rate_hz in the embodiment"
        severity: Severity = "error" if share < HALF else "warning"
        yield self._finding("rate", now_ns, f"{came}; {slow if share < 1 else fast}.", severity)

    def _frozen(self) -> Iterator[Finding]:
        for run in (self.watch.take_freeze(), self.watch.frozen()):
            if run is not None:
                yield self._frozen_run(run)

    def _frozen_run(self, run: Freeze) -> Finding:
        until_ns = run.until_ns if run.until_ns is not None else self.watch.last_ns
        text = (
            f"a new picture in every message expected, {run.frames} in a row are equal "
            f"({duration((until_ns - run.since_ns) / 1e9)}); restart the camera, unless a simulation stands still."
        )
        return self._finding("frozen", run.since_ns, text, "error", run.until_ns)

    def _sequence(self, now_ns: int) -> Iterator[Finding]:
        if self.broken and now_ns - self.watch.broken_ns < self._limits.quiet_s * 1e9:
            text = (
                "sequence numbers of one publisher expected, they went back or leapt: it was started again, or several "
                "publish; what was lost on the way is unknown for this episode."
            )
            yield self._finding("sequence", self.watch.broken_ns, text)

    def _lost(self, now_ns: int) -> Iterator[Finding]:
        middleware = self._settled
        if self.queue + middleware > self._lost_told:
            self._lost_ns = now_ns
        self._lost_told = self.queue + middleware
        if self._lost_ns is None or now_ns - self._lost_ns >= self._limits.quiet_s * 1e9:
            return
        parts = [f"{self.queue} in the recorder's queue"] if self.queue else []
        parts += [f"{middleware} on the way"] if middleware else []
        wayside = "raise network buffers and QoS depth, or use compressed images (`lehrling doctor` tells)"
        advice = "use a faster disk, fewer or compressed streams" if self.queue else wayside
        lost = " and ".join(parts) or "nothing in the end"
        text = f"every message expected, {lost} lost while {self.received} came; {advice}."
        yield self._finding("loss", now_ns, text, "error" if self.queue else "warning")

    def _qos(self, now_ns: int) -> Iterator[Finding]:
        if not self.qos:
            self._qos_ns = 0
            return
        self._qos_ns = self._qos_ns or now_ns
        yield self._finding("qos", self._qos_ns, self.qos, "error")

    def _delays(self, now_ns: int) -> Iterator[Finding]:
        delay = self.delay
        if self._leapt_ns:
            how = f"{'forward' if delay.leapt_ms > 0 else 'back'} by {duration(delay.leapt_ms / 1e3)}"
            text = (
                f"stamps at a steady distance from receipt expected, they leapt {how}: the sender's clock was set, or its "
                "latency changed for good; keep clocks from being set while recording (chrony without makestep)."
            )
            yield self._finding("clock", self._leapt_ns, text, "error", now_ns)
            self._leapt_ns = 0
        if delay.lagging:
            text = (
                f"messages within {duration(self._limits.lag_ms / 1e3)} of the shortest delay expected, they come "
                f"{duration(delay.lagging / 1e3)} late; look for load on network, sender or this computer."
            )
            yield self._finding("lag", now_ns, text)
        if delay.off_ms:
            where = "ahead of" if delay.off_ms > 0 else "behind"
            text = (
                f"stamps within {duration(self._limits.stamp_ms / 1e3)} of this computer's clock expected, they are "
                f"{duration(delay.off_ms / 1e3)} {where} it; synchronise clocks (chrony, PTP), or it is simulation time."
            )
            yield self._finding("stamp", now_ns, text)
