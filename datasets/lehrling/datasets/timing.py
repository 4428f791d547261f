"""The timing report of one episode: when its streams came, how late, by which clock, and what is missing.

Intervals (rate, jitter, gaps) are between stamps; latency is receipt minus stamp, as it is, clocks included; drift and steps
of the sender's clock come from `clock_fit`, which also says what cannot be told apart. Where a stream has several sources,
each is judged by itself and the worst is told. Times within the episode count from its first receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.clock_fit import fit_clock
from lehrling.datasets.embodiment import IMAGE_KINDS, Binding, Stream
from lehrling.datasets.journal_read import JournalContents
from lehrling.datasets.manifest import CameraSkew, StreamTiming
from lehrling.datasets.receive_clock import ahead_if_set_ns, clock_jump_ms, steady
from lehrling.datasets.rows import StreamRows, stream_rows
from lehrling.datasets.sequences import dropped

Times = NDArray[np.int64]

GAP_PERIODS, GAP_SPREADS = 1.5, 5.0


@dataclass(frozen=True)
class EpisodeTiming:
    """An episode's timing: per stream, between cameras, and of the receiver's clock."""

    streams: dict[str, StreamTiming]
    skew: dict[str, CameraSkew]
    clock_jump_ms: float | None


@dataclass(frozen=True)
class Span:
    """First and last receipt of an episode [ns], and realtime minus monotonic when it began, where realtime was set on the way."""

    first_ns: int
    last_ns: int
    ahead_ns: int | None = None


def episode_timing(contents: JournalContents, rows: Sequence[StreamRows]) -> EpisodeTiming:
    """Judge the timing of an episode from its rows."""
    return _judged(rows, lambda stream, span: _timing(contents, stream, span))


def rows_timing(binding: Binding, rows: Sequence[StreamRows]) -> EpisodeTiming:
    """Judge the timing of an episode of which only the rows are left; losses among several sources are not known then."""

    def judge(stream: StreamRows, span: Span) -> StreamTiming:
        sources = binding.sources[stream.name]
        if len(sources) == 1:
            return stream_timing(stream, span, sources[0].latency_ms)
        return replace(stream_timing(stream, span), dropped=-1)

    return _judged(rows, judge)


def _judged(rows: Sequence[StreamRows], judge: Callable[[StreamRows, Span], StreamTiming]) -> EpisodeTiming:
    known = [r for r in rows if len(r)]
    if not known:
        return EpisodeTiming({r.name: stream_timing(r, Span(0, 0)) for r in rows}, {}, None)
    received = np.concatenate([r.received_ns for r in known])
    monotonic = np.concatenate([r.monotonic_ns for r in known])
    ahead = ahead_if_set_ns(received, monotonic)
    receipts = steady(received, monotonic, ahead)
    span = Span(int(receipts.min()), int(receipts.max()), ahead)
    cameras = {r.name: r.stamp_ns for r in known if r.stream.kind in IMAGE_KINDS}
    return EpisodeTiming(
        {r.name: judge(r, span) for r in rows},
        {f"{a}/{b}": skew for a, b in combinations(cameras, 2) if (skew := camera_skew(cameras[a], cameras[b]))},
        _rounded(clock_jump_ms(received, monotonic)),
    )


def _timing(contents: JournalContents, rows: StreamRows, span: Span) -> StreamTiming:
    sources = contents.embodiment.binding.sources[rows.name]
    if len(sources) == 1:
        return stream_timing(rows, span, sources[0].latency_ms)
    parts = []
    for source in sources:
        alone = _of_source(contents, rows.stream, source.topic)
        if len(alone):
            parts.append(stream_timing(alone, span, source.latency_ms))
    return _worst(stream_timing(rows, span), parts) if len(parts) > 1 else (parts or [stream_timing(rows, span)])[0]


def _of_source(contents: JournalContents, stream: Stream, topic: str) -> StreamRows:
    """Return the rows that one of a stream's sources gave."""
    embodiment = contents.embodiment
    kept = tuple(s for s in embodiment.binding.sources[stream.name] if s.topic == topic)
    binding = embodiment.binding.model_copy(update={"sources": {**embodiment.binding.sources, stream.name: kept}})
    return stream_rows(replace(contents, embodiment=embodiment.model_copy(update={"binding": binding})), stream)


def _worst(whole: StreamTiming, parts: Sequence[StreamTiming]) -> StreamTiming:
    """Return what is true of all rows together, and of the worst source where that has no meaning."""

    def largest(name: str) -> Any:
        return max((v for p in parts if (v := getattr(p, name)) is not None), key=abs, default=None)

    longest = max(parts, key=lambda part: part.max_gap_ms)
    offset = max(parts, key=lambda part: abs(part.clock_offset_ms or 0.0))
    drift = max(parts, key=lambda part: abs(part.clock_drift_ppm or 0.0))
    lost = [part.dropped for part in parts]
    return replace(
        whole,
        max_gap_ms=longest.max_gap_ms,
        max_gap_at_s=longest.max_gap_at_s,
        jitter_ms=largest("jitter_ms"),
        dropped=-1 if min(lost) < 0 else sum(lost),
        gaps=sum(part.gaps or 0 for part in parts),
        starts_s=largest("starts_s"),
        ends_s=largest("ends_s"),
        clock_offset_ms=offset.clock_offset_ms,
        clock_drift_ppm=drift.clock_drift_ppm,
        clock_drift_error_ppm=drift.clock_drift_error_ppm,
        clock_step_ms=largest("clock_step_ms"),
        out_of_order=sum(part.out_of_order or 0 for part in parts),
        duplicates=sum(part.duplicates or 0 for part in parts),
    )


def stream_timing(rows: StreamRows, span: Span, latency_prior_ms: float = 0.0) -> StreamTiming:
    """Judge one source's rows; `latency_prior_ms` is the known shortest latency, without which no offset can be told."""
    stamp, received = rows.stamp_ns, rows.received_ns
    count, lost = len(stamp), dropped(rows.sequence, stamp, received)
    if not count:
        return StreamTiming(0, 0.0, 0.0, 0.0, 0.0, 0.0, lost)
    receipts = steady(received, rows.monotonic_ns, span.ahead_ns)
    latency_ms = (received - stamp) / 1e6
    timing = StreamTiming(
        count,
        **_intervals(stamp, receipts - span.first_ns),
        latency_ms=round(float(latency_ms.mean()), 4),
        dropped=lost,
        starts_s=round((int(receipts.min()) - span.first_ns) / 1e9, 4),
        ends_s=round((span.last_ns - int(receipts.max())) / 1e9, 4),
        latency_p50_ms=_rounded(float(np.percentile(latency_ms, 50))),
        latency_p99_ms=_rounded(float(np.percentile(latency_ms, 99))),
        latency_max_ms=_rounded(float(latency_ms.max())),
        out_of_order=int((stamp < np.maximum.accumulate(stamp)).sum()),
        duplicates=count - len(np.unique(stamp)),
    )
    if rows.stamped:
        timing = _with_clock(timing, stamp, receipts, latency_prior_ms)
    return _with_freezes(timing, rows, receipts - span.first_ns) if rows.stream.kind in IMAGE_KINDS else timing


def _intervals(stamp_ns: Times, since_ns: Times) -> dict[str, Any]:
    """Return rate, jitter and gaps; `since_ns` (N,) are receipts from the beginning of the episode."""
    if len(stamp_ns) < 2:
        return {"rate_hz": 0.0, "mean_gap_ms": 0.0, "max_gap_ms": 0.0, "jitter_ms": 0.0, "gaps": 0}
    order = np.argsort(stamp_ns, kind="stable")
    gaps = np.diff(stamp_ns[order])
    span_s, longest = float(gaps.sum()) / 1e9, int(gaps.argmax())
    return {
        "rate_hz": round(len(gaps) / span_s, 4) if span_s > 0 else 0.0,
        "mean_gap_ms": round(float(gaps.mean()) / 1e6, 4),
        "max_gap_ms": round(float(gaps.max()) / 1e6, 4),
        "jitter_ms": round(float(gaps.std()) / 1e6, 4),
        "gaps": int((gaps > gap_limit_ns(gaps)).sum()),
        "max_gap_at_s": round(int(since_ns[order[longest]]) / 1e9, 4),
    }


def gap_limit_ns(intervals_ns: Times) -> float:
    """Return the interval above which one is a gap: 1.5 median ones, more where intervals scatter widely."""
    middle = float(np.median(intervals_ns))
    scatter = 1.4826 * float(np.median(np.abs(intervals_ns - middle)))
    return max(GAP_PERIODS * middle, middle + GAP_SPREADS * scatter)


def _with_clock(timing: StreamTiming, stamp: Times, receipts: Times, prior_ms: float) -> StreamTiming:
    fit = fit_clock(stamp, receipts)
    if fit is None:
        return timing
    return replace(
        timing,
        clock_offset_ms=_rounded(prior_ms - fit.floor_ms),
        clock_drift_ppm=_rounded(fit.drift_ppm),
        clock_drift_error_ppm=_rounded(fit.drift_error_ppm),
        clock_step_ms=_rounded(fit.step_ms),
    )


def _with_freezes(timing: StreamTiming, rows: StreamRows, since_ns: Times) -> StreamTiming:
    """Add frames that equal the one before, and the longest run of such."""
    same = [_equal(a, b) for a, b in zip(rows.values, rows.values[1:], strict=False)]
    longest, at, run = 0, 0, 0
    for index, frozen in enumerate(same):
        run = run + 1 if frozen else 0
        if run > longest:
            longest, at = run, index + 1 - run
    since = round(int(since_ns[at]) / 1e9, 4) if longest else None
    return replace(timing, frozen=sum(same), max_freeze_frames=longest, max_freeze_at_s=since)


def _equal(frame: Any, other: Any) -> bool:
    return frame == other if isinstance(frame, bytes) else bool(np.array_equal(frame, other))


def camera_skew(stamp_ns: Times, other_ns: Times) -> CameraSkew | None:
    """Return how far apart two cameras' closest frames are stamped, while both ran; None where they never did.

    Stamps are taken as they are: what they differ by because of their clocks is skew, too, to whoever aligns by stamps.
    """
    differences = nearest_ms(stamp_ns, other_ns)
    if not len(differences):
        return None
    apart = np.abs(differences)
    mean, p99 = float(apart.mean()), float(np.percentile(apart, 99))
    return CameraSkew(round(mean, 3), round(p99, 3), round(float(differences.mean()), 3))


def nearest_ms(stamp_ns: Times, other_ns: Times) -> NDArray[np.float64]:
    """Return, for each frame of the slower camera while both ran, the other's closest stamp: other minus first [ms]."""
    sign = 1.0
    if len(other_ns) < len(stamp_ns):
        stamp_ns, other_ns, sign = other_ns, stamp_ns, -1.0
    if not len(stamp_ns):
        return np.zeros(0)
    ordered = np.sort(other_ns)
    margin = int(np.median(np.diff(ordered))) if len(ordered) > 1 else 0
    stamps = stamp_ns[(stamp_ns >= ordered[0] - margin) & (stamp_ns <= ordered[-1] + margin)]
    right = np.searchsorted(ordered, stamps).clip(1, max(1, len(ordered) - 1))
    left = right - 1
    right = right.clip(0, len(ordered) - 1)
    before, after = ordered[left] - stamps, ordered[right] - stamps
    return sign * np.where(np.abs(before) <= np.abs(after), before, after) / 1e6


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3) + 0.0
