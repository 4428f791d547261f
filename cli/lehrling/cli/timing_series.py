"""What an episode's arrays say about timing over time, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lehrling.datasets.clock_fit import drift_told
from lehrling.datasets.embodiment import IMAGE_KINDS
from lehrling.datasets.episode import Episode
from lehrling.datasets.manifest import StreamTiming
from lehrling.datasets.receive_clock import ahead_if_set_ns, steady
from lehrling.datasets.timing import gap_limit_ns, nearest_ms

BINS_MAX, BIN_MESSAGES = 200, 5
Floats = NDArray[np.float64]
Spans = Sequence[tuple[float, float]]
"""Begin and length [s] from the episode's first receipt."""


@dataclass(frozen=True)
class Series:
    """One topic's timing over time, told by the first of the streams that it feeds.

    Attributes:
        names: of those streams.
        edges_s, rate_hz: edges of bins (B + 1,) and rate in each (B,).
        late_at_s, low_ms, middle_ms, high_ms: bins that hold messages (L,): least, median and largest latency.
        floor_ms: shortest latency by the fitted clock, at the edges (B + 1,); None where no drift is told.
        gaps, frozen: spans; silence at the episode's ends counts as a gap.
        lost_s: when a number was found missing (K,).
    """

    names: tuple[str, ...]
    wanted_hz: float | None
    stamped: bool
    edges_s: Floats
    rate_hz: Floats
    late_at_s: Floats
    low_ms: Floats
    middle_ms: Floats
    high_ms: Floats
    floor_ms: Floats | None
    gaps: Spans
    frozen: Spans
    lost_s: Floats


@dataclass(frozen=True)
class EpisodeSeries:
    """All topics that had at least two messages, and the cameras' skew by pair [ms]."""

    duration_s: float
    series: tuple[Series, ...]
    silent: tuple[str, ...]
    skew_ms: dict[str, Floats]


def episode_series(episode: Episode) -> EpisodeSeries:
    """Read an episode's times; images stay where they are."""
    streams = [episode.stream(name) for name in episode.streams]
    heard = [stream for stream in streams if len(stream) > 1]
    if not heard:
        return EpisodeSeries(0.0, (), episode.streams, {})
    ahead = ahead_if_set_ns(
        np.concatenate([s.received_ns for s in heard]), np.concatenate([s.monotonic_ns for s in heard])
    )
    receipts = {s.stream.name: steady(s.received_ns, s.monotonic_ns, ahead) for s in heard}
    first = min(int(times.min()) for times in receipts.values())
    since = {name: (times - first) / 1e9 for name, times in receipts.items()}
    duration = max(float(times.max()) for times in since.values())
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in since:
        groups.setdefault(tuple(source.topic for source in episode.binding.sources[name]), []).append(name)
    cameras = {s.stream.name: s.stamp_ns for s in heard if s.stream.kind in IMAGE_KINDS}
    return EpisodeSeries(
        duration,
        tuple(_series(episode, tuple(names), since[names[0]], duration) for names in groups.values()),
        tuple(stream.stream.name for stream in streams if len(stream) < 2),
        {f"{a} / {b}": apart for a, b in combinations(cameras, 2) if len(apart := nearest_ms(cameras[a], cameras[b]))},
    )


def _series(episode: Episode, names: tuple[str, ...], since_s: Floats, duration_s: float) -> Series:
    stream, sources = episode.stream(names[0]), episode.binding.sources[names[0]]
    rates = [source.rate_hz for source in sources if source.rate_hz]
    edges = _edges(len(since_s), duration_s)
    middles = (edges[:-1] + edges[1:]) / 2
    low, middle, high = _latencies(
        (stream.received_ns - stream.stamp_ns) / 1e6, np.digitize(since_s, edges[1:-1]), len(middles)
    )
    held = np.isfinite(middle)
    alone = len(sources) == 1
    numbered = alone and episode.record.timing[names[0]].dropped > 0
    return Series(
        names,
        sum(rates) if rates else None,
        stream.attributes["stamps"] == "header",
        edges,
        _rates(since_s, edges),
        middles[held],
        low[held],
        middle[held],
        high[held],
        _floor(episode.record.timing[names[0]], sources[0].latency_ms, edges) if alone else None,
        _gaps(stream.stamp_ns, since_s, duration_s) if alone else [],
        _frozen(episode, names[0], since_s),
        _lost(stream.sequence, since_s) if numbered else np.zeros(0),
    )


def _edges(count: int, duration_s: float) -> Floats:
    """Return bin edges (B + 1,): bins that hold a few messages each, and fit a picture."""
    bins = max(1, min(BINS_MAX, count // BIN_MESSAGES))
    return np.linspace(0.0, max(duration_s, 1e-3), bins + 1, dtype=np.float64)


def _rates(since_s: Floats, edges: Floats) -> Floats:
    """Return the rate in each bin, messages at its edges counted by their share."""
    ordered = np.sort(since_s)
    counted: Floats = np.interp(edges, ordered, np.arange(len(ordered), dtype=np.float64))
    rates: Floats = np.diff(counted) / np.diff(edges)
    return rates


def _latencies(latency_ms: Floats, bins: NDArray[np.int64], count: int) -> tuple[Floats, Floats, Floats]:
    """Return least, median and largest latency of each bin (B,), NaN where it holds no message."""
    found = np.full((3, count), np.nan)
    for k in np.unique(bins):
        inside = latency_ms[bins == k]
        found[:, k] = inside.min(), np.median(inside), inside.max()
    return found[0], found[1], found[2]


def _floor(timing: StreamTiming, prior_ms: float, at_s: Floats) -> Floats | None:
    offset, drift = timing.clock_offset_ms, timing.clock_drift_ppm
    if offset is None or drift is None or not drift_told(drift, timing.clock_drift_error_ppm):
        return None
    return prior_ms - offset - drift * (at_s - (timing.starts_s or 0.0)) / 1e3


def _lost(sequence: NDArray[np.int64], since_s: Floats) -> Floats:
    """Return when the first message after each missing number came."""
    order = np.argsort(sequence, kind="stable")
    return since_s[order][1:][np.diff(sequence[order]) > 1]


def _gaps(stamp_ns: NDArray[np.int64], since_s: Floats, duration_s: float) -> Spans:
    order = np.argsort(stamp_ns, kind="stable")
    intervals = np.diff(stamp_ns[order])
    limit = gap_limit_ns(intervals)
    found = [(float(since_s[order[k]]), float(intervals[k]) / 1e9) for k in np.flatnonzero(intervals > limit)]
    ends = [(0.0, float(since_s.min())), (float(since_s.max()), duration_s - float(since_s.max()))]
    return found + [(begin, length) for begin, length in ends if length * 1e9 > 2 * limit]


def _frozen(episode: Episode, name: str, since_s: Floats) -> Spans:
    """Return the longest freeze, as the manifest tells it."""
    timing = episode.record.timing.get(name)
    if timing is None or timing.max_freeze_at_s is None or not timing.max_freeze_frames:
        return []
    first = int(np.searchsorted(np.sort(since_s), timing.max_freeze_at_s - 1e-4))
    last = min(first + timing.max_freeze_frames, len(since_s) - 1)
    return [(timing.max_freeze_at_s, float(np.sort(since_s)[last]) - timing.max_freeze_at_s)]
